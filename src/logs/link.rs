//! PID 1's end of the way to the logger: packets in their order, and nobody waits. What is logged anywhere in keepalive
//! goes here while there is a logger, so it is the process's, as stderr is.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard};

use log::Level;

use super::line::OwnStyle;
use super::message::Message;
use crate::sys::packet;

/// So many lines of keepalive's own may wait; further ones are dropped and counted. What the logger must know always
/// finds a place: there are never more of these than starts, ends and clients.
const OWN_LINES_AT_MOST: usize = 1_000;

static STATE: Mutex<State> =
    Mutex::new(State { style: None, way: None, queue: VecDeque::new(), own: 0, lost: 0, lost_ever: 0 });

struct State {
    /// How keepalive's own lines look where no logger writes them; `None`: as if there were no configuration.
    style: Option<OwnStyle>,
    way: Option<Way>,
    queue: VecDeque<(Message, Option<OwnedFd>)>,
    /// How many of them are keepalive's own lines.
    own: usize,
    /// How many were dropped since one got through.
    lost: u64,
    lost_ever: u64,
}

struct Way {
    socket: OwnedFd,
    /// There is nobody at the other end for some time: own lines go to stderr.
    is_deserted: bool,
}

fn state() -> MutexGuard<'static, State> {
    // There is one thread, and nothing here panics.
    STATE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// How keepalive's own lines look from now on.
pub fn set_style(style: OwnStyle) {
    state().style = Some(style);
}

pub(super) fn style() -> OwnStyle {
    state().style.unwrap_or_default()
}

/// From now on lines go to the logger that reads from the other end of `socket`.
pub fn connect(socket: OwnedFd) {
    state().way = Some(Way { socket, is_deserted: false });
}

/// From now on lines go to stderr again. What still waits is given up.
pub fn disconnect() {
    let mut state = state();
    (state.way, state.own) = (None, 0);
    state.queue.clear();
}

/// There is nobody at the other end for some time: lines go to stderr until [`resume`].
pub fn divert() {
    if let Some(way) = &mut state().way {
        way.is_deserted = true;
    }
}

/// There is somebody again.
pub fn resume() {
    if let Some(way) = &mut state().way {
        way.is_deserted = false;
    }
}

/// How many lines of keepalive's own were dropped as too many waited.
#[must_use]
pub fn lost() -> u64 {
    state().lost_ever
}

/// Tells the logger something, in its order.
pub fn tell(message: Message, descriptor: Option<OwnedFd>) {
    let mut state = state();
    state.queue.push_back((message, descriptor));
    state.flush();
}

/// A line of keepalive's own.
///
/// # Errors
/// The line: there is nobody who takes it.
pub(super) fn own_line(level: Level, milliseconds: u64, text: String) -> Result<(), String> {
    let mut state = state();
    if state.way.as_ref().is_none_or(|way| way.is_deserted) {
        return Err(text);
    }
    state.flush();
    if state.own >= OWN_LINES_AT_MOST {
        state.lost += 1;
        state.lost_ever += 1;
        return Ok(());
    }
    if state.lost > 0 {
        let text = format!("{} messages were lost: the logger was busy", std::mem::take(&mut state.lost));
        state.queue.push_back((Message::Own { level: Level::Warn, milliseconds, text }, None));
        state.own += 1;
    }
    state.queue.push_back((Message::Own { level, milliseconds, text }, None));
    state.own += 1;
    state.flush();
    Ok(())
}

/// Sends what waits, as far as it is taken. Whether something still waits, for the socket to become writable.
pub fn flush() -> bool {
    let mut state = state();
    state.flush();
    !state.queue.is_empty()
}

/// Calls `act` with PID 1's end of the socket, if there is a way to a logger.
pub fn with_socket<T>(act: impl FnOnce(BorrowedFd<'_>) -> T) -> Option<T> {
    let state = state();
    state.way.as_ref().map(|way| act(way.socket.as_fd()))
}

impl State {
    fn flush(&mut self) {
        let Some(way) = &self.way else { return };
        while let Some((message, descriptor)) = self.queue.front() {
            if packet::send(&way.socket, &message.encode(), descriptor.as_ref().map(AsFd::as_fd)).is_err() {
                return;
            }
            self.own -= usize::from(matches!(message, Message::Own { .. }));
            self.queue.pop_front();
        }
    }
}

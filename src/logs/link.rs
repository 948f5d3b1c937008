//! PID 1's end of the way to the logger: packets in their order, and nobody waits. What is logged anywhere in keepalive
//! goes here while there is a logger, so it is the process's, as stderr is.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard};

use log::Level;

use super::line::OwnStyle;
use super::message::Message;
use crate::sys::packet;

/// So many lines of keepalive's own may wait; further ones are dropped and counted.
const OWN_LINES_AT_MOST: usize = 1_000;
/// With so much waiting the logger hears no more of what it can do without: ends, which only give lines their order.
const WAITING_AT_MOST: usize = 8_000;

static STATE: Mutex<State> =
    Mutex::new(State { style: None, way: None, queue: VecDeque::new(), own: 0, lost: 0, lost_ever: 0 });

struct State {
    /// How keepalive's own lines look where no logger writes them; `None`: as if there were no configuration.
    style: Option<OwnStyle>,
    way: Option<LoggerChannel>,
    queue: VecDeque<(Message, Option<OwnedFd>)>,
    /// How many of them are keepalive's own lines.
    own: usize,
    /// How many were dropped since one got through.
    lost: u64,
    lost_ever: u64,
}

struct LoggerChannel {
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
    state().way = Some(LoggerChannel { socket, is_deserted: false });
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
    if state.queue.len() < WAITING_AT_MOST || !matches!(message, Message::Ended { .. }) {
        state.queue.push_back((message, descriptor));
    }
    state.flush();
}

/// Whether so much waits already that nobody new should be sent that way.
#[must_use]
pub fn is_crowded() -> bool {
    state().queue.len() >= OWN_LINES_AT_MOST
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
        let text = format!("{} messages were dropped: the logger was busy", std::mem::take(&mut state.lost));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::packet::{pair, receive};

    fn received(socket: &OwnedFd) -> Vec<Message> {
        let mut buffer = vec![0; 32 << 10];
        let next = || receive(socket, &mut buffer).ok().and_then(|(length, _)| Message::decode(&buffer[..length]));
        std::iter::from_fn(next).collect()
    }

    fn own(text: &str) -> Message {
        Message::Own { level: Level::Info, milliseconds: 7, text: text.to_owned() }
    }

    // One test, as there is one way.
    #[test]
    fn what_is_told_arrives_in_order_and_what_is_too_much_is_counted() {
        let say = |text: &str| own_line(Level::Info, 7, text.to_owned());
        assert_eq!(say("nobody is there"), Err("nobody is there".to_owned()));
        let (near_end, peer) = pair().unwrap();
        connect(near_end);
        let ended = |slot| Message::Ended { slot };
        tell(ended(1), None);
        assert_eq!(say("one"), Ok(()));
        tell(ended(2), None);
        assert_eq!(received(&peer), [ended(1), own("one"), ended(2)]);
        assert!(!flush(), "nothing waits");

        let before = lost();
        let long = "x".repeat(10_000);
        let mut said = 0;
        while lost() == before {
            say(&long).unwrap();
            said += 1;
        }
        assert!(flush() && is_crowded());
        for slot in 0..20_000 {
            tell(ended(slot), None);
        }
        let (mut lines, mut ends) = (0, 0);
        loop {
            let some = received(&peer);
            if some.is_empty() {
                break;
            }
            lines += some.iter().filter(|message| **message == own(&long)).count();
            ends += some.iter().filter(|message| matches!(message, Message::Ended { .. })).count();
            flush();
        }
        assert_eq!(lines, said - 1, "all but the one that is counted");
        assert!(ends < WAITING_AT_MOST, "{ends}");
        say("at last").unwrap();
        let lost = Message::Own {
            level: Level::Warn,
            milliseconds: 7,
            text: "1 messages were dropped: the logger was busy".to_owned(),
        };
        assert_eq!(received(&peer), [lost, own("at last")]);
        divert();
        assert!(say("diverted").is_err());
        resume();
        say("resumed").unwrap();
        disconnect();
        assert!(say("nobody is there any more").is_err());
        assert_eq!(received(&peer), [own("resumed")]);
    }
}

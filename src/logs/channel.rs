//! PID 1's end of the socket to the logger: a queue of packets, which the logger gets in the order in which they were sent.
//!
//! Sending never waits: what the socket does not take stays in the queue, and messages beyond a limit are dropped and
//! counted. Messages come from anywhere in the process, so this is a static, as stderr is.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard};

use log::Level;

use super::line::MessageStyle;
use super::protocol::{LastLines, LastLinesQuery, MAX_LAST_LINES_BYTES, Message};
use crate::sys::packet;

/// How many messages of keepalive itself the queue holds; further ones are dropped and counted.
const MAX_QUEUED_MESSAGES: usize = 1_000;
/// How many packets the queue holds before [`Message::RunEnded`] is dropped, which only affects the order of lines.
const MAX_QUEUED_PACKETS: usize = 8_000;

/// The longest answer of the logger.
const MAX_ANSWER_BYTES: usize = MAX_LAST_LINES_BYTES + 64;

static STATE: Mutex<State> = Mutex::new(State {
    style: None,
    logger: None,
    queue: VecDeque::new(),
    queued_messages: 0,
    dropped: 0,
    dropped_total: 0,
    last_lines: None,
});

struct State {
    /// The format of messages that go to stderr directly; `None`: no configuration has been loaded.
    style: Option<MessageStyle>,
    logger: Option<LoggerSocket>,
    queue: VecDeque<(Message, Option<OwnedFd>)>,
    /// How many [`Message::Log`] the queue holds.
    queued_messages: usize,
    /// How many messages were dropped since the last one that was queued.
    dropped: u64,
    dropped_total: u64,
    /// See [`with_last_lines`].
    last_lines: Option<LastLinesQuery>,
}

struct LoggerSocket {
    socket: OwnedFd,
    /// No logger reads from the socket at present: messages go to stderr.
    is_diverted: bool,
}

fn state() -> MutexGuard<'static, State> {
    // There is one thread, and nothing here panics.
    STATE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Sets the format of messages that go to stderr directly.
pub fn set_style(style: MessageStyle) {
    state().style = Some(style);
}

pub(super) fn style() -> MessageStyle {
    state().style.unwrap_or_default()
}

/// Sends all further messages to the logger at the other end of `socket`.
pub fn connect(socket: OwnedFd) {
    state().logger = Some(LoggerSocket { socket, is_diverted: false });
}

/// Sends all further messages to stderr, and drops the queue.
pub fn disconnect() {
    let mut state = state();
    (state.logger, state.queued_messages) = (None, 0);
    state.queue.clear();
}

/// Sends messages to stderr until [`use_logger`], since no logger runs at present. The queue stays.
pub fn use_stderr() {
    if let Some(logger) = &mut state().logger {
        logger.is_diverted = true;
    }
}

/// Sends messages to the logger again.
pub fn use_logger() {
    if let Some(logger) = &mut state().logger {
        logger.is_diverted = false;
    }
}

/// How many messages were dropped since the start, because [`MAX_QUEUED_MESSAGES`] were queued.
#[must_use]
pub fn dropped_messages() -> u64 {
    state().dropped_total
}

/// Queues `message`, with a descriptor for the logger if it needs one, and sends what the socket takes.
pub fn send(message: Message, descriptor: Option<OwnedFd>) {
    let mut state = state();
    if state.queue.len() < MAX_QUEUED_PACKETS || !matches!(message, Message::RunEnded(_)) {
        state.queue.push_back((message, descriptor));
    }
    state.flush();
}

/// Calls `log`. The logger adds these last lines to the messages that it logs.
pub fn with_last_lines(query: Option<LastLinesQuery>, log: impl FnOnce()) {
    state().last_lines = query;
    log();
    state().last_lines = None;
}

/// The next answer of the logger, if there is one.
#[must_use]
pub fn receive() -> Option<LastLines> {
    let mut packet = [0; MAX_ANSWER_BYTES];
    let (length, _) = with_socket(|socket| packet::receive(socket, &mut packet))?.ok()?;
    packet.get(..length).and_then(LastLines::decode)
}

/// Whether the queue is so long that no client or pipe should be added to it.
#[must_use]
pub fn is_congested() -> bool {
    state().queue.len() >= MAX_QUEUED_MESSAGES
}

/// Queues a message of keepalive itself.
///
/// # Errors
/// `text`: no logger runs.
pub(super) fn send_message(level: Level, milliseconds: u64, text: String) -> Result<(), String> {
    let mut state = state();
    if state.logger.as_ref().is_none_or(|logger| logger.is_diverted) {
        return Err(text);
    }
    state.flush();
    if state.queued_messages >= MAX_QUEUED_MESSAGES {
        state.dropped += 1;
        state.dropped_total += 1;
        return Ok(());
    }
    if state.dropped > 0 {
        let text = format!("messages dropped because the logger was busy: {}", std::mem::take(&mut state.dropped));
        state.queue.push_back((Message::Log { level: Level::Warn, milliseconds, text, last_lines: None }, None));
        state.queued_messages += 1;
    }
    let last_lines = state.last_lines.clone();
    state.queue.push_back((Message::Log { level, milliseconds, text, last_lines }, None));
    state.queued_messages += 1;
    state.flush();
    Ok(())
}

/// Sends as much of the queue as the socket takes. Returns whether something is left, to be sent when it is writable.
pub fn flush() -> bool {
    let mut state = state();
    state.flush();
    !state.queue.is_empty()
}

/// Calls `act` with PID 1's end of the socket, unless there is none.
pub fn with_socket<T>(act: impl FnOnce(BorrowedFd<'_>) -> T) -> Option<T> {
    let state = state();
    state.logger.as_ref().map(|logger| act(logger.socket.as_fd()))
}

impl State {
    fn flush(&mut self) {
        let Some(logger) = &self.logger else { return };
        while let Some((message, descriptor)) = self.queue.front() {
            if packet::send(&logger.socket, &message.encode(), descriptor.as_ref().map(AsFd::as_fd)).is_err() {
                return;
            }
            self.queued_messages -= usize::from(matches!(message, Message::Log { .. }));
            self.queue.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::protocol::RunKey;
    use crate::model::RunId;
    use crate::sys::packet::{pair, receive};

    fn received(socket: &OwnedFd) -> Vec<Message> {
        let mut buffer = vec![0; 32 << 10];
        let next = || receive(socket, &mut buffer).ok().and_then(|(length, _)| Message::decode(&buffer[..length]));
        std::iter::from_fn(next).collect()
    }

    fn message(text: &str) -> Message {
        Message::Log { level: Level::Info, milliseconds: 7, text: text.to_owned(), last_lines: None }
    }

    // A single test, since the state is static.
    #[test]
    fn packets_arrive_in_order_and_dropped_messages_are_counted() {
        let say = |text: &str| send_message(Level::Info, 7, text.to_owned());
        assert_eq!(say("nobody is there"), Err("nobody is there".to_owned()));
        let (near_end, peer) = pair().unwrap();
        connect(near_end);
        let ended = |run| Message::RunEnded(RunKey::new(1, RunId::new(run)));
        send(ended(1), None);
        assert_eq!(say("one"), Ok(()));
        send(ended(2), None);
        assert_eq!(received(&peer), [ended(1), message("one"), ended(2)]);
        assert!(!flush(), "nothing waits");

        let before = dropped_messages();
        let long = "x".repeat(10_000);
        let mut said = 0;
        while dropped_messages() == before {
            say(&long).unwrap();
            said += 1;
        }
        assert!(flush() && is_congested());
        for slot in 0..20_000 {
            send(ended(slot), None);
        }
        let (mut lines, mut ends) = (0, 0);
        loop {
            let some = received(&peer);
            if some.is_empty() {
                break;
            }
            lines += some.iter().filter(|received| **received == message(&long)).count();
            ends += some.iter().filter(|message| matches!(message, Message::RunEnded { .. })).count();
            flush();
        }
        assert_eq!(lines, said - 1, "all but the one that is counted");
        assert!(ends < MAX_QUEUED_PACKETS, "{ends}");
        say("at last").unwrap();
        let dropped = Message::Log {
            level: Level::Warn,
            milliseconds: 7,
            text: "messages dropped because the logger was busy: 1".to_owned(),
            last_lines: None,
        };
        assert_eq!(received(&peer), [dropped, message("at last")]);
        use_stderr();
        assert!(say("diverted").is_err());
        use_logger();
        say("resumed").unwrap();
        disconnect();
        assert!(say("nobody is there any more").is_err());
        assert_eq!(received(&peer), [message("resumed")]);
    }
}

//! What the poller can report, as the one word that epoll(7) keeps for each descriptor.

use crate::model::Pid;

/// A descriptor, or a group of them, that is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// The signal queue.
    Signals,
    /// The pipe by which a new process reports whether its program runs.
    ExecResult(Pid),
    /// The pipe that the logger holds open for as long as it lives.
    LoggerExited,
    /// The socket to the logger, which was full.
    LoggerWritable,
    /// The socket of sd_notify(3).
    Notify,
    /// The pidfd of a main process that may not be our child.
    MainPidExited(Pid),
    /// A descriptor of the descriptor store, by its number there.
    StoredFd(u64),
    /// What a readiness probe of this main process waits for.
    Probe(Pid),
    /// The ipc channel of this main process.
    Channel(Pid),
    /// Connections to the control socket.
    ControlListener,
    /// Connections to the HTTP port.
    HttpListener,
    /// A connection of the control server, by its number there.
    Client(u64),
}

/// The bits below the kind.
const PAYLOAD_BITS: u32 = 56;
const PAYLOAD: u64 = (1 << PAYLOAD_BITS) - 1;

impl From<Token> for u64 {
    fn from(token: Token) -> Self {
        let (kind, payload) = match token {
            Token::Signals => (1, 0),
            Token::ExecResult(pid) => (2, word(pid)),
            Token::LoggerExited => (3, 0),
            Token::LoggerWritable => (4, 0),
            Token::Notify => (5, 0),
            Token::MainPidExited(pid) => (6, word(pid)),
            Token::StoredFd(number) => (7, number),
            Token::Probe(pid) => (8, word(pid)),
            Token::Channel(pid) => (9, word(pid)),
            Token::ControlListener => (10, 0),
            Token::HttpListener => (11, 0),
            Token::Client(number) => (12, number),
        };
        (kind << PAYLOAD_BITS) | (payload & PAYLOAD)
    }
}

impl Token {
    /// The token that was made into this word; `None`: none was.
    pub(super) fn decode(word: u64) -> Option<Self> {
        let payload = word & PAYLOAD;
        Some(match (word >> PAYLOAD_BITS, payload) {
            (1, 0) => Self::Signals,
            (2, _) => Self::ExecResult(pid(payload)?),
            (3, 0) => Self::LoggerExited,
            (4, 0) => Self::LoggerWritable,
            (5, 0) => Self::Notify,
            (6, _) => Self::MainPidExited(pid(payload)?),
            (7, _) => Self::StoredFd(payload),
            (8, _) => Self::Probe(pid(payload)?),
            (9, _) => Self::Channel(pid(payload)?),
            (10, 0) => Self::ControlListener,
            (11, 0) => Self::HttpListener,
            (12, _) => Self::Client(payload),
            _ => return None,
        })
    }
}

fn word(pid: Pid) -> u64 {
    pid.get().unsigned_abs().into()
}

fn pid(payload: u64) -> Option<Pid> {
    i32::try_from(payload).ok().and_then(Pid::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_token_is_decoded_as_what_it_was() {
        let tokens = [1, i32::MAX].map(|number| Pid::new(number).unwrap()).into_iter().flat_map(|pid| {
            [Token::ExecResult(pid), Token::MainPidExited(pid), Token::Probe(pid), Token::Channel(pid)]
        });
        let numbered = [0, 1, PAYLOAD].into_iter().flat_map(|number| [Token::StoredFd(number), Token::Client(number)]);
        let single = [
            Token::Signals,
            Token::LoggerExited,
            Token::LoggerWritable,
            Token::Notify,
            Token::ControlListener,
            Token::HttpListener,
        ];
        for token in tokens.chain(numbered).chain(single) {
            assert_eq!(Token::decode(token.into()), Some(token));
        }
    }

    #[test]
    fn a_word_that_no_token_was_made_into_is_not_decoded() {
        let unknown = [
            0,
            u64::from(Token::Signals) + 1,
            u64::from(Token::HttpListener) + 1,
            2 << PAYLOAD_BITS,
            (8 << PAYLOAD_BITS) | 0x8000_0000,
            13 << PAYLOAD_BITS,
            u64::MAX,
        ];
        for word in unknown {
            assert_eq!(Token::decode(word), None, "{word:#x}");
        }
    }
}

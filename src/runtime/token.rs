//! What the poller can report, as the one word that epoll(7) keeps for each descriptor.

use crate::model::RunId;

/// A descriptor, or a group of them, that is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// The signal queue.
    Signals,
    /// The pipe by which a new process reports whether its program runs.
    ExecResult(RunId),
    /// The pipe that the logger holds open for as long as it lives.
    LoggerExited,
    /// The socket to the logger, which was full.
    LoggerWritable,
    /// The socket of sd_notify(3).
    Notify,
    /// The pidfd of a main process that may not be our child.
    MainPidExited(RunId),
    /// A descriptor of the descriptor store, by its number there.
    StoredFd(u64),
    /// What the readiness probe of this run waits for.
    Probe(RunId),
    /// The ipc channel of this run.
    Channel(RunId),
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
            Token::ExecResult(run) => (2, run.get()),
            Token::LoggerExited => (3, 0),
            Token::LoggerWritable => (4, 0),
            Token::Notify => (5, 0),
            Token::MainPidExited(run) => (6, run.get()),
            Token::StoredFd(number) => (7, number),
            Token::Probe(run) => (8, run.get()),
            Token::Channel(run) => (9, run.get()),
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
            (2, _) => Self::ExecResult(RunId::new(payload)),
            (3, 0) => Self::LoggerExited,
            (4, 0) => Self::LoggerWritable,
            (5, 0) => Self::Notify,
            (6, _) => Self::MainPidExited(RunId::new(payload)),
            (7, _) => Self::StoredFd(payload),
            (8, _) => Self::Probe(RunId::new(payload)),
            (9, _) => Self::Channel(RunId::new(payload)),
            (10, 0) => Self::ControlListener,
            (11, 0) => Self::HttpListener,
            (12, _) => Self::Client(payload),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_token_is_decoded_as_what_it_was() {
        let tokens = [1, PAYLOAD].map(RunId::new).into_iter().flat_map(|run| {
            [Token::ExecResult(run), Token::MainPidExited(run), Token::Probe(run), Token::Channel(run)]
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
        let unknown =
            [0, u64::from(Token::Signals) + 1, u64::from(Token::HttpListener) + 1, 13 << PAYLOAD_BITS, u64::MAX];
        for word in unknown {
            assert_eq!(Token::decode(word), None, "{word:#x}");
        }
    }
}

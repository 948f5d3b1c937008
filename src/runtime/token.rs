//! The tokens that identify descriptors in epoll(7), encoded as 64 bits.

use crate::model::RunId;

/// A descriptor that the event loop waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// The signal queue.
    Signals,
    /// The pipe on which a new process reports the result of its execve.
    ExecResult(RunId),
    /// The pipe on which a helper process of a service reports the result of its execve.
    HelperExecResult,
    /// The pipe that closes when the logger exits.
    LoggerExited,
    /// The socket to the logger: it was full and is writable again.
    LoggerSocket,
    /// The timer that expires if a pipe holds up the logger.
    LoggerTimer,
    /// The socket of sd_notify(3) of this run.
    Notify(RunId),
    /// The pidfd of a main process that may not be a child of keepalive.
    MainPidExited(RunId),
    /// A process that holds stored descriptors, by its number there.
    DescriptorHolder(u64),
    /// The connection or pipe of the readiness probe of this run.
    Probe(RunId),
    /// The connection of the health check of this run.
    Check(RunId),
    /// The ipc channel of this run.
    Channel(RunId),
    /// Connections to the control socket.
    ControlListener,
    /// Connections to the HTTP port.
    HttpListener,
    /// A client of the control server, by its number there.
    Client(u64),
    /// The pipe of an inspector, by its number there.
    Inspector(u64),
    /// The pidfd of the process that shares keepalive's descriptors.
    Holder,
    /// The counter of OOM kills.
    OomCounter,
    /// The timer of schedules.
    WallTimer,
    /// The process that watches the files of the service at this position.
    Watcher(u64),
}

/// The number of bits below the kind of token.
const PAYLOAD_BITS: u32 = 56;
const PAYLOAD: u64 = (1 << PAYLOAD_BITS) - 1;

impl From<Token> for u64 {
    fn from(token: Token) -> Self {
        let (kind, payload) = match token {
            Token::Signals => (1, 0),
            Token::ExecResult(run) => (2, run.get()),
            Token::LoggerExited => (3, 0),
            Token::LoggerSocket => (4, 0),
            Token::Notify(run) => (5, run.get()),
            Token::MainPidExited(run) => (6, run.get()),
            Token::DescriptorHolder(number) => (7, number),
            Token::Probe(run) => (8, run.get()),
            Token::Channel(run) => (9, run.get()),
            Token::ControlListener => (10, 0),
            Token::HttpListener => (11, 0),
            Token::Client(number) => (12, number),
            Token::Inspector(number) => (13, number),
            Token::OomCounter => (14, 0),
            Token::HelperExecResult => (15, 0),
            Token::LoggerTimer => (16, 0),
            Token::Check(run) => (17, run.get()),
            Token::Holder => (18, 0),
            Token::WallTimer => (19, 0),
            Token::Watcher(number) => (20, number),
        };
        (kind << PAYLOAD_BITS) | (payload & PAYLOAD)
    }
}

impl Token {
    /// The inverse of `u64::from`; `None` if no token has this encoding.
    pub(super) fn decode(word: u64) -> Option<Self> {
        let payload = word & PAYLOAD;
        Some(match (word >> PAYLOAD_BITS, payload) {
            (1, 0) => Self::Signals,
            (2, _) => Self::ExecResult(RunId::new(payload)),
            (3, 0) => Self::LoggerExited,
            (4, 0) => Self::LoggerSocket,
            (5, _) => Self::Notify(RunId::new(payload)),
            (6, _) => Self::MainPidExited(RunId::new(payload)),
            (7, _) => Self::DescriptorHolder(payload),
            (8, _) => Self::Probe(RunId::new(payload)),
            (9, _) => Self::Channel(RunId::new(payload)),
            (10, 0) => Self::ControlListener,
            (11, 0) => Self::HttpListener,
            (12, _) => Self::Client(payload),
            (13, _) => Self::Inspector(payload),
            (14, 0) => Self::OomCounter,
            (15, 0) => Self::HelperExecResult,
            (16, 0) => Self::LoggerTimer,
            (17, _) => Self::Check(RunId::new(payload)),
            (18, 0) => Self::Holder,
            (19, 0) => Self::WallTimer,
            (20, _) => Self::Watcher(payload),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_token_is_decoded_to_itself() {
        let tokens = [1, PAYLOAD].map(RunId::new).into_iter().flat_map(|run| {
            let of_run =
                [Token::ExecResult, Token::Notify, Token::MainPidExited, Token::Probe, Token::Check, Token::Channel];
            of_run.map(|token| token(run))
        });
        let numbered = [0, 1, PAYLOAD].into_iter().flat_map(|number| {
            [Token::DescriptorHolder, Token::Client, Token::Inspector, Token::Watcher].map(|token| token(number))
        });
        let single = [
            Token::Signals,
            Token::LoggerExited,
            Token::LoggerSocket,
            Token::LoggerTimer,
            Token::ControlListener,
            Token::HttpListener,
            Token::OomCounter,
            Token::HelperExecResult,
            Token::Holder,
            Token::WallTimer,
        ];
        for token in tokens.chain(numbered).chain(single) {
            assert_eq!(Token::decode(token.into()), Some(token));
        }
    }

    #[test]
    fn a_word_that_encodes_no_token_is_not_decoded() {
        let unknown =
            [0, u64::from(Token::Signals) + 1, u64::from(Token::HttpListener) + 1, 21 << PAYLOAD_BITS, u64::MAX];
        for word in unknown {
            assert_eq!(Token::decode(word), None, "{word:#x}");
        }
    }
}

//! Why a message, or a part of it, is ignored.

use std::fmt::{self, Display, Formatter};

use nix::errno::Errno;

use super::message::{MAX_DATAGRAM, MessageError};
use crate::model::{Pid, errno};

/// Why a message, or a part of it, is ignored. Other processes can cause any number of them: the text is made only for those
/// that are logged.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rejection {
    TooLong(Sender),
    Invalid(Sender, MessageError),
    /// The sender does not belong to a service that uses sd_notify.
    UnknownSender(Sender),
    /// `NOTIFYACCESS` excludes the sender.
    NoAccess {
        sender: Sender,
        main: Pid,
    },
    /// `MAINPID` names a process that does not belong to the instance.
    ForeignMainPid {
        main: Pid,
        pid: Pid,
    },
    /// `MAINPID` of a main process that has exited since.
    Ended {
        main: Pid,
        pid: Pid,
    },
    /// `FDSTORE=1` with more descriptors than `fd_store` allows.
    StoreFull {
        main: Pid,
        surplus: u32,
        limit: u32,
    },
    /// Not all descriptors could be opened.
    NoDescriptors {
        main: Pid,
    },
    /// Descriptors cannot be taken: the socket is closed.
    CannotTake {
        main: Pid,
        errno: Errno,
    },
}

/// The process that has sent a message; 0 if it is in another PID namespace.
pub(super) type Sender = i32;

impl Display for Rejection {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong(sender) => {
                write!(formatter, "message from pid {sender} ignored: longer than {MAX_DATAGRAM} bytes")
            }
            Self::Invalid(sender, error) => {
                write!(formatter, "message from pid {sender} ignored: {}", error.as_str())
            }
            Self::UnknownSender(sender) => {
                write!(formatter, "message from pid {sender} rejected: not a process of a service that uses sd_notify")
            }
            Self::NoAccess { sender, main } => {
                write!(formatter, "message from pid {sender} rejected by NOTIFYACCESS of pid {main}")
            }
            Self::ForeignMainPid { main, pid } => {
                write!(formatter, "cannot change the main pid from {main} to {pid}: not a process of the same instance")
            }
            Self::Ended { main, pid } => {
                write!(
                    formatter,
                    "cannot change the main pid from {main} to {pid}: the main process has exited meanwhile"
                )
            }
            Self::StoreFull { main, surplus, limit } => write!(
                formatter,
                "dropped {surplus} of the file descriptors that pid {main} stored: `fd_store` is {limit}"
            ),
            Self::NoDescriptors { main } => {
                let reason = errno::words(Errno::EMFILE);
                write!(formatter, "cannot store all file descriptors of pid {main}: {reason}")
            }
            Self::CannotTake { main, errno } => {
                let reason = if *errno == Errno::EPERM {
                    "they have made keepalive's helper processes hang before"
                } else {
                    errno::words(*errno)
                };
                write!(
                    formatter,
                    "messages of pid {main} are not read any more, because it sends descriptors: {reason}"
                )
            }
        }
    }
}

//! What catatonit says: errors and warnings, and where it is told to debug, everything.

use nix::errno::Errno;

use super::Notice;
use crate::init::Options;
use crate::model::{ExitStatus, errno};
use crate::sys::{StandardError, process};

/// Tells it, to those who want to know.
pub(super) fn tell(options: &Options, notice: Notice<'_>) {
    let Some((severity, text)) = in_words(notice) else { return };
    if (severity == DEBUG || severity == INFO) && options.verbosity == 0 {
        return;
    }
    let id = notice.said_by_child().unwrap_or_else(process::id);
    StandardError.write_line(format!("{severity} (catatonit:{id}): {text}").as_bytes());
    // Said once where it happens and once by who wanted it.
    if let Notice::CannotStart(errno) = notice {
        let text = errno::words(errno);
        StandardError.write_line(format!("{ERROR} (catatonit:{id}): failed to spawn pid1: {text}").as_bytes());
    }
}

const DEBUG: &str = "DEBUG";
const INFO: &str = "INFO";
const WARN: &str = "WARN";
const ERROR: &str = "ERROR";

fn in_words(notice: Notice<'_>) -> Option<(&'static str, String)> {
    Some(match notice {
        Notice::CannotAdopt(errno) => {
            (ERROR, format!("failed to set child-reaper as non-pid1: {}", errno::words(errno)))
        }
        Notice::CannotStart(errno) => (ERROR, format!("failed to fork child: {}", errno::words(errno))),
        Notice::CannotExecute(_, _, errno) => (ERROR, format!("failed to exec pid1: {}", errno::words(errno))),
        Notice::Started(program, child) => (DEBUG, format!("pid1 ({child}) spawned: {program}")),
        Notice::NoSessionTerminal(_, errno) => {
            (INFO, format!("using stdin as tty fd: could not open /dev/tty: {}", errno::words(errno)))
        }
        Notice::NoTerminal(_, errno) => {
            (DEBUG, format!("setting foreground process failed: no tty present: {}", errno::words(errno)))
        }
        Notice::CannotSend(signal, child, errno) if errno != Errno::ESRCH => (
            WARN,
            format!("forwarding of signal {} to pid1 ({child}) failed: {}", signal.number(), errno::words(errno)),
        ),
        Notice::Dropped => (DEBUG, "ignoring kernel attempting to stop us: tty has TOSTOP set".to_owned()),
        Notice::OrphanEnded(ended) => {
            let how = match ended.status {
                ExitStatus::Code(code) => format!("exited with code {code}"),
                ExitStatus::Signal(signal) => format!("exited due to signal {}", signal.number()),
            };
            (DEBUG, format!("child process {} {how}", ended.pid))
        }
        Notice::Childless => (DEBUG, "got ECHILD: no children left to monitor".to_owned()),
        Notice::NoReaper
        | Notice::Opening(_)
        | Notice::Detached { .. }
        | Notice::CannotDetach(_)
        | Notice::CannotAttach(_)
        | Notice::InSession
        | Notice::Received(_)
        | Notice::HandedOff(_)
        | Notice::Rewritten(..)
        | Notice::Forwarded(..)
        | Notice::CannotSend(..)
        | Notice::Suspending
        | Notice::ChildEnded(_)
        | Notice::Adopting
        | Notice::CannotHearOfParent(_)
        | Notice::Leaving(_) => return None,
    })
}

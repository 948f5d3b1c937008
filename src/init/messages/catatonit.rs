//! The messages of catatonit: errors and warnings, and all others if it is verbose.

use nix::errno::Errno;

use crate::init::event::Event;
use crate::init::options::Options;
use crate::model::{ExitStatus, errno};
use crate::sys::{StandardError, process};

/// Reports an event, if the verbosity asks for it.
pub(super) fn report(options: &Options, event: Event<'_>) {
    let Some((severity, text)) = format_event(event) else { return };
    if (severity == DEBUG || severity == INFO) && options.verbosity == 0 {
        return;
    }
    let id = event.reporting_child().unwrap_or_else(process::id);
    StandardError.write_line(format!("{severity} (catatonit:{id}): {text}").as_bytes());
    // catatonit reports this error twice: where it occurs, and in the caller.
    if let Event::CannotStart(errno) = event {
        let text = errno::words(errno);
        StandardError.write_line(format!("{ERROR} (catatonit:{id}): failed to spawn pid1: {text}").as_bytes());
    }
}

const DEBUG: &str = "DEBUG";
const INFO: &str = "INFO";
const WARN: &str = "WARN";
const ERROR: &str = "ERROR";

fn format_event(event: Event<'_>) -> Option<(&'static str, String)> {
    Some(match event {
        Event::CannotBecomeSubreaper(errno) => {
            (ERROR, format!("failed to set child-reaper as non-pid1: {}", errno::words(errno)))
        }
        Event::CannotStart(errno) => (ERROR, format!("failed to fork child: {}", errno::words(errno))),
        Event::CannotExecute(_, _, failure) => (ERROR, format!("failed to exec pid1: {}", errno::words(failure.errno))),
        Event::Started(program, child) => (DEBUG, format!("pid1 ({child}) spawned: {program}")),
        Event::NoSessionTerminal(_, errno) => {
            (INFO, format!("using stdin as tty fd: could not open /dev/tty: {}", errno::words(errno)))
        }
        Event::NoStdinTerminal(_, errno) => {
            (DEBUG, format!("setting foreground process failed: no tty present: {}", errno::words(errno)))
        }
        Event::CannotSend(signal, child, errno) if errno != Errno::ESRCH => (
            WARN,
            format!("forwarding of signal {} to pid1 ({child}) failed: {}", signal.number(), errno::words(errno)),
        ),
        Event::Dropped => (DEBUG, "ignoring kernel attempting to stop us: tty has TOSTOP set".to_owned()),
        Event::OrphanReaped(ended) => {
            let how = match ended.status {
                ExitStatus::Code(code) => format!("exited with code {code}"),
                ExitStatus::Signal(signal) => format!("exited due to signal {}", signal.number()),
            };
            (DEBUG, format!("child process {} {how}", ended.pid))
        }
        Event::NoChildren => (DEBUG, "got ECHILD: no children left to monitor".to_owned()),
        Event::NotSubreaper
        | Event::StartupMessage(_)
        | Event::Detached { .. }
        | Event::CannotDetach(_)
        | Event::CannotAttach(_)
        | Event::SessionCreated
        | Event::Received(_)
        | Event::HandOffIgnored(_)
        | Event::Rewritten(..)
        | Event::Forwarded(..)
        | Event::CannotSend(..)
        | Event::Suspending
        | Event::ChildExited(_)
        | Event::BecameSubreaper
        | Event::CannotSetParentDeathSignal(_)
        | Event::Exiting(_) => return None,
    })
}

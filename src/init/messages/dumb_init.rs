//! The messages of dumb-init: all of them if it is verbose, otherwise errors only.

use nix::errno::Errno;

use crate::init::event::Event;
use crate::init::options::Options;
use crate::model::{ExitStatus, Signal, errno};
use crate::sys::StandardError;

/// Reports an event, if the verbosity asks for it.
pub(super) fn report(options: &Options, event: Event<'_>) {
    let is_error = matches!(event, Event::CannotStart(_) | Event::CannotExecute(..));
    if (is_error || options.verbosity > 0)
        && let Some(text) = format_event(event)
    {
        StandardError.write_line(format!("[dumb-init] {text}").as_bytes());
    }
}

fn format_event(event: Event<'_>) -> Option<String> {
    Some(match event {
        Event::StartupMessage(text) => text.to_owned(),
        Event::Detached { is_session_leader: true } => {
            "Detached from controlling tty, ignoring the first SIGHUP and SIGCONT we receive.".to_owned()
        }
        Event::Detached { is_session_leader: false } => {
            "Detached from controlling tty, but was not session leader.".to_owned()
        }
        Event::CannotDetach(errno) => format!("Unable to detach from controlling tty ({}).", with_number(errno)),
        Event::CannotAttach(errno) => format!("Unable to attach to controlling tty ({}).", with_number(errno)),
        Event::SessionCreated => "setsid complete.".to_owned(),
        Event::CannotStart(_) => "Unable to fork. Exiting.".to_owned(),
        Event::CannotExecute(program, _, failure) => format!("{program}: {}", errno::words(failure.errno)),
        Event::Started(_, child) => format!("Child spawned with PID {child}."),
        Event::Received(signal) => format!("Received signal {}.", signal.number()),
        Event::HandOffIgnored(signal) => format!("Ignoring tty hand-off signal {}.", signal.number()),
        Event::Rewritten(from, to) => format!("Translating signal {} to {}.", from.number(), number_or_zero(to)),
        Event::Forwarded(_, sent, _) => format!("Forwarded signal {} to children.", sent.number()),
        Event::Dropped => "Not forwarding signal 0 to children (ignored).".to_owned(),
        Event::Suspending => "Suspending self due to TTY signal.".to_owned(),
        Event::ChildExited(ended) | Event::OrphanReaped(ended) => match ended.status {
            ExitStatus::Code(code) => format!("A child with PID {} exited with exit status {code}.", ended.pid),
            ExitStatus::Signal(signal) => {
                format!("A child with PID {} was terminated by signal {}.", ended.pid, signal.number())
            }
        },
        Event::Exiting(code) => format!("Child exited with status {code}. Goodbye."),
        Event::NotSubreaper
        | Event::NoSessionTerminal(..)
        | Event::NoStdinTerminal(..)
        | Event::CannotBecomeSubreaper(_)
        | Event::CannotSetParentDeathSignal(_)
        | Event::CannotSend(..)
        | Event::BecameSubreaper
        | Event::NoChildren => return None,
    })
}

fn number_or_zero(signal: Option<Signal>) -> u8 {
    signal.map_or(0, Signal::number)
}

fn with_number(errno: Errno) -> String {
    format!("errno={} {}", errno as i32, errno::words(errno))
}

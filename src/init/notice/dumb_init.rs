//! What dumb-init says: everything where it is told to be verbose, otherwise only what went wrong.

use nix::errno::Errno;

use super::Notice;
use crate::init::Options;
use crate::model::{ExitStatus, Signal, errno};
use crate::sys::StandardError;

/// Tells it, to those who want to know.
pub(super) fn tell(options: &Options, notice: Notice<'_>) {
    let is_wrong = matches!(notice, Notice::CannotStart(_) | Notice::CannotExecute(..));
    if (is_wrong || options.verbosity > 0)
        && let Some(text) = in_words(notice)
    {
        StandardError.write_line(format!("[dumb-init] {text}").as_bytes());
    }
}

fn in_words(notice: Notice<'_>) -> Option<String> {
    Some(match notice {
        Notice::Opening(text) => text.to_owned(),
        Notice::Detached { leader: true } => {
            "Detached from controlling tty, ignoring the first SIGHUP and SIGCONT we receive.".to_owned()
        }
        Notice::Detached { leader: false } => "Detached from controlling tty, but was not session leader.".to_owned(),
        Notice::CannotDetach(errno) => format!("Unable to detach from controlling tty ({}).", numbered(errno)),
        Notice::CannotAttach(errno) => format!("Unable to attach to controlling tty ({}).", numbered(errno)),
        Notice::InSession => "setsid complete.".to_owned(),
        Notice::CannotStart(_) => "Unable to fork. Exiting.".to_owned(),
        Notice::CannotExecute(program, _, errno) => format!("{program}: {}", errno::words(errno)),
        Notice::Started(_, child) => format!("Child spawned with PID {child}."),
        Notice::Received(signal) => format!("Received signal {}.", signal.number()),
        Notice::HandedOff(signal) => format!("Ignoring tty hand-off signal {}.", signal.number()),
        Notice::Rewritten(from, to) => format!("Translating signal {} to {}.", from.number(), number(to)),
        Notice::Forwarded(_, sent, _) => format!("Forwarded signal {} to children.", sent.number()),
        Notice::Dropped => "Not forwarding signal 0 to children (ignored).".to_owned(),
        Notice::Suspending => "Suspending self due to TTY signal.".to_owned(),
        Notice::ChildEnded(ended) | Notice::OrphanEnded(ended) => match ended.status {
            ExitStatus::Code(code) => format!("A child with PID {} exited with exit status {code}.", ended.pid),
            ExitStatus::Signal(signal) => {
                format!("A child with PID {} was terminated by signal {}.", ended.pid, signal.number())
            }
        },
        Notice::Leaving(code) => format!("Child exited with status {code}. Goodbye."),
        Notice::NoReaper
        | Notice::NoSessionTerminal(..)
        | Notice::NoTerminal(..)
        | Notice::CannotAdopt(_)
        | Notice::CannotHearOfParent(_)
        | Notice::CannotSend(..)
        | Notice::Adopting
        | Notice::Childless => return None,
    })
}

fn number(signal: Option<Signal>) -> u8 {
    signal.map_or(0, Signal::number)
}

fn numbered(errno: Errno) -> String {
    format!("errno={} {}", errno as i32, errno::words(errno))
}

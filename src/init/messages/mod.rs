//! Reports events in the messages of each [`Compat`]: keepalive's own in this file, those of each other init in a file of
//! its own. Makes no decisions.

mod catatonit;
mod dumb_init;
mod strsignal;
mod tini;

use std::fmt;

use nix::errno::Errno;

use super::event::Event;
use super::options::{Compat, Options, Placement};
use crate::model::{Pid, StartFailure, StartStep, errno};
use crate::sys::terminal;

/// Reports an event, if the options ask for it.
pub(super) fn report(options: &Options, event: Event<'_>) {
    match options.compat {
        Compat::Native => report_native(options, event),
        Compat::Tini => tini::report(options, event),
        Compat::DumbInit => dumb_init::report(options, event),
        Compat::Catatonit => catatonit::report(options, event),
    }
}

/// Reports that `child` has been started.
pub(super) fn report_start(options: &Options, program: &str, child: Pid) {
    report(options, Event::Started(program, child));
    if options.placement == Placement::Foreground {
        report_terminal(options, child);
    }
    if options.placement == Placement::NewSession {
        if let Err(errno) = terminal::check_stdin_terminal() {
            report(options, Event::CannotAttach(errno));
        }
        report(options, Event::SessionCreated);
    }
}

/// Reports what the child has found out about its terminal. Checks it again, for those inits that report it.
fn report_terminal(options: &Options, child: Pid) {
    match options.compat {
        Compat::Tini if tini::reports_terminal(options) => {}
        Compat::Catatonit if options.verbosity > 0 => match terminal::check_session_terminal() {
            Ok(()) => return,
            Err(errno) => report(options, Event::NoSessionTerminal(child, errno)),
        },
        Compat::Native | Compat::Tini | Compat::DumbInit | Compat::Catatonit => return,
    }
    if let Err(errno) = terminal::check_stdin_terminal() {
        report(options, Event::NoStdinTerminal(child, errno));
    }
}

/// Whether [`Event::NoChildren`] is reported, for which a system call is needed.
pub(super) const fn reports_no_children(options: &Options) -> bool {
    match options.compat {
        Compat::Tini => tini::reports_no_children(options),
        Compat::Catatonit => options.verbosity > 0,
        Compat::Native | Compat::DumbInit => false,
    }
}

fn report_native(options: &Options, event: Event<'_>) {
    match event {
        Event::CannotBecomeSubreaper(errno) => {
            log::warn!(
                "cannot become a child subreaper, orphaned processes will not be reaped: {}",
                errno::words(errno)
            );
        }
        Event::CannotSetParentDeathSignal(errno) => {
            log::warn!("cannot set the parent death signal: {}", errno::words(errno));
        }
        Event::CannotStart(errno) => {
            let failure = StartFailure { step: StartStep::Create, errno };
            log::error!("{}", fmt::from_fn(|formatter| failure.write(None, formatter)));
        }
        Event::CannotExecute(program, _, StartFailure { step: StartStep::Exec, errno: Errno::ENOENT }) => {
            log::error!("cannot run `{program}`: not found");
        }
        Event::CannotExecute(program, _, StartFailure { step: StartStep::Session, errno }) => {
            let reason = errno::words(errno);
            log::error!("cannot run `{program}`: cannot create a process group with the system call setpgid: {reason}");
        }
        Event::CannotExecute(program, _, failure) => log::error!("cannot run `{program}`: {}", failure.reason()),
        Event::Forwarded(received, sent, child) => log::debug!("received {received}, sent {sent} to pid {child}"),
        Event::CannotSend(signal, child, errno) => {
            log::warn!("cannot send {signal} to pid {child}: {}", errno::words(errno))
        }
        Event::ChildExited(ended) => log::debug!("pid {} {}", ended.pid, ended.status),
        Event::OrphanReaped(ended) if options.warn_on_reap => {
            log::warn!("reaped orphaned process {} ({})", ended.pid, ended.status);
        }
        Event::OrphanReaped(ended) => log::debug!("reaped orphaned process {} ({})", ended.pid, ended.status),
        Event::NotSubreaper
        | Event::StartupMessage(_)
        | Event::Detached { .. }
        | Event::CannotDetach(_)
        | Event::CannotAttach(_)
        | Event::SessionCreated
        | Event::Started(..)
        | Event::NoSessionTerminal(..)
        | Event::NoStdinTerminal(..)
        | Event::Received(_)
        | Event::HandOffIgnored(_)
        | Event::Rewritten(..)
        | Event::Dropped
        | Event::Suspending
        | Event::BecameSubreaper
        | Event::NoChildren
        | Event::Exiting(_) => {}
    }
}

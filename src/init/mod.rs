//! Init mode: runs one command as a tiny init.
//!
//! It starts the command, forwards every signal to it, reaps orphans, and exits with the command's exit code. It waits in
//! one place (rt_sigtimedwait) and only wakes up for signals and deadlines. It reads no configuration and restarts nothing.
//! [`forward`] makes the decisions and no system calls; `init_loop` waits and acts; `job` does job control on the terminal;
//! `linger` terminates leftover processes; `messages` reports events as each compatible init does. Start reading at [`run`].

mod event;
pub mod forward;
mod init_loop;
mod job;
mod linger;
mod messages;
pub mod options;
mod pause;
mod reap;
mod role;

pub use options::{Compat, Options, Placement, Subreaper};

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;

use crate::model::errno;
use crate::sys::signals::{self, ChildSignals, DispositionReset};
use crate::sys::spawn::Spawner;
use crate::sys::{Session, SpawnOptions, StringList, memory, needed, process};
use event::Event;
use init_loop::{Init, Started};
use role::Role;

/// Runs `command` until it exits and returns keepalive's exit code.
#[must_use]
pub fn run(options: &Options, command: Vec<OsString>) -> u8 {
    if let Err(refused) = needed::check(&needed::BY_INIT_MODE) {
        log::error!("{refused}");
        return options.compat.os_error_code();
    }
    for message in &options.startup_messages {
        messages::report(options, Event::StartupMessage(message));
    }
    // The command inherits signal mask and dispositions, except from dumb-init.
    let inherits = options.compat != Compat::DumbInit;
    let inherited = signals::block_all(if inherits { DispositionReset::SigchldOnly } else { DispositionReset::All });
    let child_signals = if inherits { ChildSignals::Inherited(inherited) } else { ChildSignals::Default };
    let role = Role::detect();
    if let Err(failure) = prepare(options, role) {
        messages::report(options, failure);
        if options.compat != Compat::Native {
            return options.compat.os_error_code();
        }
    }
    if options.placement == Placement::NoCommand {
        process::leave_cwd_and_close_fds(&[]);
        memory::release_code_pages();
        return pause::pause(options).map_or(options.compat.os_error_code(), |()| 0);
    }
    let hand_off_signals = job::detach_terminal(options);
    let started = match start(options, command, child_signals) {
        Ok(started) => started,
        Err(errno) => {
            messages::report(options, Event::CannotStart(errno));
            return options.compat.os_error_code();
        }
    };
    process::leave_cwd_and_close_fds(&[]);
    let child = started.child;
    let init = Init::new(options, role, started, hand_off_signals);
    match init.run() {
        Ok(status) => {
            let code = forward::exit_code(options, status);
            messages::report(options, Event::Exiting(code));
            code
        }
        Err(errno) => {
            log::error!("cannot wait for pid {child}: {}", errno::words(errno));
            options.compat.os_error_code()
        }
    }
}

/// Requests the parent death signal and becomes a subreaper, as the options say.
fn prepare(options: &Options, role: Role) -> Result<(), Event<'static>> {
    if let Some(signal) = options.parent_death_signal {
        process::set_parent_death_signal(signal).map_err(Event::CannotSetParentDeathSignal)?;
    }
    match (role, options.subreaper) {
        (Role::Init, _) | (_, Subreaper::No) => {}
        (Role::Subreaper, Subreaper::NoWithWarning) if process::is_subreaper() => {}
        (Role::Subreaper, Subreaper::NoWithWarning) => messages::report(options, Event::NotSubreaper),
        (Role::Subreaper, Subreaper::Yes) => {
            process::become_subreaper().map_err(Event::CannotBecomeSubreaper)?;
            messages::report(options, Event::BecameSubreaper);
        }
    }
    Ok(())
}

/// Starts the command. If it cannot be executed, the process exits by itself.
fn start(options: &Options, command: Vec<OsString>, child_signals: ChildSignals) -> Result<Started, Errno> {
    let argv: StringList = command.iter().map(|word| word.as_bytes()).collect();
    let spawn_options = SpawnOptions {
        argv: &argv,
        env: &environment(),
        env_files: None,
        cwd: None,
        session: match options.placement {
            Placement::Foreground => Session::Foreground(options.compat.terminal_lookup()),
            Placement::NewSession => Session::NewSessionOnTerminal,
            Placement::SameSession | Placement::NoCommand => Session::Same,
        },
        stdio: [None; 3],
        descriptors: &[],
        stored: None,
        resize: None,
        file: None,
        credentials: None,
        umask: None,
        mark: [None; 2],
        limits: &[],
        nice: None,
        oom_score_adj: None,
        no_new_privs: false,
        death_signal: None,
        signals: child_signals,
        // It is looked at when the child has exited.
        reports_exec: false,
    };
    let (child, exec) = Spawner::new().spawn(&spawn_options)?;
    if options.placement == Placement::Foreground {
        // As the child does it, too: it has the terminal before keepalive reads a signal, and before it uses the terminal.
        job::hand_over_terminal(options, child);
    }
    let received_before_start = signals::pending();
    let program = command.first().map(OsString::as_os_str).unwrap_or_default().to_string_lossy().into_owned();
    messages::report_start(options, &program, child);
    Ok(Started { child, exec, program, received_before_start })
}

/// The environment of the command. Sockets that were passed to keepalive (`LISTEN_PID`) are passed on to the command.
/// `LISTEN_PIDFDID` is removed then: it identifies keepalive, so sd_listen_fds(3) of the command would ignore the sockets.
fn environment() -> StringList {
    let inherited = process::environment();
    let listen_pid = inherited.iter().find_map(|entry| entry.strip_prefix(b"LISTEN_PID="));
    if listen_pid.is_none_or(|id| id != process::id().to_string().as_bytes()) {
        return inherited;
    }
    inherited.iter().filter(|entry| !entry.starts_with(b"LISTEN_PIDFDID=")).collect()
}

//! Forwards: one command, run as a tiny init does.
//!
//! It starts the command, hands every signal on to it, reaps whatever is left to it, and ends with the command's exit
//! code. It waits in one place (rt_sigtimedwait) and wakes for nothing else. It reads no configuration and restarts
//! nothing. [`forward`] decides and touches nothing; `job` shares the terminal with the command, `linger` sees to
//! what the command leaves behind. Start with [`run`].

pub mod forward;
mod job;
mod linger;
mod notice;
mod pause;

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use nix::errno::Errno;

use crate::model::exit_code::OS_ERROR;
use crate::model::plan::ExitSet;
use crate::model::{ExitStatus, Pid, Signal, errno};
use crate::sys::signals::{self, ChildSignals, DispositionReset, Origin, Received, SignalSet};
use crate::sys::spawn::{ExecResult, SpawnMode, Spawner};
use crate::sys::terminal::TerminalLookup;
use crate::sys::wait::{self, ChildEvent, Ended, Reaped, WaitOptions};
use crate::sys::{self, StringList, memory, process};
use crate::sys::{Session, SpawnOptions};
use forward::{Grace, Terminal};
use notice::Notice;

/// How many children are reaped before signals are looked at again: somebody who makes processes faster than that
/// cannot keep a SIGTERM from being heard.
const REAP_BATCH: u32 = 128;

/// The options of init mode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `-g`: signals go to the child's process group.
    pub group: bool,
    /// `-r`: the second is sent in place of the first, nothing at all for `None`. The last one for a signal counts.
    pub rewrite: Vec<(Signal, Option<Signal>)>,
    /// `-e`: exit codes reported as 0.
    pub remap_exit: ExitSet,
    /// `-p`: sent to us when our parent dies.
    pub parent_death_signal: Option<Signal>,
    /// `--grace`: SIGKILL so long after the first SIGTERM, SIGINT or SIGQUIT.
    pub grace: Option<Duration>,
    /// `--linger`: how long to wait for what the child has left.
    pub linger: Option<Duration>,
    /// `-w`: a line for each adopted zombie.
    pub warn_on_reap: bool,
    /// `-v`: how much to tell; of [`Compat::Native`] for whoever sets up the logger.
    pub verbosity: u8,
    /// Whose messages and exit codes.
    pub compat: Compat,
    /// Whose processes that have lost their parent are, if we are not PID 1.
    pub orphans: Orphans,
    /// Where the command runs.
    pub placement: Placement,
    /// After SIGTSTP, SIGTTIN or SIGTTOU we stop ourselves. (The kernel does not stop PID 1.)
    pub suspends: bool,
    /// What the child's group gets when the child has ended; with [`Self::rewrite`] applied.
    pub final_signal: Option<Signal>,
    /// What is told at the start, in dialects that do.
    pub opening: Vec<&'static str>,
}

/// In whose words we speak, and with whose exit codes we say that a command could not be run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compat {
    /// keepalive's own.
    #[default]
    Native,
    /// tini's.
    Tini,
    /// dumb-init's.
    DumbInit,
    /// catatonit's.
    Catatonit,
}

impl Compat {
    /// How the process that could not execute the command counts as having ended; `status` is how it has.
    #[must_use]
    pub const fn cannot_execute(self, errno: Errno, status: ExitStatus) -> ExitStatus {
        match (self, errno) {
            (Self::Native, _) => status,
            (Self::Tini, Errno::ENOENT) => ExitStatus::Code(127),
            (Self::Tini, Errno::EACCES) => ExitStatus::Code(126),
            (Self::Tini, _) => ExitStatus::Code(1),
            (Self::DumbInit, _) => ExitStatus::Code(2),
            (Self::Catatonit, _) => ExitStatus::Code(1),
        }
    }

    /// The exit code where the system refuses what we cannot do without.
    const fn system_refuses(self) -> u8 {
        match self {
            Self::Native => OS_ERROR,
            Self::Tini | Self::DumbInit | Self::Catatonit => 1,
        }
    }
}

/// Who adopts what loses its parent below us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Orphans {
    /// We do, as a child subreaper.
    #[default]
    Ours,
    /// Whoever stands above us, unless we are PID 1; we say so.
    Others,
    /// The same, and nothing is said.
    NotOurs,
}

/// The session and process group of the command, and the terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// A group of its own in our session. If we are in the terminal's foreground it takes that place, and job control is
    /// shared between us: see `job`.
    #[default]
    Foreground,
    /// A session of its own, with the terminal on stdin as its own. We let go of it.
    OwnSession,
    /// Our session and our group.
    SameSession,
    /// There is no command: we reap, until SIGTERM or SIGINT ends us with 0.
    Nowhere,
}

/// Runs `command` until it ends and gives back the exit code for ourselves.
#[must_use]
pub fn run(options: &Options, command: Vec<OsString>) -> u8 {
    for line in &options.opening {
        notice::tell(options, Notice::Opening(line));
    }
    // A session of its own is a new beginning; otherwise the command finds what we have found.
    let inherits = options.compat != Compat::DumbInit;
    let found = signals::block_all(if inherits { DispositionReset::SigchldOnly } else { DispositionReset::All });
    let signals = if inherits { ChildSignals::Inherited(found) } else { ChildSignals::Default };
    let place = if process::is_init() { Place::Init } else { Place::Subreaper };
    if let Err(refusal) = prepare(options, place) {
        notice::tell(options, refusal);
        if options.compat != Compat::Native {
            return options.compat.system_refuses();
        }
    }
    if options.placement == Placement::Nowhere {
        process::leave_cwd_and_close_fds(&[]);
        memory::release_code_pages();
        return pause::pause(options).map_or(options.compat.system_refuses(), |()| 0);
    }
    let hand_off = job::let_go_of_terminal(options);
    let started = match start(options, command, signals) {
        Ok(started) => started,
        Err(errno) => {
            notice::tell(options, Notice::CannotStart(errno));
            return options.compat.system_refuses();
        }
    };
    process::leave_cwd_and_close_fds(&[]);
    let child = started.child;
    let init = Init::new(options, place, started, hand_off);
    match init.attend() {
        Ok(status) => {
            let code = forward::exit_code(options, status);
            notice::tell(options, Notice::Leaving(code));
            code
        }
        Err(errno) => {
            log::error!("cannot wait for pid {child}: {}", errno::words(errno));
            options.compat.system_refuses()
        }
    }
}

/// Where we are in the process tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// PID 1: everything in the namespace is ours, and the kernel ends it with us.
    Init,
    /// Anywhere else: what is below us is ours.
    Subreaper,
}

/// What we want from the system for ourselves.
fn prepare(options: &Options, place: Place) -> Result<(), Notice<'static>> {
    if let Some(signal) = options.parent_death_signal {
        process::set_parent_death_signal(signal).map_err(Notice::CannotHearOfParent)?;
    }
    match (place, options.orphans) {
        (Place::Init, _) | (_, Orphans::NotOurs) => {}
        (Place::Subreaper, Orphans::Others) => notice::tell(options, Notice::NoReaper),
        (Place::Subreaper, Orphans::Ours) => {
            process::become_subreaper().map_err(Notice::CannotAdopt)?;
            notice::tell(options, Notice::Adopting);
        }
    }
    Ok(())
}

/// A command that has been started.
struct Started {
    child: Pid,
    /// Why the child could not become the command.
    failed: Option<Errno>,
    /// What had come to us by then. The child has had the terminal only from then on: it has not been told of what was
    /// typed before.
    untold: SignalSet,
}

/// Starts the command. That it cannot be executed is reported here, and comes back beside the process that ends for it.
fn start(options: &Options, command: Vec<OsString>, child_signals: ChildSignals) -> Result<Started, Errno> {
    let argv: StringList = command.iter().map(|word| word.as_bytes()).collect();
    let setup = SpawnOptions {
        argv: &argv,
        env: &environment(),
        cwd: None,
        session: match options.placement {
            Placement::Foreground => Session::Foreground(job::first_terminal_lookup(options.compat)),
            Placement::OwnSession => Session::NewSessionOnTerminal,
            Placement::SameSession | Placement::Nowhere => Session::Same,
        },
        stdio: [None; 3],
        descriptors: &[],
        file: None,
        credentials: None,
        umask: None,
        limits: &[],
        nice: None,
        oom_score_adj: None,
        no_new_privs: false,
        death_signal: None,
        signals: child_signals,
    };
    // There is nothing else to do meanwhile, so that spawn_mode the memory is all gain; and the child has taken the terminal
    // when we go on.
    let (child, progress) = Spawner::new().spawn(&setup, SpawnMode::Vfork)?;
    let untold = signals::pending();
    let program = command.first().map(OsString::as_os_str).unwrap_or_default().to_string_lossy();
    let failed = match progress {
        ExecResult::Failed(failure) => Some(failure.errno),
        ExecResult::Executed | ExecResult::Pending(_) => None,
    };
    notice::tell_of_start(options, &program, child, failed);
    Ok(Started { child, failed, untold })
}

/// What we were started with. Sockets that were passed to us are passed on to the child, by its id: that of our pidfd,
/// which sd_listen_fds(3) compares where it is told, would say that they are not the child's.
fn environment() -> StringList {
    let inherited = process::environment();
    let meant_for = inherited.iter().find_map(|entry| entry.strip_prefix(b"LISTEN_PID="));
    if meant_for.is_none_or(|id| id != process::id().to_string().as_bytes()) {
        return inherited;
    }
    inherited.iter().filter(|entry| !entry.starts_with(b"LISTEN_PIDFDID=")).collect()
}

fn describe(errno: Errno) -> &'static str {
    if errno == Errno::ENOENT { "not found" } else { errno::words(errno) }
}

/// What a round of reaping has come to.
enum Round {
    /// The command itself has ended.
    Ended(ExitStatus),
    /// Nobody else is dead.
    Done,
    /// There may be more.
    Full,
}

/// Whether the child goes on, as far as we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum JobState {
    /// It does.
    Running,
    /// It has been stopped, and not continued by us.
    Stopped,
    /// We have stopped ourselves as it was stopped, and have not been continued yet.
    Suspended,
}

/// An init at work.
struct Init<'a> {
    options: &'a Options,
    place: Place,
    child: Pid,
    grace: Grace,
    course: JobState,
    /// Which terminal is shared with the child.
    terminal_lookup: TerminalLookup,
    /// A signal that stops, and that was not typed, has been sent to the child by us.
    asked_to_stop: bool,
    /// One that asks to end has, and the child has not been stopped since then.
    asked_to_end: bool,
    /// Why the child could not become the command.
    failed: Option<Errno>,
    /// The next of each of these comes from our letting go of the terminal.
    hand_off: SignalSet,
    /// The next of each of these came before the child had the terminal.
    untold: SignalSet,
}

impl<'a> Init<'a> {
    fn new(options: &'a Options, place: Place, started: Started, hand_off: SignalSet) -> Self {
        let Started { child, failed, untold } = started;
        Self {
            options,
            place,
            child,
            grace: Grace::new(options.grace),
            course: JobState::Running,
            terminal_lookup: job::first_terminal_lookup(options.compat),
            asked_to_stop: false,
            asked_to_end: false,
            failed,
            hand_off,
            untold,
        }
    }
}

impl Init<'_> {
    /// The loop: wait, forward, reap. It ends when the command has ended and what it left has been seen to.
    fn attend(mut self) -> Result<ExitStatus, Errno> {
        // Whoever was before us in this process may have left us zombies, of which no SIGCHLD tells any more.
        let mut round = Round::Full;
        let mut is_settled = false;
        loop {
            let timeout = match round {
                Round::Ended(status) => {
                    self.reclaim_terminal();
                    if let Some(limit) = self.options.linger {
                        linger::linger(self.options, self.place, limit)?;
                    }
                    return Ok(status);
                }
                Round::Full => Some(Duration::ZERO),
                Round::Done => {
                    if !std::mem::replace(&mut is_settled, true) {
                        memory::release_code_pages();
                    }
                    self.grace.due().map(|due| due.since(sys::now()))
                }
            };
            // If the child is dead by now it has not been reaped yet: its id is still its own.
            let mut is_due = matches!(round, Round::Full);
            if let Some(received) = signals::wait_for(timeout)? {
                is_due |= received.signal == Signal::CHLD;
                self.on_signal(received);
            }
            if self.grace.due().is_some() && self.grace.is_over(sys::now()) {
                log::warn!("pid {} did not stop in time: sending SIGKILL", self.child);
                self.send(Signal::KILL);
            }
            round = if is_due { self.reap()? } else { Round::Done };
        }
    }

    fn reap(&mut self) -> Result<Round, Errno> {
        for _ in 0..REAP_BATCH {
            match self.next_dead()? {
                Reaped::Ended(Ended { pid, status }) if pid == self.child => {
                    let status = self.failed.map_or(status, |errno| self.options.compat.cannot_execute(errno, status));
                    self.on_ended(Ended { pid, status });
                    return Ok(Round::Ended(status));
                }
                Reaped::Ended(ended) => notice::tell(self.options, Notice::OrphanEnded(ended)),
                Reaped::Stopped(pid, signal) if pid == self.child => self.on_stopped(signal),
                Reaped::Stopped(..) => {}
                Reaped::Nothing => return Ok(Round::Done),
                // Somebody else has reaped our child; there is nothing to wait for any more.
                Reaped::NoChildren => return Err(Errno::ECHILD),
            }
        }
        Ok(Round::Full)
    }

    /// Reaps one, and before it is the child bids final_signal to the child's group: until the child is reaped, nobody else's
    /// group can have its number.
    fn next_dead(&self) -> Result<Reaped, Errno> {
        if self.options.final_signal.is_none() {
            return wait::reap_any();
        }
        Ok(match wait::peek(WaitOptions::ExitsOnly)? {
            ChildEvent::Dead(pid) => {
                if pid == self.child && self.options.group {
                    self.bid_farewell();
                }
                Reaped::Ended(wait::reap(pid)?)
            }
            ChildEvent::Nothing | ChildEvent::Stopped(..) => Reaped::Nothing,
            ChildEvent::NoChildren => Reaped::NoChildren,
        })
    }

    fn bid_farewell(&self) {
        if let Some(signal) =
            self.options.final_signal.and_then(|final_signal| forward::rewritten(self.options, final_signal))
        {
            sys::signal_group(self.child.led_group(), signal).ok();
        }
    }

    fn on_ended(&self, ended: Ended) {
        notice::tell(self.options, Notice::ChildEnded(ended));
        if notice::tells_of_childless(self.options) && wait::peek(WaitOptions::ExitsOnly) == Ok(ChildEvent::NoChildren)
        {
            notice::tell(self.options, Notice::Childless);
        }
        if let Some(final_signal) = self.options.final_signal {
            self.tell_where_to(final_signal, forward::rewritten(self.options, final_signal));
        }
    }

    fn tell_where_to(&self, received: Signal, sent: Option<Signal>) {
        if self.options.rewrite.iter().any(|(from, _)| *from == received) {
            notice::tell(self.options, Notice::Rewritten(received, sent));
        }
        notice::tell(self.options, sent.map_or(Notice::Dropped, |sent| Notice::Forwarded(received, sent, self.child)));
    }

    fn on_signal(&mut self, received: Received) {
        notice::tell(self.options, Notice::Received(received.signal));
        if self.hand_off.remove(received.signal) {
            return notice::tell(self.options, Notice::HandedOff(received.signal));
        }
        if received.signal == Signal::CHLD || (received.signal == Signal::CONT && self.on_continued()) {
            return;
        }
        self.forward(received);
        if self.options.suspends && forward::asks_to_stop(received.signal) {
            notice::tell(self.options, Notice::Suspending);
            process::raise(Signal::STOP);
        }
    }

    fn forward(&mut self, received: Received) {
        let untold = self.untold.remove(received.signal);
        let terminal = || if !untold && self.child_has_terminal() { Terminal::Childs } else { Terminal::NotChilds };
        let Some(signal) = forward::route(self.options, received, terminal) else {
            return self.tell_where_to(received.signal, None);
        };
        self.tell_where_to(received.signal, Some(signal));
        self.asked_to_stop |= forward::asks_to_stop(signal) && received.origin != Origin::Kernel;
        let asked_to_end = forward::asks_to_end(received.signal) || forward::asks_to_end(signal);
        if asked_to_end {
            self.grace.start(sys::now);
            self.asked_to_end |= forward::outlasts_a_stop(received.origin);
        }
        self.send(signal);
        match self.course {
            JobState::Stopped if signal == Signal::CONT => self.course = JobState::Running,
            // Who is stopped must hear it.
            JobState::Stopped if asked_to_end => {
                self.course = JobState::Running;
                self.send(Signal::CONT);
            }
            // The SIGCONT for ourselves is still to come.
            JobState::Suspended if asked_to_end => self.send(Signal::CONT),
            JobState::Running | JobState::Stopped | JobState::Suspended => {}
        }
    }

    /// Sends `signal` to the child, or with `-g` to its group. That this is not possible is never the end: a child that
    /// runs as another user may well be out of reach.
    fn send(&self, signal: Signal) {
        let result = if self.options.group { self.send_to_group(signal) } else { self.send_to_child(signal) };
        if let Err(errno) = result {
            notice::tell(self.options, Notice::CannotSend(signal, self.child, errno));
        }
    }

    fn send_to_child(&self, signal: Signal) -> Result<(), Errno> {
        sys::signal_process(self.child, signal)
    }

    /// A child that has joined another group hears it as well as those that it has left in its own.
    fn send_to_group(&self, signal: Signal) -> Result<(), Errno> {
        let group = self.child.led_group();
        let has_left = process::group_of(self.child) != Some(group);
        match sys::signal_group(group, signal) {
            Ok(()) | Err(Errno::ESRCH) if has_left => self.send_to_child(signal),
            other => other,
        }
    }
}

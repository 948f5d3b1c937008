//! What goes in and what comes out.

use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;

use super::operator::{Refusal, Request, RequestId};
use super::record::{JournalEntry, Outcome};
use super::run_result::Exit;
use crate::model::plan::{Plan, Service};
use crate::model::{InstanceId, Mono, Pid, RunId, ServiceIndex, Signal, StartFailure};

/// What has happened in the world.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// keepalive is ready: start what starts by itself. Comes first, once.
    Boot,
    /// [`Action::Spawn`] has made a process; whether it gets to run its program is still open.
    Spawned {
        /// As in the action.
        run: RunId,
        /// Its main process, leader of its own process group.
        pid: Pid,
    },
    /// [`Action::Spawn`] could not make a process: the system is out of processes, memory or descriptors.
    SpawnRefused {
        /// As in the action.
        run: RunId,
        /// What the kernel said.
        errno: Errno,
    },
    /// The process runs its program: execve(2) has succeeded.
    Executed {
        /// As in the action.
        run: RunId,
    },
    /// The process could not run its program; it is about to exit, and [`Event::Exited`] follows.
    ExecFailed {
        /// As in the action.
        run: RunId,
        /// Which step, and why.
        failure: StartFailure,
    },
    /// [`Action::Spawn`] has made no process and never will: a socket of the service cannot be bound.
    BindFailed {
        /// As in the action.
        run: RunId,
        /// Which, and why.
        failure: StartFailure,
    },
    /// A main process says or shows that it is ready, as its service is configured to.
    Ready {
        /// As in the action.
        run: RunId,
        /// By what it is known.
        source: ReadySource,
    },
    /// It says that it reloads, and is not there for others meanwhile: `RELOADING=1`. [`Event::Ready`] follows.
    Reloading {
        /// As in the action.
        run: RunId,
        /// When it has begun, if it says so: `MONOTONIC_USEC`.
        since: Option<Mono>,
    },
    /// It says that it ends by itself: `STOPPING=1`.
    StoppingItself {
        /// As in the action.
        run: RunId,
    },
    /// It wants its unstable runs so far to be forgotten: `RESTART_RESET=1`.
    ResetFailures {
        /// As in the action.
        run: RunId,
    },
    /// It shows that it is alive: `WATCHDOG=1`.
    WatchdogPing {
        /// As in the action.
        run: RunId,
    },
    /// It will show so in other intervals from now on: `WATCHDOG_USEC`.
    WatchdogInterval {
        /// As in the action.
        run: RunId,
        /// Zero: not any more.
        interval: Duration,
    },
    /// It says that it is in trouble: `WATCHDOG=trigger`.
    WatchdogTriggered {
        /// As in the action.
        run: RunId,
    },
    /// What it is doing, starting or stopping, takes at least so much longer from now: `EXTEND_TIMEOUT_USEC`.
    TimeoutExtended {
        /// As in the action.
        run: RunId,
        /// How much.
        by: Duration,
    },
    /// Another process of its takes its place as the main one: `MAINPID`.
    MainPidChanged {
        /// As in the action.
        run: RunId,
        /// The main process from now on.
        pid: Pid,
    },
    /// A main process has ended and has been reaped.
    Exited {
        /// As in the action.
        run: RunId,
        /// How.
        exit: Exit,
        /// Whether its process group or session still has members.
        leftovers: Leftovers,
    },
    /// After [`Event::Exited`] with [`Leftovers::Some`]: nothing is left of them.
    LeftoversGone {
        /// As in the action.
        run: RunId,
    },
    /// keepalive has received a signal that somebody sent to it.
    Signal(Signal),
    /// The terminal that keepalive was started on has gone.
    TerminalClosed,
    /// An operator wants something.
    Request {
        /// Goes back with the one [`Action::Reply`].
        id: RequestId,
        /// What.
        request: Request,
    },
    /// [`Action::LoadConfig`] is done, and the configuration is valid. What it has in common with the plan so far stands at
    /// the same position; what it has no more is still there, with no instances.
    ConfigLoaded {
        /// As in the action.
        id: Option<RequestId>,
        /// What it says.
        plan: Rc<Plan>,
    },
    /// [`Action::LoadConfig`] has failed: the configuration cannot be read, or is invalid.
    ConfigLoadFailed {
        /// As in the action.
        id: Option<RequestId>,
        /// Why, in one or more lines.
        reason: Rc<str>,
    },
    /// Nobody waits for the answer to this request any more: there will be none. What it has begun goes on.
    Withdrawn(RequestId),
    /// keepalive has no child at all any more, in answer to [`Action::SignalAll`] or later.
    NoChildren,
    /// Time has passed. Comes after every wait; more of them do no harm.
    Tick,
}

/// By what it is known that a process is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadySource {
    /// `READY=1` of sd_notify(3).
    Notify,
    /// A message on its ipc channel.
    Ipc,
    /// A newline on its `ready.fd`.
    Fd,
    /// A probe that has passed.
    Probe,
}

/// Whether a main process left others behind in its process group or session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftovers {
    /// No.
    None,
    /// Yes; [`Event::LeftoversGone`] will tell when they are gone.
    Some,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Start the instance's process; answered by [`Event::Spawned`] or [`Event::SpawnRefused`] before anything else
    /// is handled. Until it is given out it can be called off.
    Spawn {
        /// The run that begins.
        run: RunId,
        /// Of which instance.
        instance: InstanceId,
        /// How often it has been restarted before: `KEEPALIVE_RESTARTS`.
        restarts: u32,
        /// What to start. Others of the same service may still be what it was before.
        definition: Rc<Service>,
    },
    /// Load the configuration again; answered by [`Event::ConfigLoaded`] or [`Event::ConfigLoadFailed`], unless that is
    /// called off.
    LoadConfig {
        /// The request that waits for it; `None`: a signal asked for it.
        id: Option<RequestId>,
    },
    /// Nobody waits any more for the configuration that is to be loaded for this request. If that has begun it goes on.
    WithdrawConfigLoad {
        /// As in [`Action::LoadConfig`].
        id: RequestId,
    },
    /// Stop loading the configuration, whoever asked for it: everything is being stopped.
    CancelConfigLoad,
    /// From now on this is the plan.
    Adopt(Rc<Plan>),
    /// Tell a process on its ipc channel that its stop signal is about to come.
    AnnounceStop {
        /// Whose main process it is.
        run: RunId,
    },
    /// Find out by its probe whether the process is ready; answered by [`Event::Ready`].
    StartProbe {
        /// Whose process it is.
        run: RunId,
    },
    /// The process was not ready in time: stop its probe, and log why the last try has failed.
    GiveUpProbe {
        /// Whose process it is.
        run: RunId,
    },
    /// The main process has ended: release what belongs to it alone (its probe, its channel, what it has reported).
    ReleaseRun {
        /// Whose process it was.
        run: RunId,
        /// Of which instance.
        instance: InstanceId,
    },
    /// Send a signal. Whoever is gone already or may not be signalled is no error.
    Signal {
        /// Whose processes they are.
        run: RunId,
        /// To which of them.
        scope: Scope,
        /// Which.
        signal: Signal,
    },
    /// Send a signal to everything below keepalive, whoever started it; answered by [`Event::NoChildren`] if that is
    /// nothing.
    SignalAll {
        /// Which.
        signal: Signal,
    },
    /// Release what is kept from one run of an instance to the next: it has come to rest.
    ReleaseInstance {
        /// Which; no surge.
        instance: InstanceId,
    },
    /// Release what is kept for an instance for as long as there is one: there is to be none any more.
    RemoveInstance {
        /// Which; no surge.
        instance: InstanceId,
    },
    /// Release what is kept for a service: it is not in the configuration any more, and its last instance is gone.
    ReleaseService {
        /// Which.
        service: ServiceIndex,
    },
    /// Direct connections to the sockets that this instance was given: it is ready, others at the same addresses may not be.
    PreferSockets {
        /// Which.
        instance: InstanceId,
    },
    /// Write down what has happened.
    JournalEntry(JournalEntry),
    /// Answer a request.
    Reply {
        /// As in [`Event::Request`].
        id: RequestId,
        /// Done, or why not.
        result: Result<(), Refusal>,
    },
    /// End keepalive.
    Exit(Outcome),
}

/// To whom a signal goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The process itself, not reaped yet.
    Main,
    /// The process group that it leads; it is not reaped yet.
    Group,
    /// What it has left in its group and session; it has been reaped.
    Leftovers,
}

/// What [`super::Supervisor::poll`] wants.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Do this, then poll again.
    Do(Action),
    /// Nothing to do before `until` unless something happens.
    Wait {
        /// `None`: for as long as it takes.
        until: Option<Mono>,
    },
}

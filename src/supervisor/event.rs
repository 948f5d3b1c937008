//! What goes in and what comes out.

use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;

use super::{JournalEntry, Outcome, Refusal, Request, RequestId};
use crate::model::plan::{Plan, Service};
use crate::model::{ExitStatus, InstanceId, Mono, Pid, ServiceIndex, Signal, StartFailure};

/// What has happened in the world.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// keepalive is ready: start what starts by itself. Comes first, once.
    Boot,
    /// [`Action::Spawn`] has made a process; whether it gets to run its program is still open.
    Spawned {
        /// As in the action.
        instance: InstanceId,
        /// Its main process from now on, leader of its own process group.
        pid: Pid,
    },
    /// [`Action::Spawn`] could not make a process: the system is out of processes, memory or descriptors.
    SpawnRefused {
        /// As in the action.
        instance: InstanceId,
        /// What the kernel said.
        errno: Errno,
    },
    /// The process runs its program: execve(2) has succeeded.
    Executed {
        /// As in [`Event::Spawned`].
        pid: Pid,
    },
    /// The process could not run its program; it is about to exit, and [`Event::Exited`] follows.
    ExecFailed {
        /// As in [`Event::Spawned`].
        pid: Pid,
        /// Which step, and why.
        failure: StartFailure,
    },
    /// [`Action::Spawn`] has made no process and never will: a socket of the service cannot be bound.
    Unbound {
        /// As in the action.
        instance: InstanceId,
        /// Which, and why.
        failure: StartFailure,
    },
    /// A main process says or shows that it is ready, as its service is configured to.
    Ready {
        /// As in [`Event::Spawned`]; so in all that follow. One that is not known is nobody's any more.
        pid: Pid,
    },
    /// It says that it reloads, and is not there for others meanwhile: `RELOADING=1`. [`Event::Ready`] follows.
    Reloading {
        /// Which.
        pid: Pid,
        /// When it has begun, if it says so: `MONOTONIC_USEC`.
        since: Option<Mono>,
    },
    /// It says that it ends by itself: `STOPPING=1`.
    Stopping {
        /// Which.
        pid: Pid,
    },
    /// It wants its unstable runs so far to be forgotten: `RESTART_RESET=1`.
    ResetFailures {
        /// Which.
        pid: Pid,
    },
    /// It shows that it is alive: `WATCHDOG=1`.
    Alive {
        /// Which.
        pid: Pid,
    },
    /// It will show so in other intervals from now on: `WATCHDOG_USEC`.
    WatchdogEvery {
        /// Which.
        pid: Pid,
        /// Zero: not any more.
        interval: Duration,
    },
    /// It says that it is in trouble: `WATCHDOG=trigger`.
    WatchdogTriggered {
        /// Which.
        pid: Pid,
    },
    /// What it is doing, starting or stopping, takes at least so much longer from now: `EXTEND_TIMEOUT_USEC`.
    Extended {
        /// Which.
        pid: Pid,
        /// How much.
        by: Duration,
    },
    /// Another process of its takes its place as the main one: `MAINPID`.
    MainPidChanged {
        /// The main process so far.
        pid: Pid,
        /// The one from now on.
        successor: Pid,
    },
    /// A main process has ended and has been reaped.
    Exited {
        /// As in [`Event::Spawned`].
        pid: Pid,
        /// How.
        exit: Exit,
        /// Whether its process group or session still has members.
        left: Leftovers,
    },
    /// After [`Event::Exited`] with [`Leftovers::Some`]: nothing is left of them.
    Cleared {
        /// The main process that led them.
        pid: Pid,
    },
    /// keepalive has received a signal that somebody sent to it.
    Signal(Signal),
    /// The terminal that keepalive was started on has gone.
    HungUp,
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
    Childless,
    /// Time has passed. Comes after every wait; more of them do no harm.
    Tick,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Its exit status.
    pub status: ExitStatus,
    /// Whether it was the kernel's OOM killer.
    pub oom_killed: bool,
}

/// Whether a main process left others behind in its process group or session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftovers {
    /// No.
    None,
    /// Yes; [`Event::Cleared`] will tell when they are gone.
    Some,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Start the instance's process; answered by [`Event::Spawned`] or [`Event::SpawnRefused`] before anything else
    /// is handled. Until it is given out it can be called off.
    Spawn {
        /// Which.
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
    Farewell {
        /// The main process of an instance.
        pid: Pid,
    },
    /// Send a signal. Whoever is gone already or may not be signalled is no error.
    Signal {
        /// The main process of an instance, or the one that was.
        pid: Pid,
        /// To whom.
        scope: Scope,
        /// Which.
        signal: Signal,
    },
    /// Send a signal to everything below keepalive, whoever started it; answered by [`Event::Childless`] if that is
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
    /// Log what came of the last try of a readiness probe: the process was not ready in time.
    LogProbeFailure {
        /// Whose.
        pid: Pid,
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

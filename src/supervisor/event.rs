//! The interface of the supervisor: events go in, actions come out.
#![allow(missing_docs, reason = "a field has a comment where its name and type do not say everything")]

use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;

use super::operator::{Refusal, Request, RequestId};
use super::record::{JournalEntry, Outcome};
use super::run_result::Exit;
use crate::model::plan::{Health, Hook, Plan, Service};
use crate::model::{
    ExitStatus, InstanceId, MemoryUse, Mono, Pid, ProbeFailure, RunId, ServiceIndex, Signal, StartFailure,
};

/// Something that has happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// keepalive is ready to start services. This is the first event and comes once.
    Boot,
    /// [`Action::Spawn`] has created a process. It has not executed its program yet.
    Spawned {
        run: RunId,
        /// The main process, which leads its own process group.
        pid: Pid,
    },
    /// [`Action::Spawn`] could not create a process: the system is out of processes, memory or descriptors.
    SpawnFailed { run: RunId, errno: Errno },
    /// The process executes its program: execve(2) has succeeded.
    Executed { run: RunId },
    /// The process could not execute its program. It exits, and [`Event::Exited`] follows.
    ExecFailed { run: RunId, failure: StartFailure },
    /// [`Action::Spawn`] has created no process, and a retry would not help: a socket of the service cannot be
    /// bound, or a system call that the start needs is refused.
    BindFailed { run: RunId, failure: StartFailure },
    /// The main process is ready, according to `source`.
    Ready { run: RunId, source: ReadySource },
    /// An attempt of the readiness probe has failed.
    ProbeFailed { run: RunId, failure: ProbeFailure },
    /// [`Action::StartCheck`] has ended. How it has failed; `None`: it has succeeded.
    Checked { run: RunId, failure: Option<ProbeFailure> },
    /// `RELOADING=1`: the process reloads and is not ready until the next [`Event::Ready`].
    Reloading {
        run: RunId,
        /// `MONOTONIC_USEC`: when the reload began.
        since: Option<Mono>,
    },
    /// `STOPPING=1`: the process is about to exit on its own.
    StoppingReported { run: RunId },
    /// `RESTART_RESET=1`: the process asks keepalive to forget its unstable runs.
    ResetFailures { run: RunId },
    /// `WATCHDOG=1`: the process is alive.
    WatchdogPing { run: RunId },
    /// `WATCHDOG_USEC`: the process changes its watchdog interval.
    WatchdogInterval {
        run: RunId,
        /// Zero turns the watchdog off.
        interval: Duration,
    },
    /// `WATCHDOG=trigger`: the process reports an internal error.
    WatchdogTriggered { run: RunId },
    /// `EXTEND_TIMEOUT_USEC`: the current start or stop needs at least `by` more time from now.
    TimeoutExtended { run: RunId, by: Duration },
    /// `MAINPID`: another process of the run is the main process from now on.
    MainPidChanged { run: RunId, pid: Pid },
    /// The main process has exited and has been reaped.
    Exited { run: RunId, exit: Exit, leftovers: Leftovers },
    /// No leftover processes remain. Follows [`Event::Exited`] with [`Leftovers::Some`].
    LeftoversGone { run: RunId },
    /// keepalive has received a signal.
    Signal(Signal),
    /// The terminal that keepalive was started on has been closed.
    TerminalClosed,
    /// A request of an operator. The supervisor answers it with one [`Action::Reply`].
    Request { id: RequestId, request: Request },
    /// [`Action::LoadConfig`] has succeeded.
    ConfigLoaded {
        id: Option<RequestId>,
        /// Services keep their position in the plan. Removed services stay in it, with no instances.
        plan: Rc<Plan>,
    },
    /// [`Action::LoadConfig`] has failed: the configuration cannot be read, or it is invalid.
    ConfigLoadFailed {
        id: Option<RequestId>,
        /// One or more lines.
        reason: Rc<str>,
    },
    /// The client of this request has gone: do not reply. The requested operation continues.
    Withdrawn(RequestId),
    /// keepalive has no child processes left.
    NoChildren,
    /// [`Action::MeasureMemory`] has ended: what the process trees of runs use, as far as that could be measured.
    MemoryMeasured(Vec<(RunId, MemoryUse)>),
    /// The time of the wall clock, in seconds since 1970: [`super::Supervisor::wall_deadline`] has passed, or the clock was set.
    WallClock(i64),
    /// Files of a service with `watch` have changed.
    FilesChanged { service: ServiceIndex },
    /// Time has passed. Follows every wait; additional ticks are harmless.
    Tick,
}

/// The mechanism that has reported readiness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadySource {
    /// `READY=1` of sd_notify(3).
    Notify,
    /// A message on the ipc channel.
    Ipc,
    /// A newline on `ready.fd`.
    Fd,
    /// A successful readiness probe.
    Probe,
}

/// Whether a main process has left other processes behind in its process group or session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftovers {
    None,
    /// [`Event::LeftoversGone`] follows.
    Some,
}

/// Something that the runtime must do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Start the main process of an instance. The runtime answers with [`Event::Spawned`], [`Event::SpawnFailed`] or
    /// [`Event::BindFailed`] before it handles anything else.
    Spawn {
        run: RunId,
        instance: InstanceId,
        /// A hook, in place of the main process. It is a run of its own.
        hook: Option<Hook>,
        /// For `post_stop`: how the main process has exited, if there was one.
        ended: Option<ExitStatus>,
        /// `KEEPALIVE_RESTARTS`: the number of restarts so far.
        restarts: u32,
        /// `KEEPALIVE_INSTANCES`: how many instances the service should have.
        instances: u32,
        /// The definition to start. Other instances of the service may still run an older one.
        definition: Rc<Service>,
    },
    /// Load the configuration. The runtime answers with [`Event::ConfigLoaded`] or [`Event::ConfigLoadFailed`].
    LoadConfig {
        /// The request that waits for it; `None` after a signal.
        id: Option<RequestId>,
    },
    /// The client of this request has gone. Skip the load if it has not begun.
    WithdrawConfigLoad { id: RequestId },
    /// Cancel all loads of the configuration: keepalive is shutting down.
    CancelConfigLoad,
    /// Use this plan from now on.
    ApplyConfig(Rc<Plan>),
    /// Announce the stop signal on the ipc channel of the process.
    AnnounceStop { run: RunId },
    /// Start the readiness probe. The runtime answers with [`Event::Ready`].
    StartProbe { run: RunId },
    /// Stop the readiness probe, because the process was not ready in time, and log its last failure.
    AbortProbe { run: RunId },
    /// Start a health check. The runtime answers with [`Event::Checked`], unless it is aborted or the main process exits.
    StartCheck { run: RunId, health: Rc<Health> },
    /// Measure the memory of the services with `max_memory`. The runtime answers with [`Event::MemoryMeasured`], in any case.
    MeasureMemory,
    /// Abort the health check.
    AbortCheck { run: RunId },
    /// Release the resources of a run whose main process has exited: its probe, its channel, its status.
    ReleaseRun { run: RunId, instance: InstanceId },
    /// Send a signal. If there is no such process any more, do nothing.
    Signal { run: RunId, scope: Scope, signal: Signal },
    /// Send a signal to all processes below keepalive. The runtime answers with [`Event::NoChildren`] if there are none.
    SignalAll { signal: Signal },
    /// Release the resources that an instance keeps between runs: it has stopped. Never a surge instance.
    ReleaseInstance { instance: InstanceId },
    /// Release the resources that an instance keeps for its whole life: it has been removed. Never a surge instance.
    RemoveInstance { instance: InstanceId },
    /// Release the resources of a service that has been removed from the configuration: its last instance is gone.
    ReleaseService { service: ServiceIndex },
    /// Direct new connections to the sockets of this instance: it is ready.
    PreferSockets { instance: InstanceId },
    /// Log and publish an event.
    WriteJournal(JournalEntry),
    /// Answer a request.
    Reply { id: RequestId, result: Result<(), Refusal> },
    /// Exit.
    Exit(Outcome),
}

/// The processes of a run that a signal is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The main process, which has not been reaped.
    Main,
    /// The process group of the main process, which has not been reaped.
    Group,
    /// The leftover processes in the group and session of a main process that has been reaped.
    Leftovers,
}

/// What the runtime must do next; see [`super::Supervisor::poll`].
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Perform the action, then poll again.
    Do(Action),
    /// Wait for an event, at most until `until`.
    Wait { until: Option<Mono> },
}

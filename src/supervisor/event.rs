//! What goes in and what comes out.

use nix::errno::Errno;

use super::{Outcome, Record, Refusal, Request, RequestId};
use crate::model::{ExitStatus, InstanceId, Mono, Pid, Signal, StartFailure};

/// What has happened in the world.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// A main process has ended and has been reaped.
    Exited {
        /// As in [`Event::Spawned`].
        pid: Pid,
        /// How.
        exit: Exit,
        /// Whether its process group or session still has members.
        left: Left,
    },
    /// After [`Event::Exited`] with [`Left::Processes`]: nothing is left of them.
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
pub enum Left {
    /// No.
    Nothing,
    /// Yes; [`Event::Cleared`] will tell when they are gone.
    Processes,
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
    /// Tell what has happened.
    Record(Record),
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
    Left,
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

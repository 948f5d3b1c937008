//! Processes and how they end.

use std::fmt;
use std::num::NonZeroI32;

use nix::errno::Errno;

use super::{Signal, exit_code};

/// The id of one process; never zero or negative, so that kill(2) cannot take it for a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pid(NonZeroI32);

impl Pid {
    /// `None` for zero and negative numbers, which mean something else to the kernel.
    #[must_use]
    pub fn new(raw: i32) -> Option<Self> {
        NonZeroI32::new(raw).filter(|number| number.get() > 0).map(Self)
    }

    /// The number as the kernel has it.
    #[must_use]
    pub const fn get(self) -> i32 {
        self.0.get()
    }

    /// The process group that this process leads, if it leads one.
    #[must_use]
    pub const fn led_group(self) -> Pgid {
        Pgid(self.0)
    }
}

impl fmt::Display for Pid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// The id of one process group, another type than [`Pid`] so that a kill cannot hit the wrong one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pgid(NonZeroI32);

impl Pgid {
    /// `None` for zero and negative numbers.
    #[must_use]
    pub fn new(raw: i32) -> Option<Self> {
        Pid::new(raw).map(Pid::led_group)
    }

    /// The number as the kernel has it, positive.
    #[must_use]
    pub const fn get(self) -> i32 {
        self.0.get()
    }
}

/// The position of a service in [`super::Plan::services`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceIndex(pub u32);

impl ServiceIndex {
    /// For indexing the vectors that run parallel to [`super::Plan::services`].
    #[must_use]
    pub const fn position(self) -> usize {
        self.0 as usize
    }
}

/// One instance of one service: `web.2` is number 2 of `web`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId {
    /// The service.
    pub service: ServiceIndex,
    /// 0…n−1; of a [`Self::surge`], more.
    pub number: u32,
}

/// More than any instance has.
const TWIN: u32 = 1 << 31;

impl InstanceId {
    /// Of the second process that the same instance has while a rolling reload goes on. To users both are the same.
    #[must_use]
    pub const fn surge(self) -> Self {
        Self { service: self.service, number: self.number | TWIN }
    }

    /// The instance, of which this may be the surge.
    #[must_use]
    pub const fn slot(self) -> Self {
        Self { service: self.service, number: self.number & !TWIN }
    }

    /// Whether it is a surge.
    #[must_use]
    pub const fn is_surge(self) -> bool {
        self.number & TWIN != 0
    }
}

/// How a process ended, as waitid(2) tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExitStatus {
    /// It called exit(3) with this code.
    Code(u8),
    /// A signal killed it.
    Signal(Signal),
}

impl ExitStatus {
    /// The exit code that a shell, Docker and Kubernetes show for it: 128+N for signal N.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128_u8.saturating_add(signal.number()),
        }
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(formatter, "exit {code}"),
            Self::Signal(signal) => write!(formatter, "{signal}"),
        }
    }
}

/// Why a process never got to run its program: the step that failed before execve, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartFailure {
    /// What was being done.
    pub step: StartStep,
    /// What the kernel said.
    pub errno: Errno,
}

/// The steps before execve, in the order in which they are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartStep {
    /// bind(2) and listen(2), before there is a process; the position in `listen`.
    Listen(u8),
    /// setsid(2), setpgid(2), tcsetpgrp(3).
    Session,
    /// dup2(2) of stdin, stdout or stderr.
    Stdio,
    /// dup2(2) of the other descriptors that it is given.
    Descriptors,
    /// Writing /proc/self/oom_score_adj.
    OomScoreAdj,
    /// setrlimit(2); the position in `limits`.
    Limit(u8),
    /// setpriority(2).
    Nice,
    /// setgroups(2).
    Groups,
    /// setgid(2).
    Group,
    /// setuid(2).
    User,
    /// Opening the file of `state`.
    State,
    /// chdir(2).
    Directory,
    /// prctl(2) `PR_SET_NO_NEW_PRIVS`.
    NoNewPrivs,
    /// execve(2).
    Exec,
}

impl StartFailure {
    /// The exit code of the process: 127 not found, 71 if the system was out of something, 126 for everything else.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        if self.is_shortage() || matches!(self.step, StartStep::Listen(_)) {
            exit_code::SYSTEM_REFUSES
        } else if self.step == StartStep::Exec && self.errno == Errno::ENOENT {
            exit_code::NOT_FOUND
        } else {
            exit_code::NOT_EXECUTABLE
        }
    }

    /// Whether the system was out of something, so that the same start may well succeed a moment later.
    #[must_use]
    pub fn is_shortage(self) -> bool {
        matches!(self.errno, Errno::EAGAIN | Errno::ENOMEM | Errno::EMFILE | Errno::ENFILE)
    }
}

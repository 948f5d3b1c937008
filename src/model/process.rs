//! Process ids, and how processes start and exit.

use std::fmt;
use std::num::NonZeroI32;

use nix::errno::Errno;

use super::env_file::EnvLineError;
use super::program_name::ProgramName;
use super::signal::Signal;
use super::{errno, exit_code};

/// The id of a process. Always positive, so that kill(2) cannot mistake it for a process group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pid(NonZeroI32);

impl Pid {
    /// `None` for zero and negative numbers, which have other meanings to the kernel.
    #[must_use]
    pub fn new(raw: i32) -> Option<Self> {
        NonZeroI32::new(raw).filter(|number| number.get() > 0).map(Self)
    }

    /// The number that system calls use.
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

/// The id of a process group. A type of its own, so that it cannot be confused with a [`Pid`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pgid(NonZeroI32);

impl Pgid {
    /// `None` for zero and negative numbers.
    #[must_use]
    pub fn new(raw: i32) -> Option<Self> {
        Pid::new(raw).map(Pid::led_group)
    }

    /// The number that system calls use, positive.
    #[must_use]
    pub const fn get(self) -> i32 {
        self.0.get()
    }
}

/// The position of a service in `Plan::services`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceIndex(pub u32);

impl ServiceIndex {
    /// The index into `Plan::services` and into vectors parallel to it.
    #[must_use]
    pub const fn position(self) -> usize {
        self.0 as usize
    }
}

/// An instance of a service: `web.2` is number 2 of `web`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId {
    /// The service.
    pub service: ServiceIndex,
    /// 0…n−1; for a surge instance with [`SURGE_BIT`] set.
    pub number: u32,
}

/// Marks a surge instance. Larger than the number of any instance.
const SURGE_BIT: u32 = 1 << 31;

impl InstanceId {
    /// The surge instance: the second process of this instance during a rolling reload. Users see the same name for both.
    #[must_use]
    pub const fn surge(self) -> Self {
        Self { service: self.service, number: self.number | SURGE_BIT }
    }

    /// The instance that this is, or that this is the surge instance of.
    #[must_use]
    pub const fn slot(self) -> Self {
        Self { service: self.service, number: self.number & !SURGE_BIT }
    }

    /// Whether this is a surge instance.
    #[must_use]
    pub const fn is_surge(self) -> bool {
        self.number & SURGE_BIT != 0
    }
}

/// How a process exited, waitid(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExitStatus {
    /// The process called exit(3) with this code.
    Code(u8),
    /// The signal killed the process.
    Signal(Signal),
}

impl ExitStatus {
    /// The exit code that shells, Docker and Kubernetes show: 128+N for signal N.
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
            Self::Code(code) => write!(formatter, "exited with code {code}"),
            Self::Signal(signal) => write!(formatter, "killed by {signal}"),
        }
    }
}

/// Why a process could not execute its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartFailure {
    /// The step that failed.
    pub step: StartStep,
    /// The error of the system call.
    pub errno: Errno,
}

/// The steps of starting a process, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartStep {
    /// bind(2) and listen(2), before the process is created; the position in `listen`.
    Listen(u8),
    /// pipe(2), socketpair(2) and socket(2), before the process is created.
    Channels,
    /// memfd_create(2) for `state`, before the process is created.
    StateMemory,
    /// clone(2).
    Create,
    /// setsid(2), setpgid(2), tcsetpgrp(3).
    Session,
    /// dup2(2) of stdin, stdout or stderr.
    Stdio,
    /// Receiving the stored descriptors.
    Stored,
    /// dup2(2) of the other descriptors.
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
    /// open(2) of the file for `state`.
    State,
    /// chdir(2).
    Directory,
    /// prctl(2) `PR_SET_NO_NEW_PRIVS`.
    NoNewPrivs,
    /// Reading an `env_file`; the position in `env_files`.
    EnvFile(u8),
    /// A line of an `env_file`, from 1.
    EnvLine(u8, u32, EnvLineError),
    /// execve(2).
    Exec,
    /// execve(2): the interpreter of the script, or the dynamic loader of the program, does not exist.
    Interpreter(ProgramName),
    /// execve(2): the program is for this architecture, which is not that of the machine.
    Architecture(ProgramName),
}

impl StartFailure {
    /// The exit code of the process: 127 if the program is not found, 71 for a resource shortage or if there is no process,
    /// otherwise 126.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        let has_no_process = matches!(
            self.step,
            StartStep::Listen(_) | StartStep::Channels | StartStep::StateMemory | StartStep::Create
        );
        if self.is_shortage() || has_no_process {
            exit_code::OS_ERROR
        } else if self.step == StartStep::Exec && self.errno == Errno::ENOENT {
            exit_code::NOT_FOUND
        } else {
            exit_code::NOT_EXECUTABLE
        }
    }

    /// Writes what has failed: ``cannot change to directory `/app`: No such file or directory``. `operand`: what could not be
    /// executed, entered or set.
    ///
    /// # Errors
    /// Those of `formatter`.
    pub fn write(self, operand: Option<&str>, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = match self.step {
            StartStep::Listen(_) => "cannot listen on",
            StartStep::Channels => "cannot create its pipes and sockets",
            StartStep::StateMemory => "cannot create the memory file of its `state`",
            StartStep::Create => "cannot create a process",
            StartStep::Session => "cannot create a session",
            StartStep::Stdio => "cannot set up stdin, stdout and stderr",
            StartStep::Stored => "cannot receive its stored file descriptors",
            StartStep::Descriptors => "cannot pass its file descriptors",
            StartStep::Limit(_) => "cannot set the limit",
            StartStep::Nice => "cannot set `nice`",
            StartStep::OomScoreAdj => "cannot set `oom_score_adj`",
            StartStep::Groups => "cannot set its supplementary groups",
            StartStep::Group => "cannot switch to its `group`",
            StartStep::User => "cannot switch to its `user`",
            StartStep::State => "cannot open its `state`",
            StartStep::Directory => "cannot change to directory",
            StartStep::NoNewPrivs => "cannot set `no_new_privs`",
            StartStep::EnvFile(_) => "cannot read its `env_file`",
            StartStep::EnvLine(..) => "cannot use its `env_file`",
            StartStep::Exec | StartStep::Interpreter(_) | StartStep::Architecture(_) => "cannot execute",
        };
        formatter.write_str(step)?;
        if self.step == StartStep::Create && matches!(self.errno, Errno::ENOSYS | Errno::EPERM) {
            formatter.write_str(" with the system call clone")?;
        }
        if let Some(operand) = operand {
            write!(formatter, " `{}`", operand.escape_debug())?;
        }
        if let StartStep::EnvLine(_, line, error) = self.step {
            return write!(formatter, ", line {line}: {}", error.words().0);
        }
        write!(formatter, ": {}", self.reason())
    }

    /// Why the step has failed: `No such file or directory`.
    pub fn reason(self) -> impl fmt::Display {
        fmt::from_fn(move |formatter| {
            if let StartStep::Interpreter(name) = self.step {
                return write!(formatter, "{}", name.missing());
            }
            let is_path = matches!(self.step, StartStep::Listen(_));
            formatter.write_str(if is_path { errno::words_of_path } else { errno::words }(self.errno))?;
            if let StartStep::Architecture(name) = self.step {
                write!(formatter, " (a program for {name})")?;
            }
            Ok(())
        })
    }

    /// Whether the program, what executes it or its directory is missing or may not be used.
    #[must_use]
    pub const fn is_of_program(self) -> bool {
        matches!(
            self.step,
            StartStep::Exec | StartStep::Interpreter(_) | StartStep::Architecture(_) | StartStep::Directory
        )
    }

    /// Whether a resource of the system was exhausted, so that the same start may succeed later.
    #[must_use]
    pub fn is_shortage(self) -> bool {
        // Without its stored descriptors the process starts the next time: they are dropped.
        self.step == StartStep::Stored || errno::is_shortage(self.errno)
    }
}

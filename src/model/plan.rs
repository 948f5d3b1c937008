//! The plan: a configuration that has been read, completed with defaults and found right.
//!
//! Everything that can be checked before a start has been checked when a [`Plan`] exists: names are unique, what
//! `depends_on` names exists and has no cycle, users are numbers.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

pub use super::socket::{Address, Listen, ListenMode};
use super::{ExitStatus, ServiceIndex, Signal, Template};

/// Where Kubernetes reads why a container has ended, unless it is told otherwise.
pub const TERMINATION_LOG: &str = "/dev/termination-log";

/// A service set, ready to be run.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// For the whole ordered stop; then SIGKILL to all that is left.
    pub shutdown_timeout: Duration,
    /// What to do on each signal that keepalive receives.
    pub signals: SignalUses,
    /// Where the reason of an unrecoverable end is written, if the file exists.
    pub termination_log: PathBuf,
    /// How lines look that go through keepalive, and its own.
    pub log: LogStyle,
    /// Where clients reach keepalive.
    pub control: Control,
    /// `http`: where the read-only part is served; `None`: nowhere.
    pub http: Option<SocketAddr>,
    /// In the order of the file; [`ServiceIndex`] is a position here. Never empty.
    pub services: Vec<Rc<Service>>,
}

impl Plan {
    /// Whether any output goes through keepalive.
    #[must_use]
    pub fn carries_logs(&self) -> bool {
        self.services.iter().any(|service| service.process.carries_logs())
    }

    /// How many instances all services have together.
    #[must_use]
    pub fn instances(&self) -> u32 {
        self.services.iter().map(|service| service.instances).sum()
    }

    /// `new` with each service at the position that it has in `self`, those that are new behind all others. What `new`
    /// does not have any more stays, without instances. A service that has not changed is the very same.
    #[must_use]
    pub fn merged(&self, new: Self) -> Self {
        super::merge::merged(self, new)
    }
}

/// `[keepalive] log`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStyle {
    /// `format`.
    pub format: LogFormat,
    /// `timestamps`: whether lines of text begin with the time. JSON always has it.
    pub timestamps: bool,
}

/// How lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// `control`: the control socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Control {
    /// At the usual place, which clients find by themselves.
    #[default]
    Usual,
    /// Here.
    At(PathBuf),
    /// There is none.
    Off,
}

/// What a signal to keepalive makes it do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalAction {
    /// To the main process of each instance.
    Forward,
    /// Read the configuration again.
    Reload,
    /// The ordered stop.
    Shutdown,
    /// Nothing.
    Ignore,
}

/// One [`SignalAction`] for each of the 64 signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalUses([SignalAction; 64]);

impl SignalUses {
    /// The use of `signal`.
    #[must_use]
    pub fn of(&self, signal: Signal) -> SignalAction {
        self.0.get(usize::from(signal.number()) - 1).copied().unwrap_or(SignalAction::Forward)
    }

    /// Sets the use of `signal`.
    pub fn set(&mut self, signal: Signal, signal_use: SignalAction) {
        if let Some(entry) = self.0.get_mut(usize::from(signal.number()) - 1) {
            *entry = signal_use;
        }
    }
}

impl Default for SignalUses {
    /// TERM, INT and QUIT shut down, HUP reloads, all else is forwarded.
    fn default() -> Self {
        let mut uses = Self([SignalAction::Forward; 64]);
        for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
            uses.set(signal, SignalAction::Shutdown);
        }
        uses.set(Signal::HUP, SignalAction::Reload);
        uses
    }
}

/// One `[services.NAME]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Unique in the plan: ASCII letters, digits, `-` and `_`, beginning with a letter or digit, 64 bytes at most.
    pub name: Box<str>,
    /// Long-running or run once.
    pub kind: Kind,
    /// How many instances, at least 1; 0 if the configuration does not have the service any more.
    pub instances: u32,
    /// What must be ready (or have succeeded) first. No cycles, no duplicates.
    pub depends_on: Box<[ServiceIndex]>,
    /// Whether it starts by itself.
    pub autostart: bool,
    /// When it is started again.
    pub restart: Restart,
    /// When it has failed for good.
    pub on_failure: ExitAction,
    /// When it has completed.
    pub on_success: ExitAction,
    /// How it is stopped.
    pub stop: Stop,
    /// When it counts as ready.
    pub ready: Ready,
    /// `ready_timeout`: a start that takes longer has failed.
    pub ready_timeout: Duration,
    /// `watchdog`: a service that is silent for longer has failed.
    pub watchdog: Option<Duration>,
    /// How its processes are replaced.
    pub reload: Reload,
    /// How its process is made; nothing that the supervisor looks at.
    pub process: Process,
}

impl Service {
    /// Whether it is given a socket to speak to us by, sd_notify(3).
    #[must_use]
    pub fn notifies(&self) -> bool {
        self.ready == Ready::Notify || self.watchdog.is_some() || self.process.fd_store > 0
    }

    /// Whether a process of `other` would be the same: what differs concerns nobody but keepalive.
    #[must_use]
    pub fn same_process_spec(&self, other: &Self) -> bool {
        let Self { kind, ready, watchdog, process, .. } = self;
        (kind, ready, watchdog, process) == (&other.kind, &other.ready, &other.watchdog, &other.process)
    }
}

/// `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Runs until it is stopped.
    Service,
    /// Must succeed before what depends on it starts.
    Oneshot,
}

/// `on_failure`, `on_success`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitAction {
    /// Everything is stopped in order, and keepalive ends.
    Shutdown,
    /// The others go on.
    Ignore,
}

/// When an instance is started again.
#[derive(Clone, Debug, PartialEq)]
pub struct Restart {
    /// `restart`. For a oneshot, `Always` means the same as `OnFailure`: it is done once it has succeeded.
    pub policy: RestartPolicy,
    /// Before every restart.
    pub delay: Duration,
    /// A run shorter than this is unstable.
    pub min_uptime: Duration,
    /// Between consecutive unstable runs, on top of `delay`.
    pub backoff: Backoff,
    /// Consecutive unstable restarts allowed; `None`: as many as it takes.
    pub max_restarts: Option<u32>,
    /// What counts as success.
    pub success: ExitSet,
    /// After these it is not restarted, whatever the policy.
    pub prevent: ExitSet,
}

/// `restart`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartPolicy {
    /// After every end.
    Always,
    /// After an end that is no success.
    OnFailure,
    /// Not at all.
    Never,
}

/// Delay n = min(initial · factorⁿ⁻¹, max), ± jitter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// The first delay.
    pub initial: Duration,
    /// At least 1.
    pub factor: f64,
    /// No delay is longer, jitter aside. At least `initial`.
    pub max: Duration,
    /// 0…1: the share by which a delay may be longer or shorter.
    pub jitter: f64,
}

/// A set of exit codes and signals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExitSet {
    codes: [u64; 4],
    signals: u64,
}

impl ExitSet {
    /// Adds one way to end.
    pub fn insert(&mut self, status: ExitStatus) {
        match status {
            ExitStatus::Code(code) => {
                if let Some(word) = self.codes.get_mut(usize::from(code / 64)) {
                    *word |= 1 << (code % 64);
                }
            }
            ExitStatus::Signal(signal) => self.signals |= signal.bit(),
        }
    }

    /// Whether it was added.
    #[must_use]
    pub fn contains(&self, status: ExitStatus) -> bool {
        match status {
            ExitStatus::Code(code) => {
                self.codes.get(usize::from(code / 64)).is_some_and(|word| word & (1 << (code % 64)) != 0)
            }
            ExitStatus::Signal(signal) => self.signals & signal.bit() != 0,
        }
    }

    /// All that was added: codes first, then signals, each in order.
    pub fn iter(&self) -> impl Iterator<Item = ExitStatus> + '_ {
        let codes = (0..=u8::MAX).map(ExitStatus::Code);
        codes.chain(Signal::all().map(ExitStatus::Signal)).filter(|status| self.contains(*status))
    }
}

impl FromIterator<ExitStatus> for ExitSet {
    fn from_iter<I: IntoIterator<Item = ExitStatus>>(statuses: I) -> Self {
        let mut set = Self::default();
        for status in statuses {
            set.insert(status);
        }
        set
    }
}

/// How an instance is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// `stop_signal`, followed by SIGCONT.
    pub signal: Signal,
    /// `stop_delay`: so long it is not ready any more and has not been signalled yet.
    pub delay: Duration,
    /// `stop_timeout`: then SIGKILL.
    pub timeout: Duration,
    /// Who is signalled.
    pub kill_mode: KillMode,
}

/// `kill_mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillMode {
    /// The stop signal to the main process, SIGKILL to what it leaves in its group and session.
    Mixed,
    /// The stop signal to the whole process group, SIGKILL to what is left of it in the end.
    Group,
    /// The main process alone; what it leaves stays until keepalive ends.
    Process,
}

/// `ready`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ready {
    /// As soon as its program runs.
    Exec,
    /// So long after its program runs.
    Delay(Duration),
    /// When it says `READY=1`, sd_notify(3).
    Notify,
    /// When it says `"ready"` on its ipc channel.
    Ipc,
    /// When it writes a newline to this descriptor, as s6 has it.
    Fd(u8),
    /// When somebody else finds that it is.
    Probe(Probe),
}

/// How it is found out whether a process is there for others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// A connection is taken at this `address:port`.
    Tcp(Template),
    /// A `GET` is answered with a status from 200 to 399.
    Http {
        /// `address:port`, of which the `Host` header is made too.
        authority: Template,
        /// From its `/` on.
        target: Template,
    },
    /// This file exists.
    File(Template),
    /// This command, run as the service's user in its directory, ends with 0.
    Exec(Box<[Template]>),
}

/// `reload`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reload {
    /// `strategy`.
    pub strategy: Strategy,
    /// `max_surge`: so many more processes than instances at most, at least 1.
    pub max_surge: u32,
    /// `soak`: a new process has to stay up for so long once it is ready.
    pub soak: Duration,
}

/// `reload.strategy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// A new process beside each old one, which ends when the new one is ready.
    Rolling,
    /// This signal, and the process does the rest itself.
    Signal(Signal),
    /// Each is stopped and started again, one after the other.
    Restart,
}

/// `state`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// In bytes.
    pub size: u64,
    /// The file that it is; `None`: memory of keepalive's.
    pub persist: Option<Template>,
}

/// How the process of an instance is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Program and arguments; never empty. The program is looked up in `PATH` unless it contains a `/`.
    pub command: Box<[Template]>,
    /// `cwd`; `None`: keepalive's own.
    pub cwd: Option<Template>,
    /// `user`, `group`, `groups`; `None`: keepalive's own.
    pub credentials: Option<Credentials>,
    /// `umask`; `None`: keepalive's own.
    pub umask: Option<u32>,
    /// `NAME=value` each, one for each name; they take precedence over what is inherited.
    pub env: Box<[Template]>,
    /// Whether the environment that keepalive was started with is passed on below `env`.
    pub inherit_env: bool,
    /// The terminal and stdin of keepalive, or none and /dev/null.
    pub input: Input,
    /// `log.stdout`.
    pub stdout: Output,
    /// `log.stderr`.
    pub stderr: Output,
    /// `log.file`, which gets both besides.
    pub log_file: Option<LogFile>,
    /// `limits`.
    pub limits: Box<[Limit]>,
    /// `nice`; `None`: keepalive's own.
    pub nice: Option<i8>,
    /// `oom_score_adj`, −1000…1000; `None`: keepalive's own.
    pub oom_score_adj: Option<i16>,
    /// `no_new_privs`.
    pub no_new_privs: bool,
    /// `listen`: the sockets that it is given, from descriptor 3 on.
    pub listen: Box<[Listen]>,
    /// `listen_mode`.
    pub listen_mode: ListenMode,
    /// `listen_fds`: whether `LISTEN_FDS` tells it of its sockets.
    pub listen_fds: bool,
    /// `fd_store`: so many descriptors may be kept for it, and follow its sockets.
    pub fd_store: u32,
    /// `state`: memory that survives a restart.
    pub state: Option<State>,
    /// `ipc`: whether it has a channel of JSON lines.
    pub ipc: bool,
}

impl Process {
    /// Whether any of its output goes through keepalive.
    #[must_use]
    pub fn carries_logs(&self) -> bool {
        self.log_file.is_some() || self.stdout == Output::Prefix || self.stderr == Output::Prefix
    }
}

/// Who a process runs as, in numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// setuid(2).
    pub uid: u32,
    /// setgid(2).
    pub gid: u32,
    /// setgroups(2): the supplementary groups.
    pub groups: Box<[u32]>,
}

/// Where stdin comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// /dev/null, and a session of its own.
    Null,
    /// keepalive's stdin; where that is a terminal, its foreground process group too (the service `main`).
    Terminal,
}

/// Where stdout or stderr goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Where keepalive's own goes.
    Inherit,
    /// /dev/null.
    Null,
    /// Through keepalive, each line with the name of the instance before it, or in JSON.
    Prefix,
}

/// A file that grows to a limit, is then renamed and begun anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFile {
    /// `file`; absolute.
    pub path: Template,
    /// `max_size` in bytes, at least 1 KiB.
    pub max_size: u64,
    /// `max_files`: how many old ones are kept, `NAME.1` being the newest.
    pub max_files: u32,
}

/// One resource limit, setrlimit(2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Its name in `limits`: `nofile`.
    pub name: &'static str,
    /// Its `RLIMIT_` number.
    pub resource: u32,
    /// `None`: unlimited.
    pub soft: Option<u64>,
    /// `None`: unlimited.
    pub hard: Option<u64>,
}

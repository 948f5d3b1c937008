//! The plan: a configuration that has been parsed, completed with defaults and validated.
//!
//! When a [`Plan`] exists, everything that can be checked before a start has been checked: names are unique, dependencies
//! exist and form no cycle, users and groups are numbers.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use super::process::{ExitStatus, ServiceIndex};
use super::signal::Signal;
pub use super::socket::{Address, Listen, ListenMode};
use super::template::Template;

/// The file from which Kubernetes reads by default why a container has terminated.
pub const TERMINATION_LOG: &str = "/dev/termination-log";

/// A validated configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The time for the whole shutdown. Then all remaining processes get SIGKILL.
    pub shutdown_timeout: Duration,
    /// The action for each signal that keepalive receives.
    pub signals: SignalActions,
    /// The file to which keepalive writes why it exits with a failure, if the file exists.
    pub termination_log: PathBuf,
    /// The format of captured output and of keepalive's own messages.
    pub log: LogStyle,
    /// The control socket.
    pub control: Control,
    /// `http`: the address of the read-only HTTP server; `None`: no server.
    pub http: Option<SocketAddr>,
    /// The services in the order of the file. [`ServiceIndex`] is a position here. Never empty.
    pub services: Vec<Rc<Service>>,
}

impl Plan {
    /// Whether keepalive captures the output of any service.
    #[must_use]
    pub fn captures_output(&self) -> bool {
        self.services.iter().any(|service| service.process.captures_output())
    }

    /// The number of instances of all services.
    #[must_use]
    pub fn instances(&self) -> u32 {
        self.services.iter().map(|service| service.instances).sum()
    }
}

/// `[keepalive] log`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStyle {
    /// `format`.
    pub format: LogFormat,
    /// `timestamps`: whether lines of text start with the time. JSON always contains it.
    pub timestamps: bool,
}

/// `log.format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Plain text.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// `control`: the control socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Control {
    /// At the default path, which clients find by themselves.
    #[default]
    Default,
    /// At this path.
    At(PathBuf),
    /// No control socket.
    Off,
}

/// What keepalive does when it receives a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalAction {
    /// Forwards it to the main process of each instance.
    Forward,
    /// Reloads the configuration.
    Reload,
    /// Shuts down.
    Shutdown,
    /// Ignores it.
    Ignore,
}

/// One [`SignalAction`] for each of the 64 signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalActions([SignalAction; 64]);

impl SignalActions {
    /// The action for `signal`.
    #[must_use]
    pub fn of(&self, signal: Signal) -> SignalAction {
        self.0.get(usize::from(signal.number()) - 1).copied().unwrap_or(SignalAction::Forward)
    }

    /// Sets the action for `signal`.
    pub fn set(&mut self, signal: Signal, action: SignalAction) {
        if let Some(entry) = self.0.get_mut(usize::from(signal.number()) - 1) {
            *entry = action;
        }
    }
}

impl Default for SignalActions {
    /// SIGTERM, SIGINT and SIGQUIT shut down, SIGHUP reloads, all other signals are forwarded.
    fn default() -> Self {
        let mut actions = Self([SignalAction::Forward; 64]);
        for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
            actions.set(signal, SignalAction::Shutdown);
        }
        actions.set(Signal::HUP, SignalAction::Reload);
        actions
    }
}

/// A section `[services.NAME]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Unique in the plan: ASCII letters, digits, `-` and `_`, starting with a letter or digit, at most 64 bytes.
    pub name: Box<str>,
    /// `type`.
    pub kind: Kind,
    /// The number of instances, at least 1; 0 if the configuration no longer contains the service.
    pub instances: u32,
    /// The services that must be ready (or have succeeded) first. No cycles, no duplicates.
    pub depends_on: Box<[ServiceIndex]>,
    /// Whether it is started when keepalive starts.
    pub autostart: bool,
    /// When and how often it is restarted.
    pub restart: Restart,
    /// The action when it has failed permanently.
    pub on_failure: ExitAction,
    /// The action when it has completed.
    pub on_success: ExitAction,
    /// How it is stopped.
    pub stop: Stop,
    /// When it is ready.
    pub ready: Ready,
    /// `ready_timeout`: a start that takes longer fails.
    pub ready_timeout: Duration,
    /// `watchdog`: an instance that sends no keep-alive for longer fails.
    pub watchdog: Option<Duration>,
    /// How its processes are replaced.
    pub reload: Reload,
    /// How its processes are started. The supervisor does not use it.
    pub process: Process,
}

impl Service {
    /// Whether its processes are given a notification socket, sd_notify(3).
    #[must_use]
    pub fn uses_notify_socket(&self) -> bool {
        self.ready == Ready::Notify || self.watchdog.is_some() || self.process.fd_store > 0
    }

    /// Whether a process of `other` would be started in the same way: only settings that keepalive itself uses differ.
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
    /// Must complete successfully before services that depend on it start.
    Oneshot,
}

/// `on_failure`, `on_success`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitAction {
    /// keepalive stops all services in order and exits.
    Shutdown,
    /// The other services continue.
    Ignore,
}

/// When an instance is restarted.
#[derive(Clone, Debug, PartialEq)]
pub struct Restart {
    /// `restart`. For a oneshot, `Always` means the same as `OnFailure`: it has completed once it succeeds.
    pub policy: RestartPolicy,
    /// The delay before every restart.
    pub delay: Duration,
    /// A shorter run is unstable.
    pub min_uptime: Duration,
    /// The additional delay between consecutive unstable runs.
    pub backoff: Backoff,
    /// The maximum number of consecutive unstable restarts; `None`: no limit.
    pub max_restarts: Option<u32>,
    /// The exit statuses that mean success.
    pub success: ExitSet,
    /// The exit statuses after which it is never restarted, whatever the policy.
    pub prevent: ExitSet,
}

/// `restart`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartPolicy {
    /// After every exit.
    Always,
    /// After an unsuccessful exit.
    OnFailure,
    /// After no exit.
    Never,
}

/// The delays between restarts: delay n = min(initial · factorⁿ⁻¹, max), ± jitter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// The first delay.
    pub initial: Duration,
    /// The factor between consecutive delays, at least 1.
    pub factor: f64,
    /// The longest delay before jitter, at least `initial`.
    pub max: Duration,
    /// The fraction by which a delay is randomly lengthened or shortened, 0…1.
    pub jitter: f64,
}

/// A set of exit codes and signals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExitSet {
    codes: [u64; 4],
    signals: u64,
}

impl ExitSet {
    /// Adds `status`.
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

    /// Whether `status` is in the set.
    #[must_use]
    pub fn contains(&self, status: ExitStatus) -> bool {
        match status {
            ExitStatus::Code(code) => {
                self.codes.get(usize::from(code / 64)).is_some_and(|word| word & (1 << (code % 64)) != 0)
            }
            ExitStatus::Signal(signal) => self.signals & signal.bit() != 0,
        }
    }

    /// The codes in ascending order, then the signals in ascending order.
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
    /// `stop_delay`: the delay between marking it not ready and sending the stop signal.
    pub delay: Duration,
    /// `stop_timeout`: the time between the stop signal and SIGKILL.
    pub timeout: Duration,
    /// The processes that are signalled.
    pub kill_mode: KillMode,
}

/// `kill_mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillMode {
    /// The stop signal goes to the main process, SIGKILL to the leftover processes of its group and session.
    Mixed,
    /// The stop signal goes to the whole process group, SIGKILL to its leftover processes.
    Group,
    /// Only the main process is signalled; leftover processes run until keepalive exits.
    Process,
}

/// `ready`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ready {
    /// As soon as the program has been executed.
    Exec,
    /// This time after the program has been executed.
    Delay(Duration),
    /// When the process sends `READY=1`, sd_notify(3).
    Notify,
    /// When the process sends `"ready"` on its ipc channel.
    Ipc,
    /// When the process writes a newline to this descriptor, as in s6.
    Fd(u8),
    /// When a probe succeeds.
    Probe(Probe),
}

/// A readiness probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Succeeds if this `address:port` accepts a connection.
    Tcp(Template),
    /// Succeeds if a `GET` request is answered with a status from 200 to 399.
    Http {
        /// `address:port`, also sent as the `Host` header.
        authority: Template,
        /// The path and query, starting with `/`.
        target: Template,
    },
    /// Succeeds if this file exists.
    File(Template),
    /// Succeeds if this command, run as the service's user in its directory, exits with 0.
    Exec(Box<[Template]>),
}

/// `reload`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reload {
    /// `strategy`.
    pub strategy: Strategy,
    /// `max_surge`: how many more processes than instances there may be, at least 1.
    pub max_surge: u32,
    /// `soak`: how long a new process must stay up after it has become ready.
    pub soak: Duration,
}

/// `reload.strategy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// A new process is started beside each old one, which is stopped when the new one is ready.
    Rolling,
    /// The process is sent this signal and reloads by itself.
    Signal(Signal),
    /// Instances are stopped and started again, one after the other.
    Restart,
}

/// `state`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The size in bytes.
    pub size: u64,
    /// The file that holds the state; `None`: a memfd that keepalive holds.
    pub persist: Option<Template>,
}

/// How the process of an instance is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Program and arguments; never empty. The program is searched for in `PATH` unless it contains a `/`.
    pub command: Box<[Template]>,
    /// `cwd`; `None`: keepalive's own.
    pub cwd: Option<Template>,
    /// `user`, `group`, `groups`; `None`: keepalive's own.
    pub credentials: Option<Credentials>,
    /// `umask`; `None`: keepalive's own.
    pub umask: Option<u32>,
    /// Environment variables as `NAME=value`, at most one for each name. They override inherited variables.
    pub env: Box<[Template]>,
    /// Whether the process inherits the environment that keepalive was started with.
    pub inherit_env: bool,
    /// The source of stdin.
    pub input: Input,
    /// `log.stdout`.
    pub stdout: Output,
    /// `log.stderr`.
    pub stderr: Output,
    /// `log.file`, to which both are written in addition.
    pub log_file: Option<LogFile>,
    /// `limits`.
    pub limits: Box<[Limit]>,
    /// `nice`; `None`: keepalive's own.
    pub nice: Option<i8>,
    /// `oom_score_adj`, −1000…1000; `None`: keepalive's own.
    pub oom_score_adj: Option<i16>,
    /// `no_new_privs`.
    pub no_new_privs: bool,
    /// `listen`: the sockets that it inherits, from descriptor 3 on.
    pub listen: Box<[Listen]>,
    /// `listen_mode`.
    pub listen_mode: ListenMode,
    /// `listen_fds`: whether `LISTEN_FDS` tells it of its sockets.
    pub listen_fds: bool,
    /// `fd_store`: so many descriptors may be kept for it, and follow its sockets.
    pub fd_store: u32,
    /// `state`: memory that survives a restart.
    pub state: Option<State>,
    /// `ipc`: whether it has a channel for messages in JSON lines.
    pub ipc: bool,
}

impl Process {
    /// Whether keepalive captures its output.
    #[must_use]
    pub fn captures_output(&self) -> bool {
        self.log_file.is_some() || self.stdout == Output::Prefix || self.stderr == Output::Prefix
    }
}

/// The user and groups of a process, credentials(7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// setuid(2).
    pub uid: u32,
    /// setgid(2).
    pub gid: u32,
    /// setgroups(2): the supplementary groups.
    pub groups: Box<[u32]>,
}

/// The source of a process's stdin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// /dev/null. The process has a session of its own.
    Null,
    /// keepalive's stdin. If that is a terminal, the process group is in its foreground. For the service `main`.
    Terminal,
}

/// The destination of a process's stdout or stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// keepalive's own stdout or stderr.
    Inherit,
    /// /dev/null.
    Null,
    /// keepalive captures it and writes each line with the name of the instance as a prefix, or as JSON.
    Prefix,
}

/// A log file that is rotated when it reaches its maximum size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFile {
    /// `file`, an absolute path.
    pub path: Template,
    /// `max_size` in bytes, at least 1 KiB.
    pub max_size: u64,
    /// `max_files`: how many rotated files are kept. `NAME.1` is the newest.
    pub max_files: u32,
}

/// A resource limit, setrlimit(2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The name in `limits`, such as `nofile`.
    pub name: &'static str,
    /// The `RLIMIT_` number.
    pub resource: u32,
    /// The soft limit; `None`: unlimited.
    pub soft: Option<u64>,
    /// The hard limit; `None`: unlimited.
    pub hard: Option<u64>,
}

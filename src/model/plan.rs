//! The plan: a configuration that has been parsed, completed with defaults and validated.
//!
//! When a [`Plan`] exists, everything that can be checked before a start has been checked: names are unique, dependencies
//! exist and form no cycle, users and groups are numbers.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use super::as_written::AsWritten;
pub use super::exit_set::ExitSet;
pub use super::hooks::{Hook, Hooks};
use super::process::ServiceIndex;
pub use super::process_spec::{Credentials, EnvFile, Input, Limit, LogFiles, Output, Process, State};
use super::schedule::Schedule;
use super::signal::Signal;
pub use super::socket::{Address, Listen, ListenMode};
use super::template::Template;
pub use super::watch::Watch;

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
    pub termination_log: AsWritten<PathBuf>,
    /// The format of captured output and of keepalive's own messages.
    pub log: LogStyle,
    /// The control socket.
    pub control: Control,
    /// `http`: the address of the read-only HTTP server; `None`: no server.
    pub http: Option<AsWritten<SocketAddr>>,
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
    At(AsWritten<PathBuf>),
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
    /// Shuts down, and sends SIGKILL to all processes at once.
    Kill,
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
    /// SIGTERM, SIGINT and SIGQUIT shut down, and so do SIGPWR, which lxc-stop(1) sends, and SIGRTMIN+3, which the image of a
    /// systemd container names as its stop signal. SIGHUP reloads, all other signals are forwarded.
    fn default() -> Self {
        let mut actions = Self([SignalAction::Forward; 64]);
        for signal in [Signal::TERM, Signal::INT, Signal::QUIT, Signal::PWR, Signal::RTMIN_3] {
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
    /// The configuration no longer contains it. It stays in the plan, so that others keep their positions.
    pub is_removed: bool,
    /// The number of instances. With 0 it is off: nothing waits for it.
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
    /// `ready.timeout`: the time limit of one attempt of the probe.
    pub probe_timeout: Duration,
    /// `ready_timeout`: a start, or a run of a oneshot, that takes longer fails; `None`: no limit, the default of a oneshot.
    pub ready_timeout: Option<Duration>,
    /// `watchdog`: an instance that sends no `WATCHDOG=1` for longer fails.
    pub watchdog: Option<Duration>,
    /// `health`: how it is checked while it runs. Not for a oneshot.
    pub health: Option<Rc<Health>>,
    /// How its processes are replaced.
    pub reload: Reload,
    /// `schedule` of a oneshot: when it runs. `restart_schedule` of a service: when its processes are replaced.
    pub schedule: Option<Rc<Schedule>>,
    /// `max_lifetime`: a process that is older is replaced.
    pub max_lifetime: Option<Duration>,
    /// `max_memory`, in bytes: a process whose tree uses more is replaced.
    pub max_memory: Option<u64>,
    /// `watch`: the files whose changes restart it.
    pub watch: Option<Rc<Watch>>,
    /// `pre_start`, `pre_stop`, `post_stop`, `hook_timeout`.
    pub hooks: Hooks,
    /// How its processes are started. The supervisor does not use it.
    pub process: Rc<Process>,
}

impl Service {
    /// Whether it is a oneshot that runs on a schedule.
    #[must_use]
    pub fn runs_on_schedule(&self) -> bool {
        self.kind == Kind::Oneshot && self.schedule.is_some()
    }

    /// How long a start may take.
    #[must_use]
    pub fn start_timeout(&self) -> Duration {
        self.ready_timeout.unwrap_or(Duration::MAX)
    }

    /// Whether its processes are given a notification socket, sd_notify(3).
    #[must_use]
    pub fn uses_notify_socket(&self) -> bool {
        self.ready == Ready::Notify || self.watchdog.is_some() || self.process.fd_store > 0
    }

    /// Whether a process of `other` would be started in the same way: only settings that keepalive itself uses differ.
    #[must_use]
    pub fn same_process_spec(&self, other: &Self) -> bool {
        let Self { kind, ready, watchdog, process, .. } = self;
        self.runs_on_schedule() == other.runs_on_schedule()
            && (kind, ready, watchdog, process) == (&other.kind, &other.ready, &other.watchdog, &other.process)
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
    /// The stop signal goes to the main process. When it has exited, the stop signal goes to its leftover processes.
    Mixed,
    /// The stop signal goes to the whole process group at once.
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

/// `health`, `on_unhealthy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// What is checked. Never a file.
    pub probe: Probe,
    /// How, if it is HTTP.
    pub http: HttpCheck,
    /// The time before the first check, and between the end of a check and the next one.
    pub interval: Duration,
    /// The time limit of one check.
    pub timeout: Duration,
    /// The number of consecutive failures after which the process is unhealthy, at least 1.
    pub retries: u32,
    /// How long failures do not count, from when the process is ready until a check succeeds.
    pub start_period: Duration,
    /// `on_unhealthy`.
    pub on_unhealthy: OnUnhealthy,
}

/// `headers`, `expect_status`, `expect_body`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpCheck {
    /// The headers of the request: names and values.
    pub headers: Box<[(Box<str>, Template)]>,
    /// The statuses that mean success.
    pub statuses: Box<[RangeInclusive<u16>]>,
    /// What the body must contain; not empty.
    pub body: Option<AsWritten<Box<str>>>,
}

impl HttpCheck {
    /// The statuses that mean success by default, and in `ready`.
    pub const SUCCESS: RangeInclusive<u16> = 200..=399;
}

impl Default for HttpCheck {
    fn default() -> Self {
        Self { headers: Box::default(), statuses: [Self::SUCCESS].into(), body: None }
    }
}

/// `on_unhealthy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnUnhealthy {
    /// The process is stopped. The restart policy decides, as after an unstable run.
    Restart,
    /// It is not ready until it is healthy again.
    Mark,
    /// keepalive stops all services in order and exits with code 1.
    Shutdown,
}

/// A readiness probe, or a health check.
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

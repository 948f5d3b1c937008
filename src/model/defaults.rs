//! The default settings of services and processes.

use std::rc::Rc;
use std::time::Duration;

use super::plan::{
    Backoff, ExitAction, ExitSet, Hooks, Input, KillMode, Kind, ListenMode, LogFiles, Output, Process, Ready, Reload,
    Restart, RestartPolicy, Service, Stop, Strategy,
};
use super::process::ExitStatus;
use super::signal::Signal;
use super::template::Template;

impl Process {
    /// A process with this command and default settings.
    #[must_use]
    pub fn new(command: Box<[Template]>) -> Self {
        Self {
            command,
            cwd: None,
            credentials: None,
            umask: None,
            env: Box::default(),
            own_env: 0,
            env_files: Box::default(),
            inherit_env: true,
            input: Input::Null,
            stdout: Output::Raw,
            stderr: Output::Raw,
            log_files: LogFiles::default(),
            limits: Box::default(),
            nice: None,
            oom_score_adj: None,
            no_new_privs: false,
            listen: Box::default(),
            listen_mode: ListenMode::Shared,
            listen_fds: true,
            fd_store: 0,
            state: None,
            ipc: false,
        }
    }
}

impl Service {
    /// The default of `ready.timeout`.
    pub const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

    /// The default of `health.interval`.
    pub const HEALTH_INTERVAL: Duration = Duration::from_secs(10);
    /// The default of `health.timeout`.
    pub const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);
    /// The default of `health.retries`.
    pub const HEALTH_RETRIES: u32 = 3;

    /// A service with this name and process and default settings.
    #[must_use]
    pub fn new(name: &str, process: Process) -> Self {
        Self {
            name: name.into(),
            kind: Kind::Service,
            is_removed: false,
            instances: 1,
            depends_on: Box::default(),
            autostart: true,
            restart: Restart {
                policy: RestartPolicy::Always,
                delay: Duration::ZERO,
                min_uptime: Duration::from_secs(10),
                backoff: Backoff::DEFAULT,
                max_restarts: Some(16),
                success: [ExitStatus::Code(0)].into_iter().collect(),
                prevent: ExitSet::default(),
            },
            on_failure: ExitAction::Shutdown,
            on_success: ExitAction::Ignore,
            stop: Stop {
                signal: Signal::TERM,
                delay: Duration::ZERO,
                timeout: Duration::from_secs(5),
                kill_mode: KillMode::Mixed,
            },
            ready: Ready::Exec,
            probe_timeout: Self::PROBE_TIMEOUT,
            ready_timeout: Some(Duration::from_secs(30)),
            watchdog: None,
            health: None,
            reload: Reload { strategy: Strategy::Rolling, max_surge: 1, soak: Duration::from_secs(1) },
            schedule: None,
            max_lifetime: None,
            max_memory: None,
            watch: None,
            hooks: Hooks::default(),
            process: Rc::new(process),
        }
    }
}

impl Backoff {
    /// 100 ms, doubled each time up to 30 s, with a jitter of 10%.
    pub const DEFAULT: Self =
        Self { initial: Duration::from_millis(100), factor: 2.0, max: Duration::from_secs(30), jitter: 0.1 };
}

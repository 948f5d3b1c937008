//! `[services.NAME]`: the settings that the supervisor uses. How the process is started is in `process.rs`.

use std::ffi::OsString;
use std::ops::{Range, RangeInclusive};
use std::os::unix::ffi::OsStrExt as _;
use std::rc::Rc;
use std::time::Duration;

use toml::de::DeTable;

use super::decoder::{Decoder, Schema, Value, Words, entries};
use super::environment::Purpose;
use super::expand::{Placeholders, Scope};
use super::sockets;
use super::suggest::nearest_signal;
use super::words::{EXIT_ACTIONS, KILL_MODES, KINDS, RESTART_POLICIES};
use crate::model::instance_limit::TooManyInstances;
use crate::model::plan::{
    Backoff, ExitAction, ExitSet, Input, Kind, Output, Process, Ready, Reload, Restart, RestartPolicy, Service, Stop,
    Strategy,
};
use crate::model::{ExitStatus, Signal, Template, units};

/// The maximum number of instances, of one service and of all services together. No machine can run more processes.
pub(super) const MAX_INSTANCES: i64 = 65_536;
/// The maximum length of a service's name in bytes: it becomes part of file names, labels and log lines.
pub(crate) const MAX_SERVICE_NAME_LENGTH: usize = 64;

pub(super) const SCHEMA: Schema = Schema {
    keys: &[
        "command",
        "type",
        "instances",
        "cwd",
        "user",
        "group",
        "groups",
        "umask",
        "env",
        "env_file",
        "env_clear",
        "depends_on",
        "autostart",
        "restart",
        "restart_delay",
        "min_uptime",
        "backoff",
        "max_restarts",
        "success_exit_codes",
        "no_restart_exit_codes",
        "on_failure",
        "on_success",
        "stop_signal",
        "stop_delay",
        "stop_timeout",
        "kill_mode",
        "pre_start",
        "pre_stop",
        "post_stop",
        "hook_timeout",
        "ready",
        "ready_timeout",
        "watchdog",
        "health",
        "on_unhealthy",
        "listen",
        "listen_mode",
        "listen_fds",
        "reload",
        "fd_store",
        "state",
        "ipc",
        "log",
        "limits",
        "nice",
        "oom_score_adj",
        "no_new_privs",
        "schedule",
        "restart_schedule",
        "timezone",
        "max_lifetime",
        "max_memory",
        "watch",
    ],
    later: &["pid_file", "stop_sequence", "node_cluster"],
    foreign: "\
command: args cmd entrypoint exec exec_start program script interpreter node_args
env: environment instance_var increment_var
env_file: environment_file env_production
cwd: directory dir workdir working_dir working_directory
depends_on: after requires needs priority wants
instances: numprocs numprocesses replicas scale workers
write `instances` for its `replicas`, and limit memory and CPUs of the container: deploy
restart: autorestart
stop_timeout: graceful_timeout stop_grace_period kill_timeout stopwaitsecs timeout_stop_sec
stop_signal: stopsignal kill_signal
min_uptime: startsecs
stop_delay: drain
kill_mode: stopasgroup killasgroup treekill
max_restarts: startretries max_retry start_limit_burst start_limit_interval_sec start_limit_interval
no_restart_exit_codes: stop_exit_codes restart_prevent_exit_status
backoff: exp_backoff_restart_delay
write `log = { file = \"…\", max_size = \"10MiB\" }`, or configure the log of the container: logging
log: log_file merge_logs out_file error_file stdout stderr standard_output standard_error redirect_stderr
log: stdout_logfile stderr_logfile stdout_logfile_maxbytes stdout_logfile_backups
max_memory: max_memory_restart memory_max mem_limit
restart_schedule: cron_restart
schedule: cron crontab on_calendar
timezone: tz time_zone
watch: ignore_watch
ready: notify notification_fd wait_ready
ready_timeout: listen_timeout timeout_start_sec
listen: sockets socket ports port bind exec_mode listen_stream
listen_mode: reuseport reuse_port
reload: strategy max_surge soak exec_reload
state: persist
ipc: shutdown_with_message
watchdog: watchdog_sec
success_exit_codes: exitcodes success_exit_status
write `limits = { nofile = 65536 }`: ulimits
limits: rlimits limit_nofile limit_nproc limit_core limit_memlock
restart_delay: restart_sec
pre_start: exec_start_pre prestart
pre_stop: exec_stop
post_stop: exec_stop_post
groups: supplementary_groups
fd_store: file_descriptor_store_max
no_new_privs: no_new_privileges
oom_score_adj: oom_score_adjust
remove it, and let the program run in the foreground: pid_file
write `timeout 1h` in front of the command: runtime_max_sec
write `max_lifetime = \"24h\"`, or use the option of the program: max_requests
remove it, since a oneshot that has succeeded stays completed: remain_after_exit
user: uid
group: gid
health: healthcheck health_check
write `log = { timestamps = true }` in `[keepalive]`, or `keepalive logs -t`: log_date_format time
write `log = { format = \"json\" }` in `[keepalive]`: log_type
write it as NAME in `[services.NAME]`: name process_name
remove it, since it has no meaning here: description wanted_by vizion force source_map_support pmx
remove it, and set it for the container: image build container_name hostname volumes networks network_mode expose labels privileged cap_add cap_drop read_only tmpfs shm_size devices sysctls tty stdin_open init platform pull_policy extra_hosts dns secrets configs profiles mem_reservation memory cpus private_tmp protect_system protect_home",
};

/// The smallest `max_memory` in bytes.
const MIN_MEMORY_LIMIT: u64 = 1 << 20;

/// A name in `depends_on`.
#[derive(Debug)]
pub(super) struct Dependency {
    pub(super) name: String,
    /// The name in messages.
    pub(super) shown: String,
    pub(super) span: Range<usize>,
}

/// A service whose dependencies are not resolved yet.
#[derive(Debug)]
pub(super) struct ServiceDraft {
    pub(super) service: Service,
    pub(super) depends_on: Vec<Dependency>,
    /// The position of `stop_timeout` or `stop_delay`, if one is given.
    pub(super) stop_timeout: Option<Range<usize>>,
    /// The position in the list of sources.
    pub(super) source: usize,
    /// The position of the name.
    pub(super) span: Range<usize>,
}

impl ServiceDraft {
    /// The command after `--`: it gets the terminal and is not restarted. When it exits, keepalive shuts down.
    pub(super) fn main(command: &[OsString], output: Output) -> Self {
        let words = command.iter().filter_map(|word| std::ffi::CString::new(word.as_bytes()).ok());
        let command = words.map(Template::Fixed).collect();
        let process = Process { input: Input::Terminal, stdout: output, stderr: output, ..Process::new(command) };
        let mut service = Service::new("main", process);
        service.restart.policy = RestartPolicy::Never;
        service.on_success = ExitAction::Shutdown;
        Self { service, depends_on: Vec::new(), stop_timeout: None, source: 0, span: 0..0 }
    }
}

/// The place of a key in the documentation's order; `None`: this version does not support it.
#[cfg(feature = "tools")]
pub(crate) fn service_key_position(key: &str) -> Option<usize> {
    SCHEMA.keys.iter().position(|known| *known == key)
}

/// Why `name` is not a valid name of a service; `None` if it is.
pub(crate) fn invalid_name(name: &str) -> Option<&'static str> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    match name.as_bytes() {
        [] => Some("a service needs a name"),
        b"all" => Some("the name `all` is reserved: it means all services"),
        b"keepalive" => Some("the name `keepalive` is reserved: messages of keepalive itself have it"),
        [first, ..] if !first.is_ascii_alphanumeric() => {
            Some("a service name must start with an ASCII letter or digit")
        }
        bytes if !bytes.iter().all(|byte| is_allowed(*byte)) => {
            Some("a service name may contain only ASCII letters, digits, `-` and `_`")
        }
        bytes if bytes.len() > MAX_SERVICE_NAME_LENGTH => Some("a service name is limited to 64 bytes"),
        _ => None,
    }
}

impl Decoder<'_> {
    /// Decodes a service. `words` is its command if that comes from a command line.
    pub(super) fn service(
        &mut self,
        name: &str,
        span: Range<usize>,
        table: &DeTable<'_>,
        words: Option<Words<'_>>,
    ) -> ServiceDraft {
        self.check_keys(table, &format!("`[services.{name}]`"), &SCHEMA);
        if let Some(message) = invalid_name(name) {
            self.error(span.clone(), message, "rename it");
        }
        self.own_variables = Rc::default();
        let files = Rc::new(self.env_files(name, table));
        self.own_variables = Rc::clone(&files);
        let sockets = sockets::names(table);
        let variables = self.variables(&files);
        let scope = Scope { service: name, placeholders: Placeholders::All, sockets: &sockets, variables };
        let process = self.process((&scope, &files), &span, table, words);
        let mut service = Service::new(name, process);
        let default = if table.contains_key("schedule") { Kind::Oneshot } else { service.kind };
        service.kind = self.choice(table, "type", &KINDS).unwrap_or(default);
        service.instances = self.instances(table);
        service.autostart = self.boolean(table, "autostart").unwrap_or(true);
        self.restart(table, &mut service.restart);
        service.on_failure = self.choice(table, "on_failure", &EXIT_ACTIONS).unwrap_or(service.on_failure);
        service.on_success = self.choice(table, "on_success", &EXIT_ACTIONS).unwrap_or(service.on_success);
        self.schedule(table, &mut service);
        service.max_lifetime = self.positive_duration(table, "max_lifetime");
        service.max_memory = table.get("max_memory").and_then(|value| self.memory_limit(value));
        self.watch(table, &scope, &mut service);
        self.stop(table, &mut service.stop);
        let process = Rc::clone(&service.process);
        service.hooks = self.hooks(table, &scope.with_env(&process.env), &service);
        let ready = table.get("ready").and_then(|value| self.ready(value, &scope.with_env(&process.env), &service));
        service.ready = ready.unwrap_or(Ready::Exec);
        let probe = table.get("ready").and_then(|value| value.get_ref().as_table());
        let probe_timeout = probe.and_then(|probe| self.positive_duration(probe, "timeout"));
        service.probe_timeout = probe_timeout.unwrap_or(service.probe_timeout);
        let default = service.ready_timeout.filter(|_| service.kind == Kind::Service);
        service.ready_timeout = self.positive_duration(table, "ready_timeout").or(default);
        service.watchdog = self.positive_duration(table, "watchdog");
        service.health = self.health(table, &scope.with_env(&process.env), &service).map(Rc::new);
        if service.ready != Ready::Exec || service.kind == Kind::Oneshot {
            // A process that becomes ready later has shown that it works.
            service.reload.soak = Duration::ZERO;
        }
        let errors = self.errors.len();
        if let Some(value) = table.get("reload") {
            self.reload(value, &mut service.reload);
        }
        if self.errors.len() == errors {
            self.hint_at_reload(&service, table);
        }
        if let Some(value) = table.get("ready").filter(|_| self.environment.purpose == Purpose::Check) {
            self.warn_about_other_processes(value, &service);
        }
        self.hint_at_instances(&service, table);
        self.warn_about_shared_log_file(&service, table);
        self.check_combinations(table, &service);
        let stop_timeout = table.get("stop_timeout").or(table.get("stop_delay")).map(Value::span);
        ServiceDraft { service, depends_on: self.depends_on(table), stop_timeout, source: self.source, span }
    }

    fn instances(&mut self, table: &DeTable<'_>) -> u32 {
        let Some(value) = table.get("instances").and_then(|value| self.resolved(value)) else { return 1 };
        if value.get_ref().as_str() == Some("cpus") {
            return (self.environment.cpus)().max(1);
        }
        // PM2 has these.
        if matches!(value.get_ref().as_str(), Some("max" | "auto")) || value.integer().is_some_and(|number| number < 0)
        {
            self.unexpected(
                &value,
                "a whole number from 0 to 65536, or `\"cpus\"`",
                "write `\"cpus\"` for one for each CPU",
            );
            return 1;
        }
        let number = self.integer_in(&value, 0..=MAX_INSTANCES, ", or `\"cpus\"`");
        number.and_then(|number| u32::try_from(number).ok()).unwrap_or(1)
    }

    fn restart(&mut self, table: &DeTable<'_>, restart: &mut Restart) {
        restart.policy = self.choice(table, "restart", &RESTART_POLICIES).unwrap_or(restart.policy);
        restart.delay = self.duration(table, "restart_delay", restart.delay);
        restart.min_uptime = self.duration(table, "min_uptime", restart.min_uptime);
        if let Some(value) = table.get("backoff")
            && let Some(fields) = self.table(value, "such as `{ initial = \"100ms\", max = \"30s\" }`")
        {
            restart.backoff = self.backoff(fields);
        }
        if let Some(value) = table.get("max_restarts") {
            restart.max_restarts = self.max_restarts(value, restart.max_restarts);
        }
        if let Some(value) = table.get("success_exit_codes") {
            restart.success = self.exit_set(value);
        }
        if let Some(value) = table.get("no_restart_exit_codes") {
            restart.prevent = self.exit_set(value);
        }
    }

    fn max_restarts(&mut self, value: &Value<'_>, default: Option<u32>) -> Option<u32> {
        let Some(value) = self.resolved(value) else { return default };
        if value.get_ref().as_str() == Some("unlimited") {
            return None;
        }
        if value.get_ref().as_str().is_some_and(units::is_infinite) {
            self.unexpected(&value, "a whole number or `\"unlimited\"`", "write `\"unlimited\"`");
            return default;
        }
        match self.integer_in(&value, 0..=i64::from(u32::MAX), ", or `\"unlimited\"`") {
            Some(number) => u32::try_from(number).ok(),
            None => default,
        }
    }

    fn backoff(&mut self, table: &DeTable<'_>) -> Backoff {
        const SCHEMA: Schema = Schema { keys: &["initial", "factor", "max", "jitter"], later: &[], foreign: "" };
        const FACTORS: (RangeInclusive<f64>, &str) = (1.0..=1000.0, "a number from 1 to 1000");
        const JITTERS: (RangeInclusive<f64>, &str) = (0.0..=1.0, "a number from 0 to 1");
        self.check_keys(table, "`backoff`", &SCHEMA);
        let initial = self.duration(table, "initial", Backoff::DEFAULT.initial);
        let max = self.duration(table, "max", Backoff::DEFAULT.max.max(initial));
        if let Some(value) = table.get("max").filter(|_| max < initial) {
            let message = "`max` is less than `initial`";
            self.error(value.span(), message, "raise `max` or lower `initial`");
        }
        let factor = self.number(table, "factor", FACTORS, Backoff::DEFAULT.factor);
        let jitter = self.number(table, "jitter", JITTERS, Backoff::DEFAULT.jitter);
        Backoff { initial, factor, max, jitter }
    }

    fn exit_set(&mut self, value: &Value<'_>) -> ExitSet {
        let elements = self.array(value, "such as `[0, 143, \"SIGTERM\"]`");
        elements.iter().filter_map(|element| self.exit_status(element)).collect()
    }

    fn exit_status(&mut self, value: &Value<'_>) -> Option<ExitStatus> {
        let value = &self.resolved(value)?;
        let code = value.integer().and_then(|number| u8::try_from(number).ok()).map(ExitStatus::Code);
        // A number in quotes is ambiguous: an exit code or a signal.
        let name = value.get_ref().as_str().filter(|text| !text.starts_with(|first: char| first.is_ascii_digit()));
        let status = code.or_else(|| name.and_then(Signal::parse).map(ExitStatus::Signal));
        if status.is_none() {
            let hint = "write codes as numbers and signals as strings: `[0, \"SIGTERM\"]`";
            let near = value.get_ref().as_str().and_then(nearest_signal);
            self.unexpected(value, "an exit code from 0 to 255 or a signal", near.as_deref().unwrap_or(hint));
        }
        status
    }

    fn stop(&mut self, table: &DeTable<'_>, stop: &mut Stop) {
        if let Some(value) = table.get("stop_signal")
            && let Some(signal) = self.signal(value)
        {
            self.check_stop_signal(value, signal);
            stop.signal = signal;
        }
        stop.delay = self.duration(table, "stop_delay", stop.delay);
        stop.timeout = self.duration(table, "stop_timeout", stop.timeout);
        stop.kill_mode = self.choice(table, "kill_mode", &KILL_MODES).unwrap_or(stop.kill_mode);
    }

    /// SIGCONT follows the stop signal.
    fn check_stop_signal(&mut self, value: &Value<'_>, signal: Signal) {
        let message = match signal {
            Signal::STOP | Signal::CONT | Signal::CHLD => format!("{signal} does not terminate processes"),
            // signal(7): SIGCONT discards these signals while they are pending.
            Signal::TSTP | Signal::TTIN | Signal::TTOU => {
                format!(
                    "{signal} does not arrive: SIGCONT follows the stop signal, and the kernel then discards {signal}"
                )
            }
            _ => return,
        };
        self.error(value.span(), message, "such as `\"SIGTERM\"`, `\"SIGQUIT\"`");
    }

    fn reload(&mut self, value: &Value<'_>, reload: &mut Reload) {
        const SCHEMA: Schema = Schema {
            keys: &["strategy", "signal", "max_surge", "soak"],
            later: &[],
            foreign: "strategy: type\nmax_surge: surge",
        };
        const WORDS: [&str; 3] = ["rolling", "signal", "restart"];
        let empty = DeTable::new();
        let table = if value.get_ref().is_str() {
            &empty
        } else {
            let Some(table) = self.table(value, "such as `\"restart\"` or `{ soak = \"5s\" }`") else { return };
            self.check_keys(table, "`reload`", &SCHEMA);
            table
        };
        let strategy = if value.get_ref().is_str() { Some(value) } else { table.get("strategy") };
        let word = match strategy.map(|strategy| self.choice_of(strategy, &WORDS, "strategy")) {
            Some(Some(position)) => WORDS.get(position).copied().unwrap_or_default(),
            Some(None) => return,
            None => "rolling",
        };
        // Keys that this strategy does not use.
        let unused: &[&str] = match word {
            "signal" => &["max_surge", "soak"],
            "restart" => &["signal", "max_surge"],
            _ => &["signal"],
        };
        for (key, _) in entries(table).into_iter().filter(|(key, _)| unused.contains(&&**key.get_ref())) {
            let message = format!("`{}` has no effect with the strategy `\"{word}\"`", key.get_ref());
            let hint =
                if *key.get_ref() == "signal" { "add `strategy = \"signal\"`, or remove it" } else { "remove it" };
            self.error(key.span(), message, hint);
        }
        reload.strategy = match (word, table.get("signal")) {
            ("signal", Some(value)) => self.reload_signal(value).map_or(reload.strategy, Strategy::Signal),
            ("signal", None) => {
                let hint = "write `{ strategy = \"signal\", signal = \"SIGHUP\" }`";
                self.error(value.span(), "the strategy `\"signal\"` requires `signal`", hint);
                reload.strategy
            }
            ("restart", _) => Strategy::Restart,
            (_, _) => Strategy::Rolling,
        };
        let surge = self.integer(table, "max_surge", 1..=MAX_INSTANCES);
        reload.max_surge = surge.and_then(|number| u32::try_from(number).ok()).unwrap_or(reload.max_surge);
        reload.soak = self.duration(table, "soak", reload.soak);
    }

    fn memory_limit(&mut self, value: &Value<'_>) -> Option<u64> {
        let limit = self.size_of(value)?;
        if limit < MIN_MEMORY_LIMIT {
            self.error(value.span(), "every process uses more", "such as `\"512MiB\"`");
        }
        Some(limit)
    }

    fn reload_signal(&mut self, value: &Value<'_>) -> Option<Signal> {
        let signal = self.signal(value)?;
        if !signal.is_catchable() {
            self.error(value.span(), format!("{signal} cannot be caught by any process"), "such as `\"SIGHUP\"`");
        }
        Some(signal)
    }

    /// Reports keys that contradict each other.
    fn check_combinations(&mut self, table: &DeTable<'_>, service: &Service) {
        if service.kind == Kind::Oneshot {
            let unused = |key: &str| match key {
                "ready" => service.ready != Ready::Exec,
                "listen" | "listen_mode" | "listen_fds" | "reload" | "health" | "on_unhealthy" | "restart_schedule"
                | "max_lifetime" | "max_memory" => true,
                _ => false,
            };
            for (key, _) in entries(table).into_iter().filter(|(key, _)| unused(key.get_ref())) {
                let message = format!("`{}` has no effect on a oneshot", key.get_ref());
                self.error(key.span(), message, "remove it, or `type = \"oneshot\"`");
            }
        }
        if let (Some(TooManyInstances::SharedStateFile), Some(value)) =
            (service.too_many_instances(service.instances), table.get("state"))
        {
            let place = value.get_ref().as_table().and_then(|table| table.get("persist")).unwrap_or(value);
            let message = format!("{} instances would share one state file", service.instances);
            self.error(place.span(), message, "add `{instance}` to its path");
        }
    }

    fn depends_on(&mut self, table: &DeTable<'_>) -> Vec<Dependency> {
        let Some(value) = table.get("depends_on") else { return Vec::new() };
        let hint = match value.get_ref().as_str() {
            Some(name) => format!("write `[\"{name}\"]`"),
            None => "such as `[\"db\"]`".to_owned(),
        };
        let names = self.array(value, &hint);
        let names = names.iter().filter_map(|name| {
            let name = self.resolved(name)?;
            let text = self.string(&name, "the name of a service", "such as `\"db\"`")?;
            let shown = self.unexpanded(&name).unwrap_or(text).to_owned();
            Some(Dependency { name: text.to_owned(), shown, span: name.span() })
        });
        names.collect()
    }
}

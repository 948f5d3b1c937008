//! The plan as text, for `keepalive check`, and the definition of a service, for `keepalive describe`.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::Path;

use super::expand::LISTEN_FDS_START;
use super::graph::start_order;
use crate::model::map::Map;
use crate::model::plan::{
    Address, Control, Credentials, ExitAction, ExitSet, Health, Hook, HttpCheck, KillMode, Kind, Limit, Listen,
    ListenMode, OnUnhealthy, Output, Probe, Process, Ready, Reload, Restart, RestartPolicy, Service, Strategy,
};
use crate::model::units::format_duration;
use crate::model::{ExitStatus, Plan, ServiceIndex, Template};

/// Formats the plan as text. Values of environment variables may be secrets and are not shown.
#[must_use]
pub fn plan_text(path: &Path, plan: &Plan) -> String {
    let mut text = format!(
        "{} is valid: {}, {}\n\nstart order (services stop in reverse order)\n",
        path.display(),
        quantity(plan.services.len() as u64, "service"),
        quantity(plan.instances().into(), "instance"),
    );
    let order = start_order(plan);
    let services = || order.iter().filter_map(|index| plan.services.get(index.position()));
    let autostarted = autostarted(plan, &order);
    for (position, service) in services().enumerate() {
        let after = dependencies(plan, service);
        let after = if after.is_empty() { String::new() } else { format!(" after {}", after.join(", ")) };
        let is_autostarted = order.get(position).is_some_and(|index| autostarted.contains_key(index));
        let note = match (is_autostarted, service.instances) {
            (_, 0) => " (off: instances = 0)",
            (true, _) => "",
            (false, _) => " (autostart = false)",
        };
        push(&mut text, format_args!("{:>4}. {}{after}{note}\n", position + 1, service.name));
    }
    for service in services() {
        push(&mut text, format_args!("\n{}\n", service.name));
        text.push_str(&service_text(plan, service, &|_| String::new()));
    }
    push(&mut text, format_args!("\nthe shutdown takes at most {}\n", format_duration(plan.shutdown_timeout)));
    match &plan.control {
        Control::Default => {}
        Control::At(path) => push(&mut text, format_args!("control socket: {}\n", path.shown(|path| path_text(path)))),
        Control::Off => text.push_str("no control socket\n"),
    }
    if let Some(address) = &plan.http {
        push(&mut text, format_args!("read-only HTTP: {}\n", address.shown(SocketAddr::to_string)));
    }
    text
}

pub(super) fn path_text(path: &Path) -> String {
    path.display().to_string()
}

/// The services with `autostart`, and their direct and indirect dependencies.
fn autostarted(plan: &Plan, order: &[ServiceIndex]) -> Map<ServiceIndex, ()> {
    let mut autostarted = Map::new();
    // In reverse order the dependents of a service come before it.
    for index in order.iter().rev() {
        let Some(service) = plan.services.get(index.position()) else { continue };
        if (service.autostart && service.instances > 0) || autostarted.contains_key(index) {
            for index in service.depends_on.iter().chain([index]) {
                autostarted.insert(*index, ());
            }
        }
    }
    autostarted
}

/// Appends to `text`. Writing to a String cannot fail.
fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    let _ = text.write_fmt(arguments);
}

fn quantity(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

pub(super) fn dependencies<'p>(plan: &'p Plan, service: &Service) -> Vec<&'p str> {
    let services = service.depends_on.iter().filter_map(|index| plan.services.get(index.position()));
    services.map(|service| &*service.name).collect()
}

/// Lines, each with a title. Those without content are left out.
#[derive(Default)]
struct Lines {
    text: String,
    /// Where the last line begins, and its content.
    line: usize,
    content: usize,
}

impl Lines {
    /// Ends the last line and begins another one, to which the caller appends the content.
    fn begin(&mut self, title: &str) -> &mut String {
        self.end();
        self.line = self.text.len();
        push(&mut self.text, format_args!("  {title:<11}"));
        self.content = self.text.len();
        &mut self.text
    }

    /// Appends an element of a list to the last line.
    fn element(&mut self, element: std::fmt::Arguments<'_>) {
        if self.text.len() > self.content {
            self.text.push_str(", ");
        }
        push(&mut self.text, element);
    }

    fn end(&mut self) {
        if self.text.len() == self.content {
            self.text.truncate(self.line);
        } else {
            self.text.push('\n');
        }
    }
}

/// Formats the definition of a service as lines of text. `note` is added to the name of each dependency.
#[must_use]
pub fn service_text(plan: &Plan, service: &Service, note: &dyn Fn(ServiceIndex) -> String) -> String {
    let mut lines = Lines::default();
    let process = &*service.process;
    lines.begin("command").push_str(&command_text(&process.command));
    lines.begin("type").push_str(match service.kind {
        Kind::Service => "",
        Kind::Oneshot if service.schedule.is_some() => "oneshot",
        Kind::Oneshot => "oneshot: its dependents start after it has succeeded",
    });
    if let Some(schedule) = &service.schedule {
        let title = if service.kind == Kind::Oneshot { "schedule" } else { "restart at" };
        push(lines.begin(title), format_args!("{} in {}", schedule.text, schedule.zone_name));
    }
    if let Some(lifetime) = service.max_lifetime {
        let lifetime = format_duration(lifetime);
        push(lines.begin("lifetime"), format_args!("restarted after {lifetime} or up to a tenth earlier"));
    }
    if let Some(limit) = service.max_memory {
        push(lines.begin("memory"), format_args!("restarted above {}", size_text(limit)));
    }
    if let Some(watch) = &service.watch {
        push(lines.begin("watch"), format_args!("{}", watch.paths.iter().map(quoted).collect::<Vec<_>>().join(", ")));
    }
    match service.instances {
        0 => lines.begin("instances").push_str("0: it is off, and nothing waits for it"),
        1 => {}
        count => push(lines.begin("instances"), format_args!("{count}")),
    }
    if let Some(directory) = &process.cwd {
        push(lines.begin("directory"), format_args!("{directory}"));
    }
    if let Some(credentials) = &process.credentials {
        push_user(lines.begin("user"), credentials);
    }
    push_env(lines.begin("env"), process);
    for file in &process.env_files {
        push(lines.begin("env file"), format_args!("{}", file.path));
    }
    lines.begin("depends on");
    for (name, index) in dependencies(plan, service).into_iter().zip(&service.depends_on) {
        lines.element(format_args!("{name}{}", note(*index)));
    }
    for (position, socket) in process.listen.iter().enumerate() {
        push_socket(lines.begin("listen"), LISTEN_FDS_START + position, socket, process);
    }
    push_passed(&mut lines, process);
    push_ready(lines.begin("ready"), service);
    if let Some(interval) = service.watchdog {
        push(lines.begin("watchdog"), format_args!("every {}", format_duration(interval)));
    }
    if let Some(health) = &service.health {
        push_health(lines.begin("health"), health);
    }
    push_restart(&mut lines, service);
    push_stop(&mut lines, service);
    for hook in Hook::ALL.into_iter().filter(|hook| service.hooks.find(*hook).is_some()) {
        let timeout = if hook == Hook::PreStop { service.stop.timeout } else { service.hooks.timeout };
        let command = command_text(service.hooks.command(hook));
        push(lines.begin(hook.as_str()), format_args!("{command}, within {}", format_duration(timeout)));
    }
    push_output(lines.begin("output"), process);
    push_settings(&mut lines, process);
    lines.end();
    lines.text
}

/// The words of a command, quoted for a shell.
fn command_text(command: &[Template]) -> String {
    command.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

fn push_socket(text: &mut String, number: usize, socket: &Listen, process: &Process) {
    let Listen { name, address, nonblocking } = socket;
    push(text, format_args!("{name}: {}, descriptor {number}", address.shown(Address::to_string)));
    if let Address::Unix { mode, owner, .. } = &**address {
        push(text, format_args!(", mode {mode:04o}"));
        if let Some((user, group)) = owner {
            push(text, format_args!(" of user {user}, group {group}"));
        }
    }
    if process.listen_mode == ListenMode::Reuseport {
        text.push_str(", one for each instance");
    }
    if *nonblocking {
        text.push_str(", nonblocking");
    }
    if !process.listen_fds {
        text.push_str(", not in LISTEN_FDS");
    }
}

/// What keepalive passes to the service besides sockets.
fn push_passed(lines: &mut Lines, process: &Process) {
    lines.begin("passed");
    if process.ipc {
        lines.element(format_args!("an ipc channel"));
    }
    if let Some(state) = &process.state {
        lines.element(format_args!("state of {}", size_text(state.size)));
        if let Some(path) = &state.persist {
            push(&mut lines.text, format_args!(" in {path}"));
        }
    }
    if process.fd_store > 0 {
        lines.element(format_args!("up to {} stored descriptors", process.fd_store));
    }
}

/// Formats a size in the largest unit in which it is a whole number.
fn size_text(bytes: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let fits = |(_, bits): &(&str, u32)| bytes > 0 && bytes.trailing_zeros() >= *bits;
    let (unit, bits) = units.into_iter().find(fits).unwrap_or((" bytes", 0));
    format!("{}{unit}", bytes >> bits)
}

/// Nothing for a oneshot without a time limit.
fn push_ready(text: &mut String, service: &Service) {
    match &service.ready {
        Ready::Exec if service.kind == Kind::Oneshot && service.ready_timeout.is_none() => return,
        Ready::Exec if service.kind == Kind::Oneshot => text.push_str("when it has succeeded"),
        Ready::Exec => return text.push_str("when the program runs"),
        Ready::Delay(delay) => return push(text, format_args!("{} after the program starts", format_duration(*delay))),
        Ready::Notify => text.push_str("when it sends READY=1"),
        Ready::Ipc => text.push_str("when it sends \"ready\" on its ipc channel"),
        Ready::Fd(number) => push(text, format_args!("when it writes a newline to descriptor {number}")),
        Ready::Probe(probe) => {
            text.push_str("when ");
            push_probe(text, probe);
        }
    }
    push(text, format_args!(", within {}", format_duration(service.start_timeout())));
    if service.probe_timeout != Service::PROBE_TIMEOUT {
        push(text, format_args!(", each attempt within {}", format_duration(service.probe_timeout)));
    }
}

/// When the probe succeeds.
fn push_probe(text: &mut String, probe: &Probe) {
    match probe {
        Probe::Tcp(address) => push(text, format_args!("{address} accepts a connection")),
        Probe::Http { authority, target } => push(text, format_args!("http://{authority}{target} responds")),
        Probe::File(path) => push(text, format_args!("{path} exists")),
        Probe::Exec(command) => push(text, format_args!("`{}` succeeds", command_text(command))),
    }
}

/// `200`, `200-299`.
pub(super) fn status_text(statuses: &RangeInclusive<u16>) -> String {
    match (statuses.start(), statuses.end()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    }
}

fn push_health(text: &mut String, health: &Health) {
    let Health { probe, http, interval, timeout, retries, start_period, on_unhealthy } = health;
    push(text, format_args!("every {}: ", format_duration(*interval)));
    push_probe(text, probe);
    if http.statuses != HttpCheck::default().statuses {
        push(text, format_args!(" with {}", http.statuses.iter().map(status_text).collect::<Vec<_>>().join(", ")));
    }
    if let Some(body) = &http.body {
        push(text, format_args!(" with `{}`", body.shown(|body| body.to_string())));
    }
    let failures = quantity(u64::from(*retries), "failure");
    push(text, format_args!(" within {}; after {failures}", format_duration(*timeout)));
    if !start_period.is_zero() {
        push(text, format_args!(" ({} to start)", format_duration(*start_period)));
    }
    text.push_str(match on_unhealthy {
        OnUnhealthy::Restart => " it is restarted",
        OnUnhealthy::Mark => " it is not ready",
        OnUnhealthy::Shutdown => " keepalive shuts down",
    });
}

fn push_reload(text: &mut String, reload: &Reload) {
    match reload.strategy {
        Strategy::Rolling => push(text, format_args!("rolling, {} at a time", reload.max_surge)),
        Strategy::Restart => text.push_str("restart one by one"),
        Strategy::Signal(signal) => return push(text, format_args!("by {signal}")),
    }
    if !reload.soak.is_zero() {
        push(text, format_args!(", each must stay ready for {}", format_duration(reload.soak)));
    }
}

/// Quotes a word for a shell where necessary.
fn quoted(word: &Template) -> String {
    let text = word.to_string();
    match shlex::try_quote(&text) {
        // `{instance}` and `${VAR}` need no quotes.
        Ok(quoted)
            if (text.contains("{instance}") || matches!(word, Template::Expanded { .. }))
                && quoted.trim_matches('\'') == text
                && !text.contains(' ') =>
        {
            text
        }
        Ok(quoted) => quoted.into_owned(),
        Err(_) => text,
    }
}

fn push_user(text: &mut String, credentials: &Credentials) {
    push(text, format_args!("{}, group {}, groups ", credentials.uid, credentials.gid));
    text.push_str(&credentials.groups.iter().map(u32::to_string).collect::<Vec<_>>().join(" "));
}

fn push_env(text: &mut String, process: &Process) {
    let names: Vec<String> = process.env_names().collect();
    text.push_str(&names.join(" "));
    text.push_str(match (names.is_empty(), process.inherit_env) {
        (true, true) => "",
        (true, false) => "empty",
        (false, true) => " and the environment of keepalive",
        (false, false) => " and nothing else",
    });
}

/// What happens when it exits.
fn push_restart(lines: &mut Lines, service: &Service) {
    let restart = &service.restart;
    let text = lines.begin("restart");
    text.push_str(match (restart.policy, service.kind) {
        (RestartPolicy::Never, _) => "never",
        (RestartPolicy::Always, Kind::Service) => "always",
        (RestartPolicy::Always, Kind::Oneshot) => "until it succeeds",
        (RestartPolicy::OnFailure, _) => "on failure",
    });
    if restart.policy != RestartPolicy::Never {
        if restart.delay.is_zero() {
            text.push_str(", immediately");
        } else {
            push(text, format_args!(", after {}", format_duration(restart.delay)));
        }
        let backoff = &restart.backoff;
        let [uptime, initial, max] = [restart.min_uptime, backoff.initial, backoff.max].map(format_duration);
        let factor = decimal(backoff.factor);
        push(
            text,
            format_args!("; after runs shorter than {uptime}: backoff from {initial}, factor {factor}, up to {max}"),
        );
        match restart.max_restarts {
            None => text.push_str(", without limit"),
            Some(count) => push(text, format_args!(", at most {}", quantity(u64::from(count), "time"))),
        }
    }
    push_success(lines.begin("success"), restart);
    lines.begin("on failure").push_str(exit_action_text(service.on_failure));
    if service.kind == Kind::Oneshot || restart.policy != RestartPolicy::Always {
        lines.begin("on success").push_str(exit_action_text(service.on_success));
    }
}

/// Formats a number with at most three decimal places. The formatter of the standard library adds 10 KB to the binary.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a factor is 1…1000")]
fn decimal(value: f64) -> String {
    let thousandths = (value * 1000.0 + 0.5) as u64;
    let text = format!("{}.{:03}", thousandths / 1000, thousandths % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Nothing for the defaults.
fn push_success(text: &mut String, restart: &Restart) {
    let default: ExitSet = [ExitStatus::Code(0)].into_iter().collect();
    let has_success = restart.success != default;
    if has_success {
        text.push_str(&list(&restart.success));
    }
    if restart.prevent != ExitSet::default() {
        let separator = if has_success { "; " } else { "" };
        push(text, format_args!("{separator}no restart after {}", list(&restart.prevent)));
    }
}

fn list(set: &ExitSet) -> String {
    let status_text = |status| match status {
        ExitStatus::Code(code) => code.to_string(),
        ExitStatus::Signal(signal) => signal.to_string(),
    };
    let all: Vec<String> = set.list().into_iter().map(status_text).collect();
    if all.is_empty() { "nothing".to_owned() } else { all.join(", ") }
}

fn exit_action_text(action: ExitAction) -> &'static str {
    match action {
        ExitAction::Shutdown => "shutdown",
        ExitAction::Ignore => "ignore",
    }
}

/// How it is reloaded and stopped.
fn push_stop(lines: &mut Lines, service: &Service) {
    if service.kind == Kind::Service {
        push_reload(lines.begin("reload"), &service.reload);
    }
    let text = lines.begin("stop");
    if !service.stop.delay.is_zero() {
        push(text, format_args!("not ready for {}, then ", format_duration(service.stop.delay)));
    }
    let receiver = match service.stop.kill_mode {
        KillMode::Mixed => "to the main process",
        KillMode::Group => "to the process group",
        KillMode::Process => "to the main process only",
    };
    let timeout = format_duration(service.stop.timeout);
    push(text, format_args!("{} {receiver}, SIGKILL after {timeout}", service.stop.signal));
}

fn push_output(text: &mut String, process: &Process) {
    let output_name = |output| match output {
        Output::Raw => "raw",
        Output::Inherit => "inherited",
        Output::Null => "dropped",
        Output::Prefix => "prefixed",
    };
    let files = &process.log_files;
    push(text, format_args!("stdout {}, stderr {}", output_name(process.stdout), output_name(process.stderr)));
    for (key, path) in files.iter() {
        let streams = match key {
            "file" => "both",
            "stdout_file" => "stdout",
            _ => "stderr",
        };
        push(text, format_args!(", {streams} to {path}"));
    }
    if files.has_any() {
        push(text, format_args!(" (rotated at {}, {} kept)", size_text(files.max_size), files.max_files));
    }
}

fn push_settings(lines: &mut Lines, process: &Process) {
    lines.begin("limits");
    for Limit { name, soft, hard, .. } in &process.limits {
        let [first, second] = [soft, hard].map(|amount| match amount {
            Some(amount) => amount.to_string(),
            None => "unlimited".to_owned(),
        });
        lines.element(format_args!("{name} {first}"));
        if soft != hard {
            push(&mut lines.text, format_args!(" (hard {second})"));
        }
    }
    lines.begin("process");
    if let Some(umask) = process.umask {
        lines.element(format_args!("umask {umask:04o}"));
    }
    if let Some(nice) = process.nice {
        lines.element(format_args!("nice {nice}"));
    }
    if let Some(adj) = process.oom_score_adj {
        lines.element(format_args!("oom_score_adj {adj}"));
    }
    if process.no_new_privs {
        lines.element(format_args!("no new privileges"));
    }
}

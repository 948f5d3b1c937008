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

/// Formats the definition of a service as lines of text. `note` is added to the name of each dependency.
#[must_use]
pub fn service_text(plan: &Plan, service: &Service, note: &dyn Fn(ServiceIndex) -> String) -> String {
    let mut text = String::new();
    let mut line = |title: &str, content: &str| {
        if !content.is_empty() {
            push(&mut text, format_args!("  {title:<11}{content}\n"));
        }
    };
    let process = &service.process;
    let words: Vec<String> = process.command.iter().map(quoted).collect();
    line("command", &words.join(" "));
    line(
        "type",
        match service.kind {
            Kind::Service => "",
            Kind::Oneshot if service.schedule.is_some() => "oneshot",
            Kind::Oneshot => "oneshot: its dependents start after it has succeeded",
        },
    );
    if let Some(schedule) = &service.schedule {
        let title = if service.kind == Kind::Oneshot { "schedule" } else { "restart at" };
        line(title, &format!("{} in {}", schedule.text, schedule.zone_name));
    }
    if let Some(lifetime) = service.max_lifetime {
        line("lifetime", &format!("restarted after {} or up to a tenth earlier", format_duration(lifetime)));
    }
    if let Some(watch) = &service.watch {
        line("watch", &watch.paths.iter().map(quoted).collect::<Vec<_>>().join(", "));
    }
    match service.instances {
        0 => line("instances", "0: it is off, and nothing waits for it"),
        1 => {}
        count => line("instances", &count.to_string()),
    }
    line("directory", &process.cwd.as_ref().map(Template::to_string).unwrap_or_default());
    line("user", &process.credentials.as_ref().map(user_text).unwrap_or_default());
    line("env", &env_text(process));
    for file in &process.env_files {
        line("env file", &file.path.to_string());
    }
    let dependencies = dependencies(plan, service).into_iter().zip(&service.depends_on);
    line(
        "depends on",
        &dependencies.map(|(name, index)| name.to_owned() + &note(*index)).collect::<Vec<_>>().join(", "),
    );
    for (position, socket) in process.listen.iter().enumerate() {
        line("listen", &socket_text(LISTEN_FDS_START + position, socket, process));
    }
    line("passed", &passed_text(process));
    line("ready", &ready_text(service));
    line("watchdog", &service.watchdog.map(|every| format!("every {}", format_duration(every))).unwrap_or_default());
    line("health", &service.health.as_deref().map(health_text).unwrap_or_default());
    line("restart", &restart_text(service));
    line("success", &success_text(&service.restart));
    line("on failure", exit_action_text(service.on_failure));
    if service.kind == Kind::Oneshot || service.restart.policy != RestartPolicy::Always {
        line("on success", exit_action_text(service.on_success));
    }
    if service.kind == Kind::Service {
        line("reload", &reload_text(&service.reload));
    }
    line("stop", &stop_text(service));
    for hook in Hook::ALL.into_iter().filter_map(|hook| service.hooks.find(hook)) {
        let words: Vec<String> = service.hooks.command(hook).iter().map(quoted).collect();
        let timeout = if hook == Hook::PreStop { service.stop.timeout } else { service.hooks.timeout };
        line(hook.as_str(), &format!("{}, within {}", words.join(" "), format_duration(timeout)));
    }
    line("output", &output_text(process));
    line("limits", &process.limits.iter().map(limit_text).collect::<Vec<_>>().join(", "));
    line("process", &settings_text(process));
    text
}

fn socket_text(number: usize, socket: &Listen, process: &Process) -> String {
    let Listen { name, address, nonblocking } = socket;
    let mut text = format!("{name}: {}, descriptor {number}", address.shown(Address::to_string));
    if let Address::Unix { mode, owner, .. } = &**address {
        push(&mut text, format_args!(", mode {mode:04o}"));
        if let Some((user, group)) = owner {
            push(&mut text, format_args!(" of user {user}, group {group}"));
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
    text
}

/// What keepalive passes to the service besides sockets.
fn passed_text(process: &Process) -> String {
    let state = process.state.as_ref().map(|state| {
        let file = state.persist.as_ref().map_or_else(String::new, |path| format!(" in {path}"));
        format!("state of {}{file}", size_text(state.size))
    });
    let stored = (process.fd_store > 0).then(|| format!("up to {} stored descriptors", process.fd_store));
    let ipc = process.ipc.then(|| "an ipc channel".to_owned());
    [ipc, state, stored].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Formats a size in the largest unit in which it is a whole number.
fn size_text(bytes: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let fits = |(_, bits): &(&str, u32)| bytes > 0 && bytes.trailing_zeros() >= *bits;
    let (unit, bits) = units.into_iter().find(fits).unwrap_or((" bytes", 0));
    format!("{}{unit}", bytes >> bits)
}

/// Empty for a oneshot without a time limit.
fn ready_text(service: &Service) -> String {
    let when = match &service.ready {
        Ready::Exec if service.kind == Kind::Oneshot && service.ready_timeout.is_none() => return String::new(),
        Ready::Exec if service.kind == Kind::Oneshot => "it has succeeded".to_owned(),
        Ready::Exec => return "when the program runs".to_owned(),
        Ready::Delay(delay) => return format!("{} after the program starts", format_duration(*delay)),
        Ready::Notify => "it sends READY=1".to_owned(),
        Ready::Ipc => "it sends \"ready\" on its ipc channel".to_owned(),
        Ready::Fd(number) => format!("it writes a newline to descriptor {number}"),
        Ready::Probe(probe) => probe_text(probe),
    };
    let mut text = format!("when {when}, within {}", format_duration(service.start_timeout()));
    if service.probe_timeout != Service::PROBE_TIMEOUT {
        push(&mut text, format_args!(", each attempt within {}", format_duration(service.probe_timeout)));
    }
    text
}

/// When the probe succeeds.
fn probe_text(probe: &Probe) -> String {
    match probe {
        Probe::Tcp(address) => format!("{address} accepts a connection"),
        Probe::Http { authority, target } => format!("http://{authority}{target} responds"),
        Probe::File(path) => format!("{path} exists"),
        Probe::Exec(command) => format!("`{}` succeeds", command.iter().map(quoted).collect::<Vec<_>>().join(" ")),
    }
}

/// `200`, `200-299`.
pub(super) fn status_text(statuses: &RangeInclusive<u16>) -> String {
    match (statuses.start(), statuses.end()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    }
}

fn health_text(health: &Health) -> String {
    let Health { probe, http, interval, timeout, retries, start_period, on_unhealthy } = health;
    let [interval, timeout] = [interval, timeout].map(|duration| format_duration(*duration));
    let mut text = format!("every {interval}: {}", probe_text(probe));
    if http.statuses != HttpCheck::default().statuses {
        push(&mut text, format_args!(" with {}", http.statuses.iter().map(status_text).collect::<Vec<_>>().join(", ")));
    }
    if let Some(body) = &http.body {
        push(&mut text, format_args!(" with `{}`", body.shown(|body| body.to_string())));
    }
    push(&mut text, format_args!(" within {timeout}; after "));
    text.push_str(&quantity(u64::from(*retries), "failure"));
    if !start_period.is_zero() {
        push(&mut text, format_args!(" ({} to start)", format_duration(*start_period)));
    }
    text.push_str(match on_unhealthy {
        OnUnhealthy::Restart => " it is restarted",
        OnUnhealthy::Mark => " it is not ready",
        OnUnhealthy::Shutdown => " keepalive shuts down",
    });
    text
}

fn reload_text(reload: &Reload) -> String {
    let strategy = match reload.strategy {
        Strategy::Rolling => format!("rolling, {} at a time", reload.max_surge),
        Strategy::Restart => "restart one by one".to_owned(),
        Strategy::Signal(signal) => return format!("by {signal}"),
    };
    let soak = format_duration(reload.soak);
    if reload.soak.is_zero() { strategy } else { format!("{strategy}, each must stay ready for {soak}") }
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

fn user_text(credentials: &Credentials) -> String {
    let groups: Vec<String> = credentials.groups.iter().map(u32::to_string).collect();
    format!("{}, group {}, groups {}", credentials.uid, credentials.gid, groups.join(" "))
}

fn env_text(process: &Process) -> String {
    let names: Vec<String> = process.env_names().collect();
    match (names.is_empty(), process.inherit_env) {
        (true, true) => String::new(),
        (true, false) => "empty".to_owned(),
        (false, true) => format!("{} and the environment of keepalive", names.join(" ")),
        (false, false) => format!("{} and nothing else", names.join(" ")),
    }
}

fn restart_text(service: &Service) -> String {
    let restart = &service.restart;
    let when = match (restart.policy, service.kind) {
        (RestartPolicy::Never, _) => return "never".to_owned(),
        (RestartPolicy::Always, Kind::Service) => "always",
        (RestartPolicy::Always, Kind::Oneshot) => "until it succeeds",
        (RestartPolicy::OnFailure, _) => "on failure",
    };
    let delay = if restart.delay.is_zero() {
        "immediately".to_owned()
    } else {
        format!("after {}", format_duration(restart.delay))
    };
    let limit = match restart.max_restarts {
        None => "without limit".to_owned(),
        Some(count) => format!("at most {}", quantity(u64::from(count), "time")),
    };
    let backoff = &restart.backoff;
    format!(
        "{when}, {delay}; after runs shorter than {}: backoff from {}, factor {}, up to {}, {limit}",
        format_duration(restart.min_uptime),
        format_duration(backoff.initial),
        decimal(backoff.factor),
        format_duration(backoff.max)
    )
}

/// Formats a number with at most three decimal places. The formatter of the standard library adds 10 KB to the binary.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a factor is 1…1000")]
fn decimal(value: f64) -> String {
    let thousandths = (value * 1000.0 + 0.5) as u64;
    let text = format!("{}.{:03}", thousandths / 1000, thousandths % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Empty for the defaults.
fn success_text(restart: &Restart) -> String {
    let default: ExitSet = [ExitStatus::Code(0)].into_iter().collect();
    let mut parts = Vec::new();
    if restart.success != default {
        parts.push(list(&restart.success));
    }
    if restart.prevent != ExitSet::default() {
        parts.push(format!("no restart after {}", list(&restart.prevent)));
    }
    parts.join("; ")
}

fn list(set: &ExitSet) -> String {
    let status_text = |status| match status {
        ExitStatus::Code(code) => code.to_string(),
        ExitStatus::Signal(signal) => signal.to_string(),
    };
    let all: Vec<String> = set.iter().map(status_text).collect();
    if all.is_empty() { "nothing".to_owned() } else { all.join(", ") }
}

fn exit_action_text(action: ExitAction) -> &'static str {
    match action {
        ExitAction::Shutdown => "shutdown",
        ExitAction::Ignore => "ignore",
    }
}

fn stop_text(service: &Service) -> String {
    let receiver = match service.stop.kill_mode {
        KillMode::Mixed => "to the main process",
        KillMode::Group => "to the process group",
        KillMode::Process => "to the main process only",
    };
    let delay = service.stop.delay;
    let delay =
        if delay.is_zero() { String::new() } else { format!("not ready for {}, then ", format_duration(delay)) };
    format!("{delay}{} {receiver}, SIGKILL after {}", service.stop.signal, format_duration(service.stop.timeout))
}

fn output_text(process: &Process) -> String {
    let output_name = |output| match output {
        Output::Raw => "raw",
        Output::Inherit => "inherited",
        Output::Null => "dropped",
        Output::Prefix => "prefixed",
    };
    let files = &process.log_files;
    let mut text = format!("stdout {}, stderr {}", output_name(process.stdout), output_name(process.stderr));
    for (key, path) in files.iter() {
        text.push_str(match key {
            "file" => ", both to ",
            "stdout_file" => ", stdout to ",
            _ => ", stderr to ",
        });
        text.push_str(&path.to_string());
    }
    if files.has_any() {
        text.push_str(&format!(" (rotated at {}, {} kept)", size_text(files.max_size), files.max_files));
    }
    text
}

fn limit_text(limit: &Limit) -> String {
    let amount = |amount: Option<u64>| amount.map_or_else(|| "unlimited".to_owned(), |amount| amount.to_string());
    if limit.soft == limit.hard {
        return format!("{} {}", limit.name, amount(limit.hard));
    }
    format!("{} {} (hard {})", limit.name, amount(limit.soft), amount(limit.hard))
}

fn settings_text(process: &Process) -> String {
    let settings = [
        process.umask.map(|umask| format!("umask {umask:04o}")),
        process.nice.map(|nice| format!("nice {nice}")),
        process.oom_score_adj.map(|adj| format!("oom_score_adj {adj}")),
        process.no_new_privs.then(|| "no new privileges".to_owned()),
    ];
    settings.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

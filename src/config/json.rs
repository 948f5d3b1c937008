//! The output of `check --json`: the plan, or the errors; and the definition of a service.
//!
//! Structures are taken apart field by field, so that the compiler asks for a new one.

use std::net::SocketAddr;

use serde_json::Number;

use super::expand::LISTEN_FDS_START;
use super::graph::start_order;
use super::report::{Diagnostic, Report};
use super::show::{dependencies, path_text, status_text};
use super::words::{
    EXIT_ACTIONS, KILL_MODES, KINDS, LISTEN_MODES, LOG_FORMATS, OUTPUTS, RESTART_POLICIES, SIGNAL_ACTIONS,
    UNHEALTHY_ACTIONS, word_of,
};
use crate::model::json::{Object, push, shown};
use crate::model::plan::{
    Address, Backoff, Control, EnvFile, ExitSet, Health, Hook, Kind, Limit, Listen, LogStyle, Probe, Process, Ready,
    Reload, Restart, Service, SignalAction, State, Stop, Strategy, Watch,
};
use crate::model::{ExitStatus, Plan, Signal, milliseconds};

/// `{"valid": true, "errors": [], "warnings": […], "plan": {…}}`.
#[must_use]
pub fn plan_json(plan: &Plan, warnings: &[Diagnostic]) -> String {
    check_json(&[], warnings, Some(plan))
}

/// `{"valid": false, "errors": […], "warnings": […], "plan": null}`.
#[must_use]
pub fn report_json(report: &Report) -> String {
    check_json(&report.errors, &report.warnings, None)
}

fn check_json(errors: &[Diagnostic], warnings: &[Diagnostic], plan: Option<&Plan>) -> String {
    let mut out = Vec::new();
    let mut object = Object::new(&mut out);
    object.plain("valid", plan.is_some());
    for (name, diagnostics) in [("errors", errors), ("warnings", warnings)] {
        object.array(name, diagnostics, write_diagnostic);
    }
    match plan {
        Some(plan) => write_plan(object.object("plan"), plan),
        None => object.null("plan"),
    }
    object.end();
    out.push(b'\n');
    // The strings in it are UTF-8.
    String::from_utf8(out).unwrap_or_default()
}

fn write_diagnostic(out: &mut Vec<u8>, diagnostic: &Diagnostic) {
    let Diagnostic { file, line, column, message, hint, excerpt: _ } = diagnostic;
    let mut object = Object::new(out);
    object.text("file", file);
    object.plain("line", line);
    object.plain("column", column);
    object.text("message", message);
    object.text("hint", hint);
    object.end();
}

fn write_plan(mut object: Object<'_>, plan: &Plan) {
    let Plan { shutdown_timeout, signals, termination_log, log, control, http, services } = plan;
    object.plain("shutdown_timeout_ms", milliseconds(*shutdown_timeout));
    let mut actions = object.object("signals");
    for signal in Signal::all().filter(|signal| signals.of(*signal) != SignalAction::Forward) {
        actions.text(&signal.to_string(), word_of(&SIGNAL_ACTIONS, signals.of(signal)));
    }
    actions.end();
    object.text("termination_log", &termination_log.shown(|path| path_text(path)));
    let LogStyle { format, timestamps } = log;
    let mut log = object.object("log");
    log.text("format", word_of(&LOG_FORMATS, *format));
    log.plain("timestamps", timestamps);
    log.end();
    match control {
        Control::Default => object.plain("control", true),
        Control::At(path) => object.text("control", &path.shown(|path| path_text(path))),
        Control::Off => object.plain("control", false),
    }
    object.optional_shown("http", http.as_ref().map(|address| address.shown(SocketAddr::to_string)));
    object.array("services", services, |out, service| write_definition(out, plan, service));
    let order = start_order(plan).into_iter().filter_map(|index| plan.services.get(index.position()));
    object.texts("start_order", order.map(|service| &service.name));
    object.end();
}

/// Writes the definition of a service, as it is in [`plan_json`].
pub fn write_definition(out: &mut Vec<u8>, plan: &Plan, service: &Service) {
    let Service { name, kind, instances, depends_on: _, autostart, restart, .. } = service;
    let Service { on_failure, on_success, stop, ready, probe_timeout, ready_timeout, .. } = service;
    let Service { watchdog, health, reload, hooks, schedule, max_lifetime, max_memory, watch, process, .. } = service;
    let mut object = Object::new(out);
    object.text("name", name);
    object.text("type", word_of(&KINDS, *kind));
    object.plain("instances", instances);
    object.texts("depends_on", dependencies(plan, service));
    object.plain("autostart", autostart);
    write_restart(&mut object, restart);
    object.text("on_failure", word_of(&EXIT_ACTIONS, *on_failure));
    object.text("on_success", word_of(&EXIT_ACTIONS, *on_success));
    let Stop { signal, delay, timeout, kill_mode } = stop;
    object.shown("stop_signal", signal);
    object.plain("stop_delay_ms", milliseconds(*delay));
    object.plain("stop_timeout_ms", milliseconds(*timeout));
    object.text("kill_mode", word_of(&KILL_MODES, *kill_mode));
    write_ready(&mut object, ready);
    object.plain("probe_timeout_ms", milliseconds(*probe_timeout));
    object.optional("ready_timeout_ms", ready_timeout.map(milliseconds));
    object.optional("watchdog_ms", watchdog.map(milliseconds));
    match health {
        Some(health) => write_health(&mut object, health),
        None => {
            object.null("health");
            object.null("on_unhealthy");
        }
    }
    write_reload(object.object("reload"), reload);
    for (key, owner) in [("schedule", Kind::Oneshot), ("restart_schedule", Kind::Service)] {
        object.optional_shown(key, schedule.as_ref().filter(|_| *kind == owner).map(|schedule| &schedule.text));
    }
    object.optional_shown("timezone", schedule.as_ref().map(|schedule| &schedule.zone_name));
    object.optional("max_lifetime_ms", max_lifetime.map(milliseconds));
    object.optional("max_memory_bytes", *max_memory);
    match watch {
        Some(watch) => write_watch(object.object("watch"), watch),
        None => object.null("watch"),
    }
    for hook in Hook::ALL {
        match hooks.find(hook) {
            Some(_) => object.texts(hook.as_str(), hooks.command(hook)),
            None => object.null(hook.as_str()),
        }
    }
    object.plain("hook_timeout_ms", milliseconds(hooks.timeout));
    write_process(&mut object, process);
    object.end();
}

fn write_watch(mut object: Object<'_>, watch: &Watch) {
    let Watch { paths, ignore, debounce, poll } = watch;
    object.texts("paths", paths);
    object.texts("ignore", ignore);
    object.plain("debounce_ms", milliseconds(*debounce));
    object.optional("poll_ms", poll.map(milliseconds));
    object.end();
}

fn write_restart(object: &mut Object<'_>, restart: &Restart) {
    let Restart { policy, delay, min_uptime, backoff, max_restarts, success, prevent } = restart;
    object.text("restart", word_of(&RESTART_POLICIES, *policy));
    object.plain("restart_delay_ms", milliseconds(*delay));
    object.plain("min_uptime_ms", milliseconds(*min_uptime));
    let Backoff { initial, factor, max, jitter } = backoff;
    let mut backoff = object.object("backoff");
    backoff.plain("initial_ms", milliseconds(*initial));
    // The formatter of the standard library adds 10 KB to the binary.
    backoff.optional("factor", Number::from_f64(*factor));
    backoff.plain("max_ms", milliseconds(*max));
    backoff.optional("jitter", Number::from_f64(*jitter));
    backoff.end();
    limited(object, "max_restarts", max_restarts.map(u64::from));
    write_exit_set(object, "success_exit_codes", success);
    write_exit_set(object, "no_restart_exit_codes", prevent);
}

fn write_exit_set(object: &mut Object<'_>, name: &str, set: &ExitSet) {
    object.array(name, set.list(), |out, status| match status {
        ExitStatus::Code(code) => push(out, format_args!("{code}")),
        ExitStatus::Signal(signal) => shown(out, format_args!("{signal}")),
    });
}

fn write_ready(object: &mut Object<'_>, ready: &Ready) {
    let word = match ready {
        Ready::Exec => "exec",
        Ready::Notify => "notify",
        Ready::Ipc => "ipc",
        Ready::Delay(_) | Ready::Fd(_) | Ready::Probe(_) => "",
    };
    if !word.is_empty() {
        return object.text("ready", word);
    }
    let mut object = object.object("ready");
    match ready {
        Ready::Exec | Ready::Notify | Ready::Ipc => {}
        Ready::Delay(delay) => object.plain("delay_ms", milliseconds(*delay)),
        Ready::Fd(number) => object.plain("fd", number),
        Ready::Probe(probe) => write_probe(&mut object, probe),
    }
    object.end();
}

fn write_probe(object: &mut Object<'_>, probe: &Probe) {
    match probe {
        Probe::Tcp(address) => object.shown("tcp", address),
        Probe::Http { authority, target } => object.shown("http", format_args!("http://{authority}{target}")),
        Probe::File(path) => object.shown("file", path),
        Probe::Exec(command) => object.texts("exec", command),
    }
}

fn write_health(object: &mut Object<'_>, health: &Health) {
    let Health { probe, http, interval, timeout, retries, start_period, on_unhealthy } = health;
    let mut inner = object.object("health");
    write_probe(&mut inner, probe);
    if let Probe::Http { .. } = probe {
        // Values may be secrets.
        inner.texts("headers", http.headers.iter().map(|(name, _)| name));
        inner.texts("expect_status", http.statuses.iter().map(status_text));
        inner.optional_shown("expect_body", http.body.as_ref().map(|body| body.shown(|body| body.to_string())));
    }
    inner.plain("interval_ms", milliseconds(*interval));
    inner.plain("timeout_ms", milliseconds(*timeout));
    inner.plain("retries", retries);
    inner.plain("start_period_ms", milliseconds(*start_period));
    inner.end();
    object.text("on_unhealthy", word_of(&UNHEALTHY_ACTIONS, *on_unhealthy));
}

fn write_reload(mut object: Object<'_>, reload: &Reload) {
    let Reload { strategy, max_surge, soak } = reload;
    let (strategy, signal) = match strategy {
        Strategy::Rolling => ("rolling", None),
        Strategy::Restart => ("restart", None),
        Strategy::Signal(signal) => ("signal", Some(signal)),
    };
    object.text("strategy", strategy);
    object.optional_shown("signal", signal);
    object.plain("max_surge", max_surge);
    object.plain("soak_ms", milliseconds(*soak));
    object.end();
}

fn write_process(object: &mut Object<'_>, process: &Process) {
    let Process { command, cwd, credentials, umask, env: _, own_env: _, env_files, inherit_env, input: _, .. } =
        process;
    let Process { stdout: _, stderr: _, log_files: _, limits, nice, oom_score_adj, no_new_privs, .. } = process;
    let Process { listen, listen_mode, listen_fds, fd_store, state, ipc, .. } = process;
    object.texts("command", command);
    object.optional_shown("cwd", cwd.as_ref());
    let credentials = credentials.as_ref();
    object.optional("user", credentials.map(|credentials| credentials.uid));
    object.optional("group", credentials.map(|credentials| credentials.gid));
    let groups = credentials.map_or(&[][..], |credentials| &credentials.groups);
    object.array("groups", groups, |out, group| push(out, format_args!("{group}")));
    object.optional_shown("umask", umask.map(|umask| format!("{umask:04o}")));
    object.texts("env", process.env_names());
    object.array("env_files", env_files, write_env_file);
    object.plain("env_clear", !inherit_env);
    write_log(object.object("log"), process);
    let mut all = object.object("limits");
    for Limit { name, resource: _, soft, hard } in limits {
        let mut limit = all.object(name);
        limited(&mut limit, "soft", *soft);
        limited(&mut limit, "hard", *hard);
        limit.end();
    }
    all.end();
    object.optional("nice", *nice);
    object.optional("oom_score_adj", *oom_score_adj);
    object.plain("no_new_privs", no_new_privs);
    object.array("listen", (LISTEN_FDS_START..).zip(listen), write_socket);
    object.text("listen_mode", word_of(&LISTEN_MODES, *listen_mode));
    object.plain("listen_fds", listen_fds);
    object.plain("fd_store", fd_store);
    match state {
        Some(State { size, persist }) => {
            let mut state = object.object("state");
            state.plain("size_bytes", size);
            state.optional_shown("persist", persist.as_ref());
            state.end();
        }
        None => object.null("state"),
    }
    object.plain("ipc", ipc);
}

fn write_env_file(out: &mut Vec<u8>, file: &EnvFile) {
    let EnvFile { path, required } = file;
    let mut object = Object::new(out);
    object.shown("path", path);
    object.plain("required", required);
    object.end();
}

fn write_socket(out: &mut Vec<u8>, (fd, socket): (usize, &Listen)) {
    let Listen { name, address, nonblocking } = socket;
    let mut object = Object::new(out);
    object.text("name", name);
    object.text("address", &address.shown(Address::to_string));
    object.plain("fd", fd);
    object.plain("nonblocking", nonblocking);
    if let Address::Unix { mode, owner, .. } = &**address {
        let (user, group) = owner.unzip();
        object.shown("mode", format_args!("{mode:04o}"));
        object.optional("user", user);
        object.optional("group", group);
    }
    object.end();
}

fn write_log(mut object: Object<'_>, process: &Process) {
    object.text("stdout", word_of(&OUTPUTS, process.stdout));
    object.text("stderr", word_of(&OUTPUTS, process.stderr));
    let files = &process.log_files;
    for (key, path) in files.iter() {
        object.shown(key, path);
    }
    if files.has_any() {
        object.plain("max_size_bytes", files.max_size);
        object.plain("max_files", files.max_files);
    }
    object.end();
}

/// Writes `None` as `"unlimited"`.
fn limited(object: &mut Object<'_>, name: &str, number: Option<u64>) {
    match number {
        Some(number) => object.plain(name, number),
        None => object.text(name, "unlimited"),
    }
}

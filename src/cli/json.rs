//! What `check --json` prints: the plan, or the errors.

use std::time::Duration;

use serde_json::{Value, json};

use super::show::{dependencies, shown};
use crate::config::{FIRST_SOCKET, Finding, Report, start_order};
use crate::model::plan::{
    Address, Control, ExitAction, ExitSet, KillMode, Kind, Limit, Listen, ListenMode, LogFormat, Output, Probe,
    Process, Ready, Reload, Restart, RestartPolicy, Service, SignalAction, Strategy,
};
use crate::model::{ExitStatus, Plan, Signal};

/// `{"valid": true, "errors": [], "warnings": […], "plan": {…}}`.
#[must_use]
pub fn plan_json(plan: &Plan, warnings: &[Finding]) -> String {
    let order = start_order(plan).into_iter().filter_map(|index| plan.services.get(index.position()));
    let plan = json!({
        "shutdown_timeout_ms": milliseconds(plan.shutdown_timeout),
        "termination_log": plan.termination_log.to_string_lossy(),
        "control": match &plan.control {
            Control::Default => Value::Bool(true),
            Control::At(path) => Value::String(path.to_string_lossy().into_owned()),
            Control::Off => Value::Bool(false),
        },
        "http": plan.http.map(|address| address.to_string()),
        "signals": signals(plan),
        "log": {
            "format": match plan.log.format {
                LogFormat::Text => "text",
                LogFormat::Json => "json",
            },
            "timestamps": plan.log.timestamps,
        },
        "start_order": order.map(|service| &*service.name).collect::<Vec<_>>(),
        "services": plan.services.iter().map(|service| service_json(plan, service)).collect::<Vec<_>>(),
    });
    text(&json!({ "valid": true, "errors": [], "warnings": findings(warnings), "plan": plan }))
}

/// `{"valid": false, "errors": […], "warnings": […], "plan": null}`.
#[must_use]
pub fn report_json(report: &Report) -> String {
    let (errors, warnings) = (findings(&report.errors), findings(&report.warnings));
    text(&json!({ "valid": false, "errors": errors, "warnings": warnings, "plan": null }))
}

fn text(value: &Value) -> String {
    format!("{value}\n")
}

/// Line and column are 0 where the whole file is meant.
fn findings(findings: &[Finding]) -> Value {
    let one = |finding: &Finding| {
        json!({
            "file": finding.file,
            "line": finding.line,
            "column": finding.column,
            "message": finding.message,
            "hint": finding.hint,
        })
    };
    findings.iter().map(one).collect()
}

/// What is not simply forwarded.
fn signals(plan: &Plan) -> Value {
    let word = |signal| match plan.signals.of(signal) {
        SignalAction::Forward => None,
        SignalAction::Reload => Some("reload"),
        SignalAction::Shutdown => Some("shutdown"),
        SignalAction::Ignore => Some("ignore"),
    };
    Signal::all().filter_map(|signal| Some((signal.to_string(), word(signal)?))).collect()
}

fn service_json(plan: &Plan, service: &Service) -> Value {
    let mut json = json!({
        "name": service.name,
        "type": match service.kind {
            Kind::Service => "service",
            Kind::Oneshot => "oneshot",
        },
        "instances": service.instances,
        "depends_on": dependencies(plan, service),
        "autostart": service.autostart,
        "on_failure": consequence(service.on_failure),
        "on_success": consequence(service.on_success),
        "stop_signal": service.stop.signal.to_string(),
        "stop_timeout_ms": milliseconds(service.stop.timeout),
        "stop_delay_ms": milliseconds(service.stop.delay),
        "kill_mode": match service.stop.kill_mode {
            KillMode::Mixed => "mixed",
            KillMode::Group => "group",
            KillMode::Process => "process",
        },
        "ready": ready(&service.ready),
        "ready_timeout_ms": milliseconds(service.ready_timeout),
        "watchdog_ms": service.watchdog.map(milliseconds),
        "reload": reload(&service.reload),
    });
    merge(&mut json, restart_json(&service.restart));
    merge(&mut json, process_json(&service.process));
    json
}

fn ready(ready: &Ready) -> Value {
    let (key, value) = match ready {
        Ready::Exec => return json!("exec"),
        Ready::Notify => return json!("notify"),
        Ready::Ipc => return json!("ipc"),
        Ready::Delay(delay) => ("delay_ms", json!(milliseconds(*delay))),
        Ready::Fd(number) => ("fd", json!(number)),
        Ready::Probe(Probe::Tcp(address)) => ("tcp", json!(shown(address))),
        Ready::Probe(Probe::Http { authority, target }) => {
            ("http", json!(format!("http://{}{}", shown(authority), shown(target))))
        }
        Ready::Probe(Probe::File(path)) => ("file", json!(shown(path))),
        Ready::Probe(Probe::Exec(command)) => ("exec", json!(command.iter().map(shown).collect::<Vec<_>>())),
    };
    json!({ key: value })
}

fn reload(reload: &Reload) -> Value {
    let (strategy, signal) = match reload.strategy {
        Strategy::Rolling => ("rolling", None),
        Strategy::Restart => ("restart", None),
        Strategy::Signal(signal) => ("signal", Some(signal.to_string())),
    };
    let soak = milliseconds(reload.soak);
    json!({ "strategy": strategy, "signal": signal, "max_surge": reload.max_surge, "soak_ms": soak })
}

/// One object of two: the keys of a service are told by what they are about.
fn merge(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        into.extend(more);
    }
}

const fn consequence(consequence: ExitAction) -> &'static str {
    match consequence {
        ExitAction::Shutdown => "shutdown",
        ExitAction::Ignore => "ignore",
    }
}

fn restart_json(restart: &Restart) -> Value {
    json!({
        "restart": match restart.policy {
            RestartPolicy::Always => "always",
            RestartPolicy::OnFailure => "on-failure",
            RestartPolicy::Never => "never",
        },
        "restart_delay_ms": milliseconds(restart.delay),
        "min_uptime_ms": milliseconds(restart.min_uptime),
        "backoff": {
            "initial_ms": milliseconds(restart.backoff.initial),
            "factor": restart.backoff.factor,
            "max_ms": milliseconds(restart.backoff.max),
            "jitter": restart.backoff.jitter,
        },
        "max_restarts": number_or_unlimited(restart.max_restarts.map(u64::from)),
        "success_exit_codes": exits(&restart.success),
        "no_restart_exit_codes": exits(&restart.prevent),
    })
}

fn exits(set: &ExitSet) -> Value {
    let one = |status| match status {
        ExitStatus::Code(code) => json!(code),
        ExitStatus::Signal(signal) => json!(signal.to_string()),
    };
    set.iter().map(one).collect()
}

fn process_json(process: &Process) -> Value {
    let credentials = process.credentials.as_ref();
    json!({
        "command": process.command.iter().map(shown).collect::<Vec<_>>(),
        "cwd": process.cwd.as_ref().map(shown),
        "user": credentials.map(|credentials| credentials.uid),
        "group": credentials.map(|credentials| credentials.gid),
        "groups": credentials.map_or(&[][..], |credentials| &credentials.groups),
        "umask": process.umask.map(|umask| format!("{umask:04o}")),
        "env": process.env.iter().map(shown).filter_map(variable).collect::<Value>(),
        "env_clear": !process.inherit_env,
        "log": log_json(process),
        "limits": process.limits.iter().map(limit).collect::<Value>(),
        "nice": process.nice,
        "oom_score_adj": process.oom_score_adj,
        "no_new_privs": process.no_new_privs,
        "listen": process.listen.iter().enumerate().map(socket).collect::<Vec<_>>(),
        "listen_mode": match process.listen_mode {
            ListenMode::Shared => "shared",
            ListenMode::Reuseport => "reuseport",
        },
        "listen_fds": process.listen_fds,
        "fd_store": process.fd_store,
        "state": process.state.as_ref().map(|state| {
            json!({ "size_bytes": state.size, "persist": state.persist.as_ref().map(shown) })
        }),
        "ipc": process.ipc,
    })
}

/// A list, since the order says the number.
fn socket((position, socket): (usize, &Listen)) -> Value {
    let Listen { name, address, nonblocking } = socket;
    let fd = FIRST_SOCKET + position;
    let mut json = json!({ "name": name, "address": address.to_string(), "fd": fd, "nonblocking": nonblocking });
    if let Address::Unix { mode, owner, .. } = address {
        let (user, group) = owner.unzip();
        merge(&mut json, json!({ "mode": format!("{mode:04o}"), "user": user, "group": group }));
    }
    json
}

fn variable(entry: String) -> Option<(String, Value)> {
    let (name, value) = entry.split_once('=')?;
    Some((name.to_owned(), json!(value)))
}

fn log_json(process: &Process) -> Value {
    let mut json = json!({ "stdout": output(process.stdout), "stderr": output(process.stderr) });
    if let Some(file) = &process.log_file {
        let (path, size, files) = (shown(&file.path), file.max_size, file.max_files);
        merge(&mut json, json!({ "file": path, "max_size_bytes": size, "max_files": files }));
    }
    json
}

const fn output(output: Output) -> &'static str {
    match output {
        Output::Inherit => "inherit",
        Output::Null => "null",
        Output::Prefix => "prefix",
    }
}

fn limit(limit: &Limit) -> (String, Value) {
    let (soft, hard) = (number_or_unlimited(limit.soft), number_or_unlimited(limit.hard));
    (limit.name.to_owned(), json!({ "soft": soft, "hard": hard }))
}

fn number_or_unlimited(number: Option<u64>) -> Value {
    number.map_or_else(|| json!("unlimited"), |number| json!(number))
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

//! An app → a service.

use std::path::Path;

use super::log::set_log;
use super::start::{set_command, set_environment, shown, text_of};
use crate::import::config_file::{Service, Value, table};
use crate::import::import_error::ImportError;
use crate::import::node::{Data, Node, error_at};
use crate::import::units;

pub(super) fn service(path: &Path, app: &Node) -> Result<Service, ImportError> {
    let name = app.get("name").and_then(Node::text).unwrap_or_else(|| name_of_script(app));
    let mut builder = Builder { path, app, service: Service::new(&name) };
    set_command(&mut builder.service, path, app)?;
    if builder.is_scheduled() {
        builder.schedule();
    } else {
        builder.instances()?;
        builder.ready()?;
        builder.planned_restarts()?;
    }
    set_environment(&mut builder.service, app);
    set_log(&mut builder.service, app);
    builder.identity();
    builder.restart()?;
    builder.stop()?;
    builder.watch()?;
    builder.note_others();
    Ok(builder.service)
}

/// PM2 names an app after its script.
fn name_of_script(app: &Node) -> String {
    let script = app.get("script").and_then(Node::text).unwrap_or_default();
    let name = script.split_whitespace().next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
    name.rsplit_once('.').map_or(name, |(name, _)| name).to_owned()
}

struct Builder<'b> {
    path: &'b Path,
    app: &'b Node,
    service: Service,
}

impl Builder<'_> {
    fn is_true(&self, key: &str) -> bool {
        self.app.get(key).and_then(Node::boolean) == Some(true)
    }

    fn is_false(&self, key: &str) -> bool {
        self.app.get(key).and_then(Node::boolean) == Some(false)
    }

    /// When it is restarted.
    fn cron(&self) -> Option<String> {
        let time = self.app.get("cron_restart").or_else(|| self.app.get("cron")).and_then(Node::text);
        time.filter(|time| !matches!(time.as_str(), "" | "0" | "false"))
    }

    /// Whether it is a program that runs at certain times, and ends.
    fn is_scheduled(&self) -> bool {
        self.is_false("autorestart") && self.cron().is_some()
    }

    /// Sets `schedule`.
    fn schedule(&mut self) {
        self.service.set("type", "oneshot");
        if let Some(time) = self.cron() {
            self.service.set("schedule", time);
        }
        self.service.note(
            "cron_restart with autorestart: false: PM2 also runs it at the start, and kills a run that is not over",
        );
        for key in ["instances", "wait_ready", "max_memory_restart"] {
            let is_off = |node: &Node| node.boolean() == Some(false) || node.text().as_deref() == Some("1");
            if let Some(node) = self.app.get(key).filter(|node| !is_off(node)) {
                self.service.note(format!("{key}: {} is not for what runs at certain times", shown(node)));
            }
        }
    }

    /// A time: a number of milliseconds, or `"10s"`.
    fn time(&self, key: &str) -> Result<Option<String>, ImportError> {
        let Some(node) = self.app.get(key) else { return Ok(None) };
        let text = node.text().unwrap_or_default();
        let milliseconds = text.parse().ok().map(units::milliseconds);
        let time = milliseconds.or_else(|| units::time_span(&text));
        let wrong =
            || error_at(self.path, node, format!("`{key}: {text}` is not a time"), "such as 3000, in milliseconds");
        time.map(Some).ok_or_else(wrong)
    }

    fn set_time(&mut self, key: &str, own: &str) -> Result<(), ImportError> {
        if let Some(time) = self.time(key)? {
            self.service.set(own, time);
        }
        Ok(())
    }

    /// Sets `instances` and `reload`.
    fn instances(&mut self) -> Result<(), ImportError> {
        let mode = self.app.get("exec_mode").and_then(Node::text).unwrap_or_default();
        let node = self.app.get("instances");
        // https://pm2.keymetrics.io/docs/usage/application-declaration/: only node has a cluster mode.
        let is_cluster =
            mode.starts_with("cluster") || (node.is_some() && mode.is_empty() && self.service.runs("node"));
        if let Some(node) = node {
            let text = text_of(node).unwrap_or_default();
            match text.fixed().as_deref() {
                Some("max" | "0") => self.service.set("instances", "cpus"),
                Some("1") => {}
                Some(number) if number.starts_with('-') => {
                    self.service.set("instances", "cpus");
                    self.service.note(format!("instances: {number}: the number of CPUs here, or write a number"));
                }
                Some(number) if number.parse::<u32>().is_ok() => {
                    self.service.set("instances", Value::Number(number.to_owned()))
                }
                Some(other) => {
                    return Err(error_at(
                        self.path,
                        node,
                        format!("`instances: {other}` is not a number"),
                        "such as 4, or 'max'",
                    ));
                }
                None => self.service.set("instances", text.clone()),
            }
        }
        if is_cluster && self.service.has("instances") {
            self.service.set("node_cluster", true);
            self.service.note(
                "the instances share a port, as with `node_cluster`, which needs no change of the code; without that, write \
                 `listen = { http = \"tcp://0.0.0.0:3000\" }` and server.listen({ fd: 3 })",
            );
        } else {
            self.service.set("reload", "restart");
        }
        Ok(())
    }

    fn identity(&mut self) {
        for (keys, own) in [(&["cwd"][..], "cwd"), (&["user", "uid"], "user"), (&["gid"], "group")] {
            let found = keys.iter().find_map(|key| self.app.get(key));
            if let Some(value) = found.and_then(text_of) {
                self.service.set(own, value);
            }
        }
    }

    fn restart(&mut self) -> Result<(), ImportError> {
        if self.is_false("autorestart") && !self.is_scheduled() {
            self.service.set("restart", "never");
        }
        if self.is_false("autostart") {
            self.service.set("autostart", false);
        }
        self.set_time("min_uptime", "min_uptime")?;
        self.set_time("restart_delay", "restart_delay")?;
        if let Some(node) = self.app.get("max_restarts") {
            let number = node.text().unwrap_or_default();
            let wrong = || error_at(self.path, node, format!("`max_restarts: {number}` is not a number"), "such as 16");
            self.service.set("max_restarts", number.parse::<u64>().map_err(|_| wrong())?);
        }
        if let Some(initial) = self.time("exp_backoff_restart_delay")? {
            let factor = Value::Number("1.5".to_owned());
            self.service
                .set("backoff", table([("initial", initial.into()), ("factor", factor), ("max", "15s".into())]));
        } else if self.app.get("restart_delay").is_some() {
            self.service.set("backoff", table([("initial", "0s".into())]));
        }
        if let Some(codes) = self.app.get("stop_exit_codes") {
            let codes = codes.items().iter().filter_map(|code| code.text()?.parse::<u64>().ok());
            self.service.set("no_restart_exit_codes", Value::Array(codes.map(Value::from).collect()));
        }
        Ok(())
    }

    fn stop(&mut self) -> Result<(), ImportError> {
        self.service.set(
            "stop_signal",
            self.app.get("stop_signal").and_then(Node::text).unwrap_or_else(|| "SIGINT".to_owned()),
        );
        self.service.set("kill_mode", if self.is_false("treekill") { "process" } else { "group" });
        self.set_time("kill_timeout", "stop_timeout")?;
        if self.is_true("shutdown_with_message") {
            self.service.set("ipc", true);
            self.service.note(
                "shutdown_with_message: the message is sent, and the stop signal follows at once: a program that only handles \
                 the message must ignore the signal, process.on('SIGINT', () => {})",
            );
        }
        Ok(())
    }

    fn ready(&mut self) -> Result<(), ImportError> {
        if self.is_true("wait_ready") {
            self.service.set("ipc", true);
            self.service.set("ready", "ipc");
            self.set_time("listen_timeout", "ready_timeout")?;
        }
        Ok(())
    }

    /// Planned restarts.
    fn planned_restarts(&mut self) -> Result<(), ImportError> {
        if let Some(node) = self.app.get("max_memory_restart") {
            let text = node.text().unwrap_or_default();
            let wrong =
                || error_at(self.path, node, format!("`max_memory_restart: {text}` is not a size"), "such as '300M'");
            self.service.set("max_memory", units::size(&text).ok_or_else(wrong)?);
        }
        if let Some(time) = self.cron() {
            self.service.set("restart_schedule", time);
        }
        Ok(())
    }

    fn watch(&mut self) -> Result<(), ImportError> {
        if let Some(watch) = self.app.get("watch").filter(|watch| watch.boolean() != Some(false)) {
            let list = |node: &Node| Value::from(node.items().iter().filter_map(text_of).collect::<Vec<_>>());
            let paths = if watch.boolean() == Some(true) { Value::Array(vec![".".into()]) } else { list(watch) };
            let mut entries = vec![("paths".to_owned(), paths)];
            let ignored = self.app.get("ignore_watch").map(list);
            entries.extend(ignored.map(|ignored| ("ignore".to_owned(), ignored)));
            if let Some(delay) = self.time("watch_delay")? {
                entries.push(("debounce".to_owned(), delay.into()));
            }
            self.service.set("watch", Value::Table(entries));
        }
        Ok(())
    }

    fn note_others(&mut self) {
        for (key, node) in self.app.entries() {
            let is_off = node.data == Data::Null || node.boolean() == Some(false);
            if !is_off && !KNOWN.contains(&key.as_str()) && !key.starts_with("env_") {
                self.service.note(format!("{key}: {} has no counterpart", shown(node)));
            }
        }
    }
}

/// Keys that are handled, or not needed.
const KNOWN: [&str; 61] = [
    "name",
    "script",
    "exec",
    "args",
    "interpreter",
    "exec_interpreter",
    "interpreter_args",
    "node_args",
    "cwd",
    "env",
    "user",
    "uid",
    "gid",
    "instances",
    "exec_mode",
    "increment_var",
    "instance_var",
    "wait_ready",
    "listen_timeout",
    "kill_timeout",
    "shutdown_with_message",
    "treekill",
    "autorestart",
    "autostart",
    "stop_exit_codes",
    "min_uptime",
    "max_restarts",
    "restart_delay",
    "exp_backoff_restart_delay",
    "out_file",
    "output",
    "out",
    "out_log",
    "error_file",
    "error",
    "err",
    "err_file",
    "err_log",
    "log_file",
    "log",
    "log_type",
    "time",
    "log_date_format",
    "merge_logs",
    "combine_logs",
    "disable_logs",
    "watch",
    "ignore_watch",
    "watch_delay",
    "max_memory_restart",
    "cron_restart",
    "cron",
    "stop_signal",
    "force",
    "pmx",
    "vizion",
    "automation",
    "source_map_support",
    "pid_file",
    "namespace",
    "windowsHide",
];

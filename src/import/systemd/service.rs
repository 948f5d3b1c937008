//! The section `[Service]`.

use std::path::Path;

use super::command::{CommandLine, command_line, split};
use super::hooks::{joined, missing_variables, sent_signal};
use super::socket;
use super::specifiers::{UnitName, expand};
use crate::import::config_file::{Service, Value, table};
use crate::import::import_error::ImportError;
use crate::import::ini::{Entry, Section};
use crate::import::text::Text;
use crate::import::units;
use crate::import::words::name_length;
use crate::model::Signal;
use crate::model::units::parse_size;

/// The smallest `max_memory` in bytes.
const MIN_MEMORY_LIMIT: u64 = 1 << 20;

pub(super) fn service(path: &Path, sections: &[Section], socket: &[Section]) -> Result<Service, ImportError> {
    let name = UnitName::of(path);
    let service = Service::new(&name.service());
    let mut builder = Builder { path, sections, name, service };
    builder.command()?;
    builder.hooks()?;
    builder.environment()?;
    builder.identity()?;
    builder.restart()?;
    builder.stop()?;
    builder.limits();
    builder.output()?;
    builder.note_others();
    socket::set_listen(&mut builder.service, socket, &builder.name)?;
    Ok(builder.service)
}

struct Builder<'b> {
    path: &'b Path,
    sections: &'b [Section],
    name: UnitName,
    service: Service,
}

impl<'b> Builder<'b> {
    /// The values of `key`; an empty one removes those before it.
    fn all(&self, key: &str) -> Vec<(&'b Section, &'b Entry)> {
        let sections = self.sections.iter().filter(|section| section.name == "Service");
        let entries = sections.flat_map(|section| section.entries.iter().map(move |entry| (section, entry)));
        let values: Vec<_> = entries.filter(|(_, entry)| entry.key == key).collect();
        let reset = values.iter().rposition(|(_, entry)| entry.value.is_empty()).map_or(0, |position| position + 1);
        values.get(reset..).unwrap_or_default().to_vec()
    }

    fn get(&self, key: &str) -> Option<&'b str> {
        self.all(key).last().map(|(_, entry)| entry.value.as_str())
    }

    fn is_true(&self, key: &str) -> bool {
        self.get(key).is_some_and(|value| matches!(value.to_ascii_lowercase().as_str(), "yes" | "true" | "on" | "1"))
    }

    fn is_oneshot(&self) -> bool {
        self.get("Type") == Some("oneshot")
    }

    fn error(&self, key: &str, message: impl Into<String>, remedy: &str) -> ImportError {
        match self.all(key).last() {
            Some((section, entry)) => ImportError::at(&section.path, entry.line, message, remedy),
            None => ImportError::new(self.path.display().to_string(), message, remedy),
        }
    }

    fn expanded(&self, key: &str) -> Result<Option<Text>, ImportError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let unknown = |message: String| self.error(key, message, "write what it means in the unit, then import again");
        expand(value, &self.name).map(Some).map_err(unknown)
    }

    fn commands(&self, key: &str) -> Result<Vec<CommandLine>, ImportError> {
        let parse = |(section, entry): (&Section, &Entry)| {
            let wrong =
                |message: String| ImportError::at(&section.path, entry.line, message, "correct the command line");
            command_line(&entry.value, &self.name).map_err(wrong)
        };
        self.all(key).into_iter().map(parse).collect()
    }

    fn command(&mut self) -> Result<(), ImportError> {
        let mut commands = self.commands("ExecStart")?;
        if commands.is_empty() {
            let message = "there is no `ExecStart=` in a section [Service]";
            return Err(self.error("ExecStart", message, "name a unit that starts a program"));
        }
        if let [command] = commands.as_mut_slice()
            && command.is_forgiven
        {
            command.is_forgiven = false;
            self.service.note("ExecStart=-…: a failure counts as success there: `success_exit_codes`");
        }
        let words = joined(&commands, "exec ");
        let stands_alone =
            |word: &str| word.strip_prefix('$').is_some_and(|name| !name.is_empty() && name_length(name) == name.len());
        for word in self
            .all("ExecStart")
            .iter()
            .flat_map(|(_, entry)| entry.value.split_whitespace())
            .filter(|word| stands_alone(word))
        {
            self.service.note(format!(
                "{word} is one argument here: systemd splits it into words, and leaves it out if it is empty"
            ));
        }
        self.service.command(words);
        match self.get("Type").unwrap_or("simple") {
            "oneshot" => self.service.set("type", "oneshot"),
            "notify" => self.service.set("ready", "notify"),
            "notify-reload" => {
                self.service.set("ready", "notify");
                self.set_reload("SIGHUP");
            }
            "forking" => {
                self.service
                    .note("Type=forking: run the program in the foreground (`-F`, `--nodaemon`), without a pid file");
            }
            "dbus" => self.service.note("Type=dbus: write `ready = { exec = […] }` to wait for its name"),
            _ => {}
        }
        if let Some(file) = self.get("PIDFile") {
            self.service.note(format!("PIDFile={file}: not needed if the program runs in the foreground"));
        }
        if self.is_true("RemainAfterExit") && !self.is_oneshot() {
            self.service.note("RemainAfterExit=yes: a service that has ended has completed; `type = \"oneshot\"`");
        }
        if !self.is_oneshot() && !self.service.has("reload") {
            self.service.set("reload", "restart");
        }
        Ok(())
    }

    fn set_reload(&mut self, signal: &str) {
        self.service.set("reload", table([("strategy", "signal".into()), ("signal", signal.into())]));
    }

    /// `ExecStartPre=` and the others.
    fn hooks(&mut self) -> Result<(), ImportError> {
        for (key, own) in [("ExecStartPre", "pre_start"), ("ExecStop", "pre_stop"), ("ExecStopPost", "post_stop")] {
            let mut commands = self.commands(key)?;
            if own == "pre_stop"
                && let Some(signal) = commands.last().and_then(sent_signal)
            {
                commands.pop();
                self.service.set("stop_signal", signal.to_string());
            }
            if own != "pre_start"
                && let Some(last) = commands.last_mut()
            {
                // A failure is only a warning.
                last.is_forgiven = false;
            }
            for note in missing_variables(key, &commands) {
                self.service.note(note);
            }
            if commands.iter().any(|command| command.has_privileges) {
                self.service.note(format!("{key}=+…: it runs as the user of the service here"));
            }
            if !commands.is_empty() {
                self.service.set(own, joined(&commands, ""));
            }
        }
        for key in ["ExecStartPost", "ExecCondition"] {
            for (_, entry) in self.all(key) {
                self.service.note(format!("{key}={} has no counterpart", entry.value));
            }
        }
        self.reload()
    }

    /// `ExecReload=` that sends a signal.
    fn reload(&mut self) -> Result<(), ImportError> {
        let mut commands = self.commands("ExecReload")?;
        let signal = commands.last().and_then(sent_signal).filter(|_| !self.is_oneshot());
        if let Some(signal) = signal {
            commands.pop();
            self.set_reload(&signal.to_string());
        }
        for (_, entry) in self.all("ExecReload").iter().take(commands.len()) {
            let text = &entry.value;
            self.service.note(format!("ExecReload={text}: `reload` sends a signal, restarts, or replaces the process"));
        }
        Ok(())
    }

    fn environment(&mut self) -> Result<(), ImportError> {
        for (section, entry) in self.all("Environment") {
            let wrong = |message: String| {
                ImportError::at(&section.path, entry.line, message, "such as Environment=\"A=b c\" D=e")
            };
            for word in split(&entry.value).map_err(wrong)? {
                let Some((name, value)) = word.split_once('=') else {
                    return Err(wrong(format!("`{word}` is no assignment")));
                };
                self.service.add("env", name, expand(value, &self.name).map_err(wrong)?);
            }
        }
        let mut files = Vec::new();
        for (section, entry) in self.all("EnvironmentFile") {
            let wrong = |message: String| ImportError::at(&section.path, entry.line, message, "");
            let path = expand(entry.value.trim_start_matches('-'), &self.name).map_err(wrong)?;
            if entry.value.starts_with('-') {
                files.push(table([("path", path.into()), ("required", false.into())]));
            } else {
                files.push(path.into());
            }
        }
        if !files.is_empty() {
            self.service.set("env_file", Value::Array(files));
            self.service.note("EnvironmentFile=: `env` has precedence over a file here, and `${X}` and ` #` in the file have a meaning");
        }
        Ok(())
    }

    fn identity(&mut self) -> Result<(), ImportError> {
        for (key, own) in [("User", "user"), ("Group", "group")] {
            if let Some(value) = self.expanded(key)? {
                self.service.set(own, value);
            }
        }
        if let Some(groups) = self.get("SupplementaryGroups") {
            self.service.set("groups", groups.split_whitespace().map(Text::literal).collect::<Vec<_>>());
        }
        let directory = self.expanded("WorkingDirectory")?;
        match directory.as_ref().and_then(Text::fixed).as_deref() {
            Some("~") => self.service.note("WorkingDirectory=~: write the home directory of the user as `cwd`"),
            Some(path) if path.starts_with('-') => self.service.set("cwd", path.trim_start_matches('-')),
            Some("") => {}
            _ => match directory {
                Some(directory) => self.service.set("cwd", directory),
                None => self.service.set("cwd", "/"),
            },
        }
        if let Some(umask) = self.get("UMask") {
            self.service.set("umask", format!("{umask:0>4}"));
        }
        Ok(())
    }

    fn time(&self, key: &str) -> Result<Option<String>, ImportError> {
        let Some(value) = self.get(key).filter(|value| !matches!(*value, "infinity" | "0")) else { return Ok(None) };
        let wrong = || self.error(key, format!("`{key}={value}` is not a time"), "such as 30s");
        units::time_span(value).map(Some).ok_or_else(wrong)
    }

    fn restart(&mut self) -> Result<(), ImportError> {
        match self.get("Restart").unwrap_or("no") {
            "always" => {}
            "no" => self.service.set("restart", "never"),
            "on-failure" => self.service.set("restart", "on-failure"),
            other => {
                self.service.set("restart", if other == "on-success" { "always" } else { "on-failure" });
                self.service.note(format!("Restart={other} has no exact counterpart"));
            }
        }
        let statuses = |text: &str| {
            let status = |word: &str| match word.parse::<u64>() {
                Ok(code) => Some(Value::from(code)),
                Err(_) => Signal::parse(word).map(|signal| Value::from(signal.to_string())),
            };
            text.split_whitespace().filter_map(status).collect::<Vec<_>>()
        };
        // systemd.service(5): "SIGHUP, SIGINT, SIGTERM, and SIGPIPE" are success.
        let mut success: Vec<Value> = vec![0.into()];
        success.extend(["SIGHUP", "SIGINT", "SIGTERM", "SIGPIPE"].map(Value::from));
        for (_, entry) in self.all("SuccessExitStatus") {
            success.extend(statuses(&entry.value));
        }
        self.service.set("success_exit_codes", Value::Array(success));
        if let Some(text) = self.get("RestartPreventExitStatus") {
            self.service.set("no_restart_exit_codes", Value::Array(statuses(text)));
        }
        if let Some(delay) = self.time("RestartSec")? {
            self.service.set("restart_delay", delay);
            self.service.set("backoff", table([("initial", "0s".into())]));
        }
        let mut of_unit = self
            .sections
            .iter()
            .filter(|section| section.name == "Unit")
            .filter_map(|section| section.get("StartLimitBurst"));
        let burst = self.get("StartLimitBurst").or(of_unit.next_back());
        if let Some(number) = burst.and_then(|number| number.parse::<u64>().ok()) {
            self.service.set("max_restarts", number);
        }
        if let Some(time) = self.time("WatchdogSec")? {
            self.service.set("watchdog", time);
        }
        Ok(())
    }

    fn stop(&mut self) -> Result<(), ImportError> {
        // By `ExecStop=`, to the main process alone.
        let is_sent = self.service.has("stop_signal");
        if let Some(name) = self.get("KillSignal") {
            let wrong = || self.error("KillSignal", format!("`{name}` is not a signal"), "such as SIGTERM");
            let signal = Signal::parse(name).ok_or_else(wrong)?.to_string();
            if is_sent {
                self.service.note(format!("KillSignal={name} follows there after the signal of ExecStop="));
            } else {
                self.service.set("stop_signal", signal);
            }
        }
        match self.get("KillMode").unwrap_or("control-group") {
            "mixed" => {}
            "control-group" if is_sent => {}
            mode @ ("process" | "none") => {
                self.service.set("kill_mode", "process");
                if mode == "none" {
                    self.service.note("KillMode=none: the stop signal is sent to the main process here");
                }
            }
            _ => self.service.set("kill_mode", "group"),
        }
        let one_of = |key| if self.get(key).is_some() { key } else { "TimeoutSec" };
        let (start, stop) = (one_of("TimeoutStartSec"), one_of("TimeoutStopSec"));
        if let Some(time) = self.time(stop)? {
            self.service.set("stop_timeout", time);
        }
        if let Some(time) = self.time(start)? {
            if self.service.has("pre_start") {
                self.service.set("hook_timeout", time.clone());
            }
            self.service.set("ready_timeout", time);
        }
        Ok(())
    }

    fn limits(&mut self) {
        let sections = self.sections.iter().filter(|section| section.name == "Service");
        for entry in sections.flat_map(|section| &section.entries) {
            let Some(name) = entry.key.strip_prefix("Limit") else { continue };
            let number = |text: &str| match text {
                "infinity" => Value::from("unlimited"),
                text => match (text.parse::<u64>(), units::size(text)) {
                    (Err(_), Some(size)) => Value::from(size),
                    (Ok(number), _) => Value::from(number),
                    (Err(_), None) => Value::from(text),
                },
            };
            let value = match entry.value.split_once(':') {
                Some((soft, hard)) => table([("soft", number(soft)), ("hard", number(hard))]),
                None => number(&entry.value),
            };
            self.service.add("limits", &name.to_ascii_lowercase(), value);
        }
        for (key, own) in [("Nice", "nice"), ("OOMScoreAdjust", "oom_score_adj")] {
            if let Some(number) = self.get(key).filter(|number| number.parse::<i32>().is_ok()) {
                self.service.set(own, Value::Number(number.trim_start_matches('+').to_owned()));
            }
        }
        if self.is_true("NoNewPrivileges") {
            self.service.set("no_new_privs", true);
        }
        if let Some(number) = self.get("FileDescriptorStoreMax").and_then(|number| number.parse::<u64>().ok()) {
            self.service.set("fd_store", number);
        }
        self.memory();
        // systemd.service(5): it has no effect on a oneshot.
        if let Some(time) = self.get("RuntimeMaxSec").and_then(units::time_span).filter(|_| !self.is_oneshot()) {
            self.service.set("max_lifetime", time);
        }
    }

    /// `MemoryMax=`, or `MemoryLimit=`, its old name.
    fn memory(&mut self) {
        let found = ["MemoryMax", "MemoryLimit"].into_iter().find_map(|key| Some((key, self.get(key)?)));
        let Some((key, value)) = found.filter(|(_, value)| *value != "infinity") else { return };
        let is_accepted = |size: &String| parse_size(size).is_some_and(|bytes| bytes >= MIN_MEMORY_LIMIT);
        match units::size(value).filter(is_accepted) {
            _ if self.is_oneshot() => {
                self.service.note(format!("{key}={value}: `max_memory` is not for a oneshot; limit the container"));
            }
            Some(size) => {
                self.service.set("max_memory", size);
                self.service.note(format!("{key}=: the kernel kills there, and keepalive restarts"));
            }
            None => self.service.note(format!("{key}={value}: `max_memory` is a size, of 1 MiB or more")),
        }
    }

    fn output(&mut self) -> Result<(), ImportError> {
        for (key, stream) in [("StandardOutput", "stdout"), ("StandardError", "stderr")] {
            let Some(value) = self.expanded(key)?.map(|value| value.written()) else { continue };
            let file = ["file:", "append:", "truncate:"].iter().find_map(|kind| value.strip_prefix(kind));
            match (value.as_str(), file) {
                (_, Some(path)) => self.service.add("log", &format!("{stream}_file"), path),
                ("null", _) => self.service.add("log", stream, "null"),
                ("inherit" | "journal" | "journal+console" | "syslog", _) => {}
                (other, _) => self.service.note(format!("{key}={other}: output goes to the container")),
            }
        }
        Ok(())
    }

    fn note_others(&mut self) {
        let mut of_container = Vec::new();
        for section in self.sections {
            for entry in section.entries.iter().filter(|entry| !entry.value.is_empty()) {
                let (key, value) = (entry.key.as_str(), entry.value.as_str());
                match (section.name.as_str(), key) {
                    ("Unit", "Requires" | "Wants" | "BindsTo" | "After" | "Requisite" | "PartOf" | "Before") => {
                        let names = value
                            .split_whitespace()
                            .filter(|name| name.ends_with(".service") || name.ends_with(".socket"));
                        let names: Vec<_> = names.collect();
                        if !names.is_empty() {
                            self.service.note(format!("{key}={}", names.join(" ")));
                        }
                    }
                    ("Unit", "StartLimitIntervalSec" | "StartLimitBurst") => {
                        self.service.note(format!("{key}={value}: `max_restarts` counts short runs in a row"));
                    }
                    ("Unit", "OnFailure" | "OnSuccess") => {
                        self.service.note(format!("{key}={value}: see examples/events"))
                    }
                    ("Unit", key) if key.starts_with("Condition") || key.starts_with("Assert") => {
                        self.service.note(format!("{key}={value} has no counterpart"));
                    }
                    ("Service", key) if !is_known(key) && !of_container.contains(&key) => of_container.push(key),
                    _ => {}
                }
            }
        }
        if !of_container.is_empty() {
            self.service.note(format!(
                "{}: no counterpart; isolation and limits are those of the container",
                of_container.join(", ")
            ));
        }
    }
}

/// Whether a key of `[Service]` is handled, or not needed.
fn is_known(key: &str) -> bool {
    const KNOWN: [&str; 45] = [
        "Type",
        "ExecStart",
        "ExecStartPre",
        "ExecStartPost",
        "ExecCondition",
        "ExecStop",
        "ExecStopPost",
        "ExecReload",
        "Environment",
        "EnvironmentFile",
        "User",
        "Group",
        "SupplementaryGroups",
        "WorkingDirectory",
        "UMask",
        "Restart",
        "RestartSec",
        "SuccessExitStatus",
        "RestartPreventExitStatus",
        "StartLimitBurst",
        "StartLimitInterval",
        "WatchdogSec",
        "KillSignal",
        "KillMode",
        "TimeoutSec",
        "TimeoutStopSec",
        "TimeoutStartSec",
        "Nice",
        "OOMScoreAdjust",
        "NoNewPrivileges",
        "FileDescriptorStoreMax",
        "MemoryMax",
        "MemoryLimit",
        "RuntimeMaxSec",
        "StandardOutput",
        "StandardError",
        "RemainAfterExit",
        "PIDFile",
        "NotifyAccess",
        "SyslogIdentifier",
        "GuessMainPID",
        "SendSIGHUP",
        "SendSIGKILL",
        "Slice",
        "Sockets",
    ];
    KNOWN.contains(&key) || key.starts_with("Limit")
}

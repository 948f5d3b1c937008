//! A service directory → a service. https://skarnet.org/software/s6-rc/s6-rc-compile.html

use std::fs;
use std::path::{Path, PathBuf};

use super::script::{Script, command_of, command_of_up};
use crate::import::config_file::{Service, Value, table};
use crate::import::import_error::ImportError;
use crate::import::source::read;
use crate::import::text::Text;
use crate::import::units;
use crate::model::Signal;

/// A service directory.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) path: PathBuf,
    pub(super) name: String,
}

impl Directory {
    pub(super) fn of(path: &Path) -> Self {
        Self { path: path.to_owned(), name: path.file_name().unwrap_or_default().to_string_lossy().into_owned() }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.path.join(name).exists()
    }

    /// The content of a small file, if it is there.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        read(&self.path.join(name)).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    /// `longrun`, `oneshot`, `bundle`; a directory without `type` is that of a process.
    pub(super) fn kind(&self) -> String {
        self.text("type").unwrap_or_else(|| "longrun".to_owned())
    }

    /// The names in the directory `name.d` and in the file `name`.
    pub(super) fn names(&self, name: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path.join(format!("{name}.d"))).into_iter().flatten().filter_map(Result::ok);
        let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names.extend(self.text(name).unwrap_or_default().lines().map(|line| line.trim().to_owned()));
        names.retain(|name| !name.is_empty() && !name.starts_with('.'));
        names
    }

    pub(super) fn service(&self) -> Result<Service, ImportError> {
        let mut service = Service::new(&self.name);
        if self.kind() == "oneshot" {
            let up = self.path.join("up");
            set_script(&mut service, command_of_up(&read(&up)?), &self.path);
            service.set("type", "oneshot");
            if self.has("down") {
                service.note(format!(
                    "down: {}: it has no counterpart at the end of a oneshot",
                    self.text("down").unwrap_or_default()
                ));
            }
        } else {
            let run = self.path.join("run");
            set_script(&mut service, command_of(&read(&run)?, &in_container(&run)), &self.path);
            service.set("reload", "restart");
            if self.has("down") {
                service.set("autostart", false);
            }
        }
        self.settings(&mut service)?;
        self.notes(&mut service);
        Ok(service)
    }

    fn number(&self, name: &str) -> Result<Option<u64>, ImportError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let place = self.path.join(name).display().to_string();
        let wrong = || ImportError::new(place, format!("`{text}` is not a number"), "such as 3");
        text.parse().map(Some).map_err(|_| wrong())
    }

    fn settings(&self, service: &mut Service) -> Result<(), ImportError> {
        if let Some(number) = self.number("notification-fd")? {
            service.set("ready", table([("fd", number.into())]));
        }
        for (name, own) in [("timeout-kill", "stop_timeout"), ("timeout-up", "ready_timeout")] {
            if let Some(time) = self.number(name)?.filter(|time| *time > 0) {
                service.set(own, units::milliseconds(time));
            }
        }
        if let Some(name) = self.text("down-signal") {
            let place = self.path.join("down-signal").display().to_string();
            let wrong = || ImportError::new(place, format!("`{name}` is not a signal"), "such as SIGTERM");
            service.set("stop_signal", Signal::parse(&name).ok_or_else(wrong)?.to_string());
        }
        if let Some(number) = self.number("max-death-tally")? {
            service.set("max_restarts", number);
        }
        Ok(())
    }

    fn notes(&self, service: &mut Service) {
        if self.has("finish") {
            let ends = self.text("finish").unwrap_or_default().contains("125");
            if ends {
                service.set("no_restart_exit_codes", Value::Array(vec![125.into()]));
            }
            service.note(format!(
                "{}: not run: keepalive ends the container by itself when the service has failed; `post_stop` runs a command",
                in_container(&self.path.join("finish"))
            ));
        }
        if self.has("log/run") {
            service.note("log/run: its output goes to the container; `log = { file = \"…\" }` writes a file, too");
        }
        for name in ["env", "check", "control", "conf", "data", "flag-essential"] {
            if self.has(name) {
                service.note(format!("{name}: not read; see `env_file`, `ready`, `stop_signal`, `on_failure`"));
            }
        }
    }
}

/// `directory`: where the script is executed.
fn set_script(service: &mut Service, script: Script, directory: &Path) {
    let is_relative = script.words.first().and_then(Text::fixed).is_some_and(|word| word.starts_with("./"));
    let cwd = script.cwd.or_else(|| is_relative.then(|| in_container(directory)));
    service.command(script.words);
    if let Some(user) = script.user {
        match user.split_once(':') {
            Some((user, group)) => {
                service.set("user", user);
                service.set("group", group);
            }
            None => service.set("user", user),
        }
    }
    if let Some(cwd) = cwd {
        service.set("cwd", cwd);
    }
    if script.needs_execline {
        service.note("it is written in execline, which must stay installed");
    }
}

/// The path as it is in the image, if the tree of an image is imported.
pub(super) fn in_container(path: &Path) -> String {
    const PLACES: [&str; 5] =
        ["/etc/s6-overlay/", "/etc/services.d/", "/etc/cont-init.d/", "/etc/service/", "/etc/sv/"];
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string();
    let start = PLACES.iter().find_map(|place| path.find(place)).unwrap_or(0);
    path.get(start..).unwrap_or(&path).to_owned()
}

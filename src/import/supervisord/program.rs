//! `[program:NAME]` and `[fcgi-program:NAME]`.

use super::expansion::{Names, ProcessNumber, expand};
use crate::import::config_file::{Service, Value, table};
use crate::import::import_error::ImportError;
use crate::import::ini::Section;
use crate::import::text::Text;
use crate::import::{units, words};
use crate::model::Signal;

/// More processes of one program become separate services never.
const MAX_SEPARATE: u64 = 100;

/// A section with what belongs to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Program<'s> {
    pub(super) section: &'s Section,
    pub(super) name: &'s str,
    pub(super) group: &'s str,
    /// `[supervisord]`.
    pub(super) global: Option<&'s Section>,
}

/// The services of a program: one with instances, or, where its numbers do not count from 0, one for each process.
pub(super) fn services(program: &Program<'_>) -> Result<Vec<Service>, ImportError> {
    let count = program.number("numprocs")?.unwrap_or(1);
    let first = program.number("numprocs_start")?.unwrap_or(0);
    let values = || program.section.entries.iter().filter(|entry| entry.key != "process_name");
    let is_numbered = values().any(|entry| entry.value.contains("%(process_num)"));
    let is_padded = values().any(|entry| entry.value.contains("%(process_num)0"));
    let service = |number, name: &str| Builder { program, count, number, service: Service::new(name) }.build();
    if !is_numbered || (first == 0 && (!is_padded || count <= 10)) {
        let mut service = service(ProcessNumber::Instance, program.name)?;
        if count != 1 {
            service.set("instances", count);
        }
        return Ok(vec![service]);
    }
    if count > MAX_SEPARATE {
        let remedy = "start numbers at 0 and do not pad them with zeros: it becomes one service then";
        return Err(program.section.error("numprocs", format!("{count} processes need a service each"), remedy));
    }
    let numbers = first..first + count;
    numbers.map(|number| service(ProcessNumber::Fixed(number), &format!("{}-{number}", program.name))).collect()
}

impl Program<'_> {
    pub(super) fn number(&self, key: &str) -> Result<Option<u64>, ImportError> {
        let Some(text) = self.section.get(key) else { return Ok(None) };
        let wrong = || self.section.error(key, format!("`{key}={text}` is not a number"), "such as 10");
        text.parse().map(Some).map_err(|_| wrong())
    }
}

struct Builder<'b> {
    program: &'b Program<'b>,
    count: u64,
    number: ProcessNumber,
    service: Service,
}

impl<'b> Builder<'b> {
    fn build(mut self) -> Result<Service, ImportError> {
        self.command()?;
        self.environment()?;
        for (key, own) in [("directory", "cwd"), ("user", "user")] {
            if let Some(value) = self.value(key)?.filter(|value| !value.is_empty()) {
                self.service.set(own, value);
            }
        }
        let umask = self.text("umask").or_else(|| self.program.global?.get("umask"));
        if let Some(umask) = umask {
            self.service.set("umask", format!("{:0>4}", umask.trim_start_matches("0o")));
        }
        self.restart()?;
        self.stop()?;
        self.log()?;
        self.service.set("reload", "restart");
        self.note_others();
        Ok(self.service)
    }

    fn text(&self, key: &str) -> Option<&'b str> {
        self.program.section.get(key)
    }

    fn is_true(&self, key: &str) -> bool {
        self.text(key).is_some_and(|text| matches!(text.to_ascii_lowercase().as_str(), "true" | "yes" | "on" | "1"))
    }

    fn value(&self, key: &str) -> Result<Option<Text>, ImportError> {
        self.text(key).map(|text| self.expand(self.program.section, key, text)).transpose()
    }

    fn expand(&self, section: &Section, key: &str, text: &str) -> Result<Text, ImportError> {
        let Program { name, group, .. } = *self.program;
        let names = Names { program: name, group, count: self.count, number: self.number, path: &section.path };
        expand(text, &names)
            .map_err(|message| section.error(key, message, "correct it in the source, then import again"))
    }

    fn command(&mut self) -> Result<(), ImportError> {
        let section = self.program.section;
        let Some(command) = self.value("command")? else {
            let message = format!("[{}] has no `command`", section.name);
            return Err(section.error("command", message, "add it, or remove the section"));
        };
        let words = words::split_escaping(&command, words::OF_PYTHON).filter(|words| !words.is_empty());
        let unclosed = || section.error("command", "the command is empty, or a quote is not closed", "close it");
        let mut words = words.ok_or_else(unclosed)?;
        if let Some(socket) = self.text("socket").filter(|_| section.name.starts_with("fcgi-program")) {
            self.service.note("the socket is descriptor 3 here, and 0 there: the shell copies it");
            let address = socket.replace("tcp://localhost:", "tcp://127.0.0.1:");
            let mut socket = vec![("address", Value::from(self.expand(section, "socket", &address)?))];
            if let Some(mode) = self.text("socket_mode") {
                socket.push(("mode", mode.into()));
            }
            if let Some((user, group)) =
                self.text("socket_owner").map(|owner| owner.split_once(':').unwrap_or((owner, "")))
            {
                socket.push(("user", user.into()));
                socket.extend(Some(("group", group.into())).filter(|_| !group.is_empty()));
            }
            let socket = match socket.as_slice() {
                [(_, address)] => address.clone(),
                _ => Value::Table(socket.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
            };
            self.service.set("listen", table([("fcgi", socket)]));
            self.service.set("listen_fds", false);
            let shell = ["sh", "-c", "exec \"$0\" \"$@\" <&3 3<&-"].map(Text::literal);
            words = shell.into_iter().chain(words).collect();
        }
        self.service.command(words);
        Ok(())
    }

    fn environment(&mut self) -> Result<(), ImportError> {
        let program = self.program;
        for section in program.global.into_iter().chain([program.section]) {
            let Some(text) = section.get("environment") else { continue };
            let wrong = || section.error("environment", "`environment` is not understood", "such as A=\"1\",B=\"2\"");
            for (name, value) in pairs(text).ok_or_else(wrong)? {
                let value = self.expand(section, "environment", &value)?;
                self.service.add("env", &name, value);
            }
        }
        Ok(())
    }

    fn restart(&mut self) -> Result<(), ImportError> {
        let section = self.program.section;
        match self.text("autorestart").unwrap_or("unexpected").to_ascii_lowercase().as_str() {
            "unexpected" => {
                self.service.set("restart", "on-failure");
                let codes =
                    self.text("exitcodes").unwrap_or("0").split(',').map(str::trim).filter(|code| !code.is_empty());
                let codes: Vec<u64> = codes.filter_map(|code| code.parse().ok()).collect();
                if codes != [0] {
                    self.service.set("success_exit_codes", Value::Array(codes.into_iter().map(Value::from).collect()));
                }
            }
            "true" | "yes" | "on" | "1" => {}
            "false" | "no" | "off" | "0" => self.service.set("restart", "never"),
            other => {
                let message = format!("`autorestart={other}` is not understood");
                return Err(section.error("autorestart", message, "true, false or unexpected"));
            }
        }
        if self.text("autostart").is_some() && !self.is_true("autostart") {
            self.service.set("autostart", false);
        }
        if let Some(seconds) = self.program.number("startsecs")? {
            self.service.set("min_uptime", units::seconds(seconds));
        }
        if let Some(number) = self.program.number("startretries")? {
            self.service.set("max_restarts", number);
        }
        Ok(())
    }

    fn stop(&mut self) -> Result<(), ImportError> {
        let section = self.program.section;
        if let Some(name) = self.text("stopsignal") {
            let number = name.parse::<i32>().is_ok();
            let Some(signal) = Signal::parse(name) else {
                return Err(section.error("stopsignal", format!("`{name}` is not a signal"), "such as TERM"));
            };
            if number || signal != Signal::TERM {
                self.service.set("stop_signal", signal.to_string());
            }
        }
        let seconds = self.program.number("stopwaitsecs")?.unwrap_or(10);
        self.service.set("stop_timeout", units::seconds(seconds));
        if self.is_true("stopasgroup") {
            self.service.set("kill_mode", "group");
        }
        Ok(())
    }

    fn log(&mut self) -> Result<(), ImportError> {
        let is_merged = self.is_true("redirect_stderr");
        for stream in ["stdout", "stderr"] {
            let key = format!("{stream}_logfile");
            let Some(path) = self.value(&key)? else { continue };
            let fixed = path.fixed().unwrap_or_default();
            match fixed.to_ascii_lowercase().as_str() {
                // With redirect_stderr, what is said of stderr has no effect.
                _ if stream == "stderr" && is_merged => {}
                "/dev/stdout" | "/dev/stderr" | "/dev/fd/1" | "/dev/fd/2" | "/proc/self/fd/1" | "/proc/self/fd/2"
                | "/proc/1/fd/1" | "/proc/1/fd/2" | "/dev/tty" | "auto" => {}
                "none" | "off" | "/dev/null" => {
                    self.service.add("log", stream, "null");
                    if is_merged {
                        self.service.add("log", "stderr", "null");
                    }
                }
                "syslog" => self
                    .service
                    .note(format!("{key}=syslog: output goes to the container, whose engine can send it there")),
                _ => {
                    let own = if is_merged { "file".to_owned() } else { format!("{stream}_file") };
                    self.service.add("log", &own, path);
                    self.rotation(stream)?;
                }
            }
        }
        Ok(())
    }

    fn rotation(&mut self, stream: &str) -> Result<(), ImportError> {
        let section = self.program.section;
        let key = format!("{stream}_logfile_maxbytes");
        if let Some(text) = self.text(&key) {
            match units::size(text) {
                Some(size) if !size.starts_with("0") => self.service.add("log", "max_size", size),
                Some(_) => {
                    self.service.note(format!("{key}=0: a log file has a limit here, 10 MiB by default (`max_size`)"))
                }
                None => return Err(section.error(&key, format!("`{key}={text}` is not a size"), "such as 50MB")),
            }
        }
        if let Some(number) = self.program.number(&format!("{stream}_logfile_backups"))? {
            self.service.add("log", "max_files", number);
        }
        Ok(())
    }

    fn note_others(&mut self) {
        for entry in &self.program.section.entries {
            let (key, value) = (entry.key.as_str(), entry.value.as_str());
            match key {
                "priority" => self.service.note(format!(
                    "priority={value}: services start together; `depends_on = [\"NAME\"]` waits until NAME is ready"
                )),
                "stdout_capture_maxbytes"
                | "stderr_capture_maxbytes"
                | "stdout_events_enabled"
                | "stderr_events_enabled"
                | "serverurl"
                | "stdout_syslog"
                | "stderr_syslog"
                | "socket_backlog" => {
                    self.service.note(format!("{key}={value} has no counterpart"));
                }
                "killasgroup" if !self.is_true("killasgroup") && self.is_true("stopasgroup") => {
                    self.service.note("killasgroup=false: SIGKILL goes to the group, too");
                }
                _ if KNOWN.contains(&key) => {}
                _ => self.service.note(format!("{key}={value} is unknown to supervisord, too")),
            }
        }
    }
}

/// Keys that are handled, or mean the same by default.
const KNOWN: [&str; 28] = [
    "command",
    "process_name",
    "numprocs",
    "numprocs_start",
    "autostart",
    "startsecs",
    "startretries",
    "autorestart",
    "exitcodes",
    "stopsignal",
    "stopwaitsecs",
    "stopasgroup",
    "killasgroup",
    "user",
    "redirect_stderr",
    "stdout_logfile",
    "stdout_logfile_maxbytes",
    "stdout_logfile_backups",
    "stderr_logfile",
    "stderr_logfile_maxbytes",
    "stderr_logfile_backups",
    "environment",
    "directory",
    "umask",
    "socket",
    "socket_owner",
    "socket_mode",
    "loglevel",
];

/// `A=1,B="x, y"`; `None`: it is something else.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=')?;
        let after = after.trim_start();
        let (value, after) = match after.chars().next().filter(|quote| matches!(quote, '"' | '\'')) {
            Some(quote) => after.get(1..)?.split_once(quote)?,
            None => after.split_at_checked(after.find([',', '\n']).unwrap_or(after.len()))?,
        };
        let name = name.trim();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return None;
        }
        pairs.push((name.to_owned(), value.trim_end().to_owned()));
        let after = after.trim_start();
        rest = if after.is_empty() { after } else { after.strip_prefix(',')?.trim_start() };
    }
    Some(pairs)
}

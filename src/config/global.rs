//! The section `[keepalive]`.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeTable;

use super::decoder::{Decoder, Schema, UniqueResource, Value, entries};
use super::environment::Environment;
use super::expand::{Placeholders, Scope};
use super::suggest::nearest_signal;
use super::words::{LOG_FORMATS, SIGNAL_ACTIONS};
use crate::model::plan::{Address, Control, LogFormat, LogStyle, Output, SignalActions, TERMINATION_LOG};
use crate::model::{AsWritten, Signal, Template};

const SCHEMA: Schema = Schema {
    keys: &["include", "control", "http", "shutdown_timeout", "signals", "termination_log", "log"],
    later: &[],
    foreign: "\
include: includes
control: socket
http: listen port
shutdown_timeout: stop_timeout timeout
set KEEPALIVE_LOG: loglevel log_level
remove it, since keepalive stays in the foreground: nodaemon daemonize pidfile",
};

/// The settings in `[keepalive]`, except `include`.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) shutdown_timeout: Duration,
    pub(super) signals: SignalActions,
    pub(super) termination_log: AsWritten<PathBuf>,
    pub(super) log: LogStyle,
    pub(super) control: Control,
    pub(super) http: Option<AsWritten<SocketAddr>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            shutdown_timeout: Duration::from_secs(9),
            signals: SignalActions::default(),
            termination_log: PathBuf::from(TERMINATION_LOG).into(),
            log: LogStyle::default(),
            control: Control::Default,
            http: None,
        }
    }
}

/// The destination of output for services without `log`: lines as they are. A person at a terminal sees the names of the
/// instances, and a format or timestamps apply to the services too.
pub(super) fn default_output(style: LogStyle, environment: &Environment<'_>) -> Output {
    match environment.log.unwrap_or(style) {
        LogStyle { format: LogFormat::Text, timestamps: false } if !environment.stdout_is_terminal => Output::Raw,
        LogStyle { format: LogFormat::Text | LogFormat::Json, .. } => Output::Prefix,
    }
}

impl Decoder<'_> {
    pub(super) fn settings(&mut self, table: &DeTable<'_>) -> Settings {
        self.check_keys(table, "`[keepalive]`", &SCHEMA);
        let mut settings = Settings::default();
        settings.shutdown_timeout = self.duration(table, "shutdown_timeout", settings.shutdown_timeout);
        if let Some(value) = table.get("signals") {
            self.signal_actions(value, &mut settings.signals);
        }
        if let Some(value) = table.get("termination_log")
            && let Some(path) = self.global_path(value)
        {
            settings.termination_log = self.written(value, self.absolute(&path));
        }
        if let Some(value) = table.get("log") {
            settings.log = self.log_style(value);
            self.default_output = default_output(settings.log, self.environment);
        }
        settings.control = table.get("control").and_then(|value| self.control(value)).unwrap_or_default();
        settings.http = table.get("http").and_then(|value| self.http(value));
        settings
    }

    /// The destination of output of the service `main`, which gets the terminal if there is one.
    pub(super) const fn output_of_main(&self) -> Output {
        if self.environment.stdout_is_terminal { Output::Inherit } else { self.default_output }
    }

    fn log_style(&mut self, value: &Value<'_>) -> LogStyle {
        const SCHEMA: Schema =
            Schema { keys: &["format", "timestamps"], later: &[], foreign: "format: type\ntimestamps: timestamp time" };
        let mut style = LogStyle::default();
        let Some(table) = self.table(value, "such as `{ format = \"json\" }`") else { return style };
        self.check_keys(table, "`log` of `[keepalive]`", &SCHEMA);
        style.format = self.choice(table, "format", &LOG_FORMATS).unwrap_or_default();
        style.timestamps = self.boolean(table, "timestamps").unwrap_or_default();
        style
    }

    pub(super) fn control(&mut self, value: &Value<'_>) -> Option<Control> {
        let resolved = self.resolved(value)?;
        match (resolved.boolean(), resolved.get_ref().as_str()) {
            (Some(true), _) => Some(Control::Default),
            (Some(false), _) => Some(Control::Off),
            (None, None) => {
                self.unexpected(value, "a path or `false`", "such as `\"/run/keepalive.sock\"`");
                None
            }
            (None, Some(_)) => {
                let given = self.global_path(value)?;
                let path = self.directory.join(&given);
                self.check_socket_path(value, &path);
                let claimed = Address::Unix { path: self.absolute(&given), mode: 0, owner: None };
                self.require_unique(UniqueResource::Address(self.written(value, claimed)), value.span());
                Some(Control::At(self.written(value, path)))
            }
        }
    }

    fn http(&mut self, value: &Value<'_>) -> Option<AsWritten<SocketAddr>> {
        let hint = "such as `\"0.0.0.0:9100\"` or `\"[::1]:9100\"`; host names are not resolved";
        let text = self.string(value, "an address and a port", hint)?;
        let scope =
            Scope { service: "", placeholders: Placeholders::Literal, sockets: &[], variables: self.variables(&[]) };
        let Template::Fixed(text) = self.template(value, text, &scope)? else { return None };
        let Some(address) = text.to_str().ok().and_then(|text| text.parse().ok()) else {
            self.error(value.span(), "invalid address, expected IP:PORT", hint);
            return None;
        };
        self.require_unique(UniqueResource::Address(self.written(value, Address::Tcp(address))), value.span());
        Some(self.written(value, address))
    }

    fn signal_actions(&mut self, value: &Value<'_>, actions: &mut SignalActions) {
        let Some(table) = self.table(value, "such as `{ SIGUSR1 = \"ignore\" }`") else { return };
        let mut seen: Vec<Signal> = Vec::new();
        for (key, _) in entries(table) {
            let name: &str = key.get_ref();
            let action = self.choice(table, name, &SIGNAL_ACTIONS);
            let Some(signal) = Signal::parse(name) else {
                let hint = nearest_signal(name).unwrap_or_else(|| "such as `SIGUSR1`".to_owned());
                self.error(key.span(), format!("`{name}` is not a signal"), hint);
                continue;
            };
            if !signal.is_catchable() {
                self.error(key.span(), format!("{signal} cannot be caught by any process"), "remove it");
            } else if signal == Signal::CHLD {
                self.error(key.span(), "SIGCHLD is reserved for keepalive", "remove it");
            } else if seen.contains(&signal) {
                self.error(key.span(), format!("{signal} is configured twice"), "remove one of them");
            }
            seen.push(signal);
            if let Some(action) = action {
                actions.set(signal, action);
            }
        }
    }

    /// A path in which variables are expanded, but no placeholders of a service.
    pub(super) fn global_path(&mut self, value: &Value<'_>) -> Option<PathBuf> {
        let text = self.string(value, "a path", "")?;
        let scope =
            Scope { service: "", placeholders: Placeholders::Literal, sockets: &[], variables: self.variables(&[]) };
        let template = self.template(value, text, &scope)?;
        match template {
            Template::Fixed(path) if !path.is_empty() => Some(OsString::from_vec(path.into_bytes()).into()),
            Template::Fixed(_) | Template::Numbered { .. } | Template::Expanded { .. } => {
                self.error(value.span(), "the path is empty", "");
                None
            }
        }
    }
}

//! `env` and `env_file`: the environment of a process.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::decoder::{Decoder, Schema, Value, entries};
use super::env_file::{self, Entries, EnvFile, RESERVED_VARIABLES};
use super::expand::{Placeholders, Scope};
use super::files::{FsQuery, FsResult};
use super::report::{Location, Source, UnlocatedDiagnostic};
use super::service;
use super::users::User;
use crate::model::plan;
use crate::model::{Numbers, Template};

impl Decoder<'_> {
    /// The environment, from the lowest to the highest precedence: variables of the user, `env_file`s, `env`.
    pub(super) fn env(
        &mut self,
        table: &DeTable<'_>,
        scope: &Scope<'_>,
        files: &Entries,
        user: Option<&User>,
    ) -> (Box<[Template]>, usize) {
        let mut env = Env { variables: Vec::new(), own_first: self.reads_env_at_start };
        if let Some(user) = user {
            env.insert_fixed(b"HOME", if user.home.is_empty() { b"/" } else { user.home.as_bytes() });
            if !user.name.is_empty() {
                env.insert_fixed(b"USER", user.name.as_bytes());
                env.insert_fixed(b"LOGNAME", user.name.as_bytes());
            }
        }
        for (name, value) in files {
            if let Some(place) = table.get("env_file").filter(|_| self.is_overwritten(name, table)) {
                let message = format!("the file sets `{}`, which is reserved for keepalive", name.escape_ascii());
                self.error(place.span(), message, "remove it from the file");
            }
            env.insert_fixed(name, value);
        }
        let Some(value) = table.get("env") else { return env.finish() };
        let Some(own) = self.table(value, "such as `{ PORT = \"8080\" }`") else {
            return env.finish();
        };
        // In a table with a header of its own, all keys that follow belong to it.
        let is_header = self.text.get(value.span()).is_some_and(|text| text.starts_with(b"["));
        for (key, value) in entries(own) {
            let name: &str = key.get_ref();
            if RESERVED_VARIABLES.contains(&name) || self.is_overwritten(name.as_bytes(), table) {
                self.error(key.span(), format!("`{name}` is reserved for keepalive"), "remove it");
            } else if name.is_empty() || name.contains(['=', '\0']) {
                let message = format!("invalid variable name `\"{}\"`", name.escape_debug());
                self.error(key.span(), message, "it must not be empty or contain `=`");
            }
            if is_header && service::SCHEMA.keys.contains(&name) {
                let message = format!("`{name}` is a variable here, not the key of the service");
                self.warning(key.span(), message, "move it above the `[….env]`, or write variables as `env = { … }`");
            }
            let number = value.get_ref().as_integer().filter(|number| number.radix() == 10);
            let text = match (number, value.get_ref().as_bool()) {
                (Some(number), _) => Some(number.as_str()),
                (None, Some(true)) => Some("true"),
                (None, Some(false)) => Some("false"),
                (None, None) => self.string(value, "a string", "write the value in quotes"),
            };
            let prefix = [name.as_bytes(), b"="].concat();
            if let Some(template) = text.and_then(|text| self.template_after(&prefix, value, text, scope)) {
                env.insert(name.as_bytes(), template, Origin::Env);
            }
        }
        env.finish()
    }

    /// Whether `key` is given, and neither `false` nor 0.
    fn is_on(&self, table: &DeTable<'_>, key: &str) -> bool {
        let value = table.get(key).and_then(|value| self.try_resolved(value).ok());
        value.is_some_and(|value| value.boolean() != Some(false) && value.integer() != Some(0))
    }

    /// Whether keepalive sets the variable `name` because of a key of the service.
    fn is_overwritten(&self, name: &[u8], table: &DeTable<'_>) -> bool {
        let is_on = |key| self.is_on(table, key);
        match name {
            b"LISTEN_FDS" | b"LISTEN_PID" | b"LISTEN_FDNAMES" => {
                (is_on("listen") || is_on("fd_store")) && (is_on("listen_fds") || !table.contains_key("listen_fds"))
            }
            b"NOTIFY_SOCKET" => {
                let ready = table.get("ready").and_then(|value| self.try_resolved(value).ok());
                let notifies = ready.is_some_and(|value| value.get_ref().as_str() == Some("notify"));
                is_on("watchdog") || is_on("fd_store") || notifies
            }
            b"FDSTORE" => is_on("fd_store"),
            b"WATCHDOG_USEC" | b"WATCHDOG_PID" => is_on("watchdog"),
            b"NODE_CHANNEL_FD" | b"NODE_CHANNEL_SERIALIZATION_MODE" => is_on("ipc"),
            _ => false,
        }
    }

    /// The variables of all `env_file`s of a service that are read with the configuration. Later files take precedence.
    pub(super) fn env_files(&mut self, service: &str, table: &DeTable<'_>) -> Entries {
        let mut variables = Entries::new();
        self.reads_env_at_start = false;
        for value in self.env_file_values(table) {
            match self.env_file_of(value) {
                Some(file) if file.at_start => self.reads_env_at_start = true,
                Some(file) => {
                    if let Some(path) = self.env_file_path(service, file.path) {
                        variables.extend(self.env_file(&file, path));
                    }
                }
                None => {}
            }
        }
        variables
    }

    /// The `env_file`s of a service that its processes read.
    pub(super) fn start_env_files(&mut self, table: &DeTable<'_>, scope: &Scope<'_>) -> Box<[plan::EnvFile]> {
        let values = self.env_file_values(table).iter();
        let files = values.filter_map(|value| {
            let EnvFileEntry { path, required, .. } = self.env_file_of(value).filter(|file| file.at_start)?;
            Some(plan::EnvFile { path: self.absolute_path(path, scope, "such as `\"/run/app.env\"`")?, required })
        });
        files.collect()
    }

    fn env_file_values<'a, 'i>(&mut self, table: &'a DeTable<'i>) -> &'a [Value<'i>] {
        match table.get("env_file") {
            None => &[],
            Some(value) if value.get_ref().is_str() || value.get_ref().is_table() => std::slice::from_ref(value),
            Some(value) => self.array(value, "such as `[\".env\"]`"),
        }
    }

    fn env_file_of<'a, 'i>(&mut self, value: &'a Value<'i>) -> Option<EnvFileEntry<'a, 'i>> {
        const SCHEMA: Schema =
            Schema { keys: &["path", "required", "when"], later: &[], foreign: "path: file\nrequired: optional" };
        let Some(table) = value.get_ref().as_table() else {
            return Some(EnvFileEntry { path: value, required: true, at_start: false });
        };
        self.check_keys(table, "`env_file`", &SCHEMA);
        let Some(path) = table.get("path") else {
            self.error(value.span(), "`env_file` has no `path`", "such as `path = \"/run/app.env\"`");
            return None;
        };
        let required = self.boolean(table, "required").unwrap_or(true);
        let at_start = self.choice(table, "when", &[("load", false), ("start", true)]).unwrap_or(false);
        Some(EnvFileEntry { path, required, at_start })
    }

    fn env_file_path(&mut self, service: &str, value: &Value<'_>) -> Option<PathBuf> {
        let text = self.string(value, "a path", "such as `\".env\"`")?;
        let variables = self.variables(&[]);
        let scope = Scope { service, placeholders: Placeholders::Service, sockets: &[], variables };
        let template = self.template(value, text, &scope)?;
        let path = std::ffi::OsString::from(std::ffi::OsStr::from_bytes(template.expand(Numbers::SINGLE).as_bytes()));
        Some(self.directory.join(Path::new(&path)))
    }

    /// `path`, the meaning of `value` or a file that it matches, for messages. The name of the file is shown if no variable is
    /// in it.
    pub(super) fn shown_path(&self, value: &Value<'_>, path: &Path) -> String {
        match self.unexpanded(value).map(|written| (written, written.rsplit_once('/'))) {
            None => path.display().to_string(),
            Some((_, Some((directory, name)))) if !name.contains(['$', '}']) => {
                format!("{directory}/{}", path.file_name().unwrap_or_default().display())
            }
            Some((written, _)) => written.to_owned(),
        }
    }

    fn env_file(&mut self, file: &EnvFileEntry<'_, '_>, path: PathBuf) -> Entries {
        if let Some(known) = self.env_files.iter().find(|file| file.path == path) {
            return known.entries.clone();
        }
        let is_absent = |answer: FsResult| answer.is_ok_and(|found| found.is_empty());
        if !file.required && is_absent((self.environment.files)(&FsQuery::Exists(&path))) {
            return Entries::new();
        }
        let bytes = match (self.environment.files)(&FsQuery::ReadFile(&path)) {
            Ok(bytes) => bytes,
            Err(reason) => {
                // The mark of systemd for a file that may be missing.
                let marked = file.path.get_ref().as_str().and_then(|text| text.strip_prefix('-'));
                let hint = marked.map(|rest| format!("write `{{ path = \"{rest}\", required = false }}`"));
                let hint = hint.or_else(|| {
                    is_absent((self.environment.files)(&FsQuery::Exists(&path))).then(|| {
                        "`required = false` if it may be missing, `when = \"start\"` if it is written later".to_owned()
                    })
                });
                let message = format!("cannot read `{}`: {reason}", self.shown_path(file.path, &path));
                self.error(file.path.span(), message, hint.unwrap_or_default());
                return Entries::new();
            }
        };
        let mut errors = Vec::new();
        let entries = env_file::parse(&bytes, self.environment.variables, &mut errors);
        let source = self.documents + self.env_files.len();
        for env_file::LineError { at, error } in errors {
            let (message, hint) = error.words();
            let location = Location { source, span: Some(at) };
            self.errors.push(UnlocatedDiagnostic { location, message: message.to_owned(), hint: hint.to_owned() });
        }
        let name = self.shown_path(file.path, &path);
        self.env_files.push(EnvFile {
            source: Source { name, bytes, is_secret: true },
            path,
            entries: entries.clone(),
        });
        entries
    }
}

/// An entry of `env_file`.
struct EnvFileEntry<'a, 'i> {
    path: &'a Value<'i>,
    required: bool,
    /// Whether the process reads it.
    at_start: bool,
}

/// Environment variables, sorted by name, one for each name.
struct Env {
    variables: Vec<Variable>,
    own_first: bool,
}

struct Variable {
    name: Vec<u8>,
    entry: Template,
    origin: Origin,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// The key `env`.
    Env,
    Other,
}

impl Env {
    fn insert(&mut self, name: &[u8], entry: Template, origin: Origin) {
        let position = self.variables.partition_point(|known| known.name.as_slice() < name);
        let variable = Variable { name: name.to_vec(), entry, origin };
        match self.variables.get_mut(position) {
            Some(known) if known.name == name => *known = variable,
            _ => self.variables.insert(position, variable),
        }
    }

    /// Inserts a value that contains no NUL byte.
    fn insert_fixed(&mut self, name: &[u8], value: &[u8]) {
        if let Ok(entry) = CString::new([name, b"=", value].concat()) {
            self.insert(name, Template::Fixed(entry), Origin::Other);
        }
    }

    /// The entries. If the process reads files, those of the key `env` come first; their number.
    fn finish(self) -> (Box<[Template]>, usize) {
        let mut entries = Vec::with_capacity(self.variables.len());
        let mut own = 0;
        for Variable { entry, origin, .. } in self.variables {
            if self.own_first && origin == Origin::Env {
                entries.insert(own, entry);
                own += 1;
            } else {
                entries.push(entry);
            }
        }
        (entries.into(), own)
    }
}

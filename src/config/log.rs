//! `log` of a service: the destination of its output.

use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use toml::de::DeTable;

use super::decoder::{Decoder, Schema, Value};
use super::environment::Purpose;
use super::expand::Scope;
use super::words;
use crate::model::plan::{LogFiles, Output, Service};
use crate::model::{Numbers, Template};

/// The default of `max_size` in bytes.
const DEFAULT_MAX_SIZE: u64 = 10 << 20;
/// The smallest `max_size` in bytes. With less, the file would be rotated all the time.
const MIN_ROTATION_SIZE: u64 = 1 << 10;
/// The default of `max_files`.
const DEFAULT_MAX_FILES: u32 = 5;
/// The largest `max_files`: each rotation renames all files.
const MAX_ROTATED_FILES: i64 = 1_000;

const OUTPUTS: &str = "`\"raw\"`, `\"prefix\"`, `\"inherit\"` or `\"null\"`";

/// The keys of log files: of both streams, of stdout, of stderr.
const FILES: [&str; 3] = ["file", "stdout_file", "stderr_file"];

/// The settings in `log`; `None`: not set.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) stdout: Option<Output>,
    pub(super) stderr: Option<Output>,
    pub(super) files: LogFiles,
}

impl Decoder<'_> {
    pub(super) fn log(&mut self, value: &Value<'_>, scope: &Scope<'_>) -> Log {
        const SCHEMA: Schema = Schema {
            keys: &["stdout", "stderr", "file", "stdout_file", "stderr_file", "max_size", "max_files"],
            later: &[],
            foreign: "\
file: path
stdout_file: stdout_logfile out_file
stderr_file: stderr_logfile error_file
max_size: size maxbytes
max_files: backups keep",
        };
        let Some(table) = self.table(value, "such as `{ stdout = \"raw\" }`") else { return Log::default() };
        self.check_keys(table, "`log`", &SCHEMA);
        Log {
            stdout: self.output(table, "stdout"),
            stderr: self.output(table, "stderr"),
            files: self.log_files(table, scope),
        }
    }

    fn output(&mut self, table: &DeTable<'_>, key: &str) -> Option<Output> {
        let value = self.resolved(table.get(key)?)?;
        let path = value.get_ref().as_str().filter(|text| text.starts_with('/') && self.unexpanded(&value).is_none());
        match path {
            Some("/dev/null") => self.unexpected(&value, OUTPUTS, "write `\"null\"`"),
            Some(path) if is_stream(path.as_bytes()) => self.unexpected(&value, OUTPUTS, "write `\"inherit\"`"),
            Some(path) => {
                let hint = format!("write `{key}_file = \"{}\"`", path.escape_debug());
                self.unexpected(&value, OUTPUTS, hint);
            }
            None => return self.choice(table, key, &words::OUTPUTS),
        }
        None
    }

    fn log_files(&mut self, table: &DeTable<'_>, scope: &Scope<'_>) -> LogFiles {
        let max_size = match table.get("max_size").map(|value| (value, self.size_of(value))) {
            Some((value, Some(size))) if size < MIN_ROTATION_SIZE => {
                self.unexpected(value, "a size of at least 1 KiB", "");
                DEFAULT_MAX_SIZE
            }
            Some((_, size)) => size.unwrap_or(DEFAULT_MAX_SIZE),
            None => DEFAULT_MAX_SIZE,
        };
        let max_files = self.integer(table, "max_files", 0..=MAX_ROTATED_FILES);
        if !FILES.iter().any(|key| table.contains_key(*key)) {
            for key in ["max_size", "max_files"] {
                if let Some((key, _)) = table.get_key_value(key) {
                    let message = format!("`{}` has no effect without `file`", key.get_ref());
                    self.error(key.span(), message, "add `file`, or remove it");
                }
            }
            return LogFiles::default();
        }
        let [both, stdout, stderr] = FILES.map(|key| table.get(key).and_then(|value| self.log_file(value, key, scope)));
        let is_same = |one: &Option<Template>, other: &Option<Template>| one.is_some() && one == other;
        if is_same(&stdout, &stderr) || is_same(&both, &stdout) || is_same(&both, &stderr) {
            let place = table.get("stderr_file").or(table.get("stdout_file"));
            let hint = "write `file` alone: it has both streams, in their order";
            self.warning(place.map_or(0..0, Value::span), "two keys of `log` name the same file", hint);
        }
        let max_files = max_files.and_then(|number| u32::try_from(number).ok()).unwrap_or(DEFAULT_MAX_FILES);
        LogFiles { both, stdout, stderr, max_size, max_files }
    }

    fn log_file(&mut self, value: &Value<'_>, key: &str, scope: &Scope<'_>) -> Option<Template> {
        // supervisord has these.
        if let Some(word @ ("NONE" | "AUTO" | "none" | "syslog")) = value.get_ref().as_str() {
            let hint = format!("remove `{key}`, or write `./{word}` for a file with this name");
            self.error(value.span(), format!("`{word}` is not a path"), hint);
            return None;
        }
        let path = self.absolute_path(value, scope, &format!("remove `{key}` to write no log file"))?;
        let first = path.expand(Numbers::SINGLE);
        if is_stream(first.as_bytes()) {
            let message = format!("`{}` is not a log file: it is an open stream", path.shown(Numbers::SINGLE));
            let hint = format!("remove `{key}`: without it, a service writes to stdout and stderr of keepalive");
            self.error(value.span(), message, hint);
            return None;
        }
        if self.environment.purpose == Purpose::Check {
            self.inspect_log_file(value, (&first, &path.shown(Numbers::SINGLE)), scope.service);
        }
        Some(path)
    }

    /// Warns if lines would be dropped, or mixed with those of another service.
    #[inline(never)]
    fn inspect_log_file(&mut self, value: &Value<'_>, (first, shown): (&CStr, &str), service: &str) {
        let path = Path::new(OsStr::from_bytes(first.to_bytes()));
        let link = (self.environment.unsafe_path)(path);
        let other = self.log_files.iter().find(|(known, of)| **known == *first && of != service);
        let (message, hint) = if let Some(reason) = link {
            let reason = if shown.contains("${") { "a symbolic link" } else { &reason };
            (format!("{reason}: keepalive would not follow it, and drop the lines"), "name the real path")
        } else if let Some(reason) = self.unwritable(path, shown) {
            (reason, "its lines would be dropped: keepalive itself writes log files")
        } else if let Some((_, other)) = other {
            (format!("the service `{other}` writes to this file, too"), "add `{service}` to both paths")
        } else {
            return self.log_files.push((first.to_owned(), service.to_owned()));
        };
        self.warning(value.span(), message, hint);
    }

    /// Warns if all instances write to one log file.
    pub(super) fn warn_about_shared_log_file(&mut self, service: &Service, table: &DeTable<'_>) {
        let mut files = service.process.log_files.iter();
        if self.environment.purpose == Purpose::Check
            && service.instances > 1
            && files.any(|(_, path)| !path.differs_by_instance())
            && let Some(value) = table.get("log")
        {
            self.warning(value.span(), "all instances write to one log file", "add `{instance}` to its path");
        }
    }
}

/// Whether `path` leads to a descriptor that a process has open: /dev/stdout, /dev/fd/1, /proc/self/fd/2, /proc/1/fd/1.
fn is_stream(path: &[u8]) -> bool {
    let is_number = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    match parts.as_slice() {
        [b"dev", b"stdin" | b"stdout" | b"stderr"] => true,
        [b"dev", b"fd", number] => is_number(number),
        [b"proc", process, b"fd", number] => {
            (is_number(process) || matches!(*process, b"self" | b"thread-self")) && is_number(number)
        }
        _ => false,
    }
}

//! The configuration file and the files that it includes → plan.

use std::ffi::OsString;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use toml::de::DeTable;

use super::decoder::{Decoder, Schema, UniqueResource, Value, Words, entries};
use super::environment::Environment;
use super::files::{FsQuery, split_names};
use super::global::{Settings, default_output};
use super::graph;
use super::other_format::{SECTIONS, other_format};
use super::read::text;
use super::report::{Loaded, Location, MAX_SHOWN_ERRORS, Report, Source, UnlocatedDiagnostic, locate};
use super::service::{self, MAX_INSTANCES, ServiceDraft};
use super::users::Users;
use crate::model::glob::{self, is_pattern};
use crate::model::map::Map;
use crate::model::plan::{Address, Control, LogStyle, Service};
use crate::model::units::format_duration;
use crate::model::{AsWritten, Plan};

const SCHEMA: Schema = Schema { keys: &["keepalive", "services"], later: &[], foreign: SECTIONS };

/// Loads the configuration file `path` and the files that it includes.
///
/// # Errors
/// All errors in the configuration.
pub fn load(path: &Path, environment: &Environment<'_>) -> Result<Loaded, Report> {
    load_all(path, None, environment)
}

/// As [`load`], with `command` as an additional service `main`. When it exits, keepalive shuts down.
///
/// # Errors
/// All errors in the configuration.
pub fn load_with_main(path: &Path, command: &[OsString], environment: &Environment<'_>) -> Result<Loaded, Report> {
    load_all(path, Some(command), environment)
}

/// The setting `control` of the configuration file `path`, whatever else is wrong with the file.
///
/// # Errors
/// Why the file cannot be read.
pub fn control(path: &Path, environment: &Environment<'_>) -> Result<Control, String> {
    let source = read_source(path, environment);
    let source = source.map_err(|reason| format!("cannot read {}: {reason}", path.display()))?;
    let users = Users::read(environment.root, environment.files);
    let mut builder = PlanBuilder::new(environment, &users, directory_of(path));
    let tree = builder.parse(&source);
    let value = tree.get("keepalive").and_then(|value| value.get_ref().as_table()?.get("control"));
    Ok(value.and_then(|value| builder.decoder.control(value)).unwrap_or_default())
}

fn load_all(path: &Path, main: Option<&[OsString]>, environment: &Environment<'_>) -> Result<Loaded, Report> {
    let first = read_source(path, environment);
    let unread = |reason| unusable(path.display().to_string(), format!("cannot be read: {reason}"), "");
    let first = first.map_err(unread)?;
    let users = Users::read(environment.root, environment.files);
    let mut builder = PlanBuilder::new(environment, &users, directory_of(path));
    let tree = builder.parse(&first);
    let format = if builder.syntax_errors.is_empty() { None } else { str::from_utf8(&first.bytes).ok() };
    if let Some(format) = format.and_then(other_format) {
        let hint = "keepalive reads TOML: `keepalive import` makes it of files of PM2, supervisord, Compose, systemd, s6, runit and Procfiles";
        return Err(unusable(first.name, format!("this looks like {format}"), hint));
    }
    let included = builder.included(path, &tree);
    builder.decoder.documents += included.len();
    builder.document(&tree, main);
    for (path, source) in &included {
        let tree = builder.parse(source);
        builder.decoder.directory = directory_of(path);
        builder.included_document(&tree);
    }
    if let Some(command) = main {
        builder.drafts.push(ServiceDraft::main(command, builder.decoder.output_of_main()));
    }
    builder.finish()
}

fn read_source(path: &Path, environment: &Environment<'_>) -> Result<Source, String> {
    let bytes = (environment.files)(&FsQuery::ReadFile(path))?;
    Ok(Source { name: path.display().to_string(), bytes, is_secret: false })
}

fn directory_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

fn unusable(name: String, message: String, hint: &str) -> Report {
    let source = Source { name, bytes: Vec::new(), is_secret: false };
    let location = Location { source: 0, span: None };
    let diagnostic = UnlocatedDiagnostic { location, message, hint: hint.to_owned() };
    Report { errors: locate(&[diagnostic], &[&source]).0, omitted: 0, warnings: Vec::new() }
}

/// Collects what the documents of a configuration contain, and makes the plan of it.
pub(super) struct PlanBuilder<'r> {
    pub(super) decoder: Decoder<'r>,
    settings: Settings,
    pub(super) drafts: Vec<ServiceDraft>,
    /// The position in `drafts` of the first service with each name.
    names: Map<String, usize>,
    syntax_errors: Vec<UnlocatedDiagnostic>,
    /// How many more syntax errors there are.
    omitted: usize,
    /// The documents that have been parsed so far.
    documents: Vec<&'r Source>,
}

impl<'r> PlanBuilder<'r> {
    pub(super) fn new(environment: &'r Environment<'r>, users: &'r Users, directory: &'r Path) -> Self {
        let decoder = Decoder {
            environment,
            users,
            source: 0,
            text: &[],
            directory,
            own_variables: Rc::default(),
            reads_env_at_start: false,
            leaves_to_shell: false,
            expands_variables: true,
            service_keys: service::SCHEMA.keys,
            default_output: default_output(LogStyle::default(), environment),
            errors: Vec::new(),
            warnings: Vec::new(),
            unique_resources: Vec::new(),
            log_files: Vec::new(),
            env_files: Vec::new(),
            documents: 1,
            has_syntax_errors: false,
        };
        Self {
            decoder,
            settings: Settings::default(),
            drafts: Vec::new(),
            names: Map::new(),
            syntax_errors: Vec::new(),
            omitted: 0,
            documents: Vec::new(),
        }
    }

    /// Makes `source` the current document and parses it. Records syntax errors and omits the affected parts.
    fn parse(&mut self, source: &'r Source) -> DeTable<'r> {
        let number = self.enter(source);
        let text = match text(source, number) {
            Ok(text) => text,
            Err(diagnostic) => {
                self.syntax_errors.push(diagnostic);
                return DeTable::new();
            }
        };
        let (tree, errors) = DeTable::parse_recoverable(text);
        self.omitted += errors.len().saturating_sub(MAX_SHOWN_ERRORS);
        for error in errors.into_iter().take(MAX_SHOWN_ERRORS) {
            let span = error.span().unwrap_or(0..0);
            let (message, hint) = explain(error.message(), source, &span);
            self.syntax_errors.push(UnlocatedDiagnostic {
                location: Location { source: number, span: Some(span) },
                message,
                hint,
            });
        }
        self.decoder.has_syntax_errors =
            self.syntax_errors.iter().any(|diagnostic| diagnostic.location.source == number);
        tree.into_inner()
    }

    /// Makes `source` the current document and returns its number.
    pub(super) fn enter(&mut self, source: &'r Source) -> usize {
        self.decoder.source = self.documents.len();
        self.decoder.text = &source.bytes;
        self.documents.push(source);
        self.decoder.source
    }

    /// Reads the files that `[keepalive] include` names, in order, each once.
    fn included(&mut self, path: &Path, tree: &DeTable<'_>) -> Vec<(PathBuf, Source)> {
        let include = tree.get("keepalive").and_then(|value| value.get_ref().as_table()?.get("include"));
        let Some(value) = include else { return Vec::new() };
        let first = (self.decoder.environment.files)(&FsQuery::Identify(path));
        let mut known: Vec<Vec<u8>> = first.into_iter().collect();
        let mut sources = Vec::new();
        let patterns = self.decoder.array(value, "such as `[\"/etc/keepalive.d/*.toml\"]`");
        for pattern in patterns {
            let Some(target) = self.decoder.global_path(pattern) else { continue };
            for path in self.matching(pattern, &self.decoder.directory.join(target)) {
                let shown = self.decoder.shown_path(pattern, &path);
                match read_source(&path, self.decoder.environment) {
                    Ok(source) => {
                        let found = (self.decoder.environment.files)(&FsQuery::Identify(&path)).ok();
                        if found.as_ref().is_none_or(|found| !known.contains(found)) {
                            sources.push((path, Source { name: shown, ..source }));
                        }
                        known.extend(found);
                    }
                    Err(reason) => {
                        let message = format!("cannot read `{shown}`: {reason}");
                        self.decoder.error(pattern.span(), message, "");
                    }
                }
            }
        }
        sources
    }

    /// `path` itself, or the paths that match if its file name is a pattern.
    fn matching(&mut self, value: &Value<'_>, path: &Path) -> Vec<PathBuf> {
        let pattern = path.file_name().unwrap_or_default().as_encoded_bytes();
        let directory = path.parent().unwrap_or(Path::new(""));
        if is_pattern(directory.as_os_str().as_encoded_bytes()) {
            let message = "`*` and `?` are only allowed in the file name";
            self.decoder.error(value.span(), message, "write one pattern for each directory");
            return Vec::new();
        }
        if !is_pattern(pattern) {
            return vec![path.to_owned()];
        }
        let listed = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        let names = match (self.decoder.environment.files)(&FsQuery::ListDirectory(listed)) {
            Ok(names) => names,
            Err(reason) => {
                let shown = self.decoder.unexpanded(value).map_or(listed.display().to_string(), str::to_owned);
                let message = format!("cannot read `{shown}`: {reason}");
                self.decoder.error(value.span(), message, "");
                return Vec::new();
            }
        };
        let names = split_names(&names);
        let mut sorted: Vec<OsString> = Vec::new();
        for name in names.filter(|name| matches(pattern, name.as_encoded_bytes())) {
            sorted.insert(sorted.partition_point(|other| other < name), name.to_owned());
        }
        sorted.into_iter().map(|name| directory.join(name)).collect()
    }

    fn document(&mut self, tree: &DeTable<'_>, main: Option<&[OsString]>) {
        self.decoder.check_keys(tree, "the file", &SCHEMA);
        if let Some(value) = tree.get("keepalive")
            && let Some(table) = self.decoder.table(value, "write `[keepalive]`")
        {
            self.settings = self.decoder.settings(table);
        }
        if main.is_some() {
            self.names.insert("main".to_owned(), usize::MAX);
        }
        self.services(tree);
    }

    fn included_document(&mut self, tree: &DeTable<'_>) {
        self.decoder.check_keys(tree, "the file", &SCHEMA);
        if let Some((key, value)) = tree.get_key_value("keepalive") {
            let include = value.get_ref().as_table().and_then(|table| table.get_key_value("include"));
            let (location, message) = match include {
                Some((key, _)) => (key.span(), "only the main file can have `include`"),
                None => (key.span(), "only the main file can have `[keepalive]`"),
            };
            self.decoder.error(location, message, "move it there");
        }
        self.services(tree);
    }

    fn services(&mut self, tree: &DeTable<'_>) {
        let Some(value) = tree.get("services") else { return };
        let Some(table) = self.decoder.table(value, "write `[services.NAME]` for each service") else { return };
        for (key, value) in entries(table) {
            let name: &str = key.get_ref();
            let brackets = if value.get_ref().is_array() { ", in single brackets" } else { "" };
            let Some(fields) = self.decoder.table(value, &format!("write `[services.{name}]`{brackets}")) else {
                continue;
            };
            self.service(name, key.span(), fields, None);
        }
    }

    /// Adds a service, unless there is one with this name.
    pub(super) fn service(&mut self, name: &str, span: Range<usize>, fields: &DeTable<'_>, words: Option<Words<'_>>) {
        let draft = self.decoder.service(name, span.clone(), fields, words);
        match self.names.get(name) {
            None => {
                self.names.insert(name.to_owned(), self.drafts.len());
                self.drafts.push(draft);
            }
            Some(&position) => self.duplicate(name, span, position),
        }
    }

    fn duplicate(&mut self, name: &str, span: Range<usize>, position: usize) {
        let (message, hint) =
            match self.drafts.get(position).and_then(|first| self.format_location(first.source, first.span.start)) {
                Some(first) => (format!("service `{name}` is defined twice, first at {first}"), "rename one of them"),
                None => ("the name `main` is reserved for the command after `--`".to_owned(), "rename it"),
            };
        self.decoder.error(span, message, hint);
    }

    /// `file:line:column`
    fn format_location(&self, source: usize, offset: usize) -> Option<String> {
        let source = self.documents.get(source)?;
        let (line, column) = source.position(offset);
        Some(format!("{}:{line}:{column}", source.name))
    }

    /// The plan, or all errors.
    pub(super) fn finish(mut self) -> Result<Loaded, Report> {
        let has_syntax_errors = !self.syntax_errors.is_empty();
        self.decoder.has_syntax_errors = has_syntax_errors;
        let dependencies = graph::resolve(&mut self.decoder, &self.drafts, &self.names);
        self.check_timeouts();
        self.check_unique_resources();
        self.check_total_instances();
        let Decoder { mut errors, warnings, env_files, .. } = self.decoder;
        if self.drafts.is_empty() && errors.is_empty() && !has_syntax_errors {
            let hint = "add `[services.web]` with `command = [\"node\", \"server.js\"]`".to_owned();
            errors.push(UnlocatedDiagnostic {
                location: Location { source: 0, span: None },
                message: "no services are defined".to_owned(),
                hint,
            });
        }
        let env_files = env_files.iter().map(|file| &file.source);
        let sources: Vec<&Source> = self.documents.iter().copied().chain(env_files).collect();
        if has_syntax_errors {
            let mut broken: Vec<_> =
                self.syntax_errors.iter().map(|diagnostic| line_of(diagnostic, &sources)).collect();
            broken.dedup();
            errors.retain(|diagnostic| !broken.contains(&line_of(diagnostic, &sources)));
            errors.extend(self.syntax_errors);
        }
        let (errors, omitted) = locate(&errors, &sources);
        let (warnings, _) = locate(&warnings, &sources);
        if !errors.is_empty() {
            return Err(Report { errors, omitted: omitted + self.omitted, warnings });
        }
        let Settings { shutdown_timeout, signals, termination_log, log, control, http } = self.settings;
        let services = self.drafts.into_iter().zip(dependencies);
        let services = services.map(|(draft, depends_on)| Rc::new(Service { depends_on, ..draft.service })).collect();
        let plan = Plan { shutdown_timeout, signals, termination_log, log, control, http, services };
        Ok(Loaded { plan, warnings })
    }
}

impl PlanBuilder<'_> {
    /// Warns if the stop of a service may take longer than the whole shutdown.
    fn check_timeouts(&mut self) {
        let most = self.settings.shutdown_timeout;
        for draft in &self.drafts {
            let stop = draft.service.stop;
            let longest = stop.delay.saturating_add(stop.timeout);
            if let Some(span) = draft.stop_timeout.clone().filter(|_| longest > most) {
                let message = format!("`shutdown_timeout` limits the whole shutdown to {}", format_duration(most));
                let hint = "increase it in `[keepalive]`, and the grace period of the container".to_owned();
                let location = Location { source: draft.source, span: Some(span) };
                self.decoder.warnings.push(UnlocatedDiagnostic { location, message, hint });
            }
        }
    }

    /// Reports sockets whose addresses overlap, and state files that are used twice.
    fn check_unique_resources(&mut self) {
        let mut files: Map<String, Location> = Map::new();
        // By port: only addresses with the same port can overlap.
        let mut addresses: Map<String, Vec<(AsWritten<Address>, Location)>> = Map::new();
        for (resource, location) in std::mem::take(&mut self.decoder.unique_resources) {
            match resource {
                UniqueResource::File(file) => match files.get(&*file) {
                    Some(first) => {
                        let shown = file.shown(String::clone);
                        self.report_conflict(location, &shown, &shown, first);
                    }
                    None => drop(files.insert(String::clone(&file), location)),
                },
                UniqueResource::Address(address) => {
                    let port = match &*address {
                        Address::Tcp(address) | Address::Udp(address) => address.port().to_string(),
                        Address::Unix { .. } => Address::to_string(&address),
                    };
                    let others = addresses.entry(port);
                    match others.iter().find(|(other, _)| other.overlaps(&address)) {
                        Some((other, first)) => {
                            let one = address.shown(Address::to_string);
                            let is_same = Address::to_string(other) == Address::to_string(&address);
                            let other = if is_same { one.clone() } else { other.shown(Address::to_string) };
                            self.report_conflict(location, &one, &other, first);
                        }
                        None => others.push((address, location)),
                    }
                }
            }
        }
    }

    fn report_conflict(&mut self, location: Location, what: &str, other: &str, first: &Location) {
        let first = self.format_location(first.source, first.span.as_ref().map_or(0, |span| span.start));
        let first = first.unwrap_or_default();
        let (message, hint) = if what == other {
            (format!("`{what}` is used twice, first at {first}"), "change one of them")
        } else {
            (
                format!("`{what}` overlaps with `{other}` at {first}"),
                "change one of them; `0.0.0.0` means all IPv4 addresses, `[::]` all IPv4 and IPv6 addresses",
            )
        };
        self.decoder.errors.push(UnlocatedDiagnostic { location, message, hint: hint.to_owned() });
    }

    /// The maximum number of instances applies to each service and to all services together.
    fn check_total_instances(&mut self) {
        let mut all = 0_i64;
        for draft in &self.drafts {
            all += i64::from(draft.service.instances);
            if all > MAX_INSTANCES {
                let message = format!("too many instances: {all} up to here, the limit is {MAX_INSTANCES}");
                let location = Location { source: draft.source, span: Some(draft.span.clone()) };
                self.decoder.errors.push(UnlocatedDiagnostic {
                    location,
                    message,
                    hint: "reduce `instances`".to_owned(),
                });
                return;
            }
        }
    }
}

/// The source and the offset of the line of a diagnostic.
fn line_of(diagnostic: &UnlocatedDiagnostic, sources: &[&Source]) -> (usize, usize) {
    let start = diagnostic.location.span.as_ref().map_or(0, |span| span.start);
    let before =
        sources.get(diagnostic.location.source).and_then(|source| source.bytes.get(..start)).unwrap_or_default();
    (diagnostic.location.source, before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1))
}

/// Whether `pattern` matches the whole `name`. As in a shell, a leading dot must be matched by a dot. glob(7)
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    (name.first() != Some(&b'.') || pattern.first() == Some(&b'.')) && glob::matches(pattern, name)
}

/// The message and the hint for a syntax error.
fn explain(message: &str, source: &Source, span: &Range<usize>) -> (String, String) {
    let text = source.bytes.get(span.clone()).unwrap_or_default();
    let name = String::from_utf8_lossy(text);
    if is_bare_word(source, span) {
        let hint = match name.to_ascii_lowercase().as_str() {
            lower @ ("true" | "false") => format!("write `{lower}`"),
            "yes" | "on" => format!("write `true`, or `\"{name}\"` if it is a string"),
            "no" | "off" => format!("write `false`, or `\"{name}\"` if it is a string"),
            _ => format!("write `\"{}\"`", name.escape_debug()),
        };
        return (format!("expected a value, found `{}`", name.escape_debug()), hint);
    }
    if message == "unexpected leading zero, expected nothing" {
        return ("a number cannot start with zero".to_owned(), "remove the zero".to_owned());
    }
    if message != "duplicate key" {
        return (message.to_owned(), String::new());
    }
    let first = match first_position(source, span) {
        Some((line, column)) => format!(", first at {}:{line}:{column}", source.name),
        None => String::new(),
    };
    (format!("duplicate key `{name}`{first}"), "remove or rename one of them".to_owned())
}

/// Whether `span` is text without quotes in the place of a value.
fn is_bare_word(source: &Source, span: &Range<usize>) -> bool {
    let before = source.bytes.get(..span.start).unwrap_or_default().trim_ascii_end();
    let text = source.bytes.get(span.clone()).unwrap_or_default();
    matches!(before.last(), Some(b'=' | b'[' | b','))
        && text.first().is_some_and(|byte| b"/.$".contains(byte) || byte.is_ascii_alphabetic())
}

/// The line and column where the duplicate table or key in `span` was defined first: the last earlier line that starts with
/// the same text.
fn first_position(source: &Source, span: &Range<usize>) -> Option<(usize, usize)> {
    let start =
        source.bytes.get(..span.start)?.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    let head = source.bytes.get(start..span.end)?;
    let mut found = None;
    let mut offset = 0;
    for line in source.bytes.get(..start)?.split_inclusive(|byte| *byte == b'\n') {
        let rest = line.strip_prefix(head);
        if rest.is_some_and(|rest| matches!(rest.trim_ascii_start().first(), Some(b'=' | b']' | b'.'))) {
            found = Some(source.position(offset + head.len() - (span.end - span.start)));
        }
        offset += line.len();
    }
    found
}

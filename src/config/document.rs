//! A file and what it includes → plan.

use std::ffi::OsString;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use toml::de::DeTable;

use super::decoder::{Decoder, Schema, UniqueResource, Value, entries};
use super::files::split_names;
use super::global::{Settings, default_output};
use super::graph;
use super::process::Words;
use super::read::text;
use super::report::{FAULT_LIMIT, Fault, Place, Report, Source, locate};
use super::service::{INSTANCE_LIMIT, ServiceDraft};
use super::users::Users;
use super::{Environment, FsQuery, Loaded};
use crate::model::Plan;
use crate::model::map::Map;
use crate::model::plan::{Address, LogStyle, Service};
use crate::model::units::format_duration;

const SCHEMA: Schema = Schema {
    keys: &["keepalive", "services"],
    later: &[],
    foreign: &[("service", "services"), ("programs", "services"), ("apps", "services")],
};

/// Reads the configuration in `path` and what it includes.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(path: &Path, environment: &Environment<'_>) -> Result<Loaded, Report> {
    load_all(path, None, environment)
}

/// As [`load`], with `command` as one more service, `main`, whose end is the end of all.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load_with_main(path: &Path, command: &[OsString], environment: &Environment<'_>) -> Result<Loaded, Report> {
    load_all(path, Some(command), environment)
}

fn load_all(path: &Path, main: Option<&[OsString]>, environment: &Environment<'_>) -> Result<Loaded, Report> {
    let name = path.display().to_string();
    let bytes = match (environment.files)(&FsQuery::Content(path)) {
        Ok(bytes) => bytes,
        Err(reason) => return Err(unreadable(name, &reason)),
    };
    let users = Users::read(environment.root, environment.files);
    let first = Source { name, bytes };
    let mut reading = Reading::new(environment, &users, directory_of(path));
    let tree = reading.parse(&first);
    let included = reading.included(path, &tree);
    reading.walk.documents += included.len();
    reading.document(&tree, main);
    for (path, source) in &included {
        let tree = reading.parse(source);
        reading.walk.directory = directory_of(path);
        reading.included_document(&tree);
    }
    if let Some(command) = main {
        reading.drafts.push(ServiceDraft::main(command));
    }
    reading.finish()
}

fn directory_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

fn unreadable(name: String, reason: &str) -> Report {
    let source = Source { name, bytes: Vec::new() };
    let message = format!("cannot be read: {reason}");
    let fault = Fault { place: Place { source: 0, span: None }, message, hint: String::new() };
    Report { errors: locate(&[fault], &[&source]).0, omitted: 0, warnings: Vec::new() }
}

/// A configuration on its way to a plan.
pub(super) struct Reading<'r> {
    pub(super) walk: Decoder<'r>,
    settings: Settings,
    pub(super) drafts: Vec<ServiceDraft>,
    /// Where each name was given first, as a position in `drafts`.
    names: Map<String, usize>,
    /// Where the documents are no TOML.
    syntax: Vec<Fault>,
    /// How many more errors of that kind there are.
    omitted: usize,
    /// What has been read so far.
    documents: Vec<&'r Source>,
}

impl<'r> Reading<'r> {
    pub(super) fn new(environment: &'r Environment<'r>, users: &'r Users, directory: &'r Path) -> Self {
        let walk = Decoder {
            outside: environment,
            users,
            source: 0,
            text: &[],
            directory,
            expands_variables: true,
            default_output: default_output(LogStyle::default()),
            errors: Vec::new(),
            warnings: Vec::new(),
            claims: Vec::new(),
            env_files: Vec::new(),
            documents: 1,
            is_broken: false,
        };
        Self {
            walk,
            settings: Settings::default(),
            drafts: Vec::new(),
            names: Map::new(),
            syntax: Vec::new(),
            omitted: 0,
            documents: Vec::new(),
        }
    }

    /// The tree of `source`, which becomes the current one. What is no TOML is noted and left out.
    fn parse(&mut self, source: &'r Source) -> DeTable<'r> {
        let number = self.enter(source);
        let text = match text(source, number) {
            Ok(text) => text,
            Err(fault) => {
                self.syntax.push(fault);
                return DeTable::new();
            }
        };
        let (tree, errors) = DeTable::parse_recoverable(text);
        self.omitted += errors.len().saturating_sub(FAULT_LIMIT);
        for error in errors.into_iter().take(FAULT_LIMIT) {
            let span = error.span().unwrap_or(0..0);
            let (message, hint) = explain(error.message(), source, &span);
            self.syntax.push(Fault { place: Place { source: number, span: Some(span) }, message, hint });
        }
        self.walk.is_broken = self.syntax.iter().any(|fault| fault.place.source == number);
        tree.into_inner()
    }

    /// Makes `source` the current one.
    pub(super) fn enter(&mut self, source: &'r Source) -> usize {
        self.walk.source = self.documents.len();
        self.walk.text = &source.bytes;
        self.documents.push(source);
        self.walk.source
    }

    /// The files that `[keepalive] include` names, in order, each once.
    fn included(&mut self, path: &Path, tree: &DeTable<'_>) -> Vec<(PathBuf, Source)> {
        let include = tree.get("keepalive").and_then(|value| value.get_ref().as_table()?.get("include"));
        let Some(value) = include else { return Vec::new() };
        let first = (self.walk.outside.files)(&FsQuery::Identity(path));
        let mut known: Vec<Vec<u8>> = first.into_iter().collect();
        let mut sources = Vec::new();
        let patterns = self.walk.array(value, "such as `[\"/etc/keepalive.d/*.toml\"]`");
        for pattern in patterns {
            let Some(target) = self.walk.global_path(pattern) else { continue };
            for path in self.matching(pattern, &self.walk.directory.join(target)) {
                match (self.walk.outside.files)(&FsQuery::Content(&path)) {
                    Ok(bytes) => {
                        let found = (self.walk.outside.files)(&FsQuery::Identity(&path)).ok();
                        if found.as_ref().is_none_or(|found| !known.contains(found)) {
                            let name = path.display().to_string();
                            sources.push((path, Source { name, bytes }));
                        }
                        known.extend(found);
                    }
                    Err(reason) => {
                        let message = format!("cannot read `{}`: {reason}", path.display());
                        self.walk.error(pattern.span(), &message, "");
                    }
                }
            }
        }
        sources
    }

    /// `path` itself, or what it matches if its file name is a pattern.
    fn matching(&mut self, value: &Value<'_>, path: &Path) -> Vec<PathBuf> {
        let is_pattern = |text: &[u8]| text.iter().any(|byte| matches!(byte, b'*' | b'?'));
        let pattern = path.file_name().unwrap_or_default().as_encoded_bytes();
        let directory = path.parent().unwrap_or(Path::new(""));
        if is_pattern(directory.as_os_str().as_encoded_bytes()) {
            let message = "`*` and `?` are only allowed in the file name";
            self.walk.error(value.span(), message, "write one pattern for each directory");
            return Vec::new();
        }
        if !is_pattern(pattern) {
            return vec![path.to_owned()];
        }
        let place = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        let names = match (self.walk.outside.files)(&FsQuery::Names(place)) {
            Ok(names) => names,
            Err(reason) => {
                let message = format!("cannot read `{}`: {reason}", place.display());
                self.walk.error(value.span(), &message, "");
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
        self.walk.check_keys(tree, "the file", &SCHEMA);
        if let Some(value) = tree.get("keepalive")
            && let Some(table) = self.walk.table(value, "write `[keepalive]`")
        {
            self.settings = self.walk.settings(table);
        }
        if main.is_some() {
            self.names.insert("main".to_owned(), usize::MAX);
        }
        self.services(tree);
    }

    fn included_document(&mut self, tree: &DeTable<'_>) {
        self.walk.check_keys(tree, "the file", &SCHEMA);
        if let Some((key, value)) = tree.get_key_value("keepalive") {
            let include = value.get_ref().as_table().and_then(|table| table.get_key_value("include"));
            let (place, message) = match include {
                Some((key, _)) => (key.span(), "only the main file can have `include`"),
                None => (key.span(), "only the main file can have `[keepalive]`"),
            };
            self.walk.error(place, message, "move it there");
        }
        self.services(tree);
    }

    fn services(&mut self, tree: &DeTable<'_>) {
        let Some(value) = tree.get("services") else { return };
        let Some(table) = self.walk.table(value, "write `[services.NAME]` for each service") else { return };
        for (key, value) in entries(table) {
            let name: &str = key.get_ref();
            let brackets = if value.get_ref().is_array() { ", in single brackets" } else { "" };
            let Some(fields) = self.walk.table(value, &format!("write `[services.{name}]`{brackets}")) else {
                continue;
            };
            self.service(name, key.span(), fields, None);
        }
    }

    /// One service, unless its name is taken.
    pub(super) fn service(&mut self, name: &str, span: Range<usize>, fields: &DeTable<'_>, words: Option<Words<'_>>) {
        let draft = self.walk.service(name, span.clone(), fields, words);
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
            match self.drafts.get(position).and_then(|first| self.shown_place(first.source, first.span.start)) {
                Some(first) => (format!("service `{name}` is defined twice, first at {first}"), "rename one of them"),
                None => ("the name `main` is reserved for the command after `--`".to_owned(), "rename it"),
            };
        self.walk.error(span, &message, hint);
    }

    /// `file:line:column`
    fn shown_place(&self, source: usize, offset: usize) -> Option<String> {
        let source = self.documents.get(source)?;
        let (line, column) = source.position(offset);
        Some(format!("{}:{line}:{column}", source.name))
    }

    /// The plan, or the report.
    pub(super) fn finish(mut self) -> Result<Loaded, Report> {
        let has_syntax_errors = !self.syntax.is_empty();
        self.walk.is_broken = has_syntax_errors;
        let dependencies = graph::resolve(&mut self.walk, &self.drafts, &self.names);
        self.compare_timeouts();
        self.compare_claims();
        self.count_instances();
        let Decoder { mut errors, warnings, env_files, .. } = self.walk;
        if self.drafts.is_empty() && errors.is_empty() && !has_syntax_errors {
            let hint = "add `[services.web]` with `command = [\"node\", \"server.js\"]`".to_owned();
            errors.push(Fault {
                place: Place { source: 0, span: None },
                message: "no services are defined".to_owned(),
                hint,
            });
        }
        let env_files = env_files.iter().map(|file| &file.source);
        let sources: Vec<&Source> = self.documents.iter().copied().chain(env_files).collect();
        if has_syntax_errors {
            let mut broken: Vec<_> = self.syntax.iter().map(|fault| line_of(fault, &sources)).collect();
            broken.dedup();
            errors.retain(|fault| !broken.contains(&line_of(fault, &sources)));
            errors.extend(self.syntax);
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

impl Reading<'_> {
    /// A service that may take longer to stop than everything together will not get its time.
    fn compare_timeouts(&mut self) {
        let most = self.settings.shutdown_timeout;
        for draft in &self.drafts {
            let stop = draft.service.stop;
            let longest = stop.delay.saturating_add(stop.timeout);
            if let Some(span) = draft.stop_timeout.clone().filter(|_| longest > most) {
                let message = format!("`shutdown_timeout` limits the whole shutdown to {}", format_duration(most));
                let hint = "increase it in `[keepalive]`, and the grace period of the container".to_owned();
                let place = Place { source: draft.source, span: Some(span) };
                self.walk.warnings.push(Fault { place, message, hint });
            }
        }
    }

    /// Two sockets cannot have one address, nor one a part of the other's, and two processes should not have one file of
    /// state.
    fn compare_claims(&mut self) {
        let mut files: Map<String, Place> = Map::new();
        // By port: only those of one port can be the same.
        let mut addresses: Map<String, Vec<(Address, Place)>> = Map::new();
        for (what, place) in std::mem::take(&mut self.walk.claims) {
            match what {
                UniqueResource::File(file) => match files.get(&file) {
                    Some(first) => self.is_taken(place, &file, &file, first),
                    None => drop(files.insert(file, place)),
                },
                UniqueResource::Address(address) => {
                    let port = match &address {
                        Address::Tcp(address) | Address::Udp(address) => address.port().to_string(),
                        Address::Unix { .. } => address.to_string(),
                    };
                    let others = addresses.entry(port);
                    match others.iter().find(|(other, _)| other.overlaps(&address)) {
                        Some((other, first)) => {
                            let (one, other) = (address.to_string(), other.to_string());
                            self.is_taken(place, &one, &other, first);
                        }
                        None => others.push((address, place)),
                    }
                }
            }
        }
    }

    fn is_taken(&mut self, place: Place, what: &str, other: &str, first: &Place) {
        let first = self.shown_place(first.source, first.span.as_ref().map_or(0, |span| span.start));
        let first = first.unwrap_or_default();
        let (message, hint) = if what == other {
            (format!("`{what}` is used twice, first at {first}"), "change one of them")
        } else {
            (
                format!("`{what}` overlaps with `{other}` at {first}"),
                "change one of them; `0.0.0.0` means all IPv4 addresses, `[::]` all IPv4 and IPv6 addresses",
            )
        };
        self.walk.errors.push(Fault { place, message, hint: hint.to_owned() });
    }

    /// The limit of one service is that of the machine, so it holds for all of them together.
    fn count_instances(&mut self) {
        let mut all = 0_i64;
        for draft in &self.drafts {
            all += i64::from(draft.service.instances);
            if all > INSTANCE_LIMIT {
                let message = format!("too many instances: {all} up to here, the limit is {INSTANCE_LIMIT}");
                let place = Place { source: draft.source, span: Some(draft.span.clone()) };
                self.walk.errors.push(Fault { place, message, hint: "reduce `instances`".to_owned() });
                return;
            }
        }
    }
}

/// Source and offset of the line on which a fault is.
fn line_of(fault: &Fault, sources: &[&Source]) -> (usize, usize) {
    let start = fault.place.span.as_ref().map_or(0, |span| span.start);
    let before = sources.get(fault.place.source).and_then(|source| source.bytes.get(..start)).unwrap_or_default();
    (fault.place.source, before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1))
}

/// Whether `pattern` matches all of `name`; as in a shell, a dot at the beginning must be matched by a dot.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    if name.first() == Some(&b'.') && pattern.first() != Some(&b'.') {
        return false;
    }
    let (mut at, mut position) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while position < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, position));
                at += 1;
            }
            Some(byte) if *byte == b'?' || name.get(position) == Some(byte) => {
                at += 1;
                position += 1;
            }
            _ => match star {
                Some((back, taken)) => {
                    star = Some((back, taken + 1));
                    (at, position) = (back + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern.get(at..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

/// A syntax error in our words, and what would be right.
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
    let first = match first_place(source, span) {
        Some((line, column)) => format!(", first at {}:{line}:{column}", source.name),
        None => String::new(),
    };
    (format!("duplicate key `{name}`{first}"), "remove or rename one of them".to_owned())
}

/// Whether text without quotes stands where a value should.
fn is_bare_word(source: &Source, span: &Range<usize>) -> bool {
    let before = source.bytes.get(..span.start).unwrap_or_default().trim_ascii_end();
    let text = source.bytes.get(span.clone()).unwrap_or_default();
    matches!(before.last(), Some(b'=' | b'[' | b','))
        && text.first().is_some_and(|byte| b"/.$".contains(byte) || byte.is_ascii_alphabetic())
}

/// Where the table or key that is given again in `span` stood first: the last line before that begins alike.
fn first_place(source: &Source, span: &Range<usize>) -> Option<(usize, usize)> {
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

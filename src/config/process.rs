//! How the process of a service is started: command, environment, user, limits, and the descriptors that it inherits.

use std::ops::Range;
use std::os::unix::ffi::OsStringExt as _;

use toml::de::DeTable;

use super::decoder::{Decoder, Schema, UniqueResource, Value, Words};
use super::env_file::Entries;
use super::expand::{Builder, Scope, expand};
use super::service;
use super::shell::{self, ShellSyntax};
use super::sockets::shared_scope;
use crate::model::plan::{Hook, Hooks, Process, Service, State};
use crate::model::{Numbers, Template};

/// The maximum size of a state in bytes: more memory than any machine has, and supported by every file system.
const MAX_STATE_SIZE: u64 = 1 << 40;

impl Decoder<'_> {
    pub(super) fn process(
        &mut self,
        (scope, files): (&Scope<'_>, &Entries),
        span: &Range<usize>,
        table: &DeTable<'_>,
        words: Option<Words<'_>>,
    ) -> Process {
        let (credentials, user) = self.credentials(table);
        let listen = self.sockets(table, &shared_scope(scope));
        let log = table.get("log").map(|value| self.log(value, scope)).unwrap_or_default();
        let (env, own_env) = self.env(table, scope, files, user.as_ref());
        let scope_with_env = scope.with_env(&env);
        let command = match words {
            Some(words) => self.words(words, &scope_with_env),
            None => self.command(span, table, &scope_with_env),
        };
        let process = Process {
            cwd: table
                .get("cwd")
                .and_then(|value| self.absolute_path(value, scope, "remove `cwd` to use the directory of keepalive")),
            credentials,
            umask: table.get("umask").and_then(|value| self.octal(value, "such as `\"0022\"`")),
            env,
            own_env,
            env_files: self.start_env_files(table, scope),
            inherit_env: !self.boolean(table, "env_clear").unwrap_or(false),
            stdout: log.stdout.unwrap_or(self.default_output),
            stderr: log.stderr.unwrap_or(self.default_output),
            log_files: log.files,
            limits: table.get("limits").map_or_else(Box::default, |value| self.limits(value)),
            nice: self.integer(table, "nice", -20..=19).and_then(|nice| i8::try_from(nice).ok()),
            oom_score_adj: self.integer(table, "oom_score_adj", -1000..=1000).and_then(|adj| i16::try_from(adj).ok()),
            no_new_privs: self.boolean(table, "no_new_privs").unwrap_or(false),
            listen_mode: self.listen_mode(table, &listen),
            listen_fds: self.listen_fds(table),
            fd_store: self.fd_store(table, scope.sockets.len()),
            listen,
            state: table.get("state").and_then(|value| self.state(value, scope)),
            ipc: self.boolean(table, "ipc").unwrap_or(false),
            ..Process::new(command)
        };
        let program = table.get("command").map_or(span.clone(), Value::span);
        self.inspect(&process, words.and_then(|words| words.first()).map_or(program, |(_, span)| span.clone()), table);
        self.hint_at_sockets(&process, table);
        process
    }

    fn command(&mut self, span: &Range<usize>, table: &DeTable<'_>, scope: &Scope<'_>) -> Box<[Template]> {
        let Some(value) = table.get("command") else {
            let is_misspelt = table.keys().any(|key| service::SCHEMA.meant_by(key.get_ref()) == Some("command"));
            if !self.has_syntax_errors && !is_misspelt {
                let message = format!("service `{}` has no `command`", scope.service);
                self.error(span.clone(), message, "such as `command = [\"node\", \"server.js\"]`");
            }
            return Box::default();
        };
        self.command_of(value, scope).unwrap_or_default()
    }

    /// A program and its arguments.
    pub(super) fn command_of(&mut self, value: &Value<'_>, scope: &Scope<'_>) -> Option<Box<[Template]>> {
        const HINT: &str = "such as `[\"node\", \"server.js\"]` or `\"node server.js\"`";
        let (command, is_empty) = if let Some(text) = value.get_ref().as_str() {
            // A string of only blanks and comments has no words.
            let words = shlex::bytes::split(&shell::join_lines(text.as_bytes()));
            (self.split(value, text, scope), words.is_some_and(|words| words.is_empty()))
        } else if let Some(words) = value.get_ref().as_array() {
            let words = words.iter();
            let program = words.clone().next().and_then(|program| program.get_ref().as_str());
            self.leaves_to_shell = program.is_some_and(|program| shell::is_shell(program.as_bytes()));
            let templates = words.clone().filter_map(|word| {
                let text = self.string(word, "a string", "each element is one argument, in quotes")?;
                let template = self.template(word, text, scope)?;
                Some(self.as_written(template, text))
            });
            (templates.collect(), words.len() == 0)
        } else {
            self.unexpected(value, "an array of strings or a string", HINT);
            return None;
        };
        self.leaves_to_shell = false;
        if is_empty
            || matches!(command.first().map(Template::plain), Some(Template::Fixed(program)) if program.is_empty())
        {
            self.error(value.span(), "the command is empty", HINT);
        }
        Some(command.into())
    }

    /// The hooks of a service that is complete except for them.
    pub(super) fn hooks(&mut self, table: &DeTable<'_>, scope: &Scope<'_>, service: &Service) -> Hooks {
        let mut hooks = Hooks::default();
        for (hook, command) in Hook::ALL.into_iter().zip(&mut hooks.commands) {
            if let Some(value) = table.get(hook.as_str()) {
                *command = self.command_of(value, scope).unwrap_or_default();
                self.inspect_program(&service.process, command, value.span());
            }
        }
        hooks.timeout = self.positive_duration(table, "hook_timeout").unwrap_or(hooks.timeout);
        hooks
    }

    /// Splits a command in one string as a shell does, then expands each word, so that expanded values are not split.
    fn split(&mut self, value: &Value<'_>, text: &str, scope: &Scope<'_>) -> Vec<Template> {
        let Some(words) = shlex::bytes::split(&shell::join_lines(text.as_bytes())) else {
            self.error(
                value.span(),
                "missing closing quote, or a backslash at the end",
                "close it, or write an array with one element for each argument",
            );
            return Vec::new();
        };
        for ShellSyntax { at, message, hint } in shell::shell_syntax(text.as_bytes(), &words) {
            self.warning(self.span_of_part(value, &at), message, hint);
        }
        self.leaves_to_shell = words.first().is_some_and(|program| shell::is_shell(program));
        words
            .iter()
            .filter_map(|word| {
                let mut builder = Builder::default();
                // The position of the word in the text, if it is there without quotes or escapes.
                let found = text.as_bytes().windows(word.len().max(1)).position(|part| part == word.as_slice());
                let shown = String::from_utf8_lossy(word);
                self.warn_of_specifiers(value, &shown, found);
                if let Err(mut error) = expand(word, scope, &mut builder) {
                    error.at = found.map_or(0..text.len(), |offset| error.at.start + offset..error.at.end + offset);
                    self.expand_error(value, error);
                    return None;
                }
                let template = self.finished(builder, value.span())?;
                Some(self.as_written(template, &shown))
            })
            .collect()
    }

    /// `template`, which is shown as the text that it comes from if that has variables.
    #[inline(never)]
    pub(super) fn as_written(&self, template: Template, text: &str) -> Template {
        if !self.expands_variables || !text.contains("${") {
            return template;
        }
        Template::Expanded { text: Box::new(template), written: text.into() }
    }

    /// Expands the placeholders in the words of a command line. The shell has already expanded variables.
    fn words(&mut self, words: Words<'_>, scope: &Scope<'_>) -> Box<[Template]> {
        if let Some((_, span)) = words.first().filter(|(program, _)| program.is_empty()) {
            self.error(span.clone(), "the command is empty", "such as `node server.js`");
        }
        let words = words.iter().filter_map(|(word, span)| {
            let mut builder = Builder::default();
            match expand(word, scope, &mut builder) {
                Ok(()) => self.finished(builder, span.clone()),
                Err(error) => {
                    self.error(span.clone(), error.message, error.hint);
                    None
                }
            }
        });
        words.collect()
    }

    pub(super) fn template(&mut self, value: &Value<'_>, text: &str, scope: &Scope<'_>) -> Option<Template> {
        self.template_after(b"", value, text, scope)
    }

    pub(super) fn template_after(
        &mut self,
        prefix: &[u8],
        value: &Value<'_>,
        text: &str,
        scope: &Scope<'_>,
    ) -> Option<Template> {
        let builder = self.expanded_after(prefix, value, text, scope)?;
        self.finished(builder, value.span())
    }

    /// Expands `text` to a template that is not finished yet.
    pub(super) fn expanded(&mut self, value: &Value<'_>, text: &str, scope: &Scope<'_>) -> Option<Builder> {
        self.expanded_after(b"", value, text, scope)
    }

    fn expanded_after(&mut self, prefix: &[u8], value: &Value<'_>, text: &str, scope: &Scope<'_>) -> Option<Builder> {
        self.warn_of_specifiers(value, text, Some(0));
        let mut builder = Builder::starting_with(prefix);
        match expand(text.as_bytes(), scope, &mut builder) {
            Ok(()) => Some(builder),
            Err(error) => {
                self.expand_error(value, error);
                None
            }
        }
    }

    pub(super) fn finished(&mut self, builder: Builder, span: Range<usize>) -> Option<Template> {
        let template = builder.finish();
        if template.is_none() {
            self.error(span, "a NUL byte cannot be passed to a program", "remove it");
        }
        template
    }

    /// A path. A relative path is made absolute with the directory of the document.
    pub(super) fn absolute_path(&mut self, value: &Value<'_>, scope: &Scope<'_>, if_empty: &str) -> Option<Template> {
        self.path_in(None, value, scope, if_empty)
    }

    /// As [`Self::absolute_path`], with another directory for a relative path.
    pub(super) fn path_in(
        &mut self,
        directory: Option<Vec<u8>>,
        value: &Value<'_>,
        scope: &Scope<'_>,
        if_empty: &str,
    ) -> Option<Template> {
        let text = self.string(value, "a path", "such as `\"/app\"`")?;
        let mut builder = self.expanded(value, text, scope)?;
        let first_piece = builder.first_piece();
        if text.is_empty() {
            self.error(value.span(), "the path is empty", if_empty);
            return None;
        } else if first_piece.first() != Some(&b'/') {
            let base = || self.environment.directory.join(self.directory).into_os_string().into_vec();
            let mut path = directory.unwrap_or_else(base);
            if path.last() != Some(&b'/') {
                path.push(b'/');
            }
            let rest = first_piece.strip_prefix(b"./").unwrap_or(first_piece);
            path.extend_from_slice(if rest == b"." { b"" } else { rest });
            *first_piece = path;
        }
        let path = self.finished(builder, value.span())?;
        Some(self.as_written(path, text))
    }

    /// Permission bits in octal notation.
    pub(super) fn octal(&mut self, value: &Value<'_>, example: &str) -> Option<u32> {
        let value = &*self.resolved(value)?;
        let text = value.get_ref().as_str().unwrap_or_default();
        let is_octal = (1..=4).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
        let bits = u32::from_str_radix(text, 8).ok().filter(|bits| is_octal && *bits <= 0o777);
        if bits.is_none() {
            self.unexpected(value, "an octal number up to 0777, in quotes", example);
        }
        bits
    }

    fn state(&mut self, value: &Value<'_>, scope: &Scope<'_>) -> Option<State> {
        const SCHEMA: Schema = Schema { keys: &["size", "persist"], later: &[], foreign: "persist: file path" };
        let table = self.table(value, "such as `{ size = \"1MiB\" }`")?;
        self.check_keys(table, "`state`", &SCHEMA);
        let Some(size) = table.get("size") else {
            self.error(value.span(), "`state` has no `size`", "such as `size = \"1MiB\"`");
            return None;
        };
        let bytes = self.size_of(size)?;
        if !(1..=MAX_STATE_SIZE).contains(&bytes) {
            self.unexpected(size, "a size from 1 byte to 1 TiB", "");
        }
        let persist = table.get("persist").and_then(|value| {
            let path = self.absolute_path(value, scope, "remove `persist` to keep it in memory")?;
            self.require_unique(
                UniqueResource::File(self.written(value, path.expand(Numbers::SINGLE).to_string_lossy().into_owned())),
                value.span(),
            );
            Some(path)
        });
        Some(State { size: bytes, persist })
    }
}

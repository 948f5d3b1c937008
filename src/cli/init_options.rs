//! The options of `keepalive [OPTIONS] -- CMD`.

use std::ffi::OsString;

use lexopt::Parser;

use super::definitions::PROGRAM;
use super::usage_error::UsageError;
use super::words::{command_line, text, unknown_option};
use crate::config::nearest_signal;
use crate::init::Options;
use crate::model::units::{MAX_DURATION, exceeds_max_duration, meant_duration, parse_duration};
use crate::model::{ExitStatus, Signal};

/// The options that have been parsed so far.
#[derive(Debug, Default)]
pub(super) struct InitOptions {
    pub(super) options: Options,
    /// The name of the first option, for error messages.
    first_name: Option<String>,
}

impl InitOptions {
    pub(super) fn set(&mut self, name: &str, parser: &mut Parser) -> Result<(), UsageError> {
        match name {
            "-g" | "--group" => self.options.group = true,
            "-w" | "--warn-on-reap" => self.options.warn_on_reap = true,
            "-v" | "--verbose" => self.options.verbosity = self.options.verbosity.saturating_add(1),
            "-r" | "--rewrite" => self.options.rewrite.push(rewrite(name, &text(name, parser)?)?),
            "-e" | "--remap-exit" => self.options.remap_exit.insert(exit_code(name, &text(name, parser)?)?),
            "-p" | "--parent-death-signal" => {
                self.options.parent_death_signal = Some(signal(name, &text(name, parser)?)?);
            }
            "--grace" => self.options.grace = Some(duration(name, &text(name, parser)?)?),
            "--linger" => self.options.linger = Some(duration(name, &text(name, parser)?)?),
            _ => return Err(unknown_option("", name, &PROGRAM.option_names())),
        }
        self.first_name.get_or_insert_with(|| name.to_owned());
        Ok(())
    }

    /// Fails if an option was given, because `other` takes no options of init mode.
    pub(super) fn refuse_with(&self, other: &str) -> Result<(), UsageError> {
        match &self.first_name {
            None => Ok(()),
            Some(name) => Err(UsageError::new(
                format!("`{name}` is an option of init mode and cannot be used with `{other}`"),
                "keepalive [OPTIONS] -- CMD [ARG…]",
            )),
        }
    }

    /// Fails if an option was given, because there is no command.
    pub(super) fn refuse_without_command(&self, before: &[OsString]) -> Result<(), UsageError> {
        match &self.first_name {
            None => Ok(()),
            Some(name) => Err(UsageError::new(
                format!("`{name}` needs a command after `--`"),
                format!("{} -- CMD [ARG…]", command_line("keepalive", before)),
            )),
        }
    }
}

fn rewrite(name: &str, text: &str) -> Result<(Signal, Option<Signal>), UsageError> {
    let Some((from, to)) = text.split_once(':') else {
        return Err(UsageError::new(
            format!("`{name}` needs two signals, found `{text}`"),
            format!("such as {name} TERM:QUIT, or {name} HUP:0 to drop it"),
        ));
    };
    let from = signal(name, from)?;
    if !from.is_catchable() {
        return Err(UsageError::new(format!("{from} cannot be rewritten: no process can catch it"), ""));
    }
    let to = if to == "0" { None } else { Some(signal(name, to)?) };
    Ok((from, to))
}

pub(super) fn signal(name: &str, text: &str) -> Result<Signal, UsageError> {
    Signal::parse(text).ok_or_else(|| {
        let hint = nearest_signal(text)
            .unwrap_or_else(|| "such as TERM, SIGTERM, 15 or RTMIN+3; `kill -l` lists them".to_owned());
        UsageError::new(format!("`{name}` needs a signal, found `{text}`"), hint)
    })
}

fn exit_code(name: &str, text: &str) -> Result<ExitStatus, UsageError> {
    text.parse().map(ExitStatus::Code).map_err(|_| {
        UsageError::new(
            format!("`{name}` needs an exit code from 0 to 255, found `{text}`"),
            format!("such as {name} 143"),
        )
    })
}

pub(super) fn duration(name: &str, text: &str) -> Result<std::time::Duration, UsageError> {
    parse_duration(text).ok_or_else(|| {
        if exceeds_max_duration(text) {
            let hint = format!("the maximum is {MAX_DURATION}");
            return UsageError::new(format!("`{name}` is too long: `{text}`"), hint);
        }
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let hint = match meant_duration(text) {
            _ if is_number => format!("add a unit: {name}={text}s"),
            Some(meant) => format!("write {name}={meant}"),
            None if name == "--since" => "such as --since 10m or --since 2026-11-21T08:00:00Z".to_owned(),
            None => format!("such as {name}=5s"),
        };
        UsageError::new(format!("`{name}` needs a duration, found `{text}`"), hint)
    })
}

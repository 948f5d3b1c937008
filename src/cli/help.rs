//! The texts of `--help`.

use std::fmt::Write as _;

use super::definitions::{self, Definition, Opt};

const INTRODUCTION: &str = "\
keepalive: container init and supervisor

Run one command, as a tiny init does (reaps zombies, forwards signals, returns the exit code):
  keepalive [OPTIONS] -- CMD [ARG…]

Run a set of services from keepalive.toml, started in order, restarted, stopped in order:
  keepalive [-c FILE]
  keepalive -c FILE -- CMD [ARG…]     and CMD with them: when it exits, keepalive shuts down

Commands (each has its own --help):
";

pub(super) const CONCLUSION: &str = "
The configuration is the first of: -c FILE, $KEEPALIVE_CONFIG, ./keepalive.toml,
/etc/keepalive/keepalive.toml, /etc/keepalive.toml. For example:

  [services.db]
  command = [\"postgres\", \"-D\", \"/data\"]

  [services.web]
  command = \"node server.js --port 300{instance}\"
  instances = 2
  depends_on = [\"db\"]

Log messages go to stderr; KEEPALIVE_LOG=debug (info, warn, error, off) sets the level.
Commands talk to the keepalive at --socket PATH, that runs -c FILE, at $KEEPALIVE_SOCKET, that runs the
configuration of the current directory, or that is PID 1.
Exit codes: that of the process that ended it, 128+N if signal N killed it; 0 after an orderly shutdown;
2 wrong usage; 70 a bug; 71 system error; 78 invalid configuration; 126 not executable; 127 not found.
Exit codes of commands to a running keepalive: 0 done; 1 refused or not ready; 2 wrong usage; 3 no response.
";

/// Width of the first column of the table of commands, in characters.
const COMMAND_WIDTH: usize = 42;

/// `keepalive --help`.
pub(super) fn general() -> String {
    let mut text = INTRODUCTION.to_owned();
    for definition in definitions::commands() {
        let form = definition.forms.last().map_or("", |(form, _)| form);
        push_line(&mut text, form, COMMAND_WIDTH, definition.summary);
    }
    push_options(&mut text, &definitions::PROGRAM);
    text.push_str(CONCLUSION);
    text
}

/// `keepalive NAME --help`; empty if there is no such command.
pub(super) fn for_command_name(name: &str) -> String {
    Definition::find_command(name).map(for_command).unwrap_or_default()
}

/// `keepalive NAME --help`.
pub(super) fn for_command(definition: &Definition) -> String {
    let mut text = format!("keepalive {}: {}\n\n", definition.name, definition.summary);
    let width = definition.forms.iter().map(|(form, _)| form.chars().count()).max().unwrap_or(0) + 2;
    for (form, meaning) in definition.forms {
        push_line(&mut text, form, width, meaning);
    }
    push_options(&mut text, definition);
    if !definition.text.is_empty() {
        text.push('\n');
        text.push_str(definition.text);
    }
    text
}

fn push_options(text: &mut String, definition: &Definition) {
    // Writing to a String cannot fail.
    let _ = write!(text, "\n{}\n", definition.options_title);
    let width = definition.options().iter().map(|option| option_usage(option).chars().count()).max().unwrap_or(0) + 2;
    for option in definition.options() {
        push_line(text, &option_usage(option), width, option.help);
    }
}

fn push_line(text: &mut String, left: &str, width: usize, right: &str) {
    let length = left.chars().count();
    let padding = if length < width { " ".repeat(width - length) } else { format!("\n  {}", " ".repeat(width)) };
    let line = format!("  {left}{padding}{right}");
    text.push_str(line.trim_end());
    text.push('\n');
}

/// `-n, --lines LINES`
fn option_usage(option: &Opt) -> String {
    let names = match (option.short, option.long) {
        ("", long) => format!("    {long}"),
        (short, "") => short.to_owned(),
        (short, long) => format!("{short}, {long}"),
    };
    format!("{names} {}", option.value).trim_end().to_owned()
}

//! Completion scripts for shells, generated from [`super::definitions`].
//!
//! Each script is a template (`template.bash` and so on) whose placeholders are replaced.

use std::fmt::Write as _;

use super::definitions::{Definition, Opt, PROGRAM, SHELLS, Values, commands};
use crate::model::Signal;

/// The number of standard signals, which come before the real-time signals.
const STANDARD_SIGNALS: usize = 31;

/// The script for bash.
pub(super) fn bash() -> String {
    let mut values = String::new();
    let mut options = String::new();
    let mut operands = String::new();
    for definition in std::iter::once(&PROGRAM).chain(commands()) {
        for option in definition.options().into_iter().filter(|option| !option.value.is_empty()) {
            let names: Vec<String> =
                option.names().iter().map(|name| format!("'{} {name}'", definition.name)).collect();
            // Writing to a String cannot fail.
            let _ = writeln!(values, "        {}) {} ;;", names.join(" | "), bash_completion(option.values));
        }
        let names: Vec<&str> = definition.options().into_iter().flat_map(Opt::names).collect();
        let _ = writeln!(options, "        '{}') _keepalive_words '{}' ;;", definition.name, names.join(" "));
        for (values, position) in definition.positioned_operands() {
            let position = position.map_or_else(|| "*".to_owned(), |position| position.to_string());
            let _ = writeln!(operands, "        '{} '{position}) {} ;;", definition.name, bash_completion(values));
        }
    }
    fill_template(
        include_str!("template.bash"),
        &[("@VALUES@", &values), ("@OPTIONS@", &options), ("@OPERANDS@", &operands)],
    )
}

fn bash_completion(values: Values) -> String {
    match values {
        Values::Nothing => ":".to_owned(),
        Values::Files => "_keepalive_files".to_owned(),
        Values::Directories => "_keepalive_directories".to_owned(),
        Values::Users => "_keepalive_users".to_owned(),
        Values::Named(names) => format!("_keepalive_names {}", names.as_str()),
        Values::Signals | Values::Shells | Values::Commands | Values::Choice(_) => {
            format!("_keepalive_words '{}'", choices(values).join(" "))
        }
    }
}

/// The fixed words to choose from.
fn choices(values: Values) -> Vec<String> {
    let all = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    match values {
        Values::Signals => Signal::all().take(STANDARD_SIGNALS).map(|signal| signal.to_string()).collect(),
        Values::Shells => all(&SHELLS),
        Values::Commands => commands().map(|definition| definition.name.to_owned()).collect(),
        Values::Choice(words) => all(words),
        Values::Nothing | Values::Files | Values::Directories | Values::Users | Values::Named(_) => Vec::new(),
    }
}

/// The script for zsh.
pub(super) fn zsh() -> String {
    let mut names = String::new();
    let mut cases = String::new();
    for definition in commands() {
        let _ = writeln!(names, "        '{}:{}'", definition.name, escaped(definition.summary).replace(':', "\\:"));
        let _ = write!(cases, "      {}) _arguments -s", definition.name);
        for option in definition.options() {
            zsh_option(&mut cases, option);
        }
        for (values, position) in definition.positioned_operands() {
            let position = position.map_or_else(|| "*".to_owned(), |position| (position + 1).to_string());
            let _ = write!(cases, " '{position}:word:{}'", zsh_completion(values));
        }
        cases.push_str(" ;;\n");
    }
    let mut options = String::new();
    PROGRAM.options().into_iter().for_each(|option| zsh_option(&mut options, option));
    fill_template(
        include_str!("template.zsh"),
        &[("@COMMANDS@", &names), ("@CASES@", &cases), ("@OPTIONS@", options.trim())],
    )
}

fn zsh_option(text: &mut String, option: &Opt) {
    let help = escaped(option.help).replace('[', "\\[").replace(']', "\\]").replace(':', "\\:");
    for name in option.names() {
        let value = match (option.value, name.starts_with("--")) {
            ("", _) => String::new(),
            (value, true) => {
                format!("={help}:{value}:{}", zsh_completion(option.values), help = format_args!("[{help}]"))
            }
            (value, false) => format!("+[{help}]:{value}:{}", zsh_completion(option.values)),
        };
        let suffix = if option.value.is_empty() { format!("[{help}]") } else { value };
        let _ = write!(text, " '*{name}{suffix}'");
    }
}

fn zsh_completion(values: Values) -> String {
    match values {
        Values::Nothing => " ".to_owned(),
        Values::Files => "_files".to_owned(),
        Values::Directories => "_files -/".to_owned(),
        Values::Users => "_users".to_owned(),
        // The leading space makes _arguments call the function without adding its own options.
        Values::Named(names) => format!(" _keepalive_names {}", names.as_str()),
        Values::Signals | Values::Shells | Values::Commands | Values::Choice(_) => {
            format!("({})", choices(values).join(" "))
        }
    }
}

/// The script for fish.
pub(super) fn fish() -> String {
    let mut lines = String::new();
    let mut with_value = Vec::new();
    for definition in std::iter::once(&PROGRAM).chain(commands()) {
        let condition = match definition.name {
            "" => "__keepalive_has_no_command".to_owned(),
            name => {
                let summary = escaped(definition.summary);
                let _ = writeln!(lines, "complete -c keepalive -n __keepalive_has_no_command -a {name} -d '{summary}'");
                format!("__keepalive_has_command {name}")
            }
        };
        for option in definition.options() {
            fish_option(&mut lines, &condition, option);
            if !option.value.is_empty() {
                with_value.extend(option.names());
            }
        }
        fish_operands(&mut lines, definition);
    }
    with_value.sort_unstable();
    with_value.dedup();
    fill_template(include_str!("template.fish"), &[("@LINES@", &lines), ("@VALUED@", &with_value.join(" "))])
}

fn fish_option(lines: &mut String, condition: &str, option: &Opt) {
    let _ = write!(lines, "complete -c keepalive -n '{condition}'");
    if let Some(short) = option.short.strip_prefix('-') {
        let _ = write!(lines, " -s {short}");
    }
    if let Some(long) = option.long.strip_prefix("--") {
        let _ = write!(lines, " -l {long}");
    }
    if !option.value.is_empty() {
        let _ = write!(lines, " -r{}", fish_completion(option.values));
    }
    let _ = writeln!(lines, " -d '{}'", escaped(option.help));
}

fn fish_operands(lines: &mut String, definition: &Definition) {
    for (values, position) in definition.positioned_operands().filter(|_| !definition.name.is_empty()) {
        let position = position.map_or_else(|| "any".to_owned(), |position| position.to_string());
        let condition = format!("__keepalive_has_command {} {position}", definition.name);
        let _ = writeln!(lines, "complete -c keepalive -n '{condition}'{}", fish_completion(values));
    }
}

fn fish_completion(values: Values) -> String {
    match values {
        Values::Nothing => String::new(),
        Values::Files => " -F".to_owned(),
        Values::Directories => " -x -a '(__fish_complete_directories)'".to_owned(),
        Values::Users => " -x -a '(__fish_complete_users)'".to_owned(),
        Values::Named(names) => format!(" -x -a '(__keepalive_names {})'", names.as_str()),
        Values::Signals | Values::Shells | Values::Commands | Values::Choice(_) => {
            format!(" -x -a '{}'", choices(values).join(" "))
        }
    }
}

/// Replaces single quotes, so that `text` can stand between single quotes in all of these shells.
fn escaped(text: &str) -> String {
    text.replace('\'', "’")
}

fn fill_template(template: &str, placeholders: &[(&str, &str)]) -> String {
    placeholders.iter().fold(template.to_owned(), |text, (placeholder, content)| {
        text.replace(placeholder, content.trim_end_matches('\n'))
    })
}

#[cfg(test)]
mod tests;

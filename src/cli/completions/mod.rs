//! Scripts with which a shell completes the command line, made of [`super::definitions`].
//!
//! Each is a frame (`frame.bash` and so on) with a few marks in it that are replaced.

use std::fmt::Write as _;

use super::definitions::{Definition, Opt, PROGRAM, SHELLS, Values, commands};
use crate::model::Signal;

/// For bash.
pub(super) fn bash() -> String {
    let mut values = String::new();
    let mut options = String::new();
    let mut operands = String::new();
    for definition in std::iter::once(&PROGRAM).chain(commands()) {
        for option in definition.options().filter(|option| !option.value.is_empty()) {
            let names: Vec<String> = option.spellings().map(|name| format!("'{} {name}'", definition.name)).collect();
            // A String takes every write.
            let _ = writeln!(values, "        {}) {} ;;", names.join(" | "), in_bash(option.values));
        }
        let names: Vec<&str> = definition.options().flat_map(Opt::spellings).collect();
        let _ = writeln!(options, "        '{}') _keepalive_words '{}' ;;", definition.name, names.join(" "));
        for (values, position) in definition.words() {
            let position = position.map_or_else(|| "*".to_owned(), |position| position.to_string());
            let _ = writeln!(operands, "        '{} '{position}) {} ;;", definition.name, in_bash(values));
        }
    }
    filled(include_str!("frame.bash"), &[("@VALUES@", &values), ("@OPTIONS@", &options), ("@OPERANDS@", &operands)])
}

fn in_bash(values: Values) -> String {
    match values {
        Values::Nothing => ":".to_owned(),
        Values::Files => "_keepalive_files".to_owned(),
        Values::Directories => "_keepalive_directories".to_owned(),
        Values::Users => "_keepalive_users".to_owned(),
        Values::Named(names) => format!("_keepalive_names {}", names.as_str()),
        Values::Signals | Values::Shells | Values::Commands | Values::Choice(_) => {
            format!("_keepalive_words '{}'", words(values).join(" "))
        }
    }
}

/// What there is to choose from.
fn words(values: Values) -> Vec<String> {
    let all = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    match values {
        Values::Signals => Signal::all().take(31).map(|signal| signal.to_string()).collect(),
        Values::Shells => all(&SHELLS),
        Values::Commands => commands().map(|definition| definition.name.to_owned()).collect(),
        Values::Choice(words) => all(words),
        Values::Nothing | Values::Files | Values::Directories | Values::Users | Values::Named(_) => Vec::new(),
    }
}

/// For zsh.
pub(super) fn zsh() -> String {
    let mut names = String::new();
    let mut cases = String::new();
    for definition in commands() {
        let _ = writeln!(names, "        '{}:{}'", definition.name, quoted(definition.summary).replace(':', "\\:"));
        let _ = write!(cases, "      {}) _arguments -s", definition.name);
        for option in definition.options() {
            zsh_option(&mut cases, option);
        }
        for (values, position) in definition.words() {
            let position = position.map_or_else(|| "*".to_owned(), |position| (position + 1).to_string());
            let _ = write!(cases, " '{position}:word:{}'", in_zsh(values));
        }
        cases.push_str(" ;;\n");
    }
    let mut options = String::new();
    PROGRAM.options().for_each(|option| zsh_option(&mut options, option));
    filled(include_str!("frame.zsh"), &[("@COMMANDS@", &names), ("@CASES@", &cases), ("@OPTIONS@", options.trim())])
}

fn zsh_option(text: &mut String, option: &Opt) {
    let help = quoted(option.help).replace('[', "\\[").replace(']', "\\]").replace(':', "\\:");
    for name in option.spellings() {
        let value = match (option.value, name.starts_with("--")) {
            ("", _) => String::new(),
            (value, true) => format!("={help}:{value}:{}", in_zsh(option.values), help = format_args!("[{help}]")),
            (value, false) => format!("+[{help}]:{value}:{}", in_zsh(option.values)),
        };
        let shown = if option.value.is_empty() { format!("[{help}]") } else { value };
        let _ = write!(text, " '*{name}{shown}'");
    }
}

fn in_zsh(values: Values) -> String {
    match values {
        Values::Nothing => " ".to_owned(),
        Values::Files => "_files".to_owned(),
        Values::Directories => "_files -/".to_owned(),
        Values::Users => "_users".to_owned(),
        // With the blank zsh leaves the words as they are.
        Values::Named(names) => format!(" _keepalive_names {}", names.as_str()),
        Values::Signals | Values::Shells | Values::Commands | Values::Choice(_) => {
            format!("({})", words(values).join(" "))
        }
    }
}

/// For fish.
pub(super) fn fish() -> String {
    let mut lines = String::new();
    for definition in std::iter::once(&PROGRAM).chain(commands()) {
        let condition = match definition.name {
            "" => "__keepalive_has_no_command".to_owned(),
            name => {
                let summary = quoted(definition.summary);
                let _ = writeln!(lines, "complete -c keepalive -n __keepalive_has_no_command -a {name} -d '{summary}'");
                format!("__keepalive_has_command {name}")
            }
        };
        for option in definition.options() {
            fish_option(&mut lines, &condition, option);
        }
        fish_operands(&mut lines, definition);
    }
    let all = std::iter::once(&PROGRAM).chain(commands()).flat_map(Definition::options);
    let mut valued: Vec<&str> = all.filter(|option| !option.value.is_empty()).flat_map(Opt::spellings).collect();
    valued.sort_unstable();
    valued.dedup();
    filled(include_str!("frame.fish"), &[("@LINES@", &lines), ("@VALUED@", &valued.join(" "))])
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
        let _ = write!(lines, " -r{}", in_fish(option.values));
    }
    let _ = writeln!(lines, " -d '{}'", quoted(option.help));
}

fn fish_operands(lines: &mut String, definition: &Definition) {
    for (values, position) in definition.words().filter(|_| !definition.name.is_empty()) {
        let position = position.map_or_else(|| "any".to_owned(), |position| position.to_string());
        let condition = format!("__keepalive_has_command {} {position}", definition.name);
        let _ = writeln!(lines, "complete -c keepalive -n '{condition}'{}", in_fish(values));
    }
}

fn in_fish(values: Values) -> String {
    match values {
        Values::Nothing => String::new(),
        Values::Files => " -F".to_owned(),
        Values::Directories => " -x -a '(__fish_complete_directories)'".to_owned(),
        Values::Users => " -x -a '(__fish_complete_users)'".to_owned(),
        Values::Named(names) => format!(" -x -a '(__keepalive_names {})'", names.as_str()),
        Values::Signals | Values::Shells | Values::Commands | Values::Choice(_) => {
            format!(" -x -a '{}'", words(values).join(" "))
        }
    }
}

/// For within single quotes, in all of these shells.
fn quoted(text: &str) -> String {
    text.replace('\'', "’")
}

fn filled(frame: &str, marks: &[(&str, &str)]) -> String {
    marks.iter().fold(frame.to_owned(), |text, (mark, content)| text.replace(mark, content.trim_end_matches('\n')))
}

#[cfg(test)]
mod tests;

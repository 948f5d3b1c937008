//! Commands that run before, after or beside the program, as hooks and signals.

use super::command::{CommandLine, for_shell};
use crate::import::text::{Piece, Text};
use crate::import::words::name_length;
use crate::model::Signal;

/// Variables that systemd sets for these commands and keepalive does not, and what is said about each.
const OF_SYSTEMD: [(&str, &str); 4] = [
    ("MAINPID", ""),
    ("SERVICE_RESULT", ""),
    ("EXIT_CODE", "; a post_stop that is a shell script has `$KEEPALIVE_EXIT_CODE` or `$KEEPALIVE_EXIT_SIGNAL`"),
    ("EXIT_STATUS", "; a post_stop that is a shell script has `$KEEPALIVE_EXIT_CODE` or `$KEEPALIVE_EXIT_SIGNAL`"),
];

/// The signal that `command` sends to the main process, if that is all it does: `kill -s QUIT $MAINPID`.
pub(super) fn sent_signal(command: &CommandLine) -> Option<Signal> {
    let (target, words) = command.words.split_last()?;
    let is_main = matches!(target.0.as_slice(), [Piece::Variable(name, _)] if name == "MAINPID");
    let words: Vec<String> = words.iter().map(Text::fixed).collect::<Option<_>>()?;
    let words: Vec<&str> = words.iter().map(String::as_str).filter(|word| *word != "--").collect();
    let (program, options) = words.split_first()?;
    if !is_main || program.rsplit('/').next() != Some("kill") {
        return None;
    }
    match options {
        [] => Signal::parse("TERM"),
        ["-s" | "-n" | "--signal", name] => Signal::parse(name),
        [option] => Signal::parse(option.strip_prefix("--signal=").or_else(|| option.strip_prefix('-'))?),
        _ => None,
    }
}

/// A note for each variable in `commands` that only systemd sets. `key`: what they are the value of.
pub(super) fn missing_variables(key: &str, commands: &[CommandLine]) -> Vec<String> {
    let pieces: Vec<&Piece> =
        commands.iter().flat_map(|command| &command.words).flat_map(|word| word.0.as_slice()).collect();
    let uses = |name: &str| {
        pieces.iter().any(|piece| match piece {
            Piece::Variable(used, _) => used == name,
            Piece::Literal(text) => text.split('$').skip(1).any(|rest| {
                let rest = rest.trim_start_matches('{');
                rest.get(..name_length(rest)) == Some(name)
            }),
            Piece::Placeholder(_) => false,
        })
    };
    let used = OF_SYSTEMD.iter().filter(|(name, _)| uses(name));
    used.map(|(name, instead)| format!("{key}=: keepalive does not set `${name}`{instead}")).collect()
}

/// One command as it is, several as a script of a shell, of which the last one begins with `last`. A command whose failure
/// counts as success never ends the script.
pub(super) fn joined(commands: &[CommandLine], last: &str) -> Vec<Text> {
    if let [CommandLine { words, is_forgiven: false, .. }] = commands {
        return words.clone();
    }
    let mut script = Text::default();
    for (number, command) in commands.iter().enumerate() {
        let (before, after) = match (command.is_forgiven, number + 1 == commands.len()) {
            (true, true) if number == 0 => ("", " || true"),
            (true, _) => ("{ ", " || true; }"),
            (false, true) => (last, ""),
            (false, false) => ("", ""),
        };
        script.push_str(if number > 0 { " && " } else { "" });
        script.push_str(before);
        script.0.extend(for_shell(&command.words).0);
        script.push_str(after);
    }
    vec![Text::literal("sh"), Text::literal("-c"), script]
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::command::command_line;
    use super::super::specifiers::UnitName;
    use super::*;

    fn commands(lines: &[&str]) -> Vec<CommandLine> {
        let name = UnitName::of(Path::new("/etc/systemd/system/app.service"));
        lines.iter().map(|line| command_line(line, &name).unwrap()).collect()
    }

    #[test]
    fn only_a_failure_without_a_minus_sign_ends_the_script() {
        let script = |lines: &[&str]| -> Vec<String> {
            joined(&commands(lines), "exec ").iter().map(|word| word.fixed().unwrap()).collect()
        };
        assert_eq!(script(&["/bin/a b"]), ["/bin/a", "b"]);
        assert_eq!(script(&["-/bin/a b"]), ["sh", "-c", "/bin/a b || true"]);
        assert_eq!(script(&["a", "-b", "c"]), ["sh", "-c", "a && { b || true; } && exec c"]);
        assert_eq!(script(&["-a", "-b"]), ["sh", "-c", "{ a || true; } && { b || true; }"]);
    }

    #[test]
    fn a_signal_to_the_main_process_is_recognized() {
        for (line, expect) in [
            ("/bin/kill -s QUIT $MAINPID", Some("SIGQUIT")),
            ("kill -QUIT $MAINPID", Some("SIGQUIT")),
            ("-/usr/bin/kill -HUP ${MAINPID}", Some("SIGHUP")),
            ("/bin/kill --signal=SIGINT -- $MAINPID", Some("SIGINT")),
            ("/bin/kill $MAINPID", Some("SIGTERM")),
            ("/bin/kill -0 $MAINPID", None),
            ("/bin/kill -QUIT $OTHER", None),
            ("/bin/kill -QUIT x${MAINPID}", None),
            ("/usr/bin/pkill -QUIT $MAINPID", None),
            ("/bin/kill -s QUIT -v $MAINPID", None),
        ] {
            let signal = commands(&[line]).first().and_then(sent_signal).map(|signal| signal.to_string());
            assert_eq!(signal.as_deref(), expect, "{line}");
        }
    }

    #[test]
    fn a_variable_of_systemd_is_found_in_words_and_scripts() {
        let count = |line: &str| missing_variables("ExecStop", &commands(&[line])).len();
        assert_eq!(count("/bin/a $MAINPID"), 1);
        assert_eq!(count("/bin/a --pid=${MAINPID} ${EXIT_CODE}"), 2);
        assert_eq!(count("/bin/sh -c 'a \"$EXIT_STATUS\" $SERVICE_RESULT ${EXIT_CODE:-0}'"), 3);
        assert_eq!(count("/bin/a $MAINPIDS MAINPID ${PORT}"), 0);
    }
}

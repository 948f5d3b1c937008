//! Words of other programs, and what to write instead.

/// Commands of supervisorctl, PM2, Docker Compose, systemctl and Unix, each with a hint.
const COMMANDS: [(&[&str], &str); 13] = [
    (&["ls", "list", "ps", "jlist", "prettylist", "avail", "list-units"], "write `keepalive status`"),
    (&["desc", "show", "info", "inspect"], "write `keepalive describe NAME`"),
    (&["monit", "monitor", "stats"], "write `keepalive top`"),
    (&["tail", "log", "attach", "fg", "maintail"], "write `keepalive logs -f NAME`"),
    (&["kill"], "write `keepalive signal NAME SIGNAL`, or `keepalive shutdown` to stop everything"),
    (&["is-active", "is-failed", "ping"], "write `keepalive health [--ready] [NAME]`"),
    (&["sendSignal"], "write `keepalive signal NAME SIGNAL`"),
    (&["up", "create"], "write `keepalive -c FILE` to run the services of a file"),
    (&["down", "quit", "exit"], "write `keepalive shutdown`"),
    (
        &["update", "reread", "daemon-reload", "startOrReload", "startOrRestart", "gracefulReload"],
        "write `keepalive reload`",
    ),
    (&["add", "delete", "del", "rm", "remove"], "change keepalive.toml, then write `keepalive reload`"),
    (
        &["save", "dump", "resurrect", "enable", "disable"],
        "nothing to save: keepalive runs the services in keepalive.toml",
    ),
    (&["startup", "unstartup"], "let the container or systemd start `keepalive -c FILE`"),
];

/// Options of other programs: the command, the option, and a hint.
const OPTIONS: [(&str, &str, &str); 8] = [
    ("logs", "--tail", "write `-n LINES`"),
    ("logs", "--nostream", "remove it: without `-f` the command ends by itself"),
    ("logs", "--raw", "remove it, or write `--json`"),
    ("logs", "-u", "write the name alone: `keepalive logs NAME`"),
    ("start", "-i", "write `keepalive run -i N -- CMD`"),
    ("stop", "-t", "write `--timeout DURATION`"),
    ("stop", "--time", "write `--timeout DURATION`"),
    ("restart", "--update-env", "change keepalive.toml, then write `keepalive reload`"),
];

/// What to write instead of the command `word`.
pub(super) fn command_hint(word: &str) -> Option<&'static str> {
    COMMANDS.iter().find(|(words, _)| words.contains(&word)).map(|(_, hint)| *hint)
}

/// What to write instead of the option `name` of `command`.
pub(super) fn option_hint(command: &str, name: &str) -> Option<&'static str> {
    OPTIONS.iter().find(|(of, option, _)| (*of, *option) == (command, name)).map(|(.., hint)| *hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::definitions::{Definition, commands};

    #[test]
    fn a_foreign_word_is_none_of_ours_and_its_hint_names_a_command() {
        for word in COMMANDS.iter().flat_map(|(words, _)| *words) {
            assert!(Definition::find_command(word).is_none(), "{word}");
        }
        for (command, option, _) in OPTIONS {
            let definition = Definition::find_command(command).unwrap();
            assert!(!definition.option_names().contains(&option), "{command} {option}");
        }
        let named =
            |hint: &str| hint.split("`keepalive ").nth(1).map(|rest| rest.split([' ', '`']).next().unwrap().to_owned());
        for name in COMMANDS.iter().filter_map(|(_, hint)| named(hint)).filter(|name| name != "-c") {
            assert!(commands().any(|definition| definition.name == name), "{name}");
        }
    }
}

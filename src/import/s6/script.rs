//! What a run script executes.

use crate::config::needs_shell;
use crate::import::text::Text;
use crate::import::words;

/// A command with what its script sets before it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Script {
    pub(super) words: Vec<Text>,
    pub(super) user: Option<String>,
    pub(super) cwd: Option<String>,
    /// Whether execline must be installed.
    pub(super) needs_execline: bool,
}

/// Executes the program of the script `text` itself where it does nothing else, otherwise the script, which is at `path`.
pub(super) fn command_of(text: &str, path: &str) -> Script {
    let first = text.lines().next().unwrap_or_default();
    let interpreter: Vec<&str> = first.strip_prefix("#!").unwrap_or_default().split_whitespace().collect();
    let is_execline = interpreter.iter().any(|word| word.ends_with("execlineb"));
    let simple = if is_execline { of_execline(text) } else { of_shell(text) };
    if let Some(script) = simple {
        return script;
    }
    // with-contenv is what keepalive does anyway.
    let words = interpreter.iter().filter(|word| !word.ends_with("with-contenv") && !word.ends_with("/env"));
    let mut words: Vec<Text> = words.map(|word| Text::literal(word.trim_start_matches("/command/"))).collect();
    words.push(Text::literal(path));
    Script { words, needs_execline: is_execline, ..Script::default() }
}

/// The command line of an `up` file, which is execline.
pub(super) fn command_of_up(text: &str) -> Script {
    of_execline(text).unwrap_or_else(|| Script {
        words: ["execlineb", "-Pc", text.trim()].map(Text::literal).to_vec(),
        needs_execline: true,
        ..Script::default()
    })
}

/// One `exec` line, perhaps after `cd`.
fn of_shell(text: &str) -> Option<Script> {
    let joined = text.replace("\\\n", " ");
    let mut script = Script::default();
    for line in joined.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let is_nothing = line.starts_with("set -") || matches!(line, "exec 2>&1" | "exec 2>& 1");
        if is_nothing {
            continue;
        }
        if !script.words.is_empty() {
            return None;
        }
        if let Some(directory) = line.strip_prefix("cd ").filter(|line| !line.contains([' ', '$', ';', '&', '|'])) {
            script.cwd = Some(directory.to_owned());
            continue;
        }
        let command = line.strip_prefix("exec ")?.trim_end_matches("2>&1").trim();
        if needs_shell(command) || command.contains('$') {
            return None;
        }
        script.words = words::split(&Text::literal(command))?;
    }
    without_chain(script)
}

/// Words without blocks and variables.
fn of_execline(text: &str) -> Option<Script> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let text = lines.collect::<Vec<_>>().join("\n");
    if text.contains(['{', '}', '$']) {
        return None;
    }
    let script = Script { words: words::split(&Text::literal(text))?, ..Script::default() };
    without_chain(script)
}

/// Removes the programs that only set something before they execute the rest; `None`: there is one that is not known.
fn without_chain(mut script: Script) -> Option<Script> {
    loop {
        let words: Vec<String> = script.words.iter().take(4).map(|word| word.fixed().unwrap_or_default()).collect();
        let words: Vec<&str> = words.iter().map(|word| word.trim_start_matches("/command/")).collect();
        let count = match words.as_slice() {
            ["with-contenv" | "/usr/bin/with-contenv", ..] => 1,
            ["s6-setuidgid", user, ..] => {
                script.user = Some((*user).to_owned());
                2
            }
            ["chpst", "-u", user, ..] => {
                script.user = Some((*user).to_owned());
                3
            }
            ["fdmove", "-c", "2", "1", ..] => 4,
            ["cd" | "s6-cd", directory, ..] => {
                script.cwd = Some((*directory).to_owned());
                2
            }
            [
                "foreground" | "if" | "ifelse" | "backtick" | "importas" | "define" | "s6-envdir" | "envdir" | "chpst"
                | "s6-notifyoncheck" | "redirfd" | "pipeline" | "s6-softlimit" | "emptyenv" | "export" | "unexport",
                ..,
            ] => return None,
            _ => break,
        };
        script.words.drain(..count.min(script.words.len()));
    }
    if script.words.is_empty() { None } else { Some(script) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, words: &[&str], user: Option<&str>, cwd: Option<&str>) {
        let script = command_of(text, "/etc/web/run");
        assert_eq!(script.words.iter().map(Text::written).collect::<Vec<_>>(), words, "{text}");
        assert_eq!((script.user.as_deref(), script.cwd.as_deref()), (user, cwd), "{text}");
    }

    #[test]
    fn a_script_that_only_executes_a_program_is_that_program() {
        check("#!/bin/sh\n# c\nexec 2>&1\nexec nginx -g 'daemon off;'\n", &["nginx", "-g", "daemon off;"], None, None);
        let text = "#!/command/with-contenv bash\nset -e\ncd /srv\nexec s6-setuidgid www node \\\n  server.js\n";
        check(text, &["node", "server.js"], Some("www"), Some("/srv"));
        check("#!/bin/sh\nexec chpst -u app:app ./web 2>&1\n", &["./web"], Some("app:app"), None);
        let text = "#!/command/execlineb -P\nwith-contenv\ns6-setuidgid www\nfdmove -c 2 1\nweb --port 80\n";
        check(text, &["web", "--port", "80"], Some("www"), None);
        check("#!/bin/sh\nmkdir -p /x\nexec web\n", &["/bin/sh", "/etc/web/run"], None, None);
        check("#!/usr/bin/with-contenv bash\nexec web $PORT\n", &["bash", "/etc/web/run"], None, None);
        let text = "#!/command/execlineb -P\nforeground { echo }\nweb\n";
        check(text, &["execlineb", "-P", "/etc/web/run"], None, None);
    }
}

//! Words of other programs, and what to write instead.

use crate::config::look_up;

/// Words of supervisorctl, PM2, Docker, Docker Compose, systemctl, systemd-run and Unix, a line each: the commands that they
/// are options of (`*`: all; `command`: they are commands themselves), the words, the hint.
const WORDS: &str = concat!(
    "command: ls list ps jlist prettylist list-units: write `keepalive status`\n",
    "command: desc show info inspect: write `keepalive describe NAME`\n",
    "command: monit monitor stats: write `keepalive top`\n",
    "command: tail log attach fg maintail: write `keepalive logs -f NAME`\n",
    "command: kill: write `keepalive signal NAME SIGNAL`, or `keepalive shutdown` to stop everything\n",
    "command: is-active is-failed ping wait: write `keepalive health [--ready] [NAME]`\n",
    "command: sendSignal: write `keepalive signal NAME SIGNAL`\n",
    "command: up create: write `keepalive -c FILE` to run the services of a file\n",
    "command: down quit exit halt poweroff: write `keepalive shutdown`\n",
    "command: version: write `keepalive --version`\n",
    "command: reread avail verify config configtest validate test lint: write `keepalive check`\n",
    "command: env printenv: write `keepalive exec NAME -- env`\n",
    "command: cat list-dependencies: write `keepalive check`, or `keepalive describe NAME`\n",
    "command: pid id: write `keepalive status --json NAME`\n",
    "command: is-enabled: write `keepalive check`, which shows `autostart`\n",
    "command: pause unpause: write `keepalive signal NAME STOP`, and `CONT` to continue\n",
    "command: init ecosystem: write keepalive.toml: `[services.NAME]` with `command` for each program\n",
    "command: journalctl: write `keepalive logs [-f] [--since TIME] NAME`, or `keepalive events`\n",
    "command: reset reset-failed: write `keepalive restart NAME`, which forgets earlier failures\n",
    "command: flush clear reloadLogs: nothing to do: logs have a limit, and a file that was renamed is made again\n",
    "command: try-restart condrestart reload-or-restart: write `keepalive restart NAME` or `keepalive reload NAME`\n",
    "command: mask unmask: write `autostart = false` in keepalive.toml\n",
    "command: deploy update daemon-reload startOrReload startOrRestart gracefulReload: write `keepalive reload`\n",
    "command: add delete del rm remove: change keepalive.toml, then write `keepalive reload`\n",
    "command: save dump resurrect enable disable: nothing to save: keepalive runs the services in keepalive.toml\n",
    "command: startup unstartup: let the container or systemd start `keepalive -c FILE`\n",
    "run: --ignore-watch: write it in a file, for `keepalive -c FILE`\n",
    "run: --max-memory-restart: write `max_memory = \"512MiB\"` in keepalive.toml\n",
    "run: --cron --cron-restart --on-calendar: write a keepalive.toml with `schedule` or `restart_schedule`\n",
    "run: -d --detach --daemon --no-daemon --nodaemon -n --attach --wait: remove it: keepalive stays in the foreground\n",
    "run: --time --timestamp: write `keepalive logs -t`\n",
    "run: --unit: write `--name NAME`\n",
    "run: -u: write `--user USER`, or `--name NAME` for the name of a unit\n",
    "run: --property: write the option of the same meaning\n",
    "run: -p --publish: remove it: a container publishes ports, as with `docker run -p`\n",
    "run: -e -E --setenv: write `--env NAME=VALUE`\n",
    "run: --uid: write `--user USER`\n",
    "run: --working-directory --workdir: write `--cwd DIR`\n",
    "run: --no-autorestart: write `--restart never`\n",
    "run: --kill-timeout: write `--stop-timeout DURATION`\n",
    "run: --listen-timeout --output --error --depends-on --type: write it in a file, for `keepalive -c FILE`\n",
    "run: --memory -m: limit the memory of the container\n",
    "run: -v --volume: remove it: a container mounts volumes, as with `docker run -v`\n",
    "run: -w: write `--cwd DIR`\n",
    "run: --wait-ready: write `--ready ipc`\n",
    "logs: --tail: write `-n LINES`\n",
    "logs: --nostream: remove it: without `-f` the command ends by itself\n",
    "logs: -o --output --format: write `--json`\n",
    "logs: -e -r -b -p --reverse --boot --priority --until -k -x: no such option: write `-n LINES`, `--since TIME` or `--json`\n",
    "logs: --raw: remove it, or write `--json`\n",
    "logs: -u --unit: write the name alone: `keepalive logs NAME`\n",
    "logs: --err --out: with `--json` each line has its `stream`\n",
    "logs: --time --timestamp: write `-t`\n",
    "status: --watch: write `keepalive top`\n",
    "start: -i --instances --name --watch --no-daemon --attach: write `keepalive run [OPTIONS] -- CMD`\n",
    "stop restart: -t --time: write `--timeout DURATION`\n",
    "restart reload: --update-env: change keepalive.toml, then write `keepalive reload`\n",
    "start stop restart: -d --detach --no-block: remove it: the command returns when it is done\n",
    "exec: -i -t -u --user -e --env -w --workdir: remove it: the command has the terminal, and the rest of the service\n",
    "*: --format: write `--json`\n",
    "*: -H --host --serverurl -s: write `--socket PATH`\n",
    "*: -f --file: write `-c FILE`\n",
);

/// What to write instead of the command `word`.
pub(super) fn command_hint(word: &str) -> Option<&'static str> {
    option_hint("command", word)
}

/// What to write instead of the option `name` of `command`.
pub(super) fn option_hint(command: &str, name: &str) -> Option<&'static str> {
    look_up(WORDS, command, name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::definitions::{Definition, commands};

    #[test]
    fn a_foreign_word_is_none_of_ours_and_its_hint_names_a_command() {
        for line in WORDS.lines() {
            let [of, words, hint] = line.splitn(3, ": ").collect::<Vec<_>>()[..] else { panic!("{line}") };
            for (command, word) in of.split(' ').flat_map(|of| words.split(' ').map(move |word| (of, word))) {
                assert!(option_hint(if command == "*" { "events" } else { command }, word).is_some(), "{line}");
                match (Definition::find_command(command), command) {
                    (Some(definition), _) => {
                        let mut known = definition.options().into_iter().flat_map(|option| option.names());
                        assert!(known.all(|name| name != word), "{command} {word}");
                    }
                    (None, "command") => assert!(Definition::find_command(word).is_none(), "{word}"),
                    (None, _) => assert_eq!(command, "*", "{line}"),
                }
            }
            let named = hint.split("`keepalive ").nth(1).and_then(|rest| rest.split([' ', '`']).next());
            if let Some(name) = named.filter(|name| !name.starts_with('-')) {
                assert!(commands().any(|definition| definition.name == name), "{name}");
            }
        }
    }
}

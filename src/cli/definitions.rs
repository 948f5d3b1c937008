//! All commands and options as data. Help, completions and the manual page are generated from it, and client commands are
//! parsed with it.

use Values::{Choice, Commands, Directories, Files, Named, Nothing, Shells, Signals, Users};

pub(super) use super::option::{Opt, Values};
use super::option::{flag, option};
use crate::control::Names;

/// A command, or `keepalive` without a command.
#[derive(Debug)]
pub(super) struct Definition {
    /// The first word; empty for `keepalive` without a command.
    pub(super) name: &'static str,
    /// The forms of its usage, each with its meaning; the meaning is empty if there is only one form.
    pub(super) forms: &'static [(&'static str, &'static str)],
    /// One line that completes `keepalive NAME: …`.
    pub(super) summary: &'static str,
    /// The heading of the options.
    pub(super) options_title: &'static str,
    pub(super) options: &'static [&'static [Opt]],
    /// The values of its operands, by position; the last entry may be repeated.
    #[cfg_attr(not(feature = "tools"), expect(dead_code, reason = "completions are in keepalive-tools"))]
    pub(super) operands: &'static [Values],
    /// Paragraphs, separated by empty lines; lines that are indented by two spaces are examples.
    pub(super) text: &'static str,
}

/// The formats of `keepalive import`.
pub(crate) const IMPORT_FORMATS: [&str; 7] = ["compose", "pm2", "procfile", "runit", "s6", "supervisord", "systemd"];
pub(super) const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

const CONFIG: [Opt; 1] = [option("-c", "--config", "FILE", Files, "configuration file")];
const JSON: [Opt; 1] = [flag("", "--json", "print JSON")];
const HELP: [Opt; 1] = [flag("-h", "--help", "show this help")];
const FOLLOW: [Opt; 1] = [flag("-f", "--follow", "keep printing new entries as they come")];
/// Options of all commands for a running keepalive.
const CONNECTION: [Opt; 3] = [
    option("-c", "--config", "FILE", Files, "talk to the keepalive that runs this file"),
    option("", "--socket", "PATH", Files, "control socket of keepalive"),
    option("", "--timeout", "DURATION", Nothing, "maximum time to wait, such as 90s or 1m30s"),
];
const CLIENT: &[&[Opt]] = &[&JSON, &CONNECTION, &HELP];
const CHANGE: &[&[Opt]] = &[&[flag("-q", "--quiet", "print errors only")], &JSON, &CONNECTION, &HELP];

const INIT: [Opt; 9] = [
    flag("-g", "--group", "forward signals to the command's process group"),
    option("-r", "--rewrite", "FROM:TO", Nothing, "forward TO instead of FROM (TERM:QUIT), 0 to drop it; repeatable"),
    option("-e", "--remap-exit", "CODE", Nothing, "report exit code CODE as 0; repeatable"),
    option("-p", "--parent-death-signal", "SIG", Signals, "signal to receive when the parent process dies"),
    option(
        "",
        "--grace",
        "DURATION",
        Nothing,
        "send SIGKILL this long after SIGTERM, SIGINT or SIGQUIT (default: never)",
    ),
    option("", "--linger", "DURATION", Nothing, "stop leftover processes, and wait this long for them"),
    flag("-w", "--warn-on-reap", "log each orphaned process that is reaped"),
    flag("-v", "--verbose", "log more details"),
    flag("-V", "--version", "show the version"),
];

const RUN: [Opt; 19] = [
    option("", "--name", "NAME", Nothing, "name of the service (default: the program's name)"),
    option(
        "-i",
        "--instances",
        "N",
        Choice(&["cpus"]),
        "number of instances, or cpus; {instance} in CMD is its number",
    ),
    option(
        "",
        "--restart",
        "POLICY",
        Choice(&["always", "on-failure", "never"]),
        "always (default), on-failure or never",
    ),
    option("", "--restart-delay", "D", Nothing, "delay before every restart (0s)"),
    option("", "--min-uptime", "D", Nothing, "shorter runs are unstable (10s)"),
    option(
        "",
        "--max-restarts",
        "N",
        Choice(&["unlimited"]),
        "limit of consecutive unstable restarts (16), or unlimited",
    ),
    option(
        "",
        "--ready",
        "WHEN",
        Choice(&["exec", "notify", "ipc", "tcp=", "http=", "file=", "exec=", "fd=", "delay="]),
        "exec (default), notify, ipc, fd=, tcp=, http=, file=, exec=, delay=",
    ),
    option("", "--listen", "NAME=ADDRESS", Nothing, "listening socket, {fd.NAME} in CMD is its number; repeatable"),
    option(
        "",
        "--listen-fds",
        "BOOLEAN",
        Choice(&["true", "false"]),
        "announce sockets in LISTEN_FDS: true (default) or false",
    ),
    option("", "--cwd", "DIR", Directories, "working directory"),
    option("", "--user", "USER", Users, "user name or number"),
    option("", "--env", "NAME=VALUE", Nothing, "environment variable; repeatable"),
    option("", "--env-file", "FILE", Files, "file with environment variables; repeatable"),
    option("", "--stop-signal", "SIG", Signals, "signal that stops it (SIGTERM)"),
    option("", "--stop-timeout", "D", Nothing, "time to stop before SIGKILL (5s)"),
    option(
        "",
        "--on-failure",
        "WHAT",
        Choice(&["shutdown", "ignore"]),
        "when it has failed: shutdown (default) or ignore",
    ),
    option(
        "",
        "--on-success",
        "WHAT",
        Choice(&["ignore", "shutdown"]),
        "when it has completed: ignore (default) or shutdown",
    ),
    option(
        "",
        "--log",
        "MODE",
        Choice(&["raw", "prefix", "inherit", "null"]),
        "its output: raw, prefix (default on a terminal), inherit or null",
    ),
    option("", "--watch", "PATH", Files, "file or directory, restart when it changes; repeatable"),
];

const NAME: Values = Named(Names::All);

/// The fields that most commands share.
const COMMAND_DEFAULTS: Definition = Definition {
    name: "",
    forms: &[],
    summary: "",
    options_title: "Options:",
    options: CLIENT,
    operands: &[],
    text: "",
};

/// `keepalive` without a command.
pub(super) const PROGRAM: Definition = Definition {
    name: "",
    forms: &[
        ("keepalive [OPTIONS] -- CMD [ARG…]", "run one command, as a tiny init does"),
        ("keepalive [-c FILE]", "run the services of keepalive.toml"),
        ("keepalive -c FILE -- CMD [ARG…]", "and CMD with them: when it exits, keepalive shuts down"),
    ],
    summary: "container init and supervisor",
    options_title: "Options for one command:",
    options: &[&INIT, &HELP, &CONFIG],
    operands: &[Commands],
    text: "",
};

/// All commands, in the order of the help.
const COMMANDS: [Definition; 19] = [
    Definition {
        name: "run",
        forms: &[
            ("keepalive run [-c FILE]", "the same as keepalive [-c FILE]"),
            ("keepalive run -c FILE -- CMD [ARG…]", "and CMD with them"),
            ("keepalive run [OPTIONS] -- CMD", "run CMD as the only service, without a file"),
        ],
        summary: "run a set of services",
        options_title: "Options for CMD as the only service; each is the key of the same name in [services.NAME]:",
        options: &[&RUN, &CONFIG, &HELP],
        text: "\
An ADDRESS is tcp://0.0.0.0:8080, udp://[::]:53 or unix:///run/web.sock. WHEN is a word, or
fd=3 (it writes a newline there), tcp=127.0.0.1:80, http=http://127.0.0.1/ok, file=/run/up,
exec=CMD, delay=2s; ipc also opens the IPC channel. For example:

  keepalive run -i 4 --env PORT=300{instance} -- node server.js
  keepalive run --listen http=tcp://0.0.0.0:8080 --ready http=http://127.0.0.1:8080/ok \\
    -- uvicorn --fd '{fd.http}' app:app
",
        ..COMMAND_DEFAULTS
    },
    Definition {
        name: "check",
        forms: &[("keepalive check [-c FILE] [--json]", "")],
        summary: "validate the configuration and show the resolved plan",
        options: &[&CONFIG, &JSON, &HELP],
        text: "\
Prints every error with its position and a hint, or the plan: the start order, and
each service with its defaults. Also checks that programs, users, directories and
environment files exist. Starts nothing.
Exit code: 0 valid, 78 invalid.
",
        ..COMMAND_DEFAULTS
    },
    Definition {
        name: "status",
        forms: &[("keepalive status [NAME…]", "")],
        summary: "show service state",
        operands: &[NAME],
        text: "\
NAME is a service (web), one of its instances (web.2), a pattern (\"web*\") or all. CPU
time and memory are those of the whole process tree of an instance. RESTARTS counts those
after an exit or a fault, not requested ones and reloads. Unless keepalive is PID 1, the
first line says which file and process it is.
",
        ..COMMAND_DEFAULTS
    },
    Definition {
        name: "describe",
        forms: &[("keepalive describe NAME…", "")],
        summary: "show the state, definition and latest events of a service",
        operands: &[NAME],
        text: "\
NAME is web, web.2, \"web*\" or all. The definition is that of its next start, as check
shows it: of environment variables it has only the names.
",
        ..COMMAND_DEFAULTS
    },
    Definition {
        name: "start",
        forms: &[("keepalive start NAME…", "")],
        summary: "start services or instances, and their dependencies",
        options: CHANGE,
        operands: &[NAME],
        text: "\
Waits until they are ready, at most 60s or --timeout. NAME is web, web.2, \"web*\" or all;
dependencies are started first, also stopped ones. all also starts services with
autostart = false, and leaves alone what has completed.
",
        ..COMMAND_DEFAULTS
    },
    Definition {
        name: "stop",
        forms: &[("keepalive stop NAME…", "")],
        summary: "stop services or instances until they are started again",
        options: CHANGE,
        operands: &[NAME],
        text: "\
Waits until they have stopped, at most 60s or --timeout. NAME is web, web.2, \"web*\" or all;
what depends on another is stopped first. Clients of their sockets (listen) wait until
they are started again; with listen_mode = \"reuseport\" clients are refused.
",
        ..COMMAND_DEFAULTS
    },
    Definition {
        name: "restart",
        forms: &[("keepalive restart NAME…", "")],
        summary: "restart services or instances",
        options: CHANGE,
        operands: &[NAME],
        text: "\
Waits until they are ready, at most 60s or --timeout. NAME is web, web.2, \"web*\" or all;
what depends on another is stopped before it and started after it. all leaves alone what has
completed or does not run.
",
        ..COMMAND_DEFAULTS
    },
    Definition {
        name: "reload",
        forms: &[("keepalive reload [NAME…]", "")],
        summary: "replace processes one by one, or reload the configuration",
        options: CHANGE,
        operands: &[NAME],
        text: "\
With NAME (web, web.2, \"web*\" or all): starts a new process beside each old one, and stops the
old one when the new one is ready. If a new process does not become ready, the old ones
stay and the reload fails. Without NAME: reloads the configuration. An invalid one
changes nothing; with a valid one only services that differ are started, stopped or
replaced. Waits until it is finished, at most 60s or --timeout.
",
        ..COMMAND_DEFAULTS
    },
    Definition {
        name: "scale",
        forms: &[("keepalive scale NAME N|+N|-N", "")],
        summary: "run N instances of a service, or N more or fewer",
        options: CHANGE,
        operands: &[Named(Names::Services), Nothing],
        text: "\
Waits until new instances are ready and others have stopped, at most 60s or --timeout,
and says how many there are now. The configuration file is not changed.
",
        ..COMMAND_DEFAULTS
    },
    Definition {
        name: "signal",
        forms: &[("keepalive signal NAME SIGNAL", "")],
        summary: "send a signal to the main process of each instance",
        options: CHANGE,
        operands: &[NAME, Signals],
        text: "\
NAME is web, web.2, \"web*\" or all. SIGNAL is a name or a number: SIGUSR1, USR1, usr1, 10,
RTMIN+3.

  keepalive signal web HUP
",
        ..COMMAND_DEFAULTS
    },
    Definition {
        name: "exec",
        forms: &[("keepalive exec NAME -- CMD [ARG…]", "")],
        summary: "run a command as a service: its user, directory, environment, limits",
        options: &[&CONNECTION, &HELP],
        operands: &[NAME, Nothing],
        text: "\
NAME is a service (web, whose first instance is meant) or an instance (web.2); it need not be
running. CMD has the terminal and the streams of this command, and its exit code is that of
CMD. Limits and nice of the service apply. Only root can run it as another user.

  docker exec -it CONTAINER keepalive exec web -- sh
",
        ..COMMAND_DEFAULTS
    },
    Definition {
        name: "logs",
        forms: &[("keepalive logs [-f] [-t] [-n LINES] [--since TIME] [NAME…]", "")],
        summary: "show service output",
        options: &[
            &FOLLOW,
            &[
                flag("-t", "--timestamps", "print the time of each line"),
                option("-n", "--lines", "LINES", Choice(&["all"]), "number of past lines (100), or all"),
                option("", "--since", "TIME", Nothing, "lines since then, 10m or 2026-11-21T08:00:00Z; all of them"),
            ],
            &JSON,
            &CONNECTION,
            &HELP,
        ],
        operands: &[Named(Names::Writers)],
        text: "\
NAME is web, web.2, \"web*\", or keepalive for its own messages; without NAME it shows all.
With --json each line is an object with time, service, instance, stream, message
and partial. With -f it ends when keepalive does: exit code 0 after an orderly
shutdown, 3 if keepalive or its logger process was killed.
",
        ..COMMAND_DEFAULTS
    },
    Definition {
        name: "events",
        forms: &[("keepalive events [-f] [-n LINES] [NAME…]", "")],
        summary: "show what has happened: starts, exits, failures, reloads",
        options: &[
            &FOLLOW,
            &[option("-n", "--lines", "LINES", Choice(&["all"]), "number of past events, or all (default)")],
            &JSON,
            &CONNECTION,
            &HELP,
        ],
        operands: &[NAME],
        text: "\
With NAME (web, web.2, \"web*\"): only its events. Text on a terminal; anywhere else, and
with --json, each event is one line of JSON, written immediately. With -f it ends when
keepalive does: exit code 0 after an orderly shutdown, 3 if keepalive was killed.

  keepalive events -f | while read -r event; do redis-cli publish web \"$event\"; done
",
        ..COMMAND_DEFAULTS
    },
    Definition {
        name: "top",
        forms: &[("keepalive top", "")],
        summary: "show a live table of processes, the busiest first",
        text: "\
CPU% is the share of one CPU in the last second; CPU and memory are those of the whole
process tree of an instance. Press q to quit. If stdout is not a terminal, and with
--json, it prints one table and exits.
",
        ..COMMAND_DEFAULTS
    },
    Definition {
        name: "health",
        forms: &[("keepalive health [--ready] [NAME]", "")],
        summary: "health probe: exit code 0 for yes, 1 for no with the reason",
        options: &[
            &[flag("", "--ready", "check that all services are ready, not only that keepalive is alive")],
            &JSON,
            &CONNECTION,
            &HELP,
        ],
        operands: &[NAME],
        text: "\
With NAME: checks whether that service is ready. Waits at most 5s or --timeout.
If keepalive does not respond, or the usage is wrong, the exit code is 1, too.

  HEALTHCHECK CMD [\"/sbin/keepalive\", \"health\", \"--ready\"]
",
        ..COMMAND_DEFAULTS
    },
    Definition {
        name: "shutdown",
        forms: &[("keepalive shutdown", "")],
        summary: "stop all services in order, and keepalive",
        text: "Returns when the shutdown has started.\n",
        ..COMMAND_DEFAULTS
    },
    Definition {
        name: "import",
        forms: &[("keepalive import FILE [-o FILE]", "")],
        summary: "make a keepalive.toml of the configuration of another program",
        options: &[
            &[
                option("-o", "--output", "FILE", Files, "write to FILE, which must not exist (default: stdout)"),
                option(
                    "",
                    "--from",
                    "FORMAT",
                    Choice(&IMPORT_FORMATS),
                    "the format of FILE, if its name does not say it",
                ),
            ],
            &HELP,
        ],
        operands: &[Files],
        text: "\
FILE: ecosystem file of PM2, supervisord.conf, Procfile, Compose file, unit of systemd, or a
directory of services of s6-overlay or runit. What has no counterpart, or another meaning,
becomes a comment. Done by the program keepalive-tools, which stands beside keepalive.
",
        ..COMMAND_DEFAULTS
    },
    Definition {
        name: "completions",
        forms: &[("keepalive completions SHELL", "")],
        summary: "print the completion script for bash, zsh or fish",
        options: &[&CONNECTION, &HELP],
        operands: &[Shells],
        text: "\
For example:

  source <(keepalive completions bash)
  keepalive completions zsh > /usr/local/share/zsh/site-functions/_keepalive
  keepalive completions fish > ~/.config/fish/completions/keepalive.fish

`keepalive completions man` prints the manual page. Done by the program keepalive-tools, which
stands beside keepalive.
",
        ..COMMAND_DEFAULTS
    },
    Definition {
        name: "help",
        forms: &[("keepalive help [COMMAND]", "")],
        summary: "show help for keepalive or one command",
        options: &[&HELP],
        operands: &[Commands],
        ..COMMAND_DEFAULTS
    },
];

impl Definition {
    pub(super) fn find_command(name: &str) -> Option<&'static Self> {
        commands().find(|definition| definition.name == name)
    }

    pub(super) fn options(&self) -> Vec<&'static Opt> {
        self.options.iter().copied().flatten().collect()
    }

    /// The operands, each with its position; `None` for one that may be repeated.
    #[cfg(feature = "tools")]
    pub(super) fn positioned_operands(&self) -> impl Iterator<Item = (Values, Option<usize>)> {
        self.operands.iter().enumerate().map(|(position, values)| {
            let is_last = position + 1 == self.operands.len();
            (*values, (!is_last || !matches!(values, Named(_))).then_some(position))
        })
    }

    /// The names of all options, see [`Opt::name`].
    pub(super) fn option_names(&self) -> Vec<&'static str> {
        self.options().into_iter().map(Opt::name).collect()
    }
}

impl Opt {
    /// `--long` if it has one, otherwise `-x`.
    pub(super) const fn name(&self) -> &'static str {
        if self.long.is_empty() { self.short } else { self.long }
    }

    /// Its short and long names.
    pub(super) fn names(&self) -> Vec<&'static str> {
        let mut names = vec![self.short, self.long];
        names.retain(|name| !name.is_empty());
        names
    }
}

/// All commands, in the order of the help.
pub(super) fn commands() -> impl Iterator<Item = &'static Definition> {
    const { &COMMANDS }.iter()
}

//! The whole command line as data: of it help, completions and the man page are made, and client commands are read by it.

use Values::{Choice, Commands, Directories, Files, Named, Nothing, Shells, Signals, Users};

use crate::control::Names;

/// A word that comes first, or none: `keepalive` itself.
#[derive(Debug)]
pub(super) struct Definition {
    /// The word.
    pub(super) name: &'static str,
    /// How it is written, and what that form means where there are several.
    pub(super) forms: &'static [(&'static str, &'static str)],
    /// What it is for, after a colon.
    pub(super) summary: &'static str,
    /// What stands above the options.
    pub(super) options_title: &'static str,
    pub(super) options: &'static [&'static [Opt]],
    /// What the words after it are: one entry each, the last one for all that follow.
    pub(super) operands: &'static [Values],
    /// Paragraphs, with blank lines between them; lines that begin with two blanks are examples.
    pub(super) text: &'static str,
}

/// An option.
#[derive(Debug)]
pub(super) struct Opt {
    /// `-x`, or empty.
    pub(super) short: &'static str,
    /// `--long`, or empty.
    pub(super) long: &'static str,
    /// What its value is called; empty: it takes none.
    pub(super) value: &'static str,
    pub(super) values: Values,
    pub(super) help: &'static str,
}

/// What a word can be completed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Values {
    Nothing,
    Files,
    Directories,
    Users,
    Signals,
    Shells,
    Commands,
    /// What a running keepalive has such names for; `keepalive completions` prints them.
    Named(Names),
    Choice(&'static [&'static str]),
}

pub(super) const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

const fn flag(short: &'static str, long: &'static str, help: &'static str) -> Opt {
    Opt { short, long, value: "", values: Nothing, help }
}

const fn valued(
    short: &'static str,
    long: &'static str,
    value: &'static str,
    values: Values,
    help: &'static str,
) -> Opt {
    Opt { short, long, value, values, help }
}

const CONFIG: [Opt; 1] = [valued("-c", "--config", "FILE", Files, "configuration file")];
const JSON: [Opt; 1] = [flag("", "--json", "print JSON")];
const HELP: [Opt; 1] = [flag("-h", "--help", "show this help")];
const FOLLOW: [Opt; 1] = [flag("-f", "--follow", "keep printing new entries as they come")];
/// Of everything that talks to a running keepalive.
const CLIENT: [Opt; 2] = [
    valued("", "--socket", "PATH", Files, "control socket of keepalive"),
    valued("", "--timeout", "DURATION", Nothing, "maximum time to wait, such as 90s or 1m30s"),
];
const LOOK: &[&[Opt]] = &[&JSON, &CLIENT, &HELP];

const INIT: [Opt; 9] = [
    flag("-g", "--group", "forward signals to the command's process group"),
    valued("-r", "--rewrite", "FROM:TO", Nothing, "forward TO instead of FROM (TERM:QUIT), 0 to drop it; repeatable"),
    valued("-e", "--remap-exit", "CODE", Nothing, "report exit code CODE as 0; repeatable"),
    valued("-p", "--parent-death-signal", "SIG", Signals, "signal to receive when the parent process dies"),
    valued(
        "",
        "--grace",
        "DURATION",
        Nothing,
        "send SIGKILL this long after the first SIGTERM, SIGINT or SIGQUIT (5s)",
    ),
    valued("", "--linger", "DURATION", Nothing, "stop leftover processes, and wait this long for them"),
    flag("-w", "--warn-on-reap", "log each orphaned process that is reaped"),
    flag("-v", "--verbose", "log more details"),
    flag("-V", "--version", "show the version"),
];

const RUN: [Opt; 17] = [
    valued("", "--name", "NAME", Nothing, "name of the service (default: the program's name)"),
    valued(
        "-i",
        "--instances",
        "N",
        Choice(&["cpus"]),
        "number of instances, or cpus; {instance} in CMD is its number",
    ),
    valued(
        "",
        "--restart",
        "POLICY",
        Choice(&["always", "on-failure", "never"]),
        "always (default), on-failure or never",
    ),
    valued("", "--restart-delay", "D", Nothing, "delay before every restart (0s)"),
    valued("", "--min-uptime", "D", Nothing, "shorter runs are unstable (10s)"),
    valued(
        "",
        "--max-restarts",
        "N",
        Choice(&["unlimited"]),
        "limit of consecutive unstable restarts (16), or unlimited",
    ),
    valued(
        "",
        "--ready",
        "WHEN",
        Choice(&["exec", "notify", "ipc", "tcp=", "http=", "file=", "exec=", "fd=", "delay="]),
        "exec (default), notify, ipc, fd=, tcp=, http=, file=, exec=, delay=",
    ),
    valued("", "--listen", "NAME=ADDRESS", Nothing, "listening socket, {fd.NAME} in CMD is its number; repeatable"),
    valued(
        "",
        "--listen-fds",
        "BOOLEAN",
        Choice(&["true", "false"]),
        "announce sockets in LISTEN_FDS: true (default) or false",
    ),
    valued("", "--cwd", "DIR", Directories, "working directory"),
    valued("", "--user", "USER", Users, "user name or number"),
    valued("", "--env", "NAME=VALUE", Nothing, "environment variable; repeatable"),
    valued("", "--env-file", "FILE", Files, "file with environment variables; repeatable"),
    valued("", "--stop-signal", "SIG", Signals, "signal that stops it (SIGTERM)"),
    valued("", "--stop-timeout", "D", Nothing, "time to stop before SIGKILL (5s)"),
    valued(
        "",
        "--on-failure",
        "WHAT",
        Choice(&["shutdown", "ignore"]),
        "when it has failed: shutdown (default) or ignore",
    ),
    valued(
        "",
        "--on-success",
        "WHAT",
        Choice(&["ignore", "shutdown"]),
        "when it has completed: ignore (default) or shutdown",
    ),
];

const NAME: Values = Named(Names::All);

const OPTIONS: &str = "Options:";

/// `keepalive` itself: the first of [`ALL`].
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

/// All that can come first.
pub(super) const ALL: [Definition; 17] = [
    PROGRAM,
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
        operands: &[],
        text: "\
An ADDRESS is tcp://0.0.0.0:8080, udp://[::]:53 or unix:///run/web.sock. WHEN is a word, or
fd=3 (it writes a newline there), tcp=127.0.0.1:80, http=http://127.0.0.1/ok, file=/run/up,
exec=CMD, delay=2s; ipc also opens the IPC channel. For example:

  keepalive run -i 4 --env PORT=300{instance} -- node server.js
  keepalive run --listen http=tcp://0.0.0.0:8080 --ready http=http://127.0.0.1:8080/ok \\
    -- uvicorn --fd '{fd.http}' app:app
",
    },
    Definition {
        name: "check",
        forms: &[("keepalive check [-c FILE] [--json]", "")],
        summary: "validate the configuration and show the resolved plan",
        options_title: OPTIONS,
        options: &[&CONFIG, &JSON, &HELP],
        operands: &[],
        text: "\
Prints every error with its position and a hint, or the plan: the start order, and
each service with its defaults. Also checks that programs, users, directories and
environment files exist. Starts nothing.
Exit code: 0 valid, 78 invalid.
",
    },
    Definition {
        name: "status",
        forms: &[("keepalive status [NAME…]", "")],
        summary: "show service state",
        options_title: OPTIONS,
        options: LOOK,
        operands: &[NAME],
        text: "\
NAME is a service (web), one of its instances (web.2) or all. CPU time and memory
are those of the whole process tree of an instance.
",
    },
    Definition {
        name: "start",
        forms: &[("keepalive start NAME…", "")],
        summary: "start services or instances, and their dependencies",
        options_title: OPTIONS,
        options: LOOK,
        operands: &[NAME],
        text: "\
Waits until they are ready, at most 60s or --timeout. NAME is web, web.2 or all;
several names are started one after the other.
",
    },
    Definition {
        name: "stop",
        forms: &[("keepalive stop NAME…", "")],
        summary: "stop services or instances until they are started again",
        options_title: OPTIONS,
        options: LOOK,
        operands: &[NAME],
        text: "\
Waits until they have stopped, at most 60s or --timeout. NAME is web, web.2 or all;
several names are stopped one after the other.
",
    },
    Definition {
        name: "restart",
        forms: &[("keepalive restart NAME…", "")],
        summary: "restart services or instances",
        options_title: OPTIONS,
        options: LOOK,
        operands: &[NAME],
        text: "\
Waits until they are ready, at most 60s or --timeout. NAME is web, web.2 or all;
several names are restarted one after the other.
",
    },
    Definition {
        name: "reload",
        forms: &[("keepalive reload [NAME…]", "")],
        summary: "replace processes one by one, or reload the configuration",
        options_title: OPTIONS,
        options: LOOK,
        operands: &[NAME],
        text: "\
With NAME (web, web.2 or all): starts a new process beside each old one, and stops the
old one when the new one is ready. If a new process does not become ready, the old ones
stay and the reload fails. Without NAME: reloads the configuration. An invalid one
changes nothing; with a valid one only services that differ are started, stopped or
replaced. Waits until it is finished, at most 60s or --timeout.
",
    },
    Definition {
        name: "scale",
        forms: &[("keepalive scale NAME N", "")],
        summary: "run N instances of a service",
        options_title: OPTIONS,
        options: LOOK,
        operands: &[Named(Names::Services), Nothing],
        text: "\
Waits until new instances are ready and others have stopped, at most 60s or --timeout.
The configuration file is not changed.
",
    },
    Definition {
        name: "signal",
        forms: &[("keepalive signal NAME SIGNAL", "")],
        summary: "send a signal to the main process of each instance",
        options_title: OPTIONS,
        options: LOOK,
        operands: &[NAME, Signals],
        text: "\
SIGNAL is a name or a number: SIGUSR1, USR1, usr1, 10, RTMIN+3.

  keepalive signal web HUP
",
    },
    Definition {
        name: "logs",
        forms: &[("keepalive logs [-f] [-n LINES] [NAME…]", "")],
        summary: "show service output",
        options_title: OPTIONS,
        options: &[
            &FOLLOW,
            &[valued("-n", "--lines", "LINES", Choice(&["all"]), "number of past lines (100), or all")],
            &JSON,
            &CLIENT,
            &HELP,
        ],
        operands: &[Named(Names::Writers)],
        text: "\
NAME is web, web.2, or keepalive for its own messages; without NAME it shows all.
With --json each line is an object with time, service, instance, stream, message
and partial. With -f it ends when keepalive does: exit code 0 after an orderly
shutdown, 3 if keepalive or its logger process was killed.
",
    },
    Definition {
        name: "events",
        forms: &[("keepalive events [-f]", "")],
        summary: "show what has happened: starts, exits, failures, reloads",
        options_title: OPTIONS,
        options: &[&FOLLOW, &JSON, &CLIENT, &HELP],
        operands: &[],
        text: "\
Text on a terminal; anywhere else, and with --json, each event is one line of JSON,
written immediately. With -f it ends when keepalive does: exit code 0 after an orderly
shutdown, 3 if keepalive was killed.

  keepalive events -f | while read -r event; do redis-cli publish web \"$event\"; done
",
    },
    Definition {
        name: "top",
        forms: &[("keepalive top", "")],
        summary: "show a live table of processes, the busiest first",
        options_title: OPTIONS,
        options: LOOK,
        operands: &[],
        text: "\
CPU% is the share of one CPU in the last second; CPU and memory are those of the whole
process tree of an instance. Press q to quit. If stdout is not a terminal, and with
--json, it prints one table and exits.
",
    },
    Definition {
        name: "health",
        forms: &[("keepalive health [--ready] [NAME]", "")],
        summary: "health probe: exit code 0 for yes, 1 for no with the reason",
        options_title: OPTIONS,
        options: &[
            &[flag("", "--ready", "check that all services are ready, not only that keepalive is alive")],
            &JSON,
            &CLIENT,
            &HELP,
        ],
        operands: &[NAME],
        text: "\
With NAME: checks whether that service is ready. Waits at most 5s or --timeout.
If keepalive does not respond, or the usage is wrong, the exit code is 1, too.

  HEALTHCHECK CMD [\"/sbin/keepalive\", \"health\", \"--ready\"]
",
    },
    Definition {
        name: "shutdown",
        forms: &[("keepalive shutdown", "")],
        summary: "stop all services in order, and keepalive",
        options_title: OPTIONS,
        options: LOOK,
        operands: &[],
        text: "Returns when the shutdown has started.\n",
    },
    Definition {
        name: "completions",
        forms: &[("keepalive completions SHELL", "")],
        summary: "print the completion script for bash, zsh or fish",
        options_title: OPTIONS,
        options: &[&CLIENT, &HELP],
        operands: &[Shells],
        text: "\
For example:

  source <(keepalive completions bash)
  keepalive completions zsh > /usr/local/share/zsh/site-functions/_keepalive
  keepalive completions fish > ~/.config/fish/completions/keepalive.fish

`keepalive completions man` prints the manual page.
",
    },
    Definition {
        name: "help",
        forms: &[("keepalive help [COMMAND]", "")],
        summary: "show help for keepalive or one command",
        options_title: OPTIONS,
        options: &[&HELP],
        operands: &[Commands],
        text: "",
    },
];

impl Definition {
    pub(super) fn find(name: &str) -> Option<&'static Self> {
        const { &ALL }.iter().find(|definition| definition.name == name)
    }

    pub(super) fn options(&self) -> impl Iterator<Item = &'static Opt> {
        self.options.iter().copied().flatten()
    }

    /// The words that can follow it: what each is, and where it stands; `None`: anywhere, as often as one likes.
    pub(super) fn words(&self) -> impl Iterator<Item = (Values, Option<usize>)> {
        self.operands.iter().enumerate().map(|(position, values)| {
            let is_last = position + 1 == self.operands.len();
            (*values, (!is_last || !matches!(values, Named(_))).then_some(position))
        })
    }

    /// `--long` where there is one, else `-x`, of every option.
    pub(super) fn option_names(&self) -> Vec<&'static str> {
        self.options().map(Opt::name).collect()
    }
}

impl Opt {
    pub(super) const fn name(&self) -> &'static str {
        if self.long.is_empty() { self.short } else { self.long }
    }

    /// The ways to write it, without the value.
    pub(super) fn spellings(&self) -> impl Iterator<Item = &'static str> {
        [self.short, self.long].into_iter().filter(|name| !name.is_empty())
    }
}

/// Every command that can come first, in the order of the help.
pub(super) fn commands() -> impl Iterator<Item = &'static Definition> {
    const { &ALL }.iter().filter(|definition| !definition.name.is_empty())
}

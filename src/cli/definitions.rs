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

const CONFIG: [Opt; 1] = [valued("-c", "--config", "FILE", Files, "the configuration")];
const JSON: [Opt; 1] = [flag("", "--json", "JSON in place of text")];
const HELP: [Opt; 1] = [flag("-h", "--help", "this help")];
const FOLLOW: [Opt; 1] = [flag("-f", "--follow", "go on with what comes")];
/// Of everything that talks to a running keepalive.
const CLIENT: [Opt; 2] = [
    valued("", "--socket", "PATH", Files, "where keepalive listens"),
    valued("", "--timeout", "DURATION", Nothing, "how long it may take, such as 90s or 1m30s"),
];
const LOOK: &[&[Opt]] = &[&JSON, &CLIENT, &HELP];

const INIT: [Opt; 9] = [
    flag("-g", "--group", "signals go to the command's process group"),
    valued("-r", "--rewrite", "FROM:TO", Nothing, "send TO in place of FROM (TERM:QUIT); TO 0 drops it; repeatable"),
    valued("-e", "--remap-exit", "CODE", Nothing, "report exit code CODE as 0; repeatable"),
    valued("-p", "--parent-death-signal", "SIG", Signals, "what keepalive gets when its parent dies"),
    valued(
        "",
        "--grace",
        "DURATION",
        Nothing,
        "SIGKILL so long after the first SIGTERM, SIGINT or SIGQUIT (5s, 1m30s)",
    ),
    valued("", "--linger", "DURATION", Nothing, "wait so long for what the command left behind"),
    flag("-w", "--warn-on-reap", "a line for each orphan that is reaped"),
    flag("-v", "--verbose", "more detail"),
    flag("-V", "--version", "the version"),
];

const RUN: [Opt; 17] = [
    valued("", "--name", "NAME", Nothing, "default: the program's name"),
    valued(
        "-i",
        "--instances",
        "N",
        Choice(&["cpus"]),
        "how many, or cpus; {instance} in the command is the number, from 0",
    ),
    valued(
        "",
        "--restart",
        "POLICY",
        Choice(&["always", "on-failure", "never"]),
        "always (default), on-failure, never",
    ),
    valued("", "--restart-delay", "D", Nothing, "before every restart (0s)"),
    valued("", "--min-uptime", "D", Nothing, "a shorter run is unstable (10s)"),
    valued(
        "",
        "--max-restarts",
        "N",
        Choice(&["unlimited"]),
        "unstable restarts in a row until it has failed (16), or unlimited",
    ),
    valued(
        "",
        "--ready",
        "WHEN",
        Choice(&["exec", "notify", "ipc", "tcp=", "http=", "file=", "exec=", "fd=", "delay="]),
        "exec (default), notify, ipc, fd=, tcp=, http=, file=, exec=, delay=",
    ),
    valued("", "--listen", "NAME=ADDRESS", Nothing, "repeatable; {fd.NAME} in the command is its number"),
    valued(
        "",
        "--listen-fds",
        "BOOLEAN",
        Choice(&["true", "false"]),
        "true (default): LISTEN_FDS announces the sockets; false: it is not set",
    ),
    valued("", "--cwd", "DIR", Directories, "where it runs"),
    valued("", "--user", "USER", Users, "name or number"),
    valued("", "--env", "NAME=VALUE", Nothing, "repeatable"),
    valued("", "--env-file", "FILE", Files, "repeatable"),
    valued("", "--stop-signal", "SIG", Signals, "SIGTERM"),
    valued("", "--stop-timeout", "D", Nothing, "then SIGKILL (5s)"),
    valued("", "--on-failure", "WHAT", Choice(&["shutdown", "ignore"]), "shutdown (default) or ignore"),
    valued("", "--on-success", "WHAT", Choice(&["ignore", "shutdown"]), "ignore (default) or shutdown"),
];

const NAME: Values = Named(Names::All);

const OPTIONS: &str = "Options:";

/// `keepalive` itself: the first of [`ALL`].
pub(super) const PROGRAM: Definition = Definition {
    name: "",
    forms: &[
        ("keepalive [OPTIONS] -- CMD [ARG…]", "one command, as a tiny init runs it"),
        ("keepalive [-c FILE]", "a set of services from keepalive.toml"),
        ("keepalive -c FILE -- CMD [ARG…]", "and CMD beside it, whose end is the end of all"),
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
            ("keepalive run [-c FILE]", "those of keepalive.toml, the same as keepalive [-c FILE]"),
            ("keepalive run -c FILE -- CMD [ARG…]", "and CMD beside them"),
            ("keepalive run [OPTIONS] -- CMD", "CMD alone, without a file"),
        ],
        summary: "a set of services",
        options_title: "Options for CMD alone; each is the key of that name in [services.NAME]:",
        options: &[&RUN, &CONFIG, &HELP],
        operands: &[],
        text: "\
An ADDRESS is tcp://0.0.0.0:8080, udp://[::]:53 or unix:///run/web.sock. WHEN is a word, or
fd=3 (a newline is written to it), tcp=127.0.0.1:80, http=http://127.0.0.1/ok, file=/run/up,
exec=CMD, delay=2s; ipc gives it the channel, too. For example:

  keepalive run -i 4 --env PORT=300{instance} -- node server.js
  keepalive run --listen http=tcp://0.0.0.0:8080 --ready http=http://127.0.0.1:8080/ok \\
    -- uvicorn --fd '{fd.http}' app:app
",
    },
    Definition {
        name: "check",
        forms: &[("keepalive check [-c FILE] [--json]", "")],
        summary: "is the configuration right, and what does it come to?",
        options_title: OPTIONS,
        options: &[&CONFIG, &JSON, &HELP],
        operands: &[],
        text: "\
Prints every error with its place and what would be right, or else the plan: the
order of starts, and each service with its defaults filled in. Looks for
programs, users, directories and env files, too. Starts nothing.
Exit code: 0 valid, 78 invalid.
",
    },
    Definition {
        name: "status",
        forms: &[("keepalive status [NAME…]", "")],
        summary: "what runs, and why the rest does not",
        options_title: OPTIONS,
        options: LOOK,
        operands: &[NAME],
        text: "\
NAME is a service (web), one of its instances (web.2) or all. Time of processors
and memory are those of an instance's whole process tree.
",
    },
    Definition {
        name: "start",
        forms: &[("keepalive start NAME…", "")],
        summary: "start services or instances, and what they depend on",
        options_title: OPTIONS,
        options: LOOK,
        operands: &[NAME],
        text: "\
Waits until they are ready, for 60s at most unless --timeout says otherwise. NAME
is web, web.2 or all; several are started one after the other.
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
Waits until they have ended, for 60s at most unless --timeout says otherwise. NAME
is web, web.2 or all; several are stopped one after the other.
",
    },
    Definition {
        name: "restart",
        forms: &[("keepalive restart NAME…", "")],
        summary: "stop services or instances and start them again",
        options_title: OPTIONS,
        options: LOOK,
        operands: &[NAME],
        text: "\
Waits until they are ready, for 60s at most unless --timeout says otherwise. NAME
is web, web.2 or all; several are restarted one after the other.
",
    },
    Definition {
        name: "reload",
        forms: &[("keepalive reload [NAME…]", "")],
        summary: "replace processes one by one, or read the configuration again",
        options_title: OPTIONS,
        options: LOOK,
        operands: &[NAME],
        text: "\
With NAME (web, web.2 or all): starts a new process beside each old one, which ends
when the new one is ready. If a new one does not get ready the old ones stay, and the
reload ends there. Without NAME: reads the configuration again; an invalid one
changes nothing, and of a valid one only what differs is started, stopped or replaced.
Waits until it is done, for 60s at most unless --timeout says otherwise.
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
Waits until the new ones are ready or the old ones have ended, for 60s at most
unless --timeout says otherwise. The configuration stays as it is.
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
        summary: "what services have written",
        options_title: OPTIONS,
        options: &[
            &FOLLOW,
            &[valued("-n", "--lines", "LINES", Choice(&["all"]), "how many lines of what has been (100), or all")],
            &JSON,
            &CLIENT,
            &HELP,
        ],
        operands: &[Named(Names::Writers)],
        text: "\
NAME is web, web.2, or keepalive for its own messages. Without one: everything.
With --json each line is an object with time, service, instance, stream, message
and partial. With -f it ends with keepalive: exit code 0 after an orderly end, 3 if
keepalive or the process that has the logs was killed.
",
    },
    Definition {
        name: "events",
        forms: &[("keepalive events [-f]", "")],
        summary: "what has happened: starts, ends, failures, commands",
        options_title: OPTIONS,
        options: &[&FOLLOW, &JSON, &CLIENT, &HELP],
        operands: &[],
        text: "\
For people on a terminal; anywhere else, and with --json, each event is one line
of JSON, written at once. With -f it ends with keepalive: exit code 0 after an
orderly end, 3 if keepalive was killed.

  keepalive events -f | while read -r event; do redis-cli publish web \"$event\"; done
",
    },
    Definition {
        name: "top",
        forms: &[("keepalive top", "")],
        summary: "a table of what runs that is kept up to date, the busiest first",
        options_title: OPTIONS,
        options: LOOK,
        operands: &[],
        text: "\
CPU% is the share of one processor in the last second, and memory what is used,
both of an instance's whole process tree. The key q ends it. Where stdout is no
terminal, and with --json, it prints one table and ends.
",
    },
    Definition {
        name: "health",
        forms: &[("keepalive health [--ready] [NAME]", "")],
        summary: "a probe: exit code 0 for yes, 1 for no, and the reason on one line",
        options_title: OPTIONS,
        options: &[
            &[flag("", "--ready", "whether all is ready that should be, not only whether keepalive lives")],
            &JSON,
            &CLIENT,
            &HELP,
        ],
        operands: &[NAME],
        text: "\
With NAME: whether that service is ready. The answer may take 5s unless --timeout
says otherwise. Nothing answers, or wrong usage: that is a no, too.

  HEALTHCHECK CMD [\"/sbin/keepalive\", \"health\", \"--ready\"]
",
    },
    Definition {
        name: "shutdown",
        forms: &[("keepalive shutdown", "")],
        summary: "the ordered stop of everything, and the end of keepalive",
        options_title: OPTIONS,
        options: LOOK,
        operands: &[],
        text: "Comes back when the stop has begun.\n",
    },
    Definition {
        name: "completions",
        forms: &[("keepalive completions SHELL", "")],
        summary: "what makes bash, zsh or fish complete this command line",
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
        summary: "what all of this is, or one command",
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

//! The texts of `--help`.

pub(super) const GENERAL: &str = "\
keepalive: container init and supervisor

One command, as a tiny init runs it (reaps zombies, forwards signals, passes the exit code on):
  keepalive [OPTIONS] -- CMD [ARG…]

A set of services from keepalive.toml, started in order, restarted, stopped in order:
  keepalive [-c FILE]
  keepalive -c FILE -- CMD [ARG…]     and CMD beside it: not restarted, its end is the end of all

One command as a service, restarted when it dies (keepalive run --help):
  keepalive run [OPTIONS] -- CMD [ARG…]

Is the configuration right, and what does it come to? (keepalive check --help):
  keepalive check [-c FILE] [--json]

Options for one command:
  -g, --group                    signals go to the command's process group
  -r, --rewrite FROM:TO          send TO in place of FROM (TERM:QUIT); TO 0 drops it; repeatable
  -e, --remap-exit CODE          report exit code CODE as 0; repeatable
  -p, --parent-death-signal SIG  what keepalive gets when its parent dies
      --grace DURATION           SIGKILL so long after the first SIGTERM, SIGINT or SIGQUIT (5s, 1m30s)
      --linger DURATION          wait so long for what the command left behind
  -w, --warn-on-reap             a line for each orphan that is reaped
  -v, --verbose                  more detail
  -h, --help    -V, --version

The configuration is the first of: -c FILE, $KEEPALIVE_CONFIG, ./keepalive.toml,
/etc/keepalive/keepalive.toml, /etc/keepalive.toml. For example:

  [services.db]
  command = [\"postgres\", \"-D\", \"/data\"]

  [services.web]
  command = \"node server.js --port 300{instance}\"
  instances = 2
  depends_on = [\"db\"]

Own messages go to stderr; KEEPALIVE_LOG=debug (info, warn, error, off) says how many.
Exit codes: that of the process that decided the end, 128+N if signal N killed it; 0 after an orderly stop;
2 wrong usage; 70 a bug; 71 refused by the system; 78 invalid configuration; 126 not executable; 127 not found.
";

pub(super) const RUN: &str = "\
keepalive run: a set of services

  keepalive run [-c FILE]              those of keepalive.toml, the same as keepalive [-c FILE]
  keepalive run -c FILE -- CMD [ARG…]  and CMD beside them
  keepalive run [OPTIONS] -- CMD       CMD alone, without a file

Options for CMD alone; each is the key of that name in [services.NAME]:
      --name NAME            default: the program's name
  -i, --instances N          how many, or cpus; {instance} in the command is the number, from 0
      --restart POLICY       always (default), on-failure, never
      --restart-delay D      before every restart (0s)
      --min-uptime D         a shorter run is unstable (10s)
      --max-restarts N       unstable restarts in a row until it has failed (16), or unlimited
      --ready WHEN           exec (default) or delay=2s
      --cwd DIR              where it runs
      --user USER            name or number
      --env NAME=VALUE       repeatable
      --env-file FILE        repeatable
      --stop-signal SIG      SIGTERM
      --stop-timeout D       then SIGKILL (5s)
      --on-failure WHAT      shutdown (default) or ignore
      --on-success WHAT      ignore (default) or shutdown

For example: keepalive run -i 4 --env PORT=300{instance} -- node server.js
";

pub(super) const CHECK: &str = "\
keepalive check: is the configuration right, and what does it come to?

  keepalive check [-c FILE] [--json]

Prints every error with its place and what would be right, or else the plan: the order of starts and each service
with all that it does not say completed. Looks for programs, users, directories and env files, too. Starts nothing.
Exit code: 0 valid, 78 invalid.
";

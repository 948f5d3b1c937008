//! Semantic errors: limits, dependencies, users, variables, names.

use std::time::Duration;

use super::plans::{check_service, fixed};
use super::{check, check_keys};
use crate::model::plan::{Probe, Ready, Reload, Strategy};

#[test]
fn invalid_limits_are_errors() {
    check_keys(
        "limits = { nofil = 1, core = -1, cpu = { soft = 1 }, data = { soft = 2, hard = 1 }, stack = \"8M\" }\numask = 22\n",
        r#"
keepalive.toml:3:12: unknown limit `nofil`
  3 | limits = { nofil = 1, core = -1, cpu = { soft = 1 }, data = { soft = 2, hard = 1 }, stack = "8M" }
    |            ^^^^^
  = did you mean `nofile`?

keepalive.toml:3:30: expected a number, a size or `"unlimited"`, found `-1`
  3 | limits = { nofil = 1, core = -1, cpu = { soft = 1 }, data = { soft = 2, hard = 1 }, stack = "8M" }
    |                              ^^
  = such as `65536` or `"64MiB"`

keepalive.toml:3:40: a limit needs both `soft` and `hard`
  3 | limits = { nofil = 1, core = -1, cpu = { soft = 1 }, data = { soft = 2, hard = 1 }, stack = "8M" }
    |                                        ^^^^^^^^^^^^
  = a single value sets both

keepalive.toml:3:70: `soft` is greater than `hard`
  3 | limits = { nofil = 1, core = -1, cpu = { soft = 1 }, data = { soft = 2, hard = 1 }, stack = "8M" }
    |                                                                      ^
  = lower it

keepalive.toml:3:93: expected a number, a size or `"unlimited"`, found `"8M"`
  3 | limits = { nofil = 1, core = -1, cpu = { soft = 1 }, data = { soft = 2, hard = 1 }, stack = "8M" }
    |                                                                                             ^^^^
  = such as `65536` or `"64MiB"`

keepalive.toml:4:9: expected an octal number up to 0777, in quotes, found `22`
  4 | umask = 22
    |         ^^
  = such as `"0022"`

6 errors in the configuration
"#,
    );
}

#[test]
fn unknown_and_cyclic_dependencies_are_errors() {
    check(
        "[services.a]\ncommand = \"a\"\ndepends_on = [\"b\"]\n[services.b]\ncommand = \"b\"\ndepends_on = [\"c\", \"c\"]\n[services.c]\ncommand = \"c\"\ndepends_on = [\"a\", \"cache\", \"c\"]\n[services.cachex]\ncommand = \"x\"\ndepends_on = \"a\"\n",
        r#"
keepalive.toml:6:20: `c` is listed twice
  6 | depends_on = ["c", "c"]
    |                    ^^^
  = remove one of them

keepalive.toml:9:15: dependency cycle: a → b → c → a
  9 | depends_on = ["a", "cache", "c"]
    |               ^^^
  = remove one of these dependencies

keepalive.toml:9:20: unknown service `cache`
  9 | depends_on = ["a", "cache", "c"]
    |                    ^^^^^^^
  = did you mean `cachex`?

keepalive.toml:9:29: `c` depends on itself
  9 | depends_on = ["a", "cache", "c"]
    |                             ^^^
  = remove it

keepalive.toml:12:14: expected an array, found `"a"`
  12 | depends_on = "a"
     |              ^^^
  = write `["a"]`

5 errors in the configuration
"#,
    );
}

#[test]
fn unknown_users_and_groups_are_errors() {
    check(
        "[services.a]\ncommand = \"a\"\nuser = \"ww\"\n[services.b]\ncommand = \"b\"\nuser = \"www:logs\"\n[services.c]\ncommand = \"c\"\ngroup = \"nobody\"\ngroups = [\"log\", -1]\n[services.d]\ncommand = \"d\"\nuser = 4294967295\n",
        r#"
keepalive.toml:3:8: unknown user `ww`
  3 | user = "ww"
    |        ^^^^
  = did you mean `www`?

keepalive.toml:6:8: unknown user `www:logs`
  6 | user = "www:logs"
    |        ^^^^^^^^^^
  = write `user = "www"` and `group = "logs"`

keepalive.toml:9:9: unknown group `nobody`
  9 | group = "nobody"
    |         ^^^^^^^^
  = not found in /etc/group; a number needs no entry there

keepalive.toml:10:11: unknown group `log`
  10 | groups = ["log", -1]
     |           ^^^^^
  = did you mean `logs`?

keepalive.toml:10:18: expected the name or number of a group, found `-1`
  10 | groups = ["log", -1]
     |                  ^^
  = such as `"www"` or `1000`

keepalive.toml:13:8: expected the name or number of a user, found `4294967295`
  13 | user = 4294967295
     |        ^^^^^^^^^^
  = such as `"www"` or `1000`

6 errors in the configuration
"#,
    );
}

#[test]
fn unset_variables_are_reported_with_their_location() {
    check(
        "[services.web]\ncommand = \"serve ${NONE} x\"\ncwd = \"/a/${NONE}\"\nenv = { A = \"${B:+c}\", KEEPALIVE_SERVICE = \"x\", \"\" = \"y\", C = [] }\nenv_file = \"{instance}.env\"\n",
        r#"
keepalive.toml:2:18: variable `NONE` is not set
  2 | command = "serve ${NONE} x"
    |                  ^^^^^^^
  = set it, or add a default: `${NONE:-default}`

keepalive.toml:3:11: variable `NONE` is not set
  3 | cwd = "/a/${NONE}"
    |           ^^^^^^^
  = set it, or add a default: `${NONE:-default}`

keepalive.toml:4:14: expected `${VAR}` or `${VAR:-default}`, found `${B:+c}`
  4 | env = { A = "${B:+c}", KEEPALIVE_SERVICE = "x", "" = "y", C = [] }
    |              ^^^^^^^
  = write `${B}` or `${B:-default}`, or `$$` for a literal `$`

keepalive.toml:4:24: `KEEPALIVE_SERVICE` is reserved for keepalive
  4 | env = { A = "${B:+c}", KEEPALIVE_SERVICE = "x", "" = "y", C = [] }
    |                        ^^^^^^^^^^^^^^^^^
  = remove it

keepalive.toml:4:49: invalid variable name `""`
  4 | env = { A = "${B:+c}", KEEPALIVE_SERVICE = "x", "" = "y", C = [] }
    |                                                 ^^
  = it must not be empty or contain `=`

keepalive.toml:4:63: expected a string, found an array
  4 | env = { A = "${B:+c}", KEEPALIVE_SERVICE = "x", "" = "y", C = [] }
    |                                                               ^^
  = write the value in quotes

keepalive.toml:5:13: `{instance}` cannot be used here: all instances share this value
  5 | env_file = "{instance}.env"
    |             ^^^^^^^^^^
  = use `{service}`, or no placeholder

7 errors in the configuration
"#,
    );
}

#[test]
fn signals_that_cannot_be_handled_are_errors() {
    check(
        "[keepalive]\nsignals = { KILL = \"ignore\", CHLD = \"ignore\", HUP = \"ignore\", SIGHUP = \"ignore\", USR3 = \"ignore\", USR1 = \"drop\" }\n[services.web]\ncommand = \"x\"\n",
        r#"
keepalive.toml:2:13: SIGKILL cannot be caught by any process
  2 | signals = { KILL = "ignore", CHLD = "ignore", HUP = "ignore", SIGHUP = "ignore", USR3 = "ignore", USR1 = "drop" }
    |             ^^^^
  = remove it

keepalive.toml:2:30: SIGCHLD is reserved for keepalive
  2 | signals = { KILL = "ignore", CHLD = "ignore", HUP = "ignore", SIGHUP = "ignore", USR3 = "ignore", USR1 = "drop" }
    |                              ^^^^
  = remove it

keepalive.toml:2:63: SIGHUP is configured twice
  2 | signals = { KILL = "ignore", CHLD = "ignore", HUP = "ignore", SIGHUP = "ignore", USR3 = "ignore", USR1 = "drop" }
    |                                                               ^^^^^^
  = remove one of them

keepalive.toml:2:82: `USR3` is not a signal
  2 | signals = { KILL = "ignore", CHLD = "ignore", HUP = "ignore", SIGHUP = "ignore", USR3 = "ignore", USR1 = "drop" }
    |                                                                                  ^^^^
  = did you mean `SIGUSR1`?

keepalive.toml:2:106: expected `"reload"`, `"forward"`, `"shutdown"`, `"kill"` or `"ignore"`, found `"drop"`
  2 | signals = { KILL = "ignore", CHLD = "ignore", HUP = "ignore", SIGHUP = "ignore", USR3 = "ignore", USR1 = "drop" }
    |                                                                                                          ^^^^^^

5 errors in the configuration
"#,
    );
}

#[test]
fn invalid_service_names_are_errors() {
    check(
        "[services.all]\ncommand = \"x\"\n[services.-a]\ncommand = \"x\"\n[services.\"a.b\"]\ncommand = \"x\"\n[[services.c]]\ncommand = \"x\"\n[services.ok]\ncommand = \"x\"\n",
        r#"
keepalive.toml:1:11: the name `all` is reserved: it means all services
  1 | [services.all]
    |           ^^^
  = rename it

keepalive.toml:3:11: a service name must start with an ASCII letter or digit
  3 | [services.-a]
    |           ^^
  = rename it

keepalive.toml:5:11: a service name may contain only ASCII letters, digits, `-` and `_`
  5 | [services."a.b"]
    |           ^^^^^
  = rename it

keepalive.toml:7:1: expected a table, found an array
  7 | [[services.c]]
    | ^^^^^^^^^^^^^^
  = write `[services.c]`, in single brackets

4 errors in the configuration
"#,
    );
}

#[test]
fn duplicates_are_reported_with_both_locations() {
    check(
        "[services.web]\ncommand = \"x\"\n\n[services.web]\ncommand = \"y\"\nnice = 1\nnice = 2\n",
        r#"
keepalive.toml:4:11: duplicate key `web`, first at keepalive.toml:1:11
  4 | [services.web]
    |           ^^^
  = remove or rename one of them

keepalive.toml:5:1: duplicate key `command`, first at keepalive.toml:2:1
  5 | command = "y"
    | ^^^^^^^
  = remove or rename one of them

keepalive.toml:7:1: duplicate key `nice`, first at keepalive.toml:6:1
  7 | nice = 2
    | ^^^^
  = remove or rename one of them

3 errors in the configuration
"#,
    );
}

#[test]
fn a_file_without_services_is_an_error() {
    check(
        "",
        r#"
keepalive.toml: no services are defined
  = add `[services.web]` with `command = ["node", "server.js"]`

1 error in the configuration
"#,
    );
}

#[test]
fn values_of_the_wrong_type_are_errors() {
    check(
        "keepalive = 1\nservices.web.command = \"x\"\nservices.web.autostart = \"yes\"\nservices.web.env = []\nservices.web.env_file = 3\nservices.web.depends_on = [1]\nservices.web.ready = 2\nservices.web.backoff = 1979-05-27\nservices.web.limits = true\nservices.web.log = \"null\"\nservices.web.kill_mode = 2.5\n",
        r#"
keepalive.toml:1:13: expected a table, found `1`
  1 | keepalive = 1
    |             ^
  = write `[keepalive]`

keepalive.toml:3:26: expected `true` or `false`, found `"yes"`
  3 | services.web.autostart = "yes"
    |                          ^^^^^
  = write `true`

keepalive.toml:4:20: expected a table, found an array
  4 | services.web.env = []
    |                    ^^
  = such as `{ PORT = "8080" }`

keepalive.toml:5:25: expected an array, found `3`
  5 | services.web.env_file = 3
    |                         ^
  = such as `[".env"]`

keepalive.toml:6:28: expected the name of a service, found `1`
  6 | services.web.depends_on = [1]
    |                            ^
  = such as `"db"`

keepalive.toml:7:22: expected `"exec"`, `"notify"`, `"ipc"` or a table, found `2`
  7 | services.web.ready = 2
    |                      ^
  = such as `{ delay = "2s" }`

keepalive.toml:8:24: expected a table, found a date
  8 | services.web.backoff = 1979-05-27
    |                        ^^^^^^^^^^
  = such as `{ initial = "100ms", max = "30s" }`

keepalive.toml:9:23: expected a table, found `true`
  9 | services.web.limits = true
    |                       ^^^^
  = such as `{ nofile = 65536 }`

keepalive.toml:10:20: expected a table, found `"null"`
  10 | services.web.log = "null"
     |                    ^^^^^^
  = such as `{ stdout = "raw" }`

keepalive.toml:11:26: expected `"mixed"`, `"group"` or `"process"`, found `2.5`
  11 | services.web.kill_mode = 2.5
     |                          ^^^

10 errors in the configuration
"#,
    );
}

#[test]
fn suspicious_settings_are_warnings() {
    check(
        "[keepalive]\nshutdown_timeout = \"20s\"\n[services.a]\ncommand = \"a\"\nstop_timeout = \"1m\"\ndepends_on = [\"b\"]\n[services.b]\ncommand = \"b\"\nautostart = false\nuser = 1000\n",
        r#"
warning: keepalive.toml:5:16: `shutdown_timeout` limits the whole shutdown to 20s
  5 | stop_timeout = "1m"
    |                ^^^^
  = increase it in `[keepalive]`, and the grace period of the container

warning: keepalive.toml:10:8: user 1000 is not in /etc/passwd: using group 1000
  10 | user = 1000
     |        ^^^^
  = set `group`
"#,
    );
}

#[test]
fn the_time_limit_of_a_probe_is_decoded() {
    check_service("ready = { tcp = \"127.0.0.1:80\", timeout = \"3s\" }\nreload = \"restart\"", |service| {
        service.ready = Ready::Probe(Probe::Tcp(fixed("127.0.0.1:80")));
        service.probe_timeout = Duration::from_secs(3);
        service.reload = Reload { strategy: Strategy::Restart, max_surge: 1, soak: Duration::ZERO };
    });
    check(
        "[services]\na = { command = \"x\", ready = { timeout = \"1s\" } }\nb = { command = \"x\", ready = { fd = 3, timeout = \"1s\" } }\nc = { command = \"x\", ready = { file = \"/a\", timeout = \"0s\" } }\n",
        r#"
keepalive.toml:2:30: `ready` is empty
  2 | a = { command = "x", ready = { timeout = "1s" } }
    |                              ^^^^^^^^^^^^^^^^^^
  = such as `{ delay = "2s" }`

keepalive.toml:3:50: `timeout` has no effect on `fd`
  3 | b = { command = "x", ready = { fd = 3, timeout = "1s" } }
    |                                                  ^^^^
  = it limits one attempt of a probe; `ready_timeout` limits the start

keepalive.toml:4:55: expected a duration above zero, found `"0s"`
  4 | c = { command = "x", ready = { file = "/a", timeout = "0s" } }
    |                                                       ^^^^

3 errors in the configuration
"#,
    );
}

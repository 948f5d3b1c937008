//! What is said about names that are unknown, taken or lead in a circle, word for word.

use super::{check, check_keys};

#[test]
fn exit_codes_and_signals_that_are_none_are_told() {
    check_keys(
        "success_exit_codes = [256, \"15\", \"SIGTRM\", 1.0]\nno_restart_exit_codes = 125\nstop_signal = \"SIGSTOP\"\n",
        r#"
keepalive.toml:3:23: expected an exit code from 0 to 255 or a signal, found `256`
  3 | success_exit_codes = [256, "15", "SIGTRM", 1.0]
    |                       ^^^
  = a code stands without quotes, a signal with its name: `[0, "SIGTERM"]`

keepalive.toml:3:28: expected an exit code from 0 to 255 or a signal, found `"15"`
  3 | success_exit_codes = [256, "15", "SIGTRM", 1.0]
    |                            ^^^^
  = a code stands without quotes, a signal with its name: `[0, "SIGTERM"]`

keepalive.toml:3:34: expected an exit code from 0 to 255 or a signal, found `"SIGTRM"`
  3 | success_exit_codes = [256, "15", "SIGTRM", 1.0]
    |                                  ^^^^^^^^
  = did you mean `SIGTERM`?

keepalive.toml:3:44: expected an exit code from 0 to 255 or a signal, found `1.0`
  3 | success_exit_codes = [256, "15", "SIGTRM", 1.0]
    |                                            ^^^
  = a code stands without quotes, a signal with its name: `[0, "SIGTERM"]`

keepalive.toml:4:25: expected an array, found `125`
  4 | no_restart_exit_codes = 125
    |                         ^^^
  = such as `[0, 143, "SIGTERM"]`

keepalive.toml:5:15: SIGSTOP ends no process
  5 | stop_signal = "SIGSTOP"
    |               ^^^^^^^^^
  = such as `"SIGTERM"`, `"SIGQUIT"`

6 errors in the configuration
"#,
    );
}

#[test]
fn dependencies_that_lead_nowhere_or_in_a_circle_are_told() {
    check(
        "[services.a]\ncommand = \"a\"\ndepends_on = [\"b\"]\n[services.b]\ncommand = \"b\"\ndepends_on = [\"c\", \"c\"]\n[services.c]\ncommand = \"c\"\ndepends_on = [\"a\", \"cache\", \"c\"]\n[services.cachex]\ncommand = \"x\"\ndepends_on = \"a\"\n",
        r#"
keepalive.toml:6:20: `c` is given twice
  6 | depends_on = ["c", "c"]
    |                    ^^^
  = remove one of them

keepalive.toml:9:15: services wait for each other: a → b → c → a
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
fn users_and_groups_that_are_unknown_are_told() {
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
  = it is not in /etc/group; a number needs no entry there

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
fn variables_that_are_not_set_are_told_with_their_place() {
    check(
        "[services.web]\ncommand = \"serve ${NONE} x\"\ncwd = \"/a/${NONE}\"\nenv = { A = \"${B:+c}\", KEEPALIVE_SERVICE = \"x\", \"\" = \"y\", C = [] }\nenv_file = \"{instance}.env\"\n",
        r#"
keepalive.toml:2:18: variable `NONE` is not set
  2 | command = "serve ${NONE} x"
    |                  ^^^^^^^
  = set it, or give a default: `${NONE:-default}`

keepalive.toml:3:11: variable `NONE` is not set
  3 | cwd = "/a/${NONE}"
    |           ^^^^^^^
  = set it, or give a default: `${NONE:-default}`

keepalive.toml:4:14: `${B:+c}` is neither `${VAR}` nor `${VAR:-default}`
  4 | env = { A = "${B:+c}", KEEPALIVE_SERVICE = "x", "" = "y", C = [] }
    |              ^^^^^^^
  = `$$` gives a plain `$`

keepalive.toml:4:24: `KEEPALIVE_SERVICE` is set by keepalive itself
  4 | env = { A = "${B:+c}", KEEPALIVE_SERVICE = "x", "" = "y", C = [] }
    |                        ^^^^^^^^^^^^^^^^^
  = remove it

keepalive.toml:4:49: `""` cannot be the name of a variable
  4 | env = { A = "${B:+c}", KEEPALIVE_SERVICE = "x", "" = "y", C = [] }
    |                                                 ^^
  = it is not empty and has no `=`

keepalive.toml:4:63: expected a string, found an array
  4 | env = { A = "${B:+c}", KEEPALIVE_SERVICE = "x", "" = "y", C = [] }
    |                                                               ^^
  = write the value in quotes

keepalive.toml:5:13: `{instance}` has no number here: this is one value for all instances
  5 | env_file = "{instance}.env"
    |             ^^^^^^^^^^
  = use `{service}`, or no placeholder

7 errors in the configuration
"#,
    );
}

#[test]
fn signals_that_cannot_be_used_are_told() {
    check(
        "[keepalive]\nsignals = { KILL = \"ignore\", CHLD = \"ignore\", HUP = \"ignore\", SIGHUP = \"ignore\", USR3 = \"ignore\", USR1 = \"drop\" }\n[services.web]\ncommand = \"x\"\n",
        r#"
keepalive.toml:2:13: SIGKILL cannot be caught by any process
  2 | signals = { KILL = "ignore", CHLD = "ignore", HUP = "ignore", SIGHUP = "ignore", USR3 = "ignore", USR1 = "drop" }
    |             ^^^^
  = remove it

keepalive.toml:2:30: SIGCHLD tells keepalive itself that a process has ended
  2 | signals = { KILL = "ignore", CHLD = "ignore", HUP = "ignore", SIGHUP = "ignore", USR3 = "ignore", USR1 = "drop" }
    |                              ^^^^
  = remove it

keepalive.toml:2:63: SIGHUP is given twice
  2 | signals = { KILL = "ignore", CHLD = "ignore", HUP = "ignore", SIGHUP = "ignore", USR3 = "ignore", USR1 = "drop" }
    |                                                               ^^^^^^
  = remove one of them

keepalive.toml:2:82: `USR3` is not a signal
  2 | signals = { KILL = "ignore", CHLD = "ignore", HUP = "ignore", SIGHUP = "ignore", USR3 = "ignore", USR1 = "drop" }
    |                                                                                  ^^^^
  = did you mean `SIGUSR1`?

keepalive.toml:2:106: expected `"forward"`, `"shutdown"` or `"ignore"`, found `"drop"`
  2 | signals = { KILL = "ignore", CHLD = "ignore", HUP = "ignore", SIGHUP = "ignore", USR3 = "ignore", USR1 = "drop" }
    |                                                                                                          ^^^^^^

5 errors in the configuration
"#,
    );
}

#[test]
fn names_that_services_cannot_have_are_told() {
    check(
        "[services.all]\ncommand = \"x\"\n[services.-a]\ncommand = \"x\"\n[services.\"a.b\"]\ncommand = \"x\"\n[[services.c]]\ncommand = \"x\"\n[services.ok]\ncommand = \"x\"\n",
        r#"
keepalive.toml:1:11: `all` stands for all services
  1 | [services.all]
    |           ^^^
  = rename it

keepalive.toml:3:11: the name of a service begins with a letter or digit
  3 | [services.-a]
    |           ^^
  = rename it

keepalive.toml:5:11: the name of a service has ASCII letters, digits, `-` and `_` alone
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
fn what_is_given_twice_names_both_places() {
    check(
        "[services.web]\ncommand = \"x\"\n\n[services.web]\ncommand = \"y\"\nnice = 1\nnice = 2\n",
        r#"
keepalive.toml:4:11: `web` is given twice, first at keepalive.toml:1:11
  4 | [services.web]
    |           ^^^
  = remove or rename one of them

keepalive.toml:5:1: `command` is given twice, first at keepalive.toml:2:1
  5 | command = "y"
    | ^^^^^^^
  = remove or rename one of them

keepalive.toml:7:1: `nice` is given twice, first at keepalive.toml:6:1
  7 | nice = 2
    | ^^^^
  = remove or rename one of them

3 errors in the configuration
"#,
    );
}

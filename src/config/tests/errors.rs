//! Error messages, compared literally.

use super::{check, check_keys};

#[test]
fn all_errors_are_reported_at_once_in_the_order_of_the_file() {
    check(
        "[services.web]\ncommand = [\"a\", 3]\nrestart = \"allways\"\n[services.db]\nstop_timeout = 5\n[srvices]\n[keepalive]\nshutdown_timeout = \"\"\n",
        r#"
keepalive.toml:2:17: expected a string, found `3`
  2 | command = ["a", 3]
    |                 ^
  = each element is one argument, in quotes

keepalive.toml:3:11: expected `"always"`, `"on-failure"` or `"never"`, found `"allways"`
  3 | restart = "allways"
    |           ^^^^^^^^^
  = did you mean `"always"`?

keepalive.toml:4:11: service `db` has no `command`
  4 | [services.db]
    |           ^^
  = such as `command = ["node", "server.js"]`

keepalive.toml:5:16: expected a duration, found `5`
  5 | stop_timeout = 5
    |                ^
  = add a unit: `"5s"` or `"5ms"`

keepalive.toml:6:2: unknown key `srvices` in the file
  6 | [srvices]
    |  ^^^^^^^
  = did you mean `services`?

keepalive.toml:8:20: expected a duration, found `""`
  8 | shutdown_timeout = ""
    |                    ^^
  = such as `"250ms"`, `"5s"`, `"1m30s"`

6 errors in the configuration
"#,
    );
}

#[test]
fn the_maximum_number_of_instances_applies_to_all_services_together() {
    check(
        "[services.a]\ncommand = \"a\"\ninstances = 65536\n[services.b]\ncommand = \"b\"\n[services.c]\ncommand = \"c\"\n",
        r#"
keepalive.toml:4:11: too many instances: 65537 up to here, the limit is 65536
  4 | [services.b]
    |           ^
  = reduce `instances`

1 error in the configuration
"#,
    );
}

#[test]
fn syntax_errors_and_other_errors_are_reported_together() {
    check(
        "[services.web]\ncommand = node\ninstances = -1\n[services.db\nx = 1\n",
        r#"
keepalive.toml:2:11: expected a value, found `node`
  2 | command = node
    |           ^^^^
  = write `"node"`

keepalive.toml:3:13: expected a whole number from 0 to 65536, or `"cpus"`, found `-1`
  3 | instances = -1
    |             ^^
  = write `"cpus"` for one for each CPU

keepalive.toml:4:13: unclosed table, expected `]`
  4 | [services.db
    |             ^

keepalive.toml:5:1: unknown key `x` in the file
  5 | x = 1
    | ^
  = known keys: keepalive, services

4 errors in the configuration
"#,
    );
}

#[test]
fn an_unknown_key_is_reported_with_the_most_similar_or_equivalent_key() {
    check_keys(
        "restrat = \"no\"\nenvironment = {}\nreplicas = 3\nfrobnicate = 1\nhealth_check = {}\nkill_signal = \"SIGINT\"\nmax_surge = 2\nExecStart = 1\nmumble = 2\n",
        r#"
keepalive.toml:3:1: unknown key `restrat` in `[services.web]`
  3 | restrat = "no"
    | ^^^^^^^
  = did you mean `restart`?

keepalive.toml:4:1: unknown key `environment` in `[services.web]`
  4 | environment = {}
    | ^^^^^^^^^^^
  = did you mean `env`?

keepalive.toml:5:1: unknown key `replicas` in `[services.web]`
  5 | replicas = 3
    | ^^^^^^^^
  = did you mean `instances`?

keepalive.toml:6:1: unknown key `frobnicate` in `[services.web]`
  6 | frobnicate = 1
    | ^^^^^^^^^^
  = known keys: command, type, instances, cwd, user, group, groups, umask, env, env_file, env_clear, depends_on, autostart, restart, restart_delay, min_uptime, backoff, max_restarts, success_exit_codes, no_restart_exit_codes, on_failure, on_success, stop_signal, stop_delay, stop_timeout, kill_mode, pre_start, pre_stop, post_stop, hook_timeout, ready, ready_timeout, watchdog, health, on_unhealthy, listen, listen_mode, listen_fds, reload, fd_store, state, ipc, log, limits, nice, oom_score_adj, no_new_privs, schedule, restart_schedule, timezone, max_lifetime, max_memory, watch

keepalive.toml:7:1: unknown key `health_check` in `[services.web]`
  7 | health_check = {}
    | ^^^^^^^^^^^^
  = did you mean `health`?

keepalive.toml:8:1: unknown key `kill_signal` in `[services.web]`
  8 | kill_signal = "SIGINT"
    | ^^^^^^^^^^^
  = did you mean `stop_signal`?

keepalive.toml:9:1: unknown key `max_surge` in `[services.web]`
  9 | max_surge = 2
    | ^^^^^^^^^
  = did you mean `reload`?

keepalive.toml:10:1: unknown key `ExecStart` in `[services.web]`
  10 | ExecStart = 1
     | ^^^^^^^^^
  = did you mean `command`?

keepalive.toml:11:1: unknown key `mumble` in `[services.web]`
  11 | mumble = 2
     | ^^^^^^
  = see the known keys above

9 errors in the configuration
"#,
    );
}

#[test]
fn a_misspelt_command_is_reported_once() {
    check(
        "[services.web]\ncomand = [\"node\"]\n",
        r#"
keepalive.toml:2:1: unknown key `comand` in `[services.web]`
  2 | comand = ["node"]
    | ^^^^^^
  = did you mean `command`?

1 error in the configuration
"#,
    );
}

#[test]
fn keys_of_later_versions_are_reported_as_unsupported() {
    check(
        "[services.web]\ncommand = \"node\"\npid_file = \"x\"\nmax_memory = \"1KiB\"\n",
        r#"
keepalive.toml:3:1: `pid_file` is not supported yet
  3 | pid_file = "x"
    | ^^^^^^^^
  = remove it

keepalive.toml:4:14: every process uses more
  4 | max_memory = "1KiB"
    |              ^^^^^^
  = such as `"512MiB"`

2 errors in the configuration
"#,
    );
}

#[test]
fn invalid_commands_are_errors() {
    check(
        "services.a.command = []\nservices.b.command = \" \"\nservices.c.command = \"it's\"\nservices.d.command = 1\nservices.e.command = [\"\", \"x\"]\nservices.f.command = [\"x\\u0000\"]\nservices.g = {}\nservices.h = 1\n",
        r#"
keepalive.toml:1:22: the command is empty
  1 | services.a.command = []
    |                      ^^
  = such as `["node", "server.js"]` or `"node server.js"`

keepalive.toml:2:22: the command is empty
  2 | services.b.command = " "
    |                      ^^^
  = such as `["node", "server.js"]` or `"node server.js"`

keepalive.toml:3:22: missing closing quote, or a backslash at the end
  3 | services.c.command = "it's"
    |                      ^^^^^^
  = close it, or write an array with one element for each argument

keepalive.toml:4:22: expected an array of strings or a string, found `1`
  4 | services.d.command = 1
    |                      ^
  = such as `["node", "server.js"]` or `"node server.js"`

keepalive.toml:5:22: the command is empty
  5 | services.e.command = ["", "x"]
    |                      ^^^^^^^^^
  = such as `["node", "server.js"]` or `"node server.js"`

keepalive.toml:6:23: a NUL byte cannot be passed to a program
  6 | services.f.command = ["x\u0000"]
    |                       ^^^^^^^^^
  = remove it

keepalive.toml:7:10: service `g` has no `command`
  7 | services.g = {}
    |          ^
  = such as `command = ["node", "server.js"]`

keepalive.toml:8:14: expected a table, found `1`
  8 | services.h = 1
    |              ^
  = write `[services.h]`

8 errors in the configuration
"#,
    );
}

#[test]
fn shell_operators_in_a_command_are_a_warning() {
    check(
        "[services.web]\ncommand = \"migrate && serve\"\n",
        r#"
warning: keepalive.toml:2:20: `&&` is passed to the program unchanged: no shell is started
  2 | command = "migrate && serve"
    |                    ^^
  = to use a shell, write `["sh", "-c", "…"]`
"#,
    );
}

#[test]
fn durations_and_numbers_out_of_range_are_errors() {
    check_keys(
        "restart_delay = 5\nmin_uptime = \"5\"\nstop_timeout = \"soon\"\nmax_restarts = -1\nnice = 20\noom_score_adj = 1001\ninstances = \"many\"\nbackoff = { initial = \"1m\", max = \"5s\", factor = 0.5, jitter = 1.5 }\n",
        r#"
keepalive.toml:3:17: expected a duration, found `5`
  3 | restart_delay = 5
    |                 ^
  = add a unit: `"5s"` or `"5ms"`

keepalive.toml:4:14: expected a duration, found `"5"`
  4 | min_uptime = "5"
    |              ^^^
  = add a unit: `"5s"` or `"5ms"`

keepalive.toml:5:16: expected a duration, found `"soon"`
  5 | stop_timeout = "soon"
    |                ^^^^^^
  = such as `"250ms"`, `"5s"`, `"1m30s"`

keepalive.toml:6:16: expected a whole number from 0 to 4294967295, or `"unlimited"`, found `-1`
  6 | max_restarts = -1
    |                ^^

keepalive.toml:7:8: expected a whole number from -20 to 19, found `20`
  7 | nice = 20
    |        ^^

keepalive.toml:8:17: expected a whole number from -1000 to 1000, found `1001`
  8 | oom_score_adj = 1001
    |                 ^^^^

keepalive.toml:9:13: expected a whole number from 0 to 65536, or `"cpus"`, found `"many"`
  9 | instances = "many"
    |             ^^^^^^

keepalive.toml:10:35: `max` is less than `initial`
  10 | backoff = { initial = "1m", max = "5s", factor = 0.5, jitter = 1.5 }
     |                                   ^^^^
  = raise `max` or lower `initial`

keepalive.toml:10:50: expected a number from 1 to 1000, found `0.5`
  10 | backoff = { initial = "1m", max = "5s", factor = 0.5, jitter = 1.5 }
     |                                                  ^^^

keepalive.toml:10:64: expected a number from 0 to 1, found `1.5`
  10 | backoff = { initial = "1m", max = "5s", factor = 0.5, jitter = 1.5 }
     |                                                                ^^^

10 errors in the configuration
"#,
    );
}

#[test]
fn invalid_exit_codes_and_signals_are_errors() {
    check_keys(
        "success_exit_codes = [256, \"15\", \"SIGTRM\", 1.0]\nno_restart_exit_codes = 125\nstop_signal = \"SIGSTOP\"\n",
        r#"
keepalive.toml:3:23: expected an exit code from 0 to 255 or a signal, found `256`
  3 | success_exit_codes = [256, "15", "SIGTRM", 1.0]
    |                       ^^^
  = write codes as numbers and signals as strings: `[0, "SIGTERM"]`

keepalive.toml:3:28: expected an exit code from 0 to 255 or a signal, found `"15"`
  3 | success_exit_codes = [256, "15", "SIGTRM", 1.0]
    |                            ^^^^
  = write codes as numbers and signals as strings: `[0, "SIGTERM"]`

keepalive.toml:3:34: expected an exit code from 0 to 255 or a signal, found `"SIGTRM"`
  3 | success_exit_codes = [256, "15", "SIGTRM", 1.0]
    |                                  ^^^^^^^^
  = did you mean `SIGTERM`?

keepalive.toml:3:44: expected an exit code from 0 to 255 or a signal, found `1.0`
  3 | success_exit_codes = [256, "15", "SIGTRM", 1.0]
    |                                            ^^^
  = write codes as numbers and signals as strings: `[0, "SIGTERM"]`

keepalive.toml:4:25: expected an array, found `125`
  4 | no_restart_exit_codes = 125
    |                         ^^^
  = such as `[0, 143, "SIGTERM"]`

keepalive.toml:5:15: SIGSTOP does not terminate processes
  5 | stop_signal = "SIGSTOP"
    |               ^^^^^^^^^
  = such as `"SIGTERM"`, `"SIGQUIT"`

6 errors in the configuration
"#,
    );
}

// signal(7): "If a SIGCONT signal is generated for a process, all pending stop signals are discarded."
#[test]
fn stop_signals_that_sigcont_discards_are_errors() {
    for (name, shown) in [("SIGTSTP", "SIGTSTP"), ("ttin", "SIGTTIN"), ("22", "SIGTTOU")] {
        let marks = "^".repeat(name.len() + 2);
        check_keys(
            &format!("stop_signal = \"{name}\"\n"),
            &format!(
                r#"
keepalive.toml:3:15: {shown} does not arrive: SIGCONT follows the stop signal, and the kernel then discards {shown}
  3 | stop_signal = "{name}"
    |               {marks}
  = such as `"SIGTERM"`, `"SIGQUIT"`

1 error in the configuration
"#
            ),
        );
    }
}

#[test]
fn a_command_that_is_only_a_comment_is_empty() {
    check(
        "services.a.command = \"# soon\"\n",
        r##"
keepalive.toml:1:22: the command is empty
  1 | services.a.command = "# soon"
    |                      ^^^^^^^^
  = such as `["node", "server.js"]` or `"node server.js"`

1 error in the configuration
"##,
    );
}

#[test]
fn an_error_in_a_multi_line_string_has_the_right_location() {
    check(
        "[services.a]\ncommand = [\"sh\", \"-c\", \"\"\"\necho 1\n  ${A}\n\"\"\", \'\'\'${B}\'\'\', \'\'\'\r\nx\r\n${C}\'\'\', \"\"\"\\t\n${D}\"\"\"]\n",
        r#"
keepalive.toml:4:3: variable `A` is not set
  4 |   ${A}
    |   ^^^^
  = write `$${A}` to leave it to the shell; otherwise set it, or add a default: `${A:-default}`

keepalive.toml:5:9: variable `B` is not set
  5 | """, '''${B}''', '''
    |         ^^^^
  = write `$${B}` to leave it to the shell; otherwise set it, or add a default: `${B:-default}`

keepalive.toml:7:1: variable `C` is not set
  7 | ${C}''', """\t
    | ^^^^
  = write `$${C}` to leave it to the shell; otherwise set it, or add a default: `${C:-default}`

keepalive.toml:7:10: variable `D` is not set
  7 | ${C}''', """\t
    |          ^^^^^
  = write `$${D}` to leave it to the shell; otherwise set it, or add a default: `${D:-default}`

4 errors in the configuration
"#,
    );
}

#[test]
fn hints_suggest_what_was_probably_meant() {
    check_keys(
        "autostart = yes\nno_new_privs = off\ninstances = \"4\"\nnice = \"40\"\nmax_restarts = 03\nready = \"2s\"\ncwd = \"\"\n",
        r#"
keepalive.toml:3:13: expected a value, found `yes`
  3 | autostart = yes
    |             ^^^
  = write `true`, or `"yes"` if it is a string

keepalive.toml:4:16: expected a value, found `off`
  4 | no_new_privs = off
    |                ^^^
  = write `false`, or `"off"` if it is a string

keepalive.toml:5:13: expected a whole number from 0 to 65536, or `"cpus"`, found `"4"`
  5 | instances = "4"
    |             ^^^
  = write it without quotes: `4`

keepalive.toml:6:8: expected a whole number from -20 to 19, found `"40"`
  6 | nice = "40"
    |        ^^^^

keepalive.toml:7:16: a number cannot start with zero
  7 | max_restarts = 03
    |                ^
  = remove the zero

keepalive.toml:8:9: expected `"exec"`, `"notify"`, `"ipc"` or a table, found `"2s"`
  8 | ready = "2s"
    |         ^^^^
  = write `{ delay = "2s" }`

keepalive.toml:9:7: the path is empty
  9 | cwd = ""
    |       ^^
  = remove `cwd` to use the directory of keepalive

7 errors in the configuration
"#,
    );
}

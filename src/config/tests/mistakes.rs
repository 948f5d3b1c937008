//! Habits from shells and other programs, and the messages that say what to write instead.

use super::*;

/// The messages and hints without the excerpts.
#[track_caller]
fn check_words(input: &str, expect: &[(&str, &str)]) {
    let scratch = Scratch::new();
    scratch.write("keepalive.toml", input.as_bytes());
    let found = match scratch.load() {
        Ok(loaded) => loaded.warnings,
        Err(report) => [report.errors, report.warnings].concat(),
    };
    let found: Vec<(&str, &str)> = found.iter().map(|each| (&*each.message, &*each.hint)).collect();
    assert_eq!(found, expect, "{input}");
}

#[track_caller]
fn check_key(key: &str, message: &str, hint: &str) {
    check_words(&format!("[services.web]\ncommand = \"web\"\n{key}\n"), &[(message, hint)]);
}

#[test]
fn words_of_other_programs_are_corrected() {
    const POLICIES: &str = "`\"always\"`, `\"on-failure\"` or `\"never\"`";
    const KINDS: &str = "`\"service\"` or `\"oneshot\"`";
    const MODES: &str = "`\"mixed\"`, `\"group\"` or `\"process\"`";
    const INSTANCES: &str = "a whole number from 0 to 65536, or `\"cpus\"`";
    const ENDS: &str = "`\"shutdown\"` or `\"ignore\"`";
    const RELOADS: &str = "`\"rolling\"`, `\"signal\"` or `\"restart\"`";
    const DURATION: &str = "a duration";
    const LIMIT: &str = "a number, a size or `\"unlimited\"`";
    let per_cpu = "write `\"cpus\"` for one for each CPU";
    let foreground = "remove it, and let the program run in the foreground, such as `nginx -g 'daemon off;'`";
    for (key, word, expected, hint) in [
        ("restart", "\"unless-stopped\"", POLICIES, "did you mean `\"always\"`?"),
        ("restart", "true", POLICIES, "did you mean `\"always\"`?"),
        ("restart", "\"no\"", POLICIES, "did you mean `\"never\"`?"),
        ("restart", "false", POLICIES, "did you mean `\"never\"`?"),
        ("restart", "\"unexpected\"", POLICIES, "did you mean `\"on-failure\"`?"),
        ("restart", "\"on-abnormal\"", POLICIES, "did you mean `\"on-failure\"`?"),
        ("restart", "\"on-failure:5\"", POLICIES, "write `\"on-failure\"`, and `max_restarts = 5`"),
        ("type", "\"simple\"", KINDS, "did you mean `\"service\"`?"),
        ("type", "\"exec\"", KINDS, "did you mean `\"service\"`?"),
        ("type", "\"notify\"", KINDS, "write `ready = \"notify\"` instead of `type`"),
        ("type", "\"forking\"", KINDS, foreground),
        ("kill_mode", "\"control-group\"", MODES, "did you mean `\"group\"`?"),
        ("kill_mode", "\"process-group\"", MODES, "did you mean `\"group\"`?"),
        ("on_failure", "\"exit\"", ENDS, "did you mean `\"shutdown\"`?"),
        ("on_failure", "\"restart\"", ENDS, "write `restart = \"on-failure\"`"),
        ("on_success", "\"stop\"", ENDS, "did you mean `\"shutdown\"`?"),
        ("reload", "\"HUP\"", RELOADS, "write `{ strategy = \"signal\", signal = \"SIGHUP\" }`"),
        ("autostart", "\"yes\"", "`true` or `false`", "write `true`"),
        ("kill_mode", "\"none\"", MODES, "did you mean `\"process\"`?"),
        ("instances", "\"max\"", INSTANCES, per_cpu),
        ("instances", "-1", INSTANCES, per_cpu),
        ("stop_timeout", "5", DURATION, "add a unit: `\"5s\"` or `\"5ms\"`"),
        ("stop_timeout", "\"5\"", DURATION, "add a unit: `\"5s\"` or `\"5ms\"`"),
        ("stop_timeout", "\"5min\"", DURATION, "write `\"5m\"`"),
        ("stop_timeout", "\"infinity\"", DURATION, "the maximum is `\"213503d\"`"),
        ("stop_timeout", "\"1h30\"", DURATION, "write `\"1h30m\"`"),
        ("limits.memlock", "\"infinity\"", LIMIT, "write `\"unlimited\"`"),
        ("limits.nofile", "\"1024:2048\"", LIMIT, "write `{ soft = 1024, hard = 2048 }`"),
        ("stop_timeout", "\"soon\"", DURATION, "such as `\"250ms\"`, `\"5s\"`, `\"1m30s\"`"),
        ("log.max_size", "\"512M\"", "a size", "write `\"512MiB\"`"),
        ("log.max_size", "\"512mb\"", "a size", "write `\"512MiB\"`"),
        ("log.max_size", "1048576", "a size", "write `\"1048576B\"`"),
        ("log.max_size", "\"much\"", "a size", "such as `\"64KiB\"`, `\"512MiB\"`"),
    ] {
        let more = if key == "log.max_size" { "log.file = \"/x\"\n" } else { "" };
        check_key(&format!("{more}{key} = {word}"), &format!("expected {expected}, found `{word}`"), hint);
    }
    let hint = "write `{ path = \"/x.env\", required = false }`";
    let scratch = Scratch::new();
    scratch.write("keepalive.toml", b"[services.web]\ncommand = \"web\"\nenv_file = \"-/x.env\"\n");
    let [error] = &scratch.load().unwrap_err().errors[..] else { panic!() };
    assert!(error.message.starts_with("cannot read `") && error.hint == hint, "{error}");
    assert_eq!(plan("[services.web]\ncommand = \"web\"\nstop_signal = \"15\"\n").services[0].stop.signal, Signal::TERM);
}

#[test]
fn keys_of_other_programs_are_corrected() {
    for (key, hint) in [
        ("NoNewPrivileges", "did you mean `no_new_privs`?"),
        ("OOMScoreAdjust", "did you mean `oom_score_adj`?"),
        ("ExecStop", "did you mean `pre_stop`?"),
        ("StartLimitIntervalSec", "did you mean `max_restarts`?"),
        ("mem_limit", "did you mean `max_memory`?"),
        ("max_retry", "did you mean `max_restarts`?"),
        ("merge_logs", "did you mean `log`?"),
        ("logging", "write `log = { file = \"…\", max_size = \"10MiB\" }`, or configure the log of the container"),
        ("replicas", "did you mean `instances`?"),
        ("deploy", "write `instances` for its `replicas`, and limit memory and CPUs of the container"),
        ("ulimits", "write `limits = { nofile = 65536 }`"),
        ("PIDFile", "remove it, and let the program run in the foreground"),
        ("RuntimeMaxSec", "write `timeout 1h` in front of the command"),
        ("RemainAfterExit", "remove it, since a oneshot that has succeeded stays completed"),
    ] {
        check_key(&format!("{key} = 1"), &format!("unknown key `{key}` in `[services.web]`"), hint);
    }
    let of_container = "remove it, and set it for the container";
    for key in ["image", "build", "volumes", "networks", "privileged", "ProtectSystem"] {
        check_key(&format!("{key} = 1"), &format!("unknown key `{key}` in `[services.web]`"), of_container);
    }
    let times = "write `log = { timestamps = true }` in `[keepalive]`, or `keepalive logs -t`";
    check_key("log_date_format = 1", "unknown key `log_date_format` in `[services.web]`", times);
    check_key("limits = { LimitNOFILE = 1 }", "unknown limit `LimitNOFILE`", "did you mean `nofile`?");
}

#[test]
fn expansions_and_readiness_of_other_programs_are_corrected() {
    let hint = "write `${A}` or `${A:-default}`, or `$$` for a literal `$`";
    for operation in [":?unset", ":+x"] {
        let message = format!("expected `${{VAR}}` or `${{VAR:-default}}`, found `${{A{operation}}}`");
        check_key(&format!("env = {{ B = \"${{A{operation}}}\" }}"), &message, hint);
    }
    let scratch = Scratch::new();
    scratch.write("keepalive.toml", b"[services.web]\ncommand = \"web\"\nready = \"notify-reload\"\n");
    assert_eq!(scratch.load().unwrap_err().errors[0].hint, "did you mean `\"notify\"`?");
}

#[test]
fn a_path_as_stdout_or_stderr_is_corrected() {
    const OUTPUTS: &str = "expected `\"raw\"`, `\"prefix\"`, `\"inherit\"` or `\"null\"`, found ";
    for (path, hint) in [
        ("/var/log/web.log", "write `STREAM_file = \"/var/log/web.log\"`"),
        ("/dev/null", "write `\"null\"`"),
        ("/dev/stderr", "write `\"inherit\"`"),
    ] {
        for stream in ["stdout", "stderr"] {
            let hint = hint.replace("STREAM", stream);
            check_key(&format!("log = {{ {stream} = \"{path}\" }}"), &format!("{OUTPUTS}`\"{path}\"`"), &hint);
        }
    }
}

#[test]
fn an_open_stream_is_not_a_log_file() {
    for path in ["/dev/stdout", "/dev/stderr", "/dev/fd/1", "/proc/self/fd/2", "/proc/1/fd/1", "/dev//./stdout"] {
        check_key(
            &format!("log = {{ file = \"{path}\" }}"),
            &format!("`{path}` is not a log file: it is an open stream"),
            "remove `file`: without it, a service writes to stdout and stderr of keepalive",
        );
    }
    check_words("[services.web]\ncommand = \"web\"\nlog = { file = \"/dev/fd/x\" }\n", &[]);
}

#[test]
fn a_variable_of_a_shell_script_can_be_left_to_the_shell() {
    let message = "variable `i` is not set";
    let hint = "write `$${i}` to leave it to the shell; otherwise set it, or add a default: `${i:-default}`";
    check_words(
        "[services.web]\ncommand = [\"sh\", \"-c\", \"for i in a b; do echo ${i}; done\"]\n",
        &[(message, hint)],
    );
    check_words("[services.web]\ncommand = \"/bin/sh -c 'echo ${i}'\"\n", &[(message, hint)]);
    check_words(
        "[services.web]\ncommand = [\"node\", \"${i}\"]\n",
        &[(message, "set it, or add a default: `${i:-default}`")],
    );
    let plan = plan("[services.web]\ncommand = [\"sh\", \"-c\", \"echo $${i}\"]\n");
    assert_eq!(plan.services[0].process.command[2], Template::Fixed(c"echo ${i}".to_owned()));
}

#[test]
fn shell_syntax_in_a_command_is_a_warning_at_its_place() {
    check(
        "[services.web]\ncommand = \"PORT=80 puma -b $HOST 2>&1\"\n",
        r#"
warning: keepalive.toml:2:12: `PORT=80` is taken for the program: no shell is started
  2 | command = "PORT=80 puma -b $HOST 2>&1"
    |            ^^^^^^^
  = write `env = { PORT = "80" }`

warning: keepalive.toml:2:28: `$HOST` is passed to the program unchanged: no shell is started
  2 | command = "PORT=80 puma -b $HOST 2>&1"
    |                            ^^^^^
  = write `${HOST}`

warning: keepalive.toml:2:34: `2>&1` is passed to the program unchanged: no shell is started
  2 | command = "PORT=80 puma -b $HOST 2>&1"
    |                                  ^^^^
  = to use a shell, write `["sh", "-c", "…"]`
"#,
    );
}

// systemd.unit(5), "Specifiers"; supervisord, "Expressions".
#[test]
fn specifiers_of_other_programs_are_warnings_at_their_place() {
    check(
        "[services.web]\ncommand = \"app --id %i '%(program_name)s'\"\nenv = { PORT = \"300%(process_num)02d\", HOST = \"%(ENV_HOST)s:80\" }\n",
        r#"
warning: keepalive.toml:2:21: `%i` is not expanded: it is a specifier of another program
  2 | command = "app --id %i '%(program_name)s'"
    |                     ^^
  = write `{instance}`

warning: keepalive.toml:2:25: `%(program_name)s` is not expanded: it is a specifier of another program
  2 | command = "app --id %i '%(program_name)s'"
    |                         ^^^^^^^^^^^^^^^^
  = write `{service}`

warning: keepalive.toml:3:20: `%(process_num)02d` is not expanded: it is a specifier of another program
  3 | env = { PORT = "300%(process_num)02d", HOST = "%(ENV_HOST)s:80" }
    |                    ^^^^^^^^^^^^^^^^^
  = write `{instance}`

warning: keepalive.toml:3:48: `%(ENV_HOST)s` is not expanded: it is a specifier of another program
  3 | env = { PORT = "300%(process_num)02d", HOST = "%(ENV_HOST)s:80" }
    |                                                ^^^^^^^^^^^^
  = write `${HOST}`
"#,
    );
}

#[test]
fn a_percent_sign_with_another_meaning_is_no_specifier() {
    for word in ["%(h)s %(l)s", "%h %l %u %t", "printf %i 5", "50%", "%if", "a%20b%("] {
        check_words(&format!("[services.web]\ncommand = [\"app\", \"{word}\"]\n"), &[]);
    }
    for (word, specifier, hint) in [
        ("/run/app-%i.sock", "%i.", "write `{instance}.`"),
        ("%h/app", "%h/", "write `${HOME}/`"),
        ("%(ENV_HOME)s/x", "%(ENV_HOME)s", "write `${HOME}`"),
        ("%(ENV_HOME", "%(ENV_", "write `${NAME}`"),
    ] {
        let message = format!("`{specifier}` is not expanded: it is a specifier of another program");
        check_words(&format!("[services.web]\ncommand = [\"app\", \"{word}\"]\n"), &[(&message, hint)]);
    }
}

#[test]
fn words_of_supervisord_are_not_log_files() {
    for word in ["NONE", "AUTO", "syslog"] {
        let hint = format!("remove `stdout_file`, or write `./{word}` for a file with this name");
        check_key(&format!("log.stdout_file = \"{word}\""), &format!("`{word}` is not a path"), &hint);
    }
    check_words("[services.web]\ncommand = \"web\"\nlog.file = \"./NONE\"\n", &[]);
}

#[test]
fn two_keys_that_name_the_same_log_file_are_a_warning() {
    let message = "two keys of `log` name the same file";
    let hint = "write `file` alone: it has both streams, in their order";
    for keys in ["stdout_file = \"/x\", stderr_file = \"/${EMPTY}x\"", "file = \"/x\", stdout_file = \"/x\""] {
        check_key(&format!("log = {{ {keys} }}"), message, hint);
    }
    check_words("[services.web]\ncommand = \"web\"\nlog = { stdout_file = \"/x\", stderr_file = \"/y\" }\n", &[]);
}

#[test]
fn programs_of_supervisord_are_services() {
    check_words("[program.x]\ncommand = \"x\"\n", &[("unknown key `program` in the file", "write `[services.NAME]`")]);
}

#[test]
fn lines_of_a_command_are_joined_by_a_backslash() {
    let plan = plan("[services.web]\ncommand = '''printf '[%s]' a \\\n b'''\n");
    let expect = ["printf", "[%s]", "a", "b"].map(|word| Template::Fixed(CString::new(word).unwrap()));
    assert_eq!(*plan.services[0].process.command, expect);
}

#[test]
fn keys_of_a_service_after_the_header_of_its_env_are_a_warning() {
    let keys = "[services.web]\ncommand = \"web\"\n[services.web.env]\nA = \"1\"\nrestart = \"never\"\nstop_timeout = \"30s\"\n";
    let hint = "move it above the `[….env]`, or write variables as `env = { … }`";
    check_words(
        keys,
        &[
            ("`restart` is a variable here, not the key of the service", hint),
            ("`stop_timeout` is a variable here, not the key of the service", hint),
        ],
    );
    check_words("[services.web]\ncommand = \"web\"\nenv = { user = \"x\" }\n", &[]);
    check_words("[services.web]\ncommand = \"web\"\nenv.user = \"x\"\n", &[]);
    check_words("[services]\nweb = { command = \"web\", env = { user = \"x\" } }\n", &[]);
}

#[test]
fn a_file_of_another_program_is_one_error() {
    for (text, format) in [
        ("module.exports = {\n  apps: [\n    { name: 'web', script: 'x' },\n  ],\n};\n", "an ecosystem file of PM2"),
        ("web: node server.js\n", "a Procfile"),
        ("services:\n  web:\n    image: x\n", "a file of Docker Compose"),
    ] {
        let hint = "keepalive reads TOML: `keepalive import` makes it of files of PM2, supervisord, Compose, systemd, s6, runit and Procfiles";
        check_words(text, &[(&format!("this looks like {format}"), hint)]);
    }
}

#[test]
fn a_service_cannot_be_named_keepalive() {
    check_words(
        "[services.keepalive]\ncommand = \"x\"\n",
        &[("the name `keepalive` is reserved: messages of keepalive itself have it", "rename it")],
    );
}

#[test]
fn the_known_keys_are_listed_with_the_first_unknown_key_in_the_file() {
    let scratch = Scratch::new();
    scratch.write("keepalive.toml", b"[services.web]\ncommand = \"web\"\nzzzzzz = 1\nqqqqqq = 2\n");
    let hints: Vec<String> = scratch.load().unwrap_err().errors.into_iter().map(|error| error.hint).collect();
    assert!(hints[0].starts_with("known keys: command, "), "{hints:?}");
    assert_eq!(hints[1], "see the known keys above");
}

#[test]
fn words_of_other_programs_have_hints() {
    for (keys, hint) in [
        ("max_restarts = \"infinity\"", "write `\"unlimited\"`"),
        ("reload = \"graceful\"", "did you mean `\"rolling\"`?"),
        ("restart = \"on-success\"", "there is no such policy: write `\"always\"` to restart after every exit"),
        ("stop_timeout = \"1min 20s\"", "`\"1m20s\"`"),
    ] {
        let scratch = Scratch::new();
        scratch.write("keepalive.toml", format!("[services.web]\ncommand = \"node\"\n{keys}\n").as_bytes());
        let report = scratch.load().unwrap_err();
        assert!(report.errors[0].hint.contains(hint), "{report}");
    }
}

// systemd.service(5). With quotes, a unit is valid TOML.
#[test]
fn the_sections_of_a_systemd_unit_are_recognised() {
    let hint =
        "write `[services.NAME]` with `command` in place of `ExecStart`, since this is a section of a systemd unit";
    for section in ["Unit", "Service", "Install"] {
        let message = format!("unknown key `{section}` in the file");
        check_words(&format!("[{section}]\nExecStart = \"/bin/web\"\n"), &[(&message, hint)]);
    }
    check_words("[service.web]\n", &[("unknown key `service` in the file", "did you mean `services`?")]);
}

// supervisord's and circus's documentation of their configuration files.
#[test]
fn sections_and_keys_of_other_files_are_corrected() {
    let control = "write `control` or `http` in `[keepalive]`";
    for (section, hint) in [
        ("\"program:web\"", "write `[services.NAME]`"),
        ("watcher.web", "write `[services.NAME]`"),
        ("group.web", "write `[services.NAME]` for each program, and a pattern such as `\"web*\"` in commands"),
        ("\"group:web\"", "write `[services.NAME]` for each program, and a pattern such as `\"web*\"` in commands"),
        ("inet_http_server", control),
        ("\"rpcinterface:supervisor\"", control),
        ("\"eventlistener:web\"", "write a service that runs `keepalive events -f --json`"),
        ("Timer", "write `schedule = \"0 4 * * *\"` in `[services.NAME]`"),
        ("Socket", "write `listen = { http = \"tcp://0.0.0.0:80\" }` in `[services.NAME]`"),
        ("include", "write it in `[keepalive]`"),
        ("env", "write it directly below `[services.NAME]`"),
        ("circus", "did you mean `keepalive`?"),
        ("volumes", "remove it, and set it for the container"),
    ] {
        let key = section.split('.').next().unwrap().trim_matches('"');
        check_words(&format!("[{section}]\n"), &[(&format!("unknown key `{key}` in the file"), hint)]);
    }
    for (table, key) in [("health", "restart"), ("log", "stop_timeout"), ("backoff", "max_restarts")] {
        let known = if table == "health" { "tcp = \"127.0.0.1:80\"\n" } else { "" };
        let text = format!("[services.web]\ncommand = \"web\"\n[services.web.{table}]\n{known}{key} = 1\n");
        let hint = "write it directly below `[services.NAME]`";
        check_words(&text, &[(&format!("unknown key `{key}` in `{table}`"), hint)]);
    }
    let message = "unknown key `nodaemon` in `[keepalive]`";
    let foreground = "remove it, since keepalive stays in the foreground";
    check_words("[keepalive]\nnodaemon = true\n[services.web]\ncommand = \"web\"\n", &[(message, foreground)]);
}

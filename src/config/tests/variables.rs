//! `${VAR}` where a number, a duration, a size, a boolean, a user, a signal or a word is wanted.

use std::time::Duration;

use super::*;
use crate::model::ExitStatus;
use crate::model::plan::{Address, Control, KillMode, Kind, Listen, LogFormat, Strategy};

#[test]
fn variables_are_expanded_in_values_of_every_kind() {
    let scratch = Scratch::new();
    scratch.write("app.env", b"WORKERS=2\nGRACE=30\nUSER_NAME=www\nYES=true\nZERO=0\n");
    let input = r#"
        [keepalive]
        control = "${CONTROL:-false}"
        shutdown_timeout = "${SHUTDOWN:-60}s"
        log = { format = "${FORMAT:-json}", timestamps = "${STAMPS:-true}" }
        signals = { SIGUSR1 = "${USR1:-ignore}" }
        [services.db]
        command = "db"
        type = "${KIND:-oneshot}"
        [services.web]
        command = "web"
        env_file = "app.env"
        instances = "${WORKERS}"
        user = "${USER_NAME}"
        group = "${GID:-50}"
        groups = ["${EXTRA:-logs}"]
        umask = "${UMASK:-0027}"
        depends_on = ["${DEPENDENCY:-db}"]
        autostart = "${AUTOSTART:-false}"
        restart = "${RESTART:-on-failure}"
        restart_delay = "${DELAY:-2s}"
        backoff = { initial = "${INITIAL:-1s}", factor = "${FACTOR:-1.5}", jitter = "${JITTER:-0}" }
        max_restarts = "${RESTARTS:-unlimited}"
        success_exit_codes = ["${CODE:-3}", "${SIGNAL:-SIGTERM}"]
        stop_signal = "${STOP:-QUIT}"
        stop_timeout = "${GRACE}s"
        kill_mode = "${MODE:-group}"
        ready = { fd = "${FD:-10}" }
        listen = { http = { address = "tcp://0.0.0.0:${PORT}", nonblocking = "${YES}" } }
        reload = { strategy = "${STRATEGY:-restart}" }
        fd_store = "${ZERO}"
        state = { size = "${SIZE:-64KiB}" }
        limits = { nofile = { soft = "${SOFT:-1024}", hard = "${HARD:-unlimited}" }, core = "${ZERO}" }
        nice = "${NICE:--5}"
        log = { file = "/web.log", max_size = "${MAX:-1MiB}", max_files = "${FILES:-2}" }
    "#;
    scratch.write("keepalive.toml", input.as_bytes());
    let plan = scratch.load().unwrap_or_else(|report| panic!("{report}")).plan;
    assert_eq!((plan.control, plan.shutdown_timeout), (Control::Off, Duration::from_secs(60)));
    assert_eq!((plan.log.format, plan.log.timestamps), (LogFormat::Json, true));
    assert_eq!(plan.signals.of(Signal::USR1), SignalAction::Ignore);
    assert_eq!(plan.services[0].kind, Kind::Oneshot);
    let web = &plan.services[1];
    assert_eq!((web.instances, web.autostart, &*web.depends_on), (2, false, &[ServiceIndex(0)][..]));
    let credentials = web.process.credentials.as_ref().unwrap();
    assert_eq!((credentials.uid, credentials.gid, &*credentials.groups), (33, 50, &[50][..]));
    assert_eq!(web.process.umask, Some(0o027));
    assert_eq!((web.restart.policy, web.restart.delay), (RestartPolicy::OnFailure, Duration::from_secs(2)));
    let backoff = web.restart.backoff;
    assert_eq!((backoff.initial, backoff.factor, backoff.jitter), (Duration::from_secs(1), 1.5, 0.0));
    assert_eq!(web.restart.max_restarts, None);
    let success = [ExitStatus::Code(3), ExitStatus::Signal(Signal::TERM)];
    assert_eq!(web.restart.success, success.into_iter().collect());
    assert_eq!((web.stop.signal, web.stop.timeout), (Signal::QUIT, Duration::from_secs(30)));
    assert_eq!((web.stop.kill_mode, web.ready.clone()), (KillMode::Group, Ready::Fd(10)));
    let address = Address::Tcp("0.0.0.0:80".parse().unwrap());
    assert_eq!(*web.process.listen, [Listen { name: "http".into(), address: address.into(), nonblocking: true }]);
    assert_eq!((web.reload.strategy, web.process.fd_store), (Strategy::Restart, 0));
    assert_eq!(web.process.state.as_ref().unwrap().size, 65_536);
    let limits: Vec<_> = web.process.limits.iter().map(|limit| (limit.name, limit.soft, limit.hard)).collect();
    assert_eq!(limits, [("nofile", Some(1024), None), ("core", Some(0), Some(0))]);
    assert_eq!(web.process.nice, Some(-5));
    let log = &web.process.log_files;
    assert_eq!((log.max_size, log.max_files), (1 << 20, 2));
}

#[test]
fn a_word_may_come_from_a_variable() {
    let plan = plan("[services.web]\ncommand = \"web\"\ninstances = \"${N:-cpus}\"\nready = \"${R:-notify}\"");
    assert_eq!((plan.services[0].instances, &plan.services[0].ready), (3, &Ready::Notify));
}

// A number in quotes is an error unless it comes from a variable.
#[test]
fn values_without_variables_keep_their_errors() {
    check_keys(
        "instances = \"2\"\nautostart = \"$$true\"",
        r#"
keepalive.toml:3:13: expected a whole number from 0 to 65536, or `"cpus"`, found `"2"`
  3 | instances = "2"
    |             ^^^
  = write it without quotes: `2`

keepalive.toml:4:13: expected `true` or `false`, found `"$$true"`
  4 | autostart = "$$true"
    |             ^^^^^^^^

2 errors in the configuration
"#,
    );
}

#[test]
fn an_error_names_the_variable_and_the_kind_but_not_the_value() {
    let scratch = Scratch::new();
    scratch.write("secret.env", b"SECRET=hunter2\nNUMBER=4711\nNONE=\n");
    let input = r#"[services.web]
command = "web"
env_file = "secret.env"
instances = "${SECRET}"
user = "${SECRET}"
group = "${SECRET}"
depends_on = ["${SECRET}"]
autostart = "${NONE}"
stop_timeout = "${NUMBER}"
stop_signal = "${SECRET}"
restart = "${SECRET}"
ready = "${SECRET}"
listen = { http = "${SECRET}" }
backoff = { factor = "${SECRET}", initial = "${UNSET}" }
limits = { nofile = "${SECRET:-1}" }
umask = "${NUMBER}9"
max_restarts = "x${SECRET}"
success_exit_codes = ["${SECRET}"]
"#;
    scratch.write("keepalive.toml", input.as_bytes());
    let output = scratch.output(scratch.load());
    assert!(!output.contains("hunter2") && !output.contains("4711"), "{output}");
    let messages: Vec<&str> = output.lines().filter_map(|line| line.strip_prefix("keepalive.toml:")).collect();
    assert_eq!(
        messages,
        [
            "4:13: expected a whole number from 0 to 65536, or `\"cpus\"`, found the value of `${SECRET}`",
            "5:8: unknown user `${SECRET}`",
            "6:9: unknown group `${SECRET}`",
            "7:15: unknown service `${SECRET}`",
            "8:13: expected `true` or `false`, found the value of `${NONE}`, which is empty",
            "9:16: expected a duration, found the value of `${NUMBER}`",
            "10:15: expected a signal, found the value of `${SECRET}`",
            "11:11: expected `\"always\"`, `\"on-failure\"` or `\"never\"`, found the value of `${SECRET}`",
            "12:9: expected `\"exec\"`, `\"notify\"`, `\"ipc\"` or a table, found the value of `${SECRET}`",
            "13:19: invalid address `${SECRET}`",
            "14:22: expected a number from 1 to 1000, found the value of `${SECRET}`",
            "14:46: variable `UNSET` is not set",
            "15:21: expected a number, a size or `\"unlimited\"`, found the value of `${SECRET:-1}`",
            "16:9: expected an octal number up to 0777, in quotes, found the value of `${NUMBER}9`",
            "17:16: expected a whole number from 0 to 4294967295, or `\"unlimited\"`, found the value of `x${SECRET}`",
            "18:23: expected an exit code from 0 to 255 or a signal, found the value of `${SECRET}`",
        ]
    );
}

#[test]
fn values_of_variables_are_not_shown() {
    let scratch = Scratch::new();
    scratch.write("app.env", b"SECRET=hunter2\nMORE=hunter2\n");
    let input = r#"
        [services.web]
        command = ["web", "--password=${SECRET}", "-i", "{instance}", "$${kept}"]
        env = { TOKEN = "hunter2", OTHER = "${SECRET}" }
        env_file = "app.env"
        ready = { http = "http://127.0.0.1:${PORT}/ok?token=${TOKEN}&port=${PORT}" }
        [services.db]
        command = "db --url 'postgres://${SECRET}@db/{instance}' x"
        env_file = "app.env"
        ready = { exec = ["check", "${SECRET}"] }
        [services.own]
        command = "own"
        env_file = "app.env"
        ready = { http = "http://127.0.0.1:80${PATH:-}${SECRET}" }
        [services.paths]
        command = "x"
        env_file = ["app.env", { path = "${SECRET}.env", when = "start" }]
        cwd = "/srv/${SECRET}"
        log.file = "${SECRET}-{instance}.log"
        state = { size = "1KiB", persist = "/data/${SECRET}" }
        ready = { file = "/run/${SECRET}" }
        [services.address]
        command = "x"
        ready = { tcp = "127.0.0.1:${PORT}" }
    "#;
    scratch.write("keepalive.toml", input.as_bytes());
    let plan = scratch.load().unwrap_or_else(|report| panic!("{report}")).plan;
    let web = &plan.services[0].process.command;
    assert_eq!(web[1].expand(Numbers::SINGLE), c"--password=hunter2".to_owned());
    let text = show::plan_text(Path::new("x"), &plan);
    let json = json::plan_json(&plan, &[]);
    let definitions = plan.services.iter().map(|service| {
        let mut out = Vec::new();
        json::write_definition(&mut out, &plan, service);
        String::from_utf8(out).unwrap()
    });
    for shown in definitions.chain([text.clone(), json.clone()]) {
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    for expect in [
        "  command    web --password=${SECRET} -i {instance} $${kept}\n",
        "  command    db --url postgres://${SECRET}@db/{instance} x\n",
        "  ready      when http://127.0.0.1:${PORT}/ok?token=${TOKEN}&port=${PORT} responds, within 30s\n",
        "  ready      when `check ${SECRET}` succeeds, within 30s\n",
        "  directory  /srv/${SECRET}\n",
        "  env file   ${SECRET}.env\n",
        "  passed     state of 1KiB in /data/${SECRET}\n",
        ", both to ${SECRET}-{instance}.log (",
        "  ready      when /run/${SECRET} exists, within 30s\n",
        "  ready      when 127.0.0.1:${PORT} accepts a connection, within 30s\n",
        "  env        MORE OTHER SECRET TOKEN and the environment of keepalive\n",
    ] {
        assert!(text.contains(expect), "{expect}{text}");
    }
    assert!(json.contains(r#""env":["MORE","OTHER","SECRET","TOKEN"]"#), "{json}");
}

#[test]
fn addresses_and_paths_of_keepalive_are_shown_as_they_were_written() {
    let scratch = Scratch::new();
    let input = r#"
        [keepalive]
        control = "/run/x${PORT}.sock"
        http = "127.0.0.1:91${PORT}"
        termination_log = "/run/x${PORT}.log"
        [services.web]
        command = "web"
        listen = { http = "tcp://127.0.0.1:31${PORT}", own = { address = "unix:///run/y${PORT}", mode = "0600" }, all = "udp://0.0.0.0:1" }
        ready = { tcp = "127.0.0.1:31${PORT}" }
        [services.api]
        command = "api"
        reload = "rolling"
        ready = { http = "http://127.0.0.1:32${PORT}/ok" }
    "#;
    scratch.write("keepalive.toml", input.as_bytes());
    let loaded = scratch.load_as(Purpose::Run, 0).unwrap_or_else(|report| panic!("{report}"));
    let plan = loaded.plan;
    let text = show::plan_text(Path::new("x"), &plan);
    for expect in [
        "  listen     http: tcp://127.0.0.1:31${PORT}, descriptor 3\n",
        "  listen     own: unix:///run/y${PORT}, descriptor 4, mode 0600\n",
        "  listen     all: udp://0.0.0.0:1, descriptor 5\n",
        "\ncontrol socket: /run/x${PORT}.sock\n",
        "\nread-only HTTP: 127.0.0.1:91${PORT}\n",
    ] {
        assert!(text.contains(expect), "{expect}{text}");
    }
    let json = json::plan_json(&plan, &[]);
    for expect in [
        r#""address":"tcp://127.0.0.1:31${PORT}""#,
        r#""address":"unix:///run/y${PORT}""#,
        r#""control":"/run/x${PORT}.sock""#,
        r#""http":"127.0.0.1:91${PORT}""#,
        r#""termination_log":"/run/x${PORT}.log""#,
    ] {
        assert!(json.contains(expect), "{expect}{json}");
    }
    // The warnings about these addresses, too, and the errors.
    let checked = scratch.load_as(Purpose::Check, 0).unwrap_err();
    let warnings: Vec<_> = checked.warnings.iter().map(|warning| warning.message.as_str()).collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].starts_with("`127.0.0.1:31${PORT}` is an address of `listen`"), "{warnings:?}");
    assert!(warnings[1].contains("the old process still has `127.0.0.1:32${PORT}`"), "{warnings:?}");
    let twice = input.replace("udp://0.0.0.0:1", "tcp://0.0.0.0:31${PORT}");
    scratch.write("keepalive.toml", twice.as_bytes());
    let report = scratch.load().unwrap_err().errors.remove(0);
    assert!(
        report.message.starts_with("`tcp://0.0.0.0:31${PORT}` overlaps with `tcp://127.0.0.1:31${PORT}` at"),
        "{report}"
    );
}

#[test]
fn a_program_from_a_variable_is_named_as_it_was_written() {
    let scratch = Scratch::new();
    scratch.write("keepalive.toml", b"[services.web]\ncommand = [\"x/${PORT}\"]\n");
    let report = scratch.load_as(Purpose::Check, 0).unwrap_err();
    assert_eq!(report.errors[0].message, "program `x/${PORT}` not found");
}

#[test]
fn a_directory_from_a_variable_is_named_as_it_was_written() {
    let scratch = Scratch::new();
    scratch.write("keepalive.toml", b"[services.web]\ncommand = \"/bin/true\"\ncwd = \"/none/${PORT}\"\n");
    let report = scratch.load_as(Purpose::Check, 0).unwrap_err();
    assert_eq!(report.errors[0].message, "cannot use `/none/${PORT}` as a directory: no such file or directory");
}

#[test]
fn a_command_that_expands_to_the_same_words_is_the_same() {
    let command = |word: &str| {
        plan(&format!("[services.web]\ncommand = [\"web\", \"{word}\"]\n")).services[0].process.command.clone()
    };
    assert_eq!(command("${PORT}"), command("80"));
    assert_ne!(command("${PORT}"), command("81"));
    assert_ne!(command("${PORT}"), command("8{instance}"));
}

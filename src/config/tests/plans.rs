//! The plans of valid configurations.

use std::time::Duration;

use super::*;
use crate::model::plan::{
    Backoff, Control, Credentials, EnvFile, ExitSet, Hooks, KillMode, Kind, Limit, ListenMode, LogFiles, LogStyle,
    Output, Process, Reload, Restart, Service, SignalActions, Stop, Strategy,
};
use crate::model::{ExitStatus, Number};

pub(super) fn fixed(text: &str) -> Template {
    Template::Fixed(CString::new(text).unwrap())
}

pub(super) fn numbered(pieces: &[&str]) -> Template {
    let (last, pieces) = pieces.split_last().unwrap();
    let text = |piece: &&str| CString::new(*piece).unwrap();
    Template::Numbered {
        pieces: pieces.iter().map(|piece| (text(piece), Number::Instance)).collect(),
        last: text(last),
    }
}

fn minimal() -> Service {
    Service {
        name: "web".into(),
        kind: Kind::Service,
        is_removed: false,
        instances: 1,
        depends_on: Box::default(),
        autostart: true,
        restart: Restart {
            policy: RestartPolicy::Always,
            delay: Duration::ZERO,
            min_uptime: Duration::from_secs(10),
            backoff: Backoff {
                initial: Duration::from_millis(100),
                factor: 2.0,
                max: Duration::from_secs(30),
                jitter: 0.1,
            },
            max_restarts: Some(16),
            success: [ExitStatus::Code(0)].into_iter().collect(),
            prevent: ExitSet::default(),
        },
        on_failure: ExitAction::Shutdown,
        on_success: ExitAction::Ignore,
        stop: Stop {
            signal: Signal::TERM,
            delay: Duration::ZERO,
            timeout: Duration::from_secs(5),
            kill_mode: KillMode::Mixed,
        },
        ready: Ready::Exec,
        probe_timeout: Duration::from_secs(1),
        ready_timeout: Some(Duration::from_secs(30)),
        watchdog: None,
        health: None,
        schedule: None,
        max_lifetime: None,
        max_memory: None,
        watch: None,
        hooks: Hooks::default(),
        reload: Reload { strategy: Strategy::Rolling, max_surge: 1, soak: Duration::from_secs(1) },
        process: Rc::new(Process {
            command: [fixed("node")].into(),
            cwd: None,
            credentials: None,
            umask: None,
            env: Box::default(),
            own_env: 0,
            env_files: Box::default(),
            inherit_env: true,
            input: Input::Null,
            stdout: Output::Raw,
            stderr: Output::Raw,
            log_files: LogFiles::default(),
            limits: Box::default(),
            nice: None,
            oom_score_adj: None,
            no_new_privs: false,
            listen: Box::default(),
            listen_mode: ListenMode::Shared,
            listen_fds: true,
            fd_store: 0,
            state: None,
            ipc: false,
        }),
    }
}

/// Checks that adding `keys` to a minimal service changes the plan as `change` does.
#[track_caller]
pub(super) fn check_service(keys: &str, change: impl FnOnce(&mut Service)) {
    let plan = plan(&format!("[services.web]\ncommand = [\"node\"]\n{keys}\n"));
    let mut expected = minimal();
    change(&mut expected);
    assert_eq!(plan.services, [Rc::new(expected)]);
}

#[test]
fn missing_keys_have_defaults() {
    let expected = Plan {
        shutdown_timeout: Duration::from_secs(9),
        signals: SignalActions::default(),
        termination_log: PathBuf::from("/dev/termination-log").into(),
        log: LogStyle::default(),
        control: Control::Default,
        http: None,
        services: vec![Rc::new(minimal())],
    };
    assert_eq!(plan("services.web.command = [\"node\"]"), expected);
    assert_eq!(plan("\u{feff}[services.web]\r\ncommand = \"node\"\r\n"), expected);
}

#[test]
fn the_global_settings_are_decoded() {
    let plan = plan(concat!(
        "[keepalive]\nshutdown_timeout = \"1m30s\"\ntermination_log = \"/t/${PORT}\"\n",
        "signals = { SIGHUP = \"shutdown\", usr2 = \"reload\", usr1 = \"ignore\", \"RTMIN+3\" = \"kill\", TERM = \"forward\" }\n",
        "[services.web]\ncommand = \"x\"\n"
    ));
    assert_eq!(plan.shutdown_timeout, Duration::from_secs(90));
    assert_eq!(plan.termination_log, PathBuf::from("/t/80").into());
    let uses = [Signal::HUP, Signal::USR1, Signal::parse("37").unwrap(), Signal::TERM, Signal::USR2];
    use SignalAction::{Forward, Ignore, Kill, Reload, Shutdown};
    assert_eq!(uses.map(|signal| plan.signals.of(signal)), [Shutdown, Ignore, Kill, Forward, Reload]);
    let by_default = Signal::all().filter(|signal| SignalActions::default().of(*signal) == Shutdown);
    assert_eq!(by_default.map(Signal::number).collect::<Vec<_>>(), [2, 3, 15, 30, 37]);
}

#[test]
fn every_key_of_a_service_is_decoded() {
    check_service("type = \"oneshot\"\ninstances = \"cpus\"\nautostart = false\nkill_mode = \"process\"", |service| {
        (service.kind, service.ready_timeout) = (Kind::Oneshot, None);
        service.reload.soak = Duration::ZERO;
        service.instances = 3;
        service.autostart = false;
        service.stop.kill_mode = KillMode::Process;
    });
    check_service(
        "restart = \"on-failure\"\nrestart_delay = \"1s\"\nmin_uptime = \"0\"\nmax_restarts = \"unlimited\"\n\
         backoff = { initial = \"1m\", factor = 1, jitter = 0 }\n\
         success_exit_codes = [0, 0x3, \"SIGTERM\"]\nno_restart_exit_codes = [125]",
        |service| {
            let restart = &mut service.restart;
            restart.policy = RestartPolicy::OnFailure;
            restart.delay = Duration::from_secs(1);
            restart.min_uptime = Duration::ZERO;
            restart.max_restarts = None;
            let minute = Duration::from_secs(60);
            restart.backoff = Backoff { initial: minute, factor: 1.0, max: minute, jitter: 0.0 };
            let success = [ExitStatus::Code(0), ExitStatus::Code(3), ExitStatus::Signal(Signal::TERM)];
            restart.success = success.into_iter().collect();
            restart.prevent = [ExitStatus::Code(125)].into_iter().collect();
        },
    );
    check_service(
        "on_failure = \"ignore\"\non_success = \"shutdown\"\nstop_signal = \"QUIT\"\nstop_timeout = \"2s\"\n\
         ready = { delay = \"2s\" }",
        |service| {
            service.on_failure = ExitAction::Ignore;
            service.on_success = ExitAction::Shutdown;
            service.stop.signal = Signal::QUIT;
            service.stop.timeout = Duration::from_secs(2);
            service.ready = Ready::Delay(Duration::from_secs(2));
            service.reload.soak = Duration::ZERO;
        },
    );
    check_service(
        "cwd = \"/a/{instance}\"\numask = \"027\"\nenv_clear = true\nnice = -20\noom_score_adj = 1000\n\
         no_new_privs = true\nlog = { stdout = \"inherit\", stderr = \"null\" }\n\
         limits = { nofile = 1000, core = \"unlimited\", data = { soft = \"64KiB\", hard = \"unlimited\" } }",
        |service| {
            let process = Rc::make_mut(&mut service.process);
            process.cwd = Some(numbered(&["/a/", ""]));
            process.umask = Some(0o027);
            process.inherit_env = false;
            process.nice = Some(-20);
            process.oom_score_adj = Some(1000);
            process.no_new_privs = true;
            process.stdout = Output::Inherit;
            process.stderr = Output::Null;
            process.limits = [
                Limit { name: "nofile", resource: 7, soft: Some(1000), hard: Some(1000) },
                Limit { name: "core", resource: 4, soft: None, hard: None },
                Limit { name: "data", resource: 2, soft: Some(65_536), hard: None },
            ]
            .into();
        },
    );
}

#[test]
fn a_command_is_split_as_by_a_shell_and_expanded_word_by_word() {
    let command =
        |text: &str| plan(&format!("[services.web]\ncommand = {text}\n")).services.remove(0).process.command.clone();
    assert_eq!(*command(r#"'sh -c "a  b" c\ d'"#), [fixed("sh"), fixed("-c"), fixed("a  b"), fixed("c d")]);
    assert_eq!(*command(r#"'a "${PORT} x" ${EMPTY}'"#), [fixed("a"), fixed("80 x"), fixed("")]);
    assert_eq!(
        *command(r#"["{service}", "--id={instance}", "{\"a\": {}}", "$$HOME $1"]"#),
        [fixed("web"), numbered(&["--id=", ""]), fixed("{\"a\": {}}"), fixed("$HOME $1"),]
    );
}

#[test]
fn env_overrides_env_files_which_override_the_users_variables() {
    let scratch = Scratch::new();
    scratch.write("a.env", b"A=file\nHOME=/from/file\nB=\xff\n");
    scratch.write("web.env", b"A=later\nC=${PORT}\n");
    let text = "[services.web]\ncommand = \"x ${A} ${PORT}\"\nuser = \"www\"\nenv_file = [\"a.env\", \"{service}.env\"]\n\
                env = { PORT = \"300{instance}\", D = 5, E = true, USER = \"me\", A2 = \"${A}\" }\n";
    scratch.write("keepalive.toml", text.as_bytes());
    let process = scratch.load().unwrap().plan.services.remove(0).process.clone();
    assert_eq!(*process.command, [fixed("x"), fixed("later"), numbered(&["300", ""])]);
    let binary = Template::Fixed(CString::new(b"B=\xff".to_vec()).unwrap());
    let port = numbered(&["PORT=300", ""]);
    let expected = ["A=later", "A2=later", "C=80", "D=5", "E=true", "HOME=/from/file", "LOGNAME=www", "USER=me"];
    let mut expected: Vec<Template> = expected.into_iter().map(fixed).collect();
    expected.insert(2, binary);
    expected.insert(8, port);
    assert_eq!(*process.env, *expected);
}

// The contract: "A service's own `env` and `env_file` are known to its `command`."
#[test]
fn a_command_and_a_probe_know_the_variables_of_the_process() {
    let scratch = Scratch::new();
    let text = "[services.web]\ncommand = [\"x\", \"-b${HOST}:${WEB_PORT}\", \"${HOME}\", \"${NONE:-no}\"]\nuser = \"www\"\n\
                ready = { tcp = \"127.0.0.1:${WEB_PORT}\" }\nenv = { WEB_PORT = \"300{instance}\", HOST = \"::\" }\n\
                [services.other]\ncommand = \"x ${WEB_PORT:-none}\"\n";
    scratch.write("keepalive.toml", text.as_bytes());
    let services = scratch.load().unwrap().plan.services;
    let [web, other] = [&services[0], &services[1]];
    assert_eq!(*web.process.command, [fixed("x"), numbered(&["-b:::300", ""]), fixed("/var/www"), fixed("no")]);
    assert_eq!(web.ready, Ready::Probe(crate::model::plan::Probe::Tcp(numbered(&["127.0.0.1:300", ""]))));
    assert_eq!(*other.process.command, [fixed("x"), fixed("none")]);
}

#[test]
fn a_user_has_the_groups_of_the_group_file() {
    check_service("user = \"www\"", |service| {
        Rc::make_mut(&mut service.process).credentials =
            Some(Credentials { uid: 33, gid: 34, groups: [34, 50].into() });
        Rc::make_mut(&mut service.process).env =
            [fixed("HOME=/var/www"), fixed("LOGNAME=www"), fixed("USER=www")].into();
    });
    check_service("user = 33\ngroup = \"logs\"\ngroups = []", |service| {
        Rc::make_mut(&mut service.process).credentials = Some(Credentials { uid: 33, gid: 50, groups: [].into() });
        Rc::make_mut(&mut service.process).env =
            [fixed("HOME=/var/www"), fixed("LOGNAME=www"), fixed("USER=www")].into();
    });
    check_service("user = \"1000\"", |service| {
        Rc::make_mut(&mut service.process).credentials =
            Some(Credentials { uid: 1000, gid: 1000, groups: [1000].into() });
        Rc::make_mut(&mut service.process).env = [fixed("HOME=/")].into();
    });
    check_service("group = 7", |service| {
        Rc::make_mut(&mut service.process).credentials = Some(Credentials { uid: 0, gid: 7, groups: [7].into() });
    });
}

#[test]
fn only_root_can_run_services_as_another_user() {
    let scratch = Scratch::new();
    scratch.write("keepalive.toml", b"[services.web]\ncommand = \"x\"\nuser = 1000\n");
    let process = scratch.load_as(Purpose::Run, 1000).unwrap().plan.services.remove(0).process.clone();
    assert_eq!((&process.credentials, &*process.env), (&None, &[fixed("HOME=/")][..]));
    let expected = "keepalive.toml:3:8: only root can change user or group, and keepalive runs as user 1001\n  \
                    3 | user = 1000\n    |        ^^^^\n  \
                    = start keepalive as root, or remove `user`, `group` and `groups`\n\n1 error in the configuration\n";
    assert_eq!(scratch.output(scratch.load_as(Purpose::Run, 1001)), expected);
}

#[test]
fn services_keep_the_order_of_the_file_and_start_after_their_dependencies() {
    let plan = plan(
        "[services.web]\ncommand = \"x\"\ndepends_on = [\"db\", \"cache\"]\n[services.cache]\ncommand = \"x\"\n\
         depends_on = [\"db\"]\n[services.db]\ncommand = \"x\"\n[services.alone]\ncommand = \"x\"\n",
    );
    let names: Vec<&str> = plan.services.iter().map(|service| &*service.name).collect();
    assert_eq!(names, ["web", "cache", "db", "alone"]);
    assert_eq!(*plan.services[0].depends_on, [ServiceIndex(2), ServiceIndex(1)]);
    assert_eq!(start_order(&plan), [2, 1, 0, 3].map(ServiceIndex));
}

#[test]
fn the_command_after_the_dashes_is_the_service_main() {
    let scratch = Scratch::new();
    let path = scratch.write("keepalive.toml", b"[services.web]\ncommand = \"x\"\ndepends_on = [\"main\"]\n");
    let command = ["sh".into(), "-c".into(), "echo ${HOME} {instance}".into()];
    let mut plan = scratch.load_with(&path, &command).unwrap().plan;
    let main = plan.services.remove(1);
    assert_eq!(*plan.services[0].depends_on, [ServiceIndex(1)]);
    let mut expected = minimal();
    expected.name = "main".into();
    expected.restart.policy = RestartPolicy::Never;
    expected.on_success = ExitAction::Shutdown;
    Rc::make_mut(&mut expected.process).command = [fixed("sh"), fixed("-c"), fixed("echo ${HOME} {instance}")].into();
    Rc::make_mut(&mut expected.process).input = Input::Terminal;
    assert_eq!(main, Rc::new(expected));

    scratch.write("keepalive.toml", b"[services.main]\ncommand = \"x\"\n");
    let expected = "keepalive.toml:1:11: the name `main` is reserved for the command after `--`\n  1 | [services.main]\n    |           ^^^^\n  \
                    = rename it\n\n1 error in the configuration\n";
    assert_eq!(scratch.output(scratch.load_with(&path, &command)), expected);
}

#[test]
fn the_control_socket_is_at_the_default_path_at_another_or_off() {
    let control = |setting: &str| plan(&format!("[keepalive]\n{setting}\n[services.a]\ncommand = \"a\"\n")).control;
    assert_eq!(control(""), Control::Default);
    assert_eq!(control("control = true"), Control::Default);
    assert_eq!(control("control = false"), Control::Off);
    assert_eq!(control("control = \"/t/${PORT}.sock\""), Control::At(PathBuf::from("/t/80.sock").into()));
}

#[test]
fn http_is_an_address_with_a_port() {
    let http = |address: &str| {
        plan(&format!("keepalive.http = \"{address}\"\nservices.a.command = \"a\"\n")).http.as_deref().copied()
    };
    for address in ["0.0.0.0:9100", "[::1]:9100", "127.0.0.1:${PORT}"] {
        assert_eq!(http(address), Some(address.replace("${PORT}", "80").parse().unwrap()));
    }
}

#[test]
fn env_files_of_the_start_are_not_read_with_the_configuration() {
    let scratch = Scratch::new();
    scratch.write("load.env", b"A=1\n");
    let text = "[services.web]\ncommand = \"x ${A}\"\nenv_file = [{ path = \"load.env\", when = \"load\" }, \
                { path = \"none\", required = false }, { path = \"{instance}.env\", when = \"start\" }, \
                { path = \"/run/x\", when = \"${WHEN:-start}\", required = \"${EMPTY:-false}\" }]\nenv = { B = 2 }\n";
    scratch.write("keepalive.toml", text.as_bytes());
    let process = scratch.load().unwrap().plan.services.remove(0).process.clone();
    assert_eq!((&*process.env, process.own_env), (&[fixed("B=2"), fixed("A=1")][..], 1));
    let directory = scratch.0.to_str().unwrap();
    let first = EnvFile { path: numbered(&[&format!("{directory}/"), ".env"]), required: true };
    assert_eq!(*process.env_files, [first, EnvFile { path: fixed("/run/x"), required: false }]);
}

#[test]
fn a_command_cannot_use_variables_that_only_the_process_reads() {
    check_keys(
        "cwd = \"/${X}\"\nenv_file = { path = \"/run/x\", when = \"start\" }\n",
        r#"
keepalive.toml:3:9: variable `X` is not set
  3 | cwd = "/${X}"
    |         ^^^^
  = a variable of an `env_file` with `when = "start"` is known only to the process: use `when = "load"`

1 error in the configuration
"#,
    );
    check_keys(
        "env_file = [{ required = false }, { path = \"/\", when = \"never\" }]",
        r#"
keepalive.toml:3:13: `env_file` has no `path`
  3 | env_file = [{ required = false }, { path = "/", when = "never" }]
    |             ^^^^^^^^^^^^^^^^^^^^
  = such as `path = "/run/app.env"`

keepalive.toml:3:44: cannot read `/`: is a directory
  3 | env_file = [{ required = false }, { path = "/", when = "never" }]
    |                                            ^^^

keepalive.toml:3:56: expected `"load"` or `"start"`, found `"never"`
  3 | env_file = [{ required = false }, { path = "/", when = "never" }]
    |                                                        ^^^^^^^

3 errors in the configuration
"#,
    );
}

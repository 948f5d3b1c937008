//! `ready`, `ready_timeout`, `watchdog`, `stop_delay`, `reload`, `state`, `ipc`.

use std::time::Duration;

use super::plans::{check_service, fixed, numbered};
use super::*;
use crate::model::plan::{Address, Kind, Probe, Reload, State, Strategy};

#[track_caller]
fn ready(value: &str) -> Ready {
    let text = format!("[services.web]\ncommand = \"x\"\ninstances = 3\nipc = true\nready = {value}\n");
    plan(&text).services[0].ready.clone()
}

/// Loads the options of `keepalive run`.
#[track_caller]
fn inline(options: &[(&'static str, &str)]) -> Result<Loaded, Report> {
    let mut inline = InlineService { text: "run".to_owned(), ..InlineService::default() };
    for (key, value) in options {
        inline.text.push_str(&format!(" --{key} "));
        let span = inline.text.len()..inline.text.len() + value.len();
        inline.text.push_str(value);
        inline.options.push(InlineOption { key, value: (*value).to_owned(), span });
    }
    inline.name = ("web".to_owned(), 0..3);
    inline.command = vec![(b"x".to_vec(), 0..3), (b"{fd.b}".to_vec(), 0..3)];
    Scratch::new().with_environment(Purpose::Run, 0, &[], |environment| load_inline(&inline, environment))
}

#[test]
fn options_of_run_use_a_short_notation() {
    let address = |port: u16| Address::Tcp(([0, 0, 0, 0], port).into());
    let options = |ready| [("listen", "b=tcp://0.0.0.0:2"), ("listen", "a=tcp://0.0.0.0:1"), ("ready", ready)];
    let service = |ready| inline(&options(ready)).unwrap().plan.services.remove(0);
    let found = service("exec");
    let sockets: Vec<_> = found.process.listen.iter().map(|socket| (&*socket.name, &*socket.address)).collect();
    assert_eq!(sockets, [("b", &address(2)), ("a", &address(1))]);
    assert_eq!(*found.process.command, [fixed("x"), fixed("3")]);
    assert_eq!((&found.ready, found.process.ipc), (&Ready::Exec, false));
    assert_eq!(service("notify").ready, Ready::Notify);
    assert_eq!((&service("ipc").ready, service("ipc").process.ipc), (&Ready::Ipc, true));
    assert_eq!(service("fd=5").ready, Ready::Fd(5));
    assert_eq!(service("delay=2s").ready, Ready::Delay(Duration::from_secs(2)));
    assert_eq!(service("tcp=127.0.0.1:80").ready, Ready::Probe(Probe::Tcp(fixed("127.0.0.1:80"))));
    let exec = Probe::Exec([fixed("a"), fixed("b=c d"), fixed("4")].into());
    assert_eq!(service("exec=a 'b=c d' {fd.a}").ready, Ready::Probe(exec));
    let http = Probe::Http { authority: fixed("127.0.0.1:80"), target: fixed("/?a=b") };
    assert_eq!(service("http=http://localhost?a=b").ready, Ready::Probe(http));
}

#[test]
fn invalid_options_of_run_are_errors() {
    let options = [("listen", "b=tcp://0:2"), ("ready", "http://h/?a=b")];
    let expected = "\
command line:1:14: invalid address `tcp://0:2`
  1 | run --listen b=tcp://0:2 --ready http://h/?a=b
    |              ^^^^^^^^^^^
  = an IP address and a port from 1 to 65535; host names are not resolved

command line:1:34: expected `\"exec\"`, `\"notify\"`, `\"ipc\"` or a table, found `\"http://h/?a=b\"`
  1 | run --listen b=tcp://0:2 --ready http://h/?a=b
    |                                  ^^^^^^^^^^^^^
  = write `http=http://h/?a=b`

2 errors on the command line
";
    assert_eq!(inline(&options).unwrap_err().to_string(), expected);
}

#[track_caller]
fn check_http(url: &str, authority: Template, target: &str) {
    let expected = Probe::Http { authority, target: fixed(target) };
    assert_eq!(ready(&format!("{{ http = \"{url}\" }}")), Ready::Probe(expected), "{url}");
}

#[test]
fn every_kind_of_readiness_is_decoded() {
    assert_eq!(ready("\"exec\""), Ready::Exec);
    assert_eq!(ready("\"notify\""), Ready::Notify);
    assert_eq!(ready("\"ipc\""), Ready::Ipc);
    assert_eq!(ready("{ fd = 3 }"), Ready::Fd(3));
    assert_eq!(ready("{ delay = \"2s\" }"), Ready::Delay(Duration::from_secs(2)));
    let probe = |value: &str| {
        let Ready::Probe(probe) = ready(value) else { panic!("{value}") };
        probe
    };
    assert_eq!(probe("{ tcp = \"127.0.0.1:300{instance}\" }"), Probe::Tcp(numbered(&["127.0.0.1:300", ""])));
    assert_eq!(probe("{ tcp = \"localhost:${PORT}\" }"), Probe::Tcp(fixed("127.0.0.1:80")));
    assert_eq!(probe("{ tcp = \"[::1]:80\" }"), Probe::Tcp(fixed("[::1]:80")));
    assert_eq!(probe("{ file = \"/run/{instance}.up\" }"), Probe::File(numbered(&["/run/", ".up"])));
    let command = || Probe::Exec([fixed("pg_isready"), fixed("-q")].into());
    assert_eq!(probe("{ exec = [\"pg_isready\", \"-q\"] }"), command());
    assert_eq!(probe("{ exec = \"pg_isready -q\" }"), command());
}

// RFC 3986, 3.2.3 and 6.2.3: without a port it is 80, without a path it is `/`.
#[test]
fn a_url_consists_of_authority_and_target() {
    check_http("http://127.0.0.1/ok", fixed("127.0.0.1:80"), "/ok");
    check_http("http://localhost:8080", fixed("127.0.0.1:8080"), "/");
    check_http("http://localhost", fixed("127.0.0.1:80"), "/");
    check_http("http://[::1]/a?b=c#d", fixed("[::1]:80"), "/a?b=c");
    check_http("http://[::1]:8080?b", fixed("[::1]:8080"), "/?b");
    check_http("http://127.0.0.1:300{instance}/{service}", numbered(&["127.0.0.1:300", ""]), "/web");
    check_http("http://127.0.0.1:${PORT}${NONE:-/a/b}", fixed("127.0.0.1:80"), "/a/b");
    let expected = Probe::Http { authority: numbered(&["127.0.0.", ":300", ""]), target: numbered(&["/", "/", ""]) };
    let url = "{ http = \"http://127.0.0.{instance}:300{instance}/{instance}/{instance}\" }";
    assert_eq!(ready(url), Ready::Probe(expected));
}

#[test]
fn durations_and_reload_are_decoded() {
    check_service("ready_timeout = \"1m\"\nwatchdog = \"10s\"\nstop_delay = \"2s\"\nipc = true", |service| {
        service.ready_timeout = Some(Duration::from_secs(60));
        service.watchdog = Some(Duration::from_secs(10));
        service.stop.delay = Duration::from_secs(2);
        Rc::make_mut(&mut service.process).ipc = true;
    });
    let rolling = Reload { strategy: Strategy::Rolling, max_surge: 1, soak: Duration::from_secs(1) };
    for (value, expected) in [
        ("\"rolling\"", rolling),
        ("{}", rolling),
        ("\"restart\"", Reload { strategy: Strategy::Restart, ..rolling }),
        (
            "{ strategy = \"restart\", soak = \"1s\" }",
            Reload { strategy: Strategy::Restart, soak: Duration::from_secs(1), ..rolling },
        ),
        ("{ max_surge = 2, soak = \"5s\" }", Reload { max_surge: 2, soak: Duration::from_secs(5), ..rolling }),
        ("{ strategy = \"signal\", signal = \"HUP\" }", Reload { strategy: Strategy::Signal(Signal::HUP), ..rolling }),
    ] {
        check_service(&format!("reload = {value}"), |service| service.reload = expected);
    }
}

#[test]
fn state_is_in_memory_or_in_a_file() {
    check_service("state = { size = \"1MiB\" }", |service| {
        Rc::make_mut(&mut service.process).state = Some(State { size: 1 << 20, persist: None });
    });
    check_service("instances = 2\nstate = { size = \"1KiB\", persist = \"/d/{service}-{instance}\" }", |service| {
        service.instances = 2;
        Rc::make_mut(&mut service.process).state =
            Some(State { size: 1_024, persist: Some(numbered(&["/d/web-", ""])) });
    });
}

#[test]
fn invalid_readiness_is_an_error() {
    check(
        "[services]\na = { command = \"x\", ready = \"ipc\" }\nb = { command = \"x\", ready = { fd = 4 }, fd_store = 1, listen.a = \"tcp://0.0.0.0:1\" }\nc = { command = \"x\", ready = { tcp = \"db:80\" } }\nd = { command = \"x\", ready = { http = \"https://127.0.0.1/\" } }\ne = { command = \"x\", ready = { http = \"127.0.0.1\" } }\nf = { command = \"x\", ready = { file = \"/a\", exec = \"b\" } }\ng = { command = \"x\", ready = {} }\nh = { command = \"x\", ready = { tcp = \"127.0.0.1:6553{instance}\" }, instances = 7 }\ni = { command = \"x\", ready = { http = \"http://[::1]/a b\" } }\nj = { command = \"x\", ready = { exec = [] } }\nk = { command = \"x\", ready = \"http://127.0.0.1/\" }\nl = { command = \"x\", ready = { tpc = \"127.0.0.1:80\" } }\nm = { command = \"x\", ready = \"notfy\" }\n",
        r#"
keepalive.toml:2:30: `ready = "ipc"` requires `ipc = true`
  2 | a = { command = "x", ready = "ipc" }
    |                              ^^^^^
  = add it

keepalive.toml:3:37: descriptors below 5 are used by `listen` and `fd_store`
  3 | b = { command = "x", ready = { fd = 4 }, fd_store = 1, listen.a = "tcp://0.0.0.0:1" }
    |                                     ^
  = use 5 or higher

keepalive.toml:4:38: invalid address `db:80`, expected IP:PORT
  4 | c = { command = "x", ready = { tcp = "db:80" } }
    |                                      ^^^^^^^
  = such as `127.0.0.1:8080` or `[::1]:8080`; host names are not resolved

keepalive.toml:5:39: TLS is not supported
  5 | d = { command = "x", ready = { http = "https://127.0.0.1/" } }
    |                                       ^^^^^^^^^^^^^^^^^^^^
  = use `http://`, `tcp`, or `exec` with a program that supports TLS

keepalive.toml:6:39: expected an `http://` URL
  6 | e = { command = "x", ready = { http = "127.0.0.1" } }
    |                                       ^^^^^^^^^^^
  = such as `"http://127.0.0.1:8080/healthz"`

keepalive.toml:7:45: `ready` accepts only one key, and `file` is already set
  7 | f = { command = "x", ready = { file = "/a", exec = "b" } }
    |                                             ^^^^
  = remove one of them; an `exec` command can check several things

keepalive.toml:8:30: `ready` is empty
  8 | g = { command = "x", ready = {} }
    |                              ^^
  = such as `{ delay = "2s" }`

keepalive.toml:9:38: invalid address `127.0.0.1:65536`, expected IP:PORT
  9 | h = { command = "x", ready = { tcp = "127.0.0.1:6553{instance}" }, instances = 7 }
    |                                      ^^^^^^^^^^^^^^^^^^^^^^^^^^
  = such as `127.0.0.1:8080` or `[::1]:8080`; host names are not resolved

keepalive.toml:10:39: a URL may contain only ASCII characters, without spaces
  10 | i = { command = "x", ready = { http = "http://[::1]/a b" } }
     |                                       ^^^^^^^^^^^^^^^^^^
  = percent-encode the others, such as `%20`

keepalive.toml:11:39: the command is empty
  11 | j = { command = "x", ready = { exec = [] } }
     |                                       ^^
  = such as `["node", "server.js"]` or `"node server.js"`

keepalive.toml:12:30: expected `"exec"`, `"notify"`, `"ipc"` or a table, found `"http://127.0.0.1/"`
  12 | k = { command = "x", ready = "http://127.0.0.1/" }
     |                              ^^^^^^^^^^^^^^^^^^^
  = write `{ http = "http://127.0.0.1/" }`

keepalive.toml:13:32: unknown key `tpc` in `ready`
  13 | l = { command = "x", ready = { tpc = "127.0.0.1:80" } }
     |                                ^^^
  = did you mean `tcp`?

keepalive.toml:14:30: expected `"exec"`, `"notify"`, `"ipc"` or a table, found `"notfy"`
  14 | m = { command = "x", ready = "notfy" }
     |                              ^^^^^^^
  = did you mean `"notify"`?

13 errors in the configuration
"#,
    );
}

#[test]
fn check_reports_a_missing_program_of_a_readiness_probe() {
    let scratch = Scratch::new();
    scratch.write("keepalive.toml", b"[services.web]\ncommand = \"/bin/sh\"\nready = { exec = \"pg_isready -q\" }\n");
    assert!(scratch.load().is_ok());
    let expected = "\
keepalive.toml:3:18: program `pg_isready` not found in PATH
  3 | ready = { exec = \"pg_isready -q\" }
    |                  ^^^^^^^^^^^^^^^
  = PATH is /nowhere

1 error in the configuration
";
    assert_eq!(scratch.output(scratch.load_as(Purpose::Check, 0)), expected);
}

#[test]
fn invalid_reload_settings_and_durations_are_errors() {
    check(
        "[services]\na = { command = \"x\", reload = \"signal\" }\nb = { command = \"x\", reload = { strategy = \"signal\", soak = \"1s\" } }\nc = { command = \"x\", reload = { signal = \"SIGHUP\" } }\nd = { command = \"x\", reload = { strategy = \"signal\", signal = \"SIGKILL\" } }\ne = { command = \"x\", reload = { strategy = \"roling\", max_surge = 0 } }\nf = { command = \"x\", reload = { max_surge = 0 } }\ng = { command = \"x\", reload = true }\nh = { command = \"x\", ready_timeout = \"0s\", watchdog = \"0\" }\n",
        r#"
keepalive.toml:2:31: the strategy `"signal"` requires `signal`
  2 | a = { command = "x", reload = "signal" }
    |                               ^^^^^^^^
  = write `{ strategy = "signal", signal = "SIGHUP" }`

keepalive.toml:3:31: the strategy `"signal"` requires `signal`
  3 | b = { command = "x", reload = { strategy = "signal", soak = "1s" } }
    |                               ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  = write `{ strategy = "signal", signal = "SIGHUP" }`

keepalive.toml:3:54: `soak` has no effect with the strategy `"signal"`
  3 | b = { command = "x", reload = { strategy = "signal", soak = "1s" } }
    |                                                      ^^^^
  = remove it

keepalive.toml:4:33: `signal` has no effect with the strategy `"rolling"`
  4 | c = { command = "x", reload = { signal = "SIGHUP" } }
    |                                 ^^^^^^
  = add `strategy = "signal"`, or remove it

keepalive.toml:5:63: SIGKILL cannot be caught by any process
  5 | d = { command = "x", reload = { strategy = "signal", signal = "SIGKILL" } }
    |                                                               ^^^^^^^^^
  = such as `"SIGHUP"`

keepalive.toml:6:44: expected `"rolling"`, `"signal"` or `"restart"`, found `"roling"`
  6 | e = { command = "x", reload = { strategy = "roling", max_surge = 0 } }
    |                                            ^^^^^^^^
  = did you mean `"rolling"`?

keepalive.toml:7:45: expected a whole number from 1 to 65536, found `0`
  7 | f = { command = "x", reload = { max_surge = 0 } }
    |                                             ^

keepalive.toml:8:31: expected a table, found `true`
  8 | g = { command = "x", reload = true }
    |                               ^^^^
  = such as `"restart"` or `{ soak = "5s" }`

keepalive.toml:9:38: expected a duration above zero, found `"0s"`
  9 | h = { command = "x", ready_timeout = "0s", watchdog = "0" }
    |                                      ^^^^

keepalive.toml:9:55: expected a duration above zero, found `"0"`
  9 | h = { command = "x", ready_timeout = "0s", watchdog = "0" }
    |                                                       ^^^

10 errors in the configuration
"#,
    );
}

#[test]
fn invalid_state_settings_are_errors() {
    check(
        "[services]\na = { command = \"x\", state = \"1MiB\" }\nb = { command = \"x\", state = { persist = \"/b\" } }\nc = { command = \"x\", state = { size = \"0\" } }\nd = { command = \"x\", state = { size = \"1KiB\", persist = \"/d\" }, instances = 2 }\n",
        r#"
keepalive.toml:2:30: expected a table, found `"1MiB"`
  2 | a = { command = "x", state = "1MiB" }
    |                              ^^^^^^
  = such as `{ size = "1MiB" }`

keepalive.toml:3:30: `state` has no `size`
  3 | b = { command = "x", state = { persist = "/b" } }
    |                              ^^^^^^^^^^^^^^^^^^
  = such as `size = "1MiB"`

keepalive.toml:4:39: expected a size from 1 byte to 1 TiB, found `"0"`
  4 | c = { command = "x", state = { size = "0" } }
    |                                       ^^^

keepalive.toml:5:57: 2 instances would share one state file
  5 | d = { command = "x", state = { size = "1KiB", persist = "/d" }, instances = 2 }
    |                                                         ^^^^
  = add `{instance}` to its path

4 errors in the configuration
"#,
    );
}

#[test]
fn a_oneshot_has_a_time_limit_but_neither_reload_nor_readiness() {
    check_service("type = \"oneshot\"\nready_timeout = \"1m\"", |service| {
        (service.kind, service.reload.soak) = (Kind::Oneshot, Duration::ZERO);
        service.ready_timeout = Some(Duration::from_secs(60));
    });
    check_keys(
        "type = \"oneshot\"\nready = \"notify\"\nready_timeout = \"1s\"\nreload = \"restart\"\nlisten.a = \"tcp://0.0.0.0:1\"\nstate.size = \"1KiB\"\nipc = true\n",
        r#"
keepalive.toml:4:1: `ready` has no effect on a oneshot
  4 | ready = "notify"
    | ^^^^^
  = remove it, or `type = "oneshot"`

keepalive.toml:6:1: `reload` has no effect on a oneshot
  6 | reload = "restart"
    | ^^^^^^
  = remove it, or `type = "oneshot"`

keepalive.toml:7:1: `listen` has no effect on a oneshot
  7 | listen.a = "tcp://0.0.0.0:1"
    | ^^^^^^
  = remove it, or `type = "oneshot"`

3 errors in the configuration
"#,
    );
}

#[test]
fn a_stop_longer_than_the_shutdown_timeout_is_a_warning() {
    check_keys(
        "stop_delay = \"5s\"\nstop_timeout = \"5s\"\n",
        r#"
warning: keepalive.toml:4:16: `shutdown_timeout` limits the whole shutdown to 9s
  4 | stop_timeout = "5s"
    |                ^^^^
  = increase it in `[keepalive]`, and the grace period of the container
"#,
    );
}

#[test]
fn a_probe_on_a_shared_socket_is_a_warning() {
    check_keys(
        "listen = { a = \"tcp://0.0.0.0:80\" }\nready = { tcp = \"127.0.0.1:80\" }\n",
        r#"
warning: keepalive.toml:4:17: `127.0.0.1:80` is an address of `listen`: any instance may answer, so the probe does not prove that this one is ready
  4 | ready = { tcp = "127.0.0.1:80" }
    |                 ^^^^^^^^^^^^^^
  = probe an address that only this instance has, or use `"notify"`, `"ipc"` or `{ fd = 10 }`
"#,
    );
    check_keys("listen = { a = \"tcp://0.0.0.0:80\" }\nready = { http = \"http://127.0.0.1:81/ok\" }\n", "");
}

#[test]
fn check_warns_of_a_probe_that_the_old_process_answers() {
    let message =
        "during a rolling reload the old process still has `127.0.0.1:3000`: it answers the probe of the new one";
    for (keys, is_warned) in [
        ("ready = { tcp = \"127.0.0.1:3000\" }", true),
        ("ready = { http = \"http://localhost:300{instance}/ok\" }", true),
        ("ready = { tcp = \"127.0.0.1:3000\" }\nreload = \"restart\"", false),
        ("ready = { tcp = \"127.0.0.1:3000\" }\nreload = { strategy = \"signal\", signal = \"SIGHUP\" }", false),
        ("ready = { tcp = \"127.0.0.1:3000\" }\nlisten = { http = \"tcp://0.0.0.0:3000\" }", false),
        ("ready = { tcp = \"192.0.2.1:3000\" }", false),
        ("ready = \"notify\"", false),
    ] {
        let scratch = Scratch::new();
        scratch.write("keepalive.toml", format!("[services.web]\ncommand = \"/bin/sh\"\n{keys}\n").as_bytes());
        let warnings =
            |purpose| scratch.load_as(purpose, 0).map_or_else(|report| report.warnings, |loaded| loaded.warnings);
        let is_found = warnings(Purpose::Check).iter().any(|warning| warning.message == message);
        assert_eq!(is_found, is_warned, "{keys}");
        assert!(warnings(Purpose::Run).iter().all(|warning| warning.message != message), "{keys}");
    }
}

#[test]
fn check_warns_of_a_file_that_instances_share() {
    let message = "all instances share this file: the first one that creates it makes the others ready, too";
    for (keys, is_warned) in [
        ("instances = 2\nready = { file = \"/run/up\" }", true),
        ("instances = 2\nready = { file = \"/run/up-{instances}\" }", true),
        ("instances = 2\nready = { file = \"/run/up-{instance}\" }", false),
        ("ready = { file = \"/run/up\" }", false),
    ] {
        assert_eq!(is_warned_of(keys, message), is_warned, "{keys}");
    }
}

#[test]
fn check_warns_of_instances_that_bind_the_same_port() {
    for (keys, name) in [
        ("env = { PORT = \"3000\" }", "PORT"),
        ("env = { PORT = \"${PORT}\" }", "PORT"),
        ("command = [\"/bin/sh\", \"--port\", \"3000\"]", "--port"),
        ("command = [\"/bin/sh\", \"--bind=0.0.0.0:3000\"]", "--bind"),
        ("command = [\"/bin/sh\", \"-p\", \"3000\"]", "-p"),
        ("command = [\"/bin/sh\", \"-b\", \"0.0.0.0:80\"]", "-b"),
        ("command = [\"/bin/sh\", \"--listen\", \":80\"]\nready = \"notify\"", "--listen"),
        ("env = { PORT = \"300{instance}\" }", ""),
        ("env = { PORT = \"300{instance}\" }\ncommand = [\"/bin/sh\", \"--port\", \"${PORT}\"]", ""),
        ("command = [\"/bin/sh\", \"--port\", \"300{instance}\"]", ""),
        ("command = [\"/bin/sh\", \"--port=300{instance}\"]", ""),
        ("env = { PORTAL = \"1\" }", ""),
        ("command = [\"/bin/sh\", \"-p\", \"/run\"]", ""),
        ("command = [\"/bin/sh\", \"--portable\", \"1\"]", ""),
        ("env = { PORT = \"3000\" }\nlisten = { http = \"tcp://0.0.0.0:3000\" }", ""),
    ] {
        let message = format!(
            "all instances get the same `{name}`: only the first can bind that port, unless the program sets SO_REUSEPORT"
        );
        assert_eq!(is_warned_of(&format!("instances = 2\n{keys}"), &message), !name.is_empty(), "{keys}");
        assert!(!is_warned_of(keys, &message), "{keys}");
    }
}

/// Whether `check`, and only that, warns of a service with these keys. Without a name in its backticks, `message` stands for
/// any name.
#[track_caller]
fn is_warned_of(keys: &str, message: &str) -> bool {
    let scratch = Scratch::new();
    let command = if keys.contains("command") { "" } else { "command = \"/bin/sh\"\n" };
    scratch.write("keepalive.toml", format!("[services.web]\n{command}{keys}\n").as_bytes());
    let end = message.split_once("``").map_or(message, |(_, end)| end);
    let is_found = |purpose| {
        let warnings = scratch.load_as(purpose, 0).unwrap().warnings;
        warnings.iter().any(|warning| warning.message == message || (end != message && warning.message.ends_with(end)))
    };
    assert!(!is_found(Purpose::Run), "{keys}");
    is_found(Purpose::Check)
}

#[test]
fn check_warns_of_a_rolling_reload_of_a_program_with_a_port_of_its_own() {
    let message =
        "a rolling reload starts the new process beside the old one, and two processes cannot bind the same port";
    for (keys, is_warned) in [
        ("env = { PORT = \"300{instance}\" }", true),
        ("command = [\"/bin/sh\", \"--port\", \"3000\"]", true),
        ("command = [\"/bin/sh\", \"--bind=0.0.0.0:3000\"]", true),
        ("command = \"nginx\"\nreload = \"rolling\"", true),
        ("command = \"/usr/sbin/php-fpm8.2 -F\"", true),
        ("command = \"redis-server\"\nready = { tcp = \"127.0.0.1:6379\" }", true),
        ("env = { PORT = \"3000\" }\nready = \"notify\"", true),
        ("command = \"nginx\"\nreload = { strategy = \"signal\", signal = \"SIGHUP\" }", false),
        ("command = \"nginx\"\nlisten = { http = { address = \"tcp://0.0.0.0:80\", nonblocking = true } }", false),
        ("reload = \"rolling\"", false),
        ("", false),
        ("env = { PORT = \"3000\" }\nreload = \"restart\"", false),
        ("env = { PORT = \"3000\" }\nlisten = { http = \"tcp://0.0.0.0:3000\" }", false),
        ("env = { PORT = \"3000\" }\ntype = \"oneshot\"", false),
    ] {
        let scratch = Scratch::new();
        let command = if keys.contains("command") { "" } else { "command = \"/bin/sh\"\n" };
        scratch.write("keepalive.toml", format!("[services.web]\n{command}{keys}\n").as_bytes());
        let warnings =
            |purpose| scratch.load_as(purpose, 0).map_or_else(|report| report.warnings, |loaded| loaded.warnings);
        let is_found = warnings(Purpose::Check).iter().any(|warning| warning.message == message);
        assert_eq!(is_found, is_warned, "{keys}");
        assert!(warnings(Purpose::Run).is_empty(), "{keys}");
    }
    let scratch = Scratch::new();
    let hint = |service: &str| {
        scratch.write("keepalive.toml", format!("[services.web]\n{service}\n").as_bytes());
        scratch.load_as(Purpose::Check, 0).unwrap_err().warnings[0].hint.clone()
    };
    let signal = "write `reload = { strategy = \"signal\", signal = \"SIGUSR1\" }`";
    assert_eq!(hint("command = \"/usr/sbin/apache2 -DFOREGROUND\""), signal);
    assert_eq!(hint("command = \"lighttpd -D\""), signal);
    assert_eq!(hint("command = \"mosquitto\""), signal.replace("USR1", "HUP"));
    assert_eq!(hint("command = \"mysqld --port=3306\""), "write `reload = \"restart\"`");
    scratch.write("keepalive.toml", b"[services.web]\ncommand = \"nginx\"\nreload = \"HUP\"\n");
    assert!(scratch.load_as(Purpose::Check, 0).unwrap_err().warnings.is_empty(), "the error is enough");
}

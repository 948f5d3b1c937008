//! The command line and `check`, with the real program.

use std::process::{Command, Output, Stdio};

use crate::harness::{self, Directory, KEEPALIVE};

fn keepalive(scratch: &Directory, words: &[&str]) -> Command {
    let mut command = Command::new(KEEPALIVE);
    command.args(words).current_dir(scratch.path()).env_remove("KEEPALIVE_CONFIG").stdin(Stdio::null());
    command.env("KEEPALIVE_SOCKET", scratch.path().join("control"));
    command
}

fn result_of(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[track_caller]
fn check(scratch: &Directory, words: &[&str], code: i32, stdout: &str, stderr: &str) {
    let output = keepalive(scratch, words).output().unwrap();
    assert_eq!(result_of(&output), (Some(code), stdout.to_owned(), stderr.to_owned()), "{words:?}");
}

const VALID: &[u8] = br#"
[services.web]
command = "sleep 300{instance} 'a b'"
instances = 2
depends_on = ["prepare"]
env = { NUMBER = "300{instance}", SECRET = "xyz" }
ready = { delay = "2s" }
limits = { core = 0 }

[services.prepare]
command = ["true"]
type = "oneshot"
success_exit_codes = [0, 3, "SIGTERM"]
"#;

#[test]
fn check_shows_the_plan_with_all_defaults() {
    let scratch = Directory::new();
    scratch.file("keepalive.toml", VALID, 0o644);
    let expected = "\
keepalive.toml is valid: 2 services, 3 instances

start order (services stop in reverse order)
   1. prepare
   2. web after prepare

prepare
  command    true
  type       oneshot: its dependents start after it has succeeded
  restart    until it succeeds, immediately; after runs shorter than 10s: backoff from 100ms, factor 2, up to 30s, at most 16 times
  success    0, 3, SIGTERM
  on failure shutdown
  on success ignore
  stop       SIGTERM to the main process, SIGKILL after 5s
  output     stdout raw, stderr raw

web
  command    sleep 300{instance} 'a b'
  instances  2
  env        NUMBER SECRET and the environment of keepalive
  depends on prepare
  ready      2s after the program starts
  restart    always, immediately; after runs shorter than 10s: backoff from 100ms, factor 2, up to 30s, at most 16 times
  on failure shutdown
  reload     rolling, 1 at a time
  stop       SIGTERM to the main process, SIGKILL after 5s
  output     stdout raw, stderr raw
  limits     core 0

the shutdown takes at most 9s
";
    check(&scratch, &["check"], 0, expected, "");
    check(&scratch, &["-c", "keepalive.toml", "check"], 0, expected, "");
}

#[test]
fn check_prints_the_plan_as_json() {
    let scratch = Directory::new();
    scratch.file("a.toml", VALID, 0o644);
    let output = keepalive(&scratch, &["check", "--json", "-c", "a.toml"]).output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &json["valid"]), (Some(0), &serde_json::json!(true)));
    assert_eq!(json["plan"]["start_order"], serde_json::json!(["prepare", "web"]));
    let mut expected = serde_json::json!({
        "name": "web", "type": "service", "instances": 2, "command": ["sleep", "300{instance}", "a b"], "cwd": null,
        "user": null, "group": null, "groups": [], "umask": null,
        "env": ["NUMBER", "SECRET"], "env_clear": false,
        "log": {"stdout": "raw", "stderr": "raw"}, "limits": {"core": {"soft": 0, "hard": 0}},
        "nice": null, "oom_score_adj": null, "no_new_privs": false, "depends_on": ["prepare"], "autostart": true,
        "restart": "always", "restart_delay_ms": 0, "min_uptime_ms": 10000,
        "schedule": null, "restart_schedule": null, "timezone": null, "max_lifetime_ms": null, "max_memory_bytes": null, "watch": null,
        "backoff": {"initial_ms": 100, "factor": 2.0, "max_ms": 30000, "jitter": 0.1}, "max_restarts": 16,
        "success_exit_codes": [0], "no_restart_exit_codes": [], "on_failure": "shutdown", "on_success": "ignore",
        "stop_signal": "SIGTERM", "stop_timeout_ms": 5000, "kill_mode": "mixed", "ready": {"delay_ms": 2000},
        "stop_delay_ms": 0, "ready_timeout_ms": 30000, "watchdog_ms": null,
        "reload": {"strategy": "rolling", "signal": null, "max_surge": 1, "soak_ms": 0},
        "listen": [], "listen_mode": "shared", "listen_fds": true, "fd_store": 0, "state": null, "ipc": false,
    });
    expected["env_files"] = serde_json::json!([]);
    expected["probe_timeout_ms"] = 1000.into();
    expected["hook_timeout_ms"] = 30_000.into();
    ["pre_start", "pre_stop", "post_stop"].iter().for_each(|hook| expected[hook] = serde_json::Value::Null);
    expected["health"] = serde_json::Value::Null;
    expected["on_unhealthy"] = serde_json::Value::Null;
    assert_eq!(json["plan"]["services"][0], expected);
}

/// All settings of sockets, readiness and reload.
const SERVED: &[u8] = br#"
[services.web]
command = ["sleep", "{fd.http}"]
instances = 2
listen = { http = { address = "tcp://127.0.0.1:8080", nonblocking = true }, admin = { address = "unix:///run/web.sock", mode = "0600" } }
fd_store = 8
state = { size = "1KiB", persist = "/data/{instance}" }
ipc = true
ready = { http = "http://localhost/ok" }
watchdog = "10s"
health = { http = "http://localhost/ok", timeout = "1s", expect_status = [200, "204-206"], expect_body = "fine", start_period = "30s" }
stop_delay = "2s"
reload = { max_surge = 2, soak = "5s" }
[services.proxy]
command = "sleep 1"
listen = { dns = "udp://[::]:53" }
listen_mode = "reuseport"
listen_fds = false
ready = "notify"
ready_timeout = "1m"
reload = { strategy = "signal", signal = "HUP" }
"#;

#[test]
fn check_shows_sockets_readiness_and_reload() {
    let scratch = Directory::new();
    scratch.file("keepalive.toml", SERVED, 0o644);
    let output = result_of(&keepalive(&scratch, &["check"]).output().unwrap()).1;
    let lines = |title: &str| -> Vec<String> {
        let found = output.lines().filter_map(|line| line.strip_prefix("  ")?.strip_prefix(title));
        found.map(|line| line.trim().to_owned()).collect()
    };
    assert_eq!(lines("command"), ["sleep 3", "sleep 1"]);
    let sockets = [
        "http: tcp://127.0.0.1:8080, descriptor 3, nonblocking",
        "admin: unix:///run/web.sock, descriptor 4, mode 0600",
        "dns: udp://[::]:53, descriptor 3, one for each instance, not in LISTEN_FDS",
    ];
    assert_eq!(lines("listen"), sockets);
    let given = ["an ipc channel, state of 1KiB in /data/{instance}, up to 8 stored descriptors"];
    assert_eq!(lines("passed"), given);
    assert_eq!(
        lines("ready"),
        ["when http://127.0.0.1:80/ok responds, within 30s", "when it sends READY=1, within 1m"]
    );
    assert_eq!(lines("watchdog"), ["every 10s"]);
    let health = "every 10s: http://127.0.0.1:80/ok responds with 200, 204-206 with `fine` within 1s; after 3 failures (30s to start) it is restarted";
    assert_eq!(lines("health"), [health]);
    assert_eq!(lines("reload"), ["rolling, 2 at a time, each must stay ready for 5s", "by SIGHUP"]);
    let stop = "SIGTERM to the main process, SIGKILL after 5s";
    assert_eq!(lines("stop "), [format!("not ready for 2s, then {stop}"), stop.to_owned()]);
}

#[test]
fn check_prints_sockets_readiness_and_reload_as_json() {
    let scratch = Directory::new();
    scratch.file("keepalive.toml", SERVED, 0o644);
    let output = keepalive(&scratch, &["check", "--json"]).output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let web = &json["plan"]["services"][0];
    let listen = serde_json::json!([
        {"name": "http", "address": "tcp://127.0.0.1:8080", "fd": 3, "nonblocking": true},
        {"name": "admin", "address": "unix:///run/web.sock", "fd": 4, "nonblocking": false, "mode": "0600", "user": null,
         "group": null},
    ]);
    assert_eq!(web["listen"], listen);
    assert_eq!(web["state"], serde_json::json!({"size_bytes": 1024, "persist": "/data/{instance}"}));
    assert_eq!(web["ready"], serde_json::json!({"http": "http://127.0.0.1:80/ok"}));
    let numbers = ["fd_store", "watchdog_ms", "stop_delay_ms", "ready_timeout_ms"].map(|key| web[key].as_u64());
    assert_eq!(numbers, [8, 10_000, 2_000, 30_000].map(Some));
    assert_eq!(web["ipc"], true);
    let proxy = &json["plan"]["services"][1];
    assert_eq!((&proxy["listen_mode"], &proxy["ready"]), (&"reuseport".into(), &"notify".into()));
    let reload = serde_json::json!({"strategy": "signal", "signal": "SIGHUP", "max_surge": 1, "soak_ms": 0});
    assert_eq!(proxy["reload"], reload);
}

// The literal expected output, so that the format does not change unnoticed.
#[test]
fn the_json_of_check_is_stable_for_each_kind_of_value() {
    let scratch = Directory::new();
    scratch.file("keepalive.toml", include_bytes!("plan/keepalive.toml"), 0o644);
    let output = keepalive(&scratch, &["check", "--json"]).output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected: serde_json::Value = serde_json::from_str(include_str!("plan/plan.json")).unwrap();
    assert_eq!(json["plan"], expected, "{json}");
}

#[test]
fn check_prints_errors_as_json() {
    let scratch = Directory::new();
    scratch.file("a.toml", b"[services.web]\ncommand = \"true\"\nrestrat = 1\n", 0o644);
    let output = keepalive(&scratch, &["check", "--json", "-c", "a.toml"]).output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let error = serde_json::json!({
        "file": "a.toml", "line": 3, "column": 1, "message": "unknown key `restrat` in `[services.web]`",
        "hint": "did you mean `restart`?",
    });
    let expected = serde_json::json!({"valid": false, "errors": [error], "warnings": [], "plan": null});
    assert_eq!((output.status.code(), json), (Some(78), expected));
}

#[test]
fn check_and_a_start_report_the_same_configuration_errors() {
    let scratch = Directory::new();
    scratch.file("keepalive.toml", b"[services.web]\ncommand = \"true\"\ninstances = -1\n", 0o644);
    let expected = "\
keepalive.toml:3:13: expected a whole number from 0 to 65536, or `\"cpus\"`, found `-1`
  3 | instances = -1
    |             ^^
  = write `\"cpus\"` for one for each CPU

1 error in the configuration
";
    check(&scratch, &["check"], 78, "", expected);
    check(&scratch, &[], 78, "", expected);
    check(&scratch, &["run"], 78, "", expected);
    check(&scratch, &["-c", "keepalive.toml", "--", "true"], 78, "", expected);
}

#[test]
fn only_check_reports_a_missing_program_as_an_error() {
    let scratch = Directory::new();
    let text = "[services.web]\ncommand = \"/nonexistent/x\"\nrestart = \"never\"\n";
    scratch.file("keepalive.toml", text.as_bytes(), 0o644);
    let expected = "\
keepalive.toml:2:11: program `/nonexistent/x` not found
  2 | command = \"/nonexistent/x\"
    |           ^^^^^^^^^^^^^^^^
  = the path is relative to `cwd`

1 error in the configuration
";
    check(&scratch, &["check"], 78, "", expected);
    let output = keepalive(&scratch, &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(127), "{:?}", result_of(&output));
}

#[test]
fn an_error_about_a_missing_configuration_lists_the_searched_paths() {
    let scratch = Directory::new();
    if ["/etc/keepalive/keepalive.toml", "/etc/keepalive.toml"].iter().any(|path| std::path::Path::new(path).exists()) {
        return harness::skip("this machine has a configuration in /etc");
    }
    let expected = "\
no configuration found; looked for
  ./keepalive.toml
  /etc/keepalive/keepalive.toml
  /etc/keepalive.toml
select another file with -c FILE or $KEEPALIVE_CONFIG, or run one command without a file: keepalive -- CMD [ARG…]
";
    check(&scratch, &[], 78, "", expected);
    check(&scratch, &["check"], 78, "", expected);
    let output = keepalive(&scratch, &["check"]).env("KEEPALIVE_CONFIG", "no.toml").output().unwrap();
    let expected = "no.toml: cannot be read: no such file or directory\n\n1 error in the configuration\n";
    assert_eq!(result_of(&output), (Some(78), String::new(), expected.to_owned()));
}

#[test]
fn the_configuration_can_be_read_from_a_pipe() {
    let scratch = Directory::new();
    let mut command = Command::new("sh");
    let line = "printf '[services.a]\\ncommand = \"true\"\\n' | \"$0\" check -c /dev/stdin";
    let output = command.args(["-c", line, KEEPALIVE]).current_dir(scratch.path()).output().unwrap();
    assert!(
        result_of(&output).1.starts_with("/dev/stdin is valid: 1 service, 1 instance\n"),
        "{:?}",
        result_of(&output)
    );
}

#[test]
fn errors_of_run_point_to_the_option() {
    let scratch = Directory::new();
    let expected = "\
command line:1:25: expected `\"always\"`, `\"on-failure\"` or `\"never\"`, found `\"allways\"`
  1 | keepalive run --restart allways --stop-timeout 5 -- sleep {fd.x}
    |                         ^^^^^^^
  = did you mean `\"always\"`?

command line:1:48: expected a duration, found `\"5\"`
  1 | keepalive run --restart allways --stop-timeout 5 -- sleep {fd.x}
    |                                                ^
  = add a unit: `\"5s\"` or `\"5ms\"`

command line:1:59: service `sleep` has no socket `x`
  1 | keepalive run --restart allways --stop-timeout 5 -- sleep {fd.x}
    |                                                           ^^^^^^
  = such as `--listen x=tcp://0.0.0.0:8080`

3 errors on the command line
";
    let words = ["run", "--restart=allways", "--stop-timeout", "5", "--", "sleep", "{fd.x}"];
    check(&scratch, &words, 2, "", expected);
}

#[test]
fn run_starts_a_service_without_a_file() {
    let scratch = Directory::new();
    let script = "echo \"$0 $A ${B:-none} $KEEPALIVE_SERVICE.$KEEPALIVE_INSTANCE\"; exit 7";
    let words = [
        "run",
        "--name",
        "greet",
        "-i",
        "1",
        "--restart",
        "never",
        "--env",
        "A=a{instance}",
        "--env-file",
        "b.env",
        "--",
        "sh",
        "-c",
        script,
        "{service}",
    ];
    scratch.file("b.env", b"export B='b c' # comment\n", 0o644);
    let output = keepalive(&scratch, &words).output().unwrap();
    let (code, stdout, _) = result_of(&output);
    assert_eq!((code, stdout.as_str()), (Some(7), "greet a0 b c greet.0\n"), "{:?}", result_of(&output));
}

#[test]
fn usage_errors_suggest_a_correction() {
    let scratch = Directory::new();
    let expected = "\
keepalive: unknown command `node`
  to run it as a command: keepalive -g -- node app.js
see keepalive --help
";
    check(&scratch, &["-g", "node", "app.js"], 2, "", expected);
    let expected = "keepalive: `keepalive reexec` is not supported yet\nsee keepalive --help\n";
    check(&scratch, &["reexec"], 2, "", expected);
    let expected = "\
keepalive: `-c` needs a file, found an empty name
  is a variable not set?
see keepalive --help
";
    check(&scratch, &["-c", ""], 2, "", expected);
}

#[test]
fn version_and_help_go_to_stdout() {
    let scratch = Directory::new();
    check(&scratch, &["-V"], 0, concat!("keepalive ", env!("CARGO_PKG_VERSION"), "\n"), "");
    for words in [&["--help"][..], &["run", "-h"], &["check", "--help"]] {
        let (code, stdout, stderr) = result_of(&keepalive(&scratch, words).output().unwrap());
        assert_eq!((code, stderr.as_str()), (Some(0), ""));
        assert!(stdout.starts_with("keepalive"), "{stdout}");
        assert!(stdout.lines().all(|line| line.chars().count() <= 120), "{stdout}");
    }
}

#[test]
fn closed_standard_streams_do_not_end_keepalive() {
    let scratch = Directory::new();
    for (line, code) in [
        ("exec \"$0\" --help >&-", 1),
        ("exec \"$0\" nonsense 2>&-", 2),
        ("exec \"$0\" check -c none >&- 2>&- <&-", 78),
        ("exec \"$0\" check -c none 2>/dev/full", 78),
    ] {
        let mut command = Command::new("sh");
        let output = command.args(["-c", line, KEEPALIVE]).current_dir(scratch.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{line}: {:?}", result_of(&output));
    }
}

#[test]
fn run_refuses_an_empty_command() {
    let expected = "command line:1:18: the command is empty\n  1 | keepalive run -- \n    |                  ^\n  = such as `node server.js`\n\n1 error on the command line\n";
    check(&Directory::new(), &["run", "--", ""], 2, "", expected);
}

// README: "`false`: it starts only if something that starts depends on it".
#[test]
fn check_marks_services_without_autostart() {
    let scratch = Directory::new();
    let services = "services.a = { command = \"true\", autostart = false }\n\
                    services.b = { command = \"true\", autostart = false, depends_on = [\"a\"] }\n\
                    services.c = { command = \"true\", depends_on = [\"b\"] }\n\
                    services.d = { command = \"true\", autostart = false, depends_on = [\"a\"] }\n";
    scratch.file("keepalive.toml", services.as_bytes(), 0o644);
    let (code, stdout, stderr) = result_of(&keepalive(&scratch, &["check"]).output().unwrap());
    let order: Vec<&str> = stdout.lines().skip(3).take(4).collect();
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert_eq!(order, ["   1. a", "   2. b after a", "   3. c after b", "   4. d after a (autostart = false)"]);
}

#[test]
fn check_fails_if_the_plan_cannot_be_written() {
    let scratch = Directory::new();
    scratch.file("keepalive.toml", VALID, 0o644);
    for words in [&["check"][..], &["check", "--json"], &["--help"]] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = keepalive(&scratch, words).stdout(full).output().unwrap();
        let expected = "keepalive: cannot write to stdout: No space left on device\n".to_owned();
        assert_eq!(result_of(&output), (Some(1), String::new(), expected), "{words:?}");
    }
}

#[test]
fn check_waits_for_a_slow_reader_and_does_not_cut_its_report() {
    use std::io::Read as _;
    let scratch = Directory::new();
    scratch.file("keepalive.toml", "[services.a]\nx = 1\n[services.b]\n".repeat(2000).as_bytes(), 0o644);
    let whole = keepalive(&scratch, &["check"]).output().unwrap().stderr;
    let (read_end, write_end) = harness::stalled_pipe();
    let mut child = keepalive(&scratch, &["check"]).stderr(write_end).spawn().unwrap();
    harness::wait_for_state(keepalive::model::Pid::new(child.id().cast_signed()).unwrap(), b'S');
    // The pipe is read byte by byte, so that it never has room for the whole report.
    let mut reader = std::fs::File::from(read_end);
    let (mut text, mut byte) = (Vec::new(), [0]);
    while reader.read(&mut byte).unwrap() > 0 {
        text.extend_from_slice(&byte);
    }
    assert_eq!(child.wait().unwrap().code(), Some(78));
    assert!(text.ends_with(&whole));
}

#[test]
fn a_name_with_an_escape_sequence_does_not_steer_the_terminal() {
    let scratch = Directory::new();
    let name = "no\rne\x1b[2J";
    let missing = |words: &[&str]| {
        let (code, stdout, stderr) = result_of(&keepalive(&scratch, words).output().unwrap());
        assert!(code != Some(0) && stdout.is_empty(), "{stderr}");
        assert!(stderr.contains(r"no\rne\x1b[2J") && !stderr.contains(['\r', '\x1b']), "{stderr:?}");
    };
    missing(&["check", "-c", name]);
    missing(&["-c", name]);
    missing(&[name]);
    missing(&["--", name]);
    missing(&["status", "--socket", name]);
}

// README: an invalid level is a warning. env_logger accepts any word as the name of a module.
#[test]
fn an_invalid_log_level_is_a_warning() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let scratch = Directory::new();
    let warning = |value: &str| {
        let expected = "expected error, warn, info, debug or off";
        format!("keepalive: warning: invalid KEEPALIVE_LOG `{value}`: {expected}\n")
    };
    for (value, expected) in [
        (&b"!!"[..], warning("!!")),
        (b"\xff", warning("\u{fffd}")),
        (b"keepalive=lots", warning("keepalive=lots")),
        (b"", String::new()),
        (b"info,keepalive::init=warn", String::new()),
    ] {
        let mut command = keepalive(&scratch, &["--", "true"]);
        let output = command.env("KEEPALIVE_LOG", OsStr::from_bytes(value)).output().unwrap();
        assert_eq!(result_of(&output), (Some(0), String::new(), expected));
    }
}

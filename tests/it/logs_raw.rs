//! The default of `log`: lines as they are, through keepalive.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use keepalive::model::Signal;
use serde_json::Value;

use crate::harness::{KEEPALIVE, PUPPET, Place, Run, have_root, in_every_place, skip, wait_until};
use crate::http::Control;
use crate::logs_lines::{finish_merged, logger_of, start_merged};
use crate::port::ReservedPort;
use crate::services::Set;
use crate::terminal::Terminal;

/// The output of a client command, as text: stdout, stderr.
fn client(set: &Set, words: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(KEEPALIVE).args(words).env("KEEPALIVE_SOCKET", set.socket()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn lines_are_unchanged_by_default_and_keepalive_logs_shows_them() {
    let set = Set::new(
        r#"
        [services.web]
        command = ["PUPPET", "put", "OUT", "one\\n\\x1b[31mred\\xff\\x0d\\n", "ERR", "problem\\n", "THEN", "end-on-term", "0"]
        "#,
    );
    in_every_place(|place| {
        let mut running = set.start(place);
        Control::at(&set.socket());
        let lines = wait_until("the lines of web", || {
            let (code, stdout, stderr) = client(&set, &["logs", "web"]);
            assert_eq!(code, Some(0), "{stderr}");
            (stdout.lines().count() == 4).then_some(stdout)
        });
        let mut lines: Vec<&str> = lines.lines().filter(|line| !line.contains("ready")).collect();
        lines.sort_unstable();
        assert_eq!(lines, ["web.0 | \x1b[31mred\u{fffd}", "web.0 | one", "web.0 | problem"]);
        running.send(Signal::TERM);
        assert_eq!(running.end(), 0);
    });
}

#[test]
fn the_bytes_of_lines_reach_stdout_and_messages_of_keepalive_have_no_column_of_names() {
    let set = Set::new(
        r#"
        [services.web]
        command = ["PUPPET", "put", "OUT", "\\x1b[31mred\\xff\\x0d\\n", "OUT", "y*40000", "OUT", "\\nlast", "ERR", "e\\n"]
        restart = "never"
        "#,
    );
    in_every_place(|place| {
        let mut run = set.run(place);
        let (mut reader, writer) = std::io::pipe().unwrap();
        run.command.stdout(writer);
        let mut running = run.start();
        let mut stdout = Vec::new();
        reader.read_to_end(&mut stdout).unwrap();
        assert_eq!(running.end(), 0);
        let expect = [b"\x1b[31mred\xff\r\n", "y".repeat(40_000).as_bytes(), b"\nlast\n"].concat();
        assert!(stdout == expect, "{}", String::from_utf8_lossy(&stdout));
        let stderr = running.stderr();
        assert!(stderr.contains("keepalive: version ") && stderr.lines().any(|line| line == "e"), "{stderr}");
    });
}

#[test]
fn lines_of_two_services_are_not_mixed_however_they_are_written() {
    let half = |letter: &str| {
        format!("\"OUT\", \"{letter}*3000\", \"OUT\", \"{letter}*3000\", \"OUT\", \"\\\\n\", ").repeat(40)
    };
    let service = |name: &str| {
        format!(
            "[services.{name}]\ncommand = [\"PUPPET\", \"put\", {}\"OUT\", \"end\\\\n\"]\nrestart = \"never\"\n",
            half(name)
        )
    };
    let set = Set::new(&["a", "b"].map(service).concat());
    let (code, stdout, stderr) = set.run(Place::Child).finish();
    assert_eq!(code, 0, "{stderr}");
    for letter in ["a", "b"] {
        assert_eq!(stdout.lines().filter(|line| **line == letter.repeat(6_000)).count(), 40);
    }
    assert_eq!(stdout.lines().count(), 82);
}

// As with `2>&1` in a shell.
#[test]
fn streams_that_go_to_one_place_keep_their_order() {
    let put = "[\"PUPPET\", \"put\", ".to_owned() + &"\"OUT\", \"o\\\\n\", \"ERR\", \"e\\\\n\", ".repeat(100) + "]";
    let of = |log: &str| Set::new(&format!("[services.web]\ncommand = {put}\nrestart = \"never\"\nlog = {log}\n"));
    let is_ordered = |text: &str| {
        let lines: Vec<&str> = text.lines().filter(|line| matches!(*line, "o" | "e")).collect();
        assert_eq!(lines, ["o", "e"].repeat(100), "{text}");
    };
    let (code, text) = finish_merged(of("{}").run(Place::Child));
    assert_eq!(code, 0);
    is_ordered(&String::from_utf8(text).unwrap());
    let set = of("{ stdout = \"null\", stderr = \"null\", file = \"DIR/both.log\" }");
    let (code, stdout, stderr) = set.run(Place::Child).finish();
    assert_eq!((code, stdout.as_str()), (0, ""), "{stderr}");
    is_ordered(&set.read("both.log"));
}

#[test]
fn each_stream_can_have_a_file() {
    let set = Set::new(
        r#"
        [services.web]
        command = ["PUPPET", "put", "OUT", "one\\n", "ERR", "two\\n"]
        restart = "never"
        log = { stdout = "null", stdout_file = "DIR/{service}.out", stderr_file = "DIR/{service}.err", file = "DIR/both" }
        "#,
    );
    in_every_place(|place| {
        let (code, stdout, stderr) = set.run(place).finish();
        assert_eq!((code, stdout.as_str()), (0, ""), "{stderr}");
        assert!(stderr.lines().any(|line| line == "two"), "{stderr}");
        assert_eq!([set.read("web.out"), set.read("web.err")], ["one\n", "two\n"]);
        let both = set.read("both");
        assert!(["one\ntwo\n", "two\none\n"].contains(&both.as_str()), "{both}");
        for name in ["web.out", "web.err", "both"] {
            std::fs::remove_file(set.directory.path().join(name)).unwrap();
        }
    });
}

// proc(5): opening /proc/self/fd/1 opens the file again, with the permissions of its inode.
#[test]
fn the_user_of_a_service_can_open_its_stdout_and_stderr() {
    if !have_root() {
        return;
    }
    for mode in ["raw", "prefix"] {
        let set = Set::new(&format!(
            r#"
            [services.web]
            command = ["sh", "-c", "echo out >/dev/stdout; echo err >/dev/stderr; echo three >/proc/self/fd/1"]
            user = "65534"
            restart = "never"
            log = {{ stdout = "{mode}", stderr = "{mode}" }}
            "#
        ));
        in_every_place(|place| {
            let (code, stdout, stderr) = set.run(place).finish();
            assert_eq!(code, 0, "{stderr}");
            let found = |text: &str, word: &str| text.lines().any(|line| line.ends_with(word));
            assert!(found(&stdout, "out") && found(&stdout, "three") && found(&stderr, "err"), "{stdout}{stderr}");
        });
    }
}

// nginx opens the paths of its logs, in the master process and again at SIGUSR1; in images they lead to /dev/stdout.
#[test]
fn nginx_of_another_user_logs_to_stdout_and_stderr_by_their_paths() {
    if !have_root() || !installed("/usr/sbin/nginx") {
        return;
    }
    let port = ReservedPort::any();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path DIR/{kind};\n"))
        .concat();
    let config = format!(
        "daemon off;\npid DIR/nginx.pid;\nerror_log /dev/stderr notice;\nevents {{}}\nhttp {{\naccess_log /dev/stdout;\n\
         {temporary}server {{ listen {port}; location / {{ return 200 'served'; }} }}\n}}\n"
    );
    for mode in ["raw", "prefix"] {
        let set = Set::new(&format!(
            "[services.web]\ncommand = [\"nginx\", \"-e\", \"/dev/stderr\", \"-c\", \"DIR/nginx.conf\"]\nuser = \"65534\"\n\
             stop_signal = \"SIGQUIT\"\nlog = {{ stdout = \"{mode}\", stderr = \"{mode}\" }}\n"
        ));
        let directory = set.directory.path();
        set.directory.file("nginx.conf", config.replace("DIR", directory.to_str().unwrap()).as_bytes(), 0o644);
        std::os::unix::fs::chown(directory, Some(65_534), None).unwrap();
        let mut running = set.start(Place::Child);
        let mut stream = wait_until("nginx", || TcpStream::connect(port.loopback()).ok());
        stream.write_all(b"GET /page HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("served"), "{answer}");
        Control::at(&set.socket());
        wait_until("both logs", || {
            let lines = client(&set, &["logs", "web"]).1;
            (lines.contains("GET /page ") && lines.contains("start worker process")).then_some(())
        });
        running.send(Signal::TERM);
        assert_eq!(running.end(), 0);
    }
}

fn installed(program: &str) -> bool {
    let exists = Path::new(program).exists();
    if !exists {
        skip(&format!("there is no {program}"));
    }
    exists
}

// A person at a terminal sees which service a line is from; a command that has the terminal is alone on it.
#[test]
fn on_a_terminal_lines_have_names_and_main_has_the_terminal() {
    let set =
        Set::new("[services.web]\ncommand = [\"PUPPET\", \"put\", \"OUT\", \"hello\\\\n\"]\nrestart = \"never\"\n");
    let mut command = Command::new(KEEPALIVE);
    let main = "read line; test -t 1 && test -t 2 && echo main has a terminal";
    command.args(["-c", &set.config, "--", "sh", "-c", main]).env("NO_COLOR", "1");
    let mut terminal = Terminal::start(&mut command);
    terminal.wait_for_text("web.0     | hello");
    terminal.type_in("\n");
    terminal.wait_for_text("main has a terminal");
    assert_eq!(terminal.wait_for_end().0, Some(0));
}

#[test]
fn run_takes_the_mode_of_the_output() {
    for (options, expect) in
        [(&[][..], "hello\n"), (&["--log", "prefix"], "web.0     | hello\n"), (&["--log", "null"], "")]
    {
        let mut words = vec![KEEPALIVE, "run", "--name", "web", "--restart", "never"];
        words.extend(options);
        words.extend(["--", PUPPET, "put", "OUT", "hello\\n"]);
        let (code, stdout, stderr) = Run::words(Place::Child, &words).finish();
        assert_eq!((code, stdout.trim_end()), (0, expect.trim_end()), "{options:?} {stderr}");
    }
}

#[test]
fn logs_shows_times_and_only_the_lines_since_then() {
    let set = Set::new(
        "[services.web]\ncommand = [\"PUPPET\", \"put\", \"OUT\", \"hello\\\\n\", \"THEN\", \"end-on-term\", \"0\"]\n",
    );
    let mut running = set.start(Place::Child);
    Control::at(&set.socket());
    wait_until("the line", || client(&set, &["logs", "web"]).1.contains("hello").then_some(()));
    let (code, stdout, stderr) = client(&set, &["logs", "-t", "--since", "1h", "web"]);
    assert_eq!(code, Some(0), "{stderr}");
    let line = stdout.lines().find(|line| line.ends_with(" web.0 | hello")).unwrap();
    let time = line.split_once(' ').unwrap().0;
    assert!(time.len() == 24 && time.starts_with("20") && time.ends_with('Z'), "{time}");
    for (since, is_shown) in [(time, true), ("2026-01-01", true), ("9999-12-31 23:59", false)] {
        let (code, stdout, stderr) = client(&set, &["logs", "--since", since, "web"]);
        assert_eq!((code, stdout.contains("hello")), (Some(0), is_shown), "{since} {stderr}");
    }
    let (code, _, stderr) = client(&set, &["logs", "--since", "2026-02-30", "web"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("2026-02-30"), "{stderr}");
    wait_until("the line to become old", || {
        let (_, stdout, _) = client(&set, &["logs", "--since", "1ms", "web"]);
        (!stdout.contains("hello")).then_some(())
    });
    let control = Control::at(&set.socket());
    assert_eq!(control.get("/v1/logs?since=soon").status, 400);
    let invalid = control.get("/v1/logs?since=2026-13-01");
    assert_eq!(invalid.status, 400);
    assert!(invalid.body.contains("write the time in UTC"), "{}", invalid.body);
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
}

const FAILING: &str = r#"
    [services.web]
    command = ["PUPPET", "put", "OUT", "far too old\n*40", "OUT", "Error: \\x1b[2Jno \\xff database\\n", "OUT", "the end", "THEN", "exit", "3"]
    max_restarts = 1
    ready = { delay = "1h" }
    ready_timeout = "2h"
    backoff = { initial = "1ms" }
"#;

// The last lines of the last run, and nothing that steers a terminal.
#[test]
fn a_failure_for_good_is_reported_with_the_last_lines() {
    let set = Set::new(FAILING);
    in_every_place(|place| {
        let (code, text) = finish_merged(set.run(place));
        let text = String::from_utf8_lossy(&text).into_owned();
        assert_eq!(code, 3, "{text}");
        let lines: Vec<&str> = text.lines().collect();
        let failed = lines.iter().position(|line| line.contains("web.0 starting → failed")).unwrap();
        assert!(lines[failed].ends_with("gave up after 1 restart); its last lines:"), "{text}");
        let last = &lines[failed + 1..failed + 21];
        assert_eq!(last[0..18], ["keepalive:   far too old"; 18], "{text}");
        assert_eq!(last[18..], [r"keepalive:   Error: \x1b[2Jno \xff database", "keepalive:   the end"], "{text}");
        let end = set.end();
        let (reason, lines) = end.split_once('\n').unwrap();
        assert!(reason.ends_with("exiting with code 3"), "{end}");
        assert!(lines.ends_with("far too old\nError: \\x1b[2Jno \\xff database\nthe end\n"), "{end}");
    });
}

#[test]
fn the_status_of_a_failed_instance_and_the_answer_to_its_start_have_the_last_lines() {
    let set = Set::new(&format!(
        "{FAILING}    on_failure = \"ignore\"\n    [services.other]\n    command = [\"PUPPET\", \"end-on-term\", \"0\"]\n"
    ));
    in_every_place(|place| {
        let mut running = set.start(place);
        let control = Control::at(&set.socket());
        control.wait_for("web.0", "failed");
        let last_lines = |value: &Value| value["last_lines"].as_str().map(str::to_owned);
        let lines = wait_until("the last lines", || last_lines(&control.instance("web.0")));
        assert!(lines.ends_with("Error: \\x1b[2Jno \\xff database\nthe end"), "{lines}");
        assert_eq!(lines.lines().count(), 20, "{lines}");
        assert_eq!(last_lines(&control.instance("other.0")), None);
        let (_, shown, _) = client(&set, &["logs", "-t", "keepalive"]);
        let last = shown.lines().find(|line| line.ends_with(" keepalive |   the end"));
        assert!(
            last.is_some_and(|line| line.starts_with("20") && line.len() == 24 + " keepalive |   the end".len()),
            "{shown}"
        );
        let (code, _, stderr) = client(&set, &["restart", "web"]);
        assert_eq!(code, Some(1), "{stderr}");
        assert!(stderr.ends_with("far too old\nError: \\x1b[2Jno \\xff database\nthe end\n"), "{stderr}");
        running.send(Signal::TERM);
        running.end();
    });
}

#[test]
fn pipes_of_instances_that_are_gone_are_closed() {
    let set = Set::new("[services.web]\ncommand = [\"sleep\", \"1000\"]\n");
    let mut running = set.start(Place::Child);
    let control = Control::at(&set.socket());
    control.wait_for("web.0", "running");
    let scale = |instances: u32| {
        assert_eq!(control.post(&format!("/v1/services/web/scale?instances={instances}")).status, 200);
    };
    // The first pipes that are closed need a process that keepalive keeps, and its descriptor.
    [2, 1].into_iter().for_each(scale);
    let before = control.descriptors_of(running.keepalive());
    [20, 1].into_iter().for_each(scale);
    // At the next turn after the logger has read all.
    wait_until("closed pipes", || {
        assert_eq!(control.get("/livez").status, 200);
        (control.descriptors_of(running.keepalive()) <= before).then_some(())
    });
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
}

#[test]
fn a_failed_reload_is_answered_and_reported_with_the_last_lines() {
    ["rolling", "restart"].into_iter().for_each(check_failed_reload);
}

// With `restart` the next process may have begun before the reload is over.
fn check_failed_reload(strategy: &str) {
    let script = "[ -e DIR/bad ] && { echo boom-reason >&2; exit 3; }; echo up; exec sleep 1000";
    let set = Set::new(&format!(
        "[services.web]\ncommand = [\"sh\", \"-c\", \"{script}\"]\nreload = \"{strategy}\"\nmax_restarts = \"unlimited\"\n\
         backoff = {{ initial = \"0s\" }}\n"
    ));
    in_every_place(|place| {
        let mut running = set.start(place);
        running.expect("up");
        set.directory.file("bad", b"", 0o644);
        let (code, _, stderr) = client(&set, &["reload", "web"]);
        assert_eq!(code, Some(1), "{stderr}");
        assert!(stderr.contains("exited with code 3") && stderr.ends_with("boom-reason\n"), "{stderr}");
        running.send(Signal::TERM);
        assert_eq!(running.end(), 0);
        let stderr = running.stderr();
        let (_, after) = stderr.split_once("web reload failed: ").expect("the message");
        assert!(after.lines().nth(1).is_some_and(|line| line == "keepalive:   boom-reason"), "{stderr}");
        std::fs::remove_file(set.directory.path().join("bad")).unwrap();
    });
}

// PID 1 does not wait for a logger that does not answer.
#[test]
fn a_stopped_logger_delays_no_answer_to_a_failed_start() {
    let set = Set::new(&format!(
        "{FAILING}    on_failure = \"ignore\"\n    autostart = false\n    [services.other]\n    command = [\"PUPPET\", \"end-on-term\", \"0\"]\n"
    ));
    let mut running = set.start(Place::Child);
    let control = Control::at(&set.socket());
    control.wait_for("other.0", "running");
    let logger = logger_of(running.keepalive()).unwrap();
    keepalive::sys::signal_process(logger, Signal::STOP).unwrap();
    let answer = control.post("/v1/services/web/start");
    assert_eq!((answer.status, answer.json().get("last_lines")), (409, None), "{}", answer.reason());
    keepalive::sys::signal_process(logger, Signal::CONT).unwrap();
    wait_until("the last lines", || control.instance("web.0").get("last_lines").cloned());
    running.send(Signal::TERM);
    running.end();
}

// The pages of code that nothing executes, and the buffer that lines were read into.
#[test]
fn an_idle_logger_releases_memory() {
    let set = Set::new("[services.web]\ncommand = [\"PUPPET\", \"lines\", \"20000\", \"end-on-term\", \"0\"]\n");
    let mut run = set.run(Place::Child);
    run.command.stdout(File::create("/dev/null").unwrap());
    let mut running = run.start();
    let logger = wait_until("the logger", || logger_of(running.keepalive()));
    let resident_file_kib = || {
        let rollup = std::fs::read_to_string(format!("/proc/{logger}/status")).unwrap();
        let line = rollup.lines().find_map(|line| line.strip_prefix("RssFile:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    let control = Control::at(&set.socket());
    wait_until("all lines", || {
        let lines = control.get("/v1/logs?service=web&lines=5");
        lines.body.contains("line 00020000").then_some(())
    });
    let busy = resident_file_kib();
    wait_until("the logger to be idle", || (resident_file_kib() < busy).then_some(()));
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
}

#[test]
fn a_oneshot_is_logged_too() {
    let set = Set::new(
        "[services.job]\ntype = \"oneshot\"\ncommand = [\"PUPPET\", \"put\", \"OUT\", \"done\\\\n\"]\n\
         [services.web]\ndepends_on = [\"job\"]\ncommand = [\"PUPPET\", \"end-on-term\", \"0\"]\n",
    );
    let (mut running, _reader) = start_merged(set.run(Place::Child));
    Control::at(&set.socket());
    wait_until("the line", || client(&set, &["logs", "job"]).1.contains("job.0 | done\n").then_some(()));
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
}

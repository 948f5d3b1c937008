//! The logger: the format and the order of lines.

use std::io::{PipeReader, Read};
use std::process::Command;

use keepalive::model::Pid;
use keepalive::sys::procfs;
use serde_json::{Value, json};

use crate::harness::{KEEPALIVE, Place, Run, Running, in_every_place, wait_until};
use crate::services::Set;
use crate::terminal::Terminal;

/// Starts a run with one pipe for stdout and stderr, so that their order is visible.
pub(crate) fn start_merged(mut run: Run) -> (Running, PipeReader) {
    let (reader, writer) = std::io::pipe().unwrap();
    run.command.stdout(writer.try_clone().unwrap()).stderr(writer);
    (run.start(), reader)
}

/// The exit code and all output.
pub(crate) fn finish_merged(run: Run) -> (i32, Vec<u8>) {
    let (mut running, mut reader) = start_merged(run);
    let mut text = Vec::new();
    reader.read_to_end(&mut text).unwrap();
    (running.end(), text)
}

/// The logger of `keepalive`, if it has one.
pub(crate) fn logger_of(keepalive: Pid) -> Option<Pid> {
    let is_logger =
        |pid: &Pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "keepalive-log\n");
    procfs::descendants(keepalive).into_iter().find(is_logger)
}

// A carriage return would show the text after it as a line of another service.
#[test]
fn a_service_cannot_steer_the_terminal_that_its_lines_are_printed_on() {
    let set = Set::new(
        r#"
        [services.evil]
        command = ["PUPPET", "put", "OUT", "one\rgood.0    | forged\n\u001b[31mred\u001b[2Jtext\n"]
        restart = "never"
        log = { stdout = "prefix" }
        "#,
    );
    let mut command = Command::new(KEEPALIVE);
    let terminal = Terminal::start(command.args(["-c", &set.config]).env("NO_COLOR", "1"));
    let (code, screen) = terminal.wait_for_end();
    assert_eq!(code, Some(0), "{screen}");
    let lines: Vec<&str> = screen.lines().filter(|line| line.starts_with("evil.0 ")).collect();
    let expect = [r"evil.0    | one\rgood.0    | forged", "evil.0    | \x1b[31mred\\x1b[2Jtext\x1b[0m"];
    assert_eq!(lines, expect, "{screen:?}");
    let (_, stdout, _) = set.run(Place::Child).finish();
    let bytes = "evil.0    | one\rgood.0    | forged\nevil.0    | \x1b[31mred\x1b[2Jtext";
    assert_eq!(stdout, bytes, "unchanged where it is no terminal");
}

#[test]
fn each_line_starts_with_the_name_of_its_instance() {
    let set = Set::new(
        r#"
        [services.a]
        command = ["PUPPET", "put", "OUT", "one\\n\\ntw", "OUT", "o\\n", "ERR", "three\\n"]
        restart = "never"
        log = { stdout = "prefix", stderr = "prefix" }
        [services.longer]
        command = ["PUPPET", "put", "OUT", "four"]
        instances = 11
        restart = "never"
        log = { stdout = "prefix" }
        "#,
    );
    in_every_place(|place| {
        let (code, stdout, stderr) = set.run(place).finish();
        assert_eq!(code, 0, "{stderr}");
        let (of_a, mut lines): (Vec<&str>, Vec<&str>) = stdout.lines().partition(|line| line.starts_with("a."));
        assert_eq!(of_a, ["a.0       | one", "a.0       | ", "a.0       | two"]);
        lines.sort_unstable();
        let mut expect: Vec<String> =
            (0..11).map(|number| format!("{:<9} | four", format!("longer.{number}"))).collect();
        expect.sort_unstable();
        assert_eq!(lines, expect);
        let others: Vec<&str> = stderr.lines().filter(|line| !line.starts_with("keepalive")).collect();
        assert_eq!(others, ["a.0       | three"]);
        assert!(stderr.lines().next().unwrap().starts_with("keepalive | version "), "{stderr}");
    });
}

#[test]
fn the_unterminated_last_line_of_a_process_comes_before_its_exit_message() {
    let set = Set::new(
        r#"
        [services.web]
        command = ["PUPPET", "put", "OUT", "hello\\n", "ERR", "problem\\n", "OUT", "last words", "THEN", "exit", "3"]
        instances = 4
        max_restarts = 5
        # The first that has failed must not be the end of the others.
        on_failure = "ignore"
        backoff = { initial = "100ms", max = "100ms" }
        log = { stdout = "prefix", stderr = "prefix" }
        "#,
    );
    in_every_place(|place| {
        let (code, text) = finish_merged(set.run(place));
        let text = String::from_utf8(text).unwrap();
        assert_eq!(code, 3, "{text}");
        for instance in 0..4 {
            let end = format!(" web.{instance} running → ");
            let prefix = format!("web.{instance}     | ");
            let of_instance = text
                .lines()
                .filter_map(|line| line.strip_prefix(&prefix).or_else(|| line.contains(&end).then_some("THE END")));
            let lines: Vec<&str> = of_instance.collect();
            // Lines from two pipes have no defined order.
            let runs: Vec<Vec<&str>> = lines.split_inclusive(|line| *line == "THE END").map(<[&str]>::to_vec).collect();
            assert_eq!(runs.len(), 6, "{text}");
            for mut run in runs {
                assert_eq!(run.pop(), Some("THE END"));
                assert_eq!(
                    run.iter().filter(|line| **line != "problem").collect::<Vec<_>>(),
                    [&"hello", &"last words"]
                );
                assert_eq!(run.len(), 3, "{text}");
            }
        }
    });
}

#[test]
fn long_lines_are_split_and_non_text_bytes_are_unchanged() {
    let set = Set::new(
        r#"
        [services.a]
        command = ["PUPPET", "put", "OUT", "x*16384", "OUT", "\\n", "OUT", "y*40000", "OUT", "\\n\\xff\\x00\\xc3\\n"]
        restart = "never"
        log = { stdout = "prefix" }
        "#,
    );
    let (code, text) = finish_merged(set.run(Place::Child));
    assert_eq!(code, 0);
    let lines = text.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"a.0"));
    let expect = [
        format!("a.0       | {}", "x".repeat(16_384)).into_bytes(),
        format!("a.0       + {}", "y".repeat(16_384)).into_bytes(),
        format!("a.0       + {}", "y".repeat(16_384)).into_bytes(),
        format!("a.0       | {}", "y".repeat(40_000 - 2 * 16_384)).into_bytes(),
        b"a.0       | \xff\0\xc3".to_vec(),
    ];
    assert!(lines.eq(expect.iter().map(Vec::as_slice)), "{}", String::from_utf8_lossy(&text));
}

#[test]
fn every_line_is_a_json_object_including_messages_of_keepalive() {
    let set = Set::new(
        r#"
        [keepalive]
        log = { format = "json" }
        [services.web]
        command = ["PUPPET", "put", "OUT", "a \"b\"\\n\\xff\\n", "ERR", "e*16385", "THEN", "exit", "7"]
        restart = "never"
        "#,
    );
    let (code, text) = finish_merged(set.run(Place::Child));
    let text = String::from_utf8(text).unwrap();
    assert_eq!(code, 7, "{text}");
    let mut objects: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for object in &mut objects {
        let time = object.as_object_mut().unwrap().remove("time").unwrap();
        let time = time.as_str().unwrap().to_owned();
        assert!(time.len() == 24 && time.starts_with("20") && time.ends_with('Z'), "{time}");
    }
    let last = objects.last().unwrap();
    assert_eq!((&last["service"], &last["level"]), (&json!("keepalive"), &json!("error")));
    assert!(last["message"].as_str().unwrap().ends_with("exiting with code 7"), "{last}");
    let line = |stream: &str, message: &str, partial: bool| json!({ "service": "web", "instance": "web.0", "stream": stream, "message": message, "partial": partial });
    objects.retain(|object| object["service"] == "web");
    objects.sort_by_key(|object| object["stream"] != "stdout");
    let expect = [
        line("stdout", "a \"b\"", false),
        line("stdout", "\u{fffd}", false),
        line("stderr", &"e".repeat(16_384), true),
        line("stderr", "e", false),
    ];
    assert_eq!(objects, expect);
}

#[test]
fn timestamps_come_before_the_names() {
    let set = Set::new(
        r#"
        [keepalive]
        log = { timestamps = true }
        [services.a]
        command = ["PUPPET", "put", "OUT", "one\\n"]
        restart = "never"
        "#,
    );
    let (code, text) = finish_merged(set.run(Place::Child));
    assert_eq!(code, 0);
    let text = String::from_utf8(text).unwrap();
    let ends: Vec<&str> = text.lines().map(|line| line.split_once("Z ").unwrap().1).collect();
    assert!(ends.contains(&"a.0       | one"), "{text}");
    assert!(text.lines().all(|line| line.starts_with("20") && line.as_bytes()[23] == b'Z'), "{text}");
}

#[test]
fn without_a_log_setting_there_is_no_logger() {
    for (log, expect) in [("{ stdout = \"inherit\", stderr = \"null\" }", false), ("{ stderr = \"prefix\" }", true)] {
        let set = Set::new(&format!("[services.a]\ncommand = [\"PUPPET\", \"end-on-term\", \"0\"]\nlog = {log}\n"));
        in_every_place(|place| {
            let mut running = set.start(place);
            running.ready();
            let keepalive = running.keepalive();
            assert_eq!(logger_of(keepalive).is_some(), expect, "{log}");
            let are_all = || procfs::descendants(keepalive).len() == 1 + usize::from(expect);
            wait_until("the children", || are_all().then_some(()));
            running.send(keepalive::model::Signal::TERM);
            assert_eq!(running.end(), 0);
        });
    }
}

#[test]
fn a_service_inherits_only_its_own_ends_of_the_pipes() {
    let set = Set::new(
        r#"
        [services.a]
        command = ["PUPPET", "state"]
        restart = "never"
        log = { stdout = "prefix", stderr = "prefix" }
        "#,
    );
    in_every_place(|place| {
        let (code, stdout, stderr) = set.run(place).finish();
        assert_eq!(code, 0, "{stderr}");
        assert!(stdout.contains("a.0       | descriptors 0,1,2\n"), "{stdout}");
    });
}

#[test]
fn the_logger_closes_all_descriptors_that_it_does_not_need() {
    let set = Set::new(
        "[services.a]\ncommand = [\"PUPPET\", \"end-on-term\", \"0\"]\nlog = { stdout = \"prefix\", stderr = \"prefix\" }\n",
    );
    let mut running = set.start(Place::Child);
    assert!(running.line().contains("| ready "));
    let logger = logger_of(running.keepalive()).unwrap();
    let mut kinds = wait_until("the logger's descriptors", || {
        let entries = std::fs::read_dir(format!("/proc/{logger}/fd")).ok()?;
        let links = entries.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
        let kinds: Vec<String> =
            links.map(|link| link.to_string_lossy().split(':').next().unwrap().to_owned()).collect();
        // stdin, stdout, stderr, the reopened stdout and stderr, the liveness pipe, two pipes; the socket; epoll, the timer.
        (kinds.len() <= 11).then_some(kinds)
    });
    kinds.sort_unstable();
    let expect = ["anon_inode", "anon_inode", "pipe", "pipe", "pipe", "pipe", "pipe", "pipe", "pipe", "pipe", "socket"];
    assert_eq!(kinds, expect);
    running.send(keepalive::model::Signal::TERM);
    assert_eq!(running.end(), 0);
}

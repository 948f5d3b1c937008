//! The logger: blocked, killed and exited processes delay no others and lose as little as possible.

use std::io::{BufRead, BufReader, PipeReader, Read};
use std::process::Command;
use std::time::Duration;

use keepalive::model::{Pid, Signal};
use keepalive::sys::{Poller, procfs, signal_process};

use crate::harness::{Place, Running, in_every_place, wait_for_death, wait_until};
use crate::http::Control;
use crate::logs_lines::{finish_merged, logger_of, start_merged};
use crate::services::Set;

/// The numbers of the complete lines `PREFIX line N`.
fn numbers<'t>(text: &'t str, prefix: &'t str) -> impl Iterator<Item = u64> + 't {
    let number = move |line: &'t str| line.strip_prefix(prefix)?.strip_prefix("line ").filter(|text| text.len() == 8);
    text.lines().filter_map(move |line| number(line)?.parse().ok())
}

/// Reads all output. A service that is ready gets the signal to continue to its end. So little output is left at the
/// shutdown, which has only two seconds for it even on a busy machine.
fn read_and_let_end(running: &Running, reader: impl Read) -> String {
    let (mut reader, mut text, mut begin) = (BufReader::new(reader), String::new(), 0);
    while !text[begin..].contains("| ready") {
        begin = text.len();
        assert!(reader.read_line(&mut text).unwrap() > 0, "end of output before ready");
    }
    running.send(Signal::USR1);
    reader.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn all_output_is_written_before_keepalive_exits() {
    let set = Set::new(
        r#"
        [services.a]
        command = ["PUPPET", "lines", "100000", "on-signal", "lines", "1000"]
        restart = "never"
        log = { stdout = "prefix" }
        "#,
    );
    in_every_place(|place| {
        let (mut running, reader) = start_merged(set.run(place));
        let text = read_and_let_end(&running, reader);
        assert_eq!(running.end(), 0);
        assert!(numbers(&text, "a.0       | ").eq((1..=100_000).chain(1..=1_000)));
        let completed =
            text.find(" a.0 running → completed").unwrap_or_else(|| panic!("{}", &text[text.len() - 400..]));
        assert!(text.rfind("line 00001000\n").unwrap() < completed);
    });
}

#[test]
fn lines_of_many_instances_are_not_mixed() {
    let set = Set::new(
        r#"
        [services.many]
        command = ["PUPPET", "lines", "10"]
        instances = 300
        restart = "never"
        log = { stdout = "prefix", stderr = "prefix" }
        "#,
    );
    let mut run = set.run(Place::Child);
    // This needs more descriptors than the soft limit; services inherit the original limit.
    run.command.env("KEEPALIVE_LOG", "warn");
    let (code, text) = finish_merged(run);
    let text = String::from_utf8(text).unwrap();
    assert_eq!(code, 0, "{text}");
    for instance in 0..300 {
        let prefix = format!("{:<9} | ", format!("many.{instance}"));
        assert!(numbers(&text, &prefix).eq(1..=10), "{prefix}");
    }
    assert_eq!(text.lines().count(), 3_000);
}

#[test]
fn a_blocked_stdout_slows_only_the_writer() {
    let set = Set::new(
        r#"
        [keepalive]
        shutdown_timeout = "3s"
        [services.flood]
        command = ["PUPPET", "lines", "1000000"]
        restart = "never"
        log = { stdout = "prefix" }
        [services.other]
        command = ["PUPPET", "put", "ERR", "I go on\\n", "THEN", "end-on-term", "0"]
        log = { stdout = "null", stderr = "prefix" }
        depends_on = ["later"]
        [services.later]
        command = ["PUPPET", "end-on-term", "0"]
        log = { stdout = "null" }
        ready = { delay = "500ms" }
        "#,
    );
    in_every_place(|place| {
        let (reader, writer) = std::io::pipe().unwrap();
        let (errors, error_writer) = std::io::pipe().unwrap();
        let full = writer.try_clone().unwrap();
        let mut run = set.run(place);
        run.command.stdout(writer).stderr(error_writer);
        let mut running = run.start();
        let mut errors = BufReader::new(errors).lines().map(Result::unwrap);
        // stdout has no reader. stderr shows the starts and the lines of stderr.
        assert!(errors.any(|line| line == "other.0   | I go on"));
        let keepalive = running.keepalive();
        // The writer has filled the pipes and the buffer of the logger, and waits.
        let flood = wait_until("the flood", || {
            let is_flood = |pid: &Pid| {
                std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|words| words.ends_with(b"lines\x001000000\0"))
            };
            procfs::descendants(keepalive).into_iter().find(is_flood)
        });
        wait_until("the flood to stop", || {
            let wchan = std::fs::read_to_string(format!("/proc/{flood}/wchan")).unwrap_or_default();
            (wchan.contains("pipe") || procfs::stat(flood)?.state == b'S').then_some(())
        });
        // The number of bytes depends on the size of the writes.
        let mut poller = Poller::new().unwrap();
        poller.add_writable(&full, 0_u64).unwrap();
        wait_until("stdout to be full", || poller.wait(Some(Duration::ZERO)).unwrap().is_empty().then_some(()));
        drop((poller, full));
        running.send(Signal::TERM);
        assert_eq!(running.end(), 0, "unread output does not delay the exit");
        let mut text = Vec::new();
        BufReader::new(reader).read_to_end(&mut text).unwrap();
        // Earlier lines are complete. The last one is cut, because it was not read in time.
        let text = String::from_utf8(text).unwrap();
        let got: Vec<u64> = numbers(&text[..text.rfind('\n').unwrap()], "flood.0   | ").collect();
        assert!(got.iter().copied().eq(1..=got.len() as u64));
        assert!(errors.last().unwrap().ends_with("received SIGTERM: exiting with code 0"));
    });
}

#[test]
fn a_killed_logger_is_replaced_and_only_its_buffer_is_lost() {
    const LINES: u64 = 400_000;
    let set = Set::new(&format!(
        r#"
        [services.a]
        command = ["PUPPET", "lines", "{LINES}", "on-signal", "exit", "0"]
        restart = "never"
        log = {{ stdout = "prefix" }}
        "#
    ));
    in_every_place(|place| {
        let (mut running, reader) = start_merged(set.run(place));
        let keepalive = running.keepalive();
        let mut reader = BufReader::new(reader);
        let mut text = Vec::new();
        for part in 1..=3_u64 {
            let enough = format!("line {:08}\n", part * LINES / 5);
            while !text.ends_with(enough.as_bytes()) {
                assert!(reader.read_until(b'\n', &mut text).unwrap() > 0, "end of output before line {enough}");
            }
            let logger = wait_until("a logger", || logger_of(keepalive));
            signal_process(logger, Signal::KILL).unwrap();
            wait_for_death(logger);
        }
        let text = String::from_utf8(text).unwrap() + &read_and_let_end(&running, reader);
        assert_eq!(running.end(), 0);
        let got: Vec<u64> = numbers(&text, "a.0       | ").collect();
        assert!(got.is_sorted_by(|one, next| one < next), "lines are repeated or out of order");
        assert_eq!(got.last(), Some(&LINES));
        let gaps = got.windows(2).filter(|pair| pair[1] - pair[0] > 1).count();
        assert!(gaps <= 3, "{gaps} gaps");
        let joined: Vec<&str> = text.lines().filter(|line| line.matches(" | ").count() > 1).collect();
        assert!(joined.is_empty(), "joined lines: {joined:?}");
        // A line has about 14 bytes. The logger has one input and one output buffer.
        let lost = LINES - got.len() as u64;
        assert!(lost <= 3 * (256 + 128 + 256) * 1_024 / 14, "{lost} lost");
        let messages = text.lines().filter(|line| line.contains("logger restarted (killed by SIGKILL)"));
        // The next logger may lose the message about the previous one.
        assert!((1..=3).contains(&messages.count()), "{}", &text[text.len().saturating_sub(2_000)..]);
    });
}

#[test]
fn a_crash_looping_logger_is_restarted_with_backoff() {
    let set = Set::new("[services.a]\ncommand = [\"PUPPET\", \"end-on-term\", \"0\"]\nlog = { stdout = \"prefix\" }\n");
    let mut running = set.start(Place::Child);
    assert!(running.line().contains("| ready"));
    let keepalive = running.keepalive();
    let mut before = None;
    for _ in 0..6 {
        let logger = wait_until("another logger", || logger_of(keepalive).filter(|pid| Some(*pid) != before));
        signal_process(logger, Signal::KILL).unwrap();
        before = Some(logger);
    }
    wait_until("a logger after the backoff", || logger_of(keepalive).filter(|pid| Some(*pid) != before));
    running.send(Signal::TERM);
    // A logger that was killed before it noted that its line is complete is followed by the end of a line.
    let line = Some(running.line()).filter(|line| !line.is_empty()).unwrap_or_else(|| running.line());
    assert_eq!(line, "a.0       | signal 15");
    assert_eq!(running.end(), 0);
    let stderr = running.stderr();
    let restarts = stderr.lines().filter(|line| line.contains("logger restarted"));
    // A logger that is killed at once takes the message about the one before with it.
    assert!((1..=5).contains(&restarts.count()), "{stderr}");
    assert_eq!(
        stderr
            .lines()
            .filter(|line| line.contains("logger is crash-looping (killed by SIGKILL): next restart in 1s"))
            .count(),
        1,
        "{stderr}"
    );
}

/// The soft limit of the descriptors of `pid`.
fn limit_descriptors(pid: Pid, soft: u32) {
    let words = [format!("--pid={pid}"), format!("--nofile={soft}:")];
    assert!(Command::new("prlimit").args(words).status().unwrap().success());
}

// The failed starts of a shortage are not those of a logger that crashes again and again.
#[test]
fn a_logger_that_crash_looped_is_started_soon_after_a_shortage_of_descriptors() {
    let set = Set::new(
        r#"
        [services.a]
        command = ["PUPPET", "put", "OUT", "begun\\n", "THEN", "on-signal", "lines", "1"]
        restart = "never"
        log = { stdout = "prefix" }
        "#,
    );
    let (mut running, output) = start_merged(set.run(Place::Child));
    let mut lines = BufReader::new(output).lines().map(Result::unwrap);
    let mut expect = |text: &str| assert!(lines.any(|line| line.contains(text)), "no line with `{text}`");
    expect("a.0       | begun");
    let keepalive = running.keepalive();
    let mut before = None;
    for _ in 0..6 {
        let logger = wait_until("another logger", || logger_of(keepalive).filter(|pid| Some(*pid) != before));
        signal_process(logger, Signal::KILL).unwrap();
        before = Some(logger);
    }
    let logger = wait_until("a logger after the backoff", || logger_of(keepalive).filter(|pid| Some(*pid) != before));
    limit_descriptors(keepalive, 3);
    signal_process(logger, Signal::KILL).unwrap();
    expect("cannot start the logger: Too many open files; services that write have to wait");
    limit_descriptors(keepalive, 512);
    expect("logger started after a shortage");
    running.send(Signal::USR1);
    expect("a.0       | line 00000001");
    assert_eq!(running.end(), 0);
}

/// Two instances that crash this many times and then stay, with all log settings.
struct Crashing {
    running: Running,
    control: Control,
    /// Starts the run with a reader for its output. The logger can write until the reader is closed.
    _output: PipeReader,
    _set: Set,
}

impl Crashing {
    /// Waits until all instances have crashed this many times.
    fn start(times: u32) -> Self {
        let set = Set::new(
            r#"
            [services.crash]
            command = ["/bin/sh", "DIR/script"]
            instances = 2
            min_uptime = "0s"
            max_restarts = "unlimited"
            log = { stdout = "prefix", stderr = "prefix", file = "DIR/{instance}.log" }
            "#,
        );
        let script = format!(
            "if test $KEEPALIVE_RESTARTS -lt {times}; then echo x; echo y >&2; exit 1; fi
            echo stays; echo stays >&2; exec sleep 1000"
        );
        set.directory.file("script", script.as_bytes(), 0o644);
        let (running, output) = start_merged(set.run(Place::Child));
        let stay = BufReader::new(&output).lines().map(Result::unwrap).filter(|line| line.ends_with("| stays"));
        assert_eq!(stay.take(4).count(), 4, "both streams of both instances");
        let control = Control::at(&set.socket());
        Self { running, control, _output: output, _set: set }
    }

    /// The number of open descriptors of keepalive and of its logger.
    fn descriptors(&self) -> (usize, usize) {
        let keepalive = self.running.keepalive();
        let of = |pid| self.control.descriptors_of(pid);
        (of(keepalive), of(logger_of(keepalive).expect("a logger")))
    }
}

// ARCHITECTURE.md: each run has a pipe until it has been read to its end. Then the next restart closes it.
#[test]
fn restarts_leak_no_descriptor() {
    let (once, often) = (Crashing::start(1), Crashing::start(200));
    wait_until(&format!("{:?} descriptors, as after one crash", once.descriptors()), || {
        let ((keepalive, logger), most) = (often.descriptors(), once.descriptors());
        (keepalive <= most.0 + 4 && logger <= most.1 + 4).then_some(())
    });
}

#[test]
fn output_of_a_service_killed_at_shutdown_is_not_lost() {
    // As PID 1, the last SIGKILL also kills the logger.
    let set = Set::new(
        r#"
        [keepalive]
        shutdown_timeout = "1s"
        [services.deaf]
        command = ["PUPPET", "put", "OUT", "before\\n", "THEN", "ignore", "15"]
        stop_timeout = "1s"
        log = { stdout = "prefix", stderr = "prefix" }
        [services.daemon]
        command = ["PUPPET", "daemonise", "0", "ignore", "15"]
        type = "oneshot"
        log = { stdout = "prefix" }
        "#,
    );
    in_every_place(|place| {
        let (mut running, reader) = start_merged(set.run(place));
        let mut reader = BufReader::new(reader);
        let mut text = String::new();
        while text.matches("| ready").count() < 2 {
            reader.read_line(&mut text).unwrap();
        }
        running.send(Signal::TERM);
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(running.end(), 137, "{text}");
        assert!(text.contains("deaf.0    | before\n"), "{text}");
        assert!(text.trim_end().ends_with("received SIGTERM: exiting with code 137"), "{text}");
        assert!(!text.contains("logger restarted"), "{text}");
    });
}

#[test]
fn a_stopped_logger_neither_delays_a_shutdown_nor_hides_messages() {
    let set = Set::new("[services.a]\ncommand = [\"PUPPET\", \"end-on-term\", \"0\"]\nlog = { stdout = \"prefix\" }\n");
    let mut running = set.start(Place::Child);
    assert!(running.line().contains("| ready"));
    let logger = logger_of(running.keepalive()).unwrap();
    signal_process(logger, Signal::STOP).unwrap();
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
    let stderr = running.stderr();
    let last: Vec<&str> = stderr.lines().rev().take(4).collect();
    assert_eq!(last[0], "keepalive | received SIGTERM: exiting with code 0", "{stderr}");
    assert!(last.contains(&"keepalive | received SIGTERM: shutting down"), "{stderr}");
}

#[test]
fn unterminated_last_lines_of_different_runs_are_not_joined() {
    let set = Set::new(
        r#"
        [services.stays]
        command = ["PUPPET", "end-on-term", "0"]
        [services.web]
        command = ["PUPPET", "put", "OUT", "begun", "THEN", "exit", "1"]
        autostart = false
        max_restarts = 4
        on_failure = "ignore"
        backoff = { initial = "10ms", max = "10ms" }
        log = { stdout = "prefix" }
        "#,
    );
    in_every_place(|place| {
        let mut running = set.start(place);
        assert!(running.line().starts_with("ready"));
        let control = Control::at(&set.socket());
        let logger = logger_of(running.keepalive()).unwrap();
        signal_process(logger, Signal::STOP).unwrap();
        // Its process exits at once.
        assert_eq!(control.post("/v1/services/web/start").status, 409);
        let web = || control.instance("web.0");
        wait_until("the last run", || (web()["restarts"] == 4 && web()["state"] == "failed").then_some(()));
        signal_process(logger, Signal::CONT).unwrap();
        for _ in 0..5 {
            assert_eq!(running.line(), "web.0     | begun");
        }
        running.send(Signal::TERM);
        running.end();
    });
}

#[test]
fn the_last_output_of_a_surplus_instance_survives_the_logger() {
    let set = Set::new(
        r#"
        [services.web]
        command = ["PUPPET", "end-on-term", "0"]
        instances = 2
        log = { stdout = "prefix" }
        "#,
    );
    in_every_place(|place| {
        let mut running = set.start(place);
        (0..2).for_each(|_| assert!(running.line().contains("| ready")));
        let control = Control::at(&set.socket());
        let logger = logger_of(running.keepalive()).unwrap();
        signal_process(logger, Signal::STOP).unwrap();
        assert_eq!(control.post("/v1/services/web/scale?instances=1").status, 200);
        signal_process(logger, Signal::KILL).unwrap();
        assert_eq!(running.line(), "web.1     | signal 15");
        running.send(Signal::TERM);
        running.end();
    });
}

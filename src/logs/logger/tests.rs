use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::IntoRawFd as _;

use super::*;
use crate::logs::protocol::{FileTarget, LastLinesQuery, Target, pipe_key};
use crate::model::plan::LogStyle;
use crate::model::{RunId, ServiceIndex};
use crate::sys::pipe;

/// A logger in this process whose iterations are run explicitly.
struct World {
    logger: Logger,
    socket: OwnedFd,
    outputs: [File; 2],
    /// Of the next pipes.
    target: Target,
    files: Vec<FileTarget>,
}

/// The reading end is a non-blocking file, the writing end stays open.
fn writer() -> (File, NonBlockingWriter) {
    let (read_end, write_end) = pipe::pipe().unwrap();
    (read_end.into(), NonBlockingWriter::new(write_end.into_raw_fd()))
}

impl World {
    fn new() -> Self {
        let [(stdout, first), (stderr, second)] = [writer(), writer()];
        let (near_end, peer) = packet::pair().unwrap();
        let counters = SharedCounters::new(FIRST_SLOT_COUNTER + 4 * COUNTERS_PER_SLOT).unwrap();
        let args = LoggerArgs {
            socket: peer,
            liveness_fd: pipe::pipe().unwrap().1,
            pipes: Vec::new(),
            style: LogStyle::default(),
            width: Some(9),
            colour: Colour::Without,
            counters: Box::leak(Box::new(counters)),
            timer: None,
        };
        let logger = Logger::new(args, [first, second]).unwrap();
        Self { logger, socket: near_end, outputs: [stdout, stderr], target: Target::Lines, files: Vec::new() }
    }

    /// The writing end of a new pipe for the stdout of the instance in this slot. Its run has the number of the pipe.
    fn pipe(&mut self, slot: u32) -> File {
        let (read_end, write_end) = pipe::pipe().unwrap();
        let (service, stream, target) = ("web".to_owned(), Stream::Stdout, self.target);
        let instance = format!("web.{slot}");
        let serial = self.logger.newest_serial.map_or(0, |newest_serial| newest_serial + 1);
        let run = RunKey::new(slot, RunId::new(serial));
        let files = self.files.clone();
        let source = Source { serial, run, stream, service, instance, index: ServiceIndex(0), target, files };
        self.logger.handle(Message::Pipe(source), Some(read_end));
        write_end.into()
    }

    /// The latest run of the instance in this slot ends.
    fn end_run(&mut self, slot: u32) {
        if let Some(pipe) = self.logger.pipes.get(&pipe_key(slot, Stream::Stdout)) {
            let run = pipe.source.run;
            self.logger.handle(Message::RunEnded(run), None);
        }
    }

    /// One iteration without waiting.
    fn turn(&mut self) {
        let ready: Vec<u64> = self.logger.poller.wait(Some(Duration::ZERO)).unwrap().iter().map(Ready::data).collect();
        ready.into_iter().filter(|token| *token >= FIRST_PIPE).for_each(|token| self.logger.read(token - FIRST_PIPE));
        self.logger.process_pending();
        self.logger.outputs.flush(&self.logger.poller, self.logger.now, &self.logger.stamp);
        self.logger.resume_pipes();
    }

    fn own(&mut self, text: &str) {
        let text = text.to_owned();
        self.logger.handle(Message::Log { level: Level::Info, milliseconds: 0, text, last_lines: None }, None);
    }

    fn pass(&mut self, milliseconds: u64) {
        self.logger.now = self.logger.now + Duration::from_millis(milliseconds);
    }

    /// Fills the buffer for stdout far beyond its limit.
    fn fill_stdout(&mut self) {
        self.logger.outputs.stdout.buffer.resize(1 << 20, b'x');
        self.turn();
    }

    fn taken(&mut self, stream: Stream) -> String {
        let mut text = Vec::new();
        // Reading ends with EAGAIN.
        self.outputs[usize::from(stream == Stream::Stderr)].read_to_end(&mut text).ok();
        String::from_utf8(text).unwrap()
    }

    fn counter(&self, position: usize) -> u64 {
        self.logger.counters.get(FIRST_SLOT_COUNTER + position).unwrap().load(Ordering::Relaxed)
    }
}

#[test]
fn a_replaced_pipe_is_read_to_its_end() {
    let mut world = World::new();
    let mut old = world.pipe(1);
    old.write_all(b"of the old\n").unwrap();
    world.turn();
    old.write_all(b"old, awaited").unwrap();
    world.end_run(1);
    let mut new = world.pipe(1);
    new.write_all(b"of the new\n").unwrap();
    world.turn();
    old.write_all(b"old again\n").unwrap();
    new.write_all(b"new again\n").unwrap();
    world.turn();
    let text = world.taken(Stream::Stdout);
    let mut lines: Vec<&str> = text.lines().map(|line| line.strip_prefix("web.1     | ").unwrap()).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["new again", "of the new", "of the old", "old again", "old, awaited"]);
    assert_eq!([world.counter(COUNTERS_PER_SLOT), world.counter(COUNTERS_PER_SLOT + 1)], [5, 54]);
    drop(old);
    world.turn();
    assert_eq!(world.logger.pipes.len(), 1);
    new.write_all(b"the new goes on\n").unwrap();
    world.turn();
    assert_eq!(world.taken(Stream::Stdout), "web.1     | the new goes on\n");
}

#[test]
fn the_end_of_a_run_is_awaited_while_the_pipe_before_goes_on() {
    let mut world = World::new();
    let mut old = world.pipe(1);
    let mut new = world.pipe(1);
    new.write_all(b"last word\n").unwrap();
    world.end_run(1);
    old.write_all(&b"much of the old\n".repeat(10)).unwrap();
    world.logger.read(FIRST_RETIRED);
    world.logger.process_pending();
    assert!(world.logger.outputs.stdout.buffer.ends_with(b"last word\n"));
}

#[test]
fn a_pipe_that_is_replaced_while_paused_is_read_when_there_is_room() {
    let mut world = World::new();
    let mut old = world.pipe(1);
    world.logger.outputs.stdout.buffer = vec![b'x'; 2 * sink::HIGH_WATER_BYTES];
    old.write_all(b"of the old\n").unwrap();
    world.logger.read(pipe_key(1, Stream::Stdout));
    let mut new = world.pipe(1);
    new.write_all(b"of the new\n").unwrap();
    let mut text = String::new();
    for _ in 0..100 {
        world.turn();
        text.push_str(&world.taken(Stream::Stdout));
    }
    assert!(text.contains("of the old\n") && text.contains("of the new\n"));
}

#[test]
fn a_slow_reader_of_stdout_delays_messages_on_stderr_for_one_second_in_all() {
    let mut world = World::new();
    for slot in [1, 2] {
        world.pipe(slot).write_all(b"in a full pipe\n").unwrap();
    }
    world.fill_stdout();
    world.end_run(1);
    world.own("one ended");
    world.end_run(2);
    world.own("two ended");
    for tenth in 0..10 {
        world.turn();
        assert_eq!(world.taken(Stream::Stderr), "", "after {tenth} tenths");
        assert!(world.logger.timeout().is_some_and(|timeout| timeout > Duration::ZERO));
        world.pass(100);
        world.outputs[0].read_exact(&mut [0; 8_192]).unwrap();
    }
    world.turn();
    let own = world.taken(Stream::Stderr);
    assert!(own.contains("one ended\n") && own.ends_with("two ended\n"), "{own}");
    let mut text = String::new();
    for _ in 0..100 {
        text.push_str(&world.taken(Stream::Stdout));
        world.turn();
    }
    assert_eq!(text.matches("in a full pipe\n").count(), 2);
    assert!(!world.logger.outputs.stdout.is_slow);
}

#[test]
fn at_the_stop_timeout_the_last_messages_are_written_out_of_order() {
    let mut world = World::new();
    world.pipe(1).write_all(b"never read\n").unwrap();
    world.fill_stdout();
    world.logger.handle(Message::Stop { within: 500 }, None);
    world.own("the very last");
    world.pass(499);
    world.turn();
    assert!(!world.logger.is_finished());
    assert_eq!(world.taken(Stream::Stderr), "");
    world.pass(1);
    world.turn();
    assert!(world.logger.is_finished());
    assert!(world.taken(Stream::Stderr).ends_with("the very last\n"));
}

#[test]
fn the_last_line_of_a_run_is_not_continued_though_its_end_was_not_awaited() {
    let mut world = World::new();
    let mut pipe = world.pipe(1);
    pipe.write_all(b"first run").unwrap();
    world.fill_stdout();
    world.end_run(1);
    pipe.write_all(b"second run\n").unwrap();
    world.turn();
    world.pass(2_000);
    world.turn();
    assert!(world.logger.pending.is_empty());
    let mut text = String::new();
    for _ in 0..100 {
        text.push_str(&world.taken(Stream::Stdout));
        world.turn();
    }
    assert!(text.ends_with("web.1     | first run\nweb.1     | second run\n"), "{}", &text[text.len() - 100..]);
}

#[test]
fn an_unterminated_line_is_finished_where_its_run_ended() {
    let mut world = World::new();
    let mut pipe = world.pipe(1);
    pipe.write_all(b"one\nbegun").unwrap();
    world.turn();
    world.end_run(1);
    pipe.write_all(b"next").unwrap();
    world.end_run(1);
    // The end of a run is reported after output of the next run has been read.
    world.logger.read(pipe_key(1, Stream::Stdout));
    pipe.write_all(b"last\n").unwrap();
    world.turn();
    world.turn();
    let text = world.taken(Stream::Stdout);
    assert_eq!(text, ["one", "begun", "next", "last"].map(|line| format!("web.1     | {line}\n")).concat());
}

#[test]
fn runs_are_read_in_order_however_slow_the_sink_is() {
    let mut world = World::new();
    world.fill_stdout();
    for run in 0..3 {
        let mut pipe = world.pipe(1);
        pipe.write_all(format!("first of {run}\nlast of {run}").as_bytes()).unwrap();
        world.end_run(1);
        world.turn();
        world.pass(2_000);
        world.turn();
    }
    assert!(world.logger.pending.is_empty(), "no end of a run is pending");
    let mut text = String::new();
    for _ in 0..100 {
        text.push_str(&world.taken(Stream::Stdout));
        world.turn();
    }
    let lines = (0..3).map(|run| format!("web.1     | first of {run}\nweb.1     | last of {run}\n"));
    assert_eq!(text.trim_start_matches('x'), lines.collect::<String>());
    assert!(world.logger.successors.is_empty());
}

#[test]
fn a_leftover_writer_of_an_earlier_run_delays_no_other_run_and_joins_no_line() {
    let mut world = World::new();
    let mut old = world.pipe(1);
    old.write_all(b"begun").unwrap();
    world.end_run(1);
    old.write_all(b"of a grandchild\nand").unwrap();
    let mut new = world.pipe(1);
    new.write_all(b"new\n").unwrap();
    (0..4).for_each(|_| world.turn());
    old.write_all(b" on\n").unwrap();
    world.turn();
    let text = world.taken(Stream::Stdout);
    let expect = ["begun", "of a grandchild", "new", "and on"].map(|line| format!("web.1     | {line}\n")).concat();
    assert_eq!(text, expect);
}

#[test]
fn a_pipe_that_a_new_logger_started_with_is_not_added_twice() {
    let mut world = World::new();
    let _first = world.pipe(1);
    let _second = world.pipe(2);
    let again = world.logger.pipes.get(&pipe_key(1, Stream::Stdout)).unwrap().source.clone();
    world.logger.handle(Message::Pipe(again), Some(pipe::pipe().unwrap().0));
    assert_eq!(world.logger.pipes.len(), 2);
}

#[test]
fn raw_lines_keep_their_bytes_and_are_whole_even_if_they_come_in_pieces() {
    let mut world = World::new();
    world.target = Target::Raw;
    let (mut one, mut two) = (world.pipe(1), world.pipe(2));
    let much = b"0123456789abcdef\n".repeat(1_000);
    one.write_all(&[&much, &b"begun"[..]].concat()).unwrap();
    world.turn();
    two.write_all(b"\x1b[2J\r\nother\n").unwrap();
    world.turn();
    one.write_all(b" and ended\n").unwrap();
    world.turn();
    let expect = [&much[..], b"\x1b[2J\r\nother\n", b"begun and ended\n"].concat();
    assert!(world.taken(Stream::Stdout).into_bytes() == expect);
    assert_eq!([world.counter(COUNTERS_PER_SLOT), world.counter(2 * COUNTERS_PER_SLOT)], [1_001, 2]);
}

#[test]
fn a_raw_line_that_is_too_long_is_continued_unless_another_one_comes_between() {
    let mut world = World::new();
    world.target = Target::Raw;
    let (mut one, mut two) = (world.pipe(1), world.pipe(2));
    let long = "x".repeat(MAX_LINE_BYTES);
    for between in ["", "two\n"] {
        one.write_all(format!("{long}{long}y").as_bytes()).unwrap();
        world.turn();
        two.write_all(between.as_bytes()).unwrap();
        world.turn();
        one.write_all(b"y\n").unwrap();
        world.turn();
        let end = if between.is_empty() { "yy\n".to_owned() } else { format!("\n{between}yy\n") };
        assert_eq!(world.taken(Stream::Stdout), format!("{long}{long}{end}"));
    }
}

#[test]
fn a_raw_line_is_not_continued_by_the_next_run_of_the_instance() {
    let mut world = World::new();
    world.target = Target::Raw;
    let long = "x".repeat(MAX_LINE_BYTES);
    let mut old = world.pipe(1);
    old.write_all(format!("{long}y").as_bytes()).unwrap();
    world.turn();
    let mut new = world.pipe(1);
    new.write_all(b"first\n").unwrap();
    world.turn();
    world.turn();
    old.write_all(b"y\n").unwrap();
    world.turn();
    let taken = world.taken(Stream::Stdout);
    assert!(taken == format!("{long}\nfirst\nyy\n"), "{}", taken.trim_start_matches('x'));
}

#[test]
fn what_a_slow_reader_does_not_take_is_written_later_and_once() {
    let mut world = World::new();
    world.target = Target::Raw;
    let mut pipe = world.pipe(1);
    pipe::set_capacity(&pipe, 1 << 20);
    let text: String = (0..30_000).map(|number| format!("line {number}\n")).collect();
    pipe.write_all(text.as_bytes()).unwrap();
    let mut taken = String::new();
    for _ in 0..1_000 {
        world.turn();
        taken.push_str(&world.taken(Stream::Stdout));
    }
    assert!(taken == text, "{} of {} bytes", taken.len(), text.len());
}

#[test]
fn pid_1_receives_the_last_lines_of_a_run_within_the_limits() {
    let mut world = World::new();
    let answer_of = |world: &mut World, run: u64| {
        let run = RunKey::new(1, RunId::new(run));
        world.logger.handle(Message::RunEnded(run), None);
        world.logger.handle(Message::LastLines(query(run)), None);
        world.turn();
        let mut packet = vec![0; 8 << 10];
        let (length, _) = packet::receive(&world.socket, &mut packet).unwrap();
        LastLines::decode(&packet[..length]).unwrap()
    };
    let mut first = world.pipe(1);
    first.write_all(b"of the first run\n").unwrap();
    assert_eq!(answer_of(&mut world, 0), LastLines { slot: 1, text: "of the first run".to_owned() });
    let mut second = world.pipe(1);
    let answer = |world: &mut World| answer_of(world, 1);
    assert_eq!(answer(&mut world).text, "");
    // A process that is left, or goes on beside the new one.
    first.write_all(b"later\n").unwrap();
    assert_eq!(answer(&mut world).text, "");
    assert_eq!(answer_of(&mut world, 0).text, "of the first run\nlater");
    world.pipe(2).write_all(b"of another\n").unwrap();
    let lines = |range: std::ops::Range<u32>| range.map(|line| format!("{line}\n")).collect::<String>();
    second.write_all(lines(0..19).as_bytes()).unwrap();
    second.write_all(b"19\r\n\x1b[1m20\xff").unwrap();
    assert_eq!(answer(&mut world).text, lines(1..20) + "\\x1b[1m20\\xff");
    second.write_all(format!("{}\n{}\n", "a".repeat(2_500), "b".repeat(2_500)).as_bytes()).unwrap();
    let cut = |letter: &str, count| letter.repeat(count) + "…";
    let expect = format!("{}\\x1b[1m20\\xff\n{}\n{}", lines(3..20), cut("a", 512), cut("b", 512));
    assert_eq!(answer(&mut world).text, expect);
    second.write_all("ä".repeat(4_000).as_bytes()).unwrap();
    assert!(answer(&mut world).text.ends_with(&format!("b…\n{}", cut("ä", 256))));
    for _ in 0..10 {
        second.write_all((cut("c", 600) + "\n").as_bytes()).unwrap();
    }
    let text = answer(&mut world).text;
    assert_eq!(text, vec![cut("c", 512); 5].join("\n"), "not more than 3 KiB");
}

fn query(run: RunKey) -> LastLinesQuery {
    LastLinesQuery { run, address_hint: "use another".to_owned() }
}

#[test]
fn the_hint_about_an_address_is_added_if_the_last_lines_say_that_it_is_in_use() {
    let mut world = World::new();
    for (line, hint) in [
        ("Error: listen EADDRINUSE: :::80", "\nhint: use another"),
        ("bind: Address already in use", "\nhint: use another"),
        ("Os { code: 98, kind: AddrInUse, message: \"Address in use\" }", "\nhint: use another"),
        ("no such address", ""),
    ] {
        world.pipe(1).write_all(format!("{line}\n").as_bytes()).unwrap();
        let run = RunKey::new(1, RunId::new(0));
        world.logger.handle(Message::RunEnded(run), None);
        world.turn();
        let lines = world.logger.last_lines(&query(run));
        assert!(lines.ends_with(&format!("{line}{hint}")), "{lines}");
        world = World::new();
    }
}

#[test]
fn the_last_lines_follow_a_message_in_text_and_are_part_of_it_in_the_log() {
    let mut world = World::new();
    world.pipe(1).write_all(b"why\nbecause\n").unwrap();
    let run = RunKey::new(1, RunId::new(0));
    world.logger.handle(Message::RunEnded(run), None);
    let text = "failed".to_owned();
    world
        .logger
        .handle(Message::Log { level: Level::Error, milliseconds: 0, text, last_lines: Some(query(run)) }, None);
    world.turn();
    let expect = "keepalive | error: failed; its last lines:\nkeepalive |   why\nkeepalive |   because\n";
    assert_eq!(world.taken(Stream::Stderr), expect);
    let ring = &world.logger.outputs.ring;
    assert_eq!(ring.last_lines([u64::MAX; 2], 1), [b"failed; its last lines:\nwhy\nbecause"]);
}

#[test]
fn answers_wait_until_pid_1_reads_them() {
    let mut world = World::new();
    let mut buffer = [0; 256];
    let mut answers = 0;
    (0..2_000).for_each(|_| world.logger.handle(Message::LastLines(query(RunKey::new(1, RunId::new(0)))), None));
    while answers < 2_000 {
        world.turn();
        let before = answers;
        while packet::receive(&world.socket, &mut buffer).is_ok() {
            answers += 1;
        }
        assert!(answers > before, "{answers}");
    }
    assert!(world.logger.pending.is_empty());
}

#[test]
fn a_log_file_is_closed_when_its_last_writer_is_gone() {
    let directory = std::env::temp_dir().join(format!("keepalive-unused-log-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let file =
        |name: &str| FileTarget { path: directory.join(name), shown: String::new(), max_size: 1 << 20, max_files: 1 };
    let open = || {
        let links =
            std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
        links.filter(|link| link.starts_with(&directory) && link.extension().is_some()).count()
    };
    let mut world = World::new();
    world.files = vec![file("a.log")];
    let (mut first, mut second) = (world.pipe(1), world.pipe(2));
    first.write_all(b"first\n").unwrap();
    world.turn();
    drop(first);
    second.write_all(b"second\n").unwrap();
    world.turn();
    assert_eq!(open(), 1, "the second one may write on");
    second.write_all(b"unterminated").unwrap();
    drop(second);
    world.turn();
    world.turn();
    assert_eq!(open(), 0);
    world.files = vec![file("b.log")];
    let mut third = world.pipe(1);
    third.write_all(b"third\n").unwrap();
    world.turn();
    assert_eq!((open(), world.logger.outputs.files.len()), (1, 1), "its entry is used again");
    let read = |name| std::fs::read_to_string(directory.join(name)).unwrap();
    assert_eq!([read("a.log"), read("b.log")], ["first\nsecond\nunterminated\n", "third\n"]);
    std::fs::remove_dir_all(&directory).unwrap();
}

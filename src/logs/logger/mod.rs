//! The logger: a process that reads what services write, so that PID 1 reads no byte of it.
//!
//! It is forked from PID 1 without exec, and may be killed at any time: PID 1 holds both ends of every pipe and starts
//! another logger. It waits in one place, for all its descriptors at once. It must not lose a line that can be written:
//! while a sink is full, the pipes that lead to it are not read, so that their writers wait and nobody else does.
//!
//! Start reading at [`run`]. [`source`] reads a pipe and [`split`] makes lines of it; [`outputs`] passes them on to a
//! [`sink`] (stdout, stderr), a [`file`](mod@file) and the [`ring`], from which a [`client`] is answered.

mod client;
mod counters;
mod file;
mod hold_up;
mod last_lines;
mod names;
mod open_line;
mod outputs;
mod pipes;
mod ring;
mod sink;
mod source;
mod split;
mod state;
#[cfg(test)]
mod tests;

pub use self::counters::{COUNTERS_PER_SLOT, DROPPED_MESSAGES, FIRST_SLOT_COUNTER, READ_MARK, REJECTED_CLIENTS};
pub use self::hold_up::ReadMark;

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

use log::Level;
use nix::errno::Errno;

use self::client::{Client, MAX_CLIENTS, MAX_GUESTS};
use self::counters::PARTIAL_LINE_MARKS;
use self::hold_up::HoldUpTimer;
use self::names::Names;
use self::outputs::Outputs;
use self::ring::Ring;
use self::sink::Sink;
use self::source::Read;
use self::split::MAX_LINE_BYTES;
use self::state::{FIRST_PIPE, Logger, Pending};
use super::line::{Colour, MessageStyle, Stream};
use super::protocol::{LastLines, LastLinesQuery, LogsQuery, Message, RunKey, Source};
use super::timestamp::Timestamp;
use crate::model::AwakeClock;
use crate::model::map::Map;
use crate::model::plan::LogStyle;
use crate::sys::counters::SharedCounters;
use crate::sys::non_blocking_writer::NonBlockingWriter;
use crate::sys::poll::{Interest, Ready};
use crate::sys::timer::Timer;
use crate::sys::{self, Poller, fork, packet, process};

/// How much is read from a pipe at once: what the caches of a processor hold beside all else.
const READ_BUFFER_BYTES: usize = 64 << 10;
/// How many packets are read before pipes and clients get their turn.
const MAX_PACKETS_PER_TURN: usize = 64;
/// How many messages and ends of runs are kept in order; beyond that they are processed without waiting.
const MAX_PENDING: usize = 4_096;
/// How long messages wait for the output of a run that has ended, where its sink is slow.
const RUN_END_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the logger goes on reading and writing after PID 1 has died.
const ORPHAN_FLUSH_MILLISECONDS: u64 = 2_000;

/// A logger that has had nothing to do for so long is idle.
const IDLE_AFTER: Duration = Duration::from_secs(1);

// Tokens of the poller.
const SOCKET: u64 = 0;
const STDOUT: u64 = 1;
const STDERR: u64 = 2;
const FIRST_CLIENT: u64 = 16;
/// The first key of pipes that another pipe has replaced, beyond all keys that [`crate::logs::protocol::pipe_key`] gives.
const FIRST_RETIRED: u64 = 1 << 40;

/// What PID 1 starts the logger with.
#[derive(Debug)]
pub struct LoggerArgs {
    /// The socket on which PID 1 sends [`Message`]s.
    pub socket: OwnedFd,
    /// PID 1 holds the other end, and sees it closed when the logger exits.
    pub liveness_fd: OwnedFd,
    /// The pipes that exist already.
    pub pipes: Vec<(Source, OwnedFd)>,
    /// The format of lines.
    pub style: LogStyle,
    /// The width of the column of names; `None`: no lines have names.
    pub width: Option<usize>,
    /// Whether terminals get colours.
    pub colour: Colour,
    /// Counts for PID 1 to read: [`DROPPED_MESSAGES`], [`REJECTED_CLIENTS`], [`READ_MARK`], and lines and bytes of each slot.
    pub counters: &'static SharedCounters,
    /// Expires for PID 1 if a pipe holds up the logger.
    pub timer: Option<Timer>,
}

/// Runs the logger and exits. Only for a child that [`fork::fork_without_sigchld`] has made.
pub fn run(args: LoggerArgs) -> ! {
    fork::set_name(c"keepalive-log");
    let mut kept_fds = vec![args.socket.as_raw_fd(), args.liveness_fd.as_raw_fd()];
    kept_fds.extend(args.timer.as_ref().map(Timer::as_raw_fd));
    kept_fds.extend(args.pipes.iter().map(|(_, pipe)| pipe.as_raw_fd()));
    process::leave_cwd_and_close_fds(&kept_fds);
    let code = match Logger::new(args, [1, 2].map(NonBlockingWriter::new)) {
        Ok(mut logger) => {
            logger.run();
            // Without dropping the logger: PID 1 must not see `liveness_fd` closed before the process is about to exit.
            process::exit_now(0)
        }
        Err(errno) => u8::try_from(errno as i32).unwrap_or(u8::MAX),
    };
    process::exit_now(code)
}

impl Logger {
    fn new(args: LoggerArgs, writers: [NonBlockingWriter; 2]) -> Result<Self, Errno> {
        let LoggerArgs { socket, liveness_fd, pipes, style, width, colour, counters, timer } = args;
        let poller = Poller::new()?;
        poller.add(&socket, SOCKET)?;
        let colours = writers.map(|writer| colour == Colour::With && writer.is_terminal());
        let [stdout, stderr] = writers;
        let are_one = stdout.is_same(&stderr);
        let outputs = Outputs {
            style: MessageStyle { style, width },
            stdout: Sink::new("stdout", stdout, STDOUT, counters.get(PARTIAL_LINE_MARKS)),
            stderr: Sink::new("stderr", stderr, STDERR, counters.get(PARTIAL_LINE_MARKS + 1)),
            are_one,
            files: Vec::new(),
            ring: Ring::default(),
            dropped: 0,
        };
        let clock = AwakeClock::new(sys::now());
        let mut logger = Self {
            poller,
            socket,
            _liveness_fd: liveness_fd,
            pipes: Map::new(),
            next_retired: FIRST_RETIRED,
            successors: Map::new(),
            newest_serial: None,
            names: Names::new(),
            outputs,
            clients: Vec::new(),
            pending: VecDeque::new(),
            blocked_since: None,
            stop_at: None,
            is_orphan: false,
            counters,
            hold_up_timer: HoldUpTimer::new(timer),
            colours,
            buffer: vec![0; MAX_LINE_BYTES + READ_BUFFER_BYTES],
            clock,
            now: clock.now(),
            stamp: Timestamp::at(0),
            idle_since: Some(clock.now()),
        };
        pipes.into_iter().for_each(|(source, pipe)| logger.add_pipe(source, pipe));
        Ok(logger)
    }

    /// Returns when everything is written, once the logger has been told to stop. If PID 1 has died, everything that the
    /// services write until they exit.
    fn run(&mut self) {
        loop {
            self.process_pending();
            self.outputs.flush(&self.poller, self.now, &self.stamp);
            self.resume_pipes();
            self.clients
                .retain_mut(|client| client.send_lines(&self.outputs.ring, &self.names, &self.poller, self.now));
            if self.is_finished() {
                return;
            }
            self.run_once();
        }
    }

    /// Whether to exit: the logger has been told to stop, and everything is written or the time limit has passed.
    fn is_finished(&mut self) -> bool {
        let Some(stop_at) = self.stop_at else { return false };
        if self.now >= stop_at {
            // Messages that wait for a sink that is stuck may still fit into the other one.
            for pending in std::mem::take(&mut self.pending) {
                if let Pending::Message { level, milliseconds, text, last_lines } = pending {
                    self.write_message(level, milliseconds, &text, last_lines.as_ref());
                }
            }
            self.outputs.flush(&self.poller, self.now, &self.stamp);
            return true;
        }
        let can_more_come = self.is_orphan && !self.pipes.is_empty();
        self.pending.is_empty() && self.outputs.is_empty() && !can_more_come
    }

    /// The time until something is due that no descriptor signals.
    fn timeout(&self) -> Option<Duration> {
        let stuck = [&self.outputs.stdout, &self.outputs.stderr].map(Sink::stuck_at);
        let run_end = self.blocked_since.map(|since| since + RUN_END_TIMEOUT);
        // What was due before has been handled and now waits for room.
        let stuck = stuck.into_iter().chain([run_end]).filter(|due| !self.pending.is_empty() && *due > Some(self.now));
        let slow = self.clients.iter().map(Client::deadline);
        let idle = self.idle_since.map(|since| since + IDLE_AFTER);
        stuck.chain([self.stop_at, idle]).chain(slow).flatten().min().map(|due| due.since(self.now))
    }

    /// Waits once, and handles what has happened.
    fn run_once(&mut self) {
        let becomes_idle = self.idle_since.take_if(|since| *since + IDLE_AFTER <= self.now).is_some();
        let timeout = self.timeout();
        if becomes_idle {
            // At the last moment: what runs after it gets its pages again.
            self.hold_up_timer.on_idle();
            self.release_memory();
        }
        let ready: Vec<u64> = self.poller.wait(timeout).unwrap_or_default().iter().map(Ready::data).collect();
        self.now = self.clock.on_wake(sys::now(), timeout, self.poller.woken());
        self.stamp = Timestamp::since_epoch(sys::wall());
        if !ready.is_empty() {
            self.idle_since = Some(self.now);
            self.hold_up_timer.on_awake(self.now);
        }
        // Before the pipes, so that the output of a run that has ended is not mixed with that of the next run.
        if ready.contains(&SOCKET) {
            self.receive_messages();
            self.process_pending();
        }
        for token in ready {
            match token {
                SOCKET => {}
                // `run` flushes them after each turn.
                STDOUT | STDERR => {}
                FIRST_CLIENT..FIRST_PIPE => {
                    self.clients.retain_mut(|client| client.token() != token || client.check_connected(&self.poller));
                }
                pipe => self.read(pipe - FIRST_PIPE),
            }
        }
    }

    /// Nothing has happened for a while: releases memory that the next line gets again.
    fn release_memory(&mut self) {
        self.buffer = vec![0; MAX_LINE_BYTES + READ_BUFFER_BYTES];
        self.outputs.release_memory();
        sys::memory::release_code_pages();
    }

    fn receive_messages(&mut self) {
        for _ in 0..MAX_PACKETS_PER_TURN {
            match packet::receive(&self.socket, &mut self.buffer) {
                Ok((0, _)) => {
                    self.poller.remove(&self.socket).ok();
                    self.is_orphan = true;
                    return self.stop(ORPHAN_FLUSH_MILLISECONDS);
                }
                Ok((length, descriptor)) => {
                    let message = self.buffer.get(..length).and_then(Message::decode);
                    if let Some(message) = message {
                        self.handle(message, descriptor);
                    }
                }
                Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }

    fn handle(&mut self, message: Message, descriptor: Option<OwnedFd>) {
        match (message, descriptor) {
            // A pipe that was announced to the previous logger was passed to this one at its start.
            (Message::Pipe(source), Some(pipe)) if Some(source.serial) > self.newest_serial => {
                self.add_pipe(source, pipe)
            }
            (Message::Client(query), Some(socket)) => self.add_client(query, socket),
            (Message::Log { level, milliseconds, text, last_lines }, _) => {
                self.pending.push_back(Pending::Message { level, milliseconds, text, last_lines });
            }
            (Message::LastLines(query), _) => self.pending.push_back(Pending::LastLines(query)),
            (Message::RunEnded(run), _) => self.on_run_ended(run),
            (Message::Stop { within }, _) => self.stop(within),
            (Message::Pipe(_) | Message::Client(_), _) => {}
        }
    }

    /// Writes what the pipes hold now within so many milliseconds, and then exits.
    fn stop(&mut self, within: u64) {
        self.stop_at = Some(self.now + Duration::from_millis(within));
        let keys: Vec<u64> = self.pipes.keys().copied().collect();
        keys.into_iter().for_each(|key| self.await_run_end(key));
    }

    /// Puts what the pipes of the run hold now before all later messages.
    fn on_run_ended(&mut self, run: RunKey) {
        let of_run = self.pipes.iter().filter(|(_, pipe)| pipe.source.run == run);
        let keys: Vec<u64> = of_run.map(|(key, _)| *key).collect();
        keys.into_iter().for_each(|key| self.await_run_end(key));
    }

    fn await_run_end(&mut self, key: u64) {
        if let Some(pipe) = self.pipes.get_mut(&key) {
            self.pending.push_back(Pending::RunEnded { key, until: pipe.mark_run_end() });
        }
    }

    fn add_client(&mut self, query: LogsQuery, socket: OwnedFd) {
        let tokens = FIRST_CLIENT..FIRST_CLIENT + MAX_CLIENTS as u64;
        let free = tokens.into_iter().find(|token| self.clients.iter().all(|client| client.token() != *token));
        let guests = self.clients.iter().filter(|client| client.is_guest()).count();
        let Some(token) = free.filter(|_| !query.is_guest || guests < MAX_GUESTS) else {
            if let Some(rejected) = self.counters.get(REJECTED_CLIENTS) {
                rejected.fetch_add(1, Ordering::Relaxed);
            }
            return client::reject(&socket);
        };
        let (ring, names) = (&self.outputs.ring, &self.names);
        let mut client = Client::new(socket, token, query, ring, names);
        // Now, since lines that are read later in this turn may push out those that the client asks for.
        if self.poller.add(client.descriptor(), token).is_ok() && client.send_lines(ring, names, &self.poller, self.now)
        {
            self.clients.push(client);
        }
    }

    /// Processes `pending` in order, as far as nothing has to be waited for.
    fn process_pending(&mut self) {
        while let Some(first) = self.pending.pop_front() {
            match first {
                Pending::Message { level, milliseconds, text, last_lines } => {
                    if !self.has_room(Stream::Stderr) && self.pending.len() < MAX_PENDING {
                        let message = Pending::Message { level, milliseconds, text, last_lines };
                        return self.pending.push_front(message);
                    }
                    self.write_message(level, milliseconds, &text, last_lines.as_ref());
                }
                Pending::LastLines(query) => {
                    let answer = LastLines { slot: query.run.slot(), text: self.last_lines(&query) };
                    // PID 1 has not read the ones before: this one waits, unless that would delay the end.
                    let waits = packet::send(&self.socket, &answer.encode(), None) == Err(Errno::EAGAIN)
                        && self.pending.len() < MAX_PENDING
                        && self.stop_at.is_none();
                    let interest = if waits { Interest::Either } else { Interest::Input };
                    self.poller.modify(&self.socket, SOCKET, interest).ok();
                    if waits {
                        return self.pending.push_front(Pending::LastLines(query));
                    }
                }
                Pending::RunEnded { key, until } => {
                    if !self.read_run(key, until) && self.pending.len() < MAX_PENDING {
                        self.blocked_since.get_or_insert(self.now);
                        return self.pending.push_front(Pending::RunEnded { key, until });
                    }
                    self.blocked_since = None;
                }
            }
        }
    }

    fn write_message(&mut self, level: Level, milliseconds: u64, text: &str, last_lines: Option<&LastLinesQuery>) {
        let dropped = self.outputs.dropped;
        let last_lines = last_lines.map_or_else(String::new, |query| self.last_lines(query));
        self.outputs.put_message(&Timestamp::at(milliseconds), level, text, &last_lines);
        if self.outputs.dropped > dropped
            && let Some(counter) = self.counters.get(DROPPED_MESSAGES)
        {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether a message can be written: the sink has room, or is stuck, so that waiting is of no use.
    fn has_room(&mut self, stream: Stream) -> bool {
        if !self.outputs.sink(stream).has_room() {
            self.outputs.flush(&self.poller, self.now, &self.stamp);
        }
        let sink = self.outputs.sink(stream);
        sink.has_room() || sink.stuck_at().is_some_and(|stuck| stuck <= self.now)
    }

    /// Reads the pipe up to the byte `until`, where a run has ended. Returns false if the sink has no room for it yet.
    fn read_run(&mut self, key: u64, until: u64) -> bool {
        if let Some((before, until)) = self.pipe_before(key)
            && !self.read_run(before, until)
        {
            return false;
        }
        // The pipe before this one is no longer waited for; this one is read once that has been.
        if self.pipe_before(key).is_some() {
            return true;
        }
        let Some(pipe) = self.pipes.get_mut(&key) else { return true };
        let sink = pipe.route.sink();
        while pipe.bytes_read() < until {
            if let Some(sink) = sink
                && !self.outputs.sink(sink).has_room()
            {
                self.outputs.flush(&self.poller, self.now, &self.stamp);
                let sink = self.outputs.sink(sink);
                if !sink.has_room() {
                    // A reader that takes nothing does not see the order either, and one that is slow must not hold up
                    // the other sink. When the logger stops, `stop_at` limits the time instead.
                    let waited = self.blocked_since.is_some_and(|since| since + RUN_END_TIMEOUT <= self.now);
                    sink.is_slow |= waited;
                    let is_stuck = sink.stuck_at().is_some_and(|stuck| stuck <= self.now);
                    return is_stuck || (sink.is_slow && self.stop_at.is_none());
                }
            }
            // Also if no descriptor was ready.
            self.idle_since = Some(self.now);
            self.hold_up_timer.on_awake(self.now);
            let limit = usize::try_from(until - pipe.bytes_read()).unwrap_or(usize::MAX).min(READ_BUFFER_BYTES);
            match pipe.read(&mut self.buffer, limit, &self.stamp, &mut self.outputs) {
                Read::All | Read::Some => {}
                Read::Nothing | Read::Closed => break,
            }
        }
        pipe.finish_ended_lines(&self.stamp, &mut self.outputs);
        self.start_successor(key);
        true
    }

    /// Reads the pipe once, unless its sink is full: then it is paused.
    fn read(&mut self, key: u64) {
        let Some(pipe) = self.pipes.get_mut(&key) else { return };
        if let Some(sink) = pipe.route.sink().map(|stream| self.outputs.sink(stream))
            && !sink.has_room()
        {
            sink.paused.push(key);
            self.poller.remove(pipe.descriptor()).ok();
            return;
        }
        let read = pipe.read(&mut self.buffer, READ_BUFFER_BYTES, &self.stamp, &mut self.outputs);
        if read == Read::Closed {
            pipe.finish_line(&self.stamp, &mut self.outputs);
            self.poller.remove(pipe.descriptor()).ok();
            self.remove_pipe(key);
        }
        self.start_successor(key);
        self.outputs.flush_if_large(&self.poller, self.now, &self.stamp);
    }

    /// Polls the paused pipes again whose sink has room.
    fn resume_pipes(&mut self) {
        for sink in [&mut self.outputs.stdout, &mut self.outputs.stderr] {
            if !sink.has_room() {
                continue;
            }
            for key in sink.paused.drain(..) {
                if let Some(pipe) = self.pipes.get(&key) {
                    self.poller.add(pipe.descriptor(), FIRST_PIPE + key).ok();
                }
            }
        }
    }
}

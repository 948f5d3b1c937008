//! The logger: a copy of keepalive that reads what services write, so that PID 1 reads no byte of it.
//!
//! It is forked from PID 1 without exec, waits for nothing but its own descriptors, and may be killed at any time: PID 1
//! holds both ends of every pipe and starts another. It must not wait for one reader while others could go on, and must
//! not lose what can be written: where a sink is full, the pipes that lead there are not read, so that who writes there
//! waits. Start with [`run`].

mod client;
mod file;
mod outputs;
mod pipes;
mod ring;
mod sink;
mod source;
mod split;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

use log::Level;
use nix::errno::Errno;

use self::client::{CLIENTS_AT_MOST, Client, GUESTS_AT_MOST};
use self::outputs::Outputs;
use self::pipes::{NextPipe, key};
use self::ring::Ring;
use self::sink::Sink;
use self::source::{Pipe, Read};
use super::line::{Colour, Label, OwnStyle, Stream};
use super::message::{LogsQuery, Message, Source};
use super::stamp::Stamp;
use crate::model::Mono;
use crate::model::map::Map;
use crate::model::plan::LogStyle;
use crate::sys::counters::SharedCounters;
use crate::sys::non_blocking_writer::NonBlockingWriter;
use crate::sys::poll::Ready;
use crate::sys::{self, Poller, fork, packet, process};

/// The position of the first counter of a slot: lines and bytes of stdout, lines and bytes of stderr.
pub const COUNTERS_BEFORE_SLOTS: usize = 8;
/// How many counters each slot has.
pub const COUNTERS_FOR_EACH: usize = 4;
/// The position of the counter of messages of keepalive's own that were lost here.
pub const LOST_MESSAGES: usize = 0;
/// The position of the counter of readers of the log that were refused.
pub const REFUSED_CLIENTS: usize = 1;

/// The position of what [`Sink`] leaves to the next logger, stdout's and stderr's.
const TORN: usize = 2;
/// What a pipe is read into; as much as the largest holds.
const BUFFER: usize = 256 << 10;
/// So many packets are taken before anything else is looked at.
const PACKETS_PER_TURN: usize = 64;
/// So much may wait for its turn; with more, what was to come before is no longer waited for.
const PENDING_AT_MOST: usize = 4_096;
/// So long what was written before an end is waited for, in a place that takes it slowly.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long there is for the rest when PID 1 has gone without a word.
const LAST_MILLISECONDS: u64 = 2_000;

const SOCKET: u64 = 0;
const STDOUT: u64 = 1;
const STDERR: u64 = 2;
const FIRST_CLIENT: u64 = 16;
const FIRST_PIPE: u64 = 64;
/// Beyond all keys: for pipes in whose place there is another.
const FIRST_RETIRED: u64 = 1 << 40;

/// What the logger begins with.
#[derive(Debug)]
pub struct LoggerArgs {
    /// Where PID 1 tells what to do.
    pub socket: OwnedFd,
    /// Whoever holds the other end sees by its closing that the logger has ended.
    pub life: OwnedFd,
    /// The pipes that there are already.
    pub pipes: Vec<(Source, OwnedFd)>,
    /// How lines look.
    pub style: LogStyle,
    /// The longest name of an instance.
    pub width: usize,
    /// Whether terminals are to be shown colours.
    pub colour: Colour,
    /// Lines and bytes, for PID 1 to read.
    pub counters: &'static SharedCounters,
}

/// Who writes to a pipe, by its key: what lines in the ring are called.
type Names = Map<u64, Name>;

#[derive(Debug)]
struct Name {
    service: String,
    instance: String,
    label: Label,
}

/// Something that has its order.
#[derive(Debug)]
enum Pending {
    Own {
        level: Level,
        milliseconds: u64,
        text: String,
    },
    /// What the pipe `key` held then comes first: so many bytes in all.
    Ended {
        key: u64,
        until: u64,
    },
}

/// Reads, writes and ends with the process. Only for a copy that [`fork::fork_without_sigchld`] has made.
pub fn run(beginning: LoggerArgs) -> ! {
    fork::set_name(c"keepalive-log");
    let mut kept = vec![beginning.socket.as_raw_fd(), beginning.life.as_raw_fd()];
    kept.extend(beginning.pipes.iter().map(|(_, pipe)| pipe.as_raw_fd()));
    process::leave_cwd_and_close_fds(&kept);
    let code = match Logger::new(beginning, [1, 2].map(NonBlockingWriter::new)) {
        Ok(mut logger) => {
            logger.run();
            // Nothing is dropped: its end is seen when it is there, not before.
            process::exit_now(0)
        }
        Err(errno) => u8::try_from(errno as i32).unwrap_or(u8::MAX),
    };
    process::exit_now(code)
}

struct Logger {
    poller: Poller,
    socket: OwnedFd,
    /// Never touched: it closes with us.
    _life: OwnedFd,
    pipes: Map<u64, Pipe>,
    /// The key of the next pipe in whose place there is another.
    next_retired: u64,
    /// Who is read when a pipe, by its key, has been read so far.
    heirs: Map<u64, NextPipe>,
    /// The number of the newest pipe that we have ever had.
    newest: Option<u64>,
    names: Names,
    outputs: Outputs,
    clients: Vec<Client>,
    pending: VecDeque<Pending>,
    /// Since when the first one waits for what was written before an end.
    waits_since: Option<Mono>,
    /// Everything is to be written by then, and no more is to come.
    ends_by: Option<Mono>,
    counters: &'static SharedCounters,
    colours: [bool; 2],
    width: usize,
    buffer: Vec<u8>,
    now: Mono,
    stamp: Stamp,
}

impl Logger {
    fn new(beginning: LoggerArgs, outlets: [NonBlockingWriter; 2]) -> Result<Self, Errno> {
        let LoggerArgs { socket, life, pipes, style, width, colour, counters } = beginning;
        let poller = Poller::new()?;
        poller.add(&socket, SOCKET)?;
        let colours = outlets.map(|non_blocking_writer| colour == Colour::With && non_blocking_writer.is_terminal());
        let [stdout, stderr] = outlets;
        let are_one = stdout.is_same(&stderr);
        let outputs = Outputs {
            style: OwnStyle { style, width: Some(width) },
            stdout: Sink::new("stdout", stdout, STDOUT, counters.get(TORN)),
            stderr: Sink::new("stderr", stderr, STDERR, counters.get(TORN + 1)),
            are_one,
            files: Vec::new(),
            ring: Ring::default(),
            lost: 0,
        };
        let mut logger = Self {
            poller,
            socket,
            _life: life,
            pipes: Map::new(),
            next_retired: FIRST_RETIRED,
            heirs: Map::new(),
            newest: None,
            names: Names::new(),
            outputs,
            clients: Vec::new(),
            pending: VecDeque::new(),
            waits_since: None,
            ends_by: None,
            counters,
            colours,
            width,
            buffer: vec![0; BUFFER],
            now: sys::now(),
            stamp: Stamp::at(0),
        };
        pipes.into_iter().for_each(|(source, pipe)| logger.add_pipe(source, pipe));
        Ok(logger)
    }

    fn run(&mut self) {
        loop {
            self.settle();
            self.outputs.flush(&self.poller, self.now, &self.stamp);
            self.resume();
            self.clients.retain_mut(|client| client.pump(&self.outputs.ring, &self.names, &self.poller, self.now));
            if self.is_over() {
                return;
            }
            self.turn();
        }
    }

    /// Whether everything is written, or the time for that is over.
    fn is_over(&mut self) -> bool {
        let Some(by) = self.ends_by else { return false };
        if self.now >= by {
            // What one does not take does not keep keepalive's last words from the other.
            for pending in std::mem::take(&mut self.pending) {
                if let Pending::Own { level, milliseconds, text } = pending {
                    self.put_own(level, milliseconds, &text);
                }
            }
            self.outputs.flush(&self.poller, self.now, &self.stamp);
            return true;
        }
        self.pending.is_empty() && self.outputs.is_empty()
    }

    /// When something is due that no descriptor tells.
    fn timeout(&self) -> Option<Duration> {
        let stuck = [&self.outputs.stdout, &self.outputs.stderr].map(Sink::stuck_at);
        let waits = self.waits_since.map(|since| since + PATIENCE);
        // What was due already has been seen to, and waits for room.
        let stuck = stuck.into_iter().chain([waits]).filter(|due| !self.pending.is_empty() && *due > Some(self.now));
        let slow = self.clients.iter().map(Client::deadline);
        stuck.chain([self.ends_by]).chain(slow).flatten().min().map(|due| due.since(self.now))
    }

    fn turn(&mut self) {
        let timeout = self.timeout();
        let ready: Vec<u64> = self.poller.wait(timeout).unwrap_or_default().iter().map(Ready::data).collect();
        self.now = sys::now();
        self.stamp = Stamp::of(sys::wall());
        // What PID 1 tells comes first: what has ended is then told from what has begun.
        if ready.contains(&SOCKET) {
            self.listen();
            self.settle();
        }
        for token in ready {
            match token {
                SOCKET => {}
                // They are flushed after every turn.
                STDOUT | STDERR => {}
                FIRST_CLIENT..FIRST_PIPE => {
                    self.clients.retain_mut(|client| client.token() != token || client.listens(&self.poller));
                }
                pipe => self.read(pipe - FIRST_PIPE),
            }
        }
    }

    fn listen(&mut self) {
        for _ in 0..PACKETS_PER_TURN {
            match packet::receive(&self.socket, &mut self.buffer) {
                Ok((0, _)) => {
                    self.poller.remove(&self.socket).ok();
                    return self.end(LAST_MILLISECONDS);
                }
                Ok((length, descriptor)) => {
                    let message = self.buffer.get(..length).and_then(Message::decode);
                    if let Some(message) = message {
                        self.obey(message, descriptor);
                    }
                }
                Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }

    fn obey(&mut self, message: Message, descriptor: Option<OwnedFd>) {
        match (message, descriptor) {
            // What PID 1 told the logger before us of, we have had from the beginning.
            (Message::Pipe(source), Some(pipe)) if Some(source.serial) > self.newest => self.add_pipe(source, pipe),
            (Message::Client(query), Some(socket)) => self.add_client(query, socket),
            (Message::Own { level, milliseconds, text }, _) => {
                self.pending.push_back(Pending::Own { level, milliseconds, text });
            }
            (Message::Ended { slot }, _) => self.on_ended(slot),
            (Message::End { within }, _) => self.end(within),
            (Message::Pipe(_) | Message::Client(_), _) => {}
        }
    }

    /// What stands in the pipes now is still written, what comes later is not.
    fn end(&mut self, within: u64) {
        self.ends_by = Some(self.now + Duration::from_millis(within));
        let keys: Vec<u64> = self.pipes.keys().copied().collect();
        keys.into_iter().for_each(|key| self.await_pipe(key));
    }

    /// What stands in its pipes now comes before what PID 1 tells from now on.
    fn on_ended(&mut self, slot: u32) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.await_pipe(key(slot, stream));
        }
    }

    fn await_pipe(&mut self, key: u64) {
        if let Some(pipe) = self.pipes.get_mut(&key) {
            self.pending.push_back(Pending::Ended { key, until: pipe.end_of_writer() });
        }
    }

    fn add_client(&mut self, query: LogsQuery, socket: OwnedFd) {
        let tokens = FIRST_CLIENT..FIRST_CLIENT + CLIENTS_AT_MOST as u64;
        let free = tokens.into_iter().find(|token| self.clients.iter().all(|client| client.token() != *token));
        let guests = self.clients.iter().filter(|client| client.is_guest()).count();
        let Some(token) = free.filter(|_| !query.is_guest || guests < GUESTS_AT_MOST) else {
            if let Some(refused) = self.counters.get(REFUSED_CLIENTS) {
                refused.fetch_add(1, Ordering::Relaxed);
            }
            return client::refuse(&socket);
        };
        let (ring, names) = (&self.outputs.ring, &self.names);
        let mut client = Client::new(socket, token, query, ring, names);
        // At once: what is read in this turn may take the place of what is asked for.
        if self.poller.add(client.descriptor(), token).is_ok() && client.pump(ring, names, &self.poller, self.now) {
            self.clients.push(client);
        }
    }

    /// Puts out what has its order, as far as it has its turn.
    fn settle(&mut self) {
        while let Some(first) = self.pending.pop_front() {
            match first {
                Pending::Own { level, milliseconds, text } => {
                    if !self.has_room(Stream::Stderr) && self.pending.len() < PENDING_AT_MOST {
                        return self.pending.push_front(Pending::Own { level, milliseconds, text });
                    }
                    self.put_own(level, milliseconds, &text);
                }
                Pending::Ended { key, until } => {
                    if !self.drain(key, until) && self.pending.len() < PENDING_AT_MOST {
                        self.waits_since.get_or_insert(self.now);
                        return self.pending.push_front(Pending::Ended { key, until });
                    }
                    self.waits_since = None;
                }
            }
        }
    }

    fn put_own(&mut self, level: Level, milliseconds: u64, text: &str) {
        let lost = self.outputs.lost;
        self.outputs.put_own(&Stamp::at(milliseconds), level, text);
        if self.outputs.lost > lost
            && let Some(counter) = self.counters.get(LOST_MESSAGES)
        {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether a line of keepalive's own can be put out: there is room, or nobody who reads has been there for some time.
    fn has_room(&mut self, stream: Stream) -> bool {
        if !self.outputs.sink(stream).has_room() {
            self.outputs.flush(&self.poller, self.now, &self.stamp);
        }
        let sink = self.outputs.sink(stream);
        sink.has_room() || sink.stuck_at().is_some_and(|stuck| stuck <= self.now)
    }

    /// Reads what was in the pipe when its writer ended; false: there is no room for it yet.
    fn drain(&mut self, key: u64, until: u64) -> bool {
        if let Some((before, until)) = self.predecessor(key)
            && !self.drain(before, until)
        {
            return false;
        }
        // Whatever is waited for no longer stays in its order among itself.
        if self.predecessor(key).is_some() {
            return true;
        }
        let Some(pipe) = self.pipes.get_mut(&key) else { return true };
        let sink = pipe.route.sink();
        while pipe.seen() < until {
            if let Some(sink) = sink
                && !self.outputs.sink(sink).has_room()
            {
                self.outputs.flush(&self.poller, self.now, &self.stamp);
                let sink = self.outputs.sink(sink);
                if !sink.has_room() {
                    // Whoever reads nothing at all does not see the order either; and who reads slowly is not to hold
                    // back what goes elsewhere. At the very end there is a time for everything.
                    let waited = self.waits_since.is_some_and(|since| since + PATIENCE <= self.now);
                    sink.is_slow |= waited;
                    let is_stuck = sink.stuck_at().is_some_and(|stuck| stuck <= self.now);
                    return is_stuck || (sink.is_slow && self.ends_by.is_none());
                }
            }
            let most = usize::try_from(until - pipe.seen()).unwrap_or(usize::MAX).min(BUFFER);
            let Some(room) = self.buffer.get_mut(..most) else { break };
            match pipe.read(room, &self.stamp, &mut self.outputs) {
                Read::All | Read::Some => {}
                Read::Nothing | Read::Closed => break,
            }
        }
        pipe.finish_due(&self.stamp, &mut self.outputs);
        self.let_heir_begin(key);
        true
    }

    fn read(&mut self, key: u64) {
        let Some(pipe) = self.pipes.get_mut(&key) else { return };
        if let Some(sink) = pipe.route.sink().map(|stream| self.outputs.sink(stream))
            && !sink.has_room()
        {
            sink.paused.push(key);
            self.poller.remove(pipe.descriptor()).ok();
            return;
        }
        let read = pipe.read(&mut self.buffer, &self.stamp, &mut self.outputs);
        if read == Read::Closed {
            pipe.finish_line(&self.stamp, &mut self.outputs);
            self.poller.remove(pipe.descriptor()).ok();
            self.pipes.remove(&key);
        }
        self.let_heir_begin(key);
        self.outputs.flush_if_large(&self.poller, self.now, &self.stamp);
    }

    /// Goes on with the pipes that have waited for room which is there now.
    fn resume(&mut self) {
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

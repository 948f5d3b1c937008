//! The channels of services with `ipc`: a line of JSON is a message, as Node's `process.send` has it.
//!
//! A worker says that it is ready, has keepalive remember things that outlive it, and writes to other workers. Whatever
//! it sends costs its own channel at most: lines, queues and the work done in one turn are bounded. Start with
//! `Runtime::talk`; [`message`] says what can be said.

mod channel;
mod message;
mod store;

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use super::by_instance::ByInstance;
use super::subsystem::{Context, Subsystem};
use super::token::Token;
use crate::model::map::Map;
use crate::model::{InstanceId, Mono, RunId, ServiceIndex};
use crate::supervisor::{Event, ReadySource};
use crate::sys::{Poller, strings};
use channel::{Channel, Read};
use message::Message;
use store::Store;

/// So many channels have their turn in one of the loop.
const CHANNELS_PER_TURN: usize = 8;
/// So many lines are looked at of each.
const LINES_PER_TURN: usize = 64;
/// When so many have been put into queues, the rest comes with the next turn.
const DELIVERIES_PER_TURN: usize = 1 << 10;
/// So many of what a process has sent before it ended; the rest is lost.
const LAST_DELIVERIES: usize = 4 << 10;
/// More than the kernel holds of it then.
const LAST_PIECES: usize = 64;

/// All channels, and what is remembered for each service.
#[derive(Debug, Default)]
pub(super) struct Channels {
    channels: Map<RunId, Channel>,
    stores: Map<ServiceIndex, Store>,
    /// How many messages to each instance were lost, since keepalive has started.
    lost: ByInstance<u64>,
    /// Who has something to say, each in its turn.
    queue: VecDeque<RunId>,
    /// Those that have reported that they are ready in this turn.
    ready: Vec<RunId>,
    /// So many more may be put into queues.
    deliveries: usize,
}

/// Why a channel is closed before its process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Malformed,
    TooLong,
}

impl Subsystem for Channels {
    type Needs<'a> = ();

    fn due(&self) -> Option<Mono> {
        None
    }

    /// Some have not had their turn.
    fn is_busy(&self) -> bool {
        !self.queue.is_empty()
    }

    fn on_ready(&mut self, token: Token) {
        if let Token::Channel(run) = token {
            self.enqueue(run);
        }
    }

    fn turn(&mut self, context: &mut Context<'_>, (): ()) -> Vec<Event> {
        self.go_on(context.poller)
    }
}

impl Channels {
    /// From now on `fd` is our end of the channel of `run`.
    pub(super) fn open(&mut self, run: RunId, instance: InstanceId, service: &str, fd: OwnedFd, poller: &Poller) {
        let token = Token::Channel(run);
        // Without a watch there is no channel, which its process finds closed.
        if poller.add(&fd, token).is_ok() {
            self.channels.insert(run, Channel::new(fd, token, instance, service.into()));
        }
    }

    fn enqueue(&mut self, run: RunId) {
        let Some(channel) = self.channels.get_mut(&run) else { return };
        if !std::mem::replace(&mut channel.is_queued, true) {
            self.queue.push_back(run);
        }
    }

    /// Goes on with those that have something to say, and with those that have something to read.
    fn go_on(&mut self, poller: &Poller) -> Vec<Event> {
        if self.queue.is_empty() {
            return Vec::new();
        }
        self.deliveries = DELIVERIES_PER_TURN;
        for _ in 0..CHANNELS_PER_TURN {
            if self.deliveries == 0 {
                break;
            }
            let Some(run) = self.queue.pop_front() else { break };
            self.attend(run, poller);
        }
        self.flush(poller);
        self.take_ready()
    }

    fn take_ready(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.ready).into_iter().map(|run| Event::Ready { run, source: ReadySource::Ipc }).collect()
    }

    fn attend(&mut self, run: RunId, poller: &Poller) {
        let Some(channel) = self.channels.get_mut(&run) else { return };
        channel.is_queued = false;
        channel.is_fed = true;
        let is_over = !channel.has_line() && channel.read() == Read::End;
        match self.take_lines(run, LINES_PER_TURN) {
            Err(fault) => self.give_up(run, fault, poller),
            // Its end will be found again when these are done.
            Ok(()) if self.channels.get(&run).is_some_and(Channel::has_line) => self.enqueue(run),
            Ok(()) if is_over => self.close(run, poller),
            Ok(()) => {}
        }
    }

    /// Does what the next lines say.
    fn take_lines(&mut self, run: RunId, most: usize) -> Result<(), Fault> {
        let Some(channel) = self.channels.get_mut(&run) else { return Ok(()) };
        let input = channel.take_input();
        let mut done = 0;
        for _ in 0..most {
            let rest = input.get(done..).unwrap_or_default();
            let Some(length) = strings::memchr(b'\n', rest).filter(|_| self.deliveries > 0) else { break };
            let line = rest.get(..length).unwrap_or_default();
            if !channel::is_short_enough(length) {
                return Err(Fault::TooLong);
            }
            if !line.trim_ascii().is_empty() {
                let message = message::parse(line).ok_or(Fault::Malformed)?;
                self.take_message(run, message);
            }
            done += length + 1;
        }
        let Some(channel) = self.channels.get_mut(&run) else { return Ok(()) };
        channel.put_back(input, done).map_err(|_| Fault::TooLong)
    }

    fn take_message(&mut self, run: RunId, message: Message<'_>) {
        let Some(channel) = self.channels.get(&run) else { return };
        let store = self.stores.entry(channel.instance.service);
        let answer = match message {
            Message::Other => return,
            Message::Ready => return self.ready.push(run),
            Message::Send { to, data } => return self.send(run, &to, data),
            Message::Handle => message::NO_HANDLE.to_owned(),
            Message::Incomplete { key, lacks } => {
                message::error(key.map(|key| ("key", key)), &format!("missing {lacks}"))
            }
            Message::Get { key } => message::value(key.written, store.get(&key.meant)),
            Message::Set { key, value: None } => return store.remove(&key.meant),
            Message::Set { key, value: Some(value) } => match store.set(key.meant, value) {
                Ok(()) => return,
                Err(store::Full) => message::error(Some(("key", key.written)), "the store is full"),
            },
        };
        self.push(run, &answer);
    }

    /// To all whom it is meant for; to oneself only if it says so.
    fn send(&mut self, from: RunId, to: &str, data: &str) {
        let Some(sender) = self.channels.get(&from) else { return };
        let line = message::delivery(&sender.name(), data);
        let mut is_known = to == "*";
        for (run, channel) in self.channels.iter_mut().filter(|(_, channel)| channel.is_meant(to)) {
            is_known = true;
            if *run != from || !channel::is_group(to) {
                give(channel, &line, channel::MAX_BYTES_FROM_OTHERS, &mut self.lost);
                self.deliveries = self.deliveries.saturating_sub(1);
            }
        }
        if !is_known {
            let error =
                message::error(Some(("to", &message::quoted(to))), "no instance of this name has an ipc channel");
            self.push(from, &error);
        }
    }

    fn push(&mut self, run: RunId, line: &[u8]) {
        if let Some(channel) = self.channels.get_mut(&run) {
            give(channel, line, channel::MAX_WAITING_BYTES, &mut self.lost);
        }
    }

    /// Sends what was put into queues.
    fn flush(&mut self, poller: &Poller) {
        let fed =
            self.channels.values_mut().filter_map(|channel| std::mem::take(&mut channel.is_fed).then_some(channel));
        fed.for_each(|channel| channel.flush(poller));
    }

    /// How many messages to this instance were lost, because it did not read them.
    pub(super) fn lost(&self, id: InstanceId) -> u64 {
        self.lost.get(id).copied().unwrap_or_default()
    }

    /// What is remembered for a service that is not to be any more.
    pub(super) fn forget(&mut self, service: ServiceIndex) {
        self.stores.remove(&service);
    }

    /// The stop signal of this process is about to be sent.
    pub(super) fn announce_stop(&mut self, run: RunId, poller: &Poller) {
        self.push(run, message::SHUTDOWN);
        self.flush(poller);
    }

    /// The process has ended. What it has said before is done, as far as it can be.
    pub(super) fn on_ended(&mut self, run: RunId, poller: &Poller) {
        if !self.channels.contains_key(&run) {
            return;
        }
        self.deliveries = LAST_DELIVERIES;
        for _ in 0..LAST_PIECES {
            let Some(channel) = self.channels.get_mut(&run) else { break };
            let read = channel.read();
            if let Err(fault) = self.take_lines(run, usize::MAX) {
                self.give_up(run, fault, poller);
            }
            if read != Read::Something || self.deliveries == 0 {
                break;
            }
        }
        self.close(run, poller);
        self.flush(poller);
    }

    fn give_up(&mut self, run: RunId, fault: Fault, poller: &Poller) {
        if let Some(channel) = self.channels.get(&run) {
            let reason = match fault {
                Fault::Malformed => "invalid JSON",
                Fault::TooLong => "a line was longer than 64 KiB",
            };
            log::warn!("{}: ipc channel closed: {reason}", channel.name());
        }
        self.close(run, poller);
    }

    fn close(&mut self, run: RunId, poller: &Poller) {
        let Some(channel) = self.channels.remove(&run) else { return };
        poller.remove(&channel.fd).ok();
        if channel.lost > 0 {
            log::warn!("{}: {} ipc messages were dropped", channel.name(), channel.lost);
        }
        channel.close();
    }
}

/// Has it wait to be sent, or counts it as lost.
fn give(channel: &mut Channel, line: &[u8], most: usize, lost: &mut ByInstance<u64>) {
    channel.is_fed = true;
    if !channel.push(line, most)
        && let Some(lost) = lost.entry(channel.instance)
    {
        *lost += 1;
    }
}

#[cfg(test)]
mod tests;

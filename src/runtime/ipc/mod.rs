//! The ipc channels of services with `ipc`: one line of JSON is one message, as with Node's `process.send`.
//!
//! A worker can report that it is ready, store values that outlive it, and send messages to other workers. Lines, queues and the
//! work per turn are bounded; a worker that violates the protocol loses only its own channel. Start reading at
//! `Channels::advance`; [`message`] has the messages.

mod channel;
mod discards;
mod message;
mod store;

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use super::by_instance::ByInstance;
use super::rate_limited_log::{self, MessageKind};
use super::subsystem::{Context, Subsystem};
use super::token::Token;
use crate::model::map::Map;
use crate::model::{InstanceId, Mono, Pid, RunId, ServiceIndex};
use crate::supervisor::{Event, ReadySource};
use crate::sys::{PeerStream, Poller, allocator, strings};
use channel::{Channel, InputState, Read};
use discards::{Discarded, Discards};
use message::Message;
use store::Store;

/// The number of channels that are served in one turn.
const MAX_CHANNELS_PER_TURN: usize = 8;
/// The number of lines of each channel that are handled in one turn: some tenths of a millisecond.
const MAX_LINES_PER_TURN: usize = 16;
/// The number of messages that are queued in one turn.
const MAX_DELIVERIES_PER_TURN: usize = 1 << 10;
/// The number of messages that are delivered for a process that has exited. The rest is lost.
const MAX_FINAL_DELIVERIES: usize = 4 << 10;
/// The number of reads from the channel of a process that has exited: more than the kernel buffers.
const MAX_FINAL_READS: usize = 64;

/// All channels, and the store of each service.
#[derive(Debug, Default)]
pub(super) struct Channels {
    channels: Map<RunId, Channel>,
    stores: Map<ServiceIndex, Store>,
    /// The number of messages to each instance that were dropped since keepalive has started.
    lost: ByInstance<u64>,
    /// The channels that have input, in the order in which they are served.
    queue: VecDeque<RunId>,
    /// The runs that have reported readiness in this turn.
    ready: Vec<RunId>,
    /// The number of messages that can still be queued in this turn.
    deliveries: usize,
    discards: Discards,
}

/// Why a channel is closed before its process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChannelError {
    Malformed,
    TooLong,
    /// Descriptors that it carried could not be closed.
    Stuck,
}

impl Subsystem for Channels {
    type Needs<'a> = ();

    fn due(&self) -> Option<Mono> {
        self.discards.due()
    }

    fn is_busy(&self) -> bool {
        !self.queue.is_empty()
    }

    fn on_ready(&mut self, token: Token) {
        if let Token::Channel(run) = token {
            self.enqueue(run);
        }
    }

    fn turn(&mut self, context: &mut Context<'_>, (): ()) -> Vec<Event> {
        let events = self.advance(context.now, context.poller);
        for run in self.discards.take_overdue(context.now) {
            self.close_for_error(run, ChannelError::Stuck, context.poller);
        }
        self.discards.start_helpers(context.now, |run| self.channels.get(&run).map(|channel| &channel.fd));
        events
    }
}

impl Channels {
    /// Adds the channel of `run`. `fd` is the end of keepalive.
    pub(super) fn open(&mut self, run: RunId, instance: InstanceId, service: &str, fd: OwnedFd, poller: &Poller) {
        let token = Token::Channel(run);
        // Without a watch the channel is closed.
        if poller.add(&fd, token).is_ok() {
            self.channels.insert(
                run,
                Channel::new(PeerStream::of_service(instance.service, fd), token, instance, service.into()),
            );
        }
    }

    fn enqueue(&mut self, run: RunId) {
        let Some(channel) = self.channels.get_mut(&run) else { return };
        if channel.state == InputState::Idle {
            channel.state = InputState::Queued;
            self.queue.push_back(run);
        }
    }

    /// Serves channels with input, and sends queued messages.
    fn advance(&mut self, now: Mono, poller: &Poller) -> Vec<Event> {
        if self.queue.is_empty() {
            return Vec::new();
        }
        self.deliveries = MAX_DELIVERIES_PER_TURN;
        for _ in 0..MAX_CHANNELS_PER_TURN {
            if self.deliveries == 0 {
                break;
            }
            let Some(run) = self.queue.pop_front() else { break };
            self.serve(run, now, poller);
        }
        self.flush(poller);
        self.take_ready()
    }

    fn take_ready(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.ready).into_iter().map(|run| Event::Ready { run, source: ReadySource::Ipc }).collect()
    }

    fn serve(&mut self, run: RunId, now: Mono, poller: &Poller) {
        let Some(channel) = self.channels.get_mut(&run) else { return };
        channel.state = InputState::Idle;
        channel.needs_flush = true;
        let read = if channel.has_line() { Read::Nothing } else { channel.read() };
        match self.handle_lines(run, MAX_LINES_PER_TURN) {
            Err(error) => self.close_for_error(run, error, poller),
            // The end is found again when these lines have been handled.
            Ok(()) if self.channels.get(&run).is_some_and(Channel::has_line) => self.enqueue(run),
            Ok(()) => match read {
                Read::End => self.close(run, poller),
                Read::Descriptors(data) => self.discard_descriptors(run, data, now, poller),
                Read::Something | Read::Nothing => {}
            },
        }
    }

    /// The next data carries descriptors: a helper process receives it.
    fn discard_descriptors(&mut self, run: RunId, data: Vec<u8>, now: Mono, poller: &Poller) {
        let Some(channel) = self.channels.get_mut(&run) else { return };
        let name = channel.name();
        let service = Some(channel.instance.service);
        let warning = format_args!("{name}: descriptors sent over the ipc channel are not accepted");
        rate_limited_log::warn(MessageKind::DescriptorsRejected, service, warning);
        channel.pause(poller);
        self.discards.add(run, data, now);
    }

    /// Reaps `pid` if it was a helper that received descriptors. Returns whether it was.
    pub(super) fn on_dead(&mut self, pid: Pid, poller: &Poller) -> bool {
        let Some(Discarded { run, data }) = self.discards.on_dead(pid) else { return false };
        let Some(channel) = self.channels.get_mut(&run) else { return true };
        match data.ok_or(()).and_then(|data| channel.resume(&data, poller).map_err(drop)) {
            Ok(()) => self.enqueue(run),
            Err(()) => self.close_for_error(run, ChannelError::Stuck, poller),
        }
        true
    }

    /// Handles the next lines.
    fn handle_lines(&mut self, run: RunId, most: usize) -> Result<(), ChannelError> {
        let Some(channel) = self.channels.get_mut(&run) else { return Ok(()) };
        let input = channel.take_input();
        let mut done = 0;
        for _ in 0..most {
            let rest = input.get(done..).unwrap_or_default();
            let Some(length) = strings::memchr(b'\n', rest).filter(|_| self.deliveries > 0) else { break };
            let line = rest.get(..length).unwrap_or_default();
            if !channel::is_short_enough(length) {
                return Err(ChannelError::TooLong);
            }
            if !line.trim_ascii().is_empty() {
                let message = message::parse(line).ok_or(ChannelError::Malformed)?;
                self.handle_message(run, message);
            }
            done += length + 1;
        }
        let Some(channel) = self.channels.get_mut(&run) else { return Ok(()) };
        channel.put_back(input, done).map_err(|_| ChannelError::TooLong)
    }

    fn handle_message(&mut self, run: RunId, message: Message<'_>) {
        let Some(channel) = self.channels.get(&run) else { return };
        let store = self.stores.entry(channel.instance.service);
        let answer = match message {
            Message::Other => return,
            Message::Ready => return self.ready.push(run),
            Message::Send { to, data } => return self.send(run, &to, data),
            Message::Handle => message::NO_HANDLE.to_owned(),
            Message::Incomplete { key, missing } => {
                message::error(key.map(|key| ("key", key)), &format!("missing {missing}"))
            }
            Message::Get { key } => message::value(key.raw, store.get(&key.decoded)),
            Message::Set { key, value: None } => return store.remove(&key.decoded),
            Message::Set { key, value: Some(value) } => match store.set(key.decoded, value) {
                Ok(()) => return,
                Err(store::Full) => message::error(Some(("key", key.raw)), "the store is full"),
            },
        };
        self.push(run, &answer);
    }

    /// Queues a message for all instances that it is addressed to. A group excludes the sender.
    fn send(&mut self, from: RunId, to: &str, data: &str) {
        let Some(sender) = self.channels.get(&from) else { return };
        let line = message::delivery(&sender.name(), data);
        let mut is_known = to == "*";
        // While memory is short, nothing is queued for workers that do not read.
        let most = if allocator::is_reserve_in_use() { 0 } else { channel::MAX_QUEUED_FROM_OTHERS };
        for (run, channel) in self.channels.iter_mut().filter(|(_, channel)| channel.is_addressed_by(to)) {
            is_known = true;
            if *run != from || !channel::is_group(to) {
                enqueue_line(channel, &line, most, &mut self.lost);
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
            enqueue_line(channel, line, channel::MAX_QUEUED, &mut self.lost);
        }
    }

    /// Sends queued messages.
    fn flush(&mut self, poller: &Poller) {
        let fed = self
            .channels
            .values_mut()
            .filter_map(|channel| std::mem::take(&mut channel.needs_flush).then_some(channel));
        fed.for_each(|channel| channel.flush(poller));
    }

    /// The number of messages to this instance that were dropped because it does not read them.
    pub(super) fn lost(&self, id: InstanceId) -> u64 {
        self.lost.get(id).copied().unwrap_or_default()
    }

    /// Removes the store of a service that has been removed.
    pub(super) fn forget(&mut self, service: ServiceIndex) {
        self.stores.remove(&service);
    }

    /// Announces the stop signal to the process.
    pub(super) fn announce_stop(&mut self, run: RunId, poller: &Poller) {
        self.push(run, message::SHUTDOWN);
        self.flush(poller);
    }

    /// The process has exited: handles the messages that it has sent before.
    pub(super) fn on_ended(&mut self, run: RunId, poller: &Poller) {
        if !self.channels.contains_key(&run) {
            return;
        }
        self.deliveries = MAX_FINAL_DELIVERIES;
        for _ in 0..MAX_FINAL_READS {
            let Some(channel) = self.channels.get_mut(&run).filter(|channel| channel.state != InputState::Paused)
            else {
                break;
            };
            let read = channel.read();
            if let Err(error) = self.handle_lines(run, usize::MAX) {
                self.close_for_error(run, error, poller);
            }
            if read != Read::Something || self.deliveries == 0 {
                break;
            }
        }
        self.close(run, poller);
        self.flush(poller);
    }

    fn close_for_error(&mut self, run: RunId, error: ChannelError, poller: &Poller) {
        if let Some(channel) = self.channels.get(&run) {
            let reason = match error {
                ChannelError::Malformed => "invalid JSON",
                ChannelError::TooLong => "a line was longer than 64 KiB",
                ChannelError::Stuck => "descriptors that were sent over it cannot be closed",
            };
            log::warn!("{}: ipc channel closed: {reason}", channel.name());
        }
        self.close(run, poller);
    }

    fn close(&mut self, run: RunId, poller: &Poller) {
        let Some(channel) = self.channels.remove(&run) else { return };
        poller.remove(&channel.fd).ok();
        if channel.lost > 0 {
            log::warn!("{}: ipc messages dropped: {}", channel.name(), channel.lost);
        }
        if channel.state == InputState::Paused {
            channel.fd.close_in_worker();
        }
    }
}

/// Queues a line, or counts it as dropped.
fn enqueue_line(channel: &mut Channel, line: &[u8], most: usize, lost: &mut ByInstance<u64>) {
    channel.needs_flush = true;
    if !channel.push(line, most)
        && let Some(lost) = lost.entry(channel.instance)
    {
        *lost += 1;
    }
}

#[cfg(test)]
mod tests;

//! The descriptors that services send with sd_notify(3), and the file descriptor store: descriptors that are passed from one
//! run of an instance to the next.
//!
//! keepalive never owns them, because any system call on them may hang. They go from the notification socket into a `holder`
//! process, and from there to the next process of the instance, or are closed. Each service that sends descriptors has a holder
//! of its own. keepalive knows their names. A holder that does not answer is killed, and its service loses its store.

mod holder;
mod protocol;

use std::collections::VecDeque;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;

use super::by_instance::ByInstance;
use super::ended_helpers::EndedHelpers;
use super::subsystem::{Context, Subsystem};
use super::token::Token;
use crate::model::map::Map;
use crate::model::{InstanceId, Mono, Pid, RunId, ServiceIndex, Signal};
use crate::supervisor::Event;
use crate::sys::{Poller, fork, kill, packet};
use protocol::{Answer, Command, MAX_PACKET};
pub(super) use protocol::{Keep, Refused, Usage};

/// A holder that takes longer for a command hangs. On a busy machine it may get no time for seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// A holder that holds nothing exits after this time without a command.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// A service whose descriptors have made holders hang more often than this cannot send any more.
const MAX_HANGS: u32 = 3;
/// The number of answers read from one holder in one turn.
const MAX_ANSWERS_PER_TURN: u32 = 64;

/// The stored descriptors of all instances. A surge instance shares those of its instance.
#[derive(Debug, Default)]
pub(super) struct FdStore {
    /// `FDNAME` of each, the oldest first.
    names: ByInstance<Vec<Box<str>>>,
    holders: Vec<Holder>,
    /// Holders that have been killed and not been reaped yet.
    killed: EndedHelpers,
    /// How often descriptors of a service have made a holder hang.
    hangs: Map<ServiceIndex, u32>,
    /// Services whose holders do not give their descriptors.
    distrusted: Vec<ServiceIndex>,
    taken: Vec<Taken>,
    /// The numbers of holders whose channels are readable.
    ready: Vec<u64>,
}

/// A holder process.
#[derive(Debug)]
struct Holder {
    service: ServiceIndex,
    pid: Pid,
    channel: OwnedFd,
    /// The commands that it has not answered.
    pending: VecDeque<Pending>,
    /// When it was last used.
    used_at: Mono,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    due: Mono,
    instance: InstanceId,
    /// Set for [`FdStore::take`].
    run: Option<RunId>,
}

/// The result of [`FdStore::take`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    pub(super) run: RunId,
    pub(super) outcome: Outcome,
}

/// What has become of the descriptors of a datagram.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome {
    /// They have been taken; with the process that a pidfd refers to.
    Taken(Refused, Option<Pid>),
    /// The holder has been ended before it answered.
    Lost(End),
}

/// Why a holder is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It may still be taking a datagram.
    Hangs,
    /// A datagram that it was to take may still be in the queue.
    Exited,
}

impl Subsystem for FdStore {
    type Needs<'a> = ();

    fn due(&self) -> Option<Mono> {
        self.holders.iter().filter_map(|holder| self.due_of(holder)).chain(self.killed.due()).min()
    }

    fn is_busy(&self) -> bool {
        !self.distrusted.is_empty() || !self.taken.is_empty()
    }

    fn on_ready(&mut self, token: Token) {
        if let Token::DescriptorHolder(number) = token {
            self.ready.push(number);
        }
    }

    fn turn(&mut self, context: &mut Context<'_>, (): ()) -> Vec<Event> {
        for number in std::mem::take(&mut self.ready) {
            if let Some(position) = self.holders.iter().position(|holder| number_of(holder.service) == number) {
                self.read_answers(position, context);
            }
        }
        for service in std::mem::take(&mut self.distrusted) {
            if let Some(position) = self.position(service) {
                self.end(position, End::Hangs, context);
            }
        }
        self.end_overdue(context);
        self.killed.reap(context.now);
        Vec::new()
    }
}

impl FdStore {
    /// The names of the stored descriptors of `id`, the oldest first.
    pub(super) fn names(&self, id: InstanceId) -> &[Box<str>] {
        self.names.get(id).map_or(&[], Vec::as_slice)
    }

    /// Adds the processes that hold descriptors to `pids`.
    pub(super) fn add_holders(&self, pids: &mut Vec<Pid>) {
        pids.extend(self.holders.iter().map(|holder| holder.pid));
        pids.extend_from_slice(self.killed.pids());
    }

    /// Takes the next datagram, which carries descriptors, from the notification socket of a run. The result follows in
    /// [`Self::take_answers`]; until then nobody else may read from the socket.
    ///
    /// # Errors
    /// EAGAIN, ENOMEM, EMFILE, ENFILE: no holder can be made. EPERM: the service has made holders hang before.
    pub(super) fn take(
        &mut self,
        (run, instance): (RunId, InstanceId),
        socket: BorrowedFd<'_>,
        usage: Usage<'_>,
        (now, poller): (Mono, &Poller),
    ) -> Result<(), Errno> {
        if self.hangs.get(&instance.service).is_some_and(|hangs| *hangs >= MAX_HANGS) {
            return Err(Errno::EPERM);
        }
        let position = self.holder_for(instance.service, now, poller)?;
        let command = Command::Take { instance: instance.slot().number, usage };
        let pending = Pending { due: now + ANSWER_TIMEOUT, instance, run: Some(run) };
        self.send(position, command, Some(socket), pending)
    }

    /// The results of [`Self::take`] that have come.
    pub(super) fn take_answers(&mut self) -> Vec<Taken> {
        std::mem::take(&mut self.taken)
    }

    /// Drops the descriptors with this name.
    pub(super) fn drop_named(&mut self, id: InstanceId, name: &str, now: Mono) {
        if self.names(id).iter().any(|stored| &**stored == name) {
            self.command(id, Command::DropNamed { instance: id.slot().number, name }, None, now);
            // Other code sees the change at once.
            self.names.get_mut(id).into_iter().for_each(|names| names.retain(|stored| &**stored != name));
        }
    }

    /// Drops all descriptors of an instance that has stopped.
    pub(super) fn forget(&mut self, id: InstanceId, now: Mono) {
        if !self.names(id).is_empty() {
            self.command(id, Command::Forget { instance: id.slot().number }, None, now);
            self.names.get_mut(id).into_iter().for_each(Vec::clear);
        }
    }

    /// Sends all descriptors of an instance over `socket`, to a process that waits for them.
    pub(super) fn give(&mut self, id: InstanceId, socket: BorrowedFd<'_>, now: Mono) {
        self.command(id, Command::Give { instance: id.slot().number }, Some(socket), now);
    }

    /// A process has not got the stored descriptors of its instance.
    pub(super) fn distrust(&mut self, id: InstanceId) {
        self.distrusted.push(id.service);
    }

    fn command(&mut self, id: InstanceId, command: Command<'_>, socket: Option<BorrowedFd<'_>>, now: Mono) {
        let Some(position) = self.position(id.service) else { return };
        let pending = Pending { due: now + ANSWER_TIMEOUT, instance: id, run: None };
        if self.send(position, command, socket, pending).is_err()
            && let Some(holder) = self.holders.get_mut(position)
        {
            // It reads nothing, or has exited: that is seen in the next turn.
            holder.pending.push_back(Pending { due: now, ..pending });
        }
    }

    fn send(
        &mut self,
        position: usize,
        command: Command<'_>,
        socket: Option<BorrowedFd<'_>>,
        pending: Pending,
    ) -> Result<(), Errno> {
        let holder = self.holders.get_mut(position).ok_or(Errno::ESRCH)?;
        packet::send(&holder.channel, &command.encode(), socket)?;
        holder.pending.push_back(pending);
        Ok(())
    }

    fn position(&self, service: ServiceIndex) -> Option<usize> {
        self.holders.iter().position(|holder| holder.service == service)
    }

    /// The position of the holder of a service, which is started if there is none.
    fn holder_for(&mut self, service: ServiceIndex, now: Mono, poller: &Poller) -> Result<usize, Errno> {
        if let Some(position) = self.position(service) {
            if let Some(holder) = self.holders.get_mut(position) {
                holder.used_at = now;
            }
            return Ok(position);
        }
        let (channel, theirs) = packet::pair()?;
        let pid = fork::fork_unseen_helper(&[theirs.as_fd()], c"keepalive-fds", || holder::serve(&theirs))?;
        poller.add(&channel, Token::DescriptorHolder(number_of(service)))?;
        self.holders.push(Holder { service, pid, channel, pending: VecDeque::new(), used_at: now });
        Ok(self.holders.len() - 1)
    }

    fn read_answers(&mut self, position: usize, context: &mut Context<'_>) {
        let mut buffer = vec![0; MAX_PACKET];
        for _ in 0..MAX_ANSWERS_PER_TURN {
            let Some(holder) = self.holders.get_mut(position) else { return };
            let answer = match packet::receive(&holder.channel, &mut buffer) {
                Err(Errno::EAGAIN | Errno::EINTR) => return,
                Ok((length @ 1.., None)) => buffer.get(..length).and_then(Answer::decode),
                Ok(_) | Err(_) => None,
            };
            let Some(Answer { is_notice, instance, refused, main_pid, names }) = answer else {
                return self.end(position, End::Exited, context);
            };
            if !is_notice && let Some(Pending { run: Some(run), .. }) = holder.pending.pop_front() {
                self.taken.push(Taken { run, outcome: Outcome::Taken(refused, main_pid) });
            }
            let service = holder.service;
            // A later command may have changed the names already; its answer comes.
            if holder.pending.iter().all(|pending| pending.run.is_some() || pending.instance.slot().number != instance)
                && let Some(known) = self.names.entry(InstanceId { service, number: instance })
            {
                *known = names;
            }
        }
    }

    /// When a holder is to be ended.
    fn due_of(&self, holder: &Holder) -> Option<Mono> {
        match holder.pending.front() {
            Some(pending) => Some(pending.due),
            None if self.is_empty(holder) => Some(holder.used_at + IDLE_TIMEOUT),
            None => None,
        }
    }

    fn is_empty(&self, holder: &Holder) -> bool {
        self.names.of_service(holder.service).all(|names| names.is_empty())
    }

    fn end_overdue(&mut self, context: &mut Context<'_>) {
        let now = context.now;
        while let Some(position) =
            self.holders.iter().position(|holder| self.due_of(holder).is_some_and(|due| due <= now))
        {
            let is_idle = self.holders.get(position).is_some_and(|holder| holder.pending.is_empty());
            if is_idle {
                // It exits at the end of its channel.
                let Holder { pid, channel, .. } = self.holders.swap_remove(position);
                context.poller.remove(&channel).ok();
                self.killed.push(pid, now);
            } else {
                self.end(position, End::Hangs, context);
            }
        }
    }

    /// Kills a holder that hangs or has exited. What it holds is lost.
    fn end(&mut self, position: usize, end: End, context: &mut Context<'_>) {
        let Holder { service, pid, channel, pending, .. } = self.holders.swap_remove(position);
        context.poller.remove(&channel).ok();
        kill::signal_process(pid, Signal::KILL).ok();
        self.killed.push(pid, context.now);
        let why = match end {
            End::Hangs => {
                *self.hangs.entry(service) += 1;
                "does not answer"
            }
            End::Exited => "has exited",
        };
        let outcome = Outcome::Lost(end);
        self.taken.extend(pending.iter().filter_map(|pending| Some(Taken { run: pending.run?, outcome })));
        let name = context.plan.services.get(service.position()).map_or("", |service| &*service.name);
        let lost: usize = self.names.take(service).iter().map(Vec::len).sum();
        log::warn!("{name}: the process that takes its file descriptors {why}; stored ones that are lost: {lost}");
    }
}

/// The number of a holder's token.
fn number_of(service: ServiceIndex) -> u64 {
    service.position() as u64
}

//! Questions about other processes, which only /proc answers.
//!
//! Reading /proc/PID can take any time, for example while the process executes a program on a file system that does not
//! answer. So keepalive does not read it: it forks an inspector for each question, which is killed when it takes too long.
//! Without an answer less is shown, and signals reach process groups only.

use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;

use super::control::{Server, usage};
use super::ended_helpers::EndedHelpers;
use super::order::Order;
use super::processes::Processes;
use super::sockets::Sockets;
use super::strays::Question;
use super::subsystem::{Context, Subsystem};
use super::token::Token;
use crate::model::plan::Address;
use crate::model::{AsWritten, Mono, Pid, RunId, Signal};
use crate::supervisor::Event;
use crate::sys::{self, Poller, fork, kill, pipe, port_owner, process};

/// An inspector that takes longer is killed.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// The number of inspectors at a time, with those that have been killed and do not exit.
const MAX_INSPECTORS: usize = 4;
/// The time until the next attempt to create an inspector that sends signals.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);
/// The number of orders that wait for an inspector.
const MAX_ORDERS: usize = 4096;
/// How long keepalive waits at its end.
const FINISH_TIMEOUT: Duration = Duration::from_millis(500);
/// The number of bytes read at once.
const READ_SIZE: usize = 16 << 10;
/// The maximum size of an answer in bytes.
const MAX_ANSWER: usize = 4 << 20;

/// The inspectors.
#[derive(Debug, Default)]
pub(super) struct Inspector {
    running: Vec<Running>,
    last_number: u64,
    /// Inspectors that have been killed, or have answered, and not been reaped yet.
    ended: EndedHelpers,
    ready: Vec<u64>,
    usage: Option<Option<Vec<u8>>>,
    strays: Vec<(Question, Option<Vec<u8>>)>,
    /// The supervisor waits for the memory of the services with `max_memory`.
    must_measure_memory: bool,
    /// What has been measured.
    measured: Option<Event>,
    /// The address that was found last, and its owner.
    port_owner: Option<(String, String)>,
    /// The addresses that have been examined since the last turn, and their owners.
    examined: Vec<(String, Option<String>)>,
    /// What the next inspector for [`Topic::Signals`] does.
    orders: Vec<Order>,
    /// Set if an inspector for `orders` could not be created.
    retry_at: Option<Mono>,
}

#[derive(Debug)]
struct Running {
    number: u64,
    pid: Pid,
    pipe: OwnedFd,
    due: Mono,
    topic: Topic,
    answer: Vec<u8>,
}

/// What a question is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Topic {
    /// CPU time and memory.
    Usage,
    /// The memory of these runs.
    Memory(Vec<RunId>),
    /// Processes that are to be signalled.
    Signals,
    /// Processes that have left the sessions of their runs.
    Strays(Question),
    /// The process that has an address.
    PortOwner(String),
}

/// The subsystems that ask.
pub(super) struct Needs<'a> {
    pub(super) processes: &'a mut Processes,
    pub(super) sockets: &'a mut Sockets,
    pub(super) server: &'a mut Server,
}

impl Subsystem for Inspector {
    type Needs<'a> = Needs<'a>;

    fn due(&self) -> Option<Mono> {
        self.running.iter().map(|running| running.due).chain(self.ended.due()).chain(self.retry_at).min()
    }

    fn is_busy(&self) -> bool {
        self.must_measure_memory || !self.orders.is_empty() && !self.is_signalling() && self.retry_at.is_none()
    }

    fn on_ready(&mut self, token: Token) {
        if let Token::Inspector(number) = token {
            self.ready.push(number);
        }
    }

    fn turn(&mut self, context: &mut Context<'_>, needs: Needs<'_>) -> Vec<Event> {
        for number in std::mem::take(&mut self.ready) {
            if let Some(position) = self.running.iter().position(|running| running.number == number) {
                self.read(position, context.poller, context.now);
            }
        }
        while let Some(position) = self.running.iter().position(|running| running.due <= context.now) {
            log::debug!("an inspector does not answer");
            self.end(position, None, context.poller, context.now);
        }
        self.ended.reap(context.now);
        needs.sockets.helpers.reap(context.now);
        self.ask_for(needs, context);
        self.measured.take().into_iter().collect()
    }
}

impl Inspector {
    /// Starts an inspector for each question of the other subsystems.
    fn ask_for(&mut self, needs: Needs<'_>, context: &Context<'_>) {
        let (now, poller) = (context.now, context.poller);
        if let Some(measure) = needs.server.start_measuring(context.supervisor) {
            self.ask(Topic::Usage, now, poller, &measure);
        }
        if std::mem::take(&mut self.must_measure_memory) {
            let (mains, runs) = usage::limited(context.supervisor).unzip();
            self.ask(Topic::Memory(runs), now, poller, &usage::measure_memory(mains));
        }
        for address in needs.sockets.take_in_use() {
            self.ask_for_port_owner(&address, now, poller);
        }
        needs.server.port_owners.is_looking =
            self.running.iter().any(|running| matches!(running.topic, Topic::PortOwner(_)));
        needs.server.port_owners.add(std::mem::take(&mut self.examined));
        if let Some(question) = needs.processes.strays.take_question() {
            let own = process::id();
            self.ask(Topic::Strays(question.clone()), now, poller, &|| question.answer(own));
        }
        self.orders.append(&mut needs.processes.orders);
        self.orders.truncate(MAX_ORDERS);
        self.send_signals(now, poller);
    }

    /// Starts an inspector for the orders. If that is not possible now, they are not lost.
    fn send_signals(&mut self, now: Mono, poller: &Poller) {
        if self.orders.is_empty() || self.is_signalling() || self.retry_at.is_some_and(|retry_at| retry_at > now) {
            return;
        }
        self.retry_at = None;
        let (orders, own) = (std::mem::take(&mut self.orders), process::id());
        let work = || {
            orders.iter().for_each(|order| order.carry_out(own));
            Vec::new()
        };
        match self.start(Topic::Signals, now, poller, &work) {
            Ok(running) => self.running.push(running),
            Err(_) => {
                self.orders = orders;
                self.retry_at = Some(now + RETRY_INTERVAL);
            }
        }
    }

    /// Asks what the services with `max_memory` use, in the next turn.
    pub(super) const fn measure_memory(&mut self) {
        self.must_measure_memory = true;
    }

    /// The usage, if it has been measured; `None` in it: there is no answer.
    pub(super) fn take_usage(&mut self) -> Option<Option<Vec<u8>>> {
        self.usage.take()
    }

    /// Answers about strays; `None`: there is none.
    pub(super) fn take_strays(&mut self) -> Vec<(Question, Option<Vec<u8>>)> {
        std::mem::take(&mut self.strays)
    }

    fn is_signalling(&self) -> bool {
        self.running.iter().any(|running| running.topic == Topic::Signals)
    }

    /// Logs which process uses `address`, if one is found.
    pub(super) fn ask_for_port_owner(&mut self, address: &AsWritten<Address>, now: Mono, poller: &Poller) {
        let topic = Topic::PortOwner(address.to_string());
        if self.running.iter().any(|running| running.topic == topic) {
            return;
        }
        self.ask(topic, now, poller, &|| {
            let owner = port_owner::port_owner(address);
            owner.map(|(pid, name)| format!("{pid} {name}").into_bytes()).unwrap_or_default()
        });
    }

    /// The address that was found last, and its owner.
    pub(super) fn take_port_owner(&mut self) -> Option<(String, String)> {
        self.port_owner.take()
    }

    /// Adds the inspector processes to `pids`.
    pub(super) fn add_pids(&self, pids: &mut Vec<Pid>) {
        pids.extend(self.running.iter().map(|running| running.pid));
        pids.extend_from_slice(self.ended.pids());
    }

    /// Forks an inspector whose answer is what `work` returns. If that is not possible, there is no answer.
    fn ask(&mut self, topic: Topic, now: Mono, poller: &Poller, work: &dyn Fn() -> Vec<u8>) {
        match self.start(topic.clone(), now, poller, work) {
            Ok(running) => self.running.push(running),
            Err(errno) => {
                log::debug!("cannot start an inspector: {}", crate::model::errno::words(errno));
                // Without an answer, strays would not be looked for during a pause: but nothing hangs.
                self.answer(&topic, matches!(topic, Topic::Strays(_)).then(Vec::new));
            }
        }
    }

    fn start(
        &mut self,
        topic: Topic,
        now: Mono,
        poller: &Poller,
        work: &dyn Fn() -> Vec<u8>,
    ) -> Result<Running, Errno> {
        if self.running.len() + self.ended.pids().len() >= MAX_INSPECTORS {
            return Err(Errno::EAGAIN);
        }
        let (pipe, write_end) = pipe::pipe()?;
        self.last_number += 1;
        let number = self.last_number;
        poller.add(&pipe, Token::Inspector(number))?;
        let answer = || {
            // The process ends: nothing is freed.
            let answer = std::mem::ManuallyDrop::new(work());
            let mut rest = answer.as_slice();
            while !rest.is_empty() {
                match nix::unistd::write(&write_end, rest) {
                    Ok(length) => rest = rest.get(length..).unwrap_or_default(),
                    Err(Errno::EINTR) => {}
                    Err(_) => return 1,
                }
            }
            0
        };
        let pid = fork::fork_unseen_helper(&[write_end.as_fd()], c"keepalive-look", answer)?;
        Ok(Running { number, pid, pipe, due: now + ANSWER_TIMEOUT, topic, answer: Vec::new() })
    }

    fn read(&mut self, position: usize, poller: &Poller, now: Mono) {
        let Some(running) = self.running.get_mut(position) else { return };
        let mut buffer = [0; READ_SIZE];
        match nix::unistd::read(&running.pipe, &mut buffer) {
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Ok(length @ 1..) if running.answer.len() < MAX_ANSWER => {
                running.answer.extend_from_slice(buffer.get(..length).unwrap_or_default());
            }
            Ok(0) => {
                let answer = std::mem::take(&mut running.answer);
                self.end(position, Some(answer), poller, now);
            }
            Ok(_) | Err(_) => self.end(position, None, poller, now),
        }
    }

    fn end(&mut self, position: usize, answer: Option<Vec<u8>>, poller: &Poller, now: Mono) {
        let Running { pid, pipe, topic, .. } = self.running.swap_remove(position);
        poller.remove(&pipe).ok();
        // It has not been reaped.
        kill::signal_process(pid, Signal::KILL).ok();
        self.ended.push(pid, now);
        self.answer(&topic, answer);
    }

    fn answer(&mut self, topic: &Topic, answer: Option<Vec<u8>>) {
        match topic {
            Topic::Usage => self.usage = Some(answer),
            Topic::Memory(runs) => {
                let used = usage::memory_of(runs, answer.as_deref().unwrap_or_default());
                self.measured = Some(Event::MemoryMeasured(used));
            }
            Topic::Signals => {}
            Topic::Strays(question) => self.strays.push((question.clone(), answer)),
            Topic::PortOwner(address) => {
                let owner = answer.unwrap_or_default();
                let owner =
                    log_port_owner(address, str::from_utf8(&owner).ok().and_then(|owner| owner.split_once(' ')));
                self.examined.push((address.clone(), owner.clone()));
                self.port_owner = owner.map(|owner| (address.clone(), owner));
            }
        }
    }

    /// Waits a short time for signals that are still to be sent, and for what is still to be logged. For the end of
    /// keepalive.
    pub(super) fn finish(&mut self, poller: &Poller) {
        let deadline = sys::now() + FINISH_TIMEOUT;
        while let Some(position) =
            self.running.iter().position(|running| matches!(running.topic, Topic::PortOwner(_) | Topic::Signals))
            && let Some(running) = self.running.get(position)
            && pipe::wait_for_input(&running.pipe, deadline.since(sys::now()))
        {
            self.read(position, poller, sys::now());
        }
    }
}

/// `owner`: the pid and the name of the process. Returns what has been found: `by pid 7 (nginx)`.
fn log_port_owner(address: &str, owner: Option<(&str, &str)>) -> Option<String> {
    let Some((pid, name)) = owner else {
        let hint = "a process of another container, a closing connection, or a file that is not a socket";
        log::error!("{address} is in use, but no visible process listens on it: possibly {hint}");
        return None;
    };
    let owner = if pid.parse() == Ok(process::id().get()) {
        "by keepalive itself (`http` or `control`)".to_owned()
    } else {
        format!("by pid {pid} ({})", name.escape_debug())
    };
    log::error!("{address} is in use {owner}");
    Some(owner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::poll::Ready;

    /// Lets the inspector answer.
    fn answer(inspector: &mut Inspector, poller: &mut Poller) {
        while !inspector.running.is_empty() {
            let ready: Vec<u64> = poller.wait(None).unwrap().iter().map(Ready::data).collect();
            for token in ready {
                inspector.on_ready(Token::decode(token).unwrap());
            }
            for number in std::mem::take(&mut inspector.ready) {
                let position = inspector.running.iter().position(|running| running.number == number).unwrap();
                inspector.read(position, poller, sys::now());
            }
        }
        while inspector.ended.due().is_some() {
            inspector.ended.reap(sys::now());
            std::thread::yield_now();
        }
    }

    #[test]
    fn the_answer_is_what_the_inspector_returns() {
        let (mut inspector, mut poller) = (Inspector::default(), Poller::new().unwrap());
        // More than a pipe takes at once. The inspector allocates nothing, as below.
        let bytes = std::cell::Cell::new(vec![7; 200_000]);
        inspector.ask(Topic::Usage, sys::now(), &poller, &|| bytes.take());
        assert_eq!(inspector.take_usage(), None, "it has not come yet");
        answer(&mut inspector, &mut poller);
        assert_eq!(inspector.take_usage(), Some(Some(vec![7; 200_000])));
        assert_eq!(inspector.take_usage(), None);
    }

    #[test]
    fn an_inspector_that_dies_or_cannot_be_started_gives_no_answer() {
        let (mut inspector, mut poller) = (Inspector::default(), Poller::new().unwrap());
        inspector.ask(Topic::Usage, sys::now(), &poller, &|| {
            kill::signal_process(process::id(), Signal::KILL).ok();
            Vec::new()
        });
        answer(&mut inspector, &mut poller);
        // What it has written until then is the answer.
        assert_eq!(inspector.take_usage(), Some(Some(Vec::new())));
        (0..MAX_INSPECTORS).for_each(|_| inspector.ended.push(process::id(), sys::now()));
        inspector.ask(Topic::Usage, sys::now(), &poller, &Vec::new);
        assert_eq!(inspector.take_usage(), Some(None));
    }

    #[test]
    fn signals_are_sent_when_an_inspector_can_be_started_again() {
        let (mut inspector, mut poller) = (Inspector::default(), Poller::new().unwrap());
        // Allocates nothing: another test may have been allocating when the inspector was forked.
        let orders = vec![Order::Tracer { killed: process::id() }];
        inspector.orders.clone_from(&orders);
        (0..MAX_INSPECTORS).for_each(|_| inspector.ended.push(process::id(), sys::now()));
        let now = sys::now();
        inspector.send_signals(now, &poller);
        inspector.ended = EndedHelpers::default();
        let due = Some(now + RETRY_INTERVAL);
        assert_eq!((&inspector.orders, inspector.due(), inspector.is_busy()), (&orders, due, false));
        inspector.send_signals(now, &poller);
        assert!(!inspector.is_signalling(), "it is too early");
        inspector.send_signals(now + RETRY_INTERVAL, &poller);
        assert!(inspector.is_signalling() && inspector.orders.is_empty());
        answer(&mut inspector, &mut poller);
        assert_eq!(inspector.due(), None);
    }
}

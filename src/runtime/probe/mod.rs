//! Finds out whether a process is ready that does not say so by itself: the schedule of the tries, each of which is an
//! [`attempt`]. And hears what it says by a newline on a descriptor.
//!
//! Nothing is known here about what follows from it: the supervisor is told, once, and has its own patience.

mod attempt;

use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;

use super::Runtime;
use super::children::Child;
use crate::model::plan::Ready;
use crate::model::{ExitStatus, Mono, Pid, Signal, Template};
use crate::supervisor::Event;
use crate::sys::{ExecResult, Interest, Poller, kill, socket, strings, wait};
use attempt::{Attempt, Failure, Helper, Task, Verdict};

/// The tokens of probes are from here on, by the main process that each is for.
pub(super) const FIRST_TOKEN: u64 = 1 << 60;
pub(super) const LAST_TOKEN: u64 = FIRST_TOKEN | 0xffff_ffff;

/// After the first try that fails; then twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// A try takes no longer.
const PATIENCE: Duration = Duration::from_secs(1);
/// So many are looked at in one turn.
const TRIES_PER_TURN: usize = 32;
/// So much is read of what nobody needs: the rest of an answer, what comes before the newline.
const MOST_DISCARDED: usize = 64 << 10;
/// So much of what comes before the newline is read in a turn; the rest in the next.
const PIECE: usize = 4 << 10;
/// What a shell and `env` end with, and so do we, when a program is not there or cannot be executed.
const NOT_A_PROGRAM: std::ops::RangeInclusive<u8> = 126..=127;

/// All that is being found out.
#[derive(Debug, Default)]
pub(super) struct Probes {
    /// There are few: whoever is ready is here no more.
    probing: Vec<Probing>,
    /// Processes of tries that nobody waits for any more, until they are reaped.
    dying: Vec<Pid>,
}

#[derive(Debug)]
struct Probing {
    /// The main process.
    pid: Pid,
    of: Child,
    token: u64,
    /// How many tries there have been.
    turn: u32,
    stage: Stage,
    /// The poller has told of it.
    is_woken: bool,
    /// That there is no such program has been said.
    is_told: bool,
    /// What has come of the last try.
    last: Option<Failure>,
}

#[derive(Debug)]
enum Stage {
    /// Until the next try.
    Pausing { until: Mono },
    /// So long at most; `None`: it is over, and only the process has to be reaped yet.
    Trying { attempt: Attempt, until: Option<Mono> },
    /// It is ready; the rest of the answer is read, so that the server can end it in peace.
    Leaving { connection: OwnedFd, discarded: usize, until: Mono },
    /// For a newline.
    Listening { pipe: OwnedFd, discarded: usize },
}

const fn token(pid: Pid) -> u64 {
    FIRST_TOKEN | pid.get().unsigned_abs() as u64
}

impl Probes {
    /// The process writes a newline to the other end of this when it is ready.
    pub(super) fn listen(&mut self, pid: Pid, of: Child, pipe: OwnedFd, poller: &Poller) {
        // Without a watch it will not be heard, and its time runs out; but nobody has so many descriptors.
        if poller.add(&pipe, token(pid)).is_ok() {
            self.probing.push(Probing::new(pid, of, Stage::Listening { pipe, discarded: 0 }));
        }
    }

    /// The process has been executed: from now on it is asked, if it is to be.
    pub(super) fn on_executed(&mut self, pid: Pid, of: &Child, now: Mono) {
        if let Ready::Probe(_) = of.definition.ready {
            self.probing.push(Probing::new(pid, of.clone(), Stage::Pausing { until: now }));
        }
    }

    /// Another process of the instance is the main one from now on.
    pub(super) fn on_succeeded(&mut self, pid: Pid, successor: Pid) {
        for probing in self.probing.iter_mut().filter(|probing| probing.pid == pid) {
            probing.pid = successor;
        }
    }

    /// Something is to be read or written.
    pub(super) fn is_ready(&mut self, token: u64) {
        for probing in self.probing.iter_mut().filter(|probing| probing.token == token) {
            probing.is_woken = true;
        }
    }

    /// Says what has come of the last try: its time is over.
    pub(super) fn explain(&self, pid: Pid) {
        let Some(probing) = self.probing.iter().find(|probing| probing.pid == pid) else { return };
        if let Some(failure) = probing.last.filter(|_| !probing.is_told) {
            let (name, number) = (&probing.of.definition.name, probing.of.instance.slot().number);
            log::warn!("{name}.{number}: last readiness probe failed: {failure}");
        }
    }

    /// When it has to go on without anything happening.
    pub(super) fn due(&self) -> Option<Mono> {
        self.probing.iter().filter_map(|probing| probing.stage.due()).min()
    }

    /// The main process has ended: nobody wants to know any more.
    pub(super) fn forget(&mut self, pid: Pid, poller: &Poller) {
        for probing in self.probing.extract_if(.., |probing| probing.pid == pid) {
            if let Some(helper) = probing.stage.helper() {
                helper.kill();
                self.dying.push(helper.pid);
            }
            probing.stage.close(poller);
        }
    }

    /// Whether this process, which has ended, was started for a try: nobody else's then.
    fn take_dying(&mut self, pid: Pid) -> bool {
        let position = self.dying.iter().position(|dying| *dying == pid);
        position.map(|position| self.dying.swap_remove(position)).is_some()
    }

    fn take(&mut self, pid: Pid) -> Option<Probing> {
        let position = self.probing.iter().position(|probing| probing.pid == pid)?;
        Some(self.probing.swap_remove(position))
    }

    fn main_of(&self, helper: Pid) -> Option<Pid> {
        let is_helper = |probing: &&Probing| probing.stage.helper().is_some_and(|other| other.pid == helper);
        self.probing.iter().find(is_helper).map(|probing| probing.pid)
    }
}

impl Probing {
    fn new(pid: Pid, of: Child, stage: Stage) -> Self {
        Self { pid, of, token: token(pid), turn: 0, stage, is_woken: false, is_told: false, last: None }
    }

    fn is_due(&self, now: Mono) -> bool {
        self.is_woken || self.stage.due().is_some_and(|due| due <= now)
    }

    /// Says once that it cannot ever be found out this way.
    fn complain(&mut self, failure: Failure) {
        let (name, number) = (&self.of.definition.name, self.of.instance.slot().number);
        log::debug!("{name}.{number} is not ready: {failure}");
        self.last = Some(failure);
        let is_hopeless = match failure {
            Failure::Ended(ExitStatus::Code(code)) => NOT_A_PROGRAM.contains(&code),
            Failure::Nowhere | Failure::NoNewline => true,
            Failure::Errno(_)
            | Failure::Ended(ExitStatus::Signal(_))
            | Failure::NotHttp
            | Failure::Status(_)
            | Failure::Late => false,
        };
        if is_hopeless && !std::mem::replace(&mut self.is_told, true) {
            log::warn!("{name}.{number}: readiness probe cannot succeed: {failure}");
        }
    }
}

impl Stage {
    fn due(&self) -> Option<Mono> {
        match self {
            Self::Pausing { until } | Self::Leaving { until, .. } => Some(*until),
            Self::Trying { until, .. } => *until,
            Self::Listening { .. } => None,
        }
    }

    const fn helper(&self) -> Option<&Helper> {
        match self {
            Self::Trying { attempt, .. } => attempt.helper(),
            Self::Pausing { .. } | Self::Leaving { .. } | Self::Listening { .. } => None,
        }
    }

    fn close(self, poller: &Poller) {
        match self {
            Self::Trying { attempt: Attempt::Connecting(connection, _) | Attempt::Reading(connection, _), .. }
            | Self::Leaving { connection, .. }
            | Self::Listening { pipe: connection, .. } => attempt::forget(poller, &connection),
            Self::Trying { attempt: Attempt::Running(_), .. } | Self::Pausing { .. } => {}
        }
    }
}

impl Runtime {
    /// Goes on with whatever has something to go on with, a bounded part of it in each turn.
    pub(super) fn probe(&mut self) {
        for _ in 0..TRIES_PER_TURN {
            let now = self.now;
            let Some(position) = self.probes.probing.iter().position(|probing| probing.is_due(now)) else { return };
            let mut probing = self.probes.probing.swap_remove(position);
            let is_woken = std::mem::take(&mut probing.is_woken);
            let token = probing.token;
            probing.stage = match probing.stage {
                Stage::Pausing { .. } => {
                    self.begin_try(probing);
                    continue;
                }
                Stage::Trying { attempt, until } => {
                    let is_over = until.is_some_and(|until| until <= now);
                    let verdict =
                        if is_over { attempt.give_up(&self.poller) } else { attempt.go_on(&self.poller, token) };
                    probing.stage = Stage::Pausing { until: now };
                    self.on_verdict(probing, verdict, if is_over { None } else { until });
                    continue;
                }
                Stage::Leaving { connection, discarded, until } if is_woken && until > now => {
                    let mut buffer = [0; PIECE];
                    match socket::receive(&connection, &mut buffer) {
                        Ok(length @ 1..) if discarded < MOST_DISCARDED => {
                            Stage::Leaving { connection, discarded: discarded + length, until }
                        }
                        Err(Errno::EAGAIN | Errno::EINTR) => Stage::Leaving { connection, discarded, until },
                        Ok(_) | Err(_) => {
                            attempt::forget(&self.poller, &connection);
                            continue;
                        }
                    }
                }
                stage @ Stage::Leaving { .. } => {
                    stage.close(&self.poller);
                    continue;
                }
                Stage::Listening { pipe, discarded } => match self.hear(probing.pid, pipe) {
                    Some((pipe, read)) if discarded + read < MOST_DISCARDED => {
                        Stage::Listening { pipe, discarded: discarded + read }
                    }
                    Some((pipe, _)) => {
                        attempt::forget(&self.poller, &pipe);
                        probing.stage = Stage::Pausing { until: now };
                        probing.complain(Failure::NoNewline);
                        continue;
                    }
                    None => continue,
                },
            };
            self.probes.probing.push(probing);
        }
    }

    /// The pipe and how much was read, if there is more to be waited for. What comes after the newline nobody wants to know.
    fn hear(&mut self, pid: Pid, pipe: OwnedFd) -> Option<(OwnedFd, usize)> {
        let mut buffer = [0; PIECE];
        let read = match nix::unistd::read(&pipe, &mut buffer) {
            Err(Errno::EAGAIN | Errno::EINTR) => return Some((pipe, 0)),
            Ok(length) => length,
            Err(_) => 0,
        };
        let is_said = strings::memchr(b'\n', buffer.get(..read).unwrap_or_default()).is_some();
        if read > 0 && !is_said {
            return Some((pipe, read));
        }
        attempt::forget(&self.poller, &pipe);
        if is_said {
            self.happened(Event::Ready { pid });
        }
        None
    }

    fn begin_try(&mut self, mut probing: Probing) {
        let Ready::Probe(probe) = &probing.of.definition.ready else { return };
        let (children, logging, of) = (&mut self.children, &self.logging, &probing.of);
        let run = |command: &[Template]| {
            let (pid, progress) = children.spawn_helper(of, command, logging)?;
            let start = if let ExecResult::Pending(pipe) = progress { Some(pipe) } else { None };
            Ok(Helper { pid, start, is_late: false, task: Task::Command })
        };
        let number = of.instance.slot().number;
        let verdict = attempt::begin(probe, number, (&self.poller, probing.token), run);
        probing.turn = probing.turn.saturating_add(1);
        self.on_verdict(probing, verdict, Some(self.now + PATIENCE));
    }

    fn on_verdict(&mut self, mut probing: Probing, verdict: Verdict, until: Option<Mono>) {
        let pid = probing.pid;
        match verdict {
            Verdict::Open(attempt) => probing.stage = Stage::Trying { attempt, until },
            Verdict::Failed(failure) => {
                probing.complain(failure);
                let doublings = probing.turn.saturating_sub(1).min(16);
                let pause = (FIRST_PAUSE * (1 << doublings)).min(LONGEST_PAUSE);
                probing.stage = Stage::Pausing { until: self.now + pause };
            }
            Verdict::Passed(Some(connection)) => {
                self.poller.modify(connection.as_fd(), probing.token, Interest::Input).ok();
                probing.stage = Stage::Leaving { connection, discarded: 0, until: self.now + PATIENCE };
                self.probes.probing.push(probing);
                return self.happened(Event::Ready { pid });
            }
            Verdict::Passed(None) => return self.happened(Event::Ready { pid }),
        }
        self.probes.probing.push(probing);
    }

    /// Whether this process, which is dead and not reaped yet, was to find something out. If so, it is reaped.
    pub(super) fn on_helper_dead(&mut self, pid: Pid) -> bool {
        let main = self.probes.main_of(pid);
        if main.is_none() && !self.probes.take_dying(pid) {
            return false;
        }
        // What it has left.
        kill::signal_group(pid.led_group(), Signal::KILL).ok();
        let Ok(ended) = wait::reap(pid) else { return true };
        if let Some(mut probing) = main.and_then(|main| self.probes.take(main)) {
            let stage = std::mem::replace(&mut probing.stage, Stage::Pausing { until: self.now });
            if let Some(helper) = stage.helper() {
                let verdict = Attempt::on_ended(helper, ended.status);
                self.on_verdict(probing, verdict, None);
            }
        }
        true
    }
}

//! Finds out whether a process is ready that does not say so by itself: the schedule of the tries, each of which is an
//! [`attempt`]. And hears what it says by a newline on a descriptor.
//!
//! Nothing is known here about what follows from it: the supervisor is told, once, and has its own patience.

mod attempt;

use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;

use super::logging::Logging;
use super::process_factory::ProcessFactory;
use super::runs::RunSpec;
use super::subsystem::{Context, Subsystem};
use super::token::Token;
use crate::model::plan::Ready;
use crate::model::{ExitStatus, Mono, Pid, RunId, Signal, Template};
use crate::supervisor::{Event, ReadySource};
use crate::sys::{ExecResult, Interest, Poller, kill, socket, strings, wait};
use attempt::{Attempt, Failure, Helper, Task, Verdict};

/// After the first try that fails; then twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const MAX_PAUSE: Duration = Duration::from_millis(500);
/// A try takes no longer.
const TRY_TIMEOUT: Duration = Duration::from_secs(1);
/// So many are looked at in one turn.
const TRIES_PER_TURN: usize = 32;
/// So much is read of what nobody needs: the rest of an answer, what comes before the newline.
const MAX_DISCARDED_BYTES: usize = 64 << 10;
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
    run: RunId,
    spec: RunSpec,
    token: Token,
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
    Closing { connection: OwnedFd, discarded: usize, until: Mono },
    /// For a newline.
    Listening { pipe: OwnedFd, discarded: usize },
}

impl Subsystem for Probes {
    type Needs<'a> = (&'a mut ProcessFactory, &'a Logging);

    fn due(&self) -> Option<Mono> {
        self.probing.iter().filter_map(|probing| probing.stage.due()).min()
    }

    fn on_ready(&mut self, token: Token) {
        for probing in self.probing.iter_mut().filter(|probing| probing.token == token) {
            probing.is_woken = true;
        }
    }

    fn turn(&mut self, context: &mut Context<'_>, (factory, logging): Self::Needs<'_>) -> Vec<Event> {
        self.go_on(&mut World { factory, logging, poller: context.poller, now: context.now })
    }
}

impl Probes {
    /// The process writes a newline to the other end of this when it is ready.
    pub(super) fn listen(&mut self, run: RunId, spec: RunSpec, pipe: OwnedFd, poller: &Poller) {
        // Out of watches, the newline is never seen and `ready_timeout` ends the start.
        if poller.add(&pipe, Token::Probe(run)).is_ok() {
            self.probing.push(Probing::new(run, spec, Stage::Listening { pipe, discarded: 0 }));
        }
    }

    /// Begins to find out whether the process is ready.
    pub(super) fn start(&mut self, run: RunId, spec: RunSpec, now: Mono) {
        self.probing.push(Probing::new(run, spec, Stage::Pausing { until: now }));
    }

    /// The process was not ready in time: stops, and logs why the last try has failed.
    pub(super) fn give_up(&mut self, run: RunId, poller: &Poller) {
        let Some(probing) = self.probing.iter().find(|probing| probing.run == run) else { return };
        if let Some(failure) = probing.last.filter(|_| !probing.is_told) {
            let (name, number) = (&probing.spec.definition.name, probing.spec.instance.number);
            log::warn!("{name}.{number}: last readiness probe failed: {failure}");
        }
        self.forget(run, poller);
    }

    /// The main process has ended: stops without a verdict.
    pub(super) fn forget(&mut self, run: RunId, poller: &Poller) {
        for probing in self.probing.extract_if(.., |probing| probing.run == run) {
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

    fn take(&mut self, run: RunId) -> Option<Probing> {
        let position = self.probing.iter().position(|probing| probing.run == run)?;
        Some(self.probing.swap_remove(position))
    }

    fn run_of(&self, helper: Pid) -> Option<RunId> {
        let is_helper = |probing: &&Probing| probing.stage.helper().is_some_and(|other| other.pid == helper);
        self.probing.iter().find(is_helper).map(|probing| probing.run)
    }
}

impl Probing {
    fn new(run: RunId, spec: RunSpec, stage: Stage) -> Self {
        Self { run, spec, token: Token::Probe(run), turn: 0, stage, is_woken: false, is_told: false, last: None }
    }

    fn is_due(&self, now: Mono) -> bool {
        self.is_woken || self.stage.due().is_some_and(|due| due <= now)
    }

    /// Says once that it cannot ever be found out this way.
    fn complain(&mut self, failure: Failure) {
        let (name, number) = (&self.spec.definition.name, self.spec.instance.number);
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
            Self::Pausing { until } | Self::Closing { until, .. } => Some(*until),
            Self::Trying { until, .. } => *until,
            Self::Listening { .. } => None,
        }
    }

    const fn helper(&self) -> Option<&Helper> {
        match self {
            Self::Trying { attempt, .. } => attempt.helper(),
            Self::Pausing { .. } | Self::Closing { .. } | Self::Listening { .. } => None,
        }
    }

    fn close(self, poller: &Poller) {
        match self {
            Self::Trying { attempt: Attempt::Connecting(connection, _) | Attempt::Reading(connection, _), .. }
            | Self::Closing { connection, .. }
            | Self::Listening { pipe: connection, .. } => attempt::forget(poller, &connection),
            Self::Trying { attempt: Attempt::Running(_), .. } | Self::Pausing { .. } => {}
        }
    }
}

/// What the tries need.
struct World<'a> {
    factory: &'a mut ProcessFactory,
    logging: &'a Logging,
    poller: &'a Poller,
    now: Mono,
}

impl Probes {
    /// Goes on with whatever has something to go on with, a bounded part of it in each turn.
    fn go_on(&mut self, world: &mut World<'_>) -> Vec<Event> {
        let mut events = Vec::new();
        for _ in 0..TRIES_PER_TURN {
            let now = world.now;
            let Some(position) = self.probing.iter().position(|probing| probing.is_due(now)) else { break };
            let mut probing = self.probing.swap_remove(position);
            let is_woken = std::mem::take(&mut probing.is_woken);
            let token = probing.token;
            probing.stage = match probing.stage {
                Stage::Pausing { .. } => {
                    events.extend(self.begin_try(probing, world));
                    continue;
                }
                Stage::Trying { attempt, until } => {
                    let is_over = until.is_some_and(|until| until <= now);
                    let verdict =
                        if is_over { attempt.give_up(world.poller) } else { attempt.go_on(world.poller, token) };
                    probing.stage = Stage::Pausing { until: now };
                    let until = if is_over { None } else { until };
                    let stage = probing.next_stage(verdict, until, world.poller, now);
                    events.extend(self.on_stage(probing, stage));
                    continue;
                }
                Stage::Closing { connection, discarded, until } if is_woken && until > now => {
                    let mut buffer = [0; PIECE];
                    match socket::receive(&connection, &mut buffer) {
                        Ok(length @ 1..) if discarded < MAX_DISCARDED_BYTES => {
                            Stage::Closing { connection, discarded: discarded + length, until }
                        }
                        Err(Errno::EAGAIN | Errno::EINTR) => Stage::Closing { connection, discarded, until },
                        Ok(_) | Err(_) => {
                            attempt::forget(world.poller, &connection);
                            continue;
                        }
                    }
                }
                stage @ Stage::Closing { .. } => {
                    stage.close(world.poller);
                    continue;
                }
                Stage::Listening { pipe, discarded } => match hear(pipe, world.poller) {
                    Heard::Part(pipe, read) if discarded + read < MAX_DISCARDED_BYTES => {
                        Stage::Listening { pipe, discarded: discarded + read }
                    }
                    Heard::Part(pipe, _) => {
                        attempt::forget(world.poller, &pipe);
                        probing.stage = Stage::Pausing { until: now };
                        probing.complain(Failure::NoNewline);
                        continue;
                    }
                    Heard::Newline => {
                        events.push(Event::Ready { run: probing.run, source: ReadySource::Fd });
                        continue;
                    }
                    Heard::End => continue,
                },
            };
            self.probing.push(probing);
        }
        events
    }

    fn begin_try(&mut self, mut probing: Probing, world: &mut World<'_>) -> Option<Event> {
        let Ready::Probe(probe) = &probing.spec.definition.ready else { return None };
        let spec = &probing.spec;
        let run = |command: &[Template]| {
            let (pid, progress) = world.factory.spawn_helper(spec, command, world.logging)?;
            let start = if let ExecResult::Pending(pipe) = progress { Some(pipe) } else { None };
            Ok(Helper { pid, start, is_late: false, task: Task::Command })
        };
        let verdict = attempt::begin(probe, spec.instance.number, (world.poller, probing.token), run);
        probing.turn = probing.turn.saturating_add(1);
        let stage = probing.next_stage(verdict, Some(world.now + TRY_TIMEOUT), world.poller, world.now);
        self.on_stage(probing, stage)
    }

    fn on_stage(&mut self, mut probing: Probing, stage: Next) -> Option<Event> {
        let ready = Event::Ready { run: probing.run, source: ReadySource::Probe };
        let (stage, event) = match stage {
            Next::Stage(stage) => (stage, None),
            Next::Ready(Some(stage)) => (stage, Some(ready)),
            Next::Ready(None) => return Some(ready),
        };
        probing.stage = stage;
        self.probing.push(probing);
        event
    }

    /// If this process, which is dead and not reaped yet, was a helper of a try, it is reaped and the try goes on.
    pub(super) fn on_helper_dead(&mut self, pid: Pid, poller: &Poller, now: Mono) -> Option<Vec<Event>> {
        let run = self.run_of(pid);
        if run.is_none() && !self.take_dying(pid) {
            return None;
        }
        // Whatever it has started.
        kill::signal_group(pid.led_group(), Signal::KILL).ok();
        let event = wait::reap(pid).ok().and_then(|ended| self.on_helper_ended(run, ended.status, poller, now));
        Some(event.into_iter().collect())
    }

    fn on_helper_ended(&mut self, run: Option<RunId>, status: ExitStatus, poller: &Poller, now: Mono) -> Option<Event> {
        let mut probing = self.take(run?)?;
        let stage = std::mem::replace(&mut probing.stage, Stage::Pausing { until: now });
        let verdict = Attempt::on_ended(stage.helper()?, status);
        let stage = probing.next_stage(verdict, None, poller, now);
        self.on_stage(probing, stage)
    }
}

/// What a verdict leads to.
enum Next {
    Stage(Stage),
    /// It is ready; there may be something left to do.
    Ready(Option<Stage>),
}

impl Probing {
    fn next_stage(&mut self, verdict: Verdict, until: Option<Mono>, poller: &Poller, now: Mono) -> Next {
        match verdict {
            Verdict::Open(attempt) => Next::Stage(Stage::Trying { attempt, until }),
            Verdict::Failed(failure) => {
                self.complain(failure);
                let doublings = self.turn.saturating_sub(1).min(16);
                let pause = (FIRST_PAUSE * (1 << doublings)).min(MAX_PAUSE);
                Next::Stage(Stage::Pausing { until: now + pause })
            }
            Verdict::Passed(Some(connection)) => {
                poller.modify(connection.as_fd(), self.token, Interest::Input).ok();
                Next::Ready(Some(Stage::Closing { connection, discarded: 0, until: now + TRY_TIMEOUT }))
            }
            Verdict::Passed(None) => Next::Ready(None),
        }
    }
}

/// What has come on `ready.fd`.
enum Heard {
    /// So many bytes and no newline yet.
    Part(OwnedFd, usize),
    Newline,
    /// The other end is closed.
    End,
}

/// What comes after the newline does not matter.
fn hear(pipe: OwnedFd, poller: &Poller) -> Heard {
    let mut buffer = [0; PIECE];
    let read = match nix::unistd::read(&pipe, &mut buffer) {
        Err(Errno::EAGAIN | Errno::EINTR) => return Heard::Part(pipe, 0),
        Ok(length) => length,
        Err(_) => 0,
    };
    let has_newline = strings::memchr(b'\n', buffer.get(..read).unwrap_or_default()).is_some();
    if read > 0 && !has_newline {
        return Heard::Part(pipe, read);
    }
    attempt::forget(poller, &pipe);
    if has_newline { Heard::Newline } else { Heard::End }
}

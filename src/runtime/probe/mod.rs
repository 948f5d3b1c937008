//! Readiness probes and health checks. Each attempt of either is an [`attempt`].
//!
//! The attempts of a readiness probe are scheduled here; success becomes [`Event::Ready`], a failed attempt
//! [`Event::ProbeFailed`]. The supervisor enforces `ready_timeout`. A health check is one attempt, which the supervisor
//! schedules; its result becomes [`Event::Checked`]. The newline on `ready.fd` is waited for here, too.

mod attempt;
mod output;

use std::fmt::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;

use super::close_queue::CloseQueue;
use super::logging::Logging;
use super::process_factory::ProcessFactory;
use super::rate_limited_log::{self, MessageKind};
use super::runs::RunSpec;
use super::subsystem::{Context, Subsystem};
use super::token::Token;
use super::unready::probe_target;
use crate::model::plan::{Health, Probe, Ready};
use crate::model::{ExitStatus, Mono, Pid, ProbeFailure as Failure, RunId, ServiceIndex, Signal, Template, errno};
use crate::supervisor::{Event, ReadySource};
use crate::sys::deferred_close::DeferredFd;
use crate::sys::{Interest, Poller, kill, pipe, socket, wait};
use attempt::{Attempt, Helper, Task, Verdict};
use output::Output;

/// The pause after the first failed attempt. It doubles each time, up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_millis(20);
const MAX_PAUSE: Duration = Duration::from_millis(500);
/// The time limit for the rest of a response.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// The time limit for reading the last line of a command that has failed.
const OUTPUT_TIMEOUT: Duration = Duration::from_secs(1);
/// The helper processes of one service that have been killed and hang: more are not started.
const MAX_HANGING: usize = 8;
/// With so many probes, the pipes of commands are not enlarged: all large pipes of a user together are limited, pipe(7).
const MAX_LARGE: usize = 16;
/// How much a command can write, in bytes.
const OUTPUT_CAPACITY: i32 = 1 << 20;
/// The number of probes that are advanced in one turn.
const MAX_PROBES_PER_TURN: usize = 32;
/// The number of bytes discarded after the status of a response.
const MAX_DISCARDED: usize = 64 << 10;
/// The number of bytes read at once.
const READ_SIZE: usize = 4 << 10;
/// The exit codes of a shell, `env` and keepalive if a program cannot be found or executed.
const COMMAND_NOT_FOUND: std::ops::RangeInclusive<u8> = 126..=127;

/// The active probes.
#[derive(Debug, Default)]
pub(super) struct Probes {
    /// The probes of processes that are not ready yet, and the checks that are in progress. There are few.
    active: Vec<ActiveProbe>,
    /// Helper processes of stopped probes, until they are reaped.
    killed_helpers: Vec<(Pid, ServiceIndex)>,
}

#[derive(Debug)]
struct ActiveProbe {
    run: RunId,
    spec: RunSpec,
    token: Token,
    /// It is a health check.
    health: Option<Rc<Health>>,
    /// The number of attempts so far.
    attempts: u32,
    stage: Stage,
    /// The poller has reported its descriptor.
    has_input: bool,
    /// A permanent failure has been logged.
    is_logged: bool,
    /// The failure of the last attempt.
    last: Option<Failure>,
}

#[derive(Debug)]
enum Stage {
    /// Waits for the next attempt.
    Pausing { until: Mono },
    /// `until`: the time limit; `None` if it has been reached, or there is none, and the helper process must be reaped.
    Attempting { attempt: Attempt, until: Option<Mono> },
    /// The attempt has succeeded. The rest of the response is read, so that the server can finish it.
    Draining { connection: OwnedFd, discarded: usize, until: Mono },
    /// Waits until a helper can be started that reads `ready.fd`.
    Listening { pipe: DeferredFd, until: Mono },
}

impl Subsystem for Probes {
    type Needs<'a> = (&'a mut ProcessFactory, &'a Logging, &'a CloseQueue);

    fn due(&self) -> Option<Mono> {
        self.active.iter().filter_map(|active| active.stage.due()).min()
    }

    fn on_ready(&mut self, token: Token) {
        for active in self.active.iter_mut().filter(|active| active.token == token) {
            active.has_input = true;
        }
    }

    fn turn(&mut self, context: &mut Context<'_>, (factory, logging, close_queue): Self::Needs<'_>) -> Vec<Event> {
        self.advance(&mut ProbeContext { factory, logging, close_queue, poller: context.poller, now: context.now })
    }
}

impl Probes {
    /// Waits for a newline on `pipe`, which is the other end of `ready.fd`.
    pub(super) fn listen(&mut self, run: RunId, spec: RunSpec, pipe: OwnedFd, now: Mono) {
        let pipe = DeferredFd::new(spec.instance.service, pipe);
        self.active.push(ActiveProbe::new(run, spec, Stage::Listening { pipe, until: now }));
    }

    /// Starts the readiness probe of a process, or the health check `health`.
    pub(super) fn start(&mut self, run: RunId, spec: RunSpec, health: Option<Rc<Health>>, poller: &Poller, now: Mono) {
        let mut active = ActiveProbe::new(run, spec, Stage::Pausing { until: now });
        if health.is_some() {
            // The rest of the last response may still be being read.
            self.stop_check(run, poller);
            (active.token, active.health) = (Token::Check(run), health);
        }
        self.active.push(active);
    }

    /// The main process has exited, or was not ready in time: stops the probe and the health check.
    pub(super) fn stop(&mut self, run: RunId, poller: &Poller) {
        self.stop_matching(poller, |active| active.run == run);
    }

    /// Aborts the health check.
    pub(super) fn stop_check(&mut self, run: RunId, poller: &Poller) {
        self.stop_matching(poller, |active| active.token == Token::Check(run));
    }

    fn stop_matching(&mut self, poller: &Poller, is_meant: impl Fn(&ActiveProbe) -> bool) {
        for active in self.active.extract_if(.., |active| is_meant(active)) {
            if let Some(helper) = active.stage.helper() {
                helper.kill();
                self.killed_helpers.push((helper.pid, active.spec.instance.service));
            }
            active.stage.close(poller);
        }
    }

    /// Appends what the process of a run is not ready without, and how the last attempt has failed:
    /// `tcp 127.0.0.1:80 refused`. Returns whether it has a probe.
    pub(super) fn push_progress(&self, run: RunId, text: &mut String) -> bool {
        let Some(active) = self.active.iter().find(|active| active.token == Token::Probe(run)) else { return false };
        let Some(probe) = active.probe() else { return false };
        text.push_str(&probe_target(probe, active.spec.numbers()));
        match &active.last {
            None => {}
            Some(Failure::Errno(Errno::ECONNREFUSED)) => text.push_str(" refused"),
            Some(failure) => {
                // Writing to a String cannot fail.
                let _ = write!(text, ": {failure}");
            }
        }
        true
    }

    /// Removes `pid` from the killed helpers. Returns whether it was one.
    fn take_killed_helper(&mut self, pid: Pid) -> bool {
        let position = self.killed_helpers.iter().position(|(killed, _)| *killed == pid);
        position.map(|position| self.killed_helpers.swap_remove(position)).is_some()
    }

    fn take(&mut self, token: Token) -> Option<ActiveProbe> {
        let position = self.active.iter().position(|active| active.token == token)?;
        Some(self.active.swap_remove(position))
    }

    fn token_of(&self, helper: Pid) -> Option<Token> {
        let is_helper = |active: &&ActiveProbe| active.stage.helper().is_some_and(|other| other.pid == helper);
        self.active.iter().find(is_helper).map(|active| active.token)
    }

    /// Whether so many helpers of the service hang that no more are started.
    fn is_hanging(&self, service: ServiceIndex, close_queue: &CloseQueue) -> bool {
        close_queue.is_behind(service)
            || self.killed_helpers.iter().filter(|(_, of)| *of == service).count() >= MAX_HANGING
    }
}

impl ActiveProbe {
    fn new(run: RunId, spec: RunSpec, stage: Stage) -> Self {
        let token = Token::Probe(run);
        Self { run, spec, token, health: None, attempts: 0, stage, has_input: false, is_logged: false, last: None }
    }

    fn probe(&self) -> Option<&Probe> {
        match (&self.health, &self.spec.definition.ready) {
            (Some(health), _) => Some(&health.probe),
            (None, Ready::Probe(probe)) => Some(probe),
            (None, Ready::Exec | Ready::Delay(_) | Ready::Notify | Ready::Ipc | Ready::Fd(_)) => None,
        }
    }

    /// What it is, in messages.
    const fn kind(&self) -> &'static str {
        if self.health.is_some() { "health check" } else { "readiness probe" }
    }

    fn is_due(&self, now: Mono) -> bool {
        self.has_input || self.stage.due().is_some_and(|due| due <= now)
    }

    /// The event of a failed attempt.
    fn failure(&self) -> Option<Event> {
        let (run, failure) = (self.run, self.last.clone()?);
        Some(match self.health {
            Some(_) => Event::Checked { run, failure: Some(failure) },
            None => Event::ProbeFailed { run, failure },
        })
    }

    /// The event of success.
    fn success(&self) -> Event {
        let run = self.run;
        let source = match self.spec.definition.ready {
            _ if self.health.is_some() => return Event::Checked { run, failure: None },
            Ready::Fd(_) => ReadySource::Fd,
            Ready::Exec | Ready::Delay(_) | Ready::Notify | Ready::Ipc | Ready::Probe(_) => ReadySource::Probe,
        };
        Event::Ready { run, source }
    }

    /// Logs a failed attempt, and once if the readiness probe cannot succeed.
    fn log_failure(&mut self, failure: Failure) {
        let (name, number) = (&self.spec.definition.name, self.spec.instance.number);
        match self.health {
            Some(_) => log::debug!("{name}.{number}: health check failed: {failure}"),
            None => log::debug!("{name}.{number} is not ready: {failure}"),
        }
        let is_permanent = match &failure {
            Failure::Ended(ExitStatus::Code(code), _) => COMMAND_NOT_FOUND.contains(code),
            Failure::InvalidAddress | Failure::NoNewline => true,
            Failure::Errno(_)
            | Failure::Ended(ExitStatus::Signal(_), _)
            | Failure::NotHttp
            | Failure::Status(_)
            | Failure::Body
            | Failure::TimedOut
            | Failure::OldFile => false,
        };
        if failure == Failure::Errno(Errno::ENOENT) {
            // A file that appears later is new, whatever the clock of its file system says.
            self.spec.started_at = Duration::ZERO;
        }
        if is_permanent && self.health.is_none() && !std::mem::replace(&mut self.is_logged, true) {
            log::warn!("{name}.{number}: readiness probe cannot succeed: {failure}");
        }
        self.last = Some(failure);
    }
}

impl Stage {
    fn due(&self) -> Option<Mono> {
        match self {
            Self::Pausing { until } | Self::Draining { until, .. } | Self::Listening { until, .. } => Some(*until),
            Self::Attempting { until, .. } => *until,
        }
    }

    const fn helper(&self) -> Option<&Helper> {
        match self {
            Self::Attempting { attempt, .. } => attempt.helper(),
            Self::Pausing { .. } | Self::Draining { .. } | Self::Listening { .. } => None,
        }
    }

    fn close(self, poller: &Poller) {
        match self {
            Self::Attempting { attempt, .. } => attempt.close(poller),
            Self::Draining { connection, .. } => attempt::unwatch(poller, &connection),
            Self::Pausing { .. } | Self::Listening { .. } => {}
        }
    }
}

/// Other subsystems that probes use.
struct ProbeContext<'a> {
    factory: &'a mut ProcessFactory,
    logging: &'a Logging,
    close_queue: &'a CloseQueue,
    poller: &'a Poller,
    now: Mono,
}

impl Probes {
    /// Advances the probes that are due or have input, at most [`MAX_PROBES_PER_TURN`].
    fn advance(&mut self, context: &mut ProbeContext<'_>) -> Vec<Event> {
        let mut events = Vec::new();
        for _ in 0..MAX_PROBES_PER_TURN {
            let now = context.now;
            let Some(position) = self.active.iter().position(|active| active.is_due(now)) else { break };
            let mut active = self.active.swap_remove(position);
            let has_input = std::mem::take(&mut active.has_input);
            let token = active.token;
            active.stage = match active.stage {
                Stage::Pausing { .. } => {
                    events.extend(self.start_attempt(active, context));
                    continue;
                }
                Stage::Attempting { attempt, until } => {
                    let is_over = until.is_some_and(|until| until <= now);
                    let verdict =
                        if is_over { attempt.abort(context.poller) } else { attempt.advance(context.poller, token) };
                    active.stage = Stage::Pausing { until: now };
                    let until = if is_over { None } else { until };
                    let stage = active.next_stage(verdict, until, context.poller, now);
                    events.extend(self.enter_stage(active, stage));
                    continue;
                }
                Stage::Draining { connection, discarded, until } if has_input && until > now => {
                    let mut buffer = [0; READ_SIZE];
                    match socket::receive(&connection, &mut buffer) {
                        Ok(length @ 1..) if discarded < MAX_DISCARDED => {
                            Stage::Draining { connection, discarded: discarded + length, until }
                        }
                        Err(Errno::EAGAIN | Errno::EINTR) => Stage::Draining { connection, discarded, until },
                        Ok(_) | Err(_) => {
                            attempt::unwatch(context.poller, &connection);
                            continue;
                        }
                    }
                }
                stage @ Stage::Draining { .. } => {
                    stage.close(context.poller);
                    continue;
                }
                Stage::Listening { pipe, .. } => {
                    let is_hanging = self.is_hanging(active.spec.instance.service, context.close_queue);
                    match (!is_hanging).then(|| attempt::start_reading(&pipe)) {
                        Some(Ok(pid)) => {
                            let helper = Helper { pid, is_timed_out: false, task: Task::ReadyPipe { _pipe: pipe } };
                            Stage::Attempting { attempt: Attempt::Running(helper), until: None }
                        }
                        Some(Err(_)) | None => Stage::Listening { pipe, until: now + MAX_PAUSE },
                    }
                }
            };
            self.active.push(active);
        }
        events
    }

    fn start_attempt(&mut self, mut active: ActiveProbe, context: &mut ProbeContext<'_>) -> Option<Event> {
        let probe = active.probe()?;
        let (run_id, spec, token) = (active.run, &active.spec, active.token);
        let (may_be_large, is_hanging) =
            (self.active.len() < MAX_LARGE, self.is_hanging(spec.instance.service, context.close_queue));
        let run = |command: &[Template]| {
            if is_hanging {
                return Err(Errno::EAGAIN);
            }
            let (pipe, write_end) = pipe::pipe()?;
            if may_be_large {
                pipe::set_capacity(&pipe, OUTPUT_CAPACITY);
            }
            let output = Output::new(spec.instance.service, pipe);
            let helper = (command, write_end.as_fd());
            let pid = context.factory.spawn_helper(run_id, spec, helper, context.logging, context.poller)?;
            Ok(Helper { pid, is_timed_out: false, task: Task::Command(output) })
        };
        let verdict = attempt::start(probe, active.health.as_ref(), spec, (context.poller, token), run);
        match verdict {
            // Of keepalive, and not of the service: it does not lengthen the pauses.
            Verdict::Failed(Failure::Errno(errno)) if errno::is_shortage(errno) => {
                let (name, number, reason) = (&spec.definition.name, spec.instance.number, errno::words(errno));
                rate_limited_log::warn(
                    MessageKind::HelperShortage,
                    Some(spec.instance.service),
                    format_args!("{name}.{number}: cannot start a {}: {reason}; retrying", active.kind()),
                );
                if active.health.is_some() {
                    active.stage = Stage::Pausing { until: context.now + MAX_PAUSE };
                    self.active.push(active);
                    return None;
                }
            }
            Verdict::Failed(_) | Verdict::Pending(_) | Verdict::Passed(_) => {
                active.attempts = active.attempts.saturating_add(1);
            }
        }
        let timeout = active.health.as_ref().map_or(active.spec.definition.probe_timeout, |health| health.timeout);
        let until = context.now + timeout;
        let stage = active.next_stage(verdict, Some(until), context.poller, context.now);
        self.enter_stage(active, stage)
    }

    fn enter_stage(&mut self, mut active: ActiveProbe, stage: StageChange) -> Option<Event> {
        let (stage, event) = match stage {
            // One check is one attempt.
            StageChange::Stage(Stage::Pausing { .. }) if active.health.is_some() => return active.failure(),
            StageChange::Stage(stage @ Stage::Pausing { .. }) => (stage, active.failure()),
            StageChange::Stage(stage) => (stage, None),
            StageChange::Succeeded(Some(stage)) => (stage, Some(active.success())),
            StageChange::Succeeded(None) => return Some(active.success()),
        };
        active.stage = stage;
        self.active.push(active);
        event
    }

    /// Reaps `pid` if it was a helper process, and continues its probe.
    pub(super) fn on_helper_dead(
        &mut self,
        pid: Pid,
        factory: &mut ProcessFactory,
        poller: &Poller,
        now: Mono,
    ) -> Option<Vec<Event>> {
        let token = self.token_of(pid);
        if token.is_none() && !self.take_killed_helper(pid) {
            return None;
        }
        // The processes that it has started.
        kill::signal_group(pid.led_group(), Signal::KILL).ok();
        let Ok(ended) = wait::reap(pid) else { return Some(Vec::new()) };
        let failure = factory.on_helper_reaped(pid, poller).map(|failure| failure.reason().to_string());
        Some(self.on_helper_ended(token, (ended.status, failure), poller, now).into_iter().collect())
    }

    fn on_helper_ended(
        &mut self,
        token: Option<Token>,
        end: (ExitStatus, Option<String>),
        poller: &Poller,
        now: Mono,
    ) -> Option<Event> {
        let mut active = self.take(token?)?;
        let stage = std::mem::replace(&mut active.stage, Stage::Pausing { until: now });
        let Stage::Attempting { attempt, .. } = stage else { return None };
        let verdict = attempt.on_ended(end)?;
        let stage = active.next_stage(verdict, Some(now + OUTPUT_TIMEOUT), poller, now);
        self.enter_stage(active, stage)
    }
}

/// What follows from a verdict.
enum StageChange {
    Stage(Stage),
    /// The attempt has succeeded. A stage may remain, to read the rest of the response.
    Succeeded(Option<Stage>),
}

impl ActiveProbe {
    fn next_stage(&mut self, verdict: Verdict, until: Option<Mono>, poller: &Poller, now: Mono) -> StageChange {
        match verdict {
            Verdict::Pending(attempt) => StageChange::Stage(Stage::Attempting { attempt, until }),
            Verdict::Failed(failure) => {
                self.log_failure(failure);
                let doublings = self.attempts.saturating_sub(1).min(16);
                let pause = (MIN_PAUSE * (1 << doublings)).min(MAX_PAUSE);
                StageChange::Stage(Stage::Pausing { until: now + pause })
            }
            Verdict::Passed(Some(connection)) => {
                poller.modify(connection.as_fd(), self.token, Interest::Input).ok();
                StageChange::Succeeded(Some(Stage::Draining { connection, discarded: 0, until: now + DRAIN_TIMEOUT }))
            }
            Verdict::Passed(None) => StageChange::Succeeded(None),
        }
    }
}

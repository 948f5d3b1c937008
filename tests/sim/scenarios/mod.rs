//! Scenarios: a plan, events at fixed times, and every action of the supervisor.
//!
//! A [`Setup`] creates processes at once (as vfork does) unless `spawns` says otherwise, and records the actions of the
//! supervisor as short lines, in order:
//!
//! ```text
//! web.0 running → backoff          a transition
//! spawn web.0 (2 restarts)         an action
//! kill web.0 main SIGTERM          main, group or leftovers
//! ```

mod blocked;
mod configure;
mod health;
mod hooks;
mod in_order;
mod lifetime;
mod memory;
mod on_trial;
mod perform;
mod ready;
mod reload;
mod reload_by_signal;
mod reload_dependencies;
mod reload_untried;
mod requests;
mod restart_waits;
mod restarts;
mod scale;
mod schedule;
mod shutdown;
mod stops;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::rc::Rc;
use std::time::Duration;

use keepalive::model::plan::Service;
use keepalive::model::{ExitStatus, InstanceId, Mono, Pid, Plan, RunId, ServiceIndex, Signal, StartFailure, StartStep};
use keepalive::supervisor::{
    Cause, Event, Exit, Leftovers, Request, RequestId, RolloutError, Step, Supervisor, Target, Verb,
};
use nix::errno::Errno;

use crate::plans;

/// The result of the next spawns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spawns {
    /// They run their program at once.
    Executed,
    /// Exec is reported later, by [`Setup::executes`].
    Pending,
    Refused(Errno),
    /// A socket cannot be bound, so there is no process.
    BindFailing,
    /// Exec fails; [`Setup::ends`] must follow.
    Failing(StartFailure),
}

pub(crate) struct Setup {
    supervisor: Supervisor,
    plan: Rc<Plan>,
    begun: Mono,
    now: Mono,
    wait: Option<Mono>,
    last_pid: i32,
    last_run: RunId,
    /// The current run of each instance that has a main process.
    runs: BTreeMap<InstanceId, RunId>,
    /// The current `pre_stop` or `post_stop` of each instance.
    side_runs: BTreeMap<InstanceId, RunId>,
    /// The runs whose main process has ended, with their instances.
    ended: BTreeMap<RunId, InstanceId>,
    /// The ended runs that have not been released.
    unreleased: BTreeSet<RunId>,
    /// Whether releases of runs are recorded as lines.
    pub(crate) shows_releases: bool,
    lines: Vec<String>,
    /// Releases and cancellations.
    releases: Vec<String>,
    pub(crate) spawns: Spawns,
    /// Whether there are processes that are not main processes. Without them, `NoChildren` follows the last exit.
    pub(crate) has_other_processes: bool,
    is_over: bool,
    requests: u64,
    /// The error of the last reload, if it has failed.
    rollout_error: Option<RolloutError>,
}

impl Setup {
    /// Boots the services.
    pub(crate) fn boot(services: Vec<Service>) -> Self {
        let mut setup = Self::new(plans::plan(services));
        setup.send(Event::Boot);
        setup
    }

    /// Boots the services without performing their first spawns.
    pub(crate) fn boot_without_spawns(services: Vec<Service>) -> Self {
        let mut setup = Self::new(plans::plan(services));
        setup.supervisor.handle(setup.now, Event::Boot);
        setup
    }

    pub(crate) fn new(plan: Plan) -> Self {
        let plan = Rc::new(plan);
        let begun = Mono::from_nanos(1_000_000_000_000);
        Self {
            supervisor: Supervisor::new(Rc::clone(&plan), 0),
            plan,
            begun,
            now: begun,
            wait: None,
            last_pid: 100,
            last_run: RunId::default(),
            runs: BTreeMap::new(),
            side_runs: BTreeMap::new(),
            ended: BTreeMap::new(),
            unreleased: BTreeSet::new(),
            shows_releases: false,
            lines: Vec::new(),
            releases: Vec::new(),
            spawns: Spawns::Executed,
            has_other_processes: false,
            is_over: false,
            requests: 0,
            rollout_error: None,
        }
    }

    pub(crate) fn send(&mut self, event: Event) {
        self.supervisor.handle(self.now, event);
        self.drain();
        self.supervisor.handle(self.now, Event::Tick);
        self.drain();
    }

    /// Advances the time to `at` after the boot, with a tick at each deadline.
    pub(crate) fn at(&mut self, at: Duration) {
        let at = self.begun + at;
        while let Some(until) = self.wait.filter(|until| *until <= at) {
            assert!(until > self.now, "the deadline has no effect");
            self.now = until;
            self.supervisor.handle(self.now, Event::Tick);
            self.drain();
        }
        self.now = at;
    }

    /// Advances the time by `time`, with a tick at each deadline.
    pub(crate) fn after(&mut self, time: Duration) {
        self.at(self.now.since(self.begun) + time);
    }

    /// Advances the time by `time`, with a single late tick at its end.
    pub(crate) fn sleep_through(&mut self, time: Duration) {
        self.now = self.now + time;
        self.send(Event::Tick);
    }

    /// The time until the next deadline of the supervisor.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.wait.map(|until| until.since(self.now))
    }

    pub(crate) fn exits(&mut self, name: &str, code: u8) {
        self.ends(name, ExitStatus::Code(code), Leftovers::None);
    }

    pub(crate) fn dies(&mut self, name: &str, signal: Signal) {
        self.ends(name, ExitStatus::Signal(signal), Leftovers::None);
    }

    pub(crate) fn ends(&mut self, name: &str, status: ExitStatus, leftovers: Leftovers) {
        self.is_reaped(name, status, leftovers);
        self.drain();
        if leftovers == Leftovers::Some {
            self.has_other_processes = true;
        }
        self.send(Event::Tick);
        if self.is_childless() {
            self.send(Event::NoChildren);
        }
    }

    pub(crate) fn executes(&mut self, name: &str) {
        let run = self.run(name);
        self.send(Event::Executed { run });
    }

    /// The leftovers of its last run are gone.
    pub(crate) fn leftovers_gone(&mut self, name: &str) {
        self.has_other_processes = false;
        let run = self.ended_run(name);
        self.send(Event::LeftoversGone { run });
    }

    /// Its current run.
    pub(crate) fn run(&self, name: &str) -> RunId {
        self.runs[&self.id(name)]
    }

    /// Its last run that has ended.
    pub(crate) fn ended_run(&self, name: &str) -> RunId {
        let id = self.id(name);
        *self.ended.iter().rfind(|(_, instance)| **instance == id).expect("a run").0
    }

    pub(crate) fn signal(&mut self, signal: Signal) {
        self.send(Event::Signal(signal));
    }

    pub(crate) fn start(&mut self, name: &str) {
        self.ask(name, Verb::Start);
    }

    pub(crate) fn stop(&mut self, name: &str) {
        self.ask(name, Verb::Stop);
    }

    pub(crate) fn restart(&mut self, name: &str) {
        self.ask(name, Verb::Restart);
    }

    pub(crate) fn ask(&mut self, name: &str, verb: Verb) {
        self.request(Request::Control(self.target(name), verb));
    }

    pub(crate) fn scale(&mut self, name: &str, wanted: u32) {
        self.request(Request::Scale(self.id(name).service, wanted));
    }

    /// As [`Self::ask`], without performing actions.
    pub(crate) fn queue_request(&mut self, name: &str, verb: Verb) {
        let event = self.next_request(Request::Control(self.target(name), verb));
        self.queue(event);
    }

    /// As [`Self::send`], without performing actions.
    pub(crate) fn queue(&mut self, event: Event) {
        self.supervisor.handle(self.now, event);
    }

    /// As [`Self::exits`], without performing actions.
    pub(crate) fn queue_exit(&mut self, name: &str) {
        self.is_reaped(name, ExitStatus::Code(0), Leftovers::None);
    }

    /// As [`Self::queue_exit`], with leftovers.
    pub(crate) fn queue_exit_with_leftovers(&mut self, name: &str) {
        self.is_reaped(name, ExitStatus::Code(0), Leftovers::Some);
    }

    fn is_reaped(&mut self, name: &str, status: ExitStatus, leftovers: Leftovers) {
        // `web.0/hook` is its `pre_stop` or `post_stop`.
        let id = self.id(name.trim_end_matches("/hook"));
        let runs = if name.ends_with("/hook") { &mut self.side_runs } else { &mut self.runs };
        let run = runs.remove(&id).expect("a process");
        self.ended.insert(run, id);
        if !self.is_over {
            self.unreleased.insert(run);
        }
        self.queue(Event::Exited { run, exit: Exit { status, oom_killed: false }, leftovers });
    }

    /// As [`Self::sleep_through`], without performing actions.
    pub(crate) fn queue_tick_after(&mut self, time: Duration) {
        self.now = self.now + time;
        self.queue(Event::Tick);
    }

    /// The next process gets this pid.
    pub(crate) fn set_next_pid(&mut self, pid: i32) {
        self.last_pid = pid - 1;
    }

    fn target(&self, name: &str) -> Target {
        if name.contains('.') {
            Target::Instance(self.id(name))
        } else {
            Target::Service(self.id(&format!("{name}.0")).service)
        }
    }

    pub(crate) fn request(&mut self, request: Request) {
        let event = self.next_request(request);
        self.send(event);
    }

    fn next_request(&mut self, request: Request) -> Event {
        self.requests += 1;
        Event::Request { id: RequestId(self.requests), request }
    }

    /// Checks that exactly these lines have been recorded since the last check.
    #[track_caller]
    pub(crate) fn check(&mut self, expect: &[&str]) {
        assert_eq!(std::mem::take(&mut self.lines), expect);
    }

    /// Checks that exactly these releases and cancellations have been recorded since the last check.
    #[track_caller]
    pub(crate) fn check_releases(&mut self, expect: &[&str]) {
        assert_eq!(std::mem::take(&mut self.releases), expect);
    }

    /// Discards the recorded lines.
    pub(crate) fn forget(&mut self) {
        self.lines.clear();
    }

    /// The lines since the last check that start with `prefix`.
    pub(crate) fn only(&mut self, prefix: &str) -> Vec<String> {
        let lines = std::mem::take(&mut self.lines);
        lines.into_iter().filter(|line| line.starts_with(prefix)).collect()
    }

    pub(crate) fn unstable(&self, name: &str) -> u32 {
        let id = self.id(name);
        self.supervisor.view().instances().find(|instance| instance.id == id).expect("an instance").unstable
    }

    fn is_childless(&self) -> bool {
        self.runs.is_empty() && self.side_runs.is_empty() && !self.has_other_processes
    }

    fn drain(&mut self) {
        loop {
            match self.supervisor.poll() {
                Step::Wait { until } => {
                    self.wait = until;
                    assert!(self.is_over || self.unreleased.is_empty(), "{:?} are not released", self.unreleased);
                    return;
                }
                Step::Do(action) => self.perform(&action),
            }
        }
    }

    /// The name of the instance that has this run. A run that has ended is shown by its number.
    fn owner(&self, run: RunId) -> String {
        let of = |runs: &BTreeMap<InstanceId, RunId>| runs.iter().find(|(_, owned)| **owned == run).map(|(id, _)| *id);
        match (of(&self.runs), of(&self.side_runs)) {
            (Some(id), _) => self.name(id),
            (None, Some(id)) => format!("hook of {}", self.name(id)),
            (None, None) => format!("run {run}"),
        }
    }

    /// The name of the instance that had this run.
    fn former_owner(&self, run: RunId) -> String {
        self.ended.get(&run).map_or_else(|| format!("run {run}"), |id| self.name(*id))
    }

    fn name(&self, id: InstanceId) -> String {
        let surge = if id.is_surge() { "'" } else { "" };
        format!("{}.{}{surge}", self.plan.services[id.service.position()].name, id.slot().number)
    }

    fn id(&self, name: &str) -> InstanceId {
        if let Some(name) = name.strip_suffix('\'') {
            return self.id(name).surge();
        }
        let (service, number) = name.split_once('.').unwrap_or((name, "0"));
        let position = self.plan.services.iter().position(|other| &*other.name == service).expect("a service");
        InstanceId { service: ServiceIndex(position as u32), number: number.parse().expect("a number") }
    }
}

fn lower(value: &impl Debug) -> String {
    let text = format!("{value:?}").to_lowercase();
    text.split([' ', '(']).next().unwrap_or_default().to_owned()
}

fn lower_cause(cause: &Cause) -> String {
    let text = format!("{cause:?}").to_lowercase();
    text.split([' ', '(']).next().unwrap_or_default().to_owned()
}

pub(crate) const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The program does not exist.
pub(crate) const MISSING: StartFailure = StartFailure { step: StartStep::Exec, errno: Errno::ENOENT };

/// `service` depending on the services at `positions`.
pub(crate) fn depending_on(positions: &[u32], service: Service) -> Service {
    Service { depends_on: positions.iter().copied().map(ServiceIndex).collect(), ..service }
}

//! Written by hand: a plan, what happens when, and every single thing the supervisor does about it.
//!
//! A [`Stage`] makes processes at once (as vfork does) unless it is told otherwise, and shows what the supervisor does
//! as short lines, in order:
//!
//! ```text
//! web.0 running → backoff          a transition
//! spawn web.0 (2 restarts)         an action
//! kill web.0 main SIGTERM          main, group or leftovers
//! ```

mod blocked;
mod configure;
mod perform;
mod ready;
mod reload;
mod reload_by_signal;
mod requests;
mod restarts;
mod scale;
mod shutdown;
mod stops;

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

/// How the next processes are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spawns {
    /// They run their program at once.
    Executed,
    /// Their program is told to run later, with [`Stage::executes`].
    Pending,
    Refused(Errno),
    /// There are none: a socket cannot be bound.
    BindFailing,
    /// They fail before exec; [`Stage::ends`] has to follow.
    Failing(StartFailure),
}

pub(crate) struct Stage {
    supervisor: Supervisor,
    plan: Rc<Plan>,
    begun: Mono,
    now: Mono,
    wait: Option<Mono>,
    last_pid: i32,
    last_run: RunId,
    /// The present run of each instance that has a main process.
    runs: BTreeMap<InstanceId, RunId>,
    /// Runs whose main process has ended, and whose they were.
    ended: BTreeMap<RunId, InstanceId>,
    /// Those of them that have not been released.
    unreleased: BTreeSet<RunId>,
    /// Whether the release of runs is shown, too.
    pub(crate) shows_releases: bool,
    lines: Vec<String>,
    /// What was released and called off.
    releases: Vec<String>,
    pub(crate) spawns: Spawns,
    /// Whether nothing but what the supervisor started itself is there: then it hears that there are no children.
    pub(crate) strays: bool,
    is_over: bool,
    requests: u64,
    /// Why the last reload has failed, if it has.
    rollout_error: Option<RolloutError>,
}

impl Stage {
    /// The services, booted.
    pub(crate) fn boot(services: Vec<Service>) -> Self {
        let mut stage = Self::new(plans::plan(services));
        stage.send(Event::Boot);
        stage
    }

    /// The services, booted, their first processes asked for and not made yet.
    pub(crate) fn unborn(services: Vec<Service>) -> Self {
        let mut stage = Self::new(plans::plan(services));
        stage.supervisor.handle(stage.now, Event::Boot);
        stage
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
            ended: BTreeMap::new(),
            unreleased: BTreeSet::new(),
            shows_releases: false,
            lines: Vec::new(),
            releases: Vec::new(),
            spawns: Spawns::Executed,
            strays: false,
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

    /// Lets time pass up to `at` after the boot, with a tick at each deadline on the way.
    pub(crate) fn at(&mut self, at: Duration) {
        let at = self.begun + at;
        while let Some(until) = self.wait.filter(|until| *until <= at) {
            assert!(until > self.now, "it spins");
            self.now = until;
            self.supervisor.handle(self.now, Event::Tick);
            self.drain();
        }
        self.now = at;
    }

    /// Lets time pass.
    pub(crate) fn after(&mut self, time: Duration) {
        self.at(self.now.since(self.begun) + time);
    }

    /// Lets time pass, with a single late tick at the end of it.
    pub(crate) fn sleep_through(&mut self, time: Duration) {
        self.now = self.now + time;
        self.send(Event::Tick);
    }

    /// When the supervisor wants to be woken, from now.
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
            self.strays = true;
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

    /// What the last run of it has left is gone.
    pub(crate) fn leftovers_gone(&mut self, name: &str) {
        self.strays = false;
        let run = self.ended_run(name);
        self.send(Event::LeftoversGone { run });
    }

    /// Its present run.
    pub(crate) fn run(&self, name: &str) -> RunId {
        self.runs[&self.id(name)]
    }

    /// The last run of it that has ended.
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

    /// As [`Self::ask`], but nothing is done about it yet.
    pub(crate) fn asks(&mut self, name: &str, verb: Verb) {
        let event = self.next_request(Request::Control(self.target(name), verb));
        self.hears(event);
    }

    /// As [`Self::tell`], but nothing is done about it yet.
    pub(crate) fn hears(&mut self, event: Event) {
        self.supervisor.handle(self.now, event);
    }

    /// As [`Self::exits`], but nothing is done about it yet.
    pub(crate) fn reaped(&mut self, name: &str) {
        self.is_reaped(name, ExitStatus::Code(0), Leftovers::None);
    }

    /// It ends and leaves others, but nothing is done about it yet.
    pub(crate) fn leaves(&mut self, name: &str) {
        self.is_reaped(name, ExitStatus::Code(0), Leftovers::Some);
    }

    fn is_reaped(&mut self, name: &str, status: ExitStatus, leftovers: Leftovers) {
        let id = self.id(name);
        let run = self.runs.remove(&id).expect("a process");
        self.ended.insert(run, id);
        if !self.is_over {
            self.unreleased.insert(run);
        }
        self.hears(Event::Exited { run, exit: Exit { status, oom_killed: false }, leftovers });
    }

    /// Time passes, a tick comes at the end of it, but nothing is done about it yet.
    pub(crate) fn sleeps(&mut self, time: Duration) {
        self.now = self.now + time;
        self.hears(Event::Tick);
    }

    /// The next process gets this id.
    pub(crate) fn spawns_next(&mut self, pid: i32) {
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

    /// What has been done since the last time, and nothing else.
    #[track_caller]
    pub(crate) fn check(&mut self, expect: &[&str]) {
        assert_eq!(std::mem::take(&mut self.lines), expect);
    }

    /// What has been released and called off since the last time, and nothing else.
    #[track_caller]
    pub(crate) fn check_releases(&mut self, expect: &[&str]) {
        assert_eq!(std::mem::take(&mut self.releases), expect);
    }

    /// Forgets what has been done so far.
    pub(crate) fn forget(&mut self) {
        self.lines.clear();
    }

    /// The lines since the last time that begin with `beginning`.
    pub(crate) fn only(&mut self, beginning: &str) -> Vec<String> {
        let lines = std::mem::take(&mut self.lines);
        lines.into_iter().filter(|line| line.starts_with(beginning)).collect()
    }

    pub(crate) fn unstable(&self, name: &str) -> u32 {
        let id = self.id(name);
        self.supervisor.view().instances().find(|instance| instance.id == id).expect("an instance").unstable
    }

    fn is_childless(&self) -> bool {
        self.runs.is_empty() && !self.strays
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

    /// Whose main process the run has. One that has ended has a number alone.
    fn owner(&self, run: RunId) -> String {
        let owner = self.runs.iter().find(|(_, owned)| **owned == run);
        owner.map_or_else(|| format!("run {run}"), |(id, _)| self.name(*id))
    }

    /// Whose main process the run had.
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

/// No such program.
pub(crate) const MISSING: StartFailure = StartFailure { step: StartStep::Exec, errno: Errno::ENOENT };

/// `service` depending on the services at `positions`.
pub(crate) fn needing(positions: &[u32], service: Service) -> Service {
    Service { depends_on: positions.iter().copied().map(ServiceIndex).collect(), ..service }
}

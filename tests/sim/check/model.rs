//! The state of each service and its instances.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use keepalive::model::plan::{KillMode, Kind, Service};
use keepalive::model::{ExitStatus, InstanceId, Mono, Pid, Plan, RunId, ServiceIndex, StartFailure};
use keepalive::supervisor::{Exit, FailureReason, Leftovers, Reason, RestartDecision, StateName};
use nix::errno::Errno;

use super::instance::{Instance, Progress, ReportedStop};
use super::reloads::ReloadState;
use super::restarts::{self, Expected};
use super::shutdown::ShutdownStage;
use super::{Verdict, Violation, rule};

#[derive(Debug)]
pub(crate) struct Model {
    pub(super) plan: Rc<Plan>,
    /// Includes surplus instances until they are inactive.
    pub(super) instances: Vec<Vec<Instance>>,
    desired: Vec<u32>,
    /// Surge instances during a rolling reload.
    pub(super) surges: BTreeMap<InstanceId, Instance>,
    /// The services that are being reloaded.
    pub(super) reloading: BTreeMap<ServiceIndex, ReloadState>,
    /// The number of failures so far, to find the first and the last one.
    failures: u32,
    /// The services whose definitions have come by a reload and have not been ready: their failures end nothing. With the
    /// definition before.
    pub(super) untried: BTreeMap<ServiceIndex, Option<Rc<Service>>>,
    /// The services that may still be untried: a request may have waited for their processes to run for longer.
    pub(super) doubtful: BTreeSet<ServiceIndex>,
    /// The services whose instances have all been taken away: they can be scaled up again, so keepalive goes on.
    scaled_to_zero: BTreeSet<ServiceIndex>,
    /// Hooks that nothing waits for any more.
    pub(super) forgotten_hooks: BTreeSet<RunId>,
    /// The instance whose hook has failed, until that is reported.
    pub(super) failed_hook: Option<InstanceId>,
}

pub(crate) const fn is_active(state: StateName) -> bool {
    !state.is_inactive()
}

pub(crate) const fn is_live(state: StateName) -> bool {
    matches!(state, StateName::Starting | StateName::Running | StateName::Stopping)
}

impl Model {
    pub(crate) fn new(plan: Rc<Plan>) -> Self {
        let desired: Vec<_> = plan.services.iter().map(|service| service.instances).collect();
        let counted = plan.services.iter().zip(&desired);
        let instances = counted.map(|(service, count)| vec![Instance::new(service); *count as usize]).collect();
        Self {
            plan,
            instances,
            desired,
            surges: BTreeMap::new(),
            reloading: BTreeMap::new(),
            failures: 0,
            untried: BTreeMap::new(),
            doubtful: BTreeSet::new(),
            scaled_to_zero: BTreeSet::new(),
            forgotten_hooks: BTreeSet::new(),
            failed_hook: None,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.instances.iter().map(Vec::len).sum()
    }

    pub(crate) fn get(&self, id: InstanceId) -> &Instance {
        if id.is_surge() {
            return &self.surges[&id];
        }
        &self.instances[id.service.position()][id.number as usize]
    }

    pub(crate) fn get_mut(&mut self, id: InstanceId) -> &mut Instance {
        if id.is_surge() {
            return self.surges.get_mut(&id).expect("a surge");
        }
        &mut self.instances[id.service.position()][id.number as usize]
    }

    /// `None` if the instance does not exist.
    pub(crate) fn find(&self, id: InstanceId) -> Option<&Instance> {
        if id.is_surge() {
            return self.surges.get(&id);
        }
        self.of(id.service).get(id.number as usize)
    }

    pub(super) fn find_mut(&mut self, id: InstanceId) -> Option<&mut Instance> {
        self.instances.get_mut(id.service.position())?.get_mut(id.number as usize)
    }

    /// `None` if the instance, or surge instance, does not exist.
    pub(super) fn find_any_mut(&mut self, id: InstanceId) -> Option<&mut Instance> {
        if id.is_surge() { self.surges.get_mut(&id) } else { self.find_mut(id) }
    }

    pub(crate) fn surges(&self) -> impl Iterator<Item = (InstanceId, &Instance)> {
        self.surges.iter().map(|(id, surge)| (*id, surge))
    }

    pub(crate) fn desired(&self, service: ServiceIndex) -> u32 {
        self.desired[service.position()]
    }

    pub(crate) fn is_oneshot(&self, service: ServiceIndex) -> bool {
        self.plan.services[service.position()].kind == Kind::Oneshot
    }

    pub(crate) fn scale(&mut self, service: ServiceIndex, wanted: u32) {
        let before = std::mem::replace(&mut self.desired[service.position()], wanted);
        match (before, wanted) {
            (1.., 0) => drop(self.scaled_to_zero.insert(service)),
            (_, 1..) => drop(self.scaled_to_zero.remove(&service)),
            (0, 0) => {}
        }
        let instances = &mut self.instances[service.position()];
        instances.resize(instances.len().max(wanted as usize), Instance::new(&self.plan.services[service.position()]));
        self.drop_surplus(service);
    }

    fn drop_surplus(&mut self, service: ServiceIndex) {
        let wanted = self.desired(service) as usize;
        let instances = &mut self.instances[service.position()];
        while instances.len() > wanted && instances.pop_if(|last| !is_active(last.state)).is_some() {}
    }

    pub(crate) fn of(&self, service: ServiceIndex) -> &[Instance] {
        &self.instances[service.position()]
    }

    /// The instance that has this run; `None` if nothing is left of the run.
    pub(crate) fn of_run(&self, run: RunId) -> Option<InstanceId> {
        self.find_by(|instance| [instance.spawning, instance.main, instance.lingering].contains(&Some(run)))
    }

    /// The instance that has this run with a main process that has not been reaped.
    pub(crate) fn with_main(&self, run: RunId) -> Option<InstanceId> {
        self.find_by(|instance| instance.main == Some(run))
    }

    /// The instance for which this run has been spawned, without a result yet.
    fn spawning(&mut self, run: RunId) -> Result<(InstanceId, &mut Instance), Violation> {
        let Some(id) = self.find_by(|instance| instance.spawning == Some(run)) else {
            return Err(Violation(format!("run {run} has not been spawned")));
        };
        let instance = self.get_mut(id);
        instance.spawning = None;
        rule!(instance.state == StateName::Starting, "{id:?} gets a process while {:?}", instance.state);
        Ok((id, instance))
    }

    fn find_by(&self, is_meant: impl Fn(&Instance) -> bool) -> Option<InstanceId> {
        self.all().chain(self.surges()).find(|(_, instance)| is_meant(instance)).map(|(id, _)| id)
    }

    pub(crate) fn services(&self) -> impl Iterator<Item = ServiceIndex> + use<> {
        (0..self.instances.len() as u32).map(ServiceIndex)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (InstanceId, &Instance)> {
        self.services().flat_map(|service| {
            self.of(service).iter().zip(0..).map(move |(instance, number)| (InstanceId { service, number }, instance))
        })
    }

    pub(crate) fn any_active(&self) -> bool {
        self.all().any(|(_, instance)| is_active(instance.state))
    }

    /// Whether a service has a process or may still get one.
    pub(crate) fn any_left(&self) -> bool {
        self.any_active() || !self.surges.is_empty()
    }

    // Events.

    pub(crate) fn on_spawned(&mut self, run: RunId, pid: Pid, now: Mono) -> Verdict {
        let (_, instance) = self.spawning(run)?;
        (instance.main, instance.pid) = (Some(run), Some(pid).filter(|_| instance.hook.is_none()));
        instance.since = now;
        (instance.failure, instance.owes_post_stop, instance.is_prepared) = (None, false, false);
        instance.has_announced_stop = false;
        (instance.ready_at, instance.ready_by, instance.ready_again_by) = (None, None, None);
        instance.progress = Progress::Made;
        Ok(())
    }

    pub(crate) fn on_spawn_failed(&mut self, run: RunId, errno: Errno) -> Verdict {
        let (id, instance) = self.spawning(run)?;
        instance.owes_post_stop &= id.is_surge();
        instance.expected = Some(if id.is_surge() { Expected::RefusedSurge } else { Expected::Refusal { errno } });
        Ok(())
    }

    pub(crate) fn on_bind_failed(&mut self, run: RunId, failure: StartFailure) -> Verdict {
        let (id, instance) = self.spawning(run)?;
        instance.last_exit = Some(Exit { status: ExitStatus::Code(failure.exit_code()), oom_killed: false });
        instance.was_stopped_for_fault = false;
        instance.expected = Some(if id.is_surge() {
            Expected::Replaced
        } else {
            Expected::Shutdown(RestartDecision::Fail(FailureReason::BindFailed))
        });
        Ok(())
    }

    pub(crate) fn on_exec_failed(&mut self, run: RunId, failure: StartFailure) {
        if let Some(id) = self.with_main(run) {
            self.get_mut(id).failure = Some(failure);
        }
    }

    /// Returns the instance of the run.
    pub(crate) fn on_exited(
        &mut self,
        run: RunId,
        exit: Exit,
        leftovers: Leftovers,
        now: Mono,
        stage: ShutdownStage,
    ) -> Result<InstanceId, Violation> {
        let Some(id) = self.with_main(run) else {
            return Err(Violation(format!("run {run} exits, but has no main process")));
        };
        let service = Rc::clone(&self.get(id).definition);
        let lingers = leftovers == Leftovers::Some
            && service.stop.kill_mode != KillMode::Process
            && stage != ShutdownStage::Forced;
        // The new process of a reload that has failed may outlast the next one of its instance.
        let is_older = |surge: &Instance| surge.main.or(surge.lingering).is_some_and(|other| other < run);
        let surge = self.surges.get(&id.surge()).filter(|_| !id.is_surge());
        let is_beside_old = surge.is_some_and(|surge| surge.is_old || is_older(surge));
        let instance = self.get_mut(id);
        let is_hook = instance.hook.is_some();
        if instance.has_succeeded_to_prepare(exit) {
            instance.on_prepared(lingers.then_some(run), now);
            return Ok(id);
        }
        instance.has_executed |= instance.failure.is_none() && !is_hook;
        let shortage = instance.failure.is_some_and(StartFailure::is_shortage);
        let is_stopped = instance.state == StateName::Stopping
            && instance.fault.is_none()
            && instance.reported_stop != ReportedStop::Only;
        instance.has_died_beside_old |= is_beside_old && !shortage && !is_stopped;
        instance.expected = Some(if id.is_surge() {
            Expected::Replaced
        } else {
            restarts::after(&service, instance, exit, now, stage)
        });
        instance.owes_post_stop = !matches!(instance.expected, Some(Expected::Refusal { .. } | Expected::Rest))
            && stage != ShutdownStage::Forced;
        (instance.main, instance.pid) = (None, None);
        (instance.lingering, instance.lingering_since, instance.has_given_up) = (lingers.then_some(run), now, false);
        instance.last_exit = Some(exit);
        instance.was_stopped_for_fault = instance.fault.is_some();
        (instance.ready_at, instance.ready_by) = (None, None);
        (instance.delayed_until, instance.kills) = (None, 0);
        if !shortage {
            instance.runs += 1;
            instance.refusals = 0;
        }
        Ok(id)
    }

    pub(crate) fn on_leftovers_gone(&mut self, run: RunId) {
        if let Some(id) = self.find_by(|instance| instance.lingering == Some(run)) {
            self.get_mut(id).lingering = None;
        }
    }

    // Journal entries.

    pub(crate) fn apply_transition(
        &mut self,
        id: InstanceId,
        to: StateName,
        reason: &Reason,
        now: Mono,
        stage: ShutdownStage,
    ) -> Verdict {
        let failures = self.failures;
        self.note_start(id, to, reason);
        let instance = self.get_mut(id);
        instance.note_run(now);
        restarts::check_expected(id, instance, to, reason, stage)?;
        let from = std::mem::replace(&mut instance.state, to);
        instance.on_entered(reason, now);
        instance.blocked = matches!(reason, Reason::DependencyCompleted { .. } | Reason::DependencyFailed { .. });
        match reason {
            Reason::Exited { decision: RestartDecision::Restart { delay, unstable, .. }, .. } => {
                instance.due = Some(now + *delay);
                if from != StateName::Stopping
                    || instance.fault.is_some()
                    || instance.reported_stop == ReportedStop::Only
                {
                    instance.unstable = *unstable;
                }
            }
            Reason::SpawnFailed { retry_in, attempt, .. } => {
                instance.due = Some(now + *retry_in);
                instance.refusals = *attempt;
            }
            _ => {}
        }
        instance.apply_transition(id, from, to, reason, now)?;
        match to {
            StateName::Stopping if instance.main.is_some() => instance.on_stop_signal(now),
            StateName::Starting
                if matches!(reason, Reason::BackoffElapsed | Reason::Exited { .. } | Reason::CleanedUp { .. }) =>
            {
                rule!(instance.due.is_none_or(|due| due <= now), "{id:?} starts before its backoff is over");
            }
            StateName::Running => {
                let ready = instance.ready_at.is_some_and(|at| at <= now);
                rule!(ready, "{id:?} is ready at {now:?}, not at {:?}", instance.ready_at);
            }
            StateName::Backoff => {
                rule!(instance.due.is_some_and(|due| due > now), "{id:?} backs off until {:?}", instance.due);
            }
            _ => {}
        }
        if !is_active(to) {
            instance.due = None;
        }
        if !is_live(to) {
            rule!(instance.main.is_none(), "{id:?} is {to:?}, but has a process");
        }
        if to != StateName::Stopping {
            instance.start_requested = false;
            let given_up = instance.has_given_up || stage == ShutdownStage::Forced;
            rule!(instance.lingering.is_none() || given_up, "{id:?} leaves `stopping` before its leftovers are gone");
            instance.check_hooks_are_over(id, from == to || stage == ShutdownStage::Forced)?;
            (instance.lingering, instance.has_given_up) = (None, false);
        }
        if matches!(reason, Reason::Exited { decision: RestartDecision::Fail(_), .. }) {
            instance.failed = Some(failures);
            self.failures += 1;
        } else if !matches!(to, StateName::Stopping | StateName::Failed)
            || matches!(reason, Reason::DependencyCompleted { .. } | Reason::DependencyFailed { .. })
        {
            instance.failed = None;
        }
        if id.is_surge() && !is_active(to) {
            self.surges.remove(&id);
            self.on_old_gone(id.slot(), now);
        }
        self.drop_surplus(id.service);
        Ok(())
    }

    // Derived state.

    pub(crate) fn is_satisfied(&self, service: ServiceIndex) -> bool {
        let kind = self.plan.services[service.position()].kind;
        self.desired(service) == 0
            || is_satisfied(kind, self.of(service).iter().map(|instance| (instance.state, instance.is_not_ready())))
    }

    pub(crate) fn depends_on(&self, service: ServiceIndex) -> &[ServiceIndex] {
        &self.plan.services[service.position()].depends_on
    }

    pub(crate) fn dependencies_are_satisfied(&self, service: ServiceIndex) -> bool {
        self.plan.services[service.position()].depends_on.iter().all(|dependency| self.is_available(*dependency))
    }

    /// Whether services that depend on it can start: it is ready, and no stop of it is queued.
    pub(crate) fn is_available(&self, service: ServiceIndex) -> bool {
        self.is_satisfied(service) && self.of(service).iter().all(|instance| instance.queued.is_none())
    }

    pub(crate) fn is_active(&self, service: ServiceIndex) -> bool {
        self.of(service).iter().any(|instance| is_active(instance.state))
    }

    /// Whether a start of it is done: a service is ready, a oneshot has succeeded.
    pub(crate) fn is_up(&self, id: InstanceId) -> bool {
        let Some(instance) = self.find(id) else { return false };
        match instance.state {
            StateName::Running => self.plan.services[id.service.position()].kind == Kind::Service,
            state => state == StateName::Completed,
        }
    }

    /// Whether an instance of it has waited for 30 seconds, which has not been told. From now on that of no instance has.
    pub(crate) fn take_long_wait(&mut self, service: ServiceIndex, now: Mono) -> bool {
        let mut is_long = false;
        for number in 0..self.of(service).len() as u32 {
            let instance = self.get_mut(InstanceId { service, number });
            let since = instance.waits_since.take_if(|_| instance.state == StateName::Waiting);
            is_long |= since.is_some_and(|since| now.since(since) >= Duration::from_secs(30));
        }
        is_long
    }

    /// Whether an operator has stopped at least one instance, or set their number to 0.
    pub(crate) fn is_stopped_by_operator(&self, service: ServiceIndex) -> bool {
        let is_stopped = |instance: &Instance| instance.state == StateName::Stopped && instance.stopped_by_operator;
        self.of(service).iter().any(is_stopped) || self.scaled_to_zero.contains(&service)
    }

    /// Whether it is over, and starts again when its files change.
    pub(crate) fn awaits_changes(&self, service: ServiceIndex) -> bool {
        let is_over = |instance: &Instance| matches!(instance.state, StateName::Completed | StateName::Failed);
        self.plan.services[service.position()].watch.is_some() && self.of(service).iter().any(is_over)
    }

    /// Whether it is not ready and cannot become ready by itself.
    pub(crate) fn cannot_become_ready(&self, service: ServiceIndex) -> bool {
        let ended = |instance: &Instance| matches!(instance.state, StateName::Completed | StateName::Failed);
        !self.is_satisfied(service) && self.of(service).iter().all(ended)
    }

    /// Whether all instances have ended and at least one has failed for a reason other than its dependencies.
    pub(crate) fn has_failed(&self, service: ServiceIndex) -> bool {
        let instances = self.of(service);
        let ended = instances.iter().all(|instance| matches!(instance.state, StateName::Completed | StateName::Failed));
        let any = |state| instances.iter().any(|instance| instance.state == state);
        let oneshot = self.plan.services[service.position()].kind == Kind::Oneshot;
        ended
            && any(StateName::Failed)
            && (oneshot || !any(StateName::Completed))
            && instances.iter().any(|instance| instance.failed.is_some())
    }

    /// Whether it, or one of its direct or indirect dependents, has `autostart`.
    pub(crate) fn starts_by_itself(&self, service: ServiceIndex) -> bool {
        let needs = |other: &ServiceIndex| self.plan.services[other.position()].depends_on.contains(&service);
        let wanted = self.plan.services[service.position()].autostart;
        let is_off = self.desired(service) == 0;
        !is_off && (wanted || self.services().filter(needs).any(|dependent| self.starts_by_itself(dependent)))
    }

    /// Whether it has `autostart`, or a service that runs depends on it.
    pub(crate) fn is_needed(&self, service: ServiceIndex) -> bool {
        let depends = |other: &ServiceIndex| self.depends_on(*other).contains(&service) && self.is_active(*other);
        self.plan.services[service.position()].autostart || self.services().any(|other| depends(&other))
    }

    /// A direct or indirect dependent of `service` that still has a process.
    pub(crate) fn live_dependent(&self, service: ServiceIndex) -> Option<ServiceIndex> {
        self.find_dependent(service, &|dependent| {
            let has_surge = self.surges.keys().any(|surge| surge.service == dependent);
            has_surge || self.of(dependent).iter().any(|instance| is_live(instance.state))
        })
    }

    /// A direct or indirect dependent that is stopped in order, and has not stopped yet.
    pub(crate) fn stopping_dependent(&self, service: ServiceIndex) -> Option<ServiceIndex> {
        let is_stopping = |instance: &Instance| {
            instance.queued.is_some() || (instance.stops_in_order && instance.state == StateName::Stopping)
        };
        self.find_dependent(service, &|dependent| self.of(dependent).iter().any(is_stopping))
    }

    fn find_dependent(&self, service: ServiceIndex, wanted: &dyn Fn(ServiceIndex) -> bool) -> Option<ServiceIndex> {
        let mut seen = vec![service];
        let mut position = 0;
        while let Some(index) = seen.get(position).copied() {
            position += 1;
            for dependent in self.services().filter(|other| !seen.contains(other)).collect::<Vec<_>>() {
                if self.plan.services[dependent.position()].depends_on.contains(&index) {
                    if wanted(dependent) {
                        return Some(dependent);
                    }
                    seen.push(dependent);
                }
            }
        }
        None
    }
}

/// Whether a service is ready whose instances have these states. The bool is true for `Progress::NotReady`.
fn is_satisfied(kind: Kind, states: impl Iterator<Item = (StateName, bool)> + Clone) -> bool {
    match kind {
        Kind::Oneshot => states.clone().all(|(state, _)| state == StateName::Completed),
        Kind::Service => {
            let is_ready = |(state, away): (StateName, bool)| state == StateName::Running && !away;
            states.clone().any(is_ready) && states.clone().all(|state| is_ready(state) || !is_active(state.0))
        }
    }
}

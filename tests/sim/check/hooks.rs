//! The rules for hooks: commands that run before, beside and after the main process.

use keepalive::model::plan::Hook;
use keepalive::model::{ExitStatus, InstanceId, Mono, RunId, Signal};
use keepalive::supervisor::{Action, Event, Exit, Fault, Leftovers, Reason, RunResult, Scope, StateName};

use super::instance::Instance;
use super::model::Model;
use super::{Checker, Verdict, rule};

/// A `pre_stop` or `post_stop`.
#[derive(Clone, Debug)]
pub(super) struct SideRun {
    pub(super) run: RunId,
    pub(super) hook: Hook,
    pub(super) since: Mono,
    pub(super) has_exited: bool,
    pub(super) is_killed: bool,
}

/// What a stop signal waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PreStop {
    Due,
    Running,
    Done,
}

impl Checker {
    /// `pre_start` runs before each start, and nothing else of the start before it has succeeded.
    pub(super) fn check_hook(&mut self, id: InstanceId, hook: Option<Hook>) -> Verdict {
        let has_pre_start = self.plan.services[id.service.position()].hooks.find(Hook::PreStart).is_some();
        let instance = self.model.get_mut(id);
        let is_right = match hook {
            Some(Hook::PreStart) => has_pre_start && !instance.is_prepared,
            Some(Hook::PreStop | Hook::PostStop) => false,
            None => instance.is_prepared || !instance.needs_pre_start || !has_pre_start,
        };
        rule!(is_right, "{id:?}: {hook:?} is not what comes next: {instance:?}");
        rule!(instance.side_run.is_none(), "{id:?} is spawned beside a hook: {instance:?}");
        if instance.has_given_up {
            (instance.lingering, instance.has_given_up) = (None, false);
        }
        // A main process that is never created leaves the `post_stop` of its `pre_start`.
        instance.owes_post_stop &= hook.is_none() && instance.is_prepared;
        (instance.hook, instance.pre_stop) = (hook, None);
        Ok(())
    }

    /// `pre_stop` runs before the stop signal, `post_stop` after each run; never twice at once.
    pub(super) fn check_side_run(
        &mut self,
        id: InstanceId,
        run: RunId,
        hook: Hook,
        ended: Option<ExitStatus>,
    ) -> Verdict {
        let (now, forced) = (self.now, self.shutdown.is_forced());
        let instance = self.model.get_mut(id);
        rule!(!forced, "{id:?} gets a {hook:?} although the shutdown is forced");
        rule!(instance.side_run.is_none(), "{id:?} has a hook already: {instance:?}");
        rule!(instance.state == StateName::Stopping, "{id:?} has a {hook:?} while {:?}", instance.state);
        rule!(instance.definition.hooks.find(hook).is_some(), "{id:?} has no {hook:?}");
        if hook == Hook::PreStop {
            if instance.delayed_until.is_some_and(|until| until <= now) {
                instance.on_stop_signal(now);
                instance.pre_stop = Some(PreStop::Due);
            }
            rule!(instance.main.is_some() && instance.hook.is_none(), "{id:?} is stopped, but does not run");
            rule!(instance.pre_stop == Some(PreStop::Due), "{id:?} has a pre_stop without a reason: {instance:?}");
            instance.pre_stop = Some(PreStop::Running);
        } else {
            rule!(
                instance.main.is_none() && instance.lingering.is_none() || instance.has_given_up,
                "{id:?} has not ended"
            );
            rule!(instance.owes_post_stop, "{id:?} has a post_stop without a run before");
            let expected =
                instance.last_exit.map(|exit| exit.status).filter(|_| instance.hook.is_none() && !instance.is_prepared);
            rule!(ended == expected, "{id:?}: post_stop is told {ended:?}, not {expected:?}");
            instance.owes_post_stop = false;
        }
        instance.side_run = Some(SideRun { run, hook, since: now, has_exited: false, is_killed: false });
        Ok(())
    }

    /// An event about a side run. Returns whether it was one.
    pub(super) fn apply_to_side_run(&mut self, event: &Event) -> bool {
        let (run, exit, is_gone) = match event {
            Event::Spawned { run, .. } | Event::Executed { run } | Event::ExecFailed { run, .. } => (*run, None, false),
            Event::SpawnFailed { run, .. } | Event::BindFailed { run, .. } => (*run, Some(ExitStatus::Code(1)), true),
            Event::Exited { run, exit, leftovers } => (*run, Some(exit.status), *leftovers == Leftovers::None),
            Event::LeftoversGone { run } => (*run, None, true),
            _ => return false,
        };
        if self.model.forgotten_hooks.contains(&run) {
            return true;
        }
        let Some(id) = self.model.with_side_run(run) else { return false };
        let instance = self.model.get_mut(id);
        let Some(side_run) = &mut instance.side_run else { return false };
        if let Some(status) = exit {
            if side_run.hook == Hook::PreStop {
                instance.pre_stop = Some(PreStop::Done);
            }
            side_run.has_exited = true;
            let has_failed = status != ExitStatus::Code(0) && !side_run.is_killed;
            self.model.failed_hook = has_failed.then_some(id);
        }
        let instance = self.model.get_mut(id);
        instance.side_run.take_if(|_| is_gone);
        if let Event::Exited { .. } = event {
            self.expected_actions = vec![Action::ReleaseRun { run, instance: id }];
        }
        true
    }

    /// Side runs are only killed: at their timeouts, when the main process has exited, and what they leave behind.
    pub(super) fn check_signal_to_side_run(&mut self, id: InstanceId, scope: Scope, signal: Signal) -> Verdict {
        let now = self.now;
        let instance = self.model.get_mut(id);
        let is_late = instance.kill_at.is_some_and(|at| at <= now);
        let timeout = instance.definition.hooks.timeout;
        let has_ended = instance.main.is_none();
        let Some(side_run) = &mut instance.side_run else { return Ok(()) };
        let expected = if side_run.has_exited { Scope::Leftovers } else { Scope::Group };
        rule!((scope, signal) == (expected, Signal::KILL), "{signal} to {scope:?} of a hook of {id:?}: {side_run:?}");
        let is_over = match side_run.hook {
            Hook::PreStop => has_ended || is_late,
            Hook::PreStart | Hook::PostStop => now >= side_run.since + timeout,
        };
        rule!(is_over || side_run.has_exited, "a hook of {id:?} is killed before its time: {side_run:?}");
        side_run.is_killed = true;
        Ok(())
    }

    pub(super) fn check_hook_failure(&mut self, id: InstanceId, run: &RunResult) -> Verdict {
        let now = self.now;
        let is_reported = self.model.failed_hook.take_if(|failed| *failed == id).is_some();
        let instance = self.model.get_mut(id);
        let is_late = matches!(run.fault, Some(Fault::HookTimeout(..)))
            && match run.hook {
                Some(Hook::PreStop) => instance.kill_at.is_some_and(|at| at <= now),
                Some(Hook::PostStop) => true,
                Some(Hook::PreStart) | None => false,
            };
        rule!(is_reported || is_late, "{id:?}: no hook has failed: {run:?}");
        if let Some(side_run) = &mut instance.side_run {
            // The signal is not sent if it exits first.
            side_run.is_killed |= is_late;
        }
        if run.hook == Some(Hook::PostStop) {
            // It may never have been created.
            instance.owes_post_stop = false;
        }
        Ok(())
    }

    /// Whether the stop of a process that runs begins with its `pre_stop`.
    pub(super) fn begins_with_pre_stop(&self, id: InstanceId, from: StateName, reason: &Reason) -> bool {
        let instance = self.model.get(id);
        let is_ordered = !matches!(reason, Reason::Fault(fault, _) if *fault != Fault::Unhealthy);
        from == StateName::Running
            && is_ordered
            && !self.shutdown.is_forced()
            && !instance.definition.stop.timeout.is_zero()
            && instance.definition.hooks.find(Hook::PreStop).is_some()
    }

    /// Hooks that have been waited for in vain are forgotten.
    pub(super) fn forget_hooks(&mut self) {
        let ids: Vec<_> = self.model.all().chain(self.model.surges()).map(|(id, _)| id).collect();
        ids.into_iter().for_each(|id| self.model.forget_hook(id));
    }

    pub(super) fn check_hooks_before_wait(&self) -> Verdict {
        for (id, instance) in self.model.all().chain(self.model.surges()) {
            let is_forced = self.shutdown.is_forced();
            let waits =
                !is_forced && instance.main.is_some() && instance.state == StateName::Stopping && instance.kills == 0;
            let is_ongoing = instance.pre_stop.is_none_or(|stage| stage == PreStop::Running);
            rule!(!waits || is_ongoing, "{id:?} waits for a pre_stop that is not running: {instance:?}");
        }
        Ok(())
    }
}

impl Model {
    pub(super) fn with_side_run(&self, run: RunId) -> Option<InstanceId> {
        let is_its = |instance: &Instance| instance.side_run.as_ref().is_some_and(|side_run| side_run.run == run);
        self.all().chain(self.surges()).find(|(_, instance)| is_its(instance)).map(|(id, _)| id)
    }

    pub(super) fn on_unkillable(&mut self, id: InstanceId, now: Mono) -> Verdict {
        if self.get(id).main.is_none() {
            self.forget_hook(id);
        }
        self.get_mut(id).on_unkillable(id, now)
    }

    /// A start needs the `pre_start` that is configured when it begins.
    pub(super) fn note_start(&mut self, id: InstanceId, to: StateName, reason: &Reason) {
        if to == StateName::Starting && *reason != Reason::ReloadingReported {
            let needs_pre_start = self.plan.services[id.service.position()].hooks.find(Hook::PreStart).is_some();
            let instance = self.get_mut(id);
            (instance.needs_pre_start, instance.is_prepared) = (needs_pre_start, false);
        }
    }

    pub(super) fn forget_hook(&mut self, id: InstanceId) {
        let forgotten = self.get_mut(id).side_run.take().map(|side_run| side_run.run);
        self.forgotten_hooks.extend(forgotten);
    }
}

impl Instance {
    /// Whether this exit is that of a `pre_start` that has succeeded, and that nothing has stopped.
    pub(super) fn has_succeeded_to_prepare(&self, exit: Exit) -> bool {
        self.hook.is_some()
            && self.failure.is_none()
            && exit.status == ExitStatus::Code(0)
            && self.state == StateName::Starting
    }

    #[expect(clippy::fn_params_excessive_bools, reason = "whether the rule applies")]
    pub(super) fn check_hooks_are_over(&self, id: InstanceId, is_exempt: bool) -> Verdict {
        rule!(self.side_run.is_none(), "{id:?} leaves `stopping` before its hook has ended");
        let owes = self.owes_post_stop && self.definition.hooks.find(Hook::PostStop).is_some();
        rule!(!owes || is_exempt, "{id:?} has not run its post_stop: {self:?}");
        Ok(())
    }

    /// When its `post_stop` is killed.
    pub(super) fn post_stop_until(&self) -> Option<Mono> {
        let side_run = self.side_run.as_ref().filter(|it| it.hook == Hook::PostStop && !it.is_killed)?;
        Some(side_run.since + self.definition.hooks.timeout)
    }

    /// The main process follows when the leftovers are gone.
    pub(super) fn on_prepared(&mut self, lingering: Option<RunId>, now: Mono) {
        (self.is_prepared, self.owes_post_stop) = (true, true);
        (self.main, self.ready_by) = (None, None);
        (self.lingering, self.lingering_since, self.has_given_up) = (lingering, now, false);
    }
}

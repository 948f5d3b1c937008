//! Performs actions of the supervisor and records them as the lines that scenarios expect.

use std::rc::Rc;

use keepalive::model::plan::Hook;
use keepalive::model::{InstanceId, Pid, RunId, StartFailure, StartStep};
use keepalive::supervisor::{Action, Event, JournalEvent, Scope};
use nix::errno::Errno;

use super::{Setup, Spawns, lower, lower_cause};

impl Setup {
    pub(super) fn perform(&mut self, action: &Action) {
        match action {
            Action::Spawn { run, instance, hook, ended, restarts, instances: _, definition: _ } => {
                self.lines.push(match hook {
                    Some(hook) => {
                        let after = ended.map_or_else(String::new, |status| format!(" after {status}"));
                        format!("spawn {}/{}{after}", self.name(*instance), hook.as_str())
                    }
                    None => format!("spawn {} ({restarts} restarts)", self.name(*instance)),
                });
                assert!(*run > self.last_run, "run {run} is not newer than run {}", self.last_run);
                self.last_run = *run;
                self.spawn(*run, *instance, *hook);
            }
            Action::Signal { run, scope, signal } => {
                let owner = if *scope == Scope::Leftovers { self.former_owner(*run) } else { self.owner(*run) };
                self.lines.push(format!("kill {owner} {} {signal}", lower(scope)));
            }
            Action::SignalAll { signal } => {
                self.lines.push(format!("kill all {signal}"));
                if self.is_childless() {
                    self.supervisor.handle(self.now, Event::NoChildren);
                }
            }
            Action::WriteJournal(record) => self.push_journal_event(&record.event),
            Action::Reply { id, result: Ok(()) } => self.lines.push(format!("reply {} done", id.0)),
            Action::Reply { id, result: Err(refusal) } => {
                let word = format!("{refusal:?}");
                self.lines.push(format!("reply {} {}", id.0, word.split('(').next().unwrap_or_default()));
            }
            // The request is recorded already.
            Action::LoadConfig { id: Some(_) } => {}
            Action::LoadConfig { id: None } => self.lines.push("configure".into()),
            Action::WithdrawConfigLoad { id } => self.lines.push(format!("withdraw configuration for {}", id.0)),
            // These are recorded separately, because they accompany transitions.
            Action::CancelConfigLoad => self.releases.push("configuration".into()),
            Action::ReleaseInstance { instance } => {
                self.releases.push(format!("release {}", self.name(*instance)));
            }
            Action::RemoveInstance { instance } => self.releases.push(format!("remove {}", self.name(*instance))),
            Action::ReleaseService { service } => {
                self.releases.push(format!("release {}", self.plan.services[service.position()].name));
            }
            Action::PreferSockets { instance } => {
                self.releases.push(format!("prefer sockets of {}", self.name(*instance)));
            }
            Action::ApplyConfig(plan) => {
                self.plan = Rc::clone(plan);
                self.lines.push("adopt".into());
            }
            Action::AnnounceStop { run } => self.lines.push(format!("announce the stop of {}", self.owner(*run))),
            Action::StartProbe { run } => self.lines.push(format!("probe {}", self.owner(*run))),
            Action::AbortProbe { run } => self.lines.push(format!("give up the probe of {}", self.owner(*run))),
            Action::StartCheck { run, .. } => self.lines.push(format!("check {}", self.owner(*run))),
            Action::MeasureMemory => self.lines.push("measure memory".into()),
            Action::AbortCheck { run } => self.lines.push(format!("abort the check of {}", self.owner(*run))),
            Action::ReleaseRun { run, instance } => {
                assert!(self.unreleased.remove(run), "run {run} of {instance:?} is released without an exit before");
                if self.shows_releases {
                    self.lines.push(format!("release {}", self.name(*instance)));
                }
            }
            Action::Exit(outcome) => {
                self.is_over = true;
                self.lines.push(format!("exit {}", outcome.code));
            }
        }
    }

    fn spawn(&mut self, run: RunId, instance: InstanceId, hook: Option<Hook>) {
        if let Spawns::Refused(errno) = self.spawns {
            return self.supervisor.handle(self.now, Event::SpawnFailed { run, errno });
        }
        if self.spawns == Spawns::BindFailing {
            let failure = StartFailure { step: StartStep::Listen(0), errno: Errno::EADDRINUSE };
            return self.supervisor.handle(self.now, Event::BindFailed { run, failure });
        }
        self.last_pid += 1;
        let pid = Pid::new(self.last_pid).unwrap();
        let runs = if let Some(Hook::PreStop | Hook::PostStop) = hook { &mut self.side_runs } else { &mut self.runs };
        assert_eq!(runs.insert(instance, run), None, "the instance has two processes");
        self.supervisor.handle(self.now, Event::Spawned { run, pid });
        match self.spawns {
            Spawns::Executed => self.supervisor.handle(self.now, Event::Executed { run }),
            Spawns::Failing(failure) => self.supervisor.handle(self.now, Event::ExecFailed { run, failure }),
            Spawns::Pending | Spawns::Refused(_) | Spawns::BindFailing => {}
        }
    }

    fn push_journal_event(&mut self, event: &JournalEvent) {
        let line = match event {
            JournalEvent::Transition { instance, from, to, .. } => {
                format!("{} {} → {}", self.name(*instance), from.as_str(), to.as_str())
            }
            JournalEvent::ShutdownStarted { cause } => format!("draining: {}", lower_cause(cause)),
            JournalEvent::ShutdownForced { .. } => "forced".into(),
            JournalEvent::LeftoverProcessesFound { instance, .. } => {
                format!("{} leaves processes", self.name(*instance))
            }
            JournalEvent::HookFailed { instance, run, .. } => {
                format!("{}/{} fails", self.name(*instance), run.hook.map_or("", Hook::as_str))
            }
            JournalEvent::Unhealthy { instance, .. } => format!("{} is unhealthy", self.name(*instance)),
            JournalEvent::Healthy { instance } => format!("{} is healthy", self.name(*instance)),
            JournalEvent::Unkillable { instance, .. } => format!("{} cannot be killed", self.name(*instance)),
            JournalEvent::StopTimedOut { instance, .. } => format!("{} ignores its stop", self.name(*instance)),
            JournalEvent::ServiceFailed { service } => {
                format!("{} failed", self.plan.services[service.position()].name)
            }
            JournalEvent::DependencyAwaited { service, dependency, .. } => {
                let [service, dependency] =
                    [service, dependency].map(|service| &self.plan.services[service.position()].name);
                format!("{service} waits for {dependency}")
            }
            JournalEvent::RunSkipped { service, .. } => {
                format!("{} skipped", self.plan.services[service.position()].name)
            }
            JournalEvent::Scaled { service, from, to } => {
                format!("{} scaled {from} → {to}", self.plan.services[service.position()].name)
            }
            JournalEvent::ReloadStarted { service, .. } => {
                format!("{} reloads", self.plan.services[service.position()].name)
            }
            JournalEvent::ReloadFinished { service, failure } => {
                self.rollout_error = failure.as_ref().map(|failure| failure.error.clone());
                let result = if failure.is_none() { "reloaded" } else { "not reloaded" };
                format!("{} {result}", self.plan.services[service.position()].name)
            }
            JournalEvent::ReloadRolledBack { service, .. } => {
                format!("{} rolled back", self.plan.services[service.position()].name)
            }
            JournalEvent::InstanceReplaced { instance, .. } => {
                for runs in [&mut self.runs, &mut self.side_runs] {
                    let (old, new) = (runs.remove(instance), runs.remove(&instance.surge()));
                    runs.extend(new.map(|run| (*instance, run)));
                    runs.extend(old.map(|run| (instance.surge(), run)));
                }
                format!("{} replaced", self.name(*instance))
            }
            JournalEvent::ConfigReloadFailed { reason } => format!("configuration not loaded: {reason}"),
            JournalEvent::ConfigReloaded(changes) => {
                let counts = format!(
                    "configured: {} new, {} removed, {} reloaded, {} adjusted, {} unchanged",
                    changes.added, changes.removed, changes.reloaded, changes.adjusted, changes.unchanged
                );
                let names = changes.not_running.iter().map(|service| &*self.plan.services[service.position()].name);
                let names: Vec<_> = names.collect();
                if names.is_empty() { counts } else { format!("{counts}; not running: {}", names.join(", ")) }
            }
            JournalEvent::ConfigReloadDeferred { .. } => "configuration deferred".into(),
            JournalEvent::SignalForwarded { signal, receivers } => format!("{signal} forwarded to {receivers}"),
            JournalEvent::SignalIgnored { .. }
            | JournalEvent::ConfigReloadRequested { .. }
            | JournalEvent::LeftoverProcessesKilled
            | JournalEvent::ProcessesAbandoned => lower(event),
        };
        self.lines.push(line);
    }
}

//! The rules for starts, releases and cancellations.

use keepalive::model::InstanceId;
use keepalive::model::plan::Hook;
use keepalive::supervisor::{Action, Event, StateName};

use super::{Checker, Verdict, rule};

impl Checker {
    pub(super) fn check_lifetime(&mut self, action: &Action) -> Verdict {
        match action {
            Action::LoadConfig { .. } => {
                rule!(!self.shutdown.has_begun(), "the configuration is loaded during the shutdown")
            }
            Action::WithdrawConfigLoad { id } => {
                rule!(self.event == Some(Event::Withdrawn(*id)), "{id:?} has not been withdrawn");
            }
            Action::CancelConfigLoad => self.shutdown.check_config_load_cancelled()?,
            Action::ReleaseInstance { instance } => self.may_be_released(*instance)?,
            Action::RemoveInstance { instance } => {
                self.may_be_released(*instance)?;
                let is_wanted = instance.number < self.model.desired(instance.service);
                rule!(!is_wanted, "{instance:?} is removed, but desired");
            }
            Action::ReleaseService { service } => {
                rule!(self.model.desired(*service) == 0, "{service:?} is released, but configured");
            }
            Action::PreferSockets { instance } => {
                let state = self.model.get(*instance).state;
                rule!(state == StateName::Running, "sockets of {instance:?} are preferred, but it is {state:?}");
            }
            Action::Spawn { .. }
            | Action::ApplyConfig(_)
            | Action::AnnounceStop { .. }
            | Action::StartProbe { .. }
            | Action::AbortProbe { .. }
            | Action::StartCheck { .. }
            | Action::AbortCheck { .. }
            | Action::MeasureMemory
            | Action::ReleaseRun { .. }
            | Action::Signal { .. }
            | Action::SignalAll { .. }
            | Action::WriteJournal(_)
            | Action::Reply { .. }
            | Action::Exit(_) => {}
        }
        Ok(())
    }

    pub(super) fn check_spawn(&mut self, id: InstanceId, restarts: u32, hook: Option<Hook>) -> Verdict {
        self.check_hook(id, hook)?;
        let instance = self.model.get(id);
        rule!(instance.main.is_none(), "{id:?} has a process already");
        rule!(instance.lingering.is_none(), "{id:?} is spawned before its leftovers are gone");
        rule!(instance.state == StateName::Starting, "{id:?} is spawned while {:?}", instance.state);
        rule!(restarts == instance.runs, "{id:?}: restarts is {restarts}, but it has had {} runs", instance.runs);
        rule!(self.shutdown.may_spawn(), "{id:?} is spawned during the shutdown");
        Ok(())
    }

    /// Resources that several runs share are in use until the instance is inactive.
    fn may_be_released(&self, id: InstanceId) -> Verdict {
        rule!(!id.is_surge(), "{id:?} has no resources of its own");
        let is_at_rest = self.model.find(id).is_none_or(|instance| instance.state.is_inactive());
        rule!(is_at_rest, "{id:?} is released while {:?}", self.model.get(id).state);
        Ok(())
    }
}

//! When something may be released or called off.

use keepalive::model::InstanceId;
use keepalive::supervisor::{Action, Event, StateName};

use super::{Checker, Verdict, rule};

impl Checker {
    pub(super) fn sees_lifetime(&mut self, action: &Action) -> Verdict {
        match action {
            Action::LoadConfig { .. } => rule!(!self.end.begun(), "the configuration is loaded during the drain"),
            Action::WithdrawConfigLoad { id } => {
                rule!(self.event == Some(Event::Withdrawn(*id)), "nobody has withdrawn {id:?}");
            }
            Action::CancelConfigLoad => self.end.sees_config_load_cancelled()?,
            Action::ReleaseInstance { instance } => self.may_be_released(*instance)?,
            Action::RemoveInstance { instance } => {
                self.may_be_released(*instance)?;
                let is_wanted = instance.number < self.model.wanted(instance.service);
                rule!(!is_wanted, "{instance:?} is removed, and there is to be one");
            }
            Action::ReleaseService { service } => {
                rule!(self.model.wanted(*service) == 0, "{service:?} is released, and it is in the configuration");
            }
            Action::PreferSockets { instance } => {
                let state = self.model.get(*instance).state;
                rule!(state == StateName::Running, "{instance:?} is {state:?}, and gets all connections");
            }
            Action::Spawn { .. }
            | Action::ApplyConfig(_)
            | Action::AnnounceStop { .. }
            | Action::StartProbe { .. }
            | Action::AbortProbe { .. }
            | Action::ReleaseRun { .. }
            | Action::Signal { .. }
            | Action::SignalAll { .. }
            | Action::WriteJournal(_)
            | Action::Reply { .. }
            | Action::Exit(_) => {}
        }
        Ok(())
    }

    /// What is kept from one run to the next is used until the instance rests.
    fn may_be_released(&self, id: InstanceId) -> Verdict {
        rule!(!id.is_surge(), "what {id:?} has is its instance's");
        let is_at_rest = self.model.find(id).is_none_or(|instance| instance.state.is_inactive());
        rule!(is_at_rest, "{id:?} is released while {:?}", self.model.get(id).state);
        Ok(())
    }
}

//! The view of an instance shows what the journal says of it.

use keepalive::supervisor::StateName;

use super::model;
use super::{Checker, ShownInstance, Verdict, rule};

impl Checker {
    pub(super) fn check_instance(&mut self, instance: &ShownInstance) -> Verdict {
        self.model.get_mut(instance.id).forget_failures(instance.unstable);
        let model = self.model.get(instance.id);
        let id = instance.id;
        rule!(model.expected.is_none(), "{id:?}: {:?} has not followed", model.expected);
        rule!(
            instance.state == model.state,
            "{id:?} is {:?}, but {:?} according to the journal",
            instance.state,
            model.state
        );
        rule!(instance.pid == model.pid, "{id:?} is shown with pid {:?}, its process is {:?}", instance.pid, model.pid);
        let is_ready = model.state == StateName::Running && !model.is_not_ready();
        rule!(instance.is_ready == is_ready, "{id:?} is shown with ready = {}", instance.is_ready);
        let run = model.main.or(model.lingering.filter(|_| model.state == StateName::Stopping));
        rule!(run.is_none() || instance.run == run, "{id:?} is shown with run {:?}, its run is {run:?}", instance.run);
        let may_run = model::is_live(model.state);
        rule!(may_run || instance.run.is_none(), "{id:?} is {:?} and has the run {:?}", model.state, instance.run);
        // A surplus instance has no next run for which they count.
        let is_surplus = !id.is_surge() && id.number >= self.model.desired(id.service);
        rule!(
            instance.unstable == model.unstable || is_surplus,
            "{id:?}: {} unstable runs, not {}",
            instance.unstable,
            model.unstable
        );
        Ok(())
    }
}

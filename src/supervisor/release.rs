//! When what the runtime keeps is released: an instance rests, there is to be none of its name any more, a service is gone.

use super::core::Supervisor;
use super::event::Action;
use super::state_name::StateName;
use crate::model::{InstanceId, ServiceIndex};

impl Supervisor {
    /// What an instance keeps from one run to the next goes when there is to be no next one.
    pub(super) fn release_if_at_rest(&mut self, id: InstanceId) {
        if self.state_name(id).is_at_rest() && !id.is_surge() {
            self.act(Action::ReleaseInstance { instance: id });
        }
    }

    /// Lets go of surges and surplus instances that have come to rest, and of what is kept for them.
    pub(super) fn drop_stopped(&mut self, service: ServiceIndex) {
        let has_dropped_surges = self.services.drop_surges(service);
        let removed = self.services.drop_surplus(service);
        let is_last = (has_dropped_surges || !removed.is_empty()) && self.services[service].is_gone();
        for instance in removed {
            self.act(Action::RemoveInstance { instance });
        }
        if is_last {
            self.act(Action::ReleaseService { service });
        }
    }

    /// Connections go to the sockets of those who are ready.
    pub(super) fn prefer_sockets_if_running(&mut self, id: InstanceId) {
        let has_sockets = !self.services[id].definition.process.listen.is_empty();
        if has_sockets && self.state_name(id) == StateName::Running {
            self.act(Action::PreferSockets { instance: id });
        }
    }
}

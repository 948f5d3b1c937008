//! When resources are released: an instance has stopped, an instance has been removed, a service has been removed.

use super::core::Supervisor;
use super::event::Action;
use super::state_name::StateName;
use crate::model::{InstanceId, ServiceIndex};

impl Supervisor {
    /// Releases what an instance keeps between runs, when it has stopped.
    ///
    /// A surge instance has the resources of its instance, which may wait for its end.
    pub(super) fn release_if_inactive(&mut self, id: InstanceId) {
        match self.state_name(id).is_inactive() {
            true if id.is_surge() => self.on_old_process_gone(id.slot()),
            true => self.act(Action::ReleaseInstance { instance: id }),
            false => {}
        }
    }

    /// Removes surge instances and surplus instances that have stopped, and releases their resources.
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

    /// Directs connections to the sockets of an instance that is ready.
    pub(super) fn prefer_sockets_if_running(&mut self, id: InstanceId) {
        let has_sockets = !self.services[id].definition.process.listen.is_empty();
        if has_sockets && self.state_name(id) == StateName::Running {
            self.act(Action::PreferSockets { instance: id });
        }
    }
}

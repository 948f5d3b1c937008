//! When resources are released: an instance has stopped, an instance has been removed, a service has been removed.

use super::core::Supervisor;
use super::event::Action;
use super::record::Reason;
use super::state::{AfterRun, CleaningUp, State};
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

    /// The process that it has replaced is gone, and with it what has made new ones fail, such as a port in use.
    fn on_old_process_gone(&mut self, id: InstanceId) {
        if self.services.find(id).is_none_or(|instance| instance.ends_beside_old == 0) {
            return;
        }
        self.services[id].ends_beside_old = 0;
        self.services[id].reset_failures();
        let state = self.services[id].state;
        if let State::BackingOff { .. } = state {
            self.start(id, Reason::BackoffElapsed);
        } else if let State::CleaningUp(cleaning_up @ CleaningUp { next: AfterRun::Restart { .. }, .. }) = state {
            // It starts as soon as its leftover processes are gone.
            let next = AfterRun::Restart { due: self.now };
            self.set_state(id, State::CleaningUp(CleaningUp { next, ..cleaning_up }));
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

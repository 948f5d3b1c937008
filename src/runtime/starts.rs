//! A start: everything that the process is to have is brought together, and then it is made.

use std::rc::Rc;

use super::Runtime;
use super::gear::Gear;
use crate::model::plan::Service;
use crate::model::{InstanceId, Pid, StartFailure, StartStep};
use crate::supervisor::Event;
use crate::sys::Progress;

impl Runtime {
    /// The process, or what to tell if there is none.
    pub(super) fn make(
        &mut self,
        instance: InstanceId,
        restarts: u32,
        definition: &Rc<Service>,
    ) -> Result<(Pid, Progress), Event> {
        let out_of = |errno| Event::SpawnRefused { instance, errno };
        let refused = |failure: StartFailure| match failure.is_shortage() {
            true => out_of(failure.errno),
            false => Event::Unbound { instance, failure },
        };
        let sockets = self.sockets.for_instance(instance, definition).map_err(refused)?;
        let state = self.states.for_instance(instance, definition);
        let state = state.map_err(|errno| refused(StartFailure { step: StartStep::State, errno }))?;
        let notify = definition.notifies().then(|| self.notify.address(&self.poller)).transpose().map_err(out_of)?;
        let gear = Gear { sockets: &sockets, stored: self.store.of(instance), state, notify, ..Gear::default() };
        self.children.spawn(instance, restarts, definition, &gear, &mut self.logging).map_err(out_of)
    }
}

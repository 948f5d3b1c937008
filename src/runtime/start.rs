//! How a process comes to be: what it is given, whether it gets to run its program.

use std::os::fd::AsFd as _;
use std::rc::Rc;

use super::Runtime;
use super::child_pipes::ChildPipes;
use super::inherited_fds::InheritedFds;
use super::state::Company;
use super::token::Token;
use crate::model::plan::Service;
use crate::model::{InstanceId, Pid, StartFailure, StartStep};
use crate::supervisor::Event;
use crate::sys::{self, ExecResult};

impl Runtime {
    pub(super) fn spawn(&mut self, instance: InstanceId, restarts: u32, definition: &Rc<Service>) {
        let made = self.make(instance, restarts, definition);
        self.now = sys::now();
        let (pid, progress) = match made {
            Ok(made) => made,
            Err(refused) => return self.tell(refused),
        };
        self.tell(Event::Spawned { instance, pid });
        self.notify.on_started(instance);
        self.children.successions_mut().on_started(pid);
        // That it could be given out again says that nothing is left of whom the number was before.
        if let Some(position) = self.uncleared.iter().position(|leader| *leader == pid) {
            self.uncleared.swap_remove(position);
            self.children.successions_mut().forget(pid);
            self.tell(Event::Cleared { pid });
        }
        self.on_progress(pid, progress);
    }

    /// The process, or what to tell if there is none.
    fn make(
        &mut self,
        instance: InstanceId,
        restarts: u32,
        definition: &Rc<Service>,
    ) -> Result<(Pid, ExecResult), Event> {
        let out_of = |errno| Event::SpawnRefused { instance, errno };
        let refused = |failure: StartFailure| match failure.is_shortage() {
            true => out_of(failure.errno),
            false => Event::Unbound { instance, failure },
        };
        let company = self.company_of(instance);
        let sockets = self.sockets.for_instance(instance, definition).map_err(refused)?;
        let state = self.states.for_instance(instance, definition, company);
        let state = state.map_err(|errno| refused(StartFailure { step: StartStep::State, errno }))?;
        let child_pipes = ChildPipes::new(definition).map_err(out_of)?;
        let notify =
            definition.uses_notify_socket().then(|| self.notify.address(&self.poller)).transpose().map_err(out_of)?;
        let inherited_fds = InheritedFds {
            sockets: &sockets,
            stored: self.store.of(instance),
            state: state.as_ref().map(|memory| memory.as_fd()),
            notify,
            ..child_pipes.inherited_fds()
        };
        let made =
            self.children.spawn(instance, restarts, definition, &inherited_fds, &mut self.logging).map_err(out_of)?;
        self.keep(child_pipes, made.0);
        Ok(made)
    }

    /// Of those who have been reaped and left processes behind, whose they were is not kept: they may be this one's.
    fn company_of(&self, instance: InstanceId) -> Company {
        let mut others = self.children.living().filter(|(other, _)| other.slot() == instance.slot());
        if self.uncleared.is_empty() && others.next().is_none() { Company::Nobody } else { Company::Others }
    }

    fn on_progress(&mut self, pid: Pid, progress: ExecResult) {
        match progress {
            ExecResult::Executed => self.executed(pid),
            ExecResult::Failed(failure) => self.tell(Event::ExecFailed { pid, failure }),
            ExecResult::Pending(pipe) => {
                match self.poller.add(pipe.as_fd(), Token::ExecResult(pid)) {
                    Ok(()) => drop(self.pending_execs.insert(pid, pipe)),
                    // Out of watches: nobody will tell whether the program runs. Assume it; if not, it will end.
                    Err(_) => self.executed(pid),
                }
            }
        }
    }

    fn executed(&mut self, pid: Pid) {
        if let Some(child) = self.children.get(pid) {
            self.journal.on_executed(child.instance, self.now);
            self.probes.on_executed(pid, child, self.now);
        }
        self.tell(Event::Executed { pid });
    }

    pub(super) fn poll_exec_result(&mut self, pid: Pid) {
        let Some(pipe) = self.pending_execs.get(&pid) else { return };
        if let Some(progress) = sys::spawn::poll_exec_result(pipe.as_fd()) {
            self.forget_start(pid);
            self.on_progress(pid, progress);
        }
    }

    pub(super) fn forget_start(&mut self, pid: Pid) {
        if let Some(pipe) = self.pending_execs.remove(&pid) {
            // Closing it would do as well, were there no child that has it still open.
            self.poller.remove(pipe.as_fd()).ok();
        }
    }
}

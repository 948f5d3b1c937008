//! Another configuration: it is read, told to the supervisor if it is right, and taken on when the supervisor says so.

use std::rc::Rc;

use super::Runtime;
use super::events::What;
use crate::config::{Loaded, Report};
use crate::model::{Plan, ServiceIndex};
use crate::supervisor::{Event, RequestId};

/// Reads the configuration again, from where it was read first; a text: why there is none to be read.
pub type Reread = Box<dyn Fn() -> Result<Result<Loaded, Report>, String>>;

impl Runtime {
    /// The files are read here and now: what they are on held nobody up when keepalive was started.
    pub(super) fn configure(&mut self, id: Option<RequestId>) {
        let reason = match (self.reread)() {
            Ok(Ok(Loaded { plan, warnings })) => {
                for warning in warnings {
                    log::warn!("{warning}");
                }
                let plan = Rc::new(self.plan.merged(plan));
                return self.tell(Event::Configured { id, plan });
            }
            Ok(Err(report)) => report.to_string(),
            Err(reason) => reason,
        };
        log::error!("the configuration stays as it is");
        for line in reason.lines().filter(|line| !line.is_empty()) {
            log::error!("{line}");
        }
        self.counts.failed_configurations += 1;
        if let Some(id) = id {
            self.refuse(id, &format!("the configuration stays as it is\n{}", reason.trim_end()));
        }
        self.happens(What::Misconfigured { reason });
    }

    pub(super) fn adopt(&mut self, plan: &Rc<Plan>) {
        let before = std::mem::replace(&mut self.plan, Rc::clone(plan));
        self.logging.adopt(plan);
        self.sockets.adopt(plan);
        // All there are: what is forgotten twice is gone all the same.
        self.retired = plan
            .services
            .iter()
            .zip(0..)
            .filter(|(service, _)| service.instances == 0)
            .map(|(_, position)| ServiceIndex(position))
            .collect();
        self.release();
        let later = [
            ("control", before.control != plan.control),
            ("http", before.http != plan.http),
            ("log", before.log != plan.log),
        ];
        for (key, _) in later.into_iter().filter(|(_, has_changed)| *has_changed) {
            log::warn!("`{key}` of [keepalive] changes with the next start of keepalive");
        }
    }

    /// What nobody has any more goes: sockets that the configuration does not name, and what was kept for the instances of
    /// services that it does not name. When one of these returns it is a new one.
    pub(super) fn release(&mut self) {
        self.sockets.release(&self.plan, || self.children.living());
        let has_ended = |service: &mut ServiceIndex| self.children.living().all(|(id, _)| id.service != *service);
        for service in self.retired.extract_if(.., has_ended) {
            self.states.forget(service);
            self.channels.forget(service);
        }
    }
}

//! The rules for `watch`: each restart follows from a change of files, and each change is followed by a restart.

use keepalive::model::plan::Kind;
use keepalive::model::{Plan, ServiceIndex};
use keepalive::supervisor::StateName;

use super::instance::Instance;
use super::model::Model;
use super::{Verdict, rule};

/// The services whose files have changed.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// They have not been restarted since.
    pending: Vec<ServiceIndex>,
    /// They are being restarted because of the current event.
    restarting: Vec<ServiceIndex>,
}

impl Changes {
    pub(super) fn begin_event(&mut self) {
        self.restarting.clear();
    }

    pub(super) fn on_changed(&mut self, service: ServiceIndex, plan: &Plan) {
        if plan.services[service.position()].watch.is_some() && !self.pending.contains(&service) {
            self.pending.push(service);
        }
    }

    /// The service, or one of its instances, is restarted because of a change.
    pub(super) fn check_restart(&mut self, service: ServiceIndex) -> Verdict {
        if let Some(position) = self.pending.iter().position(|pending| *pending == service) {
            self.pending.swap_remove(position);
            self.restarting.push(service);
        }
        rule!(self.restarting.contains(&service), "{service:?} is restarted, but no file has changed");
        Ok(())
    }

    /// No service waits for a restart that could begin.
    pub(super) fn check_none_forgotten(&mut self, model: &Model, plan: &Plan) -> Verdict {
        // Surplus instances are being removed.
        let instances = |service: ServiceIndex| model.of(service).iter().take(model.desired(service) as usize);
        let must_wait = |service: &ServiceIndex| {
            let is_oneshot = plan.services[service.position()].kind == Kind::Oneshot;
            model.is_reloading(*service)
                || instances(*service).any(|one| {
                    let runs = matches!(one.state, StateName::Starting | StateName::Running);
                    one.state == StateName::Stopping || one.lingering.is_some() || (is_oneshot && runs)
                })
        };
        // What nobody wants to run is not restarted.
        let rests = |one: &Instance| one.blocked || matches!(one.state, StateName::Stopped | StateName::Waiting);
        self.pending.retain(|service| must_wait(service) || !instances(*service).all(rests));
        let forgotten = self.pending.iter().find(|service| !must_wait(service));
        rule!(forgotten.is_none(), "{forgotten:?} has not been restarted after a change");
        Ok(())
    }
}

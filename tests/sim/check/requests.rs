//! Who has to get which answer.

use std::collections::BTreeMap;

use keepalive::model::InstanceId;
use keepalive::supervisor::{Refusal, Request, RequestId, StateName, Target, Verb};

use super::model::{Model, is_active};
use super::shutdown::Stage;
use super::{Verdict, Violation, rule};

#[derive(Debug, Default)]
pub(crate) struct Requests {
    open: BTreeMap<RequestId, Request>,
    heard_while_draining: Option<RequestId>,
}

impl Requests {
    pub(crate) fn hears(&mut self, id: RequestId, request: Request, model: &mut Model, stage: Stage) -> Verdict {
        self.open.insert(id, request);
        if stage != Stage::Up {
            self.heard_while_draining = Some(id);
            return Ok(());
        }
        let Request::About(target, verb) = request else { return Ok(()) };
        for target in targets(target, model) {
            let instance = model.get_mut(target);
            match verb {
                Verb::Start | Verb::Restart => {
                    (instance.unstable, instance.refusals, instance.held) = (0, 0, false);
                    let again = verb == Verb::Restart && instance.main.is_some();
                    instance.wanted = again || instance.state == StateName::Stopping;
                    if instance.state == StateName::Stopping {
                        instance.due = None;
                    }
                }
                Verb::Stop => {
                    instance.held |= is_active(instance.state);
                    instance.wanted = false;
                }
                Verb::Signal(_) => {}
            }
        }
        Ok(())
    }

    pub(crate) fn sees_reply(
        &mut self,
        id: RequestId,
        result: Result<(), Refusal>,
        model: &Model,
        stage: Stage,
    ) -> Verdict {
        let Some(request) = self.open.remove(&id) else { return Err(Violation(format!("another reply to {id:?}"))) };
        if self.heard_while_draining.take_if(|heard| *heard == id).is_some() {
            rule!(result == Err(Refusal::ShuttingDown), "{result:?} during the drain");
            return Ok(());
        }
        let ends = |state| !is_active(state);
        let Request::About(target, verb) = request else {
            rule!(result == Ok(()), "the end is refused: {result:?}");
            return Ok(());
        };
        let targets = targets(target, model);
        match result {
            Ok(()) => {
                let mut states = targets.iter().map(|target| model.get(*target).state);
                let done = match verb {
                    Verb::Start | Verb::Restart => targets.iter().all(|target| model.is_up(*target)),
                    Verb::Stop => states.all(ends),
                    Verb::Signal(_) => targets.iter().any(|target| model.get(*target).main.is_some()),
                };
                rule!(done, "{request:?} is said to be done");
            }
            Err(Refusal::ShuttingDown) => rule!(stage != Stage::Up, "it is not shutting down"),
            Err(Refusal::NotRunning(instance)) => {
                let running = targets.iter().any(|target| model.get(*target).main.is_some());
                rule!(matches!(verb, Verb::Signal(_)) && !running, "{instance:?} does run");
            }
            Err(Refusal::Failed(instance)) => {
                rule!(model.get(instance).state == StateName::Failed, "{instance:?} has not failed");
            }
            Err(Refusal::Overtaken(instance)) => {
                let state = model.get(instance).state;
                let fits = match verb {
                    Verb::Start | Verb::Restart => matches!(state, StateName::Stopped | StateName::Stopping),
                    Verb::Stop => is_active(state),
                    Verb::Signal(_) => false,
                };
                rule!(fits, "{request:?} is not overtaken: {instance:?} is {state:?}");
            }
        }
        Ok(())
    }

    /// No answer is out that could be given.
    pub(crate) fn none_is_overdue(&self, model: &Model) -> Verdict {
        for (id, request) in &self.open {
            let Request::About(target, verb) = *request else {
                return Err(Violation(format!("{id:?} is not answered")));
            };
            let targets = targets(target, model);
            let mut states = targets.iter().map(|target| model.get(*target).state);
            let overdue = match verb {
                Verb::Start | Verb::Restart => {
                    let up = targets.iter().all(|target| model.is_up(*target));
                    up || states.any(|state| state == StateName::Failed)
                }
                Verb::Stop => states.all(|state| !is_active(state)),
                Verb::Signal(_) => true,
            };
            rule!(!overdue, "{id:?} could be answered: {request:?}");
        }
        Ok(())
    }

    pub(crate) fn all_are_answered(&self) -> Verdict {
        rule!(self.open.is_empty(), "no answer to {:?}", self.open);
        Ok(())
    }
}

fn targets(target: Target, model: &Model) -> Vec<InstanceId> {
    match target {
        Target::Instance(id) => vec![id],
        Target::Service(service) => {
            (0..model.of(service).len() as u32).map(|number| InstanceId { service, number }).collect()
        }
    }
}

//! Replacing a plan while keepalive runs, so that a [`ServiceIndex`] refers to the same service in both.

use std::rc::Rc;

use super::map::Map;
use super::plan::{Plan, Service};
use super::process::ServiceIndex;

impl Plan {
    /// `new` with each service at the position that it has in `self`, and new services after all others. A service that
    /// `new` no longer contains stays, as a removed one. An unchanged service stays the same object. `control`, `http` and `log` cannot change.
    #[must_use]
    pub fn merged(&self, new: Self) -> Self {
        merge(self, new)
    }
}

fn merge(old: &Plan, new: Plan) -> Plan {
    let mut positions: Map<&str, usize> = Map::new();
    let names = old.services.iter().chain(&new.services).map(|service| &*service.name);
    for name in names {
        let next = positions.len();
        if !positions.contains_key(name) {
            positions.insert(name, next);
        }
    }
    // The merged position of each service of the new plan, in the order of that plan.
    let targets: Vec<usize> =
        new.services.iter().filter_map(|service| positions.get(&*service.name).copied()).collect();
    let mut services: Vec<Rc<Service>> = old.services.iter().map(retired).collect();
    for (service, target) in new.services.iter().zip(&targets) {
        let depends_on = service.depends_on.iter().filter_map(|index| targets.get(index.position()));
        let depends_on = depends_on.map(|position| ServiceIndex(u32::try_from(*position).unwrap_or(u32::MAX)));
        let service = Service { depends_on: depends_on.collect(), ..Service::clone(service) };
        match (old.services.get(*target), services.get_mut(*target)) {
            (Some(known), Some(entry)) if **known == service => *entry = Rc::clone(known),
            (_, Some(entry)) => *entry = Rc::new(service),
            // New services come in the order of their positions, so each belongs at the end.
            (_, None) => services.push(Rc::new(service)),
        }
    }
    Plan { services, control: old.control.clone(), http: old.http.clone(), log: old.log, ..new }
}

/// The configuration no longer contains `service`. Its dependencies keep their positions.
fn retired(service: &Rc<Service>) -> Rc<Service> {
    Rc::new(Service { is_removed: true, instances: 0, autostart: false, ..Service::clone(service) })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::Template;
    use crate::model::plan::{Control, LogStyle, Process, SignalActions, TERMINATION_LOG};

    fn process(program: &str) -> Process {
        Process::new([Template::Fixed(std::ffi::CString::new(program).unwrap())].into())
    }

    /// A service whose program is `name`, too.
    fn service(name: &str, depends_on: &[u32]) -> Rc<Service> {
        let depends_on = depends_on.iter().copied().map(ServiceIndex).collect();
        Rc::new(Service { depends_on, ..Service::new(name, process(name)) })
    }

    fn plan(services: &[Rc<Service>]) -> Plan {
        Plan {
            shutdown_timeout: Duration::from_secs(9),
            signals: SignalActions::default(),
            termination_log: std::path::PathBuf::from(TERMINATION_LOG).into(),
            log: LogStyle::default(),
            control: Control::Default,
            http: None,
            services: services.to_vec(),
        }
    }

    #[test]
    fn services_keep_their_positions_and_dependencies_follow() {
        let old = plan(&[service("web", &[1, 2]), service("db", &[]), service("cache", &[1])]);
        // In another order, without `cache`, and with `mail` as a new service at the front.
        let new = plan(&[service("mail", &[2]), service("db", &[]), service("web", &[1, 0])]);
        let merged = old.merged(new);
        let mut cache = Service::clone(&service("cache", &[1]));
        (cache.is_removed, cache.instances, cache.autostart) = (true, 0, false);
        let expected = [service("web", &[1, 3]), service("db", &[]), Rc::new(cache), service("mail", &[0])];
        assert_eq!(merged.services, expected);
        assert_eq!(merged.instances(), 3);
    }

    #[test]
    fn an_unchanged_service_stays_the_same_object() {
        let old = plan(&[service("web", &[1]), service("db", &[])]);
        let mut db = Service::clone(&service("db", &[]));
        db.instances = 2;
        let merged = old.merged(plan(&[Rc::new(db), service("web", &[0])]));
        assert!(Rc::ptr_eq(&merged.services[0], &old.services[0]));
        assert!(!Rc::ptr_eq(&merged.services[1], &old.services[1]));
        assert_eq!(merged.services[1].instances, 2);
    }

    #[test]
    fn a_service_that_is_added_again_gets_its_old_position() {
        let old = plan(&[service("web", &[]), service("db", &[0])]);
        let without = old.merged(plan(&[service("db", &[])]));
        assert_eq!((without.services[0].is_removed, without.services[1].is_removed), (true, false));
        assert_eq!(without.merged(old.clone()), old);
    }

    #[test]
    fn settings_are_those_of_the_new_plan_if_they_can_change() {
        let old = plan(&[service("web", &[])]);
        let mut new = old.clone();
        new.shutdown_timeout = Duration::from_secs(60);
        new.control = Control::Off;
        new.log.timestamps = true;
        let merged = old.merged(new);
        assert_eq!(merged, Plan { shutdown_timeout: Duration::from_secs(60), ..old });
    }
}

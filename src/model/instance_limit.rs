//! How many instances a service can have.

use std::net::SocketAddr;

use super::plan::{Probe, Ready, Service, State};
use super::template::{Numbers, Template};

/// Why a service cannot have as many instances as requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooManyInstances {
    /// They would share one `state` file.
    SharedStateFile,
    /// The address of the readiness probe or of the health check is invalid for the last instance.
    InvalidProbeAddress,
}

impl Service {
    /// Why the service cannot have `count` instances; `None` if it can.
    #[must_use]
    pub fn too_many_instances(&self, count: u32) -> Option<TooManyInstances> {
        if let (Some(State { persist: Some(path), .. }), 2..) = (&self.process.state, count)
            && !path.differs_by_instance()
        {
            return Some(TooManyInstances::SharedStateFile);
        }
        // The last instance has the largest number, so if its address is valid, all are.
        let last = Numbers { instance: count.saturating_sub(1), instances: count };
        self.invalid_authority(last).map(|_| TooManyInstances::InvalidProbeAddress)
    }

    /// The key and the `address:port` of a probe that is invalid for the instance of `numbers`.
    #[must_use]
    pub fn invalid_authority(&self, numbers: Numbers) -> Option<(&'static str, &Template)> {
        let ready = if let Ready::Probe(probe) = &self.ready { Some(("ready", probe)) } else { None };
        let health = self.health.as_deref().map(|health| ("health", &health.probe));
        let mut authorities =
            [ready, health].into_iter().flatten().filter_map(|(key, probe)| Some((key, probe.authority()?)));
        authorities.find(|(_, authority)| address(authority, numbers).is_none())
    }
}

impl Probe {
    /// The `address:port` of a TCP or HTTP probe.
    #[must_use]
    pub const fn authority(&self) -> Option<&Template> {
        match self {
            Self::Tcp(authority) | Self::Http { authority, .. } => Some(authority),
            Self::File(_) | Self::Exec(_) => None,
        }
    }
}

/// The socket address of `authority`, an `address:port`, for the instance of `numbers`; `None` if it is invalid or a host name.
#[must_use]
pub fn address(authority: &Template, numbers: Numbers) -> Option<SocketAddr> {
    authority.expand(numbers).to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::model::Number;
    use crate::model::plan::Process;

    fn template(pieces: &[&std::ffi::CStr]) -> Template {
        let (last, pieces) = pieces.split_last().unwrap();
        match pieces {
            [] => Template::Fixed((*last).to_owned()),
            pieces => {
                let pieces = pieces.iter().map(|piece| ((*piece).to_owned(), Number::Instance)).collect();
                Template::Numbered { pieces, last: (*last).to_owned() }
            }
        }
    }

    #[test]
    fn instances_need_state_files_of_their_own() {
        let mut service = Service::new("web", Process::new(Box::default()));
        let mut check = |persist: Option<Template>, expect| {
            Rc::make_mut(&mut service.process).state = Some(State { size: 1, persist });
            assert_eq!([1, 2, 1000].map(|count| service.too_many_instances(count)), expect);
        };
        check(None, [None; 3]);
        check(Some(template(&[c"/data/", c".state"])), [None; 3]);
        check(
            Some(template(&[c"/data/state"])),
            [None, Some(TooManyInstances::SharedStateFile), Some(TooManyInstances::SharedStateFile)],
        );
    }

    #[test]
    fn the_probe_address_of_the_last_instance_must_be_valid() {
        let mut service = Service::new("web", Process::new(Box::default()));
        let mut check = |authority: &[&std::ffi::CStr], last: Option<u32>| {
            let target = template(&[c"/"]);
            for probe in [Probe::Tcp(template(authority)), Probe::Http { authority: template(authority), target }] {
                service.ready = Ready::Probe(probe);
                let last = last.unwrap_or(1000);
                assert_eq!(service.too_many_instances(last), None, "{authority:?}");
                assert_eq!(service.too_many_instances(last + 1).is_some(), last < 1000, "{authority:?}");
            }
        };
        check(&[c"127.0.0.1:80"], None);
        check(&[c"127.0.0.1:6553", c""], Some(6));
        check(&[c"127.0.0.", c":80"], Some(256));
    }
}

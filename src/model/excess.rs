//! More instances of a service than there can be.

use std::net::SocketAddr;

use super::Template;
use super::plan::{Probe, Ready, Service, State};

/// Why a service cannot have so many instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excess {
    /// They would have one file of `state`.
    OneFile,
    /// Where the last one is to be asked by `ready` is no address.
    Nowhere,
}

impl Service {
    /// What speaks against `count` instances of it, if something does.
    #[must_use]
    pub fn excess(&self, count: u32) -> Option<Excess> {
        if let (Some(State { persist: Some(Template::Fixed(_)), .. }), 2..) = (&self.process.state, count) {
            return Some(Excess::OneFile);
        }
        // Larger numbers make larger ones of addresses and ports.
        let last = count.saturating_sub(1);
        let is_nowhere = self.ready.authority().is_some_and(|authority| address(authority, last).is_none());
        is_nowhere.then_some(Excess::Nowhere)
    }
}

impl Ready {
    /// `address:port`, if something is asked there.
    #[must_use]
    pub const fn authority(&self) -> Option<&Template> {
        if let Self::Probe(Probe::Tcp(authority) | Probe::Http { authority, .. }) = self {
            return Some(authority);
        }
        None
    }
}

/// The address that `authority`, `address:port`, is for instance `number`; names are none.
#[must_use]
pub fn address(authority: &Template, number: u32) -> Option<SocketAddr> {
    authority.expand(number).to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::plan::Process;

    fn template(pieces: &[&std::ffi::CStr]) -> Template {
        match pieces {
            [text] => Template::Fixed((*text).to_owned()),
            pieces => Template::Numbered(pieces.iter().map(|piece| (*piece).to_owned()).collect()),
        }
    }

    #[test]
    fn one_file_is_for_one_instance_and_one_of_each_for_any_number() {
        let mut service = Service::plain("web", Process::plain(Box::default()));
        let mut check = |persist: Option<Template>, expect| {
            service.process.state = Some(State { size: 1, persist });
            assert_eq!([1, 2, 1000].map(|count| service.excess(count)), expect);
        };
        check(None, [None; 3]);
        check(Some(template(&[c"/data/", c".state"])), [None; 3]);
        check(Some(template(&[c"/data/state"])), [None, Some(Excess::OneFile), Some(Excess::OneFile)]);
    }

    #[test]
    fn the_last_instance_must_have_an_address() {
        let mut service = Service::plain("web", Process::plain(Box::default()));
        let mut check = |authority: &[&std::ffi::CStr], last: Option<u32>| {
            let target = template(&[c"/"]);
            for probe in [Probe::Tcp(template(authority)), Probe::Http { authority: template(authority), target }] {
                service.ready = Ready::Probe(probe);
                let last = last.unwrap_or(1000);
                assert_eq!(service.excess(last), None, "{authority:?}");
                assert_eq!(service.excess(last + 1).is_some(), last < 1000, "{authority:?}");
            }
        };
        check(&[c"127.0.0.1:80"], None);
        check(&[c"127.0.0.1:6553", c""], Some(6));
        check(&[c"127.0.0.", c":80"], Some(256));
    }
}

//! `state`: memory of each instance that survives its processes, for as long as the configuration has the service.
//!
//! A file in its place (`persist`) is none of this room's business: each process opens it before it runs its program, so
//! that a file system that hangs holds up nobody else.

use std::os::fd::OwnedFd;

use nix::errno::Errno;

use super::by_instance::ByInstance;
use crate::model::plan::{Service, State};
use crate::model::{InstanceId, ServiceIndex};
use crate::sys::memfd;

/// The memory of all instances that have some.
#[derive(Debug, Default)]
pub(super) struct States(ByInstance<Slot>);

#[derive(Debug, Default)]
struct Slot {
    memory: Option<OwnedFd>,
    /// That of its twin, if the definition of that has another size: until it takes over, the other is written to.
    of_twin: Option<OwnedFd>,
}

impl States {
    /// The memory for a process of `id` that is made of `service`, by a descriptor that no other process has; `None`: it is
    /// to have none. What it was of another size is copied as far as it fits.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM; EFBIG: it can never be so large.
    pub(super) fn for_instance(&mut self, id: InstanceId, service: &Service) -> Result<Option<OwnedFd>, Errno> {
        let Some(State { size, persist: None }) = &service.process.state else { return Ok(None) };
        let Some(Slot { memory, of_twin }) = self.0.entry(id) else { return Ok(None) };
        if id.is_twin() {
            *of_twin = None;
        }
        let own = match memory {
            None => memory.insert(memfd::fixed(*size)?),
            Some(memory) if memfd::size(&*memory) == Ok(*size) => memory,
            Some(memory) => {
                let new = memfd::fixed(*size)?;
                memfd::copy(memory, &new)?;
                if id.is_twin() {
                    of_twin.insert(new)
                } else {
                    *memory = new;
                    memory
                }
            }
        };
        memfd::reopened(own).map(Some)
    }

    /// The twin of an instance has taken over.
    pub(super) fn on_replaced(&mut self, id: InstanceId) {
        if let Some(Slot { memory, of_twin: of_twin @ Some(_) }) = self.0.get_mut(id) {
            *memory = of_twin.take();
        }
    }

    /// Drops that of a service that is not to be any more.
    pub(super) fn forget(&mut self, service: ServiceIndex) {
        self.0.take(service);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt as _;

    use super::*;
    use crate::model::plan::Process;

    fn with_state(size: u64) -> Service {
        let mut service = Service::plain("web", Process::plain(Box::default()));
        service.process.state = Some(State { size, persist: None });
        service
    }

    fn instance(number: u32) -> InstanceId {
        InstanceId { service: ServiceIndex(2), number }
    }

    fn file(states: &mut States, id: InstanceId, size: u64) -> File {
        File::from(states.for_instance(id, &with_state(size)).unwrap().unwrap())
    }

    #[test]
    fn each_instance_has_its_own_and_its_twin_has_the_same() {
        let mut states = States::default();
        file(&mut states, instance(0), 16).write_all_at(b"zero", 0).unwrap();
        file(&mut states, instance(7), 16).write_all_at(b"seven", 0).unwrap();
        for (id, expect) in [(instance(0), b"zero\0"), (instance(7).twin(), b"seven"), (instance(3), &[0; 5])] {
            let mut content = [0; 5];
            file(&mut states, id, 16).read_exact_at(&mut content, 0).unwrap();
            assert_eq!(&content, expect, "{id:?}");
        }
    }

    #[test]
    fn what_fits_into_another_size_is_kept() {
        let mut states = States::default();
        file(&mut states, instance(0), 5).write_all_at(b"12345", 0).unwrap();
        for (size, expect) in [(8, &b"12345\0\0\0"[..]), (2, b"12"), (4, b"12\0\0")] {
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut file(&mut states, instance(0), size), &mut content).unwrap();
            assert_eq!(content, expect);
        }
    }

    #[test]
    fn what_is_written_while_a_twin_of_another_size_is_tried_is_kept_unless_that_takes_over() {
        let content = |file: &File| {
            let mut content = [0; 4];
            file.read_exact_at(&mut content, 0).unwrap();
            content
        };
        for takes_over in [false, true] {
            let mut states = States::default();
            let old = file(&mut states, instance(0), 4);
            old.write_all_at(b"old", 0).unwrap();
            let twin = file(&mut states, instance(0).twin(), 8);
            assert_eq!(&content(&twin), b"old\0");
            old.write_all_at(b"late", 0).unwrap();
            twin.write_all_at(b"twin", 0).unwrap();
            if takes_over {
                states.on_replaced(instance(0));
            }
            let expect = if takes_over { b"twin" } else { b"late" };
            assert_eq!(&content(&file(&mut states, instance(0), if takes_over { 8 } else { 4 })), expect);
            assert_eq!(&content(&file(&mut states, instance(0).twin(), 6)), expect);
        }
    }

    #[test]
    fn that_of_a_service_that_has_gone_is_empty_when_it_returns() {
        let mut states = States::default();
        file(&mut states, instance(1), 5).write_all_at(b"12345", 0).unwrap();
        for (gone, expect) in [(ServiceIndex(1), b"12345"), (ServiceIndex(7), b"12345"), (ServiceIndex(2), &[0; 5])] {
            states.forget(gone);
            let mut content = [0; 5];
            file(&mut states, instance(1), 5).read_exact_at(&mut content, 0).unwrap();
            assert_eq!(&content, expect, "{gone:?}");
        }
    }

    #[test]
    fn who_wants_none_has_none() {
        let mut states = States::default();
        assert!(
            states.for_instance(instance(0), &Service::plain("web", Process::plain(Box::default()))).unwrap().is_none()
        );
        let refused = states.for_instance(instance(0), &with_state(u64::MAX));
        assert_eq!(refused.err(), Some(Errno::EFBIG));
    }
}

//! `state`: memory of an instance that survives its processes, until the service is removed from the configuration.
//!
//! With `persist` it is a file, which each child opens before it executes its program: PID 1 does not wait for file systems.

use std::os::fd::OwnedFd;

use nix::errno::Errno;

use super::by_instance::ByInstance;
use crate::model::plan::{Service, State};
use crate::model::{InstanceId, ServiceIndex};
use crate::sys::memfd;

/// Whether other processes of the instance may have the memory mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MemoryUse {
    Exclusive,
    Shared,
}

/// The memory of an instance for a new process.
#[derive(Debug)]
pub(super) struct StateMemory {
    pub(super) memory: OwnedFd,
    /// The size that it must get, in bytes. The new process sets it, because a process that writes to the memory, and waits for
    /// other memory on the way, holds up everybody who does.
    pub(super) resize: Option<u64>,
}

/// The memory of all instances that have some.
#[derive(Debug, Default)]
pub(super) struct States(ByInstance<Option<OwnedFd>>);

impl States {
    /// A new descriptor of the memory for a process of `id`; `None` if `service` has none. The memory grows to the configured
    /// size. It shrinks only if no other process may have it mapped: access beyond the end raises SIGBUS.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM, ENOSPC; EFBIG: the size is not possible or not permitted.
    pub(super) fn for_instance(
        &mut self,
        id: InstanceId,
        service: &Service,
        memory_use: MemoryUse,
    ) -> Result<Option<StateMemory>, Errno> {
        let Some(State { size: wanted, persist: None }) = &service.process.state else { return Ok(None) };
        let Some(slot) = self.0.entry(id) else { return Ok(None) };
        let memory = match slot {
            Some(memory) => memory,
            None => {
                let memory = memfd::create_resizable()?;
                memfd::resize(&memory, *wanted)?;
                slot.insert(memory)
            }
        };
        let size = memfd::size(&*memory)?;
        let must_resize = size < *wanted || (size > *wanted && memory_use == MemoryUse::Exclusive);
        Ok(Some(StateMemory { memory: memfd::reopen(memory)?, resize: must_resize.then_some(*wanted) }))
    }

    /// Drops the memory of a service that has been removed.
    pub(super) fn forget(&mut self, service: ServiceIndex) {
        self.0.take(service);
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use std::fs::File;
    use std::os::unix::fs::FileExt as _;

    use super::*;
    use crate::model::plan::Process;

    fn with_state(size: u64) -> Service {
        let mut service = Service::new("web", Process::new(Box::default()));
        Rc::make_mut(&mut service.process).state = Some(State { size, persist: None });
        service
    }

    fn instance(number: u32) -> InstanceId {
        InstanceId { service: ServiceIndex(2), number }
    }

    fn given(states: &mut States, id: InstanceId, size: u64, memory_use: MemoryUse) -> File {
        let StateMemory { memory, resize } = states.for_instance(id, &with_state(size), memory_use).unwrap().unwrap();
        if let Some(size) = resize {
            memfd::resize(&memory, size).unwrap();
        }
        File::from(memory)
    }

    fn file(states: &mut States, id: InstanceId, size: u64) -> File {
        given(states, id, size, MemoryUse::Exclusive)
    }

    fn content(file: &File) -> Vec<u8> {
        let mut content = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
        file.read_exact_at(&mut content, 0).unwrap();
        content
    }

    #[test]
    fn each_instance_has_its_own_memory_and_shares_it_with_its_surge_instance() {
        let mut states = States::default();
        file(&mut states, instance(0), 16).write_all_at(b"zero", 0).unwrap();
        file(&mut states, instance(7), 16).write_all_at(b"seven", 0).unwrap();
        for (id, expect) in [(instance(0), b"zero\0"), (instance(7).surge(), b"seven"), (instance(3), &[0; 5])] {
            let mut content = [0; 5];
            file(&mut states, id, 16).read_exact_at(&mut content, 0).unwrap();
            assert_eq!(&content, expect, "{id:?}");
        }
    }

    #[test]
    fn the_content_is_kept_when_the_size_changes() {
        let mut states = States::default();
        file(&mut states, instance(0), 5).write_all_at(b"12345", 0).unwrap();
        for (size, expect) in [(8, &b"12345\0\0\0"[..]), (2, b"12"), (4, b"12\0\0")] {
            assert_eq!(content(&file(&mut states, instance(0), size)), expect);
        }
    }

    #[test]
    fn a_surge_instance_of_another_size_shares_the_content() {
        for size in [8, 2] {
            let mut states = States::default();
            let old = file(&mut states, instance(0), 4);
            old.write_all_at(b"old", 0).unwrap();
            let surge = given(&mut states, instance(0).surge(), size, MemoryUse::Shared);
            assert_eq!(&content(&surge)[..4], b"old\0");
            old.write_all_at(b"late", 0).unwrap();
            assert_eq!(&content(&surge)[..4], b"late");
            surge.write_all_at(b"tw", 0).unwrap();
            assert_eq!(&content(&file(&mut states, instance(0), 4)), b"twte");
        }
    }

    #[test]
    fn the_memory_does_not_shrink_while_another_process_has_it() {
        let mut states = States::default();
        let old = file(&mut states, instance(0), 4);
        old.write_all_at(b"1234", 0).unwrap();
        assert_eq!(content(&given(&mut states, instance(0).surge(), 2, MemoryUse::Shared)), b"1234");
        assert_eq!(content(&old), b"1234");
        assert_eq!(content(&given(&mut states, instance(0), 6, MemoryUse::Shared)), b"1234\0\0");
        assert_eq!(content(&given(&mut states, instance(0), 2, MemoryUse::Exclusive)), b"12");
    }

    #[test]
    fn a_size_that_a_process_has_changed_is_restored_for_the_next_one() {
        let mut states = States::default();
        for size in [0, 3, 1 << 40] {
            file(&mut states, instance(0), 4).set_len(size).unwrap();
            assert_eq!(file(&mut states, instance(0), 4).metadata().unwrap().len(), 4);
        }
    }

    #[test]
    fn the_memory_of_a_removed_service_is_empty_when_it_returns() {
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
    fn a_service_without_state_gets_no_memory() {
        let mut states = States::default();
        assert!(
            states
                .for_instance(instance(0), &Service::new("web", Process::new(Box::default())), MemoryUse::Exclusive)
                .unwrap()
                .is_none()
        );
        let refused = states.for_instance(instance(0), &with_state(u64::MAX), MemoryUse::Exclusive);
        assert_eq!(refused.err(), Some(Errno::EFBIG));
    }
}

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

/// Whether anything else is alive of an instance and its surge, which may have the memory mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Company {
    Nobody,
    Others,
}

/// The memory of all instances that have some.
#[derive(Debug, Default)]
pub(super) struct States(ByInstance<Option<OwnedFd>>);

impl States {
    /// The memory for a process of `id` that is made of `service`, by a descriptor that no other process has; `None`: it is
    /// to have none. It is made larger if `service` wants more; smaller only if nobody else is there: who has mapped what
    /// is cut off dies of SIGBUS.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM, ENOSPC; EFBIG: it can never be so large, or may not.
    pub(super) fn for_instance(
        &mut self,
        id: InstanceId,
        service: &Service,
        company: Company,
    ) -> Result<Option<OwnedFd>, Errno> {
        let Some(State { size: wanted, persist: None }) = &service.process.state else { return Ok(None) };
        let Some(slot) = self.0.entry(id) else { return Ok(None) };
        let memory = match slot {
            Some(memory) => memory,
            None => slot.insert(memfd::create_resizable()?),
        };
        let size = memfd::size(&*memory)?;
        if size < *wanted || (size > *wanted && company == Company::Nobody) {
            memfd::resize(&*memory, *wanted)?;
        }
        memfd::reopen(memory).map(Some)
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
        let mut service = Service::new("web", Process::new(Box::default()));
        service.process.state = Some(State { size, persist: None });
        service
    }

    fn instance(number: u32) -> InstanceId {
        InstanceId { service: ServiceIndex(2), number }
    }

    fn given(states: &mut States, id: InstanceId, size: u64, company: Company) -> File {
        File::from(states.for_instance(id, &with_state(size), company).unwrap().unwrap())
    }

    fn file(states: &mut States, id: InstanceId, size: u64) -> File {
        given(states, id, size, Company::Nobody)
    }

    fn content(file: &File) -> Vec<u8> {
        let mut content = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
        file.read_exact_at(&mut content, 0).unwrap();
        content
    }

    #[test]
    fn each_instance_has_its_own_and_its_twin_has_the_same() {
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
    fn what_fits_into_another_size_is_kept() {
        let mut states = States::default();
        file(&mut states, instance(0), 5).write_all_at(b"12345", 0).unwrap();
        for (size, expect) in [(8, &b"12345\0\0\0"[..]), (2, b"12"), (4, b"12\0\0")] {
            assert_eq!(content(&file(&mut states, instance(0), size)), expect);
        }
    }

    #[test]
    fn what_is_written_while_a_twin_of_another_size_is_tried_is_there_for_both() {
        for size in [8, 2] {
            let mut states = States::default();
            let old = file(&mut states, instance(0), 4);
            old.write_all_at(b"old", 0).unwrap();
            let surge = given(&mut states, instance(0).surge(), size, Company::Others);
            assert_eq!(&content(&surge)[..4], b"old\0");
            old.write_all_at(b"late", 0).unwrap();
            assert_eq!(&content(&surge)[..4], b"late");
            surge.write_all_at(b"tw", 0).unwrap();
            assert_eq!(&content(&file(&mut states, instance(0), 4)), b"twte");
        }
    }

    #[test]
    fn nothing_is_cut_while_somebody_else_has_it() {
        let mut states = States::default();
        let old = file(&mut states, instance(0), 4);
        old.write_all_at(b"1234", 0).unwrap();
        assert_eq!(content(&given(&mut states, instance(0).surge(), 2, Company::Others)), b"1234");
        assert_eq!(content(&old), b"1234");
        assert_eq!(content(&given(&mut states, instance(0), 6, Company::Others)), b"1234\0\0");
        assert_eq!(content(&given(&mut states, instance(0), 2, Company::Nobody)), b"12");
    }

    #[test]
    fn whatever_a_process_has_made_of_its_size_the_next_one_has_what_it_wants() {
        let mut states = States::default();
        for size in [0, 3, 1 << 40] {
            file(&mut states, instance(0), 4).set_len(size).unwrap();
            assert_eq!(file(&mut states, instance(0), 4).metadata().unwrap().len(), 4);
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
            states
                .for_instance(instance(0), &Service::new("web", Process::new(Box::default())), Company::Nobody)
                .unwrap()
                .is_none()
        );
        let refused = states.for_instance(instance(0), &with_state(u64::MAX), Company::Nobody);
        assert_eq!(refused.err(), Some(Errno::EFBIG));
    }
}

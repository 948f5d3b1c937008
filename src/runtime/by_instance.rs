//! Something for each instance, which it has in common with its surge.

use crate::model::{InstanceId, ServiceIndex};

/// One `T` for each instance that has been given one.
#[derive(Debug, Default)]
pub(super) struct ByInstance<T>(Vec<Vec<T>>);

impl<T: Default> ByInstance<T> {
    pub(super) fn get(&self, id: InstanceId) -> Option<&T> {
        self.0.get(id.service.position())?.get(id.slot().number as usize)
    }

    pub(super) fn get_mut(&mut self, id: InstanceId) -> Option<&mut T> {
        self.0.get_mut(id.service.position())?.get_mut(id.slot().number as usize)
    }

    /// All that there are.
    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut().flatten()
    }

    /// Takes out all that those of a service have.
    pub(super) fn take(&mut self, service: ServiceIndex) -> Vec<T> {
        self.0.get_mut(service.position()).map(std::mem::take).unwrap_or_default()
    }

    /// That of `id`, made if there is none.
    pub(super) fn entry(&mut self, id: InstanceId) -> Option<&mut T> {
        let services = id.service.position() + 1;
        if self.0.len() < services {
            self.0.resize_with(services, Vec::new);
        }
        let of_service = self.0.get_mut(id.service.position())?;
        let count = id.slot().number as usize + 1;
        if of_service.len() < count {
            of_service.resize_with(count, T::default);
        }
        of_service.get_mut(id.slot().number as usize)
    }
}

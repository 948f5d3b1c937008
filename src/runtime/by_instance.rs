//! A table of values for instances. An instance and its surge instance share a value.

use crate::model::{InstanceId, ServiceIndex};

/// Values by instance.
#[derive(Debug, Default)]
pub(super) struct ByInstance<T>(Vec<Vec<T>>);

impl<T: Default> ByInstance<T> {
    pub(super) fn get(&self, id: InstanceId) -> Option<&T> {
        self.0.get(id.service.position())?.get(id.slot().number as usize)
    }

    pub(super) fn get_mut(&mut self, id: InstanceId) -> Option<&mut T> {
        self.0.get_mut(id.service.position())?.get_mut(id.slot().number as usize)
    }

    /// The values of all instances of a service.
    pub(super) fn of_service(&self, service: ServiceIndex) -> impl Iterator<Item = &T> {
        self.0.get(service.position()).into_iter().flatten()
    }

    /// Removes and returns the values of all instances of a service.
    pub(super) fn take(&mut self, service: ServiceIndex) -> Vec<T> {
        self.0.get_mut(service.position()).map(std::mem::take).unwrap_or_default()
    }

    /// The value of `id`, created if there is none. `None` cannot occur.
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

//! The file descriptor store of sd_notify(3): descriptors that are passed from one run of an instance to the next.

use std::os::fd::{AsFd as _, OwnedFd};

use super::by_instance::ByInstance;
use super::subsystem::{Context, Subsystem};
use super::token::Token;
use crate::model::{InstanceId, Mono};
use crate::supervisor::Event;
use crate::sys::{self, Poller, kcmp, process};

/// The number of descriptors that must stay free, so that a service that fills its store does not keep others from being
/// started, stopped and shown.
const MIN_FREE_DESCRIPTORS: u64 = 32;

/// The stored descriptors of all instances. A surge instance shares those of its instance.
#[derive(Debug, Default)]
pub(super) struct FdStore {
    slots: ByInstance<Vec<Stored>>,
    /// The last number that was assigned.
    last_number: u64,
    /// The numbers of descriptors whose other end is closed.
    hung_up: Vec<u64>,
}

/// A stored descriptor.
#[derive(Debug)]
pub(super) struct Stored {
    /// `FDNAME`.
    pub(super) name: Box<str>,
    pub(super) descriptor: OwnedFd,
    /// The number of its [`Token::StoredFd`]; 0 if it is not watched.
    number: u64,
}

/// How descriptors are to be stored.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offer<'a> {
    pub(super) name: &'a str,
    /// Whether they are dropped when their other end is closed.
    pub(super) drop_on_hangup: bool,
    /// `fd_store`: the number of descriptors that an instance can store.
    pub(super) limit: usize,
}

/// Numbers of descriptors that were not stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Refused {
    /// Those above the limit of the service.
    pub(super) surplus: usize,
    /// Those that would leave too few descriptors to keepalive.
    pub(super) no_capacity: usize,
}

impl Subsystem for FdStore {
    type Needs<'a> = ();

    fn due(&self) -> Option<Mono> {
        None
    }

    fn on_ready(&mut self, token: Token) {
        if let Token::StoredFd(number) = token {
            self.hung_up.push(number);
        }
    }

    fn turn(&mut self, context: &mut Context<'_>, (): ()) -> Vec<Event> {
        self.drop_hung_up(context.poller);
        Vec::new()
    }
}

impl FdStore {
    /// The stored descriptors of `id`, the oldest first.
    pub(super) fn of(&self, id: InstanceId) -> &[Stored] {
        self.slots.get(id).map_or(&[], Vec::as_slice)
    }

    /// Stores `descriptors`. Leaves those in the list that are stored already, or are too many.
    pub(super) fn keep(
        &mut self,
        id: InstanceId,
        offer: Offer<'_>,
        descriptors: &mut Vec<OwnedFd>,
        poller: &Poller,
    ) -> Refused {
        let mut refused = Refused::default();
        let Some(slot) = self.slots.entry(id) else { return Refused { surplus: descriptors.len(), ..refused } };
        for descriptor in std::mem::take(descriptors) {
            let is_known = slot.iter().any(|stored| kcmp::is_same_file(&stored.descriptor, &descriptor));
            let is_surplus = slot.len() >= offer.limit;
            if is_known || is_surplus || !process::has_free_descriptors(&descriptor, MIN_FREE_DESCRIPTORS) {
                refused.surplus += usize::from(!is_known && is_surplus);
                refused.no_capacity += usize::from(!is_known && !is_surplus);
                descriptors.push(descriptor);
                continue;
            }
            self.last_number += 1;
            let number = self.last_number;
            // epoll does not take regular files: they are stored until they are removed.
            let is_watched = offer.drop_on_hangup && poller.add_hangup(&descriptor, Token::StoredFd(number)).is_ok();
            let stored = Stored::new(offer.name, descriptor);
            slot.push(if is_watched { Stored { number, ..stored } } else { stored });
        }
        refused
    }

    /// Drops the descriptors with this name.
    pub(super) fn drop_named(&mut self, id: InstanceId, name: &str, poller: &Poller) {
        if let Some(slot) = self.slots.get_mut(id) {
            release(slot.extract_if(.., |stored| &*stored.name == name), poller);
        }
    }

    /// Drops the descriptors whose other end is closed.
    fn drop_hung_up(&mut self, poller: &Poller) {
        for number in std::mem::take(&mut self.hung_up) {
            for slot in self.slots.all_mut() {
                release(slot.extract_if(.., |stored| stored.number == number), poller);
            }
        }
    }

    /// Drops all descriptors of an instance that has stopped.
    pub(super) fn forget(&mut self, id: InstanceId, poller: &Poller) {
        if let Some(slot) = self.slots.get_mut(id) {
            release(std::mem::take(slot).into_iter(), poller);
        }
    }
}

impl Stored {
    /// Stored until it is removed.
    pub(super) fn new(name: &str, descriptor: OwnedFd) -> Self {
        Self { name: name.into(), descriptor, number: 0 }
    }
}

fn release(stored: impl Iterator<Item = Stored>, poller: &Poller) {
    let close = |Stored { descriptor, number, .. }| {
        // If the service still has it open, closing it would not remove it from the epoll set.
        if number != 0 {
            poller.remove(descriptor.as_fd()).ok();
        }
        descriptor
    };
    sys::deferred_close(stored.map(close).collect());
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::ServiceIndex;
    use crate::sys::poll::Ready;

    const WEB: InstanceId = InstanceId { service: ServiceIndex(1), number: 2 };

    fn offer(name: &str) -> Offer<'_> {
        Offer { name, drop_on_hangup: true, limit: 3 }
    }

    fn names(store: &FdStore) -> Vec<&str> {
        store.of(WEB).iter().map(|stored| &*stored.name).collect()
    }

    #[test]
    fn a_descriptor_is_stored_once_and_up_to_the_limit() {
        let poller = Poller::new().unwrap();
        let mut store = FdStore::default();
        let ends: Vec<_> = (0..3).map(|_| nix::unistd::pipe().unwrap()).collect();
        let copy = |position: usize| ends[position].0.try_clone().unwrap();
        assert_eq!(store.keep(WEB, offer("a"), &mut vec![copy(0), copy(0), copy(1)], &poller), Refused::default());
        assert_eq!(store.keep(WEB, offer("b"), &mut vec![copy(1), copy(2)], &poller), Refused::default());
        assert_eq!(names(&store), ["a", "a", "b"], "the second one is known by its first name");
        let other = ends[0].1.try_clone().unwrap();
        let refused = store.keep(WEB, offer("c"), &mut vec![other, copy(2)], &poller);
        assert_eq!(refused, Refused { surplus: 1, no_capacity: 0 });
        store.drop_named(WEB, "a", &poller);
        assert_eq!(names(&store), ["b"]);
        assert!(store.of(InstanceId { number: 1, ..WEB }).is_empty());
        store.forget(WEB, &poller);
        assert!(store.of(WEB).is_empty());
    }

    #[test]
    fn a_descriptor_is_dropped_on_hangup_unless_polling_is_off() {
        let mut poller = Poller::new().unwrap();
        let mut store = FdStore::default();
        let (dropped, first_end) = nix::unistd::pipe().unwrap();
        let (kept, second_end) = nix::unistd::pipe().unwrap();
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        // The service still has it open.
        let theirs = dropped.try_clone().unwrap();
        store.keep(WEB, offer("a"), &mut vec![dropped, file.into()], &poller);
        store.keep(WEB, Offer { drop_on_hangup: false, ..offer("b") }, &mut vec![kept], &poller);
        assert_eq!(poller.wait(Some(Duration::ZERO)).unwrap().len(), 0);
        drop((first_end, second_end));
        let tokens: Vec<u64> = poller.wait(Some(Duration::ZERO)).unwrap().iter().map(Ready::data).collect();
        assert_eq!(tokens.len(), 1);
        store.on_ready(Token::decode(tokens[0]).unwrap());
        store.drop_hung_up(&poller);
        assert_eq!(names(&store), ["a", "b"]);
        assert_eq!(poller.wait(Some(Duration::ZERO)).unwrap().len(), 0, "it is not reported again");
        drop(theirs);
    }
}

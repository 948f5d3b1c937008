//! Descriptors that are kept for the instances from one run to the next: the file descriptor store of sd_notify(3).

use std::os::fd::{AsFd as _, OwnedFd};

use super::by_instance::ByInstance;
use super::subsystem::{Context, Subsystem};
use super::token::Token;
use crate::model::{InstanceId, Mono};
use crate::supervisor::Event;
use crate::sys::{self, Poller, kcmp, process};

/// So many of the descriptors that we may have are for ourselves: a service that stores all it can must not keep others
/// from being started, stopped and shown.
const RESERVE: u64 = 32;

/// What is kept for all instances, surges included: they have it in common.
#[derive(Debug, Default)]
pub(super) struct FdStore {
    slots: ByInstance<Vec<Stored>>,
    /// The last number that was given.
    last_number: u64,
    /// Numbers of those whose other end is closed.
    ended: Vec<u64>,
}

/// A descriptor that is kept.
#[derive(Debug)]
pub(super) struct Stored {
    /// `FDNAME`.
    pub(super) name: Box<str>,
    pub(super) descriptor: OwnedFd,
    /// The number of its [`Token::StoredFd`]; 0: its end is not waited for.
    number: u64,
}

/// What is to be kept, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offer<'a> {
    pub(super) name: &'a str,
    /// Whether it is dropped when its other end is closed.
    pub(super) until_end: bool,
    /// So many may be there in all.
    pub(super) limit: usize,
}

/// What is not kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Refused {
    /// So many are more than the limit of the service.
    pub(super) surplus: usize,
    /// So many would leave us too few.
    pub(super) roomless: usize,
}

impl Subsystem for FdStore {
    type Needs<'a> = ();

    fn due(&self) -> Option<Mono> {
        None
    }

    fn on_ready(&mut self, token: Token) {
        if let Token::StoredFd(number) = token {
            self.ended.push(number);
        }
    }

    fn turn(&mut self, context: &mut Context<'_>, (): ()) -> Vec<Event> {
        self.drop_ended(context.poller);
        Vec::new()
    }
}

impl FdStore {
    /// What is kept for `id`, the oldest first.
    pub(super) fn of(&self, id: InstanceId) -> &[Stored] {
        self.slots.get(id).map_or(&[], Vec::as_slice)
    }

    /// Keeps `descriptors`, each once, and leaves those that are here already or are too many.
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
            if is_known || is_surplus || !process::has_free_descriptors(&descriptor, RESERVE) {
                refused.surplus += usize::from(!is_known && is_surplus);
                refused.roomless += usize::from(!is_known && !is_surplus);
                descriptors.push(descriptor);
                continue;
            }
            self.last_number += 1;
            let number = self.last_number;
            // What has no end, a regular file, is refused, and is kept until it is dropped.
            let is_watched = offer.until_end && poller.add_hangup(&descriptor, Token::StoredFd(number)).is_ok();
            let stored = Stored::new(offer.name, descriptor);
            slot.push(if is_watched { Stored { number, ..stored } } else { stored });
        }
        refused
    }

    /// Drops those that are called `name`.
    pub(super) fn drop_named(&mut self, id: InstanceId, name: &str, poller: &Poller) {
        if let Some(slot) = self.slots.get_mut(id) {
            release(slot.extract_if(.., |stored| &*stored.name == name), poller);
        }
    }

    /// Drops the one with this number: its other end has been closed.
    fn drop_ended(&mut self, poller: &Poller) {
        for number in std::mem::take(&mut self.ended) {
            for slot in self.slots.all_mut() {
                release(slot.extract_if(.., |stored| stored.number == number), poller);
            }
        }
    }

    /// Drops all of an instance that has come to rest: only what runs, or is to run again, holds on to anything.
    pub(super) fn forget(&mut self, id: InstanceId, poller: &Poller) {
        if let Some(slot) = self.slots.get_mut(id) {
            release(std::mem::take(slot).into_iter(), poller);
        }
    }
}

impl Stored {
    /// Kept until it is dropped.
    pub(super) fn new(name: &str, descriptor: OwnedFd) -> Self {
        Self { name: name.into(), descriptor, number: 0 }
    }
}

fn release(stored: impl Iterator<Item = Stored>, poller: &Poller) {
    let close = |Stored { descriptor, number, .. }| {
        // The service may have it open still, and then closing it would leave it in the set.
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
        Offer { name, until_end: true, limit: 3 }
    }

    fn names(store: &FdStore) -> Vec<&str> {
        store.of(WEB).iter().map(|stored| &*stored.name).collect()
    }

    #[test]
    fn no_more_are_kept_than_may_be_and_each_once() {
        let poller = Poller::new().unwrap();
        let mut store = FdStore::default();
        let ends: Vec<_> = (0..3).map(|_| nix::unistd::pipe().unwrap()).collect();
        let copy = |position: usize| ends[position].0.try_clone().unwrap();
        assert_eq!(store.keep(WEB, offer("a"), &mut vec![copy(0), copy(0), copy(1)], &poller), Refused::default());
        assert_eq!(store.keep(WEB, offer("b"), &mut vec![copy(1), copy(2)], &poller), Refused::default());
        assert_eq!(names(&store), ["a", "a", "b"], "the second one is known by its first name");
        let other = ends[0].1.try_clone().unwrap();
        let refused = store.keep(WEB, offer("c"), &mut vec![other, copy(2)], &poller);
        assert_eq!(refused, Refused { surplus: 1, roomless: 0 });
        store.drop_named(WEB, "a", &poller);
        assert_eq!(names(&store), ["b"]);
        assert!(store.of(InstanceId { number: 1, ..WEB }).is_empty());
        store.forget(WEB, &poller);
        assert!(store.of(WEB).is_empty());
    }

    #[test]
    fn what_has_come_to_its_end_is_dropped_unless_it_is_to_be_kept() {
        let mut poller = Poller::new().unwrap();
        let mut store = FdStore::default();
        let (dropped, first_end) = nix::unistd::pipe().unwrap();
        let (kept, second_end) = nix::unistd::pipe().unwrap();
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        // Whoever gave it away has it still.
        let theirs = dropped.try_clone().unwrap();
        store.keep(WEB, offer("a"), &mut vec![dropped, file.into()], &poller);
        store.keep(WEB, Offer { until_end: false, ..offer("b") }, &mut vec![kept], &poller);
        assert_eq!(poller.wait(Some(Duration::ZERO)).unwrap().len(), 0);
        drop((first_end, second_end));
        let tokens: Vec<u64> = poller.wait(Some(Duration::ZERO)).unwrap().iter().map(Ready::data).collect();
        assert_eq!(tokens.len(), 1);
        store.on_ready(Token::decode(tokens[0]).unwrap());
        store.drop_ended(&poller);
        assert_eq!(names(&store), ["a", "b"]);
        assert_eq!(poller.wait(Some(Duration::ZERO)).unwrap().len(), 0, "nothing is told of it again");
        drop(theirs);
    }
}

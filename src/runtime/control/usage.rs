//! Processor time and memory of each instance's whole process tree.
//!
//! /proc is looked through in pieces, so that nothing else waits for it long, and no more often than once a second,
//! however many ask.

use std::time::Duration;

use crate::model::{InstanceId, Mono, Pid};
use crate::sys::procfs::{self, Processes, Stat};

/// What was found so long ago is still good enough.
const FRESH: Duration = Duration::from_secs(1);
/// So many processes are looked at in one turn of the loop: about half a millisecond.
const PROCESSES_PER_TURN: usize = 50;
/// Deeper trees do not occur; a circle, from ids reused while we read, ends here.
const DEEPEST: usize = 256;

/// What the instances use. An instance that is being reloaded has two main processes.
#[derive(Debug, Default)]
pub(super) struct Usage {
    taken: Option<Mono>,
    /// By main process, in the order of the pids.
    used: Vec<(Main, Use)>,
    search: Option<(Processes, Vec<Stat>)>,
}

/// A main process, and of which instance.
pub(super) type Main = (i32, InstanceId);

/// What one main process uses, with all that belongs to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Use {
    pub(super) processes: u32,
    /// Resident memory; pages that processes share count for each.
    pub(super) memory: u64,
    /// Processor time so far, that of children that have ended and been waited for included, in milliseconds.
    pub(super) milliseconds: u64,
}

impl Usage {
    pub(super) fn of(&self, main: Option<Pid>) -> Use {
        let found = main.and_then(|main| self.find(main.get()));
        found.map(|(_, used)| *used).unwrap_or_default()
    }

    fn find(&self, main: i32) -> Option<&(Main, Use)> {
        let position = self.used.binary_search_by_key(&main, |((main, _), _)| *main).ok()?;
        self.used.get(position)
    }

    /// Whether it is known what is used `now`.
    pub(super) fn is_fresh(&self, now: Mono) -> bool {
        self.taken.is_some_and(|taken| now.since(taken) <= FRESH)
    }

    /// Begins to find out what is used.
    pub(super) fn begin_search(&mut self) {
        self.search = Some((procfs::processes(), Vec::new()));
    }

    pub(super) const fn is_searching(&self) -> bool {
        self.search.is_some()
    }

    /// Looks at some processes more. Whether that was all; `main` then tells of which instance a process is the main
    /// process.
    pub(super) fn go_on(&mut self, now: Mono, mains: impl FnOnce() -> Vec<Main>) -> bool {
        let Some((processes, found)) = &mut self.search else { return false };
        let before = found.len();
        found.extend(processes.take(PROCESSES_PER_TURN));
        if found.len() == before + PROCESSES_PER_TURN {
            return false;
        }
        found.sort_unstable_by_key(|stat| stat.pid);
        let mut mains = mains();
        mains.sort_unstable();
        let mut used = add_up(found, mains);
        for ((main, id), now) in &mut used {
            // A pid may come again.
            if let Some((_, before)) = self.find(*main).filter(|((_, owner), _)| owner.slot() == id.slot()) {
                // What nobody has waited for takes its time with it.
                now.milliseconds = now.milliseconds.max(before.milliseconds);
            }
        }
        self.used = used;
        self.search = None;
        self.taken = Some(now);
        true
    }
}

/// A process belongs to the main process that it is, or that leads its session, or is above it. Both lists are in the
/// order of the pids.
fn add_up(found: &[Stat], mains: Vec<Main>) -> Vec<(Main, Use)> {
    let mut used: Vec<(Main, Use)> = mains.into_iter().map(|main| (main, Use::default())).collect();
    let find = |pid: i32| {
        let position = found.binary_search_by_key(&pid, |stat| stat.pid.get()).ok()?;
        found.get(position)
    };
    for stat in found {
        let owner_of = |pid: i32| used.binary_search_by_key(&pid, |((main, _), _)| *main).ok();
        let mut next = Some(stat);
        let owner = (0..DEEPEST).find_map(|_| {
            let stat = next?;
            next = find(stat.ppid);
            owner_of(stat.pid.get()).or_else(|| owner_of(stat.session))
        });
        if let Some((_, one)) = owner.and_then(|owner| used.get_mut(owner)) {
            one.processes += u32::from(!stat.is_dead());
            one.memory += procfs::pages_to_bytes(stat.pages);
            one.milliseconds += procfs::ticks_to_milliseconds(stat.ticks);
        }
    }
    used
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Pid, ServiceIndex};

    fn process(pid: i32, ppid: i32, session: i32) -> Stat {
        let pid = Pid::new(pid).unwrap();
        Stat { pid, ppid, pgrp: session, session, state: b'S', threads: 1, start: 0, ticks: 1, pages: 1 }
    }

    #[test]
    fn a_process_belongs_to_whom_it_descends_from_or_whose_session_it_is_in() {
        let web = |number| InstanceId { service: ServiceIndex(0), number };
        // The second one takes over from the first.
        let mains = vec![(10, web(0)), (20, web(0).surge())];
        let found = [
            process(1, 0, 1),
            process(10, 1, 10),
            process(11, 10, 10),
            process(12, 11, 12),
            process(13, 12, 12),
            process(20, 1, 20),
            process(21, 1, 20),
            Stat { state: b'Z', ..process(22, 20, 20) },
            process(30, 1, 30),
            process(40, 41, 40),
            process(41, 40, 40),
        ];
        let used = add_up(&found, mains);
        let counts: Vec<_> = used.iter().map(|((main, _), used)| (*main, used.processes, used.milliseconds)).collect();
        assert_eq!(counts, [(10, 4, 40), (20, 2, 30)], "a dead one has no memory, but its time counts");
    }

    #[test]
    fn it_is_found_out_piece_by_piece_and_no_more_often_than_needed() {
        let own = i32::try_from(std::process::id()).unwrap();
        let id = InstanceId { service: ServiceIndex(0), number: 0 };
        let at = |seconds: u64| Mono::from_nanos(seconds * 1_000_000_000);
        let mut usage = Usage::default();
        assert!(!usage.is_fresh(at(5)));
        usage.begin_search();
        assert!(usage.is_searching());
        while !usage.go_on(at(5), || vec![(own, id)]) {}
        assert!(usage.is_fresh(at(6)) && !usage.is_searching());
        let used = usage.of(Pid::new(own));
        assert!(used.processes >= 1 && used.memory > 0);
        assert_eq!((usage.of(None), usage.of(Pid::new(own - 1))), (Use::default(), Use::default()));
        assert!(!usage.is_fresh(at(7)));
    }
}

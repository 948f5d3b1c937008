//! CPU time and memory of the process tree of each instance.
//!
//! An inspector measures them ([`measure`]), at most once a second.

use std::time::Duration;

use crate::model::{InstanceId, MemoryUse, Mono, Pid, RunId};
use crate::supervisor::{StateName, Supervisor};
use crate::sys::procfs::{self, Stat};

/// How long a measurement is used, also one that has failed.
const MAX_AGE: Duration = Duration::from_secs(1);
/// A limit for the search through parents, which ends circles: pids can be reused during the scan.
const MAX_TREE_DEPTH: usize = 256;

/// The usage of all instances. An instance that is being reloaded has two main processes.
#[derive(Debug, Default)]
pub(super) struct Usage {
    measured_at: Option<Mono>,
    /// Usage by main process, sorted by pid. Empty if it could not be measured.
    used: Vec<(Main, ResourceUse)>,
    /// The main processes that are being measured, sorted by pid.
    measuring: Option<Vec<Main>>,
}

/// The pid of a main process, and its instance.
pub(super) type Main = (i32, InstanceId);

/// The usage of one main process and the processes that belong to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ResourceUse {
    pub(super) processes: u32,
    /// Resident memory, in bytes. Shared pages count for each process.
    pub(super) memory: u64,
    /// CPU time, including that of children that have been waited for, in milliseconds.
    pub(super) milliseconds: u64,
}

impl Usage {
    /// `None`: the process was not seen. It is gone, or was started after the measurement, or /proc does not show it.
    pub(super) fn of(&self, main: Option<Pid>) -> Option<ResourceUse> {
        let (_, used) = self.find(main?.get())?;
        (used.processes > 0).then_some(*used)
    }

    fn find(&self, main: i32) -> Option<&(Main, ResourceUse)> {
        let position = self.used.binary_search_by_key(&main, |((main, _), _)| *main).ok()?;
        self.used.get(position)
    }

    /// Whether the measurement is recent enough.
    pub(super) fn is_fresh(&self, now: Mono) -> bool {
        self.measured_at.is_some_and(|measured_at| now.since(measured_at) <= MAX_AGE)
    }

    pub(super) const fn is_measuring(&self) -> bool {
        self.measuring.is_some()
    }

    /// Starts a measurement of these main processes. What is returned is to be run by an inspector, and its result to be
    /// passed to [`Self::on_measured`].
    pub(super) fn start(&mut self, mut mains: Vec<Main>) -> impl Fn() -> Vec<u8> + use<> {
        mains.sort_unstable();
        self.measuring = Some(mains.clone());
        move || measure(mains.clone())
    }

    /// `answer`: `None` if there is none.
    pub(super) fn on_measured(&mut self, answer: Option<&[u8]>, now: Mono) {
        let Some(mains) = self.measuring.take() else { return };
        let mut numbers = answer.unwrap_or_default().as_chunks().0.iter().map(|bytes| u64::from_ne_bytes(*bytes));
        let mut next = || {
            let (processes, memory, milliseconds) = (numbers.next()?, numbers.next()?, numbers.next()?);
            Some(ResourceUse { processes: processes.try_into().unwrap_or(u32::MAX), memory, milliseconds })
        };
        let mut used: Vec<(Main, ResourceUse)> = mains.into_iter().map_while(|main| Some((main, next()?))).collect();
        for ((main, id), now) in &mut used {
            // The pid may have been reused by another instance.
            if let Some((_, before)) = self.find(*main).filter(|((_, owner), _)| owner.slot() == id.slot()) {
                // The time of a process that was not waited for is lost: do not go back.
                now.milliseconds = now.milliseconds.max(before.milliseconds);
            }
        }
        self.used = used;
        self.measured_at = Some(now);
    }
}

/// Measures the usage of these main processes, which are sorted by pid: three numbers for each. Reads /proc/PID, which can take
/// any time.
fn measure(mains: Vec<Main>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (_, used) in add_up(&processes(), mains, &mut |_, stat| procfs::pages_to_bytes(stat.pages)) {
        for number in [used.processes.into(), used.memory, used.milliseconds] {
            bytes.extend_from_slice(&u64::to_ne_bytes(number));
        }
    }
    bytes
}

fn processes() -> Vec<Stat> {
    let mut found: Vec<Stat> = procfs::processes().collect();
    found.sort_unstable_by_key(|stat| stat.pid);
    found
}

/// The main processes that run and whose services have `max_memory`, sorted by pid, and their runs.
pub(in crate::runtime) fn limited(supervisor: &Supervisor) -> impl Iterator<Item = (Main, RunId)> {
    let view = supervisor.view();
    let instances = view.services().flat_map(|service| service.instances_and_surges());
    let limited = instances.filter(|one| one.state == StateName::Running && one.definition.max_memory.is_some());
    let mut found: Vec<_> = limited.filter_map(|one| Some(((one.pid?.get(), one.id), one.run?))).collect();
    found.sort_unstable();
    found.into_iter()
}

/// Measures the memory of these main processes, which are sorted by pid: for each the number of bytes, and 1 if that is its PSS.
/// A process that is gone has 0 bytes. Reads /proc/PID, which can take any time.
pub(in crate::runtime) fn measure_memory(mains: Vec<Main>) -> impl Fn() -> Vec<u8> {
    move || {
        let mut is_proportional = vec![true; mains.len()];
        let used = add_up(&processes(), mains.clone(), &mut |owner, stat| {
            let proportional = if stat.is_dead() { Some(0) } else { procfs::proportional_memory(stat.pid) };
            proportional.unwrap_or_else(|| {
                if let Some(is_proportional) = is_proportional.get_mut(owner) {
                    *is_proportional = false;
                }
                procfs::pages_to_bytes(stat.pages)
            })
        });
        let numbers = used.iter().zip(is_proportional).flat_map(|((_, used), is)| [used.memory, is.into()]);
        numbers.flat_map(u64::to_ne_bytes).collect()
    }
}

/// The answer of [`measure_memory`], by run.
pub(in crate::runtime) fn memory_of(runs: &[RunId], answer: &[u8]) -> Vec<(RunId, MemoryUse)> {
    let numbers = answer.as_chunks().0.iter().map(|bytes| u64::from_ne_bytes(*bytes)).collect::<Vec<_>>();
    let used = numbers.as_chunks().0.iter().map(|&[bytes, is]| MemoryUse { bytes, is_proportional: is == 1 });
    runs.iter().copied().zip(used).filter(|(_, used)| used.bytes > 0).collect()
}

/// Adds up the usage; `memory_of` is the memory of a process, in bytes, which belongs to the main process at this position. A
/// process belongs to a main process by its pid, its session or its ancestors. Both lists are sorted by pid.
fn add_up(
    found: &[Stat],
    mains: Vec<Main>,
    memory_of: &mut dyn FnMut(usize, &Stat) -> u64,
) -> Vec<(Main, ResourceUse)> {
    let mut used: Vec<(Main, ResourceUse)> = mains.into_iter().map(|main| (main, ResourceUse::default())).collect();
    let find = |pid: i32| {
        let position = found.binary_search_by_key(&pid, |stat| stat.pid.get()).ok()?;
        found.get(position)
    };
    for stat in found {
        let owner_of = |pid: i32| used.binary_search_by_key(&pid, |((main, _), _)| *main).ok();
        let mut next = Some(stat);
        let owner = (0..MAX_TREE_DEPTH).find_map(|_| {
            let stat = next?;
            next = find(stat.ppid);
            owner_of(stat.pid.get()).or_else(|| owner_of(stat.session))
        });
        if let Some(owner) = owner
            && let Some((_, one)) = used.get_mut(owner)
        {
            one.processes += u32::from(!stat.is_dead());
            one.memory += memory_of(owner, stat);
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
    fn a_process_belongs_to_its_ancestor_or_session_leader() {
        let web = |number| InstanceId { service: ServiceIndex(0), number };
        // The second one replaces the first.
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
        let used = add_up(&found, mains, &mut |_, stat| stat.pages);
        let counts: Vec<_> = used.iter().map(|((main, _), used)| (*main, used.processes, used.milliseconds)).collect();
        assert_eq!(counts, [(10, 4, 40), (20, 2, 30)], "a zombie has no memory, but its time counts");
    }

    #[test]
    fn a_measurement_is_used_for_a_second() {
        let own = i32::try_from(std::process::id()).unwrap();
        let id = InstanceId { service: ServiceIndex(0), number: 0 };
        let at = |seconds: u64| Mono::from_nanos(seconds * 1_000_000_000);
        let mut usage = Usage::default();
        assert!(!usage.is_fresh(at(5)));
        let work = usage.start(vec![(own, id)]);
        assert!(usage.is_measuring());
        usage.on_measured(Some(&work()), at(5));
        assert!(usage.is_fresh(at(6)) && !usage.is_measuring());
        let used = usage.of(Pid::new(own)).unwrap();
        assert!(used.processes >= 1 && used.memory > 0);
        assert_eq!((usage.of(None), usage.of(Pid::new(own - 1))), (None, None));
        assert!(!usage.is_fresh(at(7)));
        drop(usage.start(vec![(own, id)]));
        usage.on_measured(None, at(7));
        assert_eq!(usage.of(Pid::new(own)), None, "it is not known");
    }
}

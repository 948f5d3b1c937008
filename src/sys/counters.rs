//! Counters in memory that is shared with forked processes: mmap(2) `MAP_SHARED`, `MAP_ANONYMOUS`.

use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use nix::errno::Errno;

/// A fixed number of counters that start at 0. Only pages that have been accessed use memory.
#[derive(Debug)]
pub struct SharedCounters {
    start: NonNull<AtomicU64>,
    count: usize,
}

impl SharedCounters {
    /// Maps `count` counters. They stay mapped until the process exits.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn new(count: usize) -> Result<Self, Errno> {
        let length = count.checked_mul(size_of::<AtomicU64>()).ok_or(Errno::ENOMEM)?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new anonymous mapping at an address that the kernel chooses replaces no other.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        let start = NonNull::new(start.cast()).ok_or(Errno::ENOMEM)?;
        Ok(Self { start, count })
    }

    /// The counter at `position`; `None` if `position` is out of bounds.
    #[must_use]
    pub fn get(&self, position: usize) -> Option<&AtomicU64> {
        if position >= self.count {
            return None;
        }
        // SAFETY: `position` < `count`, so the result is within the mapping.
        let counter = unsafe { self.start.add(position) };
        // SAFETY: aligned, initialised to zero by the kernel, and never unmapped.
        Some(unsafe { counter.as_ref() })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn counters_start_at_zero_and_are_bounds_checked() {
        let counters = SharedCounters::new(1_000_000).unwrap();
        counters.get(999_999).unwrap().fetch_add(3, Ordering::Relaxed);
        let read = |position| counters.get(position).map(|counter| counter.load(Ordering::Relaxed));
        assert_eq!((read(0), read(999_999), read(1_000_000)), (Some(0), Some(3), None));
    }
}

//! Counters in memory that we share with our own copies: mmap(2) `MAP_SHARED`, `MAP_ANONYMOUS`.

use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use nix::errno::Errno;

/// So many counters, all 0 at first; memory is used for those alone that have been touched, page by page.
#[derive(Debug)]
pub struct SharedCounters {
    start: NonNull<AtomicU64>,
    count: usize,
}

impl SharedCounters {
    /// Makes them; they stay until the process ends.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn new(count: usize) -> Result<Self, Errno> {
        let length = count.checked_mul(size_of::<AtomicU64>()).ok_or(Errno::ENOMEM)?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping anywhere, of no file.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        let start = NonNull::new(start.cast()).ok_or(Errno::ENOMEM)?;
        Ok(Self { start, count })
    }

    /// The counter at `position`; `None` if there are not so many.
    #[must_use]
    pub fn get(&self, position: usize) -> Option<&AtomicU64> {
        if position >= self.count {
            return None;
        }
        // SAFETY: within the mapping.
        let counter = unsafe { self.start.add(position) };
        // SAFETY: zeroed or written as an AtomicU64, aligned, and never unmapped.
        Some(unsafe { counter.as_ref() })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn counters_begin_at_zero_and_end_where_they_end() {
        let counters = SharedCounters::new(1_000_000).unwrap();
        counters.get(999_999).unwrap().fetch_add(3, Ordering::Relaxed);
        let read = |position| counters.get(position).map(|counter| counter.load(Ordering::Relaxed));
        assert_eq!((read(0), read(999_999), read(1_000_000)), (Some(0), Some(3), None));
    }
}

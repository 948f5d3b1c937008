//! The memory allocator: malloc(3), and a reserve for the time when the system refuses more memory.
//!
//! The kernel refuses memory beyond `RLIMIT_AS` or `RLIMIT_DATA`, getrlimit(2), and under strict overcommit, proc(5)
//! `vm.overcommit_memory`. What PID 1 needs to go on comes from the reserve then: memory that it has had since its start,
//! and that nobody can take from it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::iter;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use linked_list_allocator::Heap;

/// More than the largest answer to a client needs. Only what has been used costs memory.
const RESERVE_BYTES: usize = 4 << 20;
/// Enough for the start of a service.
const MIN_RESERVE_BYTES: usize = 64 << 10;

static RESERVE: Mutex<Heap> = Mutex::new(Heap::empty());
/// The address and the size of the reserve.
static START: AtomicUsize = AtomicUsize::new(0);
static SIZE: AtomicUsize = AtomicUsize::new(0);
static ON_REFUSED: OnceLock<fn() -> !> = OnceLock::new();

fn reserve() -> MutexGuard<'static, Heap> {
    RESERVE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_in_reserve(memory: *mut u8) -> bool {
    memory.addr().wrapping_sub(START.load(Ordering::Relaxed)) < SIZE.load(Ordering::Relaxed)
}

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

struct Allocator;

// SAFETY: all memory comes from the system's allocator or from the reserve, and goes back to where it has come from.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller guarantees the layout.
        let memory = unsafe { System.alloc(layout) };
        if memory.is_null() { alloc_from_reserve(layout) } else { memory }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !is_in_reserve(memory) {
            // SAFETY: the caller guarantees the layout and the size, and the memory is the system's.
            let moved = unsafe { System.realloc(memory, layout, size) };
            if !moved.is_null() {
                return moved;
            }
        }
        // SAFETY: the caller guarantees that the size is valid for this alignment.
        let new = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        // SAFETY: as above.
        let moved = unsafe { self.alloc(new) };
        if !moved.is_null() {
            // SAFETY: both are valid for the smaller of the two sizes, and the new memory is nobody else's.
            unsafe { ptr::copy_nonoverlapping(memory, moved, layout.size().min(size)) };
            // SAFETY: the caller guarantees the layout, and uses the new memory from now on.
            unsafe { self.dealloc(memory, layout) };
        }
        moved
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if !is_in_reserve(memory) {
            // SAFETY: the caller guarantees the layout, and the memory is the system's.
            unsafe { System.dealloc(memory, layout) };
        } else if let Some(memory) = NonNull::new(memory) {
            // SAFETY: the memory was allocated from the reserve with this layout.
            unsafe { reserve().deallocate(memory, layout) };
        }
    }
}

#[cold]
fn alloc_from_reserve(layout: Layout) -> *mut u8 {
    // The lock is free again before the report, which may allocate.
    let allocated = reserve().allocate_first_fit(layout);
    match (allocated, ON_REFUSED.get()) {
        (Ok(memory), _) => memory.as_ptr(),
        (Err(()), Some(on_refused)) => on_refused(),
        (Err(()), None) => ptr::null_mut(),
    }
}

/// From now on `on_refused` is called when there is no memory left, instead of a panic. What it allocates may be refused
/// again.
pub fn set_on_refused(on_refused: fn() -> !) {
    ON_REFUSED.set(on_refused).ok();
}

/// Sets the reserve aside, once: less where the system does not give as much.
pub fn set_reserve_aside() {
    let sizes = iter::successors(Some(RESERVE_BYTES), |size| Some(size / 2));
    let mut heap = reserve();
    if heap.size() > 0 {
        return;
    }
    for size in sizes.take_while(|size| *size >= MIN_RESERVE_BYTES) {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let mapping = unsafe { libc::mmap(ptr::null_mut(), size, protection, flags, -1, 0) };
        if mapping != libc::MAP_FAILED {
            // SAFETY: the mapping is used for nothing else, and lasts as long as the program.
            unsafe { heap.init(mapping.cast(), size) };
            START.store(mapping.addr(), Ordering::Relaxed);
            SIZE.store(size, Ordering::Relaxed);
            return;
        }
    }
}

/// Whether some of the reserve is in use.
#[must_use]
pub fn is_reserve_in_use() -> bool {
    reserve().used() > 0
}

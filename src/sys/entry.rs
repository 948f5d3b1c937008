//! The entry point of the program, in place of the Rust runtime's.
//!
//! The Rust runtime ignores SIGPIPE, installs handlers for SIGSEGV and SIGBUS, and opens /dev/null on closed standard
//! descriptors, all of which children inherit. An init must pass its own surroundings on unchanged, so keepalive starts at
//! the C `main`.

use std::ffi::{CStr, OsString, c_char, c_int};
use std::fmt;
use std::io::Write as _;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use super::needed;
use super::non_blocking_writer::write_nowait;
use crate::model::exit_code::OS_ERROR;

/// Makes `function: fn(Vec<OsString>) -> u8` the program: it is given the arguments and returns the exit code.
///
/// For a crate root with `#![no_main]`.
#[macro_export]
macro_rules! entry {
    ($function:path) => {
        /// The C entry of the program.
        #[expect(unsafe_code, reason = "the C runtime looks for this name")]
        // SAFETY: no other symbol of the program is called `main`.
        #[unsafe(no_mangle)]
        extern "C" fn main(count: ::std::ffi::c_int, arguments: *const *const ::std::ffi::c_char) -> ::std::ffi::c_int {
            // SAFETY: the C runtime calls `main` with the arguments that `start` requires.
            unsafe { $crate::sys::entry::start(count, arguments, $function) }
        }
    };
}

/// The body of the C `main` of [`entry!`](crate::entry).
///
/// # Safety
/// `arguments` must point to `count` NUL-terminated strings, as the C runtime passes them.
#[must_use]
pub unsafe fn start(count: c_int, arguments: *const *const c_char, function: fn(Vec<OsString>) -> u8) -> c_int {
    super::signals::block_all_if_init();
    if let Err(refused) = needed::check(&[needed::MMAP]) {
        write_without_memory(format_args!("keepalive: error: {refused}\n"));
        return c_int::from(OS_ERROR);
    }
    occupy_standard_descriptors();
    let count = usize::try_from(count).unwrap_or(0);
    let mut words = Vec::with_capacity(count);
    for position in 0..count {
        // SAFETY: `position` < `count`, so the element is part of the caller's vector.
        let word = unsafe { arguments.add(position) };
        // SAFETY: as above, so the element is readable.
        let word = unsafe { *word };
        // SAFETY: each of the `count` elements is a NUL-terminated string.
        let word = unsafe { CStr::from_ptr(word) };
        words.push(OsString::from_vec(word.to_bytes().to_vec()));
    }
    c_int::from(function(words))
}

/// Writes a line to stderr as far as that is possible without waiting, and allocates nothing.
fn write_without_memory(line: fmt::Arguments<'_>) {
    let mut buffer = [0; 128];
    let mut rest = buffer.as_mut_slice();
    // What does not fit is left out.
    rest.write_fmt(line).ok();
    let left = rest.len();
    let length = buffer.len() - left;
    write_nowait(libc::STDERR_FILENO, buffer.get(..length).unwrap_or_default()).ok();
}

/// Opens /dev/null, close-on-exec, on each closed standard descriptor.
///
/// So no descriptor that keepalive opens later gets one of these numbers, and children still find them closed.
fn occupy_standard_descriptors() {
    let mut descriptors = [0, 1, 2].map(|fd| libc::pollfd { fd, events: 0, revents: 0 });
    // SAFETY: the array has three valid entries; a timeout of zero does not wait.
    let answer = unsafe { libc::poll(descriptors.as_mut_ptr(), 3, 0) };
    if answer <= 0 {
        return;
    }
    for descriptor in descriptors.iter().filter(|descriptor| descriptor.revents & libc::POLLNVAL != 0) {
        occupy(descriptor.fd);
    }
}

/// Whether this standard descriptor was closed when the program started. What comes through execve(2) has no `FD_CLOEXEC`,
/// what takes the place of a closed descriptor has it.
#[must_use]
pub fn was_closed(descriptor: impl AsFd) -> bool {
    fcntl(descriptor, FcntlArg::F_GETFD).is_ok_and(|flags| FdFlag::from_bits_retain(flags).contains(FdFlag::FD_CLOEXEC))
}

/// Opens /dev/null, or else a pipe without a writer, at the number `wanted`.
///
/// The kernel assigns the lowest free number and the callers go upwards, so that number is `wanted`.
fn occupy(wanted: c_int) {
    // SAFETY: the path is NUL-terminated; the other arguments are plain flags.
    let opened = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
    if opened >= 0 {
        return;
    }
    let mut ends = [-1; 2];
    // SAFETY: `ends` has room for the two descriptors.
    let made = unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) };
    let [_, write_end] = ends;
    if made == 0 && write_end != wanted {
        // Reading from `wanted` then gives end of file, writing to it EBADF.
        // SAFETY: the descriptor was opened above and nothing else owns it.
        unsafe { libc::close(write_end) };
    }
}

//! Uses the inherited sockets and memory of a service.

use std::ffi::c_int;
use std::io::Write;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::socket::{SockType, SockaddrStorage, accept, getsockname, getsockopt, sockopt};

use super::{die_of, number, say, was_given};

/// Prints the variables about descriptors, and the descriptors.
pub(super) fn given() -> u8 {
    /// Variables for keepalive and the tests, which services inherit as well.
    const OF_TESTS: [&str; 4] = ["KEEPALIVE_IT_MARK", "KEEPALIVE_LOG", "KEEPALIVE_DIST", "KEEPALIVE_TEST_NO_SKIP"];
    const PREFIXES: [&str; 5] = ["LISTEN_", "NOTIFY_", "WATCHDOG_", "NODE_CHANNEL_", "KEEPALIVE_"];
    let own = std::process::id().to_string();
    let mut variables: Vec<String> = std::env::vars()
        .filter(|(name, _)| PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
        .filter(|(name, _)| !OF_TESTS.contains(&name.as_str()))
        .map(|(name, value)| format!("{name}={}", if value == own { "own" } else { &value }))
        .collect();
    variables.sort_unstable();
    variables.iter().for_each(|variable| say(variable));
    for fd in (3..256).filter(was_given) {
        say(&format!("{fd} {}", describe(fd)));
    }
    0
}

fn describe(fd: c_int) -> String {
    // SAFETY: it is open, and stays so.
    let socket = unsafe { BorrowedFd::borrow_raw(fd) };
    let Ok(kind) = getsockopt(&socket, sockopt::SockType) else {
        return std::fs::read_link(format!("/proc/self/fd/{fd}")).expect("/proc").display().to_string();
    };
    let kind = if kind == SockType::Stream { "stream" } else { "datagram" };
    let address: SockaddrStorage = getsockname(fd).expect("an address");
    let listens = if getsockopt(&socket, sockopt::AcceptConn) == Ok(true) { " listening" } else { "" };
    // SAFETY: plain numbers.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    let blocks = if flags & libc::O_NONBLOCK == 0 { "" } else { " non-blocking" };
    format!("{kind} {address}{listens}{blocks}")
}

/// Answers each connection with its pid, and prints the address of the socket.
pub(super) fn serve(fd: &str) -> u8 {
    let fd = number(fd);
    let socket = std::fs::read_link(format!("/proc/self/fd/{fd}")).expect("a socket");
    say(&format!("ready {} at {}", std::process::id(), socket.display()));
    loop {
        let connection = accept(fd).expect("a connection");
        // SAFETY: new.
        let connection = std::fs::File::from(unsafe { OwnedFd::from_raw_fd(connection) });
        // The client may have disconnected.
        (&connection).write_all(format!("{}\n", std::process::id()).as_bytes()).ok();
    }
}

/// Increments the number at the start of the memory, and dies of SIGKILL unless the result is END.
pub(super) fn count(end: u64) -> u8 {
    let fd = std::env::var("KEEPALIVE_STATE_FD").expect("a state");
    // SAFETY: it is open, and nothing else here uses it.
    let memory = std::fs::File::from(unsafe { OwnedFd::from_raw_fd(number(&fd)) });
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
    // SAFETY: a new mapping of a file of at least eight bytes.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), 8, access, kind, memory.as_raw_fd(), 0) };
    assert_ne!(start, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
    // SAFETY: aligned, and mapped until the process exits.
    let counter = unsafe { &*start.cast::<AtomicU64>() };
    let count = counter.fetch_add(1, Ordering::Relaxed) + 1;
    if count < end {
        return die_of(libc::SIGKILL);
    }
    say(&format!("counted {count} of {} bytes", memory.metadata().expect("a file").len()));
    0
}

//! Processes that disturb others.

use std::path::Path;
use std::time::{Duration, Instant};

use super::{fork, ignore_signal, pause, say};

/// What escapes all signals ends after this time.
const LIFETIME: Duration = Duration::from_secs(30);
/// The number of processes that may be created while one is looked for.
const AHEAD: i32 = 4;
/// The number of signals between two looks at the last pid.
const SIGNALS: u32 = 100;

fn wait_for(file: &str) {
    while !Path::new(file).exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Sends SIGSTOP to the pids that come next.
pub(super) fn stop_next(file: &str) -> u8 {
    wait_for(file);
    say("attacking");
    let end = Instant::now() + LIFETIME;
    while Instant::now() < end {
        // proc(5), /proc/loadavg: the last field is the pid that was created last.
        let text = std::fs::read_to_string("/proc/loadavg").expect("/proc");
        let last: i32 = text.trim_end().rsplit(' ').next().and_then(|pid| pid.parse().ok()).expect("a pid");
        for _ in 0..SIGNALS {
            for pid in last + 1..last + AHEAD {
                // SAFETY: plain numbers.
                unsafe { libc::kill(pid, libc::SIGSTOP) };
            }
        }
    }
    pause()
}

/// Ignores SIGTERM. The processes that it leaves end when `file` is gone.
pub(super) fn storm(file: &str, count: u32) -> u8 {
    wait_for(file);
    ignore_signal(libc::SIGTERM);
    let end = Instant::now() + LIFETIME;
    let goes_on = || Instant::now() < end && Path::new(file).exists();
    for _ in 0..count {
        fork(|| daemonise_while(goes_on));
        fork(|| leave_children_while(goes_on));
    }
    say("attacking");
    pause()
}

/// As [`fork`], but without a child where the limit of processes has been reached.
fn fork_if_possible(child: impl FnOnce() -> u8) -> Option<i32> {
    // SAFETY: this program has one thread.
    match unsafe { libc::fork() } {
        -1 => {
            std::thread::yield_now();
            None
        }
        // SAFETY: takes a plain number.
        0 => unsafe { libc::_exit(child().into()) },
        pid => Some(pid),
    }
}

/// The process goes on as its child, in a session of its own.
fn daemonise_while(goes_on: impl Fn() -> bool) -> u8 {
    while goes_on() {
        if fork_if_possible(|| 0).is_some() {
            // SAFETY: takes nothing.
            unsafe { libc::setsid() };
        }
        // SAFETY: this program has one thread.
        match unsafe { libc::fork() } {
            0 => {}
            -1 => std::thread::yield_now(),
            // SAFETY: takes a plain number.
            _ => unsafe { libc::_exit(0) },
        }
    }
    0
}

/// Children exit, are not waited for, and are left to keepalive in the end.
fn leave_children_while(goes_on: impl Fn() -> bool) -> u8 {
    const CHILDREN: u32 = 20;
    while goes_on() {
        let middle = fork_if_possible(|| {
            for _ in 0..CHILDREN {
                fork_if_possible(|| 0);
            }
            0
        });
        middle.map(super::wait_for_end);
    }
    0
}

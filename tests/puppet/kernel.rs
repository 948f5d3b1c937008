//! Functions of `sys` that change the whole process, so a thread of a test cannot call them.

use std::os::fd::AsRawFd;
use std::time::Duration;

use keepalive::model::{Pid, Signal};
use keepalive::sys::wait::{self, WaitOptions};
use keepalive::sys::{Poller, SignalQueue, procfs, signal_process, signals};

use super::{fork, pause, say, say_ready};

/// Reports the state changes of one child.
pub(super) fn wait() -> u8 {
    let _ = signals::block_all(signals::DispositionReset::All);
    let look = |stops| wait::peek(stops).expect("peek");
    say(&format!("{:?}", look(WaitOptions::WithStops)));
    let child = Pid::new(fork(pause)).expect("a child");
    let readable = |text: String| text.replace(&format!("Pid({child})"), "CHILD");
    say(&format!("{:?}", look(WaitOptions::WithStops)));
    signal_process(child, Signal::STOP).expect("kill");
    until_in_state(child, b'T');
    say(&readable(format!("{:?}", look(WaitOptions::ExitsOnly))));
    say(&readable(format!("{:?}", look(WaitOptions::WithStops))));
    wait::consume_stop(child);
    say(&readable(format!("{:?}", look(WaitOptions::WithStops))));
    say(&readable(format!("{:?}", wait::reap(child))));
    signal_process(child, Signal::KILL).expect("kill");
    until_in_state(child, b'Z');
    say(&readable(format!("{:?}", look(WaitOptions::WithStops))));
    say(&readable(format!("{:?}", look(WaitOptions::WithStops))));
    say(&readable(format!("{:?}", wait::reap(child).map(|ended| (ended.pid, ended.status.code())))));
    say(&readable(format!("{:?}", wait::reap(child))));
    0
}

fn until_in_state(pid: Pid, state: u8) {
    while procfs::stat(pid).is_none_or(|stat| stat.state != state) {
        std::thread::yield_now();
    }
}

/// Waits for signals as the supervisor does.
pub(super) fn queue() -> u8 {
    let inherited = signals::block_all(signals::DispositionReset::All);
    let queue = SignalQueue::new().expect("a queue");
    let mut poller = Poller::new().expect("epoll");
    poller.add(&queue, 1_u64).expect("epoll");
    let ignored: Vec<String> = inherited.ignored.iter().map(|signal| signal.number().to_string()).collect();
    say(&format!("ignored {}", ignored.join(",")));
    say_ready();
    let nothing = signals::Received { signal: Signal::HUP, origin: signals::Origin::Kernel };
    let mut received = [nothing; 4];
    loop {
        poller.wait(None).expect("epoll");
        let count = queue.read(&mut received).expect("signals");
        for one in received.iter().take(count) {
            say(&format!("signal {}", one.signal.number()));
        }
    }
}

/// The number that the next descriptor gets.
pub(super) fn next_descriptor() -> u8 {
    let file = std::fs::File::open("/dev/null").expect("/dev/null");
    u8::try_from(file.as_raw_fd()).expect("a low number")
}

/// What the compiler puts where the program never comes, after a process has sent the signal that it causes.
pub(super) fn fault() -> u8 {
    for signal in [Signal::ILL, Signal::TRAP] {
        signal_process(keepalive::sys::process::id(), signal).expect("kill");
        let received = signals::wait_for(Some(Duration::from_secs(10))).expect("wait");
        assert_eq!(received.map(|received| received.signal), Some(signal));
    }
    #[cfg(target_arch = "x86_64")]
    // SAFETY: it ends the process.
    unsafe {
        std::arch::asm!("ud2")
    };
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        std::arch::asm!("brk 1")
    };
    0
}

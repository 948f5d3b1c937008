//! What of `sys` changes the whole process, in a process of its own.

use keepalive::model::{Pid, Signal};
use keepalive::sys::signal_process;

use crate::harness::{PUPPET, Place, Run};

#[test]
fn a_child_is_found_stopped_and_dead_and_is_reaped_once() {
    let (_, stdout, _) = Run::words(Place::Child, &[PUPPET, "sys-wait"]).finish();
    let expect = [
        "NoChildren",
        "Nothing",
        "Nothing",
        "Stopped(CHILD, Signal(19))",
        "Nothing",
        "Err(EAGAIN)",
        "Dead(CHILD)",
        "Dead(CHILD)",
        "Ok((CHILD, 137))",
        "Err(ECHILD)",
    ];
    assert_eq!(stdout.lines().collect::<Vec<_>>(), expect);
}

#[test]
fn every_signal_comes_out_of_the_queue_whatever_was_ignored() {
    let words = [PUPPET, "with", "ignore=1", "ignore=17", "ignore=34", "--", PUPPET, "sys-queue"];
    let running = Run::words(Place::Child, &words).start();
    let ignored = running.line();
    let ignored: Vec<_> = ignored.strip_prefix("ignored ").unwrap().split(',').collect();
    assert!(["1", "17", "34"].iter().all(|signal| ignored.contains(signal)), "{ignored:?}");
    let pid: Pid = running.ready();
    for signal in Signal::all().filter(|signal| signal.is_catchable()) {
        signal_process(pid, signal).unwrap();
        running.expect(&format!("signal {}", signal.number()));
    }
}

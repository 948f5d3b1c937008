//! Tests of `sys` functions that change the whole process, each in its own process.

use keepalive::model::{Pid, Signal};
use keepalive::sys::signal_process;

use crate::harness::{PUPPET, Place, Run};

#[test]
fn wait_reports_a_stopped_and_a_dead_child_and_reaps_it_once() {
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
fn the_queue_returns_every_signal_even_if_it_was_ignored() {
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

// Error messages would be written to a file with the descriptor 2.
#[test]
fn no_descriptor_gets_the_number_of_a_closed_standard_stream() {
    for changes in [&["close=0"][..], &["close=1", "close=2"], &["close=0", "close=1", "close=2"]] {
        let words = [&[PUPPET, "with"], changes, &["--", PUPPET, "sys-descriptor"]].concat();
        assert_eq!(Run::words(Place::Child, &words).finish().0, 3, "{changes:?}");
    }
}

//! Messages and requests that are many or expensive, or that carry descriptors on which system calls hang.

use crate::setup::{EVERYWHERE, Host, Setup, in_each};

/// The number of keepalive's messages: each attack has far more.
const MAX_LINES: usize = 200;

fn withstands(hosts: &[Host], words: &[&str], settings: &str) {
    in_each(hosts, |host| {
        let setup = Setup::after_attack(host, words, settings);
        let (code, stderr) = setup.stop();
        // 137: a process was killed at `shutdown_timeout`.
        assert!([0, 137].contains(&code), "{code} {stderr}");
        let lines = stderr.lines().count();
        assert!(lines < MAX_LINES, "{lines} lines");
    });
}

// proc(5), /proc/PID/fdinfo: one line for each watch.
#[test]
fn a_main_pidfd_that_is_an_inotify_descriptor_with_many_watches_holds_up_nobody() {
    withstands(&[Host::Root, Host::Unprivileged], &["inotify", "20000"], "");
}

#[test]
fn floods_of_messages_hold_up_nobody() {
    withstands(&EVERYWHERE, &["messages", "MAINPID=CHILD", "MAINPID=MAIN"], "");
    withstands(&[Host::Root], &["messages", "BARRIER=1", "STATUS=1", "MAINPID=1", "X=1"], "");
    withstands(&[Host::Root], &["messages", "RELOADING=1\nREADY=1", "EXTEND_TIMEOUT_USEC=18446744073709551614"], "");
}

#[test]
fn floods_of_descriptors_hold_up_nobody() {
    for (text, kind) in [("FDSTORE=1%FDNAME=x", "socket"), ("BARRIER=1", "pipe"), ("X=1", "memory")] {
        withstands(&[Host::Root], &["floods", text, kind], "fd_store = 8\n");
    }
    withstands(&[Host::Unprivileged, Host::Child], &["floods", "FDSTORE=1%FDPOLL=0", "pidfd"], "fd_store = 8\n");
}

#[test]
fn senders_far_below_the_main_process_hold_up_nobody() {
    withstands(&EVERYWHERE, &["deep", "60"], "");
}

// unix(7), SCM_RIGHTS; socket(7), SO_LINGER: "a close(2) or shutdown(2) will not return until all queued messages for the
// socket have been successfully sent or the linger timeout has been reached".
#[test]
fn sockets_with_unsent_data_hold_up_nobody() {
    withstands(&EVERYWHERE, &["linger", "FDSTORE=1%FDPOLL=0%FDNAME=x", "FDSTOREREMOVE=1%FDNAME=x"], "fd_store = 8\n");
    withstands(&[Host::Root], &["linger", "BARRIER=1"], "");
}

#[test]
fn floods_of_ipc_lines_hold_up_nobody() {
    let settings = "ipc = true\n";
    withstands(&EVERYWHERE, &["lines", r#"{"type":"send","to":"*","data":1}"#], settings);
    let store = [r#"{"type":"set","key":"a","value":"b"}"#, r#"{"type":"get","key":"a"}"#];
    withstands(&[Host::Root], &["lines", store[0], store[1]], settings);
}

#[test]
fn incomplete_requests_of_a_service_hold_up_nobody() {
    withstands(&EVERYWHERE, &["half_requests"], "");
}

//! File systems that do not answer, fuse(4): descriptors of their files, and their programs.
//!
//! A process in such a request cannot be killed while the server holds the request. It ends with the server.

use std::os::unix::net::UnixStream;
use std::path::Path;

use keepalive::model::{Pid, Signal};
use keepalive::sys::{procfs, socket};

use crate::harness::{skip, wait_for_death, wait_until};
use crate::setup::{EVERYWHERE, Host, Setup, attack, in_each};
use crate::system_calls::{have_strace, trace_process};

/// fuse.py
const LOOKUP: &str = "1";
const OPEN: &str = "14";
const READ: &str = "15";

/// It waits for a newline, and nobody signals what its main process leaves behind.
const NEVER_READY: &str = "ready = { fd = 3 }\nready_timeout = \"1h\"\nkill_mode = \"process\"\n";

/// Lets each instance of `evil` attack, and exit.
fn one_after_the_other(setup: &Setup, instances: usize) {
    for number in 0..instances {
        setup.set.directory.file(&format!("go{number}"), b"", 0o644);
        setup.control.wait_for(&format!("evil.{number}"), "completed");
    }
}

pub(crate) fn have_fuse() -> bool {
    let is_there = Path::new("/sys/module/fuse").exists()
        || std::fs::read_to_string("/proc/filesystems").is_ok_and(|list| list.contains("\tfuse\n"));
    if !is_there {
        skip("this needs FUSE");
    }
    is_there
}

/// `evil` mounts a file system of its own, and sends descriptors.
fn withstands(hosts: &[Host], words: &[&str], settings: &str) {
    if !have_fuse() {
        return;
    }
    in_each(hosts, |host| {
        let setup = Setup::after_attack(host, words, settings);
        setup.the_event_loop_rests();
        let (code, stderr) = setup.stop();
        assert!([0, 137].contains(&code), "{code} {stderr}");
    });
}

// epoll_ctl(2) holds the lock of the set while it polls the file.
#[test]
fn an_epoll_descriptor_that_is_locked_for_ever_holds_up_nobody() {
    withstands(&EVERYWHERE, &["epoll_mutex", "MAINPIDFD=1"], "");
    withstands(&[Host::Root], &["epoll_mutex", "FDSTORE=1"], "fd_store = 8\n");
    withstands(&[Host::Root], &["epoll_mutex", "BARRIER=1"], "");
}

#[test]
fn descriptors_that_cannot_be_closed_hold_up_nobody() {
    withstands(&EVERYWHERE, &["flush", "X=1"], "");
    withstands(&[Host::Root], &["flush", "FDSTORE=1%FDPOLL=0"], "fd_store = 1\n");
    withstands(&[Host::Root], &["release", "BARRIER=1"], "");
}

// proc_net(5): the list of all unix sockets can be read by everybody.
#[test]
fn a_service_cannot_send_descriptors_in_place_of_one_of_another_user() {
    if !have_fuse() {
        return;
    }
    in_each(&[Host::Root, Host::Child], |host| {
        let setup = Setup::after_attack(host, &["foreign", "honest"], "");
        let (code, stderr) = setup.stop();
        assert!([0, 137].contains(&code), "{code} {stderr}");
        assert!(!stderr.contains("message from pid"), "{stderr}");
    });
}

// unix(7), SCM_RIGHTS: descriptors come with any data.
#[test]
fn descriptors_that_cannot_be_closed_hold_up_nobody_on_streams_either() {
    let settings = "ipc = true\nlisten = { a = { address = \"unix://DIR/evil.sock\", mode = \"0666\" } }\n";
    withstands(&EVERYWHERE, &["streams", "flush"], settings);
    withstands(&[Host::Root, Host::Unprivileged], &["streams", "release"], settings);
}

// pipe(7): read(2), close(2) and FIONREAD wait for a writer that has the lock of the pipe.
#[test]
fn a_pipe_that_a_writer_holds_for_ever_holds_up_nobody() {
    if !have_fuse() {
        return;
    }
    in_each(&EVERYWHERE, |host| {
        let evil = attack(&["held_pipe", "3"]);
        let setup = Setup::start(host, &format!("{evil}ready = {{ fd = 3 }}\nready_timeout = \"1h\"\n"));
        setup.begin_attack();
        setup.running.expect("enough");
        setup.others_are_served();
        setup.usage_is_flat();
        setup.the_event_loop_rests();
        let (code, stderr) = setup.stop();
        assert!([0, 137].contains(&code), "{code} {stderr}");
    });
}

// pipe(7): close(2) waits for the lock of the pipe, in a process that cannot be killed meanwhile.
#[test]
fn pipes_that_can_never_be_closed_do_not_keep_others_open() {
    const INSTANCES: usize = 9;
    const OTHER: &str = "[services.other]\nstop_timeout = \"300ms\"\nready = { fd = 3 }\n\
        command = [\"sh\", \"-c\", \"echo >&3; exec sleep 10000\"]\n";
    if !have_fuse() {
        return;
    }
    in_each(&EVERYWHERE, |host| {
        let settings = format!("instances = {INSTANCES}\n{NEVER_READY}");
        let setup = Setup::start(host, &format!("{}{settings}{OTHER}", attack(&["ready_pipe", "3"])));
        one_after_the_other(&setup, INSTANCES);
        let keepalive = setup.running.keepalive();
        let restart = || assert_eq!(setup.control.post("/v1/services/other/restart").status, 200);
        let before = setup.control.descriptors_of(keepalive);
        (0..20).for_each(|_| restart());
        wait_until("the pipes of the former runs to be closed", || {
            // What is left of a run is closed at the start of the next one.
            restart();
            restart();
            (setup.control.descriptors_of(keepalive) <= before + 20).then_some(())
        });
        setup.others_are_served();
        setup.the_event_loop_rests();
        let (code, stderr) = setup.stop();
        assert!([0, 137].contains(&code), "{code} {stderr}");
    });
}

// pipe(7): close(2) and read(2) of helper processes wait for the lock, one for each run.
#[test]
fn a_service_whose_pipes_can_never_be_closed_is_not_started_again() {
    const EVIL: &str = "restart = \"always\"\nmax_restarts = 1000\nbackoff = { initial = \"100ms\", max = \"100ms\" }\n\
        ready = { fd = 3 }\nkill_mode = \"process\"\n";
    const WORDS: &str = "the pipes and sockets of its earlier processes are not closed yet; retry";
    const MAX_HANGING: usize = 8;
    if !have_fuse() {
        return;
    }
    for words in [&["ready_pipe", "3"][..], &["ready_pipe", "3", "writes"]] {
        in_each(&EVERYWHERE, |host| {
            let setup = Setup::start(host, &format!("{}{EVIL}", attack(words)));
            setup.set.directory.file("go0", b"", 0o644);
            let keepalive = setup.running.keepalive();
            let is_helper = |pid: &Pid| {
                let name = std::fs::read_to_string(format!("/proc/{pid}/comm"));
                procfs::stat(*pid).is_some_and(|stat| stat.state == b'D')
                    && name.is_ok_and(|name| name == "keepalive\n")
            };
            wait_until("the start to be refused", || {
                let hanging = procfs::children(keepalive)?.flatten().filter(is_helper).count();
                assert!(hanging <= MAX_HANGING, "{hanging}");
                setup.set.read("stderr").contains(WORDS).then_some(())
            });
            setup.others_are_served();
            setup.the_event_loop_rests();
            let (code, stderr) = setup.stop();
            assert!([0, 137].contains(&code), "{code} {stderr}");
        });
    }
}

// unix(7), SCM_RIGHTS: closing a connection closes the descriptors that have been sent over it.
#[test]
fn a_client_that_sends_locked_pipes_again_and_again_holds_up_no_other_client() {
    const FEW_DESCRIPTORS: [&str; 4] = ["sh", "-c", "ulimit -n 256; exec \"$@\"", "sh"];
    if !have_fuse() {
        return;
    }
    in_each(&[Host::Unprivileged], |host| {
        let evil = format!("{}ready = \"notify\"\n", attack(&["control_pipes", "100"]));
        let setup = Setup::start_with(host, &evil, &FEW_DESCRIPTORS);
        setup.control.wait_for("evil.0", "running");
        setup.begin_attack();
        setup.running.expect("enough");
        setup.others_are_served();
        setup.the_event_loop_rests();
        let (code, stderr) = setup.stop();
        assert!([0, 137].contains(&code), "{code} {stderr}");
        // Before Linux 6.16, a connection can carry descriptors whatever its listener wants.
        if socket::refuse_descriptors(UnixStream::pair().unwrap().0).is_ok() {
            assert!(!stderr.contains("cannot accept connections"), "{stderr}");
        }
    });
}

// kill(2): a process can kill all others of its user, also the helpers of keepalive at the moment when they are created.
#[test]
fn a_process_that_kills_those_that_close_locked_pipes_holds_up_nobody() {
    const INSTANCES: usize = 8;
    // Those that are created run before keepalive does anything else.
    const SLOW_CLONE: [&str; 4] = ["-e", "inject=clone:delay_exit=3000", "-o", "/dev/null"];
    if !have_fuse() || !have_strace() {
        return;
    }
    in_each(&[Host::Unprivileged], |host| {
        let killer = format!("[services.killer]\nstop_timeout = \"300ms\"\n{}", attack(&["newborn"]));
        let evil = format!("{}instances = {INSTANCES}\n{NEVER_READY}", attack(&["locked_ready_pipe", "3"]));
        let setup = Setup::start(host, &format!("{evil}{killer}"));
        (0..INSTANCES).for_each(|_| setup.running.expect("locked"));
        let mut strace = trace_process(setup.running.keepalive(), &SLOW_CLONE);
        setup.begin_attack();
        one_after_the_other(&setup, INSTANCES);
        setup.clients_are_answered();
        setup.set.directory.file("goend", b"", 0o644);
        setup.others_are_served();
        setup.the_event_loop_rests();
        let (code, stderr) = setup.stop();
        assert!([0, 137].contains(&code), "{code} {stderr}");
        strace.wait().unwrap();
    });
}

// pipe(7): a writer holds the lock of the pipe, and read(2) and ioctl(2) wait for it although the pipe is non-blocking.
#[test]
fn a_log_pipe_that_is_locked_for_ever_holds_up_no_other_output() {
    const OTHER: &str = "[services.other]\nstop_timeout = \"300ms\"\n\
        command = [\"sh\", \"-c\", \"until test -e DIR/again; do sleep 0.05; done; echo again; exec sleep 10000\"]\n";
    if !have_fuse() {
        return;
    }
    in_each(&EVERYWHERE, |host| {
        let evil = format!("{}ready = \"notify\"\nkill_mode = \"process\"\n", attack(&["log_pipe"]));
        let setup = Setup::start(host, &format!("{evil}{OTHER}"));
        setup.control.wait_for("evil.0", "running");
        setup.begin_attack();
        setup.control.wait_for("evil.0", "completed");
        setup.set.directory.file("again", b"", 0o644);
        setup.running.expect("again");
        let logs = setup.control.get("/v1/logs?service=other&lines=1");
        assert!(logs.status == 200 && logs.body.contains("\"again\""), "{} {}", logs.status, logs.body);
        let stderr = setup.set.read("stderr");
        assert!(
            stderr.contains("warning: evil.0: its output holds up the logger and is not read any more\n"),
            "{stderr}"
        );
        setup.others_are_served();
        setup.usage_is_flat();
        setup.the_event_loop_rests();
        let (code, stderr) = setup.stop();
        assert!([0, 137].contains(&code), "{code} {stderr}");
    });
}

// exit(2) closes the descriptors before the other processes of the namespace are killed. pid_namespaces(7)
#[test]
fn a_killed_keepalive_ends_although_a_pipe_is_locked_whose_last_reader_it_is() {
    if !have_fuse() {
        return;
    }
    in_each(&EVERYWHERE, |host| {
        let probe = "ready = { exec = [\"python3\", \"DIR/attacks.py\", \"probe_output\"], timeout = \"1h\" }\n";
        let evil = format!("command = [\"sleep\", \"10000\"]\nready_timeout = \"1h\"\n{probe}");
        let setup = Setup::start(host, &evil);
        setup.set.directory.file("go", b"", 0o644);
        let locked = setup.set.directory.path().join("free/locked");
        wait_until("the lock", || locked.exists().then_some(()));
        let keepalive = setup.running.keepalive();
        keepalive::sys::signal_process(keepalive, Signal::KILL).unwrap();
        wait_for_death(keepalive);
    });
}

// write(2) holds the lock of the file while it reads a page that does not come.
#[test]
fn a_service_that_holds_the_lock_of_stderr_holds_up_nobody() {
    if !have_fuse() {
        return;
    }
    in_each(&EVERYWHERE, |host| {
        let evil = format!("{}ready = \"notify\"\nkill_mode = \"process\"\n", attack(&["log_pipe", "2"]));
        let setup = Setup::start_without_logger(host, &evil);
        setup.control.wait_for("evil.0", "running");
        setup.begin_attack();
        // The change of its state has been written to stderr.
        setup.control.wait_for("evil.0", "completed");
        setup.others_are_served();
        setup.usage_is_flat();
        setup.the_event_loop_rests();
        let (code, _) = setup.stop();
        assert!([0, 137].contains(&code), "{code}");
    });
}

/// Starts keepalive with a file system that does not answer `request`, mounted for all services.
fn start(host: Host, request: &str, evil: &str) -> Setup {
    start_with_mount(host, request, "DIR/mnt", evil)
}

fn start_with_mount(host: Host, request: &str, mount_point: &str, evil: &str) -> Setup {
    let wrapper = ["python3", "DIR/fuse.py", request, mount_point, "DIR/fuse", "--"];
    Setup::start_with(host, evil, &wrapper)
}

/// Requests that concern `evil` and the hanging processes are answered too, as done or not.
fn check_hanging(setup: Setup) {
    setup.others_are_served();
    setup.usage_is_flat();
    setup.the_event_loop_rests();
    let answer = setup.control.post("/v1/services/victim/restart");
    assert_eq!(answer.status, 200, "{}", answer.body);
    let answer = setup.control.post("/v1/services/evil/restart?timeout=1s");
    assert!([200, 409, 504].contains(&answer.status), "{}", answer.body);
    let answer = setup.control.post("/v1/services/evil/stop?timeout=1s");
    assert!([200, 409, 504].contains(&answer.status), "{}", answer.body);
    setup.others_are_served();
    let (code, stderr) = setup.stop();
    assert!([0, 137].contains(&code), "{code} {stderr}");
}

// execve(2)
#[test]
fn a_service_that_hangs_in_execve_holds_up_only_itself() {
    if !have_fuse() {
        return;
    }
    for (hosts, request) in [(&EVERYWHERE[..], OPEN), (&[Host::Root, Host::Child], READ), (&[Host::Root], "late")] {
        in_each(hosts, |host| {
            let setup = start(host, request, "command = [\"DIR/mnt/f\", \"1000\"]\ninstances = 3\n");
            check_hanging(setup);
        });
    }
}

// proc(5): some files of /proc/PID cannot be read while the process executes a program.
#[test]
fn processes_in_sight_that_hang_in_execve_hold_up_nobody() {
    if !have_fuse() {
        return;
    }
    for (hosts, request) in [(&EVERYWHERE[..], OPEN), (&[Host::Root, Host::Child], READ), (&EVERYWHERE, "late")] {
        in_each(hosts, |host| {
            let setup = start(host, request, &format!("{}ready = \"notify\"\n", attack(&["execute", "3"])));
            setup.control.wait_for("evil.0", "running");
            setup.begin_attack();
            setup.running.expect("enough");
            check_hanging(setup);
        });
    }
}

// lxcfs(8) can serve /sys/fs/cgroup.
#[test]
fn control_groups_of_a_server_that_does_not_answer_hold_up_nobody() {
    const GROUPS: &str = "/sys/fs/cgroup";
    if !have_fuse() || !Path::new(GROUPS).exists() {
        return;
    }
    in_each(&EVERYWHERE, |host| {
        let setup = start_with_mount(host, LOOKUP, GROUPS, "command = [\"sleep\", \"10000\"]\ninstances = \"cpus\"\n");
        setup.others_are_served();
        let (code, stderr) = setup.stop();
        // 137: without privileges, the server cannot be stopped.
        assert!([0, 137].contains(&code), "{code} {stderr}");
    });
}

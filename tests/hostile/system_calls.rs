//! The system calls of PID 1, by strace(1).

use std::process::{Child, Command, Stdio};

use keepalive::model::{Pid, Signal};

use crate::harness::{KEEPALIVE, Place, Run, Running, have_namespaces, have_root, skip, status_field, wait_until};
use crate::http::{Control, http};
use crate::port::ReservedPort;
use crate::services::Set;
use crate::setup::{Host, attack, configuration, provide_files};

/// keepalive is traced from its first system call: a shell waits for a line before it executes it.
fn start_traced(set: &Set, place: Place, trace: &str) -> (Running, Child) {
    let mut run = Run::words(place, &["sh", "-c", "read -r line && exec \"$@\"", "sh", KEEPALIVE, "-c", &set.config]);
    run.command.env("KEEPALIVE_SOCKET", set.socket()).stderr(Stdio::null());
    let mut running = run.start();
    let pid = running.keepalive();
    // With -y descriptors are shown with their paths.
    let strace = trace_process(pid, &["-y", "-s", "256", "-o", trace]);
    std::io::Write::write_all(&mut running.stdin.take().unwrap(), b"\n").unwrap();
    (running, strace)
}

/// Without -f only this process is traced.
pub(crate) fn trace_process(pid: Pid, options: &[&str]) -> Child {
    let mut strace = Command::new("strace");
    let strace = strace.args(options).args(["-p", &pid.to_string()]).stderr(Stdio::null()).spawn().expect("strace");
    wait_until("strace to trace", || (status_field(pid, "TracerPid") != "0").then_some(()));
    strace
}

pub(crate) fn have_strace() -> bool {
    let is_there = Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_ok();
    if !is_there {
        skip("this needs strace");
    }
    is_there
}

/// A service that sends all kinds of messages.
const SENDS: &str = r#"import sd, os
memory = os.memfd_create("state")
sd.say("READY=1\nSTATUS=up")
sd.say("FDSTORE=1\nFDNAME=state", [memory])
sd.say("FDSTORE=1\nFDPOLL=0\nFDNAME=other", [memory])
sd.say("FDSTOREREMOVE=1\nFDNAME=other")
child = os.fork()
if child == 0:
    sd.signal.pthread_sigmask(sd.signal.SIG_UNBLOCK, [sd.signal.SIGTERM])
    while True:
        sd.signal.pause()
sd.say(f"MAINPID={child}")
sd.say(f"MAINPID={os.getpid()}")
sd.say("MAINPIDFD=1", [os.pidfd_open(os.getpid())])
sd.say("WATCHDOG=1\nEXTEND_TIMEOUT_USEC=1000000")
sd.barrier()
sd.show("sent")
sd.wait()
os._exit(1)
"#;

#[test]
fn pid_1_makes_no_system_call_that_another_process_can_hold_up() {
    if !have_strace() || !have_root() || !have_namespaces() {
        return;
    }
    for place in [Place::Init, Place::Child] {
        let (trace, own) = record(place);
        let offences: Vec<&str> = trace.lines().filter(|line| is_offence(line, &own)).collect();
        assert!(offences.is_empty(), "{}", offences.join("\n"));
    }
}

/// Runs a scenario with everything in it, and returns the trace and keepalive's own directory in /proc.
fn record(place: Place) -> (String, String) {
    let port = ReservedPort::any();
    let evil = format!("{}fd_store = 8\nready = \"notify\"\nmin_uptime = \"0s\"\n", attack(&["honest"]));
    let text = configuration(Host::Root, &port, &evil.replace("attacks.py\", \"honest", "sends.py"));
    let more = "[services.web]\ncommand = [\"PUPPET\", \"serve\", \"3\"]\ninstances = 2\nlisten = { web = \"unix://DIR/web\" }\n\
        [services.job]\ntype = \"oneshot\"\ncommand = \"true\"\n\
        [services.leaves]\ncommand = [\"PUPPET\", \"with-stray\", \"ignore\", \"15\"]\nstop_timeout = \"100ms\"\n\
        [services.missing]\ncommand = \"DIR/missing\"\non_failure = \"ignore\"\nrestart = \"never\"\n";
    let set = Set::new(&format!("{text}{more}"));
    provide_files(&set);
    set.directory.file("sends.py", SENDS.as_bytes(), 0o644);
    let path = set.directory.path().join("trace");
    let (mut running, mut strace) = start_traced(&set, place, path.to_str().unwrap());
    let control = Control::at(&set.socket());
    let own = control.get("/v1/status").json()["pid"].clone();
    for id in ["victim.0", "honest.0", "evil.0", "web.1", "leaves.0"] {
        control.wait_for(id, "running");
    }
    control.wait_for("missing.0", "failed");
    for action in [
        "victim/signal?signal=KILL",
        "victim/restart",
        "web/reload",
        "web/scale?instances=3",
        "web/scale?instances=1",
        "leaves/restart",
        "evil/stop",
        "evil/start",
        "honest/reload",
        "missing/start",
    ] {
        let answer = control.post(&format!("/v1/services/{action}"));
        assert!([200, 409].contains(&answer.status), "{action}: {}", answer.body);
        control.get("/v1/status");
    }
    assert_eq!(control.post("/v1/reload").status, 200);
    for target in ["/v1/status", "/metrics", "/v1/logs?lines=10", "/v1/events", "/livez", "/readyz"] {
        control.get(target);
        http(&port, "GET", target);
    }
    running.send(Signal::TERM);
    running.end();
    wait_until("the end of strace", || strace.try_wait().expect("a child"));
    (std::fs::read_to_string(path).unwrap(), format!("/proc/{own}/"))
}

/// Whether another process can hold up this system call, or make PID 1 the owner of a descriptor.
fn is_offence(line: &str, own: &str) -> bool {
    reads_proc_of_others(&line.replace(own, "/proc/self/"))
        || takes_descriptors(line)
        || waits_for_a_child(line)
        || line.starts_with("vfork(")
        || line.contains("CLONE_VFORK")
}

/// In a path, or in the path of a descriptor.
fn reads_proc_of_others(line: &str) -> bool {
    let mut parts = line.split("/proc/").skip(1);
    parts.any(|part| part.starts_with(|letter: char| letter.is_ascii_digit()))
}

/// unix(7): a descriptor needs 24 bytes of control data, the sender 32; without room for descriptors they stay closed.
fn takes_descriptors(line: &str) -> bool {
    let is_receive = line.starts_with("recvmsg(") || line.starts_with("recvmmsg(");
    let length = line
        .split("msg_controllen=")
        .nth(1)
        .and_then(|rest| rest.split(|letter: char| !letter.is_ascii_digit()).next()?.parse::<u32>().ok());
    is_receive && (line.contains("SCM_RIGHTS") || length.is_some_and(|length| length > 32))
}

/// wait(2). A call with invalid arguments, which only shows whether it is permitted, does not wait.
fn waits_for_a_child(line: &str) -> bool {
    let is_wait = line.starts_with("wait4(") || line.starts_with("waitid(");
    is_wait && !line.contains("WNOHANG") && !line.contains("= -1 EINVAL")
}

#[test]
fn offences_are_recognised() {
    for line in [
        r#"openat(AT_FDCWD, "/proc/17/stat", O_RDONLY) = 3"#,
        r#"openat(3</proc/17>, "stat", O_RDONLY) = 4"#,
        r#"recvmsg(5<socket:[7]>, {msg_controllen=24, msg_control=[{cmsg_type=SCM_RIGHTS}]}, 0) = 1"#,
        "recvmsg(5, {msg_name=NULL, msg_namelen=0, msg_controllen=1280, msg_flags=0}, 0) = 1",
        "clone(child_stack=NULL, flags=CLONE_VM|CLONE_VFORK|SIGCHLD) = 9",
        "vfork() = 9",
        "wait4(-1, NULL, 0, NULL) = 9",
        "waitid(P_ALL, 0, NULL, WEXITED|WNOWAIT, NULL) = 0",
    ] {
        assert!(is_offence(line, "/proc/1/"), "{line}");
    }
    for line in [
        "read(7</proc/1/cgroup>, 10) = 10",
        r#"openat(AT_FDCWD, "/proc/self/oom_score_adj", O_WRONLY) = 3"#,
        r#"recvmsg(5, {msg_controllen=32, msg_control=[{cmsg_type=SCM_CREDENTIALS}]}, MSG_PEEK) = 1"#,
        "waitid(P_ALL, 0, NULL, WNOHANG|WEXITED|WNOWAIT, NULL) = 0",
    ] {
        assert!(!is_offence(line, "/proc/1/"), "{line}");
    }
}

//! The pid of a former main process is reused by a process of another service.

use super::*;
use crate::harness::{have_namespaces, have_root};

/// Makes its child the main process, becomes the main process again, and reaps the child.
const FORMER: &str = r#"import sd, os
main = os.getpid()
there, here = os.pipe()
child = os.fork()
if child == 0:
    os.setsid()
    os.close(here)
    os.read(there, 1)
    os._exit(0)
sd.say(f"READY=1\nMAINPID={child}")
sd.say(f"MAINPID={main}\nSTATUS=from web")
sd.barrier()
os.close(here)
os.waitpid(child, 0)
with open(os.path.dirname(__file__) + "/pid", "w") as file:
    file.write(str(child))
sd.show("reaped", child)
sd.wait()
"#;

/// Creates a process with the pid in the file, clone3(2) `set_tid`, in a session of its own.
const REUSES: &str = r#"import sd, os, ctypes
pid = ctypes.c_uint64(int(open(os.path.dirname(__file__) + "/pid").read()))
SIGCHLD, SYS_clone3 = 17, 435
words = [0, 0, 0, 0, SIGCHLD, 0, 0, 0, ctypes.addressof(pid), 1, 0]
libc = ctypes.CDLL(None, use_errno=True)
child = libc.syscall(SYS_clone3, (ctypes.c_uint64 * 11)(*words), 88)
assert child >= 0, os.strerror(ctypes.get_errno())
if child == 0:
    os.setsid()
    sd.say("READY=1\nSTATUS=from other")
    sd.barrier()
    sd.show("reused", os.getpid())
sd.wait()
sd.show("is alive:", os.waitpid(child, os.WNOHANG) == (0, 0))
sd.wait()
"#;

// sd_notify(3), MAINPID=
#[test]
fn a_reused_pid_of_a_former_main_process_belongs_to_the_service_that_has_it_now() {
    if !have_root() {
        return;
    }
    let service = |name: &str, more: &str| {
        format!("[services.{name}]\ncommand = [\"python3\", \"DIR/{name}.py\"]\nready = \"notify\"\n{more}")
    };
    let text = service("web", "") + &service("other", "autostart = false\n");
    let set = set(&text, &[("web.py", FORMER), ("other.py", REUSES)]);
    in_every_place(|place| {
        let (running, control) = begin(&set, place);
        let former = running.number("reaped");
        assert_eq!(control.post("/v1/services/other/start").status, 200);
        assert_eq!(running.number("reused"), former);
        assert_eq!(notified(&control, "web.0")[0], "from web");
        assert_eq!(notified(&control, "other.0")[0], "from other");
        assert_eq!(control.post("/v1/services/web/stop").status, 200);
        assert_eq!(control.post("/v1/services/other/signal?signal=USR1").status, 200);
        running.expect("is alive: True");
        finish(running);
    });
}

/// Has a child that ignores SIGTERM, and makes another, in a session of its own, the main process. Both main processes exit.
const LEAVES: &str = r#"import sd, os, signal, time
folder = os.path.dirname(__file__)
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    while not os.path.exists(folder + "/go"):
        time.sleep(0.01)
    os._exit(0)
child = os.fork()
if child == 0:
    os.setsid()
    sd.say(f"READY=1\nMAINPID={os.getpid()}")
    sd.barrier()
    open(folder + "/main", "w").close()
    sd.show("main", os.getpid())
    sd.wait()
while not os.path.exists(folder + "/main"):
    time.sleep(0.01)
os._exit(0)
"#;

/// Exits until its pid is that in the file. The kernel assigns the number after that in ns_last_pid.
const GETS: &str = r#"import os, signal
wanted = int(open(os.path.dirname(__file__) + "/pid").read())
if os.getpid() != wanted:
    with open("/proc/sys/kernel/ns_last_pid", "w") as file:
        file.write(str(wanted - 1))
    os._exit(1)
print("reused", wanted, flush=True)
signal.pause()
"#;

#[test]
fn a_reused_pid_of_the_last_main_process_does_not_end_the_wait_for_leftovers_of_a_former_one() {
    if !have_root() || !have_namespaces() {
        return;
    }
    let text = "[services.web]\ncommand = [\"python3\", \"DIR/web.py\"]\nready = \"notify\"\nkill_mode = \"group\"\n\
        stop_timeout = \"1h\"\nrestart = \"never\"\non_failure = \"ignore\"\n\
        [services.other]\ncommand = [\"python3\", \"DIR/other.py\"]\nautostart = false\nmin_uptime = \"0s\"\n\
        [services.keep]\ncommand = [\"PUPPET\", \"ignore\"]\n[keepalive]\nshutdown_timeout = \"1s\"\n";
    let set = set(text, &[("web.py", LEAVES), ("other.py", GETS)]);
    let (mut running, control) = begin(&set, Place::Init);
    let mut lines = [running.line(), running.line()];
    lines.sort();
    let last = lines[0].strip_prefix("main ").unwrap_or_else(|| panic!("{lines:?}")).to_owned();
    set.directory.file("pid", last.as_bytes(), 0o644);
    let main = Pid::new(last.parse().unwrap()).unwrap();
    // The former main process has exited: only the leftover process remains in its group.
    wait_until("the former main process to exit", || {
        (crate::harness::descendants(running.keepalive()).len() == 3).then_some(())
    });
    assert_eq!(pid_of(&control, "web.0"), main);
    let _stop = control.ask("POST", "/v1/services/web/stop");
    wait_until("the main process to have exited", || control.instance("web.0")["pid"].is_null().then_some(()));
    assert_eq!(seen(&control).0, "stopping");
    // It is answered when `other` exits for the first time.
    let _start = control.ask("POST", "/v1/services/other/start");
    running.expect(&format!("reused {last}"));
    control.wait_for("other.0", "running");
    assert_eq!(seen(&control).0, "stopping", "a leftover process is still there");
    set.directory.file("go", b"", 0o644);
    control.wait_for("web.0", "stopped");
    running.send(Signal::TERM);
    running.end();
}

//! Reload by signal, main pid and access, and unwanted descriptors.

use super::*;
use crate::harness::{KEEPALIVE, Run, have_root, in_every_place};

// socket(7), SO_LINGER: the last close of such a socket waits until the peer has read everything.
#[test]
fn descriptors_that_are_slow_to_close_do_not_block_keepalive() {
    let script = r#"import sd, os, signal, socket, struct
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
listener = socket.create_server(("127.0.0.1", 0))
others = []

def full():
    end = socket.create_connection(listener.getsockname())
    others.append(listener.accept())
    end.setblocking(False)
    try:
        while True:
            end.send(bytes(65536))
    except BlockingIOError:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3600))
        return end

ours = [full(), full(), full(), full()]
there, here = socket.socketpair()
socket.send_fds(there, [b"x"], [ours[2].fileno()])
there.close()
channel = socket.socket(fileno=int(os.environ["KEEPALIVE_IPC_FD"]))
# keepalive must not close them before this process does.
os.kill(os.getppid(), signal.SIGSTOP)
sd.say("READY=1", [ours[0].fileno(), here.fileno()])
socket.send_fds(channel, [b'"hello"\n'], [ours[1].fileno()])
# This is not a message: the channel is closed, and so are the descriptors after it.
channel.send(b'nonsense\n')
socket.send_fds(channel, [b'"late"\n'], [ours[3].fileno()])
for end in ours:
    end.close()
here.close()
os.kill(os.getppid(), signal.SIGCONT)
sd.barrier()
sd.show("done")
while True:
    signal.pause()
"#;
    let text = "[services.web]\ncommand = [\"python3\", \"DIR/web.py\"]\nready = \"notify\"\nipc = true\n";
    let set = set(text, &[("web.py", script)]);
    let (running, control) = begin(&set, Place::Child);
    running.expect("done");
    assert_eq!(seen(&control).0, "running");
    wait_until("all to be closed and reaped", || (children(&running) == 1).then_some(()));
    finish(running);
}

// sd_notify(3), RELOADING=1, MONOTONIC_USEC=; systemd.service(5), Type=notify-reload.
#[test]
fn a_reload_by_signal_is_done_when_the_service_reports_ready() {
    let script = r#"import sd, os, signal, time

def reload(*_):
    stamp = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    sd.say(f"RELOADING=1\nMONOTONIC_USEC={stamp}\nSTATUS=reloading")
    sd.show("reloading")
    sd.wait()
    if os.path.exists("broken"):
        sd.say("STOPPING=1")
        while not os.path.exists("over"):
            time.sleep(0.01)
        os._exit(3)
    sd.say("READY=1\nSTATUS=reloaded")

signal.signal(signal.SIGHUP, reload)
os.chdir(os.path.dirname(os.path.abspath(__file__)))
sd.say("READY=1")
while True:
    signal.pause()
"#;
    let text = "[services.web]\ncommand = [\"python3\", \"DIR/web.py\"]\nready = \"notify\"\n\
        reload = { strategy = \"signal\", signal = \"SIGHUP\" }\n";
    let set = set(text, &[("web.py", script)]);
    let (running, control) = begin(&set, Place::Child);
    control.wait_for("web.0", "running");
    let post = |goes: bool| {
        std::thread::scope(|scope| {
            let answer = scope.spawn(|| control.post("/v1/services/web/reload"));
            running.expect("reloading");
            assert_eq!(notified(&control, "web.0")[0], "reloading");
            assert!(!answer.is_finished(), "answered before the reload is done");
            assert_eq!(seen(&control), ("running".to_owned(), false));
            running.send(Signal::USR1);
            if goes {
                control.wait_for("web.0", "stopping");
                assert!(!answer.is_finished(), "answered before the exit");
                set.directory.file("over", b"", 0o644);
            }
            answer.join().unwrap()
        })
    };
    assert_eq!(post(false).status, 200);
    assert_eq!(notified(&control, "web.0")[0], "reloaded");
    set.directory.file("broken", b"", 0o644);
    let answer = post(true);
    assert_eq!(answer.status, 409, "{}", answer.body);
    assert!(answer.body.contains("web.0 failed: it sent STOPPING=1; exited with code 3, ran "), "{}", answer.body);
    finish(running);
}

// sd_notify(3), MAINPIDFD=1, NOTIFYACCESS=
#[test]
fn a_service_can_set_its_main_process_by_pidfd_and_restrict_notify_access() {
    let script = r#"import sd, os
child = os.fork()
if child == 0:
    sd.wait()
    sd.say("STATUS=from the main process")
    sd.barrier()
    sd.show("main has spoken")
    sd.wait()
sd.say("MAINPIDFD=1\nREADY=1\nSTATUS=before", [os.pidfd_open(child)])
sd.say("NOTIFYACCESS=main")
sd.say("STATUS=from another")
sd.barrier()
sd.show("main", child)
sd.wait()
"#;
    // Only the main process gets the stop signal. Its parent is killed at the stop timeout.
    let text =
        "[services.web]\ncommand = [\"python3\", \"DIR/web.py\"]\nready = \"notify\"\nstop_timeout = \"100ms\"\n";
    let set = set(text, &[("web.py", script)]);
    in_every_place(|place| {
        let (running, control) = begin(&set, place);
        let child = running.number("main");
        assert_eq!(pid_of(&control, "web.0").get(), child);
        assert_eq!(notified(&control, "web.0")[0], "before");
        assert_eq!(control.post("/v1/services/web/signal?signal=USR1").status, 200);
        running.expect("main has spoken");
        assert_eq!(notified(&control, "web.0")[0], "from the main process");
        assert!(finish(running).contains("rejected by NOTIFYACCESS of pid"));
    });
}

// daemon(7), SysV daemons; systemd.service(5), Type=forking with MAINPID=.
#[test]
fn a_daemon_that_has_forked_twice_can_become_the_main_process() {
    let script = r#"import sd, os, sys, time
above = os.getppid()
there, here = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        while os.getppid() != above:
            time.sleep(0.01)
        if sys.argv[1] == "itself":
            sd.say(f"MAINPID={os.getpid()}\nREADY=1\nSTATUS=a daemon")
            sd.barrier()
        os.write(here, str(os.getpid()).encode())
        sd.wait()
    os._exit(0)
os.wait()
daemon = os.read(there, 10).decode()
if sys.argv[1] == "its starter":
    sd.say(f"MAINPID={daemon}\nREADY=1\nSTATUS=a daemon")
    sd.barrier()
sd.show("daemon", daemon)
"#;
    for sender in ["itself", "its starter"] {
        for user in ["", "user = \"65534\"\n"] {
            if !user.is_empty() && !have_root() {
                continue;
            }
            let text = format!(
                "[services.web]\ncommand = [\"python3\", \"DIR/web.py\", \"{sender}\"]\nready = \"notify\"\n{user}"
            );
            let set = set(&text, &[("web.py", script)]);
            in_every_place(|place| {
                let (running, control) = begin(&set, place);
                let daemon = running.number("daemon");
                control.wait_for("web.0", "running");
                assert_eq!(pid_of(&control, "web.0").get(), daemon, "{sender} {user}");
                assert_eq!(notified(&control, "web.0")[0], "a daemon");
                let stderr = finish(running);
                assert!(!stderr.contains("notify: "), "{sender} {user}: {stderr}");
            });
        }
    }
}

/// The workers of a prefork server that runs as root have dropped their privileges, and can send messages.
#[test]
fn a_worker_of_another_user_cannot_make_processes_of_root_the_main_process() {
    if !have_root() {
        return;
    }
    let script = r#"import sd, os, time
above = os.getppid()
there, here = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.write(here, str(os.getpid()).encode())
        sd.wait()
    os._exit(0)
os.wait()
daemon = int(os.read(there, 10))
def name(pid):
    return open(f"/proc/{pid}/comm").read().strip()
children = [int(pid) for pid in open(f"/proc/{above}/task/{above}/children").read().split()]
[logger] = [pid for pid in children if name(pid) == "keepalive-log"]
if os.fork() == 0:
    os.setgid(65534)
    os.setuid(65534)
    for pid in [above, logger, daemon, 1]:
        sd.say(f"MAINPID={pid}\nSTATUS=tried {pid}")
    sd.barrier()
    os._exit(0)
os.wait()
sd.say("READY=1")
sd.show("tried")
sd.wait()
"#;
    let text =
        "[services.web]\ncommand = [\"python3\", \"DIR/web.py\"]\nready = \"notify\"\nlog = { stdout = \"prefix\" }\n";
    let set = set(text, &[("web.py", script)]);
    in_every_place(|place| {
        let (running, control) = begin(&set, place);
        running.expect("web.0     | tried");
        control.wait_for("web.0", "running");
        let stderr = finish(running);
        assert!(!stderr.contains("main pid changed"), "{stderr}");
        assert!(stderr.matches("notify: ").count() >= 3, "{stderr}");
    });
}

/// The socket of a service that drops its privileges itself can be used before and after that, in each run.
#[test]
fn a_service_that_changes_its_user_can_send_messages_afterwards() {
    if !have_root() {
        return;
    }
    let script = r#"import sd, os
address = os.environ["NOTIFY_SOCKET"]
sd.say("STATUS=as root")
os.setgid(65534)
os.setuid(65534)
sd.say(f"READY=1\nSTATUS=as {os.getuid()}", [0])
sd.barrier()
sd.show("up", address)
try:
    os.listdir(os.path.dirname(address))
except PermissionError:
    sd.show("not listed")
sd.wait()
os._exit(1)
"#;
    let text = "[services.web]\ncommand = [\"python3\", \"DIR/web.py\"]\nready = \"notify\"\nmin_uptime = \"0s\"\n\
        backoff = { initial = \"1ms\", max = \"1ms\" }\n";
    let set = set(text, &[("web.py", script)]);
    in_every_place(|place| {
        let (running, control) = begin(&set, place);
        let mut addresses = Vec::new();
        for restarts in 0..2 {
            addresses.push(running.line().strip_prefix("up /").expect("a path").to_owned());
            running.expect("not listed");
            let instance = control.instance("web.0");
            assert_eq!(
                (&instance["state"], &instance["restarts"], &instance["status_text"]),
                (&json!("running"), &json!(restarts), &json!("as 65534"))
            );
            assert_eq!(control.post("/v1/services/web/signal?signal=USR1").status, 200);
        }
        assert_ne!(addresses[0], addresses[1]);
        let stderr = finish(running);
        assert!(!stderr.contains("notify: "), "{stderr}");
    });
}

/// A message can be read when its sender has been reaped already.
#[test]
fn a_message_of_a_process_that_has_been_reaped_is_accepted() {
    let script = r#"import sd, os, signal
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
os.kill(os.getppid(), signal.SIGSTOP)
if os.fork() == 0:
    sd.say("READY=1\nSTATUS=of a short command")
    os._exit(0)
os.wait()
os.kill(os.getppid(), signal.SIGCONT)
sd.show("sent")
while True:
    signal.pause()
"#;
    let text = "[services.web]\ncommand = [\"python3\", \"DIR/web.py\"]\nready = \"notify\"\n";
    let set = set(text, &[("web.py", script)]);
    let (running, control) = begin(&set, Place::Child);
    running.expect("sent");
    control.wait_for("web.0", "running");
    assert_eq!(notified(&control, "web.0")[0], "of a short command");
    finish(running);
}

/// Another process takes the message, which carries a descriptor: the next process is started after that.
#[test]
fn the_last_message_is_handled_before_the_exit_with_every_kill_mode() {
    let script = r#"import sd, os
names = [name for name, _ in sd.stored()]
sd.show("has", *names)
if names:
    sd.wait()
sd.say("FDSTORE=1\nFDNAME=last", [os.memfd_create("last")])
os._exit(1)
"#;
    for kill_mode in ["mixed", "group", "process"] {
        let text = format!(
            "[services.web]\ncommand = [\"python3\", \"DIR/web.py\"]\nfd_store = 1\nkill_mode = \"{kill_mode}\"\nmin_uptime = \"0s\"\n"
        );
        let set = set(&text, &[("web.py", script)]);
        in_every_place(|place| {
            let running = set.start(place);
            running.expect("has");
            running.expect("has last");
            finish(running);
        });
    }
}

/// The number of memfds that a process has open.
fn memories(pid: Pid) -> usize {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return 0 };
    let is_memory = |path: std::path::PathBuf| path.to_string_lossy().contains("memfd:");
    entries.flatten().filter(|entry| std::fs::read_link(entry.path()).is_ok_and(is_memory)).count()
}

// getrlimit(2), RLIMIT_NOFILE
#[test]
fn stored_descriptors_do_not_use_up_the_limit_of_keepalive() {
    let script = r#"import sd, os
for turn in range(12):
    files = [os.memfd_create("a") for _ in range(10)]
    sd.say("FDSTORE=1\nFDPOLL=0", files)
    for file in files:
        os.close(file)
sd.barrier()
sd.say("READY=1")
sd.wait()
"#;
    let text = "[services.web]\ncommand = [\"python3\", \"DIR/greedy.py\"]\nready = \"notify\"\nfd_store = 250\n\
        [services.other]\ncommand = [\"PUPPET\", \"ignore\"]\n";
    let set = set(text, &[("greedy.py", script)]);
    in_every_place(|place| {
        let mut run = Run::words(place, &["prlimit", "--nofile=96:96", KEEPALIVE, "-c", &set.config]);
        run.command.env("KEEPALIVE_SOCKET", set.socket());
        let running = run.start();
        let control = Control::at(&set.socket());
        control.wait_for("web.0", "running");
        assert_eq!(memories(running.keepalive()), 0);
        let stored: usize = all_children(&running).0.into_iter().map(memories).sum();
        assert!((40..96).contains(&stored), "{stored}");
        assert_eq!(control.post("/v1/services/other/restart").status, 200);
        let stderr = finish(running);
        let is_logged = stderr.lines().any(|line| {
            line.contains("cannot store all file descriptors of pid ") && line.ends_with(": Too many open files")
        });
        assert!(is_logged, "{stderr}");
    });
}

// sd_notify(3), STATUS=, ERRNO=
#[test]
fn the_status_of_a_replaced_process_is_not_that_of_the_new_one() {
    let script = r#"import sd, os
mark = os.path.dirname(__file__) + "/mark"
sd.say("READY=1" if os.path.exists(mark) else "READY=1\nSTATUS=old\nERRNO=5")
open(mark, "w").close()
sd.barrier()
sd.show("up")
sd.wait()
"#;
    let text = "[services.web]\ncommand = [\"python3\", \"DIR/web.py\"]\nready = \"notify\"\n";
    let set = set(text, &[("web.py", script)]);
    let (running, control) = begin(&set, Place::Child);
    running.expect("up");
    assert_eq!(notified(&control, "web.0"), [json!("old"), json!(5), Value::Null]);
    assert_eq!(control.post("/v1/services/web/reload").status, 200);
    assert_eq!(notified(&control, "web.0"), [Value::Null, Value::Null, Value::Null]);
    finish(running);
}

// sd_notify(3), MAINPID=: the id of a process; pidfd_open(2) refuses that of a thread.
#[test]
fn a_thread_cannot_become_the_main_process() {
    let script = r#"import sd, os, threading
thread = threading.Thread(target=threading.Event().wait, daemon=True)
thread.start()
sd.say(f"READY=1\nMAINPID={thread.native_id}")
sd.barrier()
sd.show("up", os.getpid())
sd.wait()
"#;
    let text = "[services.web]\ncommand = [\"python3\", \"DIR/web.py\"]\nready = \"notify\"\n";
    let set = set(text, &[("web.py", script)]);
    in_every_place(|place| {
        let (running, control) = begin(&set, place);
        let main = running.number("up");
        assert_eq!(pid_of(&control, "web.0").get(), main);
        let stderr = finish(running);
        assert!(stderr.contains(&format!("cannot change the main pid from {main} to ")), "{stderr}");
    });
}

// sd_notify(3), EXTEND_TIMEOUT_USEC=
#[test]
fn a_service_can_extend_its_stop_timeout() {
    let script = r#"import sd, os, time
sd.say("READY=1")
sd.show("up")
try:
    sd.wait()
finally:
    sd.say("STOPPING=1\nEXTEND_TIMEOUT_USEC=60000000")
    time.sleep(1.5)
    sd.show("done")
"#;
    let set = set(
        "[services.web]\ncommand = [\"python3\", \"DIR/slow.py\"]\nready = \"notify\"\nstop_timeout = \"1s\"\n",
        &[("slow.py", script)],
    );
    let (mut running, _control) = begin(&set, Place::Child);
    running.expect("up");
    running.send(Signal::TERM);
    running.expect("done");
    assert_eq!(running.end(), 0);
    let stderr = running.stderr();
    assert!(!stderr.contains("SIGKILL"), "{stderr}");
}

// socket(7), SO_LINGER: the file is closed by whoever closes the unix socket in which its descriptor waits.
#[test]
fn a_descriptor_that_cannot_be_closed_does_not_delay_a_stop() {
    let script = r#"import sd, os, socket, struct
end = socket.create_connection(("127.0.0.1", int(os.environ["PORT"])))
end.setblocking(False)
try:
    while True:
        end.send(bytes(65536))
except BlockingIOError:
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3600))
there, here = socket.socketpair()
socket.send_fds(there, [b"x"], [end.fileno()])
end.close()
there.close()
sd.say("READY=1")
sd.wait()
# Our own close must not be the last one: it would wait.
os.kill(os.getppid(), sd.signal.SIGSTOP)
sd.say("BARRIER=1", [here.fileno()])
here.close()
os.kill(os.getppid(), sd.signal.SIGCONT)
sd.show("sent")
sd.wait()
"#;
    // Nobody reads, and the connection outlives the service.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let text = format!(
        "[services.web]\ncommand = [\"python3\", \"DIR/web.py\"]\nready = \"notify\"\nenv = {{ PORT = \"{port}\" }}\n"
    );
    let set = set(&text, &[("web.py", script)]);
    let (running, control) = begin(&set, Place::Child);
    control.wait_for("web.0", "running");
    running.send(Signal::USR1);
    running.expect("sent");
    assert_eq!(control.post("/v1/services/web/stop").status, 200);
    let stderr = finish(running);
    assert!(!stderr.contains("SIGKILL"), "{stderr}");
}

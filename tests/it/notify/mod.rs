//! sd_notify(3), used by Python services, systemd-notify(1) and Redis.

mod life;
mod limits;
mod pid_reuse;

use std::time::Instant;

use keepalive::model::{Pid, Signal};
use keepalive::sys::procfs;
use serde_json::{Value, json};

use crate::control::begin;
use crate::harness::{Place, Running, in_every_place, skip, wait_for_death, wait_until};
use crate::http::Control;
use crate::services::Set;

/// Services with `text` as their configuration; sd.py and the scripts `files` are in `DIR`.
fn set(text: &str, files: &[(&str, &str)]) -> Set {
    let set = Set::new(text);
    set.directory.file("sd.py", include_bytes!("sd.py"), 0o644);
    for (name, content) in files {
        set.directory.file(name, content.as_bytes(), 0o755);
    }
    set
}

fn exists(program: &str) -> bool {
    let found = std::env::split_paths("/usr/local/bin:/usr/bin:/bin").any(|folder| folder.join(program).exists());
    if !found {
        skip(&format!("this needs {program}"));
    }
    found
}

fn finish(mut running: Running) -> String {
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
    running.stderr()
}

/// The members for the notifications of an instance.
fn notified(control: &Control, id: &str) -> [Value; 3] {
    let instance = control.instance(id);
    ["status_text", "status_errno", "status_exit"].map(|name| instance[name].clone())
}

fn seen(control: &Control) -> (String, bool) {
    let instance = control.instance("web.0");
    (instance["state"].as_str().unwrap().to_owned(), instance["ready"] == true)
}

fn pid_of(control: &Control, id: &str) -> Pid {
    control.instance(id)["pid"].as_i64().and_then(|pid| Pid::new(pid.try_into().ok()?)).expect("a pid")
}

/// The children of keepalive that have not been reaped, without helpers that live as long as it does: those that hold descriptors for it, and the others.
fn all_children(running: &Running) -> (Vec<Pid>, Vec<Pid>) {
    let pid = running.keepalive();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let children = children.split_whitespace().filter_map(|pid| Pid::new(pid.parse().ok()?));
    let has_name = |pid: &Pid, wanted: &str| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim_end() == wanted)
    };
    let is_lasting =
        |pid: &Pid| ["keepalive-log", "keepalive-write", "keepalive-hold"].iter().any(|name| has_name(pid, name));
    children.filter(|pid| !is_lasting(pid)).partition(|pid| has_name(pid, "keepalive-fds"))
}

/// The number of children of keepalive that have not been reaped, without those that hold descriptors for it.
fn children(running: &Running) -> usize {
    all_children(running).1.len()
}

/// The number of descriptors of keepalive when its only children are the main processes of this many services, so that
/// no descriptor waits to be closed. Its connections to processes that hold descriptors are not counted.
fn descriptors(running: &Running, control: &Control, services: usize) -> usize {
    // When keepalive answers, it has handled all earlier messages.
    control.get("/livez");
    wait_until("unwanted descriptors to be closed", || {
        let (holders, others) = all_children(running);
        let descriptors = control.descriptors_of(running.keepalive());
        let is_settled = others.len() == services && all_children(running).0 == holders;
        is_settled.then(|| descriptors - holders.len())
    })
}

// sd_notify(3), READY=1, RELOADING=1, STOPPING=1 ("final"), STATUS=, BARRIER=1.
#[test]
fn the_state_of_a_service_follows_its_notifications() {
    let words = [
        "STATUS=loading",
        "X=1",
        "READY=1\nSTATUS=",
        "RELOADING=1\nMONOTONIC_USEC=1",
        "READY=1",
        "STOPPING=1\nREADY=1",
    ];
    let command = format!("{:?}", [&["python3", "DIR/sd.py"][..], &words].concat());
    let set = set(&format!("[services.web]\ncommand = {command}\nready = \"notify\"\n"), &[]);
    in_every_place(|place| {
        let (running, control) = begin(&set, place);
        // Some clients know paths only.
        assert!(running.line().starts_with("up /"));
        assert_eq!(seen(&control), ("starting".to_owned(), false));
        let expect = [
            ("starting", false, json!("loading")),
            ("starting", false, json!("loading")),
            ("running", true, json!("")),
            ("running", false, json!("")),
            ("running", true, json!("")),
            ("stopping", false, json!("")),
        ];
        for (word, (state, ready, status)) in words.iter().zip(expect) {
            running.send(Signal::USR1);
            running.expect(&format!("said {}", word.lines().next().unwrap()));
            for line in word.lines().skip(1) {
                running.expect(line);
            }
            assert_eq!(
                (seen(&control), &notified(&control, "web.0")[0]),
                ((state.to_owned(), ready), &status),
                "{word}"
            );
        }
        finish(running);
    });
}

// systemd.service(5), NotifyAccess=all: all members of the service, nobody else.
#[test]
fn datagrams_of_other_processes_are_rejected_and_their_descriptors_closed() {
    // Messages about rejected datagrams within so many seconds, and then their number.
    const MESSAGES: u64 = 10;
    const INTERVAL: u64 = 10;
    let outsider = "import sd, sys, os\nname = sys.argv[1]\nfor turn in range(300):\n \
        sd.say(b'READY=1\\nFDSTORE=1', [0, 1, 2], name)\n \
        sd.say(b'\\0' * 60000, [0] * 200, name)\n \
        sd.say(bytes(byte % 256 for byte in range(turn * 10)), [0], name)\nsd.barrier(name)\nsd.show('refused')\n";
    let text = "[services.web]\ncommand = [\"python3\", \"DIR/sd.py\"]\nready = \"notify\"\nfd_store = 4\n\
        [services.other]\ncommand = [\"python3\", \"DIR/outsider.py\", \"NAME\"]\nautostart = false\n\
        on_success = \"ignore\"\nrestart = \"never\"\n";
    in_every_place(|place| {
        let set = set(text, &[("outsider.py", outsider)]);
        let outside = set.directory.path().join("outsider.py");
        let (running, control) = begin(&set, place);
        let name = running.line().strip_prefix("up ").unwrap().to_owned();
        // PID 1 of the namespace may have a /run of its own.
        let name = format!("/proc/{}/root{name}", running.keepalive());
        let before = descriptors(&running, &control, 1);
        let start = Instant::now();
        let output = std::process::Command::new("python3").arg(outside).arg(&name).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "refused\n", "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(seen(&control).0, "starting");
        assert_eq!(descriptors(&running, &control, 1), before);
        let stderr = finish(running);
        let messages = stderr.lines().filter(|line| line.contains("notify: ")).count() as u64;
        assert!(messages <= MESSAGES * (1 + start.elapsed().as_secs() / INTERVAL) + 1, "{stderr}");
        assert!(stderr.contains(" similar messages suppressed, such as: notify: "), "{stderr}");
        assert!(stderr.contains("rejected: not a process of a service that uses sd_notify"), "{stderr}");
    });
}

// systemd-notify(1); the shell is the main process, and its children belong to the service.
#[test]
fn a_shell_script_reports_ready_with_systemd_notify() {
    if !exists("systemd-notify") {
        return;
    }
    let script = "#!/bin/sh\nsystemd-notify --ready --status='all is well'\necho notified\nexec sleep 1000\n";
    let set = set("[services.web]\ncommand = \"DIR/script\"\nready = \"notify\"\n", &[("script", script)]);
    in_every_place(|place| {
        let (running, control) = begin(&set, place);
        running.expect("notified");
        assert_eq!((seen(&control).0, &notified(&control, "web.0")[0]), ("running".to_owned(), &json!("all is well")));
        finish(running);
    });
}

#[test]
fn redis_reports_when_it_is_ready() {
    if !exists("redis-server") {
        return;
    }
    let set = set(
        "[services.web]\ncommand = [\"redis-server\", \"--supervised\", \"systemd\", \"--port\", \"0\", \
         \"--unixsocket\", \"DIR/redis\", \"--save\", \"\", \"--dir\", \"DIR\", \"--logfile\", \"DIR/log\"]\n\
         ready = \"notify\"\n",
        &[],
    );
    let (running, control) = begin(&set, Place::Child);
    control.wait_for("web.0", "running");
    assert!(set.directory.path().join("redis").exists());
    let status = notified(&control, "web.0")[0].as_str().unwrap().to_owned();
    assert!(status.starts_with("Ready to accept connections"), "{status}");
    finish(running);
}

#[test]
fn notifications_of_dead_processes_are_assigned_to_their_service() {
    // The child has exited and is not reaped; the main process exits right after its last notification.
    let script = "import sd, os\nif os.fork() == 0:\n sd.say('READY=1')\n os._exit(0)\n\
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)\nsd.barrier()\n\
        sd.say('STATUS=no disk\\nERRNO=28\\nEXIT_STATUS=9\\nBUSERROR=a.b')\nos._exit(3)\n";
    let set = set(
        "[services.keep]\ncommand = [\"PUPPET\", \"end-on-term\", \"0\"]\n\
         [services.web]\ncommand = [\"python3\", \"DIR/last.py\"]\nready = \"notify\"\nrestart = \"never\"\n\
         on_failure = \"ignore\"\n",
        &[("last.py", script)],
    );
    in_every_place(|place| {
        let (running, control) = begin(&set, place);
        control.wait_for("web.0", "failed");
        assert_eq!(notified(&control, "web.0"), [json!("no disk"), json!(28), json!(9)]);
        let stderr = finish(running);
        assert!(stderr.contains("web.0 starting → running"), "{stderr}");
    });
}

// sd_notify(3), FDSTORE=1, FDNAME=, FDSTOREREMOVE=1, FDPOLL=0; sd_listen_fds(3).
#[test]
fn stored_descriptors_outlive_the_process() {
    let script = r#"import sd, os, sys
assert os.environ["FDSTORE"] == "3"
found = sd.stored()
sd.show("has", *[name for name, _ in found])
if not found:
    memory = os.memfd_create("state")
    os.write(memory, b"first")
    sd.say("FDSTORE=1\nFDNAME=state", [memory, memory])
    sd.say("FDSTORE=1\nFDNAME=state", [os.dup(memory)])
    kept, gone = os.pipe()
    sd.say("FDSTORE=1\nFDPOLL=0\nFDNAME=a:b", [kept])
    short, end = os.pipe()
    sd.say("FDSTORE=1\nFDNAME=short", [short])
    sd.say("FDSTORE=1\nFDNAME=beyond", [0])
    sd.barrier()
    os.close(gone)
    os.close(end)
elif "state" in dict(found):
    memory = dict(found)["state"]
    sd.show(os.pread(memory, 5, 0).decode())
    sd.say("FDSTOREREMOVE=1\nFDNAME=state")
    sd.barrier()
sd.say("READY=1")
sd.wait()
os._exit(1)
"#;
    let text = "[services.web]\ncommand = [\"python3\", \"DIR/store.py\"]\nready = \"notify\"\nfd_store = 3\n\
        log = { stdout = \"inherit\", stderr = \"inherit\" }\n\
        backoff = { initial = \"1ms\" }\n";
    let set = set(text, &[("store.py", script)]);
    in_every_place(|place| {
        let (running, control) = begin(&set, place);
        running.expect("has");
        control.wait_for("web.0", "running");
        let turns = || {
            control
                .get("/metrics")
                .body
                .lines()
                .find_map(|line| line.strip_prefix("keepalive_event_loop_iterations_total ")?.parse::<u64>().ok())
        };
        let before = turns().unwrap();
        // Each request takes a few iterations; a spinning loop makes thousands meanwhile.
        let after = (0..10).filter_map(|_| turns()).max().unwrap();
        assert!(after - before < 200, "{before}, {after}");
        // keepalive itself holds none of them.
        let none = descriptors(&running, &control, 1);
        running.send(Signal::USR1);
        // `short` has hung up and is dropped.
        running.expect("has state stored");
        running.expect("first");
        control.wait_for("web.0", "running");
        running.send(Signal::USR1);
        running.expect("has stored");
        control.wait_for("web.0", "running");
        assert_eq!(descriptors(&running, &control, 1), none);
        assert_eq!(control.post("/v1/services/web/stop").status, 200);
        // sd_notify(3): "When a service is stopped, its file descriptor store is discarded".
        assert_eq!(control.post("/v1/services/web/start").status, 200);
        running.expect("has");
        let stderr = finish(running);
        let is_message =
            |line: &str| line.contains("dropped 1 of the file descriptors") && line.ends_with("`fd_store` is 3");
        assert!(stderr.lines().any(is_message), "{stderr}");
    });
}

// The parent does not wait for the child, and exits before or after it.
#[test]
fn the_exit_status_of_a_reported_main_process_is_known_in_either_order() {
    let script = r#"import sd, os, sys
child = os.fork()
if child == 0:
    sd.wait()
    os._exit(7)
sd.say("MAINPID=%d\nREADY=1" % child)
sd.barrier()
os.kill(child, sd.signal.SIGUSR1)
if os.environ["KEEPALIVE_INSTANCE"] == "0":
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    os.sched_yield()
os._exit(0)
"#;
    let text = "[services.web]\ncommand = [\"python3\", \"DIR/first.py\"]\nready = \"notify\"\ninstances = 6\n\
        restart = \"never\"\non_failure = \"ignore\"\n[services.keep]\ncommand = [\"PUPPET\", \"ignore\"]\n";
    let set = set(text, &[("first.py", script)]);
    in_every_place(|place| {
        let (running, control) = begin(&set, place);
        for number in 0..6 {
            let id = format!("web.{number}");
            control.wait_for(&id, "failed");
            assert_eq!(control.instance(&id)["exit"], json!({"code": 7}), "{id}");
        }
        finish(running);
    });
}

#[test]
fn the_descriptor_store_is_discarded_with_its_instance() {
    let script = r#"import sd, os
sd.show("has", os.environ["KEEPALIVE_INSTANCE"], *[name for name, _ in sd.stored()])
sd.say("FDSTORE=1\nFDNAME=early\nREADY=1", [os.memfd_create("early")])
try:
    sd.wait()
finally:
    sd.say("FDSTORE=1\nFDNAME=late", [os.memfd_create("late")])
"#;
    let text = "[services.web]\ncommand = [\"python3\", \"DIR/scaled.py\"]\nready = \"notify\"\nfd_store = 2\n\
                log = { stdout = \"inherit\", stderr = \"inherit\" }\n";
    let set = set(text, &[("scaled.py", script)]);
    let (running, control) = begin(&set, Place::Child);
    running.expect("has 0");
    control.wait_for("web.0", "running");
    let alone = descriptors(&running, &control, 1);
    for _ in 0..2 {
        assert_eq!(control.post("/v1/services/web/scale?instances=2").status, 200);
        running.expect("has 1");
        control.wait_for("web.1", "running");
        assert_eq!(control.post("/v1/services/web/scale?instances=1").status, 200);
        assert_eq!(descriptors(&running, &control, 1), alone);
    }
    assert_eq!(control.post("/v1/services/web/restart").status, 200);
    running.expect("has 0 early late");
    finish(running);
}

const REPLACE: &str = r#"import sd, os, signal, sys
how = sys.argv[1]
there, here = os.pipe()
child = os.fork()
if child == 0:
    if "session" in how:
        os.setsid()
    os.write(here, b"!")
    sd.wait()
    sd.show("child ends")
    os._exit(7)
os.read(there, 1)
sd.say("MAINPID=1\nSTATUS=wrong")
sd.say("MAINPID=%d\nSTATUS=right\nREADY=1" % child)
sd.barrier()
sd.show("replaced", child)
if "stay" in how:
    os.waitpid(child, 0)
    sd.show("parent", os.getpid())
    sd.wait()
    os._exit(5)
os._exit(0)
"#;

// sd_notify(3), MAINPID=
#[test]
fn a_reported_main_process_determines_the_exit_of_the_run() {
    in_every_place(|place| {
        for how in ["group", "session"] {
            let text = format!(
                "[services.web]\ncommand = [\"python3\", \"DIR/replace.py\", \"{how}\"]\nready = \"notify\"\n\
                 restart = \"never\"\non_failure = \"ignore\"\n[services.keep]\ncommand = [\"PUPPET\", \"ignore\"]\n"
            );
            let set = set(&text, &[("replace.py", REPLACE)]);
            let (running, control) = begin(&set, place);
            let mut lines = [running.line(), running.line()];
            lines.sort();
            let child: i32 = lines[1].strip_prefix("replaced ").unwrap().parse().unwrap();
            assert_eq!(pid_of(&control, "web.0").get(), child);
            assert_eq!(seen(&control).0, "running");
            assert_eq!(notified(&control, "web.0")[0], "right", "the status of the old process applies to the new one");
            if place == Place::Child {
                // The exit of the former main process had no effect.
                let parent = |pid| procfs::stat(pid).is_some_and(|stat| stat.ppid == running.keepalive().get());
                wait_until("keepalive to be its parent", || parent(Pid::new(child).unwrap()).then_some(()));
                assert_eq!(seen(&control).0, "running");
            }
            assert_eq!(control.post("/v1/services/web/signal?signal=USR1").status, 200);
            running.expect("child ends");
            control.wait_for("web.0", "failed");
            assert_eq!(control.instance("web.0")["exit"], json!({"code": 7}));
            finish(running);
        }
    });
}

#[test]
fn a_main_process_that_is_not_a_child_of_keepalive_can_return_the_role() {
    in_every_place(|place| {
        let text = "[services.web]\ncommand = [\"python3\", \"DIR/replace.py\", \"stay\"]\nready = \"notify\"\n\
            restart = \"never\"\non_failure = \"ignore\"\n[services.keep]\ncommand = [\"PUPPET\", \"ignore\"]\n";
        let set = set(text, &[("replace.py", REPLACE)]);
        let (running, control) = begin(&set, place);
        let mut lines = [running.line(), running.line()];
        lines.sort();
        assert!(lines[1].starts_with("replaced "));
        assert_eq!(control.post("/v1/services/web/signal?signal=USR1").status, 200);
        running.expect("child ends");
        let parent = running.number("parent");
        wait_until("the parent to be the main process again", || {
            (pid_of(&control, "web.0").get() == parent).then_some(())
        });
        assert_eq!(control.post("/v1/services/web/signal?signal=USR1").status, 200);
        control.wait_for("web.0", "failed");
        assert_eq!(control.instance("web.0")["exit"], json!({"code": 5}));
        finish(running);
    });
}

#[test]
fn a_stop_reaches_leftovers_of_all_former_main_processes() {
    // The main process has its own session. Children of the former one are in another.
    let script = r#"import sd, os, subprocess
signal = sd.signal
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
left = subprocess.Popen(["sleep", "1000"])
there, here = os.pipe()
child = os.fork()
if child == 0:
    os.setsid()
    below = subprocess.Popen(["sleep", "1000"])
    os.write(here, str(below.pid).encode())
    signal.pause()
below = os.read(there, 9).decode()
sd.say("MAINPID=%d\nREADY=1" % child)
sd.barrier()
sd.show("left", left.pid, below)
os._exit(0)
"#;
    for mode in ["mixed", "group"] {
        let text = format!(
            "[services.web]\ncommand = [\"python3\", \"DIR/left.py\"]\nready = \"notify\"\nkill_mode = \"{mode}\"\n\
             [services.keep]\ncommand = [\"PUPPET\", \"ignore\"]\n"
        );
        let set = set(&text, &[("left.py", script)]);
        let (running, control) = begin(&set, Place::Child);
        let mut lines = [running.line(), running.line()];
        lines.sort();
        let left = lines[0].strip_prefix("left ").unwrap_or_else(|| panic!("{lines:?}"));
        let left: Vec<Pid> = left.split(' ').map(|pid| Pid::new(pid.parse().unwrap()).unwrap()).collect();
        assert_eq!(control.post("/v1/services/web/stop").status, 200);
        assert_eq!(control.instance("web.0")["exit"], json!({"signal": "SIGTERM"}));
        left.into_iter().for_each(wait_for_death);
        finish(running);
    }
}

// sd_notify(3), WATCHDOG=1, WATCHDOG=trigger, WATCHDOG_USEC=; sd_watchdog_enabled(3).
#[test]
fn a_watchdog_timeout_or_trigger_restarts_the_service() {
    let script = r#"import sd, os, time
assert (os.environ["WATCHDOG_USEC"], os.environ["WATCHDOG_PID"]) == ("60000000", str(os.getpid()))
count = int(os.environ["KEEPALIVE_RESTARTS"])
sd.say("READY=1\nWATCHDOG=1")
sd.barrier()
sd.show(count)
if count == 0:
    sd.say("WATCHDOG=trigger")
if count == 1:
    sd.say("WATCHDOG_USEC=1000")
sd.wait()
"#;
    let set = set(
        "[services.web]\ncommand = [\"python3\", \"DIR/dog.py\"]\nready = \"notify\"\nwatchdog = \"60s\"\n\
         backoff = { initial = \"1ms\" }\n",
        &[("dog.py", script)],
    );
    in_every_place(|place| {
        let (running, control) = begin(&set, place);
        ["0", "1", "2"].iter().for_each(|count| running.expect(count));
        control.wait_for("web.0", "running");
        finish(running);
    });
}

//! What a service makes keepalive log is limited.

use keepalive::sys::signal_process;

use super::*;

// The messages of a service must not fill the log.
#[test]
fn a_service_that_changes_its_main_pid_all_the_time_does_not_flood_the_log() {
    let script = "import sd, os, signal\nchildren = []\nfor _ in range(2):\n pid = os.fork()\n if pid == 0:\n  \
        signal.sigwait([signal.SIGTERM])\n  os._exit(0)\n children.append(pid)\nsd.say('READY=1')\n\
        for turn in range(2000):\n sd.say(f'MAINPID={children[turn % 2]}')\nsd.say(f'MAINPID={os.getpid()}')\n\
        sd.barrier()\nsd.show('changed')\nsd.wait()\n";
    let text = "[services.web]\ncommand = [\"python3\", \"DIR/web.py\"]\nready = \"notify\"\n";
    in_every_place(|place| {
        let set = set(text, &[("web.py", script)]);
        let (running, _control) = begin(&set, place);
        let start = Instant::now();
        running.expect("changed");
        let stderr = finish(running);
        let lines = stderr.lines().filter(|line| line.contains("main pid changed")).count() as u64;
        // Ten and a report in ten seconds.
        assert!((1..=12 * (1 + start.elapsed().as_secs() / 10)).contains(&lines), "{stderr}");
        assert!(stderr.contains(" similar messages suppressed, such as: main pid changed from "), "{stderr}");
    });
}

// Real-time signals are queued, signal(7), so that each is forwarded.
#[test]
fn a_flood_of_signals_leaves_the_events_of_services_in_the_ring() {
    let set = Set::new(
        "[services.web]\ncommand = [\"PUPPET\", \"ignore\"]\n[keepalive]\nsignals = { \"RTMIN+1\" = \"ignore\" }\n",
    );
    in_every_place(|place| {
        let (mut running, control) = begin(&set, place);
        running.ready();
        let signal = Signal::parse("RTMIN+1").unwrap();
        let keepalive = running.keepalive();
        (0..2_000).for_each(|_| signal_process(keepalive, signal).unwrap());
        let events = || control.stream("/v1/events").collect::<Vec<Value>>();
        let count = |events: &[Value], name: &str| events.iter().filter(|event| event["event"] == name).count();
        wait_until("the report of suppressed events", || (count(&events(), "events_suppressed") > 0).then_some(()));
        let events = events();
        assert!(count(&events, "signal_ignored") < 100, "{events:?}");
        assert_eq!(events[0]["seq"], 1, "no event was pushed out of the ring");
        running.send(Signal::TERM);
        running.end();
    });
}

/// Each is taken by another process, and the service exits meanwhile. Its last status comes after them.
#[test]
fn descriptors_sent_in_one_message_each_right_before_the_exit_are_all_stored() {
    let script = r#"import sd, os
found = sd.stored()
sd.show("has", len(found))
if len(found) < 16:
    for number in range(16):
        sd.say(f"FDSTORE=1\nFDNAME=n{number}", [os.memfd_create("state")])
    sd.say("STATUS=all are stored")
    os._exit(1)
sd.wait()
"#;
    let text = "[services.web]\ncommand = [\"python3\", \"DIR/store.py\"]\nready = \"notify\"\nfd_store = 16\n\
        log = { stdout = \"inherit\", stderr = \"inherit\" }\nbackoff = { initial = \"1ms\" }\n";
    let set = set(text, &[("store.py", script)]);
    in_every_place(|place| {
        let (running, _) = begin(&set, place);
        assert_eq!([running.number("has"), running.number("has")], [0, 16]);
        finish(running);
    });
}

//! A keepalive that is suspended together with its services, as by `docker pause`.

use std::process::{Command, Stdio};
use std::time::Duration;

use keepalive::model::Signal;
use keepalive::sys::signal_process;

use crate::control::begin;
use crate::harness::{KEEPALIVE, in_every_place, wait_for_state, wait_until};
use crate::services::Set;

/// Longer than all timeouts of the services.
const PAUSE: Duration = Duration::from_secs(6);

// "Time that keepalive itself was not running counts towards no deadline."
#[test]
fn no_deadline_expires_during_a_pause() {
    let set = Set::new(
        r#"
        [services.dog]
        command = ["python3", "-c", "import sys, time; sys.path.append('DIR'); import sd; sd.say('READY=1'); print('up', flush=True)\nwhile True: sd.say('WATCHDOG=1'); time.sleep(0.1)"]
        ready = "notify"
        watchdog = "5s"
        stop_signal = "SIGKILL"
        [services.slow]
        command = ["sleep", "1000"]
        ready = { file = "DIR/ready" }
        ready_timeout = "5s"
        depends_on = ["drain"]
        [services.drain]
        command = ["sh", "-c", "trap 'echo draining; until test -e DIR/go; do sleep 0.01; done; echo drained; exit 0' TERM; while :; do sleep 0.01; done"]
        stop_timeout = "5s"
        "#,
    );
    set.directory.file("sd.py", include_bytes!("notify/sd.py"), 0o644);
    in_every_place(|place| {
        let (mut running, control) = begin(&set, place);
        running.expect("up");
        let mut stop = Command::new(KEEPALIVE)
            .args(["stop", "drain"])
            .env("KEEPALIVE_SOCKET", set.socket())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        running.expect("draining");
        assert_eq!(control.instance("slow.0")["state"], "starting");
        let keepalive = running.keepalive();
        signal_process(keepalive, Signal::STOP).unwrap();
        wait_for_state(keepalive, b'T');
        let services = crate::harness::descendants(keepalive);
        // A child of the shell may have exited meanwhile.
        let signal_services = |signal| services.iter().for_each(|pid| _ = signal_process(*pid, signal));
        signal_services(Signal::STOP);
        std::thread::sleep(PAUSE);
        signal_process(keepalive, Signal::CONT).unwrap();
        signal_services(Signal::CONT);
        let files = ["ready", "go"].map(|name| set.directory.file(name, b"", 0o644));
        running.expect("drained");
        assert!(stop.wait().unwrap().success());
        wait_until("the slow service to be ready", || (control.instance("slow.0")["state"] == "running").then_some(()));
        let dog = control.instance("dog.0");
        assert_eq!((&dog["state"], &dog["restarts"]), (&"running".into(), &0.into()), "{dog}");
        running.send(Signal::TERM);
        assert_eq!(running.end(), 0);
        let stderr = running.stderr();
        assert!(!stderr.contains("warning: "), "{stderr}");
        files.iter().for_each(|path| std::fs::remove_file(path).unwrap());
    });
}

//! Lack of descriptors at the start of keepalive, and while a service is restarted.

use std::process::Command;

use keepalive::model::Signal;
use keepalive::sys::signal_process;

use crate::harness::{KEEPALIVE, Place, Run, Running, in_every_place, wait_for_death};
use crate::http::Control;
use crate::port::ReservedPort;
use crate::services::Set;

/// Sets the soft limit of descriptors of keepalive. prlimit(1)
fn limit_descriptors(running: &Running, soft: &str) {
    let words = [format!("--pid={}", running.keepalive()), format!("--nofile={soft}:")];
    assert!(Command::new("prlimit").args(words).status().unwrap().success());
}

// getrlimit(2), RLIMIT_NOFILE: beyond the limit fcntl(2) fails with EINVAL and dup3(2) with EBADF.
#[test]
fn a_restart_while_the_descriptor_limit_is_too_low_is_tried_again_and_counts_as_nothing() {
    in_every_place(|place| {
        let port = ReservedPort::any();
        let set = Set::new(&format!(
            "[services.web]\ncommand = [\"PUPPET\", \"ignore\"]\nlisten = {{ a = \"tcp://{}\" }}\nstate = {{ size = \"4KiB\" }}\n\
             min_uptime = \"0s\"\nmax_restarts = 0\nbackoff = {{ initial = \"1ms\" }}\n",
            port.loopback()
        ));
        let mut running = set.start(place);
        let control = Control::at(&set.socket());
        running.ready();
        control.wait_for("web.0", "running");
        let open = control.descriptors_of(running.keepalive());
        for soft in [3, 4, 5, 6, 7, 8, open - 1, open, open + 1] {
            limit_descriptors(&running, &soft.to_string());
            let main = running.command();
            signal_process(main, Signal::KILL).unwrap();
            wait_for_death(main);
            // So that keepalive tries at least once.
            std::thread::sleep(std::time::Duration::from_millis(150));
            limit_descriptors(&running, "1024");
            running.ready();
            control.wait_for("web.0", "running");
        }
        assert_eq!(control.instance("web.0")["restarts"], 9);
        running.send(Signal::TERM);
        assert_eq!(running.end(), 0);
    });
}

#[test]
fn with_few_descriptors_at_the_start_proc_is_not_said_to_be_missing() {
    for limit in [8, 9, 10] {
        let script = format!("ulimit -n {limit}; exec {KEEPALIVE} run --restart never -- true");
        let (code, _, stderr) = Run::words(Place::Child, &["sh", "-c", &script]).finish();
        assert_eq!(code, 0, "{stderr}");
        assert!(!stderr.contains("/proc"), "{stderr}");
    }
}

//! Lack of descriptors and of memory, at the start of keepalive and while a service is restarted.

use std::process::Command;

use keepalive::model::Signal;
use keepalive::sys::signal_process;

use crate::harness::{KEEPALIVE, Place, Run, Running, have_root, in_every_place, wait_for_death, wait_until};
use crate::http::Control;
use crate::port::ReservedPort;
use crate::services::Set;

/// Sets a soft limit of keepalive. prlimit(1)
fn limit(running: &Running, name: &str, soft: &str) {
    let words = [format!("--pid={}", running.keepalive()), format!("--{name}={soft}:")];
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
            limit(&running, "nofile", &soft.to_string());
            let main = running.command();
            signal_process(main, Signal::KILL).unwrap();
            wait_for_death(main);
            // So that keepalive tries at least once.
            std::thread::sleep(std::time::Duration::from_millis(150));
            limit(&running, "nofile", "1024");
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
    for limit in [9, 10, 11] {
        let script = format!("ulimit -n {limit}; exec {KEEPALIVE} run --restart never -- true");
        let (code, _, stderr) = Run::words(Place::Child, &["sh", "-c", &script]).finish();
        assert_eq!(code, 0, "{stderr}");
        assert!(!stderr.contains("/proc"), "{stderr}");
    }
}

#[test]
fn without_memory_a_crash_is_restarted_requests_are_answered_and_the_stop_is_the_usual() {
    in_every_place(|place| {
        let set = Set::new(
            "[services.web]\ncommand = [\"PUPPET\", \"ignore\"]\ninstances = 3\nmin_uptime = \"0s\"\n\
             limits = { as = \"unlimited\" }\n",
        );
        let mut running = set.start(place);
        let control = Control::at(&set.socket());
        let names = ["web.0", "web.1", "web.2"];
        for _ in names {
            running.ready();
        }
        // Everything that is asked for is refused: the limit is below what is mapped already.
        limit(&running, "as", "4096");
        for round in 1..=20 {
            for name in names {
                let answer = control.post(&format!("/v1/services/{name}/signal?signal=KILL"));
                assert_eq!(answer.status, 200, "{}", answer.reason());
                running.ready();
                wait_until("restart", || (control.instance(name)["restarts"] == round).then_some(()));
            }
            assert_eq!(control.get("/metrics").status, 200, "round {round}");
        }
        limit(&running, "as", "unlimited");
        running.send(Signal::TERM);
        assert_eq!(running.end(), 0);
        let stderr = running.stderr();
        assert!(stderr.contains("memory is short"), "{stderr}");
    });
}

#[test]
fn what_ends_for_lack_of_memory_says_so_and_exits_with_71() {
    let set = Set::new("[services.web]\ncommand = [\"PUPPET\", \"ignore\"]\n");
    let check = |pages: u64| {
        let limit = format!("--as={}", pages * 4096);
        let ended = Command::new("prlimit").args([&limit, KEEPALIVE, "check", "-c", &set.config]).output().unwrap();
        // The kernel kills with a signal what it cannot load.
        (ended.status.code(), String::from_utf8(ended.stderr).unwrap())
    };
    // The smallest limit with which it works.
    let (mut fails, mut works) = (256, 1 << 16);
    while works - fails > 1 {
        let middle = u64::midpoint(fails, works);
        if check(middle).0 == Some(0) { works = middle } else { fails = middle }
    }
    assert_eq!(check(fails).0, Some(71));
    // The report needs memory too.
    for pages in fails - 10..works {
        let (code, stderr) = check(pages);
        assert!(code != Some(71) || stderr.contains("out of memory"), "{pages} of {works} pages: {stderr:?}");
    }
}

#[test]
fn no_process_outlives_keepalive_although_no_helper_can_be_created() {
    if !have_root() {
        return;
    }
    // RLIMIT_NPROC counts the processes of a user.
    const USER: &str = "--reuid=54355";
    let set = Set::new(
        "[keepalive]\ncontrol = false\nshutdown_timeout = \"300ms\"\n[services.a]\nkill_mode = \"process\"\n\
         command = [\"PUPPET\", \"daemonise\", \"0\", \"ignore\", \"15\"]\n[services.b]\ncommand = [\"sleep\", \"1000\"]\n",
    );
    let mut run = Run::words(Place::Child, &["setpriv", USER, "--clear-groups", KEEPALIVE, "-c", "/proc/self/fd/0"]);
    run.command.current_dir("/").stdin(std::fs::File::open(&set.config).unwrap());
    let mut running = run.start();
    let daemon = running.ready();
    let of = format!("--pid={}", running.keepalive());
    let prlimit = ["setpriv", USER, "--clear-groups", "prlimit", &of, "--nproc=1"];
    assert_eq!(Run::words(Place::Child, &prlimit).finish().0, 0);
    running.send(Signal::TERM);
    running.end();
    wait_for_death(daemon);
}

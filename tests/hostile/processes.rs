//! Processes that stop others, that are traced, or that multiply.

use crate::setup::{EVERYWHERE, Host, Setup, attack, in_each};

// kill(2): a process may signal those of its own user, also between clone(2) and execve(2).
#[test]
fn a_service_that_stops_every_new_process_holds_up_only_services() {
    let bait = "[services.bait]\ncommand = \"true\"\ninstances = 3\nmax_restarts = \"unlimited\"\nmin_uptime = \"0s\"\n\
        backoff = { initial = \"10ms\", max = \"10ms\" }\non_failure = \"ignore\"\nstop_timeout = \"300ms\"\n\
        restart = \"always\"\n";
    // Not among other processes of this user.
    in_each(&[Host::Unprivileged], |host| {
        let setup = Setup::start(host, &format!("command = [\"PUPPET\", \"stop-next\", \"DIR/go\"]\n{bait}"));
        setup.begin_attack();
        for _ in 0..20 {
            setup.clients_are_answered();
        }
        setup.usage_is_flat();
        let answer = setup.control.post("/v1/services/bait/restart?timeout=1s");
        assert!([200, 409, 504].contains(&answer.status), "{}", answer.body);
        setup.clients_are_answered();
        // Without it everything can be started again.
        assert_eq!(setup.control.post("/v1/services/evil/signal?signal=KILL").status, 200);
        setup.control.wait_for("evil.0", "failed");
        let answer = setup.control.post("/v1/services/victim/restart");
        assert_eq!(answer.status, 200, "{}", answer.body);
        setup.others_are_served();
        let (code, stderr) = setup.stop();
        assert_eq!(code, 0, "{stderr}");
    });
    in_each(&[Host::Unprivileged], |host| {
        let setup = Setup::start(host, &format!("command = [\"PUPPET\", \"stop-next\", \"DIR/go\"]\n{bait}"));
        setup.begin_attack();
        setup.clients_are_answered();
        let (code, stderr) = setup.stop();
        assert!([0, 137].contains(&code), "{code} {stderr}");
    });
}

// ptrace(2): until the tracer has waited for it, the parent cannot wait for a dead tracee.
#[test]
fn a_main_process_that_is_traced_by_a_daemon_of_its_own_can_be_stopped() {
    for how in ["exits", "lives", "exits event", "lives event", "lives event chain"] {
        in_each(&[Host::Root, Host::Child], |host| {
            let start = || {
                let setup = Setup::start(host, &format!("{}ready = \"notify\"\n", attack(&["traced", how])));
                setup.control.wait_for("evil.0", "running");
                setup.begin_attack();
                setup.others_are_served();
                setup
            };
            let setup = start();
            let answer = setup.control.post("/v1/services/evil/stop?timeout=30s");
            assert_eq!(answer.status, 200, "{how}: {}", answer.body);
            let (code, stderr) = setup.stop();
            assert_eq!(code, 0, "{how}: {stderr}");
            // A busy machine may need more than the two seconds of `shutdown_timeout` to find the tracer.
            let (code, stderr) = start().stop();
            assert!([0, 137].contains(&code), "{how}: {code} {stderr}");
        });
    }
}

#[test]
fn processes_that_multiply_and_daemonise_hold_up_nobody() {
    in_each(&EVERYWHERE, |host| {
        // The limit keeps the rest of the machine from running out of pids.
        let evil = "command = [\"PUPPET\", \"storm\", \"DIR/go\", \"4\"]\nlimits = { nproc = 4000 }\n";
        let setup = Setup::start(host, evil);
        setup.begin_attack();
        setup.others_are_served();
        setup.usage_is_flat();
        // keepalive ends while they go on.
        let (code, stderr) = setup.stop();
        assert!([0, 137].contains(&code), "{code} {stderr}");
    });
}

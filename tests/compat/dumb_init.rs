//! dumb-init 1.2.5.

use keepalive::model::{Pid, Signal};
use keepalive::sys::procfs;

use crate::harness::{PUPPET, Place, have_namespaces, in_every_place, stalled_pipe, wait_for_state, wait_until};
use crate::subject::{Subject, field, pending, signal_bits};

fn subjects() -> Vec<Subject> {
    Subject::all("dumb-init")
}

#[test]
fn signals_reach_the_whole_group_and_with_c_only_the_child() {
    for init in subjects() {
        in_every_place(|place| {
            for (options, count) in [([].as_slice(), 2), (&["-c"], 1)] {
                let running = init.puppet(place, options, &["with-companion", "report-signals"]).start();
                running.ready();
                running.ready();
                for signal in [Signal::USR1, Signal::USR2] {
                    running.send(signal);
                    (0..count).for_each(|_| running.expect(&format!("signal {}", signal.number())));
                }
            }
        });
    }
}

// On purpose: including real-time signals, for which dumb-init reads beyond the end of its table.
#[test]
fn every_signal_is_forwarded() {
    for init in subjects() {
        let running = init.puppet(Place::Child, &[], &["report-signals"]).start();
        running.ready();
        let others = [Signal::CHLD, Signal::TSTP, Signal::TTIN, Signal::TTOU];
        let forwarded = |signal: &Signal| signal.is_catchable() && !others.contains(signal);
        for signal in Signal::all().filter(forwarded).filter(|signal| init.is_ours || signal.number() <= 31) {
            running.send(signal);
            running.expect(&format!("signal {}", signal.number()));
        }
    }
}

#[test]
fn a_signal_is_rewritten_once_by_its_last_rewrite() {
    for init in subjects() {
        in_every_place(|place| {
            let rewrites = ["-r", "1:0", "-r", "10:2", "-r", "10:12", "-r", "12:15", "-r", "17:10", "-r", "20:20"];
            let running = init.puppet(place, &rewrites, &["report-signals"]).start();
            running.ready();
            for (sent, found) in [(Signal::USR1, 12), (Signal::USR2, 15), (Signal::TERM, 15), (Signal::INT, 2)] {
                // These signals are dropped, so the next line is that of the next signal.
                running.send(Signal::HUP);
                running.send(Signal::CHLD);
                running.send(sent);
                running.expect(&format!("signal {found}"));
            }
        });
    }
}

#[test]
fn the_child_starts_with_a_clean_signal_state_in_its_own_session() {
    for init in subjects() {
        in_every_place(|place| {
            let changes = ["block=10", "block=22", "ignore=1", "ignore=13", "ignore=21"];
            for (options, has_session) in [([].as_slice(), "true"), (&["-c"], "false")] {
                let (code, state, stderr) = init.puppet_after(place, &changes, options, &["state"]).finish();
                assert_eq!(code, 0, "{stderr}");
                let below_32 = (1 << 31) - 1;
                assert_eq!((signal_bits(&state, "SigBlk"), signal_bits(&state, "SigIgn") & below_32), (0, 0));
                assert_eq!(field(&state, "descriptors"), "0,1,2");
                assert_eq!((field(&state, "leads-group"), field(&state, "leads-session")), (has_session, has_session));
            }
        });
    }
}

#[test]
fn the_group_gets_a_final_signal_when_the_child_has_exited() {
    for init in subjects() {
        for (options, final_signal) in
            [([].as_slice(), Some(15)), (&["-r", "15:3"], Some(3)), (&["-r", "15:0"], None), (&["-c"], None)]
        {
            let verb = ["with-companion", "report-signals", "AND", "echo"];
            let mut running = init.puppet(Place::Child, options, &verb).start();
            let pids = [running.ready(), running.ready()];
            drop(running.stdin.take());
            assert_eq!(running.end(), 0);
            if let Some(signal) = final_signal {
                running.expect(&format!("signal {signal}"));
            } else {
                for pid in pids.into_iter().filter(|pid| procfs::stat(*pid).is_some_and(|stat| !stat.is_dead())) {
                    keepalive::sys::signal_process(pid, Signal::USR1).unwrap();
                }
                running.expect("signal 10");
            }
        }
    }
}

#[test]
fn terminal_stop_signals_stop_the_child_and_dumb_init() {
    for init in subjects() {
        for signal in [Signal::TSTP, Signal::TTIN, Signal::TTOU] {
            let running = init.puppet(Place::Child, &[], &["report-signals"]).start();
            let child = running.ready();
            running.send(signal);
            wait_for_state(child, b'T');
            wait_for_state(running.keepalive(), b'T');
            running.send(Signal::CONT);
            running.expect("signal 18");
        }
    }
}

// SIGSTOP never stops PID 1.
#[test]
fn as_pid_1_only_the_child_is_stopped() {
    for init in subjects() {
        if have_namespaces() {
            let running = init.puppet(Place::Init, &[], &["report-signals"]).start();
            running.ready();
            running.send(Signal::TSTP);
            wait_for_state(running.command(), b'T');
            running.send(Signal::CONT);
            running.expect("signal 18");
        }
    }
}

#[test]
fn dumb_init_stops_itself_whatever_signal_the_child_receives() {
    for init in subjects() {
        for (options, given) in [(["-r", "20:0"].as_slice(), None), (&["-r", "20:12"], Some(12)), (&["-c"], Some(20))] {
            let running = init.puppet(Place::Child, options, &["report-signals"]).start();
            running.ready();
            running.send(Signal::TSTP);
            wait_for_state(running.keepalive(), b'T');
            if let Some(signal) = given {
                running.expect(&format!("signal {signal}"));
            }
            running.send(Signal::CONT);
            running.expect("signal 18");
        }
    }
}

#[test]
fn the_verbose_log_has_a_line_for_each_signal() {
    const EXPECTED: [&str; 11] = [
        "Received signal 10.",
        "Translating signal 10 to 12.",
        "Forwarded signal 12 to children.",
        "Received signal 1.",
        "Translating signal 1 to 0.",
        "Not forwarding signal 0 to children (ignored).",
        "Received signal 15.",
        "Forwarded signal 15 to children.",
        "Received signal 17.",
        "Forwarded signal 15 to children.",
        "Child exited with status 6. Goodbye.",
    ];
    for init in subjects() {
        in_every_place(|place| {
            let mut running = init.puppet(place, &["-v", "-r", "10:12", "-r1:0"], &["end-on-term", "6"]).start();
            running.ready();
            running.send(Signal::USR1);
            running.expect("signal 12");
            running.send(Signal::HUP);
            let pid = running.keepalive();
            wait_until("the signal to be handled", || (pending(pid) == 0).then_some(()));
            running.send(Signal::TERM);
            running.expect("signal 15");
            assert_eq!(running.end(), 6);
            let stderr = running.stderr();
            let lines: Vec<&str> = stderr.lines().filter_map(|line| line.strip_prefix("[dumb-init] ")).collect();
            assert_eq!(lines.len(), stderr.lines().count(), "{stderr}");
            let is_expected = |line: &&&str| EXPECTED.contains(line);
            assert_eq!(lines.iter().filter(is_expected).copied().collect::<Vec<_>>(), EXPECTED, "{stderr}");
            assert!(lines.iter().any(|line| line.ends_with(" exited with exit status 6.")), "{stderr}");
        });
    }
}

#[test]
fn orphans_are_reaped_by_pid_1_and_not_adopted_elsewhere() {
    for init in subjects() {
        in_every_place(|place| {
            if place == Place::Init {
                let (code, _, stderr) = init.puppet(place, &["-v"], &["orphans", "3"]).finish();
                assert_eq!(code, 0, "{stderr}");
                let lines = stderr.lines().filter(|line| line.starts_with("[dumb-init] A child with PID ")).count();
                assert!(lines >= 4, "{stderr}");
            } else {
                let verb = ["with-companion", "daemonise", "0", "report-signals", "AND", "report-signals"];
                let running = init.puppet(place, &[], &verb).start();
                let pids = [running.ready(), running.ready()];
                let parent = |pid: &Pid| procfs::stat(*pid).map(|stat| stat.ppid);
                let own = running.child.id().cast_signed();
                wait_until("one of them to be adopted", || {
                    let ours = pids.iter().filter(|pid| parent(pid).is_some_and(|parent| parent == own)).count();
                    (ours == 1).then_some(())
                });
            }
        });
    }
}

// On purpose: dumb-init logs each SIGPIPE, which raises the next SIGPIPE, forever. It handles them before the exit of
// its child.
#[test]
fn a_closed_stderr_makes_only_dumb_init_spin() {
    for init in subjects() {
        let (reader, closed) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
        drop(reader);
        let mut run = init.puppet(Place::Child, &["-v"], &["echo"]);
        run.command.stderr(std::process::Stdio::from(closed));
        let mut running = run.start();
        if init.is_ours {
            running.ready();
            running.send(Signal::WINCH);
            drop(running.stdin.take());
            assert_eq!(running.end(), 0);
        } else {
            let pid = running.keepalive();
            wait_until("dumb-init to use CPU time", || (cpu_ticks(pid) > 20).then_some(()));
        }
    }
}

// On purpose: write(2) to a full pipe blocks dumb-init.
#[test]
fn a_stalled_stderr_blocks_only_dumb_init() {
    for init in subjects() {
        let (_reader, stalled) = stalled_pipe();
        let mut run = init.puppet(Place::Child, &["-v"], &["echo"]);
        run.command.stderr(std::process::Stdio::from(stalled));
        let mut running = run.start();
        if init.is_ours {
            running.ready();
            running.send(Signal::WINCH);
            drop(running.stdin.take());
            assert_eq!(running.end(), 0);
        } else {
            let channel = format!("/proc/{}/wchan", running.keepalive());
            wait_until("dumb-init to wait for the pipe", || {
                std::fs::read_to_string(&channel).is_ok_and(|place| place.contains("pipe")).then_some(())
            });
        }
    }
}

// The test suite of dumb-init asserts that its working directory does not prevent an unmount.
#[test]
fn dumb_init_changes_to_the_root_directory_and_the_child_does_not() {
    for init in subjects() {
        let mut run = init.puppet(Place::Child, &[], &["with-companion", "state", "AND", "echo"]);
        run.command.current_dir("/tmp");
        let running = run.start();
        let lines: Vec<String> = std::iter::repeat_with(|| running.line()).take(8).collect();
        assert!(lines.contains(&"directory /tmp".to_owned()), "{lines:?}");
        let own = format!("/proc/{}/cwd", running.keepalive());
        wait_until("the init to change its directory", || {
            (std::fs::read_link(&own).unwrap().to_str() == Some("/")).then_some(())
        });
    }
}

#[test]
fn a_program_with_another_name_is_not_dumb_init() {
    let ours = Subject::ours("dumb-init-2");
    assert_ne!(ours.run(Place::Child, &["-r", "15:3", PUPPET, "exit", "0"]).finish().0, 0);
}

/// proc_pid_stat(5): user and system time.
fn cpu_ticks(pid: Pid) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit(") ").next().unwrap_or_default();
    after_name.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
}

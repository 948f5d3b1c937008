//! tini 0.19, which is also docker-init.

use keepalive::model::Signal;
use keepalive::sys::signal_process;

use crate::harness::{
    PUPPET, Place, Run, have_namespaces, in_every_place, status_field, wait_for_death, wait_for_state, wait_until,
};
use crate::subject::{Subject, field, pending, signal_bits};

/// Runs `tini WORDS…` and returns exit code, stdout and stderr.
fn run(subject: &Subject, words: &[&str]) -> (i32, String, String) {
    subject.run(Place::Child, words).finish()
}

fn subjects() -> Vec<Subject> {
    Subject::all("tini")
}

#[test]
fn the_version_is_printed_only_if_it_is_the_only_argument() {
    for tini in subjects() {
        assert_eq!(run(&tini, &["--version"]), (0, "tini version 0.19.0".to_owned(), String::new()));
        let (code, stdout, stderr) = run(&tini, &["--version", "x"]);
        assert_eq!((code, stdout.as_str()), (1, ""));
        assert!(stderr.contains("invalid option -- '-'\n"), "{stderr}");
    }
}

// daemon/info_unix.go of moby: "docker-init --version", split at " - ", without the prefix "tini version ".
#[test]
fn the_names_that_docker_and_podman_use_select_tini() {
    for name in ["docker-init", "podman-init", "tini-static"] {
        let ours = Subject::ours(name);
        assert_eq!(run(&ours, &["--version"]).1, "tini version 0.19.0", "{name}");
        assert_eq!(run(&ours, &["-s", "--", PUPPET, "exit", "7"]), (7, String::new(), String::new()), "{name}");
    }
}

#[test]
fn the_usage_is_identical() {
    let usages: Vec<_> = subjects()
        .iter()
        .map(|tini| {
            let (code, usage, stderr) = run(tini, &["-h"]);
            assert_eq!((code, stderr.as_str()), (0, ""));
            let (code, stdout, on_stderr) = run(tini, &[]);
            assert_eq!((code, stdout.as_str(), on_stderr.trim_end()), (1, "", usage.trim_end()));
            usage
        })
        .collect();
    assert!(usages.windows(2).all(|pair| pair[0] == pair[1]), "{usages:?}");
    assert!(usages.iter().all(|text| text.starts_with("tini (tini version 0.19.0)\nUsage: tini [OPTIONS] PROGRAM")));
}

#[test]
fn the_licence_is_printed_on_stdout() {
    for tini in subjects() {
        let (code, stdout, stderr) = run(&tini, &["-l"]);
        assert_eq!((code, stderr.as_str()), (0, ""));
        assert!(stdout.contains("Permission is hereby granted, free of charge"), "{stdout}");
        assert_eq!(stdout.contains("Thomas Orozco"), !tini.is_ours);
    }
}

#[test]
fn invalid_options_exit_with_1() {
    for tini in subjects() {
        for (words, message) in [
            (["-z", "true"].as_slice(), "invalid option -- 'z'\n"),
            (&["-p"], "option requires an argument -- 'p'\n"),
            (&["-p", "TERM", "true"], "Not a valid option for -p: TERM\n"),
            (&["-p", "15", "true"], "Not a valid option for -p: 15\n"),
            (&["-p", "sigterm", "true"], "Not a valid option for -p: sigterm\n"),
            (&["-p", "SIGIO", "true"], "Not a valid option for -p: SIGIO\n"),
            (&["-e", "256", "true"], "Not a valid option for -e: 256\n"),
            (&["-e", "-1", "true"], "Not a valid option for -e: -1\n"),
            (&["-e", "x", "true"], "Not a valid option for -e: x\n"),
            (&["-s", "--"], "Usage: tini"),
        ] {
            let (code, stdout, stderr) = run(&tini, words);
            assert_eq!((code, stdout.as_str()), (1, ""), "{words:?}");
            assert!(stderr.contains(message), "{words:?}: {stderr}");
        }
    }
}

#[test]
fn the_exit_code_is_that_of_the_child_or_128_plus_its_signal() {
    for tini in subjects() {
        in_every_place(|place| {
            for (verb, code) in
                [(["exit", "0"], 0), (["exit", "255"], 255), (["die-of", "9"], 137), (["die-of", "15"], 143)]
            {
                assert_eq!(tini.puppet(place, &["-s"], &verb).finish().0, code, "{verb:?}");
            }
        });
    }
}

#[test]
fn a_failed_exec_exits_with_127_126_or_1() {
    for tini in subjects() {
        for (command, code, reason) in [
            ("nosuchprogram", 127, "No such file or directory"),
            ("", 127, "No such file or directory"),
            ("/etc/passwd", 126, "Permission denied"),
            ("/etc", 126, "Permission denied"),
            ("/etc/passwd/x", 1, "Not a directory"),
        ] {
            let (found, stdout, stderr) = run(&tini, &["-s", "--", command]);
            assert_eq!((found, stdout.as_str()), (code, ""), "{command}: {stderr}");
            assert!(stderr.starts_with("[FATAL tini ("), "{stderr}");
            assert!(stderr.ends_with(&format!(")] exec {command} failed: {reason}\n")), "{stderr}");
        }
        assert_eq!(run(&tini, &["-s", "--", "--", "true"]).0, 127);
    }
}

#[test]
fn every_exit_code_can_be_remapped_to_0() {
    for tini in subjects() {
        let code = |options: &[&str], command: &[&str]| run(&tini, &[&["-s"], options, command].concat()).0;
        assert_eq!(code(&["-e", "143"], &[PUPPET, "die-of", "15"]), 0);
        assert_eq!(code(&["-e", "3", "-e4"], &[PUPPET, "exit", "4"]), 0);
        assert_eq!(code(&["-e", "3"], &[PUPPET, "exit", "4"]), 4);
        assert_eq!(code(&["-e", " +7"], &[PUPPET, "exit", "7"]), 0);
        assert_eq!(code(&["-e", ""], &[PUPPET, "exit", "7"]), 7);
        assert_eq!(code(&["-e", "127"], &["nosuchprogram"]), 0);
    }
}

#[test]
fn tini_warns_if_it_cannot_reap_orphans() {
    const WARNING: &str = "zombie reaping won't work";
    for tini in subjects() {
        let warned = |options: &[&str], variable: Option<(&str, &str)>| {
            let mut run = tini.puppet(Place::Child, options, &["exit", "0"]);
            run.command.envs(variable);
            let (code, stdout, stderr) = run.finish();
            assert_eq!((code, stdout.as_str()), (0, ""));
            stderr.starts_with("[WARN  tini (") && stderr.contains(WARNING)
        };
        assert!(warned(&[], None));
        assert!(!warned(&["-s"], None));
        assert!(!warned(&[], Some(("TINI_SUBREAPER", ""))));
        assert!(!warned(&[], Some(("TINI_VERBOSITY", "0"))));
        assert!(!warned(&["-v"], Some(("TINI_VERBOSITY", "junk"))));
        // prctl(2): "The setting is preserved across execve(2)", so the program before it may have set it.
        let after = tini.puppet_after(Place::Child, &["subreaper=1"], &[], &["exit", "0"]).finish();
        assert_eq!(after, (0, String::new(), String::new()));
        if have_namespaces() {
            assert_eq!(tini.puppet(Place::Init, &[], &["exit", "0"]).finish().2, "");
        }
    }
}

#[test]
fn zombies_are_reaped_and_with_w_logged() {
    for tini in subjects() {
        if have_namespaces() {
            let (code, _, stderr) = tini.puppet(Place::Init, &["-s", "-w"], &["orphans", "3"]).finish();
            assert_eq!(code, 0, "{stderr}");
            assert!(stderr.lines().count() >= 3, "{stderr}");
            let is_logged =
                |line: &str| line.starts_with("[WARN  tini (") && line.contains(")] Reaped zombie process with pid=");
            assert!(stderr.lines().all(is_logged), "{stderr}");
        }
    }
}

#[test]
fn signals_reach_only_the_child_and_with_g_its_group() {
    for tini in subjects() {
        in_every_place(|place| {
            for (options, variable) in
                [(["-s"].as_slice(), None), (&["-sg"], None), (&["-s"], Some(("TINI_KILL_PROCESS_GROUP", "")))]
            {
                let mut run = tini.puppet(place, options, &["with-companion", "report-signals"]);
                run.command.envs(variable);
                let running = run.start();
                running.ready();
                running.ready();
                running.send(Signal::USR1);
                running.expect("signal 10");
                if options == ["-sg"] || variable.is_some() {
                    running.expect("signal 10");
                }
                running.send(Signal::USR2);
                running.expect("signal 12");
            }
        });
    }
}

// On purpose: tini does not forward signals of faults, of which PID 1 ignores the default action and other processes
// die, nor SIGTTIN and SIGTTOU.
#[test]
fn keepalive_forwards_every_signal_and_tini_most() {
    for tini in subjects() {
        let running = tini.puppet(Place::Child, &["-s"], &["report-signals"]).start();
        running.ready();
        let kept_by_tini = [4, 5, 6, 7, 8, 11, 21, 22, 31, 32, 33];
        for signal in Signal::all().filter(|signal| signal.is_catchable() && *signal != Signal::CHLD) {
            let number = signal.number();
            if kept_by_tini.contains(&number) && !tini.is_ours {
                continue;
            }
            running.send(signal);
            running.expect(&format!("signal {number}"));
        }
        if !tini.is_ours {
            let mut running = running;
            running.send(Signal::ABRT);
            wait_until("tini to die of the signal", || running.child.try_wait().unwrap());
        }
    }
}

#[test]
fn the_child_inherits_mask_dispositions_and_descriptors_and_leads_a_group() {
    for tini in subjects() {
        in_every_place(|place| {
            let changes = ["block=10", "block=22", "ignore=1", "ignore=13", "ignore=21"];
            let (code, state, stderr) = tini.puppet_after(place, &changes, &["-s"], &["state"]).finish();
            assert_eq!(code, 0, "{stderr}");
            assert_eq!(signal_bits(&state, "SigBlk"), 1 << 9 | 1 << 21);
            let asked = 1 | 1 << 12 | 1 << 20;
            assert_eq!(signal_bits(&state, "SigIgn") & asked, asked);
            assert_eq!((field(&state, "leads-group"), field(&state, "leads-session")), ("true", "false"));
            assert_eq!(field(&state, "descriptors"), "0,1,2");
        });
    }
}

// wait(2): with SIGCHLD ignored, the kernel reaps. tini then waits forever.
#[test]
fn an_ignored_sigchld_hides_the_exit_of_the_child_only_from_tini() {
    for tini in subjects() {
        let mut running = tini.puppet_after(Place::Child, &["ignore=17"], &["-s"], &["end-on-term", "5"]).start();
        let child = running.ready();
        running.send(Signal::TERM);
        running.expect("signal 15");
        if tini.is_ours {
            assert_eq!(running.end(), 5);
        } else {
            wait_for_death(child);
            // Two iterations of its loop, in which it checks its child.
            for _ in 0..2 {
                running.send(Signal::USR1);
                let tini = running.keepalive();
                wait_until("the signal to be handled", || (pending(tini) == 0).then_some(()));
            }
            // Dropping `running` kills it.
            assert_eq!(running.child.try_wait().unwrap(), None);
        }
    }
}

// kill(2): EPERM. tini exits, and with it the container.
#[test]
fn a_child_that_cannot_be_signalled_ends_only_tini() {
    if !crate::harness::have_root() {
        return;
    }
    for tini in subjects() {
        let drop = ["setpriv", "--inh-caps=-all", "--bounding-set=-kill", tini.path(), "-s", "--"];
        let mut running = Run::words(Place::Child, &[&drop[..], &[PUPPET, "as-user", "1000", "echo"]].concat()).start();
        running.ready();
        running.send(Signal::TERM);
        if tini.is_ours {
            let pid = running.keepalive();
            wait_until("the signal to be handled", || {
                (status_field(pid, "ShdPnd") == "0000000000000000").then_some(())
            });
            drop_stdin(&mut running);
            assert_eq!(running.end(), 0);
        } else {
            assert_eq!(running.end(), 1);
            drop_stdin(&mut running);
        }
        let stderr = running.stderr();
        assert!(stderr.contains("Unexpected error when forwarding signal: 'Operation not permitted'"), "{stderr}");
    }
}

fn drop_stdin(running: &mut crate::harness::Running) {
    drop(running.stdin.take());
}

// On purpose: words after the name of the program belong to the program, whatever libc tini was built with. Messages of
// -v are not mixed into the output of the program.
#[test]
fn keepalive_parses_only_options_before_the_program_and_never_logs_to_stdout() {
    for tini in subjects() {
        let (code, stdout, _) = run(&tini, &["-s", "ls", "-l", "/dev/null"]);
        assert_eq!((code, stdout.contains("Permission is hereby granted")), (0, !tini.is_ours), "{stdout}");
        let (code, stdout, stderr) = run(&tini, &["-s", "-vvv", "--", PUPPET, "die-of", "9"]);
        assert_eq!(code, 137);
        let log = if tini.is_ours { &stderr } else { &stdout };
        assert!(
            log.contains("[INFO  tini (") && log.contains(&format!(")] Spawned child process '{PUPPET}' with pid '"))
        );
        assert!(log.contains(")] Main child exited with signal (with signal 'Killed')"), "{log}");
    }
}

#[test]
fn the_child_gets_a_signal_when_the_parent_of_tini_dies() {
    for tini in subjects() {
        let words = [PUPPET, "parent", tini.path(), "-s", "-p", "SIGUSR2", "--", PUPPET, "report-signals"];
        let mut running = Run::words(Place::Child, &words).start();
        let lines = [running.line(), running.line()];
        assert!(lines.iter().any(|line| line.starts_with("started ")), "{lines:?}");
        drop_stdin(&mut running);
        running.expect("signal 12");
    }
}

// write(2): EPIPE raises SIGPIPE, which concerns only the writer. A full pipe blocks tini forever.
#[test]
fn a_stalled_or_closed_stderr_affects_neither_keepalive_nor_the_child() {
    let tini = Subject::ours("tini");
    in_every_place(|place| {
        let (reader, closed) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
        drop(reader);
        let (_reader, stalled) = crate::harness::stalled_pipe();
        for stderr in [closed, stalled] {
            let mut run = tini.puppet(place, &["-s", "-vvv"], &["end-on-term", "4"]);
            run.command.stderr(std::process::Stdio::from(stderr));
            let mut running = run.start();
            running.ready();
            running.send(Signal::HUP);
            running.expect("signal 1");
            running.send(Signal::TERM);
            running.expect("signal 15");
            assert_eq!(running.end(), 4);
        }
    });
}

// On purpose: a child that a forwarded signal has stopped stays stopped. keepalive continues it for SIGTERM; under tini
// SIGTERM stays pending.
#[test]
fn a_forwarded_stop_signal_stops_the_child() {
    for tini in subjects() {
        in_every_place(|place| {
            let mut running = tini.puppet(place, &["-s"], &["echo"]).start();
            running.ready();
            let child = running.command();
            running.send(Signal::TSTP);
            wait_for_state(child, b'T');
            running.send(Signal::USR1);
            wait_until("the signal to reach the child", || (pending(child) & 1 << 9 != 0).then_some(()));
            wait_for_state(child, b'T');
            if tini.is_ours {
                running.send(Signal::TERM);
                assert_ne!(running.end(), 0);
            } else {
                running.send(Signal::KILL);
            }
        });
    }
}

// On purpose: the originals leave it stopped. The init gets SIGTERM right after the command gets SIGSTOP.
#[test]
fn a_drop_in_continues_a_stopped_command_for_sigterm() {
    for name in ["tini", "catatonit"] {
        let init = Subject::ours(name);
        for _ in 0..40 {
            let mut running = init.puppet(Place::Child, &[], &["end-on-term", "5"]).start();
            let command = running.ready();
            signal_process(command, Signal::STOP).unwrap();
            running.send(Signal::TERM);
            running.expect("signal 15");
            assert_eq!(running.end(), 5, "{name}");
        }
    }
}

// tini prints it on stdout, where it is lost unless stdout is a terminal.
#[test]
fn the_most_verbose_log_names_the_missing_terminal() {
    let tini = Subject::ours("tini");
    for (verbosity, is_logged) in [("2", false), ("3", true)] {
        let mut run = tini.run(Place::Child, &["-s", "--", "true"]);
        run.command.env("TINI_VERBOSITY", verbosity);
        let (code, _, stderr) = run.finish();
        assert_eq!(code, 0);
        assert_eq!(stderr.contains("] tcsetpgrp failed: no tty (ok to proceed)\n"), is_logged, "{stderr}");
    }
}

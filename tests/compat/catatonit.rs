//! catatonit 0.2.1. Debian may have an older version; tests that depend on the version say so.

use std::path::PathBuf;

use keepalive::model::{Pid, Signal};
use keepalive::sys::procfs;

use crate::harness::{
    PUPPET, Place, Running, have_namespaces, have_root, in_every_place, status_field, wait_for_death, wait_for_state,
    wait_until,
};
use crate::session::{CTRL_C, Session};
use crate::subject::{Subject, field, pending, signal_bits};

fn subjects() -> Vec<Subject> {
    Subject::all("catatonit")
}

#[test]
fn signals_reach_only_the_child_and_with_g_its_group() {
    for init in subjects() {
        in_every_place(|place| {
            for (options, count) in [([].as_slice(), 1), (&["-g"], 2)] {
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

// On purpose: catatonit does not forward signals of faults. PID 1 ignores their default action.
#[test]
fn all_signals_except_those_of_the_terminal_are_forwarded() {
    for init in subjects() {
        in_every_place(|place| {
            let running = init.puppet(place, &[], &["report-signals"]).start();
            running.ready();
            for stop in [Signal::TSTP, Signal::TTIN, Signal::TTOU] {
                running.send(stop);
            }
            let held = [Signal::CHLD, Signal::TSTP, Signal::TTIN, Signal::TTOU];
            let of_faults = [4, 5, 6, 7, 8, 11, 31, 32, 33];
            for signal in Signal::all().filter(|signal| signal.is_catchable() && !held.contains(signal)) {
                if init.is_ours || !of_faults.contains(&signal.number()) {
                    running.send(signal);
                    running.expect(&format!("signal {}", signal.number()));
                } else if place == Place::Init {
                    // This signal is dropped, so the next line is that of the next signal.
                    running.send(signal);
                }
            }
        });
    }
}

// On purpose: catatonit leaves SIGTSTP, SIGTTIN and SIGTTOU blocked in the child.
#[test]
fn the_child_inherits_mask_dispositions_and_descriptors_and_leads_a_group() {
    for init in subjects() {
        in_every_place(|place| {
            let changes = ["block=10", "block=12", "ignore=1", "ignore=13"];
            let (code, state, stderr) = init.puppet_after(place, &changes, &[], &["state"]).finish();
            assert_eq!(code, 0, "{stderr}");
            let stops = 1 << 19 | 1 << 20 | 1 << 21;
            let found = 1 << 9 | 1 << 11;
            assert_eq!(signal_bits(&state, "SigBlk"), if init.is_ours { found } else { found | stops });
            let asked = 1 | 1 << 12;
            assert_eq!(signal_bits(&state, "SigIgn") & asked, asked);
            assert_eq!((field(&state, "leads-group"), field(&state, "leads-session")), ("true", "false"));
            assert_eq!(field(&state, "descriptors"), "0,1,2");
        });
    }
}

#[test]
fn the_exit_code_is_that_of_the_child_or_128_plus_its_signal() {
    for init in subjects() {
        in_every_place(|place| {
            for (verb, code) in [(["exit", "255"], 255), (["die-of", "9"], 137), (["die-of", "15"], 143)] {
                assert_eq!(init.puppet(place, &[], &verb).finish().0, code, "{verb:?}");
            }
        });
    }
}

// fork(2): EAGAIN, RLIMIT_NPROC.
#[test]
fn a_failed_fork_is_reported_twice() {
    if !have_root() {
        return;
    }
    for init in subjects() {
        let script = "exec prlimit --nproc=1 setpriv --reuid=12345 \"$INIT\" -- true";
        let (code, _, stderr) = init.script(Place::Child, script).finish();
        let (fork, spawn) = ("failed to fork child", "failed to spawn pid1");
        let messages: Vec<_> = stderr.lines().filter_map(|line| line.split_once("): ")).map(|(_, text)| text).collect();
        let expected = [fork, spawn].map(|what| format!("{what}: Resource temporarily unavailable"));
        assert_eq!((code, messages), (1, expected.each_ref().map(String::as_str).to_vec()), "{stderr}");
    }
}

// Two processes of the original write lines in pieces, so lines may be mixed. The run is repeated until they are not.
#[test]
fn the_debug_log_names_each_step_and_the_missing_terminal() {
    let no_terminal = [
        "DEBUG: setting foreground process failed: no tty present: Inappropriate ioctl for device",
        "INFO: using stdin as tty fd: could not open /dev/tty: No such device or address",
    ];
    let nobody = "DEBUG: got ECHILD: no children left to monitor";
    let executed = ["DEBUG: pid1 (#) spawned: true", nobody];
    let failed =
        ["DEBUG: pid1 (#) spawned: /nonexistent", "ERROR: failed to exec pid1: No such file or directory", nobody];
    for init in subjects() {
        for (program, steps) in [("true", &executed[..]), ("/nonexistent", &failed)] {
            let mut expected = [&no_terminal[..], steps].concat();
            expected.sort_unstable();
            let messages = || {
                let mut run = init.script(Place::Child, &format!("exec setsid -w \"$INIT\" -- {program}"));
                run.command.env("CATATONIT_DEBUG", "");
                without_ids(&run.finish().2)
            };
            if init.is_ours {
                assert_eq!(messages(), expected);
            } else {
                wait_until("complete lines", || (messages() == expected).then_some(()));
            }
        }
    }
}

/// The sorted lines as `SEVERITY: TEXT`, with `(#)` for every number in parentheses.
fn without_ids(log: &str) -> Vec<String> {
    let is_id = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let mut lines = Vec::new();
    for line in log.lines() {
        let (severity, text) = line.split_once(" (catatonit:").unwrap_or_default();
        let text = text.split_once("): ").map_or("", |(_, text)| text);
        let parts = text.split('(').map(|part| match part.split_once(')') {
            Some((id, rest)) if is_id(id) => format!("#){rest}"),
            _ => part.to_owned(),
        });
        lines.push(format!("{severity}: {}", parts.collect::<Vec<_>>().join("(")));
    }
    lines.sort_unstable();
    lines
}

#[test]
fn orphans_are_reaped() {
    for init in subjects() {
        if have_namespaces() {
            let (code, stdout, stderr) = init.puppet(Place::Init, &[], &["orphans", "1200"]).finish();
            assert_eq!((code, stdout.as_str()), (0, "made 1200\nnone left"), "{stderr}");
        }
    }
}

#[test]
fn the_pause_mode_reaps_until_sigterm_or_sigint() {
    for init in subjects() {
        in_every_place(|place| {
            for end in [Signal::TERM, Signal::INT] {
                let mut run = init.script(place, "\"$PUPPET\" echo <&0 & exec \"$INIT\" -P -- x y");
                run.command.current_dir("/tmp");
                let mut running = run.start();
                running.ready();
                let pid = running.keepalive();
                wait_until("the init to block signals", || holds_signals(&init, pid).then_some(()));
                for signal in [Signal::HUP, Signal::USR1, Signal::QUIT, Signal::TSTP] {
                    running.send(signal);
                }
                drop(running.stdin.take());
                wait_until("the child to be reaped", || procfs::descendants(pid).is_empty().then_some(()));
                running.send(end);
                assert_eq!(running.end(), 0);
                assert_eq!(running.stderr(), "");
            }
        });
    }
}

// wait(2): with SIGCHLD ignored, the kernel reaps. catatonit then waits forever.
#[test]
fn an_ignored_sigchld_hides_the_exit_of_the_child_only_from_catatonit() {
    for init in subjects() {
        let mut running = init.puppet_after(Place::Child, &["ignore=17"], &[], &["end-on-term", "5"]).start();
        let child = running.ready();
        running.send(Signal::TERM);
        running.expect("signal 15");
        if init.is_ours {
            assert_eq!(running.end(), 5);
        } else {
            wait_for_death(child);
            // One iteration of its loop.
            running.send(Signal::USR1);
            let pid = running.keepalive();
            wait_until("the signal to be handled", || (pending(pid) == 0).then_some(()));
            wait_for_state(pid, b'S');
            assert_eq!(running.child.try_wait().unwrap(), None);
        }
    }
}

// On purpose: write(2) raises SIGPIPE, and catatonit forwards it.
#[test]
fn a_closed_stderr_kills_only_the_child_of_catatonit() {
    for init in subjects() {
        let (reader, closed) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
        drop(reader);
        let mut run = init.puppet(Place::Child, &[], &["echo"]);
        run.command.stderr(std::process::Stdio::from(closed)).env("CATATONIT_DEBUG", "1");
        let mut running = run.start();
        if init.is_ours {
            running.ready();
            drop(running.stdin.take());
            assert_eq!(running.end(), 0);
        } else {
            assert_eq!(running.end(), 141);
        }
    }
}

// As 0.2.1 does. Older versions keep the working directory.
#[test]
fn keepalive_changes_to_the_root_directory_and_the_child_does_not() {
    let init = Subject::ours("catatonit");
    let mut run = init.puppet(Place::Child, &[], &["echo"]);
    run.command.current_dir("/tmp");
    let running = run.start();
    let child = running.ready();
    let own = running.keepalive();
    wait_until("the init to change its directory", || (directory(own).to_str() == Some("/")).then_some(()));
    assert_eq!(directory(child).to_str(), Some("/tmp"));
}

fn directory(pid: Pid) -> PathBuf {
    std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap()
}

/// Whether the init blocks signals. keepalive waits in rt_sigtimedwait(2), during which no signal counts as blocked.
/// Its last step before is to change its directory.
fn holds_signals(init: &Subject, pid: Pid) -> bool {
    // The shell that executes the init also blocks signals while it forks.
    let executable = std::fs::read_link(format!("/proc/{pid}/exe"));
    if executable.is_ok_and(|executable| std::fs::canonicalize("/bin/sh").is_ok_and(|shell| shell == executable)) {
        return false;
    }
    if init.is_ours { directory(pid).to_str() == Some("/") } else { status_field(pid, "SigBlk") != "0000000000000000" }
}

#[test]
fn the_child_has_the_terminal_and_ctrl_c_ends_it() {
    for init in subjects() {
        let mut session = Session::job_of_shell(&[init.path(), "--", PUPPET, "echo"]);
        let child = session.running.ready();
        wait_until("the child to have the terminal", || (session.foreground() == child.get()).then_some(()));
        session.press(b"hello\n");
        session.running.expect("line hello");
        session.press(CTRL_C);
        session.running.expect("ended 130");
    }
}

// It opens /dev/tty, or uses stdin if it cannot.
#[test]
fn the_child_has_the_terminal_even_if_stdin_is_redirected() {
    for init in subjects() {
        let words = [PUPPET, "with", "null=0", "--", init.path(), "--"];
        let reads = ["/bin/sh", "-c", "exec \"$@\" </dev/tty", "sh", PUPPET, "echo"];
        let mut session = Session::job_of_shell(&[&words[..], &reads].concat());
        let child = session.running.ready();
        assert_eq!(session.foreground(), child.get());
        session.press(b"hello\n");
        session.running.expect("line hello");
        session.press(CTRL_C);
        session.running.expect("ended 130");
    }
}

#[test]
fn the_exit_of_the_child_is_noticed_among_many_sigchld() {
    for init in subjects() {
        in_every_place(|place| {
            let mut running: Running = init.puppet(place, &[], &["end-on-term", "9"]).start();
            running.ready();
            for _ in 0..50 {
                running.send(Signal::CHLD);
            }
            running.send(Signal::TERM);
            running.expect("signal 15");
            assert_eq!(running.end(), 9);
        });
    }
}

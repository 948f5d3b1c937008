//! Reloads of the configuration: reading files and reporting errors.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;

use keepalive::model::{Pid, Signal};
use keepalive::sys::{procfs, signal_process};

use crate::control::begin;
use crate::harness::{KEEPALIVE, Place, Run, in_every_place, wait_for_death, wait_until};
use crate::http::Control;
use crate::port::ReservedPort;
use crate::services::Set;

const SLEEPER: &str = "[services.web]\ncommand = [\"PUPPET\", \"ignore\"]\n";

impl Set {
    pub(crate) fn change(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(&self.config).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(&self.config, text.replace(from, to)).unwrap();
    }
}

/// The writing end of a pipe, as soon as it has a reader.
fn writer(path: &str) -> File {
    let open = || File::options().write(true).custom_flags(libc::O_NONBLOCK).open(path).ok();
    wait_until("a reader of the pipe", open)
}

/// A pipe as the `env_file` of the service.
fn with_pipe(set: &Set) -> String {
    let pipe = set.directory.path().join("env").to_str().unwrap().to_owned();
    std::fs::remove_file(&pipe).ok();
    nix::unistd::mkfifo(pipe.as_str(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    pipe
}

/// A reload that reads a pipe: the connection of the client and the writing end of the pipe.
fn reload_that_waits(set: &Set, control: &Control) -> (UnixStream, File) {
    control.wait_for("web.0", "running");
    let pipe = with_pipe(set);
    set.change("command", "env_file = [\"env\"]\ncommand");
    let asked = control.ask("POST", "/v1/reload");
    (asked, writer(&pipe))
}

pub(crate) fn answer(mut asked: UnixStream) -> String {
    let mut answer = String::new();
    asked.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn slow_configuration_files_delay_only_the_reload() {
    in_every_place(|place| {
        let set = Set::new(SLEEPER);
        let (mut running, control) = begin(&set, place);
        let (asked, mut writer) = reload_that_waits(&set, &control);
        // If PID 1 itself read the pipe, it would not answer before the end of the file.
        assert_eq!(control.post("/v1/services/web/restart").status, 200);
        writer.write_all(b"COLOUR=red\n").unwrap();
        drop(writer);
        let answer = answer(asked);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert_eq!(control.instance("web.0")["restarts"], 0);
        running.send(Signal::TERM);
        assert_eq!(running.end(), 0);
    });
}

#[test]
fn a_shutdown_does_not_wait_for_configuration_files() {
    in_every_place(|place| {
        let set = Set::new(SLEEPER);
        let (mut running, control) = begin(&set, place);
        let (asked, writer) = reload_that_waits(&set, &control);
        running.send(Signal::TERM);
        let answer = answer(asked);
        assert!(answer.contains("keepalive is shutting down"), "{answer}");
        assert_eq!(running.end(), 0);
        drop(writer);
    });
}

// prctl(2), PR_SET_PDEATHSIG
#[test]
fn the_loader_process_dies_with_keepalive_and_has_none_of_its_descriptors() {
    let port = ReservedPort::any();
    let listen = format!("listen.http = \"tcp://{port}\"\n");
    let set = Set::new(&format!("{SLEEPER}{listen}"));
    let (running, control) = begin(&set, Place::Child);
    control.wait_for("web.0", "running");
    let worker = control.instance("web.0")["pid"].as_i64().and_then(|pid| Pid::new(pid.try_into().ok()?)).unwrap();
    let pipe = with_pipe(&set);
    set.change("[keepalive]", "[keepalive]\ninclude = [\"en*\"]");
    let asked = control.ask("POST", "/v1/reload");
    let mut writer = writer(&pipe);
    let reader = child_named(running.keepalive(), "keepalive-read");
    let open = std::fs::read_dir(format!("/proc/{reader}/fd")).unwrap().flatten();
    let open: Vec<_> = open.filter_map(|entry| std::fs::read_link(entry.path()).ok()).collect();
    let is_ours = |path: &&std::path::PathBuf| {
        let path = path.to_string_lossy();
        path.starts_with("socket:") || path.contains("signalfd")
    };
    assert_eq!(open.iter().find(is_ours), None, "{open:?}");
    running.send(Signal::KILL);
    wait_for_death(running.keepalive());
    wait_until("the exit of the loader process", || {
        // The loader times out on a silent pipe. That must not be the reason for its exit.
        writer.write_all(b"#").ok();
        procfs::stat(reader).is_none_or(|stat| stat.is_dead()).then_some(())
    });
    // The other process has the socket too.
    signal_process(worker, Signal::KILL).unwrap();
    wait_for_death(worker);
    wait_until("the port to be free", || TcpListener::bind(port.loopback()).ok());
    drop((writer, asked));
}

#[test]
fn a_configuration_passed_as_a_descriptor_is_read_again() {
    let set = Set::new(SLEEPER);
    let line = "exec \"$0\" -c /dev/fd/3 3< \"$1\"";
    in_every_place(|place| {
        let mut run = Run::words(place, &["sh", "-c", line, KEEPALIVE, &set.config]);
        run.command.env("KEEPALIVE_SOCKET", set.socket());
        let mut running = run.start();
        let control = Control::at(&set.socket());
        control.wait_for("web.0", "running");
        set.change("web", "wob");
        assert_eq!(control.post("/v1/reload").status, 200);
        control.wait_for("wob.0", "running");
        set.change("wob", "web");
        running.send(Signal::TERM);
        assert_eq!(running.end(), 0);
    });
}

#[test]
fn configuration_files_over_8_mib_in_all_are_rejected() {
    let set = Set::new(SLEEPER);
    let (mut running, control) = begin(&set, Place::Child);
    control.wait_for("web.0", "running");
    for number in 0..9 {
        set.directory.file(&format!("{number}.env"), &[b'#'; 1 << 20], 0o644);
    }
    let paths: Vec<_> = (0..9).map(|number| format!("{number}.env")).collect();
    set.change("command", &format!("env_file = {paths:?}\ncommand"));
    let answer = control.post("/v1/reload");
    assert_eq!(answer.status, 409);
    let reason = answer.reason();
    let error = reason.lines().find(|line| line.contains("cannot read")).unwrap_or(&reason);
    assert!(error.ends_with("/7.env`: all files together are larger than 8 MiB"), "{reason}");
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
}

#[test]
fn a_warning_about_a_reloaded_configuration_is_logged_line_by_line() {
    let set = Set::new(SLEEPER);
    let (mut running, control) = begin(&set, Place::Child);
    control.wait_for("web.0", "running");
    let text = std::fs::read_to_string(&set.config).unwrap();
    std::fs::write(&set.config, format!("{text}[services.web.env]\nnice = 5\n")).unwrap();
    assert_eq!(control.post("/v1/reload").status, 200);
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
    let stderr = running.stderr();
    let at = stderr.lines().position(|line| line.ends_with(": `nice` is a variable here, not the key of the service"));
    let rest: Vec<&str> = at.map_or_else(Vec::new, |at| stderr.lines().skip(at + 1).take(3).collect());
    let [excerpt, carets, hint] = rest[..] else { panic!("{stderr}") };
    assert!(excerpt.ends_with(" | nice = 5") && carets.ends_with(" | ^^^^"), "{stderr}");
    assert!(hint.contains("  = move it above"), "{stderr}");
}

/// The settings that cannot change touch no service, and the answer says so.
#[test]
fn a_reload_leaves_what_cannot_change_as_it_is_and_answers_with_warnings() {
    let set = Set::new(
        "[services.web]\ncommand = [\"sh\", \"-c\", \"echo out; exec sleep 1000\"]\n[services.job]\ntype = \"oneshot\"\ncommand = \"true\"\n",
    );
    let text = std::fs::read_to_string(&set.config).unwrap();
    in_every_place(|place| {
        let (mut running, control) = begin(&set, place);
        control.wait_for("web.0", "running");
        control.wait_for("job.0", "completed");
        let pid = control.instance("web.0")["pid"].clone();
        let is = "of [keepalive] cannot change while keepalive runs: restart keepalive to apply it";
        for log in ["{ format = \"json\" }", "{ timestamps = true }"] {
            let new = text.replace("[keepalive]", &format!("[keepalive]\nlog = {log}\nhttp = \"127.0.0.1:1\""));
            std::fs::write(&set.config, format!("{new}[services.web.env]\nnice = 5\n")).unwrap();
            let answer = control.post("/v1/reload");
            let json = answer.json();
            let lines: Vec<&str> = json["warning"].as_str().unwrap_or_default().lines().collect();
            assert_eq!(
                lines.get(..2),
                Some(&[&*format!("`http` {is}"), &*format!("`log` {is}")][..]),
                "{}",
                answer.body
            );
            let [_, _, nice] = lines[..] else { panic!("{lines:?}") };
            assert!(nice.contains(": `nice` is a variable here, not the key of the service (move it above"), "{nice}");
        }
        std::fs::write(&set.config, text.replace("[keepalive]", "[keepalive]\nlog = { format = \"json\" }")).unwrap();
        let client =
            std::process::Command::new(KEEPALIVE).arg("reload").env("KEEPALIVE_SOCKET", set.socket()).output().unwrap();
        let stderr = String::from_utf8_lossy(&client.stderr);
        assert!(client.status.success() && stderr == format!("keepalive: warning: `log` {is}\n"), "{stderr}");
        // The variable `nice` has come and gone.
        assert_ne!(control.instance("web.0")["pid"], pid);
        let pid = control.instance("web.0")["pid"].clone();
        std::fs::write(&set.config, &text).unwrap();
        let answer = control.post("/v1/reload");
        assert_eq!((&answer.json()["warning"], answer.status), (&serde_json::Value::Null, 200), "{}", answer.body);
        assert_eq!((&control.instance("web.0")["pid"], &control.instance("job.0")["restarts"]), (&pid, &0.into()));
        // Three processes have written this, all in the format of the start.
        (0..3).for_each(|_| running.expect("out"));
        running.send(Signal::TERM);
        assert_eq!(running.end(), 0);
    });
}

fn child_named(parent: Pid, name: &str) -> Pid {
    wait_until("a child with this name", || {
        let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
        let mut children = children.split_whitespace().filter_map(|pid| pid.parse().ok().and_then(Pid::new));
        children
            .find(|pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim_end() == name))
    })
}

#[test]
fn an_exec_failure_of_a_new_process_names_its_own_program() {
    let set = Set::new(SLEEPER);
    in_every_place(|place| {
        let (mut running, control) = begin(&set, place);
        control.wait_for("web.0", "running");
        let text = std::fs::read_to_string(&set.config).unwrap();
        set.change("command = [", "command = [\"/nonexistent/program\", ");
        let refused =
            "the new process of web.0 failed: cannot execute `/nonexistent/program`: No such file or directory";
        let answer = control.post("/v1/reload");
        assert_eq!((answer.status, answer.reason()), (409, refused.to_owned()));
        let events = control.get("/v1/events").body;
        let messages: Vec<_> = events.lines().filter(|line| line.contains("cannot execute")).collect();
        assert!(messages.len() == 3 && messages.iter().all(|line| line.contains("`/nonexistent/program`")), "{events}");
        std::fs::write(&set.config, text).unwrap();
        running.send(Signal::TERM);
        assert_eq!(running.end(), 0);
    });
}

#[test]
fn a_reload_can_start_capturing_the_output_of_services() {
    let set = Set::new("[services.web]\ncommand = [\"/bin/sh\", \"-c\", \"echo hello; exec $0 ignore\", \"PUPPET\"]\n");
    in_every_place(|place| {
        let text = std::fs::read_to_string(&set.config).unwrap();
        let (mut running, control) = begin(&set, place);
        running.expect("hello");
        running.ready();
        set.change("[services.web]", "[services.web]\nlog = { stdout = \"prefix\" }");
        assert_eq!(control.post("/v1/reload").status, 200);
        running.expect("web.0     | hello");
        let logs = control.get("/v1/logs").body;
        assert!(logs.contains("\"message\":\"hello\""), "{logs}");
        std::fs::write(&set.config, text).unwrap();
        running.send(Signal::TERM);
        assert_eq!(running.end(), 0);
    });
}

/// A migration that fails after a deploy does not take down the service that works.
#[test]
fn a_reload_with_a_oneshot_that_fails_does_not_end_keepalive() {
    let text = |script: &str| {
        format!(
            "[services.migrate]\ntype = \"oneshot\"\ncommand = [\"sh\", \"-c\", \"{script}\"]\nrestart = \"never\"\n[services.web]\ncommand = \"sleep 1000\"\ndepends_on = [\"migrate\"]\n"
        )
    };
    let set = Set::new(&text("exit 0"));
    in_every_place(|place| {
        let (mut running, control) = begin(&set, place);
        control.wait_for("web.0", "running");
        let web = control.instance("web.0")["pid"].clone();
        set.directory.file("keepalive.toml", text("exit 3").as_bytes(), 0o644);
        let failed = control.post("/v1/reload");
        assert_eq!(failed.status, 409);
        assert!(failed.reason().starts_with("migrate.0 has failed (exited with code 3, ran "), "{}", failed.reason());
        assert_eq!(control.instance("web.0")["pid"], web);
        // It is that which has worked.
        assert_eq!(control.post("/v1/services/migrate/start").status, 200);
        set.directory.file("keepalive.toml", text("exit 0").as_bytes(), 0o644);
        assert_eq!(control.post("/v1/reload").status, 200);
        running.send(Signal::TERM);
        assert_eq!(running.end(), 0);
    });
}

/// Of two commands of a deploy, the second one does not fail because the first one is being performed.
#[test]
fn a_configuration_that_comes_during_a_reload_is_applied_after_it() {
    let text = |name: &str| {
        format!(
            "[services.web]\ncommand = [\"sh\", \"-c\", \"echo {name}; exec sleep 1000\"]\nreload = {{ soak = \"500ms\" }}\n"
        )
    };
    let set = Set::new(&text("first"));
    let (running, control) = begin(&set, Place::Child);
    running.expect("first");
    set.directory.file("keepalive.toml", text("second").as_bytes(), 0o644);
    let _first = control.ask("POST", "/v1/reload");
    running.expect("second");
    set.directory.file("keepalive.toml", text("third").as_bytes(), 0o644);
    assert_eq!(control.post("/v1/reload").status, 200);
    running.expect("third");
}

// The soak time of `ready = "exec"` is one second.
#[test]
fn a_new_service_that_fails_within_its_soak_time_ends_nothing() {
    in_every_place(|place| {
        let set = Set::new(SLEEPER);
        let mut running = set.start(place);
        running.ready();
        let control = Control::at(&set.socket());
        let command = "command = [\"sh\", \"-c\", \"exit 5\"]\nmin_uptime = \"10s\"\n";
        let text = std::fs::read_to_string(&set.config).unwrap();
        let text = format!("{text}[services.m]\n{command}restart = \"never\"\n");
        std::fs::write(&set.config, &text).unwrap();
        let answer = control.post("/v1/reload");
        assert_eq!(answer.status, 409, "{}", answer.body);
        let retried = format!("[services.n]\n{command}backoff = {{ initial = \"1ms\" }}\nmax_restarts = 3\n");
        std::fs::write(&set.config, format!("{text}{retried}")).unwrap();
        running.send(Signal::HUP);
        wait_until("four failures", || (control.get("/v1/status").body.contains("gave up after 3")).then_some(()));
        assert_eq!(["m.0", "n.0"].map(|id| control.state(id)), ["failed", "failed"]);
        assert_eq!(control.state("web.0"), "running");
        running.send(Signal::TERM);
        assert_eq!(running.end(), 0);
    });
}

#[test]
fn the_reason_of_the_end_names_a_service_that_has_come_by_a_reload() {
    let set = Set::new(SLEEPER);
    let mut running = set.start(Place::Child);
    running.ready();
    let control = Control::at(&set.socket());
    let text = std::fs::read_to_string(&set.config).unwrap();
    let new = "[services.n]\ncommand = [\"sh\", \"-c\", \"sleep 1.5; exit 5\"]\nrestart = \"never\"\n";
    std::fs::write(&set.config, format!("{text}{new}")).unwrap();
    let answer = control.post("/v1/reload");
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(running.end(), 5);
    let stderr = running.stderr();
    assert!(
        stderr.ends_with("exiting with code 5\n") && stderr.contains("\nkeepalive: n.0 failed: exited with"),
        "{stderr}"
    );
}

// The ordinary way of debugging a container.
#[test]
fn a_reload_of_what_crashes_again_and_again_fails_at_once_and_the_next_one_can_mend_it() {
    for backoff in ["", "backoff = { initial = \"0s\" }\nmax_restarts = \"unlimited\"\n"] {
        let crash = "command = [\"sh\", \"-c\", \"sleep 0.1; exit 3\"]";
        let set = Set::new(&format!("{SLEEPER}[services.a]\n{crash}\n{backoff}"));
        let mut running = set.start(Place::Child);
        running.ready();
        let control = Control::at(&set.socket());
        wait_until("a crash", || (control.instance("a.0")["restarts"].as_u64() > Some(0)).then_some(()));
        set.change("exit 3", "exit 4");
        let answer = control.post("/v1/reload");
        assert!(answer.status == 409 && answer.body.contains("code 4"), "{} {}", answer.status, answer.body);
        set.change("sleep 0.1; exit 4", "exec sleep 1000");
        let answer = control.post("/v1/reload");
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(control.state("a.0"), "running");
        running.send(Signal::TERM);
        assert_eq!(running.end(), 0);
    }
}

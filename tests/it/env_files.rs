//! Supervise mode: `env_file`s that the process reads each time it starts.

use keepalive::model::Signal;

use crate::harness::{self, KEEPALIVE, Place, Run, in_every_place};
use crate::services::Set;

#[test]
fn a_process_reads_its_env_file_each_time_it_starts() {
    let set = Set::new(
        r#"
        [services.prepare]
        type = "oneshot"
        command = ["sh", "-c", "printf 'A=file\nB=file\nC=$${A}2\nPATH=/usr/bin:/bin:/x\nKEEP=1\n' > DIR/app.env"]
        [services.web]
        command = ["sh", "-c", '''
            echo "$A $B $C $D $PATH $LATER"
            printf "A=second\nLATER=later\n" > DIR/app.env
            test "$KEEPALIVE_RESTARTS" = 1
        ''']
        depends_on = ["prepare"]
        env_file = ["DIR/load.env", { path = "DIR/app.env", when = "start" }, { path = "DIR/none", required = false, when = "start" },
            { path = "DIR/none", required = false }]
        env = { B = "own" }
        restart = "on-failure"
        on_success = "shutdown"
        "#,
    );
    set.directory.file("load.env", b"A=load\nD=load\n", 0o644);
    in_every_place(|place| {
        let mut run = set.run(place);
        run.command.env("PATH", "/usr/bin:/bin");
        let (code, stdout, stderr) = run.finish();
        assert_eq!(code, 0, "{stderr}");
        let expect = "file own file2 load /usr/bin:/bin:/x \nsecond own  load /usr/bin:/bin later";
        assert_eq!(stdout, expect, "{stderr}");
    });
}

#[test]
fn an_env_file_that_cannot_be_used_is_a_failed_start_that_shows_no_value() {
    let wrong = b"A=1\n\nPASSWORD='hunter2\n";
    for (name, content, message) in [
        ("missing", None, "cannot read its `env_file` `DIR/missing`: No such file or directory"),
        ("wrong", Some(&wrong[..]), "cannot use its `env_file` `DIR/wrong`, line 3: missing closing quote"),
    ] {
        let set = Set::new(&format!(
            "[services.a]\ncommand = [\"PUPPET\", \"exit\", \"0\"]\nmax_restarts = 0\n\
             env_file = {{ path = \"DIR/{name}\", when = \"start\" }}\n"
        ));
        if let Some(content) = content {
            set.directory.file(name, content, 0o644);
        }
        let (code, _, stderr) = set.run(Place::Child).finish();
        assert_eq!(code, 126, "{stderr}");
        let message = message.replace("DIR", &set.directory.path().display().to_string());
        assert!(stderr.contains(&message), "{stderr}");
        assert!(!stderr.contains("hunter2"), "{stderr}");
    }
}

#[test]
fn an_env_file_is_read_with_the_rights_of_the_service() {
    if !harness::have_root() {
        return;
    }
    let set = Set::new(
        "[services.a]\ncommand = [\"PUPPET\", \"exit\", \"0\"]\nmax_restarts = 0\nuser = 65534\ngroup = 65534\n\
         env_file = { path = \"DIR/secret\", when = \"start\" }\n",
    );
    set.directory.file("secret", b"A=1\n", 0o600);
    let (code, _, stderr) = set.run(Place::Child).finish();
    assert_eq!(code, 126, "{stderr}");
    assert!(stderr.contains("/secret`: Permission denied"), "{stderr}");
}

// A FIFO without a writer: whoever reads it waits.
#[test]
fn keepalive_does_not_wait_for_an_env_file_of_a_process() {
    let set = Set::new(
        "[services.a]\ncommand = [\"PUPPET\", \"exit\", \"0\"]\nenv_file = { path = \"DIR/fifo\", when = \"start\" }\n\
         [services.b]\ncommand = [\"PUPPET\", \"end-on-term\", \"5\"]\n",
    );
    nix::unistd::mkfifo(&set.directory.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    in_every_place(|place| {
        let mut running = set.start(place);
        running.ready();
        running.send(Signal::TERM);
        running.expect("signal 15");
        assert_eq!(running.end(), 0, "{}", running.stderr());
    });
}

#[test]
fn a_start_that_fails_before_the_program_shows_no_lines_of_an_earlier_run() {
    let set = Set::new(
        "[services.a]\ncommand = [\"PUPPET\", \"put\", \"OUT\", \"of the earlier run\\\\n\", \"THEN\", \"end-on-term\", \"3\"]\n\
         env_file = { path = \"DIR/a.env\", when = \"start\" }\nmax_restarts = 0\n",
    );
    set.directory.file("a.env", b"A=1\n", 0o644);
    let mut running = set.start(Place::Child);
    assert!(running.line().contains("of the earlier run"));
    std::fs::remove_file(set.directory.path().join("a.env")).unwrap();
    let mut restart = Run::words(Place::Child, &[KEEPALIVE, "restart", "a", "--timeout=1h"]);
    restart.command.env("KEEPALIVE_SOCKET", set.socket());
    let (code, _, stderr) = restart.finish();
    assert!(code != 0 && stderr.contains("a.env"), "{stderr}");
    assert!(!stderr.contains("of the earlier run"), "{stderr}");
    // What a command has started ends nothing.
    running.send(Signal::TERM);
    running.end();
    assert!(!set.end().contains("of the earlier run"), "{}", set.end());
}

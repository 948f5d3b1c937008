//! Tests that start real processes. Signals are not blocked as in the program, because tests run in threads. The children
//! exit by themselves.

use std::mem::MaybeUninit;

use super::super::signals::{ChildSignals, InheritedSignals, SignalSet};
use super::super::spawn_options::{OpenFile, Session};
use super::super::strings::StringList;
use super::super::wait;
use super::*;
use crate::model::plan::{Credentials, Limit};
use crate::model::{ExitStatus, Signal, StartStep};

fn list(strings: &[&str]) -> StringList {
    strings.iter().collect()
}

fn options<'a>(argv: &'a StringList, env: &'a StringList) -> SpawnOptions<'a> {
    SpawnOptions {
        argv,
        env,
        env_files: None,
        cwd: None,
        session: Session::NewSession,
        stdio: [None; 3],
        descriptors: &[],
        stored: None,
        resize: None,
        file: None,
        credentials: None,
        umask: None,
        mark: [None; 2],
        limits: &[],
        nice: None,
        oom_score_adj: None,
        no_new_privs: false,
        death_signal: None,
        signals: ChildSignals::Inherited(InheritedSignals { mask: SignalSet::EMPTY, ignored: SignalSet::EMPTY }),
        reports_exec: true,
    }
}

/// Starts a process and waits until it exits. Returns the failure, the exit status and the output on stdout.
fn run(options: &SpawnOptions<'_>) -> (Option<StartFailure>, ExitStatus, String) {
    let (read_end, write_end) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
    let has_copy = options.oom_score_adj.is_some();
    let options = SpawnOptions { stdio: [None, Some(write_end.as_fd()), None], ..*options };
    let mut spawner = Spawner::new();
    let (pid, mut pending) = spawner.spawn(&options).unwrap();
    drop(write_end);
    let mut output = String::new();
    std::io::Read::read_to_string(&mut std::fs::File::from(read_end), &mut output).unwrap();
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: `info` is writable. The call waits until the test's own child exits.
    unsafe { libc::waitid(libc::P_PID, pid.get().unsigned_abs(), info.as_mut_ptr(), libc::WEXITED | libc::WNOWAIT) };
    let status = wait::reap(pid).unwrap().status;
    let result = pending.poll().expect("the child has ended");
    assert_eq!(pending.poll().filter(|_| result != ExecResult::Executed), None, "a failure is returned once");
    let failure = pending.on_reaped();
    spawner.reclaim(pending);
    if !has_copy {
        assert_eq!(failure.map_or(ExecResult::Executed, ExecResult::Failed), result);
    }
    match result {
        ExecResult::Executed => (None, status, output),
        ExecResult::Failed(failure) => (Some(failure), status, output),
    }
}

/// With memory that is shared with the child, and with a copy.
#[track_caller]
fn check(options: &SpawnOptions<'_>, expect: (Option<StartFailure>, u8, &str)) {
    for oom_score_adj in [options.oom_score_adj, Some(options.oom_score_adj.unwrap_or(0))] {
        let (failure, status, output) = run(&SpawnOptions { oom_score_adj, ..*options });
        assert_eq!((failure, status.code(), output.as_str()), expect, "{oom_score_adj:?}");
    }
}

fn failure(step: StartStep, errno: Errno) -> Option<StartFailure> {
    Some(StartFailure { step, errno })
}

#[test]
fn a_program_is_found_in_the_path_of_its_own_environment() {
    let (argv, env) = (list(&["sh", "-c", "echo $A; exit 3"]), list(&["PATH=/nonexistent:/bin", "A=b"]));
    check(&options(&argv, &env), (None, 3, "b\n"));
}

#[test]
fn a_program_that_does_not_exist_exits_with_127() {
    let (argv, env) = (list(&["no-such-program"]), list(&["PATH=/bin:/etc/passwd"]));
    check(&options(&argv, &env), (failure(StartStep::Exec, Errno::ENOENT), 127, ""));
    let empty = list(&[""]);
    check(&options(&empty, &env), (failure(StartStep::Exec, Errno::ENOENT), 127, ""));
}

#[test]
fn a_file_that_cannot_be_executed_exits_with_126() {
    let env = list(&[]);
    for path in ["/etc", "/etc/passwd"] {
        check(&options(&list(&[path]), &env), (failure(StartStep::Exec, Errno::EACCES), 126, ""));
    }
    let below_a_file = list(&["/etc/passwd/x"]);
    check(&options(&below_a_file, &env), (failure(StartStep::Exec, Errno::ENOTDIR), 126, ""));
}

// execvp(3): "If permission is denied for a file, these functions will continue searching the rest of the search path.
// If no other file is found, however, they will return with errno set to EACCES."
#[test]
fn a_permission_error_takes_precedence_over_file_not_found() {
    let (argv, env) = (list(&["passwd"]), list(&["PATH=/etc:/nonexistent"]));
    check(&options(&argv, &env), (failure(StartStep::Exec, Errno::EACCES), 126, ""));
}

#[test]
fn a_failure_names_the_step() {
    let (argv, env) = (list(&["true"]), list(&[]));
    let nowhere = SpawnOptions { cwd: Some(c"/nonexistent"), ..options(&argv, &env) };
    check(&nowhere, (failure(StartStep::Directory, Errno::ENOENT), 126, ""));
    let limits = [Limit { name: "nofile", resource: 7, soft: Some(2), hard: Some(1) }];
    let impossible = SpawnOptions { limits: &limits, ..options(&argv, &env) };
    check(&impossible, (failure(StartStep::Limit(0), Errno::EINVAL), 126, ""));
}

#[test]
fn directory_umask_limits_and_niceness_are_set() {
    let argv = list(&[
        "sh",
        "-c",
        "pwd; umask; ulimit -n; nice; cat /proc/self/oom_score_adj; grep NoNewPrivs /proc/self/status",
    ]);
    let env = list(&[]);
    let limits = [Limit { name: "nofile", resource: 7, soft: Some(33), hard: Some(44) }];
    let options = SpawnOptions {
        cwd: Some(c"/usr"),
        umask: Some(0o027),
        limits: &limits,
        nice: Some(5),
        oom_score_adj: Some(321),
        no_new_privs: true,
        ..options(&argv, &env)
    };
    check(&options, (None, 0, "/usr\n0027\n33\n5\n321\nNoNewPrivs:\t1\n"));
}

// getrlimit(2): RLIMIT_NOFILE is "a value one greater than the maximum file descriptor number that can be opened".
#[test]
fn a_low_limit_of_descriptors_prevents_no_step() {
    let (argv, env) = (list(&["sh", "-c", "ulimit -n"]), list(&[]));
    let limits = [Limit { name: "nofile", resource: 7, soft: Some(4), hard: Some(64) }];
    check(&SpawnOptions { limits: &limits, oom_score_adj: Some(321), ..options(&argv, &env) }, (None, 0, "4\n"));
}

// sd_listen_fds(3), sd_watchdog_enabled(3): the variables name the process for which other variables are meant.
#[test]
fn pid_variables_that_name_keepalive_name_the_child() {
    let argv = list(&["sh", "-c", "test $LISTEN_PID = $$ && test $WATCHDOG_PID = $$ && echo mine"]);
    let own = |name: &str| format!("{name}={}", std::process::id());
    let (listen, watchdog) = (own("LISTEN_PID"), own("WATCHDOG_PID"));
    check(&options(&argv, &list(&["A=b", &listen, "C=d", &watchdog, "E=f"])), (None, 0, "mine\n"));
    check(&options(&argv, &list(&[&watchdog, &listen])), (None, 0, "mine\n"));
    check(&options(&argv, &list(&["LISTEN_PID=1", &watchdog])), (None, 1, ""));
    let argv = list(&["sh", "-c", "test $LISTEN_PID = $$; echo $?$WATCHDOG_PID"]);
    check(&options(&argv, &list(&[&listen, "WATCHDOG_PID=1"])), (None, 0, "01\n"));
}

#[test]
fn descriptors_get_their_numbers_even_if_these_are_in_use() {
    let open = |path| std::fs::File::open(path).unwrap();
    let (null, zero, full) = (open("/dev/null"), open("/dev/zero"), open("/dev/full"));
    let number = |file: &std::fs::File| u8::try_from(file.as_raw_fd()).unwrap();
    let unused = number(&null).max(number(&zero)).max(number(&full)) + 1;
    // Each has the number that another one must get.
    let swapped = [
        (number(&zero), null.as_fd()),
        (number(&full), zero.as_fd()),
        (number(&null), full.as_fd()),
        (unused, full.as_fd()),
    ];
    let numbers = swapped.map(|(number, _)| format!("/proc/self/fd/{number}"));
    let words: Vec<&str> = ["readlink"].into_iter().chain(numbers.iter().map(String::as_str)).collect();
    let (argv, env) = (list(&words), list(&["PATH=/usr/bin:/bin"]));
    let expect = "/dev/null\n/dev/zero\n/dev/full\n/dev/full\n";
    check(&SpawnOptions { descriptors: &swapped, ..options(&argv, &env) }, (None, 0, expect));
}

/// A temporary directory, removed at the end of the test.
struct Directory(std::path::PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("keepalive-spawn-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> std::ffi::CString {
        std::ffi::CString::new(self.0.join(name).into_os_string().into_encoded_bytes()).unwrap()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

#[test]
fn a_file_is_created_for_its_owner_only_and_never_shortened() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = Directory::new("file");
    let (path, env) = (directory.file("state"), list(&["PATH=/usr/bin:/bin"]));
    let argv = list(&["sh", "-c", "test -r /dev/fd/9 && printf next >&9 && wc -c < /dev/fd/9"]);
    for (size, expect) in [(100, "100\n"), (10, "100\n"), (200, "200\n")] {
        let file = Some(OpenFile { path: &path, size, number: 9 });
        check(&SpawnOptions { file, ..options(&argv, &env) }, (None, 0, expect));
        let made = std::fs::metadata(directory.0.join("state")).unwrap();
        assert_eq!(made.permissions().mode() & 0o777, 0o600);
        assert!(std::fs::read(directory.0.join("state")).unwrap().starts_with(b"next"));
    }
}

#[test]
fn only_regular_files_are_opened() {
    let directory = Directory::new("no-file");
    let (argv, env) = (list(&["true"]), list(&["PATH=/usr/bin:/bin"]));
    std::fs::write(directory.0.join("precious"), "content").unwrap();
    std::os::unix::fs::symlink(directory.0.join("precious"), directory.0.join("link")).unwrap();
    nix::unistd::mkfifo(&directory.0.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let cases = [
        (".", Errno::EISDIR),
        ("link", Errno::ELOOP),
        ("fifo", Errno::EINVAL),
        ("missing/state", Errno::ENOENT),
        ("precious/state", Errno::ENOTDIR),
    ];
    for (name, errno) in cases {
        let path = directory.file(name);
        let file = Some(OpenFile { path: &path, size: 100, number: 9 });
        check(&SpawnOptions { file, ..options(&argv, &env) }, (failure(StartStep::State, errno), 126, ""));
    }
    assert_eq!(std::fs::read(directory.0.join("precious")).unwrap(), b"content");
}

#[test]
fn a_child_can_inherit_the_mask_and_dispositions_that_keepalive_was_started_with() {
    let mut inherited = InheritedSignals { mask: SignalSet::EMPTY, ignored: SignalSet::EMPTY };
    inherited.mask.insert(Signal::new(33).unwrap());
    inherited.ignored.insert(Signal::CHLD);
    let (argv, env) = (list(&["grep", "-E", "SigBlk|SigIgn", "/proc/self/status"]), list(&[]));
    let (_, _, output) = run(&SpawnOptions { signals: ChildSignals::Inherited(inherited), ..options(&argv, &env) });
    let number = |name| {
        let line = output.lines().find_map(|line: &str| line.strip_prefix(name)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    assert_eq!(number("SigBlk:"), 1 << 32);
    assert_ne!(number("SigIgn:") & 1 << 16, 0);
}

// credentials(7)
#[test]
fn the_process_runs_as_the_user_with_its_groups() {
    let (argv, env) = (list(&["sh", "-c", "id -u; id -g; id -G"]), list(&[]));
    let own =
        Credentials { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw(), groups: [].into() };
    if own.uid != 0 {
        // Nothing changes, so no privilege is needed.
        let (_, status, _) = run(&SpawnOptions { credentials: Some(&own), ..options(&argv, &env) });
        assert_eq!(status, ExitStatus::Code(0));
        return;
    }
    let other = Credentials { uid: 12_345, gid: 23_456, groups: [7, 8].into() };
    check(&SpawnOptions { credentials: Some(&other), ..options(&argv, &env) }, (None, 0, "12345\n23456\n23456 7 8\n"));
}

#[test]
fn standard_streams_can_be_replaced() {
    // stdout and stderr are the same pipe.
    let (argv, env) = (list(&["sh", "-c", "echo out; echo error >&2; cat"]), list(&[]));
    let (read_end, write_end) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
    let null = std::fs::File::open("/dev/null").unwrap();
    let options = SpawnOptions {
        stdio: [Some(null.as_fd()), Some(write_end.as_fd()), Some(write_end.as_fd())],
        ..options(&argv, &env)
    };
    let (pid, _pending) = Spawner::new().spawn(&options).unwrap();
    drop(write_end);
    let mut output = String::new();
    std::io::Read::read_to_string(&mut std::fs::File::from(read_end), &mut output).unwrap();
    assert_eq!(output, "out\nerror\n");
    // SAFETY: waits for the test's own child; the null pointer means that the status is not stored.
    unsafe { libc::waitpid(pid.get(), std::ptr::null_mut(), 0) };
}

#[test]
fn many_starts_can_be_pending() {
    let env = list(&["PATH=/usr/bin:/bin"]);
    let mut spawner = Spawner::new();
    let start = |code: u8| {
        let argv = list(&["sh", "-c", &format!("exit {code}")]);
        spawner.spawn(&options(&argv, &env)).unwrap()
    };
    let starts: Vec<_> = (0..40).map(start).collect();
    for (code, (pid, mut pending)) in (0..).zip(starts) {
        let status = loop {
            match wait::reap(pid) {
                Err(Errno::EAGAIN) => std::thread::yield_now(),
                ended => break ended.unwrap().status,
            }
        };
        assert_eq!((status, pending.poll()), (ExitStatus::Code(code), Some(ExecResult::Executed)));
        spawner.reclaim(pending);
    }
}

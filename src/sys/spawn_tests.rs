//! Starting real processes. Signals are not blocked here as they are in the program: the tests run in threads, and the
//! children of these tests end by themselves.

use std::mem::MaybeUninit;

use super::super::{Inherited, SignalSet, wait};
use super::*;
use crate::model::ExitStatus;

fn list(strings: &[&str]) -> StringList {
    strings.iter().collect()
}

fn setup<'a>(argv: &'a StringList, env: &'a StringList) -> Setup<'a> {
    Setup {
        argv,
        env,
        cwd: None,
        session: Session::NewSession,
        stdio: [None; 3],
        descriptors: &[],
        file: None,
        credentials: None,
        umask: None,
        limits: &[],
        nice: None,
        oom_score_adj: None,
        no_new_privs: false,
        death_signal: None,
        signals: ChildSignals::AsFound(Inherited { mask: SignalSet::EMPTY, ignored: SignalSet::EMPTY }),
    }
}

/// Starts it, waits for its end, and gives back how far it came, its exit status and what it wrote to stdout.
fn run(setup: &Setup<'_>, spawn_mode: SpawnMode) -> (Option<StartFailure>, ExitStatus, String) {
    let (read_end, write_end) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let setup = Setup { stdio: [None, Some(write_end.as_fd()), None], ..*setup };
    let (pid, mut progress) = Spawner::new().spawn(&setup, spawn_mode).unwrap();
    drop(write_end);
    let mut output = String::new();
    std::io::Read::read_to_string(&mut std::fs::File::from(read_end), &mut output).unwrap();
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: `info` is writable; waits for the end of our own child.
    unsafe { libc::waitid(libc::P_PID, pid.get().unsigned_abs(), info.as_mut_ptr(), libc::WEXITED | libc::WNOWAIT) };
    let status = wait::reap(pid).unwrap().status;
    if let Progress::Pending(pipe) = &progress {
        progress = super::progress(pipe.as_fd()).expect("the child has ended");
    }
    match progress {
        Progress::Executed => (None, status, output),
        Progress::Failed(failure) => (Some(failure), status, output),
        Progress::Pending(_) => unreachable!(),
    }
}

#[track_caller]
fn check(setup: &Setup<'_>, expect: (Option<StartFailure>, u8, &str)) {
    for spawn_mode in [SpawnMode::Vfork, SpawnMode::Fork] {
        let (failure, status, output) = run(setup, spawn_mode);
        assert_eq!((failure, status.code(), output.as_str()), expect, "{spawn_mode:?}");
    }
}

fn failure(step: StartStep, errno: Errno) -> Option<StartFailure> {
    Some(StartFailure { step, errno })
}

#[test]
fn a_program_is_found_in_the_path_of_its_own_environment() {
    let (argv, env) = (list(&["sh", "-c", "echo $A; exit 3"]), list(&["PATH=/nonexistent:/bin", "A=b"]));
    check(&setup(&argv, &env), (None, 3, "b\n"));
}

#[test]
fn what_does_not_exist_is_127() {
    let (argv, env) = (list(&["no-such-program"]), list(&["PATH=/bin:/etc/passwd"]));
    check(&setup(&argv, &env), (failure(StartStep::Exec, Errno::ENOENT), 127, ""));
    let empty = list(&[""]);
    check(&setup(&empty, &env), (failure(StartStep::Exec, Errno::ENOENT), 127, ""));
}

#[test]
fn what_cannot_be_executed_is_126() {
    let env = list(&[]);
    for path in ["/etc", "/etc/passwd"] {
        check(&setup(&list(&[path]), &env), (failure(StartStep::Exec, Errno::EACCES), 126, ""));
    }
    let below_a_file = list(&["/etc/passwd/x"]);
    check(&setup(&below_a_file, &env), (failure(StartStep::Exec, Errno::ENOTDIR), 126, ""));
}

// execvp(3): "If permission is denied for a file, these functions will continue searching the rest of the search path.
// If no other file is found, however, they will return with errno set to EACCES."
#[test]
fn a_permission_denied_on_the_way_is_remembered() {
    let (argv, env) = (list(&["passwd"]), list(&["PATH=/etc:/nonexistent"]));
    check(&setup(&argv, &env), (failure(StartStep::Exec, Errno::EACCES), 126, ""));
}

#[test]
fn a_step_that_fails_is_named() {
    let (argv, env) = (list(&["true"]), list(&[]));
    let nowhere = Setup { cwd: Some(c"/nonexistent"), ..setup(&argv, &env) };
    check(&nowhere, (failure(StartStep::Directory, Errno::ENOENT), 126, ""));
    let limits = [Limit { name: "nofile", resource: 7, soft: Some(2), hard: Some(1) }];
    let impossible = Setup { limits: &limits, ..setup(&argv, &env) };
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
    let setup = Setup {
        cwd: Some(c"/usr"),
        umask: Some(0o027),
        limits: &limits,
        nice: Some(5),
        oom_score_adj: Some(321),
        no_new_privs: true,
        ..setup(&argv, &env)
    };
    check(&setup, (None, 0, "/usr\n0027\n33\n5\n321\nNoNewPrivs:\t1\n"));
}

// getrlimit(2): RLIMIT_NOFILE is "a value one greater than the maximum file descriptor number that can be opened".
#[test]
fn a_low_limit_of_descriptors_keeps_no_step_from_being_done() {
    let (argv, env) = (list(&["sh", "-c", "ulimit -n"]), list(&[]));
    let limits = [Limit { name: "nofile", resource: 7, soft: Some(4), hard: Some(64) }];
    check(&Setup { limits: &limits, oom_score_adj: Some(321), ..setup(&argv, &env) }, (None, 0, "4\n"));
}

// sd_listen_fds(3), sd_watchdog_enabled(3): the variables name the process for which the others are meant.
#[test]
fn what_was_meant_for_us_is_meant_for_the_child() {
    let argv = list(&["sh", "-c", "test $LISTEN_PID = $$ && test $WATCHDOG_PID = $$ && echo mine"]);
    let own = |name: &str| format!("{name}={}", std::process::id());
    let (listen, watchdog) = (own("LISTEN_PID"), own("WATCHDOG_PID"));
    check(&setup(&argv, &list(&["A=b", &listen, "C=d", &watchdog, "E=f"])), (None, 0, "mine\n"));
    check(&setup(&argv, &list(&[&watchdog, &listen])), (None, 0, "mine\n"));
    check(&setup(&argv, &list(&["LISTEN_PID=1", &watchdog])), (None, 1, ""));
    let argv = list(&["sh", "-c", "test $LISTEN_PID = $$; echo $?$WATCHDOG_PID"]);
    check(&setup(&argv, &list(&[&listen, "WATCHDOG_PID=1"])), (None, 0, "01\n"));
}

#[test]
fn descriptors_are_put_where_they_belong_whatever_is_there() {
    let open = |path| std::fs::File::open(path).unwrap();
    let (null, zero, full) = (open("/dev/null"), open("/dev/zero"), open("/dev/full"));
    let number = |file: &std::fs::File| u8::try_from(file.as_raw_fd()).unwrap();
    // Each stands where another is to be.
    let swapped = [
        (number(&zero), null.as_fd()),
        (number(&full), zero.as_fd()),
        (number(&null), full.as_fd()),
        (99, full.as_fd()),
    ];
    let numbers = swapped.map(|(number, _)| format!("/proc/self/fd/{number}"));
    let words: Vec<&str> = ["readlink"].into_iter().chain(numbers.iter().map(String::as_str)).collect();
    let (argv, env) = (list(&words), list(&["PATH=/usr/bin:/bin"]));
    let expect = "/dev/null\n/dev/zero\n/dev/full\n/dev/full\n";
    check(&Setup { descriptors: &swapped, ..setup(&argv, &env) }, (None, 0, expect));
}

/// A directory of the test's own, removed at the end.
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
fn a_file_is_made_for_the_user_alone_and_never_made_shorter() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = Directory::new("file");
    let (path, env) = (directory.file("state"), list(&["PATH=/usr/bin:/bin"]));
    let argv = list(&["sh", "-c", "test -r /dev/fd/9 && printf next >&9 && wc -c < /dev/fd/9"]);
    for (size, expect) in [(100, "100\n"), (10, "100\n"), (200, "200\n")] {
        let file = Some(OpenFile { path: &path, size, number: 9 });
        check(&Setup { file, ..setup(&argv, &env) }, (None, 0, expect));
        let made = std::fs::metadata(directory.0.join("state")).unwrap();
        assert_eq!(made.permissions().mode() & 0o777, 0o600);
        assert!(std::fs::read(directory.0.join("state")).unwrap().starts_with(b"next"));
    }
}

#[test]
fn what_is_no_file_is_not_opened() {
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
        check(&Setup { file, ..setup(&argv, &env) }, (failure(StartStep::State, errno), 126, ""));
    }
    assert_eq!(std::fs::read(directory.0.join("precious")).unwrap(), b"content");
}

#[test]
fn mask_and_dispositions_are_as_they_were_found() {
    let mut inherited = Inherited { mask: SignalSet::EMPTY, ignored: SignalSet::EMPTY };
    inherited.mask.insert(Signal::new(33).unwrap());
    inherited.ignored.insert(Signal::CHLD);
    let (argv, env) = (list(&["grep", "-E", "SigBlk|SigIgn", "/proc/self/status"]), list(&[]));
    let (_, _, output) =
        run(&Setup { signals: ChildSignals::AsFound(inherited), ..setup(&argv, &env) }, SpawnMode::Vfork);
    let number = |name| {
        let line = output.lines().find_map(|line: &str| line.strip_prefix(name)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    assert_eq!(number("SigBlk:"), 1 << 32);
    assert_ne!(number("SigIgn:") & 1 << 16, 0);
}

#[test]
fn a_failure_survives_its_eight_bytes() {
    let encoded = encode_failure(3, 7, Errno::EPERM as i32);
    assert_eq!(decode_failure(encoded), StartFailure { step: StartStep::Limit(7), errno: Errno::EPERM });
    assert_ne!(encode_failure(0, 0, 0), 0);
}

#[test]
fn remote_file_systems_are_told_from_local_ones() {
    let line = |kind: &str| format!("36 35 98:0 / /mnt rw,noatime master:1 - {kind} /dev/root rw,errors=continue\n");
    for kind in ["nfs4", "fuse.sshfs", "9p"] {
        assert!(any_can_hang(format!("{}{}", line("ext4"), line(kind)).as_bytes()), "{kind}");
    }
    assert!(!any_can_hang(format!("{}{}", line("overlay"), line("fusectl")).as_bytes()));
}

// credentials(7). Another user's process is started without spawn_mode memory, whatever is asked for.
#[test]
fn the_process_runs_as_the_user_with_its_groups() {
    let (argv, env) = (list(&["sh", "-c", "id -u; id -g; id -G"]), list(&[]));
    let own =
        Credentials { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw(), groups: [].into() };
    if own.uid != 0 {
        // Nothing changes, so that no right is needed.
        let (_, status, _) = run(&Setup { credentials: Some(&own), ..setup(&argv, &env) }, SpawnMode::Vfork);
        assert_eq!(status, ExitStatus::Code(0));
        return;
    }
    let other = Credentials { uid: 12_345, gid: 23_456, groups: [7, 8].into() };
    check(&Setup { credentials: Some(&other), ..setup(&argv, &env) }, (None, 0, "12345\n23456\n23456 7 8\n"));
}

#[test]
fn standard_streams_can_be_exchanged() {
    // stdout is the pipe that `run` reads; what goes to stderr is sent there too.
    let (argv, env) = (list(&["sh", "-c", "echo out; echo error >&2; cat"]), list(&[]));
    let (read_end, write_end) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let null = std::fs::File::open("/dev/null").unwrap();
    let setup =
        Setup { stdio: [Some(null.as_fd()), Some(write_end.as_fd()), Some(write_end.as_fd())], ..setup(&argv, &env) };
    let (pid, _) = Spawner::new().spawn(&setup, SpawnMode::Vfork).unwrap();
    drop(write_end);
    let mut output = String::new();
    std::io::Read::read_to_string(&mut std::fs::File::from(read_end), &mut output).unwrap();
    assert_eq!(output, "out\nerror\n");
    // SAFETY: waits for our own child.
    unsafe { libc::waitpid(pid.get(), std::ptr::null_mut(), 0) };
}

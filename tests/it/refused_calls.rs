//! A sandbox that refuses a system call, as seccomp profiles and gVisor do: keepalive runs without the call, or says which
//! one it needs. It never spins, and never stops reacting to signals and to the exit of a child.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use keepalive::model::{Pid, Signal};
use keepalive::sys::{procfs, signal_process};
use libc::{ENOSYS, EPERM};

use crate::harness::{KEEPALIVE, PUPPET, Place, Run, Running, have_namespaces};
use crate::services::Set;
use crate::wait::Deadline;

/// What happens if a call is refused.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Expect {
    /// keepalive runs the command or the service, restarts it, and stops it.
    Runs,
    /// keepalive exits with this code, and stderr has this text.
    Ends(i32, &'static str),
    /// As `Ends`, but only if keepalive is not PID 1.
    EndsAsChild(i32, &'static str),
    /// keepalive exits with 71 and the line that it cannot run without this call.
    IsNeeded,
}

use Expect::{Ends, EndsAsChild, IsNeeded, Runs};

/// A system call: its name, its number, and what happens in init mode and in supervise mode.
type Case = (&'static str, libc::c_long, Expect, Expect);

const WITHOUT_CLONE: &str = "cannot create a process with the system call clone: ";

/// The calls that strace(1) shows for PID 1: starts, crashes, restarts, stops, reloads, requests of clients. Without
/// execve and write the commands cannot run, with or without keepalive.
const CASES: [Case; 70] = [
    ("accept4", libc::SYS_accept4, Runs, Runs),
    ("bind", libc::SYS_bind, Runs, Runs),
    ("brk", libc::SYS_brk, Runs, Runs),
    ("chdir", libc::SYS_chdir, Runs, Runs),
    ("clone", libc::SYS_clone, Ends(71, WITHOUT_CLONE), Ends(71, WITHOUT_CLONE)),
    ("close", libc::SYS_close, Runs, IsNeeded),
    ("close_range", libc::SYS_close_range, Runs, Runs),
    ("connect", libc::SYS_connect, Runs, Runs),
    ("dup3", libc::SYS_dup3, Runs, Ends(126, "cannot set up stdin, stdout and stderr: ")),
    ("epoll_create1", libc::SYS_epoll_create1, Runs, IsNeeded),
    ("epoll_ctl", libc::SYS_epoll_ctl, Runs, IsNeeded),
    ("epoll_pwait", libc::SYS_epoll_pwait, Runs, IsNeeded),
    ("eventfd2", libc::SYS_eventfd2, Runs, IsNeeded),
    ("fchmod", libc::SYS_fchmod, Runs, Runs),
    ("fchown", libc::SYS_fchown, Runs, Runs),
    ("fcntl", libc::SYS_fcntl, Runs, IsNeeded),
    ("flock", libc::SYS_flock, Runs, Runs),
    ("fstat", libc::SYS_fstat, Runs, IsNeeded),
    ("ftruncate", libc::SYS_ftruncate, Runs, Runs),
    ("getcwd", libc::SYS_getcwd, Runs, Runs),
    ("getdents64", libc::SYS_getdents64, Runs, Runs),
    ("getegid", libc::SYS_getegid, Runs, Runs),
    ("geteuid", libc::SYS_geteuid, Runs, Runs),
    ("getpeername", libc::SYS_getpeername, Runs, Runs),
    ("getpgid", libc::SYS_getpgid, Runs, Runs),
    ("getpid", libc::SYS_getpid, IsNeeded, IsNeeded),
    ("getppid", libc::SYS_getppid, Runs, EndsAsChild(126, "cannot create a session: ")),
    ("getrandom", libc::SYS_getrandom, Runs, Runs),
    ("getsid", libc::SYS_getsid, Runs, Runs),
    ("getsockname", libc::SYS_getsockname, Runs, Runs),
    ("getsockopt", libc::SYS_getsockopt, Runs, Runs),
    ("ioctl", libc::SYS_ioctl, Runs, Runs),
    ("kcmp", libc::SYS_kcmp, Runs, Runs),
    ("kill", libc::SYS_kill, IsNeeded, IsNeeded),
    ("listen", libc::SYS_listen, Runs, Runs),
    ("lseek", libc::SYS_lseek, Runs, Runs),
    ("madvise", libc::SYS_madvise, Runs, Runs),
    ("memfd_create", libc::SYS_memfd_create, Runs, Runs),
    ("mmap", libc::SYS_mmap, IsNeeded, IsNeeded),
    ("munmap", libc::SYS_munmap, Runs, Runs),
    ("newfstatat", libc::SYS_newfstatat, Runs, Runs),
    OPEN,
    ("pidfd_open", libc::SYS_pidfd_open, Runs, Runs),
    ("pidfd_send_signal", libc::SYS_pidfd_send_signal, Runs, Runs),
    ("pipe2", libc::SYS_pipe2, Runs, Runs),
    ("prctl", libc::SYS_prctl, Runs, EndsAsChild(71, "cannot become a subreaper: ")),
    ("pread64", libc::SYS_pread64, Runs, Runs),
    ("prlimit64", libc::SYS_prlimit64, Runs, Runs),
    ("read", libc::SYS_read, Runs, IsNeeded),
    ("recvfrom", libc::SYS_recvfrom, Runs, Runs),
    ("recvmsg", libc::SYS_recvmsg, Runs, Runs),
    ("rt_sigaction", libc::SYS_rt_sigaction, Runs, Runs),
    ("rt_sigpending", libc::SYS_rt_sigpending, Runs, Runs),
    ("rt_sigprocmask", libc::SYS_rt_sigprocmask, IsNeeded, IsNeeded),
    ("rt_sigtimedwait", libc::SYS_rt_sigtimedwait, IsNeeded, Runs),
    ("sendmsg", libc::SYS_sendmsg, Runs, Runs),
    ("sendto", libc::SYS_sendto, Runs, Runs),
    ("setpgid", libc::SYS_setpgid, Ends(126, "cannot create a process group with the system call setpgid: "), Runs),
    ("setsid", libc::SYS_setsid, Runs, Ends(126, "cannot create a session: ")),
    ("setsockopt", libc::SYS_setsockopt, Runs, Runs),
    ("shutdown", libc::SYS_shutdown, Runs, Runs),
    ("signalfd4", libc::SYS_signalfd4, Runs, IsNeeded),
    ("socket", libc::SYS_socket, Runs, Runs),
    ("socketpair", libc::SYS_socketpair, Runs, Runs),
    ("timerfd_create", libc::SYS_timerfd_create, Runs, Runs),
    ("timerfd_settime", libc::SYS_timerfd_settime, Runs, Runs),
    ("umask", libc::SYS_umask, Runs, Runs),
    ("unlinkat", libc::SYS_unlinkat, Runs, Runs),
    ("wait4", libc::SYS_wait4, IsNeeded, Runs),
    ("waitid", libc::SYS_waitid, Runs, IsNeeded),
];

#[cfg(target_arch = "x86_64")]
const OPEN: Case = ("open", libc::SYS_open, Runs, IsNeeded);
#[cfg(not(target_arch = "x86_64"))]
const OPEN: Case = ("openat", libc::SYS_openat, Runs, IsNeeded);

/// Calls that later architectures do not have.
#[cfg(target_arch = "x86_64")]
const LEGACY: [Case; 11] = [
    ("chmod", libc::SYS_chmod, Runs, Runs),
    ("chown", libc::SYS_chown, Runs, Runs),
    ("lstat", libc::SYS_lstat, Runs, Runs),
    ("mkdir", libc::SYS_mkdir, Runs, Runs),
    ("openat", libc::SYS_openat, Runs, Runs),
    ("poll", libc::SYS_poll, Runs, Runs),
    ("readlink", libc::SYS_readlink, Runs, Runs),
    ("rename", libc::SYS_rename, Runs, Runs),
    ("rmdir", libc::SYS_rmdir, Runs, Runs),
    ("stat", libc::SYS_stat, Runs, Runs),
    ("unlink", libc::SYS_unlink, Runs, Runs),
];
#[cfg(not(target_arch = "x86_64"))]
const LEGACY: [Case; 0] = [];

/// A keepalive for which a call is refused. The tests run all cases at the same time.
struct Sandboxed {
    name: String,
    expect: Expect,
    /// The exit code after SIGTERM.
    code: i32,
    set: Option<Set>,
    running: Running,
}

impl Sandboxed {
    fn start(place: Place, errno: i32, (name, call, in_init_mode, in_supervise_mode): Case, set: Option<Set>) -> Self {
        let expect = if set.is_some() { in_supervise_mode } else { in_init_mode };
        let (call, number) = (call.to_string(), errno.to_string());
        let mut words = vec![PUPPET, "refuse", &call, &number, "--", KEEPALIVE];
        match &set {
            Some(set) => words.extend(["-c", &set.config]),
            None => words.extend(["--", PUPPET, "ignore"]),
        }
        let mut run = Run::words(place, &words);
        if let Some(set) = &set {
            run.command.env("KEEPALIVE_SOCKET", set.socket());
        }
        let expect = match (expect, place) {
            (EndsAsChild(..), Place::Init) => Runs,
            (EndsAsChild(code, text), Place::Child) => Ends(code, text),
            (other, _) => other,
        };
        let code = if set.is_some() { 0 } else { 128 + libc::SIGTERM };
        let name = format!("{name}, errno {errno}, {place:?}, {}", if set.is_some() { "supervise" } else { "init" });
        Self { name, expect, code, set, running: run.start() }
    }

    /// The next line that says that the command or service runs.
    fn wait_until_ready(&self) {
        eprintln!("waiting for the service: {}", self.name);
        while !self.running.line().contains("ready ") {}
    }

    /// Kills the service and connects a client: keepalive has something to do.
    fn disturb(&self, keepalive: Pid) -> Option<UnixStream> {
        let set = self.set.as_ref()?;
        let is_service =
            |pid: &Pid| std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == Path::new(PUPPET));
        let service = procfs::descendants(keepalive).into_iter().find(is_service);
        signal_process(service.expect("a service"), Signal::KILL).expect("it can be killed");
        let mut client = UnixStream::connect(set.socket()).ok()?;
        client.set_read_timeout(Some(Deadline::by_the_clock())).expect("a timeout");
        client.write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").ok();
        Some(client)
    }
}

/// utime and stime, in ticks of 10 ms. proc_pid_stat(5)
fn cpu_time(pid: Pid) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let (_, fields) = stat.rsplit_once(')').expect("a name");
    fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number")).sum()
}

/// Refuses each call with `errno`.
fn check_all(place: Place, errno: i32, new_set: impl Fn() -> Option<Set>) {
    // With all processes of all tests at the same time, each look at /proc takes four times as long.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let cases: Vec<_> =
        CASES.into_iter().chain(LEGACY).map(|case| Sandboxed::start(place, errno, case, new_set())).collect();
    let (running, ended): (Vec<_>, Vec<_>) = cases.into_iter().partition(|case| case.expect == Runs);
    for mut case in ended {
        let name = &case.name;
        eprintln!("waiting for the end: {name}");
        let (expect_code, expect_text) = match case.expect {
            Ends(code, text) | EndsAsChild(code, text) => (code, text.to_owned()),
            IsNeeded | Runs => {
                (71, format!("cannot run without the system call {}: ", name.split(',').next().unwrap()))
            }
        };
        assert_eq!(case.running.end(), expect_code, "{name}");
        let stderr = case.running.stderr();
        assert!(stderr.contains(&expect_text), "{name}: {stderr}");
    }
    running.iter().for_each(Sandboxed::wait_until_ready);
    let pids: Vec<Pid> = running.iter().map(|case| case.running.keepalive()).collect();
    let clients: Vec<_> = running.iter().zip(&pids).map(|(case, pid)| case.disturb(*pid)).collect();
    if running.iter().any(|case| case.set.is_some()) {
        running.iter().for_each(Sandboxed::wait_until_ready);
    }
    for (case, client) in running.iter().zip(clients) {
        eprintln!("waiting for the answer: {}", case.name);
        let mut answer = String::new();
        // Where there is no control socket, nobody can connect.
        let answered =
            client.is_none_or(|mut client| client.read_to_string(&mut answer).is_ok_and(|length| length > 0));
        assert!(answered, "{}: {answer}", case.name);
    }
    let before: Vec<u64> = pids.iter().map(|pid| cpu_time(*pid)).collect();
    // A keepalive that spins uses the processor all the time, one that runs does nothing.
    std::thread::sleep(Duration::from_secs(1));
    for ((case, pid), before) in running.iter().zip(&pids).zip(before) {
        let used = cpu_time(*pid) - before;
        assert!(used <= 3, "{}: {used} ticks of 10 ms in one second without anything to do", case.name);
    }
    pids.into_iter().for_each(|pid| signal_process(pid, Signal::TERM).expect("keepalive can be signalled"));
    for mut case in running {
        eprintln!("waiting for the end after SIGTERM: {}", case.name);
        assert_eq!(case.running.end(), case.code, "{}", case.name);
    }
}

fn service() -> Option<Set> {
    let text = r#"
        [services.web]
        command = ["PUPPET", "ignore"]
        log = { stdout = "prefix" }
        max_restarts = 2
        backoff = { initial = "1ms", max = "1ms" }
    "#;
    Some(Set::new(text))
}

// One errno in each place: no fallback depends on both.

#[test]
fn init_mode_as_a_child_runs_without_a_refused_call_or_names_it() {
    check_all(Place::Child, ENOSYS, || None);
}

#[test]
fn init_mode_as_pid_1_runs_without_a_refused_call_or_names_it() {
    if have_namespaces() {
        check_all(Place::Init, EPERM, || None);
    }
}

#[test]
fn supervise_mode_as_a_child_runs_without_a_refused_call_or_names_it() {
    check_all(Place::Child, ENOSYS, service);
}

#[test]
fn supervise_mode_as_pid_1_runs_without_a_refused_call_or_names_it() {
    if have_namespaces() {
        check_all(Place::Init, EPERM, service);
    }
}

/// A keepalive for which `call` does not exist.
fn without(call: libc::c_long, set: &Set) -> Running {
    let (call, number) = (call.to_string(), ENOSYS.to_string());
    let words = [PUPPET, "refuse", &call, &number, "--", KEEPALIVE, "-c", &set.config];
    let mut run = Run::words(Place::Child, &words);
    run.command.env("KEEPALIVE_SOCKET", set.socket());
    run.start()
}

#[test]
fn a_start_without_memfd_create_fails_and_says_what_is_missing() {
    let set = Set::new("[services.web]\ncommand = [\"PUPPET\", \"ignore\"]\nstate = { size = \"1KiB\" }\n");
    let mut running = without(libc::SYS_memfd_create, &set);
    assert_eq!(running.end(), 71);
    let line = "web.0 starting → failed (cannot create the memory file of its `state`: Function not implemented)";
    assert!(set.end().contains("cannot create the memory file"), "{}", set.end());
    assert!(running.stderr().contains(line));
}

// umask(2): "This system call always succeeds." A sandbox can refuse it nevertheless.
#[test]
fn a_unix_socket_of_a_service_without_umask_fails_and_says_what_is_missing() {
    let set = Set::new("[services.web]\ncommand = [\"PUPPET\", \"ignore\"]\nlisten = { a = \"unix://DIR/web\" }\n");
    let mut running = without(libc::SYS_umask, &set);
    assert_eq!(running.end(), 71);
    let stderr = running.stderr();
    assert!(stderr.contains("cannot listen on `unix://") && stderr.contains(": Function not implemented"), "{stderr}");
}

#[test]
fn a_reload_without_memfd_create_fails_and_says_what_is_missing() {
    let set = Set::new("[services.web]\ncommand = [\"PUPPET\", \"ignore\"]\n");
    let mut running = without(libc::SYS_memfd_create, &set);
    running.ready();
    // keepalive handles them in the order of their numbers.
    running.send(Signal::HUP);
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
    let stderr = running.stderr();
    assert!(stderr.contains("cannot create a memory file to read it: Function not implemented"), "{stderr}");
}

// clone(2): EAGAIN and ENOMEM are shortages, after which the next attempt may succeed. ENOSYS and EPERM are not.
#[test]
fn a_start_without_clone_is_not_repeated() {
    let set = Set::new(
        r#"
        [services.db]
        command = ["PUPPET", "ignore"]
        on_failure = "ignore"
        [services.web]
        command = ["PUPPET", "ignore"]
        "#,
    );
    let mut running = without(libc::SYS_clone, &set);
    assert_eq!(running.end(), 71);
    let stderr = running.stderr();
    for name in ["db", "web"] {
        let line = format!(
            "{name}.0 starting → failed (cannot create a process with the system call clone: Function not implemented)"
        );
        assert_eq!(stderr.matches(&line).count(), 1, "{stderr}");
    }
}

#[test]
fn the_documentation_says_what_happens_without_each_call() {
    let document = include_str!("../../docs/system.md");
    let row_of = |name: &str| {
        // The document has the names of x86-64.
        let name = if name == OPEN.0 { "`open`".to_owned() } else { format!("`{name}`") };
        document
            .lines()
            .find(|line| line.starts_with("| `") && line.split('|').nth(1).is_some_and(|calls| calls.contains(&name)))
    };
    for (name, _, in_init_mode, in_supervise_mode) in CASES.into_iter().chain(LEGACY) {
        let row = row_of(name).unwrap_or_else(|| panic!("{name} is not in docs/system.md"));
        let expect = match (in_init_mode, in_supervise_mode) {
            (IsNeeded, IsNeeded) => "| does not run |",
            (IsNeeded, _) => "| init mode does not run |",
            (_, IsNeeded) => "| supervise mode does not run |",
            _ => "|",
        };
        assert!(row.ends_with(expect), "{row}");
    }
}

//! Starts the real program, reads its output, waits with one deadline, and cleans up.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::panic::Location;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use keepalive::model::{Pid, Signal};
use keepalive::sys::procfs::{self, Stat};
use keepalive::sys::signal_process;

use crate::wait::Deadline;

pub(crate) const KEEPALIVE: &str = env!("CARGO_BIN_EXE_keepalive");
pub(crate) const PUPPET: &str = env!("CARGO_BIN_EXE_puppet");

/// The interval between two checks of a condition.
const INTERVAL: Duration = Duration::from_millis(2);
/// The interval between two checks of the deadline in a blocking wait.
const BETWEEN_DEADLINES: Duration = Duration::from_secs(1);

/// Reports loudly that a test cannot run here; with `KEEPALIVE_TEST_NO_SKIP=1` it fails.
pub(crate) fn skip(reason: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    assert!(std::env::var_os("KEEPALIVE_TEST_NO_SKIP").is_none_or(|value| value != "1"), "{test}: {reason}");
    eprintln!("\n*** SKIPPED: {test}: {reason} ***\n");
}

/// Whether the test runs as root; skips otherwise.
pub(crate) fn have_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        skip("this needs root");
    }
    root
}

/// Whether PID namespaces can be created; skips otherwise.
pub(crate) fn have_namespaces() -> bool {
    let probe =
        Command::new("unshare").args(["--pid", "--fork", "--mount-proc", "true"]).stderr(Stdio::null()).status();
    let possible = probe.is_ok_and(|status| status.success());
    if !possible {
        skip("this needs PID namespaces (root, unshare)");
    }
    possible
}

/// The place where keepalive runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// As a child of the test.
    Child,
    /// As PID 1 of a PID namespace.
    Init,
}

impl Place {
    fn name(self) -> &'static str {
        match self {
            Self::Child => "a child of the test",
            Self::Init => "PID 1 of a PID namespace",
        }
    }
}

/// Runs `test` with keepalive in each place that this machine supports. A failure names the place.
#[track_caller]
pub(crate) fn in_every_place(mut test: impl FnMut(Place)) {
    let places: &[Place] = if have_namespaces() { &[Place::Child, Place::Init] } else { &[Place::Child] };
    let caller = Location::caller();
    for place in places {
        let _named = NamedOnFailure { place: *place, caller };
        test(*place);
    }
}

/// Names the place when a test panics in it.
struct NamedOnFailure {
    place: Place,
    caller: &'static Location<'static>,
}

impl Drop for NamedOnFailure {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("in_every_place at {} has failed where keepalive is {}", self.caller, self.place.name());
        }
    }
}

/// A program to start.
pub(crate) struct Run {
    pub(crate) command: Command,
    place: Place,
    mark: Mark,
}

impl Run {
    /// `keepalive OPTIONS… -- COMMAND…`
    pub(crate) fn init(place: Place, options: &[&str], command: &[&str]) -> Self {
        let words = [&[KEEPALIVE], options, &["--"], command].concat();
        Self::words(place, &words)
    }

    /// `keepalive OPTIONS… -- puppet VERB…`
    pub(crate) fn puppet(place: Place, options: &[&str], verb: &[&str]) -> Self {
        Self::init(place, options, &[&[PUPPET], verb].concat())
    }

    /// Runs these words in this place.
    pub(crate) fn words(place: Place, words: &[&str]) -> Self {
        let prefix: &[&str] = match place {
            Place::Child => &[],
            Place::Init => &["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "--"],
        };
        let words = [prefix, words].concat();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // The PATH of the tests may have directories that other users cannot enter.
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        let mark = Mark::new();
        command.env(Mark::NAME, &mark.0);
        command.env("KEEPALIVE_SOCKET", mark.socket());
        Self { command, place, mark }
    }

    pub(crate) fn start(mut self) -> Running {
        let mut child = self.command.spawn().expect("the program starts");
        let (sender, lines) = channel();
        if let Some(stdout) = child.stdout.take() {
            std::thread::spawn(move || {
                BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
            });
        }
        let stderr = child.stderr.take().map(|mut stderr| {
            std::thread::spawn(move || {
                let mut text = String::new();
                stderr.read_to_string(&mut text).ok();
                text
            })
        });
        let stdin = child.stdin.take();
        Running { child, place: self.place, lines, stderr, stdin, ended: false, mark: self.mark }
    }

    /// Starts it, waits until it exits, and returns the exit code, stdout and stderr.
    pub(crate) fn finish(self) -> (i32, String, String) {
        let mut running = self.start();
        let code = running.end();
        let lines: Vec<String> = running.lines.iter().collect();
        (code, lines.join("\n"), running.stderr())
    }
}

/// A running program. Dropping it kills it and all its descendants.
pub(crate) struct Running {
    pub(crate) child: Child,
    place: Place,
    lines: Receiver<String>,
    stderr: Option<JoinHandle<String>>,
    pub(crate) stdin: Option<ChildStdin>,
    ended: bool,
    mark: Mark,
}

impl Running {
    /// The next line on stdout.
    #[track_caller]
    pub(crate) fn line(&self) -> String {
        let next = wait_until("another line on stdout", || match self.lines.recv_timeout(BETWEEN_DEADLINES) {
            Err(RecvTimeoutError::Timeout) => None,
            other => Some(other),
        });
        next.expect("another line on stdout before its end")
    }

    /// The next line on stdout, which must be this.
    #[track_caller]
    pub(crate) fn expect(&self, line: &str) {
        assert_eq!(self.line(), line);
    }

    /// Waits for `NAME NUMBER` and returns the number.
    #[track_caller]
    pub(crate) fn number(&self, name: &str) -> i32 {
        let line = self.line();
        let number = line.strip_prefix(name).and_then(|rest| rest.trim().parse().ok());
        number.unwrap_or_else(|| panic!("`{name} NUMBER` expected, found `{line}`"))
    }

    /// Waits for `ready` of a puppet and returns its pid in its own namespace.
    #[track_caller]
    pub(crate) fn ready(&self) -> Pid {
        Pid::new(self.number("ready")).unwrap()
    }

    /// The pid of keepalive in the namespace of the test.
    #[track_caller]
    pub(crate) fn keepalive(&self) -> Pid {
        let own = Pid::new(self.child.id().cast_signed()).unwrap();
        match self.place {
            Place::Child => own,
            Place::Init => wait_until("keepalive to start", || {
                let started = |pid: &Pid| !executable(*pid).ends_with("unshare") && executable(*pid) != PathBuf::new();
                procfs::descendants(own).first().copied().filter(started)
            }),
        }
    }

    /// The pid of the only child of keepalive but its logger in the namespace of the test.
    #[track_caller]
    pub(crate) fn command(&self) -> Pid {
        let keepalive = self.keepalive();
        wait_until("keepalive's child", || descendants(keepalive).first().copied())
    }

    #[track_caller]
    pub(crate) fn send(&self, signal: Signal) {
        signal_process(self.keepalive(), signal).expect("keepalive can be signalled");
    }

    /// Waits until it exits and returns the exit code. (unshare(1) exits with the code of its child.)
    #[track_caller]
    pub(crate) fn end(&mut self) -> i32 {
        let status = wait_until("the end of the program", || self.child.try_wait().expect("a child"));
        self.ended = true;
        status.code().unwrap_or_else(|| panic!("{status}"))
    }

    /// Its stderr, after it has exited.
    pub(crate) fn stderr(&mut self) -> String {
        self.stderr.take().map(|reader| reader.join().unwrap()).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            self.child.kill().ok();
            self.child.wait().ok();
        }
        self.mark.kill_all();
        // keepalive removes it itself unless it was killed.
        std::fs::remove_file(self.mark.socket()).ok();
    }
}

/// A variable in the environment of all processes of a test, by which they are found and killed at its end.
struct Mark(String);

impl Mark {
    const NAME: &str = "KEEPALIVE_IT_MARK";

    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // The test adopts orphans, because an init might not reap them.
        keepalive::sys::process::become_subreaper().expect("a subreaper");
        Self(format!("{}.{}.", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    /// The path of the control socket, different for each test.
    fn socket(&self) -> PathBuf {
        std::env::temp_dir().join(format!("keepalive-{}sock", self.0))
    }

    /// Repeats until none is found: a killed process may have started another one just before.
    fn kill_all(&self) {
        let marker = format!("{}={}", Self::NAME, self.0).into_bytes();
        let is_marked = |pid: Pid| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|entry| *entry == marker)
        };
        let mut killed = Vec::new();
        loop {
            let before = killed.len();
            for stat in procfs::processes() {
                if !stat.is_dead() && is_marked(stat.pid) && signal_process(stat.pid, Signal::KILL).is_ok() {
                    killed.push(stat.pid);
                }
            }
            if killed.len() == before {
                break;
            }
            killed.iter().for_each(|pid| wait_for_death(*pid));
        }
        // This reaps those that are children of the test. Others are reaped by their parents. The pids are not reused
        // meanwhile.
        for pid in killed {
            keepalive::sys::wait::reap(pid).ok();
        }
    }
}

/// The descendants of keepalive without its helpers.
pub(crate) fn descendants(keepalive: Pid) -> Vec<Pid> {
    let is_other = |pid: &Pid| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| !name.starts_with("keepalive"))
    };
    procfs::descendants(keepalive).into_iter().filter(is_other).collect()
}

/// Waits until `probe` returns a value.
#[track_caller]
pub(crate) fn wait_until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let mut deadline = Deadline::new();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(!deadline.is_over(), "timed out waiting for {what}");
        std::thread::sleep(INTERVAL);
    }
}

/// Waits until `pid` is in `state`: `T` stopped, `S` sleeping.
#[track_caller]
pub(crate) fn wait_for_state(pid: Pid, state: u8) -> Stat {
    wait_until(&format!("{pid} to be {}", char::from(state)), || procfs::stat(pid).filter(|stat| stat.state == state))
}

/// Waits until no process has this pid.
#[track_caller]
pub(crate) fn wait_for_death(pid: Pid) {
    wait_until(&format!("{pid} to be gone"), || procfs::stat(pid).is_none_or(|stat| stat.is_dead()).then_some(()));
}

fn executable(pid: Pid) -> PathBuf {
    std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default()
}

/// A field of /proc/PID/status.
#[track_caller]
pub(crate) fn status_field(pid: Pid, name: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process exists");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name}")).trim().to_owned()
}

/// A full pipe without an active reader: the end to keep open, and the end to write to.
pub(crate) fn stalled_pipe() -> (OwnedFd, OwnedFd) {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let (read_end, write_end) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
    fcntl(&write_end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    while nix::unistd::write(&write_end, &[b'.'; 512]).is_ok() {}
    fcntl(&write_end, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    (read_end, write_end)
}

/// As [`stalled_pipe`], with a stream socket.
pub(crate) fn stalled_socket() -> (OwnedFd, OwnedFd) {
    use std::io::Write;
    let (reader, mut writer) = std::os::unix::net::UnixStream::pair().unwrap();
    writer.set_nonblocking(true).unwrap();
    while writer.write(&[b'.'; 512]).is_ok() {}
    writer.set_nonblocking(false).unwrap();
    (reader.into(), writer.into())
}

/// A directory that everyone may enter; it is removed when dropped.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("keepalive-it-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        set_mode(&path, 0o755);
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file with this mode and returns its path.
    pub(crate) fn file(&self, name: &str, content: &[u8], mode: u32) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        set_mode(&path, mode);
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

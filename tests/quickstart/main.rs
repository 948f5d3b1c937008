//! The quickstart of `make run`, used as a newcomer would: watched for a while, then stopped.

#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test harness may wait, block and fail"
)]

#[path = "../common/port.rs"]
#[expect(dead_code, reason = "other test binaries use more of it")]
mod port;
#[path = "../common/terminal.rs"]
mod terminal;
#[path = "../common/wait.rs"]
#[expect(dead_code, reason = "other test binaries use more of it")]
mod wait;

use std::path::PathBuf;
use std::process::Command;

use port::ReservedPort;
use terminal::{CTRL_C, Terminal};

/// The quickstart on a terminal, with its own temporary directory and its own ports.
struct Quickstart {
    terminal: Terminal,
    temporary: TemporaryDirectory,
    _ports: [ReservedPort; 2],
}

struct TemporaryDirectory(PathBuf);

impl TemporaryDirectory {
    fn new(number: u32) -> Self {
        let directory = Self(std::env::temp_dir().join(format!("keepalive-test-{}-{number}", std::process::id())));
        std::fs::create_dir(&directory.0).unwrap();
        directory
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

impl Quickstart {
    /// `number` is unique in this program; `path` comes before the directories of `PATH`.
    fn start(number: u32, path: &str) -> Self {
        let temporary = TemporaryDirectory::new(number);
        let keepalive = std::env::var_os("KEEPALIVE_DIST").unwrap_or_else(|| env!("CARGO_BIN_EXE_keepalive").into());
        // The last digit is the number of the instance.
        let ports = ReservedPort::pair();
        let terminal = Terminal::start(
            // A session with a controlling terminal, as a shell has it, so that Ctrl-C sends a signal.
            Command::new("setsid")
                .args(["--ctty", "sh"])
                .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/quickstart/run.sh"))
                .arg(keepalive)
                .env("PATH", format!("{path}{}", std::env::var("PATH").unwrap()))
                .env("TMPDIR", &temporary.0)
                .env("QUICKSTART_PORT", (ports[0].number() / 10).to_string()),
        );
        Self { terminal, temporary, _ports: ports }
    }

    #[track_caller]
    fn wait_until_it_works(&mut self) {
        for text in ["prepare: wrote ", "worker: job ", " done. Served by web."] {
            self.terminal.wait_for_text(text);
        }
    }

    /// Checks that all services stop in order, report it, and leave no file.
    #[track_caller]
    fn expect_the_ordered_stop(self) {
        let Self { terminal, temporary, _ports } = self;
        let (code, screen) = terminal.wait_for_end();
        assert_eq!(code, Some(0), "{screen}");
        let position = |text: &str| screen.find(text).unwrap_or_else(|| panic!("`{text}` in\n{screen}"));
        // The worker may be between two runs.
        let worker = screen.find("worker: asked to stop").unwrap_or_default();
        let web = position("web.0: asked to stop").min(position("web.1: asked to stop"));
        assert!(worker < web && web < position("Stopped in order, exit code 0."), "{screen}");
        let left: Vec<PathBuf> = std::fs::read_dir(&temporary.0).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn ctrl_c_stops_the_quickstart_in_order_without_leftovers() {
    let mut quickstart = Quickstart::start(0, "");
    quickstart.wait_until_it_works();
    quickstart.terminal.type_in(CTRL_C);
    quickstart.expect_the_ordered_stop();
}

/// make forwards SIGTERM only to its direct child.
#[test]
fn sigterm_to_the_script_stops_the_quickstart_in_order() {
    let mut quickstart = Quickstart::start(1, "");
    quickstart.wait_until_it_works();
    let script = quickstart.terminal.program.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &script]).status().unwrap().success());
    quickstart.expect_the_ordered_stop();
}

#[test]
fn without_namespaces_the_script_warns_and_keepalive_runs_as_a_subreaper() {
    let programs = TemporaryDirectory::new(3);
    std::os::unix::fs::symlink("/bin/false", programs.0.join("unshare")).unwrap();
    let mut quickstart = Quickstart::start(2, &format!("{}:", programs.0.display()));
    quickstart.terminal.wait_for_text("a child subreaper instead.");
    quickstart.wait_until_it_works();
    quickstart.terminal.type_in(CTRL_C);
    quickstart.expect_the_ordered_stop();
}

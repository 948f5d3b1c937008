//! A separate Docker Engine whose `--init` is keepalive by the name of docker-init.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::client::Client;
use super::engine::skip;
use super::host;
use super::scratch::Scratch;
use super::wait::wait_for;

/// The time from SIGTERM to SIGKILL for an engine.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Dropping it removes it and all its data. Its containers and images must be dropped before.
pub(crate) struct OwnEngine {
    daemon: Child,
    directory: Scratch,
    pub(crate) client: Client,
}

impl OwnEngine {
    /// `None` without dockerd; the test is skipped.
    pub(crate) fn start() -> Option<Self> {
        let Some(program) = host::find("dockerd") else {
            skip("dockerd is not installed");
            return None;
        };
        let directory = Scratch::new();
        symlink(host::keepalive(), directory.join("docker-init")).unwrap();
        let host = format!("unix://{}", directory.join("socket"));
        let log = File::create(directory.join("log")).unwrap();
        // It must not outlive a test that is killed.
        let daemon = Command::new("setpriv")
            .arg("--pdeathsig=TERM")
            .arg(program)
            .args(["--storage-driver=vfs", "--bridge=none", "--iptables=false", "--host", &host])
            .args(["--data-root", &directory.join("data"), "--exec-root", &directory.join("exec")])
            .args(["--pidfile", &directory.join("pid"), "--init-path", &directory.join("docker-init")])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut engine = Self { daemon, client: Client::new(&["docker", "--host", &host], &[]), directory };
        let answers = wait_for(
            || "an answer of the test's own engine".to_owned(),
            || {
                let has_ended = engine.daemon.try_wait().unwrap().is_some();
                if has_ended { Some(false) } else { engine.client.answers().then_some(true) }
            },
        );
        if !answers {
            skip(&format!("a second dockerd does not come up here:\n{}", engine.log()));
            return None;
        }
        Some(engine)
    }

    /// The path of keepalive outside of containers.
    pub(crate) fn init_path(&self) -> String {
        self.directory.join("docker-init")
    }

    /// The log of the engine so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap()
    }
}

impl Drop for OwnEngine {
    fn drop(&mut self) {
        let id = Pid::from_raw(i32::try_from(self.daemon.id()).unwrap());
        let end = Instant::now() + STOP_TIMEOUT;
        while let Ok(None) = self.daemon.try_wait() {
            if Instant::now() > end {
                drop(self.daemon.kill());
            }
            kill(id, Signal::SIGTERM).ok();
            thread::sleep(Duration::from_millis(100));
        }
    }
}

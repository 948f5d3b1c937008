//! Popular programs under load while their workers are replaced, killed and broken.

mod load;
mod node;
mod python;
mod redis;
mod web;

use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

use keepalive::model::{Pid, Signal};
use keepalive::sys::signal_process;

use self::load::{Load, LoadCounts, Protocol};
use crate::harness::{Place, Running, skip, wait_until};
use crate::http::Control;
use crate::port::ReservedPort;
use crate::services::Set;

const WORKERS: usize = 4;
const RELOADS: usize = 3;
/// The usual value of `listen.http`.
const SOCKET: &str = "\"tcp://ADDRESS\"";
/// The number of workers that are killed, one every [`KILL_EVERY`].
const KILLS: usize = 100;
const KILL_EVERY: Duration = Duration::from_millis(100);

/// The first of these that is installed; skips if there is none.
pub(crate) fn program(names: &[&str]) -> Option<PathBuf> {
    let places = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"];
    let mut paths = names.iter().flat_map(|name| places.map(|place| PathBuf::from(place).join(name)));
    let found = paths.find(|path| path.exists());
    if found.is_none() {
        skip(&format!("there is no {}", names.join(", no ")));
    }
    found
}

/// A program that runs as a service with [`WORKERS`] workers and one socket.
struct Program {
    /// `command` in the configuration.
    command: String,
    /// Its socket in `listen`.
    socket: &'static str,
    /// A `command` that fails.
    broken: String,
    /// All other keys.
    keys: &'static str,
    /// The keys for the command that fails, with which keepalive detects the failure.
    broken_keys: &'static str,
    files: Vec<(&'static str, String)>,
    protocol: Protocol,
}

/// A running program and its clients.
struct Setup {
    running: Running,
    control: Control,
    set: Set,
    program: Program,
    port: ReservedPort,
    load: Load,
}

impl Program {
    /// `ADDRESS` is replaced by the address of the socket, also in files.
    fn config(&self, command: &str, keys: &str, port: &ReservedPort) -> String {
        let socket = self.socket;
        format!(
            "[services.web]\ncommand = {command}\ninstances = {WORKERS}\nlisten = {{ http = {socket} }}\n\
             min_uptime = \"0s\"\nmax_restarts = \"unlimited\"\n{keys}\n"
        )
        .replace("ADDRESS", &port.to_string())
    }

    fn begin(self) -> Setup {
        let port = ReservedPort::any();
        let set = Set::new(&self.config(&self.command, self.keys, &port));
        let directory = set.directory.path().to_str().unwrap();
        for (name, text) in &self.files {
            let text = text.replace("DIR", directory).replace("ADDRESS", &port.to_string());
            set.directory.file(name, text.as_bytes(), 0o644);
        }
        let running = set.start(Place::Child);
        let control = Control::at(&set.socket());
        // The socket exists when the first process does.
        wait_until("the socket", || TcpStream::connect(port.loopback()).ok());
        let load = Load::start(port.loopback(), self.protocol, &format!("{directory}/index.php"));
        let setup = Setup { running, control, set, program: self, port, load };
        setup.wait_for_all();
        setup.load.wait_for(1);
        setup
    }

    /// Replaces all workers one after the other, three times. No request may fail.
    fn survives_reloads(self) {
        let setup = self.begin();
        for _ in 0..RELOADS {
            let before = setup.wait_for_all();
            let answer = setup.control.post("/v1/services/web/reload");
            assert_eq!(answer.status, 200, "{}", answer.body);
            let after = setup.wait_for_all();
            assert!(after.iter().all(|pid| !before.contains(pid)), "{before:?} {after:?}");
            setup.load.wait_for(10);
        }
        setup.end("3 reloads").lost_nothing();
    }

    /// Changes the definition from these words to those, back, and once more. Each time all workers are replaced; no
    /// worker exits without a stop signal, and no request may fail.
    fn survives_changes(self, words: &[(&str, &str)]) {
        let setup = self.begin();
        for is_back in [false, true, false] {
            let before = setup.wait_for_all();
            for &(one, other) in words {
                let (from, to) = if is_back { (other, one) } else { (one, other) };
                setup.set.change(from, to);
            }
            let answer = setup.control.post("/v1/reload");
            assert_eq!(answer.status, 200, "{}", answer.body);
            let after = setup.wait_for_all();
            assert!(after.iter().all(|pid| !before.contains(pid)), "{before:?} {after:?}");
            setup.load.wait_for(10);
        }
        let (counts, stderr) = setup.end_with_stderr("3 changes");
        counts.lost_nothing();
        let is_trouble = |line: &&str| {
            let words = ["warning: web.", "error: web.", "killed by", "exited with code"];
            words.iter().any(|words| line.contains(words)) && !line.contains("exited with code 0,")
        };
        let troubles: Vec<&str> = stderr.lines().filter(is_trouble).collect();
        assert_eq!(troubles, Vec::<&str>::new());
    }

    /// Kills workers faster than they start. Only the requests in progress may be lost.
    fn survives_kills(self) {
        let setup = self.begin();
        for number in 0..KILLS {
            let id = format!("web.{}", number % WORKERS);
            if let Some(pid) = setup.pid(&id) {
                signal_process(pid, Signal::KILL).ok();
            }
            std::thread::sleep(KILL_EVERY);
        }
        setup.wait_for_all();
        setup.load.wait_for(10);
        setup.end("a kill every 100 ms").refused_nobody();
    }

    /// A broken version is rolled back, and no request may fail.
    fn survives_a_broken_version(self) {
        let setup = self.begin();
        let before = setup.wait_for_all();
        let broken = Set::new(&setup.program.config(&setup.program.broken, setup.program.broken_keys, &setup.port));
        let text = broken.read("keepalive.toml");
        // The directories and the termination log are those of the set.
        let (from, to) = (broken.directory.path().to_str().unwrap(), setup.set.directory.path().to_str().unwrap());
        std::fs::write(&setup.set.config, text.replace(from, to)).unwrap();
        let answer = setup.control.post("/v1/reload");
        assert_eq!(answer.status, 409, "{}", answer.body);
        assert!(answer.reason().starts_with("the new process of web.0 failed: "), "{}", answer.body);
        assert_eq!(setup.wait_for_all(), before);
        setup.load.wait_for(10);
        setup.end("a broken version").lost_nothing();
    }
}

impl Setup {
    fn pid(&self, id: &str) -> Option<Pid> {
        Pid::new(i32::try_from(self.control.instance(id)["pid"].as_i64()?).unwrap())
    }

    /// Waits until all workers run and returns their pids.
    #[track_caller]
    fn wait_for_all(&self) -> Vec<Pid> {
        wait_until("all workers to run", || {
            let running = |number: usize| {
                let id = format!("web.{number}");
                (self.control.state(&id) == "running").then(|| self.pid(&id))?
            };
            (0..WORKERS).map(running).collect()
        })
    }

    /// Stops keepalive and returns the results of the clients.
    fn end(self, what: &str) -> LoadCounts {
        self.end_with_stderr(what).0
    }

    /// As [`Self::end`], with the output.
    fn end_with_stderr(mut self, what: &str) -> (LoadCounts, String) {
        let counts = self.load.finish().shown(what);
        self.running.send(Signal::TERM);
        assert_eq!(self.running.end(), 0);
        let stderr = self.running.stderr();
        // Shown where the test fails.
        eprintln!("{stderr}");
        (counts, stderr)
    }
}

/// The three tests of each program. `$program` returns `None` if it is not installed.
macro_rules! shown {
    ($program:path) => {
        #[test]
        fn three_rolling_reloads_lose_no_request() {
            if let Some(program) = $program() {
                program.survives_reloads();
            }
        }

        #[test]
        fn killing_workers_one_after_the_other_refuses_no_connection() {
            if let Some(program) = $program() {
                program.survives_kills();
            }
        }

        #[test]
        fn a_broken_version_is_rolled_back_without_a_failed_request() {
            if let Some(program) = $program() {
                program.survives_a_broken_version();
            }
        }
    };
}
use shown;

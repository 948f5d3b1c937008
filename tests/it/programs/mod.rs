//! Programs that people run, under load, while their workers are replaced, killed and broken.

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
/// `listen.http` of most.
const SOCKET: &str = "\"tcp://ADDRESS\"";
/// So many workers are killed, one every [`KILL_EVERY`].
const KILLS: usize = 100;
const KILL_EVERY: Duration = Duration::from_millis(100);

/// The first of these that there is; skips where there is none.
fn program(names: &[&str]) -> Option<PathBuf> {
    let places = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"];
    let mut paths = names.iter().flat_map(|name| places.map(|place| PathBuf::from(place).join(name)));
    let found = paths.find(|path| path.exists());
    if found.is_none() {
        skip(&format!("there is no {}", names.join(", no ")));
    }
    found
}

/// A program, as a service of [`WORKERS`] workers with one socket.
struct Program {
    /// `command` in the configuration.
    command: String,
    /// Its socket in `listen`.
    socket: &'static str,
    /// A `command` that does not work.
    broken: String,
    /// All other keys.
    keys: &'static str,
    /// And those of the command that does not work: how it is found out, however long it takes.
    broken_keys: &'static str,
    files: Vec<(&'static str, String)>,
    protocol: Protocol,
}

/// A program at work, and clients.
struct Setup {
    running: Running,
    control: Control,
    set: Set,
    program: Program,
    port: ReservedPort,
    load: Load,
}

impl Program {
    /// `ADDRESS` stands for that of the socket, in the files too.
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
        // The sockets are there when the first process is.
        wait_until("the socket", || TcpStream::connect(port.loopback()).ok());
        let load = Load::start(port.loopback(), self.protocol, &format!("{directory}/index.php"));
        let setup = Setup { running, control, set, program: self, port, load };
        setup.wait_for_all();
        setup.load.wait_for(1);
        setup
    }

    /// One worker after the other is replaced, three times, and no request fails.
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

    /// Its definition changes, from these words to those, back, and once more: each time all workers are replaced, none
    /// ends but when it is asked to, and no request fails.
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

    /// Workers are killed faster than they start. What they were at is lost, and nothing else.
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

    /// What does not work is taken back, and nobody notices.
    fn survives_a_broken_version(self) {
        let setup = self.begin();
        let before = setup.wait_for_all();
        let broken = Set::new(&setup.program.config(&setup.program.broken, setup.program.broken_keys, &setup.port));
        let text = broken.read("keepalive.toml");
        // The directories are those of the set, and so is the termination log.
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

    /// Waits until all workers run; their ids.
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

    /// The ordered stop, and what the clients have seen.
    fn end(self, what: &str) -> LoadCounts {
        self.end_with_stderr(what).0
    }

    /// As [`Self::end`], and what has been written meanwhile.
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

/// The three things that are shown of each program; `$program` gives it, or nothing where there is none.
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

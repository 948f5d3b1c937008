//! A hostile service beside two others, and what must work meanwhile.

use std::os::unix::fs::symlink;

use keepalive::model::Signal;

use crate::harness::{KEEPALIVE, Place, Run, Running, have_namespaces, have_root, status_field, wait_until};
use crate::http::{Control, http};
use crate::port::ReservedPort;
use crate::services::Set;

/// The user of `evil`, and of keepalive itself as [`Host::Unprivileged`].
const NOBODY_UID: u32 = 65534;
/// How often each check is repeated during an attack.
const ROUNDS: u32 = 3;
/// The memory in KiB that keepalive may use in addition to twice as much as before.
const MEMORY_SLACK: u64 = 1024;

/// How keepalive runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// As PID 1 and root; `evil` has another user.
    Root,
    /// As PID 1 without privileges; all services have its user.
    Unprivileged,
    /// As a child of the test, as root; `evil` has another user.
    Child,
}

pub(crate) const EVERYWHERE: [Host; 3] = [Host::Root, Host::Unprivileged, Host::Child];

/// keepalive with the services `victim`, which crashes, `honest`, which uses sd_notify, and `evil`.
pub(crate) struct Setup {
    pub(crate) set: Set,
    pub(crate) running: Running,
    pub(crate) control: Control,
    port: ReservedPort,
    before: Usage,
}

/// What keepalive uses.
#[derive(Debug)]
struct Usage {
    descriptors: usize,
    /// Anonymous memory in KiB: code is not counted.
    memory: u64,
}

/// Runs `test` in each of `hosts`.
pub(crate) fn in_each(hosts: &[Host], mut test: impl FnMut(Host)) {
    if !have_root() || !have_namespaces() {
        return;
    }
    for host in hosts {
        eprintln!("{host:?}");
        test(*host);
    }
}

/// The command of `evil`: a function of attacks.py with its arguments.
pub(crate) fn attack(words: &[&str]) -> String {
    format!("command = {:?}\n", [&["python3", "DIR/attacks.py"], words].concat())
}

/// The services. `evil`: settings of the hostile one.
pub(crate) fn configuration(host: Host, port: &ReservedPort, evil: &str) -> String {
    let user = if host == Host::Unprivileged {
        String::new()
    } else {
        format!("user = \"{NOBODY_UID}\"\ngroup = \"{NOBODY_UID}\"\n")
    };
    let own = evil.split("\n[").next().unwrap_or_default();
    let restart = if own.contains("\nrestart = ") { "" } else { "restart = \"never\"\n" };
    format!(
        "[keepalive]\nhttp = \"{port}\"\nshutdown_timeout = \"2s\"\n\
         [services.victim]\ncommand = [\"sleep\", \"10000\"]\nmin_uptime = \"0s\"\n\
         backoff = {{ initial = \"1ms\", max = \"1ms\" }}\nstop_timeout = \"300ms\"\n\
         [services.honest]\n{honest}ready = \"notify\"\nwatchdog = \"20s\"\nstop_timeout = \"300ms\"\n\
         [services.evil]\n{user}on_failure = \"ignore\"\n{restart}stop_timeout = \"300ms\"\n{evil}",
        honest = attack(&["honest"]),
    )
}

/// Files of the tests in the directory of a set.
pub(crate) fn provide_files(set: &Set) {
    set.directory.file("sd.py", include_bytes!("../it/notify/sd.py"), 0o644);
    set.directory.file("fuse.py", include_bytes!("fuse.py"), 0o644);
    set.directory.file("attacks.py", include_bytes!("attacks.py"), 0o644);
    for name in ["mnt", "free"] {
        let path = set.directory.path().join(name);
        std::fs::create_dir(&path).unwrap();
        // `evil` may write there.
        std::os::unix::fs::chown(&path, Some(NOBODY_UID), Some(NOBODY_UID)).unwrap();
    }
    let device = set.directory.path().join("fuse");
    let made = std::process::Command::new("mknod").args(["-m", "0666"]).arg(&device).args(["c", "10", "229"]).status();
    if !made.is_ok_and(|status| status.success()) {
        symlink("/dev/fuse", device).unwrap();
    }
}

impl Setup {
    /// Starts `attacks.py WORDS` as `evil` with these settings, and checks the others until it has attacked enough.
    pub(crate) fn after_attack(host: Host, words: &[&str], settings: &str) -> Self {
        let setup = Self::start(host, &format!("{}ready = \"notify\"\n{settings}", attack(words)));
        setup.control.wait_for("evil.0", "running");
        setup.begin_attack();
        setup.others_are_served();
        setup.running.expect("enough");
        setup.others_are_served();
        setup.usage_is_flat();
        setup
    }

    /// Starts everything; `evil` waits until [`Self::begin_attack`].
    pub(crate) fn start(host: Host, evil: &str) -> Self {
        Self::start_with(host, evil, &[])
    }

    /// `wrapper`: a program that prepares something and executes keepalive; `DIR` stands for the directory.
    pub(crate) fn start_with(host: Host, evil: &str, wrapper: &[&str]) -> Self {
        let port = ReservedPort::any();
        let configuration = configuration(host, &port, evil);
        Self::start_set(host, port, &configuration, wrapper)
    }

    /// As [`Self::start`], but all services have keepalive's stdout and stderr.
    pub(crate) fn start_without_logger(host: Host, evil: &str) -> Self {
        let port = ReservedPort::any();
        let inherit = "log = { stdout = \"inherit\", stderr = \"inherit\" }\nstop_timeout";
        let configuration = configuration(host, &port, evil).replace("stop_timeout", inherit);
        Self::start_set(host, port, &configuration, &[])
    }

    fn start_set(host: Host, port: ReservedPort, configuration: &str, wrapper: &[&str]) -> Self {
        let set = Set::new(configuration);
        provide_files(&set);
        let directory = set.directory.path().to_str().unwrap();
        let wrapper: Vec<String> = wrapper.iter().map(|word| word.replace("DIR", directory)).collect();
        let mut words: Vec<&str> = wrapper.iter().map(String::as_str).collect();
        let user = NOBODY_UID.to_string();
        let place = match host {
            Host::Child => Place::Child,
            Host::Root => Place::Init,
            Host::Unprivileged => {
                std::os::unix::fs::chown(directory, Some(NOBODY_UID), Some(NOBODY_UID)).unwrap();
                words.extend(["setpriv", "--reuid", &user, "--regid", &user, "--clear-groups"]);
                Place::Init
            }
        };
        words.extend([KEEPALIVE, "-c", &set.config]);
        let mut run = Run::words(place, &words);
        run.command.env("KEEPALIVE_SOCKET", set.socket());
        run.command.stderr(std::fs::File::create(set.directory.path().join("stderr")).unwrap());
        let running = run.start();
        let control = Control::at(&set.socket());
        for id in ["victim.0", "honest.0"] {
            control.wait_for(id, "running");
        }
        let before = Usage::of(&running, &control);
        Self { set, running, control, port, before }
    }

    /// Lets `evil` begin, and waits until it says that it has.
    pub(crate) fn begin_attack(&self) {
        self.set.directory.file("go", b"", 0o644);
        self.running.expect("attacking");
    }

    /// Other services are supervised, and clients are answered.
    pub(crate) fn others_are_served(&self) {
        for _ in 0..ROUNDS {
            self.clients_are_answered();
            self.a_crash_is_noticed();
            self.notifications_are_read();
        }
    }

    pub(crate) fn clients_are_answered(&self) {
        assert_eq!(http(&self.port, "GET", "/livez").status, 200);
        assert_eq!(self.control.get("/livez").status, 200);
        assert_eq!(self.control.get("/v1/status").status, 200);
        assert_eq!(self.control.get("/metrics").status, 200);
    }

    fn a_crash_is_noticed(&self) {
        // Its pid may be used again.
        let before = self.control.instance("victim.0")["restarts"].clone();
        assert_eq!(self.control.post("/v1/services/victim/signal?signal=KILL").status, 200);
        wait_until("victim to be restarted", || {
            let now = self.control.instance("victim.0");
            (now["state"] == "running" && now["restarts"] != before).then_some(())
        });
    }

    fn notifications_are_read(&self) {
        let status = || self.control.instance("honest.0")["status_text"].clone();
        let before = status();
        wait_until("another status of honest", || (status() != before).then_some(()));
    }

    /// keepalive uses about as much as before the attack.
    pub(crate) fn usage_is_flat(&self) {
        let Usage { descriptors, memory } = &self.before;
        let mut last = None;
        wait_until(&format!("at most twice of {:?}", self.before), || {
            let now = Usage::of(&self.running, &self.control);
            let is_flat = now.descriptors <= 2 * descriptors && now.memory <= 2 * memory + MEMORY_SLACK;
            if !is_flat && last.replace(now.descriptors) != Some(now.descriptors) {
                eprintln!("{now:?}");
            }
            is_flat.then_some(())
        });
    }

    /// No descriptor makes the event loop spin.
    pub(crate) fn the_event_loop_rests(&self) {
        const REQUESTS: u64 = 10;
        // With the messages of `honest`; a spinning loop makes thousands.
        const ITERATIONS_PER_REQUEST: u64 = 40;
        let iterations = || {
            let metrics = self.control.get("/metrics").body;
            let name = "keepalive_event_loop_iterations_total ";
            metrics.lines().find_map(|line| line.strip_prefix(name)?.parse::<u64>().ok()).expect("a number")
        };
        wait_until("the event loop to rest", || {
            let before = iterations();
            let after = (0..REQUESTS).map(|_| iterations()).max().expect("requests");
            (after - before < REQUESTS * ITERATIONS_PER_REQUEST).then_some(())
        });
    }

    /// Stops everything with SIGTERM, and returns the exit code and keepalive's messages.
    pub(crate) fn stop(mut self) -> (i32, String) {
        assert_eq!(self.control.instance("honest.0")["restarts"], 0, "honest was restarted");
        self.running.send(Signal::TERM);
        let code = self.running.end();
        (code, self.set.read("stderr"))
    }
}

/// Shows the end of keepalive's messages when a test fails.
impl Drop for Setup {
    fn drop(&mut self) {
        const LINES: usize = 40;
        if std::thread::panicking() {
            let stderr = self.set.read("stderr");
            let lines: Vec<&str> = stderr.lines().collect();
            eprintln!("{}", lines[lines.len().saturating_sub(LINES)..].join("\n"));
        }
    }
}

impl Usage {
    fn of(running: &Running, control: &Control) -> Self {
        let pid = running.keepalive();
        let memory = status_field(pid, "RssAnon");
        let memory = memory.split(' ').next().and_then(|number| number.parse().ok()).expect("a number of KiB");
        Self { descriptors: control.descriptors_of(pid), memory }
    }
}

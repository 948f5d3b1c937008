//! The harness: the Docker Engine, images built from an [`Archive`], containers, and waits for a state.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use super::archive::Archive;
use super::client::{Client, lossy};
use super::drop_in;
use super::host;
use super::wait::wait_for;

/// A service that runs until its stop signal and reports signals.
pub(crate) const STEADY: &str = r#"#!/bin/sh
me=$KEEPALIVE_SERVICE.$KEEPALIVE_INSTANCE
trap 'echo "$me stops"; exit 0' TERM
trap 'echo "$me receives USR1"' USR1
trap 'echo "$me receives RTMIN+4"' 38
echo "$me up"
while :; do sleep 1000 & wait $!; done
"#;

/// A program that leaves orphans and has its own exit code for each stop signal. It does not report that a signal to its
/// process group has killed its sleep.
const POLITE: &str = "#!/bin/sh
trap 'echo bye; exit 3' TERM
trap 'echo interrupted; exit 4' INT
for signal in ABRT USR1; do trap 'echo received '$signal $signal; done
for i in 1 2 3 4 5 6 7 8 9; do (true &); done
echo up
while :; do { sleep 1000 & wait $!; } 2>/dev/null; done
";

/// A running Docker Engine, with the programs for images.
pub(crate) struct Engine {
    client: Client,
    busybox: Vec<u8>,
}

impl Engine {
    /// `None` without an engine; the test ends and reports on stderr that it was skipped.
    pub(crate) fn find() -> Option<Self> {
        let client = Client::default();
        if !client.answers() {
            skip("no Docker Engine answers");
            return None;
        }
        Self::of(client)
    }

    /// The engine that `client` reaches. `None` if it does not answer; the test is skipped.
    pub(crate) fn of(client: Client) -> Option<Self> {
        Some(Self { client, busybox: Self::busybox()? })
    }

    /// `None` if it is not installed; the test is skipped.
    pub(crate) fn busybox() -> Option<Vec<u8>> {
        let busybox = host::static_busybox();
        if busybox.is_none() {
            skip("busybox-static is not installed");
        }
        busybox
    }

    /// An image with keepalive as its entry point, busybox, and `configuration` as /etc/keepalive.toml.
    pub(crate) fn image(&self, configuration: &str) -> Image {
        self.image_with(configuration, |_| ())
    }

    /// The same with the files that `add` adds.
    pub(crate) fn image_with(&self, configuration: &str, add: impl FnOnce(&mut Archive)) -> Image {
        let mut archive = Archive::default();
        add(&mut archive);
        self.image_from(archive, configuration)
    }

    /// The same with the files in `archive`.
    pub(crate) fn image_from(&self, mut archive: Archive, configuration: &str) -> Image {
        Self::furnish(&mut archive, &self.busybox, configuration);
        Image::import(&self.client, archive)
    }

    /// An image without keepalive: busybox and the files in `archive`.
    pub(crate) fn base_image(&self, mut archive: Archive) -> Image {
        Self::add_base(&mut archive, &self.busybox);
        Image::import(&self.client, archive)
    }

    /// Adds keepalive by all its names, busybox, and `configuration` as /etc/keepalive.toml.
    pub(crate) fn furnish(archive: &mut Archive, busybox: &[u8], configuration: &str) {
        archive.file("/sbin/keepalive", 0o755, &std::fs::read(host::keepalive()).unwrap());
        for name in drop_in::NAMES {
            archive.symlink(&format!("/usr/local/bin/{name}"), "/sbin/keepalive");
        }
        archive.file("/etc/keepalive.toml", 0o644, configuration.as_bytes());
        archive.file("/srv/steady", 0o755, STEADY.as_bytes());
        archive.file("/srv/polite", 0o755, POLITE.as_bytes());
        Self::add_base(archive, busybox);
    }

    fn add_base(archive: &mut Archive, busybox: &[u8]) {
        archive.file("/bin/busybox", 0o755, busybox);
        for applet in ["cat", "echo", "env", "kill", "ln", "ls", "nc", "ps", "setsid", "sh", "sleep", "tr", "true"] {
            archive.symlink(&format!("/bin/{applet}"), "busybox");
        }
        archive.file("/etc/passwd", 0o644, b"root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n");
        archive.file("/etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n");
        archive.directory("/tmp", 0o1777);
    }
}

/// Skips a test that cannot run here: with a message that the test runner does not capture, or with a failure if skips
/// are forbidden.
pub(crate) fn skip(reason: &str) {
    let test = thread::current().name().unwrap_or("a test").to_owned();
    assert!(std::env::var_os("KEEPALIVE_TEST_NO_SKIP").is_none_or(|value| value != "1"), "must not skip: {reason}");
    std::io::stderr().write_all(format!("SKIPPED {test}: {reason}\n").as_bytes()).unwrap();
}

/// A unique name.
pub(crate) fn unique_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("keepalive-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// An image, removed when dropped.
pub(crate) struct Image {
    client: Client,
    name: String,
}

impl Image {
    /// An image that exists already; it is removed when dropped.
    pub(crate) fn adopt(name: String) -> Self {
        Self { client: Client::default(), name }
    }

    fn import(client: &Client, archive: Archive) -> Self {
        let image = Self { client: client.clone(), name: unique_name() };
        let change = "--change=ENTRYPOINT [\"/sbin/keepalive\"]";
        let output = client.run_with_input(&["import", change, "-", &image.name], &archive.finish());
        assert!(output.status.success(), "docker import: {}", lossy(&output.stderr));
        image
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Starts a container: `docker run --detach OPTIONS IMAGE ARGUMENTS`.
    pub(crate) fn run(&self, options: &[&str], arguments: &[&str]) -> Container {
        Container::start(&self.client, &[options, &[&self.name], arguments].concat())
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        drop(self.client.run(&["rmi", "--force", &self.name]));
    }
}

/// The output of a container.
#[derive(Debug)]
pub(crate) struct Logs {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// One process in a container, proc_pid_stat(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) name: String,
    pub(crate) state: char,
    pub(crate) parent: i32,
    /// User and system time in clock ticks.
    pub(crate) ticks: u64,
}

impl Process {
    fn parse(line: &str) -> Option<Self> {
        let (pid, rest) = line.split_once(" (")?;
        let (name, rest) = rest.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        let number = |position: usize| fields.get(position)?.parse::<u64>().ok();
        Some(Self {
            pid: pid.parse().ok()?,
            name: name.to_owned(),
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            ticks: number(11)? + number(12)?,
        })
    }
}

/// A container; removed with all its processes when dropped.
pub(crate) struct Container {
    client: Client,
    name: String,
}

impl Container {
    /// A container that was started by other means; it is removed when dropped.
    pub(crate) fn adopt(client: &Client, name: String) -> Self {
        Self { client: client.clone(), name }
    }

    /// Starts a container: `run --detach`, with a name and without a network, and `words`.
    #[track_caller]
    pub(crate) fn start(client: &Client, words: &[&str]) -> Self {
        let container = Self::adopt(client, unique_name());
        let fixed = ["run", "--detach", "--name", &container.name, "--network=none"];
        client.ok(&[&fixed, words].concat());
        container
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn logs(&self) -> Logs {
        let output = self.client.run(&["logs", &self.name]);
        Logs { stdout: lossy(&output.stdout), stderr: lossy(&output.stderr) }
    }

    /// Waits until stdout has the line `text` at least `times` times.
    #[track_caller]
    pub(crate) fn wait_for_lines(&self, text: &str, times: usize) {
        wait_for(
            || format!("{times} × `{text}` on stdout\n{}", self.describe()),
            || (self.logs().stdout.lines().filter(|line| *line == text).count() >= times).then_some(()),
        );
    }

    /// Waits until stdout has the line `text`.
    #[track_caller]
    pub(crate) fn wait_for_line(&self, text: &str) {
        self.wait_for_lines(text, 1);
    }

    pub(crate) fn is_running(&self) -> bool {
        self.client.ok(&["inspect", "--format={{.State.Running}}", &self.name]).trim() == "true"
    }

    /// Waits until the container exits by itself and returns its exit code.
    #[track_caller]
    pub(crate) fn wait_for_end(&self) -> i32 {
        wait_for(|| format!("the end of the container\n{}", self.describe()), || (!self.is_running()).then_some(()));
        self.exit_code()
    }

    /// `docker stop`, with SIGKILL after the ten seconds of Docker. Returns the exit code, 137 after SIGKILL.
    #[track_caller]
    pub(crate) fn stop(&self) -> i32 {
        self.client.ok(&["stop", &self.name]);
        self.exit_code()
    }

    /// `docker kill --signal`.
    #[track_caller]
    pub(crate) fn kill(&self, signal: &str) {
        self.client.ok(&["kill", "--signal", signal, &self.name]);
    }

    fn exit_code(&self) -> i32 {
        self.client.ok(&["inspect", "--format={{.State.ExitCode}}", &self.name]).trim().parse().unwrap()
    }

    /// Runs a shell script in the container as the container's user and returns its stdout.
    #[track_caller]
    pub(crate) fn shell(&self, script: &str) -> String {
        self.client.ok(&["exec", &self.name, "/bin/sh", "-c", script])
    }

    /// All processes of the container except those that list them.
    #[track_caller]
    pub(crate) fn processes(&self) -> Vec<Process> {
        let text = self.shell("echo $$; cat /proc/[0-9]*/stat 2>/dev/null; true");
        let (looker, stats) = text.split_once('\n').unwrap();
        let looker: i32 = looker.parse().unwrap();
        stats
            .lines()
            .filter_map(Process::parse)
            .filter(|process| process.pid != looker && process.parent != looker)
            .collect()
    }

    /// The current process of the only instance of `service`, if there is one.
    #[track_caller]
    pub(crate) fn main_process(&self, service: &str) -> Option<Process> {
        let script = format!(
            "for p in /proc/[0-9]*; do tr '\\0' '\\n' <$p/environ 2>/dev/null | grep -qx KEEPALIVE_SERVICE={service} \
             && echo ${{p#/proc/}}; done; true"
        );
        let found = self.shell(&script);
        let pids: Vec<i32> = found.lines().filter_map(|line| line.parse().ok()).collect();
        self.processes().into_iter().find(|process| process.parent == 1 && pids.contains(&process.pid))
    }

    /// The state of the container, for the message of a failing test.
    pub(crate) fn describe(&self) -> String {
        let mut text = String::new();
        let logs = self.logs();
        let state = self.client.run(&["inspect", "--format={{json .State}}", &self.name]);
        let top = self.client.run(&["top", &self.name]);
        for (title, part) in [
            ("stdout", logs.stdout),
            ("stderr", logs.stderr),
            ("state", lossy(&state.stdout)),
            ("processes", lossy(&top.stdout)),
        ] {
            write!(text, "--- {title}\n{part}").unwrap();
        }
        text
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        drop(self.client.run(&["rm", "--force", "--volumes", &self.name]));
    }
}

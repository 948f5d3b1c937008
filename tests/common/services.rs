//! Service sets for tests of supervise mode.

use std::path::{Path, PathBuf};

use crate::harness::{Directory, KEEPALIVE, PUPPET, Place, Run, Running};

/// A configuration file in its own directory.
pub(crate) struct Set {
    pub(crate) directory: Directory,
    pub(crate) config: String,
}

impl Set {
    /// `PUPPET` in `text` is replaced by the puppet, `DIR` by the directory. The termination log is DIR/end.
    /// [`PATIENT`] has the timeouts that `text` does not set.
    pub(crate) fn new(text: &str) -> Self {
        let directory = Directory::new();
        let end = directory.file("end", b"", 0o666);
        let text = text.replace("PUPPET", PUPPET).replace("DIR", directory.path().to_str().unwrap());
        let global = if text.contains("[keepalive]") { "" } else { "[keepalive]\n" };
        let text = patient(&format!("{global}{text}"));
        let text = text.replacen("[keepalive]", &format!("[keepalive]\ntermination_log = \"{end}\""), 1);
        let config = directory.file("keepalive.toml", text.as_bytes(), 0o644);
        Self { directory, config }
    }

    pub(crate) fn run(&self, place: Place) -> Run {
        let mut run = Run::words(place, &[KEEPALIVE, "-c", &self.config]);
        run.command.env("KEEPALIVE_SOCKET", self.socket());
        run
    }

    /// Its control socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("control")
    }

    pub(crate) fn start(&self, place: Place) -> Running {
        self.run(place).start()
    }

    /// The content of the termination log.
    pub(crate) fn end(&self) -> String {
        self.read("end")
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(Path::join(self.directory.path(), name)).unwrap()
    }
}

/// Timeouts by table. Their defaults are for machines that are not busy. In a test of something else, a busy machine
/// must not cause a timeout.
const PATIENT: [(&str, &[&str]); 2] = [
    ("[keepalive]", &["shutdown_timeout"]),
    // An earlier exit is an unstable run, a later one is not.
    ("[services.", &["min_uptime", "ready_timeout", "stop_timeout"]),
];

/// `text` with one hour for each timeout that it does not set.
fn patient(text: &str) -> String {
    let mut patient = String::new();
    let mut tables = text.split_inclusive('\n').peekable();
    while let Some(head) = tables.next() {
        patient.push_str(head);
        let mut table = Vec::new();
        while let Some(line) = tables.next_if(|line| !line.trim_start().starts_with('[')) {
            table.push(line);
        }
        let sets = |key: &str| table.iter().any(|line| line.trim_start().starts_with(key));
        for (_, keys) in PATIENT.iter().filter(|(table, _)| head.trim_start().starts_with(table)) {
            // A oneshot has no such timeout.
            let is_senseless = |key: &str| key == "ready_timeout" && sets("type = \"oneshot\"");
            for key in keys.iter().filter(|key| !sets(key) && !is_senseless(key)) {
                patient.push_str(&format!("{key} = \"1h\"\n"));
            }
        }
        patient.extend(table);
    }
    patient
}

/// The lines of keepalive with placeholders for values that differ between runs: `pid N`, `ran T`, `restart in T`.
pub(crate) fn normal(stderr: &str) -> String {
    let mut lines = Vec::new();
    for line in stderr.lines().filter_map(|line| line.strip_prefix("keepalive: ")) {
        let mut words: Vec<String> = Vec::new();
        for word in line.split(' ') {
            let end = word.trim_start_matches(|letter: char| letter.is_ascii_alphanumeric() || letter == '.');
            let word = match words.last().map(String::as_str) {
                Some("pid" | "(pid") => format!("N{end}"),
                Some("ran" | "in") => format!("T{end}"),
                _ => word.to_owned(),
            };
            words.push(word);
        }
        lines.push(words.join(" "));
    }
    lines.join("\n")
}

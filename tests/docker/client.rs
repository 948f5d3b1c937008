//! The command line client of an engine, usually `docker`.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use super::engine::skip;
use super::host;

/// Seconds for one command.
const COMMAND_SECONDS: &str = "120";

/// A command and its first arguments.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    words: Vec<String>,
    variables: Vec<(&'static str, String)>,
}

impl Default for Client {
    /// For the engine of this machine.
    fn default() -> Self {
        Self::new(&["docker"], &[])
    }
}

impl Client {
    pub(crate) fn new(words: &[&str], variables: &[(&'static str, &str)]) -> Self {
        Self {
            words: words.iter().copied().map(str::to_owned).collect(),
            variables: variables.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(),
        }
    }

    /// The same, run by another command.
    pub(crate) fn by(mut self, words: &[&str]) -> Self {
        self.words.splice(..0, words.iter().copied().map(str::to_owned));
        self
    }

    /// Whether the command exists and reaches an engine.
    pub(crate) fn answers(&self) -> bool {
        self.run(&["version", "--format", "{{.Server.Version}}"]).status.success()
    }

    /// Runs the command with `arguments` and returns its output.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.run_with_input(arguments, &[])
    }

    /// Runs the command with `arguments`, which must succeed, and returns its stdout.
    #[track_caller]
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{} {}: {}", self.words[0], arguments.join(" "), lossy(&output.stderr));
        lossy(&output.stdout)
    }

    pub(crate) fn run_with_input(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut child = Command::new("timeout")
            .args(["--kill-after=5", COMMAND_SECONDS])
            .args(&self.words)
            .args(arguments)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input).unwrap();
        drop(stdin);
        child.wait_with_output().unwrap()
    }

    /// The command with `arguments`, to be started on a terminal.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]).args(arguments);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// Runs `docker` with `arguments` and returns its output.
pub(crate) fn docker(arguments: &[&str]) -> Output {
    Client::default().run(arguments)
}

/// Runs `docker` with `arguments`, which must succeed, and returns its stdout.
#[track_caller]
pub(crate) fn docker_ok(arguments: &[&str]) -> String {
    Client::default().ok(arguments)
}

pub(crate) fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The command for Docker Compose; `None` with a message if it is not installed.
pub(crate) fn compose() -> Option<&'static [&'static str]> {
    if docker(&["compose", "version"]).status.success() {
        return Some(&["docker", "compose"]);
    }
    if host::find("docker-compose").is_some() {
        return Some(&["docker-compose"]);
    }
    skip("Docker Compose is not installed");
    None
}

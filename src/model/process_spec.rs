//! How the process of an instance is started.

use super::socket::{Listen, ListenMode};
use super::template::Template;

/// `state`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The size in bytes.
    pub size: u64,
    /// The file that holds the state; `None`: a memfd that keepalive holds.
    pub persist: Option<Template>,
}

/// An `env_file` that the process reads each time it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvFile {
    /// The absolute path.
    pub path: Template,
    /// Whether the process fails to start if the file does not exist.
    pub required: bool,
}

/// How the process of an instance is started.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of its own, `true` or `false`")]
pub struct Process {
    /// Program and arguments; never empty. The program is searched for in `PATH` unless it contains a `/`.
    pub command: Box<[Template]>,
    /// `cwd`; `None`: keepalive's own.
    pub cwd: Option<Template>,
    /// `user`, `group`, `groups`; `None`: keepalive's own.
    pub credentials: Option<Credentials>,
    /// `umask`; `None`: keepalive's own.
    pub umask: Option<u32>,
    /// Environment variables as `NAME=value`, at most one for each name. They override inherited variables.
    pub env: Box<[Template]>,
    /// How many variables of `env`, at its start, come from the key `env`; 0 without `env_files`.
    pub own_env: usize,
    /// The `env_file`s that the process reads each time it starts. They override `env`, except its first `own_env`.
    pub env_files: Box<[EnvFile]>,
    /// Whether the process inherits the environment that keepalive was started with.
    pub inherit_env: bool,
    /// The source of stdin.
    pub input: Input,
    /// `log.stdout`.
    pub stdout: Output,
    /// `log.stderr`.
    pub stderr: Output,
    /// The log files, to which they are written in addition.
    pub log_files: LogFiles,
    /// `limits`.
    pub limits: Box<[Limit]>,
    /// `nice`; `None`: keepalive's own.
    pub nice: Option<i8>,
    /// `oom_score_adj`, −1000…1000; `None`: keepalive's own.
    pub oom_score_adj: Option<i16>,
    /// `no_new_privs`.
    pub no_new_privs: bool,
    /// `listen`: the sockets that it inherits, from descriptor 3 on.
    pub listen: Box<[Listen]>,
    /// `listen_mode`.
    pub listen_mode: ListenMode,
    /// `listen_fds`: whether the process is given `LISTEN_FDS`.
    pub listen_fds: bool,
    /// `fd_store`: how many descriptors it may store. It inherits them after its sockets.
    pub fd_store: u32,
    /// `state`: memory that survives a restart.
    pub state: Option<State>,
    /// `ipc`: whether it has a channel for messages in JSON lines.
    pub ipc: bool,
}

impl Process {
    /// The names of the variables of `env`.
    pub fn env_names(&self) -> impl Iterator<Item = String> {
        names(&self.env)
    }

    /// Whether keepalive captures its output.
    #[must_use]
    pub fn captures_output(&self) -> bool {
        let is_captured = |output| matches!(output, Output::Raw | Output::Prefix);
        self.log_files.has_any() || is_captured(self.stdout) || is_captured(self.stderr)
    }
}

/// The user and groups of a process, credentials(7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// setuid(2).
    pub uid: u32,
    /// setgid(2).
    pub gid: u32,
    /// setgroups(2): the supplementary groups.
    pub groups: Box<[u32]>,
}

/// The source of a process's stdin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// /dev/null. The process has a session of its own.
    Null,
    /// keepalive's stdin. If that is a terminal, the process group is in its foreground. For the service `main`.
    Terminal,
}

/// The destination of a process's stdout or stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// keepalive captures it and writes each line as it is.
    Raw,
    /// keepalive's own stdout or stderr. If the stream has a log file, the same as `Raw`.
    Inherit,
    /// /dev/null.
    Null,
    /// keepalive captures it and writes each line with the name of the instance as a prefix, or as JSON.
    Prefix,
}

/// Log files, absolute paths, each of which is rotated when it reaches its maximum size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogFiles {
    /// `file`: of both streams.
    pub both: Option<Template>,
    /// `stdout_file`.
    pub stdout: Option<Template>,
    /// `stderr_file`.
    pub stderr: Option<Template>,
    /// `max_size` in bytes, at least 1 KiB.
    pub max_size: u64,
    /// `max_files`: how many rotated files are kept. `NAME.1` is the newest.
    pub max_files: u32,
}

impl LogFiles {
    /// The files with their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Template)> {
        let files = [("file", &self.both), ("stdout_file", &self.stdout), ("stderr_file", &self.stderr)];
        files.into_iter().filter_map(|(key, file)| Some((key, file.as_ref()?)))
    }

    /// Whether there is a log file.
    #[must_use]
    pub fn has_any(&self) -> bool {
        self.both.is_some() || self.stdout.is_some() || self.stderr.is_some()
    }
}

/// A resource limit, setrlimit(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The name in `limits`, such as `nofile`.
    pub name: &'static str,
    /// The `RLIMIT_` number.
    pub resource: u32,
    /// The soft limit; `None`: unlimited.
    pub soft: Option<u64>,
    /// The hard limit; `None`: unlimited.
    pub hard: Option<u64>,
}

/// The names of variables. Their values may be secrets.
fn names(env: &[Template]) -> impl Iterator<Item = String> {
    let entries = env.iter().map(Template::to_string);
    entries.map(|entry| entry.split('=').next().unwrap_or_default().to_owned())
}

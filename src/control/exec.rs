//! `keepalive exec`: a command with the user, the directory and the environment of a service.
//!
//! This process becomes the command: its terminal, its streams and its exit code are those of the client.

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStrExt as _;

use super::client::{Client, CommandResult, service_path};
use super::output::print_error;
use super::socket_paths::Environment;
use crate::model::plan::Credentials;
use crate::model::{StartFailure, StartStep, errno};
use crate::sys::{
    self, ChildSignals, DispositionReset, EnvFiles, ReadEnvFile, Session, SpawnOptions, StringList, signals,
};

/// What the processes of a service find when they start.
struct ProcessContext {
    credentials: Credentials,
    umask: Option<u32>,
    no_new_privs: bool,
    cwd: Option<CString>,
    env: StringList,
    env_files: EnvFiles,
}

/// Executes `command` in place of this process. Returns only if that fails: the exit code.
pub(super) fn run(
    client: &Client,
    name: &str,
    command: &[OsString],
    environment: &Environment<'_>,
    read: ReadEnvFile,
) -> CommandResult {
    let response = client.get(&service_path(name, "environment"))?;
    if response.status != 200 {
        return client.print_refusal("exec", response);
    }
    let context = ProcessContext::parse(&response.body()?, (environment.variable)("TERM"), read);
    let failure = context.execute(command);
    let program = command.first().map(|program| program.to_string_lossy()).unwrap_or_default();
    print_error(&format!("exec: {}", context.failure_text(&program, failure)));
    Ok(failure.exit_code())
}

impl ProcessContext {
    /// Parses `KEY=VALUE` parts that end with a NUL. `term`: the terminal of the command is that of the client.
    fn parse(body: &[u8], term: Option<OsString>, read: ReadEnvFile) -> Self {
        let mut found = Self {
            credentials: Credentials { uid: u32::MAX, gid: u32::MAX, groups: Box::default() },
            umask: None,
            no_new_privs: false,
            cwd: None,
            env: StringList::new(),
            env_files: EnvFiles { files: Vec::new(), fixed: 0, read },
        };
        let mut groups = Vec::new();
        if let Some(term) = &term {
            found.env.push(&[b"TERM=", term.as_bytes()].concat());
        }
        for part in body.split(|byte| *byte == 0) {
            let Some(end) = part.iter().position(|byte| *byte == b'=') else { continue };
            let (key, value) = (part.get(..end).unwrap_or_default(), part.get(end + 1..).unwrap_or_default());
            let number = || str::from_utf8(value).ok()?.parse::<u32>().ok();
            match key {
                // No user has this number.
                b"user" => found.credentials.uid = number().unwrap_or(u32::MAX),
                b"group" => found.credentials.gid = number().unwrap_or(u32::MAX),
                b"groups" => groups.extend(number()),
                b"umask" => found.umask = number(),
                b"no_new_privs" => found.no_new_privs = true,
                b"cwd" => found.cwd = CString::new(value).ok(),
                b"env_file" | b"optional_env_file" => {
                    let path = CString::new(value).unwrap_or_default();
                    found.env_files.files.push((path, key == b"env_file"));
                }
                b"fixed_env" | b"env" if term.is_none() || !value.starts_with(b"TERM=") => {
                    found.env.push(value);
                    found.env_files.fixed = if key == b"fixed_env" { found.env.len() } else { found.env_files.fixed };
                }
                _ => {}
            }
        }
        found.credentials.groups = groups.into();
        found
    }

    fn execute(&self, command: &[OsString]) -> StartFailure {
        let inherited = signals::block_all(DispositionReset::SigchldOnly);
        sys::replace_process(&SpawnOptions {
            argv: &command.iter().map(|word| word.as_bytes()).collect(),
            env: &self.env,
            env_files: Some(&self.env_files).filter(|env_files| !env_files.files.is_empty()),
            cwd: self.cwd.as_deref(),
            session: Session::Same,
            stdio: [None; 3],
            descriptors: &[],
            stored: None,
            file: None,
            credentials: Some(&self.credentials),
            umask: self.umask,
            limits: &[],
            nice: None,
            oom_score_adj: None,
            no_new_privs: self.no_new_privs,
            death_signal: None,
            signals: ChildSignals::Inherited(inherited),
            reports_exec: false,
        })
    }

    fn failure_text(&self, program: &str, failure: StartFailure) -> String {
        let errno = errno::words(failure.errno);
        let path_of = |position: u8| {
            let file = self.env_files.files.get(usize::from(position));
            file.map(|(path, _)| path.to_string_lossy()).unwrap_or_default()
        };
        let Credentials { uid, gid, .. } = self.credentials;
        match failure.step {
            StartStep::Groups | StartStep::Group | StartStep::User => {
                format!("cannot switch to user {uid}, group {gid}: {errno}: run it as root")
            }
            StartStep::Directory => {
                let path = self.cwd.as_deref().unwrap_or_default().to_string_lossy();
                format!("cannot change to directory {path}: {errno}")
            }
            StartStep::EnvFile(position) => format!("cannot read {}: {errno}", path_of(position)),
            StartStep::EnvLine(position, line, error) => format!("{}:{line}: {}", path_of(position), error.words().0),
            StartStep::Interpreter(name) => {
                format!("cannot execute {program}: it needs `{name}`, which does not exist")
            }
            StartStep::NoNewPrivs => format!("cannot set `no_new_privs`: {errno}"),
            // The others belong to settings that `execute` does not use.
            StartStep::Exec
            | StartStep::Listen(_)
            | StartStep::Channels
            | StartStep::StateMemory
            | StartStep::Create
            | StartStep::Session
            | StartStep::Stdio
            | StartStep::Stored
            | StartStep::Descriptors
            | StartStep::OomScoreAdj
            | StartStep::Limit(_)
            | StartStep::Nice
            | StartStep::State => format!("cannot execute {program}: {errno}"),
        }
    }
}

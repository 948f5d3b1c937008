//! `keepalive exec`: a command with the user, the directory and the environment of a service.
//!
//! This process becomes the command: its terminal, its streams and its exit code are those of the client.

use std::borrow::Cow;
use std::ffi::{CString, OsString};
use std::fmt::from_fn;
use std::os::unix::ffi::OsStrExt as _;

use nix::errno::Errno;

use super::client::{Client, CommandResult, service_path};
use super::output::print_error;
use super::request::EXIT_FAILURE;
use super::socket_paths::Environment;
use crate::model::plan::{Credentials, Limit};
use crate::model::{StartFailure, StartStep};
use crate::sys::{
    self, ChildSignals, DispositionReset, EnvFiles, ReadEnvFile, Session, SpawnOptions, StringList, process, signals,
};

/// The most limits of a service: there are fewer kinds.
const MAX_LIMITS: i64 = 64;

/// What a process of the service finds when it starts.
struct ProcessContext {
    /// `None`: those of the client.
    credentials: Option<Credentials>,
    umask: Option<u32>,
    limits: Vec<Limit>,
    nice: Option<i8>,
    oom_score_adj: Option<i16>,
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
    let Some(response) = client.fetch("exec", &service_path(name, "environment"))? else { return Ok(EXIT_FAILURE) };
    let server = response.server();
    let mut context = ProcessContext::parse(&response.body()?, (environment.variable)("TERM"), read);
    // What a server says that is another user can be anything: the command has no more rights than that server.
    match server {
        Some((uid, _)) if uid == 0 || uid == process::effective_user() => {}
        Some((uid, gid)) => {
            context.credentials = Some(Credentials { uid, gid, groups: [].into() });
            (context.limits, context.nice, context.oom_score_adj) = (Vec::new(), None, None);
        }
        None => {
            print_error("exec: the user of the server is unknown");
            return Ok(EXIT_FAILURE);
        }
    }
    let mut failure = context.execute(command);
    if failure.step == StartStep::OomScoreAdj {
        // Only lowering it is denied, and the command runs as well without.
        context.oom_score_adj = None;
        failure = context.execute(command);
    }
    let program = command.first().map(|program| program.to_string_lossy()).unwrap_or_default();
    let operand = context.operand(&program, failure.step);
    let text = from_fn(|formatter| failure.write(operand.as_deref(), formatter));
    let is_user = matches!(failure.step, StartStep::Groups | StartStep::Group | StartStep::User);
    let is_denied = is_user && failure.errno == Errno::EPERM;
    let hint = if is_denied { " (only root can run a command as another user)" } else { "" };
    print_error(&format!("exec: {text}{hint}"));
    Ok(failure.exit_code())
}

impl ProcessContext {
    /// Parses the answer of the server. `term`: the terminal of the client, for a service without one.
    fn parse(body: &[u8], term: Option<OsString>, read: ReadEnvFile) -> Self {
        let mut parts = body.split(|byte| *byte == 0);
        let numbers = str::from_utf8(parts.next().unwrap_or_default()).unwrap_or_default();
        let mut numbers = numbers.split_ascii_whitespace().map(|number| number.parse().unwrap_or(-1_i64));
        let unsigned = |number| u32::try_from(number).unwrap_or(u32::MAX);
        let mut next = || numbers.next().unwrap_or(-1);
        let [uid, gid, umask, no_new_privs, files, fixed] = std::array::from_fn(|_| unsigned(next()));
        let [nice, oom_score_adj, count] = std::array::from_fn(|_| next());
        let mut limit = || {
            let [resource, soft, hard] = std::array::from_fn(|_| next());
            Limit {
                name: "",
                resource: unsigned(resource),
                soft: u64::try_from(soft).ok(),
                hard: u64::try_from(hard).ok(),
            }
        };
        let limits = (0..count.min(MAX_LIMITS)).map(|_| limit()).collect();
        let groups = numbers.map(unsigned).collect();
        let path = |part: &[u8]| CString::new(part).unwrap_or_default();
        let cwd = parts.next().map(path).filter(|path| !path.is_empty());
        let files = parts.by_ref().take(files as usize).filter_map(|part| part.split_first());
        let files = files.map(|(kind, part)| (path(part), *kind == b'+')).collect();
        let mut env: StringList = parts.filter(|variable| !variable.is_empty()).collect();
        if let Some(term) = &term {
            let term = [b"TERM=", term.as_bytes()].concat();
            if !env.has_name_of(env.len(), &term) {
                env.push(&term);
            }
        }
        Self {
            credentials: Some(Credentials { uid, gid, groups }).filter(|_| uid != u32::MAX),
            umask: Some(umask).filter(|umask| *umask != u32::MAX),
            limits,
            nice: i8::try_from(nice).ok().filter(|nice| *nice != i8::MAX),
            oom_score_adj: i16::try_from(oom_score_adj).ok().filter(|score| *score != i16::MAX),
            no_new_privs: no_new_privs != 0,
            cwd,
            env,
            env_files: EnvFiles { files, fixed: fixed as usize, read },
        }
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
            resize: None,
            file: None,
            credentials: self.credentials.as_ref(),
            umask: self.umask,
            mark: [None; 2],
            limits: &self.limits,
            nice: self.nice,
            oom_score_adj: self.oom_score_adj,
            no_new_privs: self.no_new_privs,
            death_signal: None,
            signals: ChildSignals::Inherited(inherited),
            reports_exec: false,
        })
    }

    /// What could not be read, entered or executed.
    fn operand<'a>(&'a self, program: &'a str, step: StartStep) -> Option<Cow<'a, str>> {
        if let StartStep::EnvFile(position) | StartStep::EnvLine(position, ..) = step {
            return self.env_files.files.get(usize::from(position)).map(|(path, _)| path.to_string_lossy());
        }
        if step == StartStep::Directory {
            return self.cwd.as_ref().map(|path| path.to_string_lossy());
        }
        matches!(step, StartStep::Exec | StartStep::Interpreter(_) | StartStep::Architecture(_)).then(|| program.into())
    }
}

//! Creates the processes of services: arguments, environment, descriptors, directory, limits.

use std::ffi::CStr;
use std::fmt::Display;
use std::io::Write as _;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use nix::errno::Errno;

use super::inherited_fds::{FdLayout, InheritedFds};
use super::logging::Logging;
use super::null_device::NullDevice;
use super::runs::RunSpec;
use super::strays::RunMarker;
use super::token::Token;
use crate::config;
use crate::model::plan::{Credentials, Input, Limit, Output, Process, Service, State};
use crate::model::{ExitStatus, Numbers, Pid, RunId, Signal, StartFailure, Template};
use crate::sys::non_blocking_writer::stdout_is_stderr;
use crate::sys::terminal::TerminalLookup;
use crate::sys::{
    self, ChildSignals, EnvFiles, ExecResult, OpenFile, PendingExec, Poller, Session, SpawnOptions, Spawner,
    StandardError, StoredDescriptors, StringList, pipe,
};

/// Creates processes, and reuses its buffers from one to the next.
pub(super) struct ProcessFactory {
    environment: StringList,
    /// `KEEPALIVE_SOCKET`: the path of the control socket, if there is one.
    control_socket: Option<PathBuf>,
    null: NullDevice,
    /// The kernel kills all processes when PID 1 exits. Elsewhere services get a death signal.
    is_init: bool,
    spawner: Spawner,
    run_marker: RunMarker,
    /// The helper processes that have not executed their command yet, as far as is known.
    helpers: Vec<PendingExec>,
    /// The helper processes that have not been reaped.
    helper_pids: Vec<Pid>,
    buffers: Buffers,
}

/// Buffers that are reused, so that a restart does not allocate.
struct Buffers {
    argv: StringList,
    env: StringList,
    cwd: Vec<u8>,
    mark: [Option<Limit>; 2],
    limits: Vec<Limit>,
    state: Vec<u8>,
    env_files: EnvFiles,
}

/// Variables that children do not inherit, because they address keepalive itself: those of systemd, of Node, and of a parent
/// keepalive.
const NOT_INHERITED: [&[u8]; 15] = [
    b"NOTIFY_SOCKET",
    b"WATCHDOG_USEC",
    b"WATCHDOG_PID",
    b"LISTEN_FDS",
    b"LISTEN_PID",
    b"LISTEN_FDNAMES",
    b"LISTEN_PIDFDID",
    b"FDSTORE",
    b"NODE_CHANNEL_FD",
    b"NODE_CHANNEL_SERIALIZATION_MODE",
    b"KEEPALIVE_IPC_FD",
    b"KEEPALIVE_STATE_FD",
    b"KEEPALIVE_SOCKET",
    b"KEEPALIVE_EXIT_CODE",
    b"KEEPALIVE_EXIT_SIGNAL",
];

impl ProcessFactory {
    /// `environment`: the environment of keepalive, `NAME=value` each. `control_socket`: the absolute path of the control
    /// socket.
    ///
    /// # Errors
    /// As [`NullDevice::open`].
    pub(super) fn new(environment: StringList, control_socket: Option<PathBuf>) -> Result<Self, Errno> {
        let passed_on = environment.iter().filter(|variable| !NOT_INHERITED.contains(&name_of(variable)));
        Ok(Self {
            environment: passed_on.collect(),
            control_socket,
            null: NullDevice::open()?,
            is_init: sys::process::is_init(),
            spawner: Spawner::new(),
            run_marker: RunMarker::new(),
            helpers: Vec::new(),
            helper_pids: Vec::new(),
            buffers: Buffers {
                argv: StringList::new(),
                env: StringList::new(),
                cwd: Vec::new(),
                mark: [None; 2],
                limits: Vec::new(),
                state: Vec::new(),
                env_files: EnvFiles { files: Vec::new(), fixed: 0, read: config::read_env_file },
            },
        })
    }

    /// Creates the main process, or the hook, of a run.
    ///
    /// # Errors
    /// As [`Spawner::spawn`].
    pub(super) fn spawn(
        &mut self,
        run: RunId,
        spec: &RunSpec,
        inherited_fds: &InheritedFds<'_>,
        logging: &mut Logging,
    ) -> Result<(Pid, PendingExec), Errno> {
        let service = &spec.definition;
        let (numbers, process) = (spec.numbers(), &service.process);
        // A hook has no descriptors.
        let layout = spec.hook.map_or_else(|| inherited_fds.layout(service), |_| FdLayout::default());
        self.buffers.env.clear();
        if spec.hook.is_none() {
            inherited_fds.describe(&layout, service, &mut self.buffers.env);
        }
        let mut set = |name: &str, value: &dyn Display| {
            self.buffers.env.push_with(|buffer| drop(write!(buffer, "KEEPALIVE_EXIT_{name}={value}")));
        };
        match spec.ended {
            Some(ExitStatus::Code(code)) => set("CODE", &code),
            Some(ExitStatus::Signal(signal)) => set("SIGNAL", &signal),
            None => {}
        }
        self.fill(run, spec, spec.command(), logging);
        let state = &mut self.buffers.state;
        state.clear();
        if let Some(State { persist: Some(path), .. }) = &process.state {
            path.write_to(numbers, state);
        }
        let path = CStr::from_bytes_until_nul(&self.buffers.state).ok();
        let file = layout.file.zip(path).map(|((number, size), path)| OpenFile { path, size, number });
        let null = &self.null;
        let [stdout, stderr] = logging.outputs(run, spec);
        let (stdout, stderr) =
            (stdout.or_else(|| sink(process.stdout, null)), stderr.or_else(|| sink(process.stderr, null)));
        if stderr.is_none() || (stdout.is_none() && stdout_is_stderr()) {
            StandardError.share();
        }
        let setup = SpawnOptions {
            session: match process.input {
                Input::Null => Session::NewSession,
                Input::Terminal => Session::Foreground(TerminalLookup::Stdin),
            },
            stdio: [(process.input == Input::Null).then_some(null.input()), stdout, stderr],
            descriptors: &layout.descriptors,
            stored: inherited_fds.stored_socket.filter(|_| layout.stored.1 > 0).map(|socket| StoredDescriptors {
                socket,
                first: layout.stored.0,
                count: layout.stored.1,
            }),
            resize: layout.resize,
            file,
            death_signal: (!self.is_init).then_some(service.stop.signal),
            ..self.buffers.options(process, null)
        };
        self.spawner.spawn(&setup)
    }

    /// Creates a helper process of a run: a command that writes to this pipe, with the settings of the service. The files with
    /// its variables need not exist. When it has been reaped, [`Self::on_helper_reaped`] must be called.
    ///
    /// # Errors
    /// As [`Spawner::spawn`].
    pub(super) fn spawn_helper(
        &mut self,
        run: RunId,
        spec: &RunSpec,
        (command, output): (&[Template], BorrowedFd<'_>),
        logging: &Logging,
        poller: &Poller,
    ) -> Result<Pid, Errno> {
        self.buffers.env.clear();
        self.fill(run, spec, command, logging);
        for (_, is_required) in &mut self.buffers.env_files.files {
            *is_required = false;
        }
        if let Some(Credentials { uid, gid, .. }) = spec.definition.process.credentials {
            pipe::set_owner(output, uid, gid);
        }
        let setup = SpawnOptions {
            stdio: [self.null.input(), output, output].map(Some),
            death_signal: (!self.is_init).then_some(Signal::KILL),
            ..self.buffers.options(&spec.definition.process, &self.null)
        };
        let (pid, exec) = self.spawner.spawn(&setup)?;
        exec.pipe().map(|pipe| poller.add(pipe, Token::HelperExecResult));
        self.helpers.push(exec);
        self.helper_pids.push(pid);
        Ok(pid)
    }

    /// Looks which helper processes have executed their command, or could not.
    pub(super) fn poll_helpers(&mut self, poller: &Poller) {
        let has_result = |exec: &mut PendingExec| {
            let result = exec.poll();
            if result.is_some() {
                exec.pipe().map(|pipe| poller.remove(pipe));
            }
            result == Some(ExecResult::Executed)
        };
        for exec in self.helpers.extract_if(.., has_result) {
            self.spawner.reclaim(exec);
        }
    }

    /// Whether this child is a helper process, which is ended with its task, and no leftover process of its run.
    pub(super) fn is_helper(&self, pid: Pid) -> bool {
        self.helper_pids.contains(&pid)
    }

    /// A helper process has been reaped. Returns why it has not executed its command.
    pub(super) fn on_helper_reaped(&mut self, pid: Pid, poller: &Poller) -> Option<StartFailure> {
        self.helper_pids.retain(|helper| *helper != pid);
        let position = self.helpers.iter().position(|exec| exec.pid() == pid)?;
        let mut exec = self.helpers.swap_remove(position);
        exec.pipe().map(|pipe| poller.remove(pipe));
        let failure = exec.on_reaped();
        self.spawner.reclaim(exec);
        failure
    }

    /// What marks the processes of a run.
    pub(super) const fn run_marker(&self) -> RunMarker {
        self.run_marker
    }

    /// As [`Spawner::reclaim`].
    pub(super) fn reclaim(&mut self, pending: PendingExec) {
        self.spawner.reclaim(pending);
    }

    /// Fills the buffers. `env` may have variables already.
    fn fill(&mut self, run: RunId, spec: &RunSpec, command: &[Template], logging: &Logging) {
        let (numbers, process) = (spec.numbers(), &spec.definition.process);
        self.fill_env(&spec.definition, numbers, spec.restarts);
        self.buffers.mark = self.run_marker.limits(run, &process.limits);
        let Buffers { argv, cwd, limits, env_files, .. } = &mut self.buffers;
        env_files.files.clear();
        env_files.files.extend(process.env_files.iter().map(|file| (file.path.expand(numbers), file.required)));
        argv.clear();
        for word in command {
            argv.push_template(word, numbers);
        }
        cwd.clear();
        if let Some(path) = &process.cwd {
            path.write_to(numbers, cwd);
        }
        limits.clear();
        limits.extend_from_slice(&process.limits);
        limits.extend(logging.limit_of_services(process));
    }

    /// Sets the variables of a run.
    fn fill_env(&mut self, service: &Service, numbers: Numbers, restarts: u32) {
        let mut env = std::mem::take(&mut self.buffers.env);
        let given = env.len();
        self.buffers.env_files.fixed = self.push_env(service, numbers, restarts, given, &mut env);
        self.buffers.env = env;
    }

    /// The variables of a process that belongs to no run, and how many of them, at the start, no `env_file` overrides.
    pub(super) fn env_of(&self, service: &Service, numbers: Numbers, restarts: u32) -> (StringList, usize) {
        let mut env = StringList::new();
        let fixed = self.push_env(service, numbers, restarts, 0, &mut env);
        (env, fixed)
    }

    /// Adds the variables of keepalive, then those of the service, then the inherited ones. The first of each name wins; so do
    /// the first `given` ones. Returns how many of them no `env_file` overrides.
    fn push_env(
        &self,
        service: &Service,
        numbers: Numbers,
        restarts: u32,
        given: usize,
        env: &mut StringList,
    ) -> usize {
        if let Some(path) = &self.control_socket {
            env.push_with(|buffer| {
                buffer.extend_from_slice(b"KEEPALIVE_SOCKET=");
                buffer.extend_from_slice(path.as_os_str().as_bytes());
            });
        }
        env.push_with(|buffer| drop(write!(buffer, "KEEPALIVE_SERVICE={}", service.name)));
        env.push_with(|buffer| drop(write!(buffer, "KEEPALIVE_INSTANCE={}", numbers.instance)));
        env.push_with(|buffer| drop(write!(buffer, "KEEPALIVE_INSTANCES={}", numbers.instances)));
        env.push_with(|buffer| drop(write!(buffer, "KEEPALIVE_RESTARTS={restarts}")));
        let fixed = env.len() + service.process.own_env;
        for variable in &service.process.env {
            if given == 0 || !env.has_name_of(given, variable.literal_prefix()) {
                env.push_template(variable, numbers);
            }
        }
        if service.process.inherit_env {
            let own = env.len();
            for variable in self.environment.iter() {
                if !env.has_name_of(own, variable) {
                    env.push(variable);
                }
            }
        }
        fixed
    }
}

impl Buffers {
    /// The settings of the service, without input, output and descriptors.
    fn options<'a>(&'a self, process: &'a Process, null: &'a NullDevice) -> SpawnOptions<'a> {
        SpawnOptions {
            argv: &self.argv,
            env: &self.env,
            env_files: Some(&self.env_files).filter(|env_files| !env_files.files.is_empty()),
            cwd: CStr::from_bytes_until_nul(&self.cwd).ok(),
            session: Session::NewSession,
            stdio: [null.input(), null.output(), null.output()].map(Some),
            descriptors: &[],
            stored: None,
            resize: None,
            file: None,
            credentials: process.credentials.as_ref(),
            umask: process.umask,
            mark: self.mark,
            limits: &self.limits,
            nice: process.nice,
            oom_score_adj: process.oom_score_adj,
            no_new_privs: process.no_new_privs,
            death_signal: None,
            signals: ChildSignals::Default,
            reports_exec: true,
        }
    }
}

fn sink(output: Output, null: &NullDevice) -> Option<BorrowedFd<'_>> {
    match output {
        Output::Raw | Output::Inherit | Output::Prefix => None,
        Output::Null => Some(null.output()),
    }
}

/// `NAME` of `NAME=value`.
fn name_of(variable: &[u8]) -> &[u8] {
    variable.split(|byte| *byte == b'=').next().unwrap_or_default()
}

//! Starting a process: the memory that the child uses until it executes its program, filled in by the parent.

use std::cell::{Cell, UnsafeCell};
use std::ffi::{CStr, c_char, c_int, c_long, c_void};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};

use super::exec_failure;
use super::path_search::{self, PathSearch};
use super::signals::ChildSignals;
use super::spawn_options::{EnvFiles, OpenFile, Session, SpawnOptions};
use super::strings::StringList;
use crate::model::plan::{Credentials, Limit};
use crate::model::{ProgramName, Signal, StartFailure};

/// The variables that name the process for which other variables are meant: sd_listen_fds(3), sd_watchdog_enabled(3).
pub(super) const PID_VARIABLES: [&CStr; 2] = [c"LISTEN_PID=", c"WATCHDOG_PID="];
/// Room for the longest of these, the longest id and a NUL, in bytes.
pub(super) const PID_VARIABLE_SIZE: usize = 24;
/// The size of the child's stack in bytes. The child's half has no deep calls and no large locals.
const STACK_SIZE: usize = 16 * 1024;

/// The size of the stack of a child that reads files with variables, in bytes. keepalive itself never touches it.
const READING_STACK_SIZE: usize = 256 * 1024;
/// The alignment of a stack pointer, in bytes, on every supported architecture.
const STACK_ALIGNMENT: usize = 16;

/// All memory that the child uses, filled in by the parent: copies of the [`SpawnOptions`] and a stack. It must be neither
/// changed nor freed until the child has executed its program or has exited.
#[derive(Debug)]
pub(super) struct ChildMemory {
    stack: Box<[MaybeUninit<u8>]>,
    pub(super) argv: StringList,
    pub(super) env: StringList,
    pub(super) candidates: StringList,
    pub(super) search: PathSearch,
    /// Ends with a null pointer. The child may change it.
    pub(super) candidate_pointers: UnsafeCell<Vec<*const c_char>>,
    /// `[/bin/sh, argv…, NULL]`: the program gets the vector from index 1 on, a shell that runs a script without `#!`
    /// gets all of it. The child may change it.
    pub(super) argv_pointers: UnsafeCell<Vec<*const c_char>>,
    /// Ends with a null pointer. The child may change it.
    pub(super) env_pointers: UnsafeCell<Vec<*const c_char>>,
    /// The positions in `env_pointers` of the [`PID_VARIABLES`] to be set to the child's id.
    pub(super) pid_variables: [Option<usize>; PID_VARIABLES.len()],
    pub(super) pid_variable_texts: UnsafeCell<[[u8; PID_VARIABLE_SIZE]; PID_VARIABLES.len()]>,
    /// `Some`: the child has a copy of keepalive's memory.
    pub(super) env_files: Option<EnvFiles>,
    pub(super) cwd: Option<Box<CStr>>,
    pub(super) session: Session,
    pub(super) stdio: [c_int; 3],
    /// Pairs of target and source, with room for the stored ones. The child may change them.
    pub(super) descriptors: UnsafeCell<Vec<[c_int; 2]>>,
    /// Whether the child closes the descriptors that its program does not get before the steps that can take long.
    pub(super) closes_others: bool,
    /// The socket over which stored descriptors come, the first number and the count.
    pub(super) stored: Option<(c_int, u8, u8)>,
    /// The number of a descriptor, and the size that its file gets.
    pub(super) resize: Option<(u8, u64)>,
    pub(super) file: Option<(Box<CStr>, OpenedFile)>,
    pub(super) credentials: Option<Credentials>,
    pub(super) umask: Option<u32>,
    pub(super) mark: [Option<Limit>; 2],
    pub(super) limits: Vec<Limit>,
    pub(super) nice: Option<i8>,
    pub(super) oom_score_adj: Option<i16>,
    pub(super) no_new_privs: bool,
    pub(super) death_signal: Option<Signal>,
    pub(super) signals: ChildSignals,
    /// The process id of the parent, keepalive.
    pub(super) parent: c_long,
    /// The pipe to which the child writes a failure; −1: none. The child may move it to another number.
    pub(super) pipe: Cell<c_int>,
    /// The failure; 0: none.
    pub(super) failure: AtomicU64,
    /// The missing interpreter, or the architecture of the program, which the child sets before `failure`.
    pub(super) name: Cell<[u8; ProgramName::SIZE]>,
}

/// The size and the number of an [`OpenFile`].
pub(super) type OpenedFile = (u64, u8);

impl ChildMemory {
    pub(super) fn new() -> Self {
        Self {
            stack: Box::new_uninit_slice(STACK_SIZE),
            argv: StringList::new(),
            env: StringList::new(),
            candidates: StringList::new(),
            search: PathSearch::No,
            candidate_pointers: UnsafeCell::default(),
            argv_pointers: UnsafeCell::default(),
            env_pointers: UnsafeCell::default(),
            pid_variables: [None; PID_VARIABLES.len()],
            pid_variable_texts: UnsafeCell::default(),
            env_files: None,
            cwd: None,
            session: Session::Same,
            stdio: [-1; 3],
            descriptors: UnsafeCell::default(),
            closes_others: false,
            stored: None,
            resize: None,
            file: None,
            credentials: None,
            umask: None,
            mark: [None; 2],
            limits: Vec::new(),
            nice: None,
            oom_score_adj: None,
            no_new_privs: false,
            death_signal: None,
            signals: ChildSignals::Default,
            parent: super::process::id().get().into(),
            pipe: Cell::new(-1),
            failure: AtomicU64::new(0),
            name: Cell::new([0; ProgramName::SIZE]),
        }
    }

    /// Why the child could not execute its program.
    pub(super) fn failure(&self) -> Option<StartFailure> {
        let record = Some(self.failure.load(Ordering::Acquire)).filter(|record| *record != 0)?;
        Some(exec_failure::decode(record, &self.name.get()))
    }

    /// Copies what the child needs. `pipe`: where it writes a failure.
    pub(super) fn fill(&mut self, options: &SpawnOptions<'_>, pipe: c_int) {
        self.argv.clone_from(options.argv);
        self.env.clone_from(options.env);
        self.pid_variables = pid_variables(options.env);
        let program = options.argv.get(0).unwrap_or_default();
        self.search = path_search::candidates(program, || value_of(options.env, b"PATH="), &mut self.candidates);
        self.fill_pointers();
        self.env_files = options.env_files.cloned();
        if self.env_files.is_some() && self.stack.len() < READING_STACK_SIZE {
            self.stack = Box::new_uninit_slice(READING_STACK_SIZE);
        }
        self.cwd = options.cwd.map(Box::from);
        self.session = options.session;
        self.stdio = options.stdio.map(|source| source.map_or(-1, |source| source.as_raw_fd()));
        let descriptors = self.descriptors.get_mut();
        descriptors.clear();
        descriptors.extend(options.descriptors.iter().map(|(target, fd)| [c_int::from(*target), fd.as_raw_fd()]));
        self.closes_others = super::process::has_cloexec_on_inherited_fds();
        self.stored = options.stored.map(|stored| (stored.socket.as_raw_fd(), stored.first, stored.count));
        descriptors.reserve(options.stored.map_or(0, |stored| stored.count.into()));
        self.resize = options.resize;
        self.file = options.file.map(|file| (Box::from(file.path), (file.size, file.number)));
        self.credentials = options.credentials.cloned();
        self.umask = options.umask;
        self.mark = options.mark;
        self.limits.clear();
        self.limits.extend_from_slice(options.limits);
        self.nice = options.nice;
        self.oom_score_adj = options.oom_score_adj;
        self.no_new_privs = options.no_new_privs;
        self.death_signal = options.death_signal;
        self.signals = options.signals;
        self.pipe.set(pipe);
        *self.failure.get_mut() = 0;
        self.name.set([0; ProgramName::SIZE]);
    }

    fn fill_pointers(&mut self) {
        let candidates = self.candidate_pointers.get_mut();
        candidates.clear();
        self.candidates.append_pointers(candidates);
        candidates.push(std::ptr::null());
        let argv = self.argv_pointers.get_mut();
        argv.clear();
        argv.push(c"/bin/sh".as_ptr());
        self.argv.append_pointers(argv);
        // For a script the child overwrites the second element, so there must be one even without an argv[0].
        while argv.len() < 2 {
            argv.push(c"".as_ptr());
        }
        argv.push(std::ptr::null());
        let env = self.env_pointers.get_mut();
        env.clear();
        self.env.append_pointers(env);
        env.push(std::ptr::null());
    }

    /// The initial stack pointer of the child: the stack grows down on every supported architecture.
    pub(super) fn stack_top(&mut self) -> *mut c_void {
        let end = self.stack.as_mut_ptr_range().end;
        let excess = end.addr() % STACK_ALIGNMENT;
        end.wrapping_byte_sub(excess).cast()
    }

    pub(super) fn file(&self) -> Option<OpenFile<'_>> {
        self.file.as_ref().map(|(path, (size, number))| OpenFile { path, size: *size, number: *number })
    }
}

/// The positions in `env` of those [`PID_VARIABLES`] that hold keepalive's own id: the child's id replaces it.
fn pid_variables(env: &StringList) -> [Option<usize>; PID_VARIABLES.len()] {
    PID_VARIABLES.map(|name| {
        let name = name.to_bytes();
        let value: i32 = str::from_utf8(value_of(env, name)?).ok()?.parse().ok()?;
        (value == super::process::id().get()).then(|| env.position(env.len(), name))?
    })
}

/// The value of the variable `name`, which includes the `=`.
pub(super) fn value_of<'a>(env: &'a StringList, name: &[u8]) -> Option<&'a [u8]> {
    env.get(env.position(env.len(), name)?)?.strip_prefix(name)
}

//! Starting a process: the child's half, between clone(2) and execve(2).
//!
//! The child may share the parent's memory, so it only makes system calls: no allocation, no locks, nothing that can
//! panic, no libc function that deals with threads or signals (musl's setuid signals all threads).

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_long, c_void};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;

use super::exec_failure;
use super::exec_step as step;
use super::open_file;
use super::path_search::PathSearch;
use super::signals::{ChildSignals, Disposition, SignalSet, set_disposition, set_mask};
use super::spawn_options::{Session, SpawnOptions};
use super::syscall::syscall;
use crate::model::plan::{Credentials, Limit};

/// The variables that name the process for which other variables are meant: sd_listen_fds(3), sd_watchdog_enabled(3).
pub(super) const PID_VARIABLES: [&CStr; 2] = [c"LISTEN_PID=", c"WATCHDOG_PID="];
/// Room for the longest of these, the longest id and a NUL, in bytes.
const PID_VARIABLE_SIZE: usize = 24;

/// Everything that the child uses, prepared by the parent.
pub(super) struct ChildContext<'a> {
    options: &'a SpawnOptions<'a>,
    /// The process id of the parent, keepalive.
    parent: c_long,
    stdio: [c_int; 3],
    search: PathSearch,
    /// The positions in `envp` of the [`PID_VARIABLES`] to be set to the child's id.
    pid_variables: [Option<usize>; PID_VARIABLES.len()],
    pid_variable_texts: std::cell::UnsafeCell<[[u8; PID_VARIABLE_SIZE]; PID_VARIABLES.len()]>,
    /// Ends with a null pointer.
    pub(super) candidates: *const *const c_char,
    /// `[/bin/sh, argv…, NULL]`, at least one argument.
    pub(super) shell_argv: *mut *const c_char,
    /// Ends with a null pointer.
    pub(super) envp: *mut *const c_char,
    /// Pairs of target and source, one for each descriptor of the options. The child may change them.
    pub(super) descriptors: *mut [c_int; 2],
    /// The pipe to which the child writes a failure; −1: none. The child may move it to another number.
    pub(super) pipe: Cell<c_int>,
    /// The failure, for a parent that shares its memory with the child; 0: none.
    pub(super) failure: AtomicU64,
}

impl<'a> ChildContext<'a> {
    pub(super) fn new(
        options: &'a SpawnOptions<'a>,
        search: PathSearch,
        pid_variables: [Option<usize>; PID_VARIABLES.len()],
    ) -> Self {
        Self {
            options,
            parent: super::process::id().get().into(),
            stdio: options.stdio.map(|source| source.map_or(-1, |source| source.as_raw_fd())),
            search,
            pid_variables,
            pid_variable_texts: std::cell::UnsafeCell::new([[0; PID_VARIABLE_SIZE]; PID_VARIABLES.len()]),
            candidates: std::ptr::null(),
            shell_argv: std::ptr::null_mut(),
            envp: std::ptr::null_mut(),
            descriptors: std::ptr::null_mut(),
            pipe: Cell::new(-1),
            failure: AtomicU64::new(0),
        }
    }
}

struct FailedStep {
    step: u8,
    detail: u8,
    errno: Errno,
}

/// The function that clone(2) runs. `context` points to a [`ChildContext`].
pub(super) extern "C" fn run(context: *mut c_void) -> c_int {
    // SAFETY: `clone` in spawn.rs passes a valid context, and the parent does not write to it while the child runs.
    let context: &ChildContext<'_> = unsafe { &*context.cast_const().cast() };
    let failed = match prepare(context) {
        Err(failed) => failed,
        Ok(()) => FailedStep { step: step::EXEC, detail: 0, errno: execute(context) },
    };
    let record = exec_failure::encode(failed.step, failed.detail, failed.errno as i32);
    context.failure.store(record, Ordering::Release);
    let pipe = context.pipe.get();
    if pipe >= 0 {
        let bytes = record.to_ne_bytes();
        // SAFETY: the array has as many bytes as the length says. The pipe is empty, so the write is not split.
        unsafe { libc::write(pipe, bytes.as_ptr().cast(), bytes.len()) };
    }
    let code = c_int::from(exec_failure::decode(record).exit_code());
    // SAFETY: ends the process without running any code of the parent, such as atexit handlers.
    unsafe { libc::_exit(code) }
}

/// Takes all steps before execve(2).
fn prepare(context: &ChildContext<'_>) -> Result<(), FailedStep> {
    let options = context.options;
    let at = |step| move |errno| FailedStep { step, detail: 0, errno };
    enter_session(options.session).map_err(at(step::SESSION))?;
    connect_stdio(context.stdio).map_err(at(step::STDIO))?;
    place_descriptors(context).map_err(at(step::DESCRIPTORS))?;
    // Before the limits: it opens a file, which a low `nofile` would prevent.
    if let Some(score) = options.oom_score_adj {
        set_oom_score_adj(score).map_err(at(step::OOM_SCORE_ADJ))?;
    }
    for (detail, limit) in (0_u8..).zip(options.limits) {
        set_limit(limit).map_err(|errno| FailedStep { step: step::LIMIT, detail, errno })?;
    }
    if let Some(nice) = options.nice {
        let process = c_long::from(libc::PRIO_PROCESS);
        syscall(libc::SYS_setpriority, [process, 0, c_long::from(nice)]).map_err(at(step::NICE))?;
    }
    if let Some(umask) = options.umask {
        syscall(libc::SYS_umask, [c_long::from(umask), 0, 0]).map_err(at(step::USER))?;
    }
    if let Some(credentials) = options.credentials {
        if let Some(file) = options.file {
            open_file::create_for(credentials, file.path);
        }
        become_user(credentials)?;
    }
    if let Some(file) = options.file {
        open_file::open(&file).map_err(at(step::STATE))?;
    }
    if let Some(directory) = options.cwd {
        syscall(libc::SYS_chdir, [directory.as_ptr() as c_long, 0, 0]).map_err(at(step::DIRECTORY))?;
    }
    if options.no_new_privs {
        // SAFETY: all arguments are plain numbers.
        let result =
            unsafe { libc::syscall(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1_usize, 0_usize, 0_usize, 0_usize) };
        Errno::result(result).map_err(at(step::NO_NEW_PRIVS))?;
    }
    if let Some(signal) = options.death_signal {
        // After the change of user, which clears it. It fails only for invalid signal numbers, which `Signal` excludes.
        syscall(libc::SYS_prctl, [c_long::from(libc::PR_SET_PDEATHSIG), c_long::from(signal.number()), 0]).ok();
        if syscall(libc::SYS_getppid, [0; 3]) != Ok(context.parent) {
            // The parent died before the signal was set, so no signal will come.
            return Err(at(step::SESSION)(Errno::ESRCH));
        }
    }
    restore_signals(options.signals);
    Ok(())
}

fn enter_session(session: Session) -> Result<(), Errno> {
    match session {
        Session::NewSession => syscall(libc::SYS_setsid, [0; 3]).map(drop),
        Session::NewSessionOnTerminal => {
            syscall(libc::SYS_setsid, [0; 3])?;
            super::terminal::set_controlling();
            Ok(())
        }
        Session::Same => Ok(()),
        Session::NewGroup => syscall(libc::SYS_setpgid, [0; 3]).map(drop),
        Session::Foreground(reach) => {
            let foreground = super::terminal::foreground_group_raw(reach);
            let ours = foreground.is_some() && foreground == own_group();
            syscall(libc::SYS_setpgid, [0; 3])?;
            if ours && let Some(group) = own_group() {
                // All signals are blocked, so SIGTTOU does not stop the child. The call fails only if the terminal no
                // longer exists.
                super::terminal::set_foreground_group_raw(reach, group);
            }
            Ok(())
        }
    }
}

fn own_group() -> Option<c_int> {
    syscall(libc::SYS_getpgid, [0; 3]).ok().and_then(|group| c_int::try_from(group).ok())
}

/// Duplicates the sources onto 0, 1 and 2. A source below 3 is moved first, because it may be the target of another.
fn connect_stdio(mut sources: [c_int; 3]) -> Result<(), Errno> {
    for (target, source) in (0..).zip(&mut sources) {
        if (0..3).contains(source) && *source != target {
            let moved = syscall(libc::SYS_fcntl, [c_long::from(*source), c_long::from(libc::F_DUPFD_CLOEXEC), 3])?;
            *source = c_int::try_from(moved).unwrap_or(-1);
        }
    }
    for (target, source) in (0..).zip(sources) {
        if source == target {
            syscall(libc::SYS_fcntl, [target.into(), c_long::from(libc::F_SETFD), 0])?;
        } else if source >= 0 {
            syscall(libc::SYS_dup3, [source.into(), target.into(), 0])?;
        }
    }
    Ok(())
}

/// Duplicates the other descriptors onto their numbers. A source that has one of these numbers is moved first.
fn place_descriptors(context: &ChildContext<'_>) -> Result<(), Errno> {
    let count = context.options.descriptors.len();
    let file = context.options.file.map_or(-1, |file| c_int::from(file.number));
    if count == 0 && file < 0 {
        return Ok(());
    }
    // SAFETY: the parent prepared `count` pairs, and only this child uses them while it runs.
    let pairs = unsafe { std::slice::from_raw_parts_mut(context.descriptors, count) };
    let last = pairs.iter().map(|[target, _]| *target).fold(file, c_int::max);
    let moved = |fd: c_int| {
        let room = [fd.into(), c_long::from(libc::F_DUPFD_CLOEXEC), c_long::from(last) + 1];
        syscall(libc::SYS_fcntl, room).map(|moved| c_int::try_from(moved).unwrap_or(-1))
    };
    if (0..=last).contains(&context.pipe.get()) {
        context.pipe.set(moved(context.pipe.get())?);
    }
    for [_, source] in pairs.iter_mut().filter(|[_, source]| *source <= last) {
        *source = moved(*source)?;
    }
    for [target, source] in pairs {
        syscall(libc::SYS_dup3, [(*source).into(), (*target).into(), 0])?;
    }
    Ok(())
}

fn set_limit(limit: &Limit) -> Result<(), Errno> {
    let value = |limit: Option<u64>| limit.unwrap_or(libc::RLIM_INFINITY);
    let new = [value(limit.soft), value(limit.hard)];
    let (resource, old) = (c_long::from(limit.resource), std::ptr::null::<u64>());
    // SAFETY: prlimit64 reads two 64-bit numbers from `new` and writes nothing, as `old` is null.
    Errno::result(unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, new.as_ptr(), old) }).map(drop)
}

fn set_oom_score_adj(score: i16) -> Result<(), Errno> {
    let (path, flags) = (c"/proc/self/oom_score_adj", libc::O_WRONLY | libc::O_CLOEXEC);
    // SAFETY: the path is NUL-terminated.
    let file = Errno::result(unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags) })?;
    let mut buffer = [0; 8];
    if score < 0
        && let Some(sign) = buffer.first_mut()
    {
        *sign = b'-';
    }
    let text = write_decimal(u32::from(score.unsigned_abs()), usize::from(score < 0), &mut buffer);
    let written = syscall(libc::SYS_write, [file, buffer.as_ptr() as c_long, text as c_long]);
    syscall(libc::SYS_close, [file, 0, 0])?;
    written.map(drop)
}

/// Sets the groups, then the group, then the user: in any other order the process loses the right to make the next call.
/// Does nothing if nothing changes and keepalive is not root.
fn become_user(credentials: &Credentials) -> Result<(), FailedStep> {
    let at = |step| move |errno| FailedStep { step, detail: 0, errno };
    let number = |call_number| syscall(call_number, [0; 3]).unwrap_or(-1);
    let (uid, gid) = (c_long::from(credentials.uid), c_long::from(credentials.gid));
    let user = number(libc::SYS_geteuid);
    let same = user == uid && number(libc::SYS_getegid) == gid;
    if same && user != 0 {
        return Ok(());
    }
    let groups = [credentials.groups.len() as c_long, credentials.groups.as_ptr() as c_long, 0];
    match syscall(libc::SYS_setgroups, groups) {
        // Root without capabilities: accepted if the groups are right already.
        Err(Errno::EPERM) if same && has_groups(&credentials.groups, credentials.gid) => return Ok(()),
        other => other.map_err(at(step::GROUPS))?,
    };
    syscall(libc::SYS_setgid, [gid, 0, 0]).map_err(at(step::GROUP))?;
    syscall(libc::SYS_setuid, [uid, 0, 0]).map_err(at(step::USER))?;
    Ok(())
}

/// Whether the supplementary groups are `wanted`, disregarding `gid`, which the process has in any case.
fn has_groups(wanted: &[u32], gid: u32) -> bool {
    let mut groups = [gid; 64];
    let (size, start) = (groups.len() as c_long, groups.as_mut_ptr());
    // SAFETY: `groups` has room for `size` numbers; if there are more, the call fails.
    let count = Errno::result(unsafe { libc::syscall(libc::SYS_getgroups, size, start) });
    let ours = || groups.iter().filter(|group| **group != gid);
    count.is_ok() && ours().all(|group| wanted.contains(group)) && wanted.iter().all(|group| groups.contains(group))
}

fn restore_signals(signals: ChildSignals) {
    match signals {
        ChildSignals::Default => {
            set_mask(SignalSet::EMPTY);
        }
        ChildSignals::Inherited(inherited) => {
            if inherited.ignored != SignalSet::EMPTY {
                for signal in inherited.ignored.iter() {
                    set_disposition(signal, Disposition::Ignore);
                }
            }
            set_mask(inherited.mask);
        }
    }
}

/// Tries each candidate as execvp(3) does. Returns only if all fail, with the error to be reported.
fn execute(context: &ChildContext<'_>) -> Errno {
    set_pid_variables(context);
    // SAFETY: the vector holds "/bin/sh", at least one argument and a null pointer.
    let argv = unsafe { context.shell_argv.add(1) };
    let mut candidate = context.candidates;
    let mut denied = false;
    loop {
        // SAFETY: `candidate` is not past the null pointer that ends the list.
        let path = unsafe { *candidate };
        if path.is_null() {
            return if denied { Errno::EACCES } else { Errno::ENOENT };
        }
        let mut errno = execve(path, argv, context.envp);
        if errno == Errno::ENOEXEC {
            // SAFETY: the parent prepared `argv` for this child alone and lets it overwrite the first element.
            unsafe { *argv = path };
            // If the shell cannot be executed either, ENOEXEC is what is reported.
            execve(c"/bin/sh".as_ptr(), context.shell_argv, context.envp);
            errno = Errno::ENOEXEC;
        }
        let missing =
            matches!(errno, Errno::ENOENT | Errno::ENOTDIR | Errno::ESTALE | Errno::ENODEV | Errno::ETIMEDOUT);
        if context.search == PathSearch::No || !(missing || errno == Errno::EACCES) {
            return errno;
        }
        denied |= errno == Errno::EACCES;
        // SAFETY: this element was not the null pointer, so there is another.
        candidate = unsafe { candidate.add(1) };
    }
}

fn execve(path: *const c_char, argv: *const *const c_char, envp: *const *const c_char) -> Errno {
    // SAFETY: a NUL-terminated path and two vectors that end with a null pointer.
    unsafe { libc::syscall(libc::SYS_execve, path, argv, envp) };
    Errno::last()
}

/// Sets [`PID_VARIABLES`] that named keepalive to this process.
fn set_pid_variables(context: &ChildContext<'_>) {
    if context.pid_variables == [None; PID_VARIABLES.len()] {
        return;
    }
    let Ok(Ok(own)) = syscall(libc::SYS_getpid, [0; 3]).map(u32::try_from) else { return };
    // SAFETY: only this child uses the cell while it runs.
    let texts = unsafe { &mut *context.pid_variable_texts.get() };
    for ((name, position), text) in PID_VARIABLES.into_iter().zip(context.pid_variables).zip(texts) {
        let Some(position) = position else { continue };
        let name = name.to_bytes();
        for (to, from) in text.iter_mut().zip(name) {
            *to = *from;
        }
        write_decimal(own, name.len(), text);
        // SAFETY: `position` is the index of an element of the environment, before the null pointer.
        let entry = unsafe { context.envp.add(position) };
        // SAFETY: the vector was prepared for this child; the text is NUL-terminated and lives until execve.
        unsafe { *entry = text.as_ptr().cast() };
    }
}

/// Writes `number` into `buffer` at `start` and returns the position after it. Digits that do not fit are dropped.
fn write_decimal(number: u32, start: usize, buffer: &mut [u8]) -> usize {
    let mut digits = [0; 10];
    let (mut rest, mut count) = (number, 0);
    for digit in &mut digits {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
        count += 1;
        if rest == 0 {
            break;
        }
    }
    let mut end = start;
    for digit in digits.iter().take(count).rev() {
        if let Some(slot) = buffer.get_mut(end) {
            *slot = *digit;
            end += 1;
        }
    }
    end
}

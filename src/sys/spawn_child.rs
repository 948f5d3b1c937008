//! The child's half of a start, between clone(2) and execve(2).
//!
//! It may share the parent's memory. So it makes system calls and nothing else: no allocation, no lock, nothing that can
//! panic, no function of libc that knows of threads or signals (musl's setuid asks other threads to do the same).

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_long, c_void};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;

use super::open_file;
use super::path_search::Search;
use super::signals::{ChildSignals, Disposition, SignalSet, set_disposition, set_mask};
use super::spawn::{Failure, Session, Setup, decode_failure, encode_failure};
use crate::model::plan::{Credentials, Limit};

/// The steps by the numbers that [`encode_failure`] takes, in the order in which they are taken.
mod step {
    pub(super) const SESSION: u8 = 0;
    pub(super) const STDIO: u8 = 1;
    pub(super) const OOM_SCORE_ADJ: u8 = 2;
    pub(super) const LIMIT: u8 = 3;
    pub(super) const NICE: u8 = 4;
    pub(super) const GROUPS: u8 = 5;
    pub(super) const GROUP: u8 = 6;
    pub(super) const USER: u8 = 7;
    pub(super) const DIRECTORY: u8 = 8;
    pub(super) const NO_NEW_PRIVS: u8 = 9;
    pub(super) const EXEC: u8 = 10;
    pub(super) const DESCRIPTORS: u8 = 11;
    pub(super) const STATE: u8 = 12;
}

/// Which variables tell for whom others are: sd_listen_fds(3), sd_watchdog_enabled(3).
pub(super) const OWN_IDS: [&CStr; 2] = [c"LISTEN_PID=", c"WATCHDOG_PID="];
/// The longer of these and the longest id with its NUL.
const OWN_ID_SIZE: usize = 24;

/// Everything that the child needs, prepared.
pub(super) struct Job<'a> {
    setup: &'a Setup<'a>,
    /// Our own id, the child's parent.
    parent: c_long,
    stdio: [c_int; 3],
    search: Search,
    /// Where in the environment they are to be set.
    own_ids: [Option<usize>; OWN_IDS.len()],
    own_id_texts: std::cell::UnsafeCell<[[u8; OWN_ID_SIZE]; OWN_IDS.len()]>,
    /// Ends with a null pointer.
    pub(super) candidates: *const *const c_char,
    /// `[/bin/sh, argv…, NULL]`, at least one argument.
    pub(super) shell_argv: *mut *const c_char,
    /// Ends with a null pointer.
    pub(super) envp: *mut *const c_char,
    /// As many pairs of target and source as the setup has descriptors. The child may change them.
    pub(super) descriptors: *mut [c_int; 2],
    /// Where a failure is written, −1: nowhere. The child may move it.
    pub(super) pipe: Cell<c_int>,
    /// Where a failure is left too; 0: none.
    pub(super) failure: Failure,
}

impl<'a> Job<'a> {
    pub(super) fn new(setup: &'a Setup<'a>, search: Search, own_ids: [Option<usize>; OWN_IDS.len()]) -> Self {
        Self {
            setup,
            parent: super::process::id().get().into(),
            stdio: setup.stdio.map(|source| source.map_or(-1, |source| source.as_raw_fd())),
            search,
            own_ids,
            own_id_texts: std::cell::UnsafeCell::new([[0; OWN_ID_SIZE]; OWN_IDS.len()]),
            candidates: std::ptr::null(),
            shell_argv: std::ptr::null_mut(),
            envp: std::ptr::null_mut(),
            descriptors: std::ptr::null_mut(),
            pipe: Cell::new(-1),
            failure: AtomicU64::new(0),
        }
    }
}

/// A step that failed.
struct Failed {
    step: u8,
    detail: u8,
    errno: Errno,
}

/// What clone(2) runs. `job` points to a [`Job`].
pub(super) extern "C" fn run(job: *mut c_void) -> c_int {
    // SAFETY: `clone` in spawn.rs passes a valid job, which nobody writes to while the child runs.
    let job: &Job<'_> = unsafe { &*job.cast_const().cast() };
    let failed = match prepare(job) {
        Err(failed) => failed,
        Ok(()) => Failed { step: step::EXEC, detail: 0, errno: execute(job) },
    };
    let record = encode_failure(failed.step, failed.detail, failed.errno as i32);
    job.failure.store(record, Ordering::Release);
    let pipe = job.pipe.get();
    if pipe >= 0 {
        let bytes = record.to_ne_bytes();
        // SAFETY: the array is as long as said. Eight bytes fit into the empty pipe in one piece.
        unsafe { libc::write(pipe, bytes.as_ptr().cast(), bytes.len()) };
    }
    let code = c_int::from(decode_failure(record).exit_code());
    // SAFETY: ends the process without running anything of the parent's.
    unsafe { libc::_exit(code) }
}

/// All steps before execve.
fn prepare(job: &Job<'_>) -> Result<(), Failed> {
    let setup = job.setup;
    let at = |step| move |errno| Failed { step, detail: 0, errno };
    enter_session(setup.session).map_err(at(step::SESSION))?;
    connect_stdio(job.stdio).map_err(at(step::STDIO))?;
    place_descriptors(job).map_err(at(step::DESCRIPTORS))?;
    // It opens a file, which a low `nofile` would not let it.
    if let Some(score) = setup.oom_score_adj {
        set_oom_score_adj(score).map_err(at(step::OOM_SCORE_ADJ))?;
    }
    for (detail, limit) in (0_u8..).zip(setup.limits) {
        set_limit(limit).map_err(|errno| Failed { step: step::LIMIT, detail, errno })?;
    }
    if let Some(nice) = setup.nice {
        let process = c_long::from(libc::PRIO_PROCESS);
        call(libc::SYS_setpriority, [process, 0, c_long::from(nice)]).map_err(at(step::NICE))?;
    }
    if let Some(umask) = setup.umask {
        call(libc::SYS_umask, [c_long::from(umask), 0, 0]).map_err(at(step::USER))?;
    }
    if let Some(credentials) = setup.credentials {
        if let Some(file) = setup.file {
            open_file::make_for(credentials, file.path);
        }
        become_user(credentials)?;
    }
    if let Some(file) = setup.file {
        open_file::open(&file).map_err(at(step::STATE))?;
    }
    if let Some(directory) = setup.cwd {
        call(libc::SYS_chdir, [directory.as_ptr() as c_long, 0, 0]).map_err(at(step::DIRECTORY))?;
    }
    if setup.no_new_privs {
        // SAFETY: the operation takes plain numbers.
        let result =
            unsafe { libc::syscall(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1_usize, 0_usize, 0_usize, 0_usize) };
        Errno::result(result).map_err(at(step::NO_NEW_PRIVS))?;
    }
    if let Some(signal) = setup.death_signal {
        // After the change of user, which would undo it. Signals are numbers that the kernel knows: it cannot fail.
        call(libc::SYS_prctl, [c_long::from(libc::PR_SET_PDEATHSIG), c_long::from(signal.number()), 0]).ok();
        if call(libc::SYS_getppid, [0; 3]) != Ok(job.parent) {
            // Too late: whom it was to hear of has gone.
            return Err(at(step::SESSION)(Errno::ESRCH));
        }
    }
    restore_signals(setup.signals);
    Ok(())
}

/// A system call with up to three arguments, none of which is written to.
pub(super) fn call(number: c_long, [first, second, third]: [c_long; 3]) -> Result<c_long, Errno> {
    // SAFETY: the callers here pass numbers and pointers to valid data that the kernel only reads.
    Errno::result(unsafe { libc::syscall(number, first, second, third) })
}

fn enter_session(session: Session) -> Result<(), Errno> {
    match session {
        Session::NewSession => call(libc::SYS_setsid, [0; 3]).map(drop),
        Session::NewSessionOnTerminal => {
            call(libc::SYS_setsid, [0; 3])?;
            super::terminal::acquire();
            Ok(())
        }
        Session::Same => Ok(()),
        Session::NewGroup => call(libc::SYS_setpgid, [0; 3]).map(drop),
        Session::Foreground(reach) => {
            let foreground = super::terminal::foreground_number(reach);
            let ours = foreground.is_some() && foreground == own_group();
            call(libc::SYS_setpgid, [0; 3])?;
            if ours && let Some(group) = own_group() {
                // Signals are blocked here, SIGTTOU too, without which this would stop us. It can fail only if the
                // terminal has gone meanwhile.
                super::terminal::set_foreground_number(reach, group);
            }
            Ok(())
        }
    }
}

fn own_group() -> Option<c_int> {
    call(libc::SYS_getpgid, [0; 3]).ok().and_then(|group| c_int::try_from(group).ok())
}

/// Puts the sources where they belong. A source below 3 is moved out of the way first: it may be another's target.
fn connect_stdio(mut sources: [c_int; 3]) -> Result<(), Errno> {
    for (target, source) in (0..).zip(&mut sources) {
        if (0..3).contains(source) && *source != target {
            let moved = call(libc::SYS_fcntl, [c_long::from(*source), c_long::from(libc::F_DUPFD_CLOEXEC), 3])?;
            *source = c_int::try_from(moved).unwrap_or(-1);
        }
    }
    for (target, source) in (0..).zip(sources) {
        if source == target {
            call(libc::SYS_fcntl, [target.into(), c_long::from(libc::F_SETFD), 0])?;
        } else if source >= 0 {
            call(libc::SYS_dup3, [source.into(), target.into(), 0])?;
        }
    }
    Ok(())
}

/// Puts the other descriptors at their numbers. Whatever stands at one of these is moved out of the way first.
fn place_descriptors(job: &Job<'_>) -> Result<(), Errno> {
    let count = job.setup.descriptors.len();
    let file = job.setup.file.map_or(-1, |file| c_int::from(file.number));
    if count == 0 && file < 0 {
        return Ok(());
    }
    // SAFETY: the parent has made so many pairs, which are this child's alone while it runs.
    let pairs = unsafe { std::slice::from_raw_parts_mut(job.descriptors, count) };
    let last = pairs.iter().map(|[target, _]| *target).fold(file, c_int::max);
    let moved = |fd: c_int| {
        let room = [fd.into(), c_long::from(libc::F_DUPFD_CLOEXEC), c_long::from(last) + 1];
        call(libc::SYS_fcntl, room).map(|moved| c_int::try_from(moved).unwrap_or(-1))
    };
    if (0..=last).contains(&job.pipe.get()) {
        job.pipe.set(moved(job.pipe.get())?);
    }
    for [_, source] in pairs.iter_mut().filter(|[_, source]| *source <= last) {
        *source = moved(*source)?;
    }
    for [target, source] in pairs {
        call(libc::SYS_dup3, [(*source).into(), (*target).into(), 0])?;
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
    let written = call(libc::SYS_write, [file, buffer.as_ptr() as c_long, text as c_long]);
    call(libc::SYS_close, [file, 0, 0])?;
    written.map(drop)
}

/// Groups, then group, then user: in any other order the right to do the next is lost. Skipped where nothing changes
/// and we could not anyway.
fn become_user(credentials: &Credentials) -> Result<(), Failed> {
    let at = |step| move |errno| Failed { step, detail: 0, errno };
    let number = |call_number| call(call_number, [0; 3]).unwrap_or(-1);
    let (uid, gid) = (c_long::from(credentials.uid), c_long::from(credentials.gid));
    let user = number(libc::SYS_geteuid);
    let same = user == uid && number(libc::SYS_getegid) == gid;
    if same && user != 0 {
        return Ok(());
    }
    let groups = [credentials.groups.len() as c_long, credentials.groups.as_ptr() as c_long, 0];
    match call(libc::SYS_setgroups, groups) {
        // Root without capabilities.
        Err(Errno::EPERM) if same && has_groups(&credentials.groups, credentials.gid) => return Ok(()),
        other => other.map_err(at(step::GROUPS))?,
    };
    call(libc::SYS_setgid, [gid, 0, 0]).map_err(at(step::GROUP))?;
    call(libc::SYS_setuid, [uid, 0, 0]).map_err(at(step::USER))?;
    Ok(())
}

/// Whether our supplementary groups are these, leaving `gid` aside, which we have either way.
fn has_groups(wanted: &[u32], gid: u32) -> bool {
    let mut groups = [gid; 64];
    let (size, start) = (groups.len() as c_long, groups.as_mut_ptr());
    // SAFETY: the kernel may write as many numbers as the array has; if there are more, it fails.
    let count = Errno::result(unsafe { libc::syscall(libc::SYS_getgroups, size, start) });
    let ours = || groups.iter().filter(|group| **group != gid);
    count.is_ok() && ours().all(|group| wanted.contains(group)) && wanted.iter().all(|group| groups.contains(group))
}

fn restore_signals(signals: ChildSignals) {
    match signals {
        ChildSignals::Default => {
            set_mask(SignalSet::EMPTY);
        }
        ChildSignals::AsFound(inherited) => {
            if inherited.ignored != SignalSet::EMPTY {
                for signal in inherited.ignored.iter() {
                    set_disposition(signal, Disposition::Ignore);
                }
            }
            set_mask(inherited.mask);
        }
    }
}

/// Tries each candidate as execvp(3) does. Comes back only if it failed, with what is to be reported.
fn execute(job: &Job<'_>) -> Errno {
    set_own_ids(job);
    // SAFETY: the vector holds "/bin/sh", at least one argument and a null pointer.
    let argv = unsafe { job.shell_argv.add(1) };
    let mut candidate = job.candidates;
    let mut denied = false;
    loop {
        // SAFETY: `candidate` has not gone past the null pointer that ends the list.
        let path = unsafe { *candidate };
        if path.is_null() {
            return if denied { Errno::EACCES } else { Errno::ENOENT };
        }
        let mut errno = execve(path, argv, job.envp);
        if errno == Errno::ENOEXEC {
            // SAFETY: `argv` is one of ours, prepared for this child, and its first element may be overwritten.
            unsafe { *argv = path };
            // Only if there is a shell does its failure tell more than that this is no program.
            execve(c"/bin/sh".as_ptr(), job.shell_argv, job.envp);
            errno = Errno::ENOEXEC;
        }
        let missing =
            matches!(errno, Errno::ENOENT | Errno::ENOTDIR | Errno::ESTALE | Errno::ENODEV | Errno::ETIMEDOUT);
        if job.search == Search::No || !(missing || errno == Errno::EACCES) {
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

/// What is for the process that [`OWN_IDS`] name is for this one.
fn set_own_ids(job: &Job<'_>) {
    if job.own_ids == [None; OWN_IDS.len()] {
        return;
    }
    let Ok(Ok(own)) = call(libc::SYS_getpid, [0; 3]).map(u32::try_from) else { return };
    // SAFETY: the cell belongs to this child alone while it runs.
    let texts = unsafe { &mut *job.own_id_texts.get() };
    for ((name, position), text) in OWN_IDS.into_iter().zip(job.own_ids).zip(texts) {
        let Some(position) = position else { continue };
        let name = name.to_bytes();
        for (to, from) in text.iter_mut().zip(name) {
            *to = *from;
        }
        write_decimal(own, name.len(), text);
        // SAFETY: `position` is that of an element of the environment, before the null pointer.
        let entry = unsafe { job.envp.add(position) };
        // SAFETY: the vector was made for this child; the text is NUL-terminated and outlives the execve.
        unsafe { *entry = text.as_ptr().cast() };
    }
}

/// Writes `number` into `buffer` from `start` on and gives back where it ends. What does not fit is left out.
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

//! Starting a process: the child's half, between clone(2) and execve(2).
//!
//! The child shares keepalive's memory, and keepalive goes on meanwhile. So it only makes raw system calls (`syscall.rs`)
//! and only writes to the memory that is its own, [`ChildMemory`]: no allocation, no locks, nothing that can panic, no
//! function of libc, which would overwrite keepalive's `errno`.

use std::ffi::{c_char, c_int, c_long, c_void};
use std::mem::MaybeUninit;
use std::sync::atomic::Ordering;

use nix::errno::Errno;

use super::child_env;
use super::child_memory::{ChildMemory, PID_VARIABLES};
use super::datagram::MAX_FDS_PER_DATAGRAM;
use super::exec_failure;
use super::exec_step as step;
use super::exec_target;
use super::open_file;
use super::path_search::PathSearch;
use super::signals::{ChildSignals, Disposition, SignalSet, set_disposition, set_mask};
use super::spawn_options::{STORED_TIMEOUT, Session};
use super::syscall::{reading, syscall};
use crate::model::ProgramName;
use crate::model::plan::{Credentials, Limit};

/// The size of the header of a control message, in words of eight bytes. cmsg(3)
const CONTROL_HEADER: usize = 2;
/// The size of a control message with as many descriptors as possible, in bytes.
const CONTROL_BYTES: u16 = 1032;
const _: () = assert!(CONTROL_BYTES as usize >= MAX_FDS_PER_DATAGRAM * 4 + CONTROL_HEADER * 8);

struct FailedStep {
    step: u8,
    detail: u8,
    errno: Errno,
}

/// The function that clone(2) runs. `memory` points to a [`ChildMemory`].
pub(super) extern "C" fn run(memory: *mut c_void) -> c_int {
    // SAFETY: `clone` in spawn.rs passes valid memory, which the parent does not touch while the child runs.
    let memory: &ChildMemory = unsafe { &*memory.cast_const().cast() };
    let record = become_program(memory);
    memory.failure.store(record, Ordering::Release);
    let (failure, name) = (record.to_ne_bytes(), memory.name.get());
    let part = |bytes: &[u8]| libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let parts = [part(&failure), part(&name)];
    // The pipe is empty, so the write is not split.
    reading(libc::SYS_writev, [memory.pipe.get().into(), parts.as_ptr() as c_long, parts.len() as c_long]).ok();
    let code = exec_failure::decode(record, &name).exit_code();
    // Ends the process without running any code of the parent, such as atexit handlers.
    reading(libc::SYS_exit_group, [code.into()]).ok();
    unreachable_after_exit()
}

/// Takes all steps and executes the program. Returns only if that fails: the packed failure.
pub(super) fn become_program(memory: &ChildMemory) -> u64 {
    match prepare(memory) {
        Err(failed) => exec_failure::encode(failed.step, failed.detail, failed.errno as i32),
        Ok(()) => match child_env::read(memory) {
            Err(record) => record,
            Ok(()) => {
                let errno = execute(memory);
                let has_name = memory.name.get().first() != Some(&0);
                let step = if has_name && errno == Errno::ENOENT {
                    step::INTERPRETER
                } else if has_name && errno == Errno::ENOEXEC {
                    step::ARCHITECTURE
                } else {
                    step::EXEC
                };
                exec_failure::encode(step, 0, errno as i32)
            }
        },
    }
}

/// exit_group(2) does not return.
fn unreachable_after_exit() -> ! {
    loop {
        std::hint::spin_loop();
    }
}

/// Takes all steps before execve(2).
fn prepare(memory: &ChildMemory) -> Result<(), FailedStep> {
    let at = |step| move |errno| FailedStep { step, detail: 0, errno };
    enter_session(memory.session).map_err(at(step::SESSION))?;
    connect_stdio(memory.stdio).map_err(at(step::STDIO))?;
    if let Some(stored) = memory.stored {
        receive_stored(memory, stored).map_err(at(step::STORED))?;
    }
    place_descriptors(memory).map_err(at(step::DESCRIPTORS))?;
    if memory.closes_others {
        close_others(memory);
    }
    if let Some((number, size)) = memory.resize {
        let size = c_long::try_from(size).unwrap_or(c_long::MAX);
        reading(libc::SYS_ftruncate, [number.into(), size]).map_err(at(step::STATE))?;
    }
    // Before the limits: it opens a file, which a low `nofile` would prevent.
    if let Some(score) = memory.oom_score_adj {
        set_oom_score_adj(score).map_err(at(step::OOM_SCORE_ADJ))?;
    }
    // Before the limits, which may have one of the same resource. Where it is refused, the process has no mark.
    for limit in memory.mark.iter().flatten() {
        set_limit(limit).ok();
    }
    for (detail, limit) in (0_u8..).zip(&memory.limits) {
        set_limit(limit).map_err(|errno| FailedStep { step: step::LIMIT, detail, errno })?;
    }
    if let Some(nice) = memory.nice {
        let process = c_long::from(libc::PRIO_PROCESS);
        reading(libc::SYS_setpriority, [process, 0, c_long::from(nice)]).map_err(at(step::NICE))?;
    }
    if let Some(umask) = memory.umask {
        reading(libc::SYS_umask, [c_long::from(umask)]).map_err(at(step::USER))?;
    }
    let file = memory.file();
    if let Some(credentials) = &memory.credentials {
        if let Some(file) = file {
            open_file::create_for(credentials, file.path);
        }
        become_user(credentials)?;
    }
    if let Some(file) = file {
        open_file::open(&file).map_err(at(step::STATE))?;
    }
    if let Some(directory) = &memory.cwd {
        reading(libc::SYS_chdir, [directory.as_ptr() as c_long]).map_err(at(step::DIRECTORY))?;
    }
    if memory.no_new_privs {
        reading(libc::SYS_prctl, [libc::PR_SET_NO_NEW_PRIVS.into(), 1, 0, 0, 0]).map_err(at(step::NO_NEW_PRIVS))?;
    }
    if let Some(signal) = memory.death_signal {
        // After the change of user, which clears it. It fails only for invalid signal numbers, which `Signal` excludes.
        reading(libc::SYS_prctl, [libc::PR_SET_PDEATHSIG.into(), signal.number().into()]).ok();
        if reading(libc::SYS_getppid, []) != Ok(memory.parent) {
            // The parent died before the signal was set, so no signal will come.
            return Err(at(step::SESSION)(Errno::ESRCH));
        }
    }
    restore_signals(memory.signals);
    Ok(())
}

fn enter_session(session: Session) -> Result<(), Errno> {
    match session {
        Session::NewSession => reading(libc::SYS_setsid, []).map(drop),
        Session::NewSessionOnTerminal => {
            reading(libc::SYS_setsid, [])?;
            super::terminal::set_controlling();
            Ok(())
        }
        Session::Same => Ok(()),
        Session::NewGroup => reading(libc::SYS_setpgid, [0, 0]).map(drop),
        Session::Foreground(reach) => {
            let foreground = super::terminal::foreground_group_raw(reach);
            let ours = foreground.is_some() && foreground == own_group();
            reading(libc::SYS_setpgid, [0, 0])?;
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
    reading(libc::SYS_getpgid, [0]).ok().and_then(|group| c_int::try_from(group).ok())
}

/// Duplicates the sources onto 0, 1 and 2. A source below 3 is moved first, because it may be the target of another.
fn connect_stdio(mut sources: [c_int; 3]) -> Result<(), Errno> {
    for (target, source) in (0..).zip(&mut sources) {
        if (0..3).contains(source) && *source != target {
            *source = duplicate_from(*source, 3)?;
        }
    }
    for (target, source) in (0..).zip(sources) {
        if source == target {
            reading(libc::SYS_fcntl, [target.into(), libc::F_SETFD.into(), 0])?;
        } else if source >= 0 {
            duplicate_onto(source, target)?;
        }
    }
    Ok(())
}

/// Receives the stored descriptors and adds them to those that are placed.
fn receive_stored(memory: &ChildMemory, (socket, first, count): (c_int, u8, u8)) -> Result<(), Errno> {
    let mut polled = libc::pollfd { fd: socket, events: libc::POLLIN, revents: 0 };
    let timeout = libc::timespec { tv_sec: STORED_TIMEOUT.as_secs().cast_signed(), tv_nsec: 0 };
    let arguments = [(&raw mut polled) as c_long, 1, (&raw const timeout) as c_long, 0, 0];
    // SAFETY: one pollfd that is writable; the mask of signals is not changed.
    if unsafe { syscall(libc::SYS_ppoll, arguments) }? == 0 {
        return Err(Errno::ETIMEDOUT);
    }
    let mut control = [0_u64; CONTROL_BYTES as usize / 8];
    let mut byte = 0_u8;
    let mut part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    // SAFETY: all-zero bytes are a valid msghdr.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = CONTROL_BYTES.into();
    let flags = c_long::from(libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT);
    // SAFETY: the message points to one part and to room for control messages, both writable and alive.
    let length = unsafe { syscall(libc::SYS_recvmsg, [socket.into(), (&raw mut message) as c_long, flags]) }?;
    // The only control message: its header, and the numbers.
    let (header, numbers) = control.split_at(CONTROL_HEADER);
    let size = header.first().copied().unwrap_or(0).saturating_sub(8 * CONTROL_HEADER as u64);
    let is_cut = message.msg_flags & libc::MSG_CTRUNC != 0;
    if length == 0 || is_cut || size < u64::from(count) * 4 {
        return Err(if is_cut { Errno::EMFILE } else { Errno::EPROTO });
    }
    // SAFETY: only this child uses the pairs while it runs; there is room for `count` more.
    let pairs = unsafe { &mut *memory.descriptors.get() };
    let numbers = numbers.iter().flat_map(|word| halves(*word));
    for (target, number) in (first..).zip(numbers).take(count.into()) {
        if pairs.len() < pairs.capacity() {
            pairs.push([target.into(), number]);
        }
    }
    Ok(())
}

/// The two numbers that are stored in a word.
const fn halves(word: u64) -> [c_int; 2] {
    let [a, b, c, d, e, f, g, h] = word.to_ne_bytes();
    [c_int::from_ne_bytes([a, b, c, d]), c_int::from_ne_bytes([e, f, g, h])]
}

/// Duplicates the other descriptors onto their numbers. A source that has one of these numbers is moved first.
fn place_descriptors(memory: &ChildMemory) -> Result<(), Errno> {
    // SAFETY: only this child uses the pairs while it runs.
    let pairs = unsafe { &mut *memory.descriptors.get() };
    let file = memory.file().map_or(-1, |file| c_int::from(file.number));
    if pairs.is_empty() && file < 0 {
        return Ok(());
    }
    let last = pairs.iter().map(|[target, _]| *target).fold(file, c_int::max);
    if (0..=last).contains(&memory.pipe.get()) {
        memory.pipe.set(duplicate_from(memory.pipe.get(), last + 1)?);
    }
    for [_, source] in pairs.iter_mut().filter(|[_, source]| *source <= last) {
        *source = duplicate_from(*source, last + 1)?;
    }
    for [target, source] in pairs {
        duplicate_onto(*source, *target)?;
    }
    Ok(())
}

/// Closes keepalive's descriptors: connections, sockets, pipes. If the child hangs in a file system before it has executed
/// its program, nobody must wait for them to be closed. close_range(2)
fn close_others(memory: &ChildMemory) {
    // SAFETY: only this child uses the pairs while it runs.
    let pairs = unsafe { &*memory.descriptors.get() };
    let file = memory.file().map_or(-1, |file| c_int::from(file.number));
    let last = pairs.iter().map(|[target, _]| *target).fold(file.max(2), c_int::max);
    let pipe = memory.pipe.get().max(last);
    for [first, last] in [[last + 1, pipe - 1], [pipe + 1, c_int::MAX]] {
        if first <= last {
            // Before Linux 5.9 they stay open until execve(2).
            reading(libc::SYS_close_range, [first.into(), last.into(), 0]).ok();
        }
    }
}

/// Duplicates `fd` onto a free number, at least `lowest`; close-on-exec.
fn duplicate_from(fd: c_int, lowest: c_int) -> Result<c_int, Errno> {
    match reading(libc::SYS_fcntl, [fd.into(), libc::F_DUPFD_CLOEXEC.into(), lowest.into()]) {
        // fcntl(2): `lowest` is not below the limit on open descriptors.
        Err(Errno::EINVAL) => Err(Errno::EMFILE),
        other => other.map(|copy| c_int::try_from(copy).unwrap_or(-1)),
    }
}

/// Duplicates `fd` onto the number `target`, which stays open when the program is executed.
fn duplicate_onto(fd: c_int, target: c_int) -> Result<(), Errno> {
    match reading(libc::SYS_dup3, [fd.into(), target.into(), 0]) {
        // dup(2): `target` is not below the limit on open descriptors; `fd` is open.
        Err(Errno::EBADF) => Err(Errno::EMFILE),
        other => other.map(drop),
    }
}

fn set_limit(limit: &Limit) -> Result<(), Errno> {
    let value = |limit: Option<u64>| limit.unwrap_or(libc::RLIM_INFINITY);
    let new = [value(limit.soft), value(limit.hard)];
    // It reads two 64-bit numbers and writes nothing, as the last pointer is null.
    reading(libc::SYS_prlimit64, [0, limit.resource.into(), new.as_ptr() as c_long, 0]).map(drop)
}

fn set_oom_score_adj(score: i16) -> Result<(), Errno> {
    // The child has a copy of keepalive's memory. If that is not dumpable, root owns the file.
    reading(libc::SYS_prctl, [libc::PR_SET_DUMPABLE.into(), 1, 0, 0, 0]).ok();
    let (path, flags) = (c"/proc/self/oom_score_adj".as_ptr() as c_long, libc::O_WRONLY | libc::O_CLOEXEC);
    let file = reading(libc::SYS_openat, [libc::AT_FDCWD.into(), path, flags.into()])?;
    let mut buffer = [0; 8];
    if score < 0
        && let Some(sign) = buffer.first_mut()
    {
        *sign = b'-';
    }
    let text = write_decimal(u32::from(score.unsigned_abs()), usize::from(score < 0), &mut buffer);
    let written = reading(libc::SYS_write, [file, buffer.as_ptr() as c_long, text as c_long]);
    reading(libc::SYS_close, [file])?;
    written.map(drop)
}

/// Sets the groups, then the group, then the user: in any other order the process loses the right to make the next call.
/// Does nothing if nothing changes and keepalive is not root.
fn become_user(credentials: &Credentials) -> Result<(), FailedStep> {
    let at = |step| move |errno| FailedStep { step, detail: 0, errno };
    let number = |call_number| reading(call_number, []).unwrap_or(-1);
    let (uid, gid) = (c_long::from(credentials.uid), c_long::from(credentials.gid));
    let user = number(libc::SYS_geteuid);
    let same = user == uid && number(libc::SYS_getegid) == gid;
    if same && user != 0 {
        return Ok(());
    }
    let groups = [credentials.groups.len() as c_long, credentials.groups.as_ptr() as c_long];
    match reading(libc::SYS_setgroups, groups) {
        // Root without capabilities: accepted if the groups are right already.
        Err(Errno::EPERM) if same && has_groups(&credentials.groups, credentials.gid) => return Ok(()),
        other => other.map_err(at(step::GROUPS))?,
    };
    reading(libc::SYS_setgid, [gid]).map_err(at(step::GROUP))?;
    // The change of user makes the memory as dumpable as fs.suid_dumpable says, proc_sys_fs(5): for the user's own processes
    // it must not be.
    reading(libc::SYS_setuid, [uid]).map_err(at(step::USER))?;
    reading(libc::SYS_prctl, [libc::PR_SET_DUMPABLE.into(), 0, 0, 0, 0]).ok();
    Ok(())
}

/// Whether the supplementary groups are `wanted`, disregarding `gid`, which the process has in any case.
fn has_groups(wanted: &[u32], gid: u32) -> bool {
    let mut groups = [gid; 64];
    let (size, start) = (groups.len() as c_long, groups.as_mut_ptr() as c_long);
    // SAFETY: `groups` has room for `size` numbers; if there are more, the call fails.
    let count = unsafe { syscall(libc::SYS_getgroups, [size, start]) };
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
fn execute(memory: &ChildMemory) -> Errno {
    // SAFETY: only this child uses the vector while it runs.
    let env = unsafe { &mut *memory.env_pointers.get() };
    set_pid_variables(memory, env);
    // SAFETY: only this child uses the vector while it runs.
    let shell_argv = unsafe { &mut *memory.argv_pointers.get() };
    let mut denied = false;
    // SAFETY: only this child uses the vector while it runs.
    let candidates = unsafe { &*memory.candidate_pointers.get() };
    for path in candidates.iter().copied().take_while(|path| !path.is_null()) {
        let errno = execve(path, shell_argv.get(1..).unwrap_or_default(), env);
        if errno == Errno::ENOENT
            && let Some(name) = exec_target::interpreter(path)
        {
            memory.name.set(name.to_bytes());
        }
        if errno == Errno::ENOEXEC {
            let architecture = exec_target::foreign_architecture(path);
            memory.name.set(ProgramName::new(architecture.unwrap_or_default().as_bytes()).to_bytes());
            // Such a program is not a script, and a script with an interpreter is not one for the shell.
            if let (None, Some(first)) = (architecture, shell_argv.get_mut(1)) {
                *first = path;
                // If the shell cannot be executed either, ENOEXEC is what is reported.
                execve(c"/bin/sh".as_ptr(), shell_argv, env);
            }
        }
        let missing =
            matches!(errno, Errno::ENOENT | Errno::ENOTDIR | Errno::ESTALE | Errno::ENODEV | Errno::ETIMEDOUT);
        if memory.search == PathSearch::No || !(missing || errno == Errno::EACCES) {
            return errno;
        }
        denied |= errno == Errno::EACCES;
    }
    if denied { Errno::EACCES } else { Errno::ENOENT }
}

/// Both vectors end with a null pointer.
fn execve(path: *const c_char, argv: &[*const c_char], envp: &[*const c_char]) -> Errno {
    let arguments = [path as c_long, argv.as_ptr() as c_long, envp.as_ptr() as c_long];
    reading(libc::SYS_execve, arguments).err().unwrap_or(Errno::UnknownErrno)
}

/// Sets [`PID_VARIABLES`] that named keepalive to this process.
fn set_pid_variables(memory: &ChildMemory, env: &mut [*const c_char]) {
    if memory.pid_variables == [None; PID_VARIABLES.len()] {
        return;
    }
    let Ok(Ok(own)) = reading(libc::SYS_getpid, []).map(u32::try_from) else { return };
    // SAFETY: only this child uses the cell while it runs.
    let texts = unsafe { &mut *memory.pid_variable_texts.get() };
    for ((name, position), text) in PID_VARIABLES.into_iter().zip(memory.pid_variables).zip(texts) {
        let Some(entry) = position.and_then(|position| env.get_mut(position)) else { continue };
        let name = name.to_bytes();
        for (to, from) in text.iter_mut().zip(name) {
            *to = *from;
        }
        // The rest may have digits of the child before.
        let end = write_decimal(own, name.len(), text);
        if let Some(end) = text.get_mut(end) {
            *end = 0;
        }
        *entry = text.as_ptr().cast();
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

//! Reports an instruction that must never be executed: in a release, that is what a panic is.
//!
//! This is the only signal handler of PID 1, and it runs for nothing else: a signal of the same number that a process has
//! sent goes into the queue, where all others are.

use std::ffi::{c_int, c_long, c_void};
use std::sync::OnceLock;

use super::signals::{self, SignalSet};
use super::syscall::syscall;
use crate::model::Signal;

/// What such an instruction causes: `ud2` of x86 the first, `brk` of ARM the second.
const FAULTS: [Signal; 2] = [Signal::ILL, Signal::TRAP];

/// Given the place of the instruction in the program file.
static REPORT: OnceLock<fn(usize) -> !> = OnceLock::new();

#[expect(unsafe_code, reason = "the linker defines it")]
unsafe extern "C" {
    /// The first byte of the program in memory.
    static __ehdr_start: u8;
}

/// From now on `report` is called, with the place of the instruction in the program file, instead of a death by a signal.
pub fn install(report: fn(usize) -> !) {
    if REPORT.set(report).is_err() {
        return;
    }
    // sigaction of musl unblocks signals of its own.
    let mask = signals::set_mask(SignalSet::ALL);
    for signal in FAULTS {
        let number = c_int::from(signal.number());
        // SAFETY: all fields of the structure may be zero.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_fault as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
        // SAFETY: as above.
        let mut before: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: both structures are valid, and the handler has the three arguments that SA_SIGINFO means.
        unsafe { libc::sigaction(number, &raw const action, &raw mut before) };
        signals::on_handled(signal, before.sa_sigaction);
    }
    signals::set_mask(mask);
}

extern "C" fn on_fault(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel calls the handler with valid pointers, sigaction(2).
    let of = unsafe { &*info };
    if of.si_code > 0
        && let Some(report) = REPORT.get()
    {
        // SAFETY: the kernel sets the address for a fault.
        let address = unsafe { of.si_addr() };
        report((address as usize).wrapping_sub(&raw const __ehdr_start as usize));
    }
    // A process has sent it: blocked until it is received, it is queued again, and received like all others.
    // SAFETY: as above, and nothing else uses it.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    // SAFETY: the set is valid. The mask has this value when the handler has returned.
    unsafe { libc::sigaddset(&raw mut context.uc_sigmask, signal) };
    let (pid, thread) = (c_long::from(super::process::id().get()), nix::unistd::gettid().as_raw().into());
    // SAFETY: the kernel reads the structure, which it has written itself.
    unsafe { syscall(libc::SYS_rt_tgsigqueueinfo, [pid, thread, signal.into(), info as c_long]) }.ok();
}

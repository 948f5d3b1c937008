//! Signal masks, dispositions and receiving signals: rt_sigprocmask(2), rt_sigaction(2), signalfd(2), rt_sigtimedwait(2).
//!
//! Uses raw system calls throughout: musl's functions refuse signals 32 to 34, which keepalive must forward.

use std::ffi::c_long;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nix::errno::Errno;

use super::syscall::syscall;
use crate::model::{Pid, Signal};

/// The size of the kernel's signal set in bytes.
const SET_SIZE: usize = 8;

/// A set of signals in the kernel's representation: bit n−1 is signal n.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SignalSet(u64);

impl SignalSet {
    /// No signal.
    pub const EMPTY: Self = Self(0);
    /// All 64 signals.
    pub const ALL: Self = Self(u64::MAX);

    /// Whether `signal` is in the set.
    #[must_use]
    pub const fn contains(self, signal: Signal) -> bool {
        self.0 & signal.bit() != 0
    }

    /// Removes `signal` and returns whether it was in the set.
    pub const fn remove(&mut self, signal: Signal) -> bool {
        let was_in = self.contains(signal);
        self.0 &= !signal.bit();
        was_in
    }

    /// Adds `signal`.
    pub const fn insert(&mut self, signal: Signal) {
        self.0 |= signal.bit();
    }

    /// The signals that are in this set and not in the other one.
    const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The 64 bits.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The signals in the set, in ascending order.
    pub fn iter(self) -> impl Iterator<Item = Signal> {
        Signal::all().filter(move |signal| self.contains(*signal))
    }
}

/// The signal mask and dispositions that keepalive was started with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InheritedSignals {
    /// The signals that were blocked.
    pub mask: SignalSet,
    /// The signals that were ignored and have been reset to their default.
    pub ignored: SignalSet,
}

/// Which dispositions [`block_all`] resets to their default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DispositionReset {
    /// That of SIGCHLD. Children inherit all others as keepalive found them.
    SigchldOnly,
    /// All, so that children start with no signal ignored.
    All,
}

/// The signal mask and dispositions of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChildSignals {
    /// Those that keepalive was started with.
    Inherited(InheritedSignals),
    /// An empty mask, and keepalive's current dispositions: after [`DispositionReset::All`], all defaults.
    Default,
}

/// Blocks every signal, so that each stays pending until it is received, and resets the disposition of SIGCHLD: while
/// SIGCHLD is ignored, the kernel reaps children by itself.
///
/// A blocked signal is queued whatever its disposition, also for PID 1, and does not interrupt, stop or kill the process.
/// So SIGPIPE, SIGTTOU and the fault signals need no further treatment: a real fault still kills, or is reported by
/// [`super::fault`]. Signals that keepalive's own writes cause are dropped when they are received.
#[must_use]
pub fn block_all(depth: DispositionReset) -> InheritedSignals {
    let [handled, mut ignored] = [&HANDLED, &IGNORED].map(|set| SignalSet(set.load(Ordering::Relaxed)));
    let blocked = set_mask(SignalSet::ALL.without(handled));
    let mask =
        if BLOCKED_EARLY.load(Ordering::Relaxed) { SignalSet(MASK_BEFORE.load(Ordering::Relaxed)) } else { blocked };
    match depth {
        DispositionReset::SigchldOnly => {
            if set_disposition(Signal::CHLD, Disposition::Default) == Some(Disposition::Ignore) {
                ignored.insert(Signal::CHLD);
            }
        }
        DispositionReset::All => {
            for signal in Signal::all().filter(|signal| signal.is_catchable() && !handled.contains(*signal)) {
                if set_disposition(signal, Disposition::Default) == Some(Disposition::Ignore) {
                    ignored.insert(signal);
                }
            }
        }
    }
    InheritedSignals { mask, ignored }
}

/// The signals that have a handler, which are not blocked, and those of them that were ignored before.
static HANDLED: AtomicU64 = AtomicU64::new(0);
static IGNORED: AtomicU64 = AtomicU64::new(0);

/// A handler for `signal` has been installed in place of `before`. It is in force from the next [`block_all`] on.
pub(super) fn on_handled(signal: Signal, before: libc::sighandler_t) {
    HANDLED.fetch_or(signal.bit(), Ordering::Relaxed);
    if before == libc::SIG_IGN {
        IGNORED.fetch_or(signal.bit(), Ordering::Relaxed);
    }
}

/// Whether [`block_all_if_init`] has blocked all signals, and the mask before that.
static BLOCKED_EARLY: AtomicBool = AtomicBool::new(false);
static MASK_BEFORE: AtomicU64 = AtomicU64::new(0);

/// As PID 1, blocks every signal at the very start of the program. The kernel discards a signal to PID 1 that is neither
/// blocked nor handled. In any other process such a signal ends keepalive, which is right while nothing has been started.
pub(super) fn block_all_if_init() {
    if super::process::is_init() {
        MASK_BEFORE.store(set_mask(SignalSet::ALL).bits(), Ordering::Relaxed);
        BLOCKED_EARLY.store(true, Ordering::Relaxed);
    }
}

/// The disposition of a signal, signal(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Disposition {
    /// `SIG_DFL`.
    Default,
    /// `SIG_IGN`.
    Ignore,
    /// A handler function.
    Handler,
}

/// The kernel's `struct sigaction`. The handler comes first on every supported architecture. The other fields (flags,
/// restorer and mask, in an order that differs) are all zero here; `rest` is larger than they are.
#[repr(C)]
struct KernelAction {
    handler: usize,
    rest: [usize; 7],
}

impl KernelAction {
    /// `handler` is `SIG_DFL` or `SIG_IGN`, which need no restorer.
    const fn new(handler: usize) -> Self {
        Self { handler, rest: [0; 7] }
    }
}

/// Sets the disposition of `signal` and returns the previous one; `None` if it cannot be changed. Async-signal-safe.
pub(super) fn set_disposition(signal: Signal, disposition: Disposition) -> Option<Disposition> {
    let handler = match disposition {
        Disposition::Ignore => libc::SIG_IGN,
        Disposition::Default | Disposition::Handler => libc::SIG_DFL,
    };
    swap_action(signal, Some(&KernelAction::new(handler))).map(|before| match before.handler {
        libc::SIG_DFL => Disposition::Default,
        libc::SIG_IGN => Disposition::Ignore,
        _ => Disposition::Handler,
    })
}

/// Whether `signal` is ignored, as SIGINT is in what a script has started with `&`.
#[must_use]
pub fn is_ignored(signal: Signal) -> bool {
    swap_action(signal, None).is_some_and(|action| action.handler == libc::SIG_IGN)
}

/// Sets the action of `signal` unless `new` is `None`, and returns the previous one; `None` if it cannot be changed.
/// Async-signal-safe.
fn swap_action(signal: Signal, new: Option<&KernelAction>) -> Option<KernelAction> {
    let mut old = KernelAction::new(libc::SIG_DFL);
    let number = libc::c_int::from(signal.number());
    let new: *const KernelAction = new.map_or(std::ptr::null(), std::ptr::from_ref);
    let arguments = [number.into(), new as c_long, (&raw mut old) as c_long, SET_SIZE as c_long];
    // SAFETY: both structures are at least as large as the kernel's; `new` is null, has a handler that needs no restorer,
    // or is an action that the kernel has returned.
    unsafe { syscall(libc::SYS_rt_sigaction, arguments) }.ok().map(|_| old)
}

/// Sets the signal mask and returns the previous one. Async-signal-safe.
pub(super) fn set_mask(mask: SignalSet) -> SignalSet {
    let mut old = SignalSet::EMPTY;
    let (new, previous) = ((&raw const mask.0) as c_long, (&raw mut old.0) as c_long);
    // SAFETY: both sets have 8 bytes, as the last argument says, so the call cannot fail.
    unsafe { syscall(libc::SYS_rt_sigprocmask, [libc::SIG_SETMASK.into(), new, previous, SET_SIZE as c_long]) }.ok();
    old
}

/// The sender of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A process, with kill(2) or a similar call; `None` if it is in another PID namespace.
    Process(Option<Pid>),
    /// The kernel, because of a terminal or a fault.
    Kernel,
    /// The kernel, because this child has exited, stopped or continued. Other children may have, too: a SIGCHLD is not
    /// queued again while one is pending.
    Child(Pid),
}

/// A signal that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// The signal.
    pub signal: Signal,
    /// The sender.
    pub origin: Origin,
}

impl Received {
    /// `None` for an invalid number, and for a signal that keepalive's own write caused: SIGPIPE for a closed pipe, SIGXFSZ
    /// for a file beyond its maximum size.
    fn new(number: i64, code: i32, sender: i32) -> Option<Self> {
        let signal = Signal::new(u8::try_from(number).ok()?)?;
        // Codes above zero come from the kernel (SI_KERNEL, CLD_…, faults), the others from system calls of a process.
        let origin = match Pid::new(sender) {
            sender if code <= 0 => Origin::Process(sender),
            Some(child) if signal == Signal::CHLD => Origin::Child(child),
            _ => Origin::Kernel,
        };
        let handled = SignalSet(HANDLED.load(Ordering::Relaxed));
        if handled.contains(signal) {
            // The handler has blocked it, so that it was queued.
            set_mask(SignalSet::ALL.without(handled));
        }
        if [Signal::PIPE, Signal::XFSZ].contains(&signal) && origin == Origin::Process(Some(super::process::id())) {
            return None;
        }
        Some(Self { signal, origin })
    }
}

/// Waits for a signal and receives it, for at most `timeout`. rt_sigtimedwait(2)
///
/// All signals must be blocked ([`block_all`]). `None`: the timeout has expired, the call was interrupted, or the signal was
/// dropped. The caller then reads the clock and waits again.
///
/// # Errors
/// None that the manual page lists, except those that are `None` here.
pub fn wait_for(timeout: Option<Duration>) -> Result<Option<Received>, Errno> {
    // The kernel's timespec on 64-bit architectures: seconds, nanoseconds.
    let limit = timeout
        .map(|timeout| [i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX), i64::from(timeout.subsec_nanos())]);
    let limit: *const [i64; 2] = limit.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let all = SignalSet::ALL.bits();
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: the set has 8 bytes, as the last argument says; `info` is a writable siginfo; `limit` is null or valid.
    let number =
        unsafe { libc::syscall(libc::SYS_rt_sigtimedwait, &raw const all, info.as_mut_ptr(), limit, SET_SIZE) };
    // SAFETY: all-zero bytes are a valid siginfo, and the kernel overwrites them only with another valid one.
    let info = unsafe { info.assume_init() };
    match Errno::result(number) {
        // SAFETY: every signal with a sender has a pid; for the others the bytes are initialised, too.
        Ok(number) => Ok(Received::new(number, info.si_code, unsafe { info.si_pid() })),
        Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Stops the process as Ctrl-Z would: with SIGTSTP and its default action. Returns whether it was stopped.
///
/// The kernel discards the signal for PID 1 and in an orphaned process group, in which nobody could continue the process.
/// After a stop, the SIGCONT that ended it is pending, which is how the stop is detected. The disposition and the mask are
/// restored.
pub fn suspend_self() -> bool {
    let mask = set_mask(SignalSet::ALL);
    let action = swap_action(Signal::TSTP, Some(&KernelAction::new(libc::SIG_DFL)));
    super::process::raise(Signal::TSTP);
    block_all_but(&[Signal::TSTP]);
    let was_stopped = pending().contains(Signal::CONT);
    swap_action(Signal::TSTP, action.as_ref());
    set_mask(mask);
    was_stopped
}

/// Blocks every signal but `those`.
pub fn block_all_but(those: &[Signal]) {
    set_mask(SignalSet(those.iter().fold(u64::MAX, |mask, signal| mask & !signal.bit())));
}

/// The pending signals. rt_sigpending(2)
#[must_use]
pub fn pending() -> SignalSet {
    let mut set = SignalSet::EMPTY;
    // SAFETY: the set has 8 bytes, as the last argument says.
    unsafe { libc::syscall(libc::SYS_rt_sigpending, &raw mut set.0, SET_SIZE) };
    set
}

/// A descriptor that is readable while a signal is pending, signalfd(2).
#[derive(Debug)]
pub struct SignalQueue(OwnedFd);

impl SignalQueue {
    /// Opens a queue for all signals, which must be blocked ([`block_all`]).
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM.
    pub fn new() -> Result<Self, Errno> {
        let all = SignalSet::ALL.bits();
        let flags = libc::SFD_NONBLOCK | libc::SFD_CLOEXEC;
        // SAFETY: the set has 8 bytes, as the third argument says.
        let fd = unsafe { libc::syscall(libc::SYS_signalfd4, -1, &raw const all, SET_SIZE, flags) };
        let fd = Errno::result(fd).map(i32::try_from)?.map_err(|_| Errno::EBADF)?;
        // SAFETY: the descriptor is new, so nothing else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Receives up to `N` pending signals, in the order of their numbers, and returns how many.
    ///
    /// # Errors
    /// None that the manual page lists, except EAGAIN and EINTR, which are handled here.
    pub fn read<const N: usize>(&self, received: &mut [Received; N]) -> Result<usize, Errno> {
        loop {
            let mut records = [const { MaybeUninit::<libc::signalfd_siginfo>::uninit() }; N];
            let (start, size) = (records.as_mut_ptr().cast(), size_of_val(&records));
            // SAFETY: `start` points to `size` writable bytes.
            let read = Errno::result(unsafe { libc::read(self.0.as_raw_fd(), start, size) });
            let read = match read {
                Ok(bytes) => usize::try_from(bytes).unwrap_or(0) / size_of::<libc::signalfd_siginfo>(),
                Err(Errno::EAGAIN) => return Ok(0),
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(errno),
            };
            let mut count = 0;
            for record in records.iter().take(read) {
                // SAFETY: this is one of the first `read` records, which the kernel has filled in completely.
                let record = unsafe { record.assume_init_ref() };
                let sender = i32::try_from(record.ssi_pid).unwrap_or(0);
                let signal = Received::new(i64::from(record.ssi_signo), record.ssi_code, sender);
                if let (Some(signal), Some(slot)) = (signal, received.get_mut(count)) {
                    *slot = signal;
                    count += 1;
                }
            }
            // If all signals that were read have been dropped, there may be more.
            if count > 0 || read == 0 {
                return Ok(count);
            }
        }
    }
}

impl AsFd for SignalQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signal_n_is_bit_n_minus_one() {
        let mut set = SignalSet::EMPTY;
        set.insert(Signal::HUP);
        set.insert(Signal::new(64).unwrap());
        assert_eq!(set.bits(), 1 | 1 << 63);
        assert_eq!(set.iter().map(Signal::number).collect::<Vec<_>>(), [1, 64]);
        assert!(!set.contains(Signal::INT));
    }

    // sigaction(2): "SI_USER kill(2)", "SI_KERNEL Sent by the kernel", CLD_… are above zero.
    #[test]
    fn the_code_shows_whether_the_kernel_or_a_process_is_the_sender() {
        let from_nobody = Received { signal: Signal::INT, origin: Origin::Process(None) };
        assert_eq!(Received::new(2, libc::SI_USER, 0), Some(from_nobody));
        let queued = Received { signal: Signal::INT, origin: Origin::Process(Pid::new(7)) };
        assert_eq!(Received::new(2, libc::SI_QUEUE, 7), Some(queued));
        let typed = Received { signal: Signal::INT, origin: Origin::Kernel };
        assert_eq!(Received::new(2, libc::SI_KERNEL, 0), Some(typed));
        let child = Received { signal: Signal::CHLD, origin: Origin::Child(Pid::new(7).unwrap()) };
        assert_eq!(Received::new(17, libc::CLD_EXITED, 7), Some(child));
        let pretended = Received { signal: Signal::CHLD, origin: Origin::Process(Pid::new(7)) };
        assert_eq!(Received::new(17, libc::SI_QUEUE, 7), Some(pretended));
    }

    #[test]
    fn only_signals_caused_by_own_writes_are_dropped() {
        let own = i32::try_from(std::process::id()).unwrap();
        for signal in [libc::SIGPIPE, libc::SIGXFSZ] {
            assert_eq!(Received::new(signal.into(), libc::SI_USER, own), None);
            assert!(Received::new(signal.into(), libc::SI_USER, 0).is_some());
        }
        assert!(Received::new(libc::SIGTERM.into(), libc::SI_USER, own).is_some());
    }
}

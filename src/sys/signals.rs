//! Signal masks, dispositions and waiting: rt_sigprocmask(2), rt_sigaction(2), signalfd(2), rt_sigtimedwait(2).
//!
//! Raw system calls throughout: musl's own functions refuse the signals 32 to 34, which are ours to forward.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nix::errno::Errno;

use crate::model::{Pid, Signal};

/// The size of the kernel's signal set in bytes.
const SET_SIZE: usize = 8;

/// A set of signals as the kernel has it: bit n−1 is signal n.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SignalSet(u64);

impl SignalSet {
    /// No signal.
    pub const EMPTY: Self = Self(0);
    /// All 64.
    pub const ALL: Self = Self(u64::MAX);

    /// Whether `signal` is in it.
    #[must_use]
    pub const fn contains(self, signal: Signal) -> bool {
        self.0 & signal.bit() != 0
    }

    /// Takes it out; whether it was in.
    pub const fn remove(&mut self, signal: Signal) -> bool {
        let was_in = self.contains(signal);
        self.0 &= !signal.bit();
        was_in
    }

    /// Adds `signal`.
    pub const fn insert(&mut self, signal: Signal) {
        self.0 |= signal.bit();
    }

    /// The 64 bits.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// All that are in it, in rising order.
    pub fn iter(self) -> impl Iterator<Item = Signal> {
        Signal::all().filter(move |signal| self.contains(*signal))
    }
}

/// What keepalive was started with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inherited {
    /// The signals that were blocked.
    pub mask: SignalSet,
    /// The signals that were ignored and no longer are.
    pub ignored: SignalSet,
}

/// How much [`take_over`] looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// SIGCHLD alone: all other dispositions stay, and with them what a child inherits.
    Quick,
    /// All of them: what was ignored is set to default, so that children start out with nothing ignored.
    Full,
}

/// What a child starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChildSignals {
    /// Mask and dispositions as keepalive itself found them.
    AsFound(Inherited),
    /// An empty mask; the dispositions as they are now: after [`Depth::Full`] everything is at its default.
    Default,
}

/// Blocks every signal, so that each stays pending until it is asked for, and sets SIGCHLD to its default: while it is
/// ignored the kernel reaps behind our back.
///
/// A blocked signal is queued whatever its disposition, for PID 1 too, and does not interrupt, stop or kill: SIGPIPE,
/// SIGTTOU and the fault signals need nothing else (a real fault still kills). Signals that our own writes cause are
/// dropped where signals are received.
#[must_use]
pub fn take_over(depth: Depth) -> Inherited {
    let blocked = set_mask(SignalSet::ALL);
    let mask = if HELD.load(Ordering::Relaxed) { SignalSet(MASK_BEFORE.load(Ordering::Relaxed)) } else { blocked };
    let mut ignored = SignalSet::EMPTY;
    match depth {
        Depth::Quick => {
            if set_disposition(Signal::CHLD, Disposition::Default) == Some(Disposition::Ignore) {
                ignored.insert(Signal::CHLD);
            }
        }
        Depth::Full => {
            for signal in Signal::all().filter(|signal| signal.is_catchable()) {
                if set_disposition(signal, Disposition::Default) == Some(Disposition::Ignore) {
                    ignored.insert(signal);
                }
            }
        }
    }
    Inherited { mask, ignored }
}

/// Whether [`hold_if_init`] has blocked all signals, and which were blocked before.
static HELD: AtomicBool = AtomicBool::new(false);
static MASK_BEFORE: AtomicU64 = AtomicU64::new(0);

/// As PID 1, blocks every signal from the very start, for [`take_over`] to find what has come meanwhile: what finds
/// PID 1 without handler and not blocked is lost. Anywhere else it ends us, which is right as long as nothing has been
/// started.
pub(super) fn hold_if_init() {
    if super::process::is_init() {
        MASK_BEFORE.store(set_mask(SignalSet::ALL).bits(), Ordering::Relaxed);
        HELD.store(true, Ordering::Relaxed);
    }
}

/// What happens when a signal is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Disposition {
    /// `SIG_DFL`.
    Default,
    /// `SIG_IGN`.
    Ignore,
    /// A function: never ours.
    Handler,
}

/// The kernel's `struct sigaction`: the handler comes first on every architecture that we build for; what follows
/// (flags, restorer, mask, in an order that differs) is all zero here, with room to spare.
#[repr(C)]
struct KernelAction {
    handler: usize,
    rest: [usize; 7],
}

/// Sets what `signal` does and says what it did before; `None` if the signal cannot be caught. Async-signal-safe.
pub(super) fn set_disposition(signal: Signal, disposition: Disposition) -> Option<Disposition> {
    let handler = match disposition {
        Disposition::Ignore => libc::SIG_IGN,
        Disposition::Default | Disposition::Handler => libc::SIG_DFL,
    };
    let new = KernelAction { handler, rest: [0; 7] };
    let mut old = KernelAction { handler: 0, rest: [0; 7] };
    let number = libc::c_int::from(signal.number());
    // SAFETY: both structures are as large as the kernel's at least, and SIG_DFL and SIG_IGN need no restorer.
    let result = unsafe { libc::syscall(libc::SYS_rt_sigaction, number, &raw const new, &raw mut old, SET_SIZE) };
    match old.handler {
        _ if result < 0 => None,
        libc::SIG_DFL => Some(Disposition::Default),
        libc::SIG_IGN => Some(Disposition::Ignore),
        _ => Some(Disposition::Handler),
    }
}

/// Sets the mask of blocked signals and gives back the one before. Async-signal-safe.
pub(super) fn set_mask(mask: SignalSet) -> SignalSet {
    let mut old = SignalSet::EMPTY;
    let (how, new, previous) = (libc::SIG_SETMASK, &raw const mask.0, &raw mut old.0);
    // SAFETY: both sets are 8 bytes, which is what the last argument says. The call cannot fail then.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, how, new, previous, SET_SIZE) };
    old
}

/// Where a signal came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// kill(2) and its relatives; `None` if the sender is in another PID namespace.
    Process(Option<Pid>),
    /// The kernel: a terminal, a fault.
    Kernel,
    /// The kernel, as this child has ended, stopped or continued. Others may have done so too: a SIGCHLD that is pending
    /// when theirs comes stands for all of them.
    Child(Pid),
}

/// A signal that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Which one.
    pub signal: Signal,
    /// Where from.
    pub origin: Origin,
}

impl Received {
    /// `None` for what is no signal, and for what our own writes have caused: the SIGPIPE of a closed pipe, the SIGXFSZ of
    /// a file that may not be so large.
    fn new(number: i64, code: i32, sender: i32) -> Option<Self> {
        let signal = Signal::new(u8::try_from(number).ok()?)?;
        // Codes above zero are the kernel's own (SI_KERNEL, CLD_…, faults); zero and below come from system calls.
        let origin = match Pid::new(sender) {
            sender if code <= 0 => Origin::Process(sender),
            Some(child) if signal == Signal::CHLD => Origin::Child(child),
            _ => Origin::Kernel,
        };
        if [Signal::PIPE, Signal::XFSZ].contains(&signal) && origin == Origin::Process(Some(super::process::id())) {
            return None;
        }
        Some(Self { signal, origin })
    }
}

/// Waits until a signal is pending and takes it; with `timeout` no longer than that. rt_sigtimedwait(2)
///
/// All signals have to be blocked ([`take_over`]). `None` if the time is over, the call was interrupted or what came is
/// of no interest; the caller then looks at its clock and waits again.
///
/// # Errors
/// None that the manual knows of besides those which are `None` here.
pub fn wait_for(timeout: Option<Duration>) -> Result<Option<Received>, Errno> {
    // The kernel's timespec on 64-bit machines: seconds, nanoseconds.
    let limit = timeout
        .map(|timeout| [i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX), i64::from(timeout.subsec_nanos())]);
    let limit: *const [i64; 2] = limit.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let all = SignalSet::ALL.bits();
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: the set is 8 bytes as the last argument says, `info` is a writable siginfo, `limit` is null or valid.
    let number =
        unsafe { libc::syscall(libc::SYS_rt_sigtimedwait, &raw const all, info.as_mut_ptr(), limit, SET_SIZE) };
    // SAFETY: all-zero bytes are a valid siginfo, and the kernel wrote over them only with another.
    let info = unsafe { info.assume_init() };
    match Errno::result(number) {
        // SAFETY: the pid is there for every signal that has a sender; otherwise its bytes are initialised all the same.
        Ok(number) => Ok(Received::new(number, info.si_code, unsafe { info.si_pid() })),
        Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Stops ourselves as Ctrl-Z stops a program: SIGTSTP with its default action. Whether that happened.
///
/// The kernel discards it for PID 1 and for an orphaned process group, where nobody is left to continue us. After a
/// stop the SIGCONT that ended it is pending, and this returns true.
pub fn suspend_self() -> bool {
    let before = set_disposition(Signal::TSTP, Disposition::Default);
    super::process::raise(Signal::TSTP);
    let everything_else = SignalSet(SignalSet::ALL.0 & !Signal::TSTP.bit());
    let mask = set_mask(everything_else);
    set_mask(mask);
    if before == Some(Disposition::Ignore) {
        set_disposition(Signal::TSTP, Disposition::Ignore);
    }
    pending().contains(Signal::CONT)
}

/// The signals that wait to be taken. rt_sigpending(2)
#[must_use]
pub fn pending() -> SignalSet {
    let mut set = SignalSet::EMPTY;
    // SAFETY: the set is 8 bytes, as the last argument says.
    unsafe { libc::syscall(libc::SYS_rt_sigpending, &raw mut set.0, SET_SIZE) };
    set
}

/// All signals as a descriptor that becomes readable, signalfd(2).
#[derive(Debug)]
pub struct SignalQueue(OwnedFd);

impl SignalQueue {
    /// Opens it. All signals have to be blocked ([`take_over`]).
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM.
    pub fn new() -> Result<Self, Errno> {
        let all = SignalSet::ALL.bits();
        let flags = libc::SFD_NONBLOCK | libc::SFD_CLOEXEC;
        // SAFETY: the set is 8 bytes, as the third argument says.
        let fd = unsafe { libc::syscall(libc::SYS_signalfd4, -1, &raw const all, SET_SIZE, flags) };
        let fd = Errno::result(fd).map(i32::try_from)?.map_err(|_| Errno::EBADF)?;
        // SAFETY: the descriptor is new and nobody else knows it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Takes up to `N` pending signals, in the order of their numbers. 0: none is pending.
    ///
    /// # Errors
    /// None that the manual knows of besides EAGAIN and EINTR, which are 0 here.
    pub fn read<const N: usize>(&self, received: &mut [Received; N]) -> Result<usize, Errno> {
        loop {
            let mut records = [const { MaybeUninit::<libc::signalfd_siginfo>::uninit() }; N];
            let (start, size) = (records.as_mut_ptr().cast(), size_of_val(&records));
            // SAFETY: the kernel may write `size` bytes from `start` on.
            let read = Errno::result(unsafe { libc::read(self.0.as_raw_fd(), start, size) });
            let read = match read {
                Ok(bytes) => usize::try_from(bytes).unwrap_or(0) / size_of::<libc::signalfd_siginfo>(),
                Err(Errno::EAGAIN) => return Ok(0),
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(errno),
            };
            let mut count = 0;
            for record in records.iter().take(read) {
                // SAFETY: the kernel writes whole records, and this is one of the `read` first ones.
                let record = unsafe { record.assume_init_ref() };
                let sender = i32::try_from(record.ssi_pid).unwrap_or(0);
                let signal = Received::new(i64::from(record.ssi_signo), record.ssi_code, sender);
                if let (Some(signal), Some(slot)) = (signal, received.get_mut(count)) {
                    *slot = signal;
                    count += 1;
                }
            }
            // A batch of nothing but SIGPIPEs of our own is not yet the end.
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
    fn bit_n_minus_one_is_signal_n() {
        let mut set = SignalSet::EMPTY;
        set.insert(Signal::HUP);
        set.insert(Signal::new(64).unwrap());
        assert_eq!(set.bits(), 1 | 1 << 63);
        assert_eq!(set.iter().map(Signal::number).collect::<Vec<_>>(), [1, 64]);
        assert!(!set.contains(Signal::INT));
    }

    // sigaction(2): "SI_USER kill(2)", "SI_KERNEL Sent by the kernel", CLD_… are above zero.
    #[test]
    fn the_code_tells_the_kernel_from_a_process() {
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
    fn what_our_own_writes_cause_is_dropped_and_anothers_signals_are_not() {
        let own = i32::try_from(std::process::id()).unwrap();
        for signal in [libc::SIGPIPE, libc::SIGXFSZ] {
            assert_eq!(Received::new(signal.into(), libc::SI_USER, own), None);
            assert!(Received::new(signal.into(), libc::SI_USER, 0).is_some());
        }
        assert!(Received::new(libc::SIGTERM.into(), libc::SI_USER, own).is_some());
    }
}

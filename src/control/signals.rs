//! Signals that a client command handles itself, instead of ending or stopping at once.
//!
//! A client command is an ordinary program, so it has handlers, by signal-hook: each sets a flag and wakes whoever waits.
//! PID 1 and the services that it starts never have any; see [`crate::sys::signals`].

use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::{flag, low_level};

use crate::model::Signal;
use crate::sys::{SignalSet, signals};

/// The signals that are caught, from [`CaughtSignals::catch`] to the end of the process. Readable: one of them has come.
#[derive(Debug)]
pub(super) struct CaughtSignals {
    received: Vec<(Signal, Arc<AtomicBool>)>,
    /// Each handler writes a byte to the other end.
    wake: UnixStream,
}

impl CaughtSignals {
    /// Catches `signals`.
    pub(super) fn catch(signals: &[Signal]) -> io::Result<Self> {
        let (wake, handlers_end) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        let mut received = Vec::new();
        for &signal in signals {
            let flag = Arc::new(AtomicBool::new(false));
            flag::register(number(signal), Arc::clone(&flag))?;
            low_level::pipe::register(number(signal), handlers_end.try_clone()?)?;
            received.push((signal, flag));
        }
        Ok(Self { received, wake })
    }

    /// Takes the signals that have come since the last call.
    pub(super) fn take(&mut self) -> SignalSet {
        // Before the flags are read: a signal that comes between the two wakes once too often, and is not overlooked.
        while self.wake.read(&mut [0; 64]).is_ok_and(|count| count > 0) {}
        let mut taken = SignalSet::EMPTY;
        for (signal, flag) in &self.received {
            if flag.swap(false, Ordering::SeqCst) {
                taken.insert(*signal);
            }
        }
        taken
    }
}

impl AsFd for CaughtSignals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

/// SIGINT ends the command as usual, but not in the middle of what it prints: an output that breaks off would leave the
/// terminal in the colour of a name.
#[derive(Debug)]
pub(super) struct DeferredInterrupt {
    /// Whether SIGINT ends the command at once: while it prints nothing, and if one has come before.
    at_once: Arc<AtomicBool>,
}

impl DeferredInterrupt {
    /// Catches SIGINT; `None`: it is ignored, and stays so.
    pub(super) fn catch() -> io::Result<Option<Self>> {
        if signals::is_ignored(Signal::INT) {
            return Ok(None);
        }
        let at_once = Arc::new(AtomicBool::new(true));
        // In this order: each signal looks at what the ones before it have left.
        flag::register_conditional_default(number(Signal::INT), Arc::clone(&at_once))?;
        flag::register(number(Signal::INT), Arc::clone(&at_once))?;
        Ok(Some(Self { at_once }))
    }

    /// Calls `print`. If SIGINT comes meanwhile, then calls `restore` and ends the process by that signal.
    pub(super) fn defer(
        &self,
        print: impl FnOnce() -> io::Result<()>,
        restore: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        self.at_once.store(false, Ordering::SeqCst);
        print()?;
        if self.at_once.swap(true, Ordering::SeqCst) {
            restore()?;
            low_level::emulate_default_handler(number(Signal::INT))?;
        }
        Ok(())
    }
}

fn number(signal: Signal) -> i32 {
    i32::from(signal.number())
}

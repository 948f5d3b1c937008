//! Reaping children that keepalive has not started.

use nix::errno::Errno;

use super::event::Event;
use super::messages;
use super::options::Options;
use crate::model::Signal;
use crate::sys::process;
use crate::sys::wait::{self, Reaped};

/// How many children are reaped before the next signal is received, so that a process that forks very fast cannot delay
/// SIGTERM.
pub(super) const MAX_REAPS_PER_SIGNAL: u32 = 128;

/// Reaps up to [`MAX_REAPS_PER_SIGNAL`] children. Returns whether no children are left.
pub(super) fn reap_orphans(options: &Options) -> Result<bool, Errno> {
    for _ in 0..MAX_REAPS_PER_SIGNAL {
        match wait::reap_any()? {
            Reaped::Ended(ended) => messages::report(options, Event::OrphanReaped(ended)),
            Reaped::Stopped(..) => {}
            Reaped::Nothing => return Ok(false),
            Reaped::NoChildren => return Ok(true),
        }
    }
    // There may be more dead children. The signal makes the next wait return at once.
    process::raise(Signal::CHLD);
    Ok(false)
}

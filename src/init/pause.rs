//! No command: holds the namespaces of others, reaps whatever is left to it, and ends when it is asked to.

use nix::errno::Errno;

use super::notice::{self, Notice};
use super::{Options, REAP_BATCH};
use crate::model::Signal;
use crate::sys::wait::{self, Reaped};
use crate::sys::{process, signals};

/// Comes back with SIGTERM or SIGINT; what else comes is of no interest.
pub(super) fn pause(options: &Options) -> Result<(), Errno> {
    loop {
        reap(options)?;
        match signals::wait_for(None)? {
            Some(received) if received.signal == Signal::TERM || received.signal == Signal::INT => return Ok(()),
            _ => {}
        }
    }
}

fn reap(options: &Options) -> Result<(), Errno> {
    for _ in 0..REAP_BATCH {
        match wait::reap_any()? {
            Reaped::Ended(ended) => notice::tell(options, Notice::OrphanEnded(ended)),
            Reaped::Stopped(..) => {}
            Reaped::Nothing | Reaped::NoChildren => return Ok(()),
        }
    }
    // There may be more: a signal of our own makes the next wait a short one.
    process::raise(Signal::CHLD);
    Ok(())
}

//! Running without a command: holds the namespaces of other containers and reaps orphans until it is asked to exit.

use nix::errno::Errno;

use super::options::Options;
use super::reap::reap_orphans;
use crate::model::Signal;
use crate::sys::signals;

/// Returns after SIGTERM or SIGINT. Other signals are ignored.
pub(super) fn pause(options: &Options) -> Result<(), Errno> {
    loop {
        reap_orphans(options)?;
        match signals::wait_for(None)? {
            Some(received) if received.signal == Signal::TERM || received.signal == Signal::INT => return Ok(()),
            _ => {}
        }
    }
}

//! Which processes use addresses that could not be bound, for answers and the status.

use nix::errno::Errno;

use crate::model::StartStep;
use crate::model::plan::Service;
use crate::supervisor::RunResult;

/// The number of addresses whose owners are kept.
const MAX_KNOWN: usize = 16;

/// What inspectors have found.
#[derive(Debug, Default)]
pub(in crate::runtime) struct PortOwners {
    /// Addresses as they are shown, each with its owner, such as `by pid 7 (nginx)`. The latest is the last.
    known: Vec<(String, String)>,
    /// Whether the owner of an address is being looked for, or will be in this turn.
    pub(in crate::runtime) is_looking: bool,
}

impl PortOwners {
    /// `found`: what is known now. An address without an owner has none that can be seen.
    pub(in crate::runtime) fn add(&mut self, found: Vec<(String, Option<String>)>) {
        for (address, owner) in found {
            self.known.retain(|(known, _)| *known != address);
            self.known.extend(owner.map(|owner| (address, owner)));
        }
        self.known.drain(..self.known.len().saturating_sub(MAX_KNOWN));
    }

    /// Who uses the address that this run of `service` could not bind: `; in use by pid 7 (nginx)`; empty if that is not known.
    pub(super) fn of(&self, service: &Service, run: &RunResult) -> String {
        let Some(failure) = run.failure.filter(|failure| failure.errno == Errno::EADDRINUSE) else {
            return String::new();
        };
        let StartStep::Listen(position) = failure.step else { return String::new() };
        let address = service.process.listen.get(usize::from(position)).map(|listen| listen.address.to_string());
        let known = self.known.iter().find(|(known, _)| Some(known) == address.as_ref());
        known.map_or_else(String::new, |(_, owner)| format!("; in use {owner}"))
    }
}

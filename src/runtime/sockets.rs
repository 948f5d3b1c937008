//! The sockets that services listen on: bound before anything starts, and held for as long as any definition names them,
//! so that what comes in waits while no worker runs, and a worker that dies takes none with it.
//!
//! An address is bound once, whatever the name by which a service knows it and whichever service that is. With
//! `listen_mode = "reuseport"` each instance has sockets of its own.
//!
//! Whether a socket blocks is a flag that all processes share that have it, fcntl(2), and is fixed when it is bound. When
//! `nonblocking` changes, a second socket is bound to the same address, `SO_REUSEPORT`, and the processes of before keep
//! the first one. Connections go to the first one until a process with the second one is ready, and to the second one
//! alone from then on: processes of before take what waits at the first one for as long as they run. What still waits there
//! when the last of them has gone is lost. The path of a unix socket cannot be bound twice: with another `nonblocking` no
//! process can be started before the last one of before has gone.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;

use crate::model::plan::{Address, Listen, ListenMode, Plan, Service};
use crate::model::{InstanceId, Mono, ServiceIndex, StartFailure, StartStep};
use crate::sys::listen::{self, SocketFile};
use crate::sys::{self, port_owner, process};

/// The budget of [`port_owner::port_owner`] is for so long.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// All that there are.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    held: Vec<Held>,
    /// Some are held that the plan does not name any more, for processes that are made of what was before.
    has_old: bool,
    /// When the budget of looking for holders was given, and what is left of it.
    looked: Mono,
    budget: usize,
}

#[derive(Debug)]
struct Held {
    address: Address,
    /// Whose it is; `None`: everyone's who names the address.
    slot: Option<InstanceId>,
    nonblocking: bool,
    socket: OwnedFd,
    file: Option<SocketFile>,
    /// Whether the plan names it.
    is_current: bool,
    /// Whether a process that has it has been ready.
    is_served: bool,
    /// To whom it was given while that was not so.
    given_to: Vec<InstanceId>,
    /// Which one of the sockets at its address the kernel was told to give all connections to.
    preferred: Option<u32>,
}

impl Sockets {
    /// Binds everything that is shared. What fails is tried again, and told, when an instance is to start.
    pub(super) fn new(plan: &Plan) -> Self {
        let mut sockets = Self::default();
        sockets.bind_all(plan);
        sockets
    }

    fn bind_all(&mut self, plan: &Plan) {
        for service in plan.services.iter().filter(|service| service.instances > 0) {
            for listen in &service.process.listen {
                if mode_of(service, &listen.address) == ListenMode::Shared {
                    self.obtain(listen, None).ok();
                }
            }
        }
    }

    /// The sockets of a process of `id` that is made of `service`, in the order of `listen`. Allocates nothing if there
    /// are none.
    ///
    /// # Errors
    /// One cannot be had at the moment.
    pub(super) fn for_instance(
        &mut self,
        id: InstanceId,
        service: &Service,
    ) -> Result<Vec<BorrowedFd<'_>>, StartFailure> {
        let mut found = Vec::with_capacity(service.process.listen.len());
        for (position, listen) in (0..).zip(&service.process.listen) {
            let slot = match mode_of(service, &listen.address) {
                ListenMode::Shared => None,
                ListenMode::Reuseport => Some(id.slot()),
            };
            match self.obtain(listen, slot) {
                Ok(held) => found.push(held),
                Err(errno) => {
                    if errno == Errno::EADDRINUSE {
                        self.log_port_owner(&listen.address);
                    }
                    return Err(StartFailure { step: StartStep::Listen(position), errno });
                }
            }
        }
        for position in &found {
            self.note_given(*position, id);
        }
        Ok(found.into_iter().filter_map(|held| Some(self.held.get(held)?.socket.as_fd())).collect())
    }

    fn note_given(&mut self, position: usize, id: InstanceId) {
        if let Some(held) = self.held.get_mut(position).filter(|held| !held.is_served && !held.given_to.contains(&id)) {
            held.given_to.push(id);
        }
    }

    /// The position of what listens there, bound now if nothing does.
    fn obtain(&mut self, wanted: &Listen, slot: Option<InstanceId>) -> Result<usize, Errno> {
        let Listen { address, nonblocking, .. } = wanted;
        let is_it = |held: &Held| {
            held.slot == slot && held.nonblocking == *nonblocking && is_same_place(&held.address, address)
        };
        if let Some(position) = self.held.iter().position(is_it) {
            return Ok(position);
        }
        let overlapping = || self.held.iter().filter(|held| held.address.overlaps(address));
        if matches!(address, Address::Unix { .. }) && overlapping().next().is_some() {
            return Err(Errno::EADDRINUSE);
        }
        let mut mode = if slot.is_some() { ListenMode::Reuseport } else { ListenMode::Shared };
        // `listen_mode` or `nonblocking` may have been changed, or `127.0.0.1` into `0.0.0.0`, while those of before are
        // still in use.
        for held in overlapping() {
            mode = ListenMode::Reuseport;
            listen::enable_reuseport(&held.socket);
        }
        let (socket, file) = listen::open(address, mode)?;
        if *nonblocking {
            listen::set_nonblocking(&socket)?;
        }
        self.held.push(Held {
            address: address.clone(),
            slot,
            nonblocking: *nonblocking,
            socket,
            file,
            is_current: true,
            // The only one that there is gets everything anyway.
            is_served: !self.has_old,
            given_to: Vec::new(),
            preferred: None,
        });
        if mode == ListenMode::Reuseport {
            self.prefer(address);
        }
        Ok(self.held.len() - 1)
    }

    /// Tells the kernel which one of two sockets at `address` gets the connections: the one that the plan names as soon as
    /// somebody serves it.
    fn prefer(&mut self, address: &Address) {
        let mut group: Vec<&mut Held> = self.held.iter_mut().filter(|held| held.address == *address).collect();
        let preferred = match group.as_slice() {
            [first @ Held { slot: None, .. }, second @ Held { slot: None, .. }] => {
                let is_wanted = |held: &Held| held.is_served && held.is_current;
                let is_second = !is_wanted(first) && (is_wanted(second) || (second.is_served && !first.is_served));
                Some(u32::from(is_second))
            }
            _ => None,
        };
        for held in group.iter_mut().filter(|held| held.preferred != preferred) {
            listen::select_reuseport_socket(&held.socket, preferred);
            held.preferred = preferred;
        }
    }

    /// Says who has the address, as far as that can be found out at little cost: it may be the same for a thousand
    /// instances.
    fn log_port_owner(&mut self, address: &Address) {
        let now = sys::now();
        if now.since(self.looked) >= BETWEEN_LOOKS {
            (self.looked, self.budget) = (now, port_owner::MAX_LOOKUPS_PER_SECOND);
        }
        if self.held.iter().any(|held| is_same_place(&held.address, address)) {
            log::error!(
                "{address} is in use by processes that were started with a different `nonblocking`: stop them first"
            );
            return;
        }
        match port_owner::port_owner(address, &mut self.budget) {
            Some((pid, _)) if pid == process::id() => {
                log::error!("{address} is in use by keepalive itself (`http` or `control`)");
            }
            Some((pid, name)) => log::error!("{address} is in use by pid {pid} ({})", name.escape_debug()),
            None if self.budget == 0 => {}
            None => {
                let hint = "a process of another container, a closing connection, or a file that is not a socket";
                log::error!("{address} is in use, but no visible process listens on it: possibly {hint}");
            }
        }
    }

    /// From now on `plan` is the plan: what it has in common with the one before stays as it is, what is new is bound.
    /// What it does not name any more is closed as soon as no process is left that was given it; see [`Self::release`].
    pub(super) fn adopt(&mut self, plan: &Plan) {
        for service in plan.services.iter().filter(|service| service.instances > 0) {
            service.process.listen.iter().for_each(|listen| self.permit(&listen.address));
        }
        self.has_old = true;
        self.bind_all(plan);
        self.held.iter_mut().for_each(|held| held.is_current = is_in_plan(held, plan));
        let steered = self.held.iter().filter(|held| held.preferred.is_some());
        let addresses: Vec<Address> = steered.map(|held| held.address.clone()).collect();
        addresses.iter().for_each(|address| self.prefer(address));
    }

    /// Closes what neither `plan` nor one of the `living` names, who are the instances that have a process and what that
    /// is made of. To be called when a process has ended, and after [`Self::adopt`].
    pub(super) fn release<'a, I>(&mut self, plan: &Plan, living: impl Fn() -> I)
    where
        I: Iterator<Item = (InstanceId, &'a Service)>,
    {
        if !self.has_old {
            return;
        }
        self.has_old = false;
        let (closed, kept) = std::mem::take(&mut self.held).into_iter().partition(|held| {
            if is_in_plan(held, plan) {
                return false;
            }
            let in_use = living().any(|(id, service)| names(service, held, Some(id)));
            self.has_old |= in_use;
            !in_use
        });
        self.held = kept;
        let addresses: Vec<Address> = closed.iter().map(|held: &Held| held.address.clone()).collect();
        close(closed);
        addresses.iter().for_each(|address| self.prefer(address));
    }

    /// Closes the sockets of an instance that does not run and will not by itself: the kernel would give them their share
    /// of the connections, and nobody would ever answer those.
    pub(super) fn release_instance(&mut self, id: InstanceId) {
        self.held.retain(|held| held.slot != Some(id));
    }

    /// Directs connections to the sockets of an instance that is ready.
    pub(super) fn prefer_those_of(&mut self, id: InstanceId) {
        while let Some(held) = self.held.iter_mut().find(|held| held.given_to.contains(&id)) {
            held.is_served = true;
            held.given_to = Vec::new();
            let address = held.address.clone();
            self.prefer(&address);
        }
    }

    /// At the end: closes all, and takes their files away.
    pub(super) fn close(&mut self) {
        close(std::mem::take(&mut self.held));
    }

    /// The same path may be there for others now.
    fn permit(&mut self, wanted: &Address) {
        let Some(held) = self.held.iter_mut().find(|held| is_same_place(&held.address, wanted)) else { return };
        if held.address == *wanted {
            return;
        }
        if let Address::Unix { path, mode, owner } = wanted {
            let owner = owner.unwrap_or((process::effective_user(), process::effective_group()));
            if let Err(errno) = listen::set_owner_and_mode(path, *mode, owner) {
                let reason = crate::model::errno::words(errno);
                log::warn!("cannot change mode and owner of `{wanted}`: {reason}");
            }
        }
        held.address = wanted.clone();
    }
}

fn close(sockets: Vec<Held>) {
    sockets.into_iter().filter_map(|held| held.file).for_each(SocketFile::remove);
}

/// A path cannot be had twice.
fn mode_of(service: &Service, address: &Address) -> ListenMode {
    match address {
        Address::Tcp(_) | Address::Udp(_) => service.process.listen_mode,
        Address::Unix { .. } => ListenMode::Shared,
    }
}

/// Whether they are the same; mode and owner aside, which can be changed.
fn is_same_place(one: &Address, other: &Address) -> bool {
    match (one, other) {
        (Address::Unix { path: one, .. }, Address::Unix { path: other, .. }) => one == other,
        _ => one == other,
    }
}

fn is_in_plan(held: &Held, plan: &Plan) -> bool {
    let service_of = |service: ServiceIndex| plan.services.get(service.position());
    match held.slot {
        Some(id) => service_of(id.service).is_some_and(|service| service.instances > 0 && names(service, held, None)),
        None => plan.services.iter().any(|service| service.instances > 0 && names(service, held, None)),
    }
}

/// `id`: of whom `service` is the definition; `None`: of all its instances.
fn names(service: &Service, held: &Held, id: Option<InstanceId>) -> bool {
    let is_its_own = match (held.slot, id) {
        (Some(slot), Some(id)) => slot == id.slot(),
        _ => true,
    };
    let wanted = if held.slot.is_some() { ListenMode::Reuseport } else { ListenMode::Shared };
    is_its_own
        && service.process.listen.iter().any(|Listen { address, nonblocking, .. }| {
            is_same_place(address, &held.address)
                && *nonblocking == held.nonblocking
                && mode_of(service, address) == wanted
        })
}

#[cfg(test)]
#[path = "sockets_tests.rs"]
mod tests;

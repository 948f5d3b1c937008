//! The listening sockets of services. They are bound before any service starts, and stay open as long as a definition uses
//! them: connections wait while no process runs, and none is lost when a process exits.
//!
//! An address is bound once, even if several services use it. With `listen_mode = "reuseport"` each instance has its own
//! sockets.
//!
//! `O_NONBLOCK` is shared by all processes that have the socket, see fcntl(2), so it is fixed when the socket is bound. When
//! `nonblocking` changes, a second socket is bound to the same address with `SO_REUSEPORT`, and older processes keep the first
//! one. New connections go to the first socket until a process with the second one is ready, and then to the second. Older
//! processes accept the connections that wait at the first socket; those that are left when the last of them exits are lost.
//! The path of a unix socket cannot be bound twice: after a change of `nonblocking` no process can start before the older ones
//! have exited.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::bounded_work::BoundedWork;
use crate::model::plan::{Address, Listen, ListenMode, Plan, Service};
use crate::model::{AsWritten, InstanceId, ServiceIndex, StartFailure, StartStep};
use crate::sys::bounded::Report;
use crate::sys::deferred_close::Owner;
use crate::sys::socket_file::SocketFile;
use crate::sys::{deferred_close, listen, peer_stream, process};

/// The sockets of all services.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    sockets: Vec<BoundSocket>,
    /// There may be sockets that the plan does not use any more, for older processes.
    has_old_sockets: bool,
    /// Addresses that other processes use.
    in_use: Vec<AsWritten<Address>>,
    /// For what a service can hold up.
    pub(super) helpers: BoundedWork,
}

#[derive(Debug)]
struct BoundSocket {
    address: Address,
    /// The service that it was bound for.
    service: ServiceIndex,
    /// The instance that it belongs to; `None` if it is shared.
    slot: Option<InstanceId>,
    nonblocking: bool,
    socket: OwnedFd,
    file: Option<SocketFile>,
    /// Whether the plan uses it.
    is_current: bool,
    /// Whether a process with this socket has been ready.
    is_served: bool,
    /// The instances that have been given the socket while it was not served.
    given_to: Vec<InstanceId>,
    /// The socket of the reuseport group that gets all connections, as the program in the kernel says.
    preferred: Option<u32>,
}

impl Sockets {
    /// Binds the shared sockets. Failures are retried and logged when an instance starts.
    pub(super) fn new(plan: &Plan) -> Self {
        let mut sockets = Self::default();
        sockets.helpers.is_direct = true;
        sockets.bind_all(plan);
        sockets.helpers.is_direct = false;
        sockets
    }

    fn bind_all(&mut self, plan: &Plan) {
        for (index, service) in (0..).map(ServiceIndex).zip(&plan.services).filter(|(_, service)| !service.is_removed) {
            for listen in &service.process.listen {
                if mode_of(service, &listen.address) == ListenMode::Shared {
                    self.find_or_bind(listen, index, None).ok();
                }
            }
        }
    }

    /// The sockets for a process of `id` with the definition `service`, in the order of `listen`. Does not allocate if there
    /// are none.
    ///
    /// # Errors
    /// A socket cannot be bound.
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
            match self.find_or_bind(listen, id.service, slot) {
                Ok(bound) => found.push(bound),
                Err(errno) => {
                    if errno == Errno::EADDRINUSE {
                        self.note_in_use(&listen.address);
                    }
                    return Err(StartFailure { step: StartStep::Listen(position), errno });
                }
            }
        }
        for position in &found {
            self.note_given(*position, id);
        }
        Ok(found.into_iter().filter_map(|bound| Some(self.sockets.get(bound)?.socket.as_fd())).collect())
    }

    fn note_given(&mut self, position: usize, id: InstanceId) {
        if let Some(bound) =
            self.sockets.get_mut(position).filter(|bound| !bound.is_served && !bound.given_to.contains(&id))
        {
            bound.given_to.push(id);
        }
    }

    /// The position of the socket, which is bound if it does not exist.
    fn find_or_bind(
        &mut self,
        wanted: &Listen,
        service: ServiceIndex,
        slot: Option<InstanceId>,
    ) -> Result<usize, Errno> {
        let Listen { address, nonblocking, .. } = wanted;
        let address = &**address;
        let is_it = |bound: &BoundSocket| {
            bound.slot == slot && bound.nonblocking == *nonblocking && is_same_address(&bound.address, address)
        };
        if let Some(position) = self.sockets.iter().position(is_it) {
            return Ok(position);
        }
        let overlapping = || self.sockets.iter().filter(|bound| bound.address.overlaps(address));
        if matches!(address, Address::Unix { .. }) && overlapping().next().is_some() {
            return Err(Errno::EADDRINUSE);
        }
        let mut mode = if slot.is_some() { ListenMode::Reuseport } else { ListenMode::Shared };
        // `listen_mode`, `nonblocking` or the address (`127.0.0.1` to `0.0.0.0`) may have changed while the older sockets
        // are still in use.
        let older: Vec<BorrowedFd<'_>> = overlapping().map(|bound| bound.socket.as_fd()).collect();
        if !older.is_empty() {
            mode = ListenMode::Reuseport;
            let enable = || {
                older.iter().for_each(listen::enable_reuseport);
                Ok(Report::default())
            };
            self.helpers.run(&place_of(address), &older, &enable, &|_| ())?;
        }
        let socket = listen::open(address, mode)?;
        if *nonblocking {
            listen::set_nonblocking(&socket)?;
        }
        let (socket, file) = self.bind_file(socket, service, address)?;
        self.sockets.push(BoundSocket {
            address: address.clone(),
            service,
            slot,
            nonblocking: *nonblocking,
            socket,
            file,
            is_current: true,
            // A single socket gets all connections anyway.
            is_served: !self.has_old_sockets,
            given_to: Vec::new(),
            preferred: None,
        });
        if mode == ListenMode::Reuseport {
            self.prefer(address);
        }
        Ok(self.sockets.len() - 1)
    }

    /// Binds the socket if its address is a path.
    fn bind_file(
        &mut self,
        socket: OwnedFd,
        service: ServiceIndex,
        address: &Address,
    ) -> Result<(OwnedFd, Option<SocketFile>), Errno> {
        let (Address::Unix { owner, .. }, Some(path)) = (address, listen::file_of(address)) else {
            return Ok((socket, None));
        };
        let bind = || listen::bind_file(&socket, path, *owner);
        let undo = |identity| SocketFile::new(path, identity).remove();
        match self.helpers.run(&place_of(address), &[socket.as_fd()], &bind, &undo) {
            Ok(identity) => Ok((socket, Some(SocketFile::new(path, identity)))),
            Err(errno) => {
                if errno == Errno::ETIMEDOUT {
                    // A helper that is late can still let it listen.
                    deferred_close(Owner::Service(service), [socket]);
                }
                Err(errno)
            }
        }
    }

    /// Tells the kernel which of two sockets at `address` gets the connections: the one of the current plan as soon as it is
    /// served.
    fn prefer(&mut self, address: &Address) {
        let mut group: Vec<&mut BoundSocket> =
            self.sockets.iter_mut().filter(|bound| bound.address == *address).collect();
        let preferred = match group.as_slice() {
            [first @ BoundSocket { slot: None, .. }, second @ BoundSocket { slot: None, .. }] => {
                let is_wanted = |bound: &BoundSocket| bound.is_served && bound.is_current;
                let is_second = !is_wanted(first) && (is_wanted(second) || (second.is_served && !first.is_served));
                Some(u32::from(is_second))
            }
            _ => None,
        };
        group.retain(|bound| bound.preferred != preferred);
        if group.is_empty() {
            return;
        }
        let select = || {
            group.iter().for_each(|bound| listen::select_reuseport_socket(&bound.socket, preferred));
            Ok(Report::default())
        };
        let kept: Vec<BorrowedFd<'_>> = group.iter().map(|bound| bound.socket.as_fd()).collect();
        let selected = self.helpers.run(&place_of(address), &kept, &select, &|_| ());
        // A helper that is late can still select one: the next change does it again.
        let preferred = selected.map_or(Some(u32::MAX), |_| preferred);
        group.iter_mut().for_each(|bound| bound.preferred = preferred);
    }

    /// Notes that it is to be logged which process uses the address.
    fn note_in_use(&mut self, address: &AsWritten<Address>) {
        if self.sockets.iter().any(|bound| is_same_address(&bound.address, address)) {
            log::error!(
                "{address} is in use by processes that were started with a different `nonblocking`: stop them first"
            );
        } else if !self.in_use.contains(address) {
            self.in_use.push(address.clone());
        }
    }

    /// Whether [`Self::take_in_use`] has something to return.
    pub(super) const fn has_in_use(&self) -> bool {
        !self.in_use.is_empty()
    }

    /// The addresses that other processes use, since the last call.
    pub(super) fn take_in_use(&mut self) -> Vec<AsWritten<Address>> {
        std::mem::take(&mut self.in_use)
    }

    /// Applies a new plan: binds new sockets and keeps the others. Sockets that it does not use are closed by
    /// [`Self::release`] when no process has them any more.
    pub(super) fn apply_config(&mut self, plan: &Plan) {
        for service in plan.services.iter().filter(|service| !service.is_removed) {
            service.process.listen.iter().for_each(|listen| self.update_permissions(&listen.address));
        }
        self.has_old_sockets = true;
        self.bind_all(plan);
        self.sockets.iter_mut().for_each(|bound| bound.is_current = is_in_plan(bound, plan));
        let steered = self.sockets.iter().filter(|bound| bound.preferred.is_some());
        let addresses: Vec<Address> = steered.map(|bound| bound.address.clone()).collect();
        addresses.iter().for_each(|address| self.prefer(address));
    }

    /// Closes the sockets that neither `plan` nor one of the `living` processes uses. `living`: the instances that have a
    /// process, with its definition. Call it when a process has exited, and after [`Self::apply_config`].
    pub(super) fn release<'a, I>(&mut self, plan: &Plan, living: impl Fn() -> I)
    where
        I: Iterator<Item = (InstanceId, &'a Service)>,
    {
        if !self.has_old_sockets {
            return;
        }
        self.has_old_sockets = false;
        let (closed, kept) = std::mem::take(&mut self.sockets).into_iter().partition(|bound| {
            if is_in_plan(bound, plan) {
                return false;
            }
            let in_use = living().any(|(id, service)| uses(service, bound, Some(id)));
            self.has_old_sockets |= in_use;
            !in_use
        });
        self.sockets = kept;
        let addresses: Vec<Address> = closed.iter().map(|bound: &BoundSocket| bound.address.clone()).collect();
        self.close_these(closed);
        addresses.iter().for_each(|address| self.prefer(address));
    }

    /// Closes the own sockets of an instance that has stopped: the kernel would assign connections to them that are never
    /// accepted.
    pub(super) fn release_instance(&mut self, id: InstanceId) {
        let own: Vec<BoundSocket> = self.sockets.extract_if(.., |bound| bound.slot == Some(id)).collect();
        self.close_these(own);
    }

    /// Directs connections to the sockets of an instance that is ready.
    pub(super) fn prefer_those_of(&mut self, id: InstanceId) {
        while let Some(bound) = self.sockets.iter_mut().find(|bound| bound.given_to.contains(&id)) {
            bound.is_served = true;
            bound.given_to = Vec::new();
            let address = bound.address.clone();
            self.prefer(&address);
        }
    }

    /// Closes all sockets and removes their files.
    pub(super) fn close(&mut self) {
        let sockets = std::mem::take(&mut self.sockets);
        self.close_these(sockets);
    }

    /// Each by itself: what a process can hold up is the socket of its own service.
    fn close_these(&mut self, sockets: Vec<BoundSocket>) {
        for BoundSocket { address, service, socket, file, .. } in sockets {
            let end = || {
                match &file {
                    Some(file) => file.remove(),
                    None => listen::stop(&socket),
                }
                Ok(Report::default())
            };
            if file.is_some() || matches!(address, Address::Tcp(_)) {
                self.helpers.run(&place_of(&address), &[socket.as_fd()], &end, &|_| ()).ok();
            }
            let owner = Owner::Service(service);
            match (address, file) {
                _ if self.helpers.is_direct() => {}
                (Address::Unix { .. }, None) => peer_stream::close_abstract_listener(owner, socket),
                // The process can have connected it, with `SO_LINGER`: then close(2) waits until the peer has read everything.
                (Address::Unix { .. }, Some(_)) | (Address::Tcp(_) | Address::Udp(_), _) => {
                    deferred_close(owner, [socket]);
                }
            }
        }
    }

    /// Applies a changed mode and owner to the file of a unix socket.
    fn update_permissions(&mut self, wanted: &AsWritten<Address>) {
        let Some(bound) = self.sockets.iter_mut().find(|bound| is_same_address(&bound.address, wanted)) else { return };
        if bound.address == **wanted {
            return;
        }
        let (Address::Unix { mode, owner, .. }, Some(file)) = (&**wanted, &bound.file) else { return };
        let owner = owner.unwrap_or((process::effective_user(), process::effective_group()));
        let set = || file.set_owner_and_mode(owner, Some(*mode)).map(|()| Report::default());
        let changed = self.helpers.run(&place_of(wanted), &[], &set, &|_| ());
        bound.address = Address::clone(wanted);
        if let (Err(errno), Address::Unix { mode, .. }) = (changed, &mut bound.address) {
            // A helper that is late can still change them: the next configuration sets them again.
            *mode = u32::MAX;
            let reason = crate::model::errno::words_of_path(errno);
            log::warn!("cannot change mode and owner of `{wanted}`: {reason}");
        }
    }
}

/// What can be locked: the directory of a path, or the sockets of an address.
fn place_of(address: &Address) -> PathBuf {
    listen::file_of(address).map_or_else(|| address.to_string().into(), |path| directory_of(path).to_owned())
}

fn directory_of(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

/// The mode of a socket: unix sockets are always shared, because a path cannot be bound twice.
fn mode_of(service: &Service, address: &Address) -> ListenMode {
    match address {
        Address::Tcp(_) | Address::Udp(_) => service.process.listen_mode,
        Address::Unix { .. } => ListenMode::Shared,
    }
}

/// Whether the addresses are the same. The mode and owner of a unix socket are not compared.
fn is_same_address(one: &Address, other: &Address) -> bool {
    match (one, other) {
        (Address::Unix { path: one, .. }, Address::Unix { path: other, .. }) => one == other,
        _ => one == other,
    }
}

fn is_in_plan(bound: &BoundSocket, plan: &Plan) -> bool {
    let service_of = |service: ServiceIndex| plan.services.get(service.position());
    match bound.slot {
        Some(id) => service_of(id.service).is_some_and(|service| !service.is_removed && uses(service, bound, None)),
        None => plan.services.iter().any(|service| !service.is_removed && uses(service, bound, None)),
    }
}

/// Whether `service` uses the socket. `id`: the instance with this definition; `None`: all its instances.
fn uses(service: &Service, bound: &BoundSocket, id: Option<InstanceId>) -> bool {
    let is_its_own = match (bound.slot, id) {
        (Some(slot), Some(id)) => slot == id.slot(),
        _ => true,
    };
    let wanted = if bound.slot.is_some() { ListenMode::Reuseport } else { ListenMode::Shared };
    is_its_own
        && service.process.listen.iter().any(|Listen { address, nonblocking, .. }| {
            is_same_address(address, &bound.address)
                && *nonblocking == bound.nonblocking
                && mode_of(service, address) == wanted
        })
}

#[cfg(test)]
#[path = "sockets_tests.rs"]
mod tests;

//! Tests with real sockets and hand-written plans.

use std::net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockname, setsockopt, socket, sockopt};

use super::*;
use crate::model::plan::{Control, LogStyle, Process, SignalActions};

/// A port of the loopback device for the sockets of one test. The kernel does not assign it to other sockets while the
/// returned socket is bound to it. That one never listens, so sockets with `SO_REUSEADDR` can bind it too, socket(7).
fn reserve_port() -> (SocketAddr, OwnedFd) {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
    setsockopt(&socket, sockopt::ReuseAddr, &true).unwrap();
    let address: SockaddrIn = getsockname(socket.as_raw_fd()).unwrap();
    (SocketAddrV4::from(address).into(), socket)
}

fn service(name: &str, mode: ListenMode, addresses: &[Address]) -> Service {
    let mut service = Service::new(name, Process::new(Box::default()));
    service.instances = 2;
    Rc::make_mut(&mut service.process).listen_mode = mode;
    let listen = |(position, address): (usize, &Address)| Listen {
        name: format!("socket{position}").into(),
        address: address.clone().into(),
        nonblocking: false,
    };
    Rc::make_mut(&mut service.process).listen = addresses.iter().enumerate().map(listen).collect();
    service
}

fn plan(services: &[&Service]) -> Plan {
    Plan {
        shutdown_timeout: Duration::from_secs(9),
        signals: SignalActions::default(),
        termination_log: PathBuf::new().into(),
        log: LogStyle::default(),
        control: Control::Off,
        http: None,
        services: services.iter().map(|service| Rc::new((*service).clone())).collect(),
    }
}

fn id(service: u32, number: u32) -> InstanceId {
    InstanceId { service: ServiceIndex(service), number }
}

/// The numbers of the descriptors, which show whether a socket has been bound again.
fn given(sockets: &mut Sockets, id: InstanceId, service: &Service) -> Vec<i32> {
    sockets.for_instance(id, service).unwrap().iter().map(|socket| socket.as_raw_fd()).collect()
}

fn no_processes<'a>() -> std::iter::Empty<(InstanceId, &'a Service)> {
    std::iter::empty()
}

fn is_nonblocking(socket: impl std::os::fd::AsFd) -> bool {
    let flags = nix::fcntl::fcntl(socket, nix::fcntl::FcntlArg::F_GETFL).unwrap();
    nix::fcntl::OFlag::from_bits_retain(flags).contains(nix::fcntl::OFlag::O_NONBLOCK)
}

/// `service` with non-blocking sockets.
fn with_nonblocking(mut service: Service) -> Service {
    Rc::make_mut(&mut service.process).listen.iter_mut().for_each(|listen| listen.nonblocking = true);
    service
}

// fcntl(2): O_NONBLOCK is a flag of the open file description, which all processes share that have the socket.
#[test]
fn a_changed_nonblocking_binds_a_second_socket_and_old_processes_keep_theirs() {
    let (port, _reserved) = reserve_port();
    let plain = || service("web", ListenMode::Shared, &[Address::Tcp(port)]);
    let (blocking, nonblocking) = (plain(), with_nonblocking(plain()));
    for (before, after) in [(&blocking, &nonblocking), (&nonblocking, &blocking)] {
        let mut sockets = Sockets::new(&plan(&[before]));
        let old = given(&mut sockets, id(0, 0), before);
        let new_plan = plan(&[after]);
        sockets.apply_config(&new_plan);
        let new = given(&mut sockets, id(0, 0).surge(), after);
        assert_ne!(new, old);
        assert_eq!(
            sockets.sockets.iter().map(|bound| is_nonblocking(&bound.socket)).collect::<Vec<_>>(),
            [before, after].map(|service| service.process.listen[0].nonblocking)
        );
        sockets.release(&new_plan, || [(id(0, 0), before)].into_iter());
        assert_eq!(given(&mut sockets, id(0, 0), before), old);
        sockets.release(&new_plan, no_processes);
        assert_eq!(given(&mut sockets, id(0, 0), after), new);
        assert_eq!(sockets.sockets.len(), 1);
        TcpStream::connect(port).unwrap();
    }
}

/// The number of connections, out of 40, that wait at each socket.
fn spread(sockets: &Sockets, port: SocketAddr) -> Vec<usize> {
    let connections: Vec<TcpStream> = (0..40).map(|_| TcpStream::connect(port).unwrap()).collect();
    let waiting = |bound: &BoundSocket| {
        let listener = TcpListener::from(bound.socket.try_clone().unwrap());
        // All copies share the flag.
        listener.set_nonblocking(true).unwrap();
        std::iter::from_fn(|| listener.accept().ok()).count()
    };
    let spread = sockets.sockets.iter().map(waiting).collect();
    drop(connections);
    spread
}

#[test]
fn connections_go_to_the_new_socket_once_it_is_served_and_back_after_a_rollback() {
    let (port, _reserved) = reserve_port();
    let plain = || service("web", ListenMode::Shared, &[Address::Tcp(port)]);
    let (before, after) = (plain(), with_nonblocking(plain()));
    let (old_plan, new_plan) = (plan(&[&before]), plan(&[&after]));
    let mut sockets = Sockets::new(&old_plan);
    given(&mut sockets, id(0, 0), &before);
    sockets.apply_config(&new_plan);
    assert_eq!(spread(&sockets, port), [40, 0], "the new socket is not served");
    given(&mut sockets, id(0, 0).surge(), &after);
    sockets.prefer_those_of(id(0, 0));
    assert_eq!(spread(&sockets, port), [40, 0], "an old instance is ready");
    sockets.prefer_those_of(id(0, 0).surge());
    assert_eq!(spread(&sockets, port), [0, 40]);
    let living = || [(id(0, 0), &before), (id(0, 0).surge(), &after)].into_iter();
    sockets.apply_config(&old_plan);
    sockets.release(&old_plan, living);
    assert_eq!(spread(&sockets, port), [40, 0], "the reload has failed");
    sockets.apply_config(&new_plan);
    assert_eq!(spread(&sockets, port), [0, 40]);
    sockets.release(&new_plan, no_processes);
    assert_eq!(spread(&sockets, port), [40], "only the new socket is left");
    // Now it is the old socket.
    sockets.apply_config(&old_plan);
    assert_eq!(spread(&sockets, port), [40, 0]);
    given(&mut sockets, id(0, 1), &before);
    sockets.prefer_those_of(id(0, 1));
    assert_eq!(spread(&sockets, port), [0, 40]);
}

#[test]
fn a_group_with_sockets_of_instances_is_left_to_the_kernel() {
    let (port, _reserved) = reserve_port();
    let mode = |mode| service("web", mode, &[Address::Tcp(port)]);
    let (first, second) = (mode(ListenMode::Shared), with_nonblocking(mode(ListenMode::Shared)));
    let third = mode(ListenMode::Reuseport);
    let mut sockets = Sockets::new(&plan(&[&first]));
    sockets.apply_config(&plan(&[&second]));
    assert_eq!(spread(&sockets, port), [40, 0]);
    sockets.apply_config(&plan(&[&third]));
    given(&mut sockets, id(0, 0), &third);
    let spread = spread(&sockets, port);
    assert!(spread.iter().all(|share| *share > 0), "{spread:?}");
}

// unix(7): a path is bound once.
#[test]
fn a_unix_socket_changes_nonblocking_when_the_last_old_process_has_exited() {
    let path = std::env::temp_dir().join(format!("keepalive-sockets-nonblocking-{}", std::process::id()));
    let plain =
        || service("web", ListenMode::Shared, &[Address::Unix { path: path.clone(), mode: 0o600, owner: None }]);
    let (before, after) = (plain(), with_nonblocking(plain()));
    let mut sockets = Sockets::new(&plan(&[&before]));
    let old = given(&mut sockets, id(0, 0), &before);
    let new_plan = plan(&[&after]);
    sockets.apply_config(&new_plan);
    sockets.release(&new_plan, || [(id(0, 0), &before)].into_iter());
    let failure = StartFailure { step: StartStep::Listen(0), errno: Errno::EADDRINUSE };
    assert_eq!(sockets.for_instance(id(0, 0).surge(), &after).err(), Some(failure));
    assert_eq!(given(&mut sockets, id(0, 0), &before), old);
    sockets.release(&new_plan, no_processes);
    assert!(is_nonblocking(sockets.for_instance(id(0, 0), &after).unwrap()[0]));
    assert!(path.exists());
    sockets.close();
    assert!(!path.exists());
}

#[test]
fn a_shared_socket_is_bound_before_any_start_and_is_the_same_for_all() {
    let [(one, _reserved_one), (other, _reserved_other)] = [reserve_port(), reserve_port()];
    let web = service("web", ListenMode::Shared, &[Address::Tcp(one), Address::Tcp(other)]);
    let mut sockets = Sockets::new(&plan(&[&web]));
    TcpStream::connect(one).unwrap();
    TcpStream::connect(other).unwrap();
    let first = given(&mut sockets, id(0, 0), &web);
    assert_eq!(first.len(), 2);
    assert_eq!(given(&mut sockets, id(0, 1), &web), first);
    assert_eq!(given(&mut sockets, id(0, 0).surge(), &web), first);
    assert!(given(&mut sockets, id(1, 0), &Service::new("none", Process::new(Box::default()))).is_empty());
}

#[test]
fn with_reuseport_each_instance_has_its_own_socket_until_it_stops() {
    let (port, _reserved) = reserve_port();
    let web = service("web", ListenMode::Reuseport, &[Address::Tcp(port)]);
    let plan = plan(&[&web]);
    let mut sockets = Sockets::new(&plan);
    TcpStream::connect(port).unwrap_err();
    let (first, second) = (given(&mut sockets, id(0, 0), &web), given(&mut sockets, id(0, 1), &web));
    assert_ne!(first, second);
    assert_eq!(given(&mut sockets, id(0, 0).surge(), &web), first);
    sockets.apply_config(&plan);
    sockets.release(&plan, no_processes);
    assert_eq!(given(&mut sockets, id(0, 1), &web), second);
    sockets.release_instance(id(0, 0));
    TcpStream::connect(port).unwrap();
    sockets.release_instance(id(0, 1));
    TcpStream::connect(port).unwrap_err();
}

#[test]
fn a_failed_bind_is_retried_at_each_start() {
    let ((free, _reserved), taken) = (reserve_port(), TcpListener::bind("127.0.0.1:0").unwrap());
    let address = Address::Tcp(taken.local_addr().unwrap());
    let web = service("web", ListenMode::Shared, &[Address::Tcp(free), address]);
    let mut sockets = Sockets::new(&plan(&[&web]));
    let failure = StartFailure { step: StartStep::Listen(1), errno: Errno::EADDRINUSE };
    for _ in 0..2 {
        assert_eq!(sockets.for_instance(id(0, 0), &web).err(), Some(failure));
    }
    drop(taken);
    assert_eq!(given(&mut sockets, id(0, 0), &web).len(), 2);
}

#[test]
fn a_new_plan_closes_only_unused_sockets() {
    let reserved = [(); 3].map(|()| reserve_port());
    let [stays, goes, comes] = reserved.each_ref().map(|(address, _)| *address);
    let before = service("web", ListenMode::Shared, &[Address::Tcp(stays), Address::Tcp(goes)]);
    let after = service("api", ListenMode::Shared, &[Address::Tcp(comes), Address::Tcp(stays)]);
    let mut sockets = Sockets::new(&plan(&[&before]));
    let had = given(&mut sockets, id(0, 0), &before);
    let new_plan = plan(&[&after]);
    sockets.apply_config(&new_plan);
    // The old process still runs, and a rollback may start it again.
    sockets.release(&new_plan, || [(id(0, 0), &before)].into_iter());
    assert_eq!(given(&mut sockets, id(0, 0), &before), had);
    let has = given(&mut sockets, id(0, 0), &after);
    assert_eq!(has[1], had[0], "not bound again");
    TcpStream::connect(goes).unwrap();
    sockets.release(&new_plan, no_processes);
    TcpStream::connect(goes).unwrap_err();
    TcpStream::connect(stays).unwrap();
    assert_eq!(given(&mut sockets, id(0, 0), &after), has);
}

#[test]
fn a_removed_service_keeps_no_sockets() {
    let (port, _reserved) = reserve_port();
    for mode in [ListenMode::Shared, ListenMode::Reuseport] {
        let mut web = service("web", mode, &[Address::Tcp(port)]);
        let mut sockets = Sockets::new(&plan(&[&web]));
        given(&mut sockets, id(0, 0), &web);
        TcpStream::connect(port).unwrap();
        web.is_removed = true;
        sockets.apply_config(&plan(&[&web]));
        sockets.release(&plan(&[&web]), no_processes);
        TcpStream::connect(port).unwrap_err();
    }
}

#[test]
fn the_listen_mode_can_change_while_old_sockets_are_in_use() {
    let (port, _reserved) = reserve_port();
    let modes = [ListenMode::Shared, ListenMode::Reuseport];
    for (before, after) in [(modes[0], modes[1]), (modes[1], modes[0])] {
        let (before, after) =
            (service("web", before, &[Address::Tcp(port)]), service("web", after, &[Address::Tcp(port)]));
        let mut sockets = Sockets::new(&plan(&[&before]));
        let old = given(&mut sockets, id(0, 0), &before);
        sockets.apply_config(&plan(&[&after]));
        assert_ne!(given(&mut sockets, id(0, 0).surge(), &after), old);
        sockets.release(&plan(&[&after]), || [(id(0, 0), &before)].into_iter());
        assert_eq!(given(&mut sockets, id(0, 0), &before), old);
        sockets.release(&plan(&[&after]), no_processes);
        assert_eq!(sockets.sockets.len(), 1);
        TcpStream::connect(port).unwrap();
    }
}

#[test]
fn a_socket_file_survives_a_change_of_its_mode_and_is_removed_with_its_socket() {
    let path = std::env::temp_dir().join(format!("keepalive-sockets-{}", std::process::id()));
    let at = |mode| Address::Unix { path: path.clone(), mode, owner: None };
    let (before, after) =
        (service("web", ListenMode::Reuseport, &[at(0o600)]), service("web", ListenMode::Shared, &[at(0o660)]));
    let mut sockets = Sockets::new(&plan(&[&before]));
    let (had, inode) = (given(&mut sockets, id(0, 0), &before), std::fs::metadata(&path).unwrap().ino());
    sockets.apply_config(&plan(&[&after]));
    let file = std::fs::metadata(&path).unwrap();
    assert_eq!((file.ino(), file.permissions().mode() & 0o777), (inode, 0o660));
    assert_eq!(given(&mut sockets, id(0, 1), &after), had);
    sockets.close();
    assert!(!path.exists());
}

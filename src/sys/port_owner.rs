//! Finding the process that has a socket at an address: proc_pid_net(5), proc_pid_fd(5).
//!
//! The bounded search through all processes is for an error message. It may find no process, or one that has exited since.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use super::procfs;
use crate::model::Pid;
use crate::model::plan::Address;

/// How many bytes of each table in /proc/net are read. Listening sockets come first.
const MAX_TABLE_BYTES: u64 = 1 << 20;
/// The approximate length of a line in a table.
const BYTES_PER_LINE: usize = 128;
/// How many sockets in tables and descriptors of processes are looked at. Each takes about 2 µs.
const MAX_LOOKUPS: usize = 256 * 1024;
/// `TCP_LISTEN` as the tables show it.
const TCP_LISTEN: &str = "0A";

/// A process that has a socket at `address`, and its name. Reads /proc/PID, which can take any time.
#[must_use]
pub fn port_owner(address: &Address) -> Option<(Pid, String)> {
    let mut budget = MAX_LOOKUPS;
    port_owner_within(address, &mut budget)
}

/// Each lookup is subtracted from `budget`; `None` if no process is found before the budget is used up.
fn port_owner_within(address: &Address, budget: &mut usize) -> Option<(Pid, String)> {
    let inode = match address {
        Address::Tcp(_) => inet_socket_inode(&["tcp", "tcp6"], (address, Address::Tcp), Some(TCP_LISTEN), budget),
        Address::Udp(_) => inet_socket_inode(&["udp", "udp6"], (address, Address::Udp), None, budget),
        Address::Unix { path, .. } => unix_socket_inode(path, budget),
    };
    let pid = pid_with_fd(&format!("socket:[{}]", inode?), budget)?;
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some((pid, name.trim_end().to_owned()))
}

fn table(name: &str, budget: &mut usize) -> String {
    let mut bytes = Vec::new();
    if *budget > 0
        && let Ok(file) = File::open(format!("/proc/net/{name}"))
    {
        file.take(MAX_TABLE_BYTES).read_to_end(&mut bytes).ok();
        *budget = budget.saturating_sub(1 + bytes.len() / BYTES_PER_LINE);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The inode of a socket that prevents another one from listening on `wanted`.
fn inet_socket_inode(
    tables: &[&str],
    (wanted, kind): (&Address, fn(SocketAddr) -> Address),
    state: Option<&str>,
    budget: &mut usize,
) -> Option<u64> {
    let find = |table: String| {
        table.lines().find_map(|line| {
            let mut fields = line.split_ascii_whitespace().skip(1);
            let (local, found_state) = (fields.next()?, fields.nth(1)?);
            let (address, port) = local.split_once(':')?;
            let found = SocketAddr::new(parse_address(address)?, u16::from_str_radix(port, 16).ok()?);
            let conflicts = kind(found).overlaps(wanted) && state.is_none_or(|state| state == found_state);
            fields.nth(5)?.parse().ok().filter(|_| conflicts)
        })
    };
    tables.iter().find_map(|name| find(table(name, budget)))
}

/// Parses an address as the tables show it: words of 32 bits, each in the byte order of the processor.
fn parse_address(text: &str) -> Option<IpAddr> {
    let mut bytes = [0; 16];
    for (word, to) in text.as_bytes().chunks(8).zip(bytes.chunks_mut(4)) {
        let word = u32::from_str_radix(str::from_utf8(word).ok()?, 16).ok()?;
        to.copy_from_slice(&word.to_ne_bytes());
    }
    let [a, b, c, d, ..] = bytes;
    Some(if text.len() == 8 { Ipv4Addr::new(a, b, c, d).into() } else { Ipv6Addr::from(bytes).into() })
}

fn unix_socket_inode(path: &Path, budget: &mut usize) -> Option<u64> {
    let mut end = String::new();
    write!(end, " {}", path.display()).ok()?;
    let table = table("unix", budget);
    let line = table.lines().find(|line| line.ends_with(&end))?;
    line.split_ascii_whitespace().nth(6)?.parse().ok()
}

fn pid_with_fd(target: &str, budget: &mut usize) -> Option<Pid> {
    if !procfs::is_own() {
        return None;
    }
    let target = Path::new(target);
    for process in std::fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::new) else {
            continue;
        };
        let Ok(descriptors) = std::fs::read_dir(process.path().join("fd")) else { continue };
        for descriptor in descriptors.flatten() {
            if std::fs::read_link(descriptor.path()).is_ok_and(|link| link == target) {
                return Some(pid);
            }
            *budget = budget.checked_sub(1)?;
        }
        *budget = budget.checked_sub(1)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::super::listen;
    use super::*;
    use crate::model::plan::ListenMode;

    #[track_caller]
    fn check_is_found(socket: OwnedFd, asked: &Address) {
        let mut budget = MAX_LOOKUPS;
        let (pid, name) = port_owner_within(asked, &mut budget).expect("somebody has it");
        assert!((1..MAX_LOOKUPS).contains(&budget), "{budget}");
        assert_eq!(port_owner_within(asked, &mut 0), None);
        assert_eq!(port_owner_within(asked, &mut 3), None, "it is spent before it is found");
        assert_eq!(pid, super::super::process::id());
        assert_eq!(format!("{name}\n"), std::fs::read_to_string("/proc/self/comm").unwrap());
        drop(socket);
        // Processes that other tests have just forked have the descriptor too.
        while port_owner_within(asked, &mut MAX_LOOKUPS.clone()).is_some() {
            std::thread::yield_now();
        }
    }

    /// A port that is currently free.
    fn free_port() -> u16 {
        std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    }

    #[test]
    fn the_owner_of_an_overlapping_address_is_found() {
        let address = |ip: &str, port| SocketAddr::new(ip.parse().unwrap(), port);
        for (has, wants) in [
            ("127.0.0.1", "127.0.0.1"),
            ("127.0.0.1", "0.0.0.0"),
            ("0.0.0.0", "::"),
            ("::", "127.0.0.1"),
            ("::1", "::1"),
        ] {
            let kinds: [fn(SocketAddr) -> Address; 2] = [Address::Tcp, Address::Udp];
            for kind in kinds {
                // Another process may take the port in between.
                let (socket, port) = std::iter::repeat_with(free_port)
                    .find_map(|port| Some((listen::open(&kind(address(has, port)), ListenMode::Shared).ok()?, port)))
                    .unwrap();
                check_is_found(socket, &kind(address(wants, port)));
            }
        }
    }

    #[test]
    fn the_owner_of_a_unix_socket_is_found() {
        let path = std::env::temp_dir().join(format!("keepalive-port_owner-{}", std::process::id()));
        for path in [path, format!("@keepalive-port_owner-{}", std::process::id()).into()] {
            let address = Address::Unix { path, mode: 0o600, owner: None };
            let socket = listen::open(&address, ListenMode::Shared).unwrap();
            let file = listen::file_of(&address);
            if let Some(path) = file {
                listen::bind_file(&socket, path, None).unwrap();
            }
            check_is_found(socket, &address);
            file.iter().for_each(|path| std::fs::remove_file(path).unwrap());
        }
    }
}

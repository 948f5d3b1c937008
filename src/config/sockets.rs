//! `listen`: the sockets of a service, and the notation of addresses.

use std::net::SocketAddr;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use toml::de::DeTable;

use super::decoder::{Decoder, Schema, UniqueResource, Value, entries};
use super::environment::Purpose;
use super::expand::{MAX_FD_NAME_LENGTH, Placeholders, Scope};
use super::words::LISTEN_MODES;
use crate::model::plan::{Address, Listen, ListenMode};
use crate::model::{AsWritten, Template};

/// As `SocketMode` of systemd.socket(5).
const DEFAULT_MODE: u32 = 0o666;
/// The maximum size of a socket's path in bytes with the NUL: `sun_path` of unix(7).
pub(super) const MAX_SOCKET_PATH_SIZE: usize = 108;
/// The maximum number of sockets and stored descriptors together. Descriptors have numbers from 3 to 255, of which `ready`,
/// `ipc` and `state` may need one each.
const MAX_INHERITED_FDS: usize = 250;

const EXAMPLE: &str = "such as `\"tcp://0.0.0.0:8080\"` or `\"unix:///run/web.sock\"`";

/// The names in `listen` in the order of the file, which determines their descriptors. Ignores errors.
pub(super) fn names<'t>(table: &'t DeTable<'_>) -> Vec<&'t str> {
    let listen = table.get("listen").and_then(|value| value.get_ref().as_table());
    listen.map_or_else(Vec::new, |listen| entries(listen).into_iter().map(|(key, _)| &**key.get_ref()).collect())
}

/// Parses a numeric address and port. `localhost` is 127.0.0.1; other names are not looked up.
pub(super) fn socket_address(text: &str) -> Option<SocketAddr> {
    let local = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    let address: SocketAddr = local.as_deref().unwrap_or(text).parse().ok()?;
    (address.port() > 0).then_some(address)
}

impl Decoder<'_> {
    /// `scope` must be the result of [`shared_scope`].
    pub(super) fn sockets(&mut self, table: &DeTable<'_>, scope: &Scope<'_>) -> Box<[Listen]> {
        let Some(value) = table.get("listen") else { return Box::default() };
        let hint = "such as `{ http = \"tcp://0.0.0.0:8080\" }`";
        let Some(listen) = self.table(value, hint) else { return Box::default() };
        let sockets = entries(listen).into_iter().filter_map(|(key, value)| {
            let name: &str = key.get_ref();
            if let Some(message) = invalid_name(name) {
                self.error(key.span(), message, "rename it");
            }
            let (address, nonblocking) = self.listen_address(value, scope)?;
            self.require_unique(UniqueResource::Address(address.clone()), value.span());
            Some(Listen { name: name.into(), address, nonblocking })
        });
        sockets.collect()
    }

    pub(super) fn listen_mode(&mut self, table: &DeTable<'_>, listen: &[Listen]) -> ListenMode {
        let mode = self.choice(table, "listen_mode", &LISTEN_MODES).unwrap_or(ListenMode::Shared);
        let Some(value) = table.get("listen_mode") else { return mode };
        let unix = listen.iter().find(|socket| matches!(*socket.address, Address::Unix { .. }));
        if !table.contains_key("listen") {
            self.error(value.span(), "`listen_mode` has no effect without `listen`", "add `listen`, or remove it");
        } else if let Some(socket) = unix.filter(|_| mode == ListenMode::Reuseport) {
            let message = format!("`{}` is a unix socket, which does not support `reuseport`", socket.name);
            self.error(value.span(), message, "remove it: all instances then share one socket");
        }
        mode
    }

    /// Whether the process is given `LISTEN_FDS`.
    pub(super) fn listen_fds(&mut self, table: &DeTable<'_>) -> bool {
        let is_announced = self.boolean(table, "listen_fds").unwrap_or(true);
        let Some(value) = table.get("listen_fds") else { return is_announced };
        let stored = table.get("fd_store").and_then(|stored| self.try_resolved(stored).ok());
        if stored.is_some_and(|stored| !is_announced && stored.integer() != Some(0)) {
            let message = "`fd_store` requires `LISTEN_FDS`, which returns the stored descriptors to the process";
            self.error(value.span(), message, "remove `fd_store` or `listen_fds`");
        } else if !table.contains_key("listen") {
            self.error(value.span(), "`listen_fds` has no effect without `listen`", "add `listen`, or remove it");
        }
        is_announced
    }

    /// The number of descriptors that may be stored.
    pub(super) fn fd_store(&mut self, table: &DeTable<'_>, sockets: usize) -> u32 {
        let stored = self.integer(table, "fd_store", 0..=MAX_INHERITED_FDS as i64).unwrap_or(0);
        let stored = u32::try_from(stored).unwrap_or(0);
        let all = sockets + stored as usize;
        if let Some(value) = table.get("fd_store").or(table.get("listen")).filter(|_| all > MAX_INHERITED_FDS) {
            let message = format!("`listen` and `fd_store` need {all} descriptors, the limit is {MAX_INHERITED_FDS}");
            self.error(value.span(), message, "");
        }
        stored
    }

    /// The address, and whether the socket is non-blocking.
    fn listen_address(&mut self, value: &Value<'_>, scope: &Scope<'_>) -> Option<(AsWritten<Address>, bool)> {
        const SCHEMA: Schema = Schema {
            keys: &["address", "nonblocking", "mode", "user", "group"],
            later: &[],
            foreign: "address: path\nuser: owner\nmode: umask\nnonblocking: non_blocking",
        };
        let Some(table) = value.get_ref().as_table() else {
            let address = self.address(value, scope)?;
            return Some((self.written(value, address), false));
        };
        self.check_keys(table, "a socket", &SCHEMA);
        let Some(place) = table.get("address") else {
            self.error(value.span(), "the socket has no `address`", "such as `address = \"unix:///run/web.sock\"`");
            return None;
        };
        let mut address = self.address(place, scope)?;
        match &mut address {
            Address::Unix { path, mode, owner } if !is_abstract(path) => {
                *mode = table.get("mode").and_then(|value| self.octal(value, "such as `\"0660\"`")).unwrap_or(*mode);
                *owner = self.credentials(table).0.map(|credentials| (credentials.uid, credentials.gid));
            }
            Address::Unix { .. } | Address::Tcp(_) | Address::Udp(_) => {
                let is_for_files = |key: &str| matches!(key, "mode" | "user" | "group");
                for (key, _) in entries(table).into_iter().filter(|(key, _)| is_for_files(key.get_ref())) {
                    let message = format!("`{}` applies only to a unix socket with a path", key.get_ref());
                    self.error(key.span(), message, "remove it");
                }
            }
        }
        Some((self.written(place, address), self.boolean(table, "nonblocking").unwrap_or(false)))
    }

    fn address(&mut self, value: &Value<'_>, scope: &Scope<'_>) -> Option<Address> {
        let text = self.string(value, "an address", EXAMPLE)?;
        let template = self.template(value, text, scope)?;
        let Template::Fixed(expanded) = template else { return None };
        let shown = expanded.to_string_lossy();
        if let Some(path) = expanded.as_bytes().strip_prefix(b"unix://") {
            return self.unix(value, path);
        }
        let (scheme, rest) = shown.split_once("://").unwrap_or(("", &shown));
        let address = socket_address(rest);
        match (scheme, address) {
            ("tcp", Some(address)) => return Some(Address::Tcp(address)),
            ("udp", Some(address)) => return Some(Address::Udp(address)),
            _ => {}
        }
        let port = rest.trim_start_matches(['*', ':']).parse().ok().filter(|port: &u16| *port > 0);
        let path = rest.strip_prefix("unix:").unwrap_or(rest);
        let hint = match (scheme, port, address) {
            ("", _, Some(address)) => format!("write `tcp://{address}`"),
            ("" | "tcp" | "udp", Some(port), _) => {
                format!("write `{}://0.0.0.0:{port}`, or `[::]` for IPv6", if scheme == "udp" { scheme } else { "tcp" })
            }
            ("", ..) if path.starts_with('/') => format!("write `unix://{path}`"),
            ("http" | "https", _, Some(address)) => format!("write `tcp://{address}`"),
            ("tcp" | "udp", ..) => "an IP address and a port from 1 to 65535; host names are not resolved".to_owned(),
            _ => EXAMPLE.to_owned(),
        };
        match self.unexpanded(value) {
            Some(text) => self.error(value.span(), format!("invalid address `{text}`"), EXAMPLE),
            None => self.error(value.span(), format!("invalid address `{}`", shown.escape_debug()), hint),
        }
        None
    }

    /// A relative path is made absolute with the directory of the document.
    fn unix(&mut self, value: &Value<'_>, name: &[u8]) -> Option<Address> {
        let path = PathBuf::from(std::ffi::OsString::from_vec(name.to_vec()));
        let path = if is_abstract(&path) { path } else { self.absolute(&path) };
        if matches!(name, b"" | b"@" | b".") || name.ends_with(b"/") || name.ends_with(b"/.") {
            self.error(value.span(), "the path of the socket is missing", "such as `\"unix:///run/web.sock\"`");
            return None;
        }
        self.check_socket_path(value, &path);
        self.warn_about_link(value, &path);
        Some(Address::Unix { path, mode: DEFAULT_MODE, owner: None })
    }

    fn warn_about_link(&mut self, value: &Value<'_>, path: &std::path::Path) {
        if self.environment.purpose == Purpose::Check
            && !is_abstract(path)
            && let Some(reason) = (self.environment.unsafe_path)(path)
        {
            let reason = self.unexpanded(value).map_or(&*reason, |_| "a symbolic link");
            let message = format!("{reason}: keepalive would not follow it, and not create the socket");
            self.warning(value.span(), message, "name the real path");
        }
    }

    /// Makes a path absolute and removes `//` and `/./`, so that equal paths have equal names. `..` stays, because it may
    /// follow a symbolic link.
    pub(super) fn absolute(&self, path: &std::path::Path) -> PathBuf {
        self.environment.directory.join(self.directory).join(path).components().collect()
    }

    pub(super) fn check_socket_path(&mut self, value: &Value<'_>, path: &std::path::Path) {
        if path.as_os_str().len() >= MAX_SOCKET_PATH_SIZE {
            let hint = "choose a shorter one, such as `/run/keepalive.sock`";
            self.error(value.span(), "a socket path is limited to 107 bytes", hint);
        }
    }
}

fn is_abstract(path: &std::path::Path) -> bool {
    path.as_os_str().as_encoded_bytes().starts_with(b"@")
}

/// Why `name` is not valid in `LISTEN_FDNAMES`, sd_listen_fds(3), or in `{fd.NAME}`; `None` if it is.
fn invalid_name(name: &str) -> Option<&'static str> {
    match name.as_bytes() {
        [] => Some("a socket needs a name"),
        bytes if bytes.len() > MAX_FD_NAME_LENGTH => Some("a socket name is limited to 255 bytes"),
        bytes if !bytes.iter().all(|byte| matches!(byte, b' '..=b'~') && !b":{}".contains(byte)) => {
            Some("a socket name may contain only printable ASCII characters, without `:{}`")
        }
        _ => None,
    }
}

/// The scope for a value that all instances share, such as an address.
pub(super) const fn shared_scope<'s>(scope: &Scope<'s>) -> Scope<'s> {
    Scope { service: scope.service, placeholders: Placeholders::Service, sockets: &[], variables: scope.variables }
}

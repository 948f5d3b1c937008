//! `NAME.socket`: sockets that keepalive holds. systemd.socket(5)

use std::collections::BTreeSet;

use super::specifiers::{UnitName, expand};
use crate::import::config_file::{Service, Value};
use crate::import::import_error::ImportError;
use crate::import::ini::{Entry, Section};

/// Sets `listen`.
pub(super) fn set_listen(service: &mut Service, sections: &[Section], name: &UnitName) -> Result<(), ImportError> {
    let mut names = BTreeSet::new();
    for section in sections.iter().filter(|section| section.name == "Socket") {
        let base = section.get("FileDescriptorName").unwrap_or(&name.prefix);
        for entry in &section.entries {
            let Some(address) = address(section, entry, name)? else {
                note(service, entry);
                continue;
            };
            let mut own = base.to_owned();
            while !names.insert(own.clone()) {
                own = format!("{base}-{}", names.len());
            }
            service.add("listen", &own, socket(section, address));
        }
    }
    Ok(())
}

/// The address of `ListenStream=` and `ListenDatagram=`.
fn address(section: &Section, entry: &Entry, name: &UnitName) -> Result<Option<String>, ImportError> {
    let scheme = match entry.key.as_str() {
        "ListenStream" => "tcp",
        "ListenDatagram" => "udp",
        _ => return Ok(None),
    };
    let value = expand(&entry.value, name).map_err(|message| section.error(&entry.key, message, ""))?.written();
    let is_port = value.bytes().all(|byte| byte.is_ascii_digit());
    Ok(Some(match value.as_str() {
        path if path.starts_with('/') && scheme == "tcp" => format!("unix://{path}"),
        _ if is_port => format!("{scheme}://0.0.0.0:{value}"),
        address if !address.starts_with(['/', '@']) => format!("{scheme}://{address}"),
        other => {
            let message = format!("`{}={other}` has no counterpart", entry.key);
            return Err(section.error(&entry.key, message, "a TCP or UDP port, or the path of a stream socket"));
        }
    }))
}

/// With the mode and the owner of a unix socket.
fn socket(section: &Section, address: String) -> Value {
    if !address.starts_with("unix:") {
        return address.into();
    }
    let mut entries = vec![("address".to_owned(), Value::from(address))];
    for (key, own) in [("SocketMode", "mode"), ("SocketUser", "user"), ("SocketGroup", "group")] {
        entries.extend(section.get(key).map(|value| (own.to_owned(), value.into())));
    }
    match entries.as_slice() {
        [(_, address)] => address.clone(),
        _ => Value::Table(entries),
    }
}

fn note(service: &mut Service, entry: &Entry) {
    match (entry.key.as_str(), entry.value.as_str()) {
        ("SocketMode" | "SocketUser" | "SocketGroup" | "FileDescriptorName" | "Service", _)
        | ("Accept", "no" | "false") => {}
        (key, value) => service.note(format!("{key}={value} of the socket has no counterpart")),
    }
}

//! `ready`: when a service is ready.

use std::net::SocketAddr;

use toml::de::DeTable;

use super::decoder::{Decoder, Schema, Value, entries};
use super::expand::{Builder, LISTEN_FDS_START, Scope};
use super::sockets::socket_address;
use super::suggest::nearest;
use crate::model::plan::{Address, Probe, Ready, Service, Strategy};
use crate::model::{Numbers, Template, units};

/// The largest number of a descriptor that a process can inherit: numbers have 8 bits.
const MAX_READY_FD: i64 = 255;

const SCHEMA: Schema = Schema {
    keys: &["fd", "tcp", "http", "file", "exec", "delay", "timeout"],
    later: &[],
    foreign: "\
exec: command
file: path
tcp: port
http: url https
fd: notification-fd",
};

impl Decoder<'_> {
    /// `service` must be complete except for `ready`.
    pub(super) fn ready(&mut self, value: &Value<'_>, scope: &Scope<'_>, service: &Service) -> Option<Ready> {
        const EXPECTED: &str = "`\"exec\"`, `\"notify\"`, `\"ipc\"` or a table";
        let value = &*self.resolved(value)?;
        let Some(text) = value.get_ref().as_str() else {
            return match value.get_ref().as_table() {
                Some(table) => self.ready_table(value, table, scope, service),
                None => {
                    self.unexpected(value, EXPECTED, "such as `{ delay = \"2s\" }`");
                    None
                }
            };
        };
        match text {
            "exec" => return Some(Ready::Exec),
            "notify" => return Some(Ready::Notify),
            "ipc" if !service.process.ipc => {
                self.error(value.span(), "`ready = \"ipc\"` requires `ipc = true`", "add it");
            }
            "ipc" => return Some(Ready::Ipc),
            _ if self.unexpanded(value).is_some() => self.unexpected(value, EXPECTED, ""),
            _ => {
                let words = ["exec", "notify", "ipc"];
                let key = match text {
                    _ if units::parse_duration(text).is_some() => "delay",
                    _ if text.starts_with("http://") => "http",
                    _ if text.starts_with('/') => "file",
                    _ if socket_address(text).is_some() => "tcp",
                    _ => "",
                };
                let hint = match key {
                    "" => match nearest(text.strip_suffix("-reload").unwrap_or(text), words.into_iter()) {
                        Some(word) if self.expands_variables => format!("did you mean `\"{word}\"`?"),
                        Some(word) => format!("did you mean `{word}`?"),
                        None if !self.expands_variables => "such as `tcp=127.0.0.1:8080`".to_owned(),
                        None => "such as `{ tcp = \"127.0.0.1:8080\" }`".to_owned(),
                    },
                    key if self.expands_variables => format!("write `{{ {key} = \"{text}\" }}`"),
                    key => format!("write `{key}={text}`"),
                };
                self.unexpected(value, EXPECTED, hint);
            }
        }
        None
    }

    fn ready_table(
        &mut self,
        value: &Value<'_>,
        table: &DeTable<'_>,
        scope: &Scope<'_>,
        service: &Service,
    ) -> Option<Ready> {
        self.check_keys(table, "`ready`", &SCHEMA);
        let is_timeout = |key: &&str| *key == "timeout";
        if table.keys().all(|key| is_timeout(&&**key.get_ref())) {
            self.error(value.span(), "`ready` is empty", "such as `{ delay = \"2s\" }`");
        }
        let is_known = |key: &&str| SCHEMA.keys.contains(key) && !is_timeout(key);
        let mut known = entries(table).into_iter().filter(|(key, _)| is_known(&&**key.get_ref()));
        let (key, content) = known.next()?;
        if let ("delay" | "fd", Some(value)) = (&**key.get_ref(), table.get("timeout")) {
            let message = format!("`timeout` has no effect on `{}`", key.get_ref());
            self.error(value.span(), &message, "it limits one attempt of a probe; `ready_timeout` limits the start");
        }
        if let Some((more, _)) = known.next() {
            let message = format!("`ready` accepts only one key, and `{}` is already set", key.get_ref());
            self.error(more.span(), message, "remove one of them; an `exec` command can check several things");
        }
        let probe = match &**key.get_ref() {
            "delay" => return self.duration_of(content).map(Ready::Delay),
            "fd" => return self.ready_fd(content, service),
            key => self.probe(key, content, scope, service)?,
        };
        self.warn_about_shared_address(content, &probe, service, "ready");
        Some(Ready::Probe(probe))
    }

    /// The probe `key`: `tcp`, `http`, `file` or `exec`.
    pub(super) fn probe(
        &mut self,
        key: &str,
        content: &Value<'_>,
        scope: &Scope<'_>,
        service: &Service,
    ) -> Option<Probe> {
        Some(match key {
            "tcp" => {
                let text = self.string(content, "an address", "such as `\"127.0.0.1:8080\"`")?;
                let address = self.expanded(content, text, scope)?;
                let address = self.destination(content, address, service)?;
                Probe::Tcp(self.as_written(address, text))
            }
            "http" => self.url(content, scope, service)?,
            "file" => Probe::File(self.absolute_path(content, scope, "such as `\"/run/web.up\"`")?),
            _ => {
                let command = self.command_of(content, scope)?;
                self.inspect_program(&service.process, &command, content.span());
                Probe::Exec(command)
            }
        })
    }

    fn ready_fd(&mut self, value: &Value<'_>, service: &Service) -> Option<Ready> {
        let number = self.integer_of(value, LISTEN_FDS_START as i64..=MAX_READY_FD)?;
        let taken = service.process.listen.len() + service.process.fd_store as usize;
        let first = i64::try_from(LISTEN_FDS_START + taken).unwrap_or(i64::MAX);
        if number < first {
            let message = format!("descriptors below {first} are used by `listen` and `fd_store`");
            self.error(value.span(), message, format!("use {first} or higher"));
        }
        u8::try_from(number).ok().map(Ready::Fd)
    }

    fn url(&mut self, value: &Value<'_>, scope: &Scope<'_>, service: &Service) -> Option<Probe> {
        const EXAMPLE: &str = "such as `\"http://127.0.0.1:8080/healthz\"`";
        let text = self.string(value, "a URL", EXAMPLE)?;
        let url = text.strip_prefix("http://").unwrap_or(text);
        let mut authority = self.expanded(value, text, scope)?;
        let first_piece = authority.first_piece();
        if first_piece.starts_with(b"https://") {
            let hint = "use `http://`, `tcp`, or `exec` with a program that supports TLS";
            self.error(value.span(), "TLS is not supported", hint);
            return None;
        }
        let Some(rest) = first_piece.strip_prefix(b"http://").map(<[u8]>::to_vec) else {
            self.error(value.span(), "expected an `http://` URL", EXAMPLE);
            return None;
        };
        *first_piece = rest;
        let mut target = authority.split_off(b"/?#").unwrap_or_default();
        // The fragment is not sent to the server.
        target.split_off(b"#");
        if target.first_piece().first() != Some(&b'/') {
            target.first_piece().insert(0, b'/');
        }
        if !target.text().iter().all(u8::is_ascii_graphic) {
            self.error(
                value.span(),
                "a URL may contain only ASCII characters, without spaces",
                "percent-encode the others, such as `%20`",
            );
            return None;
        }
        let text = authority.text();
        // The colons in `[::1]` do not separate a port.
        if !text.rsplit(|byte| *byte == b']').next().is_some_and(|rest| rest.contains(&b':')) {
            authority.push(b":80");
        }
        let authority = self.destination(value, authority, service)?;
        // A path that comes from a variable as a whole has no place in the text.
        let start = url.find(['/', '?', '#']);
        let (host, path) = start.and_then(|start| url.split_at_checked(start)).unwrap_or((url, "${…}"));
        let authority = self.as_written(authority, host);
        let is_root = target.first_piece() == b"/";
        let target = self.finished(target, value.span())?;
        let target = if is_root { target } else { self.as_written(target, path) };
        Some(Probe::Http { authority, target })
    }

    /// An `address:port` that is valid for the first and the last instance.
    fn destination(&mut self, value: &Value<'_>, mut address: Builder, service: &Service) -> Option<Template> {
        let first_piece = address.first_piece();
        if let Some(port) = first_piece.strip_prefix(b"localhost:") {
            *first_piece = [b"127.0.0.1:", port].concat();
        }
        let template = self.finished(address, value.span())?;
        let instances = service.instances;
        for instance in [0, instances.saturating_sub(1)] {
            let text = template.expand(Numbers { instance, instances }).to_string_lossy().into_owned();
            if socket_address(&text).is_none() {
                let shown = self.unexpanded(value).unwrap_or(&text);
                let message = format!("invalid address `{}`, expected IP:PORT", shown.escape_debug());
                self.error(
                    value.span(),
                    message,
                    "such as `127.0.0.1:8080` or `[::1]:8080`; host names are not resolved",
                );
                return None;
            }
        }
        Some(template)
    }

    /// Warns if another process would answer the probe: another instance, or the old process during a rolling reload.
    pub(super) fn warn_about_other_processes(&mut self, value: &Value<'_>, service: &Service) {
        if let Ready::Probe(Probe::File(path)) = &service.ready
            && service.instances > 1
            && !path.differs_by_instance()
        {
            let message = "all instances share this file: the first one that creates it makes the others ready, too";
            self.warning(value.span(), message, "add `{instance}` to the path");
        }
        let Ready::Probe(Probe::Tcp(address) | Probe::Http { authority: address, .. }) = &service.ready else { return };
        let text = address.expand(Numbers::SINGLE).to_string_lossy().into_owned();
        let Some(asked) = socket_address(&text).filter(|asked| asked.ip().is_loopback()) else { return };
        let is_listened = service.process.listen.iter().any(|listen| listen.address.overlaps(&Address::Tcp(asked)));
        if service.reload.strategy == Strategy::Rolling && !is_listened {
            let shown = address.shown(Numbers::SINGLE);
            let message = format!(
                "during a rolling reload the old process still has `{shown}`: it answers the probe of the new one"
            );
            let hint =
                "add `reload = \"restart\"`, or pass the socket with `listen` and use `\"notify\"`, `\"ipc\"` or `fd`";
            self.warning(value.span(), message, hint);
        }
    }

    /// Warns if the probe connects to a socket of `listen`, on which any instance may answer. `what` it should prove.
    pub(super) fn warn_about_shared_address(
        &mut self,
        value: &Value<'_>,
        probe: &Probe,
        service: &Service,
        what: &str,
    ) {
        let asked = probe.authority().map(|authority| authority.expand(Numbers::SINGLE));
        let asked = asked.and_then(|asked| asked.to_str().ok().and_then(socket_address));
        let Some(asked): Option<SocketAddr> = asked else { return };
        if service.process.listen.iter().any(|listen| listen.address.overlaps(&Address::Tcp(asked))) {
            let shown = self.unexpanded(value).map_or_else(|| asked.to_string(), str::to_owned);
            let message = format!(
                "`{shown}` is an address of `listen`: any instance may answer, so the probe does not prove that this one is {what}"
            );
            let hint = match what {
                "ready" => {
                    "probe an address that only this instance has, or use `\"notify\"`, `\"ipc\"` or `{ fd = 10 }`"
                }
                _ => "probe an address that only this instance has, or use `exec` or `watchdog`",
            };
            self.warning(value.span(), message, hint);
        }
    }
}

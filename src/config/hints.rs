//! Warnings for programs that are likely to need `listen`, `listen_fds`, `nonblocking` or another `reload`, judging by their command
//! and environment.

use toml::de::{DeTable, DeValue};

use super::decoder::{Decoder, entries};
use super::environment::Purpose;
use super::suggest::look_up;
use crate::model::Template;
use crate::model::plan::{Kind, Process, Service, Strategy};

/// Servers that bind the port in their own configuration file, and how they are reloaded.
const SERVERS: &str = "\
server: nginx mosquitto: write `reload = { strategy = \"signal\", signal = \"SIGHUP\" }`
server: httpd apache2 lighttpd: write `reload = { strategy = \"signal\", signal = \"SIGUSR1\" }`
server: haproxy php-fpm: write `reload = { strategy = \"signal\", signal = \"SIGUSR2\" }`
server: redis-server postgres mysqld mongod memcached: write `reload = \"restart\"`";

impl Decoder<'_> {
    /// Warns if gunicorn or nginx need another `listen_fds` or `nonblocking` than they get.
    pub(super) fn hint_at_sockets(&mut self, process: &Process, table: &DeTable<'_>) {
        let Some(value) = table.get("listen").filter(|_| !process.listen.is_empty()) else { return };
        if !table.contains_key("listen_fds") && process.fd_store == 0 && self.binds_by_number(process) {
            let message = "gunicorn with `fd://` also uses the sockets of `LISTEN_FDS`: it would use one of them twice";
            self.warning(value.span(), message, "add `listen_fds = false`");
        }
        let sockets = value.get_ref().as_table().map(entries).unwrap_or_default();
        let decides = |socket: &DeValue<'_>| socket.as_table().is_some_and(|table| table.contains_key("nonblocking"));
        if !sockets.iter().all(|(_, socket)| decides(socket.get_ref())) && is_nginx(process) {
            let message = "nginx requires nonblocking sockets: on a blocking one its workers can hang";
            let hint = "add `nonblocking = true`, as in `{ address = \"tcp://0.0.0.0:80\", nonblocking = true }`";
            self.warning(value.span(), message, hint);
        }
    }

    /// Warns if a rolling reload is likely to fail, or to end in a failure after it: the new process binds the port of the
    /// old one.
    pub(super) fn hint_at_reload(&mut self, service: &Service, table: &DeTable<'_>) {
        let Service { kind, reload, process, .. } = service;
        let is_rolling = *kind == Kind::Service && reload.strategy == Strategy::Rolling;
        if self.environment.purpose != Purpose::Check || !is_rolling || !process.listen.is_empty() {
            return;
        }
        if let Some(hint) = reload_hint(process)
            && let Some(value) = table.get("reload").or_else(|| table.get("command"))
        {
            let message = "a rolling reload starts the new process beside the old one, and two processes cannot bind the same port";
            self.warning(value.span(), message, hint);
        }
    }

    /// Warns if all instances bind the same port.
    pub(super) fn hint_at_instances(&mut self, service: &Service, table: &DeTable<'_>) {
        let Service { instances, process, .. } = service;
        if self.environment.purpose == Purpose::Check
            && *instances > 1
            && process.listen.is_empty()
            && let Some((name, IsShared(true))) = port_of(process)
            && let Some(value) = table.get("instances")
        {
            let message = format!(
                "all instances get the same `{name}`: only the first can bind that port, unless the program sets SO_REUSEPORT"
            );
            let hint = "pass the socket with `listen`, or write a port for each, such as `300{instance}`";
            self.warning(value.span(), message, hint);
        }
    }

    /// Whether the process is gunicorn and its command, `GUNICORN_CMD_ARGS` or, for `check`, its file makes it bind `fd://`.
    fn binds_by_number(&self, process: &Process) -> bool {
        const ARGUMENTS: &[u8] = b"GUNICORN_CMD_ARGS=";
        if !process.command.iter().any(|word| contains(word, b"gunicorn")) {
            return false;
        }
        let own = process.env.iter().find(|entry| entry.literal_prefix().starts_with(ARGUMENTS));
        let inherited = || {
            let variable = ARGUMENTS.strip_suffix(b"=").and_then(|name| self.environment.variable(name));
            process.inherit_env && variable.is_some_and(|value| has(value, b"fd://"))
        };
        process.command.iter().any(|word| contains(word, b"fd://"))
            || own.map_or_else(inherited, |entry| contains(entry, b"fd://"))
            || self.directory_to_inspect(process).is_some_and(|directory| {
                let file = directory.join("gunicorn.conf.py");
                file.is_file() && std::fs::read(file).is_ok_and(|text| has(&text, b"fd://"))
            })
    }
}

/// Whether the command or the environment shows that the process binds a port of its own.
pub(crate) fn names_port(process: &Process) -> bool {
    reload_hint(process).is_some()
}

/// The `reload` that a process needs which binds a port of its own, as far as its command and environment show.
fn reload_hint(process: &Process) -> Option<&'static str> {
    let program = process.command.first().map(Template::literal_prefix).unwrap_or_default();
    let name = String::from_utf8_lossy(name_of(program));
    // `php-fpm8.2`
    let name = if name.starts_with("php-fpm") { "php-fpm" } else { &name };
    let of_port = port_of(process).map(|_| "write `reload = \"restart\"`, or pass the socket with `listen`");
    look_up(SERVERS, "server", name).or(of_port)
}

/// Whether all instances of a service get the same value.
struct IsShared(bool);

/// The variable or option that tells the process its port.
fn port_of(process: &Process) -> Option<(&'static str, IsShared)> {
    const NAMES: [&str; 6] = ["PORT", "--port", "--bind", "--listen", "-p", "-b"];
    // The option that the word before is.
    let mut option = "";
    for word in process.env.iter().chain(&process.command) {
        let text = word.literal_prefix();
        // `-p` has other meanings.
        let is_value = option.len() > 2 || text.first().is_some_and(u8::is_ascii_digit);
        let is_named = |name: &&str| text.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.starts_with(b"="));
        let name = if is_value && !option.is_empty() { Some(option) } else { NAMES.into_iter().find(is_named) };
        if let Some(name) = name {
            return Some((name, IsShared(!word.differs_by_instance())));
        }
        option = NAMES.into_iter().find(|name| name.as_bytes() == text).unwrap_or_default();
    }
    None
}

/// Whether the process is nginx, a shell with a script that names it, or is passed its sockets in the variable `NGINX` as
/// nginx does on an upgrade.
fn is_nginx(process: &Process) -> bool {
    const SHELLS: [&[u8]; 4] = [b"sh", b"ash", b"dash", b"bash"];
    let ends_word = |byte: &u8| byte.is_ascii_whitespace() || b";&|()".contains(byte);
    let names_it = |word: &[u8]| name_of(word) == b"nginx";
    let mut words = process.command.iter().map(Template::literal_prefix);
    let program = words.next().unwrap_or_default();
    names_it(program)
        || (SHELLS.contains(&name_of(program)) && words.any(|script| script.split(ends_word).any(names_it)))
        || process.env.iter().any(|entry| entry.literal_prefix().starts_with(b"NGINX="))
}

/// The part of a path after the last slash.
fn name_of(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

fn contains(template: &Template, part: &[u8]) -> bool {
    match template {
        Template::Fixed(text) => has(text.as_bytes(), part),
        Template::Numbered { pieces, last } => {
            pieces.iter().map(|(text, _)| text).chain([last]).any(|text| has(text.as_bytes(), part))
        }
        Template::Expanded { text, .. } => contains(text, part),
    }
}

fn has(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

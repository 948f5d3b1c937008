//! Warnings for programs that are likely to need `listen_fds` or `nonblocking`, judging by their command and environment.

use toml::de::{DeTable, DeValue};

use super::decoder::{Decoder, entries};
use crate::model::Template;
use crate::model::plan::Process;

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

    /// Whether the process is gunicorn and its command or `GUNICORN_CMD_ARGS` makes it bind `fd://`.
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
    }
}

/// Whether the process is nginx, a shell script that starts it, or is passed its sockets in the variable `NGINX` as nginx
/// does on an upgrade.
fn is_nginx(process: &Process) -> bool {
    let names_it = |word: &[u8]| word.rsplit(|byte| *byte == b'/').next() == Some(b"nginx");
    let is_script = |word: &&[u8]| word.contains(&b' ');
    let mut words = process.command.iter().map(Template::literal_prefix);
    words.next().is_some_and(names_it)
        || words.filter(is_script).any(|script| script.split(u8::is_ascii_whitespace).any(names_it))
        || process.env.iter().any(|entry| entry.literal_prefix().starts_with(b"NGINX="))
}

fn contains(template: &Template, part: &[u8]) -> bool {
    match template {
        Template::Fixed(text) => has(text.as_bytes(), part),
        Template::Numbered(pieces) => pieces.iter().any(|piece| has(piece.as_bytes(), part)),
    }
}

fn has(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

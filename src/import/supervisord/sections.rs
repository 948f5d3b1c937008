//! The sections of supervisord.conf.

use std::path::Path;

use super::include;
use super::program::{self, Program};
use crate::import::config_file::ConfigFile;
use crate::import::import_error::ImportError;
use crate::import::ini::Section;

const DEFAULTS: [&str; 3] = [
    "A program that exits restarts unless its exit code is expected, as there. Three things differ: the container ends when \
     a program has failed for good (`on_failure = \"ignore\"` keeps it), after 16 runs shorter than 10 s (`max_restarts`, \
     `min_uptime`) and not after 4 shorter than 1 s (startretries, startsecs); and what a program leaves is stopped \
     (`kill_mode = \"process\"` lets it go on).",
    "Output without a `stdout_logfile` goes to the container, and log files get it besides: `log = { stdout = \"null\", … }` \
     for the file only. HOME, USER and LOGNAME are those of `user`.",
    "`reload = \"restart\"`: the old process ends before the new one starts, as there.",
];
/// The programs of the file `path`.
pub(in crate::import) fn import(path: &Path, text: &str) -> Result<ConfigFile, ImportError> {
    let (sections, notes) = include::sections(path, text)?;
    let mut config = ConfigFile { notes: DEFAULTS.map(str::to_owned).to_vec(), ..ConfigFile::default() };
    notes.into_iter().for_each(|note| config.note(note));
    let global = sections.iter().find(|section| section.name == "supervisord");
    for section in &sections {
        let (kind, name) = section.name.split_once(':').unwrap_or((&section.name, ""));
        match kind.trim() {
            "program" | "fcgi-program" => {
                let program = Program { section, name: name.trim(), group: group_of(name.trim(), &sections), global };
                program::services(&program)?.into_iter().for_each(|service| config.add(service));
            }
            "eventlistener" => {
                let command = section.get("command").unwrap_or_default();
                config.note(format!(
                    "[{}] `{command}` speaks a protocol of supervisord: see examples/events for events of keepalive, and \
                     `health` for httpok of superlance",
                    section.name
                ));
            }
            "group" => config.note(format!(
                "[{}] programs={}: there are no groups; `keepalive restart NAME NAME` or a pattern (`\"web*\"`) names several",
                section.name,
                section.get("programs").unwrap_or_default()
            )),
            "inet_http_server" => config.note(format!(
                "[inet_http_server] port={}: `http = \"0.0.0.0:9001\"` in [keepalive] shows a page that changes nothing",
                section.get("port").unwrap_or_default()
            )),
            // keepalive has a control socket by itself.
            "unix_http_server" | "supervisorctl" | "include" => {}
            "supervisord" => note_global(section, &mut config),
            kind if kind.starts_with("rpcinterface") || section.name.starts_with("rpcinterface") => {}
            "ctlplugin" => config.note(format!("[{}] has no counterpart", section.name)),
            _ => config.note(format!("[{}] is unknown to supervisord, too", section.name)),
        }
    }
    config.set_shutdown_timeout();
    Ok(config)
}

/// The group that lists the program, or the program itself.
fn group_of<'s>(program: &'s str, sections: &'s [Section]) -> &'s str {
    let lists = |section: &&Section| {
        section.name.starts_with("group:")
            && section.get("programs").unwrap_or_default().split(',').any(|name| name.trim() == program)
    };
    sections.iter().find(lists).and_then(|section| section.name.strip_prefix("group:")).map_or(program, str::trim)
}

fn note_global(section: &Section, config: &mut ConfigFile) {
    for entry in &section.entries {
        match entry.key.as_str() {
            // Not needed, or written to each service.
            "nodaemon" | "pidfile" | "logfile" | "logfile_maxbytes" | "logfile_backups" | "minfds" | "minprocs"
            | "childlogdir" | "nocleanup" | "identifier" | "silent" | "environment" | "umask" | "strip_ansi" => {}
            "loglevel" => config.note(format!("[supervisord] loglevel={}: KEEPALIVE_LOG=debug and so on", entry.value)),
            "user" if entry.value == "root" => {}
            key => config.note(format!("[supervisord] {key}={}: keepalive runs as the user and in the directory of the image, `USER` and `WORKDIR`", entry.value)),
        }
    }
}

//! Files of other programs that are taken for a configuration.

/// Sections of other programs, for [`Schema`](super::decoder::Schema).
pub(super) const SECTIONS: &str = "\
write `[services.NAME]` with `command` in place of `ExecStart`, since this is a section of a systemd unit: Service Unit Install
services: service programs
write `[services.NAME]`: program process processes app apps watcher
write `[services.NAME]` with `command` for each program: unit supervisord
write `[services.NAME]` for each program, and a pattern such as `\"web*\"` in commands: group
write `schedule = \"0 4 * * *\"` in `[services.NAME]`: Timer
write `listen = { http = \"tcp://0.0.0.0:80\" }` in `[services.NAME]`: Socket socket
write `control` or `http` in `[keepalive]`: inet_http_server unix_http_server supervisorctl rpcinterface
write a service that runs `keepalive events -f --json`: eventlistener
write it in `[keepalive]`: include control http shutdown_timeout signals log
keepalive: circus settings
remove it, and set it for the container: version name volumes networks secrets configs";

/// What `text`, which is not valid TOML, looks like; `None` if it may be TOML with errors.
pub(crate) fn other_format(text: &str) -> Option<&'static str> {
    const MARKS: [(&str, &str); 10] = [
        ("module.exports", "an ecosystem file of PM2"),
        ("export default", "an ecosystem file of PM2"),
        ("[program:", "a configuration of supervisord"),
        ("[supervisord]", "a configuration of supervisord"),
        ("[watcher:", "a configuration of circus"),
        ("[Unit]", "a unit of systemd"),
        ("[Service]", "a unit of systemd"),
        ("services:", "a file of Docker Compose"),
        ("FROM ", "a Dockerfile"),
        ("apps:", "an ecosystem file of PM2"),
    ];
    let lines = || text.lines().map(str::trim_end).filter(|line| !line.is_empty() && !line.starts_with(['#', ';']));
    let marked = lines().find_map(|line| MARKS.iter().find(|(mark, _)| line.starts_with(mark)));
    if let Some((_, format)) = marked {
        return Some(format);
    }
    let first = lines().next()?;
    let named = |line: &str| {
        let (name, command) = line.split_once(':')?;
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
        (is_name && !name.is_empty()).then_some(!command.is_empty())
    };
    match first {
        _ if text.starts_with("#!") => Some("a script"),
        _ if first.starts_with('{') => Some("JSON"),
        "---" => Some("YAML"),
        _ if lines().all(|line| named(line) == Some(true)) => Some("a Procfile"),
        _ if named(first).is_some() => Some("YAML"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_other_programs_are_recognised() {
        for (text, format) in [
            ("// x\nmodule.exports = {\n  apps: [{ script: 'app.js' }]\n}\n", "an ecosystem file of PM2"),
            ("apps:\n  - script: app.js\n", "an ecosystem file of PM2"),
            ("{ \"apps\": [] }", "JSON"),
            ("; c\n[supervisord]\nnodaemon=true\n[program:web]\ncommand=x\n", "a configuration of supervisord"),
            ("version: '3'\nservices:\n  web:\n    image: x\n", "a file of Docker Compose"),
            ("[watcher:web]\ncmd = python\n", "a configuration of circus"),
            ("web: node server.js\n\nworker: node worker.js\n", "a Procfile"),
            ("a:\n  b: 1\n", "YAML"),
            ("---\na: 1\n", "YAML"),
            ("#!/bin/sh\nexec web\n", "a script"),
            ("FROM debian\nRUN true\n", "a Dockerfile"),
            ("[Unit]\nDescription=x\n[Service]\nExecStart=/bin/x\n", "a unit of systemd"),
        ] {
            assert_eq!(other_format(text), Some(format), "{text}");
        }
        for text in ["[services.web]\ncommand = node\n", "", "# services:\n", "services = 1\nx", "[services.web\n"] {
            assert_eq!(other_format(text), None, "{text}");
        }
    }
}

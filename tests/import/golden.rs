//! Each fixture becomes the keepalive.toml beside it, and `check` accepts that.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::scratch::Scratch;
use crate::{KEEPALIVE, fixtures, has_node, import, skip, text};

/// Imports `source` of the fixture `name` and compares the result with its `expected.toml`.
#[track_caller]
fn check(name: &str, source: &str) {
    check_with(name, &[source]);
}

#[track_caller]
fn check_with(name: &str, arguments: &[&str]) {
    let directory = fixtures().join(name);
    let output = import(&directory, arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let result = text(&output.stdout).replace(&directory.display().to_string(), "HERE");
    let expected = directory.join("expected.toml");
    if std::env::var_os("KEEPALIVE_TEST_WRITE_GOLDEN").is_some() {
        fs::write(&expected, &result).unwrap();
    }
    assert_eq!(in_order(&result), in_order(&fs::read_to_string(&expected).unwrap()), "{name}");
    check_accepts(&directory, &result.replace("HERE", &directory.display().to_string()));
}

/// `keepalive check` says nothing against `result` where its programs, directories and variables exist.
#[track_caller]
fn check_accepts(directory: &Path, result: &str) {
    let scratch = Scratch::new();
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file()) {
        fs::copy(entry.path(), scratch.path().join(entry.file_name())).unwrap();
    }
    let config = scratch.write("keepalive.toml", result);
    for program in programs(result) {
        let path = if program.contains('/') { program } else { format!("bin/{program}") };
        let stub = scratch.write(&path, "#!/bin/sh\n");
        fs::set_permissions(&stub, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:{}", scratch.path().join("bin").display(), std::env::var("PATH").unwrap());
    let mut command = Command::new(KEEPALIVE);
    command.args(["check", "-c"]).arg(config).env("PATH", path).current_dir(scratch.path());
    for name in variables(result) {
        if std::env::var_os(&name).is_none() {
            command.env(name, "1");
        }
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}\n{result}", text(&output.stderr));
    // What a cluster of PM2 needs is said in a comment.
    let is_told = |line: &str| {
        line.contains("a rolling reload starts the new process") || line.contains("all instances get the same")
    };
    let stderr = text(&output.stderr);
    let messages: Vec<_> = stderr.lines().filter(|line| line.starts_with("warning") && !is_told(line)).collect();
    assert_eq!(messages, [""; 0], "{result}");
}

/// The lines, those of each paragraph in order: keys that are not supported yet take their place when they are.
fn in_order(text: &str) -> Vec<String> {
    // The width of a comment depends on the paths in it.
    let text = text.replace("\n#   ", " ");
    let paragraphs = text.split("\n\n").map(|paragraph| {
        let mut lines: Vec<_> = paragraph.lines().map(|line| line.replace("# Not supported yet: ", "")).collect();
        lines.sort();
        lines.join("\n")
    });
    paragraphs.collect()
}

/// The programs that are searched in PATH or in the current directory.
fn programs(result: &str) -> BTreeSet<String> {
    let lines = result.lines().filter(|line| !line.starts_with('#'));
    let commands = lines.flat_map(|line| line.split("command = [").chain(line.split("exec = [")).skip(1));
    let first = commands.filter_map(|rest| rest.split(['"', '\'']).nth(1));
    first.filter(|program| !program.starts_with('/') && !program.contains('$')).map(str::to_owned).collect()
}

/// The names in `${NAME}`.
fn variables(result: &str) -> BTreeSet<String> {
    let lines = result.lines().filter(|line| !line.starts_with('#'));
    lines
        .flat_map(|line| line.split("${").skip(1))
        .map(|part| part.split(['}', ':']).next().unwrap().to_owned())
        .collect()
}

#[test]
fn a_procfile_with_env() {
    check("procfile", "Procfile");
}

#[test]
fn a_supervisord_conf_with_includes() {
    check("supervisord", "supervisord.conf");
}

#[test]
fn an_ecosystem_file_in_javascript() {
    if !has_node() {
        return skip("node is not installed");
    }
    check("pm2-js", "ecosystem.config.js");
}

#[test]
fn an_ecosystem_file_in_json() {
    check("pm2-json", "ecosystem.json");
}

#[test]
fn an_ecosystem_file_in_yaml() {
    check("pm2-yaml", "ecosystem.yml");
}

#[test]
fn a_compose_file() {
    check("compose", "compose.yaml");
}

#[test]
fn a_unit_with_a_drop_in_and_a_socket() {
    check("systemd", "shop.service");
}

#[test]
fn a_unit_with_hooks_and_signals() {
    check("systemd-hooks", "proxy.service");
}

#[test]
fn a_unit_whose_hooks_use_variables_of_systemd() {
    check("systemd-variables", "queue.service");
}

#[test]
fn a_unit_of_a_oneshot() {
    check("systemd-oneshot", "backup.service");
}

#[test]
fn a_unit_with_its_own_times_and_a_small_limit() {
    check("systemd-limits", "cache.service");
}

#[test]
fn a_template_unit() {
    check("systemd-template", "worker@.service");
}

#[test]
fn the_services_of_s6_overlay() {
    check("s6", "etc");
}

#[test]
fn a_tree_of_runit() {
    check("runit", "etc/service");
}

#[test]
fn a_limit_of_memory_of_a_unit_is_imported_if_check_accepts_it() {
    for (line, expect) in [
        ("MemoryLimit=64M", "\nmax_memory = \"64MiB\"\n"),
        ("MemoryMax=2M\nMemoryLimit=64M", "\nmax_memory = \"2MiB\"\n"),
        ("MemoryMax=512K", "\n# MemoryMax=512K: `max_memory` is a size, of 1 MiB or more\n"),
        ("MemoryMax=infinity", "\n[services.a]\n"),
    ] {
        let scratch = Scratch::new();
        scratch.write("a.service", &format!("[Service]\nExecStart=/bin/sleep 1000\nRestart=always\n{line}\n"));
        let output = import(scratch.path(), &["a.service"]);
        let result = text(&output.stdout);
        assert!(result.contains(expect), "{line}\n{result}");
        check_accepts(scratch.path(), &result);
    }
}

//! Errors name file, line and remedy.

use crate::scratch::Scratch;
use crate::{import, text};

/// `name` with this content is refused with exactly this message.
#[track_caller]
fn check_error(name: &str, content: &str, expect: &str) {
    let scratch = Scratch::new();
    scratch.write(name, content);
    let output = import(scratch.path(), &[name]);
    assert_eq!(text(&output.stderr), format!("keepalive import: {expect}\n"));
    assert_eq!(output.status.code(), Some(78));
    assert_eq!(text(&output.stdout), "");
}

#[test]
fn a_source_that_cannot_be_imported_is_named_with_its_line() {
    let message = "Procfile:2: this line is not understood\n  a line of a Procfile is `NAME: COMMAND`";
    check_error("Procfile", "web: x\nnonsense\n", message);
    check_error("Procfile", "# nothing\n", "Procfile: it defines no process\n  name the file that does");
}

#[test]
fn an_error_in_supervisord_conf_has_its_line() {
    for (content, expect) in [
        ("[program:a]\nuser=x\n", "supervisord.conf:1: [program:a] has no `command`\n  add it, or remove the section"),
        (
            "[program:a]\ncommand=x 'y\n",
            "supervisord.conf:2: the command is empty, or a quote is not closed\n  close it",
        ),
        (
            "[program:a]\ncommand=x\n\nnumprocs=two\n",
            "supervisord.conf:4: `numprocs=two` is not a number\n  such as 10",
        ),
        (
            "[program:a]\ncommand=x %(nothing)s\n",
            "supervisord.conf:2: `%(nothing)` is unknown\n  correct it in the source, then import again",
        ),
    ] {
        check_error("supervisord.conf", content, expect);
    }
}

#[test]
fn an_error_in_an_ecosystem_file_has_its_line_where_that_is_known() {
    let json = "ecosystem.json:3: invalid JSON: trailing comma\n  JSON has no comments and no commas at the end; \
                PM2 itself reads such a file as .config.js, too";
    check_error("ecosystem.json", "{ \"apps\": [\n  { \"script\": \"x.js\" },\n] }", json);
    let yaml = "ecosystem.yml:3: `kill_timeout: soon` is not a time\n  such as 3000, in milliseconds";
    check_error("ecosystem.yml", "apps:\n  - script: x.js\n    kill_timeout: soon\n", yaml);
    let missing = "ecosystem.yml:2: an app has no `script`\n  such as script: 'server.js'";
    check_error("ecosystem.yml", "apps:\n  - name: x\n", missing);
}

#[test]
fn an_error_in_a_compose_file_has_its_line() {
    for (content, expect) in [
        ("name: x\n", "compose.yml:1: there is no table `services`\n  name the file that has it"),
        (
            "services:\n  a:\n    command: x\n    restart: sometimes\n",
            "compose.yml:4: `restart: sometimes` is not understood\n  no, always, on-failure or unless-stopped",
        ),
        (
            "services:\n  a:\n    command: x 'y\n",
            "compose.yml:3: a quote of `command` is not closed\n  write a list: [\"a\", \"b\"]",
        ),
    ] {
        check_error("compose.yml", content, expect);
    }
}

#[test]
fn an_error_in_a_unit_has_its_line() {
    for (content, expect) in [
        (
            "[Service]\nUser=x\n",
            "a.service: there is no `ExecStart=` in a section [Service]\n  name a unit that starts a program",
        ),
        ("[Service]\nExecStart=/bin/x 'y\n", "a.service:2: a quote is not closed\n  correct the command line"),
        (
            "[Service]\nExecStart=/bin/x\nTimeoutStopSec=soon\n",
            "a.service:3: `TimeoutStopSec=soon` is not a time\n  such as 30s",
        ),
    ] {
        check_error("a.service", content, expect);
    }
}

#[test]
fn an_error_in_a_service_directory_names_its_file() {
    let scratch = Scratch::new();
    for (name, content, expect) in [
        ("none/file", "", "none: it defines no process\n  name the file that does"),
        ("web/type", "longrun\n", "web/run: cannot be read: no such file or directory"),
        ("web/run", "#!/bin/sh\nexec true\n", ""),
        ("web/timeout-kill", "soon\n", "web/timeout-kill: `soon` is not a number\n  such as 3"),
    ] {
        scratch.write(name, content);
        let output = import(scratch.path(), &[name.split('/').next().unwrap()]);
        let expect = if expect.is_empty() { String::new() } else { format!("keepalive import: {expect}\n") };
        assert_eq!(text(&output.stderr), expect);
        assert_eq!(output.status.code(), Some(if expect.is_empty() { 0 } else { 78 }));
    }
}

/// `content` of an ecosystem.config.js is refused with a message that contains `expect`.
#[track_caller]
fn check_javascript(content: &str, path: Option<&str>, expect: &str) {
    let scratch = Scratch::new();
    scratch.write("ecosystem.config.js", content);
    let mut command = std::process::Command::new(crate::TOOLS);
    command.args(["import", "ecosystem.config.js"]).current_dir(scratch.path());
    path.map(|path| command.env("PATH", path));
    let output = command.output().unwrap();
    let message = text(&output.stderr);
    assert!(message.starts_with("keepalive import: ecosystem.config.js: ") && message.contains(expect), "{message}");
    assert_eq!(output.status.code(), Some(78));
}

#[test]
fn javascript_that_node_cannot_load_is_refused() {
    check_javascript(
        "module.exports = {};",
        Some("/nonexistent"),
        "a JavaScript file is read by node, which is not in PATH\n",
    );
    if !crate::has_node() {
        return crate::skip("node is not installed");
    }
    check_javascript("module.exports = { apps: [", None, "node cannot load it: ");
    check_javascript("throw new Error('the reason');", None, "node cannot load it: the reason\n");
    check_javascript("process.exit(3);", None, "node has ended before it printed the configuration\n");
    check_javascript("for (;;);", None, "it did not end within 10 seconds\n");
}

#[test]
fn a_file_is_never_overwritten() {
    let scratch = Scratch::new();
    scratch.write("Procfile", "web: true\n");
    let first = import(scratch.path(), &["Procfile", "-o", "keepalive.toml"]);
    assert_eq!((first.status.code(), text(&first.stdout)), (Some(0), String::new()));
    scratch.write("Procfile", "other: true\n");
    let second = import(scratch.path(), &["Procfile", "-o", "keepalive.toml"]);
    assert_eq!(second.status.code(), Some(1));
    assert_eq!(
        text(&second.stderr),
        "keepalive import: keepalive.toml: cannot be written: file exists\n  nothing is overwritten: remove it, or name another file\n"
    );
    let written = std::fs::read_to_string(scratch.path().join("keepalive.toml")).unwrap();
    assert!(written.contains("[services.web]"), "{written}");
}

#[test]
fn a_wrong_command_line_has_exit_code_2() {
    let scratch = Scratch::new();
    for arguments in [&["--from", "nothing", "x"][..], &[], &["--nothing", "x"], &["x", "y"]] {
        assert_eq!(import(scratch.path(), arguments).status.code(), Some(2), "{arguments:?}");
    }
}

/// `keepalive import` executes keepalive-tools, which cargo puts beside it.
#[test]
fn keepalive_executes_the_program_beside_it() {
    let scratch = Scratch::new();
    scratch.write("Procfile", "web: true\n");
    let run = |program: &std::path::Path, path: &str| {
        let mut command = std::process::Command::new(program);
        command.args(["import", "Procfile"]).current_dir(scratch.path()).env("PATH", path).output().unwrap()
    };
    let beside = run(crate::KEEPALIVE.as_ref(), "");
    assert_eq!(text(&beside.stderr), "");
    assert!(text(&beside.stdout).contains("[services.web]"));
    let alone = scratch.path().join("keepalive");
    std::fs::copy(crate::KEEPALIVE, &alone).unwrap();
    let in_path = std::path::Path::new(crate::TOOLS).parent().unwrap();
    assert_eq!(run(&alone, in_path.to_str().unwrap()).stdout, beside.stdout);
    let missing = run(&alone, "/nonexistent");
    assert_eq!(missing.status.code(), Some(127));
    let expect = "keepalive: `keepalive import` is done by the program `keepalive-tools`, which cannot be executed: No such file or directory\n  \
                  put it beside keepalive or into a directory of PATH: `make build` leaves it in dist/\n";
    assert_eq!(text(&missing.stderr), expect);
}

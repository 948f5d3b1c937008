//! What `check` says about users and files.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;

use crate::harness::{Directory, KEEPALIVE, Place, Run, have_root};

const USER: u32 = 54_321;

/// The first lines of the messages of `check`, run as this user, without the directory.
fn check_as(user: u32, scratch: &Directory, text: &str) -> Vec<String> {
    let config =
        scratch.file("keepalive.toml", text.replace("DIR", scratch.path().to_str().unwrap()).as_bytes(), 0o644);
    let mut run = Run::words(Place::Child, &["/proc/self/fd/0", "check", "-c", &config]);
    run.command.uid(user).gid(user).stdin(Stdio::from(fs::File::open(KEEPALIVE).unwrap()));
    let (_, stdout, stderr) = run.finish();
    let messages = [stdout, stderr].join("\n").replace(&format!("{}/", scratch.path().display()), "");
    let starts = |line: &&str| line.contains("keepalive.toml:");
    messages.lines().filter(starts).map(str::to_owned).collect()
}

/// `closed` may be entered by root only, `tools/tool` executed by root only.
fn scratch() -> Directory {
    let scratch = Directory::new();
    for (name, mode) in [("closed", 0o700), ("tools", 0o755)] {
        let path = scratch.path().join(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::create_dir(scratch.path().join("closed/work")).unwrap();
    for name in ["closed/tool", "tools/tool"] {
        scratch.file(name, b"#!/bin/sh\n", 0o744);
    }
    scratch
}

#[test]
fn check_names_the_user_and_the_directory_that_it_cannot_enter() {
    if !have_root() {
        return;
    }
    let scratch = scratch();
    let service =
        |name: &str, keys: &str| format!("[services.{name}]\n{keys}\nuser = \"{USER}\"\ngroup = \"{USER}\"\n");
    let text = [
        service("a", "command = \"sleep 1\"\ncwd = \"DIR/closed/work\""),
        service("b", "command = [\"DIR/closed/tool\"]"),
        service("c", "command = \"DIR/tools/tool\""),
        "[services.d]\ncommand = \"DIR/closed/tool\"\n".to_owned(),
    ]
    .concat();
    let expect = [
        "warning: keepalive.toml:3:7: user 54321 cannot enter `closed/work`: permission denied at `closed`",
        "warning: keepalive.toml:7:11: user 54321 cannot execute `closed/tool`: permission denied at `closed`",
        "warning: keepalive.toml:11:11: user 54321 cannot execute `tools/tool`: permission denied at `tools/tool`",
    ];
    assert_eq!(check_as(0, &scratch, &text), expect);
    // The bits of a file apply to its owner, then to its group.
    chown(scratch.path().join("closed"), None, Some(USER)).unwrap();
    fs::set_permissions(scratch.path().join("closed"), fs::Permissions::from_mode(0o710)).unwrap();
    chown(scratch.path().join("tools/tool"), Some(USER), None).unwrap();
    let found = check_as(0, &scratch, &text);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].ends_with("user 54321 cannot execute `closed/tool`: permission denied at `closed/tool`"),
        "{found:?}"
    );
    // keepalive itself runs as a user who may not.
    fs::set_permissions(scratch.path().join("closed"), fs::Permissions::from_mode(0o700)).unwrap();
    let own =
        "[services.a]\ncommand = \"DIR/closed/tool\"\n[services.b]\ncommand = \"/bin/true\"\ncwd = \"DIR/closed\"\n";
    let expect = [
        "keepalive.toml:2:11: user 54321 cannot execute `closed/tool`: permission denied at `closed`",
        "keepalive.toml:5:7: user 54321 cannot enter `closed`: permission denied at `closed`",
    ];
    let shown = |line: &String| line.replace(scratch.path().to_str().unwrap(), "");
    assert_eq!(check_as(USER, &scratch, own).iter().map(shown).collect::<Vec<_>>(), expect);
}

/// The logger, which writes them, has the user of keepalive, whatever that of the service is.
#[test]
fn check_warns_of_log_files_that_several_write_or_keepalive_cannot_write() {
    if !have_root() {
        return;
    }
    let scratch = scratch();
    let service = |name: &str, keys: &str| format!("[services.{name}]\ncommand = \"/bin/true\"\n{keys}\n");
    let text = [
        service("a", "log.file = \"DIR/closed/new/{service}.log\""),
        service("b", "log = { stdout_file = \"/tmp/x.log\", stderr_file = \"/tmp/x.log\" }"),
        service("c", "log = { file = \"/tmp/x.log\" }\ninstances = 2"),
        service("d", "log = { file = \"/tmp/d-{instance}.log\" }\ninstances = 2"),
    ]
    .concat();
    let shared = [
        "warning: keepalive.toml:6:51: two keys of `log` name the same file",
        "warning: keepalive.toml:9:7: all instances write to one log file",
        "warning: keepalive.toml:9:16: the service `b` writes to this file, too",
    ];
    assert_eq!(check_as(0, &scratch, &text), shared);
    let closed =
        "warning: keepalive.toml:3:12: user 54321 cannot write `closed/new/a.log`: permission denied at `closed`";
    assert_eq!(check_as(USER, &scratch, &text), [&[closed], &shared[..]].concat());
}

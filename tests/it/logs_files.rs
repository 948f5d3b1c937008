//! Log files.

use std::os::unix::fs::{chown, symlink};
use std::path::Path;

use keepalive::model::Signal;

use crate::harness::{self, KEEPALIVE, Place, Run, in_every_place, wait_until};
use crate::services::Set;

fn numbers(text: &str) -> Vec<u64> {
    text.lines().map(|line| line.strip_prefix("line ").unwrap().parse().unwrap()).collect()
}

#[test]
fn a_log_file_is_rotated_at_its_limit_and_the_oldest_is_removed() {
    let set = Set::new(
        r#"
        [services.web]
        command = ["PUPPET", "lines", "2000"]
        instances = 2
        restart = "never"
        log = { stdout = "null", file = "DIR/log/{service}-{instance}.log", max_size = "4KiB", max_files = 2 }
        "#,
    );
    in_every_place(|place| {
        let (code, stdout, stderr) = set.run(place).finish();
        assert_eq!((code, stdout.as_str()), (0, ""), "{stderr}");
        for instance in 0..2 {
            let read = |end: &str| set.read(&format!("log/web-{instance}.log{end}"));
            let parts = [".2", ".1", ""].map(read);
            assert!(parts.iter().all(|part| part.len() <= 4_096));
            let kept = numbers(&parts.concat());
            let expect: Vec<u64> = (2_001 - kept.len() as u64..=2_000).collect();
            assert_eq!(kept, expect, "the last lines, in order");
            assert!(kept.len() > 600, "{}", kept.len());
        }
        let names = std::fs::read_dir(set.directory.path().join("log")).unwrap().count();
        assert_eq!(names, 6);
        std::fs::remove_dir_all(set.directory.path().join("log")).unwrap();
    });
}

#[test]
fn a_log_file_contains_both_streams_and_stdout_is_independent() {
    let set = Set::new(
        r#"
        [services.a]
        command = ["PUPPET", "put", "OUT", "one\\n", "OUT", "z*20000", "ERR", "two\\n"]
        restart = "never"
        log = { stderr = "prefix", file = "DIR/a.log" }
        "#,
    );
    let (code, stdout, stderr) = set.run(Place::Child).finish();
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(stdout, format!("one\n{}", "z".repeat(20_000)), "inherited, byte by byte");
    assert!(stderr.contains("a.0       | two\n"), "{stderr}");
    let mut lines: Vec<String> = set.read("a.log").lines().map(str::to_owned).collect();
    lines.sort_unstable();
    // A line of stderr may have split it.
    assert_eq!(lines.first().map(String::as_str), Some("one"));
    assert_eq!(lines.get(1).map(String::as_str), Some("two"));
    assert_eq!(lines[2..].concat(), "z".repeat(20_000));
}

#[test]
fn an_unwritable_log_file_is_reported_once_and_loses_no_line_elsewhere() {
    let set = Set::new(
        r#"
        [services.a]
        command = ["PUPPET", "lines", "1000"]
        restart = "never"
        log = { stdout = "prefix", file = "DIR/end/a.log" }
        "#,
    );
    in_every_place(|place| {
        let (code, stdout, stderr) = set.run(place).finish();
        assert_eq!(code, 0, "{stderr}");
        assert_eq!(stdout.lines().count(), 1_000);
        let messages: Vec<&str> = stderr.lines().filter(|line| line.contains("cannot write to")).collect();
        let path = set.directory.path().display();
        assert_eq!(
            messages,
            [format!("keepalive | warning: cannot write to {path}/end/a.log: Not a directory; lines are dropped")]
        );
    });
}

#[test]
fn a_link_on_the_path_of_a_log_file_is_followed_only_if_no_other_user_could_have_made_it() {
    if !harness::have_root() {
        return;
    }
    let set = Set::new(
        r#"
        [services.own]
        command = ["PUPPET", "lines", "10"]
        restart = "never"
        log = { file = "DIR/link/own.log" }

        [services.other]
        command = ["PUPPET", "lines", "1000"]
        restart = "never"
        log = { stdout = "null", file = "DIR/home/log/other.log", max_size = "1KiB" }
        "#,
    );
    let directory = set.directory.path();
    for name in ["real", "home", "precious"] {
        std::fs::create_dir(directory.join(name)).unwrap();
    }
    symlink("real", directory.join("link")).unwrap();
    symlink("../precious", directory.join("home/log")).unwrap();
    chown(directory.join("home"), Some(65_534), None).unwrap();
    std::fs::write(directory.join("precious/other.log"), "precious\n").unwrap();
    in_every_place(|place| {
        let (code, _, stderr) = set.run(place).finish();
        assert_eq!(code, 0, "{stderr}");
        assert_eq!(set.read("real/own.log").lines().count(), 10, "{stderr}");
        assert_eq!(set.read("precious/other.log"), "precious\n");
        let messages: Vec<&str> = stderr.lines().filter(|line| line.contains("cannot write to")).collect();
        let home = directory.join("home").display().to_string();
        let reason = format!("{home}/log is a symbolic link that other users can change");
        assert_eq!(
            messages,
            [format!("keepalive: warning: cannot write to {home}/log/other.log: {reason}; lines are dropped")]
        );
        std::fs::remove_file(directory.join("real/own.log")).unwrap();
    });
}

#[test]
fn a_full_disk_is_reported_once_and_blocks_no_service() {
    if !harness::have_root() || !harness::have_namespaces() {
        return;
    }
    let set = Set::new(
        r#"
        [services.a]
        command = ["PUPPET", "lines", "20000", "end-on-term", "0"]
        log = { stdout = "prefix", file = "DIR/full/a.log" }
        "#,
    );
    std::fs::create_dir(Path::join(set.directory.path(), "full")).unwrap();
    let mount = format!("mount -t tmpfs -o size=64k none {}/full", set.directory.path().display());
    let script = format!("{mount} && exec {KEEPALIVE} -c {}", set.config);
    let mut running = Run::words(Place::Child, &["unshare", "--mount", "sh", "-c", &script]).start();
    for number in 1..=20_000 {
        running.expect(&format!("a.0       | line {number:08}"));
    }
    assert!(running.line().starts_with("a.0       | ready"));
    let keepalive = running.keepalive();
    let file = format!("/proc/{keepalive}/root{}/full/a.log", set.directory.path().display());
    let size = wait_until("the file to be full", || std::fs::metadata(&file).ok().map(|file| file.len()));
    assert!((60_000..=65_536).contains(&size), "{size}");
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
    let stderr = running.stderr();
    let messages = stderr.lines().filter(|line| line.contains("No space left on device; lines are dropped")).count();
    assert_eq!(messages, 1, "{stderr}");
}

//! Command lines with an immediate result: one file for each init, valid for the original and for keepalive.
//!
//! `$ SCRIPT` is run by the shell, with the init as `$INIT`. The exit code follows, then lines of stdout after `> ` and
//! lines of stderr after `! `. Process ids are `#`. Lines of stderr come from two processes, so their order is ignored.

use crate::harness::Place;
use crate::subject::Subject;

#[test]
fn tini_passes_its_cases() {
    check("tini", include_str!("cases/tini.txt"));
}

#[test]
fn dumb_init_passes_its_cases() {
    check("dumb-init", include_str!("cases/dumb-init.txt"));
}

#[test]
fn catatonit_passes_its_cases() {
    check("catatonit", include_str!("cases/catatonit.txt"));
}

fn check(name: &str, cases: &str) {
    let blocks: Vec<&str> = cases.strip_prefix("$ ").expect("a script").split("\n$ ").collect();
    let subjects = Subject::all(name);
    let mut wrong = Vec::new();
    let mut count = 0;
    for block in blocks {
        let (script, expected) = block.split_once('\n').expect("a script and its result");
        let expected = expected.trim_end().to_owned();
        for subject in &subjects {
            let found = answer(subject, script);
            if found != expected {
                wrong.push(format!("$ {script}\n{found}\ninstead of\n{expected}\nby {}\n", subject.path()));
            }
        }
        count += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 5, "too few cases of {name} have been parsed");
}

/// The answer in the format of the file.
fn answer(subject: &Subject, script: &str) -> String {
    let (code, stdout, stderr) = subject.script(Place::Child, script).finish();
    let mut lines: Vec<String> = anonymous(subject, &stdout).lines().map(|line| format!("> {line}")).collect();
    let mut errors: Vec<String> = anonymous(subject, &stderr).lines().map(|line| format!("! {line}")).collect();
    errors.sort();
    lines.insert(0, code.to_string());
    lines.extend(errors);
    lines.iter().map(|line| line.trim_end()).collect::<Vec<_>>().join("\n")
}

/// `text` without the path of the init and without process ids.
fn anonymous(subject: &Subject, text: &str) -> String {
    // Debian has an older catatonit with the same behaviour in these cases.
    let mut text = text.replace(subject.path(), "$INIT").replace("0.1.7_catatonit", "0.2.1_catatonit");
    for before_id in ["PID ", "pid=", "pid '", "pid: '", "pid1 (", "child process ", "(catatonit:", " tini (", "group "]
    {
        let mut parts = text.split(before_id);
        let mut rest = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let after = part.trim_start_matches(|letter: char| letter.is_ascii_digit());
            rest.push_str(before_id);
            rest.push_str(if after.len() < part.len() { "#" } else { "" });
            rest.push_str(after);
        }
        text = rest;
    }
    text
}

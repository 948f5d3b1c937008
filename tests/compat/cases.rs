//! What is asked on a command line and answered at once: a file for each init, true of the original and of us.
//!
//! `$ SCRIPT` is for the shell, with the init as `$INIT`; after it come the exit code, `> ` and a line of stdout, `! ` and
//! a line of stderr. Process ids are `#`. Lines of stderr come from two processes, so that their order is no matter.

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
        let (script, expected) = block.split_once('\n').expect("a script and what comes of it");
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
    assert!(count > 5, "the cases of {name} have not been read");
}

/// As the file would have it.
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
    // Debian's catatonit is older; what is tested here is the same.
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

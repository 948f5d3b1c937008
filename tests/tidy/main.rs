//! The rules of ARCHITECTURE.md that a compiler does not check: who may use whom, where `unsafe` may stand, how long
//! a file may be.

#![expect(clippy::unwrap_used, reason = "a test binary: what cannot be read fails it")]

use std::fs;
use std::path::{Path, PathBuf};

/// A file longer than this wants to be two.
const LINES_AT_MOST: usize = 500;

/// Which rooms each room may use. A room that is not listed here is a mistake.
const MAY_USE: [(&str, &[&str]); 9] = [
    ("model", &[]),
    ("config", &["model"]),
    ("supervisor", &["model"]),
    ("sys", &["model"]),
    ("logs", &["model", "sys"]),
    ("init", &["model", "sys"]),
    ("cli", &["model", "config", "control", "init"]),
    ("control", &["model", "sys"]),
    ("runtime", &["model", "supervisor", "config", "control", "logs", "sys"]),
];

#[test]
fn rooms_use_only_the_rooms_that_they_may() {
    let mut offences = Vec::new();
    for (room, allowed) in MAY_USE {
        for file in rust_files(&Path::new("src").join(room)) {
            for used in rooms_used_by(&read(&file)).filter(|used| used != room && !allowed.contains(&used.as_str())) {
                offences.push(format!("{} uses `{used}`; `{room}` may use {allowed:?}", file.display()));
            }
        }
    }
    assert!(offences.is_empty(), "{}", offences.join("\n"));
}

#[test]
fn every_room_has_its_rule() {
    for entry in fs::read_dir("src").unwrap().map(Result::unwrap).filter(|entry| entry.path().is_dir()) {
        let name = entry.file_name().into_string().unwrap();
        assert!(MAY_USE.iter().any(|(room, _)| *room == name), "src/{name} is missing in MAY_USE");
    }
}

#[test]
fn unsafe_stands_under_sys_alone() {
    for file in rust_files(Path::new("src")).into_iter().filter(|file| !file.starts_with("src/sys")) {
        for (number, line) in code_lines(&read(&file)) {
            assert!(!line.contains("unsafe "), "{}:{number}: unsafe outside of src/sys", file.display());
        }
    }
}

#[test]
fn client_commands_alone_have_signal_handlers() {
    for file in rust_files(Path::new("src")).into_iter().filter(|file| !file.starts_with("src/control")) {
        for (number, line) in code_lines(&read(&file)) {
            assert!(!line.contains("signal_hook"), "{}:{number}: a handler outside of src/control", file.display());
        }
    }
}

#[test]
fn files_can_be_read_in_one_sitting() {
    for folder in ["src", "tests"] {
        for file in rust_files(Path::new(folder)) {
            let lines = read(&file).lines().count();
            assert!(lines <= LINES_AT_MOST, "{} has {lines} lines, {LINES_AT_MOST} at most", file.display());
        }
    }
}

/// The `x` of every `crate::x`, in code.
fn rooms_used_by(text: &str) -> impl Iterator<Item = String> {
    let lines: Vec<String> = code_lines(text).map(|(_, line)| line.to_owned()).collect();
    lines.into_iter().flat_map(|line| {
        assert!(!line.contains("crate::{"), "`{line}`: name each room on a line of its own, so that this test sees it");
        line.split("crate::").skip(1).map(first_word).collect::<Vec<String>>()
    })
}

fn first_word(text: &str) -> String {
    text.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect()
}

/// Lines that are not comments, counted from 1.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line)).filter(|(_, line)| !line.trim().starts_with("//"))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap()
}

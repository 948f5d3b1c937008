//! The rules of ARCHITECTURE.md and CONTRIBUTING.md that a compiler does not check: dependencies between rooms, places
//! of `unsafe`, the length of files, banned words.

#![expect(clippy::unwrap_used, reason = "a test fails if a file cannot be read")]

mod imports;
mod source;
mod words;

use std::fs;
use std::path::Path;

use imports::Imports;
use source::{code_lines, code_of, read, rust_files};

/// A file longer than this is split.
const MAX_LINES: usize = 500;

/// The file with `Runtime`.
const EVENT_LOOP: &str = "src/runtime/event_loop.rs";
/// With more fields, `Runtime` does work that belongs to a subsystem.
const MAX_RUNTIME_FIELDS: usize = 14;

/// The rooms that each room may use. Every room must be listed.
const MAY_USE: [(&str, &[&str]); 10] = [
    ("model", &[]),
    ("config", &["model"]),
    ("supervisor", &["model"]),
    ("sys", &["model"]),
    ("logs", &["model", "sys"]),
    ("init", &["model", "sys"]),
    ("cli", &["model", "config", "control", "init"]),
    ("control", &["model", "sys"]),
    ("import", &["model", "config", "cli"]),
    ("runtime", &["model", "supervisor", "config", "control", "logs", "sys"]),
];

#[test]
fn rooms_use_only_allowed_rooms() {
    let mut offences = Vec::new();
    for (room, allowed) in MAY_USE {
        for file in rust_files(Path::new("src").join(room)) {
            for used in rooms_used_by(&read(&file)).filter(|used| used != room && !allowed.contains(&used.as_str())) {
                offences.push(format!("{} uses `{used}`; `{room}` may use {allowed:?}", file.display()));
            }
        }
    }
    assert!(offences.is_empty(), "{}", offences.join("\n"));
}

#[test]
fn every_room_has_a_rule() {
    for entry in fs::read_dir("src").unwrap().map(Result::unwrap).filter(|entry| entry.path().is_dir()) {
        let name = entry.file_name().into_string().unwrap();
        assert!(MAY_USE.iter().any(|(room, _)| *room == name), "src/{name} is missing in MAY_USE");
    }
}

#[test]
fn unsafe_code_is_in_sys_only() {
    for file in rust_files("src").into_iter().filter(|file| !file.starts_with("src/sys")) {
        for (number, line) in code_lines(&read(&file)) {
            assert!(!line.contains("unsafe "), "{}:{number}: unsafe outside of src/sys", file.display());
        }
    }
}

#[test]
fn only_client_commands_have_signal_handlers() {
    for file in rust_files("src").into_iter().filter(|file| !file.starts_with("src/control")) {
        for (number, line) in code_lines(&read(&file)) {
            assert!(!line.contains("signal_hook"), "{}:{number}: a handler outside of src/control", file.display());
        }
    }
}

#[test]
fn files_are_short() {
    for folder in ["src", "tests"] {
        for file in rust_files(folder) {
            let lines = read(&file).lines().count();
            assert!(lines <= MAX_LINES, "{} has {lines} lines, the limit is {MAX_LINES}", file.display());
        }
    }
}

#[test]
fn imports_between_files_have_no_cycle() {
    let cycle = Imports::of_src().cycle();
    assert!(
        cycle.is_empty(),
        "these files import from each other: {}\nmove what they share to a file that imports from none of them",
        cycle.join(" -> ")
    );
}

#[test]
fn subsystems_of_the_runtime_do_not_import_from_its_event_loop() {
    let importers = Imports::of_src().importers_of(EVENT_LOOP);
    let subsystems: Vec<_> = importers.iter().filter(|path| *path != "src/runtime/mod.rs").collect();
    assert!(
        subsystems.is_empty(),
        "{subsystems:?} import from {EVENT_LOOP}; a subsystem gets what it needs as arguments"
    );
}

#[test]
fn the_runtime_is_implemented_in_one_file() {
    for file in rust_files("src/runtime").into_iter().filter(|file| file != Path::new(EVENT_LOOP)) {
        for (number, line) in code_lines(&read(&file)) {
            let is_implementation = line.starts_with("impl") && words::identifiers(line).any(|word| word == "Runtime");
            assert!(!is_implementation, "{}:{number}: `impl Runtime` outside of {EVENT_LOOP}", file.display());
        }
    }
}

#[test]
fn the_runtime_has_few_fields() {
    let code = code_of(Path::new(EVENT_LOOP));
    let (_, fields) = code.split_once("struct Runtime {\n").expect("struct Runtime");
    let count = fields.lines().take_while(|line| *line != "}").filter(|line| line.contains(": ")).count();
    assert!(
        (1..=MAX_RUNTIME_FIELDS).contains(&count),
        "`Runtime` has {count} fields, the limit is {MAX_RUNTIME_FIELDS}"
    );
}

/// The `x` of every `crate::x`, in code.
fn rooms_used_by(text: &str) -> impl Iterator<Item = String> {
    let lines: Vec<String> = code_lines(text).map(|(_, line)| line.to_owned()).collect();
    lines.into_iter().flat_map(|line| {
        assert!(
            !line.contains("crate::{"),
            "`{line}`: name each room on a line of its own, so that this test finds it"
        );
        line.split("crate::").skip(1).map(first_word).collect::<Vec<String>>()
    })
}

fn first_word(text: &str) -> String {
    text.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect()
}

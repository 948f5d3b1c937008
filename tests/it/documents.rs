//! The configurations that the documents show.

use crate::harness::{KEEPALIVE, Place, Run};
use crate::services::Set;

const DOCUMENTS: [(&str, &str); 2] = [
    ("README.md", include_str!("../../README.md")),
    ("docs/coming-from.md", include_str!("../../docs/coming-from.md")),
];

/// The blocks of TOML, with the number of their first line.
fn configurations(document: &str) -> impl Iterator<Item = (usize, &str)> {
    document.match_indices("```toml\n").map(|(position, start)| {
        let text = &document[position + start.len()..];
        (document[..position].lines().count() + 2, text.split_once("```").expect("the end of a block").0)
    })
}

/// The programs need not be there; nothing else is an error, or deserves a warning.
#[track_caller]
fn check_free_of_findings(name: &str, config: &str) {
    let (code, stdout, stderr) = Run::words(Place::Child, &[KEEPALIVE, "check", "-c", config]).finish();
    let place = format!("{config}:");
    let found: Vec<&str> = stderr
        .lines()
        .filter(|line| line.contains(&place) || line.contains("warning"))
        .filter(|line| !(line.contains(": program `") && line.contains("` not found")))
        .collect();
    assert!(found.is_empty() && (code == 0 || code == 78), "{name}: {code} {stdout} {stderr}");
}

#[test]
fn the_configurations_of_the_documents_are_valid() {
    for (name, document) in DOCUMENTS {
        assert!(configurations(document).count() > 2, "{name}");
        for (line, text) in configurations(document) {
            check_free_of_findings(&format!("{name}:{line}"), &Set::new(text).config);
        }
    }
}

#[test]
fn the_configurations_of_the_examples_are_valid() {
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
    let files =
        |path: &str| std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path().to_str().unwrap().to_owned());
    let all = files(examples).flat_map(|example| files(&example).collect::<Vec<_>>());
    let configs: Vec<String> = all.filter(|file| file.ends_with(".toml")).collect();
    assert!(configs.len() > 9, "{configs:?}");
    configs.iter().for_each(|config| check_free_of_findings(config, config));
}

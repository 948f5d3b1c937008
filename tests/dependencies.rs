//! The dependencies of keepalive: their licence, their source and their reason.

#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test may wait for cargo, and fail"
)]

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

/// Licences that an MIT-licensed binary may include. A person must review a new one.
const LICENCES: [&str; 7] = [
    "MIT",
    "MIT OR Apache-2.0",
    "Apache-2.0 OR MIT",
    // As cargo wrote it before SPDX expressions.
    "Apache-2.0/MIT",
    "MIT/Apache-2.0",
    "Unlicense OR MIT",
    // unicode-ident, which runs at build time only.
    "(MIT OR Apache-2.0) AND Unicode-3.0",
];
const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// The `cargo metadata` of keepalive and of all other crates that the shipped target can need.
fn crates() -> (Value, Vec<Value>) {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--filter-platform=x86_64-unknown-linux-musl"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let mut metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut packages: Vec<Value> = metadata["packages"].as_array_mut().unwrap().drain(..).collect();
    let own = packages.iter().position(|package| package["name"] == "keepalive").unwrap();
    (packages.remove(own), packages)
}

fn dependencies() -> Vec<Value> {
    crates().1
}

fn text<'a>(package: &'a Value, key: &str) -> &'a str {
    package[key].as_str().unwrap_or("none")
}

#[test]
fn every_dependency_has_a_licence_that_may_be_shipped() {
    let dependencies = dependencies();
    assert!(!dependencies.is_empty());
    for package in &dependencies {
        let licence = text(package, "license");
        assert!(LICENCES.contains(&licence), "{} has the licence {licence}", text(package, "name"));
    }
}

#[test]
fn every_dependency_comes_from_the_public_registry() {
    for package in &dependencies() {
        assert_eq!(text(package, "source"), CRATES_IO, "{}", text(package, "name"));
    }
}

#[test]
fn no_dependency_has_two_versions() {
    let mut versions = BTreeMap::<String, Vec<String>>::new();
    for package in &dependencies() {
        versions.entry(text(package, "name").to_owned()).or_default().push(text(package, "version").to_owned());
    }
    for (name, versions) in versions {
        assert_eq!(versions.len(), 1, "{name} has the versions {}", versions.join(" and "));
    }
}

/// CONTRIBUTING.md: each dependency has a line with its reason, and no line is about a removed one.
#[test]
fn every_dependency_has_a_documented_reason() {
    let contributing = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/CONTRIBUTING.md")).unwrap();
    let own = crates().0;
    let all = own["dependencies"].as_array().unwrap().iter().map(|dependency| text(dependency, "name"));
    // keepalive depends on itself for its tests, with the puppet.
    let mut declared: Vec<&str> = all.filter(|name| *name != "keepalive").collect();
    let mut reasoned: Vec<&str> = contributing
        .lines()
        .skip_while(|line| *line != "| crate | why |")
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
        .map(|(name, _)| name)
        .collect();
    declared.sort_unstable();
    reasoned.sort_unstable();
    assert_eq!(reasoned, declared);
}

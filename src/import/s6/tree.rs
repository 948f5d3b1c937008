//! A tree of service directories.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::directory::{Directory, in_container};
use super::script::command_of;
use crate::import::config_file::{ConfigFile, Service};
use crate::import::import_error::ImportError;
use crate::import::source::read;
use crate::import::text::Text;

const DEFAULTS: [&str; 2] = [
    "What differs: restarts are at once, then with `backoff` (1 s there), and after 16 runs shorter than 10 s the container \
     ends (`max_restarts`, `on_failure`), which goes on there; the environment is that of the container, as with with-contenv; \
     5 s to stop (`stop_timeout`, no limit there).",
    "`reload = \"restart\"`: the old process ends before the new one starts.",
];
/// Bundles of s6-overlay that are started.
const STARTED: [&str; 2] = ["user", "user2"];

/// The services of the directory `path`: one service, a folder of services, or `/etc` or `/etc/s6-overlay` with all of them.
pub(in crate::import) fn import(path: &Path) -> Result<ConfigFile, ImportError> {
    let mut config = ConfigFile { notes: DEFAULTS.map(str::to_owned).to_vec(), ..ConfigFile::default() };
    let scripts = ["cont-init.d", "s6-overlay/cont-init.d"].iter().flat_map(|name| entries(&path.join(name)));
    let mut last: Option<String> = None;
    for script in scripts.filter(|path| path.is_file()) {
        let service = init_script(&script, last.as_deref())?;
        config.add(service);
        last = config.services.last().map(|service| service.name.clone());
    }
    let directories = directories(path);
    add_services(&mut config, &directories, last.as_deref())?;
    for name in ["cont-finish.d", "fix-attrs.d", "s6-overlay/cont-finish.d"] {
        if path.join(name).exists() {
            config.note(format!("{name}: not run; a oneshot before the services, or `post_stop`, can do it"));
        }
    }
    config.set_shutdown_timeout();
    Ok(config)
}

/// The entries of a directory, in order.
fn entries(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    let is_hidden = |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    let mut entries: Vec<_> = entries.filter(|path| !is_hidden(path)).collect();
    entries.sort();
    entries
}

fn directories(path: &Path) -> Vec<Directory> {
    const FOLDERS: [&str; 5] = ["s6-rc.d", "s6-overlay/s6-rc.d", "services.d", "s6-overlay/services.d", "service"];
    let is_service = |path: &PathBuf| path.join("run").exists() || path.join("type").exists();
    if is_service(&path.to_owned()) {
        return vec![Directory::of(path)];
    }
    let folders = FOLDERS.iter().map(|name| path.join(name)).filter(|folder| folder.is_dir());
    let mut folders: Vec<_> = folders.collect();
    if folders.is_empty() {
        folders.push(path.to_owned());
    }
    let all = folders.iter().flat_map(|folder| entries(folder));
    all.filter(is_service).map(|path| Directory::of(&path)).collect()
}

/// A script of cont-init.d runs once, after the one before it.
fn init_script(path: &Path, before: Option<&str>) -> Result<Service, ImportError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut service = Service::new(&format!("init-{name}"));
    service.command(command_of(&read(path)?, &in_container(path)).words);
    service.set("type", "oneshot");
    if let Some(before) = before {
        service.set("depends_on", vec![Text::literal(before)]);
    }
    Ok(service)
}

fn add_services(config: &mut ConfigFile, directories: &[Directory], after: Option<&str>) -> Result<(), ImportError> {
    let started = started(directories);
    for directory in directories.iter().filter(|directory| directory.kind() != "bundle") {
        if directory.has("consumer-for") {
            let producers = directory.names("consumer-for").join(", ");
            config.note(format!(
                "{}: the logger of {producers}, whose output goes to the container; `log = {{ file = \"…\" }}` writes a file, too",
                directory.name
            ));
            continue;
        }
        let mut service = directory.service()?;
        let mut names = BTreeSet::new();
        for name in directory.names("dependencies") {
            members(&name, directories, &mut names);
        }
        let names: Vec<Text> = after.into_iter().chain(names.iter().map(String::as_str)).map(Text::literal).collect();
        if !names.is_empty() {
            service.set("depends_on", names);
        }
        if started.as_ref().is_some_and(|started| !started.contains(&directory.name)) {
            service.set("autostart", false);
            service.note("no bundle that s6-overlay starts (user, user2) contains it");
        }
        config.add(service);
    }
    Ok(())
}

/// The services that `name` stands for: itself, or those of a bundle. Those of s6-overlay itself, such as `base`, are none.
fn members(name: &str, directories: &[Directory], found: &mut BTreeSet<String>) {
    let Some(directory) = directories.iter().find(|directory| directory.name == name) else { return };
    if directory.kind() != "bundle" {
        if !directory.has("consumer-for") {
            found.insert(name.to_owned());
        }
        return;
    }
    let others: Vec<_> =
        directories.iter().filter(|other| other.name != name).map(|other| Directory::of(&other.path)).collect();
    directory.names("contents").iter().for_each(|member| members(member, &others, found));
}

/// The services of the started bundles, and those that they need; `None`: there are no such bundles.
fn started(directories: &[Directory]) -> Option<BTreeSet<String>> {
    let is_bundle =
        |name: &&str| directories.iter().any(|directory| directory.name == **name && directory.kind() == "bundle");
    let bundles: Vec<&str> = STARTED.into_iter().filter(is_bundle).collect();
    if bundles.is_empty() {
        return None;
    }
    let mut found = BTreeSet::new();
    bundles.iter().for_each(|name| members(name, directories, &mut found));
    loop {
        let count = found.len();
        for directory in directories.iter().filter(|directory| found.contains(&directory.name)).collect::<Vec<_>>() {
            directory.names("dependencies").iter().for_each(|name| members(name, directories, &mut found));
        }
        if found.len() == count {
            return Some(found);
        }
    }
}

//! Compose files: the services of what belongs into one container. https://github.com/compose-spec/compose-spec

mod health;
mod interpolation;
mod service;

use std::path::Path;

use super::config_file::ConfigFile;
use super::import_error::ImportError;
use super::node::{self, Data, error_at};

const DEFAULTS: [&str; 3] = [
    "For several programs in one container: what is a container each can stay as it is. Their images must be put into one.",
    "`restart` is written as there, where the default is `no`. A service that has failed ends all (`on_failure = \"ignore\"`), \
     and has 5 s to stop (`stop_timeout`) and not the 10 s of a container.",
    "`reload = \"restart\"`: the old process ends before the new one starts, as there.",
];

/// The services of the file `path`.
pub(super) fn import(path: &Path, text: &str) -> Result<ConfigFile, ImportError> {
    let tree = node::from_yaml(path, text)?;
    let Some(services) = tree.get("services").filter(|services| matches!(services.data, Data::Map(_))) else {
        return Err(error_at(path, &tree, "there is no table `services`", "name the file that has it"));
    };
    let mut config = ConfigFile { notes: DEFAULTS.map(str::to_owned).to_vec(), ..ConfigFile::default() };
    for (key, node) in tree.entries() {
        match key.as_str() {
            "services" | "version" | "name" => {}
            _ if key.starts_with("x-") => {}
            "include" => config.note(format!("include: {}: import these files, too", node.shown())),
            _ => config.note(format!("{key}: belongs to the containers, not to keepalive")),
        }
    }
    for (name, node) in services.entries() {
        config.add(service::service(&service::Source { path, name, node, services })?);
    }
    config.set_shutdown_timeout();
    Ok(config)
}

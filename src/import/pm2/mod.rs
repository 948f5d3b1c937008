//! Ecosystem files of PM2: JavaScript, JSON, YAML.

mod app;
mod javascript;
mod log;
mod start;

use std::path::Path;

use super::config_file::{ConfigFile, Value};
use super::import_error::ImportError;
use super::node::{self, Data, Node, error_at};

const DEFAULTS: [&str; 2] = [
    "What differs from PM2 by default: a run shorter than 10 s is unstable (`min_uptime`, 1 s there), unstable runs are \
     delayed (`backoff`), and after 16 of them the container ends (`on_failure = \"ignore\"` keeps it); a process that is not \
     ready in time has failed (`ready_timeout`, 3 s and no failure there); 5 s to stop (`stop_timeout`, 1.6 s there).",
    "Output goes to the container, not to files in ~/.pm2/logs. Paths are relative to the directory of keepalive.toml.",
];

/// The apps of the file `path`.
pub(super) fn import(path: &Path, text: &str) -> Result<ConfigFile, ImportError> {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let tree = match extension.as_str() {
        "yml" | "yaml" => node::from_yaml(path, text)?,
        "json" => node::from_json(path, text)?,
        _ if text.trim_start().starts_with(['{', '[']) => node::from_json(path, text)?,
        _ if text.lines().any(|line| line.starts_with("apps:")) => node::from_yaml(path, text)?,
        _ => javascript::evaluate(path)?,
    };
    let mut config = ConfigFile { notes: DEFAULTS.map(str::to_owned).to_vec(), ..ConfigFile::default() };
    let apps = tree.get("apps").or_else(|| tree.get("pm2")).unwrap_or(&tree);
    let mut is_json = false;
    let mut has_times = false;
    for app in apps.items() {
        if !matches!(app.data, Data::Map(_)) {
            let message = "an app is a table with `script`";
            return Err(error_at(path, app, message, "such as { name: 'web', script: 'server.js' }"));
        }
        is_json |= app.get("log_type").and_then(Node::text).is_some_and(|kind| kind == "json");
        has_times |= ["time", "log_date_format"]
            .iter()
            .any(|key| app.get(key).is_some_and(|node| node.boolean() != Some(false)));
        config.add(app::service(path, app)?);
    }
    if tree.get("deploy").is_some() {
        config.note("deploy: not available; an image is built and run instead");
    }
    let style =
        [("format", is_json.then(|| Value::from("json"))), ("timestamps", has_times.then(|| Value::from(true)))];
    let style: Vec<_> = style.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect();
    if !style.is_empty() {
        config.settings.push(("log".to_owned(), Value::Table(style)));
    }
    config.set_shutdown_timeout();
    Ok(config)
}

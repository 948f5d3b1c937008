//! Where the output of an app goes.

use crate::import::config_file::Service;
use crate::import::node::Node;
use crate::import::text::{Piece, Text};

use super::start::text_of;

/// Sets `log`.
pub(super) fn set_log(service: &mut Service, app: &Node) {
    let has_instances = service.has("instances");
    let path = |keys: &[&str]| keys.iter().find_map(|key| app.get(key)).filter(|node| node.boolean() != Some(true));
    let stdout = path(&["out_file", "output", "out", "out_log"]).and_then(text_of);
    let stderr = path(&["error_file", "error", "err", "err_file", "err_log"]).and_then(text_of);
    let both = path(&["log_file", "log"]).and_then(text_of);
    let is_merged = ["merge_logs", "combine_logs"].iter().any(|key| app.get(key).and_then(Node::boolean) == Some(true));
    let name_of: fn(&Text) -> Text = if has_instances && !is_merged { numbered } else { Text::clone };
    if app.get("disable_logs").and_then(Node::boolean) == Some(true) {
        service.add("log", "stdout", "null");
        service.add("log", "stderr", "null");
        return;
    }
    if stdout.is_some() && stdout == stderr && both.is_none() {
        set_file(service, "file", stdout, name_of);
        return;
    }
    for (key, value) in [("stdout_file", stdout), ("stderr_file", stderr), ("file", both)] {
        set_file(service, key, value, name_of);
    }
    if has_instances && is_merged && service.has("log") {
        service.note("merge_logs: the instances write to one file through keepalive, which warns of it");
    }
}

fn set_file(service: &mut Service, key: &str, path: Option<Text>, name_of: fn(&Text) -> Text) {
    let Some(path) = path else { return };
    let fixed = path.fixed().unwrap_or_default();
    let stream = key.strip_suffix("_file");
    match (fixed.as_str(), stream) {
        ("/dev/null" | "NULL", Some(stream)) => service.add("log", stream, "null"),
        ("/dev/null" | "NULL", None) => {
            service.add("log", "stdout", "null");
            service.add("log", "stderr", "null");
        }
        // The default.
        (path, _) if path.starts_with("/dev/std") || path.starts_with("/dev/fd/") || path.starts_with("/proc/") => {}
        _ => service.add("log", key, name_of(&path)),
    }
}

/// `out.log` is `out-0.log` for the first instance, as in PM2.
fn numbered(path: &Text) -> Text {
    let mut pieces = path.0.clone();
    let ending = match pieces.last_mut() {
        Some(Piece::Literal(text)) => {
            let dot =
                text.rfind('.').filter(|dot| text.rfind('/').is_none_or(|slash| slash < *dot)).unwrap_or(text.len());
            let ending = text.split_off(dot);
            text.push('-');
            ending
        }
        _ => {
            pieces.push(Piece::Literal("-".to_owned()));
            String::new()
        }
    };
    pieces.extend([Piece::Placeholder("{instance}"), Piece::Literal(ending)]);
    Text(pieces)
}

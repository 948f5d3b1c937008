//! Units of systemd: `NAME.service` with its drop-ins, and the `NAME.socket` beside it.

mod command;
mod hooks;
mod service;
mod socket;
mod specifiers;

use std::path::{Path, PathBuf};

use super::config_file::ConfigFile;
use super::import_error::ImportError;
use super::ini::{self, Section};
use super::source::read;

const DEFAULTS: [&str; 3] = [
    "What differs from systemd by default: the container ends when the service has failed for good (`on_failure = \"ignore\"` \
     keeps it); 5 s to stop (`stop_timeout`, 90 s there) and 30 s to get ready (`ready_timeout`, 90 s there); SIGPIPE has its \
     default action; the environment is that of the container (`env_clear`).",
    "`reload = \"restart\"`: the old process ends before the new one starts.",
    "Units that this one needs are named in comments: import them, too, and write them in `depends_on`.",
];

/// The service of the unit `path`.
pub(super) fn import(path: &Path, text: &str) -> Result<ConfigFile, ImportError> {
    let is_socket = path.extension().is_some_and(|extension| extension == "socket");
    let service_path = if is_socket { path.with_extension("service") } else { path.to_owned() };
    let mut sections =
        if is_socket { sections_of(&service_path, &read(&service_path)?)? } else { sections_of(path, text)? };
    for drop_in in drop_ins(&service_path) {
        let text = read(&drop_in)?;
        sections.extend(ini::systemd(&drop_in, &text)?);
    }
    let socket_path = service_path.with_extension("socket");
    let socket = if socket_path.exists() { sections_of(&socket_path, &read(&socket_path)?)? } else { Vec::new() };
    let mut config = ConfigFile { notes: DEFAULTS.map(str::to_owned).to_vec(), ..ConfigFile::default() };
    config.add(service::service(&service_path, &sections, &socket)?);
    config.set_shutdown_timeout();
    Ok(config)
}

fn sections_of(path: &Path, text: &str) -> Result<Vec<Section>, ImportError> {
    ini::systemd(path, text)
}

/// `NAME.service.d/*.conf`, in order.
fn drop_ins(path: &Path) -> Vec<PathBuf> {
    let mut directory = path.as_os_str().to_owned();
    directory.push(".d");
    let entries = std::fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    let mut files: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "conf")).collect();
    files.sort();
    files
}

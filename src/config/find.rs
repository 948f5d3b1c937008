//! Finding the configuration file.

use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::files::FsQuery;

/// The paths that are tried if no file is given. The first is relative to the current directory, the others to the root.
const DEFAULT_PATHS: [&str; 3] = ["keepalive.toml", "etc/keepalive/keepalive.toml", "etc/keepalive.toml"];

/// No configuration file was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotFound;

impl fmt::Display for NotFound {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(
            "no configuration found; looked for\n\
             \x20 ./keepalive.toml\n\
             \x20 /etc/keepalive/keepalive.toml\n\
             \x20 /etc/keepalive.toml\n\
             select another file with -c FILE or $KEEPALIVE_CONFIG, or run one command without a file: keepalive -- CMD [ARG…]\n",
        )
    }
}

/// The path of the configuration file: the first of `explicit`, `$KEEPALIVE_CONFIG`, ./keepalive.toml,
/// /etc/keepalive/keepalive.toml, /etc/keepalive.toml. The first two need not exist: reading the file reports that.
///
/// # Errors
/// If no file is given and none of the default files exists.
pub fn find(explicit: Option<&Path>, environment: &Environment<'_>) -> Result<PathBuf, NotFound> {
    if let Some(path) = explicit {
        return Ok(path.to_owned());
    }
    if let Some(path) = environment.variable(b"KEEPALIVE_CONFIG").filter(|path| !path.is_empty()) {
        return Ok(Path::new(std::ffi::OsStr::from_bytes(path)).to_owned());
    }
    let [local, system @ ..] = DEFAULT_PATHS;
    let candidates = std::iter::once(PathBuf::from(local)).chain(system.iter().map(|path| environment.root.join(path)));
    let exists = |path: &PathBuf| {
        let path = environment.directory.join(path);
        (environment.files)(&FsQuery::Exists(&path)).is_ok_and(|answer| !answer.is_empty())
    };
    candidates.into_iter().find(exists).ok_or(NotFound)
}

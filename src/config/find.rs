//! Which file is the configuration.

use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::{Environment, FsQuery};

/// Where it is looked for if nobody says.
const PLACES: [&str; 3] = ["keepalive.toml", "etc/keepalive/keepalive.toml", "etc/keepalive.toml"];

/// There is no configuration.
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

/// The configuration is the first of: `explicit`, `$KEEPALIVE_CONFIG`, ./keepalive.toml,
/// /etc/keepalive/keepalive.toml, /etc/keepalive.toml. A file that somebody named need not exist: reading it will tell.
///
/// # Errors
/// When nobody named a file and none of the places has one.
pub fn find(explicit: Option<&Path>, environment: &Environment<'_>) -> Result<PathBuf, NotFound> {
    if let Some(path) = explicit {
        return Ok(path.to_owned());
    }
    if let Some(path) = environment.variable(b"KEEPALIVE_CONFIG").filter(|path| !path.is_empty()) {
        return Ok(Path::new(std::ffi::OsStr::from_bytes(path)).to_owned());
    }
    let [here, places @ ..] = PLACES;
    let candidates =
        std::iter::once(PathBuf::from(here)).chain(places.iter().map(|place| environment.root.join(place)));
    let is_there = |path: &PathBuf| {
        let path = environment.directory.join(path);
        (environment.files)(&FsQuery::Presence(&path)).is_ok_and(|presence| !presence.is_empty())
    };
    candidates.into_iter().find(is_there).ok_or(NotFound)
}

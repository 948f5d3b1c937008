//! The formats that can be imported, and which one a file has.

use std::path::Path;

/// A format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Procfile,
    Supervisord,
    Pm2,
    Compose,
}

/// The words of `--from`.
pub(super) const KINDS: [(&str, Kind); 4] =
    [("compose", Kind::Compose), ("pm2", Kind::Pm2), ("procfile", Kind::Procfile), ("supervisord", Kind::Supervisord)];

impl Kind {
    pub(super) fn named(name: &str) -> Option<Self> {
        KINDS.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
    }

    /// The format of the file `path`, by its name, then by its content; `None`: it is none of them.
    pub(super) fn of(path: &Path, text: &str) -> Option<Self> {
        Self::by_name(path).or_else(|| Self::by_content(text))
    }

    fn by_name(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
        match () {
            () if name == "procfile" || name.starts_with("procfile.") => Some(Self::Procfile),
            () if name.starts_with("supervisord") && name.ends_with(".conf") => Some(Self::Supervisord),
            () if [".config.js", ".config.cjs", ".config.mjs"].iter().any(|ending| name.ends_with(ending)) => {
                Some(Self::Pm2)
            }
            () if name.contains("compose") && (name.ends_with(".yml") || name.ends_with(".yaml")) => {
                Some(Self::Compose)
            }
            () => None,
        }
    }

    fn by_content(text: &str) -> Option<Self> {
        match crate::config::other_format(text)? {
            "a Procfile" => Some(Self::Procfile),
            "a configuration of supervisord" => Some(Self::Supervisord),
            "an ecosystem file of PM2" => Some(Self::Pm2),
            "JSON" if text.contains("\"script\"") => Some(Self::Pm2),
            "YAML" if text.lines().any(|line| line.trim_start_matches("- ").starts_with("apps:")) => Some(Self::Pm2),
            "a file of Docker Compose" => Some(Self::Compose),
            _ => None,
        }
    }
}

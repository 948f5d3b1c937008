//! The formats that can be imported, and which one a file has.

use std::path::Path;

/// A format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Procfile,
    Supervisord,
    Pm2,
    Compose,
    Systemd,
    /// Of s6-overlay or runit.
    ServiceDirectories,
}

/// The words of `--from`.
pub(super) const KINDS: [(&str, Kind); 7] = [
    ("compose", Kind::Compose),
    ("pm2", Kind::Pm2),
    ("procfile", Kind::Procfile),
    ("runit", Kind::ServiceDirectories),
    ("s6", Kind::ServiceDirectories),
    ("supervisord", Kind::Supervisord),
    ("systemd", Kind::Systemd),
];

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
            () if name.ends_with(".service") || name.ends_with(".socket") => Some(Self::Systemd),
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
            "a unit of systemd" => Some(Self::Systemd),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_and_completions_know_all_formats() {
        assert_eq!(KINDS.map(|(name, _)| name), crate::cli::IMPORT_FORMATS);
    }

    #[test]
    fn a_format_is_recognised_by_its_name_or_its_content() {
        for (name, text, kind) in [
            ("Procfile.dev", "", Kind::Procfile),
            ("x", "web: a\nworker: b\n", Kind::Procfile),
            ("supervisord.conf", "", Kind::Supervisord),
            ("web.conf", "[program:web]\ncommand=x\n", Kind::Supervisord),
            ("ecosystem.config.cjs", "", Kind::Pm2),
            ("process.json", "{ \"apps\": [{ \"script\": \"x\" }] }", Kind::Pm2),
            ("x.yml", "apps:\n  - script: x\n", Kind::Pm2),
            ("pm2.js", "module.exports = { apps: [] }\n", Kind::Pm2),
            ("docker-compose.prod.yml", "", Kind::Compose),
            ("x.yaml", "services:\n  a:\n", Kind::Compose),
            ("x.service", "", Kind::Systemd),
            ("x", "[Service]\nExecStart=/bin/x\n", Kind::Systemd),
        ] {
            assert_eq!(Kind::of(Path::new(name), text), Some(kind), "{name}");
        }
        for (name, text) in [("keepalive.toml", "[services.web]\n"), ("x.json", "{}"), ("x", "")] {
            assert_eq!(Kind::of(Path::new(name), text), None, "{name}");
        }
    }
}

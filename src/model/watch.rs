//! `watch`: which files of a service are watched.

use std::time::Duration;

use super::glob;
use super::template::{Numbers, Template};

/// Restart a service when its files change.
#[derive(Clone, Debug, PartialEq)]
pub struct Watch {
    /// Files and directories, with all that is in them. Absolute, the same for every instance.
    pub paths: Box<[Template]>,
    /// Patterns of what is left out, besides [`Self::IGNORED`].
    pub ignore: Box<[Template]>,
    /// How long nothing must change before the restart.
    pub debounce: Duration,
    /// The files are compared at this interval; `None`: inotify(7) reports changes.
    pub poll: Option<Duration>,
}

impl Watch {
    /// The default of `debounce`.
    pub const DEBOUNCE: Duration = Duration::from_millis(300);
    /// What is always left out: version control, what packages and interpreters write, and temporary files of editors.
    pub const IGNORED: &str = ".git .hg .svn node_modules __pycache__ .venv .pytest_cache *.pyc *.swp .*.sw? *~ 4913 .#* \
                               #*# .DS_Store *___jb_tmp___ *___jb_old___";

    /// The bytes of the paths.
    pub fn roots(&self) -> impl Iterator<Item = Vec<u8>> {
        self.paths.iter().map(|path| path.expand(Numbers::SINGLE).into_bytes())
    }

    /// Whether the file or directory `below` is left out: its path below a watched path. What is in it is not looked at.
    #[must_use]
    pub fn ignores(&self, below: &[u8]) -> bool {
        let name = below.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let matches = |pattern: &[u8]| {
            // As other programs write it: `**/dist`, `dist/`, `dist/**`.
            let pattern = pattern.strip_suffix(b"**").unwrap_or(pattern);
            let pattern = pattern.strip_suffix(b"/").unwrap_or(pattern);
            let pattern = pattern.strip_prefix(b"**/").or(pattern.strip_prefix(b"./")).unwrap_or(pattern);
            let is_path = pattern.contains(&b'/');
            glob::matches(pattern.strip_prefix(b"/").unwrap_or(pattern), if is_path { below } else { name })
        };
        Self::IGNORED.split(' ').any(|pattern| matches(pattern.as_bytes()))
            || self.ignore.iter().any(|pattern| matches(pattern.literal_prefix()))
    }

    /// Whether a change of the file `path` is one of the service.
    #[must_use]
    pub fn includes(&self, path: &[u8]) -> bool {
        self.roots().any(|root| {
            let root = root.strip_suffix(b"/").unwrap_or(&root);
            let Some(below) = path.strip_prefix(root) else { return false };
            let mut ends = (1..=below.len()).filter(|end| matches!(below.get(*end), None | Some(b'/')));
            below.first().is_none_or(|first| *first == b'/')
                && !ends.any(|end| below.get(1..end).is_some_and(|part| self.ignores(part)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(ignore: &[&str]) -> Watch {
        Watch {
            paths: [Template::Fixed(c"/app".to_owned()), Template::Fixed(c"/etc/app.conf".to_owned())].into(),
            ignore: ignore.iter().map(|pattern| Template::Fixed(std::ffi::CString::new(*pattern).unwrap())).collect(),
            debounce: Watch::DEBOUNCE,
            poll: None,
        }
    }

    #[test]
    fn a_pattern_without_a_slash_matches_a_name_at_any_depth_and_others_the_path() {
        let watch = watch(&["*.log", "/build", "web/dist", "cache/", "**/out/**", "./tmp"]);
        let ignored =
            ["a.log", "b/c/a.log", "build", "web/dist", "a/cache", "x/y/out", "tmp", ".git", "a/node_modules"];
        for path in ignored.into_iter().chain([".a.rs.swp", "b/.a.rs.swx", "4913", "a.rs~", ".#a", "#a#"]) {
            assert!(watch.ignores(path.as_bytes()), "{path}");
        }
        for path in ["a.rs", "a/build", "dist", "web", "log", ".env", "49130", ".gitignore"] {
            assert!(!watch.ignores(path.as_bytes()), "{path}");
        }
    }

    #[test]
    fn files_in_ignored_directories_and_beside_the_paths_are_not_included() {
        let watch = watch(&["*.log"]);
        for path in ["/app", "/app/a.js", "/app/a/b/c.js", "/etc/app.conf"] {
            assert!(watch.includes(path.as_bytes()), "{path}");
        }
        for path in ["/app2", "/app/a.log", "/app/node_modules/a/b.js", "/app/a.log/b", "/etc/app.conf2", "/"] {
            assert!(!watch.includes(path.as_bytes()), "{path}");
        }
    }
}

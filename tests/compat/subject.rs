//! The program under test: another init, or keepalive by its name.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use keepalive::model::Pid;

use crate::harness::{Directory, KEEPALIVE, PUPPET, Place, Run, skip, status_field};

/// An init, or keepalive by the name of an init.
pub(crate) struct Subject {
    path: PathBuf,
    /// Whether it is keepalive.
    pub(crate) is_ours: bool,
    _directory: Option<Directory>,
}

impl Subject {
    /// keepalive by the name of `original`, and the original if it is installed, filtered by `INIT_UNDER_TEST`.
    pub(crate) fn all(original: &str) -> Vec<Self> {
        let wanted = std::env::var("INIT_UNDER_TEST").ok();
        let is_wanted = |name: &str| wanted.as_ref().is_none_or(|wanted| wanted == name);
        let mut subjects = Vec::new();
        if is_wanted("keepalive") {
            subjects.push(Self::ours(original));
        }
        if is_wanted(original) {
            match Self::find(original) {
                Some(path) => subjects.push(Self { path, is_ours: false, _directory: None }),
                None => skip(&format!("{original} is not installed")),
            }
        }
        subjects
    }

    /// keepalive by this name.
    pub(crate) fn ours(name: &str) -> Self {
        let directory = Directory::new();
        let path = directory.path().join(name);
        symlink(KEEPALIVE, &path).unwrap();
        Self { path, is_ours: true, _directory: Some(directory) }
    }

    fn find(name: &str) -> Option<PathBuf> {
        ["/usr/bin", "/bin", "/sbin", "/usr/local/bin"]
            .map(|directory| Path::new(directory).join(name))
            .into_iter()
            .find(|path| path.exists())
    }

    pub(crate) fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }

    /// `INIT WORDS…`
    pub(crate) fn run(&self, place: Place, words: &[&str]) -> Run {
        Run::words(place, &[&[self.path()], words].concat())
    }

    /// `sh -c SCRIPT`, with the init as `$INIT` and the puppet as `$PUPPET`.
    pub(crate) fn script(&self, place: Place, script: &str) -> Run {
        let mut run = Run::words(place, &["sh", "-c", script]);
        run.command.env("INIT", self.path()).env("PUPPET", PUPPET);
        run
    }

    /// `INIT OPTIONS… -- puppet VERB…`
    pub(crate) fn puppet(&self, place: Place, options: &[&str], verb: &[&str]) -> Run {
        self.run(place, &[options, &["--", PUPPET], verb].concat())
    }

    /// `puppet with CHANGES… -- INIT OPTIONS… -- puppet VERB…`
    pub(crate) fn puppet_after(&self, place: Place, changes: &[&str], options: &[&str], verb: &[&str]) -> Run {
        let init = [&["--", self.path()], options, &["--", PUPPET], verb].concat();
        Run::words(place, &[&[PUPPET, "with"], changes, &init].concat())
    }
}

/// A field of the output of `puppet state`.
#[track_caller]
pub(crate) fn field<'a>(state: &'a str, name: &str) -> &'a str {
    let line = state.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {state}"))
}

/// A field with a set of signals. Bit 0 is signal 1.
#[track_caller]
pub(crate) fn signal_bits(state: &str, name: &str) -> u64 {
    u64::from_str_radix(field(state, name), 16).unwrap()
}

/// The pending signals of a process.
#[track_caller]
pub(crate) fn pending(pid: Pid) -> u64 {
    u64::from_str_radix(&status_field(pid, "ShdPnd"), 16).unwrap()
}

//! Walks the files of a service.

use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;

use crate::model::plan::Watch;

/// The maximum number of directories: each takes some hundred bytes of memory.
pub(super) const MAX_DIRECTORIES: usize = 100_000;

/// Something that a walk has found.
pub(super) enum Found<'p> {
    /// What is in it follows.
    Directory(&'p Path),
    /// Anything else. Symbolic links are not followed.
    File(&'p Path),
}

/// Whether `path`, below the watched path that has `root` bytes, is left out.
pub(super) fn is_ignored(watch: &Watch, path: &Path, root: usize) -> bool {
    let below = path.as_os_str().as_bytes().get(root..).unwrap_or_default();
    watch.ignores(below.strip_prefix(b"/").unwrap_or(below))
}

/// Walks the directory `start` and what is in it, except for what is left out. What has gone, or cannot be read, is skipped.
///
/// # Errors
/// That of `visit`. ENOSPC: there are too many directories.
pub(super) fn walk(
    watch: &Watch,
    start: PathBuf,
    root: usize,
    visit: &mut dyn FnMut(Found<'_>) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let mut rest = vec![start];
    while let Some(directory) = rest.pop() {
        visit(Found::Directory(&directory))?;
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries {
            let Ok(entry) = entry else { break };
            let path = entry.path();
            if is_ignored(watch, &path, root) {
            } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                rest.push(path);
            } else {
                visit(Found::File(&path))?;
            }
        }
        if rest.len() > MAX_DIRECTORIES {
            return Err(Errno::ENOSPC);
        }
    }
    Ok(())
}

/// What all files of a service come to: it differs if one has been changed, added or removed.
#[derive(Debug, Default)]
pub(super) struct Summary {
    pub(super) hash: u64,
    /// The modification time of the newest file, and its path.
    pub(super) newest: (Duration, PathBuf),
}

impl Summary {
    pub(super) fn of(watch: &Watch, roots: &[PathBuf]) -> Self {
        let mut summary = Self::default();
        for root in roots {
            match fs::metadata(root) {
                Ok(found) if found.is_dir() => {
                    let length = root.as_os_str().len();
                    let mut visit = |found: Found<'_>| {
                        match found {
                            Found::Directory(path) => summary.add(path, None),
                            Found::File(path) => summary.add(path, fs::symlink_metadata(path).ok().as_ref()),
                        }
                        Ok(())
                    };
                    walk(watch, root.clone(), length, &mut visit).ok();
                }
                Ok(found) => summary.add(root, Some(&found)),
                Err(_) => {}
            }
        }
        summary
    }

    /// The order does not matter.
    fn add(&mut self, path: &Path, metadata: Option<&Metadata>) {
        let mut hash = Fnv::default();
        hash.write(path.as_os_str().as_bytes());
        if let Some(found) = metadata {
            for number in [found.mtime().cast_unsigned(), found.mtime_nsec().cast_unsigned(), found.size(), found.ino()]
            {
                hash.write(&number.to_ne_bytes());
            }
            let time = modified_at(found);
            if time > self.newest.0 {
                self.newest = (time, path.to_owned());
            }
        }
        self.hash = self.hash.wrapping_add(hash.0);
    }
}

/// The modification time, since 1970.
pub(super) fn modified_at(found: &Metadata) -> Duration {
    let nanoseconds = u32::try_from(found.mtime_nsec()).unwrap_or_default();
    Duration::new(u64::try_from(found.mtime()).unwrap_or_default(), nanoseconds)
}

/// FNV-1a.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

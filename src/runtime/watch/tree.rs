//! The watches of inotify(7): of all directories below the watched paths, and of those on the way to them, so that a path may
//! be made later, removed, renamed or replaced. A file is watched in its directory, since editors replace files.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc::IN_MASK_ADD;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};

use super::files::{Found, MAX_DIRECTORIES, is_ignored, modified_at, walk};
use crate::model::map::Map;
use crate::model::plan::Watch;

/// Names come and go.
const NAMES: AddWatchFlags = AddWatchFlags::IN_CREATE
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_MOVED_FROM)
    .union(AddWatchFlags::IN_MOVED_TO);
/// Contents are written, and touch(1). That a file is opened for writing and closed is no change.
const CONTENTS: AddWatchFlags = AddWatchFlags::IN_MODIFY.union(AddWatchFlags::IN_ATTRIB);

/// The watches of a service.
pub(super) struct Tree<'w> {
    watch: &'w Watch,
    roots: &'w [PathBuf],
    inotify: Inotify,
    directories: Map<WatchDescriptor, Directory>,
    /// A directory on the way to a file has gone or come: the watches must be made again.
    is_outdated: bool,
}

/// A watched directory.
#[derive(Debug, Default)]
struct Directory {
    path: PathBuf,
    /// The length of the watched path that it is below, in bytes.
    root: Option<usize>,
    /// Names in it that lead to watched paths.
    parts: Vec<OsString>,
}

impl<'w> Tree<'w> {
    /// # Errors
    /// EMFILE: too many instances of inotify. ENOSPC: too many watches. ENOMEM.
    pub(super) fn new(watch: &'w Watch, roots: &'w [PathBuf]) -> Result<Self, Errno> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let mut tree = Self { watch, roots, inotify, directories: Map::new(), is_outdated: false };
        for root in roots {
            tree.add_way(root)?;
            // A symbolic link: what it refers to may be replaced.
            if let Ok(target) = fs::read_link(root) {
                tree.add_way(&root.with_file_name(target))?;
            }
            if root.is_dir() {
                tree.add_tree(root.clone(), root.as_os_str().len())?;
            }
        }
        Ok(tree)
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }

    /// Reads events. `changed` becomes a path that has changed since `known`, the time of the last report.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(super) fn read(&mut self, known: Duration, changed: &mut Option<PathBuf>) -> Result<(), Errno> {
        let events = self.inotify.read_events().unwrap_or_default();
        events.iter().try_for_each(|event| self.on_event(event, known, changed))
    }

    /// Makes all watches again, if that is necessary. What changes meanwhile is part of the change that is reported next.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(super) fn refresh(&mut self) -> Result<(), Errno> {
        if self.is_outdated {
            *self = Self::new(self.watch, self.roots)?;
        }
        Ok(())
    }

    fn on_event(&mut self, event: &InotifyEvent, known: Duration, changed: &mut Option<PathBuf>) -> Result<(), Errno> {
        let has = |flags| event.mask.intersects(flags);
        if has(AddWatchFlags::IN_IGNORED) {
            // A directory on the way has gone.
            self.is_outdated |= self.directories.remove(&event.wd).is_some_and(|gone| !gone.parts.is_empty());
            return Ok(());
        }
        let is_lost = has(AddWatchFlags::IN_Q_OVERFLOW | AddWatchFlags::IN_UNMOUNT);
        self.is_outdated |= is_lost;
        let path = match (self.directories.get(&event.wd), &event.name) {
            (Some(directory), Some(name)) => directory.path.join(name),
            _ if is_lost => self.roots.first().cloned().unwrap_or_default(),
            _ => return Ok(()),
        };
        let directory = self.directories.get(&event.wd);
        let is_part = directory.is_some_and(|it| event.name.as_ref().is_some_and(|name| it.parts.contains(name)));
        let root = directory.and_then(|it| it.root).filter(|root| !is_ignored(self.watch, &path, *root));
        let is_touched = || fs::symlink_metadata(&path).is_ok_and(|found| modified_at(&found) > known);
        let concerns = is_lost || is_part || root.is_some();
        if !concerns || (has(AddWatchFlags::IN_ATTRIB) && !is_touched()) {
            return Ok(());
        }
        if (is_part && has(NAMES)) || (has(AddWatchFlags::IN_ISDIR) && has(AddWatchFlags::IN_MOVED_FROM)) {
            self.is_outdated = true;
        } else if let Some(root) = root
            && has(AddWatchFlags::IN_ISDIR)
            && has(AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO)
        {
            self.add_tree(path.clone(), root)?;
        }
        changed.get_or_insert(path);
        Ok(())
    }

    /// Watches the directories that lead to `path`, from the top: what is made meanwhile is seen.
    fn add_way(&mut self, path: &Path) -> Result<(), Errno> {
        let bytes = path.as_os_str().as_bytes();
        let mut start = 0;
        while let Some((parent, rest)) = bytes.split_at_checked(start + 1) {
            let name = rest.split(|byte| *byte == b'/').next().unwrap_or_default();
            let is_last = name.len() == rest.len();
            let flags = if is_last && !path.is_dir() { NAMES | CONTENTS } else { NAMES };
            if let Some(directory) = self.add(Path::new(OsStr::from_bytes(parent)), flags)? {
                directory.parts.push(OsStr::from_bytes(name).to_owned());
            }
            start += name.len() + 1;
            if is_last {
                break;
            }
        }
        Ok(())
    }

    /// Watches a directory and all directories in it.
    fn add_tree(&mut self, start: PathBuf, root: usize) -> Result<(), Errno> {
        walk(self.watch, start, root, &mut |found| {
            if let Found::Directory(path) = found {
                let is_root = path.as_os_str().len() == root;
                let follow = if is_root { AddWatchFlags::empty() } else { AddWatchFlags::IN_DONT_FOLLOW };
                if let Some(directory) = self.add(path, NAMES | CONTENTS | follow)? {
                    directory.root = Some(root);
                }
            }
            Ok(())
        })
    }

    /// `None`: it has gone, or cannot be read.
    fn add(&mut self, path: &Path, flags: AddWatchFlags) -> Result<Option<&mut Directory>, Errno> {
        // One watch for all that a directory is needed for.
        let flags = flags | AddWatchFlags::IN_ONLYDIR | AddWatchFlags::from_bits_retain(IN_MASK_ADD);
        match self.inotify.add_watch(path, flags) {
            Err(errno @ (Errno::ENOSPC | Errno::ENOMEM)) => Err(errno),
            Err(_) => Ok(None),
            Ok(_) if self.directories.len() >= MAX_DIRECTORIES => Err(Errno::ENOSPC),
            Ok(wd) => {
                let directory = self.directories.entry(wd);
                path.clone_into(&mut directory.path);
                Ok(Some(directory))
            }
        }
    }
}

//! Directories on paths that other users may be able to change: openat(2), readlinkat(2), symlink(7), inode(7).
//!
//! A service may own a directory on the way to a file that keepalive writes as root, and could replace the directory by a
//! symbolic link. So each component is opened by itself, and a link is followed only if nobody but root and keepalive's
//! own user could have put it there. What is done in the directory is done relative to its descriptor. This needs no
//! openat2(2), whose `RESOLVE_NO_SYMLINKS` would also refuse `/var/run` and a `/var/log` on another disk.

use std::ffi::{OsStr, OsString};
use std::fmt::{self, Display, Formatter};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, readlinkat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, fchdir, unlinkat};

use super::process;
use crate::model::errno;

/// As in path_resolution(7).
const MAX_LINKS: u32 = 40;
/// Whatever is found: nothing is waited for, and no symbolic link is followed.
const FILE_FLAGS: OFlag = OFlag::O_NOFOLLOW.union(OFlag::O_NONBLOCK).union(OFlag::O_NOCTTY).union(OFlag::O_CLOEXEC);
const LOOKUP_FLAGS: OFlag = OFlag::O_PATH.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// What to do if a directory does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Create it, and those above it.
    Create,
    /// Return ENOENT.
    Fail,
}

/// Why a directory or a file in it cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// This is a symbolic link that users other than root and keepalive's own could have made.
    UnsafeLink(PathBuf),
    /// The file has another name (link(2)), which another user may have given it so that somebody else's file is written.
    SecondName,
    /// It is no regular file.
    NotRegular,
    /// The system refuses it.
    System(Errno),
}

impl Display for OpenError {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnsafeLink(path) => {
                write!(formatter, "{} is a symbolic link that other users can change", path.display())
            }
            Self::SecondName => formatter.write_str("the file is a hard link that other users could have made"),
            Self::NotRegular => formatter.write_str("not a regular file"),
            Self::System(errno) => formatter.write_str(errno::words(*errno)),
        }
    }
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        Self::System(error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
    }
}

impl From<OpenError> for Errno {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::System(errno) => errno,
            OpenError::UnsafeLink(_) => Self::ELOOP,
            OpenError::SecondName => Self::EMLINK,
            OpenError::NotRegular => Self::EINVAL,
        }
    }
}

impl From<Errno> for OpenError {
    fn from(errno: Errno) -> Self {
        Self::System(errno)
    }
}

/// Who can create entries in a directory, apart from root and keepalive's own user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OtherWriters {
    None,
    /// Others, who can neither remove nor rename what is not theirs. inode(7) `S_ISVTX`
    Sticky,
    Unlimited,
}

/// The users whose symbolic links are followed.
struct TrustedUsers {
    uid: u32,
    gid: u32,
    /// The owner of `/`, which is root unless root is not mapped into the user namespace.
    root_owner: u32,
}

impl TrustedUsers {
    fn contain(&self, uid: u32) -> bool {
        [0, self.uid, self.root_owner].contains(&uid)
    }

    fn other_writers(&self, directory: &FileStat) -> OtherWriters {
        // Files of ordinary users are often writable by the group that has only this user.
        let is_own_group = self.uid != 0 && directory.st_gid == self.gid;
        let of_group = if is_own_group { Mode::empty() } else { Mode::S_IWGRP };
        let mode = Mode::from_bits_truncate(directory.st_mode);
        if !self.contain(directory.st_uid) {
            OtherWriters::Unlimited
        } else if !mode.intersects(of_group | Mode::S_IWOTH) {
            OtherWriters::None
        } else if mode.contains(Mode::S_ISVTX) {
            OtherWriters::Sticky
        } else {
            OtherWriters::Unlimited
        }
    }
}

/// An open directory, to which all names are relative. It stays the same if its path leads elsewhere later.
#[derive(Debug)]
pub struct Directory {
    fd: OwnedFd,
    other_writers: OtherWriters,
    /// Nobody but root and keepalive's own user can replace a directory on its path.
    is_fixed: bool,
}

impl Directory {
    /// Opens the directory of the file at the absolute `path`. Returns it with the name of the file.
    ///
    /// # Errors
    /// [`OpenError::UnsafeLink`]; EINVAL: the path is not absolute or does not name a file; those of openat(2) and
    /// mkdirat(2).
    pub fn of(path: &Path, missing: Missing) -> Result<(Self, OsString), OpenError> {
        let name = path.file_name().ok_or(Errno::EINVAL)?.to_owned();
        let directory = path.parent().filter(|_| path.is_absolute()).ok_or(Errno::EINVAL)?;
        Ok((Self::open(directory, missing)?, name))
    }

    fn open(path: &Path, missing: Missing) -> Result<Self, OpenError> {
        let root = open("/", LOOKUP_FLAGS | OFlag::O_DIRECTORY, Mode::empty())?;
        let status = fstat(&root)?;
        let (uid, gid) = (process::effective_user(), process::effective_group());
        let trusted = TrustedUsers { uid, gid, root_owner: status.st_uid };
        let mut directory = Self { other_writers: trusted.other_writers(&status), fd: root, is_fixed: true };
        let mut remaining = components(path);
        // The path of `directory`, only for errors.
        let mut shown = PathBuf::from("/");
        let mut links = 0;
        while let Some(name) = remaining.pop() {
            if name == "/" {
                let root = open("/", LOOKUP_FLAGS | OFlag::O_DIRECTORY, Mode::empty())?;
                directory = Self { other_writers: trusted.other_writers(&status), fd: root, ..directory };
                shown = PathBuf::from("/");
                continue;
            }
            match directory.look_up(&name, missing)? {
                Entry::Directory(fd, status) => {
                    let is_fixed = directory.is_fixed
                        && match directory.other_writers {
                            OtherWriters::None => true,
                            OtherWriters::Sticky => trusted.contain(status.st_uid),
                            OtherWriters::Unlimited => false,
                        };
                    directory = Self { other_writers: trusted.other_writers(&status), fd, is_fixed };
                    shown.push(name);
                }
                Entry::Link { owner, target } => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::ELOOP.into());
                    }
                    if !trusted.contain(owner) || directory.other_writers == OtherWriters::Unlimited {
                        return Err(OpenError::UnsafeLink(shown.join(name)));
                    }
                    remaining.extend(components(Path::new(&target)));
                }
            }
        }
        Ok(directory)
    }

    /// What the entry `name` is. A missing one is created as a directory, depending on `missing`.
    fn look_up(&self, name: &OsStr, missing: Missing) -> Result<Entry, Errno> {
        // `O_DIRECTORY` also mounts what autofs mounts on demand.
        let open_directory = || openat(&self.fd, name, LOOKUP_FLAGS | OFlag::O_DIRECTORY, Mode::empty());
        let opened = match open_directory() {
            Err(Errno::ENOENT) if missing == Missing::Create => {
                match mkdirat(&self.fd, name, Mode::S_IRWXU | Mode::S_IRWXG | Mode::S_IRWXO) {
                    Ok(()) | Err(Errno::EEXIST) => open_directory(),
                    Err(errno) => Err(errno),
                }
            }
            other => other,
        };
        match opened {
            Ok(fd) => {
                let status = fstat(&fd)?;
                Ok(Entry::Directory(fd, status))
            }
            Err(Errno::ENOTDIR) => self.look_up_link(name),
            Err(errno) => Err(errno),
        }
    }

    fn look_up_link(&self, name: &OsStr) -> Result<Entry, Errno> {
        let fd = openat(&self.fd, name, LOOKUP_FLAGS, Mode::empty())?;
        let status = fstat(&fd)?;
        if kind(&status) != SFlag::S_IFLNK {
            return Err(Errno::ENOTDIR);
        }
        Ok(Entry::Link { owner: status.st_uid, target: readlinkat(&fd, "")? })
    }

    /// Opens a file for reading or writing, as `flags` say. No symbolic link is followed, and nothing is waited for.
    ///
    /// # Errors
    /// [`OpenError::SecondName`]; those of openat(2). ELOOP: the file is a symbolic link.
    pub fn open_file(&self, name: &OsStr, flags: OFlag, mode: u32) -> Result<File, OpenError> {
        let file = openat(&self.fd, name, flags | FILE_FLAGS, Mode::from_bits_truncate(mode))?;
        if self.other_writers != OtherWriters::None {
            let status = fstat(&file)?;
            if matches!(kind(&status), SFlag::S_IFREG | SFlag::S_IFSOCK) && status.st_nlink > 1 {
                return Err(OpenError::SecondName);
            }
        }
        Ok(file.into())
    }

    /// Does `work` with the path of an entry, for system calls that have no form with a descriptor: bind(2), connect(2).
    /// `path`: that of the entry, from which this directory was opened. If other users could replace a directory on it, this
    /// directory is the working directory meanwhile, and `work` is given the name only. fchdir(2)
    ///
    /// # Errors
    /// Those of `work`. EACCES: the working directory cannot be changed.
    pub fn with_path<T>(&self, path: &Path, work: impl FnOnce(&Path) -> Result<T, Errno>) -> Result<T, Errno> {
        let Some(name) = path.file_name().filter(|_| !self.is_fixed) else { return work(path) };
        let before = open(".", LOOKUP_FLAGS | OFlag::O_DIRECTORY, Mode::empty())?;
        fchdir(&self.fd)?;
        let result = work(Path::new(name));
        fchdir(before)?;
        result
    }

    /// The status of an entry. A symbolic link is not followed.
    ///
    /// # Errors
    /// Those of fstatat(2).
    pub fn status(&self, name: &OsStr) -> Result<FileStat, Errno> {
        fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW)
    }

    /// Device and inode of an entry. A symbolic link is not followed.
    ///
    /// # Errors
    /// Those of fstatat(2).
    pub fn identity(&self, name: &OsStr) -> Result<(u64, u64), Errno> {
        self.status(name).map(|status| (status.st_dev, status.st_ino))
    }

    /// Renames an entry within the directory.
    ///
    /// # Errors
    /// Those of renameat(2).
    pub fn rename(&self, from: &OsStr, to: &OsStr) -> Result<(), Errno> {
        renameat(&self.fd, from, &self.fd, to)
    }

    /// Removes an entry that is not a directory.
    ///
    /// # Errors
    /// Those of unlinkat(2).
    pub fn remove(&self, name: &OsStr) -> Result<(), Errno> {
        unlinkat(&self.fd, name, UnlinkatFlags::NoRemoveDir)
    }

    /// Removes an entry if it has this [`Self::identity`].
    ///
    /// # Errors
    /// ENOENT: another file is there, or none. Those of unlinkat(2).
    pub fn remove_if_same(&self, name: &OsStr, identity: (u64, u64)) -> Result<(), Errno> {
        if self.identity(name)? == identity { self.remove(name) } else { Err(Errno::ENOENT) }
    }
}

/// Why a file at `path` is not opened, apart from what only the attempt could show; `None`: it may be opened.
#[must_use]
pub fn unsafe_path(path: &Path) -> Option<String> {
    let error = match Directory::of(path, Missing::Fail) {
        Ok((directory, name)) => match directory.look_up_link(&name) {
            Ok(Entry::Link { .. }) => return Some(format!("{} is a symbolic link", path.display())),
            Ok(Entry::Directory(..)) | Err(_) => return None,
        },
        Err(error) => error,
    };
    matches!(error, OpenError::UnsafeLink(_)).then(|| error.to_string())
}

/// What a component of a path is.
enum Entry {
    Directory(OwnedFd, FileStat),
    Link { owner: u32, target: OsString },
}

/// The kind of a file.
pub(super) const fn kind(status: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(status.st_mode).intersection(SFlag::S_IFMT)
}

/// The components of a path, the last one first. The root of an absolute path is `/`.
fn components(path: &Path) -> Vec<OsString> {
    let names = path.components().filter(|component| *component != Component::CurDir);
    names.map(|component| component.as_os_str().to_owned()).rev().collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, chown, lchown, symlink};
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const OTHER_USER: u32 = 65_534;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("keepalive-directory-{}-{number}", std::process::id()));
            fs::create_dir(&path).unwrap();
            set_mode(&path, 0o755);
            fs::create_dir(path.join("real")).unwrap();
            Self(path)
        }

        fn open(&self, path: &str) -> Result<(u64, u64), OpenError> {
            let (directory, name) = Directory::of(&self.0.join(path), Missing::Fail)?;
            Ok(directory.identity(&name)?)
        }

        /// The identity of the directory `real`, which the links of the tests lead to.
        fn real(&self) -> Result<(u64, u64), OpenError> {
            self.open("real")
        }

        fn refused(&self, link: &str) -> Result<(u64, u64), OpenError> {
            Err(OpenError::UnsafeLink(self.0.join(link)))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_link_in_a_directory_of_the_own_user_is_followed() {
        let scratch = Scratch::new();
        symlink("real/..", scratch.0.join("relative")).unwrap();
        symlink(&scratch.0, scratch.0.join("absolute")).unwrap();
        symlink("absolute/relative/./", scratch.0.join("chain")).unwrap();
        for path in ["relative/real", "absolute/real", "chain/real", "real/../real"] {
            assert_eq!(scratch.open(path), scratch.real(), "{path}");
        }
        symlink("loop", scratch.0.join("loop")).unwrap();
        assert_eq!(scratch.open("loop/real"), Err(Errno::ELOOP.into()));
    }

    #[test]
    fn a_link_in_a_directory_that_others_can_write_to_is_refused() {
        let scratch = Scratch::new();
        let open = scratch.0.join("open");
        fs::create_dir(&open).unwrap();
        symlink("..", open.join("link")).unwrap();
        set_mode(&open, 0o757);
        assert_eq!(scratch.open("open/link/real"), scratch.refused("open/link"));
        set_mode(&open, 0o1757);
        assert_eq!(scratch.open("open/link/real"), scratch.real(), "nobody else can replace it");
    }

    #[test]
    fn a_link_of_another_user_is_refused_wherever_it_is() {
        let scratch = Scratch::new();
        symlink(".", scratch.0.join("link")).unwrap();
        let home = scratch.0.join("home");
        fs::create_dir(&home).unwrap();
        symlink("..", home.join("link")).unwrap();
        if lchown(scratch.0.join("link"), Some(OTHER_USER), None).is_err() {
            return;
        }
        assert_eq!(scratch.open("link/real"), scratch.refused("link"));
        assert_eq!(scratch.open("home/link/real"), scratch.real());
        chown(&home, Some(OTHER_USER), None).unwrap();
        assert_eq!(scratch.open("home/link/real"), scratch.refused("home/link"));
    }

    #[test]
    fn a_group_that_can_write_counts_as_others_unless_it_is_that_of_an_ordinary_user() {
        let scratch = Scratch::new();
        set_mode(&scratch.0, 0o775);
        let status = nix::sys::stat::stat(&scratch.0).unwrap();
        let writers = |uid: u32, gid: u32| TrustedUsers { uid, gid, root_owner: status.st_uid }.other_writers(&status);
        assert_eq!(writers(1_000, status.st_gid), OtherWriters::None);
        assert_eq!(writers(1_000, status.st_gid + 1), OtherWriters::Unlimited);
        assert_eq!(writers(0, status.st_gid), OtherWriters::Unlimited);
    }

    #[test]
    fn missing_directories_are_created_also_behind_a_link() {
        let scratch = Scratch::new();
        symlink("real/new", scratch.0.join("link")).unwrap();
        assert_eq!(scratch.open("link/a/file"), Err(Errno::ENOENT.into()));
        Directory::of(&scratch.0.join("link/a/file"), Missing::Create).unwrap();
        assert!(scratch.0.join("real/new/a").is_dir());
    }

    // fs.protected_hardlinks of proc_sys_fs(5) is off by default in the kernel.
    #[test]
    fn a_file_with_a_second_name_is_refused_where_others_could_have_given_it() {
        let scratch = Scratch::new();
        fs::write(scratch.0.join("real/a"), "").unwrap();
        fs::hard_link(scratch.0.join("real/a"), scratch.0.join("real/b")).unwrap();
        let open = || {
            let (directory, name) = Directory::of(&scratch.0.join("real/b"), Missing::Fail).unwrap();
            directory.open_file(&name, OFlag::O_WRONLY, 0).map(drop)
        };
        assert_eq!(open(), Ok(()));
        set_mode(&scratch.0.join("real"), 0o1777);
        assert_eq!(open(), Err(OpenError::SecondName));
    }
}

//! The files of unix sockets that keepalive listens on: unix(7), bind(2), fchownat(2), fchmodat(2).
//!
//! Their directory may belong to a service, see [`super::directory`]. What is changed or removed later is the file that
//! [`SocketFile::bind`] has made, and no other.

use std::ffi::{OsStr, c_long};
use std::fmt::{self, Display, Formatter};
use std::os::fd::{AsFd, AsRawFd as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use nix::sys::socket::UnixAddr;
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmodat, fstat};
use nix::unistd::{Gid, Uid, fchownat};

use super::PeerStream;
use super::directory::{Directory, Missing, OpenError, kind};
use super::socket::connect_unix;
use super::syscall::reading;

/// fchmodat2(2), the same number on all architectures.
const SYS_FCHMODAT2: c_long = 452;

/// The file of a unix socket.
#[derive(Debug)]
pub struct SocketFile {
    /// Absolute.
    path: PathBuf,
    /// Device and inode, which no other file gets while the socket is open.
    identity: (u64, u64),
}

/// Why a socket cannot be bound to a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindError {
    /// A process listens on it.
    InUse,
    /// Another kind of file has this path.
    NotASocket,
    /// The directory or the file cannot be used.
    Open(OpenError),
}

impl Display for BindError {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse => formatter.write_str("another process uses it"),
            Self::NotASocket => formatter.write_str("the file is not a socket"),
            Self::Open(error) => error.fmt(formatter),
        }
    }
}

impl From<OpenError> for BindError {
    fn from(error: OpenError) -> Self {
        Self::Open(error)
    }
}

impl From<Errno> for BindError {
    fn from(errno: Errno) -> Self {
        Self::Open(errno.into())
    }
}

impl From<BindError> for Errno {
    fn from(error: BindError) -> Self {
        match error {
            BindError::InUse | BindError::NotASocket => Self::EADDRINUSE,
            BindError::Open(error) => error.into(),
        }
    }
}

impl SocketFile {
    /// The file with this [`Self::identity`].
    #[must_use]
    pub fn new(path: &Path, [device, inode]: [u64; 2]) -> Self {
        Self { path: path.to_owned(), identity: (device, inode) }
    }

    /// Binds `socket` to the absolute `path`. A stale unix socket, on which no process listens, is replaced.
    ///
    /// # Errors
    /// [`BindError`]; those of bind(2): EACCES, EROFS, ENAMETOOLONG.
    pub fn bind(socket: impl AsFd, path: &Path) -> Result<Self, BindError> {
        let (directory, name) = Directory::of(path, Missing::Fail)?;
        let number = socket.as_fd().as_raw_fd();
        let bind = || directory.with_path(path, |path| nix::sys::socket::bind(number, &UnixAddr::new(path)?));
        match bind() {
            Err(Errno::EADDRINUSE) => {
                remove_stale(&directory, path, &name)?;
                bind()?;
            }
            other => other?,
        }
        // Who can write to the directory can have put another file there.
        let status = fstat(&directory.open_file(&name, OFlag::O_PATH, 0)?)?;
        if !is_socket(&status) {
            return Err(BindError::NotASocket);
        }
        Ok(Self::new(path, [status.st_dev, status.st_ino]))
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its device and inode.
    #[must_use]
    pub const fn identity(&self) -> [u64; 2] {
        [self.identity.0, self.identity.1]
    }

    /// Changes its owner, and its mode unless that is `None`. They determine who may connect.
    ///
    /// # Errors
    /// EPERM: keepalive may not. ENOENT: the file is gone or has been replaced. ELOOP: [`OpenError::UnsafeLink`]. ENOSYS: the
    /// mode cannot be changed without /proc before Linux 6.6.
    pub fn set_owner_and_mode(&self, (uid, gid): (u32, u32), mode: Option<u32>) -> Result<(), Errno> {
        let (directory, name) = Directory::of(&self.path, Missing::Fail)?;
        let file = directory.open_file(&name, OFlag::O_PATH, 0)?;
        let status = fstat(&file)?;
        if (status.st_dev, status.st_ino) != self.identity {
            return Err(Errno::ENOENT);
        }
        fchownat(&file, "", Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::AT_EMPTY_PATH)?;
        mode.map_or(Ok(()), |mode| set_mode(&file, mode))
    }

    /// Removes the file, unless another file has replaced it.
    pub fn remove(&self) {
        if let Ok((directory, name)) = Directory::of(&self.path, Missing::Fail) {
            directory.remove_if_same(&name, self.identity).ok();
        }
    }
}

/// fchmod(2) does not accept a descriptor that was opened with `O_PATH`.
fn set_mode(file: impl AsFd, mode: u32) -> Result<(), Errno> {
    let file = file.as_fd();
    let arguments = [file.as_raw_fd().into(), c"".as_ptr() as c_long, mode.into(), libc::AT_EMPTY_PATH.into()];
    reading(SYS_FCHMODAT2, arguments).map(drop).or_else(|errno| set_mode_in_proc(file, mode).map_err(|_| errno))
}

/// For Linux before 6.6.
fn set_mode_in_proc(file: impl AsFd, mode: u32) -> Result<(), Errno> {
    let link = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    fchmodat(AT_FDCWD, link.as_str(), Mode::from_bits_truncate(mode), FchmodatFlags::FollowSymlink)
}

/// Removes a socket file on which no process listens.
fn remove_stale(directory: &Directory, path: &Path, name: &OsStr) -> Result<(), BindError> {
    let status = match directory.status(name) {
        Err(Errno::ENOENT) => return Ok(()),
        other => other?,
    };
    if !is_socket(&status) {
        return Err(BindError::NotASocket);
    }
    match directory.with_path(path, connect_unix).map(PeerStream::unix) {
        Err(Errno::ECONNREFUSED) => match directory.remove_if_same(name, (status.st_dev, status.st_ino)) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        },
        Err(Errno::ENOENT) => Ok(()),
        Ok(_) | Err(_) => Err(BindError::InUse),
    }
}

fn is_socket(status: &FileStat) -> bool {
    kind(status) == SFlag::S_IFSOCK
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, lchown, symlink};
    use std::os::unix::net::{UnixListener, UnixStream};

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, getsockname, socket};
    use nix::sys::stat::fchmod;

    use super::*;

    const OTHER_USER: u32 = 65_534;

    /// `app/run`, both of which belong to another user, and `db`.
    struct Scratch(PathBuf);

    impl Scratch {
        /// `None` without the rights of root.
        fn new(name: &str) -> Option<Self> {
            // The thread has its own working directory and umask.
            // SAFETY: the call takes a number only.
            unsafe { libc::unshare(libc::CLONE_FS) };
            let scratch = Self(std::env::temp_dir().join(format!("keepalive-{name}-{}", std::process::id())));
            fs::create_dir_all(scratch.0.join("app/run")).unwrap();
            fs::create_dir(scratch.0.join("db")).unwrap();
            let is_changed = ["app", "app/run"].map(|name| chown(scratch.0.join(name), Some(OTHER_USER), None).is_ok());
            is_changed[1].then_some(scratch)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }

        fn mode_and_owner(&self, name: &str) -> (u32, u32) {
            let file = fs::symlink_metadata(self.path(name)).unwrap();
            (file.mode() & 0o7777, file.uid())
        }

        /// The other user puts a link to `db` in the place of `app/run`.
        fn replace_directory(&self) {
            fs::rename(self.path("app/run"), self.path("app/old")).unwrap();
            symlink("../db", self.path("app/run")).unwrap();
            lchown(self.path("app/run"), Some(OTHER_USER), None).unwrap();
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    fn new_socket() -> OwnedFd {
        let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        fchmod(&socket, Mode::from_bits_truncate(0o600)).unwrap();
        socket
    }

    fn bind(path: &Path) -> Result<(OwnedFd, SocketFile), BindError> {
        let socket = new_socket();
        let file = SocketFile::bind(&socket, path)?;
        Ok((socket, file))
    }

    fn own_path(socket: &OwnedFd) -> PathBuf {
        getsockname::<UnixAddr>(socket.as_raw_fd()).unwrap().path().unwrap().to_owned()
    }

    #[test]
    fn only_the_file_that_was_bound_changes_owner_and_mode_and_is_removed() {
        let path = std::env::temp_dir().join(format!("keepalive-socket-file-{}", std::process::id()));
        let ours = (Uid::current().as_raw(), Gid::current().as_raw());
        let mode = || fs::metadata(&path).unwrap().mode() & 0o7777;
        let (socket, file) = bind(&path).unwrap();
        assert_eq!(own_path(&socket), path, "services see the whole path");
        file.set_owner_and_mode(ours, None).unwrap();
        assert_eq!(mode(), 0o600);
        file.set_owner_and_mode(ours, Some(0o640)).unwrap();
        assert_eq!(mode(), 0o640);
        fs::remove_file(&path).unwrap();
        assert_eq!(file.set_owner_and_mode(ours, Some(0o666)), Err(Errno::ENOENT));
        let other = UnixListener::bind(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(file.set_owner_and_mode(ours, Some(0o666)), Err(Errno::ENOENT));
        file.remove();
        assert_eq!(mode(), 0o600, "a socket that has replaced it is left alone");
        assert_eq!(bind(&path).err(), Some(BindError::InUse));
        drop(other);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        assert_eq!(bind(&path).err(), Some(BindError::NotASocket));
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn the_mode_can_be_changed_without_fchmodat2() {
        let path = std::env::temp_dir().join(format!("keepalive-socket-mode-{}", std::process::id()));
        let (_socket, file) = bind(&path).unwrap();
        let (directory, name) = Directory::of(&path, Missing::Fail).unwrap();
        set_mode_in_proc(directory.open_file(&name, OFlag::O_PATH, 0).unwrap(), 0o640).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
        file.remove();
    }

    #[test]
    fn a_directory_that_another_user_has_replaced_by_a_link_leads_to_no_other_socket() {
        let Some(scratch) = Scratch::new("socket-link") else { return };
        let path = scratch.path("app/run/x");
        let (_of_db, _) = bind(&scratch.path("db/x")).unwrap();
        let (_socket, file) = bind(&path).unwrap();
        scratch.replace_directory();
        assert_eq!(file.set_owner_and_mode((OTHER_USER, OTHER_USER), Some(0o666)), Err(Errno::ELOOP));
        let refused = OpenError::UnsafeLink(scratch.path("app/run"));
        assert_eq!(bind(&path).err(), Some(BindError::Open(refused)));
        file.remove();
        assert_eq!(scratch.mode_and_owner("db/x"), (0o600, Uid::current().as_raw()));
        assert_eq!(scratch.mode_and_owner("app/old/x"), (0o600, Uid::current().as_raw()));
    }

    // bind(2) and connect(2) have no form with a descriptor of a directory.
    #[test]
    fn a_directory_that_is_replaced_by_a_link_at_the_last_moment_is_not_left() {
        let Some(scratch) = Scratch::new("socket-race") else { return };
        let before = std::env::current_dir().unwrap();
        let path = scratch.path("app/run/x");
        let (directory, _) = Directory::of(&path, Missing::Fail).unwrap();
        scratch.replace_directory();
        let socket = new_socket();
        let bind = |path: &Path| nix::sys::socket::bind(socket.as_raw_fd(), &UnixAddr::new(path)?);
        directory.with_path(&path, bind).unwrap();
        assert!(scratch.path("app/old/x").exists() && !scratch.path("db/x").exists());
        assert_eq!(own_path(&socket), Path::new("x"));
        assert_eq!(std::env::current_dir().unwrap(), before);
    }

    #[test]
    fn a_socket_in_a_directory_that_another_user_can_replace_works_and_a_stale_one_is_replaced() {
        let Some(scratch) = Scratch::new("socket-home") else { return };
        let path = scratch.path("app/run/x");
        drop(UnixListener::bind(&path).unwrap());
        let (socket, file) = bind(&path).unwrap();
        let listener = UnixListener::from(socket);
        nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::MAXALLOWABLE).unwrap();
        UnixStream::connect(&path).unwrap();
        assert_eq!(bind(&path).err(), Some(BindError::InUse));
        file.set_owner_and_mode((OTHER_USER, OTHER_USER), Some(0o660)).unwrap();
        assert_eq!(scratch.mode_and_owner("app/run/x"), (0o660, OTHER_USER));
        file.remove();
        assert!(!path.exists());
    }

    // link(2) gives somebody else's socket a name, unless fs.protected_hardlinks of proc_sys_fs(5) forbids it.
    #[test]
    fn another_name_of_a_socket_is_not_taken_for_the_one_that_was_bound() {
        let Some(scratch) = Scratch::new("socket-name") else { return };
        let (_of_db, _) = bind(&scratch.path("db/x")).unwrap();
        let path = scratch.path("app/run/x");
        fs::hard_link(scratch.path("db/x"), &path).unwrap();
        let (directory, name) = Directory::of(&path, Missing::Fail).unwrap();
        assert_eq!(directory.open_file(&name, OFlag::O_PATH, 0).err(), Some(OpenError::SecondName));
    }
}

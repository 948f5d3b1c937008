//! Memory that is handed on as a descriptor: memfd_create(2), `F_ADD_SEALS` of fcntl(2), `/proc/self/fd` of proc(5).

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::Mode;
use nix::unistd::{Whence, lseek64};

/// Memory of exactly `size` bytes, all zero; nobody can change its size. It takes no room before something is written.
///
/// # Errors
/// EMFILE, ENFILE, ENOMEM; EFBIG: so large that it cannot be.
pub fn fixed(size: u64) -> Result<OwnedFd, Errno> {
    let memory = memfd_create(c"keepalive-state", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    nix::unistd::ftruncate(&memory, i64::try_from(size).map_err(|_| Errno::EFBIG)?)?;
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(&memory, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(memory)
}

/// Memory that grows with what is written to it.
///
/// # Errors
/// EMFILE, ENFILE, ENOMEM.
pub fn empty(name: &CStr) -> Result<OwnedFd, Errno> {
    memfd_create(name, MFdFlags::MFD_CLOEXEC)
}

/// All that it holds.
///
/// # Errors
/// EMFILE, ENFILE.
pub fn content(memory: &OwnedFd) -> Result<Vec<u8>, Errno> {
    let errno = |error: std::io::Error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
    let mut content = vec![0; usize::try_from(size(memory)?).unwrap_or(usize::MAX)];
    File::from(memory.try_clone().map_err(errno)?).read_exact_at(&mut content, 0).map_err(errno)?;
    Ok(content)
}

/// How many bytes it has.
///
/// # Errors
/// None for what [`fixed`] has made.
pub fn size(memory: impl AsFd) -> Result<u64, Errno> {
    nix::sys::stat::fstat(memory).map(|about| about.st_size.unsigned_abs())
}

/// Another descriptor of it, which is read and written from the beginning, wherever others are. Without /proc it has its
/// position in common with them, which is now the beginning.
///
/// # Errors
/// EMFILE, ENFILE, ENOMEM.
pub fn reopened(memory: &OwnedFd) -> Result<OwnedFd, Errno> {
    let path = format!("/proc/self/fd/{}", memory.as_raw_fd());
    nix::fcntl::open(path.as_str(), OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()).or_else(|_| {
        lseek64(memory, 0, Whence::SeekSet)?;
        memory.try_clone().map_err(|error| error.raw_os_error().map_or(Errno::EMFILE, Errno::from_raw))
    })
}

/// Copies what has ever been written to `from` to `to`, as far as that reaches.
///
/// # Errors
/// ENOMEM, ENOSPC: there is no memory for it.
pub fn copy(from: &OwnedFd, to: &OwnedFd) -> Result<(), Errno> {
    let errno = |error: std::io::Error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
    let (source, target) = (File::from(from.try_clone().map_err(errno)?), File::from(to.try_clone().map_err(errno)?));
    let (mut position, end) = (0, size(from)?.min(size(to)?));
    let mut buffer = [0; 8192];
    while let Some(data) = next_data(from, position).filter(|data| *data < end) {
        let room = usize::try_from(end - data).unwrap_or(usize::MAX).min(buffer.len());
        let piece = buffer.get_mut(..room).unwrap_or_default();
        source.read_exact_at(piece, data).map_err(errno)?;
        target.write_all_at(piece, data).map_err(errno)?;
        position = data + room as u64;
    }
    Ok(())
}

/// Where the next part begins that takes room.
fn next_data(memory: &OwnedFd, position: u64) -> Option<u64> {
    let data = lseek64(memory, i64::try_from(position).ok()?, Whence::SeekData).ok()?;
    u64::try_from(data).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(memory: &OwnedFd, position: u64, length: usize) -> Vec<u8> {
        let mut content = vec![0; length];
        File::from(memory.try_clone().unwrap()).read_exact_at(&mut content, position).unwrap();
        content
    }

    fn write(memory: &OwnedFd, position: u64, content: &[u8]) {
        File::from(memory.try_clone().unwrap()).write_all_at(content, position).unwrap();
    }

    #[test]
    fn what_is_written_is_read() {
        let memory = empty(c"test").unwrap();
        assert_eq!(content(&memory), Ok(Vec::new()));
        write(&memory, 0, b"text");
        assert_eq!(content(&memory), Ok(b"text".to_vec()));
    }

    #[test]
    fn its_size_stays_whatever_who_has_it_does() {
        let memory = fixed(5000).unwrap();
        assert_eq!(size(&memory), Ok(5000));
        assert_eq!(read(&memory, 0, 5000), vec![0; 5000]);
        for other in [0, 4999, 5001, 1 << 40] {
            assert_eq!(nix::unistd::ftruncate(&memory, other), Err(Errno::EPERM));
        }
        let beyond = File::from(memory.try_clone().unwrap()).write_all_at(b"x", 100_000);
        assert_eq!(beyond.unwrap_err().raw_os_error(), Some(libc::EPERM));
        assert_eq!(fixed(u64::MAX).err(), Some(Errno::EFBIG));
    }

    #[test]
    fn each_descriptor_of_it_has_a_position_of_its_own() {
        use std::io::{Read as _, Write as _};
        let memory = fixed(8).unwrap();
        let (mut first, mut second) = (File::from(reopened(&memory).unwrap()), File::from(reopened(&memory).unwrap()));
        first.write_all(b"12345").unwrap();
        let mut content = String::new();
        second.read_to_string(&mut content).unwrap();
        assert_eq!(content, "12345\0\0\0");
        first.write_all(b"6").unwrap();
        assert_eq!(read(&memory, 0, 8), b"123456\0\0");
        assert_eq!(nix::unistd::ftruncate(&first, 0), Err(Errno::EPERM), "it is sealed all the same");
    }

    #[test]
    fn as_much_is_copied_as_there_is_room_for_and_holes_stay_holes() {
        let old = fixed(1 << 40).unwrap();
        write(&old, 0, b"begin");
        write(&old, (1 << 20) - 2, b"middle");
        write(&old, (1 << 40) - 3, b"end");
        for (to, cut) in [(1 << 20, true), (1 << 40, false), (1 << 41, false)] {
            let new = fixed(to).unwrap();
            copy(&old, &new).unwrap();
            assert_eq!(read(&new, 0, 6), b"begin\0");
            let middle: &[u8] = if cut { b"mi" } else { b"middle" };
            assert_eq!(read(&new, (1 << 20) - 2, middle.len()), middle);
            if !cut {
                assert_eq!(read(&new, (1 << 40) - 3, 3), b"end");
            }
            let blocks = nix::sys::stat::fstat(&new).unwrap().st_blocks;
            assert!(blocks * 512 < 1 << 20, "{blocks} blocks");
        }
    }
}

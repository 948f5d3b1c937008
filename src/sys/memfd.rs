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

/// Memory for data of a service, of no bytes yet: whoever has it can make it larger and smaller, and nobody can keep
/// others from that. It takes no room before something is written.
///
/// # Errors
/// EMFILE, ENFILE, ENOMEM.
pub fn for_data() -> Result<OwnedFd, Errno> {
    let memory = memfd_create(c"keepalive-state", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    // Where `vm.memfd_noexec` is set, it could be sealed even if it had not been made for that.
    fcntl(&memory, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SEAL))?;
    Ok(memory)
}

/// Makes it so large or so small. What is cut off is gone, and who has it mapped and looks there dies of SIGBUS.
///
/// # Errors
/// ENOMEM, ENOSPC: there is no memory for it; EFBIG: it can never be so large, or may not, and then we are sent SIGXFSZ.
pub fn resize(memory: impl AsFd, size: u64) -> Result<(), Errno> {
    nix::unistd::ftruncate(memory, i64::try_from(size).map_err(|_| Errno::EFBIG)?)
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
/// None for what is made here.
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
    fn what_is_kept_of_it_when_its_size_changes_stays_and_the_rest_is_zero() {
        let memory = for_data().unwrap();
        assert_eq!(size(&memory), Ok(0));
        resize(&memory, 4).unwrap();
        write(&memory, 0, b"1234");
        for (to, expect) in [(6, &b"1234\0\0"[..]), (2, b"12"), (4, b"12\0\0")] {
            resize(&memory, to).unwrap();
            assert_eq!(content(&memory), Ok(expect.to_vec()));
        }
        assert_eq!(resize(&memory, u64::MAX), Err(Errno::EFBIG));
        assert_eq!(size(&memory), Ok(4));
    }

    #[test]
    fn nobody_can_keep_others_from_changing_it() {
        let memory = for_data().unwrap();
        for seal in [SealFlag::F_SEAL_GROW, SealFlag::F_SEAL_SHRINK, SealFlag::F_SEAL_WRITE] {
            assert_eq!(fcntl(&memory, FcntlArg::F_ADD_SEALS(seal)), Err(Errno::EPERM));
        }
    }

    #[test]
    fn each_descriptor_of_it_has_a_position_of_its_own() {
        use std::io::{Read as _, Write as _};
        let memory = for_data().unwrap();
        resize(&memory, 8).unwrap();
        let (mut first, mut second) = (File::from(reopened(&memory).unwrap()), File::from(reopened(&memory).unwrap()));
        first.write_all(b"12345").unwrap();
        let mut content = String::new();
        second.read_to_string(&mut content).unwrap();
        assert_eq!(content, "12345\0\0\0");
        first.write_all(b"6").unwrap();
        assert_eq!(read(&memory, 0, 8), b"123456\0\0");
    }
}

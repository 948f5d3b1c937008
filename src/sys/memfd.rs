//! Anonymous files in memory: memfd_create(2), `F_ADD_SEALS` of fcntl(2), `/proc/self/fd` of proc(5).

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::Mode;
use nix::unistd::{Whence, lseek64};

use crate::model::errno::is_shortage;

/// Creates an empty memfd that can never be sealed, so that every process that has it can always write to it and resize
/// it. It uses no memory until it is written to.
///
/// # Errors
/// EMFILE, ENFILE, ENOMEM.
pub fn create_resizable() -> Result<OwnedFd, Errno> {
    let memory = memfd_create(c"keepalive-state", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    // Without MFD_ALLOW_SEALING, `vm.memfd_noexec` would make the memfd sealable. So seal it against further seals.
    fcntl(&memory, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SEAL))?;
    Ok(memory)
}

/// Sets the size in bytes. Data beyond a smaller size is lost; a process that has it mapped and accesses it gets SIGBUS.
///
/// # Errors
/// ENOMEM, ENOSPC: out of memory. EFBIG: larger than possible, or than `RLIMIT_FSIZE`, which also sends SIGXFSZ.
pub fn resize(memory: impl AsFd, size: u64) -> Result<(), Errno> {
    nix::unistd::ftruncate(memory, i64::try_from(size).map_err(|_| Errno::EFBIG)?)
}

/// Creates an empty memfd.
///
/// # Errors
/// EMFILE, ENFILE, ENOMEM.
pub fn create(name: &CStr) -> Result<OwnedFd, Errno> {
    memfd_create(name, MFdFlags::MFD_CLOEXEC)
}

/// Reads the whole content.
///
/// # Errors
/// EMFILE, ENFILE.
pub fn read_all(memory: &OwnedFd) -> Result<Vec<u8>, Errno> {
    let errno = |error: std::io::Error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
    let mut content = vec![0; usize::try_from(size(memory)?).unwrap_or(usize::MAX)];
    File::from(memory.try_clone().map_err(errno)?).read_exact_at(&mut content, 0).map_err(errno)?;
    Ok(content)
}

/// The size in bytes.
///
/// # Errors
/// None for a memfd.
pub fn size(memory: impl AsFd) -> Result<u64, Errno> {
    nix::sys::stat::fstat(memory).map(|status| status.st_size.unsigned_abs())
}

/// Opens a memfd again, so that the new descriptor has a file offset of its own, at the start. Without /proc the offset is
/// shared, and reset to the start.
///
/// # Errors
/// EMFILE, ENFILE, ENOMEM.
pub fn reopen(memory: &OwnedFd) -> Result<OwnedFd, Errno> {
    let path = format!("/proc/self/fd/{}", memory.as_raw_fd());
    match nix::fcntl::open(path.as_str(), OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()) {
        Err(errno) if !is_shortage(errno) => {
            lseek64(memory, 0, Whence::SeekSet)?;
            // fcntl(2) fails with EINVAL if the limit on open descriptors is very low.
            memory.try_clone().map_err(|_| Errno::EMFILE)
        }
        opened => opened,
    }
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
    fn read_all_returns_what_was_written() {
        let memory = create(c"test").unwrap();
        assert_eq!(read_all(&memory), Ok(Vec::new()));
        write(&memory, 0, b"text");
        assert_eq!(read_all(&memory), Ok(b"text".to_vec()));
    }

    #[test]
    fn a_resize_keeps_the_remaining_data_and_fills_up_with_zeros() {
        let memory = create_resizable().unwrap();
        assert_eq!(size(&memory), Ok(0));
        resize(&memory, 4).unwrap();
        write(&memory, 0, b"1234");
        for (to, expect) in [(6, &b"1234\0\0"[..]), (2, b"12"), (4, b"12\0\0")] {
            resize(&memory, to).unwrap();
            assert_eq!(read_all(&memory), Ok(expect.to_vec()));
        }
        assert_eq!(resize(&memory, u64::MAX), Err(Errno::EFBIG));
        assert_eq!(size(&memory), Ok(4));
    }

    #[test]
    fn a_resizable_memfd_cannot_be_sealed() {
        let memory = create_resizable().unwrap();
        for seal in [SealFlag::F_SEAL_GROW, SealFlag::F_SEAL_SHRINK, SealFlag::F_SEAL_WRITE] {
            assert_eq!(fcntl(&memory, FcntlArg::F_ADD_SEALS(seal)), Err(Errno::EPERM));
        }
    }

    #[test]
    fn each_reopened_descriptor_has_a_file_offset_of_its_own() {
        use std::io::{Read as _, Write as _};
        let memory = create_resizable().unwrap();
        resize(&memory, 8).unwrap();
        let (mut first, mut second) = (File::from(reopen(&memory).unwrap()), File::from(reopen(&memory).unwrap()));
        first.write_all(b"12345").unwrap();
        let mut content = String::new();
        second.read_to_string(&mut content).unwrap();
        assert_eq!(content, "12345\0\0\0");
        first.write_all(b"6").unwrap();
        assert_eq!(read(&memory, 0, 8), b"123456\0\0");
    }
}

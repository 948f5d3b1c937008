//! Raw system calls, syscall(2), for a child that shares its memory with keepalive.
//!
//! libc's functions report failures through `errno`, which such a child would overwrite while keepalive runs.

use std::ffi::c_long;

use nix::errno::Errno;

/// The largest number that the kernel returns for a failure. `MAX_ERRNO` of the kernel
const MAX_ERRNO: c_long = 4095;

/// Makes a system call with up to six arguments.
///
/// # Errors
/// Those of the system call.
///
/// # Safety
/// The arguments must be valid for the system call: what the kernel reads or writes must be readable or writable.
pub(super) unsafe fn syscall<const N: usize>(number: c_long, arguments: [c_long; N]) -> Result<c_long, Errno> {
    let mut all = [0; 6];
    for (to, from) in all.iter_mut().zip(arguments) {
        *to = from;
    }
    // SAFETY: the caller's.
    let result = unsafe { enter_kernel(number, all) };
    if (-MAX_ERRNO..0).contains(&result) {
        return Err(Errno::from_raw(i32::try_from(-result).unwrap_or(0)));
    }
    Ok(result)
}

/// As [`syscall()`], for arguments that are plain numbers or point to memory that the kernel only reads.
pub(super) fn reading<const N: usize>(number: c_long, arguments: [c_long; N]) -> Result<c_long, Errno> {
    // SAFETY: the callers in this folder pass numbers and pointers to valid data that the kernel only reads.
    unsafe { syscall(number, arguments) }
}

#[cfg(target_arch = "x86_64")]
unsafe fn enter_kernel(number: c_long, [a, b, c, d, e, f]: [c_long; 6]) -> c_long {
    let result;
    // SAFETY: the registers of syscall(2) for x86-64. The kernel changes rcx and r11; the caller vouches for the memory.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _,
            options(nostack)
        );
    }
    result
}

#[cfg(target_arch = "aarch64")]
unsafe fn enter_kernel(number: c_long, [a, b, c, d, e, f]: [c_long; 6]) -> c_long {
    let result;
    // SAFETY: the registers of syscall(2) for arm64; the caller vouches for the memory.
    unsafe {
        std::arch::asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") a => result,
            in("x1") b, in("x2") c, in("x3") d, in("x4") e, in("x5") f,
            options(nostack)
        );
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_a_number_or_the_errno() {
        let own = i64::from(std::process::id());
        assert_eq!(reading(libc::SYS_getpid, []), Ok(own));
        assert_eq!(reading(libc::SYS_close, [-1]), Err(Errno::EBADF));
        let room = [1, libc::F_DUPFD_CLOEXEC.into(), 900];
        let copy = reading(libc::SYS_fcntl, room).unwrap();
        assert!(copy >= 900);
        assert_eq!(reading(libc::SYS_close, [copy]), Ok(0));
    }

    #[test]
    fn all_six_arguments_arrive() {
        let (protection, flags) = (libc::PROT_READ.into(), c_long::from(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS));
        // SAFETY: a new anonymous mapping replaces no other.
        let start = unsafe { syscall(libc::SYS_mmap, [0, 4096, protection, flags, -1, 0]) };
        // SAFETY: the mapping was made above, and nothing uses it.
        assert_eq!(unsafe { syscall(libc::SYS_munmap, [start.unwrap(), 4096]) }, Ok(0));
        // The last argument, the offset, is no multiple of the page size.
        // SAFETY: as above; it fails.
        let refused = unsafe { syscall(libc::SYS_mmap, [0, 4096, protection, flags, -1, 1]) };
        assert_eq!(refused, Err(Errno::EINVAL));
    }

    #[test]
    fn errno_is_left_alone() {
        Errno::E2BIG.set();
        assert_eq!(reading(libc::SYS_close, [-1]), Err(Errno::EBADF));
        assert_eq!(Errno::last(), Errno::E2BIG);
    }
}

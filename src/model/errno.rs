//! Descriptions of errno values, strerror(3).

use nix::errno::Errno;

/// The description that strerror(3) of glibc returns, which people search for and scripts match.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that knows which descriptions differ from those of glibc")]
#[expect(clippy::wildcard_enum_match_arm, reason = "all others are the same as those of glibc")]
pub fn words(errno: Errno) -> &'static str {
    match errno {
        Errno::EIO => "Input/output error",
        Errno::EBADF => "Bad file descriptor",
        Errno::EAGAIN => "Resource temporarily unavailable",
        Errno::ENOMEM => "Cannot allocate memory",
        Errno::EXDEV => "Invalid cross-device link",
        Errno::ENFILE => "Too many open files in system",
        Errno::ENOTTY => "Inappropriate ioctl for device",
        Errno::EDOM => "Numerical argument out of domain",
        Errno::ERANGE => "Numerical result out of range",
        Errno::EDEADLK => "Resource deadlock avoided",
        Errno::ENOLCK => "No locks available",
        Errno::ELOOP => "Too many levels of symbolic links",
        Errno::EBADMSG => "Bad message",
        Errno::EILSEQ => "Invalid or incomplete multibyte or wide character",
        Errno::EOPNOTSUPP => "Operation not supported",
        Errno::ENETRESET => "Network dropped connection on reset",
        Errno::EDQUOT => "Disk quota exceeded",
        other => other.desc(),
    }
}

/// As [`words`], for a path that keepalive resolves with `sys::directory`.
#[must_use]
pub fn words_of_path(errno: Errno) -> &'static str {
    if errno == Errno::ELOOP {
        "keepalive does not follow a symbolic link on its path that other users can change; name the real path, or give the \
         link and its directory to root"
    } else {
        words(errno)
    }
}

/// Whether a resource of the system was exhausted, so that the same call may succeed later.
#[must_use]
pub const fn is_shortage(errno: Errno) -> bool {
    matches!(errno, Errno::EAGAIN | Errno::ENOMEM | Errno::EMFILE | Errno::ENFILE)
}

#[cfg(test)]
mod tests {
    use super::*;

    // errno(3), with the descriptions of strerror(3) of glibc.
    #[test]
    fn descriptions_are_those_of_glibc() {
        let descriptions = [
            (Errno::EPERM, "Operation not permitted"),
            (Errno::ENOENT, "No such file or directory"),
            (Errno::ESRCH, "No such process"),
            (Errno::EINTR, "Interrupted system call"),
            (Errno::EIO, "Input/output error"),
            (Errno::ENXIO, "No such device or address"),
            (Errno::E2BIG, "Argument list too long"),
            (Errno::ENOEXEC, "Exec format error"),
            (Errno::EBADF, "Bad file descriptor"),
            (Errno::ECHILD, "No child processes"),
            (Errno::EAGAIN, "Resource temporarily unavailable"),
            (Errno::ENOMEM, "Cannot allocate memory"),
            (Errno::EACCES, "Permission denied"),
            (Errno::EFAULT, "Bad address"),
            (Errno::EBUSY, "Device or resource busy"),
            (Errno::ENODEV, "No such device"),
            (Errno::ENOTDIR, "Not a directory"),
            (Errno::EISDIR, "Is a directory"),
            (Errno::EINVAL, "Invalid argument"),
            (Errno::ENFILE, "Too many open files in system"),
            (Errno::EMFILE, "Too many open files"),
            (Errno::ENOTTY, "Inappropriate ioctl for device"),
            (Errno::ETXTBSY, "Text file busy"),
            (Errno::ENOSPC, "No space left on device"),
            (Errno::EROFS, "Read-only file system"),
            (Errno::EPIPE, "Broken pipe"),
            (Errno::ENAMETOOLONG, "File name too long"),
            (Errno::ENOSYS, "Function not implemented"),
            (Errno::ELOOP, "Too many levels of symbolic links"),
            (Errno::ELIBBAD, "Accessing a corrupted shared library"),
            (Errno::EOPNOTSUPP, "Operation not supported"),
            (Errno::EADDRINUSE, "Address already in use"),
            (Errno::ETIMEDOUT, "Connection timed out"),
            (Errno::ESTALE, "Stale file handle"),
            (Errno::EDQUOT, "Disk quota exceeded"),
        ];
        for (errno, text) in descriptions {
            assert_eq!(words(errno), text, "{errno:?}");
        }
    }
}

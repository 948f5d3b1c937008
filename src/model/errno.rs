//! Errors of system calls in the words of strerror(3).

use nix::errno::Errno;

/// What strerror(3) of glibc says, which is what people search for and what scripts match.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that knows where its words differ")]
#[expect(clippy::wildcard_enum_match_arm, reason = "all others are as glibc has them")]
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

#[cfg(test)]
mod tests {
    use super::*;

    // errno(3), and what glibc's strerror(3) makes of it.
    #[test]
    fn what_our_calls_give_is_said_as_glibc_says_it() {
        let said = [
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
        for (errno, text) in said {
            assert_eq!(words(errno), text, "{errno:?}");
        }
    }
}

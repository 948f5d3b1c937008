//! The termination log: a file in which an orchestrator looks for the reason of an unrecoverable exit.

use std::io::Write as _;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::sys::directory::{Directory, Missing, OpenError};

/// Kubernetes reads 4096 bytes of a termination message at most.
const MAX_REASON_BYTES: usize = 4096;

/// Writes the last [`MAX_REASON_BYTES`] of `reason` into the file at `path`, if that file exists: whoever wants to read the
/// reason creates it.
///
/// Does not wait for the reader of a FIFO.
///
/// # Errors
/// Those of write(2), and a path that other users could have led elsewhere, see [`crate::sys::directory`]. Another file
/// that cannot be opened is no error.
pub fn write(path: &Path, reason: &str) -> Result<(), OpenError> {
    let start = reason.len().saturating_sub(MAX_REASON_BYTES);
    let end = reason.as_bytes().get(start..).unwrap_or_default();
    let opened =
        Directory::of(path, Missing::Fail).and_then(|(directory, name)| directory.open_file(&name, OFlag::O_WRONLY, 0));
    match opened {
        Ok(mut file) => {
            // Fails for a file that has no size, such as a FIFO.
            file.set_len(0).ok();
            Ok(file.write_all(end)?)
        }
        Err(OpenError::System(errno)) if errno != Errno::ELOOP => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_reason_replaces_what_the_file_contained_but_is_not_written_through_a_link() {
        let directory = std::env::temp_dir().join(format!("keepalive-termination-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let (file, link) = (directory.join("file"), directory.join("link"));
        fs::write(&file, "something longer\n").unwrap();
        std::os::unix::fs::symlink("file", &link).unwrap();
        let written = [write(&file, "why\n"), write(&link, "x"), write(&directory.join("missing/file"), "x")];
        let text = fs::read_to_string(&file);
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(text.unwrap(), "why\n");
        assert_eq!(written, [Ok(()), Err(OpenError::System(Errno::ELOOP)), Ok(())]);
    }
}

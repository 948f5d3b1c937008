//! The termination log: a file in which an orchestrator looks for the reason of an unrecoverable exit.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

/// Kubernetes reads 4096 bytes of a termination message at most.
const MAX_REASON_BYTES: usize = 4096;

/// Writes the last [`MAX_REASON_BYTES`] of `reason` into the file at `path`, if that file exists: whoever wants to read the
/// reason creates it.
///
/// Does not wait for the reader of a FIFO.
///
/// # Errors
/// Those of write(2). A file that cannot be opened is no error.
pub fn write(path: &Path, reason: &str) -> io::Result<()> {
    let start = reason.len().saturating_sub(MAX_REASON_BYTES);
    let end = reason.as_bytes().get(start..).unwrap_or_default();
    let opened = OpenOptions::new().write(true).truncate(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
    opened.map_or(Ok(()), |mut file| file.write_all(end))
}

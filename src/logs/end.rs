//! The reason of an unrecoverable end, left where an orchestrator looks for it.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

/// Kubernetes shows so many bytes of it at most.
const SIZE_LIMIT: usize = 4096;

/// Writes `reason`, or the end of it if it is long, into the file at `path`, and nothing where there is no such file: it
/// is made by whoever wants to hear.
///
/// Does not wait for the reader of a FIFO: without one there is nobody who wants to hear.
///
/// # Errors
/// What writing gave. That the file cannot be opened is none.
pub fn leave(path: &Path, reason: &str) -> io::Result<()> {
    let start = reason.len().saturating_sub(SIZE_LIMIT);
    let end = reason.as_bytes().get(start..).unwrap_or_default();
    let opened = OpenOptions::new().write(true).truncate(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
    opened.map_or(Ok(()), |mut file| file.write_all(end))
}

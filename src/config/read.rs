//! Reading files into memory, within limits of size and time.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::report::{Location, Source, UnlocatedDiagnostic};
use crate::model::errno;
use crate::model::units::format_duration;

/// The maximum size of a configuration file or `env_file` in bytes. A thousand services take about 256 KiB.
pub(super) const MAX_FILE_SIZE: u64 = 1 << 20;

/// How long to wait for data from a pipe: as long as `docker stop` waits for keepalive.
pub(super) const PIPE_READ_TIMEOUT: Duration = Duration::from_secs(10);

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The content of `path`, or why it cannot be read.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, String> {
    read_within(path, PIPE_READ_TIMEOUT)
}

fn read_within(path: &Path, pipe_timeout: Duration) -> Result<Vec<u8>, String> {
    read_raw(path, pipe_timeout).map_err(|errno| {
        if errno == Errno::ETIMEDOUT {
            format!("it is a pipe, and nothing was written to it for {}", format_duration(pipe_timeout))
        } else if errno == Errno::EFBIG {
            format!("larger than {} MiB", MAX_FILE_SIZE >> 20)
        } else {
            describe(&errno.into())
        }
    })
}

/// The content of `path`. ETIMEDOUT: it is a pipe, and nothing was written to it. EFBIG: it is larger than
/// [`MAX_FILE_SIZE`].
pub(super) fn read_raw(path: &Path, pipe_timeout: Duration) -> Result<Vec<u8>, Errno> {
    let errno = |error: io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
    let file = open(path, pipe_timeout).map_err(errno)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_SIZE + 1).read_to_end(&mut bytes).map_err(errno)?;
    if bytes.len() as u64 > MAX_FILE_SIZE {
        return Err(Errno::EFBIG);
    }
    if bytes.starts_with(BYTE_ORDER_MARK) {
        bytes.drain(..BYTE_ORDER_MARK.len());
    }
    Ok(bytes)
}

/// Opens a file without waiting: opening a FIFO without a writer would block PID 1 for ever.
fn open(path: &Path, pipe_timeout: Duration) -> io::Result<Opened> {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.file_type().is_fifo() {
        fcntl(&file, FcntlArg::F_SETFL(OFlag::empty()))?;
        return Ok(Opened { file, pipe: None });
    }
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(&file, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
    let timeout = EpollTimeout::try_from(pipe_timeout).unwrap_or(EpollTimeout::MAX);
    Ok(Opened { file, pipe: Some((epoll, timeout)) })
}

/// An open file.
struct Opened {
    file: File,
    /// For a pipe from another program, such as that of `<(command)`: the time limit for each read.
    pipe: Option<(Epoll, EpollTimeout)>,
}

impl io::Read for Opened {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some((epoll, timeout)) = &self.pipe
            && epoll.wait(&mut [EpollEvent::empty()], *timeout)? == 0
        {
            return Err(Errno::ETIMEDOUT.into());
        }
        self.file.read(buffer)
    }
}

/// The description of a system error without its number.
#[must_use]
pub fn describe(error: &io::Error) -> String {
    let description = error.raw_os_error().map_or("unknown error", |number| errno::words(Errno::from_raw(number)));
    let mut characters = description.chars();
    characters.next().map_or_else(String::new, |first| first.to_ascii_lowercase().to_string() + characters.as_str())
}

/// The text of a source, or an error if it is not UTF-8.
pub(super) fn text(source: &Source, number: usize) -> Result<&str, UnlocatedDiagnostic> {
    std::str::from_utf8(&source.bytes).map_err(|error| {
        let offset = error.valid_up_to();
        let byte = source.bytes.get(offset).copied().unwrap_or_default();
        let hint = match source.bytes.as_slice() {
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "it looks like UTF-16; save it as UTF-8",
            _ => "save the file as UTF-8",
        };
        let message = format!("not UTF-8: byte {offset} is 0x{byte:02x}");
        UnlocatedDiagnostic {
            location: Location { source: number, span: Some(offset..offset + 1) },
            message,
            hint: hint.to_owned(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fifo(name: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("keepalive-{name}-{}", std::process::id()));
        std::fs::remove_file(&path).ok();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        path
    }

    #[test]
    fn reading_a_pipe_without_a_writer_times_out() {
        let path = fifo("silent");
        let result = read_within(&path, Duration::from_millis(20));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(result, Err("it is a pipe, and nothing was written to it for 20ms".to_owned()));
    }

    #[test]
    fn a_pipe_with_a_writer_is_read_to_end_of_file() {
        let path = fifo("written");
        // Opened for reading and writing, so that opening does not wait for the other end, fifo(7).
        let mut writer = File::options().read(true).write(true).open(&path).unwrap();
        io::Write::write_all(&mut writer, b"[services]").unwrap();
        let mut opened = open(&path, PIPE_READ_TIMEOUT).unwrap();
        drop(writer);
        let mut bytes = Vec::new();
        opened.read_to_end(&mut bytes).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(bytes, b"[services]");
    }
}

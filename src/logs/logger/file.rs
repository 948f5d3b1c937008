//! A log file with rotation: at its size limit it is renamed, and a new file is begun.
//!
//! Lines that cannot be written are dropped, and that is reported once. A file system that hangs holds up the logger, and
//! with it the services that write, but not PID 1. A service may own the directory: see [`crate::sys::directory`].

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::open_line::OpenLine;
use crate::logs::protocol::FileTarget;
use crate::model::Mono;
use crate::sys::directory::{Directory, Missing, OpenError};

/// How often to try a file again that cannot be opened, and to check whether somebody else has renamed the file.
const RECHECK_INTERVAL: Duration = Duration::from_secs(1);
/// A longer buffer is flushed at once.
pub(super) const FLUSH_THRESHOLD_BYTES: usize = 128 << 10;

/// The file with its directory, in which it is rotated, wherever the path leads meanwhile.
#[derive(Debug)]
struct Open {
    file: File,
    directory: Directory,
    name: OsString,
}

#[derive(Debug)]
pub(super) struct LogFile {
    target: FileTarget,
    open: Option<Open>,
    size: u64,
    /// Whole lines; the last one may go on, see `open_line`.
    pub(super) buffer: Vec<u8>,
    checked_at: Option<Mono>,
    is_failing: bool,
    lost_bytes: u64,
    pub(super) open_line: OpenLine,
    partial_line: bool,
    /// No pipe leads here any more: it is closed when its buffer has been written.
    pub(super) is_unused: bool,
}

impl LogFile {
    pub(super) fn new(target: FileTarget) -> Self {
        Self {
            target,
            open: None,
            size: 0,
            buffer: Vec::new(),
            checked_at: None,
            is_failing: false,
            lost_bytes: 0,
            open_line: OpenLine::default(),
            partial_line: false,
            is_unused: false,
        }
    }

    /// The limits of a definition that uses the file from now on.
    pub(super) fn set_limits(&mut self, target: &FileTarget) {
        (self.target.max_size, self.target.max_files) = (target.max_size, target.max_files);
        self.is_unused = false;
    }

    pub(super) fn path(&self) -> &Path {
        &self.target.path
    }

    /// Writes the buffer. Returns a message if writing begins to fail, or works again.
    pub(super) fn flush(&mut self, now: Mono) -> Option<String> {
        let message = self.write_buffer(now);
        if self.is_unused {
            (self.open, self.checked_at) = (None, None);
        }
        message
    }

    fn write_buffer(&mut self, now: Mono) -> Option<String> {
        if self.buffer.is_empty() {
            return None;
        }
        let buffer = std::mem::take(&mut self.buffer);
        let mut written = 0;
        let result = self.write(&buffer, &mut written, now);
        let lost = buffer.len() - written;
        self.buffer = buffer;
        self.buffer.clear();
        self.lost_bytes += lost as u64;
        let written = &self.target.shown;
        let path = if written.is_empty() { self.target.path.display().to_string() } else { written.clone() };
        match (self.is_failing, result) {
            (false, Err(error)) => {
                self.is_failing = true;
                let mut reason = error.to_string();
                // The part of the path that is a link may contain secrets.
                if !written.is_empty() && reason.contains('/') {
                    reason.replace_range(.., "a symbolic link that other users can change");
                }
                Some(format!("cannot write to {path}: {reason}; lines are dropped"))
            }
            (true, Ok(())) => {
                self.is_failing = false;
                let lost = std::mem::take(&mut self.lost_bytes);
                Some(format!("{path} is writable again, {lost} bytes were dropped"))
            }
            (false, Ok(())) | (true, Err(_)) => None,
        }
    }

    fn write(&mut self, buffer: &[u8], written: &mut usize, now: Mono) -> Result<(), OpenError> {
        self.ensure_open(now)?;
        if self.partial_line {
            self.append(b"\n")?;
            self.partial_line = false;
        }
        while let Some(rest) = buffer.get(*written..).filter(|rest| !rest.is_empty()) {
            let fits = fitting_bytes(rest, self.target.max_size.saturating_sub(self.size));
            if fits == 0 && self.size > 0 {
                self.rotate()?;
                continue;
            }
            // A line that is longer than the limit gets a file of its own.
            let part = if fits == 0 { first_line_bytes(rest) } else { fits };
            let mut left = rest.get(..part).unwrap_or_default();
            while !left.is_empty() {
                let count = match self.append(left) {
                    Ok(count) => count,
                    Err(error) => {
                        self.partial_line = left.len() < part;
                        return Err(error);
                    }
                };
                *written += count;
                left = left.get(count..).unwrap_or_default();
            }
        }
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<usize, OpenError> {
        let Some(Open { file, .. }) = &mut self.open else { return Err(Errno::EBADF.into()) };
        let count = match file.write(bytes) {
            Ok(0) => return Err(Errno::EIO.into()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            other => other?,
        };
        self.size += count as u64;
        Ok(count)
    }

    /// Opens the file if it is not open, or if its path leads to another file by now.
    fn ensure_open(&mut self, now: Mono) -> Result<(), OpenError> {
        if self.checked_at.is_some_and(|checked_at| now.since(checked_at) < RECHECK_INTERVAL) {
            return if self.open.is_some() { Ok(()) } else { Err(Errno::EAGAIN.into()) };
        }
        self.checked_at = Some(now);
        let open = self.open.take();
        let (directory, name) = Directory::of(&self.target.path, Missing::Create)?;
        let is_at_path = |open: &Open| {
            let (Ok(ours), Ok(theirs)) = (open.file.metadata(), directory.identity(&name)) else { return false };
            (ours.dev(), ours.ino()) == theirs
        };
        if open.as_ref().is_some_and(is_at_path) {
            self.open = open;
            return Ok(());
        }
        self.open_in(directory, name)
    }

    fn open_in(&mut self, directory: Directory, name: OsString) -> Result<(), OpenError> {
        let file = directory.open_file(&name, OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT, 0o640)?;
        let metadata: Metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(OpenError::NotRegular);
        }
        self.partial_line = match last_byte(&directory, &name, &metadata) {
            Some(last) => last != b'\n',
            // An empty file, or one that we may not read: then it is as we left it.
            None => self.partial_line && metadata.len() > 0,
        };
        (self.open, self.size) = (Some(Open { file, directory, name }), metadata.len());
        Ok(())
    }

    /// Renames `web.log` to `web.log.1`, that to `web.log.2`, and so on; the oldest file is replaced.
    fn rotate(&mut self) -> Result<(), OpenError> {
        let Some(Open { file, directory, name }) = self.open.take() else { return Err(Errno::EBADF.into()) };
        for number in (1..self.target.max_files).rev() {
            // Fails for numbers that do not exist yet.
            directory.rename(&numbered(&name, number), &numbered(&name, number + 1)).ok();
        }
        let result = match self.target.max_files {
            0 => directory.remove(&name),
            _ => directory.rename(&name, &numbered(&name, 1)),
        };
        match result {
            Ok(()) | Err(Errno::ENOENT) => self.open_in(directory, name),
            // The file grows on, and is tried again at twice the limit.
            Err(_) => {
                (self.open, self.size) = (Some(Open { file, directory, name }), 0);
                Ok(())
            }
        }
    }
}

/// The last byte of the file; `None`: it is empty, or we may not read it.
fn last_byte(directory: &Directory, name: &OsStr, metadata: &Metadata) -> Option<u8> {
    let end = metadata.len().checked_sub(1)?;
    let file = directory.open_file(name, OFlag::O_RDONLY, 0).ok()?;
    let found = file.metadata().ok()?;
    if (found.dev(), found.ino()) != (metadata.dev(), metadata.ino()) {
        return None;
    }
    let mut last = [0];
    file.read_exact_at(&mut last, end).ok()?;
    Some(last[0])
}

fn numbered(name: &OsStr, number: u32) -> OsString {
    let mut name = name.to_owned();
    name.push(format!(".{number}"));
    name
}

/// The length of as many whole lines of `text` as fit into `room` bytes.
fn fitting_bytes(text: &[u8], room: u64) -> usize {
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    if text.len() <= room {
        return text.len();
    }
    let window = text.get(..room).unwrap_or_default();
    window.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1)
}

fn first_line_bytes(text: &[u8]) -> usize {
    text.iter().position(|byte| *byte == b'\n').map_or(text.len(), |end| end + 1)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, lchown, symlink};
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("keepalive-log-{}-{number}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn file(&self, max_size: u64, max_files: u32) -> LogFile {
            LogFile::new(FileTarget { path: self.0.join("a.log"), shown: String::new(), max_size, max_files })
        }

        /// All files: name and content.
        fn content(&self) -> Vec<(String, String)> {
            let entries = fs::read_dir(&self.0).unwrap().map(Result::unwrap);
            let read = |entry: fs::DirEntry| {
                (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap())
            };
            let mut files: Vec<_> = entries.map(read).collect();
            files.sort();
            files
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    const fn at(seconds: u64) -> Mono {
        Mono::from_nanos(seconds * 1_000_000_000)
    }

    fn put(file: &mut LogFile, text: &str, seconds: u64) -> Option<String> {
        file.buffer.extend_from_slice(text.as_bytes());
        file.flush(at(seconds))
    }

    #[track_caller]
    fn expect(scratch: &Scratch, files: &[(&str, &str)]) {
        let content = scratch.content();
        let content: Vec<_> = content.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        assert_eq!(content, files);
    }

    #[test]
    fn a_full_file_is_rotated_between_lines_and_the_oldest_is_removed() {
        let scratch = Scratch::new();
        let mut file = scratch.file(10, 2);
        assert_eq!(put(&mut file, "one\ntwo\nthree\nfour\n", 0), None);
        expect(&scratch, &[("a.log", "three\nfour\n"[6..].into()), ("a.log.1", "three\n"), ("a.log.2", "one\ntwo\n")]);
        assert_eq!(put(&mut file, "five\nsix and more than that\nseven\n", 0), None);
        expect(&scratch, &[("a.log", "seven\n"), ("a.log.1", "six and more than that\n"), ("a.log.2", "four\nfive\n")]);
        assert_eq!(fs::metadata(file.path()).unwrap().permissions().mode() & 0o777 & !0o640, 0);
        let mut none_kept = scratch.file(10, 0);
        assert_eq!(put(&mut none_kept, "eight\nnine\n", 0), None);
        assert_eq!(fs::read_to_string(file.path()).unwrap(), "nine\n");
    }

    #[test]
    fn a_file_that_ends_within_a_line_is_continued_on_a_new_line() {
        let scratch = Scratch::new();
        fs::write(scratch.0.join("a.log"), "within a l").unwrap();
        let mut file = scratch.file(100, 1);
        assert_eq!(put(&mut file, "one\n", 0), None);
        assert_eq!(put(&mut file, "two\n", 0), None);
        expect(&scratch, &[("a.log", "within a l\none\ntwo\n")]);
        assert_eq!(put(&mut scratch.file(100, 1), "three\n", 0), None);
        expect(&scratch, &[("a.log", "within a l\none\ntwo\nthree\n")]);
        fs::write(scratch.0.join("a.log"), "").unwrap();
        assert_eq!(put(&mut scratch.file(100, 1), "four\n", 0), None);
        expect(&scratch, &[("a.log", "four\n")]);
    }

    #[test]
    fn an_existing_file_is_continued_up_to_its_limit() {
        let scratch = Scratch::new();
        fs::write(scratch.0.join("a.log"), "before\n").unwrap();
        assert_eq!(put(&mut scratch.file(10, 1), "ab\n", 0), None);
        expect(&scratch, &[("a.log", "before\nab\n")]);
        assert_eq!(put(&mut scratch.file(10, 1), "cd\n", 0), None);
        expect(&scratch, &[("a.log", "cd\n"), ("a.log.1", "before\nab\n")]);
    }

    #[test]
    fn a_file_that_somebody_else_has_renamed_is_created_again() {
        let scratch = Scratch::new();
        let mut file = scratch.file(1 << 20, 1);
        put(&mut file, "one\n", 0);
        fs::rename(scratch.0.join("a.log"), scratch.0.join("moved")).unwrap();
        put(&mut file, "two\n", 2);
        expect(&scratch, &[("a.log", "two\n"), ("moved", "one\n")]);
    }

    #[test]
    fn a_failure_is_reported_once_and_so_is_its_end() {
        let scratch = Scratch::new();
        let mut file = scratch.file(1 << 20, 1);
        // Root can enter every directory.
        fs::write(scratch.0.join("x"), "").unwrap();
        file.target.path = scratch.0.join("x/a.log");
        let path = file.path().display().to_string();
        let report = put(&mut file, "one\n", 0);
        assert_eq!(report, Some(format!("cannot write to {path}: Not a directory; lines are dropped")));
        assert_eq!((put(&mut file, "two\n", 0), put(&mut file, "two\n", 5)), (None, None));
        fs::remove_file(scratch.0.join("x")).unwrap();
        assert_eq!(put(&mut file, "three\n", 5), None, "it is not tried again so soon");
        let report = put(&mut file, "four\n", 7);
        assert_eq!(report, Some(format!("{path} is writable again, 18 bytes were dropped")));
        assert_eq!(fs::read_to_string(file.path()).unwrap(), "four\n");
    }

    #[test]
    fn symbolic_links_and_special_files_are_not_written() {
        let scratch = Scratch::new();
        symlink(scratch.0.join("else"), scratch.0.join("a.log")).unwrap();
        assert!(put(&mut scratch.file(100, 1), "one\n", 0).is_some());
        assert!(!scratch.0.join("else").exists());
        fs::remove_file(scratch.0.join("a.log")).unwrap();
        nix::unistd::mkfifo(&scratch.0.join("a.log"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(put(&mut scratch.file(100, 1), "one\n", 0).is_some(), "nobody reads it");
        fs::remove_file(scratch.0.join("a.log")).unwrap();
        let mut null = scratch.file(100, 1);
        null.target.path = "/dev/null".into();
        let report = put(&mut null, "one\n", 0).unwrap();
        assert_eq!(report, "cannot write to /dev/null: not a regular file; lines are dropped");
    }

    // A service that owns the directory of its log file could lead keepalive, which is root, to the files of others.
    #[test]
    fn a_directory_that_another_user_replaces_by_a_link_is_neither_written_nor_rotated() {
        let scratch = Scratch::new();
        let (log, precious) = (scratch.0.join("log"), scratch.0.join("precious"));
        fs::create_dir(&precious).unwrap();
        fs::write(precious.join("a.log"), "precious\n").unwrap();
        let mut file = scratch.file(10, 2);
        file.target.path = log.join("a.log");
        assert_eq!(put(&mut file, "one\n", 0), None);
        fs::rename(&log, scratch.0.join("old")).unwrap();
        symlink("precious", &log).unwrap();
        if lchown(&log, Some(65_534), None).is_err() {
            return;
        }
        assert_eq!(put(&mut file, "two\nthree\n", 0), None, "the path is looked at once a second");
        assert_eq!(fs::read_to_string(scratch.0.join("old/a.log.1")).unwrap(), "one\ntwo\n");
        let (path, link) = (file.path().display().to_string(), log.display().to_string());
        let reason = format!("{link} is a symbolic link that other users can change");
        assert_eq!(put(&mut file, "four\n", 2), Some(format!("cannot write to {path}: {reason}; lines are dropped")));
        assert_eq!(put(&mut file, "five\n", 4), None);
        fs::remove_file(&log).unwrap();
        assert_eq!(put(&mut file, "six\n", 6), Some(format!("{path} is writable again, 10 bytes were dropped")));
        assert_eq!(fs::read_to_string(log.join("a.log")).unwrap(), "six\n");
        let names: Vec<_> = fs::read_dir(&precious).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["a.log"]);
        assert_eq!(fs::read_to_string(precious.join("a.log")).unwrap(), "precious\n");
    }

    #[test]
    fn new_limits_apply_to_a_file_that_is_open() {
        let scratch = Scratch::new();
        let mut file = scratch.file(1 << 20, 2);
        file.buffer.extend_from_slice(b"one\n");
        file.flush(at(0));
        let target = FileTarget { path: file.path().to_owned(), shown: String::new(), max_size: 4, max_files: 2 };
        file.set_limits(&target);
        file.buffer.extend_from_slice(b"two\n");
        file.flush(at(0));
        expect(&scratch, &[("a.log", "two\n"), ("a.log.1", "one\n")]);
    }

    #[test]
    fn a_partial_line_is_continued_unless_another_line_comes_between() {
        let scratch = Scratch::new();
        let mut file = scratch.file(1 << 20, 1);
        for (key, text, is_cut) in [(1, "one", true), (1, " and one\n", false), (1, "one", true), (2, "two\n", false)] {
            file.open_line.begin(key, &mut file.buffer);
            file.buffer.extend_from_slice(text.as_bytes());
            if is_cut {
                file.open_line.leave(key);
            }
        }
        file.flush(at(0));
        expect(&scratch, &[("a.log", "one and one\none\ntwo\n")]);
    }
}

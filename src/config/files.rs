//! Queries to the file system while a configuration is loaded.
//!
//! A query can hang, because a mount can hang. So another process can load the configuration first, with a [`RecordingFs`].
//! A [`RecordedFs`] then returns the recorded results in the same order. That works because loading makes the same queries
//! as long as it gets the same results.

use std::cell::{Cell, RefCell};
use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::errno::Errno;

use super::read;

/// The maximum size of all files of a configuration in bytes. All are in memory at once, and twice during a reload.
const MAX_TOTAL_SIZE: usize = 8 << 20;
/// The maximum size of /etc/passwd and of /etc/group in bytes.
const MAX_USERS_FILE_SIZE: u64 = 8 << 20;
/// The maximum size of all file names in a directory in bytes.
const MAX_DIRECTORY_NAMES_SIZE: usize = 1 << 20;

/// A query to the file system.
#[derive(Clone, Copy, Debug)]
pub enum FsQuery<'q> {
    /// The content of a file of the configuration.
    ReadFile(&'q Path),
    /// The content of /etc/passwd or /etc/group.
    ReadUsers(&'q Path),
    /// The names in a directory, each followed by a NUL; empty if the directory does not exist.
    ListDirectory(&'q Path),
    /// Device and inode of a file.
    Identify(&'q Path),
    /// Not empty if the file exists or may exist.
    Exists(&'q Path),
}

/// The result of a query, or why it failed.
pub type FsResult = Result<Vec<u8>, String>;

/// A function that answers queries.
pub type Files<'f> = &'f dyn Fn(&FsQuery<'_>) -> FsResult;

/// Queries the real file system.
///
/// # Errors
/// A description of the system's error.
pub fn query_fs(query: &FsQuery<'_>) -> FsResult {
    let result = match *query {
        FsQuery::ReadFile(path) => return read::read(path),
        FsQuery::ReadUsers(path) => read_users(path),
        FsQuery::ListDirectory(path) => return list_directory(path, MAX_DIRECTORY_NAMES_SIZE),
        FsQuery::Identify(path) => std::fs::metadata(path)
            .map(|metadata| [metadata.dev().to_ne_bytes(), metadata.ino().to_ne_bytes()].concat()),
        FsQuery::Exists(path) => match std::fs::metadata(path) {
            Err(error) if is_not_found(&error) => Ok(Vec::new()),
            // A file whose metadata cannot be read counts as existing: reading it reports why.
            Ok(_) | Err(_) => Ok(vec![1]),
        },
    };
    result.map_err(|error| read::describe(&error))
}

fn is_not_found(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn read_users(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_USERS_FILE_SIZE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_USERS_FILE_SIZE { Err(Errno::EFBIG.into()) } else { Ok(bytes) }
}

fn list_directory(directory: &Path, limit: usize) -> FsResult {
    let names = names_up_to(directory, limit).map_err(|error| read::describe(&error))?;
    if names.len() > limit { Err("it contains too many files".to_owned()) } else { Ok(names) }
}

/// The names in a directory. Stops after more than `limit` bytes.
fn names_up_to(directory: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let mut names = Vec::new();
    match std::fs::read_dir(directory) {
        Ok(entries) => {
            for entry in entries.map_while(Result::ok) {
                names.extend_from_slice(entry.file_name().as_bytes());
                names.push(0);
                if names.len() > limit {
                    break;
                }
            }
            Ok(names)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(names),
        Err(error) => Err(error),
    }
}

/// The names in the result of [`FsQuery::ListDirectory`].
pub(super) fn split_names(names: &[u8]) -> impl Iterator<Item = &OsStr> {
    names.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(OsStr::from_bytes)
}

/// Passes queries on, but limits the total size of a configuration.
pub struct LimitedFs<'f> {
    files: Files<'f>,
    /// How many more bytes may be read; `None`: the limit has been exceeded, and nothing more is read.
    remaining: Cell<Option<usize>>,
}

impl<'f> LimitedFs<'f> {
    /// Limits what is read from `files`.
    #[must_use]
    pub const fn new(files: Files<'f>) -> Self {
        Self { files, remaining: Cell::new(Some(MAX_TOTAL_SIZE)) }
    }

    /// Answers a query.
    ///
    /// # Errors
    /// As the underlying function. After the limit has been exceeded, an error for every query that reads a configuration.
    pub fn query(&self, query: &FsQuery<'_>) -> FsResult {
        match query {
            FsQuery::ReadFile(_) | FsQuery::ListDirectory(_) => {}
            FsQuery::ReadUsers(_) | FsQuery::Identify(_) | FsQuery::Exists(_) => return (self.files)(query),
        }
        if let Some(remaining) = self.remaining.get() {
            let content = (self.files)(query)?;
            self.remaining.set(remaining.checked_sub(content.len()));
            if self.remaining.get().is_some() {
                return Ok(content);
            }
        }
        Err(format!("all files together are larger than {} MiB", MAX_TOTAL_SIZE >> 20))
    }
}

impl fmt::Debug for LimitedFs<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("LimitedFs").field("remaining", &self.remaining).finish_non_exhaustive()
    }
}

/// Queries the real file system and records the results.
#[derive(Debug, Default)]
pub struct RecordingFs(RefCell<Vec<u8>>);

impl RecordingFs {
    /// As [`query_fs`].
    ///
    /// # Errors
    /// As [`query_fs`].
    pub fn query(&self, query: &FsQuery<'_>) -> FsResult {
        let result = query_fs(query);
        let (kind, text) = match &result {
            Ok(bytes) => (1, bytes.as_slice()),
            Err(reason) => (0, reason.as_bytes()),
        };
        let mut recorded = self.0.borrow_mut();
        recorded.push(kind);
        recorded.extend_from_slice(&text.len().to_ne_bytes());
        recorded.extend_from_slice(text);
        result
    }

    /// All results, for a [`RecordedFs`].
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0.into_inner()
    }
}

/// Returns the results that a [`RecordingFs`] has recorded.
#[derive(Debug)]
pub struct RecordedFs {
    results: Vec<u8>,
    position: Cell<usize>,
}

impl RecordedFs {
    /// From the result of [`RecordingFs::into_bytes`].
    #[must_use]
    pub const fn new(results: Vec<u8>) -> Self {
        Self { results, position: Cell::new(0) }
    }

    /// The next recorded result.
    ///
    /// # Errors
    /// As recorded, or if the recording has ended.
    pub fn query(&self, _: &FsQuery<'_>) -> FsResult {
        self.next().unwrap_or_else(|| Err("it was not read completely".to_owned()))
    }

    fn next(&self) -> Option<FsResult> {
        let rest = self.results.get(self.position.get()..)?;
        let (kind, rest) = rest.split_first()?;
        let (length, rest) = rest.split_first_chunk()?;
        let length = usize::from_ne_bytes(*length);
        let text = rest.get(..length)?.to_vec();
        self.position.set(self.results.len() - rest.len() + length);
        Some(if *kind == 1 { Ok(text) } else { Err(String::from_utf8_lossy(&text).into_owned()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_returns_the_same_results_again() {
        let missing = Path::new("/nonexistent");
        let queries = [
            FsQuery::ReadFile(missing),
            FsQuery::ListDirectory(Path::new("/proc/self/task")),
            FsQuery::ListDirectory(missing),
            FsQuery::Identify(Path::new("/")),
            FsQuery::Exists(Path::new("/")),
            FsQuery::Exists(missing),
        ];
        let recorder = RecordingFs::default();
        let results: Vec<_> = queries.iter().map(|query| recorder.query(query)).collect();
        let recording = RecordedFs::new(recorder.into_bytes());
        let replayed: Vec<_> = queries.iter().map(|query| recording.query(query)).collect();
        assert_eq!(replayed, results);
        assert_eq!(results[0], Err("no such file or directory".to_owned()));
        assert_eq!(results[2], Ok(Vec::new()));
        assert!(recording.query(&queries[0]).is_err());
    }

    #[test]
    fn nothing_is_read_after_the_total_limit_is_exceeded() {
        let count = Cell::new(0);
        let files = |query: &FsQuery<'_>| {
            count.set(count.get() + 1);
            Ok(vec![0; if matches!(query, FsQuery::Identify(_)) { 16 } else { MAX_TOTAL_SIZE / 4 }])
        };
        let bounded = LimitedFs::new(&files);
        let path = Path::new("/etc/x");
        for query in
            [FsQuery::ReadFile(path), FsQuery::ListDirectory(path), FsQuery::ReadFile(path), FsQuery::ReadFile(path)]
        {
            assert!(bounded.query(&query).is_ok());
            assert!(bounded.query(&FsQuery::ReadUsers(path)).is_ok(), "does not count towards the limit");
        }
        let too_much = Err("all files together are larger than 8 MiB".to_owned());
        assert_eq!(bounded.query(&FsQuery::ReadFile(path)), too_much);
        assert_eq!(count.get(), 9);
        assert_eq!(bounded.query(&FsQuery::ListDirectory(path)), too_much);
        assert_eq!(count.get(), 9);
        assert!(bounded.query(&FsQuery::Identify(path)).is_ok());
    }

    #[test]
    fn a_directory_with_too_many_names_is_an_error() {
        // Contains one directory for each thread, so at least one.
        let tasks = Path::new("/proc/self/task");
        assert_eq!(list_directory(tasks, 1), Err("it contains too many files".to_owned()));
        assert!(list_directory(tasks, MAX_DIRECTORY_NAMES_SIZE).is_ok());
    }
}

//! What is asked of the file system when a configuration is read.
//!
//! Whoever asks may have to wait for ever: a mount can hang. So somebody else can ask, with a [`RecordingFs`], and what was
//! answered is answered again by a [`Recording`], in the same order: reading asks the same as long as it hears the same.

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

/// All that is read of one configuration has no more bytes: it is all in memory at once, and twice when it is read again.
const TOTAL_LIMIT: usize = 8 << 20;
/// Nor has each of /etc/passwd and /etc/group.
const USERS_LIMIT: u64 = 8 << 20;
/// Nor have all names in a directory together.
const NAMES_LIMIT: usize = 1 << 20;

/// What there is to ask.
#[derive(Clone, Copy, Debug)]
pub enum FsQuery<'q> {
    /// What a file of the configuration holds.
    Content(&'q Path),
    /// What /etc/passwd or /etc/group holds.
    Users(&'q Path),
    /// The names in a directory, each followed by a NUL; none if it is not there.
    Names(&'q Path),
    /// What tells a file from another, whatever it is called.
    Identity(&'q Path),
    /// Something if it is there, or may be.
    Presence(&'q Path),
}

/// The answer, or why there is none.
pub type Answer = Result<Vec<u8>, String>;

/// Who is asked.
pub type Files<'f> = &'f dyn Fn(&FsQuery<'_>) -> Answer;

/// Asks the file system, here and now.
///
/// # Errors
/// What the system says.
pub fn ask(question: &FsQuery<'_>) -> Answer {
    let told = match *question {
        FsQuery::Content(path) => return read::read(path),
        FsQuery::Users(path) => users(path),
        FsQuery::Names(path) => return bounded_names(path, NAMES_LIMIT),
        FsQuery::Identity(path) => std::fs::metadata(path)
            .map(|metadata| [metadata.dev().to_ne_bytes(), metadata.ino().to_ne_bytes()].concat()),
        FsQuery::Presence(path) => match std::fs::metadata(path) {
            Err(error) if is_absence(&error) => Ok(Vec::new()),
            // What cannot be looked at counts as there: reading it tells why.
            Ok(_) | Err(_) => Ok(vec![1]),
        },
    };
    told.map_err(|error| read::describe(&error))
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn users(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(USERS_LIMIT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > USERS_LIMIT { Err(Errno::EFBIG.into()) } else { Ok(bytes) }
}

fn bounded_names(directory: &Path, limit: usize) -> Answer {
    let names = names(directory, limit).map_err(|error| read::describe(&error))?;
    if names.len() > limit { Err("it contains too many files".to_owned()) } else { Ok(names) }
}

/// More than `limit` bytes of them are some of them.
fn names(directory: &Path, limit: usize) -> io::Result<Vec<u8>> {
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

/// The names of an answer to [`FsQuery::Names`].
pub(super) fn split_names(names: &[u8]) -> impl Iterator<Item = &OsStr> {
    names.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(OsStr::from_bytes)
}

/// Asks for no more than a configuration may have in all, the users aside.
pub struct LimitedFs<'f> {
    files: Files<'f>,
    /// `None`: it has been too much. Nothing more is read then.
    left: Cell<Option<usize>>,
}

impl<'f> LimitedFs<'f> {
    /// Which asks `files`.
    #[must_use]
    pub const fn new(files: Files<'f>) -> Self {
        Self { files, left: Cell::new(Some(TOTAL_LIMIT)) }
    }

    /// As who is asked.
    ///
    /// # Errors
    /// As who is asked; and that it is too much, from then on.
    pub fn ask(&self, question: &FsQuery<'_>) -> Answer {
        match question {
            FsQuery::Content(_) | FsQuery::Names(_) => {}
            FsQuery::Users(_) | FsQuery::Identity(_) | FsQuery::Presence(_) => return (self.files)(question),
        }
        if let Some(left) = self.left.get() {
            let answer = (self.files)(question)?;
            self.left.set(left.checked_sub(answer.len()));
            if self.left.get().is_some() {
                return Ok(answer);
            }
        }
        Err(format!("all files together are larger than {} MiB", TOTAL_LIMIT >> 20))
    }
}

impl fmt::Debug for LimitedFs<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("LimitedFs").field("left", &self.left).finish_non_exhaustive()
    }
}

/// Asks, and keeps the answers.
#[derive(Debug, Default)]
pub struct RecordingFs(RefCell<Vec<u8>>);

impl RecordingFs {
    /// As [`ask`].
    ///
    /// # Errors
    /// As [`ask`].
    pub fn ask(&self, question: &FsQuery<'_>) -> Answer {
        let answer = ask(question);
        let (kind, text) = match &answer {
            Ok(bytes) => (1, bytes.as_slice()),
            Err(reason) => (0, reason.as_bytes()),
        };
        let mut kept = self.0.borrow_mut();
        kept.push(kind);
        kept.extend_from_slice(&text.len().to_ne_bytes());
        kept.extend_from_slice(text);
        answer
    }

    /// All answers, for a [`Recording`].
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0.into_inner()
    }
}

/// Gives the answers that a [`RecordingFs`] has heard.
#[derive(Debug)]
pub struct Recording {
    answers: Vec<u8>,
    position: Cell<usize>,
}

impl Recording {
    /// Of what [`RecordingFs::into_bytes`] gave.
    #[must_use]
    pub const fn new(answers: Vec<u8>) -> Self {
        Self { answers, position: Cell::new(0) }
    }

    /// The next answer.
    ///
    /// # Errors
    /// Why there was none.
    pub fn answer(&self, _: &FsQuery<'_>) -> Answer {
        self.next().unwrap_or_else(|| Err("it was not read completely".to_owned()))
    }

    fn next(&self) -> Option<Answer> {
        let rest = self.answers.get(self.position.get()..)?;
        let (kind, rest) = rest.split_first()?;
        let (length, rest) = rest.split_first_chunk()?;
        let length = usize::from_ne_bytes(*length);
        let text = rest.get(..length)?.to_vec();
        self.position.set(self.answers.len() - rest.len() + length);
        Some(if *kind == 1 { Ok(text) } else { Err(String::from_utf8_lossy(&text).into_owned()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_heard_is_heard_again() {
        let missing = Path::new("/nonexistent");
        let questions = [
            FsQuery::Content(missing),
            FsQuery::Names(Path::new("/proc/self/task")),
            FsQuery::Names(missing),
            FsQuery::Identity(Path::new("/")),
            FsQuery::Presence(Path::new("/")),
            FsQuery::Presence(missing),
        ];
        let recorder = RecordingFs::default();
        let heard: Vec<_> = questions.iter().map(|question| recorder.ask(question)).collect();
        let recording = Recording::new(recorder.into_bytes());
        let again: Vec<_> = questions.iter().map(|question| recording.answer(question)).collect();
        assert_eq!(again, heard);
        assert_eq!(heard[0], Err("no such file or directory".to_owned()));
        assert_eq!(heard[2], Ok(Vec::new()));
        assert!(recording.answer(&questions[0]).is_err());
    }

    #[test]
    fn what_is_too_much_in_all_is_not_even_read() {
        let asked = Cell::new(0);
        let files = |question: &FsQuery<'_>| {
            asked.set(asked.get() + 1);
            Ok(vec![0; if matches!(question, FsQuery::Identity(_)) { 16 } else { TOTAL_LIMIT / 4 }])
        };
        let bounded = LimitedFs::new(&files);
        let path = Path::new("/etc/x");
        for question in [FsQuery::Content(path), FsQuery::Names(path), FsQuery::Content(path), FsQuery::Content(path)] {
            assert!(bounded.ask(&question).is_ok());
            assert!(bounded.ask(&FsQuery::Users(path)).is_ok(), "it does not count");
        }
        let too_much = Err("all files together are larger than 8 MiB".to_owned());
        assert_eq!(bounded.ask(&FsQuery::Content(path)), too_much);
        assert_eq!(asked.get(), 9);
        assert_eq!(bounded.ask(&FsQuery::Names(path)), too_much);
        assert_eq!(asked.get(), 9);
        assert!(bounded.ask(&FsQuery::Identity(path)).is_ok());
    }

    #[test]
    fn a_directory_has_not_too_many_names() {
        // The task of each thread: there is one at least, and none has a name without a digit.
        let tasks = Path::new("/proc/self/task");
        assert_eq!(bounded_names(tasks, 1), Err("it contains too many files".to_owned()));
        assert!(bounded_names(tasks, NAMES_LIMIT).is_ok());
    }
}

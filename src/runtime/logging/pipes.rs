//! The pipes of one instance: both ends of those that its run has, and the reading ends of those of earlier runs until
//! they have been read to their end, for the logger that comes after one that was killed.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use nix::errno::Errno;

use crate::logs::line::Stream;
use crate::logs::protocol::{FileTarget, Source, Target};
use crate::model::InstanceId;
use crate::model::plan::{Output, Service};
use crate::sys::pipe;

/// A pipe holds so much where that is permitted, so that who writes much is not stopped at each turn.
const PIPE_SIZE: i32 = 256 << 10;
/// So many streams at most: what all pipes of a user hold together is limited, and smaller ones are made beyond that.
const LARGE_PIPES: usize = 32;

/// Both ends of a pipe, and what the logger is to know of it.
pub(super) struct Pipe {
    pub(super) source: Source,
    pub(super) read_end: OwnedFd,
    pub(super) write_end: OwnedFd,
    is_large: bool,
}

pub(super) struct Slot {
    pub(super) number: u32,
    pub(super) pipes: [Option<Pipe>; 2],
    /// The reading ends of earlier ones, in their order.
    retired: Vec<(Source, OwnedFd)>,
}

/// Makes pipes.
#[derive(Default)]
pub(super) struct Maker {
    next_serial: u64,
    large_pipes: usize,
}

impl Maker {
    /// The pipe of this stream; `None`: it does not go through the logger.
    ///
    /// # Errors
    /// As [`pipe::pipe`].
    pub(super) fn make(
        &mut self,
        slot: &Slot,
        stream: Stream,
        instance: InstanceId,
        service: &Service,
    ) -> Result<Option<Pipe>, Errno> {
        let process = &service.process;
        let output = match stream {
            Stream::Stdout => process.stdout,
            Stream::Stderr => process.stderr,
        };
        let target = match output {
            Output::Prefix => Target::Lines,
            Output::Inherit if process.log_file.is_some() => Target::Raw,
            Output::Null if process.log_file.is_some() => Target::Nowhere,
            Output::Inherit | Output::Null => return Ok(None),
        };
        let file = process.log_file.as_ref().map(|file| FileTarget {
            path: PathBuf::from(OsString::from_vec(file.path.expand(instance.number).into_bytes())),
            max_size: file.max_size,
            max_files: file.max_files,
        });
        let source = Source {
            serial: self.next_serial,
            slot: slot.number,
            stream,
            service: service.name.to_string(),
            instance: instance.number,
            colour_index: u32::try_from(instance.service.position()).unwrap_or(0),
            target,
            file,
        };
        let (read_end, write_end) = pipe::pipe()?;
        let is_large = match slot.of(stream) {
            Some(before) => before.is_large,
            None => self.large_pipes < LARGE_PIPES,
        };
        if is_large {
            pipe::set_capacity(&read_end, PIPE_SIZE);
            self.large_pipes += usize::from(!slot.has(stream));
        }
        self.next_serial += 1;
        Ok(Some(Pipe { source, read_end, write_end, is_large }))
    }
}

impl Slot {
    pub(super) const fn new(number: u32) -> Self {
        Self { number, pipes: [None, None], retired: Vec::new() }
    }

    fn of(&self, stream: Stream) -> Option<&Pipe> {
        self.pipes.iter().flatten().find(|pipe| pipe.source.stream == stream)
    }

    pub(super) fn has(&self, stream: Stream) -> bool {
        self.of(stream).is_some()
    }

    /// How many old pipes of this stream are kept.
    pub(super) fn old(&self, stream: Stream) -> usize {
        self.retired.iter().filter(|(source, _)| source.stream == stream).count()
    }

    /// In the place of the one that there is.
    pub(super) fn put(&mut self, stream: Stream, pipe: Pipe) {
        let [stdout, stderr] = &mut self.pipes;
        let place = match stream {
            Stream::Stdout => stdout,
            Stream::Stderr => stderr,
        };
        // Our writing end of the old one is closed: who reads it sees its end when nobody else has it.
        self.retired.extend(place.replace(pipe).map(|old| (old.source, old.read_end)));
    }

    /// There is to be no further run for now.
    pub(super) fn retire_all(&mut self) {
        let old = self.pipes.iter_mut().filter_map(Option::take);
        self.retired.extend(old.map(|old| (old.source, old.read_end)));
    }

    /// Closes the old pipes that have been read to their end.
    pub(super) fn forget_old(&mut self) {
        self.retired.retain(|(_, read_end)| !pipe::is_eof(read_end));
    }

    /// In the order in which they were made.
    pub(super) fn into_read_ends(self) -> impl Iterator<Item = (Source, OwnedFd)> {
        let pipes = self.pipes.into_iter().flatten().map(|pipe| (pipe.source, pipe.read_end));
        self.retired.into_iter().chain(pipes)
    }
}

//! The log pipes of one instance: both ends for the current run, and the read ends for earlier runs until they have been read
//! completely, so that the next logger can continue after a crash.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use nix::errno::Errno;

use crate::logs::line::Stream;
use crate::logs::protocol::{FileTarget, Source, Target};
use crate::model::plan::Output;
use crate::runtime::runs::RunSpec;
use crate::sys::pipe;

/// The capacity of a large pipe, in bytes, so that a process that writes much blocks less often.
const PIPE_SIZE: i32 = 256 << 10;
/// The number of streams with large pipes: the kernel limits the memory of all pipes of a user.
const MAX_LARGE_PIPES: usize = 32;

/// Both ends of a pipe, with its description for the logger.
pub(super) struct Pipe {
    pub(super) source: Source,
    pub(super) read_end: OwnedFd,
    pub(super) write_end: OwnedFd,
    is_large: bool,
}

pub(super) struct Slot {
    pub(super) number: u32,
    pub(super) pipes: [Option<Pipe>; 2],
    /// The read ends of earlier pipes, the oldest first.
    retired: Vec<(Source, OwnedFd)>,
}

/// Creates log pipes.
#[derive(Default)]
pub(super) struct PipeFactory {
    next_serial: u64,
    large_pipes: usize,
}

impl PipeFactory {
    /// Creates the pipe of a stream; `None` if it does not go through the logger.
    ///
    /// # Errors
    /// As [`pipe::pipe`].
    pub(super) fn make(&mut self, slot: &Slot, stream: Stream, spec: &RunSpec) -> Result<Option<Pipe>, Errno> {
        let RunSpec { instance, definition: service, .. } = spec;
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
            path: PathBuf::from(OsString::from_vec(file.path.expand(spec.numbers()).into_bytes())),
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
            None => self.large_pipes < MAX_LARGE_PIPES,
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

    /// The number of old pipes of this stream.
    pub(super) fn old(&self, stream: Stream) -> usize {
        self.retired.iter().filter(|(source, _)| source.stream == stream).count()
    }

    /// Replaces the current pipe, which becomes an old one.
    pub(super) fn put(&mut self, stream: Stream, pipe: Pipe) {
        let [stdout, stderr] = &mut self.pipes;
        let place = match stream {
            Stream::Stdout => stdout,
            Stream::Stderr => stderr,
        };
        // This closes the write end of the old pipe: the logger sees the end when no process has it open.
        self.retired.extend(place.replace(pipe).map(|old| (old.source, old.read_end)));
    }

    /// Makes the current pipes old ones: there is no next run for now.
    pub(super) fn retire_all(&mut self) {
        let old = self.pipes.iter_mut().filter_map(Option::take);
        self.retired.extend(old.map(|old| (old.source, old.read_end)));
    }

    /// Closes the old pipes that have been read completely.
    pub(super) fn close_drained(&mut self) {
        self.retired.retain(|(_, read_end)| !pipe::is_eof(read_end));
    }

    /// The read ends, the oldest first.
    pub(super) fn into_read_ends(self) -> impl Iterator<Item = (Source, OwnedFd)> {
        let pipes = self.pipes.into_iter().flatten().map(|pipe| (pipe.source, pipe.read_end));
        self.retired.into_iter().chain(pipes)
    }
}

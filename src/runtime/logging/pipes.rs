//! The log pipes of one instance: both ends for the current run, and the read ends for earlier runs until they have been read
//! completely, so that the next logger can continue after a crash.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use nix::errno::Errno;

use super::last_run::LastRun;
use crate::logs::line::Stream;
use crate::logs::protocol::{FileTarget, RunKey, Source, Target};
use crate::model::plan::{Credentials, LogFormat, LogStyle, Output, Process};
use crate::model::{RunId, Template};
use crate::runtime::runs::RunSpec;
use crate::sys::deferred_close::Owner;
use crate::sys::non_blocking_writer::stdout_is_stderr;
use crate::sys::{deferred_close, pipe};

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
    pub(super) latest_run: RunId,
    /// The run whose pipes the latest run has: another one if it could not get its own.
    latest_key: RunKey,
    pub(super) last_run: LastRun,
}

/// What of a stream of `process` goes to keepalive's stream of the same name; `None` if it does not go through the logger.
pub(super) fn target_of(process: &Process, stream: Stream) -> Option<Target> {
    let output = match stream {
        Stream::Stdout => process.stdout,
        Stream::Stderr => process.stderr,
    };
    let has_file = files_of(process, stream) != [None, None];
    match output {
        Output::Raw => Some(Target::Raw),
        Output::Prefix => Some(Target::Lines),
        Output::Inherit => has_file.then_some(Target::Raw),
        Output::Null => has_file.then_some(Target::Nowhere),
    }
}

fn files_of(process: &Process, stream: Stream) -> [Option<&Template>; 2] {
    let files = &process.log_files;
    let of_stream = match stream {
        Stream::Stdout => &files.stdout,
        Stream::Stderr => &files.stderr,
    };
    [files.both.as_ref(), of_stream.as_ref()]
}

/// Creates log pipes.
pub(super) struct PipeFactory {
    format: LogFormat,
    /// Whether keepalive's stdout and stderr are the same file.
    are_one: bool,
    next_serial: u64,
    large_pipes: usize,
}

impl PipeFactory {
    pub(super) fn new(style: LogStyle) -> Self {
        Self { format: style.format, are_one: stdout_is_stderr(), next_serial: 0, large_pipes: 0 }
    }

    /// Whether both streams of `process` share the pipe of stdout, which keeps the order of lines: they go to the same places,
    /// and nothing there shows the stream of a line.
    pub(super) fn shares_pipe(&self, process: &Process) -> bool {
        let Process { stdout, stderr, log_files, .. } = process;
        stdout == stderr
            && log_files.stdout == log_files.stderr
            && (self.are_one || *stdout == Output::Null)
            && self.format == LogFormat::Text
            && process.captures_output()
    }

    /// Creates the pipe of a stream. It belongs to the user of the process, who can then open /dev/stdout and /dev/stderr.
    ///
    /// # Errors
    /// As [`pipe::pipe`].
    pub(super) fn make(
        &mut self,
        slot: &Slot,
        (stream, target): (Stream, Target),
        run: RunId,
        spec: &RunSpec,
    ) -> Result<Pipe, Errno> {
        let RunSpec { instance, hook, definition: service, .. } = spec;
        let process = &service.process;
        let mut files = Vec::new();
        for path in files_of(process, stream).into_iter().flatten() {
            files.push(FileTarget {
                path: PathBuf::from(OsString::from_vec(path.expand(spec.numbers()).into_bytes())),
                shown: if let Template::Expanded { written, .. } = path { written.to_string() } else { String::new() },
                max_size: process.log_files.max_size,
                max_files: process.log_files.max_files,
            });
        }
        let source = Source {
            serial: self.next_serial,
            run: RunKey::new(slot.number, run),
            stream,
            service: service.name.to_string(),
            instance: match hook {
                Some(hook) => format!("{}.{}/{}", service.name, instance.number, hook.as_str()),
                None => format!("{}.{}", service.name, instance.number),
            },
            index: instance.service,
            target,
            files,
        };
        let (read_end, write_end) = pipe::pipe()?;
        if let Some(Credentials { uid, gid, .. }) = process.credentials {
            pipe::set_owner(&write_end, uid, gid);
        }
        let is_large = match slot.of(stream) {
            Some(before) => before.is_large,
            None => self.large_pipes < MAX_LARGE_PIPES,
        };
        if is_large {
            pipe::set_capacity(&read_end, PIPE_SIZE);
            self.large_pipes += usize::from(!slot.has(stream));
        }
        self.next_serial += 1;
        Ok(Pipe { source, read_end, write_end, is_large })
    }
}

impl Slot {
    pub(super) fn new(number: u32) -> Self {
        Self {
            number,
            pipes: [None, None],
            retired: Vec::new(),
            latest_run: RunId::new(0),
            latest_key: RunKey::new(number, RunId::new(0)),
            last_run: LastRun::default(),
        }
    }

    /// The run as the logger knows it.
    pub(super) fn key_of(&self, run: RunId) -> RunKey {
        if run == self.latest_run { self.latest_key } else { RunKey::new(self.number, run) }
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

    const fn place(&mut self, stream: Stream) -> &mut Option<Pipe> {
        let [stdout, stderr] = &mut self.pipes;
        match stream {
            Stream::Stdout => stdout,
            Stream::Stderr => stderr,
        }
    }

    /// Replaces the current pipe, which becomes an old one.
    pub(super) fn put(&mut self, stream: Stream, pipe: Pipe) {
        self.retire(stream);
        self.latest_key = pipe.source.run;
        *self.place(stream) = Some(pipe);
    }

    /// Makes the current pipe an old one: the next run has none, or there is no next run for now.
    pub(super) fn retire(&mut self, stream: Stream) {
        if let Some(Pipe { source, read_end, write_end, .. }) = self.place(stream).take() {
            // The logger sees the end when no process has it open.
            deferred_close(Owner::Service(source.index), [write_end]);
            self.retired.push((source, read_end));
        }
    }

    /// Removes a pipe, current or old, and returns the ends that keepalive has.
    pub(super) fn take(&mut self, is_wanted: impl Fn(&Source) -> bool) -> Option<(Source, Vec<OwnedFd>)> {
        if let Some(pipe) = self.pipes.iter_mut().find_map(|pipe| pipe.take_if(|pipe| is_wanted(&pipe.source))) {
            return Some((pipe.source, vec![pipe.read_end, pipe.write_end]));
        }
        let position = self.retired.iter().position(|(source, _)| is_wanted(source))?;
        let (source, read_end) = self.retired.remove(position);
        Some((source, vec![read_end]))
    }

    /// Closes the old pipes that have been read completely.
    pub(super) fn close_drained(&mut self) {
        let drained = self.retired.extract_if(.., |(_, read_end)| pipe::is_eof(read_end));
        drained.for_each(|(source, read_end)| deferred_close(Owner::Service(source.index), [read_end]));
    }

    /// Closes the old pipes that have been read completely. Returns whether there are others.
    pub(super) fn has_undrained(&mut self) -> bool {
        self.close_drained();
        !self.retired.is_empty()
    }

    /// Moves the read ends to `read_ends`, the oldest first.
    pub(super) fn move_read_ends(self, read_ends: &mut Vec<(Source, OwnedFd)>) {
        read_ends.extend(self.retired);
        read_ends.extend(self.pipes.into_iter().flatten().map(|pipe| (pipe.source, pipe.read_end)));
    }
}

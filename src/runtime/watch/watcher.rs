//! The process that watches the files of one service.
//!
//! A change is reported when nothing has changed for `debounce`, or, if changes do not end, after ten times that.

use std::ffi::OsString;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::files::Summary;
use super::message::{CHANGED, MAX_PATH, WARNING};
use super::tree::Tree;
use crate::model::Mono;
use crate::model::plan::Watch;
use crate::sys::{self, memory, packet};

/// The interval of comparisons when inotify is not available.
const FALLBACK_INTERVAL: Duration = Duration::from_secs(2);
/// A change is reported at the latest after this many times `debounce`.
const MAX_DEBOUNCES: u32 = 10;
/// The shortest time between two reports.
const MIN_DEBOUNCE: Duration = Duration::from_millis(20);

/// A change that has not been reported.
struct Burst {
    path: PathBuf,
    due: Mono,
    last_at: Mono,
}

struct Watcher<'w> {
    watch: &'w Watch,
    channel: &'w OwnedFd,
    roots: &'w [PathBuf],
    burst: Option<Burst>,
    /// The time on the clock of files of the last report.
    known: Duration,
}

/// How changes are found.
enum Source<'w> {
    Inotify(Tree<'w>),
    /// All files are compared: the interval, the next time, and what they came to.
    Poll(Duration, Mono, Summary),
}

/// Serves until keepalive closes its end of `channel`. Returns the exit code.
pub(super) fn serve(watch: &Watch, channel: &OwnedFd) -> u8 {
    let roots = watch.roots().map(|root| PathBuf::from(OsString::from_vec(root))).collect::<Vec<_>>();
    let mut watcher = Watcher { watch, channel, roots: &roots, burst: None, known: sys::file_time() };
    for root in roots.iter().filter(|root| !root.exists()) {
        watcher.send(WARNING, root, " does not exist, and is watched as soon as it does").ok();
    }
    let mut source = match watch.poll {
        Some(interval) => watcher.polled(interval),
        None => Tree::new(watch, &roots).map_or_else(|errno| watcher.fall_back(errno), Source::Inotify),
    };
    memory::release_code_pages();
    while watcher.wait(&source) {
        if let Err(errno) = watcher.look(&mut source) {
            // Files may have changed meanwhile.
            watcher.on_change(roots.first().cloned().unwrap_or_default());
            source = watcher.fall_back(errno);
        }
        watcher.report();
    }
    0
}

impl<'w> Watcher<'w> {
    /// Waits for something to do. Returns whether keepalive is still there.
    fn wait(&self, source: &Source<'_>) -> bool {
        let due = self.burst.as_ref().map(|burst| burst.due);
        let (fd, due) = match source {
            Source::Inotify(tree) => (tree.as_fd(), due),
            // keepalive sends nothing.
            Source::Poll(_, next, _) => (self.channel.as_fd(), Some(due.map_or(*next, |due| due.min(*next)))),
        };
        let mut fds = [PollFd::new(self.channel.as_fd(), PollFlags::empty()), PollFd::new(fd, PollFlags::POLLIN)];
        // Rounded up: it must not wake too early again and again.
        let left = due.map(|due| due.since(sys::now()) + Duration::from_millis(1));
        let timeout = left.and_then(|left| PollTimeout::try_from(left).ok());
        poll(&mut fds, timeout.unwrap_or(PollTimeout::NONE)).ok();
        fds.first().and_then(PollFd::revents).is_none_or(|events| events.is_empty())
    }

    /// Looks for changes.
    fn look(&mut self, source: &mut Source<'_>) -> Result<(), Errno> {
        match source {
            Source::Inotify(tree) => {
                let mut changed = None;
                let result = tree.read(self.known, &mut changed);
                if let Some(path) = changed {
                    self.on_change(path);
                }
                result?;
                // Before the report: the next process reads what is there now.
                if self.is_due() { tree.refresh() } else { Ok(()) }
            }
            Source::Poll(interval, next, known) => {
                if *next <= sys::now() || self.is_due() {
                    let summary = Summary::of(self.watch, self.roots);
                    if summary.hash != known.hash {
                        let is_newer = summary.newest.0 > known.newest.0;
                        let path = if is_newer { Some(&summary.newest.1) } else { self.roots.first() };
                        self.on_change(path.cloned().unwrap_or_default());
                        *known = summary;
                    }
                    *next = sys::now() + *interval;
                }
                Ok(())
            }
        }
    }

    fn is_due(&self) -> bool {
        self.burst.as_ref().is_some_and(|burst| burst.due <= sys::now())
    }

    fn on_change(&mut self, path: PathBuf) {
        let (now, debounce) = (sys::now(), self.watch.debounce.max(MIN_DEBOUNCE));
        let last_at = now + debounce.saturating_mul(MAX_DEBOUNCES);
        let burst = self.burst.get_or_insert(Burst { path, due: now, last_at });
        burst.due = burst.last_at.min(now + debounce);
    }

    /// Reports the change if it is time.
    fn report(&mut self) {
        if self.is_due()
            && let Some(burst) = self.burst.take()
        {
            self.known = sys::file_time();
            if self.send(CHANGED, &burst.path, " has changed").is_err() {
                // keepalive is busy.
                self.on_change(burst.path);
            }
        }
    }

    /// Sends a message about a path, of which the end is sent if it is long.
    fn send(&self, kind: u8, path: &Path, text: &str) -> Result<(), Errno> {
        let path = path.as_os_str().as_bytes();
        let end = path.get(path.len().saturating_sub(MAX_PATH)..).unwrap_or_default();
        let message = [&[kind], end, text.as_bytes()].concat();
        packet::send(self.channel, &message, None)
    }

    fn polled(&self, interval: Duration) -> Source<'w> {
        Source::Poll(interval, sys::now() + interval, Summary::of(self.watch, self.roots))
    }

    /// inotify is not available: says why, and what to do.
    fn fall_back(&self, errno: Errno) -> Source<'w> {
        let file = if errno == Errno::EMFILE {
            "/proc/sys/fs/inotify/max_user_instances"
        } else {
            "/proc/sys/fs/inotify/max_user_watches"
        };
        let text = " is used up: raise it on the host, or leave out directories with `ignore`; until then the files are \
                    compared every 2s";
        self.send(WARNING, Path::new(file), text).ok();
        self.polled(FALLBACK_INTERVAL)
    }
}

//! Strays: processes that have left the session of their run, such as daemons, and outlive its main process.
//!
//! Their parents have exited, so they are children of keepalive. The mark of their run, [`RunMarker`], tells which run they
//! belong to. If there are children that keepalive does not know when a main process has exited, an inspector reads it, and
//! the exit is reported when the answer has come.

use std::hash::Hasher as _;
use std::io::Write as _;

use crate::model::plan::Limit;
use crate::model::{Mono, Pid, RunId};
use crate::supervisor::Exit;
use crate::sys::random::random_u64;
use crate::sys::{process, procfs};

/// The number of the limit that is the mark of a run.
const RESOURCE: u32 = libc::RLIMIT_RTTIME as u32;

/// Marks the processes of a run with a soft limit, in microseconds, on how long a real-time process may run without a
/// blocking system call, getrlimit(2) `RLIMIT_RTTIME`: 146,000 years, and a number that nobody can guess for another run.
///
/// Daemons leave sessions and groups, close descriptors and overwrite their environment, nginx(8) for instance, but keep this
/// limit. Everybody may read it, proc_pid_limits(5), whatever the user of the process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RunMarker {
    keys: [u64; 2],
    /// keepalive's own hard limit; `None`: unlimited.
    hard: Option<u64>,
}

/// The search for strays.
#[derive(Debug, Default)]
pub(super) struct Strays {
    /// Runs that may have left strays.
    pub(super) wanted: Vec<RunId>,
    /// Those of them that have sent messages that are still to be read, until then at most.
    pub(super) delayed: Vec<(RunId, Mono)>,
    /// Exits that are reported when it is known what they have left behind.
    pub(super) held_back: Vec<(RunId, Exit)>,
    pub(super) question: Option<Question>,
    /// The number of questions that have not been answered.
    pub(super) unanswered: usize,
    /// The children that have been reaped meanwhile: their pids in an answer may be those of other processes.
    pub(super) reaped: Vec<Pid>,
    /// Nobody is asked until then.
    pub(super) paused_until: Option<Mono>,
}

/// Which strays are there of these runs?
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) marker: RunMarker,
    pub(super) runs: Vec<RunId>,
}

impl RunMarker {
    pub(super) fn new() -> Self {
        Self { keys: [random_u64(), random_u64()], hard: process::hard_limit(RESOURCE) }
    }

    /// The mark of a run; `None` if keepalive's own hard limit is lower.
    pub(super) fn limit(self, run: RunId) -> Option<Limit> {
        let soft = self.value(run);
        let limit = Limit { name: "rttime", resource: RESOURCE, soft: Some(soft), hard: self.hard };
        self.hard.is_none_or(|hard| soft <= hard).then_some(limit)
    }

    #[expect(
        deprecated,
        reason = "DefaultHasher has no keys; RandomState brings its own source of random numbers, 4 KB"
    )]
    fn value(self, run: RunId) -> u64 {
        let [first, second] = self.keys;
        let mut hasher = std::hash::SipHasher::new_with_keys(first, second);
        hasher.write_u64(run.get());
        hasher.finish() >> 2 | 1 << 62
    }
}

impl Question {
    /// Runs in an inspector. `keepalive`: the process whose children are looked at.
    pub(super) fn answer(&self, keepalive: Pid) -> Vec<u8> {
        let mut answer = Vec::new();
        for child in procfs::children(keepalive).unwrap_or_default() {
            let mark = procfs::realtime_timeout(child);
            if let Some(run) = self.runs.iter().find(|run| mark == Some(self.marker.value(**run))) {
                writeln!(answer, "{run} {child}").ok();
            }
        }
        answer
    }

    /// The strays of a run in an answer.
    pub(super) fn strays_of(run: RunId, answer: &[u8]) -> impl Iterator<Item = Pid> {
        let lines = str::from_utf8(answer).unwrap_or_default().lines();
        lines.filter_map(move |line| {
            let (of, pid) = line.split_once(' ')?;
            Pid::new(pid.parse().ok()?).filter(|_| of.parse() == Ok(run.get()))
        })
    }
}

impl Strays {
    /// The question for the next inspector.
    pub(super) fn take_question(&mut self) -> Option<Question> {
        let question = self.question.take();
        self.unanswered += usize::from(question.is_some());
        question
    }

    /// A child has been reaped.
    pub(super) fn on_reaped(&mut self, pid: Pid) {
        if self.unanswered > 0 {
            self.reaped.push(pid);
        }
    }

    /// When an exit is not delayed any more.
    pub(super) fn due(&self) -> Option<Mono> {
        self.delayed.iter().map(|(_, until)| *until).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_differ_and_leave_more_time_than_anybody_needs() {
        let (ours, other) = (RunMarker::new(), RunMarker::new());
        let value = |marker: RunMarker, run| marker.limit(RunId::new(run)).unwrap().soft.unwrap();
        assert_eq!(value(ours, 7), value(ours, 7));
        assert!(value(ours, 7) != value(ours, 8) && value(ours, 7) != value(other, 7));
        assert!((1 << 62..u64::MAX >> 1).contains(&value(ours, 7)));
    }

    #[test]
    fn nothing_is_marked_above_the_hard_limit() {
        let marker = RunMarker { hard: Some(1_000_000), ..RunMarker::new() };
        assert_eq!(marker.limit(RunId::new(7)), None);
    }

    #[test]
    fn an_answer_lists_runs_and_processes() {
        let strays = |run| Question::strays_of(RunId::new(run), b"7 100\n8 200\n7 300\n").map(Pid::get).collect();
        let (of_7, of_9): (Vec<i32>, Vec<i32>) = (strays(7), strays(9));
        assert_eq!((of_7, of_9), (vec![100, 300], vec![]));
        assert_eq!(Question::strays_of(RunId::new(7), b"7 x\n7\n\xff").count(), 0);
    }
}

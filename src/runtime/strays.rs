//! Strays: processes that have left the session of their run, such as daemons, and outlive its main process.
//!
//! Their parents have exited, so they are children of keepalive. The mark of their run, [`RunMarker`], tells which run they
//! belong to. If there are children that keepalive does not know when a main process has exited, an inspector reads it, and
//! the exit is reported when the answer has come.

use std::io::Write as _;

use crate::model::plan::Limit;
use crate::model::{Mono, Pid, RunId};
use crate::supervisor::Exit;
use crate::sys::{process, procfs};

/// The limits that mark a run, which no program needs: the number of file locks, which Linux 2.4 has used last, and how long a
/// real-time process may run without a blocking system call. getrlimit(2)
const RESOURCES: [(&str, u32); 2] = [("locks", libc::RLIMIT_LOCKS as u32), ("rttime", libc::RLIMIT_RTTIME as u32)];
/// A mark is not lower: twelve days of the second limit.
const MIN_MARK: u64 = 1 << 40;

/// Marks the processes of a run by two hard limits: the first one is the larger, the second one the smaller, the later the run
/// has started. A process can only lower its hard limits, setrlimit(2), so that it cannot take the mark of another run.
///
/// Daemons leave sessions and groups, close descriptors and overwrite their environment, nginx(8) for instance, but keep these
/// limits. Everybody may read them, proc_pid_limits(5), whatever the user of the process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RunMarker {
    /// `None`: keepalive's own hard limit is too low, and all processes have that.
    bases: [Option<u64>; 2],
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
        Self::below(RESOURCES.map(|(_, resource)| process::hard_limit(resource)))
    }

    /// `hard`: keepalive's own hard limits; `None`: unlimited.
    fn below(hard: [Option<u64>; 2]) -> Self {
        Self {
            bases: hard.map(|hard| Some(hard.map_or(1 << 62, |hard| hard / 2)).filter(|base| *base >= MIN_MARK * 2)),
        }
    }

    /// The limits of the processes of a run. `own`: those of the service, which could not raise them any more.
    pub(super) fn limits(self, run: RunId, own: &[Limit]) -> [Option<Limit>; 2] {
        if own.iter().any(|limit| RESOURCES.iter().any(|(_, resource)| limit.resource == *resource)) {
            return [None; 2];
        }
        let [locks, rttime] = self.values(run);
        let [of_locks, of_rttime] = RESOURCES;
        let limit =
            |(name, resource), value: Option<u64>| Some(Limit { name, resource, soft: Some(value?), hard: value });
        [limit(of_locks, locks), limit(of_rttime, rttime)]
    }

    fn values(self, run: RunId) -> [Option<u64>; 2] {
        let [locks, rttime] = self.bases;
        [locks.map(|base| base + run.get()), rttime.map(|base| base - run.get())]
    }

    /// Whether a process with these hard limits belongs to a run.
    fn is_of(self, run: RunId, limits: [Option<u64>; 2]) -> bool {
        let values = self.values(run);
        values.iter().any(Option::is_some)
            && values.iter().zip(limits).all(|(value, limit)| value.is_none() || *value == limit)
    }
}

impl Question {
    /// Runs in an inspector. `keepalive`: the process whose children are looked at.
    pub(super) fn answer(&self, keepalive: Pid) -> Vec<u8> {
        let mut answer = Vec::new();
        for child in procfs::children(keepalive).into_iter().flatten().flatten() {
            let Some(limits) = procfs::unused_limits(child) else {
                // It has exited since, and may have had children.
                self.runs.iter().for_each(|run| drop(writeln!(answer, "{run} 0")));
                continue;
            };
            if let Some(run) = self.runs.iter().find(|run| self.marker.is_of(**run, limits)) {
                writeln!(answer, "{run} {child}").ok();
            }
        }
        answer
    }

    /// The strays of a run in an answer; `None`: a child that has exited meanwhile.
    pub(super) fn strays_of(run: RunId, answer: &[u8]) -> impl Iterator<Item = Option<Pid>> {
        let lines = str::from_utf8(answer).unwrap_or_default().lines();
        lines.filter_map(move |line| {
            let (of, pid) = line.split_once(' ')?;
            let pid: i32 = pid.parse().ok()?;
            (of.parse() == Ok(run.get())).then(|| Pid::new(pid))
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

    fn values(marker: RunMarker, run: u64) -> [Option<u64>; 2] {
        marker.limits(RunId::new(run), &[]).map(|limit| limit?.hard)
    }

    #[test]
    fn no_process_can_take_the_mark_of_another_run_by_lowering_its_limits() {
        let marker = RunMarker::below([None, None]);
        for (one, other) in [(7, 8), (8, 7), (1, 1_000_000), (1_000_000, 1)] {
            let [mine, wanted] = [one, other].map(|run| values(marker, run));
            assert!(mine.iter().zip(wanted).any(|(mine, wanted)| wanted > *mine), "{mine:?} {wanted:?}");
            assert!(marker.is_of(RunId::new(one), mine) && !marker.is_of(RunId::new(other), mine));
        }
        assert!(!marker.is_of(RunId::new(1), [None, None]));
    }

    #[test]
    fn a_service_that_sets_one_of_the_limits_has_no_mark() {
        let own = |name, resource| [Limit { name, resource, soft: None, hard: None }];
        let limits = |own: [Limit; 1]| RunMarker::below([None, None]).limits(RunId::new(7), &own);
        assert_eq!(limits(own("rttime", libc::RLIMIT_RTTIME as u32)), [None; 2]);
        assert!(limits(own("nofile", libc::RLIMIT_NOFILE as u32)).iter().all(Option::is_some));
    }

    #[test]
    fn marks_are_below_the_hard_limits_of_keepalive_or_left_out() {
        let outer = values(RunMarker::below([None, None]), 7);
        let inner = values(RunMarker::below(outer), 7);
        assert!(
            inner.iter().zip(outer).all(|(inner, outer)| *inner < outer && inner.is_some_and(|inner| inner > MIN_MARK))
        );
        let marker = RunMarker::below([None, Some(1_000_000)]);
        let mark = values(marker, 7);
        assert!(mark[0].is_some() && mark[1].is_none());
        assert!(marker.is_of(RunId::new(7), [mark[0], Some(1_000_000)]));
        let unmarked = RunMarker::below([Some(0), Some(0)]);
        assert!(!unmarked.is_of(RunId::new(7), [Some(0), Some(0)]));
    }

    #[test]
    fn an_answer_lists_runs_and_processes() {
        let strays = |run| {
            let strays = Question::strays_of(RunId::new(run), b"7 100\n8 200\n7 300\n7 0\n");
            strays.map(|pid| pid.map(Pid::get)).collect::<Vec<_>>()
        };
        assert_eq!((strays(7), strays(9)), (vec![Some(100), Some(300), None], vec![]));
        assert_eq!(Question::strays_of(RunId::new(7), b"7 x\n7\n\xff").count(), 0);
    }
}

//! Strays: processes that have left the session of their run, such as daemons, and outlive its main process.
//!
//! Their parents have exited, so they are children of keepalive. Only `KEEPALIVE_RUN` in their environment tells which run
//! they belong to. If there are children that keepalive does not know when a main process has exited, an inspector reads it,
//! and the exit is reported when the answer has come.

use std::fmt;
use std::hash::Hasher as _;
use std::io::Write as _;

use crate::model::{Mono, Pid, RunId};
use crate::supervisor::Exit;
use crate::sys::procfs;
use crate::sys::random::random_u64;

/// Enough for the first variables of an environment. Those of keepalive come first.
const ENVIRONMENT_BYTES: usize = 16 << 10;

/// `KEEPALIVE_RUN`: names a run. Nobody can guess that of another run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RunMarker {
    keys: [u64; 2],
}

/// The search for strays.
#[derive(Debug, Default)]
pub(super) struct Strays {
    /// Runs that may have left strays.
    pub(super) wanted: Vec<RunId>,
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
        Self { keys: [random_u64(), random_u64()] }
    }

    /// The value of the variable.
    pub(super) fn value(self, run: RunId) -> impl fmt::Display {
        let proof = self.proof(run.get());
        fmt::from_fn(move |formatter| write!(formatter, "{proof:016x}.{run}"))
    }

    #[expect(
        deprecated,
        reason = "DefaultHasher has no keys; RandomState brings its own source of random numbers, 4 KB"
    )]
    fn proof(self, run: u64) -> u64 {
        let [first, second] = self.keys;
        let mut hasher = std::hash::SipHasher::new_with_keys(first, second);
        hasher.write_u64(run);
        hasher.finish()
    }

    /// The run that an environment names, `NAME=value` each, with a NUL after it.
    fn run_in(self, environment: &[u8]) -> Option<RunId> {
        let value = environment.split(|byte| *byte == 0).find_map(|line| line.strip_prefix(b"KEEPALIVE_RUN="))?;
        let (proof, run) = str::from_utf8(value).ok()?.split_once('.')?;
        let run: u64 = run.parse().ok()?;
        (u64::from_str_radix(proof, 16) == Ok(self.proof(run))).then_some(RunId::new(run))
    }
}

impl Question {
    /// Runs in an inspector. `keepalive`: the process whose children are looked at.
    pub(super) fn answer(&self, keepalive: Pid) -> Vec<u8> {
        let mut answer = Vec::new();
        let mut buffer = vec![0; ENVIRONMENT_BYTES];
        for child in procfs::children(keepalive).unwrap_or_default() {
            let environment = procfs::environment(child, &mut buffer).unwrap_or_default();
            if let Some(run) = self.marker.run_in(environment).filter(|run| self.runs.contains(run)) {
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

    /// Whether there is something to do in the next turn.
    pub(super) const fn is_unsettled(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// This run, if any, may have strays.
    pub(super) fn wanted_by(&mut self, run: Option<RunId>) {
        self.wanted.extend(run);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_names_the_run_of_this_keepalive_only() {
        let (ours, other) = (RunMarker::new(), RunMarker::new());
        let environment = format!("PATH=/bin\0KEEPALIVE_RUN={}\0X=1\0", ours.value(RunId::new(7)));
        assert_eq!(ours.run_in(environment.as_bytes()), Some(RunId::new(7)));
        assert_eq!(other.run_in(environment.as_bytes()), None);
        let value = ours.value(RunId::new(7)).to_string();
        assert_eq!(ours.run_in(format!("KEEPALIVE_RUN={}", value.replace(".7", ".8")).as_bytes()), None, "forged");
        for text in ["", "KEEPALIVE_RUN=", "KEEPALIVE_RUN=ab", "KEEPALIVE_RUN=ab.", "KEEPALIVE_RUN=ab.x", "A=1"] {
            assert_eq!(ours.run_in(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn an_answer_lists_runs_and_processes() {
        let strays = |run| Question::strays_of(RunId::new(run), b"7 100\n8 200\n7 300\n").map(Pid::get).collect();
        let (of_7, of_9): (Vec<i32>, Vec<i32>) = (strays(7), strays(9));
        assert_eq!((of_7, of_9), (vec![100, 300], vec![]));
        assert_eq!(Question::strays_of(RunId::new(7), b"7 x\n7\n\xff").count(), 0);
    }
}

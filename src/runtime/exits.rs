//! Reports the exit of a main process when it is known whether it has left strays behind.

use std::time::Duration;

use super::processes::Processes;
use super::strays::Question;
use crate::model::plan::KillMode;
use crate::model::{Mono, Pid, RunId};
use crate::supervisor::{Event, Exit, Leftovers};
use crate::sys::wait::{self, WaitOptions};
use crate::sys::{ChildEvent, pidfd, process, procfs};

/// How long an exit is held back for messages that are being taken: a holder answers at once, but may get no time for a while
/// on a busy machine. One that hangs must not delay a stop beyond its default timeout.
const MAX_DELAY: Duration = Duration::from_secs(4);
/// How long keepalive does not look for strays after an inspector has not answered: what made it hang may still be there.
const PAUSE: Duration = Duration::from_secs(60);
/// How many children keepalive itself looks at.
pub(super) const MAX_CHILDREN: usize = 8192;

impl Processes {
    /// The main process of a run has been reaped: reports that by [`Self::settle_exits`].
    pub(super) fn hold_back(&mut self, run: RunId, exit: Exit) {
        self.strays.held_back.push((run, exit));
        self.search(run);
    }

    /// Strays of the run will be searched for in the next turn.
    pub(super) fn search(&mut self, run: RunId) {
        self.runs.on_search(run, &self.liveness);
        self.strays.wanted.push(run);
    }

    /// Reports the exits of runs that have left no strays, or asks for strays.
    ///
    /// `has_messages`: whether messages that a run has sent have not been read. Its exit is reported after them.
    ///
    /// `helpers`: the children of keepalive that belong to no run.
    pub(super) fn settle_exits(
        &mut self,
        has_messages: impl Fn(RunId) -> bool,
        helpers: impl FnOnce() -> Vec<Pid>,
    ) -> Vec<Event> {
        for run in std::mem::take(&mut self.strays.wanted) {
            let timeout = self.runs.of_id(run).map_or(MAX_DELAY, |run| run.spec.definition.stop.timeout);
            self.strays.delayed.push((run, self.now + timeout.min(MAX_DELAY)));
        }
        let is_due = |(run, until): &mut (RunId, Mono)| *until <= self.now || !has_messages(*run);
        let runs: Vec<RunId> = self.strays.delayed.extract_if(.., is_due).map(|(run, _)| run).collect();
        if runs.is_empty() {
            return Vec::new();
        }
        let is_paused = self.strays.paused_until.is_some_and(|until| until > self.now);
        if is_paused || !self.has_unknown_children(&helpers()) {
            return self.on_strays(&runs, &[]);
        }
        let marker = self.factory.run_marker();
        self.strays.question.get_or_insert_with(|| Question { marker, runs: Vec::new() }).runs.extend(runs);
        Vec::new()
    }

    /// Whether there are children that are neither `helpers` nor in a session or group of a run.
    fn has_unknown_children(&self, helpers: &[Pid]) -> bool {
        // Most children are main processes, about which the kernel need not be asked.
        let is_of_run = |pid| self.runs.of_pid(pid).is_some() || self.runs.of_session(pid).next().is_some();
        let is_known = |pid| helpers.contains(&pid) || self.factory.is_helper(pid) || is_of_run(pid);
        let Some(children) = procfs::children(process::id()) else { return true };
        !children.enumerate().all(|(position, child)| position < MAX_CHILDREN && child.is_ok_and(is_known))
    }

    /// An inspector has answered a question, or has not.
    pub(super) fn on_answer(&mut self, question: &Question, answer: Option<&[u8]>) -> Vec<Event> {
        self.strays.unanswered = self.strays.unanswered.saturating_sub(1);
        if answer.is_none() {
            self.strays.paused_until = Some(self.now + PAUSE);
        }
        self.strays.reaped.sort_unstable();
        let events = self.on_strays(&question.runs, answer.unwrap_or_default());
        if self.strays.unanswered == 0 {
            self.strays.reaped.clear();
        }
        events
    }

    fn on_strays(&mut self, runs: &[RunId], answer: &[u8]) -> Vec<Event> {
        let mut repeated = Vec::new();
        for run in runs {
            let found: Vec<Option<Pid>> = Question::strays_of(*run, answer).collect();
            let pids = || found.iter().copied().flatten();
            let children: Vec<Pid> = pids().filter(|pid| self.is_child(*pid)).collect();
            let is_one_gone = children.len() < pids().count();
            // What has gone meanwhile may have had children. Until that is known, the exit is not reported.
            let is_repeated = (is_one_gone || found.contains(&None)) && self.runs.may_search_again(*run);
            if is_repeated {
                repeated.push(*run);
            }
            if is_repeated || is_one_gone {
                self.search(*run);
            }
            let strays = children.into_iter().filter(|pid| self.is_stray(*run, *pid)).collect();
            self.runs.set_strays(*run, strays, &self.liveness);
            self.signal_found_strays(*run);
        }
        let held_back = std::mem::take(&mut self.strays.held_back);
        let (settled, held_back) =
            held_back.into_iter().partition(|(run, _)| runs.contains(run) && !repeated.contains(run));
        self.strays.held_back = held_back;
        let settled: Vec<(RunId, Exit)> = settled;
        if settled.len() + repeated.len() < runs.len() {
            // The next scan reports which runs have ended.
            self.schedule.request(None);
        }
        settled.into_iter().map(|(run, exit)| self.exited(run, exit)).collect()
    }

    /// Whether a pid in an answer is still that of the child.
    fn is_child(&self, pid: Pid) -> bool {
        self.strays.reaped.binary_search(&pid).is_err()
            && wait::peek_at(pid, WaitOptions::ExitsOnly) != Ok(ChildEvent::NoChildren)
    }

    /// Whether a child in an answer is outside of the session and the group of the run: these are signalled as a whole.
    fn is_stray(&self, run: RunId, pid: Pid) -> bool {
        let leaders = pidfd::session_and_group_of(pid);
        let is_known = self.runs.of_pid(pid).is_some() || self.factory.is_helper(pid);
        let of = self.runs.lingering(run).filter(|_| !is_known);
        of.is_some_and(|of| !of.leaders().any(|leader| leaders.contains(&Some(leader))))
    }

    fn exited(&mut self, run: RunId, exit: Exit) -> Event {
        let kill_mode = self.runs.of_id(run).map(|run| run.spec.definition.stop.kill_mode);
        if kill_mode == Some(KillMode::Process) {
            self.runs.remove(run);
        }
        let is_gone = self.runs.remove_if_ended(run, &self.liveness);
        Event::Exited { run, exit, leftovers: if is_gone { Leftovers::None } else { Leftovers::Some } }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::model::plan::{Process, Service};
    use crate::model::{ExitStatus, InstanceId, ServiceIndex};
    use crate::runtime::process_factory::ProcessFactory;
    use crate::runtime::runs::RunSpec;
    use crate::sys::StringList;

    /// A run whose main process has been reaped.
    fn with_ended_run(run: RunId, pid: Pid) -> Processes {
        let factory = ProcessFactory::new(StringList::new(), None).unwrap();
        let mut processes = Processes::new(factory, WaitOptions::ExitsOnly).unwrap();
        let instance = InstanceId { service: ServiceIndex(0), number: 0 };
        let spec =
            RunSpec::new((instance, None, None), 0, 1, Rc::new(Service::new("web", Process::new(Box::default()))));
        processes.runs.insert(run, spec, pid, &processes.liveness);
        processes.runs.linger(run);
        processes.hold_back(run, Exit { status: ExitStatus::Code(0), oom_killed: false });
        processes
    }

    #[test]
    fn an_exit_is_reported_when_no_child_has_exited_during_the_search() {
        // No process has such an id. pid_max(5)
        let (run, pid) = (RunId::new(7), Pid::new(i32::MAX).unwrap());
        // A child of keepalive whose limits could not be read, and one that has been reaped before the answer came.
        for inconclusive in ["7 0\n".to_owned(), format!("7 {pid}\n")] {
            let mut processes = with_ended_run(run, pid);
            assert_eq!(processes.on_strays(&[run], inconclusive.as_bytes()), []);
            assert_eq!(processes.strays.wanted, [run, run], "it is searched again");
            let events = processes.on_strays(&[run], b"");
            assert!(matches!(events[..], [Event::Exited { leftovers: Leftovers::None, .. }]), "{events:?}");
        }
    }
}

//! The actions of a process after exec, and its reports after a signal.

use std::rc::Rc;
use std::time::Duration;

use keepalive::model::plan::{Ready, Service};
use keepalive::model::{MemoryUse, ProbeFailure, RunId, Signal};
use keepalive::supervisor::{Event, ReadySource};

use super::{Forking, Occurrence, Run, World};
use crate::process::{Process, SignalEffect};
use crate::puppet::{Habits, Profile};

impl World {
    pub(super) fn exec_program(&mut self, run: RunId, profile: Profile) -> Vec<Event> {
        let Some(Run { main, hook, definition, .. }) = self.runs.get(&run) else { return Vec::new() };
        let (main, hook, definition) = (*main, *hook, Rc::clone(definition));
        let Some(Process { zombie: None, habits, .. }) = self.processes.get(&main) else { return Vec::new() };
        let habits = *habits;
        // A hook has no channel for reports.
        if hook.is_none() {
            self.schedule_reports(run, &definition, habits);
        }
        if let Some((life, status)) = habits.life {
            self.schedule_in(life, Occurrence::Die { serial: main, status });
        }
        let leaves = matches!(profile, Profile::Daemoniser);
        if self.chance.percent(self.fault_rates.leftovers) {
            for _ in 0..=self.chance.below(2) {
                self.create_other_process(Some(run));
            }
        }
        if leaves || self.chance.percent(self.fault_rates.daemons) {
            self.create_other_process(None);
        }
        if self.forking == Forking::Fork {
            let latency = self.latency();
            self.deliver_in(latency, Event::Executed { run });
        }
        Vec::new()
    }

    /// Schedules the reports of a new process.
    fn schedule_reports(&mut self, run: RunId, definition: &Service, habits: Habits) {
        let latency = self.latency();
        let source = match definition.ready {
            Ready::Notify => Some(ReadySource::Notify),
            Ready::Ipc => Some(ReadySource::Ipc),
            Ready::Fd(_) => Some(ReadySource::Fd),
            Ready::Exec | Ready::Delay(_) | Ready::Probe(_) => None,
        };
        if let Some(source) = source
            && let Some(delay) = habits.ready_after
        {
            self.deliver_in(delay, Event::Ready { run, source });
        }
        // Most processes turn their watchdog off at once; the others send no ping until it expires.
        if definition.watchdog.is_some() && !self.chance.one_in(4) {
            let after = habits.ready_after.unwrap_or_default() + latency;
            let interval = if self.chance.one_in(4) { self.chance.millis(1, 90_000) } else { Duration::ZERO };
            self.deliver_in(after, Event::WatchdogInterval { run, interval });
        }
        if self.chance.one_in(10) {
            let after = self.chance.up_to(Duration::from_secs(10));
            self.schedule_in(after, Occurrence::ChangeMainPid { run });
        }
        if self.chance.one_in(8) {
            for _ in 0..self.chance.below(6) {
                let after = self.chance.millis(0, 20_000);
                let event = match self.chance.below(14) {
                    0 => Event::WatchdogTriggered { run },
                    1..=3 => {
                        let since = self.chance.one_in(2).then_some(self.now + after);
                        Event::Reloading { run, since }
                    }
                    4..=6 => {
                        let sources = [ReadySource::Notify, ReadySource::Notify, ReadySource::Ipc, ReadySource::Fd];
                        Event::Ready { run, source: self.chance.pick(&sources) }
                    }
                    7 => Event::StoppingReported { run },
                    8 => Event::ResetFailures { run },
                    9..=10 => Event::TimeoutExtended { run, by: self.chance.millis(0, 20_000) },
                    _ => Event::WatchdogPing { run },
                };
                self.deliver_in(after, event);
            }
        }
    }

    /// Schedules the reports of the main process after a signal.
    pub(super) fn schedule_answers(&mut self, run: RunId, signal: Signal) {
        if self.runs.get(&run).is_some_and(|run| run.hook.is_some()) {
            return;
        }
        let after = self.chance.millis(0, 1_500);
        match self.effect(signal) {
            SignalEffect::End if self.chance.one_in(8) => {
                let by = self.chance.millis(0, 20_000);
                self.deliver_in(after, Event::TimeoutExtended { run, by });
            }
            SignalEffect::Other if self.chance.one_in(2) => {
                self.deliver_in(after, Event::Reloading { run, since: Some(self.now) });
                if !self.chance.one_in(4) {
                    let until = after + self.chance.millis(0, 5_000);
                    self.deliver_in(until, Event::Ready { run, source: ReadySource::Notify });
                }
            }
            SignalEffect::Kill
            | SignalEffect::Stop
            | SignalEffect::Continue
            | SignalEffect::End
            | SignalEffect::Other => {}
        }
    }

    /// A new process of the run becomes its main process. The old one continues as an ordinary process of the run.
    pub(super) fn change_main_pid(&mut self, run: RunId) -> Vec<Event> {
        let before = self.runs.get(&run).and_then(|run| self.processes.get(&run.main));
        if before.is_none_or(|process| process.zombie.is_some() || process.stopped) {
            return Vec::new();
        }
        let main = self.create_other_process(Some(run));
        let pid = self.processes[&main].pid;
        if let Some(run) = self.runs.get_mut(&run) {
            run.main = main;
        }
        vec![Event::MainPidChanged { run, pid }]
    }
}

/// Health checks.
impl World {
    pub(super) fn start_check(&mut self, run: RunId, timeout: Duration) {
        let number = self.last_sequence;
        let takes = if self.chance.one_in(4) { self.chance.up_to(timeout) } else { self.latency().min(timeout) };
        if let Some(of) = self.runs.get_mut(&run) {
            of.check = Some(number);
            self.schedule_in(takes, Occurrence::FinishCheck { run, number });
        }
    }

    /// Some processes cannot be measured.
    pub(super) fn finish_measuring(&mut self) -> Vec<Event> {
        let mut used = Vec::new();
        let fails = self.chance.one_in(8);
        for run in self.runs.keys() {
            if !fails && !self.chance.one_in(8) {
                let is_proportional = self.chance.one_in(2);
                used.push((*run, MemoryUse { bytes: self.chance.below(1 << 20), is_proportional }));
            }
        }
        vec![Event::MemoryMeasured(used)]
    }

    /// The result, unless the check has been aborted.
    pub(super) fn finish_check(&mut self, run: RunId, number: u64) -> Vec<Event> {
        let Some(of) = self.runs.get_mut(&run).filter(|run| run.check == Some(number)) else { return Vec::new() };
        of.check = None;
        let failure = self.chance.one_in(3).then_some(ProbeFailure::TimedOut);
        vec![Event::Checked { run, failure }]
    }
}

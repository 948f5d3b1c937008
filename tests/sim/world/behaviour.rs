//! What processes do by themselves once their program runs, and what they answer to signals.

use std::rc::Rc;
use std::time::Duration;

use keepalive::model::plan::{Ready, Service};
use keepalive::model::{RunId, Signal};
use keepalive::supervisor::{Event, ReadySource};

use super::{Forking, Happening, Run, World};
use crate::process::{Meaning, Process};
use crate::puppet::{Character, Habits};

impl World {
    pub(super) fn executes(&mut self, run: RunId, character: Character) -> Vec<Event> {
        let Some(Run { main, definition, .. }) = self.runs.get(&run) else { return Vec::new() };
        let (main, definition) = (*main, Rc::clone(definition));
        let Some(Process { zombie: None, habits, .. }) = self.processes.get(&main) else { return Vec::new() };
        let habits = *habits;
        self.talks(run, &definition, habits);
        if let Some((life, status)) = habits.life {
            self.write_in(life, Happening::Dies { serial: main, status });
        }
        let leaves = matches!(character, Character::Liar);
        if self.chance.percent(self.temper.leavers) {
            for _ in 0..=self.chance.below(2) {
                self.make_other(Some(run));
            }
        }
        if leaves || self.chance.percent(self.temper.daemons) {
            self.make_other(None);
        }
        if self.forking == Forking::Fork {
            let latency = self.latency();
            self.send_in(latency, Event::Executed { run });
        }
        Vec::new()
    }

    /// What it is going to say.
    fn talks(&mut self, run: RunId, definition: &Service, habits: Habits) {
        let latency = self.latency();
        let source = match definition.ready {
            Ready::Notify => Some(ReadySource::Notify),
            Ready::Ipc => Some(ReadySource::Ipc),
            Ready::Fd(_) => Some(ReadySource::Fd),
            Ready::Exec | Ready::Delay(_) | Ready::Probe(_) => None,
        };
        if let Some(source) = source
            && let Some(delay) = habits.readies
        {
            self.send_in(delay, Event::Ready { run, source });
        }
        // Most silence their watchdog at once: those that do not are silent until it bites.
        if definition.watchdog.is_some() && !self.chance.one_in(4) {
            let after = habits.readies.unwrap_or_default() + latency;
            let interval = if self.chance.one_in(4) { self.chance.millis(1, 90_000) } else { Duration::ZERO };
            self.send_in(after, Event::WatchdogInterval { run, interval });
        }
        if self.chance.one_in(10) {
            let after = self.chance.up_to(Duration::from_secs(10));
            self.write_in(after, Happening::HandsOver { run });
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
                self.send_in(after, event);
            }
        }
    }

    /// A signal of which the main process may have something to say.
    pub(super) fn answers(&mut self, run: RunId, signal: Signal) {
        let after = self.chance.millis(0, 1_500);
        match self.meaning(signal) {
            Meaning::End if self.chance.one_in(8) => {
                let by = self.chance.millis(0, 20_000);
                self.send_in(after, Event::TimeoutExtended { run, by });
            }
            Meaning::Other if self.chance.one_in(2) => {
                self.send_in(after, Event::Reloading { run, since: Some(self.now) });
                if !self.chance.one_in(4) {
                    let until = after + self.chance.millis(0, 5_000);
                    self.send_in(until, Event::Ready { run, source: ReadySource::Notify });
                }
            }
            Meaning::Kill | Meaning::Stop | Meaning::Continue | Meaning::End | Meaning::Other => {}
        }
    }

    /// A new process of the run takes the place of its main process, which goes on as any other of the run.
    pub(super) fn hands_over(&mut self, run: RunId) -> Vec<Event> {
        let before = self.runs.get(&run).and_then(|run| self.processes.get(&run.main));
        if before.is_none_or(|process| process.zombie.is_some() || process.stopped) {
            return Vec::new();
        }
        let main = self.make_other(Some(run));
        let pid = self.processes[&main].pid;
        if let Some(run) = self.runs.get_mut(&run) {
            run.main = main;
        }
        vec![Event::MainPidChanged { run, pid }]
    }
}

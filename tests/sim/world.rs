//! A world without a kernel: processes that are made, signalled, die and are reaped, and the order in which the
//! supervisor hears of it.

mod behaviour;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use keepalive::model::plan::Service;
use keepalive::model::{ExitStatus, InstanceId, Mono, Pid, Plan, RunId, Signal, StartFailure, StartStep};
use keepalive::supervisor::{Action, Event, Exit, GroupAtDeath, Leftovers, ReadySource, RequestId, Scope};
use nix::errno::Errno;

use crate::chance::Chance;
use crate::process::{Meaning, Process};
use crate::puppet::{self, Character, Exec, Habits, Temper};

/// Tells processes apart for ever, as pids do not.
type Serial = u64;

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) now: Mono,
    pub(crate) chance: Chance,
    agenda: BTreeMap<(Mono, u64), Happening>,
    written: u64,
    processes: BTreeMap<Serial, Process>,
    /// The runs whose main process the supervisor has not been told the end of.
    runs: BTreeMap<RunId, Run>,
    /// Runs whose leftovers are still to be reported gone.
    lingering: BTreeSet<RunId>,
    serials: Serial,
    characters: Vec<Character>,
    temper: Temper,
    forking: Forking,
    /// No process can be made before this.
    full_until: Mono,
    pid_limit: i32,
    last_pid: i32,
    /// Whether the id that was freed last is given out next, as when they have all been gone through meanwhile.
    reuses_at_once: bool,
    stop_signals: Vec<Signal>,
    /// What stands in the configuration.
    config: Rc<Plan>,
}

#[derive(Debug)]
struct Run {
    main: Serial,
    definition: Rc<Service>,
    is_probed: bool,
}

/// How the runtime makes processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Forking {
    /// Exec is told later.
    Fork,
    /// Exec has succeeded or failed before the parent goes on.
    Vfork,
}

#[derive(Debug)]
enum Happening {
    Executes {
        run: RunId,
        character: Character,
    },
    /// Another process becomes the main one.
    HandsOver {
        run: RunId,
    },
    ProbePasses {
        run: RunId,
    },
    Dies {
        serial: Serial,
        status: ExitStatus,
    },
    Reaped {
        run: RunId,
    },
    LeftoversGone {
        run: RunId,
    },
    Full {
        until: Mono,
    },
    ConfigRead {
        id: Option<RequestId>,
        event: Event,
    },
    /// The supervisor is told this.
    Sent(Event),
}

impl World {
    pub(crate) fn new(plan: &Plan, mut chance: Chance) -> Self {
        let temper = Temper::random(&mut chance);
        let instances: u32 = plan.services.iter().map(|service| service.instances).sum();
        let characters = plan.services.iter().map(|service| puppet::character(&mut chance, service.kind)).collect();
        let forking = if chance.one_in(2) { Forking::Fork } else { Forking::Vfork };
        let pid_limit = if chance.one_in(2) { 8 + 2 * instances as i32 } else { 32_768 };
        Self {
            now: Mono::from_nanos(chance.below(1 << 50)),
            agenda: BTreeMap::new(),
            written: 0,
            processes: BTreeMap::new(),
            runs: BTreeMap::new(),
            lingering: BTreeSet::new(),
            serials: 0,
            characters,
            temper,
            forking,
            full_until: Mono::default(),
            pid_limit,
            last_pid: 1,
            reuses_at_once: chance.one_in(4),
            config: Rc::new(plan.clone()),
            stop_signals: plan.services.iter().map(|service| service.stop.signal).collect(),
            chance,
        }
    }

    /// When something happens next.
    pub(crate) fn next(&self) -> Option<Mono> {
        self.agenda.first_key_value().map(|((at, _), _)| *at)
    }

    pub(crate) fn plan_outside(&mut self, at: Mono, event: Event) {
        self.write(at, Happening::Sent(event));
    }

    /// From `at` on for a while no process can be made.
    pub(crate) fn plan_shortage(&mut self, at: Mono, lasting: Duration) {
        self.write(at, Happening::Full { until: at + lasting });
    }

    fn write(&mut self, at: Mono, happening: Happening) {
        self.written += 1;
        self.agenda.insert((at, self.written), happening);
    }

    fn write_in(&mut self, delay: Duration, happening: Happening) {
        self.write(self.now + delay, happening);
    }

    /// How late the supervisor hears of something.
    fn latency(&mut self) -> Duration {
        match self.chance.below(12) {
            0 => self.chance.millis(0, 5),
            1 => self.chance.millis(0, 200),
            _ => Duration::ZERO,
        }
    }

    /// Lets the next thing happen that is due; gives back what the supervisor hears of it.
    pub(crate) fn happen(&mut self) -> Option<Vec<Event>> {
        let entry = self.agenda.first_entry()?;
        if entry.key().0 > self.now {
            return None;
        }
        let before = self.processes.len();
        let mut events = match entry.remove() {
            Happening::Executes { run, character } => self.executes(run, character),
            Happening::HandsOver { run } => self.hands_over(run),
            Happening::ProbePasses { run } => {
                let is_probed = self.runs.get(&run).is_some_and(|run| run.is_probed);
                is_probed.then_some(Event::Ready { run, source: ReadySource::Probe }).into_iter().collect()
            }
            Happening::Dies { serial, status } => self.dies(serial, status),
            Happening::Reaped { run } => self.reaped(run),
            Happening::LeftoversGone { run } => {
                self.lingering.remove(&run);
                vec![Event::LeftoversGone { run }]
            }
            Happening::Full { until } => {
                self.full_until = self.full_until.max(until);
                Vec::new()
            }
            Happening::ConfigRead { event, .. } | Happening::Sent(event) => vec![event],
        };
        if self.processes.is_empty() && before > 0 {
            events.push(Event::NoChildren);
        }
        Some(events)
    }

    fn send_in(&mut self, delay: Duration, event: Event) {
        self.write_in(delay, Happening::Sent(event));
    }

    fn make_other(&mut self, run: Option<RunId>) -> Serial {
        let habits = puppet::member(&mut self.chance, self.temper);
        let serial = self.make(run, habits);
        if let Some((life, status)) = habits.life {
            self.write_in(life, Happening::Dies { serial, status });
        }
        serial
    }

    fn make(&mut self, run: Option<RunId>, habits: Habits) -> Serial {
        self.serials += 1;
        let (pid, stopped) = (self.free_pid(), habits.stopped);
        let process = Process { pid, run, habits, unheard: None, stopped, zombie: None };
        self.processes.insert(self.serials, process);
        self.serials
    }

    /// The run whose main process it is.
    fn run_of_main(&self, serial: Serial) -> Option<RunId> {
        let run = self.processes.get(&serial)?.run?;
        (self.runs.get(&run)?.main == serial).then_some(run)
    }

    fn dies(&mut self, serial: Serial, status: ExitStatus) -> Vec<Event> {
        let latency = self.latency();
        let main_of = self.run_of_main(serial);
        let Some(process) = self.processes.get_mut(&serial) else { return Vec::new() };
        if process.zombie.is_some() || (process.stopped && status != ExitStatus::Signal(Signal::KILL)) {
            return Vec::new();
        }
        if let Some(run) = main_of {
            process.zombie = Some(status);
            self.write_in(latency, Happening::Reaped { run });
        } else if let Some(Process { run: Some(run), .. }) = self.processes.remove(&serial)
            && self.lingering.contains(&run)
            && !self.has_members(run)
        {
            let late = if self.chance.one_in(10) { self.chance.millis(0, 20_000) } else { latency };
            self.write_in(late, Happening::LeftoversGone { run });
        }
        Vec::new()
    }

    fn has_members(&self, of: RunId) -> bool {
        self.processes.values().any(|process| process.run == Some(of))
    }

    fn reaped(&mut self, run: RunId) -> Vec<Event> {
        let Some(Run { main, definition, .. }) = self.runs.remove(&run) else { return Vec::new() };
        let Some(Process { zombie: Some(status), .. }) = self.processes.remove(&main) else { return Vec::new() };
        let leftovers = match GroupAtDeath::of(definition.stop.kill_mode) {
            GroupAtDeath::LeftAlone => Leftovers::None,
            GroupAtDeath::Killed | GroupAtDeath::Kept if !self.has_members(run) => Leftovers::None,
            group @ (GroupAtDeath::Killed | GroupAtDeath::Kept) => {
                self.lingering.insert(run);
                if group == GroupAtDeath::Killed {
                    self.signal_some(Signal::KILL, |_, process| process.run == Some(run));
                }
                Leftovers::Some
            }
        };
        let oom_killed = status == ExitStatus::Signal(Signal::KILL) && self.chance.one_in(5);
        vec![Event::Exited { run, exit: Exit { status, oom_killed }, leftovers }]
    }

    /// Does what the supervisor wants; gives back what it hears at once.
    pub(crate) fn perform(&mut self, action: &Action) -> Vec<Event> {
        match action {
            Action::Spawn { run, instance, definition, .. } => return self.spawn(*run, *instance, definition),
            Action::Signal { run, scope, signal } => {
                let main = self.runs.get(run).map(|run| run.main);
                self.signal_some(*signal, |serial, process| match scope {
                    Scope::Main => Some(serial) == main,
                    Scope::Group => process.run == Some(*run),
                    Scope::Leftovers => process.run == Some(*run) && main.is_none(),
                });
                if matches!(scope, Scope::Main | Scope::Group) {
                    self.answers(*run, *signal);
                }
            }
            Action::SignalAll { signal } => {
                self.signal_some(*signal, |_, _| true);
                if self.processes.is_empty() {
                    return vec![Event::NoChildren];
                }
            }
            Action::StartProbe { run } => self.probe(*run),
            Action::AbortProbe { run } => {
                if let Some(run) = self.runs.get_mut(run) {
                    run.is_probed = false;
                }
            }
            Action::LoadConfig { id } => return self.load_config(*id),
            // Unless it has begun.
            Action::WithdrawConfigLoad { id } => {
                let is_waiting = self.chance.one_in(2);
                self.forget_config_loads(|of| is_waiting && of == Some(*id));
            }
            Action::CancelConfigLoad => self.forget_config_loads(|_| true),
            Action::ReleaseInstance { .. }
            | Action::RemoveInstance { .. }
            | Action::ReleaseService { .. }
            | Action::PreferSockets { .. }
            | Action::ApplyConfig(_)
            | Action::AnnounceStop { .. }
            | Action::ReleaseRun { .. }
            | Action::WriteJournal(_)
            | Action::Reply { .. }
            | Action::Exit(_) => {}
        }
        Vec::new()
    }

    /// From now on this stands in the configuration.
    pub(crate) fn write_config(&mut self, config: Plan) {
        self.config = Rc::new(config);
    }

    /// It takes a while, unless it fails at once.
    fn load_config(&mut self, id: Option<RequestId>) -> Vec<Event> {
        let failed = || Event::ConfigLoadFailed { id, reason: "it is invalid".into() };
        let event = match self.chance.below(8) {
            0 => return vec![failed()],
            1 => failed(),
            _ => Event::ConfigLoaded { id, plan: Rc::clone(&self.config) },
        };
        let takes = if self.chance.one_in(10) { self.chance.millis(0, 15_000) } else { self.latency() };
        self.write_in(takes, Happening::ConfigRead { id, event });
        Vec::new()
    }

    fn forget_config_loads(&mut self, is_meant: impl Fn(Option<RequestId>) -> bool) {
        self.agenda.retain(|_, happening| !matches!(happening, Happening::ConfigRead { id, .. } if is_meant(*id)));
    }

    fn probe(&mut self, run: RunId) {
        let Some(of) = self.runs.get_mut(&run) else { return };
        of.is_probed = true;
        if let Some(delay) = self.processes.get(&of.main).and_then(|main| main.habits.readies) {
            self.write_in(delay, Happening::ProbePasses { run });
        }
    }

    fn spawn(&mut self, run: RunId, instance: InstanceId, definition: &Rc<Service>) -> Vec<Event> {
        if self.full_until > self.now {
            let errno = self.chance.pick(&[Errno::EAGAIN, Errno::ENOMEM, Errno::EMFILE, Errno::ENFILE]);
            return vec![Event::SpawnFailed { run, errno }];
        }
        if self.chance.percent(self.temper.bind_failures) {
            let failure = StartFailure { step: StartStep::Listen(0), errno: Errno::EADDRINUSE };
            return vec![Event::BindFailed { run, failure }];
        }
        let character = self.characters[instance.service.position()];
        let habits = puppet::habits(&mut self.chance, character, self.temper);
        let main = self.make(Some(run), habits);
        let pid = self.processes[&main].pid;
        self.runs.insert(run, Run { main, definition: Rc::clone(definition), is_probed: false });
        let mut events = vec![Event::Spawned { run, pid }];
        let exec = puppet::exec(&mut self.chance, character, self.temper);
        let takes = match self.forking {
            Forking::Vfork => Duration::ZERO,
            Forking::Fork if self.chance.one_in(20) => self.chance.millis(0, 40_000),
            Forking::Fork => self.chance.millis(0, 30),
        };
        match exec {
            Exec::Hangs => {}
            Exec::Succeeds => {
                if self.forking == Forking::Vfork {
                    events.push(Event::Executed { run });
                }
                self.write_in(takes, Happening::Executes { run, character });
            }
            Exec::Fails(failure) => {
                let event = Event::ExecFailed { run, failure };
                if self.forking == Forking::Vfork {
                    events.push(event);
                } else {
                    self.send_in(takes, event);
                }
                let status = ExitStatus::Code(failure.exit_code());
                self.write_in(takes, Happening::Dies { serial: main, status });
            }
        }
        events
    }

    /// One that no process has. It may be that of the dead leader of a group: the kernel would not give that out yet.
    fn free_pid(&mut self) -> Pid {
        if self.reuses_at_once {
            self.last_pid = 1;
        }
        loop {
            self.last_pid = if self.last_pid >= self.pid_limit { 2 } else { self.last_pid + 1 };
            let pid = Pid::new(self.last_pid).unwrap();
            if self.processes.values().all(|process| process.pid != pid) {
                return pid;
            }
            if self.chance.one_in(64) {
                self.pid_limit += 8;
            }
        }
    }

    fn signal_some(&mut self, signal: Signal, to: impl Fn(Serial, &Process) -> bool) {
        let (now, meaning) = (self.now, self.meaning(signal));
        let mut deaths = Vec::new();
        for (serial, process) in self.processes.iter_mut().filter(|(serial, process)| to(**serial, process)) {
            if let Some((delay, status)) = process.hear(signal, meaning) {
                deaths.push((now + delay, Happening::Dies { serial: *serial, status }));
            }
        }
        for (at, death) in deaths {
            self.write(at, death);
        }
    }

    fn meaning(&self, signal: Signal) -> Meaning {
        match signal {
            Signal::KILL => Meaning::Kill,
            Signal::STOP => Meaning::Stop,
            Signal::CONT => Meaning::Continue,
            _ if signal == Signal::TERM || signal == Signal::ABRT || self.stop_signals.contains(&signal) => {
                Meaning::End
            }
            _ => Meaning::Other,
        }
    }

    /// The main process of a run, unless the supervisor has been told its end.
    pub(crate) fn main_pid(&self, run: RunId) -> Option<Pid> {
        self.runs.get(&run).and_then(|run| self.processes.get(&run.main)).map(|process| process.pid)
    }

    /// Whether nothing is left at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.processes.is_empty()
    }

    /// Whether the supervisor is still to hear that what the run has left is gone.
    pub(crate) fn owes_leftovers_gone(&self, run: RunId) -> bool {
        self.lingering.contains(&run)
    }
}

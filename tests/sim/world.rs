//! A world without a kernel: processes that are made, signalled, die and are reaped, and the order in which the
//! supervisor hears of it.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use keepalive::model::plan::{Ready, Service};
use keepalive::model::{ExitStatus, InstanceId, Mono, Pid, Plan, Signal};
use keepalive::supervisor::{Action, Event, Exit, Leftovers, RequestId, Scope};
use nix::errno::Errno;

use crate::chance::Chance;
use crate::process::{Meaning, Process, Role};
use crate::puppet::{self, Character, Exec, Habits, Temper};

/// Tells processes apart for ever, as pids do not.
pub(crate) type Serial = u64;

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) now: Mono,
    pub(crate) chance: Chance,
    agenda: BTreeMap<(Mono, u64), Happening>,
    written: u64,
    processes: BTreeMap<Serial, Process>,
    /// The main process that has, or had, the pid.
    owners: BTreeMap<Pid, Serial>,
    /// Pids whose leftovers are still to be reported gone.
    remains: BTreeSet<Pid>,
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
    Executes { serial: Serial, character: Character },
    Dies { serial: Serial, status: ExitStatus },
    Reaped { serial: Serial },
    Told { serial: Serial, event: Event },
    Cleared { leader: Pid },
    Full { until: Mono },
    ConfigRead { id: Option<RequestId>, event: Event },
    Outside(Event),
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
            owners: BTreeMap::new(),
            remains: BTreeSet::new(),
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
        self.write(at, Happening::Outside(event));
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
            Happening::Executes { serial, character } => self.executes(serial, character),
            Happening::Dies { serial, status } => self.dies(serial, status),
            Happening::Reaped { serial } => self.reaped(serial),
            Happening::Told { serial, event } => self.told(serial, event),
            Happening::Cleared { leader } => {
                self.remains.remove(&leader);
                vec![Event::Cleared { pid: leader }]
            }
            Happening::Full { until } => {
                self.full_until = self.full_until.max(until);
                Vec::new()
            }
            Happening::ConfigRead { event, .. } | Happening::Outside(event) => vec![event],
        };
        if self.processes.is_empty() && before > 0 {
            events.push(Event::Childless);
        }
        Some(events)
    }

    fn executes(&mut self, serial: Serial, character: Character) -> Vec<Event> {
        let Some(Process { role: Role::Main { pid }, zombie: None, habits, .. }) = self.processes.get(&serial) else {
            return Vec::new();
        };
        let (pid, habits) = (*pid, *habits);
        let definition = self.processes.get(&serial).and_then(|process| process.definition.clone());
        if let Some(definition) = definition {
            self.talks(serial, pid, &definition, habits);
        }
        if let Some((life, status)) = habits.life {
            self.write_in(life, Happening::Dies { serial, status });
        }
        let leaves = matches!(character, Character::Liar);
        if self.chance.percent(self.temper.leavers) {
            for _ in 0..=self.chance.below(2) {
                self.make_other(Role::Member { leader: pid });
            }
        }
        if leaves || self.chance.percent(self.temper.daemons) {
            self.make_other(Role::Stray);
        }
        if self.forking == Forking::Fork {
            let latency = self.latency();
            self.write_in(latency, Happening::Told { serial, event: Event::Executed { pid } });
        }
        Vec::new()
    }

    /// What it is going to say.
    fn talks(&mut self, serial: Serial, pid: Pid, definition: &Service, habits: Habits) {
        let latency = self.latency();
        if definition.ready == Ready::Notify
            && let Some(delay) = habits.readies
        {
            self.write_in(delay, Happening::Told { serial, event: Event::Ready { pid } });
        }
        // Most silence their watchdog at once: those that do not are silent until it bites.
        if definition.watchdog.is_some() && !self.chance.one_in(4) {
            let after = habits.readies.unwrap_or_default() + latency;
            let interval = if self.chance.one_in(4) { self.chance.millis(1, 90_000) } else { Duration::ZERO };
            self.write_in(after, Happening::Told { serial, event: Event::WatchdogEvery { pid, interval } });
        }
        if self.chance.one_in(8) {
            for _ in 0..self.chance.below(6) {
                let event = match self.chance.below(12) {
                    0 => Event::WatchdogTriggered { pid },
                    10 => Event::Stopping { pid },
                    11 => Event::ResetFailures { pid },
                    1..=3 => {
                        let since = self.chance.one_in(2).then_some(self.now);
                        Event::Reloading { pid, since }
                    }
                    4..=6 => Event::Ready { pid },
                    _ => Event::Alive { pid },
                };
                let after = self.chance.millis(0, 20_000);
                self.write_in(after, Happening::Told { serial, event });
            }
        }
    }

    fn make_other(&mut self, role: Role) {
        let habits = puppet::member(&mut self.chance, self.temper);
        let serial = self.make(role, habits);
        if let Some((life, status)) = habits.life {
            self.write_in(life, Happening::Dies { serial, status });
        }
    }

    fn make(&mut self, role: Role, habits: Habits) -> Serial {
        self.serials += 1;
        let stopped = habits.stopped;
        let process = Process { role, habits, definition: None, unheard: None, stopped, zombie: None };
        self.processes.insert(self.serials, process);
        self.serials
    }

    fn dies(&mut self, serial: Serial, status: ExitStatus) -> Vec<Event> {
        let latency = self.latency();
        let Some(process) = self.processes.get_mut(&serial) else { return Vec::new() };
        if process.zombie.is_some() || (process.stopped && status != ExitStatus::Signal(Signal::KILL)) {
            return Vec::new();
        }
        match process.role {
            Role::Main { .. } => {
                process.zombie = Some(status);
                self.write_in(latency, Happening::Reaped { serial });
            }
            Role::Member { leader } => {
                self.processes.remove(&serial);
                if self.remains.contains(&leader) && !self.has_members(leader) {
                    let late = if self.chance.one_in(10) { self.chance.millis(0, 20_000) } else { latency };
                    self.write_in(late, Happening::Cleared { leader });
                }
            }
            Role::Stray => {
                self.processes.remove(&serial);
            }
        }
        Vec::new()
    }

    fn has_members(&self, of: Pid) -> bool {
        self.processes.values().any(|process| process.role == Role::Member { leader: of })
    }

    fn reaped(&mut self, serial: Serial) -> Vec<Event> {
        let Some(Process { role: Role::Main { pid }, zombie: Some(status), .. }) = self.processes.remove(&serial)
        else {
            return Vec::new();
        };
        let left = if self.has_members(pid) { Leftovers::Some } else { Leftovers::None };
        if left == Leftovers::Some {
            self.remains.insert(pid);
        }
        let oom_killed = status == ExitStatus::Signal(Signal::KILL) && self.chance.one_in(5);
        vec![Event::Exited { pid, exit: Exit { status, oom_killed }, left }]
    }

    /// The runtime drops what it hears of a process after its pid has got another owner.
    fn told(&self, serial: Serial, event: Event) -> Vec<Event> {
        let (Event::Executed { pid }
        | Event::ExecFailed { pid, .. }
        | Event::Ready { pid }
        | Event::Reloading { pid, .. }
        | Event::Stopping { pid }
        | Event::ResetFailures { pid }
        | Event::Alive { pid }
        | Event::WatchdogEvery { pid, .. }
        | Event::WatchdogTriggered { pid }) = event
        else {
            return vec![event];
        };
        if self.owners.get(&pid) == Some(&serial) { vec![event] } else { Vec::new() }
    }

    /// Does what the supervisor wants; gives back what it hears at once.
    pub(crate) fn perform(&mut self, action: &Action) -> Vec<Event> {
        match action {
            Action::Spawn { instance, definition, .. } => self.spawn(*instance, definition),
            Action::Signal { pid, scope, signal } => {
                self.signal_some(*signal, |role| match scope {
                    Scope::Main => role == Role::Main { pid: *pid },
                    Scope::Group => role == Role::Main { pid: *pid } || role == Role::Member { leader: *pid },
                    Scope::Leftovers => role == Role::Member { leader: *pid },
                });
                Vec::new()
            }
            Action::SignalAll { signal } => {
                self.signal_some(*signal, |_| true);
                if self.processes.is_empty() { vec![Event::Childless] } else { Vec::new() }
            }
            Action::LoadConfig { id } => self.load_config(*id),
            // Unless it has begun.
            Action::WithdrawConfigLoad { id } => {
                let is_waiting = self.chance.one_in(2);
                self.forget_config_loads(|of| is_waiting && of == Some(*id))
            }
            Action::CancelConfigLoad => self.forget_config_loads(|_| true),
            Action::ReleaseInstance { .. }
            | Action::RemoveInstance { .. }
            | Action::ReleaseService { .. }
            | Action::PreferSockets { .. }
            | Action::LogProbeFailure { .. }
            | Action::Adopt(_)
            | Action::Farewell { .. }
            | Action::JournalEntry(_)
            | Action::Reply { .. }
            | Action::Exit(_) => Vec::new(),
        }
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

    fn forget_config_loads(&mut self, is_meant: impl Fn(Option<RequestId>) -> bool) -> Vec<Event> {
        self.agenda.retain(|_, happening| !matches!(happening, Happening::ConfigRead { id, .. } if is_meant(*id)));
        Vec::new()
    }

    fn spawn(&mut self, instance: InstanceId, definition: &Rc<Service>) -> Vec<Event> {
        if self.full_until > self.now {
            let errno = self.chance.pick(&[Errno::EAGAIN, Errno::ENOMEM, Errno::EMFILE, Errno::ENFILE]);
            return vec![Event::SpawnRefused { instance, errno }];
        }
        let character = self.characters[instance.service.position()];
        let habits = puppet::habits(&mut self.chance, character, self.temper);
        let pid = self.free_pid();
        let serial = self.make(Role::Main { pid }, habits);
        self.owners.insert(pid, serial);
        if let Some(process) = self.processes.get_mut(&serial) {
            process.definition = Some(Rc::clone(definition));
        }
        let mut events = vec![Event::Spawned { instance, pid }];
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
                    events.push(Event::Executed { pid });
                }
                self.write_in(takes, Happening::Executes { serial, character });
            }
            Exec::Fails(failure) => {
                let event = Event::ExecFailed { pid, failure };
                if self.forking == Forking::Vfork {
                    events.push(event);
                } else {
                    self.write_in(takes, Happening::Told { serial, event });
                }
                let status = ExitStatus::Code(failure.exit_code());
                self.write_in(takes, Happening::Dies { serial, status });
            }
        }
        events
    }

    fn free_pid(&mut self) -> Pid {
        if self.reuses_at_once {
            self.last_pid = 1;
        }
        loop {
            self.last_pid = if self.last_pid >= self.pid_limit { 2 } else { self.last_pid + 1 };
            let pid = Pid::new(self.last_pid).unwrap();
            if !self.is_unreaped(pid) && !self.has_members(pid) && !self.remains.contains(&pid) {
                return pid;
            }
            if self.chance.one_in(64) {
                self.pid_limit += 8;
            }
        }
    }

    fn signal_some(&mut self, signal: Signal, to: impl Fn(Role) -> bool) {
        let (now, meaning) = (self.now, self.meaning(signal));
        let mut deaths = Vec::new();
        for (serial, process) in self.processes.iter_mut().filter(|(_, process)| to(process.role)) {
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

    /// Whether `pid` is a main process that the supervisor has not been told the end of.
    pub(crate) fn is_unreaped(&self, pid: Pid) -> bool {
        self.serial(pid).is_some()
    }

    /// The main process that has `pid` and that the supervisor has not been told the end of.
    pub(crate) fn serial(&self, pid: Pid) -> Option<Serial> {
        self.owners.get(&pid).copied().filter(|serial| self.processes.contains_key(serial))
    }

    /// Whether nothing is left at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.processes.is_empty()
    }

    /// Whether the supervisor is still to hear of what `pid` has left.
    pub(crate) fn owes_cleared(&self, pid: Pid) -> bool {
        self.remains.contains(&pid)
    }
}

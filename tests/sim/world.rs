//! Simulates the kernel: processes are created, get signals, die and are reaped, and the supervisor gets events about
//! this in some order.

mod behaviour;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use keepalive::model::plan::{Hook, KillMode, Service};
use keepalive::model::{ExitStatus, InstanceId, Mono, Pid, Plan, RunId, Signal, StartFailure, StartStep};
use keepalive::supervisor::{Action, Event, Exit, Leftovers, ReadySource, RequestId, Scope};
use nix::errno::Errno;

use crate::chance::Chance;
use crate::process::{Process, SignalEffect};
use crate::puppet::{self, Exec, FaultRates, Habits, Profile};

/// Identifies a process. Unlike a pid, it is never reused.
type Serial = u64;

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) now: Mono,
    pub(crate) chance: Chance,
    scheduled: BTreeMap<(Mono, u64), Occurrence>,
    last_sequence: u64,
    processes: BTreeMap<Serial, Process>,
    /// The runs for which the supervisor has not got `Exited`.
    runs: BTreeMap<RunId, Run>,
    /// The runs for which `LeftoversGone` is still to come.
    lingering: BTreeSet<RunId>,
    last_serial: Serial,
    profiles: Vec<Profile>,
    fault_rates: FaultRates,
    forking: Forking,
    /// Every fork fails before this time.
    fork_fails_until: Mono,
    pid_limit: i32,
    last_pid: i32,
    /// Whether the next process gets the lowest free pid, as if all pids had been used meanwhile.
    reuses_pids_at_once: bool,
    stop_signals: Vec<Signal>,
    /// The content of the configuration file.
    config: Rc<Plan>,
}

#[derive(Debug)]
struct Run {
    main: Serial,
    hook: Option<Hook>,
    definition: Rc<Service>,
    is_probed: bool,
    /// The number of the check that is in progress.
    check: Option<u64>,
}

/// How the runtime creates processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Forking {
    /// The result of exec is reported later.
    Fork,
    /// Exec has succeeded or failed before the parent continues.
    Vfork,
}

#[derive(Debug)]
enum Occurrence {
    Exec {
        run: RunId,
        profile: Profile,
    },
    /// Another process becomes the main process.
    ChangeMainPid {
        run: RunId,
    },
    PassProbe {
        run: RunId,
    },
    FinishMeasuring,
    FinishCheck {
        run: RunId,
        number: u64,
    },
    Die {
        serial: Serial,
        status: ExitStatus,
    },
    Reap {
        run: RunId,
    },
    LeftoversGone {
        run: RunId,
    },
    ForkShortage {
        until: Mono,
    },
    FinishConfigLoad {
        id: Option<RequestId>,
        event: Event,
    },
    /// The supervisor gets this event.
    Deliver(Event),
}

impl World {
    pub(crate) fn new(plan: &Plan, mut chance: Chance) -> Self {
        let fault_rates = FaultRates::random(&mut chance);
        let instances: u32 = plan.services.iter().map(|service| service.instances).sum();
        let profiles = plan.services.iter().map(|service| puppet::profile(&mut chance, service.kind)).collect();
        let forking = if chance.one_in(2) { Forking::Fork } else { Forking::Vfork };
        let pid_limit = if chance.one_in(2) { 8 + 2 * instances as i32 } else { 32_768 };
        Self {
            now: Mono::from_nanos(chance.below(1 << 50)),
            scheduled: BTreeMap::new(),
            last_sequence: 0,
            processes: BTreeMap::new(),
            runs: BTreeMap::new(),
            lingering: BTreeSet::new(),
            last_serial: 0,
            profiles,
            fault_rates,
            forking,
            fork_fails_until: Mono::default(),
            pid_limit,
            last_pid: 1,
            reuses_pids_at_once: chance.one_in(4),
            config: Rc::new(plan.clone()),
            stop_signals: plan.services.iter().map(|service| service.stop.signal).collect(),
            chance,
        }
    }

    /// The time of the next occurrence.
    pub(crate) fn next(&self) -> Option<Mono> {
        self.scheduled.first_key_value().map(|((at, _), _)| *at)
    }

    pub(crate) fn schedule_event(&mut self, at: Mono, event: Event) {
        self.schedule(at, Occurrence::Deliver(event));
    }

    /// Makes every fork fail from `at` on, for `duration`.
    pub(crate) fn schedule_shortage(&mut self, at: Mono, duration: Duration) {
        self.schedule(at, Occurrence::ForkShortage { until: at + duration });
    }

    fn schedule(&mut self, at: Mono, occurrence: Occurrence) {
        self.last_sequence += 1;
        self.scheduled.insert((at, self.last_sequence), occurrence);
    }

    fn schedule_in(&mut self, delay: Duration, occurrence: Occurrence) {
        self.schedule(self.now + delay, occurrence);
    }

    /// The delay of an event on its way to the supervisor.
    fn latency(&mut self) -> Duration {
        match self.chance.below(12) {
            0 => self.chance.millis(0, 5),
            1 => self.chance.millis(0, 200),
            _ => Duration::ZERO,
        }
    }

    /// Applies the next occurrence that is due and returns its events for the supervisor.
    pub(crate) fn next_events(&mut self) -> Option<Vec<Event>> {
        let entry = self.scheduled.first_entry()?;
        if entry.key().0 > self.now {
            return None;
        }
        let before = self.processes.len();
        let mut events = match entry.remove() {
            Occurrence::Exec { run, profile } => self.exec_program(run, profile),
            Occurrence::ChangeMainPid { run } => self.change_main_pid(run),
            Occurrence::PassProbe { run } => {
                let is_probed = self.runs.get(&run).is_some_and(|run| run.is_probed);
                is_probed.then_some(Event::Ready { run, source: ReadySource::Probe }).into_iter().collect()
            }
            Occurrence::FinishMeasuring => self.finish_measuring(),
            Occurrence::FinishCheck { run, number } => self.finish_check(run, number),
            Occurrence::Die { serial, status } => self.die(serial, status),
            Occurrence::Reap { run } => self.reap(run),
            Occurrence::LeftoversGone { run } => {
                self.lingering.remove(&run);
                vec![Event::LeftoversGone { run }]
            }
            Occurrence::ForkShortage { until } => {
                self.fork_fails_until = self.fork_fails_until.max(until);
                Vec::new()
            }
            Occurrence::FinishConfigLoad { event, .. } | Occurrence::Deliver(event) => vec![event],
        };
        if self.processes.is_empty() && before > 0 {
            events.push(Event::NoChildren);
        }
        Some(events)
    }

    fn deliver_in(&mut self, delay: Duration, event: Event) {
        self.schedule_in(delay, Occurrence::Deliver(event));
    }

    fn create_other_process(&mut self, run: Option<RunId>) -> Serial {
        let habits = puppet::member(&mut self.chance, self.fault_rates);
        let serial = self.create_process(run, habits);
        if let Some((life, status)) = habits.life {
            self.schedule_in(life, Occurrence::Die { serial, status });
        }
        serial
    }

    fn create_process(&mut self, run: Option<RunId>, habits: Habits) -> Serial {
        self.last_serial += 1;
        let (pid, stopped) = (self.free_pid(), habits.stopped);
        let process = Process { pid, run, habits, pending_stop_signal: None, stopped, zombie: None };
        self.processes.insert(self.last_serial, process);
        self.last_serial
    }

    /// The run of which this is the main process.
    fn run_of_main(&self, serial: Serial) -> Option<RunId> {
        let run = self.processes.get(&serial)?.run?;
        (self.runs.get(&run)?.main == serial).then_some(run)
    }

    fn die(&mut self, serial: Serial, status: ExitStatus) -> Vec<Event> {
        let latency = self.latency();
        let main_of = self.run_of_main(serial);
        let Some(process) = self.processes.get_mut(&serial) else { return Vec::new() };
        if process.zombie.is_some() || (process.stopped && status != ExitStatus::Signal(Signal::KILL)) {
            return Vec::new();
        }
        if let Some(run) = main_of {
            process.zombie = Some(status);
            self.schedule_in(latency, Occurrence::Reap { run });
        } else if let Some(Process { run: Some(run), .. }) = self.processes.remove(&serial)
            && self.lingering.contains(&run)
            && !self.has_members(run)
        {
            let late = if self.chance.one_in(10) { self.chance.millis(0, 20_000) } else { latency };
            self.schedule_in(late, Occurrence::LeftoversGone { run });
        }
        Vec::new()
    }

    fn has_members(&self, of: RunId) -> bool {
        self.processes.values().any(|process| process.run == Some(of))
    }

    fn reap(&mut self, run: RunId) -> Vec<Event> {
        let Some(Run { main, definition, .. }) = self.runs.remove(&run) else { return Vec::new() };
        let Some(Process { zombie: Some(status), .. }) = self.processes.remove(&main) else { return Vec::new() };
        let leftovers = if definition.stop.kill_mode == KillMode::Process || !self.has_members(run) {
            Leftovers::None
        } else {
            self.lingering.insert(run);
            Leftovers::Some
        };
        let oom_killed = status == ExitStatus::Signal(Signal::KILL) && self.chance.one_in(5);
        vec![Event::Exited { run, exit: Exit { status, oom_killed }, leftovers }]
    }

    /// Performs an action and returns the events that follow at once.
    pub(crate) fn perform(&mut self, action: &Action) -> Vec<Event> {
        match action {
            Action::Spawn { run, instance, hook, definition, .. } => {
                return self.spawn(*run, (*instance, *hook), definition);
            }
            Action::Signal { run, scope, signal } => {
                let main = self.runs.get(run).map(|run| run.main);
                self.signal_matching(*signal, |serial, process| match scope {
                    Scope::Main => Some(serial) == main,
                    Scope::Group => process.run == Some(*run),
                    Scope::Leftovers => process.run == Some(*run) && main.is_none(),
                });
                if matches!(scope, Scope::Main | Scope::Group) {
                    self.schedule_answers(*run, *signal);
                }
            }
            Action::SignalAll { signal } => {
                self.signal_matching(*signal, |_, _| true);
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
            Action::StartCheck { run, health } => self.start_check(*run, health.timeout),
            Action::MeasureMemory => {
                let takes = self.latency();
                self.schedule_in(takes, Occurrence::FinishMeasuring);
            }
            Action::AbortCheck { run } => {
                if let Some(run) = self.runs.get_mut(run) {
                    run.check = None;
                }
            }
            Action::LoadConfig { id } => return self.load_config(*id),
            // A load that has begun continues.
            Action::WithdrawConfigLoad { id } => {
                let is_waiting = self.chance.one_in(2);
                self.cancel_config_loads(|of| is_waiting && of == Some(*id));
            }
            Action::CancelConfigLoad => self.cancel_config_loads(|_| true),
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

    /// Replaces the content of the configuration file.
    pub(crate) fn write_config(&mut self, config: Plan) {
        self.config = Rc::new(config);
    }

    /// Fails at once or finishes later.
    fn load_config(&mut self, id: Option<RequestId>) -> Vec<Event> {
        let failed = || Event::ConfigLoadFailed { id, reason: "it is invalid".into() };
        let event = match self.chance.below(8) {
            0 => return vec![failed()],
            1 => failed(),
            _ => Event::ConfigLoaded { id, plan: Rc::clone(&self.config) },
        };
        let takes = if self.chance.one_in(10) { self.chance.millis(0, 15_000) } else { self.latency() };
        self.schedule_in(takes, Occurrence::FinishConfigLoad { id, event });
        Vec::new()
    }

    fn cancel_config_loads(&mut self, is_meant: impl Fn(Option<RequestId>) -> bool) {
        self.scheduled
            .retain(|_, occurrence| !matches!(occurrence, Occurrence::FinishConfigLoad { id, .. } if is_meant(*id)));
    }

    fn probe(&mut self, run: RunId) {
        let Some(of) = self.runs.get_mut(&run) else { return };
        of.is_probed = true;
        if let Some(delay) = self.processes.get(&of.main).and_then(|main| main.habits.ready_after) {
            self.schedule_in(delay, Occurrence::PassProbe { run });
        }
    }

    fn spawn(
        &mut self,
        run: RunId,
        (instance, hook): (InstanceId, Option<Hook>),
        definition: &Rc<Service>,
    ) -> Vec<Event> {
        if self.fork_fails_until > self.now {
            let errno = self.chance.pick(&[Errno::EAGAIN, Errno::ENOMEM, Errno::EMFILE, Errno::ENFILE]);
            return vec![Event::SpawnFailed { run, errno }];
        }
        if self.chance.percent(self.fault_rates.bind_failures) {
            let failure = StartFailure { step: StartStep::Listen(0), errno: Errno::EADDRINUSE };
            return vec![Event::BindFailed { run, failure }];
        }
        let profile = match hook {
            Some(_) => puppet::hook_profile(&mut self.chance),
            None => self.profiles[instance.service.position()],
        };
        let habits = puppet::habits(&mut self.chance, profile, self.fault_rates);
        let main = self.create_process(Some(run), habits);
        let pid = self.processes[&main].pid;
        self.runs.insert(run, Run { main, hook, definition: Rc::clone(definition), is_probed: false, check: None });
        let mut events = vec![Event::Spawned { run, pid }];
        let exec = puppet::exec(&mut self.chance, profile, self.fault_rates);
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
                self.schedule_in(takes, Occurrence::Exec { run, profile });
            }
            Exec::Fails(failure) => {
                let event = Event::ExecFailed { run, failure };
                if self.forking == Forking::Vfork {
                    events.push(event);
                } else {
                    self.deliver_in(takes, event);
                }
                let status = ExitStatus::Code(failure.exit_code());
                self.schedule_in(takes, Occurrence::Die { serial: main, status });
            }
        }
        events
    }

    /// A pid that no process has. It may be the id of a group whose leader is dead; the kernel would not reuse that.
    fn free_pid(&mut self) -> Pid {
        if self.reuses_pids_at_once {
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

    fn signal_matching(&mut self, signal: Signal, to: impl Fn(Serial, &Process) -> bool) {
        let (now, effect) = (self.now, self.effect(signal));
        let mut deaths = Vec::new();
        for (serial, process) in self.processes.iter_mut().filter(|(serial, process)| to(**serial, process)) {
            if let Some((delay, status)) = process.receive(signal, effect) {
                deaths.push((now + delay, Occurrence::Die { serial: *serial, status }));
            }
        }
        for (at, death) in deaths {
            self.schedule(at, death);
        }
    }

    fn effect(&self, signal: Signal) -> SignalEffect {
        match signal {
            Signal::KILL => SignalEffect::Kill,
            Signal::STOP => SignalEffect::Stop,
            Signal::CONT => SignalEffect::Continue,
            _ if signal == Signal::TERM || signal == Signal::ABRT || self.stop_signals.contains(&signal) => {
                SignalEffect::End
            }
            _ => SignalEffect::Other,
        }
    }

    /// The main process of a run, until the supervisor gets `Exited`.
    pub(crate) fn main_pid(&self, run: RunId) -> Option<Pid> {
        self.runs.get(&run).and_then(|run| self.processes.get(&run.main)).map(|process| process.pid)
    }

    /// Whether there is no process.
    pub(crate) fn is_empty(&self) -> bool {
        self.processes.is_empty()
    }

    /// Whether `LeftoversGone` of this run is still to come.
    pub(crate) fn will_report_leftovers_gone(&self, run: RunId) -> bool {
        self.lingering.contains(&run)
    }
}

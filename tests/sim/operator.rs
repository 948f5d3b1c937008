//! Requests of operators, signals and resource shortages, at random and at critical moments.

use std::ffi::CString;
use std::rc::Rc;
use std::time::Duration;

use keepalive::model::plan::Kind;
use keepalive::model::{InstanceId, Mono, Plan, ServiceIndex, Signal, Template};
use keepalive::supervisor::{Action, Event, JournalEvent, Request, RequestId, Scope, StateName, Target, Verb};

use crate::chance::Chance;
use crate::plans;
use crate::world::World;

#[derive(Debug)]
pub(crate) struct Operator {
    chance: Chance,
    /// The current plan, as far as the operator knows.
    plan: Rc<Plan>,
    services: Vec<u32>,
    next_request: u64,
    /// The operator interferes at one of this many critical moments.
    interference_interval: u64,
    /// The number of times that the operator may still interfere.
    remaining_interferences: u32,
}

impl Operator {
    pub(crate) fn new(plan: &Rc<Plan>, mut chance: Chance) -> Self {
        let interference_interval = chance.pick(&[u64::MAX, 200, 30, 8]);
        let remaining_interferences = chance.pick(&[20, 100, 300]);
        let services = plan.services.iter().map(|service| service.instances).collect();
        Self {
            chance,
            plan: Rc::clone(plan),
            services,
            next_request: 0,
            interference_interval,
            remaining_interferences,
        }
    }

    /// Schedules all external events until `horizon`, including the shutdown.
    pub(crate) fn plan(&mut self, world: &mut World, horizon: Duration) {
        let start = world.now;
        let most = self.chance.pick(&[0, 3, 20, 60]);
        for _ in 0..self.chance.below(most + 1) {
            let at = start + self.chance.up_to(horizon);
            let burst = if self.chance.one_in(5) { 1 + self.chance.below(5) } else { 1 };
            for _ in 0..burst {
                let event = self.random_event();
                world.schedule_event(at, event);
            }
        }
        let shortages = self.chance.pick(&[0, 0, 1, 5]);
        for _ in 0..shortages {
            let at = start + self.chance.up_to(horizon);
            world.schedule_shortage(at, self.chance.millis(1, 60_000));
        }
        self.schedule_shutdown(world, start + horizon);
    }

    /// Platforms and people repeat signals. The last ones come after every reachable shutdown timeout.
    fn schedule_shutdown(&mut self, world: &mut World, at: Mono) {
        let event = if self.chance.one_in(4) { self.request(Request::Shutdown) } else { Event::Signal(Signal::TERM) };
        world.schedule_event(at, event);
        for _ in 0..self.chance.pick(&[0, 0, 1, 3]) {
            let signal = self.chance.pick(&[Signal::TERM, Signal::INT, Signal::INT, Signal::QUIT]);
            let longest = self.chance.pick(&[Duration::from_millis(200), Duration::from_secs(12)]);
            world.schedule_event(at + self.chance.up_to(longest), Event::Signal(signal));
        }
        for hours in [12, 13] {
            world.schedule_event(at + Duration::from_secs(hours * 3_600), Event::Signal(Signal::INT));
        }
    }

    /// Sometimes schedules an event right after an action of the supervisor.
    pub(crate) fn interfere_after(&mut self, world: &mut World, action: &Action) {
        if let Action::ApplyConfig(plan) = action {
            self.plan = Rc::clone(plan);
        }
        if let Action::LoadConfig { .. } = action {
            world.write_config(self.configuration());
        }
        let is_critical = match action {
            Action::Spawn { .. } | Action::Exit(_) => false,
            Action::Signal { scope, .. } => matches!(scope, Scope::Leftovers) || self.chance.one_in(3),
            Action::SignalAll { .. }
            | Action::Reply { .. }
            | Action::LoadConfig { .. }
            | Action::WithdrawConfigLoad { .. }
            | Action::CancelConfigLoad
            | Action::ReleaseInstance { .. }
            | Action::RemoveInstance { .. }
            | Action::ReleaseService { .. }
            | Action::PreferSockets { .. }
            | Action::ApplyConfig(_)
            | Action::AnnounceStop { .. }
            | Action::StartProbe { .. }
            | Action::AbortProbe { .. }
            | Action::StartCheck { .. }
            | Action::AbortCheck { .. }
            | Action::MeasureMemory
            | Action::ReleaseRun { .. } => true,
            Action::WriteJournal(record) => match &record.event {
                JournalEvent::Transition { to, .. } => *to != StateName::Waiting,
                _ => true,
            },
        };
        if !is_critical
            || self.remaining_interferences == 0
            || self.interference_interval == u64::MAX
            || !self.chance.one_in(self.interference_interval)
        {
            return;
        }
        self.remaining_interferences -= 1;
        let at = world.now + if self.chance.one_in(2) { Duration::ZERO } else { self.chance.millis(0, 400) };
        let event = self.random_event();
        world.schedule_event(at, event);
    }

    fn random_event(&mut self) -> Event {
        match self.chance.below(1_000) {
            0..=2 => self.request(Request::Shutdown),
            3..=4 => Event::TerminalClosed,
            5..=8 => Event::Signal(self.chance.pick(&[Signal::TERM, Signal::INT, Signal::QUIT, Signal::PWR])),
            9..=100 => {
                let signals = [Signal::HUP, Signal::USR1, Signal::USR2, Signal::WINCH, Signal::new(38).unwrap()];
                Event::Signal(self.chance.pick(&signals))
            }
            101..=130 => Event::Withdrawn(RequestId(self.chance.below(self.next_request + 2))),
            131..=146 => Event::Signal(Signal::HUP),
            147..=190 => self.request(Request::ReloadConfig),
            281..=310 => {
                let service = self.chance.below(self.services.len() as u64) as u32;
                Event::FilesChanged { service: ServiceIndex(service) }
            }
            191..=280 => {
                let service = self.chance.below(self.services.len() as u64) as u32;
                let most = 2 * u64::from(self.services[service as usize]) + 3;
                let wanted = self.chance.below(most) as u32;
                self.request(Request::Scale(ServiceIndex(service), wanted))
            }
            _ => {
                let target = self.target();
                let verb = match self.chance.below(14) {
                    0..=2 => Verb::Start,
                    3..=5 => Verb::Stop,
                    6..=8 => Verb::Restart,
                    9..=12 => Verb::Reload,
                    _ => Verb::Signal(self.chance.pick(&[Signal::USR1, Signal::STOP, Signal::CONT, Signal::KILL])),
                };
                if matches!(verb, Verb::Start | Verb::Stop | Verb::Restart) && self.chance.one_in(3) {
                    let targets = [target, self.target(), self.target()];
                    return self.request(Request::Several(targets.into(), verb));
                }
                self.request(Request::Control(target, verb))
            }
        }
    }

    /// A new configuration: some services get another command, another `min_uptime` or are turned off or on.
    fn configuration(&mut self) -> Plan {
        let mut plan = Plan::clone(&self.plan);
        for service in plan.services.iter_mut().filter(|service| service.kind == Kind::Service) {
            if self.chance.one_in(3) {
                let changed = Rc::make_mut(service);
                let version = CString::new(self.chance.below(3).to_string()).unwrap();
                Rc::make_mut(&mut changed.process).command = Box::new([Template::Fixed(version)]);
            }
            if self.chance.one_in(6) {
                Rc::make_mut(service).restart.min_uptime = self.chance.millis(0, 20_000);
            }
            if self.chance.one_in(8) {
                let is_off = service.instances == 0;
                Rc::make_mut(service).instances = if is_off { self.chance.pick(&[1, 2, 3]) } else { 0 };
            }
            if self.chance.one_in(6) {
                let is_checked = self.chance.one_in(2);
                Rc::make_mut(service).health = is_checked.then(|| Rc::new(plans::random_health(&mut self.chance)));
            }
        }
        plan
    }

    fn target(&mut self) -> Target {
        let service = self.chance.below(self.services.len() as u64) as u32;
        let index = ServiceIndex(service);
        if self.chance.one_in(10) {
            return Target::All;
        }
        if self.chance.one_in(2) {
            return Target::Service(index);
        }
        let number = self.chance.below(u64::from(self.services[service as usize]) + 2) as u32;
        Target::Instance(InstanceId { service: index, number })
    }

    fn request(&mut self, request: Request) -> Event {
        self.next_request += 1;
        Event::Request { id: RequestId(self.next_request), request }
    }
}

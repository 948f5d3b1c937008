//! Plans: random ones for the simulation, fixed ones for the scenarios.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use keepalive::model::cron::Cron;
use keepalive::model::plan::{
    Backoff, Control, ExitAction, Health, Hooks, HttpCheck, KillMode, Kind, LogStyle, OnUnhealthy, Probe, Process,
    Ready, Reload, Restart, RestartPolicy, Service, SignalAction, SignalActions, Stop, Strategy, Watch,
};
use keepalive::model::schedule::Schedule;
use keepalive::model::time_zone::TimeZone;
use keepalive::model::{ExitStatus, Plan, ServiceIndex, Signal, Template};

use crate::chance::Chance;

/// A service with the defaults of the configuration file, except for the jitter.
pub(crate) fn service(name: &str) -> Service {
    let mut service = Service::new(name, process());
    service.restart.backoff.jitter = 0.0;
    service.reload.soak = Duration::ZERO;
    service
}

/// A oneshot with the defaults of the configuration file, except for the jitter.
pub(crate) fn oneshot(name: &str) -> Service {
    Service { kind: Kind::Oneshot, ready_timeout: None, ..service(name) }
}

pub(crate) fn plan(services: Vec<Service>) -> Plan {
    Plan {
        shutdown_timeout: Duration::from_secs(9),
        signals: SignalActions::default(),
        termination_log: PathBuf::from("/dev/termination-log").into(),
        log: LogStyle::default(),
        control: Control::Default,
        http: None,
        services: services.into_iter().map(Rc::new).collect(),
    }
}

fn process() -> Process {
    Process::new(Box::new([Template::Fixed(c"puppet".to_owned())]))
}

/// Longer than any run, for timeouts that never expire.
pub(crate) const UNREACHABLE_TIMEOUT: Duration = Duration::from_secs(40 * 365 * 86_400);

/// A random plan.
pub(crate) fn random(chance: &mut Chance) -> Plan {
    let most = chance.pick(&[1, 2, 3, 5, 8, 12]);
    let count = 1 + chance.below(most);
    let mut services: Vec<_> = (0..count).map(|index| random_service(chance, index as u32)).collect();
    if chance.one_in(4) {
        // Most services start only if an operator starts them.
        for service in services.iter_mut().skip(1) {
            service.autostart = chance.one_in(4);
        }
    }
    if chance.one_in(2) {
        // No exit of a service shuts keepalive down.
        for service in &mut services {
            (service.on_failure, service.on_success) = (ExitAction::Ignore, ExitAction::Ignore);
        }
    }
    let shutdown_timeout = match chance.below(10) {
        0 => Duration::ZERO,
        1 => UNREACHABLE_TIMEOUT,
        2 => Duration::MAX,
        3 => chance.millis(0, 500),
        _ => chance.millis(1_000, 30_000),
    };
    let mut plan = Plan { shutdown_timeout, ..plan(services) };
    if chance.one_in(4) {
        plan.signals.set(Signal::USR1, SignalAction::Ignore);
        plan.signals.set(Signal::HUP, SignalAction::Forward);
        plan.signals.set(Signal::USR2, SignalAction::Shutdown);
        plan.signals.set(Signal::QUIT, SignalAction::Kill);
    }
    plan
}

fn random_service(chance: &mut Chance, index: u32) -> Service {
    let kind = if chance.one_in(3) { Kind::Oneshot } else { Kind::Service };
    let ready = random_ready(chance);
    let depends_on: Vec<_> = (0..index).filter(|_| chance.below(u64::from(index) + 1) < 2).map(ServiceIndex).collect();
    Service {
        name: format!("s{index}").into(),
        kind,
        is_removed: false,
        instances: chance.pick(&[1, 1, 1, 1, 2, 2, 3, 5, 0]),
        depends_on: depends_on.into(),
        autostart: !chance.one_in(5),
        restart: random_restart(chance),
        on_failure: if chance.one_in(3) { ExitAction::Shutdown } else { ExitAction::Ignore },
        on_success: if chance.one_in(12) { ExitAction::Shutdown } else { ExitAction::Ignore },
        stop: Stop {
            signal: chance.pick(&[Signal::TERM, Signal::TERM, Signal::INT, Signal::QUIT, Signal::USR1]),
            delay: match chance.below(6) {
                0 => chance.millis(1, 3_000),
                1 if chance.one_in(6) => UNREACHABLE_TIMEOUT,
                _ => Duration::ZERO,
            },
            timeout: match chance.below(8) {
                0 => Duration::ZERO,
                1 => UNREACHABLE_TIMEOUT,
                _ => chance.millis(1, 8_000),
            },
            kill_mode: chance.pick(&[KillMode::Mixed, KillMode::Mixed, KillMode::Group, KillMode::Process]),
        },
        process: Rc::new(Process { ipc: ready == Ready::Ipc || chance.one_in(4), ..process() }),
        ready,
        probe_timeout: Service::PROBE_TIMEOUT,
        ready_timeout: match chance.below(8) {
            _ if kind == Kind::Oneshot && chance.one_in(2) => None,
            0 => Some(UNREACHABLE_TIMEOUT),
            1..=3 => Some(chance.millis(1, 5_000)),
            _ => Some(Duration::from_secs(30)),
        },
        health: (kind == Kind::Service && chance.one_in(3)).then(|| Rc::new(random_health(chance))),
        watchdog: chance.one_in(5).then(|| chance.millis(1, 20_000)),
        reload: random_reload(chance),
        schedule: (kind == Kind::Service && chance.one_in(6)).then(|| random_schedule(chance)),
        max_lifetime: (kind == Kind::Service && chance.one_in(6)).then(|| chance.millis(1, 100_000)),
        max_memory: (kind == Kind::Service && chance.one_in(7)).then(|| 1 + chance.below(1 << 20)),
        hooks: random_hooks(chance),
        // Random numbers are not needed for it.
        watch: index.is_multiple_of(3).then(|| Rc::new(watch())),
    }
}

pub(crate) fn watch() -> Watch {
    Watch { paths: Box::default(), ignore: Box::default(), debounce: Watch::DEBOUNCE, poll: None }
}

fn random_schedule(chance: &mut Chance) -> Rc<Schedule> {
    let text = chance.pick(&["* * * * *", "*/7 * * * *", "0,30 * * * *", "15 10,11 * * *"]);
    let cron = Cron::parse(text).expect("five fields");
    Rc::new(Schedule { text: text.into(), zone_name: "UTC".into(), cron, zone: Rc::new(TimeZone::utc()) })
}

fn random_hooks(chance: &mut Chance) -> Hooks {
    let timeout = if chance.one_in(4) { chance.millis(1, 5_000) } else { Duration::from_secs(30) };
    Hooks { commands: [(); 3].map(|()| if chance.one_in(4) { process().command } else { Box::default() }), timeout }
}

fn random_ready(chance: &mut Chance) -> Ready {
    match chance.below(12) {
        0 => Ready::Delay(Duration::ZERO),
        1 => Ready::Delay(chance.millis(1, 3_000)),
        2 if chance.one_in(6) => Ready::Delay(UNREACHABLE_TIMEOUT),
        3..=5 => Ready::Notify,
        6 => Ready::Ipc,
        7 => Ready::Fd(3),
        8 => Ready::Probe(probe()),
        _ => Ready::Exec,
    }
}

pub(crate) fn random_health(chance: &mut Chance) -> Health {
    Health {
        probe: probe(),
        http: HttpCheck::default(),
        interval: match chance.below(4) {
            0 => chance.millis(1, 1_000),
            1 => Duration::from_secs(600),
            _ => Duration::from_secs(10),
        },
        timeout: chance.millis(1, 30_000),
        retries: chance.pick(&[1, 2, 3]),
        start_period: if chance.one_in(2) { chance.millis(1, 40_000) } else { Duration::ZERO },
        on_unhealthy: chance.pick(&[OnUnhealthy::Restart, OnUnhealthy::Mark, OnUnhealthy::Mark, OnUnhealthy::Shutdown]),
    }
}

fn probe() -> Probe {
    Probe::Tcp(Template::Fixed(c"127.0.0.1:80".to_owned()))
}

fn random_reload(chance: &mut Chance) -> Reload {
    Reload {
        strategy: chance.pick(&[
            Strategy::Rolling,
            Strategy::Rolling,
            Strategy::Rolling,
            Strategy::Restart,
            Strategy::Signal(Signal::USR1),
        ]),
        max_surge: chance.pick(&[1, 1, 2, 5]),
        soak: if chance.one_in(3) { chance.millis(1, 5_000) } else { Duration::ZERO },
    }
}

fn random_restart(chance: &mut Chance) -> Restart {
    let initial = chance.pick(&[0, 1, 100, 100, 1_000]);
    let max = initial + chance.pick(&[0, 1, 5_000, 30_000, 4_000_000]);
    let mut success: keepalive::model::plan::ExitSet = [ExitStatus::Code(0)].into_iter().collect();
    let mut prevent = keepalive::model::plan::ExitSet::default();
    if chance.one_in(4) {
        success.insert(ExitStatus::Signal(Signal::TERM));
    }
    if chance.one_in(3) {
        prevent.insert(ExitStatus::Code(chance.pick(&[0, 3, 125, 126])));
    }
    Restart {
        policy: chance.pick(&[
            RestartPolicy::Always,
            RestartPolicy::Always,
            RestartPolicy::OnFailure,
            RestartPolicy::Never,
        ]),
        delay: chance.pick(&[Duration::ZERO, Duration::ZERO, Duration::from_millis(7), Duration::from_secs(3)]),
        min_uptime: chance.pick(&[
            Duration::ZERO,
            Duration::from_millis(500),
            Duration::from_secs(10),
            UNREACHABLE_TIMEOUT,
        ]),
        backoff: Backoff {
            initial: Duration::from_millis(initial),
            factor: chance.pick(&[1.0, 1.5, 2.0, 10.0]),
            max: Duration::from_millis(max),
            jitter: chance.pick(&[0.0, 0.1, 0.5, 1.0]),
        },
        max_restarts: chance.pick(&[Some(0), Some(1), Some(3), Some(16), None, None]),
        success,
        prevent,
    }
}

//! The table in the documentation of the module is true.

use std::path::PathBuf;

use super::*;
use crate::model::plan::{Control, ExitAction, LogStyle, Plan, Process as Program, Service, SignalActions};
use crate::model::{Mono, ServiceIndex, Signal, StartStep, Template};
use crate::supervisor::state::StateKind;
use crate::supervisor::{Event, ReadySource, Request, RequestId, Target, Verb};

const STATES: [StateKind; 9] = [
    StateKind::Waiting,
    StateKind::Spawning,
    StateKind::Executing,
    StateKind::Starting,
    StateKind::Running,
    StateKind::Stopping,
    StateKind::CleaningUp,
    StateKind::BackingOff,
    StateKind::Stopped,
];

/// What is done to the instance for one row.
#[derive(Clone, Copy)]
enum Deed {
    /// It is told each of these events, which are about a run of the instance, as the first thing that happens to it.
    Run(fn(RunId) -> Vec<Event>),
    /// It is told these events, one after the other.
    Others(fn(&Bench) -> Vec<Event>),
    /// Its deadline comes, or much time passes if it has none.
    Deadline,
}

const EVENTS: [(&str, Deed); 18] = [
    ("spawned", Deed::Run(|run| vec![Event::Spawned { run, pid: pid(100) }])),
    ("spawn refused", Deed::Run(|run| vec![Event::SpawnRefused { run, errno: Errno::EAGAIN }])),
    ("bind failed", Deed::Run(|run| vec![Event::BindFailed { run, failure: FAILURE }])),
    ("executed", Deed::Run(|run| vec![Event::Executed { run }])),
    ("ready", Deed::Run(|run| vec![Event::Ready { run, source: ReadySource::Notify }])),
    ("main pid changed", Deed::Run(|run| vec![Event::MainPidChanged { run, pid: pid(200) }])),
    ("stopping itself", Deed::Run(|run| vec![Event::StoppingItself { run }])),
    ("watchdog trigger", Deed::Run(|run| vec![Event::WatchdogTriggered { run }])),
    ("other reports", Deed::Run(other_reports)),
    ("exited", Deed::Run(|run| vec![exited(run, Leftovers::None)])),
    ("left processes", Deed::Run(|run| vec![exited(run, Leftovers::Some)])),
    ("leftovers gone", Deed::Run(|run| vec![Event::LeftoversGone { run }])),
    ("deadline", Deed::Deadline),
    ("dependency ready", Deed::Others(dependency_ready)),
    ("operator starts", Deed::Others(|_| vec![request(Verb::Start)])),
    ("operator stops", Deed::Others(|_| vec![request(Verb::Stop)])),
    ("operator restarts", Deed::Others(|_| vec![request(Verb::Restart)])),
    ("shutdown", Deed::Others(|_| vec![Event::Signal(Signal::TERM)])),
];

const FAILURE: StartFailure = StartFailure { step: StartStep::Listen(0), errno: Errno::EADDRINUSE };
const DB: InstanceId = InstanceId { service: ServiceIndex(0), number: 0 };
const WEB: InstanceId = InstanceId { service: ServiceIndex(1), number: 0 };
const HOUR: Duration = Duration::from_secs(3_600);

fn pid(number: i32) -> Pid {
    Pid::new(number).unwrap()
}

fn exited(run: RunId, leftovers: Leftovers) -> Event {
    Event::Exited { run, exit: Exit { status: ExitStatus::Code(1), oom_killed: false }, leftovers }
}

fn other_reports(run: RunId) -> Vec<Event> {
    vec![
        Event::ExecFailed { run, failure: FAILURE },
        Event::Ready { run, source: ReadySource::Ipc },
        Event::Reloading { run, since: None },
        Event::ResetFailures { run },
        Event::WatchdogPing { run },
        Event::WatchdogInterval { run, interval: Duration::from_secs(1) },
        Event::TimeoutExtended { run, by: Duration::from_secs(1) },
    ]
}

/// It becomes ready, or ready again.
fn dependency_ready(bench: &Bench) -> Vec<Event> {
    let run = bench.state(DB).run().expect("the dependency runs");
    vec![Event::Reloading { run, since: None }, Event::Ready { run, source: ReadySource::Notify }]
}

fn request(verb: Verb) -> Event {
    Event::Request { id: RequestId(0), request: Request::About(Target::Instance(WEB), verb) }
}

/// A service that is ready by `READY=1`, has a watchdog and depends on another one.
struct Bench {
    supervisor: Supervisor,
    now: Mono,
    /// The last run that the instance has had.
    last_run: Option<RunId>,
}

impl Bench {
    /// The instance is in `kind`.
    fn new(kind: StateKind) -> Self {
        let supervisor = Supervisor::new(Rc::new(plan()), 0);
        let mut bench = Self { supervisor, now: Mono::default() + HOUR, last_run: None };
        bench.send(Event::Boot);
        let run = bench.state(DB).run().expect("the dependency starts");
        bench.tell_all([Event::Spawned { run, pid: pid(200) }, Event::Executed { run }]);
        if kind == StateKind::Waiting {
            return bench;
        }
        bench.send(Event::Ready { run, source: ReadySource::Notify });
        let run = bench.state(WEB).run().expect("it starts");
        bench.last_run = Some(run);
        let ready = Event::Ready { run, source: ReadySource::Notify };
        let way = [
            (StateKind::Executing, Event::Spawned { run, pid: pid(100) }),
            (StateKind::Starting, Event::Executed { run }),
            (StateKind::Running, ready),
        ];
        for (next, event) in way {
            if bench.state(WEB).kind() == kind {
                return bench;
            }
            bench.send(event);
            assert_eq!(bench.state(WEB).kind(), next);
        }
        match kind {
            StateKind::Stopping => bench.send(request(Verb::Stop)),
            StateKind::CleaningUp => bench.tell_all([request(Verb::Stop), exited(run, Leftovers::Some)]),
            StateKind::Stopped => bench.tell_all([request(Verb::Stop), exited(run, Leftovers::None)]),
            StateKind::BackingOff => bench.send(exited(run, Leftovers::None)),
            StateKind::Waiting
            | StateKind::Spawning
            | StateKind::Executing
            | StateKind::Starting
            | StateKind::Running => {}
        }
        assert_eq!(bench.state(WEB).kind(), kind);
        bench
    }

    fn send(&mut self, event: Event) {
        self.supervisor.handle(self.now, event);
    }

    fn tell_all(&mut self, events: impl IntoIterator<Item = Event>) {
        events.into_iter().for_each(|event| self.send(event));
    }

    fn state(&self, id: InstanceId) -> State {
        self.supervisor.services[id].state
    }

    /// The runs that an event may be about: the present one, or if there is none the last one, and one that there has
    /// never been.
    fn runs(&self) -> Vec<RunId> {
        let never = RunId::new(u64::MAX);
        self.state(WEB).run().map_or_else(|| self.last_run.into_iter().chain([never]).collect(), |run| vec![run])
    }
}

fn plan() -> Plan {
    let program = Program::new(Box::new([Template::Fixed(c"program".to_owned())]));
    let db = Service { ready: Ready::Notify, ..Service::new("db", program.clone()) };
    let web = Service {
        depends_on: [DB.service].into(),
        ready: Ready::Notify,
        watchdog: Some(Duration::from_secs(4)),
        on_failure: ExitAction::Ignore,
        ..Service::new("web", program)
    };
    Plan {
        shutdown_timeout: Duration::from_secs(9),
        signals: SignalActions::default(),
        termination_log: PathBuf::from("/dev/termination-log"),
        log: LogStyle::default(),
        control: Control::Default,
        http: None,
        services: [db, web].into_iter().map(Rc::new).collect(),
    }
}

/// The states that follow `kind` by the ways that there are to do it.
fn outcomes(kind: StateKind, deed: Deed) -> Vec<StateKind> {
    let apply = |events: Vec<Event>| {
        let mut bench = Bench::new(kind);
        bench.tell_all(events);
        let state = bench.state(WEB);
        if let Some(run) = state.run() {
            assert_eq!(bench.supervisor.instance_of(run), Some(WEB));
        }
        state.kind()
    };
    let bench = Bench::new(kind);
    match deed {
        Deed::Run(events) => bench.runs().into_iter().flat_map(events).map(|event| apply(vec![event])).collect(),
        Deed::Others(events) => vec![apply(events(&bench))],
        Deed::Deadline => {
            let mut bench = bench;
            bench.now = bench.state(WEB).deadline().unwrap_or(bench.now + HOUR);
            bench.send(Event::Tick);
            vec![bench.state(WEB).kind()]
        }
    }
}

/// The rows of the table, the first one with the names of the states.
fn table() -> Vec<Vec<&'static str>> {
    let rows = include_str!("instance.rs").lines().filter_map(|line| line.strip_prefix("//! |")?.strip_suffix('|'));
    rows.filter(|row| !row.contains("---")).map(|row| row.split('|').map(str::trim).collect()).collect()
}

#[test]
fn the_table_has_a_column_for_each_state_and_a_row_for_each_event() {
    let table = table();
    let states = STATES.map(|kind| format!("{kind:?}"));
    assert_eq!(table[0][1..], states);
    let events: Vec<_> = table[1..].iter().map(|row| row[0]).collect();
    assert_eq!(events, EVENTS.map(|(name, _)| name));
}

#[test]
fn each_field_of_the_table_shows_the_state_that_follows() {
    let mut wrong = Vec::new();
    for (row, (event, deed)) in table()[1..].iter().zip(EVENTS) {
        for (field, kind) in row[1..].iter().zip(STATES) {
            let expected = if *field == "·" { format!("{kind:?}") } else { (*field).to_owned() };
            let found = outcomes(kind, deed);
            if found.is_empty() || found.iter().any(|found| format!("{found:?}") != expected) {
                wrong.push(format!("{event} in {kind:?}: {field:?}, but it is {found:?}"));
            }
        }
        assert_eq!(row.len(), STATES.len() + 1, "{event}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

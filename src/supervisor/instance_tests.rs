//! Checks the table in the documentation of the module.

use std::path::PathBuf;

use nix::errno::Errno;

use super::*;
use crate::model::plan::{Control, ExitAction, LogStyle, Plan, Process as Program, Service, SignalActions};
use crate::model::{Mono, ProbeFailure, ServiceIndex, Signal, StartStep, Template};
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

/// The input of one row of the table.
#[derive(Clone, Copy)]
enum Input {
    /// Each of these events, about a run of the instance, on an instance of its own.
    Run(fn(RunId) -> Vec<Event>),
    /// These events, one after the other.
    Others(fn(&Fixture) -> Vec<Event>),
    /// The deadline of the instance, or a long time if it has none.
    Deadline,
}

const EVENTS: [(&str, Input); 19] = [
    ("spawned", Input::Run(|run| vec![Event::Spawned { run, pid: pid(100) }])),
    ("spawn failed", Input::Run(|run| vec![Event::SpawnFailed { run, errno: Errno::EAGAIN }])),
    ("bind failed", Input::Run(|run| vec![Event::BindFailed { run, failure: FAILURE }])),
    ("bind timed out", Input::Run(|run| vec![Event::BindFailed { run, failure: TIMEOUT }])),
    ("executed", Input::Run(|run| vec![Event::Executed { run }])),
    ("ready", Input::Run(|run| vec![Event::Ready { run, source: ReadySource::Notify }])),
    ("main pid changed", Input::Run(|run| vec![Event::MainPidChanged { run, pid: pid(200) }])),
    ("stopping reported", Input::Run(|run| vec![Event::StoppingReported { run }])),
    ("watchdog trigger", Input::Run(|run| vec![Event::WatchdogTriggered { run }])),
    ("other reports", Input::Run(other_reports)),
    ("exited", Input::Run(|run| vec![exited(run, Leftovers::None)])),
    ("exited, leftovers", Input::Run(|run| vec![exited(run, Leftovers::Some)])),
    ("leftovers gone", Input::Run(|run| vec![Event::LeftoversGone { run }])),
    ("deadline", Input::Deadline),
    ("dependency ready", Input::Others(dependency_ready)),
    ("operator starts", Input::Others(|_| vec![request(Verb::Start)])),
    ("operator stops", Input::Others(|_| vec![request(Verb::Stop)])),
    ("operator restarts", Input::Others(|_| vec![request(Verb::Restart)])),
    ("shutdown", Input::Others(|_| vec![Event::Signal(Signal::TERM)])),
];

const FAILURE: StartFailure = StartFailure { step: StartStep::Listen(0), errno: Errno::EADDRINUSE };
const TIMEOUT: StartFailure = StartFailure { step: StartStep::Listen(0), errno: Errno::ETIMEDOUT };
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
        Event::ProbeFailed { run, failure: ProbeFailure::TimedOut },
        Event::Checked { run, failure: Some(ProbeFailure::TimedOut) },
        Event::Reloading { run, since: None },
        Event::ResetFailures { run },
        Event::WatchdogPing { run },
        Event::WatchdogInterval { run, interval: Duration::from_secs(1) },
        Event::TimeoutExtended { run, by: Duration::from_secs(1) },
    ]
}

/// The dependency becomes ready, or ready again.
fn dependency_ready(fixture: &Fixture) -> Vec<Event> {
    let run = fixture.state(DB).run().expect("the dependency runs");
    vec![Event::Reloading { run, since: None }, Event::Ready { run, source: ReadySource::Notify }]
}

fn request(verb: Verb) -> Event {
    Event::Request { id: RequestId(0), request: Request::Control(Target::Instance(WEB), verb) }
}

/// A service that is ready by `READY=1`, has a watchdog and depends on another service.
struct Fixture {
    supervisor: Supervisor,
    now: Mono,
    /// The last run of the instance.
    last_run: Option<RunId>,
}

impl Fixture {
    /// Brings the instance to the state `kind`.
    fn new(kind: StateKind) -> Self {
        let supervisor = Supervisor::new(Rc::new(plan()), 0);
        let mut fixture = Self { supervisor, now: Mono::default() + HOUR, last_run: None };
        fixture.send(Event::Boot);
        let run = fixture.state(DB).run().expect("the dependency starts");
        fixture.send_all([Event::Spawned { run, pid: pid(200) }, Event::Executed { run }]);
        if kind == StateKind::Waiting {
            return fixture;
        }
        fixture.send(Event::Ready { run, source: ReadySource::Notify });
        let run = fixture.state(WEB).run().expect("it starts");
        fixture.last_run = Some(run);
        let ready = Event::Ready { run, source: ReadySource::Notify };
        let steps = [
            (StateKind::Executing, Event::Spawned { run, pid: pid(100) }),
            (StateKind::Starting, Event::Executed { run }),
            (StateKind::Running, ready),
        ];
        for (next, event) in steps {
            if fixture.state(WEB).kind() == kind {
                return fixture;
            }
            fixture.send(event);
            assert_eq!(fixture.state(WEB).kind(), next);
        }
        match kind {
            StateKind::Stopping => fixture.send(request(Verb::Stop)),
            StateKind::CleaningUp => fixture.send_all([request(Verb::Stop), exited(run, Leftovers::Some)]),
            StateKind::Stopped => fixture.send_all([request(Verb::Stop), exited(run, Leftovers::None)]),
            StateKind::BackingOff => fixture.send(exited(run, Leftovers::None)),
            StateKind::Scheduled => panic!("not in the table"),
            StateKind::Waiting
            | StateKind::Spawning
            | StateKind::Executing
            | StateKind::Starting
            | StateKind::Running => {}
        }
        assert_eq!(fixture.state(WEB).kind(), kind);
        fixture
    }

    fn send(&mut self, event: Event) {
        self.supervisor.handle(self.now, event);
    }

    fn send_all(&mut self, events: impl IntoIterator<Item = Event>) {
        events.into_iter().for_each(|event| self.send(event));
    }

    fn state(&self, id: InstanceId) -> State {
        self.supervisor.services[id].state
    }

    /// The runs that an event may refer to: the current one; without a current one the last one and one that never existed.
    fn runs(&self) -> Vec<RunId> {
        let unknown = RunId::new(u64::MAX);
        self.state(WEB).run().map_or_else(|| self.last_run.into_iter().chain([unknown]).collect(), |run| vec![run])
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
        termination_log: PathBuf::from("/dev/termination-log").into(),
        log: LogStyle::default(),
        control: Control::Default,
        http: None,
        services: [db, web].into_iter().map(Rc::new).collect(),
    }
}

/// The next states after `kind`, for each variant of the input.
fn outcomes(kind: StateKind, input: Input) -> Vec<StateKind> {
    let apply = |events: Vec<Event>| {
        let mut fixture = Fixture::new(kind);
        fixture.send_all(events);
        let state = fixture.state(WEB);
        if let Some(run) = state.run() {
            assert_eq!(fixture.supervisor.instance_of(run), Some(WEB));
        }
        state.kind()
    };
    let fixture = Fixture::new(kind);
    match input {
        Input::Run(events) => fixture.runs().into_iter().flat_map(events).map(|event| apply(vec![event])).collect(),
        Input::Others(events) => vec![apply(events(&fixture))],
        Input::Deadline => {
            let mut fixture = fixture;
            fixture.now = fixture.state(WEB).deadline().unwrap_or(fixture.now + HOUR);
            fixture.send(Event::Tick);
            vec![fixture.state(WEB).kind()]
        }
    }
}

/// The rows of the table. The first one has the names of the states.
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
    for (row, (event, input)) in table()[1..].iter().zip(EVENTS) {
        for (field, kind) in row[1..].iter().zip(STATES) {
            let expected = if *field == "·" { format!("{kind:?}") } else { (*field).to_owned() };
            let found = outcomes(kind, input);
            if found.is_empty() || found.iter().any(|found| format!("{found:?}") != expected) {
                wrong.push(format!("{event} in {kind:?}: {field:?}, but it is {found:?}"));
            }
        }
        assert_eq!(row.len(), STATES.len() + 1, "{event}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

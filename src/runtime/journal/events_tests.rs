use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::rc::Rc;

use nix::errno::Errno;
use serde_json::{Map, Value};

use super::*;
use crate::model::plan::{Control, Health, HttpCheck, LogStyle, OnUnhealthy, Probe, Process, Service, SignalActions};
use crate::model::{Pid, ProbeFailure, ServiceIndex, Signal, StartFailure, StartStep};
use crate::supervisor::{
    FailureReason, Fault, ReloadFailure, Requester, RestartDecision, RolloutError, RunResult, SkipReason, StateName,
};

const DOCUMENT: &str = include_str!("../../../docs/events.md");
const SERVICE: ServiceIndex = ServiceIndex(0);
const INSTANCE: InstanceId = InstanceId { service: SERVICE, number: 0 };

#[test]
fn frequent_occurrences_are_reported_once_a_second() {
    let at = |seconds: u64| Mono::from_nanos(seconds * 1_000_000_000);
    let mut coalescer = Coalescer::default();
    assert_eq!((coalescer.due(0), coalescer.take(0, at(5))), (None, None));
    assert_eq!(coalescer.take(3, at(5)), Some(3));
    assert_eq!((coalescer.take(7, at(5)), coalescer.due(7)), (None, Some(at(6))));
    assert_eq!((coalescer.take(9, at(6)), coalescer.due(9)), (Some(6), None));
}

#[test]
fn the_last_thousand_events_are_kept_and_numbered() {
    let mut events = Events::default();
    assert!(events.next(0).is_none());
    for total in 1..=1_500 {
        events.push(Duration::ZERO, EventKind::OrphansReaped { count: 1, total });
    }
    let numbers = |after| events.next(after).map(Event::number);
    assert_eq!(events.latest(), 1_500);
    assert_eq!((numbers(0), numbers(500), numbers(501)), (Some(501), Some(501), Some(502)));
    assert_eq!((numbers(1_499), numbers(1_500)), (Some(1_500), None));
}

#[test]
fn every_event_is_documented_with_its_members() {
    let emitted = emitted();
    for name in EventName::ALL {
        assert!(emitted.contains_key(name.as_str()), "{name:?} needs a sample in this test");
    }
    let emitted: BTreeMap<String, String> =
        emitted.into_iter().map(|(name, samples)| (name, members(&samples))).collect();
    let documented: BTreeMap<String, String> =
        rows("| event | members | meaning |").map(|[name, members, _]| (unquoted(&name), members)).collect();
    assert_eq!(emitted, documented, "left: the code; right: docs/events.md");
}

#[test]
fn every_member_is_documented() {
    let emitted: BTreeSet<String> = emitted().into_values().flatten().flatten().collect();
    let names = |cell: String| cell.split(", ").map(unquoted).collect::<Vec<_>>();
    let documented: BTreeSet<String> = rows("| member | meaning |").flat_map(|[member, _]| names(member)).collect();
    assert_eq!(emitted, documented, "left: the code; right: docs/events.md");
}

#[test]
fn every_cause_of_a_shutdown_is_documented() {
    let emitted: BTreeSet<String> = samples()
        .into_iter()
        .filter_map(|(kind, _)| parsed(kind).remove("cause"))
        .map(|cause| text(Some(cause)))
        .collect();
    let documented: BTreeSet<String> = rows("| `cause` | meaning |").map(|[cause, _]| unquoted(&cause)).collect();
    assert_eq!(emitted, documented, "left: the code; right: docs/events.md");
}

#[test]
fn every_event_has_a_message_that_a_person_understands() {
    for (kind, expected) in samples() {
        assert_eq!(text(parsed(kind).remove("message")), expected);
    }
}

/// The members of each sample by name, without the common ones.
fn emitted() -> BTreeMap<String, Vec<BTreeSet<String>>> {
    let mut emitted: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for mut event in samples().into_iter().map(|(kind, _)| parsed(kind)).chain([dropped()]) {
        let name = text(event.remove("event"));
        if name != EventName::EventsDropped.as_str() {
            for common in ["seq", "time", "message"] {
                assert!(event.remove(common).is_some(), "`{name}` has no `{common}`");
            }
        }
        emitted.entry(name).or_default().push(event.into_iter().map(|(member, _)| member).collect());
    }
    emitted
}

/// `` `service`, `pid?` ``, sorted by name; a `?` marks a member that not every sample has.
fn members(samples: &[BTreeSet<String>]) -> String {
    let all: BTreeSet<&String> = samples.iter().flatten().collect();
    let is_always = |member: &String| samples.iter().all(|sample| sample.contains(member));
    let shown = all.iter().map(|member| format!("`{member}{}`", if is_always(member) { "" } else { "?" }));
    if all.is_empty() { "–".to_owned() } else { shown.collect::<Vec<_>>().join(", ") }
}

/// The rows of the table with this head.
fn rows<const N: usize>(head: &str) -> impl Iterator<Item = [String; N]> {
    let (_, table) = DOCUMENT.split_once(head).expect("the table");
    table.lines().skip(2).take_while(|line| line.starts_with('|')).map(|line| {
        let cells: Vec<String> = line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
        cells.try_into().unwrap_or_else(|cells| panic!("{cells:?}"))
    })
}

fn unquoted(cell: &str) -> String {
    cell.trim_matches('`').to_owned()
}

fn text(value: Option<Value>) -> String {
    value.as_ref().and_then(Value::as_str).expect("a string").to_owned()
}

fn parsed(kind: EventKind) -> Map<String, Value> {
    let mut events = Events::default();
    events.push(Duration::ZERO, kind);
    let mut out = Vec::new();
    events.next(0).unwrap().write_to(&plan(), &mut out);
    serde_json::from_slice(&out).unwrap()
}

fn dropped() -> Map<String, Value> {
    let mut out = Vec::new();
    write_dropped(3, &mut out);
    serde_json::from_slice(&out).unwrap()
}

fn plan() -> Plan {
    Plan {
        shutdown_timeout: Duration::from_secs(9),
        signals: SignalActions::default(),
        termination_log: PathBuf::new().into(),
        log: LogStyle::default(),
        control: Control::Off,
        http: None,
        services: ["web", "db"].map(|name| Rc::new(service(name))).into(),
    }
}

fn service(name: &str) -> Service {
    let port = crate::model::Template::Fixed(c"PORT=80".to_owned());
    let fixed = |text: &std::ffi::CStr| crate::model::Template::Fixed(text.to_owned());
    let probe = Probe::Http { authority: fixed(c"127.0.0.1:80"), target: fixed(c"/") };
    let second = Duration::from_secs(1);
    let health = Health {
        probe,
        http: HttpCheck::default(),
        interval: second,
        timeout: second,
        retries: 3,
        start_period: second,
        on_unhealthy: OnUnhealthy::Mark,
    };
    let process = Process { env: [port].into(), ..Process::new(Box::default()) };
    Service { health: Some(Rc::new(health)), ..Service::new(name, process) }
}

/// Every event, each with the message that belongs to it.
fn samples() -> Vec<(EventKind, &'static str)> {
    let mut samples: Vec<(EventKind, &str)> = transitions()
        .into_iter()
        .chain(journal_events())
        .map(|(event, line)| (EventKind::JournalEvent(event), line))
        .collect();
    let why = || "no more clients".to_owned();
    samples.extend([
        (EventKind::OrphansReaped { count: 1, total: 1 }, "reaped 1 orphaned process, 1 in total"),
        (EventKind::OrphansReaped { count: 2, total: 3 }, "reaped 2 orphaned processes, 3 in total"),
        (EventKind::EventsSuppressed { instance: None, count: 1 }, "1 similar event suppressed"),
        (EventKind::EventsSuppressed { instance: Some(INSTANCE), count: 2 }, "web.0: 2 similar events suppressed"),
        (EventKind::LoggerRestarted, "the logger exited and is restarted"),
        (
            EventKind::JournalEvent(JournalEvent::ConfigReloadFailed { reason: why().into() }),
            "reload failed, keeping the current configuration",
        ),
        (EventKind::ClientRejected { count: 1, reason: why() }, "1 client rejected: no more clients"),
        (EventKind::ClientRejected { count: 2, reason: why() }, "2 clients rejected: no more clients"),
    ]);
    samples
}

fn awaited(state: StateName, seconds: Option<u64>) -> JournalEvent {
    let lasts = seconds.map(Duration::from_secs);
    JournalEvent::DependencyAwaited { service: SERVICE, dependency: SERVICE, state, lasts }
}

fn run(status: ExitStatus) -> RunResult {
    RunResult::new(crate::model::RunId::new(7), Exit { status, oom_killed: false }, Duration::from_millis(3_200))
}

fn ended(run: RunResult, decision: RestartDecision) -> Reason {
    Reason::Exited { run: run.into(), decision, definition: Rc::new(service("web")) }
}

const SKIPPED: JournalEvent = JournalEvent::RunSkipped { service: SERVICE, why: SkipReason::StillRunning };

fn cleaned_up(run: RunResult, decision: RestartDecision) -> Reason {
    Reason::CleanedUp { run: run.into(), decision, definition: Rc::new(service("web")) }
}

fn restart(milliseconds: u64, unstable: u32, limit: Option<u32>) -> RestartDecision {
    RestartDecision::Restart { delay: Duration::from_millis(milliseconds), unstable, limit }
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn transitions() -> Vec<(JournalEvent, &'static str)> {
    use StateName::{Backoff, Completed, Failed, Running, Starting, Stopped, Stopping, Waiting};
    let (crashed, killed) = (run(ExitStatus::Code(1)), run(ExitStatus::Signal(Signal::KILL)));
    let out_of_memory = RunResult { exit: Exit { oom_killed: true, ..killed.exit }, ..killed.clone() };
    let not_ready = RunResult {
        fault: Some(Fault::NotReady(Duration::from_secs(30))),
        probe_failure: Some(ProbeFailure::TimedOut),
        ..killed.clone()
    };
    let failure = |step, errno| RunResult { failure: Some(StartFailure { step, errno }), ..run(ExitStatus::Code(1)) };
    let fail = RestartDecision::Fail;
    let between = |from, to, reason| (INSTANCE, from, to, reason);
    let table = [
        (between(Waiting, Starting, Reason::DependenciesReady), "web.0 waiting → starting"),
        (
            between(Stopped, Waiting, Reason::StartRequested(Requester::Autostart)),
            "web.0 stopped → waiting (started by autostart)",
        ),
        (
            between(Stopped, Starting, Reason::StartRequested(Requester::Operator)),
            "web.0 stopped → starting (started by operator)",
        ),
        (
            between(Stopped, Starting, Reason::StartRequested(Requester::Dependent(ServiceIndex(1)))),
            "web.0 stopped → starting (needed by db)",
        ),
        (
            (INSTANCE.surge(), Stopped, Starting, Reason::StartRequested(Requester::Reload)),
            "web.0 second process starting (replacement process)",
        ),
        (between(Backoff, Starting, Reason::BackoffElapsed), "web.0 backoff → starting"),
        (between(Starting, Running, Reason::Ready), "web.0 starting → running (pid 7)"),
        (between(Running, Starting, Reason::ReloadingReported), "web.0 running → starting (it sent RELOADING=1)"),
        (between(Running, Stopping, Reason::StoppingReported), "web.0 running → stopping (it sent STOPPING=1)"),
        (
            between(Starting, Stopping, Reason::Fault(Fault::NotReady(Duration::from_secs(30)), None)),
            "web.0 starting → stopping (not ready within 30s)",
        ),
        (
            between(Running, Stopping, Reason::Fault(Fault::NotFinished(Duration::from_secs(30)), None)),
            "web.0 running → stopping (not finished within 30s)",
        ),
        (
            between(Running, Stopping, Reason::Fault(Fault::WatchdogTimeout(Duration::from_secs(10)), None)),
            "web.0 running → stopping (no watchdog message for 10s)",
        ),
        (
            between(Running, Stopping, Reason::Fault(Fault::WatchdogTriggered, None)),
            "web.0 running → stopping (it sent WATCHDOG=trigger)",
        ),
        (
            between(Running, Stopping, Reason::Fault(Fault::Unhealthy, Some(ProbeFailure::Status(503)))),
            "web.0 running → stopping (unhealthy: http 127.0.0.1:80: HTTP status 503)",
        ),
        (between(Running, Stopping, Reason::Replaced), "web.0 running → stopping (replaced)"),
        (
            between(Stopping, Backoff, cleaned_up(crashed.clone(), restart(100, 1, Some(16)))),
            "web.0 stopping → backoff (exited with code 1, ran 3.2s; restart 1 of 16 in 100ms)",
        ),
        (
            between(Stopping, Failed, cleaned_up(crashed.clone(), fail(FailureReason::Policy))),
            "web.0 stopping → failed (exited with code 1, ran 3.2s)",
        ),
        (
            between(Running, Stopping, Reason::StopRequested(Requester::Operator)),
            "web.0 running → stopping (stopped by operator)",
        ),
        (
            between(Running, Stopping, Reason::StopRequested(Requester::Scaling)),
            "web.0 running → stopping (stopped by scaling)",
        ),
        (
            between(Running, Stopping, Reason::StopRequested(Requester::Config)),
            "web.0 running → stopping (stopped by a new configuration)",
        ),
        (
            between(Running, Stopping, Reason::RestartRequested(Requester::Operator)),
            "web.0 running → stopping (restarted by operator)",
        ),
        (
            between(Running, Stopping, Reason::RestartRequested(Requester::Reload)),
            "web.0 running → stopping (restarted by reload)",
        ),
        (between(Running, Stopping, Reason::Shutdown), "web.0 running → stopping"),
        (
            between(
                Starting,
                Starting,
                Reason::SpawnFailed { errno: Errno::EAGAIN, retry_in: Duration::from_secs(1), attempt: 1 },
            ),
            "web.0 starting (cannot create a process: Resource temporarily unavailable; retry in 1s)",
        ),
        (
            between(Waiting, Failed, Reason::DependencyCompleted { dependency: ServiceIndex(1) }),
            "web.0 waiting → failed (cannot start: its dependency db has completed)",
        ),
        (
            between(Waiting, Failed, Reason::DependencyFailed { dependency: ServiceIndex(1) }),
            "web.0 waiting → failed (cannot start: its dependency db has failed)",
        ),
        (
            between(Running, Backoff, ended(crashed.clone(), restart(400, 3, Some(16)))),
            "web.0 running → backoff (exited with code 1, ran 3.2s; restart 3 of 16 in 400ms)",
        ),
        (
            between(Running, Backoff, ended(killed, restart(400, 3, None))),
            "web.0 running → backoff (killed by SIGKILL, ran 3.2s; restart 3 in 400ms)",
        ),
        (
            between(Running, Starting, ended(out_of_memory, restart(0, 0, Some(16)))),
            "web.0 running → starting (killed by SIGKILL (out of memory), ran 3.2s; restart now)",
        ),
        (
            between(Stopping, Backoff, ended(not_ready, restart(400, 1, Some(16)))),
            "web.0 stopping → backoff (not ready within 30s; killed by SIGKILL, ran 3.2s; restart 1 of 16 in 400ms)",
        ),
        (
            between(Running, Stopping, ended(crashed.clone(), restart(0, 0, None))),
            "web.0 running → stopping (exited with code 1, ran 3.2s; stopping leftover processes)",
        ),
        (
            between(Running, Waiting, ended(crashed.clone(), restart(0, 0, None))),
            "web.0 running → waiting (exited with code 1, ran 3.2s; restart when its dependencies are ready)",
        ),
        (
            between(Running, Completed, ended(run(ExitStatus::Code(0)), RestartDecision::Complete)),
            "web.0 running → completed (exited with code 0, ran 3.2s)",
        ),
        (
            between(Running, Failed, ended(crashed.clone(), fail(FailureReason::Policy))),
            "web.0 running → failed (exited with code 1, ran 3.2s)",
        ),
        (
            between(Running, Failed, ended(crashed.clone(), fail(FailureReason::Prevented))),
            "web.0 running → failed (exited with code 1, ran 3.2s; not restarted because of `no_restart_exit_codes`)",
        ),
        (
            between(Running, Failed, ended(crashed.clone(), fail(FailureReason::RestartLimit(0)))),
            "web.0 running → failed (exited with code 1, ran 3.2s; `max_restarts` is 0)",
        ),
        (
            between(Running, Failed, ended(crashed.clone(), fail(FailureReason::RestartLimit(1)))),
            "web.0 running → failed (exited with code 1, ran 3.2s; gave up after 1 restart)",
        ),
        (
            between(Running, Failed, ended(crashed.clone(), fail(FailureReason::RestartLimit(16)))),
            "web.0 running → failed (exited with code 1, ran 3.2s; gave up after 16 restarts)",
        ),
        (
            between(Starting, Failed, ended(failure(StartStep::User, Errno::EPERM), fail(FailureReason::Policy))),
            "web.0 starting → failed (cannot switch to its `user`: Operation not permitted)",
        ),
    ];
    let transition = |((instance, from, to, reason), line)| {
        let pid = Pid::new(7);
        (JournalEvent::Transition { instance, from, to, pid, reason }, line)
    };
    table.into_iter().map(transition).collect()
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn journal_events() -> Vec<(JournalEvent, &'static str)> {
    let (pid, not_running) = (|number| Pid::new(number).unwrap(), vec![SERVICE]);
    let failure = |error| ReloadFailure { instance: INSTANCE, definition: Rc::new(service("web")), error };
    let crashed = Rc::new(run(ExitStatus::Code(1)));
    let last = (INSTANCE, crashed.clone(), FailureReason::RestartLimit(16));
    let changes =
        Changes { added: 1, removed: 2, reloaded: 3, adjusted: 4, unchanged: 5, not_running, ..Changes::default() };
    let hook = RunResult { hook: Some(Hook::PreStop), ..run(ExitStatus::Code(3)) };
    let hook = JournalEvent::HookFailed { instance: INSTANCE, run: hook.into(), definition: Rc::new(service("web")) };
    let left = |is_daemon| JournalEvent::LeftoverProcessesFound { instance: INSTANCE, pid: pid(7), is_daemon };
    let draining = |cause| JournalEvent::ShutdownStarted { cause };
    let failed = |error| JournalEvent::ReloadFinished { service: SERVICE, failure: Some(failure(error)) };
    vec![
        (
            JournalEvent::StopTimedOut { instance: INSTANCE, pid: pid(7), after: Duration::from_secs(5) },
            "web.0 did not stop within 5s, sending SIGKILL (pid 7)",
        ),
        (hook, "web.0: pre_stop exited with code 3, ran 3.2s"),
        (left(false), "web.0 left processes behind, stopping them (pid 7 has exited)"),
        (
            left(true),
            "web.0 left processes behind, stopping them (pid 7 has exited): it puts itself into the background; let it run \
             in the foreground, for example with `-F`, `--foreground`, `--nodaemon` or `daemon off`",
        ),
        (
            JournalEvent::Unkillable { instance: INSTANCE, pid: pid(7) },
            "web.0 is still alive after SIGKILL (pid 7): not permitted to kill it, or stuck in the kernel",
        ),
        (
            JournalEvent::Unhealthy { instance: INSTANCE, failure: Some(ProbeFailure::Status(503)) },
            "web.0 is unhealthy: http 127.0.0.1:80: HTTP status 503",
        ),
        (JournalEvent::Healthy { instance: INSTANCE }, "web.0 is healthy again"),
        (JournalEvent::Scaled { service: SERVICE, from: 2, to: 4 }, "web scaled from 2 to 4 instances"),
        (JournalEvent::ServiceFailed { service: SERVICE }, "web has failed"),
        (SKIPPED, "web due by its schedule, skipped: the last run is not over"),
        (awaited(StateName::Running, Some(30)), "web waits for web, which has been running for 30s"),
        (awaited(StateName::Stopped, None), "web waits for web, which is stopped"),
        (awaited(StateName::Backoff, None), "web waits for web, which is backing off"),
        (JournalEvent::SignalForwarded { signal: Signal::USR1, receivers: 1 }, "SIGUSR1 forwarded to 1 process"),
        (JournalEvent::SignalForwarded { signal: Signal::USR1, receivers: 2 }, "SIGUSR1 forwarded to 2 processes"),
        (JournalEvent::SignalIgnored { signal: Signal::USR1 }, "SIGUSR1 ignored, as configured"),
        (JournalEvent::ConfigReloadRequested { signal: Signal::HUP }, "received SIGHUP: reloading the configuration"),
        (
            JournalEvent::ConfigReloaded(changes),
            "configuration reloaded: 1 added, 2 removed, 3 to reload, 4 updated, 5 unchanged; \
             not running: web (new definition used at the next start)",
        ),
        (
            JournalEvent::ConfigReloadDeferred { service: SERVICE },
            "configuration reload deferred until the reload of web has ended",
        ),
        (JournalEvent::ReloadStarted { service: SERVICE, by: Requester::Reload }, "web reload started"),
        (
            JournalEvent::InstanceReplaced { instance: INSTANCE, old: Some(pid(7)), new: Some(pid(8)) },
            "web.0 replaced (old pid 7, new pid 8)",
        ),
        (
            JournalEvent::InstanceReplaced { instance: INSTANCE, old: None, new: Some(pid(8)) },
            "web.0 replaced (new pid 8)",
        ),
        (
            JournalEvent::ReloadRolledBack {
                service: SERVICE,
                failure: failure(RolloutError::Exited(crashed.clone())),
            },
            "web rolled back to its previous configuration: \
             the new process of web.0 failed: exited with code 1, ran 3.2s",
        ),
        (JournalEvent::ReloadFinished { service: SERVICE, failure: None }, "web reload finished"),
        (
            failed(RolloutError::ExitedAfterStopping(crashed.clone())),
            "web reload failed: the new process of web.0 failed: it sent STOPPING=1; exited with code 1, ran 3.2s",
        ),
        (
            failed(RolloutError::ExitedBesideOld(crashed.clone())),
            "web reload failed: the new process of web.0 failed: exited with code 1, ran 3.2s; the old process was still \
             there: if both need one port, set `reload = \"restart\"` or pass the socket with `listen`",
        ),
        (failed(RolloutError::Stopped), "web reload failed: superseded by another request for web.0"),
        (failed(RolloutError::ReloadTimedOut), "web reload failed: web.0 did not send READY=1 within 30s"),
        (
            failed(RolloutError::SpawnFailed),
            "web reload failed: no new process for web.0: not enough processes or memory",
        ),
        (
            failed(RolloutError::DependencyFailed(ServiceIndex(1))),
            "web reload failed: no new process for web.0: its dependency db has failed",
        ),
        (
            failed(RolloutError::DependencyCompleted(ServiceIndex(1))),
            "web reload failed: no new process for web.0: its dependency db has completed",
        ),
        (
            failed(RolloutError::DependencyStopped(ServiceIndex(1))),
            "web reload failed: no new process for web.0: its dependency db is stopped",
        ),
        (
            failed(RolloutError::Superseded),
            "web reload failed: no new process for web.0: superseded by a newer configuration",
        ),
        (draining(Cause::Signal(Signal::TERM)), "received SIGTERM: shutting down"),
        (draining(Cause::Requested), "shutdown requested: shutting down"),
        (
            draining(Cause::Failed {
                instance: INSTANCE,
                run: crashed,
                failure_reason: FailureReason::RestartLimit(16),
            }),
            "web has failed: shutting down",
        ),
        (
            draining(Cause::Unhealthy { instance: INSTANCE, failure: Some(ProbeFailure::TimedOut) }),
            "web.0 is unhealthy: http 127.0.0.1:80: timed out: shutting down",
        ),
        (draining(Cause::Completed { service: SERVICE }), "web has completed: shutting down"),
        (draining(Cause::NothingLeft { failure: Some(last) }), "all services have ended: shutting down"),
        (draining(Cause::NothingLeft { failure: None }), "all services have ended: shutting down"),
        (
            JournalEvent::ShutdownForced { signal: Some(Signal::INT) },
            "received SIGINT again: killing all processes now",
        ),
        (JournalEvent::ShutdownForced { signal: None }, "shutdown not finished within 9s: killing all processes now"),
        (JournalEvent::LeftoverProcessesKilled, "leftover processes did not stop: killing them"),
        (JournalEvent::ProcessesAbandoned, "some processes are still alive after SIGKILL: exiting without them"),
    ]
}

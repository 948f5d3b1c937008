//! The metrics, in Prometheus' text format. docs/metrics.md lists them.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use super::snapshot::{Cursor, StatusSnapshot, is_full, is_ready};
use crate::model::ExitStatus;
use crate::model::json::push;
use crate::runtime::logging::Count;
use crate::runtime::wording::Name;
use crate::supervisor::{HealthStatus, InstanceView, RestartCause, Runs, ServiceView, StateName};

/// All samples of one metric.
struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    samples: Samples,
}

/// Where the samples come from.
enum Samples {
    /// One for keepalive itself.
    Own(fn(&StatusSnapshot<'_>) -> Value),
    Version,
    /// One for each service.
    Service(fn(ServiceView<'_>) -> Value),
    /// One for each service and result of a reload.
    Reloads,
    /// One for each service that has a schedule, and result of a run.
    Runs,
    /// One for each service; `None`: no value.
    Schedule(fn(ServiceView<'_>) -> Option<Value>),
    /// One for each instance; `None`: no value yet.
    Instance(fn(&InstanceView<'_>, &StatusSnapshot<'_>) -> Option<Value>),
    /// One for each instance and state.
    States,
    /// One for each instance that is checked, and each status of its health.
    Health,
    /// One for each instance and cause of restarts.
    Restarts,
    /// One for each instance and exit code or signal of its exits.
    Exits,
    /// One for each instance and stream; none without a logger.
    Streams(fn(Count) -> u64),
}

enum Value {
    Count(u64),
    Seconds(Duration),
}

impl From<bool> for Value {
    fn from(is: bool) -> Self {
        Self::Count(is.into())
    }
}

impl Display for Value {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => count.fmt(formatter),
            Self::Seconds(duration) => write!(formatter, "{}.{:06}", duration.as_secs(), duration.subsec_micros()),
        }
    }
}

/// Both labels are always there, as Prometheus wants it: an empty one counts as none.
struct ExitLabels(ExitStatus);

impl Display for ExitLabels {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            ExitStatus::Code(code) => write!(formatter, "exit_code=\"{code}\",signal=\"\""),
            ExitStatus::Signal(signal) => write!(formatter, "exit_code=\"\",signal=\"{signal}\""),
        }
    }
}

const STATES: [StateName; 9] = [
    StateName::Waiting,
    StateName::Starting,
    StateName::Running,
    StateName::Stopping,
    StateName::Stopped,
    StateName::Backoff,
    StateName::Scheduled,
    StateName::Completed,
    StateName::Failed,
];

const FAMILIES: [Family; 31] = [
    Family {
        name: "keepalive_up",
        kind: "gauge",
        help: "1, or 0 during shutdown.",
        samples: Samples::Own(|snapshot| Value::from(!snapshot.view.is_stopping)),
    },
    Family {
        name: "keepalive_build_info",
        kind: "gauge",
        help: "Always 1; the version is a label.",
        samples: Samples::Version,
    },
    Family {
        name: "keepalive_start_time_seconds",
        kind: "gauge",
        help: "Start time of keepalive, as Unix time.",
        samples: Samples::Own(|snapshot| Value::Seconds(snapshot.started_at_wall)),
    },
    Family {
        name: "keepalive_orphans_reaped_total",
        kind: "counter",
        help: "Reaped processes that no service had started.",
        samples: Samples::Own(|snapshot| Value::Count(snapshot.counts.orphans)),
    },
    Family {
        name: "keepalive_event_loop_iterations_total",
        kind: "counter",
        help: "Iterations of the event loop.",
        samples: Samples::Own(|snapshot| Value::Count(snapshot.counts.turns)),
    },
    Family {
        name: "keepalive_clients_dropped_total",
        kind: "counter",
        help: "Clients that were rejected, or disconnected because they stalled.",
        samples: Samples::Own(|snapshot| {
            Value::Count(snapshot.counts.dropped_clients + snapshot.logging.refused_clients())
        }),
    },
    Family {
        name: "keepalive_logger_restarts_total",
        kind: "counter",
        help: "Restarts of the logger process.",
        samples: Samples::Own(|snapshot| Value::Count(snapshot.logging.restarts())),
    },
    Family {
        name: "keepalive_log_messages_dropped_total",
        kind: "counter",
        help: "Log messages of keepalive that were dropped because the logger or stderr did not accept them.",
        samples: Samples::Own(|snapshot| Value::Count(snapshot.logging.dropped_lines())),
    },
    Family {
        name: "keepalive_events_total",
        kind: "counter",
        help: "Events since the start.",
        samples: Samples::Own(|snapshot| Value::Count(snapshot.events.latest())),
    },
    Family {
        name: "keepalive_config_reload_failures_total",
        kind: "counter",
        help: "Configuration reloads that failed, or brought a service that does not work.",
        samples: Samples::Own(|snapshot| Value::Count(snapshot.counts.config_reload_failures())),
    },
    Family {
        name: "keepalive_config_last_reload_successful",
        kind: "gauge",
        help: "Whether the last configuration reload succeeded; 1 before the first.",
        samples: Samples::Own(|snapshot| Value::from(!snapshot.counts.last_config_reload_failed())),
    },
    Family {
        name: "keepalive_service_reloads_total",
        kind: "counter",
        help: "Finished reloads of the service, by result.",
        samples: Samples::Reloads,
    },
    Family {
        name: "keepalive_service_desired_instances",
        kind: "gauge",
        help: "Desired number of instances.",
        samples: Samples::Service(|service| Value::Count(service.desired.into())),
    },
    Family {
        name: "keepalive_service_ready",
        kind: "gauge",
        help: "Whether the service is ready: no instance has failed, and all are ready, or as a oneshot have succeeded.",
        samples: Samples::Service(|service| Value::from(service.ready)),
    },
    Family {
        name: "keepalive_service_scheduled_runs_total",
        kind: "counter",
        help: "Runs of the service's schedule, by result.",
        samples: Samples::Runs,
    },
    Family {
        name: "keepalive_service_next_run_time_seconds",
        kind: "gauge",
        help: "When the schedule of the service is due next, as Unix time.",
        samples: Samples::Schedule(|service| {
            Some(Value::Seconds(Duration::from_secs(u64::try_from(service.next_run?).ok()?)))
        }),
    },
    Family {
        name: "keepalive_service_last_run_duration_seconds",
        kind: "gauge",
        help: "Duration of the last finished run of the service's schedule.",
        samples: Samples::Schedule(|service| {
            let is_scheduled = service.definition.runs_on_schedule();
            let run = service.instances().next().filter(|_| is_scheduled)?.last_run?;
            Some(Value::Seconds(run.uptime))
        }),
    },
    Family {
        name: "keepalive_instance_up",
        kind: "gauge",
        help: "Whether the instance has a process.",
        samples: Samples::Instance(|instance, _| Some(Value::from(instance.pid.is_some()))),
    },
    Family {
        name: "keepalive_instance_ready",
        kind: "gauge",
        help: "Whether the instance is ready, or as a oneshot has succeeded.",
        samples: Samples::Instance(|instance, snapshot| Some(Value::from(is_ready(instance, snapshot.plan)))),
    },
    Family {
        name: "keepalive_instance_state",
        kind: "gauge",
        help: "1 for the current state of the instance, 0 for all others.",
        samples: Samples::States,
    },
    Family {
        name: "keepalive_instance_health",
        kind: "gauge",
        help: "1 for the current status of the instance's health checks, 0 for the others.",
        samples: Samples::Health,
    },
    Family {
        name: "keepalive_instance_failed_checks_total",
        kind: "counter",
        help: "Failed health checks of the instance.",
        samples: Samples::Instance(|instance, _| {
            instance.definition.health.as_ref().map(|_| Value::Count(instance.failed_checks))
        }),
    },
    Family {
        name: "keepalive_instance_restarts_total",
        kind: "counter",
        help: "Restarts of the instance, by reason.",
        samples: Samples::Restarts,
    },
    Family {
        name: "keepalive_instance_exits_total",
        kind: "counter",
        help: "Exits of the instance's main process, by exit code or signal.",
        samples: Samples::Exits,
    },
    Family {
        name: "keepalive_instance_start_duration_seconds",
        kind: "gauge",
        help: "Time that the last start took until the program was executed.",
        samples: Samples::Instance(|instance, snapshot| snapshot.counts.of(instance.id)?.start.map(Value::Seconds)),
    },
    Family {
        name: "keepalive_instance_ready_duration_seconds",
        kind: "gauge",
        help: "Time that the last start took until the instance was ready.",
        samples: Samples::Instance(|instance, snapshot| snapshot.counts.of(instance.id)?.ready.map(Value::Seconds)),
    },
    Family {
        name: "keepalive_instance_cpu_seconds_total",
        kind: "counter",
        help: "CPU time of the instance's process tree since its last start.",
        samples: Samples::Instance(|instance, snapshot| {
            let used = snapshot.usage.of(instance.pid)?;
            Some(Value::Seconds(Duration::from_millis(used.milliseconds)))
        }),
    },
    Family {
        name: "keepalive_instance_resident_memory_bytes",
        kind: "gauge",
        help: "Resident memory of the instance's process tree.",
        samples: Samples::Instance(|instance, snapshot| Some(Value::Count(snapshot.usage.of(instance.pid)?.memory))),
    },
    Family {
        name: "keepalive_instance_ipc_messages_dropped_total",
        kind: "counter",
        help: "IPC messages to the instance that were dropped because it did not read them.",
        samples: Samples::Instance(|instance, snapshot| {
            let service = snapshot.plan.services.get(instance.id.service.position())?;
            service.process.ipc.then(|| Value::Count(snapshot.channels.lost(instance.id)))
        }),
    },
    Family {
        name: "keepalive_instance_log_lines_total",
        kind: "counter",
        help: "Lines of output of the instance that the logger has read.",
        samples: Samples::Streams(|count| count.lines),
    },
    Family {
        name: "keepalive_instance_log_bytes_total",
        kind: "counter",
        help: "Bytes of output of the instance that the logger has read.",
        samples: Samples::Streams(|count| count.bytes),
    },
];

/// Writes the next piece. Returns whether it was the last one.
pub(super) fn advance(
    family: &mut usize,
    cursor: &mut Cursor,
    snapshot: &StatusSnapshot<'_>,
    out: &mut Vec<u8>,
) -> bool {
    while let Some(next) = FAMILIES.get(*family) {
        if !next.advance(cursor, snapshot, out) {
            return false;
        }
        (*family, *cursor) = (*family + 1, Cursor::default());
    }
    true
}

impl Family {
    fn advance(&self, cursor: &mut Cursor, snapshot: &StatusSnapshot<'_>, out: &mut Vec<u8>) -> bool {
        let Self { name, kind, help, samples } = self;
        if !cursor.has_started {
            push(out, format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
            cursor.has_started = true;
        }
        match samples {
            Samples::Own(value) => push(out, format_args!("{name} {}\n", value(snapshot))),
            Samples::Version => push(out, format_args!("{name}{{version=\"{}\"}} 1\n", env!("CARGO_PKG_VERSION"))),
            Samples::Service(_)
            | Samples::Reloads
            | Samples::Runs
            | Samples::Schedule(_)
            | Samples::Instance(_)
            | Samples::States
            | Samples::Health
            | Samples::Restarts
            | Samples::Exits
            | Samples::Streams(_) => {
                for service in snapshot.view.services().skip(cursor.service) {
                    if is_full(out) || !self.write_service(service, cursor, snapshot, out) {
                        return false;
                    }
                    (cursor.service, cursor.number) = (cursor.service + 1, 0);
                }
            }
        }
        true
    }

    fn write_service(
        &self,
        service: ServiceView<'_>,
        cursor: &mut Cursor,
        snapshot: &StatusSnapshot<'_>,
        out: &mut Vec<u8>,
    ) -> bool {
        if let Samples::Service(value) = self.samples {
            push(out, format_args!("{}{{service=\"{}\"}} {}\n", self.name, service.name, value(service)));
            return true;
        }
        if let Samples::Reloads = self.samples {
            for (result, count) in ["succeeded", "failed"].into_iter().zip(snapshot.counts.reloads(service.index)) {
                let (name, service) = (self.name, service.name);
                push(out, format_args!("{name}{{service=\"{service}\",result=\"{result}\"}} {count}\n"));
            }
            return true;
        }
        if let Samples::Schedule(value) = self.samples {
            if let Some(value) = value(service) {
                push(out, format_args!("{}{{service=\"{}\"}} {value}\n", self.name, service.name));
            }
            return true;
        }
        if let Samples::Runs = self.samples {
            let Runs { succeeded, failed, skipped } = service.runs;
            let results = [("succeeded", succeeded), ("failed", failed), ("skipped", skipped)];
            for (result, count) in results.into_iter().filter(|_| service.definition.schedule.is_some()) {
                let (name, service) = (self.name, service.name);
                push(out, format_args!("{name}{{service=\"{service}\",result=\"{result}\"}} {count}\n"));
            }
            return true;
        }
        for instance in service.instances().skip(cursor.number) {
            if is_full(out) {
                return false;
            }
            self.write_instance(service.name, &instance, snapshot, out);
            cursor.number += 1;
        }
        true
    }

    fn write_instance(
        &self,
        service: &str,
        instance: &InstanceView<'_>,
        snapshot: &StatusSnapshot<'_>,
        out: &mut Vec<u8>,
    ) {
        // Names need no escaping.
        let name = self.name;
        let labels = format!("service=\"{service}\",instance=\"{}\"", Name(snapshot.plan, instance.id));
        match self.samples {
            Samples::Instance(value) => {
                if let Some(value) = value(instance, snapshot) {
                    push(out, format_args!("{name}{{{labels}}} {value}\n"));
                }
            }
            Samples::States => {
                for state in STATES {
                    let is = u8::from(state == instance.state);
                    push(out, format_args!("{name}{{{labels},state=\"{}\"}} {is}\n", state.as_str()));
                }
            }
            Samples::Health => {
                for status in HealthStatus::ALL.into_iter().filter(|_| instance.health.is_some()) {
                    let is = u8::from(Some(status) == instance.health);
                    push(out, format_args!("{name}{{{labels},status=\"{}\"}} {is}\n", status.as_str()));
                }
            }
            Samples::Restarts => {
                for cause in RestartCause::ALL {
                    let count = instance.restarts.of(cause);
                    push(out, format_args!("{name}{{{labels},reason=\"{}\"}} {count}\n", cause.as_str()));
                }
            }
            Samples::Exits => {
                let exits = snapshot.counts.of(instance.id).map_or(&[][..], |count| &count.exits);
                for (status, count) in exits {
                    push(out, format_args!("{name}{{{labels},{}}} {count}\n", ExitLabels(*status)));
                }
            }
            Samples::Streams(value) if snapshot.logging.is_on() => {
                for (stream, count) in ["stdout", "stderr"].into_iter().zip(snapshot.logging.counts(instance.id)) {
                    push(out, format_args!("{name}{{{labels},stream=\"{stream}\"}} {}\n", value(count)));
                }
            }
            Samples::Streams(_)
            | Samples::Own(_)
            | Samples::Version
            | Samples::Service(_)
            | Samples::Reloads
            | Samples::Runs
            | Samples::Schedule(_) => {}
        }
    }
}

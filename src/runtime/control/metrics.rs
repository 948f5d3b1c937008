//! The metrics, in Prometheus' text format.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use super::json::push;
use super::snapshot::{Cursor, StatusSnapshot, is_full, is_ready};
use crate::runtime::logging::Count;
use crate::runtime::text::Name;
use crate::supervisor::{InstanceView, ServiceView, StateName};

/// All samples of one name.
struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    samples: Samples,
}

/// Where they come from.
enum Samples {
    /// One for keepalive itself.
    Own(fn(&StatusSnapshot<'_>) -> Value),
    Version,
    /// One for each service.
    Service(fn(ServiceView<'_>) -> Value),
    /// One for each service and result of a reload.
    Reloads,
    /// One for each instance; `None`: nothing is known yet.
    Instance(fn(&InstanceView<'_>, &StatusSnapshot<'_>) -> Option<Value>),
    /// One for each instance and state.
    States,
    /// One for each instance and way to end that has occurred.
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

const STATES: [StateName; 8] = [
    StateName::Waiting,
    StateName::Starting,
    StateName::Running,
    StateName::Stopping,
    StateName::Stopped,
    StateName::Backoff,
    StateName::Completed,
    StateName::Failed,
];

const FAMILIES: [Family; 25] = [
    Family {
        name: "keepalive_up",
        kind: "gauge",
        help: "1; 0 while everything is being stopped.",
        samples: Samples::Own(|snapshot| Value::from(!snapshot.view.is_stopping)),
    },
    Family {
        name: "keepalive_build_info",
        kind: "gauge",
        help: "1, with the version as a label.",
        samples: Samples::Version,
    },
    Family {
        name: "keepalive_start_time_seconds",
        kind: "gauge",
        help: "When keepalive was started, in seconds since 1970.",
        samples: Samples::Own(|snapshot| Value::Seconds(snapshot.begun_at)),
    },
    Family {
        name: "keepalive_zombies_reaped_total",
        kind: "counter",
        help: "Dead processes reaped that no service had started.",
        samples: Samples::Own(|snapshot| Value::Count(snapshot.counts.orphans)),
    },
    Family {
        name: "keepalive_loop_turns_total",
        kind: "counter",
        help: "How often keepalive has woken up.",
        samples: Samples::Own(|snapshot| Value::Count(snapshot.counts.turns)),
    },
    Family {
        name: "keepalive_clients_dropped_total",
        kind: "counter",
        help: "Clients that were turned away, or given up because they kept keepalive waiting.",
        samples: Samples::Own(|snapshot| {
            Value::Count(snapshot.counts.dropped_clients + snapshot.logging.refused_clients())
        }),
    },
    Family {
        name: "keepalive_logger_restarts_total",
        kind: "counter",
        help: "How often the logger has ended and was started again.",
        samples: Samples::Own(|snapshot| Value::Count(snapshot.logging.restarts())),
    },
    Family {
        name: "keepalive_own_lines_dropped_total",
        kind: "counter",
        help: "Lines of keepalive's own that were dropped because nobody took them.",
        samples: Samples::Own(|snapshot| Value::Count(snapshot.logging.dropped_lines())),
    },
    Family {
        name: "keepalive_events_total",
        kind: "counter",
        help: "Events so far.",
        samples: Samples::Own(|snapshot| Value::Count(snapshot.events.latest())),
    },
    Family {
        name: "keepalive_configuration_failures_total",
        kind: "counter",
        help: "How often the configuration was to be read again and could not be taken.",
        samples: Samples::Own(|snapshot| Value::Count(snapshot.counts.failed_configurations)),
    },
    Family {
        name: "keepalive_reloads_total",
        kind: "counter",
        help: "Reloads of the service that are over, by result.",
        samples: Samples::Reloads,
    },
    Family {
        name: "keepalive_service_instances",
        kind: "gauge",
        help: "How many instances there are to be.",
        samples: Samples::Service(|service| Value::Count(service.wanted.into())),
    },
    Family {
        name: "keepalive_service_ready",
        kind: "gauge",
        help: "Whether what depends on the service may start.",
        samples: Samples::Service(|service| Value::from(service.satisfied)),
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
        help: "Whether the instance is ready; a oneshot: whether it has succeeded.",
        samples: Samples::Instance(|instance, snapshot| Some(Value::from(is_ready(instance, snapshot.plan)))),
    },
    Family {
        name: "keepalive_instance_state",
        kind: "gauge",
        help: "1 for the state that the instance is in, 0 for all others.",
        samples: Samples::States,
    },
    Family {
        name: "keepalive_instance_restarts_total",
        kind: "counter",
        help: "How often the instance has been started again.",
        samples: Samples::Instance(|instance, _| Some(Value::Count(instance.restarts.into()))),
    },
    Family {
        name: "keepalive_instance_exits_total",
        kind: "counter",
        help: "How the instance's runs have ended: an exit code, or the name of the signal.",
        samples: Samples::Exits,
    },
    Family {
        name: "keepalive_instance_start_duration_seconds",
        kind: "gauge",
        help: "From the last decision to start until the program was executed.",
        samples: Samples::Instance(|instance, snapshot| snapshot.counts.of(instance.id)?.start.map(Value::Seconds)),
    },
    Family {
        name: "keepalive_instance_ready_duration_seconds",
        kind: "gauge",
        help: "From the last decision to start until the instance was ready.",
        samples: Samples::Instance(|instance, snapshot| snapshot.counts.of(instance.id)?.ready.map(Value::Seconds)),
    },
    Family {
        name: "keepalive_instance_cpu_seconds_total",
        kind: "counter",
        help: "Processor time of the present run's processes.",
        samples: Samples::Instance(|instance, snapshot| {
            let used = snapshot.usage.of(instance.pid);
            instance.pid.map(|_| Value::Seconds(Duration::from_millis(used.milliseconds)))
        }),
    },
    Family {
        name: "keepalive_instance_memory_bytes",
        kind: "gauge",
        help: "Resident memory of the instance's processes.",
        samples: Samples::Instance(|instance, snapshot| {
            instance.pid.map(|_| Value::Count(snapshot.usage.of(instance.pid).memory))
        }),
    },
    Family {
        name: "keepalive_ipc_messages_lost_total",
        kind: "counter",
        help: "Messages to the instance that were lost because it does not read its channel.",
        samples: Samples::Instance(|instance, snapshot| {
            let service = snapshot.plan.services.get(instance.id.service.position())?;
            service.process.ipc.then(|| Value::Count(snapshot.channels.lost(instance.id)))
        }),
    },
    Family {
        name: "keepalive_log_lines_total",
        kind: "counter",
        help: "Lines of the instance that have gone through the logger.",
        samples: Samples::Streams(|count| count.lines),
    },
    Family {
        name: "keepalive_log_bytes_total",
        kind: "counter",
        help: "Bytes of the instance that have gone through the logger.",
        samples: Samples::Streams(|count| count.bytes),
    },
];

/// Writes the next piece. Whether it was the last one.
pub(super) fn go_on(family: &mut usize, cursor: &mut Cursor, snapshot: &StatusSnapshot<'_>, out: &mut Vec<u8>) -> bool {
    while let Some(next) = FAMILIES.get(*family) {
        if !next.go_on(cursor, snapshot, out) {
            return false;
        }
        (*family, *cursor) = (*family + 1, Cursor::default());
    }
    true
}

impl Family {
    fn go_on(&self, cursor: &mut Cursor, snapshot: &StatusSnapshot<'_>, out: &mut Vec<u8>) -> bool {
        let Self { name, kind, help, samples } = self;
        if !cursor.begun {
            push(out, format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
            cursor.begun = true;
        }
        match samples {
            Samples::Own(value) => push(out, format_args!("{name} {}\n", value(snapshot))),
            Samples::Version => push(out, format_args!("{name}{{version=\"{}\"}} 1\n", env!("CARGO_PKG_VERSION"))),
            Samples::Service(_)
            | Samples::Reloads
            | Samples::Instance(_)
            | Samples::States
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
            for (result, count) in ["done", "failed"].into_iter().zip(snapshot.counts.reloads(service.index)) {
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
        // No name has a character in it that would have to be escaped.
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
            Samples::Exits => {
                let exits = snapshot.counts.of(instance.id).map_or(&[][..], |count| &count.exits);
                for (status, count) in exits {
                    let code = status.to_string();
                    let code = code.strip_prefix("exit ").unwrap_or(&code);
                    push(out, format_args!("{name}{{{labels},code=\"{code}\"}} {count}\n"));
                }
            }
            Samples::Streams(value) if snapshot.logging.is_on() => {
                for (stream, count) in ["stdout", "stderr"].into_iter().zip(snapshot.logging.counts(instance.id)) {
                    push(out, format_args!("{name}{{{labels},stream=\"{stream}\"}} {}\n", value(count)));
                }
            }
            Samples::Streams(_) | Samples::Own(_) | Samples::Version | Samples::Service(_) | Samples::Reloads => {}
        }
    }
}

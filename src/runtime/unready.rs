//! What a process is not ready without.

use std::fmt::{self, Formatter};

use crate::model::plan::{Probe, Ready, Service};
use crate::model::{Numbers, ProbeFailure};

/// What a probe looks at: `tcp 127.0.0.1:80`.
pub(super) fn probe_target(probe: &Probe, numbers: Numbers) -> String {
    let (kind, operand) = match probe {
        Probe::Tcp(address) => ("tcp ", Some(address)),
        Probe::Http { authority, .. } => ("http ", Some(authority)),
        Probe::File(path) => ("file ", Some(path)),
        Probe::Exec(command) => ("exec ", command.first()),
    };
    let mut text = kind.to_owned();
    text.extend(operand.map(|operand| operand.shown(numbers)));
    text
}

/// Writes why a process was not ready in time: ` (tcp 127.0.0.1:80: Connection refused)`.
pub(super) fn write_why(
    formatter: &mut Formatter<'_>,
    service: &Service,
    numbers: Numbers,
    failure: Option<&ProbeFailure>,
) -> fmt::Result {
    if let Ready::Probe(probe) = &service.ready {
        let target = probe_target(probe, numbers);
        return match failure {
            Some(failure) => write!(formatter, " ({target}: {failure})"),
            None => write!(formatter, " ({target}: no result)"),
        };
    }
    formatter.write_str(match service.ready {
        Ready::Notify => " (it has not sent READY=1)",
        Ready::Ipc => " (it has not sent `ready` on its ipc channel)",
        Ready::Fd(_) => " (it has not written a newline to its `fd`)",
        Ready::Exec | Ready::Delay(_) | Ready::Probe(_) => "",
    })
}

/// Writes why a process is unhealthy: `unhealthy: http 127.0.0.1:80: HTTP status 503`.
pub(super) fn write_unhealthy(
    formatter: &mut Formatter<'_>,
    service: &Service,
    numbers: Numbers,
    failure: Option<&ProbeFailure>,
) -> fmt::Result {
    formatter.write_str("unhealthy")?;
    let (Some(health), Some(failure)) = (&service.health, failure) else { return Ok(()) };
    write!(formatter, ": {}: {failure}", probe_target(&health.probe, numbers))
}

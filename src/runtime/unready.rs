//! What a process is not ready without.

use std::fmt::{self, Formatter};

use crate::model::plan::{Probe, Ready, Service};
use crate::model::{Numbers, ProbeFailure};

/// What a readiness probe looks at: `tcp 127.0.0.1:80`; `None`: there is no probe.
pub(super) fn probe_target(ready: &Ready, numbers: Numbers) -> Option<String> {
    let Ready::Probe(probe) = ready else { return None };
    let (kind, operand) = match probe {
        Probe::Tcp(address) => ("tcp ", Some(address)),
        Probe::Http { authority, .. } => ("http ", Some(authority)),
        Probe::File(path) => ("file ", Some(path)),
        Probe::Exec(command) => ("exec ", command.first()),
    };
    let mut text = kind.to_owned();
    text.extend(operand.map(|operand| operand.shown(numbers)));
    Some(text)
}

/// Writes why a process was not ready in time: ` (tcp 127.0.0.1:80: Connection refused)`.
pub(super) fn write_why(
    formatter: &mut Formatter<'_>,
    service: &Service,
    numbers: Numbers,
    failure: Option<&ProbeFailure>,
) -> fmt::Result {
    if let Some(target) = probe_target(&service.ready, numbers) {
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

//! The last resort: a bug in keepalive itself.

use std::panic::PanicHookInfo;
use std::path::Path;

use super::end;
use crate::sys::{StandardError, process};

/// sysexits(3) `EX_SOFTWARE`.
const BUG: u8 = 70;

/// From now on a panic says what has happened, on stderr and in the file at `termination_log` if there is one, and ends the process with 70, not with a signal: PID 1 cannot even send
/// itself one. Where keepalive is PID 1 the kernel then ends all the rest; anywhere else it tells the services.
pub fn end_on_panic(termination_log: &'static Path) {
    std::panic::set_hook(Box::new(|panic| tell_and_end(panic, termination_log)));
}

fn tell_and_end(panic: &PanicHookInfo<'_>, termination_log: &Path) -> ! {
    let what = panic.payload_as_str().unwrap_or("no reason given");
    let place = panic.location().map(|place| format!(" at {}:{}", place.file(), place.line())).unwrap_or_default();
    let version = env!("CARGO_PKG_VERSION");
    let reason = format!("this is a bug in keepalive {version}, please report it: {what}{place}");
    // The line below is what counts.
    end::leave(termination_log, &format!("{reason}\n")).ok();
    StandardError.write_final_line(format!("keepalive: error: {reason}").as_bytes());
    process::exit_now(BUG)
}

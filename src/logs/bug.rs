//! The last resort: a bug in keepalive itself.

use std::panic::PanicHookInfo;

use crate::sys::{StandardError, process};

/// sysexits(3) `EX_SOFTWARE`.
const BUG: u8 = 70;

/// From now on a panic says what has happened and ends the process with 70, not with a signal: PID 1 cannot even send
/// itself one. Where keepalive is PID 1 the kernel then ends all the rest; anywhere else it tells the services.
pub fn end_on_panic() {
    std::panic::set_hook(Box::new(|panic| end(panic)));
}

fn end(panic: &PanicHookInfo<'_>) -> ! {
    let what = panic.payload_as_str().unwrap_or("no reason given");
    let place = panic.location().map(|place| format!(" at {}:{}", place.file(), place.line())).unwrap_or_default();
    let version = env!("CARGO_PKG_VERSION");
    let line = format!("keepalive: error: this is a bug in keepalive {version}, please report it: {what}{place}");
    StandardError.write_last(line.as_bytes());
    process::exit_now(BUG)
}

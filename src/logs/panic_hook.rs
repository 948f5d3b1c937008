//! The panic hook: reports a bug in keepalive itself and exits.

use std::panic::PanicHookInfo;
use std::path::Path;

use super::termination_log;
use crate::sys::{StandardError, process};

/// sysexits(3) `EX_SOFTWARE`.
const EXIT_SOFTWARE: u8 = 70;

/// Makes every later panic report itself on stderr, and in the file at `termination_log` if that exists, and exit with 70.
///
/// The process exits rather than aborts, since PID 1 cannot send itself a signal. When PID 1 exits, the kernel kills all
/// other processes of the PID namespace; elsewhere the services get their parent-death signal.
pub fn install(termination_log: &'static Path) {
    std::panic::set_hook(Box::new(|panic| report_and_exit(panic, termination_log)));
}

fn report_and_exit(panic: &PanicHookInfo<'_>, termination_log: &Path) -> ! {
    let what = panic.payload_as_str().unwrap_or("no reason given");
    // A build without places has lines 0.
    let place = panic
        .location()
        .filter(|place| place.line() > 0)
        .map(|place| format!(" at {}:{}", place.file(), place.line()))
        .unwrap_or_default();
    let version = env!("CARGO_PKG_VERSION");
    let reason = format!("this is a bug in keepalive {version}, please report it: {what}{place}");
    // A termination log that cannot be written does not matter: the same text goes to stderr.
    termination_log::write(termination_log, &format!("{reason}\n")).ok();
    StandardError.write_final_line(format!("keepalive: error: {reason}").as_bytes());
    process::exit_now(EXIT_SOFTWARE)
}

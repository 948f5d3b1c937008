//! Reports what ends keepalive at once: a bug in keepalive itself, or that there is no memory left.
//!
//! A release has no messages for panics, which are large: a panic is an instruction that must never be executed
//! ([`fault`]), and its place in the program file is what is reported.

use std::panic::PanicHookInfo;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use super::termination_log;
use crate::model::exit_code::OS_ERROR;
use crate::sys::{StandardError, allocator, fault, process};

/// sysexits(3) `EX_SOFTWARE`.
const EXIT_SOFTWARE: u8 = 70;

const NO_MEMORY: &str = "keepalive: error: out of memory: the system refuses keepalive the little that it needs itself, \
    see getrlimit(2) RLIMIT_AS and proc(5) vm.overcommit_memory";

static TERMINATION_LOG: OnceLock<&Path> = OnceLock::new();

/// Makes every later panic report itself on stderr, and in the file at `termination_log` if that exists, and exit with 70;
/// an allocation that the system refuses exits with 71.
///
/// The process exits rather than aborts, since PID 1 cannot send itself a signal. When PID 1 exits, the kernel kills all
/// other processes of the PID namespace; elsewhere the services get their parent-death signal.
pub fn install(termination_log: &'static Path) {
    TERMINATION_LOG.set(termination_log).ok();
    fault::install(|place| report_and_exit(&format!("instruction {place:#x}")));
    allocator::set_on_refused(report_lack_of_memory);
    std::panic::set_hook(Box::new(report_panic));
}

fn report_panic(panic: &PanicHookInfo<'_>) {
    let what = panic.payload_as_str().unwrap_or("no reason given");
    let place = panic.location().map(|place| format!(" at {}:{}", place.file(), place.line())).unwrap_or_default();
    report_and_exit(&format!("{what}{place}"))
}

fn report_and_exit(what: &str) -> ! {
    let version = env!("CARGO_PKG_VERSION");
    let reason = format!("this is a bug in keepalive {version}, please report it: {what}");
    // A termination log that cannot be written does not matter: the same text goes to stderr.
    TERMINATION_LOG.get().map(|path| termination_log::write(path, &format!("{reason}\n")));
    StandardError.write_final_line(format!("keepalive: error: {reason}").as_bytes());
    process::exit_now(EXIT_SOFTWARE)
}

/// The line and the termination log may need some memory: that is refused here again, or found in what has been freed.
fn report_lack_of_memory() -> ! {
    static IS_BEGUN: AtomicBool = AtomicBool::new(false);
    static IS_WRITTEN: AtomicBool = AtomicBool::new(false);
    if IS_BEGUN.swap(true, Ordering::Relaxed) {
        if !IS_WRITTEN.load(Ordering::Relaxed) {
            StandardError.write_without_memory(NO_MEMORY.as_bytes());
        }
    } else {
        StandardError.write_final_line(NO_MEMORY.as_bytes());
        IS_WRITTEN.store(true, Ordering::Relaxed);
        TERMINATION_LOG.get().map(|path| termination_log::write(path, NO_MEMORY));
    }
    process::exit_now(OS_ERROR)
}

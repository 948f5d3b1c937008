//! Descriptions of signals, strsignal(3).

use crate::model::Signal;

/// The descriptions of signals 1 to 31; the position is the number − 1.
const DESCRIPTIONS: [&str; 31] = [
    "Hangup",
    "Interrupt",
    "Quit",
    "Illegal instruction",
    "Trace/breakpoint trap",
    "Aborted",
    "Bus error",
    "Floating point exception",
    "Killed",
    "User defined signal 1",
    "Segmentation fault",
    "User defined signal 2",
    "Broken pipe",
    "Alarm clock",
    "Terminated",
    "Stack fault",
    "Child exited",
    "Continued",
    "Stopped (signal)",
    "Stopped",
    "Stopped (tty input)",
    "Stopped (tty output)",
    "Urgent I/O condition",
    "CPU time limit exceeded",
    "File size limit exceeded",
    "Virtual timer expired",
    "Profiling timer expired",
    "Window changed",
    "I/O possible",
    "Power failure",
    "Bad system call",
];

/// The description that strsignal(3) of glibc returns.
pub(super) fn strsignal(signal: Signal) -> String {
    let number = signal.number();
    match DESCRIPTIONS.get(usize::from(number) - 1) {
        Some(text) => (*text).to_owned(),
        None if number >= 34 => format!("Real-time signal {}", number - 34),
        None => format!("Unknown signal {number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_are_those_of_glibc() {
        assert_eq!(strsignal(Signal::HUP), "Hangup");
        assert_eq!(strsignal(Signal::USR1), "User defined signal 1");
        assert_eq!(Signal::new(31).map(strsignal).as_deref(), Some("Bad system call"));
        assert_eq!(Signal::new(33).map(strsignal).as_deref(), Some("Unknown signal 33"));
        assert_eq!(Signal::new(37).map(strsignal).as_deref(), Some("Real-time signal 3"));
    }
}

//! The decisions of init mode: which signal to forward, when the grace period expires, which exit code to report. Pure.

use std::time::Duration;

use super::options::Options;
use crate::model::{ExitStatus, Mono, Signal};
use crate::sys::signals::{Origin, Received};

/// The foreground process group of the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TerminalOwner {
    /// The child's group, to which the terminal sends signals that are typed.
    Child,
    /// Another group, or there is no terminal.
    Other,
}

/// The signal to send to the child for a signal that was received; `None`: no signal.
///
/// `terminal_owner` is called only if the result depends on it.
#[must_use]
pub fn route(options: &Options, received: Received, terminal_owner: impl FnOnce() -> TerminalOwner) -> Option<Signal> {
    let Received { signal, origin } = received;
    if signal == Signal::CHLD {
        return None;
    }
    if origin == Origin::Kernel && goes_to_foreground_group(signal) && terminal_owner() == TerminalOwner::Child {
        return None;
    }
    rewritten(options, signal)
}

/// The signal to send instead of `signal`; `None`: no signal.
#[must_use]
pub fn rewritten(options: &Options, signal: Signal) -> Option<Signal> {
    let rewrite = options.rewrite.iter().rev().find(|(from, _)| *from == signal);
    rewrite.map_or(Some(signal), |(_, to)| *to)
}

/// Whether a terminal sends `signal` to its whole foreground group. (SIGHUP and the SIGCONT after it go to the session
/// leader.)
fn goes_to_foreground_group(signal: Signal) -> bool {
    [Signal::INT, Signal::QUIT, Signal::TSTP, Signal::TTIN, Signal::TTOU, Signal::WINCH].contains(&signal)
}

/// Whether `signal` asks a program to terminate: SIGTERM, SIGINT, SIGQUIT.
#[must_use]
pub fn is_termination_signal(signal: Signal) -> bool {
    [Signal::TERM, Signal::INT, Signal::QUIT].contains(&signal)
}

/// Whether a termination signal from `origin` takes precedence over a stop of the child that keepalive sees only later, so
/// that the child is continued.
///
/// A stop that is seen later may have happened earlier: SIGTERM is received before SIGCHLD, and the child may have stopped
/// before it handled the signal. Signals from the terminal do not take precedence: a user who types Ctrl-C and then Ctrl-Z
/// wants to stop a program that ignored Ctrl-C.
#[must_use]
pub fn overrides_later_stop(origin: Origin) -> bool {
    match origin {
        Origin::Process(_) => true,
        Origin::Kernel | Origin::Child(_) => false,
    }
}

/// Whether `signal` suspends a program that does not handle it: SIGTSTP, SIGTTIN, SIGTTOU.
#[must_use]
pub fn is_suspend_signal(signal: Signal) -> bool {
    [Signal::TSTP, Signal::TTIN, Signal::TTOU].contains(&signal)
}

/// The exit code to report for the child's exit status.
#[must_use]
pub fn exit_code(options: &Options, status: ExitStatus) -> u8 {
    let code = status.code();
    if options.remap_exit.contains(ExitStatus::Code(code)) { 0 } else { code }
}

/// The grace period of `--grace`: the time between the first termination signal and SIGKILL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GracePeriod {
    /// Without `--grace`.
    Unlimited,
    /// No termination signal has been sent yet.
    NotStarted(Duration),
    /// Ends at this time.
    Running(Mono),
    /// Has ended.
    Expired,
}

impl GracePeriod {
    /// A grace period that has not started.
    #[must_use]
    pub fn new(limit: Option<Duration>) -> Self {
        limit.map_or(Self::Unlimited, Self::NotStarted)
    }

    /// Starts the grace period. Only the first call has an effect.
    pub fn start(&mut self, now: impl FnOnce() -> Mono) {
        if let Self::NotStarted(limit) = *self {
            *self = Self::Running(now() + limit);
        }
    }

    /// When it ends; `None` if it is not running.
    #[must_use]
    pub const fn deadline(self) -> Option<Mono> {
        match self {
            Self::Running(deadline) => Some(deadline),
            Self::Unlimited | Self::NotStarted(_) | Self::Expired => None,
        }
    }

    /// Whether it has ended by `now`. Returns true only once.
    pub fn take_expired(&mut self, now: Mono) -> bool {
        let expired = self.deadline().is_some_and(|deadline| deadline <= now);
        if expired {
            *self = Self::Expired;
        }
        expired
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Pid;

    const KERNEL: Origin = Origin::Kernel;
    const ENGINE: Origin = Origin::Process(None);

    fn options(rewrite: &[(Signal, Option<Signal>)]) -> Options {
        Options { rewrite: rewrite.to_vec(), ..Options::default() }
    }

    #[test]
    fn every_signal_except_sigchld_is_forwarded_unchanged() {
        for signal in Signal::all() {
            let expect = (signal != Signal::CHLD).then_some(signal);
            for origin in [ENGINE, Origin::Process(Pid::new(9))] {
                let received = Received { signal, origin };
                assert_eq!(route(&options(&[]), received, || unreachable!("no matter")), expect);
            }
        }
    }

    #[test]
    fn the_last_rewrite_of_a_signal_applies_and_is_not_rewritten_again() {
        let to_quit = (Signal::TERM, Some(Signal::QUIT));
        let options = options(&[(Signal::TERM, None), to_quit, (Signal::QUIT, Some(Signal::HUP)), (Signal::INT, None)]);
        let routed = |signal| route(&options, Received { signal, origin: ENGINE }, || TerminalOwner::Other);
        assert_eq!(routed(Signal::TERM), Some(Signal::QUIT));
        assert_eq!(routed(Signal::QUIT), Some(Signal::HUP));
        assert_eq!(routed(Signal::INT), None);
        assert_eq!(routed(Signal::HUP), Some(Signal::HUP));
    }

    #[test]
    fn a_signal_that_the_terminal_sends_to_the_child_is_not_forwarded() {
        for (signal, twice) in [(Signal::INT, true), (Signal::WINCH, true), (Signal::HUP, false), (Signal::TERM, false)]
        {
            let typed = Received { signal, origin: KERNEL };
            let to_the_child = route(&options(&[]), typed, || TerminalOwner::Child);
            assert_eq!(to_the_child, (!twice).then_some(signal), "{signal}");
            assert_eq!(route(&options(&[]), typed, || TerminalOwner::Other), Some(signal), "{signal}");
        }
    }

    #[test]
    fn a_termination_signal_overrides_a_later_stop_unless_it_was_typed() {
        assert!(overrides_later_stop(ENGINE));
        assert!(overrides_later_stop(Origin::Process(Pid::new(9))));
        assert!(!overrides_later_stop(KERNEL));
    }

    #[test]
    fn exit_codes_are_remapped_after_128_is_added_for_signals() {
        let options = Options { remap_exit: [ExitStatus::Code(143)].into_iter().collect(), ..Options::default() };
        assert_eq!(exit_code(&options, ExitStatus::Signal(Signal::TERM)), 0);
        assert_eq!(exit_code(&options, ExitStatus::Code(143)), 0);
        assert_eq!(exit_code(&options, ExitStatus::Code(15)), 15);
        assert_eq!(exit_code(&options, ExitStatus::Signal(Signal::KILL)), 137);
    }

    #[test]
    fn the_first_termination_signal_starts_the_grace_period() {
        let at = |seconds: u64| Mono::from_nanos(seconds * 1_000_000_000);
        let mut grace_period = GracePeriod::new(Some(Duration::from_secs(5)));
        assert!(!grace_period.take_expired(at(100)));
        grace_period.start(|| at(1));
        grace_period.start(|| at(3));
        assert_eq!(grace_period.deadline(), Some(at(6)));
        assert!(!grace_period.take_expired(at(5)));
        assert!(grace_period.take_expired(at(6)));
        assert!(!grace_period.take_expired(at(7)), "true only once");
        grace_period.start(|| at(8));
        assert_eq!(grace_period.deadline(), None);
    }

    #[test]
    fn an_unlimited_grace_period_never_starts() {
        let mut grace_period = GracePeriod::new(None);
        grace_period.start(|| unreachable!("the time is not needed"));
        assert_eq!(grace_period.deadline(), None);
    }
}

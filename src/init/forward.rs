//! Which signal goes on, as what; when the child's time is over; which exit code is reported. Pure.

use std::time::Duration;

use super::Options;
use crate::model::{ExitStatus, Mono, Signal};
use crate::sys::signals::{Origin, Received};

/// Whose the terminal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Terminal {
    /// The child's group is its foreground group, so that the child has been told of what was typed.
    Childs,
    /// Another group is, or there is none.
    NotChilds,
}

/// What is to be sent to the child for a signal that was received; `None`: nothing.
///
/// `terminal` is asked only if it matters.
#[must_use]
pub fn route(options: &Options, received: Received, terminal: impl FnOnce() -> Terminal) -> Option<Signal> {
    let Received { signal, origin } = received;
    if signal == Signal::CHLD {
        return None;
    }
    if origin == Origin::Kernel && goes_to_foreground_group(signal) && terminal() == Terminal::Childs {
        return None;
    }
    rewritten(options, signal)
}

/// What is sent in place of `signal`; `None`: nothing.
#[must_use]
pub fn rewritten(options: &Options, signal: Signal) -> Option<Signal> {
    let rewrite = options.rewrite.iter().rev().find(|(from, _)| *from == signal);
    rewrite.map_or(Some(signal), |(_, to)| *to)
}

/// What a terminal sends to its whole foreground group. (SIGHUP and the SIGCONT after it go to the session's leader.)
fn goes_to_foreground_group(signal: Signal) -> bool {
    [Signal::INT, Signal::QUIT, Signal::TSTP, Signal::TTIN, Signal::TTOU, Signal::WINCH].contains(&signal)
}

/// Whether `signal` asks a program to end: SIGTERM, SIGINT, SIGQUIT.
#[must_use]
pub fn asks_to_end(signal: Signal) -> bool {
    [Signal::TERM, Signal::INT, Signal::QUIT].contains(&signal)
}

/// Whether a request to end from there is heard by a child that is found stopped only after it was sent.
///
/// The stop may have come before it (SIGTERM is taken before the SIGCHLD that tells of a stop) or before the child has
/// taken it. Ctrl-C and Ctrl-Z are typed one after the other by one person, who means the second: a program that goes
/// on after Ctrl-C can still be stopped.
#[must_use]
pub fn outlasts_a_stop(origin: Origin) -> bool {
    match origin {
        Origin::Process(_) => true,
        Origin::Kernel | Origin::Child(_) => false,
    }
}

/// Whether `signal` stops who does not care: SIGTSTP, SIGTTIN, SIGTTOU.
#[must_use]
pub fn asks_to_stop(signal: Signal) -> bool {
    [Signal::TSTP, Signal::TTIN, Signal::TTOU].contains(&signal)
}

/// The exit code that is reported for how the child has ended.
#[must_use]
pub fn exit_code(options: &Options, status: ExitStatus) -> u8 {
    let code = status.code();
    if options.remap_exit.contains(ExitStatus::Code(code)) { 0 } else { code }
}

/// `--grace`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grace {
    /// There is no limit.
    Unlimited,
    /// The child has not been asked to end.
    NotAsked(Duration),
    /// It has, and is killed then.
    Asked(Mono),
    /// It has been killed.
    Over,
}

impl Grace {
    /// For a child that has not been asked to end.
    #[must_use]
    pub fn new(limit: Option<Duration>) -> Self {
        limit.map_or(Self::Unlimited, Self::NotAsked)
    }

    /// The child is asked to end. Only the first time counts.
    pub fn start(&mut self, now: impl FnOnce() -> Mono) {
        if let Self::NotAsked(limit) = *self {
            *self = Self::Asked(now() + limit);
        }
    }

    /// When it will be over.
    #[must_use]
    pub const fn due(self) -> Option<Mono> {
        match self {
            Self::Asked(due) => Some(due),
            Self::Unlimited | Self::NotAsked(_) | Self::Over => None,
        }
    }

    /// Whether it is over at `now`. True once.
    pub fn is_over(&mut self, now: Mono) -> bool {
        let over = self.due().is_some_and(|due| due <= now);
        if over {
            *self = Self::Over;
        }
        over
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
    fn every_signal_but_sigchld_goes_on_as_it_is() {
        for signal in Signal::all() {
            let expect = (signal != Signal::CHLD).then_some(signal);
            for origin in [ENGINE, Origin::Process(Pid::new(9))] {
                let received = Received { signal, origin };
                assert_eq!(route(&options(&[]), received, || unreachable!("no matter")), expect);
            }
        }
    }

    #[test]
    fn the_last_rewrite_counts_and_is_not_rewritten_again() {
        let to_quit = (Signal::TERM, Some(Signal::QUIT));
        let options = options(&[(Signal::TERM, None), to_quit, (Signal::QUIT, Some(Signal::HUP)), (Signal::INT, None)]);
        let routed = |signal| route(&options, Received { signal, origin: ENGINE }, || Terminal::NotChilds);
        assert_eq!(routed(Signal::TERM), Some(Signal::QUIT));
        assert_eq!(routed(Signal::QUIT), Some(Signal::HUP));
        assert_eq!(routed(Signal::INT), None);
        assert_eq!(routed(Signal::HUP), Some(Signal::HUP));
    }

    #[test]
    fn what_was_typed_is_not_told_twice() {
        for (signal, twice) in [(Signal::INT, true), (Signal::WINCH, true), (Signal::HUP, false), (Signal::TERM, false)]
        {
            let typed = Received { signal, origin: KERNEL };
            let to_the_child = route(&options(&[]), typed, || Terminal::Childs);
            assert_eq!(to_the_child, (!twice).then_some(signal), "{signal}");
            assert_eq!(route(&options(&[]), typed, || Terminal::NotChilds), Some(signal), "{signal}");
        }
    }

    #[test]
    fn a_request_to_end_outlasts_a_stop_unless_it_was_typed() {
        assert!(outlasts_a_stop(ENGINE));
        assert!(outlasts_a_stop(Origin::Process(Pid::new(9))));
        assert!(!outlasts_a_stop(KERNEL));
    }

    #[test]
    fn a_code_is_remapped_after_128_was_added() {
        let options = Options { remap_exit: [ExitStatus::Code(143)].into_iter().collect(), ..Options::default() };
        assert_eq!(exit_code(&options, ExitStatus::Signal(Signal::TERM)), 0);
        assert_eq!(exit_code(&options, ExitStatus::Code(143)), 0);
        assert_eq!(exit_code(&options, ExitStatus::Code(15)), 15);
        assert_eq!(exit_code(&options, ExitStatus::Signal(Signal::KILL)), 137);
    }

    #[test]
    fn the_first_request_to_end_starts_the_grace() {
        let at = |seconds: u64| Mono::from_nanos(seconds * 1_000_000_000);
        let mut grace = Grace::new(Some(Duration::from_secs(5)));
        assert!(!grace.is_over(at(100)));
        grace.start(|| at(1));
        grace.start(|| at(3));
        assert_eq!(grace.due(), Some(at(6)));
        assert!(!grace.is_over(at(5)));
        assert!(grace.is_over(at(6)));
        assert!(!grace.is_over(at(7)), "true once");
        grace.start(|| at(8));
        assert_eq!(grace.due(), None);
    }

    #[test]
    fn without_a_limit_nothing_is_ever_due() {
        let mut grace = Grace::new(None);
        grace.start(|| unreachable!("the time is of no interest"));
        assert_eq!(grace.due(), None);
    }
}

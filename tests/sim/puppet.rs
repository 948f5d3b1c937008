//! The random behaviour of a simulated process, chosen when it is created.

use std::time::Duration;

use keepalive::model::plan::Kind;
use keepalive::model::{ExitStatus, Signal, StartFailure, StartStep};
use nix::errno::Errno;

use crate::chance::Chance;

/// The typical behaviour of the processes of one service.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Profile {
    /// Lives for hours.
    Solid,
    /// Crashes soon.
    Crasher,
    /// One of the others at random, for each process.
    Flaky,
    /// Succeeds after some time.
    Finisher,
    /// Exits with success at once and leaves a daemon.
    Daemoniser,
    /// Cannot be started: no such program.
    Missing,
}

/// The lifetime of a process and its reactions to signals.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habits {
    /// `None`: it lives until a signal ends it.
    pub(crate) life: Option<(Duration, ExitStatus)>,
    /// The time from its start to its ready report, or from the start of its probe to the success. `None`: never.
    pub(crate) ready_after: Option<Duration>,
    /// The reaction to a stop signal. `None`: it ignores the signal.
    pub(crate) on_stop: Option<(Duration, StopExit)>,
    /// The time that it survives SIGKILL. `None`: it hangs in the kernel forever.
    pub(crate) on_kill: Option<Duration>,
    /// Whether a signal like SIGUSR1 kills it.
    pub(crate) fragile: bool,
    /// Whether it stops itself (SIGSTOP) and handles no signal before SIGCONT.
    pub(crate) stopped: bool,
}

/// The exit status of a process that obeys its stop signal.
#[derive(Clone, Copy, Debug)]
pub(crate) enum StopExit {
    BySignal,
    With(ExitStatus),
}

/// What happens between fork and exec.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Exec {
    Succeeds,
    Fails(StartFailure),
    /// The file system does not answer.
    Hangs,
}

/// The frequency of failures, which differs between seeds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FaultRates {
    /// Percent of processes that outlast SIGKILL for a while.
    pub(crate) unkillable: u64,
    /// Percent of starts that fail before exec.
    pub(crate) exec_failures: u64,
    /// Percent of starts that fail because a socket cannot be bound.
    pub(crate) bind_failures: u64,
    /// Percent of processes that leave others in their group.
    pub(crate) leftovers: u64,
    /// Percent of processes that leave a daemon outside their group.
    pub(crate) daemons: u64,
    /// Percent of processes that ignore their stop signal.
    pub(crate) ignoring_stop: u64,
}

impl FaultRates {
    pub(crate) fn random(chance: &mut Chance) -> Self {
        Self {
            unkillable: chance.pick(&[0, 0, 5, 30]),
            exec_failures: chance.pick(&[0, 0, 3, 25]),
            bind_failures: chance.pick(&[0, 0, 0, 5]),
            leftovers: chance.pick(&[0, 10, 40]),
            daemons: chance.pick(&[0, 10, 40]),
            ignoring_stop: chance.pick(&[0, 10, 40]),
        }
    }
}

pub(crate) fn profile(chance: &mut Chance, kind: Kind) -> Profile {
    use Profile::{Crasher, Daemoniser, Finisher, Flaky, Missing, Solid};
    if kind == Kind::Oneshot {
        chance.pick(&[Finisher, Finisher, Finisher, Flaky, Crasher, Daemoniser, Missing, Solid])
    } else {
        chance.pick(&[Solid, Solid, Solid, Flaky, Flaky, Crasher, Finisher, Daemoniser, Missing])
    }
}

pub(crate) fn hook_profile(chance: &mut Chance) -> Profile {
    use Profile::{Crasher, Daemoniser, Finisher, Missing, Solid};
    chance.pick(&[Daemoniser, Daemoniser, Daemoniser, Daemoniser, Finisher, Finisher, Crasher, Crasher, Solid, Missing])
}

pub(crate) fn exec(chance: &mut Chance, profile: Profile, fault_rates: FaultRates) -> Exec {
    if matches!(profile, Profile::Missing) {
        return Exec::Fails(StartFailure { step: StartStep::Exec, errno: Errno::ENOENT });
    }
    if !chance.percent(fault_rates.exec_failures) {
        return Exec::Succeeds;
    }
    if chance.one_in(8) {
        return Exec::Hangs;
    }
    let step = chance.pick(&[
        StartStep::Session,
        StartStep::Stdio,
        StartStep::Limit(2),
        StartStep::Nice,
        StartStep::OomScoreAdj,
        StartStep::Groups,
        StartStep::Group,
        StartStep::User,
        StartStep::Directory,
        StartStep::NoNewPrivs,
        StartStep::Exec,
    ]);
    let errno = chance.pick(&[Errno::ENOENT, Errno::EACCES, Errno::EPERM, Errno::EAGAIN, Errno::ENOMEM, Errno::EMFILE]);
    Exec::Fails(StartFailure { step, errno })
}

pub(crate) fn habits(chance: &mut Chance, profile: Profile, fault_rates: FaultRates) -> Habits {
    let profile = match profile {
        Profile::Flaky => chance.pick(&[Profile::Solid, Profile::Crasher, Profile::Crasher, Profile::Finisher]),
        Profile::Solid | Profile::Crasher | Profile::Finisher | Profile::Daemoniser | Profile::Missing => profile,
    };
    let life = match profile {
        Profile::Solid => Some((chance.up_to(Duration::from_secs(20_000)), crash(chance))),
        Profile::Crasher => Some((chance.up_to(Duration::from_secs(3)), crash(chance))),
        Profile::Finisher | Profile::Flaky => Some((chance.up_to(Duration::from_secs(30)), ExitStatus::Code(0))),
        Profile::Daemoniser | Profile::Missing => Some((chance.millis(0, 50), ExitStatus::Code(0))),
    };
    let mut habits = member(chance, fault_rates);
    habits.life = life.filter(|_| !chance.one_in(15));
    habits
}

/// The habits of a process that a main process has started.
pub(crate) fn member(chance: &mut Chance, fault_rates: FaultRates) -> Habits {
    let on_stop = (!chance.percent(fault_rates.ignoring_stop)).then(|| {
        let how = match chance.below(6) {
            0 => StopExit::With(ExitStatus::Code(0)),
            1 => StopExit::With(crash(chance)),
            _ => StopExit::BySignal,
        };
        (if chance.one_in(3) { Duration::ZERO } else { chance.up_to(Duration::from_secs(4)) }, how)
    });
    let on_kill = if chance.percent(fault_rates.unkillable) {
        (!chance.one_in(3)).then(|| chance.millis(0, 100_000))
    } else {
        Some(if chance.one_in(2) { Duration::ZERO } else { chance.millis(0, 20) })
    };
    Habits {
        life: chance.one_in(2).then(|| (chance.up_to(Duration::from_secs(600)), ExitStatus::Code(0))),
        ready_after: (!chance.one_in(5)).then(|| chance.millis(0, 3_000)),
        on_stop,
        on_kill,
        fragile: chance.one_in(4),
        stopped: chance.one_in(12),
    }
}

fn crash(chance: &mut Chance) -> ExitStatus {
    const SEGV: Signal = Signal::new(11).unwrap();
    chance.pick(&[
        ExitStatus::Code(1),
        ExitStatus::Code(1),
        ExitStatus::Code(0),
        ExitStatus::Code(3),
        ExitStatus::Code(125),
        ExitStatus::Code(255),
        ExitStatus::Signal(SEGV),
        ExitStatus::Signal(Signal::KILL),
        ExitStatus::Signal(Signal::TERM),
    ])
}

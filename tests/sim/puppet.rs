//! What a simulated process is going to do: its whole character, drawn when it is made.

use std::time::Duration;

use keepalive::model::plan::Kind;
use keepalive::model::{ExitStatus, Signal, StartFailure, StartStep};
use nix::errno::Errno;

use crate::chance::Chance;

/// How the processes of one service tend to be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Character {
    /// Lives for hours.
    Solid,
    /// Crashes soon.
    Crasher,
    /// Anything.
    Flaky,
    /// Does its work and succeeds.
    Finisher,
    /// Exits with success at once and leaves a daemon.
    Liar,
    /// Cannot be started: no such program.
    Missing,
}

/// How a process takes signals, and how long it lives if it gets none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habits {
    /// `None`: until something kills it.
    pub(crate) life: Option<(Duration, ExitStatus)>,
    /// How long after its start it says that it is ready, or after the start of its probe that passes. `None`: never.
    pub(crate) readies: Option<Duration>,
    /// After a signal that asks it to end. `None`: ignores it.
    pub(crate) on_stop: Option<(Duration, Stops)>,
    /// After SIGKILL. `None`: it hangs in the kernel for ever.
    pub(crate) on_kill: Option<Duration>,
    /// Whether a signal like SIGUSR1 kills it.
    pub(crate) fragile: bool,
    /// Whether it stops itself (SIGSTOP) and hears nothing before SIGCONT.
    pub(crate) stopped: bool,
}

/// What a process that heeds its stop signal ends with.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stops {
    OfTheSignal,
    With(ExitStatus),
}

/// What happens between fork and exec.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Exec {
    Succeeds,
    Fails(StartFailure),
    /// On a file system that does not answer.
    Hangs,
}

/// The parts that differ from seed to seed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Temper {
    /// Percent of processes that outlast SIGKILL for a while.
    pub(crate) unkillable: u64,
    /// Percent of starts that fail before exec.
    pub(crate) exec_failures: u64,
    /// Percent of starts that fail since a socket cannot be bound.
    pub(crate) bind_failures: u64,
    /// Percent of processes that leave others in their group.
    pub(crate) leavers: u64,
    /// Percent of processes that leave a daemon outside their group.
    pub(crate) daemons: u64,
    /// Percent of processes that ignore their stop signal.
    pub(crate) deaf: u64,
}

impl Temper {
    pub(crate) fn random(chance: &mut Chance) -> Self {
        Self {
            unkillable: chance.pick(&[0, 0, 5, 30]),
            exec_failures: chance.pick(&[0, 0, 3, 25]),
            bind_failures: chance.pick(&[0, 0, 0, 5]),
            leavers: chance.pick(&[0, 10, 40]),
            daemons: chance.pick(&[0, 10, 40]),
            deaf: chance.pick(&[0, 10, 40]),
        }
    }
}

pub(crate) fn character(chance: &mut Chance, kind: Kind) -> Character {
    use Character::{Crasher, Finisher, Flaky, Liar, Missing, Solid};
    if kind == Kind::Oneshot {
        chance.pick(&[Finisher, Finisher, Finisher, Flaky, Crasher, Liar, Missing, Solid])
    } else {
        chance.pick(&[Solid, Solid, Solid, Flaky, Flaky, Crasher, Finisher, Liar, Missing])
    }
}

pub(crate) fn exec(chance: &mut Chance, character: Character, temper: Temper) -> Exec {
    if matches!(character, Character::Missing) {
        return Exec::Fails(StartFailure { step: StartStep::Exec, errno: Errno::ENOENT });
    }
    if !chance.percent(temper.exec_failures) {
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

pub(crate) fn habits(chance: &mut Chance, character: Character, temper: Temper) -> Habits {
    let character = match character {
        Character::Flaky => {
            chance.pick(&[Character::Solid, Character::Crasher, Character::Crasher, Character::Finisher])
        }
        Character::Solid | Character::Crasher | Character::Finisher | Character::Liar | Character::Missing => character,
    };
    let life = match character {
        Character::Solid => Some((chance.up_to(Duration::from_secs(20_000)), crash(chance))),
        Character::Crasher => Some((chance.up_to(Duration::from_secs(3)), crash(chance))),
        Character::Finisher | Character::Flaky => Some((chance.up_to(Duration::from_secs(30)), ExitStatus::Code(0))),
        Character::Liar | Character::Missing => Some((chance.millis(0, 50), ExitStatus::Code(0))),
    };
    let mut habits = member(chance, temper);
    habits.life = life.filter(|_| !chance.one_in(15));
    habits
}

/// The habits of what a main process has started itself.
pub(crate) fn member(chance: &mut Chance, temper: Temper) -> Habits {
    let on_stop = (!chance.percent(temper.deaf)).then(|| {
        let how = match chance.below(6) {
            0 => Stops::With(ExitStatus::Code(0)),
            1 => Stops::With(crash(chance)),
            _ => Stops::OfTheSignal,
        };
        (if chance.one_in(3) { Duration::ZERO } else { chance.up_to(Duration::from_secs(4)) }, how)
    });
    let on_kill = if chance.percent(temper.unkillable) {
        (!chance.one_in(3)).then(|| chance.millis(0, 100_000))
    } else {
        Some(if chance.one_in(2) { Duration::ZERO } else { chance.millis(0, 20) })
    };
    Habits {
        life: chance.one_in(2).then(|| (chance.up_to(Duration::from_secs(600)), ExitStatus::Code(0))),
        readies: (!chance.one_in(5)).then(|| chance.millis(0, 3_000)),
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

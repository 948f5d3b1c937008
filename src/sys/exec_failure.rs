//! Why a child could not execute its program, packed into eight bytes: the child may not allocate.

use nix::errno::Errno;

use super::exec_step as step;
use crate::model::{StartFailure, StartStep};

/// Packs a failure. The result is never 0, so that 0 can mean "no failure".
pub(super) const fn encode(step: u8, detail: u8, errno: i32) -> u64 {
    (step as u64 + 1) << 40 | (detail as u64) << 32 | errno.unsigned_abs() as u64
}

pub(super) fn decode(failure: u64) -> StartFailure {
    let [_, _, step, detail, errno @ ..] = failure.to_be_bytes();
    let step = match step.wrapping_sub(1) {
        step::SESSION => StartStep::Session,
        step::STDIO => StartStep::Stdio,
        step::OOM_SCORE_ADJ => StartStep::OomScoreAdj,
        step::LIMIT => StartStep::Limit(detail),
        step::NICE => StartStep::Nice,
        step::GROUPS => StartStep::Groups,
        step::GROUP => StartStep::Group,
        step::USER => StartStep::User,
        step::DIRECTORY => StartStep::Directory,
        step::NO_NEW_PRIVS => StartStep::NoNewPrivs,
        step::DESCRIPTORS => StartStep::Descriptors,
        step::STATE => StartStep::State,
        step::STORED => StartStep::Stored,
        _ => StartStep::Exec,
    };
    StartFailure { step, errno: Errno::from_raw(i32::from_be_bytes(errno)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_survives_packing_and_is_never_zero() {
        let failure = encode(step::LIMIT, 7, Errno::EPERM as i32);
        assert_eq!(decode(failure), StartFailure { step: StartStep::Limit(7), errno: Errno::EPERM });
        assert_ne!(encode(step::SESSION, 0, 0), 0);
    }
}

//! Why a child could not execute its program, packed into numbers: the child may not allocate.

use nix::errno::Errno;

use super::exec_step as step;
use crate::model::{EnvFileError, EnvLineError, ProgramName, StartFailure, StartStep};

/// What a child writes to its pipe: a packed failure, and the name for the steps `INTERPRETER` and `ARCHITECTURE`.
pub(super) const RECORD_SIZE: usize = size_of::<u64>() + ProgramName::SIZE;

/// Packs a failure. The result is never 0, so that 0 can mean "no failure".
pub(super) const fn encode(step: u8, detail: u8, errno: i32) -> u64 {
    (step as u64 + 1) << 40 | (detail as u64) << 32 | errno.unsigned_abs() as u64
}

/// Packs the failure of the `env_file` at position `file`.
pub(super) fn encode_env(file: u8, error: EnvFileError) -> u64 {
    match error {
        EnvFileError::Read(errno) => encode(step::ENV_FILE, file, errno as i32),
        EnvFileError::Line(line, error) => encode(step::ENV_LINE, file, line.cast_signed()) | (error as u64) << 48,
    }
}

/// `name`: the name for the steps `INTERPRETER` and `ARCHITECTURE`.
pub(super) fn decode(failure: u64, name: &[u8]) -> StartFailure {
    let [_, line_error, step, detail, number @ ..] = failure.to_be_bytes();
    let errno = Errno::from_raw(i32::from_be_bytes(number));
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
        step::INTERPRETER => StartStep::Interpreter(ProgramName::new(name)),
        step::ARCHITECTURE => StartStep::Architecture(ProgramName::new(name)),
        step::ENV_FILE => StartStep::EnvFile(detail),
        step::ENV_LINE => {
            let error = EnvLineError::from_number(line_error).unwrap_or(EnvLineError::NotAnAssignment);
            let step = StartStep::EnvLine(detail, u32::from_be_bytes(number), error);
            return StartFailure { step, errno: Errno::EINVAL };
        }
        _ => StartStep::Exec,
    };
    StartFailure { step, errno }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_survives_packing_and_is_never_zero() {
        let failure = encode(step::LIMIT, 7, Errno::EPERM as i32);
        assert_eq!(decode(failure, b""), StartFailure { step: StartStep::Limit(7), errno: Errno::EPERM });
        assert_ne!(encode(step::SESSION, 0, 0), 0);
    }

    #[test]
    fn a_failure_of_an_env_file_survives_packing() {
        let unreadable = decode(encode_env(3, EnvFileError::Read(Errno::EACCES)), b"");
        assert_eq!(unreadable, StartFailure { step: StartStep::EnvFile(3), errno: Errno::EACCES });
        let wrong = decode(encode_env(1, EnvFileError::Line(70_000, EnvLineError::OpenQuote)), b"");
        let step = StartStep::EnvLine(1, 70_000, EnvLineError::OpenQuote);
        assert_eq!(wrong, StartFailure { step, errno: Errno::EINVAL });
    }
}

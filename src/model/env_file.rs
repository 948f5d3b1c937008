//! What can be wrong with an `env_file`.

use nix::errno::Errno;

/// An error in a line of an `env_file`. Its words contain no part of the line, which may be a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnvLineError {
    /// The line does not start with a name.
    NotAnAssignment,
    /// A variable that keepalive sets.
    Reserved,
    /// Neither `=` nor the end of the line after the name.
    NoEqualsSign,
    /// A NUL byte in the value.
    NulByte,
    /// No closing quote up to the end of the file.
    OpenQuote,
    /// More than a comment after the closing quote.
    TextAfterQuote,
    /// A `${` that does not start `${VAR}` or `${VAR:-default}`.
    Substitution,
    /// `${VAR}`, and the variable is not set.
    UnsetVariable,
    /// The value is too long for the kernel.
    ValueTooLong,
    /// All values together are too long for the kernel.
    FileTooLarge,
}

impl EnvLineError {
    const ALL: [Self; 10] = [
        Self::NotAnAssignment,
        Self::Reserved,
        Self::NoEqualsSign,
        Self::NulByte,
        Self::OpenQuote,
        Self::TextAfterQuote,
        Self::Substitution,
        Self::UnsetVariable,
        Self::ValueTooLong,
        Self::FileTooLarge,
    ];

    /// The inverse of `as u8`.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// What is wrong, and how to correct it; the latter may be empty.
    #[must_use]
    pub const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::NotAnAssignment => ("expected `NAME=value`", "comments start with `#`"),
            Self::Reserved => ("the variable is reserved for keepalive", "remove it"),
            Self::NoEqualsSign => ("expected `=` after the name", ""),
            Self::NulByte => ("the value contains a NUL byte", ""),
            Self::OpenQuote => ("missing closing quote", ""),
            Self::TextAfterQuote => ("text after the closing quote", "put the whole value inside the quotes"),
            Self::Substitution => {
                ("`${` that does not start `${VAR}` or `${VAR:-default}`", "write `$$` for a literal `$`")
            }
            Self::UnsetVariable => {
                ("the variable of a `${…}` is not set", "set it, add a default, or write `$$` for a literal `$`")
            }
            Self::ValueTooLong => ("longer than 128 KiB, the limit for one variable", "pass it in a file"),
            Self::FileTooLarge => ("the variables up to here are larger than 6 MiB", "the kernel does not accept more"),
        }
    }
}

/// Why the variables of an `env_file` are not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnvFileError {
    /// The file cannot be read.
    Read(Errno),
    /// A line of it, from 1, is wrong.
    Line(u32, EnvLineError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_has_a_number() {
        for error in EnvLineError::ALL {
            assert_eq!(EnvLineError::from_number(error as u8), Some(error));
        }
        assert_eq!(EnvLineError::from_number(10), None);
    }
}

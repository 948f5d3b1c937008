//! Text that may differ between the instances of a service.

use std::ffi::{CStr, CString};

use serde::{Serialize, Serializer};

/// A word of a command line, a `NAME=value` of the environment or a path, which may contain `{instance}`.
///
/// `{service}` and `${VAR}` were expanded when the configuration was read. A template holds bytes, because environment
/// variables need not be UTF-8. It never contains a NUL byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Template {
    /// The same for every instance.
    Fixed(CString),
    /// The pieces before, between and after the instance's numbers: `a{instance}b` is `["a", "b"]`. At least two pieces.
    Numbered(Box<[CString]>),
}

impl std::fmt::Display for Template {
    /// As it was written: with `{instance}`.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed(text) => formatter.write_str(&text.to_string_lossy()),
            Self::Numbered(pieces) => {
                for (position, piece) in pieces.iter().enumerate() {
                    formatter.write_str(if position > 0 { "{instance}" } else { "" })?;
                    formatter.write_str(&piece.to_string_lossy())?;
                }
                Ok(())
            }
        }
    }
}

impl Template {
    /// Appends the template, expanded for instance `number` and NUL-terminated, to `buffer`.
    ///
    /// Returns the position in `buffer` at which it starts. Allocates only if `buffer` must grow.
    pub fn write_to(&self, number: u32, buffer: &mut Vec<u8>) -> usize {
        let start = buffer.len();
        match self {
            Self::Fixed(text) => buffer.extend_from_slice(text.as_bytes()),
            Self::Numbered(pieces) => {
                for (position, piece) in pieces.iter().enumerate() {
                    if position > 0 {
                        push_decimal(number, buffer);
                    }
                    buffer.extend_from_slice(piece.as_bytes());
                }
            }
        }
        buffer.push(0);
        start
    }

    /// The text before the first `{instance}`. For an environment variable it includes at least the name.
    #[must_use]
    pub fn literal_prefix(&self) -> &[u8] {
        match self {
            Self::Fixed(text) => text.as_bytes(),
            Self::Numbered(pieces) => pieces.first().map_or(b"", |piece| piece.as_bytes()),
        }
    }

    /// Expands the template for instance `number`.
    #[must_use]
    pub fn expand(&self, number: u32) -> CString {
        let mut buffer = Vec::new();
        self.write_to(number, &mut buffer);
        CStr::from_bytes_until_nul(&buffer).unwrap_or_default().to_owned()
    }
}

fn push_decimal(number: u32, buffer: &mut Vec<u8>) {
    let start = buffer.len();
    let mut rest = number;
    loop {
        buffer.push(b'0' + (rest % 10) as u8);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if let Some(digits) = buffer.get_mut(start..) {
        digits.reverse();
    }
}

impl Serialize for Template {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(pieces: &[&str]) -> Template {
        Template::Numbered(pieces.iter().map(|piece| CString::new(*piece).unwrap()).collect())
    }

    #[test]
    fn the_number_is_inserted_between_the_pieces() {
        assert_eq!(numbered(&["PORT=300", ""]).expand(0), c"PORT=3000".to_owned());
        assert_eq!(numbered(&["a", "b", "c"]).expand(120), c"a120b120c".to_owned());
        assert_eq!(Template::Fixed(c"same".to_owned()).expand(7), c"same".to_owned());
    }
}

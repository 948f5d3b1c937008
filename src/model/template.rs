//! Text that may differ between the instances of a service.

use std::ffi::{CStr, CString};

/// A word of a command line, a `NAME=value` of the environment or a path, which may contain `{instance}` and `{instances}`.
///
/// `{service}` and `${VAR}` were expanded when the configuration was read. A template holds bytes, because environment
/// variables need not be UTF-8. It never contains a NUL byte.
#[derive(Clone, Debug)]
pub enum Template {
    /// The same for every instance.
    Fixed(CString),
    /// Text with numbers in it.
    Numbered {
        /// Each text that a number follows, in order. Not empty.
        pieces: Box<[(CString, Number)]>,
        /// The text after the last number.
        last: CString,
    },
    /// Text in which variables were expanded. Their values may be secrets, so it is shown as it was written.
    Expanded {
        /// The expanded text; never another `Expanded`.
        text: Box<Self>,
        /// The text of the configuration.
        written: Box<str>,
    },
}

/// A number that a template contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    /// `{instance}`: which instance it is, from 0.
    Instance,
    /// `{instances}`: how many instances the service has.
    Instances,
}

/// The numbers that a template is expanded with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// For [`Number::Instance`].
    pub instance: u32,
    /// For [`Number::Instances`].
    pub instances: u32,
}

impl Numbers {
    /// Those of the only instance of a service.
    pub const SINGLE: Self = Self { instance: 0, instances: 1 };

    const fn get(self, number: Number) -> u32 {
        match number {
            Number::Instance => self.instance,
            Number::Instances => self.instances,
        }
    }
}

impl std::fmt::Display for Template {
    /// As it was written: with `{instance}` and `{instances}`.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed(text) => formatter.write_str(&text.to_string_lossy()),
            Self::Numbered { pieces, last } => {
                for (text, number) in pieces {
                    formatter.write_str(&text.to_string_lossy())?;
                    formatter.write_str(match number {
                        Number::Instance => "{instance}",
                        Number::Instances => "{instances}",
                    })?;
                }
                formatter.write_str(&last.to_string_lossy())
            }
            Self::Expanded { written, .. } => formatter.write_str(written),
        }
    }
}

impl PartialEq for Template {
    /// Whether both expand to the same text.
    fn eq(&self, other: &Self) -> bool {
        match (self.plain(), other.plain()) {
            (Self::Fixed(text), Self::Fixed(other)) => text == other,
            (Self::Numbered { pieces, last }, Self::Numbered { pieces: other, last: end }) => {
                (pieces, last) == (other, end)
            }
            (Self::Fixed(_) | Self::Numbered { .. } | Self::Expanded { .. }, _) => false,
        }
    }
}

impl Eq for Template {}

impl Template {
    /// The text without what it is shown as: never `Expanded`.
    #[must_use]
    pub fn plain(&self) -> &Self {
        if let Self::Expanded { text, .. } = self { text } else { self }
    }

    /// The expanded text for messages, or as it was written if it may contain secrets.
    #[must_use]
    pub fn shown(&self, numbers: Numbers) -> String {
        match self {
            Self::Expanded { written, .. } => written.to_string(),
            Self::Fixed(_) | Self::Numbered { .. } => self.expand(numbers).to_string_lossy().into_owned(),
        }
    }

    /// Appends the template, expanded with `numbers` and NUL-terminated, to `buffer`.
    ///
    /// Returns the position in `buffer` at which it starts. Allocates only if `buffer` must grow.
    pub fn write_to(&self, numbers: Numbers, buffer: &mut Vec<u8>) -> usize {
        let start = buffer.len();
        let last = match self {
            Self::Fixed(text) => text,
            Self::Numbered { pieces, last } => {
                for (text, number) in pieces {
                    buffer.extend_from_slice(text.as_bytes());
                    push_decimal(numbers.get(*number), buffer);
                }
                last
            }
            Self::Expanded { text, .. } => return text.write_to(numbers, buffer),
        };
        buffer.extend_from_slice(last.as_bytes_with_nul());
        start
    }

    /// The text before the first number. For an environment variable it includes at least the name.
    #[must_use]
    pub fn literal_prefix(&self) -> &[u8] {
        match self {
            Self::Fixed(text) => text.as_bytes(),
            Self::Numbered { pieces, .. } => pieces.first().map_or(b"", |(text, _)| text.as_bytes()),
            Self::Expanded { text, .. } => text.literal_prefix(),
        }
    }

    /// Whether every instance has a text of its own.
    #[must_use]
    pub fn differs_by_instance(&self) -> bool {
        match self {
            Self::Fixed(_) => false,
            Self::Numbered { pieces, .. } => pieces.iter().any(|(_, number)| *number == Number::Instance),
            Self::Expanded { text, .. } => text.differs_by_instance(),
        }
    }

    /// Expands the template.
    #[must_use]
    pub fn expand(&self, numbers: Numbers) -> CString {
        let mut buffer = Vec::new();
        self.write_to(numbers, &mut buffer);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_inserted_between_the_pieces() {
        let of = |instance| Numbers { instance, instances: 4 };
        let pieces = [(c"PORT=300".to_owned(), Number::Instance), (c"/".to_owned(), Number::Instances)];
        let template = Template::Numbered { pieces: pieces.into(), last: c"!".to_owned() };
        assert_eq!(template.expand(of(120)), c"PORT=300120/4!".to_owned());
        assert_eq!(template.to_string(), "PORT=300{instance}/{instances}!");
        assert_eq!(Template::Fixed(c"same".to_owned()).expand(of(7)), c"same".to_owned());
    }
}

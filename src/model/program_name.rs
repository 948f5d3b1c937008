//! A name of limited length.

use std::fmt;

/// The maximum length in bytes. Longer names are cut.
const MAX_LENGTH: usize = 39;

/// The name of a program, of limited length, so that it can be copied without allocating.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ProgramName([u8; MAX_LENGTH + 1]);

impl ProgramName {
    /// The size in bytes of [`Self::to_bytes`].
    pub const SIZE: usize = MAX_LENGTH + 1;

    /// A name without NUL bytes.
    #[must_use]
    pub fn new(name: &[u8]) -> Self {
        let mut bytes = [0; Self::SIZE];
        for (to, from) in bytes.iter_mut().zip(name.iter().take(MAX_LENGTH)) {
            *to = *from;
        }
        Self(bytes)
    }

    /// The name, followed by at least one NUL.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; Self::SIZE] {
        self.0
    }

    fn text(&self) -> &[u8] {
        self.0.split(|byte| *byte == 0).next().unwrap_or_default()
    }
}

impl ProgramName {
    /// That the interpreter with this name is missing.
    pub fn missing(&self) -> impl fmt::Display {
        let hint = if self.text().ends_with(b"\r") { " (the first line ends with CR LF: use LF)" } else { "" };
        fmt::from_fn(move |formatter| write!(formatter, "it needs `{self}`, which does not exist{hint}"))
    }
}

impl fmt::Display for ProgramName {
    /// With control characters as escapes: `/bin/sh\r`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cut = if self.text().len() == MAX_LENGTH { "…" } else { "" };
        write!(formatter, "{}{cut}", String::from_utf8_lossy(self.text()).escape_debug())
    }
}

impl fmt::Debug for ProgramName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_shows_its_control_characters_and_that_it_is_cut() {
        assert_eq!(ProgramName::new(b"/bin/sh\r").to_string(), "/bin/sh\\r");
        let long = [b'x'; 60];
        assert_eq!(ProgramName::new(&long).to_string(), format!("{}…", "x".repeat(39)));
    }
}

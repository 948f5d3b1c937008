//! Options as getopt(3) reads them: letters in one word, a value in the same word or the next, `--` before the rest.
//!
//! It stops at the first word that is no option, as POSIX has it: from there on words are the command's.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// A reader of options.
pub(super) struct Getopt<'a> {
    program: &'a str,
    /// The known letters, each with a colon after it if it takes a value.
    letters: &'static [u8],
    words: &'a [OsString],
    /// What is left of a word of several letters.
    cluster: &'a [u8],
}

/// One option.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Opt {
    pub(super) letter: u8,
    /// Empty if it takes none.
    pub(super) value: OsString,
}

impl<'a> Getopt<'a> {
    pub(super) fn new(program: &'a str, letters: &'static str, words: &'a [OsString]) -> Self {
        Self { program, letters: letters.as_bytes(), words, cluster: &[] }
    }

    /// The next option.
    ///
    /// # Errors
    /// The line that getopt(3) prints about a wrong one.
    pub(super) fn next(&mut self) -> Result<Option<Opt>, String> {
        if self.cluster.is_empty() && !self.enter_word() {
            return Ok(None);
        }
        let Some((&letter, rest)) = self.cluster.split_first() else { return Ok(None) };
        self.cluster = rest;
        let shown = letter.escape_ascii();
        match self.takes_value(letter) {
            None => Err(format!("{}: invalid option -- '{shown}'\n", self.program)),
            Some(false) => Ok(Some(Opt { letter, value: OsString::new() })),
            Some(true) => match self.value() {
                Some(value) => Ok(Some(Opt { letter, value })),
                None => Err(format!("{}: option requires an argument -- '{shown}'\n", self.program)),
            },
        }
    }

    /// What comes after the options.
    pub(super) fn rest(self) -> &'a [OsString] {
        self.words
    }

    /// Goes on to the next word of options, if it is one.
    fn enter_word(&mut self) -> bool {
        let Some((word, rest)) = self.words.split_first() else { return false };
        match word.as_bytes() {
            b"--" => {
                self.words = rest;
                false
            }
            [b'-', letters @ ..] if !letters.is_empty() => {
                (self.cluster, self.words) = (letters, rest);
                true
            }
            _ => false,
        }
    }

    /// `None`: there is no such letter.
    fn takes_value(&self, letter: u8) -> Option<bool> {
        let position = self.letters.iter().position(|known| *known == letter && letter != b':')?;
        Some(self.letters.get(position + 1) == Some(&b':'))
    }

    fn value(&mut self) -> Option<OsString> {
        if !self.cluster.is_empty() {
            return Some(OsStr::from_bytes(std::mem::take(&mut self.cluster)).to_owned());
        }
        let (word, rest) = self.words.split_first()?;
        self.words = rest;
        Some(word.clone())
    }
}

/// The number at the beginning of `text` as strtol(3) reads it, and what comes after it; without digits 0 and all of
/// `text`. Out of range it is the nearest that there is.
pub(super) fn leading_number(text: &str) -> (i64, &str) {
    let unsigned = text.trim_start_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r']);
    let (sign, digits) = match unsigned.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, unsigned.strip_prefix('+').unwrap_or(unsigned)),
    };
    let rest = digits.trim_start_matches(|letter: char| letter.is_ascii_digit());
    let digits = digits.strip_suffix(rest).unwrap_or_default();
    if digits.is_empty() {
        return (0, text);
    }
    (digits.parse::<i64>().unwrap_or(i64::MAX).saturating_mul(sign), rest)
}

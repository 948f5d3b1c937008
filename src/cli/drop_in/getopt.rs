//! Parses options as getopt_long(3) does: several letters in one word, unique abbreviations of long names, a value in the
//! same word or in the next one, and `--` before the operands.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// The options of a program.
#[derive(Clone, Copy, Debug)]
pub(super) struct KnownOptions {
    /// The short options, as in getopt(3): a colon follows each letter that takes a value.
    pub(super) letters: &'static str,
    /// The long options, each with its short option, which determines whether it takes a value.
    pub(super) names: &'static [(&'static str, u8)],
    /// Whether options may follow operands, as in glibc. Otherwise options end at the first operand, as in POSIX.
    pub(super) permutes: bool,
}

pub(super) struct Getopt<'a> {
    program: &'a str,
    known: KnownOptions,
    words: &'a [OsString],
    /// The letters of the current word that have not been parsed yet.
    cluster: &'a [u8],
    /// Operands that were found before or between options.
    operands: Vec<OsString>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Opt {
    pub(super) letter: u8,
    /// Empty if the option takes no value.
    pub(super) value: OsString,
}

/// A word of the command line.
enum Word<'a> {
    /// `-abc`; the letters are in `Getopt::cluster`.
    Letters,
    /// `--name` or `--name=value`, without the dashes.
    Name(&'a [u8]),
    EndOfOptions,
}

impl<'a> Getopt<'a> {
    pub(super) fn new(program: &'a str, known: KnownOptions, words: &'a [OsString]) -> Self {
        Self { program, known, words, cluster: &[], operands: Vec::new() }
    }

    /// Parses the next option.
    ///
    /// # Errors
    /// The line that getopt_long(3) prints about an invalid option.
    pub(super) fn next(&mut self) -> Result<Option<Opt>, String> {
        if self.cluster.is_empty() {
            match self.next_word() {
                Word::Letters => {}
                Word::Name(name) => return self.parse_long(name).map(Some).map_err(|error| self.error_line(&error)),
                Word::EndOfOptions => return Ok(None),
            }
        }
        let Some((&letter, rest)) = self.cluster.split_first() else { return Ok(None) };
        self.cluster = rest;
        let printable = letter.escape_ascii();
        match self.takes_value(letter) {
            None => Err(self.error_line(&format!("invalid option -- '{printable}'"))),
            Some(false) => Ok(Some(Opt { letter, value: OsString::new() })),
            Some(true) => match self.value() {
                Some(value) => Ok(Some(Opt { letter, value })),
                None => Err(self.error_line(&format!("option requires an argument -- '{printable}'"))),
            },
        }
    }

    /// Returns all operands.
    pub(super) fn operands(mut self) -> Vec<OsString> {
        self.operands.extend_from_slice(self.words);
        self.operands
    }

    fn error_line(&self, error: &str) -> String {
        format!("{}: {error}\n", self.program)
    }

    fn next_word(&mut self) -> Word<'a> {
        while let Some((word, rest)) = self.words.split_first() {
            match word.as_bytes() {
                b"--" => {
                    self.words = rest;
                    return Word::EndOfOptions;
                }
                [b'-', b'-', name @ ..] if !self.known.names.is_empty() => {
                    self.words = rest;
                    return Word::Name(name);
                }
                [b'-', letters @ ..] if !letters.is_empty() => {
                    (self.cluster, self.words) = (letters, rest);
                    return Word::Letters;
                }
                _ if self.known.permutes => {
                    self.operands.push(word.clone());
                    self.words = rest;
                }
                _ => break,
            }
        }
        Word::EndOfOptions
    }

    /// Parses a long option, without its dashes.
    fn parse_long(&mut self, word: &[u8]) -> Result<Opt, String> {
        let mut parts = word.splitn(2, |byte| *byte == b'=');
        let given = parts.next().unwrap_or_default();
        let value = parts.next();
        let (name, letter) = self.find(given).map_err(|candidates| unresolved_name(word, &candidates))?;
        match (self.takes_value(letter), value) {
            (Some(true), Some(value)) => Ok(Opt { letter, value: OsStr::from_bytes(value).to_owned() }),
            (Some(true), None) => match self.value() {
                Some(value) => Ok(Opt { letter, value }),
                None => Err(format!("option '--{name}' requires an argument")),
            },
            (_, None) => Ok(Opt { letter, value: OsString::new() }),
            (_, Some(_)) => Err(format!("option '--{name}' doesn't allow an argument")),
        }
    }

    /// Resolves a long name or a unique abbreviation.
    ///
    /// # Errors
    /// All names that begin with `given`.
    fn find(&self, given: &[u8]) -> Result<(&'static str, u8), Vec<&'static str>> {
        let matches = |(name, _): &&(&str, u8)| name.as_bytes().starts_with(given);
        let candidates: Vec<_> = self.known.names.iter().filter(matches).copied().collect();
        let exact = candidates.iter().find(|(name, _)| name.as_bytes() == given).copied();
        match (exact, candidates.as_slice()) {
            (Some(option), _) | (None, &[option]) => Ok(option),
            (None, _) => Err(candidates.into_iter().map(|(name, _)| name).collect()),
        }
    }

    /// Whether the short option takes a value; `None` if the program has no such option.
    fn takes_value(&self, letter: u8) -> Option<bool> {
        let letters = self.known.letters.as_bytes();
        let position = letters.iter().position(|known| *known == letter && letter != b':')?;
        Some(letters.get(position + 1) == Some(&b':'))
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

/// The error for a long option that matches no name or several.
fn unresolved_name(word: &[u8], candidates: &[&str]) -> String {
    let word = String::from_utf8_lossy(word);
    if candidates.is_empty() {
        return format!("unrecognized option '--{word}'");
    }
    let names: Vec<_> = candidates.iter().map(|name| format!("'--{name}'")).collect();
    format!("option '--{word}' is ambiguous; possibilities: {}", names.join(" "))
}

/// Parses the number at the beginning of `text` as strtol(3) does, and returns it with the rest of `text`. Without digits
/// the result is 0 and all of `text`. A number that is out of range is clamped.
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

//! Options as getopt_long(3) reads them: letters in one word, names after `--` that may be cut short, a value in the same
//! word or the next, `--` before the rest.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// What options a program has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    /// The letters, each with a colon after it if it takes a value.
    pub(super) letters: &'static str,
    /// The names, each with the letter that means the same. Whether there is a value is the letter's matter.
    pub(super) names: &'static [(&'static str, u8)],
    /// Whether it goes on after a word that is no option, as glibc does unless it is told not to; or stops there, as
    /// POSIX has it, and from there on words are the command's.
    pub(super) permutes: bool,
}

/// A reader of options.
pub(super) struct Getopt<'a> {
    program: &'a str,
    known: Known,
    words: &'a [OsString],
    /// What is left of a word of several letters.
    cluster: &'a [u8],
    /// Words that are no options, and were passed over.
    passed: Vec<OsString>,
}

/// One option.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Opt {
    pub(super) letter: u8,
    /// Empty if it takes none.
    pub(super) value: OsString,
}

/// A word of the command line, as far as it concerns options.
enum Word<'a> {
    /// `-abc`; the letters are in the cluster.
    Letters,
    /// `--name`, `--name=value`.
    Name(&'a [u8]),
    /// Nothing more.
    End,
}

impl<'a> Getopt<'a> {
    pub(super) fn new(program: &'a str, known: Known, words: &'a [OsString]) -> Self {
        Self { program, known, words, cluster: &[], passed: Vec::new() }
    }

    /// The next option.
    ///
    /// # Errors
    /// The line that getopt_long(3) prints about a wrong one.
    pub(super) fn next(&mut self) -> Result<Option<Opt>, String> {
        if self.cluster.is_empty() {
            match self.next_word() {
                Word::Letters => {}
                Word::Name(name) => return self.named(name).map(Some).map_err(|line| self.complaint(&line)),
                Word::End => return Ok(None),
            }
        }
        let Some((&letter, rest)) = self.cluster.split_first() else { return Ok(None) };
        self.cluster = rest;
        let shown = letter.escape_ascii();
        match self.takes_value(letter) {
            None => Err(self.complaint(&format!("invalid option -- '{shown}'"))),
            Some(false) => Ok(Some(Opt { letter, value: OsString::new() })),
            Some(true) => match self.value() {
                Some(value) => Ok(Some(Opt { letter, value })),
                None => Err(self.complaint(&format!("option requires an argument -- '{shown}'"))),
            },
        }
    }

    /// What comes after the options, or stood between them.
    pub(super) fn rest(mut self) -> Vec<OsString> {
        self.passed.extend_from_slice(self.words);
        self.passed
    }

    fn complaint(&self, what: &str) -> String {
        format!("{}: {what}\n", self.program)
    }

    fn next_word(&mut self) -> Word<'a> {
        while let Some((word, rest)) = self.words.split_first() {
            match word.as_bytes() {
                b"--" => {
                    self.words = rest;
                    return Word::End;
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
                    self.passed.push(word.clone());
                    self.words = rest;
                }
                _ => break,
            }
        }
        Word::End
    }

    /// `word` is what follows `--`.
    fn named(&mut self, word: &[u8]) -> Result<Opt, String> {
        let mut parts = word.splitn(2, |byte| *byte == b'=');
        let asked = parts.next().unwrap_or_default();
        let value = parts.next();
        let (name, letter) = self.find(asked).map_err(|found| complaint_about(word, &found))?;
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

    /// The option that is called so, or the only one whose name begins so; otherwise all whose name does.
    fn find(&self, asked: &[u8]) -> Result<(&'static str, u8), Vec<&'static str>> {
        let begins_so = |(name, _): &&(&str, u8)| name.as_bytes().starts_with(asked);
        let found: Vec<_> = self.known.names.iter().filter(begins_so).copied().collect();
        let exact = found.iter().find(|(name, _)| name.as_bytes() == asked).copied();
        match (exact, found.as_slice()) {
            (Some(option), _) | (None, &[option]) => Ok(option),
            (None, _) => Err(found.into_iter().map(|(name, _)| name).collect()),
        }
    }

    /// `None`: there is no such letter.
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

/// `word` names none, or more than one.
fn complaint_about(word: &[u8], found: &[&str]) -> String {
    let word = String::from_utf8_lossy(word);
    if found.is_empty() {
        return format!("unrecognized option '--{word}'");
    }
    let names: Vec<_> = found.iter().map(|name| format!("'--{name}'")).collect();
    format!("option '--{word}' is ambiguous; possibilities: {}", names.join(" "))
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

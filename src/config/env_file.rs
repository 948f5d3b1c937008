//! `env_file`: lines of `NAME=value` with the syntax of Docker Compose.
//!
//! Empty lines and lines that start with `#` are skipped, as are `export ` and blanks around names and values. A plain value
//! ends before ` #`. In double quotes the escapes `\n`, `\t`, `\r`, `\"`, `\\` and `\$` are recognised, in single quotes
//! only `\'`; both kinds of quotes can span several lines. `${VAR}` and `${VAR:-default}` are expanded except in single
//! quotes. A `NAME` without `=` takes its value from keepalive's own environment and is skipped if it is not set there.

use std::ffi::OsString;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::expand::{self, Builder, ExpandErrorKind, Placeholders, Scope, Variables, name_length};
use super::read::{PIPE_READ_TIMEOUT, read_raw};
use super::report::Source;
use crate::model::{EnvFileError, EnvLineError};

/// Names and values in the order of the file.
pub(super) type Entries = Vec<(Vec<u8>, Vec<u8>)>;

/// An `env_file`. It is read once for all services that use it.
pub(super) struct EnvFile {
    pub(super) source: Source,
    pub(super) path: PathBuf,
    pub(super) entries: Entries,
}

/// The variables that keepalive sets for every process. `is_overwritten` in `process.rs` knows those of other protocols.
pub(super) const RESERVED_VARIABLES: [&str; 8] = [
    "KEEPALIVE_SERVICE",
    "KEEPALIVE_INSTANCE",
    "KEEPALIVE_INSTANCES",
    "KEEPALIVE_RESTARTS",
    "KEEPALIVE_RUN",
    "KEEPALIVE_SOCKET",
    "KEEPALIVE_IPC_FD",
    "KEEPALIVE_STATE_FD",
];

/// The maximum size of all values in bytes: execve(2) limits arguments and environment to three quarters of the stack's
/// 8 MiB.
const MAX_VARIABLES_SIZE: usize = 6 << 20;

/// An error and its position.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LineError {
    pub(super) at: Range<usize>,
    pub(super) error: EnvLineError,
}

/// The variables of the file `path`, for a process that reads it itself. `environment`: the variables for `${VAR}`.
///
/// # Errors
/// The first error.
pub fn read_env_file(path: &Path, environment: &[(OsString, OsString)]) -> Result<Entries, EnvFileError> {
    let bytes = read_raw(path, PIPE_READ_TIMEOUT).map_err(EnvFileError::Read)?;
    let mut errors = Vec::new();
    let entries = parse(&bytes, environment, &mut errors);
    let Some(LineError { at, error }) = errors.first() else { return Ok(entries) };
    let newlines = bytes.iter().take(at.start).filter(|byte| **byte == b'\n').count();
    Err(EnvFileError::Line(u32::try_from(newlines + 1).unwrap_or(u32::MAX), *error))
}

/// Parses all lines. After an error, adds it to `errors` and continues with the next line.
pub(super) fn parse(text: &[u8], inherited: &[(OsString, OsString)], errors: &mut Vec<LineError>) -> Entries {
    let mut parser = Parser { text, inherited, position: 0, entries: Vec::new(), total: 0 };
    while parser.position < text.len() {
        let start = parser.position;
        if let Err(error) = parser.line() {
            errors.push(error);
            parser.position = start;
            parser.skip_line();
        }
        if parser.total > MAX_VARIABLES_SIZE {
            errors.push(LineError { at: parser.line_from(start), error: EnvLineError::FileTooLarge });
            break;
        }
    }
    parser.entries
}

struct Parser<'p> {
    text: &'p [u8],
    inherited: &'p [(OsString, OsString)],
    position: usize,
    entries: Entries,
    /// The size of all values in bytes.
    total: usize,
}

impl Parser<'_> {
    fn line(&mut self) -> Result<(), LineError> {
        self.skip_blanks();
        if matches!(self.peek(), None | Some(b'\n' | b'#')) {
            self.skip_line();
            return Ok(());
        }
        if self.rest().starts_with(b"export ") || self.rest().starts_with(b"export\t") {
            self.position += b"export ".len();
            self.skip_blanks();
        }
        let start = self.position;
        let length = self.rest().iter().take_while(|byte| !b"=: \t\r\n".contains(byte)).count();
        let name = self.rest().get(..length).unwrap_or_default().to_vec();
        let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.-".contains(byte);
        if name_length(&name) == 0 || !name.iter().all(is_allowed) {
            return Err(LineError { at: self.line_from(start), error: EnvLineError::NotAnAssignment });
        }
        if RESERVED_VARIABLES.iter().any(|reserved| reserved.as_bytes() == name) {
            return Err(LineError { at: start..start + length, error: EnvLineError::Reserved });
        }
        self.position += length;
        self.skip_blanks();
        match self.peek() {
            None | Some(b'\n') => {
                if let Some(value) = self.variables().get(&name) {
                    self.entries.push((name, value.to_vec()));
                }
            }
            Some(b'=' | b':') => {
                self.position += 1;
                let value = self.value()?;
                self.total += value.len();
                self.entries.push((name, value));
            }
            Some(_) => {
                return Err(LineError { at: self.line_from(self.position), error: EnvLineError::NoEqualsSign });
            }
        }
        self.skip_line();
        Ok(())
    }

    fn value(&mut self) -> Result<Vec<u8>, LineError> {
        self.skip_blanks();
        let start = self.position;
        let (raw, literal) = match self.peek() {
            Some(b'\'') => (self.quoted(b'\'')?, true),
            Some(b'"') => (self.quoted(b'"')?, false),
            _ => (self.plain(), false),
        };
        let whole = start..self.position;
        if raw.contains(&0) {
            return Err(LineError { at: whole, error: EnvLineError::NulByte });
        }
        if literal {
            return Ok(raw);
        }
        let mut builder = Builder::default();
        let scope =
            Scope { service: "", placeholders: Placeholders::Literal, sockets: &[], variables: Some(self.variables()) };
        expand::expand(&raw, &scope, &mut builder).map_err(|error| LineError {
            at: whole,
            error: match error.kind {
                ExpandErrorKind::Syntax => EnvLineError::Substitution,
                ExpandErrorKind::UnsetVariable => EnvLineError::UnsetVariable,
                ExpandErrorKind::TooLong => EnvLineError::ValueTooLong,
            },
        })?;
        Ok(std::mem::take(builder.first_piece()))
    }

    fn variables(&self) -> Variables<'_> {
        Variables { own: &self.entries, inherited: self.inherited, env: &[] }
    }

    /// A value without quotes: up to the end of the line or a comment, without trailing blanks.
    fn plain(&mut self) -> Vec<u8> {
        let rest = self.rest();
        let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let starts_comment = |pair: &[u8]| matches!(pair, [b' ' | b'\t', b'#']);
        let comment = if line.first() == Some(&b'#') { Some(0) } else { line.windows(2).position(starts_comment) };
        let value = line.get(..comment.unwrap_or(line.len())).unwrap_or_default().trim_ascii_end().to_vec();
        self.position += value.len();
        value
    }

    fn quoted(&mut self, quote: u8) -> Result<Vec<u8>, LineError> {
        let start = self.position;
        let mut value = Vec::new();
        let mut bytes = self.rest().iter().enumerate().skip(1);
        while let Some((offset, &byte)) = bytes.next() {
            if byte == quote {
                self.position = start + offset + 1;
                return self.after_quote().map(|()| value);
            }
            if byte == b'\\' {
                let escaped = bytes.next().map_or(b'\\', |(_, escaped)| *escaped);
                push_escaped(escaped, quote, &mut value);
            } else {
                value.push(byte);
            }
        }
        Err(LineError { at: self.line_from(start), error: EnvLineError::OpenQuote })
    }

    /// Only a comment may follow a quoted value.
    fn after_quote(&mut self) -> Result<(), LineError> {
        let end = self.position;
        self.skip_blanks();
        if matches!(self.peek(), None | Some(b'\n' | b'#')) {
            self.position = end;
            return Ok(());
        }
        Err(LineError { at: self.line_from(self.position), error: EnvLineError::TextAfterQuote })
    }

    fn rest(&self) -> &[u8] {
        self.text.get(self.position..).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.position).copied()
    }

    fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r')) {
            self.position += 1;
        }
    }

    fn skip_line(&mut self) {
        let rest = self.rest();
        self.position += rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |newline| newline + 1);
    }

    /// From `start` to the end of its line.
    fn line_from(&self, start: usize) -> Range<usize> {
        let line = self.text.get(start..).unwrap_or_default().split(|byte| *byte == b'\n').next().unwrap_or_default();
        start..start + line.trim_ascii_end().len().max(1)
    }
}

/// Appends an escape sequence. `\$` in double quotes becomes `$$`, which the later expansion turns into `$`.
fn push_escaped(escaped: u8, quote: u8, value: &mut Vec<u8>) {
    match escaped {
        _ if escaped == quote => value.push(quote),
        _ if quote == b'\'' => value.extend_from_slice(&[b'\\', escaped]),
        b'n' => value.push(b'\n'),
        b'r' => value.push(b'\r'),
        b't' => value.push(b'\t'),
        b'\\' => value.push(b'\\'),
        b'$' => value.extend_from_slice(b"$$"),
        _ => value.extend_from_slice(&[b'\\', escaped]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (Vec<String>, Vec<String>) {
        let inherited = [("HOME".into(), "/root".into())];
        let mut errors = Vec::new();
        let entries = parse(text.as_bytes(), &inherited, &mut errors);
        let join = |(name, value): (Vec<u8>, Vec<u8>)| String::from_utf8([name, value].join(&b'=')).unwrap();
        let format_error = |error: LineError| format!("{}..{} {}", error.at.start, error.at.end, error.error.words().0);
        (entries.into_iter().map(join).collect(), errors.into_iter().map(format_error).collect())
    }

    #[track_caller]
    fn check(text: &str, expect: &[&str]) {
        let (entries, errors) = parsed(text);
        assert_eq!(entries, expect, "{text}");
        assert_eq!(errors, Vec::<String>::new(), "{text}");
    }

    // https://docs.docker.com/compose/how-tos/environment-variables/variable-interpolation/#env-file-syntax
    #[test]
    fn lines_are_parsed_as_by_docker_compose() {
        check("VAR=VAL", &["VAR=VAL"]);
        check("VAR: VAL\nA = b ", &["VAR=VAL", "A=b"]);
        check("\n# c\n  # d\nexport A=b\r\nexport\tC=d", &["A=b", "C=d"]);
        check("A=VAL # comment\nB=VAL# no comment\nC=#x", &["A=VAL", "B=VAL# no comment", "C="]);
        check("A=\"VAL # no comment\" # comment\nB='x'", &["A=VAL # no comment", "B=x"]);
        check("A='Let\\'s go!'\nB=\"{\\\"hello\\\": \\\"json\\\"}\"", &["A=Let's go!", "B={\"hello\": \"json\"}"]);
        check(
            "A=\"some\\tvalue\\n\"\nB='some\\tvalue'\nC=some\\tvalue",
            &["A=some\tvalue\n", "B=some\\tvalue", "C=some\\tvalue"],
        );
        check("A='two\nlines'\nB=1", &["A=two\nlines", "B=1"]);
        check("A=b=c\nB=", &["A=b=c", "B="]);
        check("my.key=1\nmy-key=2", &["my.key=1", "my-key=2"]);
    }

    #[test]
    fn variables_come_from_earlier_lines_and_the_environment() {
        check("A=1\nB=${A}2\nC=\"${HOME}/x\"\nD='${A}'\nE=${NONE:-d}", &["A=1", "B=12", "C=/root/x", "D=${A}", "E=d"]);
        check("A=pa$$word\nB=pa$word\nC=\"\\${A}\"", &["A=pa$word", "B=pa$word", "C=${A}"]);
        check("HOME\nNONE", &["HOME=/root"]);
    }

    #[test]
    fn the_size_of_variables_that_multiply_each_other_is_limited() {
        let mut text = "A0=xxxxxxxxxx\n".to_owned();
        for line in 1..10 {
            text.push_str(&format!("A{line}={}\n", format!("${{A{}}}", line - 1).repeat(10)));
        }
        let (entries, errors) = parsed(&text);
        assert_eq!(entries.len(), 5);
        assert!(errors[0].ends_with("longer than 128 KiB, the limit for one variable"), "{errors:?}");
        let (entries, errors) = parsed(&format!("A={}\n{}", "x".repeat(100_000), "B=${A}\n".repeat(1000)));
        assert_eq!(entries.len(), 63);
        assert_eq!(errors, ["100430..100436 the variables up to here are larger than 6 MiB"]);
    }

    #[test]
    fn errors_are_reported_and_the_other_lines_are_parsed() {
        let (entries, errors) = parsed("A=\"open\nB=1\n=x\nC D=1\nE='a'b\nF=${NONE}\nG=1\n1A=2\nKEEPALIVE_SERVICE=x");
        assert_eq!(entries, ["B=1", "G=1"]);
        assert_eq!(
            errors,
            [
                "2..7 missing closing quote",
                "12..14 expected `NAME=value`",
                "17..20 expected `=` after the name",
                "26..27 text after the closing quote",
                "30..37 the variable of a `${…}` is not set",
                "42..46 expected `NAME=value`",
                "47..64 the variable is reserved for keepalive",
            ]
        );
    }
}

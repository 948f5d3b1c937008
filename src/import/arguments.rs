//! The command line of `keepalive import`.

use std::ffi::OsString;
use std::path::PathBuf;

use super::kind::{KINDS, Kind};

/// What is to be imported.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Arguments {
    pub(super) source: PathBuf,
    /// `-o`.
    pub(super) output: Option<PathBuf>,
    /// `--from`.
    pub(super) kind: Option<Kind>,
}

/// A parsed command line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    Import(Arguments),
    Help,
    Version,
}

/// Parses `arguments`, which follow the name of the command.
///
/// # Errors
/// What is wrong.
pub(super) fn read(arguments: Vec<OsString>) -> Result<Command, String> {
    use lexopt::Arg::{Long, Short, Value};
    let mut parser = lexopt::Parser::from_args(arguments);
    let (mut source, mut output, mut kind) = (None, None, None);
    while let Some(argument) = parser.next().map_err(|error| error.to_string())? {
        match argument {
            Short('h') | Long("help") => return Ok(Command::Help),
            Short('V') | Long("version") => return Ok(Command::Version),
            Short('o') | Long("output") => output = Some(PathBuf::from(value(&mut parser)?)),
            Long("from") => {
                let name = value(&mut parser)?.to_string_lossy().into_owned();
                let names: Vec<_> = KINDS.iter().map(|(known, _)| *known).collect();
                let unknown = || format!("unknown format `{name}`; known formats: {}", names.join(", "));
                kind = Some(Kind::named(&name).ok_or_else(unknown)?);
            }
            Value(path) if source.is_none() => source = Some(PathBuf::from(path)),
            Value(path) => return Err(format!("unexpected argument `{}`: one file at a time", path.to_string_lossy())),
            argument @ (Short(_) | Long(_)) => return Err(argument.unexpected().to_string()),
        }
    }
    let source = source.ok_or("a file is missing: keepalive import FILE")?;
    Ok(Command::Import(Arguments { source, output, kind }))
}

fn value(parser: &mut lexopt::Parser) -> Result<OsString, String> {
    parser.value().map_err(|error| error.to_string())
}

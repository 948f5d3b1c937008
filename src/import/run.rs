//! Arguments → the exit code.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use super::arguments::{self, Arguments, Command};
use super::config_file::ConfigFile;
use super::import_error::ImportError;
use super::kind::{KINDS, Kind};
use super::source::read;
use super::{compose, pm2, procfile, s6, supervisord, systemd};
use crate::config::describe;
use crate::model::exit_code::USAGE;

/// The result could not be written.
const REFUSED: u8 = 1;
/// Imports what `arguments`, which follow `keepalive import`, name. Returns the exit code.
#[must_use]
pub fn run(arguments: Vec<OsString>) -> u8 {
    let arguments = match arguments::read(arguments) {
        Ok(Command::Import(arguments)) => arguments,
        Ok(Command::Help) => return print(&crate::cli::import_help()),
        Ok(Command::Version) => return print(concat!("keepalive ", env!("CARGO_PKG_VERSION"), "\n")),
        Err(message) => {
            complain(&format!("keepalive import: {message}\nsee keepalive import --help\n"));
            return USAGE;
        }
    };
    match import(&arguments).and_then(|text| write(&text, arguments.output.as_deref())) {
        Ok(()) => 0,
        Err(error) => {
            complain(&error.to_string());
            error.code
        }
    }
}

/// The text of keepalive.toml.
fn import(arguments: &Arguments) -> Result<String, ImportError> {
    let path = arguments.source.as_path();
    let name = path.display().to_string();
    let config = if path.is_dir() { s6::import(path)? } else { import_file(path, &name, arguments.kind)? };
    if config.services.is_empty() {
        return Err(ImportError::new(name, "it defines no process", "name the file that does"));
    }
    Ok(config.write(&name))
}

fn import_file(path: &Path, name: &str, kind: Option<Kind>) -> Result<ConfigFile, ImportError> {
    let text = read(path)?;
    match kind.or_else(|| Kind::of(path, &text)) {
        Some(Kind::Procfile) => procfile::import(path, &text),
        Some(Kind::Compose) => compose::import(path, &text),
        Some(Kind::Pm2) => pm2::import(path, &text),
        Some(Kind::Supervisord) => supervisord::import(path, &text),
        Some(Kind::Systemd) => systemd::import(path, &text),
        Some(Kind::ServiceDirectories) => {
            Err(ImportError::new(name, "a tree of services is a directory, and this is a file", "name the directory"))
        }
        None => {
            let names: Vec<_> = KINDS.iter().map(|(name, _)| *name).collect();
            let remedy = format!("say what it is: --from {}", names.join("|"));
            Err(ImportError::new(name, "the format of this file is not recognised", remedy))
        }
    }
}

/// Writes the result to `path`, which must not exist, or to stdout.
fn write(text: &str, path: Option<&Path>) -> Result<(), ImportError> {
    let place = path.map_or_else(|| "stdout".to_owned(), |path| path.display().to_string());
    let refused = |error: &io::Error| {
        let exists = error.kind() == io::ErrorKind::AlreadyExists;
        let message = format!("cannot be written: {}", describe(error));
        let remedy = if exists { "nothing is overwritten: remove it, or name another file" } else { "" };
        ImportError { code: REFUSED, ..ImportError::new(place.clone(), message, remedy) }
    };
    let result = match path {
        None => io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()),
        Some(path) => fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(path)
            .and_then(|mut file| file.write_all(text.as_bytes())),
    };
    result.map_err(|error| refused(&error))
}

fn print(text: &str) -> u8 {
    write(text, None).map_or(REFUSED, |()| 0)
}

fn complain(text: &str) {
    // There is nobody left to complain to if this fails.
    io::stderr().write_all(text.as_bytes()).ok();
}

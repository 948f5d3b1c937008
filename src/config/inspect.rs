//! What `check` looks at besides the text: whether the program and the directory are there.

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io::Read as _;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::decoder::{Decoder, Value};
use super::{Purpose, read};
use crate::model::Template;
use crate::model::plan::Process;

/// Where programs are looked for without a `PATH`.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How much of a script the kernel looks at, `BINPRM_BUF_SIZE`.
const INTERPRETER_LIMIT: u64 = 256;

impl Decoder<'_> {
    /// Notes what would keep `process` from starting here and now; `program` is where its command stands.
    pub(super) fn inspect(&mut self, process: &Process, program: Range<usize>, table: &DeTable<'_>) {
        let Some(directory) = self.directory_to_inspect(process) else { return };
        if let Some(message) = directory_flaw(&directory) {
            let span = table.get("cwd").map_or(program, Value::span);
            self.error(span, &message, "create it, or correct `cwd`");
            return;
        }
        self.inspect_program(process, &process.command, program);
    }

    /// `None` if it is not to be looked at, or is not known before there is an instance.
    fn directory_to_inspect(&self, process: &Process) -> Option<PathBuf> {
        if self.outside.purpose != Purpose::Check {
            return None;
        }
        match &process.cwd {
            None => Some(self.outside.directory.to_owned()),
            Some(Template::Fixed(path)) => Some(PathBuf::from(OsStr::from_bytes(path.as_bytes()))),
            Some(Template::Numbered(_)) => None,
        }
    }

    /// Notes what would keep `command`, which stands at `program`, from being run beside `process`.
    pub(super) fn inspect_program(&mut self, process: &Process, command: &[Template], program: Range<usize>) {
        let Some(directory) = self.directory_to_inspect(process) else { return };
        let Some(Template::Fixed(name)) = command.first() else { return };
        if name.is_empty() {
            return;
        }
        let path = self.search_path(process);
        if let Err((message, hint)) = find_program(name, &path, &directory) {
            self.error(program, &message, &hint);
        }
    }

    /// `PATH` as the process will have it.
    fn search_path(&self, process: &Process) -> Vec<u8> {
        let own = process
            .env
            .iter()
            .map(|entry| entry.expand(0))
            .find_map(|entry| entry.as_bytes().strip_prefix(b"PATH=").map(<[u8]>::to_vec));
        let inherited = || self.outside.variable(b"PATH").filter(|_| process.inherit_env).map(<[u8]>::to_vec);
        own.or_else(inherited).unwrap_or_else(|| DEFAULT_PATH.to_vec())
    }
}

fn directory_flaw(path: &Path) -> Option<String> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => None,
        Ok(_) => Some(format!("`{}` is not a directory", path.display())),
        Err(error) => Some(format!("cannot use `{}` as a directory: {}", path.display(), read::describe(&error))),
    }
}

/// Looks as execvp(3) does; message and hint if there is nothing to execute.
fn find_program(name: &CStr, path: &[u8], directory: &Path) -> Result<(), (String, String)> {
    let shown = name.to_string_lossy();
    let name = Path::new(OsStr::from_bytes(name.to_bytes()));
    let candidates: Vec<PathBuf> = if shown.contains('/') {
        vec![directory.join(name)]
    } else {
        let places = path.split(|byte| *byte == b':').map(|place| directory.join(OsStr::from_bytes(place)));
        places.map(|place| place.join(name)).collect()
    };
    let mut found = None;
    for candidate in candidates {
        match std::fs::metadata(&candidate) {
            Ok(metadata) if metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 => {
                return interpreter_flaw(&candidate, directory).map_or(Ok(()), Err);
            }
            Ok(_) => found = found.or(Some(candidate)),
            Err(_) => {}
        }
    }
    match found {
        Some(path) => {
            let path = path.display();
            Err((format!("`{path}` is not executable"), format!("chmod +x {path}")))
        }
        None if shown.contains('/') => {
            Err((format!("program `{shown}` not found"), "the path is relative to `cwd`".to_owned()))
        }
        None => {
            let hint = format!("PATH is {}", String::from_utf8_lossy(path));
            Err((format!("program `{shown}` not found in PATH"), hint))
        }
    }
}

/// Whether the program that `#!` names is missing, which execve(2) reports as if the script were.
fn interpreter_flaw(script: &Path, directory: &Path) -> Option<(String, String)> {
    let mut start = Vec::new();
    File::open(script).and_then(|file| file.take(INTERPRETER_LIMIT).read_to_end(&mut start)).ok()?;
    let line = start.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let name = line.split(is_blank).find(|word| !word.is_empty())?;
    let interpreter = OsStr::from_bytes(name);
    if directory.join(interpreter).exists() {
        return None;
    }
    let hint = if name.ends_with(b"\r") {
        "its first line ends with CR LF: use LF"
    } else {
        "install it, or correct the first line of the script"
    };
    let shown = interpreter.to_string_lossy();
    Some((
        format!("`{}` needs the interpreter `{}`, which does not exist", script.display(), shown.escape_debug()),
        hint.to_owned(),
    ))
}

//! What `check` examines besides the configuration: whether programs and directories exist.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::Read as _;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};
use toml::de::DeTable;

use super::decoder::{Decoder, Value};
use super::environment::Purpose;
use super::read;
use crate::model::plan::{Credentials, Process};
use crate::model::{Numbers, Template, architecture};

/// The search path if the environment has no `PATH`.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How many bytes of a script the kernel reads, `BINPRM_BUF_SIZE`.
const MAX_SHEBANG_SIZE: u64 = 256;

impl Decoder<'_> {
    /// Reports why `process` could not be started now. `program` is the location of its command.
    pub(super) fn inspect(&mut self, process: &Process, program: Range<usize>, table: &DeTable<'_>) {
        let Some(directory) = self.directory_to_inspect(process) else { return };
        let place = table.get("cwd").map(Value::span);
        let shown = process.cwd.as_ref().map_or_else(|| directory.display().to_string(), Template::to_string);
        if let Some(place) = &place
            && self.reports_closed(process, (&directory, &shown), ("enter", place))
        {
            return;
        }
        if let Some(message) = check_directory(&directory, &shown) {
            self.error(place.unwrap_or(program), message, "create it, or correct `cwd`");
            return;
        }
        self.inspect_program(process, &process.command, program);
    }

    /// The working directory; `None` if nothing is to be inspected, or if the directory depends on the instance.
    pub(super) fn directory_to_inspect(&self, process: &Process) -> Option<PathBuf> {
        if self.environment.purpose != Purpose::Check {
            return None;
        }
        match process.cwd.as_ref().map(Template::plain) {
            None => Some(self.environment.directory.to_owned()),
            Some(Template::Fixed(path)) => Some(PathBuf::from(OsStr::from_bytes(path.as_bytes()))),
            Some(Template::Numbered { .. } | Template::Expanded { .. }) => None,
        }
    }

    /// Reports why `command`, a probe of `process` at the location `program`, could not be executed now.
    pub(super) fn inspect_program(&mut self, process: &Process, command: &[Template], program: Range<usize>) {
        let Some(directory) = self.directory_to_inspect(process) else { return };
        let Some(first) = command.first() else { return };
        let Template::Fixed(name) = first.plain() else { return };
        // A file that the process reads may set `PATH`.
        let is_path = name.as_bytes().contains(&b'/');
        if name.is_empty() || (!process.env_files.is_empty() && !is_path) {
            return;
        }
        let is_plain = !matches!(first, Template::Expanded { .. });
        let program_path = directory.join(OsStr::from_bytes(name.as_bytes()));
        let shown = if is_plain { program_path.display().to_string() } else { first.to_string() };
        if is_path && self.reports_closed(process, (&program_path, &shown), ("execute", &program)) {
            return;
        }
        let path = self.search_path(process);
        match find_program((name.as_bytes(), &first.to_string()), &path, &directory) {
            Err((message, hint)) => self.error(program, message, hint),
            // Machines can be set up to emulate others: binfmt_misc.
            Ok(file) => {
                let mut head = head_of(&file);
                let path = process.env_files.is_empty().then_some(&*path);
                if let Some((message, hint)) = check_env(&head, command, path, &directory) {
                    self.warning(program.clone(), message, hint);
                }
                let interpreter = interpreter_of(&head).map(|name| PathBuf::from(OsStr::from_bytes(name)));
                let mut shown = first.to_string();
                if let Some(interpreter) = interpreter {
                    head = head_of(&directory.join(&interpreter));
                    shown = interpreter.display().to_string();
                }
                let foreign = architecture::foreign(&head).filter(|name| *name != architecture::COMPATIBLE);
                if let Some(foreign) = foreign {
                    let message = format!("`{shown}` is a program for {foreign}, not for this machine");
                    self.warning(program, message, "install or build it for this architecture");
                } else if !head.starts_with(architecture::ELF_MAGIC) && !architecture::is_text(&head) {
                    let message = format!("`{shown}` is neither a program for this machine nor a script");
                    self.warning(program, message, "install or build it for Linux");
                }
            }
        }
    }

    /// The `PATH` that the process will have.
    fn search_path(&self, process: &Process) -> Vec<u8> {
        let own = process
            .env
            .iter()
            .map(|entry| entry.expand(Numbers::SINGLE))
            .find_map(|entry| entry.as_bytes().strip_prefix(b"PATH=").map(<[u8]>::to_vec));
        let inherited = || self.environment.variable(b"PATH").filter(|_| process.inherit_env).map(<[u8]>::to_vec);
        own.or_else(inherited).unwrap_or_else(|| DEFAULT_PATH.to_vec())
    }
}

impl Decoder<'_> {
    /// Whether the user of `process` cannot enter or execute `path`, which is reported at the place: an error if keepalive
    /// itself has failed, a warning if the mode bits say so. Access control lists are not looked at.
    fn reports_closed(
        &mut self,
        process: &Process,
        (path, shown): (&Path, &str),
        (what, place): (&str, &Range<usize>),
    ) -> bool {
        let user = process.credentials.as_ref();
        let is_closed = |path: &&Path| match user {
            Some(Credentials { uid: 0, .. }) => false,
            Some(user) => std::fs::metadata(path).is_ok_and(|file| !may_execute(user, &file)),
            None => std::fs::metadata(path.join(".")).is_err_and(|error| error.raw_os_error() == Some(libc::EACCES)),
        };
        let Some(at) = path.ancestors().filter(is_closed).last() else { return false };
        let name = self.user_name(user.map_or(self.environment.uid, |user| user.uid));
        let at = place_in(path, at, shown);
        let message = format!("{name} cannot {what} `{shown}`: permission denied at `{at}`");
        let hint = format!("chmod o+x {at}, or run it as another user");
        match user {
            Some(_) => self.warning(place.clone(), &message, &hint),
            None => self.error(place.clone(), &message, &hint),
        }
        true
    }

    /// Why keepalive itself could not create or write a file, in a directory that need not exist.
    pub(super) fn unwritable(&self, path: &Path, shown: &str) -> Option<String> {
        let mut existing = path.ancestors().filter(|path| path.exists());
        let at = existing.next()?;
        // The directory of a file is needed to rotate it.
        let places = [Some(at), if at == path { existing.next() } else { None }];
        let (at, error) =
            places.into_iter().flatten().find_map(|at| Some((at, access(at, AccessFlags::W_OK).err()?)))?;
        let (user, at) = (self.user_name(self.environment.uid), place_in(path, at, shown));
        Some(format!("{user} cannot write `{shown}`: {} at `{at}`", read::describe(&error.into())))
    }

    /// `user www (33)`.
    fn user_name(&self, uid: u32) -> String {
        match self.users.by_id(uid) {
            Some(user) => format!("user {} ({uid})", user.name),
            None => format!("user {uid}"),
        }
    }
}

/// `at`, a part of `path`, for messages. If the path is not shown as it is, because it may contain secrets, neither is a part.
fn place_in(path: &Path, at: &Path, shown: &str) -> String {
    if shown == path.to_string_lossy() { at.display().to_string() } else { shown.to_owned() }
}

/// Judging by the mode bits, inode(7).
fn may_execute(user: &Credentials, file: &Metadata) -> bool {
    let of_group = file.gid() == user.gid || user.groups.contains(&file.gid());
    let bit = if file.uid() == user.uid {
        0o100
    } else if of_group {
        0o010
    } else {
        0o001
    };
    file.mode() & bit != 0
}

fn check_directory(path: &Path, shown: &str) -> Option<String> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => None,
        Ok(_) => Some(format!("`{shown}` is not a directory")),
        Err(error) => Some(format!("cannot use `{shown}` as a directory: {}", read::describe(&error))),
    }
}

/// Searches as execvp(3) does. Returns a message, which names it `shown`, and a hint if the program cannot be executed.
fn find_program((name, shown): (&[u8], &str), path: &[u8], directory: &Path) -> Result<PathBuf, (String, String)> {
    let name = Path::new(OsStr::from_bytes(name));
    let has_slash = name.as_os_str().as_bytes().contains(&b'/');
    let candidates: Vec<PathBuf> = if has_slash {
        vec![directory.join(name)]
    } else {
        let directories = path.split(|byte| *byte == b':').map(|entry| directory.join(OsStr::from_bytes(entry)));
        directories.map(|directory| directory.join(name)).collect()
    };
    let mut found = None;
    for candidate in candidates {
        match std::fs::metadata(&candidate) {
            Ok(metadata) if metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 => {
                return check_interpreter(&candidate, directory).map_or(Ok(candidate), Err);
            }
            Ok(_) => found = found.or(Some(candidate)),
            Err(_) => {}
        }
    }
    match found {
        Some(path) => {
            let (is_directory, path) = (path.is_dir(), path.display());
            Err(match is_directory {
                true => (format!("`{path}` is a directory"), "name a program".to_owned()),
                false => (format!("`{path}` is not executable"), format!("chmod +x {path}")),
            })
        }
        None if has_slash => Err((format!("program `{shown}` not found"), "the path is relative to `cwd`".to_owned())),
        None => {
            let hint = format!("PATH is {}", String::from_utf8_lossy(path));
            Err((format!("program `{shown}` not found in PATH"), hint))
        }
    }
}

/// The beginning of a program; empty if it cannot be read.
fn head_of(program: &Path) -> Vec<u8> {
    let mut head = Vec::new();
    File::open(program).and_then(|file| file.take(MAX_SHEBANG_SIZE).read_to_end(&mut head)).ok();
    head
}

/// The interpreter of a script that begins with `head`.
fn interpreter_of(head: &[u8]) -> Option<&[u8]> {
    words(first_line(head)?).next()
}

/// The first line of a script, without `#!`.
fn first_line(head: &[u8]) -> Option<&[u8]> {
    head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()
}

fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty())
}

/// A message and a hint if the program `command`, whose file begins with `head`, is env(1) or a script for it that will not find
/// in `path` what it is to execute. So too if the first line of a script ends with CR LF.
fn check_env(head: &[u8], command: &[Template], path: Option<&[u8]>, directory: &Path) -> Option<(String, String)> {
    let (program, arguments) = command.split_first()?;
    let program = program.to_string();
    let words: Vec<&[u8]> = match first_line(head).map(<[u8]>::trim_ascii_start) {
        Some(line) if line.ends_with(b"\r") => {
            return Some((format!("the first line of `{program}` ends with CR LF"), "use LF".to_owned()));
        }
        Some(line) => {
            let (interpreter, rest) = line.split_at(line.iter().position(u8::is_ascii_whitespace)?);
            if !interpreter.ends_with(b"/env") {
                return None;
            }
            let rest = rest.trim_ascii();
            // The kernel passes the rest as one argument.
            rest.strip_prefix(b"-S").map_or_else(|| vec![rest], |split| words(split).collect())
        }
        None if program == "env" || program.ends_with("/env") => arguments.iter().map(fixed_text).collect(),
        None => return None,
    };
    // Options can have arguments.
    let target = words.into_iter().find(|word| !word.contains(&b'=')).filter(|word| !word.starts_with(b"-"))?;
    let shown = String::from_utf8_lossy(target);
    let (message, mut hint) = find_program((target, &shown), path?, directory).err()?;
    if shown.contains(' ') {
        hint = format!("write `#!/usr/bin/env -S {shown}`");
    }
    Some((format!("`{program}` will fail: {message}"), hint))
}

/// The text of a word that is the same everywhere and contains no variables.
fn fixed_text(word: &Template) -> &[u8] {
    if let Template::Fixed(text) = word { text.as_bytes() } else { b"-" }
}

/// A message and a hint if the interpreter of a script is missing. execve(2) reports that as if the script were missing.
fn check_interpreter(script: &Path, directory: &Path) -> Option<(String, String)> {
    let head = head_of(script);
    let name = interpreter_of(&head)?;
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

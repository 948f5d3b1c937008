//! Starting a process: the variables that the child reads from files.
//!
//! A child that reads files gets a copy of keepalive's memory, as with fork(2). So it may allocate, and use functions that do,
//! unlike the rest of the child's half (`spawn_child.rs`).

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

use nix::errno::Errno;

use super::child_memory::{ChildMemory, value_of};
use super::exec_failure;
use super::path_search;
use super::spawn_options::EnvFiles;
use super::strings::StringList;
use crate::model::EnvFileError;

/// Reads the files and replaces the environment. The error is a packed failure.
pub(super) fn read(memory: &ChildMemory) -> Result<(), u64> {
    let Some(EnvFiles { files, fixed, read }) = &memory.env_files else { return Ok(()) };
    let mut env: Vec<Vec<u8>> = memory.env.iter().map(<[u8]>::to_vec).collect();
    for (number, (path, is_required)) in (0_u8..).zip(files) {
        match read(Path::new(OsStr::from_bytes(path.as_bytes())), &pairs(&env)) {
            Ok(variables) => {
                for (name, value) in variables {
                    set(&mut env, *fixed, &name, &value);
                }
            }
            Err(EnvFileError::Read(Errno::ENOENT | Errno::ENOTDIR)) if !is_required => {}
            Err(error) => return Err(exec_failure::encode_env(number, error)),
        }
    }
    replace(memory, env.into_iter().collect());
    Ok(())
}

fn pairs(env: &[Vec<u8>]) -> Vec<(OsString, OsString)> {
    let split = |entry: &Vec<u8>| {
        let (name, value) = entry.split_at_checked(entry.iter().position(|byte| *byte == b'=')?)?;
        Some((OsString::from_vec(name.to_vec()), OsString::from_vec(value.get(1..)?.to_vec())))
    };
    env.iter().filter_map(split).collect()
}

/// Variables keep their positions, which `ChildMemory::pid_variables` knows.
fn set(env: &mut Vec<Vec<u8>>, fixed: usize, name: &[u8], value: &[u8]) {
    let prefix = [name, b"="].concat();
    let entry = [prefix.as_slice(), value].concat();
    match env.iter_mut().enumerate().find(|(_, known)| known.starts_with(&prefix)) {
        Some((position, known)) if position >= fixed => *known = entry,
        Some(_) => {}
        None => env.push(entry),
    }
}

/// Replaces the environment, and the paths to be tried for the program, which depend on `PATH`. Both are never freed:
/// execve(2) releases all memory.
fn replace(memory: &ChildMemory, env: StringList) {
    let env: &StringList = Box::leak(Box::new(env));
    let candidates = Box::leak(Box::new(StringList::new()));
    let program = memory.argv.get(0).unwrap_or_default();
    path_search::candidates(program, || value_of(env, b"PATH="), candidates);
    // SAFETY: only this child uses its copy of the vectors.
    let pointers = unsafe { &mut *memory.env_pointers.get() };
    pointers.clear();
    env.append_pointers(pointers);
    pointers.push(std::ptr::null());
    // SAFETY: as above.
    let pointers = unsafe { &mut *memory.candidate_pointers.get() };
    pointers.clear();
    candidates.append_pointers(pointers);
    pointers.push(std::ptr::null());
}

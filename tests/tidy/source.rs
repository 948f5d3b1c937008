//! Reads the files of the repository.

use std::fs;
use std::path::{Path, PathBuf};

/// The files in `folder` and below that end with `.rs`.
pub(crate) fn rust_files(folder: impl AsRef<Path>) -> Vec<PathBuf> {
    let all = files(folder.as_ref()).into_iter();
    all.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

/// All files in `path` and below, or `path` itself if it is a file.
pub(crate) fn files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.flat_map(|entry| files_of(&entry)).collect();
    files.sort();
    files
}

fn files_of(path: &Path) -> Vec<PathBuf> {
    if path.is_symlink() { Vec::new() } else { files(path) }
}

pub(crate) fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap()
}

/// The text of a file without comments and without the tests at its end.
pub(crate) fn code_of(file: &Path) -> String {
    let text = read(file);
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    code_lines(text).map(|(_, line)| format!("{line}\n")).collect()
}

/// Lines that are not comments, counted from 1.
pub(crate) fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line)).filter(|(_, line)| !line.trim().starts_with("//"))
}

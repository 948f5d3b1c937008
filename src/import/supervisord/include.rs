//! `[include]`: the files whose sections belong to the configuration.

use std::path::{Path, PathBuf};

use super::expansion::{Names, ProcessNumber, expand, here};
use crate::import::import_error::ImportError;
use crate::import::ini::{self, Section};
use crate::import::source::read;
use crate::import::text::{Piece, Text};
use crate::model::glob;

/// How many files one configuration may include.
const MAX_FILES: usize = 1_000;

/// The sections of `path` and of the files that it includes, and a note for each pattern without a file.
pub(super) fn sections(path: &Path, text: &str) -> Result<(Vec<Section>, Vec<String>), ImportError> {
    let mut sections = ini::python(path, text)?;
    let mut notes = Vec::new();
    let include = sections.iter().find(|section| section.name == "include").cloned();
    let files = include.as_ref().and_then(|include| include.get("files"));
    if let (Some(include), None) = (&include, files) {
        return Err(include.error("files", "`[include]` has no `files`", "name the files, or remove the section"));
    }
    for pattern in files.unwrap_or_default().split_whitespace() {
        let include = include.as_ref().map_or(path, |section| &section.path);
        let names = Names { program: "", group: "", count: 1, number: ProcessNumber::Fixed(0), path: include };
        let expanded =
            expand(pattern, &names).map_err(|message| ImportError::new(path.display().to_string(), message, ""))?;
        let pattern = PathBuf::from(here(path)).join(with_environment(&expanded));
        let found = files_of(&pattern);
        if found.is_empty() {
            notes.push(format!("[include]: there is no file `{}` here: import it where it is", pattern.display()));
        }
        for file in found.into_iter().take(MAX_FILES) {
            let text = read(&file)?;
            sections.extend(ini::python(&file, &text)?);
        }
    }
    Ok((sections, notes))
}

/// The names of included files are needed now.
fn with_environment(text: &Text) -> String {
    let piece = |piece: &Piece| match piece {
        Piece::Literal(text) => text.clone(),
        Piece::Variable(name, _) => std::env::var(name).unwrap_or_default(),
        Piece::Placeholder(name) => (*name).to_owned(),
    };
    text.0.iter().map(piece).collect()
}

/// The files that match `pattern`, in order.
fn files_of(pattern: &Path) -> Vec<PathBuf> {
    let mut paths = vec![PathBuf::new()];
    for component in pattern.components() {
        let name = component.as_os_str();
        let bytes = name.as_encoded_bytes();
        let expanded = paths.into_iter().flat_map(|path| {
            if !glob::is_pattern(bytes) {
                return vec![path.join(name)];
            }
            let entries = std::fs::read_dir(&path).into_iter().flatten().filter_map(Result::ok);
            let names = entries.map(|entry| entry.file_name());
            // A pattern does not match a hidden file. glob(7)
            let is_match = |name: &std::ffi::OsString| {
                let name = name.as_encoded_bytes();
                glob::matches(bytes, name) && (!name.starts_with(b".") || bytes.starts_with(b"."))
            };
            let mut found: Vec<PathBuf> = names.filter(is_match).map(|name| path.join(name)).collect();
            found.sort();
            found
        });
        paths = expanded.collect();
    }
    paths.retain(|path| path.is_file());
    paths
}

//! Files with sections: those of supervisord, as Python reads them, and units of systemd.
//!
//! No crate for INI files knows the continuation lines and comments of both, and the line of each key.

use std::path::{Path, PathBuf};

use super::import_error::ImportError;

/// `key = value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: String,
    /// Without comments; continuation lines follow after newlines.
    pub(super) value: String,
    pub(super) line: usize,
}

/// `[name]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) line: usize,
    pub(super) entries: Vec<Entry>,
}

impl Section {
    /// The last value of `key`.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.entry(key).map(|entry| entry.value.as_str())
    }

    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().rev().find(|entry| entry.key == key)
    }

    /// An error in the value of `key`.
    pub(super) fn error(&self, key: &str, message: impl Into<String>, remedy: impl Into<String>) -> ImportError {
        ImportError::at(&self.path, self.entry(key).map_or(self.line, |entry| entry.line), message, remedy)
    }
}

/// As Python's `RawConfigParser` with `inline_comment_prefixes=(';', '#')`: an indented line continues the value, keys are
/// in lower case.
pub(super) fn python(path: &Path, text: &str) -> Result<Vec<Section>, ImportError> {
    let mut sections: Vec<Section> = Vec::new();
    // The indentation of the key whose value can be continued.
    let mut open: Option<usize> = None;
    for (number, line) in text.lines().enumerate().map(|(number, line)| (number + 1, line)) {
        let content = without_comment(line).trim();
        let indent = line.len() - line.trim_start().len();
        let section = sections.last_mut();
        if content.is_empty() {
            continue;
        }
        if let (Some(of_key), Some(entry)) = (open, section.and_then(|section| section.entries.last_mut()))
            && indent > of_key
        {
            entry.value.push('\n');
            entry.value.push_str(content);
            continue;
        }
        if let Some(name) = section_name(content) {
            sections.push(Section { name: name.to_owned(), path: path.to_owned(), line: number, entries: Vec::new() });
            open = None;
            continue;
        }
        let entry = content.split_once(['=', ':']).map(|(key, value)| (key.trim(), value.trim()));
        let (Some((key, value)), Some(section)) = (entry.filter(|(key, _)| !key.is_empty()), sections.last_mut())
        else {
            return Err(ImportError::at(
                path,
                number,
                "this line is not understood",
                "expected `key=value` or `[section]`",
            ));
        };
        section.entries.push(Entry { key: key.to_ascii_lowercase(), value: value.to_owned(), line: number });
        open = Some(indent);
    }
    Ok(sections)
}

/// As systemd.syntax(7): comments have lines of their own, a backslash at the end of a line joins it with the next one.
pub(super) fn systemd(path: &Path, text: &str) -> Result<Vec<Section>, ImportError> {
    let mut sections: Vec<Section> = Vec::new();
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with(['#', ';']));
    while let Some((number, line)) = lines.next() {
        let mut content = line.trim().to_owned();
        while let Some(start) = content.strip_suffix('\\') {
            let next = lines.next().map_or("", |(_, line)| line.trim());
            content = format!("{} {next}", start.trim_end());
        }
        if content.is_empty() {
            continue;
        }
        if let Some(name) = section_name(&content) {
            sections.push(Section {
                name: name.to_owned(),
                path: path.to_owned(),
                line: number + 1,
                entries: Vec::new(),
            });
            continue;
        }
        let (Some((key, value)), Some(section)) = (content.split_once('='), sections.last_mut()) else {
            let remedy = "expected `Key=value` or `[Section]`";
            return Err(ImportError::at(path, number + 1, "this line is not understood", remedy));
        };
        let (key, value) = (key.trim().to_owned(), value.trim().to_owned());
        section.entries.push(Entry { key, value, line: number + 1 });
    }
    Ok(sections)
}

/// `line` up to a `;` or `#` at its start or after a blank.
fn without_comment(line: &str) -> &str {
    let mut previous = ' ';
    for (position, letter) in line.char_indices() {
        if matches!(letter, ';' | '#') && previous.is_whitespace() {
            return line.get(..position).unwrap_or(line);
        }
        previous = letter;
    }
    line
}

fn section_name(content: &str) -> Option<&str> {
    content.strip_prefix('[')?.split_once(']').map(|(name, _)| name.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    // configparser: "Values can also span multiple lines, as long as they are indented deeper than the first line".
    #[test]
    fn continuation_lines_and_comments_are_those_of_python() {
        let text = "; c\n[a] ; x\nKey = one ; two\n  three # four\n\n  five;six\nother: a=b\n  # c\n[b]\nx=\n";
        let sections = python(Path::new("f"), text).unwrap();
        let entries: Vec<_> = sections.iter().flat_map(|section| &section.entries).collect();
        let shown: Vec<_> =
            entries.iter().map(|entry| (entry.key.as_str(), entry.value.as_str(), entry.line)).collect();
        assert_eq!(shown, [("key", "one\nthree\nfive;six", 3), ("other", "a=b", 7), ("x", "", 10)]);
        assert_eq!(python(Path::new("f"), "[a]\nx\n").unwrap_err().place, "f:2");
        assert_eq!(python(Path::new("f"), "x=1\n").unwrap_err().place, "f:1");
    }

    // systemd.syntax(7): "Lines ending in a backslash are concatenated with the following non-comment line".
    #[test]
    fn continuation_lines_and_comments_are_those_of_systemd() {
        let text = "# c\n[Service]\nExecStart=/bin/a \\\n  # c\n  --b ; c \\\n  d\n; c\n\nUser = x # y\n";
        let sections = systemd(Path::new("f"), text).unwrap();
        let entries: Vec<_> = sections.iter().flat_map(|section| &section.entries).collect();
        let shown: Vec<_> =
            entries.iter().map(|entry| (entry.key.as_str(), entry.value.as_str(), entry.line)).collect();
        assert_eq!(shown, [("ExecStart", "/bin/a --b ; c d", 3), ("User", "x # y", 9)]);
        assert_eq!(systemd(Path::new("f"), "[Service]\nx\n").unwrap_err().place, "f:2");
    }
}

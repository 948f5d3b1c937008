//! `%(NAME)s` in values. https://supervisord.org/configuration.html#environment-variables

use std::path::Path;

use crate::import::text::{Piece, Text};

/// What `%(process_num)d` becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProcessNumber {
    Instance,
    Fixed(u64),
}

/// The values of names.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names<'n> {
    pub(super) program: &'n str,
    pub(super) group: &'n str,
    pub(super) count: u64,
    pub(super) number: ProcessNumber,
    /// The file that contains the value.
    pub(super) path: &'n Path,
}

/// `text` with its names expanded.
///
/// # Errors
/// What is not understood.
pub(super) fn expand(text: &str, names: &Names<'_>) -> Result<Text, String> {
    let mut result = Text::default();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        result.push_str(before);
        if let Some(after) = after.strip_prefix('%') {
            result.push('%');
            rest = after;
            continue;
        }
        let parts = after.strip_prefix('(').and_then(|after| after.split_once(')'));
        let Some((name, after)) = parts else {
            return Err("`%` stands alone: a literal one is written `%%`".to_owned());
        };
        let end = after.find(|letter: char| letter.is_ascii_alphabetic()).filter(|end| *end < 4);
        let Some((format, after)) = end.and_then(|end| after.split_at_checked(end)) else {
            return Err(format!("`%({name})` needs a letter after it, such as `s`"));
        };
        push_name(&mut result, name, format, names)?;
        rest = after.get(1..).unwrap_or_default();
    }
    result.push_str(rest);
    Ok(result)
}

fn push_name(result: &mut Text, name: &str, format: &str, names: &Names<'_>) -> Result<(), String> {
    let width = format.parse().unwrap_or(0_usize);
    match name {
        "program_name" => result.push_str(names.program),
        "group_name" => result.push_str(names.group),
        "numprocs" => result.push_str(&names.count.to_string()),
        "here" => result.push_str(&here(names.path)),
        "host_node_name" => result.0.push(Piece::Variable("HOSTNAME".to_owned(), None)),
        "process_num" => match names.number {
            ProcessNumber::Fixed(number) => result.push_str(&format!("{number:0width$}")),
            ProcessNumber::Instance => {
                result.push_str(&"0".repeat(width.saturating_sub(1)));
                result.0.push(Piece::Placeholder("{instance}"));
            }
        },
        _ => match name.strip_prefix("ENV_") {
            Some(name) => result.0.push(Piece::Variable(name.to_owned(), None)),
            None => return Err(format!("`%({name})` is unknown")),
        },
    }
    Ok(())
}

/// The directory of a file.
pub(super) fn here(path: &Path) -> String {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    path.parent().unwrap_or(&path).display().to_string()
}

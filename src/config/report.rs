//! Errors and warnings with their source locations, and their display: `file:line:column`, the line, a caret, a hint.

use std::fmt;
use std::ops::Range;

use crate::model::Plan;

/// How many characters of a source line are shown before and after the location.
const MAX_EXCERPT_CHARS: usize = 120;

/// How many characters of a diagnostic are shown on one line.
const MAX_SHORT_CHARS: usize = 500;

/// How many errors are shown. More are not read, and each needs a search for its line.
pub(super) const MAX_SHOWN_ERRORS: usize = 200;

/// A file that was read, or the command line.
#[derive(Debug)]
pub(super) struct Source {
    /// The path as the user gave it.
    pub(super) name: String,
    /// The content without a byte order mark. TOML is UTF-8; an `env_file` may contain any bytes.
    pub(super) bytes: Vec<u8>,
    /// Whether its lines must not be shown: they may contain passwords.
    pub(super) is_secret: bool,
}

/// A location in the sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Location {
    /// The position in the list of sources.
    pub(super) source: usize,
    /// The byte range; `None`: the source as a whole.
    pub(super) span: Option<Range<usize>>,
}

impl Location {
    /// The sort key: by source, then by position.
    fn order(&self) -> (usize, usize) {
        (self.source, self.span.as_ref().map_or(0, |span| span.start + 1))
    }
}

/// An error or warning before line and column are computed.
#[derive(Debug)]
pub(super) struct UnlocatedDiagnostic {
    pub(super) location: Location,
    pub(super) message: String,
    /// How to correct it; may be empty.
    pub(super) hint: String,
}

impl UnlocatedDiagnostic {
    pub(super) fn new(source: usize, span: Range<usize>, message: String, hint: String) -> Self {
        Self { location: Location { source, span: Some(span) }, message, hint }
    }
}

/// An error or warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The path of the file as the user gave it, or `command line`.
    pub file: String,
    /// The line, from 1; 0 for the file as a whole.
    pub line: usize,
    /// The column in characters, from 1; 0 for the file as a whole.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// How to correct it; may be empty.
    pub hint: String,
    /// The line with a caret under the location; may be empty.
    pub excerpt: String,
}

/// A valid configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The plan.
    pub plan: Plan,
    /// The warnings.
    pub warnings: Vec<Diagnostic>,
}

/// The name of the source for the options of `keepalive run`.
pub(super) const COMMAND_LINE: &str = "command line";

/// All errors in a configuration, in the order of files and lines. Has at least one error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The errors.
    pub errors: Vec<Diagnostic>,
    /// How many more errors there are.
    pub omitted: usize,
    /// The warnings.
    pub warnings: Vec<Diagnostic>,
}

impl Diagnostic {
    /// One line of bounded length, without the excerpt.
    #[must_use]
    pub fn in_short(&self) -> String {
        let Self { file, line, column, message, hint, .. } = self;
        let hint = if hint.is_empty() { String::new() } else { format!(" ({hint})") };
        format!("{file}:{line}:{column}: {message}{hint}").chars().take(MAX_SHORT_CHARS).collect()
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.file)?;
        if self.line > 0 {
            write!(formatter, ":{}:{}", self.line, self.column)?;
        }
        write!(formatter, ": {}\n{}", self.message, self.excerpt)?;
        if self.hint.is_empty() { Ok(()) } else { writeln!(formatter, "  = {}", self.hint) }
    }
}

impl fmt::Display for Report {
    /// Each diagnostic followed by an empty line, then the number of errors.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_warnings(&self.warnings, formatter)?;
        for error in &self.errors {
            writeln!(formatter, "{error}")?;
        }
        let is_inline = self.errors.iter().all(|error| error.file == COMMAND_LINE);
        let place = if is_inline { "on the command line" } else { "in the configuration" };
        match self.errors.len() + self.omitted {
            1 => writeln!(formatter, "1 error {place}"),
            count if self.omitted == 0 => writeln!(formatter, "{count} errors {place}"),
            count => writeln!(formatter, "{count} errors {place}, {} of them shown", self.errors.len()),
        }
    }
}

/// Writes each warning followed by an empty line.
///
/// # Errors
/// The errors of `output`.
pub fn write_warnings(warnings: &[Diagnostic], output: &mut impl fmt::Write) -> fmt::Result {
    warnings.iter().try_for_each(|warning| writeln!(output, "warning: {warning}"))
}

impl Source {
    /// The line and column of the byte at `offset`, both from 1.
    pub(super) fn position(&self, offset: usize) -> (usize, usize) {
        let before = self.bytes.get(..offset).unwrap_or(&self.bytes);
        let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        (line, characters(before.get(start..).unwrap_or_default()) + 1)
    }

    /// The first line of `span` with carets below.
    fn excerpt(&self, span: &Range<usize>, line: usize) -> String {
        let offset = span.start.min(self.bytes.len());
        let (before, after) = self.bytes.split_at(offset);
        let is_newline = |byte: &u8| *byte == b'\n';
        let before = before.rsplit(is_newline).next().unwrap_or_default();
        let after = after.split(is_newline).next().unwrap_or_default();
        let length = span.end.saturating_sub(offset).min(after.len());
        let marked = characters(after.get(..length).unwrap_or_default()).max(1);
        let (before, after) = (window(visible(before)), visible(after));
        let after = after.trim_end();
        let shown: String = after.chars().take(MAX_EXCERPT_CHARS).collect();
        let cut = if shown.len() < after.len() { "…" } else { "" };
        let padding: String =
            before.chars().map(|character| if character == '\t' { "\t" } else { blanks(character) }).collect();
        let carets =
            "^".repeat(shown.chars().take(marked).map(|character| blanks(character).len()).sum::<usize>().max(1));
        let gutter = " ".repeat(line.to_string().len());
        format!("  {line} | {before}{shown}{cut}\n  {gutter} | {padding}{carets}\n")
    }
}

/// As many spaces as `character` has columns on a terminal: two for ideographs and emoji, none for combining marks.
fn blanks(character: char) -> &'static str {
    match character {
        '\u{300}'..='\u{36f}' | '\u{200b}'..='\u{200f}' | '\u{20d0}'..='\u{20ff}' | '\u{fe00}'..='\u{fe0f}' => "",
        '\u{1100}'..='\u{115f}'
        | '\u{2e80}'..='\u{303e}'
        | '\u{3041}'..='\u{a4cf}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}'
        | '\u{ff00}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}'
        | '\u{1f300}'..='\u{1f64f}'
        | '\u{1f680}'..='\u{1f6ff}'
        | '\u{1f900}'..='\u{1f9ff}'
        | '\u{20000}'..='\u{3fffd}' => "  ",
        _ => " ",
    }
}

/// The number of characters. An invalid sequence counts as one.
fn characters(bytes: &[u8]) -> usize {
    String::from_utf8_lossy(bytes).chars().count()
}

/// Replaces control characters other than tabs, so that the text is safe to print on a terminal.
fn visible(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let is_hidden = |character: char| character.is_control() && character != '\t' && character != '\r';
    text.chars().filter(|character| *character != '\r').map(|c| if is_hidden(c) { '\u{fffd}' } else { c }).collect()
}

/// The end of the text before a location, if the text is long.
fn window(before: String) -> String {
    let count = before.chars().count();
    if count <= MAX_EXCERPT_CHARS {
        return before;
    }
    let end: String = before.chars().skip(count - MAX_EXCERPT_CHARS / 2).collect();
    format!("…{end}")
}

/// Sorts diagnostics by location, removes duplicates and computes lines and columns. Also returns how many are omitted.
pub(super) fn locate(diagnostics: &[UnlocatedDiagnostic], sources: &[&Source]) -> (Vec<Diagnostic>, usize) {
    let order = order_of(diagnostics.iter().map(|diagnostic| diagnostic.location.order()));
    let mut sorted: Vec<&UnlocatedDiagnostic> =
        order.into_iter().filter_map(|position| diagnostics.get(position)).collect();
    sorted.dedup_by(|next, previous| next.location == previous.location && next.message == previous.message);
    let shown = sorted.iter().take(MAX_SHOWN_ERRORS).map(|diagnostic| locate_one(diagnostic, sources)).collect();
    (shown, sorted.len().saturating_sub(MAX_SHOWN_ERRORS))
}

/// The indices that sort `positions`. All sorting of this folder happens here, because each type that is sorted adds 5 KiB of
/// code.
pub(super) fn order_of(positions: impl Iterator<Item = (usize, usize)>) -> Vec<usize> {
    let mut order: Vec<((usize, usize), usize)> =
        positions.enumerate().map(|(index, position)| (position, index)).collect();
    sort(&mut order);
    order.into_iter().map(|(_, index)| index).collect()
}

fn sort(order: &mut [((usize, usize), usize)]) {
    order.sort_unstable();
}

fn locate_one(diagnostic: &UnlocatedDiagnostic, sources: &[&Source]) -> Diagnostic {
    let UnlocatedDiagnostic { location, message, hint } = diagnostic;
    let (message, hint) = (visible(message.as_bytes()), visible(hint.as_bytes()));
    let source = sources.get(location.source);
    let (mut line, mut column, mut excerpt) = (0, 0, String::new());
    if let (Some(source), Some(span)) = (source, &location.span) {
        (line, column) = source.position(span.start);
        excerpt = if source.is_secret { String::new() } else { source.excerpt(span, line) };
    }
    let file = source.map_or_else(String::new, |source| source.name.clone());
    Diagnostic { file, line, column, message, hint, excerpt }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &[u8], span: Range<usize>, expect: &str) {
        let source = Source { name: "a.toml".to_owned(), bytes: text.to_vec(), is_secret: false };
        let location = Location { source: 0, span: Some(span) };
        let diagnostic = UnlocatedDiagnostic { location, message: "wrong".to_owned(), hint: "right".to_owned() };
        let (findings, _) = locate(&[diagnostic], &[&source]);
        assert_eq!(findings[0].to_string(), expect);
    }

    #[test]
    fn the_caret_is_under_the_location() {
        check(b"a = 1\nbc = two\n", 11..14, "a.toml:2:6: wrong\n  2 | bc = two\n    |      ^^^\n  = right\n");
    }

    #[test]
    fn the_caret_is_aligned_after_tabs_and_wide_characters() {
        check("\tü = x\r\n".as_bytes(), 6..7, "a.toml:1:6: wrong\n  1 | \tü = x\n    | \t    ^\n  = right\n");
    }

    // Unicode Standard Annex #11: W and F take two columns.
    #[test]
    fn the_caret_is_aligned_after_characters_of_two_columns_and_of_none() {
        check(
            "日本e\u{301} = 😀x".as_bytes(),
            12..17,
            "a.toml:1:8: wrong\n  1 | 日本e\u{301} = 😀x\n    |         ^^^\n  = right\n",
        );
    }

    #[test]
    fn a_location_at_or_beyond_the_end_is_shown() {
        check(b"a", 1..1, "a.toml:1:2: wrong\n  1 | a\n    |  ^\n  = right\n");
        check(b"a", 7..9, "a.toml:1:2: wrong\n  1 | a\n    |  ^\n  = right\n");
        check(b"", 0..0, "a.toml:1:1: wrong\n  1 | \n    | ^\n  = right\n");
    }

    #[test]
    fn a_span_over_several_lines_is_marked_to_the_end_of_the_first() {
        check(b"a = [\n1]\n", 4..8, "a.toml:1:5: wrong\n  1 | a = [\n    |     ^\n  = right\n");
    }

    #[test]
    fn control_characters_of_names_do_not_reach_the_terminal() {
        let (message, hint) = ("`\x1b[2J`".to_owned(), "`\x07`\n".to_owned());
        let source = Source { name: "a.toml".to_owned(), bytes: Vec::new(), is_secret: false };
        let (findings, _) =
            locate(&[UnlocatedDiagnostic { location: Location { source: 0, span: None }, message, hint }], &[&source]);
        assert_eq!(findings[0].to_string(), "a.toml: `\u{fffd}[2J`\n  = `\u{fffd}`\u{fffd}\n");
    }

    #[test]
    fn control_characters_and_broken_text_do_not_reach_the_terminal() {
        check(b"\x1b[2J\xff = 1", 5..6, "a.toml:1:6: wrong\n  1 | \u{fffd}[2J\u{fffd} = 1\n    |      ^\n  = right\n");
    }
}

//! Faults with their places, and how they are shown: `file:line:column`, the line, a caret, the remedy.

use std::fmt;
use std::ops::Range;

/// How many characters of a source line are shown around a fault.
const EXCERPT_LIMIT: usize = 120;

/// More faults than anybody reads, and each costs a search for its line.
pub(super) const FAULT_LIMIT: usize = 200;

/// A text that was read, with what is needed to find places in it.
#[derive(Debug)]
pub(super) struct Source {
    /// As the user named it.
    pub(super) name: String,
    /// Without a byte order mark. UTF-8 if it is TOML; an `env_file` may hold any bytes.
    pub(super) bytes: Vec<u8>,
}

/// Where a fault is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Position in the list of sources.
    pub(super) source: usize,
    /// Bytes of the source; `None`: the source as a whole.
    pub(super) span: Option<Range<usize>>,
}

impl Place {
    /// What comes first in the sources is less.
    fn order(&self) -> (usize, usize) {
        (self.source, self.span.as_ref().map_or(0, |span| span.start + 1))
    }
}

/// One thing that is wrong, not yet related to lines.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) place: Place,
    pub(super) message: String,
    /// What would be right; empty if nothing can be said.
    pub(super) hint: String,
}

/// One thing that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// The file, as the user named it, or `command line`.
    pub file: String,
    /// From 1; 0 if it concerns the file as a whole.
    pub line: usize,
    /// In characters, from 1; 0 if it concerns the file as a whole.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What would be right; may be empty.
    pub hint: String,
    /// The line with a caret under the place; may be empty.
    #[serde(skip)]
    pub excerpt: String,
}

/// What stands in place of a file's name for options of `run`.
pub(super) const COMMAND_LINE: &str = "command line";

/// Everything that is wrong with a configuration, in the order of files and lines. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Why it cannot be used.
    pub errors: Vec<Finding>,
    /// How many more errors there are than `errors` shows.
    pub omitted: usize,
    /// What is odd besides.
    pub warnings: Vec<Finding>,
}

impl fmt::Display for Finding {
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
    /// Each finding with an empty line after it, and how many there are.
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

/// Each warning, marked as one, with an empty line after it.
///
/// # Errors
/// Those of `output`.
pub fn write_warnings(warnings: &[Finding], output: &mut impl fmt::Write) -> fmt::Result {
    warnings.iter().try_for_each(|warning| writeln!(output, "warning: {warning}"))
}

impl Source {
    /// Line and column, from 1, of the byte at `offset`.
    pub(super) fn position(&self, offset: usize) -> (usize, usize) {
        let before = self.bytes.get(..offset).unwrap_or(&self.bytes);
        let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        (line, characters(before.get(start..).unwrap_or_default()) + 1)
    }

    /// The line on which `span` begins, with carets below.
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
        let shown: String = after.chars().take(EXCERPT_LIMIT).collect();
        let cut = if shown.len() < after.len() { "…" } else { "" };
        let padding: String =
            before.chars().map(|character| if character == '\t' { "\t" } else { blanks(character) }).collect();
        let carets =
            "^".repeat(shown.chars().take(marked).map(|character| blanks(character).len()).sum::<usize>().max(1));
        let gutter = " ".repeat(line.to_string().len());
        format!("  {line} | {before}{shown}{cut}\n  {gutter} | {padding}{carets}\n")
    }
}

/// Blanks as wide as `character` is on a terminal: two for ideographs and emoji, none for marks that stand on another.
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

/// Number of characters, counting each broken sequence as one.
fn characters(bytes: &[u8]) -> usize {
    String::from_utf8_lossy(bytes).chars().count()
}

/// Fit for a terminal: no control characters but tabs.
fn visible(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let is_hidden = |character: char| character.is_control() && character != '\t' && character != '\r';
    text.chars().filter(|character| *character != '\r').map(|c| if is_hidden(c) { '\u{fffd}' } else { c }).collect()
}

/// The end of what stands before a fault, if that is long.
fn window(before: String) -> String {
    let count = before.chars().count();
    if count <= EXCERPT_LIMIT {
        return before;
    }
    let end: String = before.chars().skip(count - EXCERPT_LIMIT / 2).collect();
    format!("…{end}")
}

/// Sorts faults by place, without duplicates, and relates them to lines. Gives back how many were too many, too.
pub(super) fn locate(faults: &[Fault], sources: &[&Source]) -> (Vec<Finding>, usize) {
    let order = order_of(faults.iter().map(|fault| fault.place.order()));
    let mut sorted: Vec<&Fault> = order.into_iter().filter_map(|position| faults.get(position)).collect();
    sorted.dedup_by(|next, previous| next.place == previous.place && next.message == previous.message);
    let shown = sorted.iter().take(FAULT_LIMIT).map(|fault| locate_one(fault, sources)).collect();
    (shown, sorted.len().saturating_sub(FAULT_LIMIT))
}

/// The positions of `places` as they stand in the sources. All sorting of this room happens here: each type that is
/// sorted costs five kilobytes.
pub(super) fn order_of(places: impl Iterator<Item = (usize, usize)>) -> Vec<usize> {
    let mut order: Vec<((usize, usize), usize)> =
        places.enumerate().map(|(position, place)| (place, position)).collect();
    sort(&mut order);
    order.into_iter().map(|(_, position)| position).collect()
}

fn sort(order: &mut [((usize, usize), usize)]) {
    order.sort_unstable();
}

fn locate_one(fault: &Fault, sources: &[&Source]) -> Finding {
    let Fault { place, message, hint } = fault;
    let (message, hint) = (visible(message.as_bytes()), visible(hint.as_bytes()));
    let source = sources.get(place.source);
    let (mut line, mut column, mut excerpt) = (0, 0, String::new());
    if let (Some(source), Some(span)) = (source, &place.span) {
        (line, column) = source.position(span.start);
        excerpt = source.excerpt(span, line);
    }
    let file = source.map_or_else(String::new, |source| source.name.clone());
    Finding { file, line, column, message, hint, excerpt }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &[u8], span: Range<usize>, expect: &str) {
        let source = Source { name: "a.toml".to_owned(), bytes: text.to_vec() };
        let place = Place { source: 0, span: Some(span) };
        let fault = Fault { place, message: "wrong".to_owned(), hint: "right".to_owned() };
        let (findings, _) = locate(&[fault], &[&source]);
        assert_eq!(findings[0].to_string(), expect);
    }

    #[test]
    fn the_caret_stands_under_the_place() {
        check(b"a = 1\nbc = two\n", 11..14, "a.toml:2:6: wrong\n  2 | bc = two\n    |      ^^^\n  = right\n");
    }

    #[test]
    fn tabs_and_wide_characters_before_the_place_keep_the_caret_in_line() {
        check("\tü = x\r\n".as_bytes(), 6..7, "a.toml:1:6: wrong\n  1 | \tü = x\n    | \t    ^\n  = right\n");
    }

    // Unicode Standard Annex #11: W and F take two columns.
    #[test]
    fn characters_of_two_columns_and_of_none_keep_the_caret_in_line() {
        check(
            "日本e\u{301} = 😀x".as_bytes(),
            12..17,
            "a.toml:1:8: wrong\n  1 | 日本e\u{301} = 😀x\n    |         ^^^\n  = right\n",
        );
    }

    #[test]
    fn a_place_at_the_end_and_one_beyond_it_are_shown() {
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
        let source = Source { name: "a.toml".to_owned(), bytes: Vec::new() };
        let (findings, _) = locate(&[Fault { place: Place { source: 0, span: None }, message, hint }], &[&source]);
        assert_eq!(findings[0].to_string(), "a.toml: `\u{fffd}[2J`\n  = `\u{fffd}`\u{fffd}\n");
    }

    #[test]
    fn control_characters_and_broken_text_do_not_reach_the_terminal() {
        check(b"\x1b[2J\xff = 1", 5..6, "a.toml:1:6: wrong\n  1 | \u{fffd}[2J\u{fffd} = 1\n    |      ^\n  = right\n");
    }
}

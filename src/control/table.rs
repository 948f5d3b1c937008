//! Tables, as wide as their cells and no wider than the screen.
//!
//! All cells are in one string: a table can have thousands, and an allocation for each would cost more than all the rest.

use std::borrow::Cow;
use std::fmt::{self, Display, Formatter, Write as _};

use super::output::Colour;
use crate::model::visible::one_line;

/// Spaces between two columns.
const COLUMN_GAP: usize = 2;
/// The least width of the first column on a narrow screen.
const MIN_FIRST_COLUMN: usize = 8;

/// The alignment of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

/// A value, or a `-`.
#[derive(Clone, Copy, Debug)]
pub(super) struct OrDash<T>(pub(super) Option<T>);

impl<T: Display> Display for OrDash<T> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(shown) => shown.fmt(formatter),
            None => formatter.write_str("-"),
        }
    }
}

/// A table. On a narrow screen the first column is shortened, and then the last columns, the least important, are omitted.
#[derive(Debug)]
pub(super) struct Table {
    head: &'static [(&'static str, Side)],
    /// The width of the longest cell of each column.
    widths: Vec<usize>,
    /// The cells and the note of each row, in order.
    text: String,
    /// The end of each of them in `text`.
    ends: Vec<usize>,
    /// The colour (SGR) of the second cell of each row.
    colours: Vec<&'static str>,
}

impl Table {
    pub(super) fn new(head: &'static [(&'static str, Side)]) -> Self {
        let widths = head.iter().map(|(name, _)| length(name)).collect();
        Self { head, widths, text: String::new(), ends: Vec::new(), colours: Vec::new() }
    }

    /// Adds a row: a cell for each column, the colour (SGR) of the second, and a note for a line of its own unless empty.
    pub(super) fn push(&mut self, cells: &[&dyn Display], colour: &'static str, note: &str) {
        for (position, width) in self.widths.iter_mut().enumerate() {
            let start = self.text.len();
            if let Some(cell) = cells.get(position) {
                // Writing to a String cannot fail.
                let _ = write!(self.text, "{cell}");
            }
            if self.text.get(start..).is_some_and(|cell| cell.contains(char::is_control)) {
                let cell = self.text.split_off(start);
                self.text.push_str(&one_line(&cell));
            }
            *width = length(self.text.get(start..).unwrap_or_default()).max(*width);
            self.ends.push(self.text.len());
        }
        self.text.push_str(note);
        self.ends.push(self.text.len());
        self.colours.push(colour);
    }

    /// Renders lines of at most `columns` characters, each with a newline.
    pub(super) fn render(&self, columns: usize, colour: Colour) -> String {
        let widths = self.widths(columns);
        let line = widths.iter().sum::<usize>() + COLUMN_GAP * widths.len();
        let mut out = String::with_capacity(line * (self.colours.len() + 1));
        let all = colour.code("1");
        self.line(&mut out, &widths, &mut self.head.iter().map(|(name, _)| *name), [all, all]);
        let mut start = 0;
        let mut texts =
            self.ends.iter().map(|end| self.text.get(std::mem::replace(&mut start, *end)..*end).unwrap_or_default());
        for second in &self.colours {
            self.line(&mut out, &widths, &mut texts, [None, colour.code(second)]);
            // After the columns that are omitted.
            let note = texts.nth(self.head.len() - widths.len()).unwrap_or_default();
            if !note.is_empty() {
                out.push_str("  ");
                out.push_str(&shortened(&one_line(note), columns.saturating_sub(2)));
                out.push('\n');
            }
        }
        out
    }

    /// The widths of the columns that fit, at least two.
    fn widths(&self, columns: usize) -> Vec<usize> {
        let mut widths = self.widths.clone();
        let first = widths.first().copied().unwrap_or_default();
        let at_least = first.min(MIN_FIRST_COLUMN);
        loop {
            let others: usize = widths.iter().skip(1).map(|width| COLUMN_GAP + width).sum();
            if at_least + others <= columns || widths.len() <= 2 {
                if let Some(width) = widths.first_mut() {
                    *width = columns.saturating_sub(others).clamp(at_least, first);
                }
                return widths;
            }
            widths.pop();
        }
    }

    /// Appends a line of the next cells. The colours are those of all cells but the second, and of the second.
    fn line(
        &self,
        out: &mut String,
        widths: &[usize],
        cells: &mut dyn Iterator<Item = &str>,
        [others, second]: [Option<&'static str>; 2],
    ) {
        let start = out.len();
        for (position, (width, (_, side))) in widths.iter().zip(self.head).enumerate() {
            let shown = shortened(cells.next().unwrap_or_default(), *width);
            let blank = width.saturating_sub(length(&shown));
            pad(out, if *side == Side::Right { blank } else { 0 });
            match if position == 1 { second } else { others } {
                Some(code) => out.extend(["\x1b[", code, "m", &*shown, "\x1b[0m"]),
                None => out.push_str(&shown),
            }
            pad(out, if *side == Side::Left { blank + COLUMN_GAP } else { COLUMN_GAP });
        }
        out.truncate(start + out.get(start..).unwrap_or_default().trim_end_matches(' ').len());
        out.push('\n');
    }
}

fn pad(out: &mut String, count: usize) {
    const BLANKS: &str = "                                ";
    let mut left = count;
    while left > 0 {
        let part = BLANKS.get(..left).unwrap_or(BLANKS);
        out.push_str(part);
        left -= part.len();
    }
}

fn length(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { text.chars().count() }
}

/// `text`, or as much of it as fits into `width` characters with a `…`.
pub(super) fn shortened(text: &str, width: usize) -> Cow<'_, str> {
    if length(text) <= width {
        return Cow::Borrowed(text);
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    Cow::Owned(short)
}

/// As [`shortened`], of a line with colours (SGR), which have no width.
pub(super) fn cut(line: &str, width: usize) -> Cow<'_, str> {
    if length(line) <= width {
        return Cow::Borrowed(line);
    }
    let mut short = String::new();
    let mut end = None;
    let mut room = width;
    let mut in_code = false;
    for character in line.chars() {
        if character == '\x1b' || in_code {
            in_code = character != 'm';
            short.push(character);
            continue;
        }
        if room == 0 {
            return Cow::Owned(with_ellipsis(&short, end.unwrap_or(0)));
        }
        end = Some(short.len());
        short.push(character);
        room -= 1;
    }
    Cow::Borrowed(line)
}

/// `short` up to `end`, and a `…`.
fn with_ellipsis(short: &str, end: usize) -> String {
    let (kept, rest) = short.split_at_checked(end).unwrap_or((short, ""));
    let reset = if kept.contains('\x1b') || rest.contains('\x1b') { "\x1b[0m" } else { "" };
    let ellipsis = if short.is_empty() { "" } else { "…" };
    format!("{kept}{ellipsis}{reset}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &[(&str, &str, &str)]) -> Table {
        let mut table = Table::new(&[("NAME", Side::Left), ("N", Side::Right)]);
        for (name, number, note) in rows {
            table.push(&[name, number], "31", note);
        }
        table
    }

    #[test]
    fn no_cell_has_control_characters() {
        let text = table(&[("a\x1b[2J", "1\n", "why\x07")]).render(80, Colour::No);
        assert_eq!(text, "NAME        N\na\\x1b[2J  1\\n\n  why\\x07\n");
    }

    #[test]
    fn columns_are_as_wide_as_their_cells() {
        let text = table(&[("a", "1", ""), ("longer", "23", "why")]).render(80, Colour::No);
        assert_eq!(text, "NAME     N\na        1\nlonger  23\n  why\n");
    }

    #[test]
    fn the_first_column_and_notes_are_shortened() {
        let text = table(&[("a-very-long-name", "1", "a long reason\nindeed")]).render(14, Colour::No);
        assert_eq!(text, "NAME         N\na-very-lon…  1\n  a long reas…\n");
    }

    #[test]
    fn columns_that_do_not_fit_are_omitted_from_the_end() {
        let mut table =
            Table::new(&[("NAME", Side::Left), ("STATE", Side::Left), ("A", Side::Right), ("B", Side::Right)]);
        table.push(&[&"a-long-name", &"failed", &"1", &"22"], "31", "why");
        table.push(&[&"b", &"running", &"-", &"-"], "32", "");
        for (columns, expected) in [
            (27, "NAME         STATE    A   B\na-long-name  failed   1  22\n  why\nb            running  -   -\n"),
            (24, "NAME      STATE    A   B\na-long-…  failed   1  22\n  why\nb         running  -   -\n"),
            (23, "NAME         STATE    A\na-long-name  failed   1\n  why\nb            running  -\n"),
            (19, "NAME        STATE\na-long-na…  failed\n  why\nb           running\n"),
            (2, "NAME      STATE\na-long-…  failed\n  …\nb         running\n"),
        ] {
            assert_eq!(table.render(columns, Colour::No), expected, "{columns}");
        }
    }

    #[test]
    fn a_line_is_cut_by_its_visible_width_and_its_colours_are_reset() {
        assert_eq!(cut("a \x1b[31mred\x1b[0m", 5), "a \x1b[31mred\x1b[0m");
        assert_eq!(cut("a \x1b[31mred\x1b[0m b", 4), "a \x1b[31mr…\x1b[0m");
        assert_eq!(cut("plain ä", 7), "plain ä");
        assert_eq!(cut("plain ä", 6), "plain…");
        assert_eq!((cut("ab", 1).as_ref(), cut("ab", 0).as_ref()), ("…", ""));
    }

    #[test]
    fn colours_have_no_width() {
        let text = table(&[("a", "1", "")]).render(80, Colour::Yes);
        assert_eq!(text, "\x1b[1mNAME\x1b[0m  \x1b[1mN\x1b[0m\na     \x1b[31m1\x1b[0m\n");
    }
}

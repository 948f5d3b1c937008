//! Columns of text, as wide as what is in them and no wider than the screen.
//!
//! All cells stand in one text, one after the other: there can be thousands, and memory for each of them would cost more
//! than all the rest.

use std::borrow::Cow;
use std::fmt::{self, Display, Formatter, Write as _};

use super::output::{Colour, harmless};

/// Between two columns.
const GAP: usize = 2;
/// The first column keeps so many characters, however narrow the screen.
const FIRST_AT_LEAST: usize = 8;

/// On which side of its column a text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

/// What there is, or a `-`.
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

/// A table. The first column gives way where there is no room for all.
#[derive(Debug)]
pub(super) struct Table<const N: usize> {
    head: [(&'static str, Side); N],
    /// What the longest cell of each column needs.
    widths: [usize; N],
    /// The cells and the note of each row, one after the other.
    text: String,
    rows: Vec<Row<N>>,
}

/// A line of it.
#[derive(Debug)]
struct Row<const N: usize> {
    /// Where in the text its cells end.
    ends: [usize; N],
    /// Where its note ends.
    end: usize,
    /// The colour (SGR) of the second cell.
    colour: &'static str,
}

impl<const N: usize> Table<N> {
    pub(super) fn new(head: [(&'static str, Side); N]) -> Self {
        Self { head, widths: head.map(|(name, _)| length(name)), text: String::new(), rows: Vec::new() }
    }

    /// One row more: its cells, the colour (SGR) of the second, and what there is to say besides, on a line of its own,
    /// if anything.
    pub(super) fn push(&mut self, cells: [&dyn Display; N], colour: &'static str, note: &str) {
        let mut ends = [0; N];
        for ((cell, end), width) in cells.iter().zip(&mut ends).zip(&mut self.widths) {
            let start = self.text.len();
            // A String takes every write.
            let _ = write!(self.text, "{cell}");
            *width = length(self.text.get(start..).unwrap_or_default()).max(*width);
            *end = self.text.len();
        }
        self.text.push_str(note);
        self.rows.push(Row { ends, end: self.text.len(), colour });
    }

    /// Its lines, each with its end, none longer than `columns`.
    pub(super) fn render(&self, columns: usize, colour: Colour) -> String {
        let widths = self.widths(columns);
        let line = widths.iter().sum::<usize>() + GAP * N;
        let mut out = String::with_capacity(line * (self.rows.len() + 1));
        self.line(&mut out, &widths, self.head.iter().map(|(name, _)| *name), |_| colour.code("1"));
        let mut start = 0;
        for row in &self.rows {
            let cells = row.ends.iter().map(|end| self.text.get(std::mem::replace(&mut start, *end)..*end));
            let second = colour.code(row.colour);
            let code = |position| if position == 1 { second } else { None };
            self.line(&mut out, &widths, cells.map(Option::unwrap_or_default), code);
            let note = self.text.get(std::mem::replace(&mut start, row.end)..row.end).unwrap_or_default();
            if !note.is_empty() {
                out.push_str("  ");
                out.push_str(&shortened(&harmless(note), columns.saturating_sub(2)));
                out.push('\n');
            }
        }
        out
    }

    fn widths(&self, columns: usize) -> [usize; N] {
        let mut widths = self.widths;
        let all: usize = widths.iter().sum::<usize>() + GAP * N.saturating_sub(1);
        if let Some(first) = widths.first_mut() {
            *first = first.saturating_sub(all.saturating_sub(columns)).max((*first).min(FIRST_AT_LEAST));
        }
        widths
    }

    /// `code` gives the colour of the cell at a position, if it is to have one.
    fn line<'c>(
        &self,
        out: &mut String,
        widths: &[usize; N],
        cells: impl Iterator<Item = &'c str>,
        code: impl Fn(usize) -> Option<&'static str>,
    ) {
        let start = out.len();
        for (position, ((cell, width), (_, side))) in cells.zip(widths).zip(&self.head).enumerate() {
            let shown = shortened(cell, *width);
            let blank = width.saturating_sub(length(&shown));
            if *side == Side::Right {
                pad(out, blank);
            }
            match code(position) {
                Some(code) => out.extend(["\x1b[", code, "m", &*shown, "\x1b[0m"]),
                None => out.push_str(&shown),
            }
            pad(out, if *side == Side::Left { blank + GAP } else { GAP });
        }
        out.truncate(start + out.get(start..).unwrap_or_default().trim_end_matches(' ').len());
        out.push('\n');
    }
}

fn pad(out: &mut String, count: usize) {
    out.extend(std::iter::repeat_n(' ', count));
}

fn length(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { text.chars().count() }
}

/// `text`, or as much of it as fits into `width` characters and a `…`.
pub(super) fn shortened(text: &str, width: usize) -> Cow<'_, str> {
    if length(text) <= width {
        return Cow::Borrowed(text);
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    Cow::Owned(short)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &[(&str, &str, &str)]) -> Table<2> {
        let mut table = Table::new([("NAME", Side::Left), ("N", Side::Right)]);
        for (name, number, note) in rows {
            table.push([name, number], "31", note);
        }
        table
    }

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let text = table(&[("a", "1", ""), ("longer", "23", "why")]).render(80, Colour::No);
        assert_eq!(text, "NAME     N\na        1\nlonger  23\n  why\n");
    }

    #[test]
    fn the_first_column_gives_way_and_notes_are_cut() {
        let text = table(&[("a-very-long-name", "1", "a long reason\nindeed")]).render(14, Colour::No);
        assert_eq!(text, "NAME         N\na-very-lon…  1\n  a long reas…\n");
    }

    #[test]
    fn colour_takes_no_room() {
        let text = table(&[("a", "1", "")]).render(80, Colour::Yes);
        assert_eq!(text, "\x1b[1mNAME\x1b[0m  \x1b[1mN\x1b[0m\na     \x1b[31m1\x1b[0m\n");
    }
}

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

/// A table. Where there is no room for all, the first column gives way, and then the last ones are left out: those that
/// matter least.
#[derive(Debug)]
pub(super) struct Table {
    head: &'static [(&'static str, Side)],
    /// What the longest cell of each column needs.
    widths: Vec<usize>,
    /// The cells and the note of each row, one after the other.
    text: String,
    /// Where they end.
    ends: Vec<usize>,
    /// The colour (SGR) of the second cell of each row.
    colours: Vec<&'static str>,
}

impl Table {
    pub(super) fn new(head: &'static [(&'static str, Side)]) -> Self {
        let widths = head.iter().map(|(name, _)| length(name)).collect();
        Self { head, widths, text: String::new(), ends: Vec::new(), colours: Vec::new() }
    }

    /// One row more: a cell for each column, the colour (SGR) of the second, and what there is to say besides, on a line
    /// of its own, if anything.
    pub(super) fn push(&mut self, cells: &[&dyn Display], colour: &'static str, note: &str) {
        for (position, width) in self.widths.iter_mut().enumerate() {
            let start = self.text.len();
            if let Some(cell) = cells.get(position) {
                // A String takes every write.
                let _ = write!(self.text, "{cell}");
            }
            if self.text.get(start..).is_some_and(|cell| cell.contains(char::is_control)) {
                let cell = harmless(&self.text.split_off(start));
                self.text.push_str(&cell);
            }
            *width = length(self.text.get(start..).unwrap_or_default()).max(*width);
            self.ends.push(self.text.len());
        }
        self.text.push_str(note);
        self.ends.push(self.text.len());
        self.colours.push(colour);
    }

    /// Its lines, each with its end, none longer than `columns`.
    pub(super) fn render(&self, columns: usize, colour: Colour) -> String {
        let widths = self.widths(columns);
        let line = widths.iter().sum::<usize>() + GAP * widths.len();
        let mut out = String::with_capacity(line * (self.colours.len() + 1));
        let all = colour.code("1");
        self.line(&mut out, &widths, &mut self.head.iter().map(|(name, _)| *name), [all, all]);
        let mut start = 0;
        let mut texts =
            self.ends.iter().map(|end| self.text.get(std::mem::replace(&mut start, *end)..*end).unwrap_or_default());
        for second in &self.colours {
            self.line(&mut out, &widths, &mut texts, [None, colour.code(second)]);
            // Behind the columns that are left out.
            let note = texts.nth(self.head.len() - widths.len()).unwrap_or_default();
            if !note.is_empty() {
                out.push_str("  ");
                out.push_str(&shortened(&harmless(note), columns.saturating_sub(2)));
                out.push('\n');
            }
        }
        out
    }

    /// Those of the columns that there is room for, two at least.
    fn widths(&self, columns: usize) -> Vec<usize> {
        let mut widths = self.widths.clone();
        let first = widths.first().copied().unwrap_or_default();
        let at_least = first.min(FIRST_AT_LEAST);
        loop {
            let others: usize = widths.iter().skip(1).map(|width| GAP + width).sum();
            if at_least + others <= columns || widths.len() <= 2 {
                if let Some(width) = widths.first_mut() {
                    *width = columns.saturating_sub(others).clamp(at_least, first);
                }
                return widths;
            }
            widths.pop();
        }
    }

    /// Takes one of `cells` for each column. The colours are those of the second and of all others.
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
            pad(out, if *side == Side::Left { blank + GAP } else { GAP });
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

/// `text`, or as much of it as fits into `width` characters and a `…`.
pub(super) fn shortened(text: &str, width: usize) -> Cow<'_, str> {
    if length(text) <= width {
        return Cow::Borrowed(text);
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    Cow::Owned(short)
}

/// As [`shortened`], of a line with colours (SGR), which take no room.
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
    fn what_steers_a_terminal_is_in_no_cell() {
        let text = table(&[("a\x1b[2J", "1\n", "why\x07")]).render(80, Colour::No);
        assert_eq!(text, "NAME    N\na [2J  1\n  why \n");
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
    fn what_there_is_no_room_for_is_left_out_from_the_end() {
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
    fn a_line_is_cut_by_what_is_seen_of_it_and_its_colours_end() {
        assert_eq!(cut("a \x1b[31mred\x1b[0m", 5), "a \x1b[31mred\x1b[0m");
        assert_eq!(cut("a \x1b[31mred\x1b[0m b", 4), "a \x1b[31mr…\x1b[0m");
        assert_eq!(cut("plain ä", 7), "plain ä");
        assert_eq!(cut("plain ä", 6), "plain…");
        assert_eq!((cut("ab", 1).as_ref(), cut("ab", 0).as_ref()), ("…", ""));
    }

    #[test]
    fn colour_takes_no_room() {
        let text = table(&[("a", "1", "")]).render(80, Colour::Yes);
        assert_eq!(text, "\x1b[1mNAME\x1b[0m  \x1b[1mN\x1b[0m\na     \x1b[31m1\x1b[0m\n");
    }
}

//! Columns of text, as wide as what is in them and no wider than the screen.

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

/// A table. The first column gives way where there is no room for all.
#[derive(Debug)]
pub(super) struct Table<const N: usize> {
    pub(super) head: [(&'static str, Side); N],
    pub(super) rows: Vec<Row<N>>,
}

/// A line of it.
#[derive(Debug)]
pub(super) struct Row<const N: usize> {
    pub(super) cells: [String; N],
    /// The colour (SGR) of the second cell.
    pub(super) colour: &'static str,
    /// What there is to say besides, on a line of its own; may be empty.
    pub(super) note: String,
}

impl<const N: usize> Table<N> {
    /// Its lines, each with its end, none longer than `columns`.
    pub(super) fn render(&self, columns: usize, colour: Colour) -> String {
        let widths = self.widths(columns);
        let mut text = String::new();
        let head = self.head.map(|(name, _)| name.to_owned());
        self.line(&mut text, &widths, &head, colour, "", "1");
        for row in &self.rows {
            self.line(&mut text, &widths, &row.cells, colour, row.colour, "");
            if !row.note.is_empty() {
                text.push_str("  ");
                text.push_str(&shortened(&harmless(&row.note), columns.saturating_sub(2)));
                text.push('\n');
            }
        }
        text
    }

    fn widths(&self, columns: usize) -> [usize; N] {
        let mut widths = self.head.map(|(name, _)| length(name));
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(&row.cells) {
                *width = length(cell).max(*width);
            }
        }
        let all: usize = widths.iter().sum::<usize>() + GAP * N.saturating_sub(1);
        if let Some(first) = widths.first_mut() {
            *first = first.saturating_sub(all.saturating_sub(columns)).max((*first).min(FIRST_AT_LEAST));
        }
        widths
    }

    fn line(
        &self,
        text: &mut String,
        widths: &[usize; N],
        cells: &[String; N],
        colour: Colour,
        second: &str,
        all: &str,
    ) {
        let start = text.len();
        for (position, ((cell, width), (_, side))) in cells.iter().zip(widths).zip(&self.head).enumerate() {
            let shown = shortened(cell, *width);
            let blank = " ".repeat(width.saturating_sub(length(&shown)));
            let code = if position == 1 && all.is_empty() { second } else { all };
            let shown = colour.paint(code, &shown);
            match side {
                Side::Left => text.extend([&shown, &*blank]),
                Side::Right => text.extend([&*blank, &shown]),
            }
            text.push_str("  ");
        }
        text.truncate(start + text.get(start..).unwrap_or_default().trim_end().len());
        text.push('\n');
    }
}

fn length(text: &str) -> usize {
    text.chars().count()
}

/// `text`, or as much of it as fits into `width` characters and a `…`.
pub(super) fn shortened(text: &str, width: usize) -> String {
    if length(text) <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &[(&str, &str, &str)]) -> Table<2> {
        let row = |(name, number, note): &(&str, &str, &str)| Row {
            cells: [(*name).to_owned(), (*number).to_owned()],
            colour: "31",
            note: (*note).to_owned(),
        };
        Table { head: [("NAME", Side::Left), ("N", Side::Right)], rows: rows.iter().map(row).collect() }
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

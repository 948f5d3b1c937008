//! Splits bytes into lines. A line that is longer than [`MAX_LINE_BYTES`] comes in pieces.

use crate::logs::line::Piece;
use crate::sys::strings::memchr;

/// The longest line that stays whole, without its newline.
pub(super) const MAX_LINE_BYTES: usize = 16 << 10;

/// A line whose end has not been read yet.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    partial_line: Vec<u8>,
    /// Whether a piece of the line has been emitted already.
    is_partial: bool,
}

impl Splitter {
    /// Copies the line that has begun to the beginning of `buffer`, and returns its length, at most [`MAX_LINE_BYTES`].
    pub(super) fn copy_to(&self, buffer: &mut [u8]) -> usize {
        let held = self.partial_line.len();
        if let Some(room) = buffer.get_mut(..held) {
            room.copy_from_slice(&self.partial_line);
        }
        held
    }

    /// The line that has begun has been copied, and comes again with what follows it.
    pub(super) fn release(&mut self) {
        self.partial_line.clear();
    }

    /// Splits `text`, which begins with the released line, after its first lines that are complete and not too long.
    pub(super) fn whole_lines<'t>(&mut self, text: &'t [u8]) -> (&'t [u8], &'t [u8]) {
        let mut end = 0;
        // Many lines at a time.
        while let Some(rest) = text.get(end..)
            && let window = rest.get(..=MAX_LINE_BYTES).unwrap_or(rest)
            && let Some(last) = window.iter().rposition(|byte| *byte == b'\n')
        {
            end += last + 1;
            self.is_partial = false;
        }
        text.split_at_checked(end).unwrap_or((text, &[]))
    }

    /// Passes each line that `chunk` completes to `emit`, without its newline.
    pub(super) fn feed(&mut self, mut chunk: &[u8], mut emit: impl FnMut(&[u8], Piece)) {
        while !chunk.is_empty() {
            let room = MAX_LINE_BYTES - self.partial_line.len();
            let window = chunk.get(..=room).unwrap_or(chunk);
            if let Some((line, rest)) = memchr(b'\n', window).and_then(|finish| chunk.split_at_checked(finish)) {
                self.emit_whole(line, &mut emit);
                chunk = rest.get(1..).unwrap_or_default();
                continue;
            }
            let (taken, rest) = chunk.split_at_checked(room).unwrap_or((chunk, &[]));
            self.partial_line.extend_from_slice(taken);
            if !rest.is_empty() {
                self.emit_partial(&mut emit);
            }
            chunk = rest;
        }
    }

    /// Passes an unterminated line to `emit`, since its writer has ended.
    pub(super) fn finish(&mut self, mut emit: impl FnMut(&[u8], Piece)) {
        if !self.partial_line.is_empty() || self.is_partial {
            self.emit_whole(b"", &mut emit);
        }
        self.partial_line = Vec::new();
    }

    fn emit_whole(&mut self, finish: &[u8], emit: &mut impl FnMut(&[u8], Piece)) {
        self.is_partial = false;
        if self.partial_line.is_empty() {
            return emit(finish, Piece::Whole);
        }
        self.partial_line.extend_from_slice(finish);
        emit(&self.partial_line, Piece::Whole);
        self.partial_line.clear();
    }

    /// Emits all but an incomplete UTF-8 character at the end.
    fn emit_partial(&mut self, emit: &mut impl FnMut(&[u8], Piece)) {
        let finish = self.partial_line.len() - incomplete_utf8_bytes(&self.partial_line);
        emit(self.partial_line.get(..finish).unwrap_or_default(), Piece::Partial);
        self.partial_line.drain(..finish);
        self.is_partial = true;
    }
}

/// The length of the incomplete UTF-8 character at the end of `text`.
fn incomplete_utf8_bytes(text: &[u8]) -> usize {
    let is_first = |byte: &&u8| **byte & 0b1100_0000 != 0b1000_0000;
    let Some(back) = text.iter().rev().take(4).position(|byte| is_first(&byte)) else { return 0 };
    let have = back + 1;
    let wanted = match text.get(text.len() - have).copied().unwrap_or(0) {
        0xf0..=0xf7 => 4,
        0xe0..=0xef => 3,
        0xc0..=0xdf => 2,
        _ => 1,
    };
    if have < wanted { have } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(chunks: &[&[u8]]) -> Vec<(Vec<u8>, Piece)> {
        let mut splitter = Splitter::default();
        let mut pieces = Vec::new();
        let mut emit = |text: &[u8], piece| pieces.push((text.to_vec(), piece));
        for chunk in chunks {
            splitter.feed(chunk, &mut emit);
        }
        splitter.finish(&mut emit);
        splitter.finish(&mut emit);
        pieces
    }

    fn whole(lines: &[&[u8]]) -> Vec<(Vec<u8>, Piece)> {
        lines.iter().map(|line| (line.to_vec(), Piece::Whole)).collect()
    }

    #[test]
    fn lines_are_assembled_from_chunks_of_any_size() {
        let text = b"one\n\ntwo\xff\r\nend";
        let expect = whole(&[b"one", b"", b"two\xff\r", b"end"]);
        for size in 1..=text.len() {
            assert_eq!(pieces(&text.chunks(size).collect::<Vec<_>>()), expect, "chunks of {size}");
        }
        assert_eq!(pieces(&[b"", b"\n"]), whole(&[b""]));
        assert_eq!(pieces(&[b"end\n"]), whole(&[b"end"]));
    }

    #[test]
    fn a_line_is_split_only_beyond_the_limit() {
        let longest = vec![b'x'; MAX_LINE_BYTES];
        let text = [&longest[..], b"\n"].concat();
        for size in [1_000, MAX_LINE_BYTES, MAX_LINE_BYTES + 1] {
            assert_eq!(pieces(&text.chunks(size).collect::<Vec<_>>()), whole(&[&longest]), "chunks of {size}");
        }
        let long = [&longest[..], &longest, b"yz\nshort\n"].concat();
        let mut expect = vec![(longest.clone(), Piece::Partial), (longest, Piece::Partial)];
        expect.extend(whole(&[b"yz", b"short"]));
        for size in [1, 777, MAX_LINE_BYTES, MAX_LINE_BYTES + 1, long.len()] {
            assert_eq!(pieces(&long.chunks(size).collect::<Vec<_>>()), expect, "chunks of {size}");
        }
    }

    #[test]
    fn no_utf8_character_is_split() {
        for letter in ["ä", "→", "🙂"] {
            let text = ["x", &letter.repeat(MAX_LINE_BYTES)].concat();
            let pieces = pieces(&[text.as_bytes()]);
            assert!(pieces.iter().all(|(piece, _)| str::from_utf8(piece).is_ok()), "{letter}");
            assert_eq!(pieces.concat_text(), text.as_bytes());
        }
        let no_text = vec![0x80; 3 * MAX_LINE_BYTES];
        assert_eq!(pieces(&[&no_text]).len(), 3);
    }

    trait ConcatText {
        fn concat_text(&self) -> Vec<u8>;
    }

    impl ConcatText for Vec<(Vec<u8>, Piece)> {
        fn concat_text(&self) -> Vec<u8> {
            self.iter().flat_map(|(text, _)| text.clone()).collect()
        }
    }
}

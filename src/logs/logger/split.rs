//! Bytes → lines. A line is whole up to a limit; a longer one comes in pieces.

use crate::logs::line::Piece;
use crate::sys::strings::memchr;

/// The longest line that stays whole, without its newline.
pub(super) const LINE_LIMIT: usize = 16 << 10;

/// The beginning of a line whose end has not come yet.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    carry: Vec<u8>,
    /// A piece of the line has been given out already.
    has_been_cut: bool,
}

impl Splitter {
    /// Gives each line that `chunk` completes to `put`, without its newline.
    pub(super) fn feed(&mut self, mut chunk: &[u8], mut put: impl FnMut(&[u8], Piece)) {
        while !chunk.is_empty() {
            let room = LINE_LIMIT - self.carry.len();
            let window = chunk.get(..=room).unwrap_or(chunk);
            if let Some((line, rest)) = memchr(b'\n', window).and_then(|end| chunk.split_at_checked(end)) {
                self.put_whole(line, &mut put);
                chunk = rest.get(1..).unwrap_or_default();
                continue;
            }
            let (taken, rest) = chunk.split_at_checked(room).unwrap_or((chunk, &[]));
            self.carry.extend_from_slice(taken);
            if !rest.is_empty() {
                self.cut(&mut put);
            }
            chunk = rest;
        }
    }

    /// Gives out what has no newline after it, as a line: whoever wrote it has ended.
    pub(super) fn end(&mut self, mut put: impl FnMut(&[u8], Piece)) {
        if !self.carry.is_empty() || self.has_been_cut {
            self.put_whole(b"", &mut put);
        }
        self.carry = Vec::new();
    }

    fn put_whole(&mut self, end: &[u8], put: &mut impl FnMut(&[u8], Piece)) {
        self.has_been_cut = false;
        if self.carry.is_empty() {
            return put(end, Piece::Whole);
        }
        self.carry.extend_from_slice(end);
        put(&self.carry, Piece::Whole);
        self.carry.clear();
    }

    /// Between two letters, where they are UTF-8.
    fn cut(&mut self, put: &mut impl FnMut(&[u8], Piece)) {
        let end = self.carry.len() - unfinished(&self.carry);
        put(self.carry.get(..end).unwrap_or_default(), Piece::Cut);
        self.carry.drain(..end);
        self.has_been_cut = true;
    }
}

/// How many bytes at the end of `text` are the beginning of a letter in UTF-8.
fn unfinished(text: &[u8]) -> usize {
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
        let mut put = |text: &[u8], piece| pieces.push((text.to_vec(), piece));
        for chunk in chunks {
            splitter.feed(chunk, &mut put);
        }
        splitter.end(&mut put);
        splitter.end(&mut put);
        pieces
    }

    fn whole(lines: &[&[u8]]) -> Vec<(Vec<u8>, Piece)> {
        lines.iter().map(|line| (line.to_vec(), Piece::Whole)).collect()
    }

    #[test]
    fn lines_are_put_together_from_any_chunks() {
        let text = b"one\n\ntwo\xff\r\nend";
        let expect = whole(&[b"one", b"", b"two\xff\r", b"end"]);
        for size in 1..=text.len() {
            assert_eq!(pieces(&text.chunks(size).collect::<Vec<_>>()), expect, "chunks of {size}");
        }
        assert_eq!(pieces(&[b"", b"\n"]), whole(&[b""]));
        assert_eq!(pieces(&[b"end\n"]), whole(&[b"end"]));
    }

    #[test]
    fn a_line_is_whole_up_to_the_limit_and_cut_beyond() {
        let longest = vec![b'x'; LINE_LIMIT];
        let text = [&longest[..], b"\n"].concat();
        for size in [1_000, LINE_LIMIT, LINE_LIMIT + 1] {
            assert_eq!(pieces(&text.chunks(size).collect::<Vec<_>>()), whole(&[&longest]), "chunks of {size}");
        }
        let long = [&longest[..], &longest, b"yz\nshort\n"].concat();
        let mut expect = vec![(longest.clone(), Piece::Cut), (longest, Piece::Cut)];
        expect.extend(whole(&[b"yz", b"short"]));
        for size in [1, 777, LINE_LIMIT, LINE_LIMIT + 1, long.len()] {
            assert_eq!(pieces(&long.chunks(size).collect::<Vec<_>>()), expect, "chunks of {size}");
        }
    }

    #[test]
    fn no_letter_is_cut_in_two() {
        for letter in ["ä", "→", "🙂"] {
            let text = ["x", &letter.repeat(LINE_LIMIT)].concat();
            let pieces = pieces(&[text.as_bytes()]);
            assert!(pieces.iter().all(|(piece, _)| str::from_utf8(piece).is_ok()), "{letter}");
            assert_eq!(pieces.concat_text(), text.as_bytes());
        }
        let no_text = vec![0x80; 3 * LINE_LIMIT];
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

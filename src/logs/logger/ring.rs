//! The last lines of all instances, for `keepalive logs`: bounded in bytes, the oldest go first.

use std::collections::VecDeque;

/// All lines together.
const BYTES_AT_MOST: usize = 4 << 20;
/// What is forgotten at once.
const SEGMENT: usize = 128 << 10;

/// Whose a line is, and what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    /// The pipe, or [`OWN`].
    pub(super) key: u64,
    /// When it was read, since 1970.
    pub(super) milliseconds: u64,
    /// Whether it was cut; of keepalive's own the level.
    pub(super) mark: u8,
}

/// The key of keepalive's own lines.
pub(super) const OWN: u64 = u64::MAX;

const HEADER: usize = 4 + 8 + 8 + 1;

/// See above.
#[derive(Debug, Default)]
pub(super) struct Ring {
    segments: VecDeque<Segment>,
    /// The number of the first segment that is still there.
    first: u64,
    /// How many lines there have ever been.
    lines: u64,
}

#[derive(Debug)]
struct Segment {
    /// Header and text, line after line.
    bytes: Vec<u8>,
    /// How many lines there had ever been before its first.
    before: u64,
}

/// A place between two lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    segment: u64,
    offset: usize,
    line: u64,
}

/// What stands at a cursor.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<'r> {
    /// A line.
    Line(Meta, &'r [u8]),
    /// So many lines stood here and have been forgotten.
    Lost(u64),
    /// Nothing yet.
    End,
}

impl Ring {
    pub(super) fn push(&mut self, meta: Meta, text: &[u8]) {
        let needed = HEADER + text.len();
        if self.segments.back().is_none_or(|segment| segment.bytes.len() + needed > SEGMENT) {
            self.begin_segment(needed);
        }
        let Some(segment) = self.segments.back_mut() else { return };
        let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
        let mut header = [0; HEADER];
        let (length_part, rest) = header.split_at_mut(4);
        length_part.copy_from_slice(&length.to_ne_bytes());
        let (key_part, rest) = rest.split_at_mut(8);
        key_part.copy_from_slice(&meta.key.to_ne_bytes());
        let (time_part, rest) = rest.split_at_mut(8);
        time_part.copy_from_slice(&meta.milliseconds.to_ne_bytes());
        rest.copy_from_slice(&[meta.mark]);
        segment.bytes.extend_from_slice(&header);
        segment.bytes.extend_from_slice(text);
        self.lines += 1;
    }

    /// The oldest one is used again when there are enough.
    fn begin_segment(&mut self, needed: usize) {
        let mut bytes = if self.segments.len() >= BYTES_AT_MOST / SEGMENT {
            self.first += 1;
            self.segments.pop_front().map(|segment| segment.bytes).unwrap_or_default()
        } else {
            Vec::new()
        };
        bytes.clear();
        bytes.reserve_exact(SEGMENT.max(needed));
        self.segments.push_back(Segment { bytes, before: self.lines });
    }

    /// Before the oldest line.
    pub(super) fn begin(&self) -> Cursor {
        let line = self.segments.front().map_or(self.lines, |segment| segment.before);
        Cursor { segment: self.first, offset: 0, line }
    }

    /// How many lines there have ever been.
    pub(super) const fn lines(&self) -> u64 {
        self.lines
    }

    /// What stands at `cursor`, which moves on behind it.
    pub(super) fn next(&self, cursor: &mut Cursor) -> Next<'_> {
        if cursor.segment < self.first {
            let lost = self.begin().line.saturating_sub(cursor.line);
            *cursor = self.begin();
            return Next::Lost(lost);
        }
        loop {
            let position = usize::try_from(cursor.segment - self.first).unwrap_or(usize::MAX);
            let Some(segment) = self.segments.get(position) else { return Next::End };
            if let Some((meta, text)) = segment.bytes.get(cursor.offset..).and_then(read) {
                cursor.offset += HEADER + text.len();
                cursor.line += 1;
                return Next::Line(meta, text);
            }
            if position + 1 >= self.segments.len() {
                return Next::End;
            }
            (cursor.segment, cursor.offset) = (cursor.segment + 1, 0);
        }
    }
}

impl Cursor {
    /// How many lines there had ever been before it.
    pub(super) const fn line(&self) -> u64 {
        self.line
    }
}

fn read(bytes: &[u8]) -> Option<(Meta, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (key, rest) = rest.split_first_chunk::<8>()?;
    let (milliseconds, rest) = rest.split_first_chunk::<8>()?;
    let (mark, rest) = rest.split_first()?;
    let length = usize::try_from(u32::from_ne_bytes(*length)).ok()?;
    let meta = Meta { key: u64::from_ne_bytes(*key), milliseconds: u64::from_ne_bytes(*milliseconds), mark: *mark };
    Some((meta, rest.get(..length)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const META: Meta = Meta { key: 5, milliseconds: 1_795_247_999_120, mark: 1 };

    #[test]
    fn lines_come_back_in_order_and_a_cursor_goes_on_where_it_was() {
        let mut ring = Ring::default();
        let mut cursor = ring.begin();
        assert_eq!(ring.next(&mut cursor), Next::End);
        ring.push(META, b"one");
        ring.push(Meta { key: OWN, mark: 0, ..META }, b"");
        assert_eq!(ring.next(&mut cursor), Next::Line(META, b"one"));
        assert_eq!(ring.next(&mut cursor), Next::Line(Meta { key: OWN, mark: 0, ..META }, b""));
        assert_eq!(ring.next(&mut cursor), Next::End);
        ring.push(META, b"three");
        assert_eq!(ring.next(&mut cursor), Next::Line(META, b"three"));
        assert_eq!((cursor.line(), ring.lines()), (3, 3));
    }

    #[test]
    fn the_oldest_are_forgotten_and_who_was_there_is_told_how_many() {
        let mut ring = Ring::default();
        ring.push(META, b"first");
        let mut cursor = ring.begin();
        assert_eq!(ring.next(&mut cursor), Next::Line(META, b"first"));
        let line = [b'x'; 16 << 10];
        for _ in 0..1_000 {
            ring.push(META, &line);
        }
        assert!(ring.segments.iter().map(|segment| segment.bytes.capacity()).sum::<usize>() <= BYTES_AT_MOST);
        let Next::Lost(lost) = ring.next(&mut cursor) else { panic!("nothing is lost") };
        let mut left = 0;
        while let Next::Line(..) = ring.next(&mut cursor) {
            left += 1;
        }
        assert_eq!(lost + left, 1_000);
        assert!((200..=BYTES_AT_MOST as u64 / (16 << 10)).contains(&left), "{left}");
    }
}

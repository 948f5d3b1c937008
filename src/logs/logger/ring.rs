//! The past lines of all instances, for `keepalive logs`, limited in bytes.
//!
//! When the ring is full, the oldest lines of the sources that hold the most are evicted, so that a source that writes
//! much does not push out one that writes little.

use crate::model::map::Map;

/// The limit for all lines together.
const MAX_BYTES: usize = 4 << 20;
/// How much an eviction leaves. It moves all of that: at half the limit, each byte is moved about once.
const BYTES_AFTER_EVICTION: usize = MAX_BYTES / 2;
/// By how much the buffer grows.
const GROWTH_BYTES: usize = 128 << 10;

/// The source and the properties of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LineMeta {
    /// The key of the pipe, or [`KEEPALIVE_KEY`].
    pub(super) key: u64,
    /// When it was read, in milliseconds since 1970.
    pub(super) milliseconds: u64,
    /// Of a line of a service, whether it is partial; of a message of keepalive itself, its level.
    pub(super) mark: u8,
}

/// The key of keepalive's own messages.
pub(super) const KEEPALIVE_KEY: u64 = u64::MAX;

const HEADER: usize = 4 + 8 + 8 + 8 + 1;

/// A buffer of lines, each with a header.
#[derive(Debug, Default)]
pub(super) struct Ring {
    /// Header and text of each line.
    bytes: Vec<u8>,
    /// The offset of the first byte. Offsets count on when lines are evicted.
    start: u64,
    /// Lines from this offset on have not been moved by an eviction: cursors there are valid.
    unmoved_from: u64,
    /// How many lines have been pushed.
    lines: u64,
    /// How many of them have been evicted.
    evicted: u64,
    /// How many bytes each source holds.
    bytes_by_key: Map<u64, usize>,
}

/// A position between two lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    offset: u64,
    /// The number of the next line, or a lower one if that line is evicted.
    line: u64,
    /// The value of [`Ring::evicted`] when `offset` was valid.
    evicted: u64,
    /// How many lines have been passed or reported as lost.
    before: u64,
}

/// What stands at a cursor.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<'r> {
    /// A line.
    Line(LineMeta, &'r [u8]),
    /// So many lines at or after the cursor have been evicted.
    Lost(u64),
    /// No line yet.
    End,
}

impl Ring {
    pub(super) fn push(&mut self, meta: LineMeta, text: &[u8]) {
        let needed = HEADER + text.len();
        if self.bytes.len() + needed > MAX_BYTES {
            self.evict();
        }
        if self.bytes.capacity() - self.bytes.len() < needed {
            let most = MAX_BYTES.saturating_sub(self.bytes.len());
            self.bytes.reserve_exact(GROWTH_BYTES.min(most).max(needed));
        }
        let length = u32::try_from(text.len()).unwrap_or(u32::MAX).to_ne_bytes();
        let [number, key, milliseconds] = [self.lines, meta.key, meta.milliseconds].map(u64::to_ne_bytes);
        let parts: [&[u8]; 6] = [&length, &number, &key, &milliseconds, &[meta.mark], text];
        parts.into_iter().for_each(|part| self.bytes.extend_from_slice(part));
        self.lines += 1;
        *self.bytes_by_key.entry(meta.key) += needed;
    }

    /// Evicts the oldest lines of the sources that hold more than their share.
    fn evict(&mut self) {
        let share = self.share();
        let mut above_share = self.bytes_by_key.values().filter(|bytes_by_key| **bytes_by_key > share).count();
        let (mut end, mut kept) = (0, 0);
        while above_share > 0
            && let Some(line) = self.bytes.get(end..).and_then(Line::read)
        {
            let (key, start_cursor, size) = (line.meta.key, end, HEADER + line.text.len());
            end += size;
            match self.bytes_by_key.get_mut(&key) {
                Some(bytes_by_key) if *bytes_by_key > share => {
                    *bytes_by_key -= size;
                    above_share -= usize::from(*bytes_by_key <= share);
                    self.evicted += 1;
                }
                Some(_) | None => {
                    self.bytes.copy_within(start_cursor..end, kept);
                    kept += size;
                }
            }
        }
        self.unmoved_from = self.unmoved_from.max(self.start + end as u64);
        self.start += (end - kept) as u64;
        self.bytes.drain(kept..end);
        self.bytes_by_key.retain(|_, bytes_by_key| *bytes_by_key > 0);
    }

    /// The bytes that each source may keep. What a source does not need of its share is divided among the others.
    fn share(&self) -> usize {
        let mut sizes: Vec<usize> = self.bytes_by_key.values().copied().collect();
        sizes.sort_unstable();
        let (mut left, mut sources) = (BYTES_AFTER_EVICTION, sizes.len());
        for size in sizes {
            let share = left / sources;
            if size > share {
                return share;
            }
            (left, sources) = (left - size, sources - 1);
        }
        usize::MAX
    }

    /// The position before the oldest line.
    pub(super) const fn start_cursor(&self) -> Cursor {
        Cursor { offset: self.start, line: 0, evicted: self.evicted, before: self.evicted }
    }

    /// How many lines have been pushed since the start.
    pub(super) const fn lines(&self) -> u64 {
        self.lines
    }

    /// How many lines stand after `cursor`, including evicted ones that it has not reported.
    pub(super) const fn lines_after(&self, cursor: &Cursor) -> u64 {
        self.lines - cursor.before
    }

    /// Returns what stands at `cursor`, and moves it on.
    pub(super) fn next(&self, cursor: &mut Cursor) -> Next<'_> {
        if cursor.evicted < self.evicted {
            let before = cursor.before;
            self.relocate(cursor);
            if cursor.before > before {
                return Next::Lost(cursor.before - before);
            }
        }
        let Some(line) = self.at(cursor.offset) else { return Next::End };
        cursor.step(&line);
        Next::Line(line.meta, line.text)
    }

    /// Moves `cursor` to where its next line, or the first one after it that is left, stands now.
    fn relocate(&self, cursor: &mut Cursor) {
        cursor.evicted = self.evicted;
        if cursor.offset >= self.unmoved_from {
            return;
        }
        let next = cursor.line;
        *cursor = self.start_cursor();
        while let Some(line) = self.at(cursor.offset)
            && line.number < next
        {
            cursor.step(&line);
        }
        cursor.line = next;
    }

    fn at(&self, offset: u64) -> Option<Line<'_>> {
        let offset = usize::try_from(offset - self.start).ok()?;
        self.bytes.get(offset..).and_then(Line::read)
    }
}

impl Cursor {
    /// The number of the next line, or a lower one.
    pub(super) const fn line(&self) -> u64 {
        self.line
    }

    const fn step(&mut self, line: &Line<'_>) {
        self.offset += (HEADER + line.text.len()) as u64;
        self.line = line.number + 1;
        self.before += 1;
    }
}

struct Line<'r> {
    number: u64,
    meta: LineMeta,
    text: &'r [u8],
}

impl<'r> Line<'r> {
    fn read(bytes: &'r [u8]) -> Option<Self> {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (number, rest) = rest.split_first_chunk::<8>()?;
        let (key, rest) = rest.split_first_chunk::<8>()?;
        let (milliseconds, rest) = rest.split_first_chunk::<8>()?;
        let (mark, rest) = rest.split_first()?;
        let length = usize::try_from(u32::from_ne_bytes(*length)).ok()?;
        let [number, key, milliseconds] = [number, key, milliseconds].map(|bytes| u64::from_ne_bytes(*bytes));
        Some(Self { number, meta: LineMeta { key, milliseconds, mark: *mark }, text: rest.get(..length)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const META: LineMeta = LineMeta { key: 5, milliseconds: 1_795_247_999_120, mark: 1 };

    #[test]
    fn lines_are_read_in_order_and_a_cursor_continues_where_it_was() {
        let mut ring = Ring::default();
        let mut cursor = ring.start_cursor();
        assert_eq!(ring.next(&mut cursor), Next::End);
        ring.push(META, b"one");
        ring.push(LineMeta { key: KEEPALIVE_KEY, mark: 0, ..META }, b"");
        assert_eq!(ring.next(&mut cursor), Next::Line(META, b"one"));
        assert_eq!(ring.next(&mut cursor), Next::Line(LineMeta { key: KEEPALIVE_KEY, mark: 0, ..META }, b""));
        assert_eq!(ring.next(&mut cursor), Next::End);
        ring.push(META, b"three");
        assert_eq!(ring.next(&mut cursor), Next::Line(META, b"three"));
        assert_eq!((cursor.line(), ring.lines()), (3, 3));
    }

    #[test]
    fn the_oldest_lines_are_evicted_and_a_cursor_reports_how_many() {
        let mut ring = Ring::default();
        ring.push(META, b"first");
        let mut cursor = ring.start_cursor();
        assert_eq!(ring.next(&mut cursor), Next::Line(META, b"first"));
        let line = [b'x'; 16 << 10];
        for _ in 0..1_000 {
            ring.push(META, &line);
        }
        assert!(ring.bytes.capacity() <= MAX_BYTES);
        let Next::Lost(lost) = ring.next(&mut cursor) else { panic!("nothing is lost") };
        let left = texts(&ring, &mut cursor).len();
        assert_eq!(lost + left as u64, 1_000);
        assert!((BYTES_AFTER_EVICTION / line.len() - 1..=MAX_BYTES / line.len()).contains(&left), "{left}");
    }

    fn texts(ring: &Ring, cursor: &mut Cursor) -> Vec<(u64, String)> {
        let mut texts = Vec::new();
        while let Next::Line(meta, text) = ring.next(cursor) {
            texts.push((meta.key, String::from_utf8(text.to_vec()).unwrap()));
        }
        texts
    }

    #[test]
    fn a_busy_source_does_not_displace_a_quiet_one() {
        let mut ring = Ring::default();
        for quiet in 0..500 {
            ring.push(LineMeta { key: quiet, ..META }, format!("first of {quiet}").as_bytes());
        }
        let flood = [b'x'; 1_000];
        for number in 0..20_000 {
            ring.push(LineMeta { key: 1_000, ..META }, &flood);
            if number % 40 == 0 {
                ring.push(LineMeta { key: number % 500, ..META }, format!("{number}").as_bytes());
            }
        }
        assert!(ring.bytes.len() <= MAX_BYTES && ring.bytes.capacity() <= MAX_BYTES);
        let texts = texts(&ring, &mut ring.start_cursor());
        let quiet: Vec<_> = texts.iter().filter(|(key, _)| *key != 1_000).cloned().collect();
        let first = (0..500).map(|quiet| (quiet, format!("first of {quiet}")));
        let later = (0..20_000).step_by(40).map(|number| (number % 500, number.to_string()));
        assert_eq!(quiet, first.chain(later).collect::<Vec<_>>());
        assert!(texts.len() - quiet.len() > BYTES_AFTER_EVICTION / 1_100, "what the others do not need is the flood's");
        assert_eq!(ring.bytes_by_key.values().sum::<usize>(), ring.bytes.len());
    }

    #[test]
    fn equal_sources_keep_equal_shares_and_an_empty_source_is_forgotten() {
        let mut ring = Ring::default();
        ring.push(LineMeta { key: 9, ..META }, &[b'x'; 16 << 10]);
        for number in 0..100_000 {
            ring.push(LineMeta { key: 10 + number % 1_000, ..META }, &[b'y'; 100]);
        }
        let mut kept = Map::<u64, usize>::new();
        texts(&ring, &mut ring.start_cursor()).iter().for_each(|(key, _)| *kept.entry(*key) += 1);
        assert_eq!(
            (kept.len(), ring.bytes_by_key.len()),
            (1_000, 1_000),
            "a line that is longer than a share goes too"
        );
        assert!(kept.values().max().unwrap() - kept.values().min().unwrap() <= 1, "{kept:?}");
    }

    #[test]
    fn a_slow_cursor_reports_each_evicted_line_once() {
        let mut ring = Ring::default();
        let mut cursors = [1, 7, 100, 5_000].map(|pace| (pace, ring.start_cursor(), 0, 0, None));
        let flood = [b'x'; 2_000];
        for number in 0..20_000_u64 {
            let key = if number % 100 == 0 { 2 } else { 1 };
            ring.push(LineMeta { key, milliseconds: number, mark: 0 }, if key == 2 { b"quiet" } else { &flood });
            for (pace, cursor, got, lost, last) in &mut cursors {
                for _ in 0..if number % *pace == 0 { *pace / 2 + 1 } else { 0 } {
                    match ring.next(cursor) {
                        Next::Line(meta, _) => {
                            assert!(Some(meta.milliseconds) > *last, "in order");
                            (*got, *last) = (*got + 1, Some(meta.milliseconds));
                        }
                        Next::Lost(count) => *lost += count,
                        Next::End => break,
                    }
                }
            }
        }
        for (pace, mut cursor, mut got, mut lost, _) in cursors {
            let lines_after = ring.lines_after(&cursor);
            assert_eq!(got + lost + lines_after, 20_000);
            loop {
                match ring.next(&mut cursor) {
                    Next::Line(..) => got += 1,
                    Next::Lost(count) => lost += count,
                    Next::End => break,
                }
            }
            assert_eq!((got + lost, lost > 0), (20_000, pace > 1), "{pace}");
        }
    }
}

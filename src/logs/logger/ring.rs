//! The past lines of all instances, for `keepalive logs`, limited in bytes.
//!
//! When the ring is full, the oldest lines of the sources that hold the most are evicted, so that a source that writes
//! much does not push out one that writes little. Lines that were read at the same time share an entry, which costs less
//! than an entry for each.

use crate::model::map::Map;
use crate::sys::strings::memchr;

/// The limit for all lines together.
const MAX_BYTES: usize = 4 << 20;
/// How much an eviction leaves. It moves all of that: at half the limit, each byte is moved about once.
const BYTES_AFTER_EVICTION: usize = MAX_BYTES / 2;
/// By how much the buffer grows.
const GROWTH_BYTES: usize = 128 << 10;
/// The size of an entry of several lines: small beside the share of a source, as a whole entry is evicted.
const MAX_ENTRY_BYTES: usize = 1 << 10;

/// The source and the properties of the lines of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LineMeta {
    /// The key of the run and stream, see `RunKey::of_lines`, or [`KEEPALIVE_KEY`].
    pub(super) key: u64,
    /// When it was read, in milliseconds since 1970.
    pub(super) milliseconds: u64,
    /// Of a line of a service, whether it is partial; of a message of keepalive itself, its level.
    pub(super) mark: u8,
}

impl LineMeta {
    /// The key of the pipe, whose lines come from all runs of an instance.
    pub(super) fn source(self) -> u64 {
        self.key & u64::from(u32::MAX)
    }
}

/// The key of keepalive's own messages.
pub(super) const KEEPALIVE_KEY: u64 = u64::MAX;

const HEADER: usize = 4 * 8 + 1;

/// A buffer of entries, each with a header.
#[derive(Debug, Default)]
pub(super) struct Ring {
    /// Header and text of each entry.
    bytes: Vec<u8>,
    /// The offset of the first byte. Offsets count on when lines are evicted.
    start: u64,
    /// Entries from this offset on have not been moved by an eviction: cursors there are valid.
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
    /// Of the entry of the next line.
    offset: u64,
    /// The position of the next line in the text of the entry.
    within: usize,
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
    /// Adds one line.
    pub(super) fn push(&mut self, meta: LineMeta, text: &[u8]) {
        self.push_entry(meta, text, 1);
    }

    /// Adds lines, each with its newline, and returns how many.
    pub(super) fn push_lines(&mut self, meta: LineMeta, mut text: &[u8]) -> u64 {
        let before = self.lines;
        while !text.is_empty() {
            let (mut end, mut lines) = (0, 0);
            while let Some(length) = text.get(end..).and_then(|rest| memchr(b'\n', rest))
                && (lines == 0 || end + length < MAX_ENTRY_BYTES)
            {
                end += length + 1;
                lines += 1;
            }
            let (entry, rest) = text.split_at_checked(end).filter(|_| end > 0).unwrap_or((text, &[]));
            self.push_entry(meta, entry.strip_suffix(b"\n").unwrap_or(entry), lines.max(1));
            text = rest;
        }
        self.lines - before
    }

    fn push_entry(&mut self, meta: LineMeta, text: &[u8], lines: u32) {
        let needed = HEADER + text.len();
        if self.bytes.len() + needed > MAX_BYTES {
            self.evict();
        }
        if self.bytes.capacity() - self.bytes.len() < needed {
            let most = MAX_BYTES.saturating_sub(self.bytes.len());
            self.bytes.reserve_exact(GROWTH_BYTES.min(most).max(needed));
        }
        let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
        for number in [u64::from(length) << 32 | u64::from(lines), self.lines, meta.key, meta.milliseconds] {
            self.bytes.extend_from_slice(&number.to_ne_bytes());
        }
        self.bytes.push(meta.mark);
        self.bytes.extend_from_slice(text);
        self.lines += u64::from(lines);
        *self.bytes_by_key.entry(meta.source()) += needed;
    }

    /// Releases what later lines do not need soon.
    pub(super) fn release_memory(&mut self) {
        self.bytes.shrink_to(self.bytes.len() + GROWTH_BYTES);
    }

    /// Evicts the oldest entries of the sources that hold more than their share.
    fn evict(&mut self) {
        let share = self.share();
        let mut above_share = self.bytes_by_key.values().filter(|bytes_by_key| **bytes_by_key > share).count();
        let (mut end, mut kept) = (0, 0);
        while above_share > 0
            && let Some(entry) = self.bytes.get(end..).and_then(Entry::read)
        {
            let (key, start, size, lines) = (entry.meta.source(), end, HEADER + entry.text.len(), entry.lines);
            end += size;
            match self.bytes_by_key.get_mut(&key) {
                Some(bytes_by_key) if *bytes_by_key > share => {
                    *bytes_by_key -= size;
                    above_share -= usize::from(*bytes_by_key <= share);
                    self.evicted += lines;
                }
                Some(_) | None => {
                    self.bytes.copy_within(start..end, kept);
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
        Cursor { offset: self.start, within: 0, line: 0, evicted: self.evicted, before: self.evicted }
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
        let Some(entry) = self.at(cursor.offset) else { return Next::End };
        let meta = entry.meta;
        Next::Line(meta, cursor.step(&entry))
    }

    /// The last lines that have one of `keys`, at most `count`.
    pub(super) fn last_lines(&self, keys: [u64; 2], count: usize) -> Vec<&[u8]> {
        let (mut cursor, mut last) = (self.start_cursor(), Vec::new());
        while let Some(entry) = self.at(cursor.offset) {
            if !keys.contains(&entry.meta.key) {
                cursor.skip(&entry);
                continue;
            }
            last.push(cursor.step(&entry));
            if last.len() > count {
                last.remove(0);
            }
        }
        last
    }

    /// Moves `cursor` to where its next line, or the first one after it that is left, stands now.
    fn relocate(&self, cursor: &mut Cursor) {
        cursor.evicted = self.evicted;
        if cursor.offset >= self.unmoved_from {
            return;
        }
        let next = cursor.line;
        *cursor = self.start_cursor();
        while let Some(entry) = self.at(cursor.offset)
            && entry.number.max(cursor.line) < next
        {
            if entry.end() <= next { cursor.skip(&entry) } else { _ = cursor.step(&entry) }
        }
        cursor.line = next;
    }

    fn at(&self, offset: u64) -> Option<Entry<'_>> {
        let offset = usize::try_from(offset - self.start).ok()?;
        self.bytes.get(offset..).and_then(Entry::read)
    }
}

impl Cursor {
    /// The number of the next line, or a lower one.
    pub(super) const fn line(&self) -> u64 {
        self.line
    }

    /// Moves on by one line of `entry`, in which it is, and returns that line.
    fn step<'r>(&mut self, entry: &Entry<'r>) -> &'r [u8] {
        self.line = if self.within == 0 { entry.number + 1 } else { self.line + 1 };
        self.before += 1;
        let rest = entry.text.get(self.within..).unwrap_or_default();
        if self.line < entry.end()
            && let Some(length) = memchr(b'\n', rest)
        {
            self.within += length + 1;
            return rest.get(..length).unwrap_or_default();
        }
        self.leave(entry);
        rest
    }

    /// Moves from the beginning of `entry` to its end.
    fn skip(&mut self, entry: &Entry<'_>) {
        self.line = entry.end();
        self.before += entry.lines;
        self.leave(entry);
    }

    const fn leave(&mut self, entry: &Entry<'_>) {
        self.offset += (HEADER + entry.text.len()) as u64;
        self.within = 0;
    }
}

struct Entry<'r> {
    /// The number of the first line.
    number: u64,
    lines: u64,
    meta: LineMeta,
    /// The lines with newlines between them. A single line may contain newlines itself.
    text: &'r [u8],
}

impl<'r> Entry<'r> {
    /// The number of the line after the last one.
    fn end(&self) -> u64 {
        self.number + self.lines
    }

    fn read(bytes: &'r [u8]) -> Option<Self> {
        let (header, rest) = bytes.split_at_checked(HEADER)?;
        let (numbers, mark) = header.as_chunks::<8>();
        let [sizes, number, key, milliseconds] = numbers else { return None };
        let [sizes, number, key, milliseconds] =
            [sizes, number, key, milliseconds].map(|bytes| u64::from_ne_bytes(*bytes));
        let (length, lines) = (usize::try_from(sizes >> 32).ok()?, sizes & u64::from(u32::MAX));
        let mark = mark.first().copied()?;
        let meta = LineMeta { key, milliseconds, mark };
        Some(Self { number, lines, meta, text: rest.get(..length)? })
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
    fn lines_that_are_pushed_together_are_read_one_by_one() {
        let mut ring = Ring::default();
        let long = "x".repeat(2 * MAX_ENTRY_BYTES);
        let lines: Vec<String> =
            (0..1_000).map(|number| [&format!("line {number}"), "", &long][number % 3].into()).collect();
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        assert_eq!(ring.push_lines(META, text.as_bytes()), 1_000);
        ring.push(LineMeta { key: KEEPALIVE_KEY, ..META }, b"one\nmessage");
        let found = texts(&ring, &mut ring.start_cursor());
        let expect = lines.into_iter().map(|line| (META.key, line)).chain([(KEEPALIVE_KEY, "one\nmessage".to_owned())]);
        assert_eq!((found, ring.lines()), (expect.collect(), 1_001));
    }

    #[test]
    fn the_last_lines_are_those_with_one_of_two_keys() {
        let mut ring = Ring::default();
        let of = |key| LineMeta { key, ..META };
        let (early, late) = (1, 1 << 32 | 1);
        ring.push_lines(of(early), b"a\nb\nc\n");
        ring.push_lines(of(2), b"d\n");
        ring.push_lines(of(late), b"e\nf\n");
        ring.push_lines(of(early), b"g\n");
        let last = |keys, count| {
            let lines = ring.last_lines(keys, count);
            lines.into_iter().map(|line| char::from(line[0])).collect::<String>()
        };
        assert_eq!(last([early, 2], 10), "abcdg");
        assert_eq!(last([late, 2], 10), "def");
        assert_eq!(last([early, early], 2), "cg");
        assert_eq!(last([3, 4], 9), "");
        assert_eq!(ring.bytes_by_key.len(), 2, "runs share the room of their instance");
    }

    #[test]
    fn a_slow_cursor_reports_each_evicted_line_once() {
        let mut ring = Ring::default();
        let mut cursors = [1, 7, 100, 5_000].map(|pace| (pace, ring.start_cursor(), 0, 0, None));
        let flood = [b'x'; 2_000];
        for number in 0..20_000_u64 {
            let key = if number % 100 == 0 { 2 } else { 1 };
            let meta = LineMeta { key, milliseconds: number, mark: 0 };
            match number % 100 {
                0 => ring.push(meta, b"quiet"),
                // Two lines in one entry.
                1 => _ = ring.push_lines(meta, b"one\ntwo\n"),
                2 => continue,
                _ => ring.push(meta, &flood),
            }
            for (pace, cursor, got, lost, last) in &mut cursors {
                for _ in 0..if number % *pace == 0 { *pace / 2 + 1 } else { 0 } {
                    match ring.next(cursor) {
                        Next::Line(meta, _) => {
                            assert!(Some(meta.milliseconds) >= *last, "in order");
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

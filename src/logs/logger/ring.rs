//! The last lines of all instances, for `keepalive logs`: bounded in bytes. When it is full, the oldest lines of those
//! who hold the most go first, so that who writes much does not push out who writes little.

use crate::model::map::Map;

/// All lines together.
const BYTES_AT_MOST: usize = 4 << 20;
/// What is left of them when there was no more room. All of it is moved then: with half of it, each byte is moved once.
const KEPT_AT_MOST: usize = BYTES_AT_MOST / 2;
/// What is asked of memory at once.
const STEP: usize = 128 << 10;

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

const HEADER: usize = 4 + 8 + 8 + 8 + 1;

/// See above.
#[derive(Debug, Default)]
pub(super) struct Ring {
    /// Header and text, line after line.
    bytes: Vec<u8>,
    /// The place of the first byte: places count on when lines are forgotten.
    start: u64,
    /// From here on everything has kept its place, so that a cursor is still right.
    settled: u64,
    /// How many lines there have ever been.
    lines: u64,
    /// How many of them have been forgotten.
    forgotten: u64,
    /// How many bytes each source holds.
    held: Map<u64, usize>,
}

/// A place between two lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    place: u64,
    /// The number of the next line, or a lower one if that is forgotten.
    line: u64,
    /// How many lines had been forgotten when the place was right.
    forgotten: u64,
    /// How many lines there have ever been, less those from here on.
    before: u64,
}

/// What stands at a cursor.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<'r> {
    /// A line.
    Line(Meta, &'r [u8]),
    /// So many lines stood here or further on and have been forgotten.
    Lost(u64),
    /// Nothing yet.
    End,
}

impl Ring {
    pub(super) fn push(&mut self, meta: Meta, text: &[u8]) {
        let needed = HEADER + text.len();
        if self.bytes.len() + needed > BYTES_AT_MOST {
            self.make_room();
        }
        if self.bytes.capacity() - self.bytes.len() < needed {
            let most = BYTES_AT_MOST.saturating_sub(self.bytes.len());
            self.bytes.reserve_exact(STEP.min(most).max(needed));
        }
        let length = u32::try_from(text.len()).unwrap_or(u32::MAX).to_ne_bytes();
        let [number, key, milliseconds] = [self.lines, meta.key, meta.milliseconds].map(u64::to_ne_bytes);
        let parts: [&[u8]; 6] = [&length, &number, &key, &milliseconds, &[meta.mark], text];
        parts.into_iter().for_each(|part| self.bytes.extend_from_slice(part));
        self.lines += 1;
        *self.held.entry(meta.key) += needed;
    }

    /// Forgets the oldest lines of all who hold more than their share.
    fn make_room(&mut self) {
        let share = self.share();
        let mut greedy = self.held.values().filter(|held| **held > share).count();
        let (mut end, mut kept) = (0, 0);
        while greedy > 0
            && let Some(line) = self.bytes.get(end..).and_then(Line::read)
        {
            let (key, begin, size) = (line.meta.key, end, HEADER + line.text.len());
            end += size;
            match self.held.get_mut(&key) {
                Some(held) if *held > share => {
                    *held -= size;
                    greedy -= usize::from(*held <= share);
                    self.forgotten += 1;
                }
                Some(_) | None => {
                    self.bytes.copy_within(begin..end, kept);
                    kept += size;
                }
            }
        }
        self.settled = self.settled.max(self.start + end as u64);
        self.start += (end - kept) as u64;
        self.bytes.drain(kept..end);
        self.held.retain(|_, held| *held > 0);
    }

    /// So many bytes each source may keep: who holds less leaves the rest to the others.
    fn share(&self) -> usize {
        let mut sizes: Vec<usize> = self.held.values().copied().collect();
        sizes.sort_unstable();
        let (mut left, mut sources) = (KEPT_AT_MOST, sizes.len());
        for size in sizes {
            let share = left / sources;
            if size > share {
                return share;
            }
            (left, sources) = (left - size, sources - 1);
        }
        usize::MAX
    }

    /// Before the oldest line.
    pub(super) const fn begin(&self) -> Cursor {
        Cursor { place: self.start, line: 0, forgotten: self.forgotten, before: self.forgotten }
    }

    /// How many lines there have ever been.
    pub(super) const fn lines(&self) -> u64 {
        self.lines
    }

    /// How many lines stand behind `cursor`, forgotten ones with them if it has not been told of these.
    pub(super) const fn ahead(&self, cursor: &Cursor) -> u64 {
        self.lines - cursor.before
    }

    /// What stands at `cursor`, which moves on behind it.
    pub(super) fn next(&self, cursor: &mut Cursor) -> Next<'_> {
        if cursor.forgotten < self.forgotten {
            let before = cursor.before;
            self.find_again(cursor);
            if cursor.before > before {
                return Next::Lost(cursor.before - before);
            }
        }
        let Some(line) = self.at(cursor.place) else { return Next::End };
        cursor.step(&line);
        Next::Line(line.meta, line.text)
    }

    /// Moves `cursor` to where its next line stands now, or what comes after that.
    fn find_again(&self, cursor: &mut Cursor) {
        cursor.forgotten = self.forgotten;
        if cursor.place >= self.settled {
            return;
        }
        let next = cursor.line;
        *cursor = self.begin();
        while let Some(line) = self.at(cursor.place)
            && line.number < next
        {
            cursor.step(&line);
        }
        cursor.line = next;
    }

    fn at(&self, place: u64) -> Option<Line<'_>> {
        let offset = usize::try_from(place - self.start).ok()?;
        self.bytes.get(offset..).and_then(Line::read)
    }
}

impl Cursor {
    /// The number of the next line, or a lower one: so many lines there had ever been before it.
    pub(super) const fn line(&self) -> u64 {
        self.line
    }

    const fn step(&mut self, line: &Line<'_>) {
        self.place += (HEADER + line.text.len()) as u64;
        self.line = line.number + 1;
        self.before += 1;
    }
}

struct Line<'r> {
    number: u64,
    meta: Meta,
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
        Some(Self { number, meta: Meta { key, milliseconds, mark: *mark }, text: rest.get(..length)? })
    }
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
        assert!(ring.bytes.capacity() <= BYTES_AT_MOST);
        let Next::Lost(lost) = ring.next(&mut cursor) else { panic!("nothing is lost") };
        let left = texts(&ring, &mut cursor).len();
        assert_eq!(lost + left as u64, 1_000);
        assert!((KEPT_AT_MOST / line.len() - 1..=BYTES_AT_MOST / line.len()).contains(&left), "{left}");
    }

    fn texts(ring: &Ring, cursor: &mut Cursor) -> Vec<(u64, String)> {
        let mut texts = Vec::new();
        while let Next::Line(meta, text) = ring.next(cursor) {
            texts.push((meta.key, String::from_utf8(text.to_vec()).unwrap()));
        }
        texts
    }

    #[test]
    fn who_writes_much_does_not_push_out_who_writes_little() {
        let mut ring = Ring::default();
        for quiet in 0..500 {
            ring.push(Meta { key: quiet, ..META }, format!("first of {quiet}").as_bytes());
        }
        let flood = [b'x'; 1_000];
        for number in 0..20_000 {
            ring.push(Meta { key: 1_000, ..META }, &flood);
            if number % 40 == 0 {
                ring.push(Meta { key: number % 500, ..META }, format!("{number}").as_bytes());
            }
        }
        assert!(ring.bytes.len() <= BYTES_AT_MOST && ring.bytes.capacity() <= BYTES_AT_MOST);
        let texts = texts(&ring, &mut ring.begin());
        let quiet: Vec<_> = texts.iter().filter(|(key, _)| *key != 1_000).cloned().collect();
        let first = (0..500).map(|quiet| (quiet, format!("first of {quiet}")));
        let later = (0..20_000).step_by(40).map(|number| (number % 500, number.to_string()));
        assert_eq!(quiet, first.chain(later).collect::<Vec<_>>());
        assert!(texts.len() - quiet.len() > KEPT_AT_MOST / 1_100, "what the others do not need is the flood's");
        assert_eq!(ring.held.values().sum::<usize>(), ring.bytes.len());
    }

    #[test]
    fn who_write_equally_much_keep_equally_much_and_what_nobody_holds_costs_nothing() {
        let mut ring = Ring::default();
        ring.push(Meta { key: 9, ..META }, &[b'x'; 16 << 10]);
        for number in 0..100_000 {
            ring.push(Meta { key: 10 + number % 1_000, ..META }, &[b'y'; 100]);
        }
        let mut kept = Map::<u64, usize>::new();
        texts(&ring, &mut ring.begin()).iter().for_each(|(key, _)| *kept.entry(*key) += 1);
        assert_eq!((kept.len(), ring.held.len()), (1_000, 1_000), "a line that is longer than a share goes too");
        assert!(kept.values().max().unwrap() - kept.values().min().unwrap() <= 1, "{kept:?}");
    }

    #[test]
    fn who_reads_slowly_is_told_of_each_line_that_it_misses_once_and_of_no_other() {
        let mut ring = Ring::default();
        let mut cursors = [1, 7, 100, 5_000].map(|pace| (pace, ring.begin(), 0, 0, None));
        let flood = [b'x'; 2_000];
        for number in 0..20_000_u64 {
            let key = if number % 100 == 0 { 2 } else { 1 };
            ring.push(Meta { key, milliseconds: number, mark: 0 }, if key == 2 { b"quiet" } else { &flood });
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
            let ahead = ring.ahead(&cursor);
            assert_eq!(got + lost + ahead, 20_000);
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

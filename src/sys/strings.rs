//! Byte strings: lists for execve(2), and memchr(3).

use std::ffi::{c_char, c_int};

use crate::model::{Numbers, Template};

/// A list of NUL-terminated strings in one buffer, as execve(2) needs them.
#[derive(Clone, Debug, Default)]
pub struct StringList {
    bytes: Vec<u8>,
    starts: Vec<usize>,
}

impl StringList {
    /// Makes an empty list without allocating memory.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: Vec::new(), starts: Vec::new() }
    }

    /// Removes all strings but keeps the allocated memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.starts.clear();
    }

    /// Appends a string. A program that receives the list sees the string up to its first NUL byte.
    pub fn push(&mut self, string: &[u8]) {
        self.push_with(|buffer| buffer.extend_from_slice(string));
    }

    /// Appends as one string the bytes that `append` adds to the buffer.
    pub fn push_with(&mut self, append: impl FnOnce(&mut Vec<u8>)) {
        self.starts.push(self.bytes.len());
        append(&mut self.bytes);
        self.bytes.push(0);
    }

    /// Appends `template`, expanded with `numbers`.
    pub fn push_template(&mut self, template: &Template, numbers: Numbers) {
        let start = template.write_to(numbers, &mut self.bytes);
        self.starts.push(start);
    }

    /// The number of strings.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether the list is empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// The string at `position`, without the NUL.
    #[must_use]
    pub fn get(&self, position: usize) -> Option<&[u8]> {
        let start = *self.starts.get(position)?;
        let next = self.starts.get(position + 1).copied().unwrap_or(self.bytes.len());
        self.bytes.get(start..next - 1)
    }

    /// The strings in order, without their NULs.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.starts.len()).filter_map(|position| self.get(position))
    }

    /// The position of the first string that starts with `prefix`, among the first `count` strings. `prefix` must not
    /// contain a NUL.
    #[must_use]
    pub fn position(&self, count: usize, prefix: &[u8]) -> Option<usize> {
        // Compare the first byte first, because this runs for each variable of each process and most differ there.
        let first = prefix.first();
        let is_match = |start: &usize| {
            self.bytes.get(*start) == first && self.bytes.get(*start..).is_some_and(|rest| rest.starts_with(prefix))
        };
        self.starts.iter().take(count).position(is_match)
    }

    /// Whether one of the first `count` strings, `NAME=value` each, has the name of `variable`.
    #[must_use]
    pub fn has_name_of(&self, count: usize, variable: &[u8]) -> bool {
        let is_match = |start: &usize| self.bytes.get(*start..).is_some_and(|entry| have_same_name(entry, variable));
        self.starts.iter().take(count).any(is_match)
    }

    /// Appends a pointer to each string to `pointers`. The pointers are valid until the list is changed.
    pub(super) fn append_pointers(&self, pointers: &mut Vec<*const c_char>) {
        let bytes = self.bytes.as_ptr();
        pointers.extend(self.starts.iter().map(|start| bytes.wrapping_add(*start).cast::<c_char>()));
    }
}

/// Whether two strings are equal up to the first `=`, which both have.
fn have_same_name(one: &[u8], other: &[u8]) -> bool {
    let mut pairs = one.iter().zip(other).take_while(|(left, right)| left == right);
    pairs.any(|(byte, _)| *byte == b'=')
}

impl<S: AsRef<[u8]>> FromIterator<S> for StringList {
    fn from_iter<I: IntoIterator<Item = S>>(strings: I) -> Self {
        let mut list = Self::new();
        for string in strings {
            list.push(string.as_ref());
        }
        list
    }
}

/// The position of the first `byte` in `text`. memchr(3), which is faster than a loop in Rust.
#[must_use]
pub fn memchr(byte: u8, text: &[u8]) -> Option<usize> {
    // SAFETY: `text` has `text.len()` readable bytes.
    let found = unsafe { libc::memchr(text.as_ptr().cast(), c_int::from(byte), text.len()) };
    (!found.is_null()).then(|| found.addr() - text.as_ptr().addr())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Number;

    #[test]
    fn a_list_returns_the_strings_that_were_pushed() {
        let mut list = StringList::from_iter(["one", ""]);
        let pieces = [(c"n=".to_owned(), Number::Instance)].into();
        let numbers = Numbers { instance: 12, instances: 13 };
        list.push_template(&Template::Numbered { pieces, last: c"".to_owned() }, numbers);
        assert_eq!(list.iter().collect::<Vec<_>>(), [&b"one"[..], b"", b"n=12"]);
        assert_eq!((list.len(), list.get(2), list.get(3)), (3, Some(&b"n=12"[..]), None));
    }

    #[test]
    fn position_finds_the_first_string_with_the_prefix() {
        let list = StringList::from_iter(["HOME=/A=1", "AA=2", "A=3", "A=4"]);
        assert_eq!(
            (list.position(4, b"A="), list.position(4, b"B="), list.position(4, b"A=4")),
            (Some(2), None, Some(3))
        );
        assert_eq!((list.position(2, b"A="), list.position(9, b"A=4")), (None, Some(3)));
    }

    #[test]
    fn variables_have_the_same_name_if_they_are_equal_up_to_the_first_equals_sign() {
        let list = StringList::from_iter(["A=1", "PATH=/bin", "B"]);
        for (variable, is_there) in
            [("A=2", true), ("A=", true), ("AB=1", false), ("A", false), ("PAT=/bin", false), ("PATH=x=y", true)]
        {
            assert_eq!(list.has_name_of(3, variable.as_bytes()), is_there, "{variable}");
        }
        assert!(!list.has_name_of(1, b"PATH=/bin") && !list.has_name_of(3, b"B=1"));
    }

    #[test]
    fn a_cleared_list_keeps_its_memory() {
        let mut list = StringList::from_iter(["a long enough string"]);
        let capacity = list.bytes.capacity();
        list.clear();
        list.push(b"short");
        assert_eq!((list.len(), list.bytes.capacity()), (1, capacity));
    }

    #[test]
    fn memchr_finds_the_first_occurrence() {
        assert_eq!(memchr(b'\n', b"ab\ncd\n"), Some(2));
        assert_eq!(memchr(b'\n', b"abcd"), None);
        assert_eq!(memchr(b'\n', b""), None);
    }
}

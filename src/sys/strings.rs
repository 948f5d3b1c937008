//! Lists of NUL-terminated strings, as execve(2) wants them.

use std::ffi::c_char;

use crate::model::Template;

/// NUL-terminated strings one after the other in one buffer, which is kept when the list is cleared.
#[derive(Clone, Debug, Default)]
pub struct StringList {
    bytes: Vec<u8>,
    starts: Vec<usize>,
}

impl StringList {
    /// An empty list; allocates nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: Vec::new(), starts: Vec::new() }
    }

    /// Removes all strings, keeps the room.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.starts.clear();
    }

    /// Appends one string. What follows a NUL byte in it is not seen by a program that gets the list.
    pub fn push(&mut self, string: &[u8]) {
        self.push_with(|buffer| buffer.extend_from_slice(string));
    }

    /// Appends the bytes that `append` appends to the buffer that it is given, as one string.
    pub fn push_with(&mut self, append: impl FnOnce(&mut Vec<u8>)) {
        self.starts.push(self.bytes.len());
        append(&mut self.bytes);
        self.bytes.push(0);
    }

    /// Appends what `template` is for instance `number`.
    pub fn push_template(&mut self, template: &Template, number: u32) {
        let start = template.write_to(number, &mut self.bytes);
        self.starts.push(start);
    }

    /// How many strings there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// The string at `position`, without its NUL.
    #[must_use]
    pub fn get(&self, position: usize) -> Option<&[u8]> {
        let start = *self.starts.get(position)?;
        let next = self.starts.get(position + 1).copied().unwrap_or(self.bytes.len());
        self.bytes.get(start..next - 1)
    }

    /// All strings, in order, without their NULs.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.starts.len()).filter_map(|position| self.get(position))
    }

    /// Where among the first `count` strings the first one is that begins with `beginning`, in which there is no NUL.
    #[must_use]
    pub fn position(&self, count: usize, beginning: &[u8]) -> Option<usize> {
        // Most differ in their first byte, and this is asked for each variable of each process.
        let first = beginning.first();
        let begins = |start: &usize| {
            self.bytes.get(*start) == first && self.bytes.get(*start..).is_some_and(|rest| rest.starts_with(beginning))
        };
        self.starts.iter().take(count).position(begins)
    }

    /// Appends a pointer to each string to `pointers`. They are good until the list is next changed.
    pub(super) fn append_pointers(&self, pointers: &mut Vec<*const c_char>) {
        let bytes = self.bytes.as_ptr();
        pointers.extend(self.starts.iter().map(|start| bytes.wrapping_add(*start).cast::<c_char>()));
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_come_back_as_they_were_pushed() {
        let mut list = StringList::from_iter(["one", ""]);
        list.push_template(&Template::Numbered([c"n=".to_owned(), c"".to_owned()].into()), 12);
        assert_eq!(list.iter().collect::<Vec<_>>(), [&b"one"[..], b"", b"n=12"]);
        assert_eq!((list.len(), list.get(2), list.get(3)), (3, Some(&b"n=12"[..]), None));
    }

    #[test]
    fn the_first_string_that_begins_so_is_found_and_none_that_has_it_further_on() {
        let list = StringList::from_iter(["HOME=/A=1", "AA=2", "A=3", "A=4"]);
        assert_eq!(
            (list.position(4, b"A="), list.position(4, b"B="), list.position(4, b"A=4")),
            (Some(2), None, Some(3))
        );
        assert_eq!((list.position(2, b"A="), list.position(9, b"A=4")), (None, Some(3)));
    }

    #[test]
    fn a_cleared_list_keeps_its_room() {
        let mut list = StringList::from_iter(["a long enough string"]);
        let room = list.bytes.capacity();
        list.clear();
        list.push(b"short");
        assert_eq!((list.len(), list.bytes.capacity()), (1, room));
    }
}

//! What the workers of one service have keepalive remember: it outlives each of them, and not keepalive.

use crate::model::map::Map;

/// So many bytes of keys and values at most.
const SIZE: usize = 1 << 20;
/// What an entry takes besides: without it a million empty ones would be for free.
const ENTRY: usize = 32;

/// Values by their keys; values are written JSON.
#[derive(Debug, Default)]
pub(super) struct Store {
    values: Map<String, Box<str>>,
    size: usize,
}

/// There is no room for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Store {
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(|value| &**value)
    }

    /// Remembers it in place of what was there.
    ///
    /// # Errors
    /// There is no room; what was there still is.
    pub(super) fn set(&mut self, key: String, value: &str) -> Result<(), Full> {
        let before = self.get(&key).map_or(0, |before| cost(&key, before));
        let size = self.size - before + cost(&key, value);
        if size > SIZE {
            return Err(Full);
        }
        self.size = size;
        self.values.insert(key, value.into());
        Ok(())
    }

    pub(super) fn remove(&mut self, key: &str) {
        if let Some(value) = self.values.remove(key) {
            self.size -= cost(key, &value);
        }
    }
}

const fn cost(key: &str, value: &str) -> usize {
    key.len() + value.len() + ENTRY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_set_is_there_until_it_is_removed() {
        let mut store = Store::default();
        assert_eq!(store.get("a"), None);
        store.set("a".to_owned(), "1").unwrap();
        store.set("a".to_owned(), "22").unwrap();
        assert_eq!((store.get("a"), store.size), (Some("22"), 3 + ENTRY));
        store.remove("b");
        store.remove("a");
        assert_eq!((store.get("a"), store.size), (None, 0));
    }

    #[test]
    fn what_there_is_no_room_for_changes_nothing() {
        let mut store = Store::default();
        let half = "x".repeat(SIZE / 2);
        store.set("a".to_owned(), &half).unwrap();
        assert_eq!(store.set("b".to_owned(), &half), Err(Full));
        assert_eq!(store.set("a".to_owned(), &"x".repeat(SIZE)), Err(Full));
        assert_eq!(store.get("a"), Some(half.as_str()));
        store.set("a".to_owned(), "1").unwrap();
        store.set("b".to_owned(), &half).unwrap();
        let mut small = 0;
        while store.set(small.to_string(), "").is_ok() {
            small += 1;
        }
        assert!(small < SIZE / 2 / ENTRY, "small ones are counted, too: {small}");
    }
}

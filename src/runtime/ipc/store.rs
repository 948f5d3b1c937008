//! The values that the workers of one service store in keepalive. They outlive the workers, but not keepalive.

use crate::model::map::Map;
use crate::sys::allocator;

/// The maximum size of all keys and values, in bytes.
const MAX_SIZE: usize = 1 << 20;
/// The additional cost of each entry, in bytes, so that empty entries are limited too.
const ENTRY_OVERHEAD: usize = 32;

/// Values, as JSON, by their keys.
#[derive(Debug, Default)]
pub(super) struct Store {
    values: Map<String, Box<str>>,
    size: usize,
}

/// The store is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Store {
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(|value| &**value)
    }

    /// Sets or replaces a value.
    ///
    /// # Errors
    /// The store is full, or the system refuses keepalive more memory. The old value stays.
    pub(super) fn set(&mut self, key: String, value: &str) -> Result<(), Full> {
        let before = self.get(&key).map_or(0, |before| cost(&key, before));
        let size = self.size - before + cost(&key, value);
        if size > MAX_SIZE || allocator::is_reserve_in_use() {
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
    key.len() + value.len() + ENTRY_OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_kept_until_it_is_removed() {
        let mut store = Store::default();
        assert_eq!(store.get("a"), None);
        store.set("a".to_owned(), "1").unwrap();
        store.set("a".to_owned(), "22").unwrap();
        assert_eq!((store.get("a"), store.size), (Some("22"), 3 + ENTRY_OVERHEAD));
        store.remove("b");
        store.remove("a");
        assert_eq!((store.get("a"), store.size), (None, 0));
    }

    #[test]
    fn a_full_store_does_not_change() {
        let mut store = Store::default();
        let half = "x".repeat(MAX_SIZE / 2);
        store.set("a".to_owned(), &half).unwrap();
        assert_eq!(store.set("b".to_owned(), &half), Err(Full));
        assert_eq!(store.set("a".to_owned(), &"x".repeat(MAX_SIZE)), Err(Full));
        assert_eq!(store.get("a"), Some(half.as_str()));
        store.set("a".to_owned(), "1").unwrap();
        store.set("b".to_owned(), &half).unwrap();
        let mut small = 0;
        while store.set(small.to_string(), "").is_ok() {
            small += 1;
        }
        assert!(small < MAX_SIZE / 2 / ENTRY_OVERHEAD, "small ones are counted, too: {small}");
    }
}

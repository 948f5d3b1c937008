//! Values that are shown as they were written.

use std::fmt;
use std::ops::Deref;

/// A value, and its text in the configuration if that contains variables: their values may be secrets, so the value is shown
/// as it was written.
#[derive(Clone, Debug)]
pub struct AsWritten<T> {
    value: T,
    written: Option<Box<str>>,
}

impl<T> AsWritten<T> {
    /// `written`: the text with variables; `None` if there are none.
    pub fn new(value: T, written: Option<&str>) -> Self {
        Self { value, written: written.map(Into::into) }
    }

    /// The text for people: as it was written, or the result of `format`.
    pub fn shown(&self, format: impl FnOnce(&T) -> String) -> String {
        self.written.as_deref().map_or_else(|| format(&self.value), str::to_owned)
    }
}

impl<T> From<T> for AsWritten<T> {
    fn from(value: T) -> Self {
        Self { value, written: None }
    }
}

impl<T> Deref for AsWritten<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: fmt::Display> fmt::Display for AsWritten<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.written {
            Some(written) => formatter.write_str(written),
            None => self.value.fmt(formatter),
        }
    }
}

impl<T: PartialEq> PartialEq for AsWritten<T> {
    /// Whether the values are equal, however they were written.
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: Eq> Eq for AsWritten<T> {}

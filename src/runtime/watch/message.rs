//! The messages of the helper: one byte, and a text.

/// The maximum length of a message in bytes.
pub(super) const MAX_MESSAGE: usize = 512;
/// The maximum length of a path in it.
pub(super) const MAX_PATH: usize = 256;
/// A file has changed, whose path follows.
pub(super) const CHANGED: u8 = b'c';
/// A warning follows.
pub(super) const WARNING: u8 = b'w';

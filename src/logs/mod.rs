//! Carries lines to where they are read. So far these are keepalive's own, [`own`], and its very last, [`end`] and
//! [`bug`].
//!
//! Nothing here may wait for a reader: a line that cannot be written is dropped and counted.

pub mod bug;
pub mod end;
pub mod own;
pub mod stamp;

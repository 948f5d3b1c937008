//! Carries lines to where they are read. keepalive's own come from [`own`], and its very last from [`end`] and [`bug`].
//! What services write is read by the [`logger`], a process of its own; [`link`] is the way there, and [`line`] says how
//! lines look.
//!
//! Nothing here may make PID 1 wait for a reader: a line of its own that cannot be written is dropped and counted.

pub mod bug;
pub mod end;
pub mod line;
pub mod link;
pub mod logger;
pub mod message;
pub mod own;
pub mod stamp;

//! Carries log lines from the processes that write them to their outputs.
//!
//! Two kinds of lines: keepalive's own messages, written with the macros of the `log` crate, start in [`messages`];
//! what services write is read by the [`logger`], a process of its own. [`channel`] and [`protocol`] connect PID 1 to that
//! process, [mod@line] formats lines. The reason of an unrecoverable exit goes to [`termination_log`], a bug to
//! [`panic_hook`].
//!
//! Nothing here may make PID 1 wait for a reader: a message that cannot be written is dropped and counted. Start reading
//! at [`messages::init`] and [`logger::run`].

pub mod channel;
pub mod line;
pub mod logger;
pub mod messages;
pub mod panic_hook;
pub mod protocol;
pub mod termination_log;
pub mod timestamp;

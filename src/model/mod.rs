//! The names that every other room uses: processes, signals, instants, the validated plan.
//!
//! Plain data that cannot be wrong once it exists. This room imports nothing of ours, touches no kernel
//! and reads no file. Start with [`plan`], what a configuration has become, then [`process`].

mod defaults;
pub mod errno;
pub mod excess;
pub mod exit_code;
pub mod map;
mod merge;
pub mod plan;
pub mod process;
mod run;
pub mod signal;
mod socket;
pub mod template;
pub mod time;
pub mod units;

pub use plan::Plan;
pub use process::{ExitStatus, InstanceId, Pgid, Pid, ServiceIndex, StartFailure, StartStep};
pub use run::RunId;
pub use signal::Signal;
pub use template::Template;
pub use time::Mono;

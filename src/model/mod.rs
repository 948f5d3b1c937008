//! The vocabulary of all other folders: processes, signals, points in time, the validated plan.
//!
//! The types can only hold valid values. This folder uses no other folder, makes no system calls and reads no files. Start
//! reading at [`plan`], the validated configuration, then [`process`].

pub mod architecture;
mod as_written;
mod awake;
pub mod calendar;
pub mod cron;
mod defaults;
mod env_file;
pub mod errno;
pub mod exit_code;
mod exit_set;
pub mod glob;
mod hooks;
pub mod instance_limit;
pub mod json;
pub mod map;
mod memory_use;
mod merge;
pub mod plan;
mod probe_failure;
pub mod process;
mod process_spec;
mod program_name;
mod run;
pub mod schedule;
pub mod signal;
mod socket;
pub mod template;
pub mod time;
pub mod time_zone;
pub mod units;
pub mod visible;
mod watch;

pub use as_written::AsWritten;
pub use awake::{AwakeClock, Woken};
pub use env_file::{EnvFileError, EnvLineError};
pub use memory_use::MemoryUse;
pub use plan::Plan;
pub use probe_failure::ProbeFailure;
pub use process::{ExitStatus, InstanceId, Pgid, Pid, ServiceIndex, StartFailure, StartStep};
pub use program_name::ProgramName;
pub use run::RunId;
pub use schedule::Schedule;
pub use signal::Signal;
pub use template::{Number, Numbers, Template};
pub use time::{Mono, milliseconds};
pub use watch::Watch;

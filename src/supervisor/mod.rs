//! The supervisor decides what happens to the services. Events go in, actions come out.
//!
//! It is pure: it makes no system calls, reads no clock and no files, does not log, and cannot fail. Failures of the system
//! come in as [`Event`]s, decisions go out as [`Action`]s, and each transition is recorded as one [`JournalEntry`]. The same
//! plan, events, times and seed give the same actions; `tests/sim` depends on this.
//!
//! The states of an instance (`State`):
//!
//! ```text
//!              dependencies ready          execve done             ready
//!   Waiting ───────────────────► Spawning ─► Executing ─► Starting ─► Running
//!      ▲                          ▲                │           │         │ stop
//!      │ operator      due / at once              └─── it exits ──┬──────┤
//!      │                          │                                ▼      ▼
//!   Stopped ◄── decision ─── BackingOff ◄─── no leftover processes ── CleaningUp ◄── Stopping
//! ```
//!
//! Start reading at [`Supervisor::handle`]. `instance.rs` has the table of states and events, `transitions.rs` its code,
//! `restart.rs` the restart policy, `service.rs` the dependencies between services, `shutdown.rs` the shutdown.

mod availability;
mod checks;
mod configure;
mod core;
mod event;
mod failed_spawn;
mod health;
mod hooks;
mod instance;
mod lifetime;
mod measuring;
mod memory;
mod notify;
mod operator;
mod ordered_stop;
mod outbox;
mod phase;
mod planned;
mod random;
mod readiness;
mod record;
mod release;
mod reload;
mod request;
mod requester;
mod restart;
mod rollout;
mod run_result;
mod schedule;
mod service;
mod service_table;
mod shutdown;
mod side_run;
mod state;
mod state_name;
mod stop;
mod timers;
mod transitions;
mod view;
mod watch;

pub use checks::HealthStatus;
pub use core::Supervisor;
pub use event::{Action, Event, Leftovers, ReadySource, Scope, Step};
pub use operator::{Refusal, Request, RequestId, Target, Verb};
pub use planned::{Runs, SkipReason};
pub use record::{Cause, Changes, JournalEntry, JournalEvent, Outcome, Reason, Requester};
pub use request::PROOF_TIME;
pub use rollout::{ReloadFailure, RolloutError};
pub use run_result::{Exit, FailureReason, Fault, RestartCause, RestartDecision, Restarts, RunResult};
pub use state::StopStage;
pub use state_name::StateName;
pub use view::{InstanceView, ServiceView, View};

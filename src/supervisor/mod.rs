//! Decides. What has happened goes in, what to do comes out; nothing else.
//!
//! Pure: no system call, no clock, no file, no logging, and it cannot fail. Failures of the world arrive as
//! [`Event`]s, decisions leave as [`Action`]s, and every transition is told as one [`JournalEntry`]. The same events at the
//! same times with the same seed give the same actions, which is what `tests/sim` lives on.
//!
//! The life of an instance (`State`):
//!
//! ```text
//!              dependencies ready          execve done             ready
//!   Waiting ───────────────────► Spawning ─► Executing ─► Starting ─► Running
//!      ▲                          ▲                │           │         │ stop
//!      │ operator      due / at once              └─── it dies ───┬──────┤
//!      │                          │                                ▼      ▼
//!   Stopped ◄── settled ──── BackingOff ◄── what it left is gone ── CleaningUp ◄── Stopping
//! ```
//!
//! Where to start reading: [`Supervisor::handle`], then `instance.rs` for what each event does to each state,
//! `restart.rs` for whether a run is followed by another, `service.rs` for what instances mean to their service and its
//! neighbours, `shutdown.rs` for the ordered end.

mod configure;
mod core;
mod event;
mod group_at_death;
mod instance;
mod notify;
mod operator;
mod outbox;
mod phase;
mod random;
mod readiness;
mod record;
mod release;
mod reload;
mod request;
mod restart;
mod rollout;
mod run_result;
mod service;
mod service_table;
mod shutdown;
mod state;
mod state_name;
mod stop;
mod timers;
mod transitions;
mod view;

pub use core::Supervisor;
pub use event::{Action, Event, Leftovers, ReadySource, Scope, Step};
pub use group_at_death::GroupAtDeath;
pub use operator::{Refusal, Request, RequestId, Target, Verb};
pub use record::{Cause, Changes, JournalEntry, JournalEvent, Outcome, Reason};
pub use rollout::{ReloadFailure, RolloutError};
pub use run_result::{Exit, FailureReason, Fault, RestartDecision, RunResult};
pub use state_name::StateName;
pub use view::{InstanceView, ServiceView, View};

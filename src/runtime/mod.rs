//! The runtime runs the event loop: it turns what happens into events for the supervisor, and performs its actions.
//!
//! It does not decide anything about services. Only `Runtime::wait` waits, and `bounded_work` for a limited time. Nothing else
//! may take long: the work of each turn is bounded.
//!
//! Start reading at [`run`], then in `event_loop` at `Runtime::turn` for the order of a turn and `Runtime::perform` for the
//! actions. `runs` has the data of processes. Each part of the loop that owns state is a `Subsystem`.

mod bounded_work;
mod by_instance;
mod calendar;
mod child_pipes;
mod close_queue;
mod config_loader;
mod control;
mod deaths;
mod ended_helpers;
mod ending;
mod event_loop;
mod exits;
mod fd_store;
mod foreground;
mod helpers;
mod inherited_fds;
mod inspector;
mod ipc;
mod journal;
mod kills;
mod logging;
mod notify;
mod null_device;
mod oom;
mod order;
mod probe;
mod process_factory;
mod processes;
mod rate_limited_log;
mod reap_scheduler;
mod resources;
mod run_wording;
mod runs;
mod signal_source;
mod sockets;
mod start;
mod state;
mod strays;
mod subsystem;
mod text;
mod token;
mod turn;
mod unready;
mod watch;
mod wording;

use std::mem::ManuallyDrop;
use std::path::PathBuf;
use std::rc::Rc;

use crate::model::exit_code::OS_ERROR;
use crate::model::{Plan, Signal};
use crate::sys::{DispositionReset, StandardError, StringList, allocator, process, signals};
pub use config_loader::LoadConfig;
use event_loop::Runtime;
use signal_source::OnHangup;

/// Runs the services until the shutdown is complete, and returns the exit code.
///
/// `environment`: the environment of keepalive, `NAME=value` each. `config`: the canonical path of the configuration file, if
/// there is one; `load_config` loads it again.
#[must_use]
pub fn run(plan: Plan, environment: StringList, config: Option<PathBuf>, load_config: LoadConfig) -> u8 {
    allocator::set_reserve_aside();
    let plan = Rc::new(plan);
    let inherited = signals::block_all(DispositionReset::All);
    process::set_cloexec_on_inherited_fds();
    let on_hangup = if inherited.ignored.contains(Signal::HUP) { OnHangup::Ignore } else { OnHangup::Stop };
    // Is never dropped: the exit closes its descriptors without waiting for connections with SO_LINGER.
    let started = Runtime::new(Rc::clone(&plan), environment, (config, load_config), on_hangup).map(ManuallyDrop::new);
    let ended = started.and_then(|mut runtime| runtime.run().map(|outcome| (runtime, outcome)));
    match ended {
        Ok((mut runtime, outcome)) => {
            let (last_lines, port_owner) = runtime.end(&outcome);
            // A reload may have changed it.
            let plan = runtime.plan();
            ending::log(&plan, &outcome, &last_lines, port_owner);
            StandardError.flush();
            outcome.code
        }
        Err(refused) => {
            ending::report(&plan, &refused.to_string(), "");
            OS_ERROR
        }
    }
}

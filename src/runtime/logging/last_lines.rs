//! The last lines of processes that have failed. The logger sends them when it has read all that the process has written; PID 1
//! does not wait for them.

use super::pipes::Slot;
use super::{Logging, SlotKey};
use crate::config::{LISTEN_FDS_START, names_port};
use crate::logs::channel;
use crate::logs::protocol::{LastLines, LastLinesQuery, Message};
use crate::model::plan::{Hook, Listen, Process};
use crate::model::{InstanceId, RunId};
use crate::runtime::wording::BESIDE_OLD_HINT;
use crate::supervisor::{
    Cause, JournalEntry, JournalEvent, Reason, ReloadFailure, RestartDecision, RolloutError, RunResult,
};

/// The number of answers of the logger that are read in one turn.
const MAX_ANSWERS_PER_TURN: usize = 64;

impl Logging {
    /// Asks the logger for the last lines if a process has failed. Returns the query if it has failed for good, or in a reload:
    /// then they belong to the message.
    pub(in crate::runtime) fn on_entry(&mut self, entry: &JournalEntry) -> Option<LastLinesQuery> {
        let FailedProcess { instance, run, is_final, address_hint } = failed_process(&entry.event)?;
        // The lines of an earlier run are not its own.
        for key in parts(instance) {
            if let Some(slot) = self.slots.get_mut(&key) {
                slot.last_run.on_failure();
                if run.failure.is_some() || key.1 != run.hook {
                    // It has written nothing.
                    slot.last_run.on_failed_start();
                }
            }
        }
        if run.failure.is_some() {
            return None;
        }
        self.request_last_lines((instance, run.hook), run.id, address_hint).filter(|_| is_final)
    }

    /// The last lines of the process whose failure is the cause of the exit of keepalive.
    pub(in crate::runtime) fn last_lines_of(&self, cause: &Cause) -> String {
        cause.failed_instance().map_or("", |instance| self.last_lines(instance.slot())).to_owned()
    }

    fn request_last_lines(&mut self, key: SlotKey, run: RunId, address_hint: String) -> Option<LastLinesQuery> {
        if self.running.is_none() || channel::is_congested() {
            return None;
        }
        let slot = self.slots.get_mut(&key)?;
        slot.last_run.on_asked();
        let query = LastLinesQuery { run: slot.key_of(run), address_hint };
        channel::send(Message::LastLines(query.clone()), None);
        Some(query)
    }

    /// Whether the logger has been asked for the last lines of `instance` and has not answered.
    pub(in crate::runtime) fn awaits_last_lines(&self, instance: InstanceId) -> bool {
        parts(instance).iter().any(|key| self.slots.get(key).is_some_and(|slot| slot.last_run.is_awaited()))
    }

    /// Whether there is or has been such an instance: it is in the configuration, or had a process.
    pub(in crate::runtime) fn knows(&self, instance: InstanceId) -> bool {
        let service = self.plan.services.get(instance.service.position());
        service.is_some_and(|service| instance.number < service.instances)
            || parts(instance).iter().any(|key| self.slots.contains_key(key))
    }

    /// The last lines of the last process of `instance` that has failed, also if there is another one since.
    pub(in crate::runtime) fn last_lines(&self, instance: InstanceId) -> &str {
        let mut lines = parts(instance).into_iter().filter_map(|key| Some(self.slots.get(&key)?.last_run.lines()));
        lines.find(|lines| !lines.is_empty()).unwrap_or_default()
    }

    pub(super) fn receive_last_lines(&mut self) {
        for _ in 0..MAX_ANSWERS_PER_TURN {
            let Some(LastLines { slot, text }) = channel::receive() else { return };
            let of = |known: &&mut Slot| known.number == slot && known.last_run.is_awaited();
            if let Some(slot) = self.slots.values_mut().find(of) {
                slot.last_run.on_answer(text);
            }
        }
    }
}

/// What of an instance can fail a run.
const fn parts(instance: InstanceId) -> [SlotKey; 2] {
    [(instance, None), (instance, Some(Hook::PreStart))]
}

struct FailedProcess<'e> {
    instance: InstanceId,
    run: &'e RunResult,
    /// It has failed for good, or in a reload.
    is_final: bool,
    address_hint: String,
}

fn failed_process(event: &JournalEvent) -> Option<FailedProcess<'_>> {
    if let JournalEvent::Transition { instance, reason, .. } = event
        && let Reason::Exited { decision, run, definition } = reason
        && let RestartDecision::Fail(_) | RestartDecision::Restart { .. } = decision
    {
        let is_final = matches!(decision, RestartDecision::Fail(_));
        let address_hint = listen_hint(&definition.process).unwrap_or_default();
        Some(FailedProcess { instance: instance.slot(), run, is_final, address_hint })
    } else if let JournalEvent::ReloadFinished { failure: Some(failure), .. } = event
        && let ReloadFailure { instance, definition, error } = failure
        && let Some(run) = error.run()
    {
        let is_beside_old = matches!(error, RolloutError::ExitedBesideOld(_));
        // If the definition names a port, the reason of the failure has this hint.
        let beside_old = (is_beside_old && !names_port(&definition.process)).then(|| BESIDE_OLD_HINT.to_owned());
        let address_hint = listen_hint(&definition.process).or(beside_old).unwrap_or_default();
        Some(FailedProcess { instance: instance.slot(), run, is_final: true, address_hint })
    } else {
        None
    }
}

/// What to do if a program cannot bind an address because keepalive has done so.
fn listen_hint(process: &Process) -> Option<String> {
    let Listen { name, .. } = process.listen.first()?;
    Some(format!(
        "keepalive itself has bound the addresses of `listen`: let the program use descriptor {LISTEN_FDS_START} \
         (`{{fd.{name}}}`), or remove `listen`"
    ))
}

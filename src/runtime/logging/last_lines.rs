//! The last lines of processes that have failed. The logger sends them when it has read all that the process has written; PID 1
//! does not wait for them.

use super::Logging;
use crate::logs::channel;
use crate::logs::protocol::{LastLines, Message, RunKey};
use crate::model::{InstanceId, RunId};
use crate::supervisor::{Cause, JournalEntry, JournalEvent, Reason, RestartDecision, RolloutError, RunResult};

/// The number of answers of the logger that are read in one turn.
const MAX_ANSWERS_PER_TURN: usize = 64;

impl Logging {
    /// Asks the logger for the last lines if a process has failed. Returns its run if it has failed for good, or in a reload:
    /// then they belong to the message.
    pub(in crate::runtime) fn on_entry(&mut self, entry: &JournalEntry) -> Option<RunKey> {
        let (instance, run, is_final) = failed_process(&entry.event)?;
        if run.failure.is_some() {
            // It has written nothing, and the lines of an earlier run are not its own.
            let slot = self.slots.get_mut(&instance)?;
            (slot.last_lines, slot.current_answers) = (String::new(), 0);
            return None;
        }
        self.request_last_lines(instance, run.id).filter(|_| is_final)
    }

    /// The last lines of the process whose failure is the cause of the exit of keepalive.
    pub(in crate::runtime) fn last_lines_of(&self, cause: &Cause) -> String {
        cause.failed_instance().map_or("", |instance| self.last_lines(instance.slot())).to_owned()
    }

    fn request_last_lines(&mut self, instance: InstanceId, run: RunId) -> Option<RunKey> {
        if self.running.is_none() || channel::is_congested() {
            return None;
        }
        let slot = self.slots.get_mut(&instance)?;
        slot.awaited_answers += 1;
        slot.current_answers += 1;
        let run = slot.key_of(run);
        channel::send(Message::LastLines(run), None);
        Some(run)
    }

    /// Whether the logger has been asked for the last lines of `instance` and has not answered.
    pub(in crate::runtime) fn awaits_last_lines(&self, instance: InstanceId) -> bool {
        self.slots.get(&instance).is_some_and(|slot| slot.awaited_answers > 0)
    }

    /// Whether there is or has been such an instance: it is in the configuration, or had a process.
    pub(in crate::runtime) fn knows(&self, instance: InstanceId) -> bool {
        let service = self.plan.services.get(instance.service.position());
        service.is_some_and(|service| instance.number < service.instances) || self.slots.contains_key(&instance)
    }

    /// The last lines of `instance`, if its last process has failed.
    pub(in crate::runtime) fn last_lines(&self, instance: InstanceId) -> &str {
        self.slots.get(&instance).map_or("", |slot| &slot.last_lines)
    }

    pub(super) fn receive_last_lines(&mut self) {
        for _ in 0..MAX_ANSWERS_PER_TURN {
            let Some(LastLines { slot, text }) = channel::receive() else { return };
            if let Some(slot) = self.slots.values_mut().find(|known| known.number == slot && known.awaited_answers > 0)
            {
                slot.awaited_answers -= 1;
                // Answers come in the order of the requests.
                if slot.awaited_answers < slot.current_answers {
                    (slot.last_lines, slot.current_answers) = (text, slot.awaited_answers);
                }
            }
        }
    }
}

/// The instance whose process has failed, its run, and whether for good or in a reload.
fn failed_process(event: &JournalEvent) -> Option<(InstanceId, &RunResult, bool)> {
    let (instance, run, is_final) = if let JournalEvent::Transition { instance, reason, .. } = event
        && let Reason::Exited { decision, run, .. } = reason
        && let RestartDecision::Fail(_) | RestartDecision::Restart { .. } = decision
    {
        (instance, run, matches!(decision, RestartDecision::Fail(_)))
    } else if let JournalEvent::ReloadFinished { failure: Some(failure), .. } = event
        && let RolloutError::Exited(run) | RolloutError::ExitedBesideOld(run) | RolloutError::ExitedAfterStopping(run) =
            &failure.error
    {
        (&failure.instance, run, true)
    } else {
        return None;
    };
    Some((instance.slot(), run, is_final))
}

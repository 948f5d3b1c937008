//! The last lines of processes that have failed. The logger sends them when it has read all that the process has written; PID 1
//! does not wait for them.

use super::Logging;
use crate::logs::channel;
use crate::logs::protocol::{LastLines, Message};
use crate::model::InstanceId;
use crate::supervisor::{Cause, JournalEntry, JournalEvent, Reason, RestartDecision, RolloutError};

/// The number of answers of the logger that are read in one turn.
const MAX_ANSWERS_PER_TURN: usize = 64;

impl Logging {
    /// Asks the logger for the last lines if a process has failed. Returns the slot of its instance if it has failed for good, or
    /// in a reload: then they belong to the message.
    pub(in crate::runtime) fn on_entry(&mut self, entry: &JournalEntry) -> Option<u32> {
        let (instance, is_final) = failed_process(&entry.event)?;
        self.request_last_lines(instance).filter(|_| is_final)
    }

    /// The last lines of the process whose failure is the cause of the exit of keepalive.
    pub(in crate::runtime) fn last_lines_of(&self, cause: &Cause) -> String {
        cause.failed_instance().map_or("", |instance| self.last_lines(instance.slot())).to_owned()
    }

    fn request_last_lines(&mut self, instance: InstanceId) -> Option<u32> {
        if self.running.is_none() || channel::is_congested() {
            return None;
        }
        let slot = self.slots.get_mut(&instance)?;
        slot.awaited_answers += 1;
        channel::send(Message::LastLines { slot: slot.number }, None);
        Some(slot.number)
    }

    /// Whether the logger has been asked for the last lines of `instance` and has not answered.
    pub(in crate::runtime) fn awaits_last_lines(&self, instance: InstanceId) -> bool {
        self.slots.get(&instance).is_some_and(|slot| slot.awaited_answers > 0)
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
                slot.last_lines = text;
            }
        }
    }
}

/// The instance whose process has failed, and whether for good or in a reload.
fn failed_process(event: &JournalEvent) -> Option<(InstanceId, bool)> {
    if let JournalEvent::Transition { instance, reason, .. } = event
        && let Reason::Exited { decision, run, .. } = reason
        && let RestartDecision::Fail(_) | RestartDecision::Restart { .. } = decision
        && run.failure.is_none()
    {
        return Some((instance.slot(), matches!(decision, RestartDecision::Fail(_))));
    }
    // Where the old process was not there any more, that of the former definition has taken the place of the one that has
    // failed.
    if let JournalEvent::ReloadFinished { failure: Some(failure), .. } = event
        && let RolloutError::ExitedBesideOld(run) = &failure.error
        && run.failure.is_none()
    {
        return Some((failure.instance.slot(), true));
    }
    None
}

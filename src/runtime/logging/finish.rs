//! The end of the logger: what is left to be written is written, if that does not take too long.

use std::time::Duration;

use nix::errno::Errno;

use super::Logging;
use crate::logs::protocol::Message;
use crate::logs::{channel, messages};
use crate::model::{ExitStatus, Mono, Signal};
use crate::runtime::token::Token;
use crate::sys::poll::Ready;
use crate::sys::{self, Poller, kill, wait};

/// What is left to be written at the very end has so much time, less if the whole stop has.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
const MIN_FLUSH_TIMEOUT: Duration = Duration::from_millis(200);

impl Logging {
    /// At the very end: waits until everything is written, so long at most as there is time. `stop_begun`: when the
    /// ordered stop has begun.
    pub(in crate::runtime) fn finish(&mut self, stop_begun: Option<Mono>) {
        if self.way.is_none() {
            return;
        }
        let now = sys::now();
        let left = stop_begun.map_or(FLUSH_TIMEOUT, |since| {
            self.plan.shutdown_timeout.saturating_sub(now.since(since)).clamp(MIN_FLUSH_TIMEOUT, FLUSH_TIMEOUT)
        });
        self.write_the_rest(now + left).ok();
        if let Some(running) = self.running.take() {
            // It is ours and not reaped: the number is its own.
            kill::signal_process(running.pid, Signal::KILL).ok();
        }
        if let Some(way) = self.way.take() {
            messages::write_unread(&way.peer);
        }
        channel::disconnect();
    }

    /// With as many loggers as it takes.
    fn write_the_rest(&mut self, by: Mono) -> Result<(), Errno> {
        let mut poller = Poller::new()?;
        if let Some(running) = &self.running {
            poller.add(&running.liveness_fd, Token::LoggerExited)?;
        }
        self.waits_for_room = false;
        let mut is_told = false;
        loop {
            let now = sys::now();
            // It keeps to the time itself; a moment more, so that it can.
            if now >= by + MIN_FLUSH_TIMEOUT {
                return Err(Errno::ETIMEDOUT);
            }
            if self.running.is_none() {
                self.try_start(&poller)?;
                is_told = false;
            }
            if !std::mem::replace(&mut is_told, true) {
                let within = u64::try_from(by.since(now).as_millis()).unwrap_or(0);
                channel::send(Message::Stop { within }, None);
            }
            self.wait_for_room(&poller);
            let ready = poller.wait(Some((by + MIN_FLUSH_TIMEOUT).since(now)))?;
            if ready.iter().any(|ready: &Ready| Token::decode(ready.data()) == Some(Token::LoggerExited))
                && self.reap_last(&poller) == Some(true)
            {
                return Ok(());
            }
        }
    }

    /// Whether the logger has ended by itself; `None`: it has not ended yet.
    fn reap_last(&mut self, poller: &Poller) -> Option<bool> {
        let running = self.running.as_ref()?;
        let status = wait::reap_without_sigchld(running.pid).unwrap_or(Some(ExitStatus::Code(0)))?;
        poller.remove(&running.liveness_fd).ok();
        self.running = None;
        Some(status == ExitStatus::Code(0))
    }
}

//! The end of the logger: it writes the remaining output, within a time limit.

use std::time::Duration;

use nix::errno::Errno;

use super::Logging;
use crate::logs::protocol::Message;
use crate::logs::{channel, messages};
use crate::model::{AwakeClock, ExitStatus, Mono, Signal, milliseconds};
use crate::runtime::rate_limited_log;
use crate::runtime::token::Token;
use crate::sys::poll::Ready;
use crate::sys::{self, Poller, kill, wait};

/// The time limit for the remaining output; less if `shutdown_timeout` leaves less.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
/// The remaining output has at least this long.
const MIN_FLUSH_TIMEOUT: Duration = Duration::from_millis(200);

impl Logging {
    /// Waits until the logger has written everything, within the time limit.
    pub(in crate::runtime) fn finish(&mut self, now: Mono, shutdown_started_at: Option<Mono>) {
        rate_limited_log::flush_all();
        if self.logger_channel.is_none() {
            return;
        }
        let left = shutdown_started_at.map_or(FLUSH_TIMEOUT, |since| {
            self.plan.shutdown_timeout.saturating_sub(now.since(since)).clamp(MIN_FLUSH_TIMEOUT, FLUSH_TIMEOUT)
        });
        self.flush_output(left).ok();
        if let Some(running) = self.running.take() {
            // It has not been reaped, so its pid is valid.
            kill::signal_process(running.pid, Signal::KILL).ok();
        }
        self.receive_last_lines();
        if let Some(logger_channel) = self.logger_channel.take() {
            messages::write_unread(&logger_channel.peer);
        }
        channel::disconnect();
    }

    /// Tells the logger to finish, and waits for it. Restarts it if it crashes.
    fn flush_output(&mut self, left: Duration) -> Result<(), Errno> {
        let mut clock = AwakeClock::new(sys::now());
        let by = clock.now() + left;
        let mut poller = Poller::new()?;
        if let Some(running) = &self.running {
            poller.add(&running.liveness_fd, Token::LoggerExited)?;
        }
        channel::with_socket(|socket| poller.add(socket, Token::LoggerSocket).ok());
        self.waits_for_room = false;
        let mut is_stop_sent = false;
        loop {
            let now = clock.read(sys::now());
            // The logger has the same deadline: give it a little more time.
            if now >= by + MIN_FLUSH_TIMEOUT {
                return Err(Errno::ETIMEDOUT);
            }
            if self.running.is_none() {
                self.try_start(&poller, now)?;
                is_stop_sent = false;
            }
            if !std::mem::replace(&mut is_stop_sent, true) {
                let within = milliseconds(by.since(now));
                channel::send(Message::Stop { within }, None);
            }
            self.receive_last_lines();
            self.watch_for_room(&poller);
            let timeout = Some((by + MIN_FLUSH_TIMEOUT).since(now));
            let ready = poller.wait(timeout)?;
            let has_exited = ready.iter().any(|ready: &Ready| Token::decode(ready.data()) == Some(Token::LoggerExited));
            clock.on_wake(sys::now(), timeout, poller.woken());
            if has_exited && self.reap_last(&poller) == Some(true) {
                return Ok(());
            }
        }
    }

    /// Whether the logger has exited successfully; `None` if it has not exited yet.
    fn reap_last(&mut self, poller: &Poller) -> Option<bool> {
        let running = self.running.as_ref()?;
        let status = wait::reap_without_sigchld(running.pid).unwrap_or(Some(ExitStatus::Code(0)))?;
        poller.remove(&running.liveness_fd).ok();
        self.running = None;
        Some(status == ExitStatus::Code(0))
    }
}

//! The logger process: it is started, and replaced when it has exited or is held up.

use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::errno::Errno;

use super::pipes::Slot;
use super::{LoggerChannel, Logging, Running, longest_name};
use crate::logs::channel;
use crate::logs::line::Colour;
use crate::logs::logger::{self, LoggerArgs, READ_MARK, ReadMark};
use crate::logs::protocol::Source;
use crate::model::{ExitStatus, Mono, Signal, errno};
use crate::runtime::rate_limited_log::{self, MessageKind};
use crate::runtime::token::Token;
use crate::sys::deferred_close::Owner;
use crate::sys::fork::{self, ForkResult};
use crate::sys::timer::Timer;
use crate::sys::{Poller, kill, pipe, process, wait};

/// The time between two attempts to start a logger that the system refuses.
const START_RETRY_INTERVAL: Duration = Duration::from_millis(500);

impl Logging {
    pub(super) fn on_exit(&mut self, poller: &Poller, now: Mono) {
        let Some(running) = &self.running else { return };
        let status = match wait::reap_without_sigchld(running.pid) {
            // It cannot be reaped yet, although its descriptors are closed. The next turn tries again.
            Ok(None) => return,
            Ok(status) => status,
            Err(_) => None,
        };
        let Some(Running { since, .. }) = self.take_running(poller) else { return };
        if self.is_killing_all {
            return;
        }
        if let Some(ExitStatus::Code(code)) = status
            && errno::is_shortage(Errno::from_raw(code.into()))
        {
            return self.retry_start(Errno::from_raw(code.into()), now);
        }
        let how = status.map_or_else(String::new, |status: ExitStatus| format!(" ({status})"));
        self.restart(since, &how, poller, now);
    }

    /// Replaces the logger if a pipe has held it up for too long. The next one does not read this pipe.
    pub(super) fn check_hold_up(&mut self, poller: &Poller, now: Mono) {
        self.hold_up.reap(now);
        let Some(LoggerChannel { counters, timer: Some(timer), .. }) = &self.logger_channel else { return };
        if !std::mem::take(&mut self.hold_up.has_expired) || !timer.acknowledge() || self.is_killing_all {
            return;
        }
        let mark = counters.get(READ_MARK).and_then(ReadMark::load);
        let Some(mark) = self.hold_up.look(mark, now) else { return };
        let Some(Running { pid, since, .. }) = self.take_running(poller) else { return };
        // It has not been reaped, so its pid is valid. It ends when its system call does.
        kill::signal_process(pid, Signal::KILL).ok();
        let pipe = self.slots.values_mut().find_map(|slot| slot.take(|source| mark.is_of(source.serial)));
        let (source, ends) = pipe.unzip();
        let owner = source.as_ref().map_or(Owner::Unknown, |source| Owner::Service(source.index));
        self.hold_up.on_killed(pid, owner, ends.unwrap_or_default(), now);
        if let Some(Source { instance, .. }) = source {
            log::warn!("{instance}: its output holds up the logger and is not read any more");
        }
        self.restart(since, "", poller, now);
    }

    /// The logger has exited, or will.
    fn take_running(&mut self, poller: &Poller) -> Option<Running> {
        let running = self.running.take()?;
        poller.remove(&running.liveness_fd).ok();
        self.slots.values_mut().for_each(|slot| slot.last_run.on_logger_exit());
        self.hold_up.forget();
        if let Some(LoggerChannel { counters, timer, .. }) = &self.logger_channel {
            counters.get(READ_MARK).into_iter().for_each(ReadMark::clear);
            timer.iter().for_each(Timer::clear);
        }
        Some(running)
    }

    fn restart(&mut self, since: Mono, how: &str, poller: &Poller, now: Mono) {
        self.restarts += 1;
        let Some(wait) = self.backoff.on_exit(since, now) else {
            if self.start(poller, now) {
                log::warn!("logger restarted{how}");
            }
            return;
        };
        channel::use_stderr();
        self.start_at = Some(now + wait);
        log::warn!("logger is crash-looping{how}: next restart in {}s", wait.as_secs());
    }

    /// Returns whether it was started.
    pub(super) fn start(&mut self, poller: &Poller, now: Mono) -> bool {
        self.start_at = None;
        match self.try_start(poller, now) {
            Ok(()) => {
                channel::use_logger();
                if self.start_error.take().is_some() {
                    log::warn!("logger started after a shortage");
                }
                true
            }
            Err(errno) => {
                self.retry_start(errno, now);
                false
            }
        }
    }

    /// The system lacks what a logger needs. That is no exit, and is tried again soon.
    fn retry_start(&mut self, errno: Errno, now: Mono) {
        channel::use_stderr();
        self.start_at = Some(now + START_RETRY_INTERVAL);
        if self.start_error.replace(errno) != Some(errno) {
            let reason = errno::words(errno);
            rate_limited_log::warn(
                MessageKind::HelperShortage,
                None,
                format_args!("cannot start the logger: {reason}; services that write have to wait"),
            );
        }
    }

    pub(super) fn try_start(&mut self, poller: &Poller, now: Mono) -> Result<(), Errno> {
        self.slots.values_mut().for_each(Slot::close_drained);
        let (liveness_fd, held) = pipe::pipe()?;
        // Before there is a process: one that is not watched could not be replaced.
        poller.add(&liveness_fd, Token::LoggerExited)?;
        match fork::fork_without_sigchld()? {
            ForkResult::Child => self.become_logger(held),
            ForkResult::Parent(pid) => {
                self.running = Some(Running { pid, since: now, liveness_fd });
                Ok(())
            }
        }
    }

    /// Runs the logger, in the child.
    fn become_logger(&mut self, liveness_fd: OwnedFd) -> ! {
        let Some(LoggerChannel { peer, counters, timer }) = self.logger_channel.take() else { process::exit_now(1) };
        let mut pipes = Vec::new();
        for (_, slot) in std::mem::take(&mut self.slots).into_entries() {
            slot.move_read_ends(&mut pipes);
        }
        logger::run(LoggerArgs {
            socket: peer,
            liveness_fd,
            pipes,
            style: self.style,
            width: longest_name(&self.plan),
            colour: match std::env::var_os("NO_COLOR") {
                Some(wish) if !wish.is_empty() => Colour::Without,
                Some(_) | None => Colour::With,
            },
            counters,
            timer,
        })
    }
}

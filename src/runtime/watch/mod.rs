//! `watch`: helper processes, one for each service with `watch`, which look at its files and report when they have changed.
//!
//! PID 1 reads no directory: only short messages, few at a time. A helper that exits is replaced. `files` walks directories,
//! `tree` has the watches of inotify(7), `watcher` is the process.

mod files;
mod message;
mod tree;
mod watcher;

use std::os::fd::{AsFd as _, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use log::Level;
use nix::errno::Errno;

use super::ended_helpers::EndedHelpers;
use super::subsystem::{Context, Subsystem};
use super::token::Token;
use crate::model::plan::Watch;
use crate::model::{Mono, Pid, Plan, ServiceIndex, Signal, visible};
use crate::supervisor::Event;
use crate::sys::{Interest, Poller, fork, kill, packet};
use message::{CHANGED, MAX_MESSAGE};

/// The time until a helper that has exited, or could not be created, is replaced.
const RESTART_DELAY: Duration = Duration::from_secs(2);
/// The time until the next message of a helper is read.
const MESSAGE_INTERVAL: Duration = Duration::from_millis(50);

/// The helpers of all services.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    watchers: Vec<Watcher>,
    /// Helpers that have been killed and not been reaped yet.
    killed: EndedHelpers,
    /// The services whose helpers have sent something.
    ready: Vec<ServiceIndex>,
}

#[derive(Debug)]
struct Watcher {
    service: ServiceIndex,
    watch: Rc<Watch>,
    process: Option<(Pid, OwnedFd)>,
    /// When it is started, or may send the next message.
    due: Option<Mono>,
}

impl Subsystem for Watchers {
    type Needs<'a> = ();

    fn due(&self) -> Option<Mono> {
        self.watchers.iter().filter_map(|watcher| watcher.due).chain(self.killed.due()).min()
    }

    fn on_ready(&mut self, token: Token) {
        if let Token::Watcher(number) = token {
            self.ready.extend(u32::try_from(number).map(ServiceIndex));
        }
    }

    fn turn(&mut self, context: &mut Context<'_>, (): ()) -> Vec<Event> {
        let mut events = Vec::new();
        let now = context.now;
        if context.supervisor.view().is_stopping {
            self.retain(context.poller, now, &|_| false);
        }
        let ready = std::mem::take(&mut self.ready);
        for watcher in &mut self.watchers {
            let service = watcher.service;
            let name = context.plan.services.get(service.position()).map_or("", |service| &*service.name);
            if watcher.due.is_some_and(|due| due <= now) {
                watcher.due = None;
                watcher.start(name, context.poller, now);
            }
            if ready.contains(&service)
                && let Some(message) = watcher.receive(name, context.poller, now, &mut self.killed)
                && let Some((kind, text)) = message.split_first()
            {
                let is_change = *kind == CHANGED;
                say(if is_change { Level::Info } else { Level::Warn }, name, &String::from_utf8_lossy(text));
                if is_change {
                    events.push(Event::FilesChanged { service });
                }
            }
        }
        self.killed.reap(now);
        events
    }
}

impl Watchers {
    /// Starts helpers for new and changed services, and ends those that are not needed any more.
    pub(super) fn apply_config(&mut self, plan: &Plan, poller: &Poller, now: Mono) {
        let wanted = |service: ServiceIndex| {
            let service = plan.services.get(service.position()).filter(|service| !service.is_removed);
            service.and_then(|service| service.watch.as_ref())
        };
        self.retain(poller, now, &|watcher| wanted(watcher.service) == Some(&watcher.watch));
        for service in (0..).map(ServiceIndex).take(plan.services.len()) {
            if let Some(watch) = wanted(service).filter(|_| self.watchers.iter().all(|it| it.service != service)) {
                let due = Some(now);
                self.watchers.push(Watcher { service, watch: Rc::clone(watch), process: None, due });
            }
        }
    }

    fn retain(&mut self, poller: &Poller, now: Mono, is_kept: &dyn Fn(&Watcher) -> bool) {
        while let Some(position) = self.watchers.iter().position(|watcher| !is_kept(watcher)) {
            self.watchers.swap_remove(position).end(poller, now, &mut self.killed);
        }
    }

    /// The helpers that have not been reaped.
    pub(super) fn pids(&self) -> impl Iterator<Item = Pid> {
        let pids = self.watchers.iter().filter_map(|watcher| watcher.process.as_ref()).map(|(pid, _)| *pid);
        pids.chain(self.killed.pids().iter().copied())
    }
}

impl Watcher {
    /// Starts the helper, or waits for its messages again.
    fn start(&mut self, name: &str, poller: &Poller, now: Mono) {
        let token = Token::Watcher(self.service.position() as u64);
        let result = match &self.process {
            Some((_, channel)) => poller.modify(channel, token, Interest::Input),
            None => self.fork().and_then(|process| {
                let (_, channel) = self.process.insert(process);
                poller.add(channel, token)
            }),
        };
        if result.is_err() {
            say(Level::Warn, name, "the process that watches its files cannot be created");
            self.due = Some(now + RESTART_DELAY);
        }
    }

    fn fork(&self) -> Result<(Pid, OwnedFd), Errno> {
        let (channel, theirs) = packet::pair()?;
        let work = || watcher::serve(&self.watch, &theirs);
        Ok((fork::fork_unseen_helper(&[theirs.as_fd()], c"keepalive-watch", work)?, channel))
    }

    /// Receives a message. The next one is received later.
    fn receive(&mut self, name: &str, poller: &Poller, now: Mono, killed: &mut EndedHelpers) -> Option<Vec<u8>> {
        let (_, channel) = self.process.as_ref()?;
        let mut buffer = vec![0; MAX_MESSAGE];
        match packet::receive(channel, &mut buffer) {
            Err(Errno::EAGAIN | Errno::EINTR) => return None,
            Ok((length @ 1.., _)) => {
                buffer.truncate(length);
                let token = Token::Watcher(self.service.position() as u64);
                poller.modify(channel, token, Interest::Nothing).ok();
                self.due = Some(now + MESSAGE_INTERVAL);
                return Some(buffer);
            }
            Ok(_) | Err(_) => {}
        }
        say(Level::Warn, name, "the process that watches its files has exited, another one follows");
        self.end(poller, now, killed);
        self.due = Some(now + RESTART_DELAY);
        None
    }

    fn end(&mut self, poller: &Poller, now: Mono, killed: &mut EndedHelpers) {
        if let Some((pid, channel)) = self.process.take() {
            poller.remove(&channel).ok();
            kill::signal_process(pid, Signal::KILL).ok();
            killed.push(pid, now);
        }
    }
}

fn say(level: Level, name: &str, text: &str) {
    log::log!(level, "{name}: {}", visible::one_line(text));
}

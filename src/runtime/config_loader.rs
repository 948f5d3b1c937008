//! Loads the configuration again, one load at a time.
//!
//! File systems can hang, so a helper process reads the files and records the results. keepalive parses the recording.

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::rc::Rc;
use std::time::Duration;

use log::Level;
use nix::errno::Errno;

use super::rate_limited_log::{self, MessageKind};
use super::subsystem::{Context, Subsystem};
use super::text::log_lines;
use crate::config::{Diagnostic, Files, Loaded, RecordedFs, RecordingFs, Report};
use crate::model::plan::LogStyle;
use crate::model::units::format_duration;
use crate::model::{ExitStatus, Mono, Pid, Plan, Signal, errno};
use crate::supervisor::{Event, RequestId};
use crate::sys::{fork, kill, memfd, wait};

/// Loads the configuration from the place that it was first loaded from. The `log` of `[keepalive]` stays in effect.
pub type LoadConfig = Box<dyn Fn(Files<'_>, LogStyle) -> Result<Loaded, Report>>;

/// The time limit of a load. It is longer than the limit for reading from a single pipe.
const LOAD_TIMEOUT: Duration = Duration::from_secs(15);
/// The number of warnings in the answer to a request. The log has all.
const MAX_WARNINGS: usize = 20;
/// The time between two attempts to create the helper process.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// The load in progress, and those that wait.
pub(super) struct ConfigLoader {
    load_config: LoadConfig,
    process: Option<LoaderProcess>,
    /// Requests that came during a load: each needs a load that begins later.
    waiting: VecDeque<Option<RequestId>>,
    /// A load that has not begun, because no process could be created for it.
    delayed: Option<DelayedLoad>,
    /// The request whose load has succeeded, and the warnings about it.
    warnings: Option<(RequestId, String)>,
}

/// A load that is tried again until its deadline.
#[derive(Debug)]
struct DelayedLoad {
    id: Option<RequestId>,
    retry_at: Mono,
    until: Mono,
}

/// The helper process that reads the files.
#[derive(Debug)]
struct LoaderProcess {
    pid: Pid,
    /// The memory file that the recording is written to.
    answers: OwnedFd,
    /// The request that waits for it.
    id: Option<RequestId>,
    /// The deadline; `None` if the load was cancelled and the process has not exited yet.
    until: Option<Mono>,
}

impl Subsystem for ConfigLoader {
    type Needs<'a> = ();

    fn due(&self) -> Option<Mono> {
        match &self.delayed {
            Some(delayed) => Some(delayed.retry_at),
            None => self.process.as_ref().and_then(|process| process.until),
        }
    }

    /// Begins a delayed load, or fails a load that has taken too long, and those that wait for it.
    fn turn(&mut self, context: &mut Context<'_>, (): ()) -> Vec<Event> {
        if self.due().is_none_or(|until| until > context.now) {
            return Vec::new();
        }
        if let Some(delayed) = self.delayed.take() {
            return self.begin_all(delayed, context.now);
        }
        let timeout = format_duration(LOAD_TIMEOUT);
        let reason = format!("its files were not read within {timeout}: the file system may hang");
        self.give_up().into_iter().map(|id| failed(id, &reason)).collect()
    }
}

impl ConfigLoader {
    pub(super) const fn new(load_config: LoadConfig) -> Self {
        Self { load_config, process: None, waiting: VecDeque::new(), delayed: None, warnings: None }
    }

    /// Begins a load, or queues it behind the current one. Returns an event if that fails.
    pub(super) fn load(&mut self, id: Option<RequestId>, now: Mono) -> Option<Event> {
        match &self.process {
            None if self.delayed.is_some() => {
                self.waiting.push_back(id);
                None
            }
            Some(LoaderProcess { until: Some(_), .. }) => {
                if id.is_some() || !self.waiting.contains(&None) {
                    self.waiting.push_back(id);
                }
                None
            }
            Some(LoaderProcess { until: None, pid, .. }) => {
                Some(failed(id, &format!("cannot read its files: the previous reader (pid {pid}) still hangs")))
            }
            None => self.begin(DelayedLoad { id, retry_at: now, until: now + LOAD_TIMEOUT }, now),
        }
    }

    /// Begins a load now, or tries it again later if the system lacks what it needs. Returns an event if that fails.
    fn begin(&mut self, load: DelayedLoad, now: Mono) -> Option<Event> {
        match self.start(load.id, now) {
            Ok(process) => self.process = Some(process),
            Err((what, refused)) => {
                let reason = format!("cannot create a {what} to read it: {}", errno::words(refused));
                if !errno::is_shortage(refused) || load.until <= now {
                    return Some(failed(load.id, &reason));
                }
                rate_limited_log::warn(
                    MessageKind::HelperShortage,
                    None,
                    format_args!("configuration not loaded yet: {reason}; retrying"),
                );
                self.delayed = Some(DelayedLoad { retry_at: now + RETRY_INTERVAL, ..load });
            }
        }
        None
    }

    /// Begins `load`, or the first of those that wait that can begin. One that cannot does not hold up the next one.
    fn begin_all(&mut self, load: DelayedLoad, now: Mono) -> Vec<Event> {
        let mut events: Vec<Event> = self.begin(load, now).into_iter().collect();
        events.extend(self.begin_waiting(now));
        events
    }

    fn begin_waiting(&mut self, now: Mono) -> Vec<Event> {
        let mut events = Vec::new();
        while self.process.is_none()
            && self.delayed.is_none()
            && let Some(id) = self.waiting.pop_front()
        {
            events.extend(self.load(id, now));
        }
        events
    }

    /// The client of this request has gone: its load is skipped if it has not begun.
    pub(super) fn withdraw(&mut self, id: RequestId) {
        self.waiting.retain(|waiting| *waiting != Some(id));
        self.delayed.take_if(|delayed| delayed.id == Some(id));
    }

    /// Cancels all loads.
    pub(super) fn cancel(&mut self) {
        self.give_up();
    }

    /// Reaps `pid` if it was the helper process, and returns the result of the load.
    pub(super) fn on_dead(&mut self, pid: Pid, plan: &Plan, now: Mono) -> Option<Vec<Event>> {
        let process = self.process.take_if(|process| process.pid == pid)?;
        let ended = wait::reap(pid);
        if process.until.is_none() {
            return Some(Vec::new());
        }
        let answers = match ended {
            Ok(ended) if ended.status != ExitStatus::Code(0) => {
                Err(format!("the reader process failed: {}", ended.status))
            }
            Ok(_) | Err(_) => memfd::read_all(&process.answers).map_err(|refused| errno::words(refused).to_owned()),
        };
        let result = answers.and_then(|answers| self.read(&RecordedFs::new(answers), plan));
        let mut events = vec![match result {
            Ok((plan, warnings)) => {
                self.warnings = process.id.map(|id| (id, warnings));
                Event::ConfigLoaded { id: process.id, plan: Rc::new(plan) }
            }
            Err(reason) => failed(process.id, &reason),
        }];
        events.extend(self.begin_waiting(now));
        Some(events)
    }

    /// Kills the helper process, and returns the requests that waited for it.
    fn give_up(&mut self) -> Vec<Option<RequestId>> {
        let mut waiting = Vec::new();
        if let Some(process) = &mut self.process
            && process.until.take().is_some()
        {
            kill::signal_process(process.pid, Signal::KILL).ok();
            waiting.push(process.id);
        }
        waiting.extend(self.delayed.take().map(|delayed| delayed.id));
        waiting.extend(self.waiting.drain(..));
        waiting
    }

    /// # Errors
    /// What cannot be created, and why.
    fn start(&self, id: Option<RequestId>, now: Mono) -> Result<LoaderProcess, (&'static str, Errno)> {
        let cannot = |what| move |errno| (what, errno);
        let answers = memfd::create(c"keepalive-configuration").map_err(cannot("memory file"))?;
        let ours = File::from(answers.try_clone().map_err(|_| cannot("memory file")(Errno::EMFILE))?);
        let pid = fork::fork_helper(&[ours.as_fd()], || {
            fork::set_name(c"keepalive-read");
            let recorder = RecordingFs::default();
            // The plan is computed again from the recording.
            let _plan = (self.load_config)(&|query| recorder.query(query), LogStyle::default());
            u8::from(ours.write_all_at(&recorder.into_bytes(), 0).is_err())
        });
        let pid = pid.map_err(cannot("process"))?;
        Ok(LoaderProcess { pid, answers, id, until: Some(now + LOAD_TIMEOUT) })
    }

    /// Parses the recording into a plan, with the services in the order of the current plan. Logs the warnings, and returns
    /// them in short.
    fn read(&self, recording: &RecordedFs, plan: &Plan) -> Result<(Plan, String), String> {
        match (self.load_config)(&|query| recording.query(query), plan.log) {
            Ok(Loaded { plan: new, warnings }) => {
                let mut short = fixed_keys(plan, &new);
                short.iter().for_each(|warning| log::warn!("{warning}"));
                for warning in &warnings {
                    log_lines(Level::Warn, &warning.to_string());
                }
                short.extend(warnings.iter().take(MAX_WARNINGS).map(Diagnostic::in_short));
                if let more @ 1.. = warnings.len().saturating_sub(MAX_WARNINGS) {
                    short.push(format!("and {more} more: see the log"));
                }
                Ok((plan.merged(new), short.join("\n")))
            }
            Err(report) => Err(report.to_string()),
        }
    }

    /// The request whose load has just succeeded, and the warnings about it, one on each line.
    pub(super) const fn take_warnings(&mut self) -> Option<(RequestId, String)> {
        self.warnings.take()
    }
}

fn failed(id: Option<RequestId>, reason: &str) -> Event {
    Event::ConfigLoadFailed { id, reason: reason.into() }
}

/// Warnings about keys of `[keepalive]` that have changed and do not take effect.
fn fixed_keys(before: &Plan, plan: &Plan) -> Vec<String> {
    let fixed = [
        ("control", before.control != plan.control),
        ("http", before.http != plan.http),
        ("log", before.log != plan.log),
    ];
    let changed = fixed.into_iter().filter(|(_, has_changed)| *has_changed);
    changed
        .map(|(key, _)| {
            format!("`{key}` of [keepalive] cannot change while keepalive runs: restart keepalive to apply it")
        })
        .collect()
}

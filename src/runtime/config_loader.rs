//! Loads the configuration again, one load after the other.
//!
//! Another process asks for the files, since what they are on may hang; what it was answered is read here.

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;

use super::subsystem::{Context, Subsystem};
use crate::config::{Files, Loaded, RecordedFs, RecordingFs, Report};
use crate::model::units::format_duration;
use crate::model::{ExitStatus, Mono, Pid, Plan, Signal, errno};
use crate::supervisor::{Event, RequestId};
use crate::sys::{fork, kill, memfd, wait};

/// Reads the configuration again, from where it was read first; a text: why there is none to be read.
pub type LoadConfig = Box<dyn Fn(Files<'_>) -> Result<Result<Loaded, Report>, String>>;

/// A load may take so long: longer than a single pipe may keep silent.
const LOAD_TIMEOUT: Duration = Duration::from_secs(15);

/// Loads the configuration, for whoever asks for it.
pub(super) struct ConfigLoader {
    load_config: LoadConfig,
    process: Option<LoaderProcess>,
    /// Each wants it to be loaded after it has asked.
    waiting: VecDeque<Option<RequestId>>,
}

/// A process that asks for the files.
#[derive(Debug)]
struct LoaderProcess {
    pid: Pid,
    /// What it has been answered.
    answers: OwnedFd,
    /// Who has asked.
    id: Option<RequestId>,
    /// So long at most; `None`: it is given up, and has not ended yet.
    until: Option<Mono>,
}

impl Subsystem for ConfigLoader {
    type Needs<'a> = ();

    fn due(&self) -> Option<Mono> {
        self.process.as_ref().and_then(|process| process.until)
    }

    /// Gives up a load that has taken too long, and those that wait for it.
    fn turn(&mut self, context: &mut Context<'_>, (): ()) -> Vec<Event> {
        if self.due().is_none_or(|until| until > context.now) {
            return Vec::new();
        }
        let timeout = format_duration(LOAD_TIMEOUT);
        let reason = format!("its files were not read within {timeout}: the file system may hang");
        self.give_up().into_iter().map(|id| failed(id, &reason)).collect()
    }
}

impl ConfigLoader {
    pub(super) const fn new(load_config: LoadConfig) -> Self {
        Self { load_config, process: None, waiting: VecDeque::new() }
    }

    /// Begins to load, or does so after the load that is under way; gives back why it cannot.
    pub(super) fn load(&mut self, id: Option<RequestId>, now: Mono) -> Option<Event> {
        match &self.process {
            Some(LoaderProcess { until: Some(_), .. }) => {
                if id.is_some() || !self.waiting.contains(&None) {
                    self.waiting.push_back(id);
                }
                None
            }
            Some(LoaderProcess { until: None, pid, .. }) => {
                Some(failed(id, &format!("cannot read its files: the previous reader (pid {pid}) still hangs")))
            }
            None => match self.start(id, now) {
                Ok(process) => {
                    self.process = Some(process);
                    None
                }
                Err(refused) => {
                    let reason = format!("cannot create a process to read it: {}", errno::words(refused));
                    Some(failed(id, &reason))
                }
            },
        }
    }

    /// Nobody waits for this load any more: it is left out, unless it has begun.
    pub(super) fn withdraw(&mut self, id: RequestId) {
        self.waiting.retain(|waiting| *waiting != Some(id));
    }

    /// Nobody waits for any load any more.
    pub(super) fn cancel(&mut self) {
        self.give_up();
    }

    /// What has come of the load, if this process, which is dead and not reaped yet, was to do it; then it is reaped.
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
            Ok(plan) => Event::ConfigLoaded { id: process.id, plan: Rc::new(plan) },
            Err(reason) => failed(process.id, &reason),
        }];
        if let Some(id) = self.waiting.pop_front() {
            events.extend(self.load(id, now));
        }
        Some(events)
    }

    /// Kills the process, and gives back whoever waits for it.
    fn give_up(&mut self) -> Vec<Option<RequestId>> {
        let mut waiting = Vec::new();
        if let Some(process) = &mut self.process
            && process.until.take().is_some()
        {
            kill::signal_process(process.pid, Signal::KILL).ok();
            waiting.push(process.id);
        }
        waiting.extend(self.waiting.drain(..));
        waiting
    }

    fn start(&self, id: Option<RequestId>, now: Mono) -> Result<LoaderProcess, Errno> {
        let answers = memfd::create(c"keepalive-configuration")?;
        let ours = File::from(answers.try_clone().map_err(|_| Errno::EMFILE)?);
        let pid = fork::fork_helper(Some(ours.as_fd()), || {
            fork::set_name(c"keepalive-read");
            let recorder = RecordingFs::default();
            // What it comes to is found out anew.
            let _plan = (self.load_config)(&|query| recorder.query(query));
            u8::from(ours.write_all_at(&recorder.into_bytes(), 0).is_err())
        })?;
        Ok(LoaderProcess { pid, answers, id, until: Some(now + LOAD_TIMEOUT) })
    }

    /// The plan that the files say, in the order of the one in force.
    fn read(&self, recording: &RecordedFs, plan: &Plan) -> Result<Plan, String> {
        match (self.load_config)(&|query| recording.query(query)) {
            Ok(Ok(Loaded { plan: new, warnings })) => {
                for warning in warnings {
                    log::warn!("{warning}");
                }
                Ok(plan.merged(new))
            }
            Ok(Err(report)) => Err(report.to_string()),
            Err(reason) => Err(reason),
        }
    }
}

fn failed(id: Option<RequestId>, reason: &str) -> Event {
    Event::ConfigLoadFailed { id, reason: reason.into() }
}

/// Says which keys of `[keepalive]` that differ do not take effect.
pub(super) fn warn_about_fixed_keys(before: &Plan, plan: &Plan) {
    let later = [
        ("control", before.control != plan.control),
        ("http", before.http != plan.http),
        ("log", before.log != plan.log),
    ];
    for (key, _) in later.into_iter().filter(|(_, has_changed)| *has_changed) {
        log::warn!("`{key}` of [keepalive] cannot change while keepalive runs: restart keepalive to apply it");
    }
}

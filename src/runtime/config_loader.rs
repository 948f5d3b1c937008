//! Another configuration: it is read, told to the supervisor if it is right, and taken on when the supervisor says so.
//!
//! Another process asks for the files, since what they are on may hang; what it was answered is read here.

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;

use super::Runtime;
use super::events::What;
use crate::config::{Files, Loaded, RecordedFs, RecordingFs, Report};
use crate::model::units::format_duration;
use crate::model::{ExitStatus, Mono, Pid, Plan, ServiceIndex, Signal, errno};
use crate::supervisor::{Event, RequestId};
use crate::sys::{fork, kill, memfd, wait};

/// Reads the configuration again, from where it was read first; a text: why there is none to be read.
pub type LoadConfig = Box<dyn Fn(Files<'_>) -> Result<Result<Loaded, Report>, String>>;

/// Longer than a single pipe may keep silent.
const PATIENCE: Duration = Duration::from_secs(15);

/// Who reads the configuration, and who wants that.
#[derive(Debug, Default)]
pub(super) struct ConfigLoader {
    reader: Option<LoaderProcess>,
    /// Each wants it to be read after it has asked.
    waiting: VecDeque<Option<RequestId>>,
}

/// A process that asks for the files.
#[derive(Debug)]
struct LoaderProcess {
    pid: Pid,
    /// What it has been answered.
    answers: OwnedFd,
    id: Option<RequestId>,
    /// So long at most; `None`: it is given up, and has not ended yet.
    until: Option<Mono>,
}

impl ConfigLoader {
    /// When it has taken too long.
    pub(super) fn due(&self) -> Option<Mono> {
        self.reader.as_ref().and_then(|reader| reader.until)
    }

    /// Whoever has asked wants to know no more.
    pub(super) fn forget(&mut self, id: RequestId) {
        self.waiting.retain(|waiting| *waiting != Some(id));
    }

    /// Gives up reading, and gives back whoever waits for it.
    fn give_up(&mut self) -> Vec<Option<RequestId>> {
        let mut waiting = Vec::new();
        if let Some(reader) = &mut self.reader
            && reader.until.take().is_some()
        {
            kill::signal_process(reader.pid, Signal::KILL).ok();
            waiting.push(reader.id);
        }
        waiting.extend(self.waiting.drain(..));
        waiting
    }
}

impl Runtime {
    /// Has the configuration read, one reading after the other.
    pub(super) fn configure(&mut self, id: Option<RequestId>) {
        match &self.config_loader.reader {
            Some(LoaderProcess { until: Some(_), .. }) => {
                if id.is_some() || !self.config_loader.waiting.contains(&None) {
                    self.config_loader.waiting.push_back(id);
                }
            }
            Some(LoaderProcess { until: None, pid, .. }) => {
                let reason = format!("cannot read its files: the previous reader (pid {pid}) still hangs");
                self.keep_configuration(id, reason);
            }
            None => match self.begin_to_read(id) {
                Ok(reader) => self.config_loader.reader = Some(reader),
                Err(refused) => {
                    let reason = format!("cannot create a process to read it: {}", errno::words(refused));
                    self.keep_configuration(id, reason);
                }
            },
        }
    }

    fn begin_to_read(&self, id: Option<RequestId>) -> Result<LoaderProcess, Errno> {
        let answers = memfd::create(c"keepalive-configuration")?;
        let ours = File::from(answers.try_clone().map_err(|_| Errno::EMFILE)?);
        let pid = fork::fork_helper(Some(ours.as_fd()), || {
            fork::set_name(c"keepalive-read");
            let recorder = RecordingFs::default();
            // What it comes to is found out anew.
            let _plan = (self.load_config)(&|query| recorder.query(query));
            u8::from(ours.write_all_at(&recorder.into_bytes(), 0).is_err())
        })?;
        Ok(LoaderProcess { pid, answers, id, until: Some(self.now + PATIENCE) })
    }

    /// Whether this process, which is dead and not reaped yet, was to read the configuration. If so, it is reaped.
    pub(super) fn on_reader_dead(&mut self, pid: Pid) -> bool {
        let Some(reader) = self.config_loader.reader.take_if(|reader| reader.pid == pid) else { return false };
        let ended = wait::reap(pid);
        if reader.until.is_none() {
            return true;
        }
        let answers = match ended {
            Ok(ended) if ended.status != ExitStatus::Code(0) => {
                Err(format!("the reader process failed: {}", ended.status))
            }
            Ok(_) | Err(_) => memfd::read_all(&reader.answers).map_err(|refused| errno::words(refused).to_owned()),
        };
        match answers {
            Ok(answers) => self.on_read(reader.id, RecordedFs::new(answers)),
            Err(reason) => self.keep_configuration(reader.id, reason),
        }
        if let Some(id) = self.config_loader.waiting.pop_front() {
            self.configure(id);
        }
        true
    }

    /// It may have taken too long.
    pub(super) fn look_at_reading(&mut self) {
        if self.config_loader.due().is_none_or(|until| until > self.now) {
            return;
        }
        for id in self.config_loader.give_up() {
            let patience = format_duration(PATIENCE);
            let reason = format!("its files were not read within {patience}: the file system may hang");
            self.keep_configuration(id, reason);
        }
    }

    /// Everything is being stopped: no other configuration will be in force.
    pub(super) fn call_off_reading(&mut self) {
        for id in self.config_loader.give_up().into_iter().flatten() {
            self.refuse(id, "keepalive is shutting down");
        }
    }

    fn on_read(&mut self, id: Option<RequestId>, recording: RecordedFs) {
        let reason = match (self.load_config)(&|query| recording.query(query)) {
            Ok(Ok(Loaded { plan, warnings })) => {
                for warning in warnings {
                    log::warn!("{warning}");
                }
                let plan = Rc::new(self.plan.merged(plan));
                return self.happened(Event::Configured { id, plan });
            }
            Ok(Err(report)) => report.to_string(),
            Err(reason) => reason,
        };
        self.keep_configuration(id, reason);
    }

    /// Nothing changes.
    fn keep_configuration(&mut self, id: Option<RequestId>, reason: String) {
        log::error!("reload failed, keeping the current configuration");
        for line in reason.lines().filter(|line| !line.is_empty()) {
            log::error!("{line}");
        }
        self.counts.config_reload_failed();
        if let Some(id) = id {
            self.refuse(id, &format!("reload failed, keeping the current configuration\n{}", reason.trim_end()));
        }
        self.happens(What::Misconfigured { reason });
    }

    pub(super) fn adopt(&mut self, plan: &Rc<Plan>) {
        let before = std::mem::replace(&mut self.plan, Rc::clone(plan));
        self.logging.adopt(plan, &self.poller);
        self.sockets.adopt(plan);
        // All there are: what is forgotten twice is gone all the same.
        self.retired = plan
            .services
            .iter()
            .zip(0..)
            .filter(|(service, _)| service.instances == 0)
            .map(|(_, position)| ServiceIndex(position))
            .collect();
        self.release();
        let later = [
            ("control", before.control != plan.control),
            ("http", before.http != plan.http),
            ("log", before.log != plan.log),
        ];
        for (key, _) in later.into_iter().filter(|(_, has_changed)| *has_changed) {
            log::warn!("`{key}` of [keepalive] cannot change while keepalive runs: restart keepalive to apply it");
        }
    }

    /// What nobody has any more goes: sockets that the configuration does not name, and what was kept for the instances of
    /// services that it does not name. When one of these returns it is a new one.
    pub(super) fn release(&mut self) {
        self.sockets.release(&self.plan, || self.children.living());
        let has_ended = |service: &mut ServiceIndex| self.children.living().all(|(id, _)| id.service != *service);
        for service in self.retired.extract_if(.., has_ended) {
            self.states.forget(service);
            self.channels.forget(service);
        }
    }
}

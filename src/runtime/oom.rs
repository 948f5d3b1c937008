//! Whether the kernel's OOM killer was at work: the counter of our own memory control group.

use std::fs;
use std::path::PathBuf;

/// The counter as it was last seen.
#[derive(Debug)]
pub(super) struct OomCounter {
    /// `None` where there is no such group, or it cannot be read.
    file: Option<PathBuf>,
    seen: u64,
}

impl OomCounter {
    pub(super) fn new() -> Self {
        let file = candidates().into_iter().find(|path| read(path).is_some());
        let seen = file.as_ref().and_then(read).unwrap_or(0);
        Self { file, seen }
    }

    /// Whether it has killed something since the last call.
    pub(super) fn has_risen(&mut self) -> bool {
        let Some(count) = self.file.as_ref().and_then(read) else { return false };
        count > std::mem::replace(&mut self.seen, count)
    }
}

/// Our own group as a host shows it and as a container does, in version 2 and version 1 of cgroups(7).
fn candidates() -> Vec<PathBuf> {
    let membership = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut paths = Vec::new();
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let (mount, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.events"),
            _ if controllers.split(',').any(|name| name == "memory") => ("/sys/fs/cgroup/memory", "memory.oom_control"),
            _ => continue,
        };
        paths.push(PathBuf::from(format!("{mount}{}/{file}", path.trim_end_matches('/'))));
        paths.push(PathBuf::from(format!("{mount}/{file}")));
    }
    paths
}

/// The line `oom_kill N`.
fn read(path: &PathBuf) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

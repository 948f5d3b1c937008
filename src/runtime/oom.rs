//! Detects kills by the kernel's OOM killer, with the counter of keepalive's memory control group.

use std::fs;
use std::path::PathBuf;

/// The counter, with its last value.
#[derive(Debug)]
pub(super) struct OomCounter {
    /// `None` if there is no such group, or it cannot be read.
    file: Option<PathBuf>,
    seen: u64,
}

impl OomCounter {
    pub(super) fn new() -> Self {
        let membership = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let file = candidates(&membership).into_iter().find(|path| read(path).is_some());
        let seen = file.as_ref().and_then(read).unwrap_or(0);
        Self { file, seen }
    }

    /// Whether a process has been killed since the last call.
    pub(super) fn has_risen(&mut self) -> bool {
        let Some(count) = self.file.as_ref().and_then(read) else { return false };
        count > std::mem::replace(&mut self.seen, count)
    }
}

/// The paths of the counter, as a host and as a container show it, in version 2 and version 1 of cgroups(7).
///
/// `membership`: the content of /proc/PID/cgroup.
fn candidates(membership: &str) -> Vec<PathBuf> {
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

/// `None` if the file is not there or has no such counter.
fn read(path: &PathBuf) -> Option<u64> {
    parse(&fs::read_to_string(path).ok()?)
}

/// The line `oom_kill N`.
fn parse(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    // Documentation/admin-guide/cgroup-v2.rst: memory.events; cgroup-v1/memory.rst: memory.oom_control.
    #[test]
    fn the_counter_is_read_in_both_versions() {
        assert_eq!(parse("low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n"), Some(2));
        assert_eq!(parse("oom_kill_disable 0\nunder_oom 0\noom_kill 7\n"), Some(7));
        assert_eq!(parse("oom_kill_disable 0\nunder_oom 0\n"), None);
    }

    #[test]
    fn our_own_group_comes_before_the_mounts() {
        let check = |membership: &str, expect: &[&str]| {
            assert_eq!(candidates(membership), expect.iter().map(PathBuf::from).collect::<Vec<_>>());
        };
        check("0::/\n", &["/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory.events"]);
        check(
            "0::/kubepods/pod1/c2\n",
            &["/sys/fs/cgroup/kubepods/pod1/c2/memory.events", "/sys/fs/cgroup/memory.events"],
        );
        check(
            "9:name=systemd:/x\n4:hugetlb,memory:/docker/abc\n1:cpu,cpuacct:/docker/abc\n",
            &["/sys/fs/cgroup/memory/docker/abc/memory.oom_control", "/sys/fs/cgroup/memory/memory.oom_control"],
        );
    }
}

//! Detects kills by the kernel's OOM killer, with the counter of keepalive's memory control group.
//!
//! The counter has no names. Each rise is attributed to one main process that dies of SIGKILL at about the same time, and
//! that keepalive has not killed. It is forgotten if there is none: the kernel has killed a child of a service.
//!
//! PID 1 reads the counter itself, because a death must be attributed at once. Only the kernel answers: a file on a FUSE file
//! system, such as that of lxcfs(8), is never opened.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::token::Token;
use crate::model::Mono;
use crate::sys::Poller;
use crate::sys::mounts::is_of_kernel;

/// The maximum time from a rise of the counter to the death of the process.
const DEATH_TIMEOUT: Duration = Duration::from_secs(1);
/// The minimum time between two notifications. The file of the counter has others, which change often if memory is short.
const NOTIFICATION_INTERVAL: Duration = Duration::from_millis(500);

/// The counter.
#[derive(Debug)]
pub(super) struct OomCounter {
    /// `None` if there is no such group, or it cannot be read.
    file: Option<File>,
    /// The last value.
    seen: u64,
    /// The number of kills that are not attributed to a process.
    unattributed: u64,
    /// When the last rise was seen.
    risen_at: Mono,
    watch: Watch,
}

/// Whether the poller watches the file. The kernel reports a change of version 2 as an error condition, cgroups(7), "poll"; of
/// other files it reports nothing.
#[derive(Clone, Copy, Debug)]
enum Watch {
    /// Not since this time, for [`NOTIFICATION_INTERVAL`].
    Paused(Mono),
    On,
    /// It cannot be watched.
    Impossible,
}

impl OomCounter {
    pub(super) fn new() -> Self {
        let membership = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let paths = candidates(&membership).into_iter().filter(|path| is_of_kernel(path, &mounts));
        Self::of(paths.filter_map(|path| File::open(path).ok()).find(|file| read(file).is_some()))
    }

    fn of(file: Option<File>) -> Self {
        let seen = file.as_ref().and_then(read).unwrap_or(0);
        let watch = if file.is_some() { Watch::Paused(Mono::default()) } else { Watch::Impossible };
        Self { file, seen, unattributed: 0, risen_at: Mono::default(), watch }
    }

    /// When the file must be watched again.
    pub(super) fn due(&self) -> Option<Mono> {
        match self.watch {
            Watch::Paused(since) => Some(since + NOTIFICATION_INTERVAL),
            Watch::On | Watch::Impossible => None,
        }
    }

    /// Watches the file if it is time to.
    pub(super) fn watch(&mut self, now: Mono, poller: &Poller) {
        let Watch::Paused(since) = self.watch else { return };
        if since + NOTIFICATION_INTERVAL > now {
            return;
        }
        if let Some(file) = &self.file {
            let is_added = poller.add_hangup(file, Token::OomCounter).is_ok();
            self.watch = if is_added { Watch::On } else { Watch::Impossible };
        }
        // It may have risen at any time since then.
        self.update(since);
    }

    /// The file has changed.
    pub(super) fn on_changed(&mut self, now: Mono, poller: &Poller) {
        self.update(now);
        if let Some(file) = &self.file {
            poller.remove(file).ok();
            self.watch = Watch::Paused(now);
        }
    }

    /// A main process has died of SIGKILL, and keepalive has not killed it. Returns whether the OOM killer has.
    pub(super) fn attribute(&mut self, now: Mono) -> bool {
        self.update(now);
        let is_oom_kill = self.unattributed > 0;
        self.unattributed = self.unattributed.saturating_sub(1);
        is_oom_kill
    }

    /// `changed_at`: the earliest time at which the counter can have changed.
    fn update(&mut self, changed_at: Mono) {
        if changed_at.since(self.risen_at) > DEATH_TIMEOUT {
            self.unattributed = 0;
        }
        let Some(count) = self.file.as_ref().and_then(read) else { return };
        let kills = count.saturating_sub(std::mem::replace(&mut self.seen, count));
        if kills > 0 {
            self.unattributed += kills;
            self.risen_at = changed_at;
        }
    }
}

/// The paths of the counter, as a host and as a container show it, in version 2 and version 1 of cgroups(7). The root group
/// of version 2 has none: there it is the counter of the whole system, proc_vmstat(5).
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
    // Only the root group has no `cgroup.events`. In a container "/" is the root of its cgroup namespace.
    let mount = Path::new("/sys/fs/cgroup");
    if membership.trim_end() == "0::/" && mount.join("cgroup.procs").exists() && !mount.join("cgroup.events").exists() {
        paths.push(PathBuf::from("/proc/vmstat"));
    }
    paths
}

/// `None` if the file has no such counter.
fn read(mut file: &File) -> Option<u64> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.read_to_string(&mut text).ok()?;
    parse(&text)
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

    const fn at(milliseconds: u64) -> Mono {
        Mono::from_nanos(milliseconds * 1_000_000)
    }

    /// A counter in a file of its own, and a function that sets it.
    fn counter() -> (OomCounter, impl Fn(u64)) {
        let file = File::from(crate::sys::memfd::create_resizable().unwrap());
        let other = file.try_clone().unwrap();
        let set = move |count: u64| {
            std::os::unix::fs::FileExt::write_all_at(&other, format!("max 1\noom_kill {count}\n").as_bytes(), 0)
                .unwrap();
        };
        set(7);
        (OomCounter::of(Some(file)), set)
    }

    #[test]
    fn each_kill_is_attributed_to_one_death() {
        let (mut counter, set) = counter();
        assert!(!counter.attribute(at(0)));
        set(9);
        assert_eq!([10, 20, 30].map(|time| counter.attribute(at(time))), [true, true, false]);
    }

    #[test]
    fn a_kill_that_no_death_follows_is_not_attributed_to_a_later_death() {
        let (mut counter, set) = counter();
        let poller = Poller::new().unwrap();
        set(8);
        counter.on_changed(at(0), &poller);
        assert!(!counter.attribute(at(1_001)));
        set(9);
        counter.on_changed(at(5_000), &poller);
        assert!(counter.attribute(at(6_000)));
    }

    #[test]
    fn a_kill_between_two_notifications_is_as_old_as_it_can_be() {
        let (mut counter, set) = counter();
        let poller = Poller::new().unwrap();
        counter.on_changed(at(1_000), &poller);
        set(8);
        counter.watch(at(1_500), &poller);
        assert!(!counter.attribute(at(2_001)));
        counter.on_changed(at(5_000), &poller);
        set(9);
        counter.watch(at(5_500), &poller);
        assert!(counter.attribute(at(6_000)));
    }
}

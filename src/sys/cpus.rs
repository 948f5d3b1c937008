//! The number of CPUs that this container may use.
//!
//! The minimum of the affinity mask (sched_getaffinity(2)) and the CPU quotas of keepalive's cgroup and its ancestors, in
//! version 1 or 2 (cgroups(7)).

use std::fs;
use std::path::{Path, PathBuf};

use super::mounts::is_of_kernel;

/// The size of an affinity mask for 8192 CPUs, the maximum that the kernel supports.
const MASK_WORDS: usize = 8192 / 64;

/// The number of usable CPUs, at least 1. A quota of 1.5 CPUs counts as 2.
#[must_use]
pub fn usable() -> u32 {
    usable_with(Path::new("/"), affinity())
}

/// As [`usable`], with this root directory and number of CPUs in the affinity mask.
fn usable_with(root: &Path, allowed: u32) -> u32 {
    quota(root).map_or(allowed, |quota| quota.min(allowed)).max(1)
}

fn affinity() -> u32 {
    let mut mask = [0_u64; MASK_WORDS];
    // SAFETY: `mask` has room for as many bytes as the length says.
    let bytes = unsafe { libc::syscall(libc::SYS_sched_getaffinity, 0, size_of_val(&mask), mask.as_mut_ptr()) };
    if bytes < 0 { 1 } else { mask.iter().map(|word| word.count_ones()).sum() }
}

/// The smallest applicable quota in CPUs, rounded up.
fn quota(root: &Path) -> Option<u32> {
    let memberships = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let mountinfo = fs::read_to_string(root.join("proc/self/mountinfo")).ok()?;
    let mounts: Vec<Mount<'_>> = mountinfo.lines().filter_map(Mount::parse).collect();
    let quotas = memberships.lines().filter_map(Membership::parse).filter_map(|membership| {
        let mount = mounts.iter().find(|mount| mount.holds(&membership))?;
        let own = Path::new(mount.point).join(mount.below(membership.path));
        // PID 1 must not wait for a server, such as lxcfs(8).
        is_of_kernel(&own, &mountinfo).then_some(())?;
        smallest_of_ancestors(root, mount, &membership)
    });
    quotas.min()
}

fn smallest_of_ancestors(root: &Path, mount: &Mount<'_>, membership: &Membership<'_>) -> Option<u32> {
    let top = root.join(mount.point.trim_start_matches('/'));
    let own = top.join(mount.below(membership.path));
    let directories = own.ancestors().take_while(|directory| directory.starts_with(&top));
    directories.filter_map(|directory| if membership.unified { quota_v2(directory) } else { quota_v1(directory) }).min()
}

/// `max 100000` or `150000 100000`: the CPU time per period, both in microseconds.
fn quota_v2(directory: &Path) -> Option<u32> {
    let text = fs::read_to_string(directory.join("cpu.max")).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    ratio(quota.parse().ok()?, period.parse().ok()?)
}

/// A quota of −1 means no limit.
fn quota_v1(directory: &Path) -> Option<u32> {
    let read = |name: &str| fs::read_to_string(directory.join(name)).ok()?.trim().parse::<i64>().ok();
    let (quota, period) = (read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?);
    ratio(u64::try_from(quota).ok()?, u64::try_from(period).ok()?)
}

fn ratio(quota: u64, period: u64) -> Option<u32> {
    if quota == 0 || period == 0 {
        return None;
    }
    u32::try_from(quota.div_ceil(period)).ok()
}

/// A line of /proc/self/cgroup for the CPU controller: `0::/path` or `3:cpu,cpuacct:/path`.
struct Membership<'a> {
    unified: bool,
    path: &'a str,
}

impl<'a> Membership<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.splitn(3, ':');
        let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let unified = number == "0" && controllers.is_empty();
        (unified || controllers.split(',').any(|name| name == "cpu")).then_some(Self { unified, path })
    }
}

/// A mounted cgroup hierarchy.
struct Mount<'a> {
    unified: bool,
    /// The cgroup that is mounted at `point`.
    root: &'a str,
    point: &'a str,
}

impl<'a> Mount<'a> {
    /// `35 24 0:30 /root /point rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct`
    fn parse(line: &'a str) -> Option<Self> {
        let (front, back) = line.split_once(" - ")?;
        let mut front = front.split(' ').skip(3);
        let (root, point) = (front.next()?, front.next()?);
        let mut back = back.split(' ');
        let unified = match back.next()? {
            "cgroup2" => true,
            "cgroup" if back.nth(1)?.split(',').any(|option| option == "cpu") => false,
            _ => return None,
        };
        Some(Self { unified, root, point })
    }

    fn holds(&self, membership: &Membership<'_>) -> bool {
        self.unified == membership.unified
    }

    /// The path below the mount point for `path`. A path outside of the mounted cgroup (`/../…` in a cgroup namespace, or
    /// another root) is not visible; the mount point itself is used instead.
    fn below(&self, path: &str) -> PathBuf {
        let relative = Path::new(path).strip_prefix(self.root).unwrap_or(Path::new(""));
        let outside = relative.components().any(|part| part == std::path::Component::ParentDir);
        if outside { PathBuf::new() } else { relative.to_path_buf() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A temporary root directory with some files, removed at the end of the test.
    struct Root(PathBuf);

    impl Root {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let root = std::env::temp_dir().join(format!("keepalive-cpus-{name}-{}", std::process::id()));
            for (path, text) in files {
                let path = root.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            Self(root)
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    const V2: &str = "25 24 0:22 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";

    #[track_caller]
    fn check(name: &str, files: &[(&str, &str)], expect: u32) {
        let root = Root::new(name, files);
        assert_eq!(usable_with(&root.0, 8), expect, "{name}");
    }

    #[test]
    fn without_cgroups_the_affinity_mask_applies() {
        check("none", &[], 8);
        assert_eq!(usable_with(Path::new("/nonexistent"), 0), 1);
    }

    #[test]
    fn at_least_one_cpu_is_usable() {
        assert!((1..=affinity()).contains(&usable()));
    }

    #[test]
    fn a_quota_is_rounded_up_and_never_exceeds_the_affinity_mask() {
        let at =
            |quota| [("proc/self/cgroup", "0::/\n"), ("proc/self/mountinfo", V2), ("sys/fs/cgroup/cpu.max", quota)];
        check("half", &at("50000 100000\n"), 1);
        check("one-and-a-half", &at("150000 100000\n"), 2);
        check("twelve", &at("1200000 100000\n"), 8);
        check("max", &at("max 100000\n"), 8);
        check("garbage", &at("\n"), 8);
    }

    #[test]
    fn the_quota_of_an_ancestor_applies() {
        let files = [
            ("proc/self/cgroup", "0::/a/b\n"),
            ("proc/self/mountinfo", V2),
            ("sys/fs/cgroup/a/cpu.max", "200000 100000\n"),
            ("sys/fs/cgroup/a/b/cpu.max", "max 100000\n"),
        ];
        check("ancestor", &files, 2);
    }

    #[test]
    fn groups_below_a_mounted_server_are_not_read() {
        let mounts = format!("{V2}26 25 0:23 / /sys/fs/cgroup rw - fuse.lxcfs lxcfs rw\n");
        let files = [
            ("proc/self/cgroup", "0::/\n"),
            ("proc/self/mountinfo", &mounts),
            ("sys/fs/cgroup/cpu.max", "100000 100000\n"),
        ];
        check("server", &files, 8);
    }

    #[test]
    fn without_a_cgroup_namespace_the_mounted_root_is_removed_from_the_path() {
        let files = [
            ("proc/self/cgroup", "0::/docker/abc\n"),
            ("proc/self/mountinfo", "25 24 0:22 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n"),
            ("sys/fs/cgroup/cpu.max", "300000 100000\n"),
        ];
        check("no-namespace", &files, 3);
    }

    #[test]
    fn version_1_is_read_from_the_hierarchy_with_the_cpu_controller() {
        let files = [
            ("proc/self/cgroup", "5:memory:/x\n4:cpu,cpuacct:/x\n1:name=systemd:/x\n0::/\n"),
            (
                "proc/self/mountinfo",
                "30 24 0:30 / /sys/fs/cgroup/memory rw shared:1 - cgroup cgroup rw,memory\n\
                 31 24 0:31 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n",
            ),
            ("sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us", "250000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
        ];
        check("version-1", &files, 3);
    }

    #[test]
    fn for_a_path_outside_of_the_namespace_the_mount_point_is_used() {
        let files = [
            ("proc/self/cgroup", "0::/../other\n"),
            ("proc/self/mountinfo", V2),
            ("sys/fs/cgroup/cpu.max", "100000 100000\n"),
        ];
        check("outside", &files, 1);
    }
}

//! How many CPUs this container may really use.
//!
//! The smaller of what the affinity mask allows (sched_getaffinity(2)) and the CPU quota of the own cgroup and all
//! above it, version 1 or 2 (cgroups(7)).

use std::fs;
use std::path::{Path, PathBuf};

/// Room for the affinity mask of 8192 CPUs, the most that the kernel can be built for.
const MASK_WORDS: usize = 8192 / 64;

/// At least 1. A quota of one and a half CPUs counts as two.
#[must_use]
pub fn usable() -> u32 {
    within(Path::new("/"), affinity())
}

/// As [`usable`], for a machine whose root directory is `root` and that has `allowed` CPUs.
fn within(root: &Path, allowed: u32) -> u32 {
    quota(root).map_or(allowed, |quota| quota.min(allowed)).max(1)
}

fn affinity() -> u32 {
    let mut mask = [0_u64; MASK_WORDS];
    // SAFETY: the kernel may write as many bytes as the mask has.
    let bytes = unsafe { libc::syscall(libc::SYS_sched_getaffinity, 0, size_of_val(&mask), mask.as_mut_ptr()) };
    if bytes < 0 { 1 } else { mask.iter().map(|word| word.count_ones()).sum() }
}

/// The smallest quota that holds, in CPUs, rounded up.
fn quota(root: &Path) -> Option<u32> {
    let memberships = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let mounts = fs::read_to_string(root.join("proc/self/mountinfo")).ok()?;
    let mounts: Vec<Mount<'_>> = mounts.lines().filter_map(Mount::parse).collect();
    let quotas = memberships.lines().filter_map(Membership::parse).filter_map(|membership| {
        let mount = mounts.iter().find(|mount| mount.holds(&membership))?;
        smallest_up_the_tree(root, mount, &membership)
    });
    quotas.min()
}

fn smallest_up_the_tree(root: &Path, mount: &Mount<'_>, membership: &Membership<'_>) -> Option<u32> {
    let top = root.join(mount.point.trim_start_matches('/'));
    let own = top.join(mount.below(membership.path));
    let directories = own.ancestors().take_while(|directory| directory.starts_with(&top));
    directories.filter_map(|directory| if membership.unified { quota_v2(directory) } else { quota_v1(directory) }).min()
}

/// `max 100000` or `150000 100000`: microseconds of CPU time in so many microseconds.
fn quota_v2(directory: &Path) -> Option<u32> {
    let text = fs::read_to_string(directory.join("cpu.max")).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    ratio(quota.parse().ok()?, period.parse().ok()?)
}

/// A quota of −1 is none.
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

/// A line of /proc/self/cgroup that has to do with CPU time: `0::/path` or `3:cpu,cpuacct:/path`.
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
    /// The cgroup that is seen at `point`.
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

    /// Where `path` is below the mount point. A path outside of what is mounted (`/../…` in a cgroup namespace, or
    /// another root) cannot be seen: then the mount point itself is the best there is.
    fn below(&self, path: &str) -> PathBuf {
        let relative = Path::new(path).strip_prefix(self.root).unwrap_or(Path::new(""));
        let outside = relative.components().any(|part| part == std::path::Component::ParentDir);
        if outside { PathBuf::new() } else { relative.to_path_buf() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A root directory with these files, removed at the end.
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
        assert_eq!(within(&root.0, 8), expect, "{name}");
    }

    #[test]
    fn without_cgroups_the_affinity_counts() {
        check("none", &[], 8);
        assert_eq!(within(Path::new("/nonexistent"), 0), 1);
    }

    #[test]
    fn the_real_machine_has_at_least_one() {
        assert!((1..=affinity()).contains(&usable()));
    }

    #[test]
    fn a_quota_is_rounded_up_and_never_raises_the_number() {
        let at =
            |quota| [("proc/self/cgroup", "0::/\n"), ("proc/self/mountinfo", V2), ("sys/fs/cgroup/cpu.max", quota)];
        check("half", &at("50000 100000\n"), 1);
        check("one-and-a-half", &at("150000 100000\n"), 2);
        check("twelve", &at("1200000 100000\n"), 8);
        check("max", &at("max 100000\n"), 8);
        check("garbage", &at("\n"), 8);
    }

    #[test]
    fn an_ancestors_quota_holds_too() {
        let files = [
            ("proc/self/cgroup", "0::/a/b\n"),
            ("proc/self/mountinfo", V2),
            ("sys/fs/cgroup/a/cpu.max", "200000 100000\n"),
            ("sys/fs/cgroup/a/b/cpu.max", "max 100000\n"),
        ];
        check("ancestor", &files, 2);
    }

    #[test]
    fn in_a_container_without_a_cgroup_namespace_the_mounted_root_is_taken_off() {
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
    fn a_path_outside_of_the_namespace_falls_back_to_the_mount_point() {
        let files = [
            ("proc/self/cgroup", "0::/../other\n"),
            ("proc/self/mountinfo", V2),
            ("sys/fs/cgroup/cpu.max", "100000 100000\n"),
        ];
        check("outside", &files, 1);
    }
}

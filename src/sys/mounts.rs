//! Mounted file systems: proc_pid_mountinfo(5).

use std::path::Path;

/// Whether the path leads to a file of cgroups(7) or proc(5), and below `/` through no FUSE file system, whose server may not
/// answer. statfs(2) could not be asked: that is passed on to the server, too.
///
/// `mounts`: the content of /proc/self/mountinfo. The fields of a line are separated by spaces; the fifth is the mount point,
/// and the type follows `-`.
#[must_use]
pub fn is_of_kernel(path: &Path, mounts: &str) -> bool {
    let mut is_of_kernel = false;
    for line in mounts.lines() {
        let Some((front, back)) = line.split_once(" - ") else { continue };
        let point = front.split(' ').nth(4).unwrap_or_default();
        if point == "/" || !path.starts_with(point) {
            continue;
        }
        match back.split(' ').next() {
            Some("cgroup" | "cgroup2" | "proc") => is_of_kernel = true,
            Some(kind) if kind.starts_with("fuse") => return false,
            Some(_) | None => {}
        }
    }
    is_of_kernel
}

#[cfg(test)]
mod tests {
    use super::*;

    // lxcfs(8) can mount its FUSE file system on /sys/fs/cgroup, on a hierarchy, and on files of /proc.
    #[test]
    fn only_files_of_the_kernel_are_opened() {
        const OUTER: &str = "20 1 0:19 / / rw - fuse.fuse-overlayfs fuse-overlayfs rw\n\
            21 20 0:20 / /proc rw,nosuid - proc proc rw\n22 20 0:21 / /sys ro shared:2 - sysfs sysfs ro\n";
        let check = |mounts: &str| {
            let mounts = format!("{OUTER}{mounts}");
            ["/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/a/memory.oom_control", "/proc/vmstat"]
                .map(|path| is_of_kernel(Path::new(path), &mounts))
        };
        assert_eq!(check(""), [false, false, true]);
        assert_eq!(check("23 22 0:22 /../.. /sys/fs/cgroup ro - cgroup2 cgroup rw\n"), [true, true, true]);
        let version_1 = "23 22 0:22 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n\
            24 23 0:23 /a /sys/fs/cgroup/memory ro master:9 - cgroup cgroup rw,memory\n";
        assert_eq!(check(version_1), [false, true, true]);
        assert_eq!(check("23 22 0:22 / /sys/fs/cgroup rw - fuse.lxcfs lxcfs rw\n"), [false, false, true]);
        let one_hierarchy = "25 24 0:24 / /sys/fs/cgroup/memory rw - fuse.lxcfs lxcfs rw\n\
            26 21 0:24 / /proc/vmstat rw - fuse.lxcfs lxcfs rw\n";
        assert_eq!(check(&format!("{version_1}{one_hierarchy}")), [false, false, false]);
        assert!(!is_of_kernel(Path::new("/proc/vmstat"), ""), "nothing is known of the mounts");
    }
}

//! Kills by the kernel's OOM killer.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use keepalive::model::Signal;

use crate::harness::{KEEPALIVE, Place, Run, have_root, skip, wait_until};
use crate::http::Control;
use crate::services::Set;

/// A memory control group with little memory; removed when dropped.
struct Group(PathBuf);

impl Group {
    /// `None` if it cannot be created.
    fn new() -> Option<Self> {
        let name = format!("keepalive-it-{}", std::process::id());
        std::fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory").ok();
        let groups = [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
        groups.into_iter().find_map(|(parent, limit)| {
            let path = PathBuf::from(parent).join(&name);
            std::fs::create_dir(&path).ok()?;
            let group = Self(path);
            std::fs::write(group.0.join(limit), "96M").ok().map(|()| group)
        })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        wait_until("the control group to be empty", || std::fs::remove_dir(&self.0).ok());
    }
}

// Documentation/admin-guide/cgroup-v2.rst, memory.events, `oom_kill`: "The number of processes belonging to this cgroup
// killed by any kind of OOM killer." It does not say which ones.
#[test]
fn only_processes_that_the_oom_killer_has_killed_are_reported_as_out_of_memory() {
    if !have_root() {
        return;
    }
    let Some(group) = Group::new() else { return skip("this needs the right to create a memory control group") };
    let set = Set::new(
        r#"
        [services.parent]
        command = ["sh", "-c", "until test -e DIR/child; do sleep 0.01; done; tail /dev/zero; echo child ended; exec sleep 1000"]
        [services.stubborn]
        command = ["PUPPET", "ignore", "15"]
        stop_timeout = "50ms"
        [services.hog]
        command = ["sh", "-c", "until test -e DIR/go; do sleep 0.01; done; exec tail /dev/zero"]
        instances = 3
        restart = "never"
        on_failure = "ignore"
        "#,
    );
    let enter = format!("echo 0 >{}/cgroup.procs && exec \"$@\"", group.0.display());
    let mut run = Run::words(Place::Child, &["sh", "-c", &enter, "sh", KEEPALIVE, "-c", &set.config]);
    run.command.env("KEEPALIVE_SOCKET", set.socket());
    let mut running = run.start();
    running.ready();
    let control = Control::at(&set.socket());
    set.directory.file("child", b"", 0o644);
    running.expect("child ended");
    let mut stop = Command::new(KEEPALIVE);
    stop.args(["stop", "stubborn"]).env("KEEPALIVE_SOCKET", set.socket()).stdout(Stdio::null());
    assert!(stop.status().unwrap().success());
    set.directory.file("go", b"", 0o644);
    let killed = |id: &str| {
        let instance = control.instance(id);
        (instance["exit"]["signal"] == "SIGKILL").then(|| instance["oom_killed"] == true)
    };
    let hogs = ["hog.0", "hog.1", "hog.2"].map(|id| wait_until("a hog to be killed", || killed(id)));
    assert_eq!((hogs, killed("stubborn.0")), ([true; 3], Some(false)));
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
}

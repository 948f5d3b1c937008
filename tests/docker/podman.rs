//! podman with its own store, and keepalive as the program of `--init`.
//!
//! podman requests the highest limits for root. If even root cannot raise limits, as in a container, the runtime would
//! refuse them, so a wrapper passes it a configuration without limits.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::archive::Archive;
use super::client::{Client, lossy};
use super::engine::{skip, unique_name};
use super::host;
use super::scratch::Scratch;

const CONFIGURATION: &str = r#"
[containers]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
infra_image = "PAUSE"
"#;

const RUNTIME: &str = r#"#!/usr/bin/python3 -I
import json, os, sys
words = sys.argv[1:]
def without_limits(path, part):
    with open(path) as file:
        configuration = json.load(file)
    part(configuration).pop("rlimits", None)
    with open(path, "w") as file:
        json.dump(configuration, file)
if "create" in words:
    bundle = words[words.index("--bundle") + 1]
    without_limits(os.path.join(bundle, "config.json"), lambda whole: whole["process"])
elif "exec" in words:
    without_limits(words[words.index("--process") + 1], lambda process: process)
os.execv("RUNC", ["RUNC", "--root", "STATE", *words])
"#;

/// The image of the container that holds a pod together.
pub(crate) const PAUSE: &str = "localhost/keepalive-pause";

const CGROUPS: &str = "/sys/fs/cgroup";
/// The cgroup that contains the cgroups of pods.
const PODS: &str = "libpod_parent";
/// The timeout for the removal of a cgroup that is still in use.
const CGROUP_TIMEOUT: Duration = Duration::from_secs(10);

/// Dropping it removes all its data. Its containers must be dropped before.
pub(crate) struct Podman {
    directory: Scratch,
    cgroup: String,
    /// The cgroups of its pods.
    cgroups: Vec<String>,
    pub(crate) client: Client,
}

impl Podman {
    /// For containers on the file system `root`. `None` without podman; the test is skipped.
    pub(crate) fn with(root: Archive) -> Option<Self> {
        let podman = Self::new()?;
        unpack(root, &podman.directory);
        Some(podman)
    }

    /// The same without a file system, for images that are loaded later.
    pub(crate) fn new() -> Option<Self> {
        let (Some(_), Some(runc)) = (host::find("podman"), host::find("runc")) else {
            skip("podman and runc are not installed");
            return None;
        };
        let directory = Scratch::new();
        symlink(host::keepalive(), directory.join("podman-init")).unwrap();
        let runtime = RUNTIME.replace("RUNC", runc.to_str().unwrap()).replace("STATE", &directory.join("runc"));
        let runtime = directory.file("runtime", runtime.as_bytes());
        let configuration = directory.file("containers.conf", CONFIGURATION.replace("PAUSE", PAUSE).as_bytes());
        let [store, state, temporary] = ["store", "state", "temporary"].map(|name| directory.join(name));
        let client = Client::new(
            &["podman", "--root", &store, "--runroot", &state, "--tmpdir", &temporary, "--runtime", &runtime]
                .into_iter()
                .chain(["--storage-driver=vfs"])
                .collect::<Vec<_>>(),
            // systemd would run health checks, but it is not available. The test runs them explicitly.
            &[("CONTAINERS_CONF", &configuration), ("DISABLE_HC_SYSTEMD", "true")],
        );
        Some(Self { directory, cgroup: unique_name(), cgroups: Vec::new(), client })
    }

    /// The pod `id`, which is removed when dropped.
    pub(crate) fn has_pod(&mut self, id: &str) {
        self.cgroups.push(format!("{PODS}/{id}"));
    }

    /// The words between `run` and a command, with keepalive as the init, on the given file system.
    pub(crate) fn words(&self) -> Vec<String> {
        vec![
            "--init".to_owned(),
            format!("--init-path={}", self.directory.join("podman-init")),
            format!("--cgroup-parent=/{}", self.cgroup),
            "--rootfs".to_owned(),
            self.directory.join("root"),
        ]
    }
}

fn unpack(archive: Archive, directory: &Scratch) {
    let tar = directory.file("root.tar", &archive.finish());
    let root = directory.join("root");
    fs::create_dir(&root).unwrap();
    let output = Command::new("tar").args(["-C", &root, "-xf", &tar]).output().unwrap();
    assert!(output.status.success(), "tar: {}", lossy(&output.stderr));
}

impl Drop for Podman {
    fn drop(&mut self) {
        // The monitor of a container leaves its cgroup a moment after the container is gone.
        let end = Instant::now() + CGROUP_TIMEOUT;
        for cgroup in self.cgroups.iter().chain([&self.cgroup]) {
            while !remove_cgroups(cgroup) && Instant::now() < end {
                thread::sleep(Duration::from_millis(50));
            }
        }
        // This fails while there is another pod, as intended.
        hierarchies().for_each(|hierarchy| drop(fs::remove_dir(hierarchy.join(PODS))));
    }
}

/// Removes the cgroup `name` of each hierarchy; false if one is still there.
fn remove_cgroups(name: &str) -> bool {
    hierarchies().map(|hierarchy| hierarchy.join(name)).filter(|top| top.is_dir()).all(|top| remove_tree(&top))
}

/// The one of version 2, and those of version 1.
fn hierarchies() -> impl Iterator<Item = PathBuf> {
    std::iter::once(PathBuf::from(CGROUPS)).chain(directories_in(Path::new(CGROUPS)))
}

fn remove_tree(cgroup: &Path) -> bool {
    for below in directories_in(cgroup) {
        remove_tree(&below);
    }
    fs::remove_dir(cgroup).is_ok()
}

fn directories_in(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path())
}

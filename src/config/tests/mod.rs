//! Tests of loading: from text to plan or report.

mod errors;
mod files;
mod health;
mod hostile;
mod logs;
mod mistakes;
mod plans;
mod readiness;
mod schedules;
mod semantics;
mod sockets;
mod variables;
mod watch;

use std::ffi::{CString, OsString};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::model::plan::{ExitAction, Input, Ready, RestartPolicy, SignalAction};
use crate::model::{Numbers, Plan, ServiceIndex, Signal, Template};

/// A temporary directory, removed at the end of the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("keepalive-config-{}-{number}", std::process::id()));
        std::fs::create_dir_all(path.join("etc")).unwrap();
        let scratch = Self(path);
        scratch.write("etc/passwd", b"root:x:0:0::/root:/bin/sh\nwww:x:33:34::/var/www:/bin/false\n");
        scratch.write("etc/group", b"root:x:0:\nwww:x:34:\nlogs:x:50:www\n");
        scratch
    }

    fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    fn with_environment<T>(
        &self,
        purpose: Purpose,
        uid: u32,
        variables: &[(OsString, OsString)],
        read: impl FnOnce(&Environment<'_>) -> T,
    ) -> T {
        read(&Environment {
            files: &query_fs,
            variables,
            root: &self.0,
            directory: &self.0,
            cpus: &|| 3,
            unsafe_path: &|path| path.starts_with("/refused").then(|| "/refused is a link".to_owned()),
            hard_limit: &|_| Some(1024),
            stdout_is_terminal: false,
            log: None,
            uid,
            // A user who is not in /etc/passwd can have any group.
            gid: if uid == 0 { 0 } else { 7 },
            purpose,
        })
    }

    fn load_as(&self, purpose: Purpose, uid: u32) -> Result<Loaded, Report> {
        let path = self.0.join("keepalive.toml");
        self.with_environment(purpose, uid, &variables(), |environment| load(&path, environment))
    }

    fn load_with(&self, path: &Path, main: &[OsString]) -> Result<Loaded, Report> {
        self.with_environment(Purpose::Run, 0, &variables(), |environment| load_with_main(path, main, environment))
    }

    fn load(&self) -> Result<Loaded, Report> {
        self.load_as(Purpose::Run, 0)
    }

    /// The printed output without the directory.
    fn output(&self, result: Result<Loaded, Report>) -> String {
        let text = match result {
            Ok(loaded) => {
                let mut text = String::new();
                write_warnings(&loaded.warnings, &mut text).unwrap();
                text
            }
            Err(report) => report.to_string(),
        };
        text.replace(&format!("{}/", self.0.display()), "")
    }
}

fn variables() -> [(OsString, OsString); 3] {
    [("PORT", "80"), ("PATH", "/nowhere"), ("EMPTY", "")].map(|(name, value)| (name.into(), value.into()))
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Failures are ignored: a leftover directory in /tmp does no harm.
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// Compares the whole report (or the warnings) for a file.
#[track_caller]
fn check(input: &str, expect: &str) {
    let scratch = Scratch::new();
    scratch.write("keepalive.toml", input.as_bytes());
    let output = scratch.output(scratch.load());
    assert_eq!(output.trim_end(), expect.trim_matches('\n').trim_end(), "\n--- output:\n{output}");
}

#[track_caller]
fn plan(input: &str) -> Plan {
    let scratch = Scratch::new();
    scratch.write("keepalive.toml", input.as_bytes());
    match scratch.load() {
        Ok(loaded) => loaded.plan,
        Err(report) => panic!("{report}"),
    }
}

/// Checks the report for a service that has these keys in addition to valid ones.
#[track_caller]
fn check_keys(keys: &str, expect: &str) {
    check(&format!("[services.web]\ncommand = [\"node\"]\n{keys}"), expect);
}

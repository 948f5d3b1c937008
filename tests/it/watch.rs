//! `watch` with real files. Each change must lead to exactly one restart.

use std::fs;
use std::path::{Path, PathBuf};

use keepalive::model::{Pid, Signal};
use keepalive::sys::{kill::signal_process, procfs};

use crate::harness::{Directory, KEEPALIVE, PUPPET, Place, Run, Running, have_namespaces, wait_for_death, wait_until};
use crate::http::Control;
use crate::services::Set;

/// A running keepalive whose service watches `src`.
struct Watched {
    set: Set,
    running: Running,
    restarts: u32,
}

impl Watched {
    /// `watch`: more entries of the table.
    fn start(watch: &str) -> Self {
        Self::start_with(watch, &["src/deep"], |set| set.run(Place::Child))
    }

    /// These directories exist.
    fn start_with(watch: &str, directories: &[&str], run: impl FnOnce(&Set) -> Run) -> Self {
        let set = Set::new(&format!(
            "[services.a]\ncommand = [\"PUPPET\", \"end-on-term\", \"0\"]\nreload = \"restart\"\n\
             watch = {{ paths = [\"src\", \"app.conf\"], debounce = \"200ms\"{watch} }}\n"
        ));
        directories.iter().for_each(|directory| fs::create_dir_all(set.directory.path().join(directory)).unwrap());
        fs::write(set.directory.path().join("app.conf"), "1").unwrap();
        let running = run(&set).start();
        let this = Self { set, running, restarts: 0 };
        this.watcher();
        this.control().wait_for("a.0", "running");
        this
    }

    fn control(&self) -> Control {
        Control::at(&self.set.socket())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.set.directory.path().join(name)
    }

    fn write(&self, name: &str) {
        fs::write(self.path(name), name).unwrap();
    }

    /// The helper process, when it waits for changes.
    fn watcher(&self) -> Pid {
        watcher(self.running.keepalive())
    }

    fn count(&self) -> u32 {
        restarts(&self.control())
    }

    /// `change` leads to one restart.
    #[track_caller]
    fn restarts_after(&mut self, change: impl FnOnce(&Self)) {
        assert_eq!(self.count(), self.restarts, "restarts before the change");
        change(self);
        self.restarts += 1;
        wait_until("a restart", || (self.count() >= self.restarts).then_some(()));
        self.control().wait_for("a.0", "running");
    }

    /// No restart has followed. Returns stderr.
    #[track_caller]
    fn end(mut self) -> String {
        assert_eq!(self.count(), self.restarts, "restarts at the end");
        let watcher = self.watcher();
        self.running.send(Signal::TERM);
        assert_eq!(self.running.end(), 0);
        wait_for_death(watcher);
        self.running.stderr()
    }
}

/// The helper process, when it waits for changes.
fn watcher(keepalive: Pid) -> Pid {
    let is_watcher = |pid: &Pid| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
        // poll(2), ppoll(2)
        name == "keepalive-watch\n" && ["7 ", "271 "].iter().any(|number| call.starts_with(number))
    };
    wait_until("the watcher", || procfs::descendants(keepalive).into_iter().find(is_watcher))
}

fn restarts(control: &Control) -> u32 {
    let samples = control.get("/metrics").body;
    let series = "keepalive_instance_restarts_total{service=\"a\",instance=\"a.0\",reason=\"watch\"} ";
    samples.lines().find_map(|line| line.strip_prefix(series)?.parse().ok()).unwrap_or_default()
}

fn changed(stderr: &str) -> Vec<&str> {
    stderr.lines().filter_map(|line| line.strip_suffix(" has changed")?.rsplit('/').next()).collect()
}

#[test]
fn each_kind_of_change_restarts_the_service_once() {
    let mut watched = Watched::start(", ignore = [\"*.log\"]");
    watched.restarts_after(|it| it.write("src/new.js"));
    watched.restarts_after(|it| it.write("src/new.js"));
    // vim: a backup, a new file, which is renamed.
    watched.restarts_after(|it| {
        it.write("src/4913");
        fs::rename(it.path("src/new.js"), it.path("src/new.js~")).unwrap();
        it.write("src/.new.js.swp");
        fs::rename(it.path("src/.new.js.swp"), it.path("src/new.js")).unwrap();
        fs::remove_file(it.path("src/new.js~")).unwrap();
    });
    watched.restarts_after(|it| fs::remove_file(it.path("src/new.js")).unwrap());
    watched.restarts_after(|it| {
        fs::create_dir_all(it.path("src/a/b/c")).unwrap();
        it.write("src/a/b/c/first.js");
    });
    watched.restarts_after(|it| it.write("src/a/b/c/second.js"));
    watched.restarts_after(|it| fs::rename(it.path("src/a"), it.path("src/z")).unwrap());
    watched.restarts_after(|it| it.write("src/z/b/c/third.js"));
    watched.restarts_after(|it| it.write("app.conf"));
    watched.restarts_after(|it| {
        it.write("app.conf.new");
        fs::rename(it.path("app.conf.new"), it.path("app.conf")).unwrap();
    });
    watched.restarts_after(|it| fs::File::open(it.path("app.conf")).unwrap().set_modified(now()).unwrap());
    let stderr = watched.end();
    let expected =
        ["new.js", "new.js", "new.js", "new.js", "a", "second.js", "a", "third.js", "app.conf", "app.conf", "app.conf"];
    assert_eq!(changed(&stderr), expected, "{stderr}");
}

fn now() -> std::time::SystemTime {
    std::time::SystemTime::now() + std::time::Duration::from_secs(1)
}

#[test]
fn ignored_files_and_those_beside_the_paths_do_not_restart_it() {
    let mut watched = Watched::start(", ignore = [\"*.log\", \"deep/out/\"]");
    watched.restarts_after(|it| {
        for directory in ["src/.git/refs", "src/node_modules/a", "src/deep/__pycache__", "src/deep/out"] {
            fs::create_dir_all(it.path(directory)).unwrap();
            it.write(&format!("{directory}/file"));
        }
        for file in ["src/a.log", "src/deep/b.log", "src/.a.js.swp", "other.conf", "src/deep/c.js~"] {
            it.write(file);
        }
        // Opened for writing, and its mode set to what it is: no change.
        drop(fs::File::options().append(true).open(it.path("app.conf")).unwrap());
        fs::set_permissions(it.path("app.conf"), fs::metadata(it.path("app.conf")).unwrap().permissions()).unwrap();
        it.write("src/deep/real.js");
    });
    let stderr = watched.end();
    assert_eq!(changed(&stderr), ["real.js"], "{stderr}");
}

#[test]
fn a_burst_of_two_thousand_files_restarts_it_once() {
    // More events than the queue of inotify holds by default would be 16,384.
    let mut watched = Watched::start_with(", debounce = \"1s\"", &["src/deep"], |set| {
        let text = fs::read_to_string(&set.config).unwrap().replace("debounce = \"200ms\", ", "");
        fs::write(&set.config, text).unwrap();
        set.run(Place::Child)
    });
    watched.restarts_after(|it| {
        for directory in 0..40 {
            fs::create_dir(it.path(&format!("src/{directory}"))).unwrap();
            (0..50).for_each(|file| it.write(&format!("src/{directory}/{file}.js")));
        }
    });
    watched.restarts_after(|it| it.write("src/39/49.js"));
    watched.end();
}

#[test]
fn a_path_may_be_made_later_and_removed_and_come_back() {
    let mut watched = Watched::start_with("", &[], |set| set.run(Place::Child));
    watched.restarts_after(|it| fs::create_dir(it.path("src")).unwrap());
    watched.restarts_after(|it| it.write("src/a.js"));
    watched.restarts_after(|it| fs::remove_dir_all(it.path("src")).unwrap());
    watched.restarts_after(|it| {
        fs::create_dir_all(it.path("src/deep")).unwrap();
        it.write("src/deep/b.js");
    });
    watched.restarts_after(|it| it.write("src/deep/b.js"));
    // As a deployment does: a link to a release.
    watched.restarts_after(|it| {
        fs::rename(it.path("src"), it.path("release1")).unwrap();
        std::os::unix::fs::symlink("release1", it.path("src")).unwrap();
    });
    watched.restarts_after(|it| it.write("src/deep/b.js"));
    let stderr = watched.end();
    assert!(stderr.contains("/src does not exist, and is watched as soon as it does"), "{stderr}");
}

#[test]
fn files_are_compared_where_inotify_sees_nothing() {
    let mut watched = Watched::start(", poll = \"100ms\", ignore = [\"*.log\"]");
    watched.restarts_after(|it| it.write("src/deep/a.js"));
    watched.restarts_after(|it| it.write("src/deep/a.js"));
    watched.restarts_after(|it| {
        it.write("src/a.log");
        fs::remove_file(it.path("src/deep/a.js")).unwrap();
    });
    watched.restarts_after(|it| it.write("app.conf"));
    let stderr = watched.end();
    assert_eq!(changed(&stderr), ["a.js", "a.js", "src", "app.conf"], "{stderr}");
}

#[test]
fn without_watches_left_it_says_what_to_do_and_compares_the_files() {
    if !have_namespaces() {
        return;
    }
    let mut watched = Watched::start_with("", &["src/deep/er"], |set| {
        let script = "echo 2 >/proc/sys/user/max_inotify_watches; exec \"$0\" \"$@\"";
        let words = ["unshare", "--user", "--map-root-user", "sh", "-c", script, KEEPALIVE, "-c", &set.config];
        let mut run = Run::words(Place::Child, &words);
        run.command.env("KEEPALIVE_SOCKET", set.socket());
        run
    });
    watched.restarts_after(|it| it.write("src/deep/a.js"));
    let stderr = watched.end();
    let warning = "a: /proc/sys/fs/inotify/max_user_watches is used up: raise it on the host, or leave out directories";
    assert!(stderr.contains(warning), "{stderr}");
}

#[test]
fn a_helper_that_is_killed_is_replaced() {
    let mut watched = Watched::start("");
    let first = watched.watcher();
    signal_process(first, Signal::KILL).unwrap();
    wait_until("another one", || (watched.watcher() != first).then_some(()));
    watched.restarts_after(|it| it.write("src/a.js"));
    let stderr = watched.end();
    assert!(stderr.contains("a: the process that watches its files has exited, another one follows"), "{stderr}");
}

#[test]
fn a_service_that_has_failed_starts_again_when_it_is_mended() {
    let set = Set::new(
        "[services.a]\ncommand = [\"sh\", \"DIR/src/run\"]\nmax_restarts = 0\nwatch = { paths = [\"src\"], debounce = \"50ms\" }\n",
    );
    fs::create_dir(set.directory.path().join("src")).unwrap();
    let program = set.directory.path().join("src/run");
    fs::write(&program, "exit 1\n").unwrap();
    let mut running = set.start(Place::Child);
    let control = Control::at(&set.socket());
    control.wait_for("a.0", "failed");
    watcher(running.keepalive());
    fs::write(&program, "sleep 1000\n").unwrap();
    control.wait_for("a.0", "running");
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
}

#[test]
fn the_helper_follows_the_configuration() {
    let mut watched = Watched::start("");
    let config = fs::read_to_string(&watched.set.config).unwrap();
    let load = |watched: &Watched, text: &str| {
        fs::write(&watched.set.config, text).unwrap();
        watched.running.send(Signal::HUP);
    };
    let first = watched.watcher();
    load(&watched, &config.replace("\"src\", ", ""));
    wait_for_death(first);
    let second = watched.watcher();
    load(&watched, &config.lines().filter(|line| !line.starts_with("watch")).collect::<Vec<_>>().join("\n"));
    wait_for_death(second);
    load(&watched, &config);
    watched.watcher();
    watched.restarts_after(|it| it.write("src/a.js"));
    watched.end();
}

#[test]
fn the_option_watch_names_files_and_directories() {
    let directory = Directory::new();
    let path = |name: &str| directory.path().join(name);
    fs::create_dir(path("src")).unwrap();
    fs::write(path("app.conf"), "").unwrap();
    let words = ["run", "--name", "a", "--watch", "src", "--watch", "app.conf", "--", PUPPET, "end-on-term", "0"];
    let mut run = Run::words(Place::Child, &[&[KEEPALIVE], &words[..]].concat());
    let socket = path("control");
    run.command.current_dir(directory.path()).env("KEEPALIVE_SOCKET", &socket);
    let mut running = run.start();
    let control = Control::at(Path::new(&socket));
    control.wait_for("a.0", "running");
    watcher(running.keepalive());
    fs::write(path("src/a.js"), "").unwrap();
    let count = || {
        let samples = control.get("/metrics").body;
        samples.lines().any(|line| line.contains("reason=\"watch\"") && line.ends_with(" 1"))
    };
    wait_until("a restart", || count().then_some(()));
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
}

#[test]
fn as_pid_1_it_leaves_no_helper_and_none_runs_without_watch() {
    if !have_namespaces() {
        return;
    }
    let mut watched = Watched::start_with("", &["src"], |set| set.run(Place::Init));
    watched.restarts_after(|it| it.write("src/a.js"));
    watched.end();
    let set = Set::new("[services.a]\ncommand = [\"PUPPET\", \"end-on-term\", \"0\"]\n");
    let mut running = set.start(Place::Child);
    Control::at(&set.socket()).wait_for("a.0", "running");
    let is_watcher = |pid: &Pid| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|it| it.contains("watch"));
    assert_eq!(procfs::descendants(running.keepalive()).into_iter().find(is_watcher), None);
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
}

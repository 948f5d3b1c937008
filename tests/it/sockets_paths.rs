//! The paths of the unix sockets of `listen`, where services own directories.

use std::os::unix::fs::{MetadataExt as _, chown, lchown, symlink};
use std::os::unix::net::UnixStream;

use keepalive::model::Signal;

use crate::harness::{Place, have_root, in_every_place};
use crate::http::Control;
use crate::services::Set;

const OTHER_USER: u32 = 65_534;

/// `app` owns the directory `home`, and the directory of its socket in it. `mode`: that of its socket.
fn text(mode: &str) -> String {
    format!(
        r#"
        [services.db]
        command = ["PUPPET", "serve", "3"]
        listen.x = {{ address = "unix://DIR/db/x.sock", mode = "0600" }}

        [services.app]
        command = ["PUPPET", "serve", "3"]
        user = "{OTHER_USER}"
        listen.x = {{ address = "unix://DIR/home/run/x.sock", mode = "{mode}", user = "{OTHER_USER}" }}
        "#
    )
}

fn make_directories(set: &Set) {
    for name in ["db", "home", "home/run"] {
        std::fs::create_dir(set.directory.path().join(name)).unwrap();
    }
    for name in ["home", "home/run"] {
        chown(set.directory.path().join(name), Some(OTHER_USER), None).unwrap();
    }
}

fn mode_and_owner(set: &Set, name: &str) -> (u32, u32) {
    let file = std::fs::symlink_metadata(set.directory.path().join(name)).unwrap();
    (file.mode() & 0o7777, file.uid())
}

#[test]
fn a_service_that_replaces_the_directory_of_its_socket_by_a_link_gets_no_other_socket() {
    if !have_root() {
        return;
    }
    let set = Set::new(&text("0660"));
    make_directories(&set);
    let mut running = set.start(Place::Child);
    let control = Control::at(&set.socket());
    control.wait_for("db.0", "running");
    control.wait_for("app.0", "running");
    let home = set.directory.path().join("home");
    UnixStream::connect(home.join("run/x.sock")).unwrap();
    assert_eq!(mode_and_owner(&set, "home/run/x.sock"), (0o660, OTHER_USER));
    // The mode of a socket can be changed.
    let change_mode = |mode: &str| {
        std::fs::write(&set.config, set.read("keepalive.toml").replace("0660", mode).replace("0606", mode)).unwrap();
        assert_eq!(control.post("/v1/reload").status, 200);
    };
    change_mode("0606");
    assert_eq!(mode_and_owner(&set, "home/run/x.sock"), (0o606, OTHER_USER));
    std::fs::rename(home.join("run"), home.join("old")).unwrap();
    symlink("../db", home.join("run")).unwrap();
    lchown(home.join("run"), Some(OTHER_USER), None).unwrap();
    change_mode("0666");
    assert_eq!(mode_and_owner(&set, "db/x.sock"), (0o600, 0));
    running.send(Signal::TERM);
    assert_eq!(running.end(), 0);
    assert!(!set.directory.path().join("db/x.sock").exists(), "removed by its own path");
    let stderr = running.stderr();
    let line = format!(
        "keepalive: warning: cannot change mode and owner of `unix://{}/run/x.sock`: keepalive does not follow a symbolic link \
         on its path that other users can change; name the real path, or give the link and its directory to root",
        home.display()
    );
    assert!(stderr.lines().any(|found| found == line), "`{line}` expected in:\n{stderr}");
}

#[test]
fn a_link_of_root_on_the_path_of_a_socket_is_followed_and_one_of_another_user_is_not() {
    if !have_root() {
        return;
    }
    let set = Set::new(
        r#"
        [services.own]
        command = ["PUPPET", "serve", "3"]
        listen.x = "unix://DIR/link/own.sock"

        [services.other]
        command = ["PUPPET", "serve", "3"]
        listen.x = "unix://DIR/home/link/other.sock"
        on_failure = "ignore"
        "#,
    );
    make_directories(&set);
    let directory = set.directory.path();
    symlink("db", directory.join("link")).unwrap();
    symlink("../db", directory.join("home/link")).unwrap();
    in_every_place(|place| {
        let mut running = set.start(place);
        let control = Control::at(&set.socket());
        control.wait_for("own.0", "running");
        control.wait_for("other.0", "failed");
        UnixStream::connect(directory.join("db/own.sock")).unwrap();
        assert!(!directory.join("db/other.sock").exists());
        running.send(Signal::TERM);
        assert_eq!(running.end(), 0);
        assert!(!directory.join("db/own.sock").exists());
        let stderr = running.stderr();
        let reason = "/home/link/other.sock`: keepalive does not follow a symbolic link on its path";
        assert!(stderr.contains(reason), "{stderr}");
    });
}

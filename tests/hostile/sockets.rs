//! Sockets of `listen` that a reload changes while a service holds the lock of what keepalive must use for it.

use keepalive::model::Pid;
use keepalive::sys::procfs;

use crate::file_systems::have_fuse;
use crate::harness::wait_until;
use crate::setup::{EVERYWHERE, Setup, attack, in_each};

/// How often the same reload is requested.
const RELOADS: usize = 3;
/// The processes that hang in the same lock, and those that are about to exit.
const MAX_HELPERS: usize = 2;

/// What ends first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// Then late helpers undo what they have done, and the reload succeeds.
    Lock,
    Keepalive,
}

/// `evil` has a lock. A reload that puts `after` in the place of `before` in its definition needs it, and fails.
fn a_reload_fails(words: &[&str], settings: &str, before: &str, after: &str, address: &str) {
    if !have_fuse() {
        return;
    }
    for ending in [Ending::Lock, Ending::Keepalive] {
        in_each(&EVERYWHERE, |host| {
            let setup = Setup::start(host, &format!("{}ready = \"notify\"\n{settings}", attack(words)));
            setup.control.wait_for("evil.0", "running");
            setup.begin_attack();
            let directory = setup.set.directory.path().to_str().unwrap().to_owned();
            let with_directory = |text: &str| text.replace("DIR", &directory);
            let changed = setup.set.read("keepalive.toml").replace(&with_directory(before), &with_directory(after));
            std::fs::write(&setup.set.config, changed).unwrap();
            for _ in 0..RELOADS {
                let answer = setup.control.post("/v1/reload");
                let reason = format!("cannot listen on `{}`: Connection timed out", with_directory(address));
                assert!(answer.status == 409 && answer.reason().contains(&reason), "{}", answer.body);
                setup.others_are_served();
            }
            let keepalive = setup.running.keepalive();
            let is_helper = |pid: &Pid| {
                std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "keepalive-bind\n")
            };
            let helpers = || procfs::children(keepalive).unwrap().flatten().filter(is_helper).count();
            wait_until("few helpers to be left", || (1..=MAX_HELPERS).contains(&helpers()).then_some(()));
            assert_eq!(setup.control.state("evil.0"), "running");
            setup.usage_is_flat();
            setup.the_event_loop_rests();
            if ending == Ending::Lock {
                setup.set.directory.file("goend", b"", 0o644);
                wait_until("the helpers to end", || (helpers() == 0).then_some(()));
                let answer = setup.control.post("/v1/reload");
                assert_eq!(answer.status, 200, "{}", answer.body);
                setup.others_are_served();
            }
            let (code, stderr) = setup.stop();
            assert!([0, 137].contains(&code), "{code} {stderr}");
        });
    }
}

// getdents(2) holds the lock of the directory while it writes to memory that does not come; bind(2) and unlink(2) wait for it.
#[test]
fn a_directory_that_is_locked_for_ever_holds_up_no_reload() {
    let listen = "[services.evil]\nlisten = { a = \"unix://DIR/free/a\", b = \"unix://DIR/free/b\" }\n";
    a_reload_fails(&["locked_directory"], "", "[services.evil]\n", listen, "unix://DIR/free/a");
}

// socket(7): setsockopt(2) waits for a sendto(2) with MSG_MORE that waits for the memory that it sends.
#[test]
fn a_socket_that_is_locked_for_ever_holds_up_no_reload() {
    // A number that the kernel does not assign by itself, see ip_local_port_range in ip(7).
    let port = 18_000 + std::process::id() % 10_000;
    let [before, after] = ["127.0.0.1", "0.0.0.0"].map(|ip| format!("udp://{ip}:{port}"));
    a_reload_fails(&["locked_socket", "3"], &format!("listen = {{ a = \"{before}\" }}\n"), &before, &after, &after);
}

//! Sockets of `listen` that a reload changes while a service holds the lock of what keepalive must use for it.

use keepalive::model::Pid;
use keepalive::sys::procfs;

use crate::file_systems::have_fuse;
use crate::harness::wait_until;
use crate::port::ReservedPort;
use crate::setup::{EVERYWHERE, Host, Setup, attack, in_each};

/// How often the same reload is requested.
const RELOADS: usize = 3;
/// The helpers that hang in all.
const MAX_HELPERS: usize = 16;

/// What ends first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// Then late helpers undo what they have done, and the reload succeeds.
    Lock,
    Keepalive,
}

/// `evil` has locks. A reload that puts `after` in the place of `before` in its definition needs them, and fails at `address`.
struct Attack<'a> {
    hosts: &'a [Host],
    words: &'a [&'a str],
    settings: &'a str,
    before: &'a str,
    after: &'a str,
    address: &'a str,
    max_helpers: usize,
}

fn a_reload_fails(attempt: &Attack<'_>) {
    let Attack { hosts, words, settings, before, after, address, max_helpers } = *attempt;
    if !have_fuse() {
        return;
    }
    for ending in [Ending::Lock, Ending::Keepalive] {
        in_each(hosts, |host| {
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
            wait_until("few helpers to be left", || (1..=max_helpers).contains(&helpers()).then_some(()));
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

#[test]
fn a_start_that_needs_a_locked_directory_is_tried_again_until_the_lock_is_free() {
    // The directory does not exist yet.
    const OTHER: &str = "[services.other]\ncommand = [\"sleep\", \"10000\"]\non_failure = \"ignore\"\n\
        stop_timeout = \"300ms\"\nlisten = { s = \"unix://DIR/free/0/s\" }\n";
    if !have_fuse() {
        return;
    }
    in_each(&EVERYWHERE, |host| {
        let setup = Setup::start(host, &format!("{}ready = \"notify\"\n{OTHER}", attack(&["locked_directories", "1"])));
        setup.control.wait_for("evil.0", "running");
        setup.control.wait_for("other.0", "failed");
        setup.begin_attack();
        let answer = setup.control.post("/v1/services/other/start?timeout=2s");
        assert_eq!(answer.status, 504, "{}", answer.body);
        setup.others_are_served();
        setup.set.directory.file("goend", b"", 0o644);
        setup.control.wait_for("other.0", "running");
        let (code, stderr) = setup.stop();
        assert!([0, 137].contains(&code), "{code} {stderr}");
        assert!(stderr.contains("(a socket of its `listen` cannot be bound in time; retry in "), "{stderr}");
    });
}

// getdents(2) holds the lock of the directory while it writes to memory that does not come; bind(2) and unlink(2) wait for it.
#[test]
fn a_directory_that_is_locked_for_ever_holds_up_no_reload() {
    a_reload_fails(&Attack {
        hosts: &EVERYWHERE,
        words: &["locked_directories", "1"],
        settings: "",
        before: "[services.evil]\n",
        after: "[services.evil]\nlisten = { a = \"unix://DIR/free/0/a\", b = \"unix://DIR/free/0/b\" }\n",
        address: "unix://DIR/free/0/a",
        max_helpers: 1,
    });
}

#[test]
fn many_directories_that_are_locked_for_ever_hold_up_no_reload() {
    const COUNT: usize = 20;
    let listen: Vec<String> = (0..COUNT).map(|number| format!("s{number} = \"unix://DIR/free/{number}/s\"")).collect();
    a_reload_fails(&Attack {
        hosts: &[Host::Root],
        words: &["locked_directories", &COUNT.to_string()],
        settings: "",
        before: "[services.evil]\n",
        after: &format!("[services.evil]\nlisten = {{ {} }}\n", listen.join(", ")),
        address: "unix://DIR/free/0/s",
        max_helpers: MAX_HELPERS,
    });
}

// socket(7): setsockopt(2) waits for a sendto(2) with MSG_MORE that waits for the memory that it sends.
#[test]
fn a_socket_that_is_locked_for_ever_holds_up_no_reload() {
    // A number that the kernel does not assign by itself, see ip_local_port_range in ip(7).
    let port = 18_000 + std::process::id() % 10_000;
    let [before, after] = ["127.0.0.1", "0.0.0.0"].map(|ip| format!("udp://{ip}:{port}"));
    a_reload_fails(&Attack {
        hosts: &EVERYWHERE,
        words: &["locked_socket", "3"],
        settings: &format!("listen = {{ a = \"{before}\" }}\n"),
        before: &before,
        after: &after,
        address: &after,
        max_helpers: 1,
    });
}

// connect(2), AF_UNSPEC; socket(7), SO_LINGER: close(2) waits until the peer has read everything.
#[test]
fn a_listening_socket_that_a_service_has_connected_holds_up_nobody() {
    let peer = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let number = peer.local_addr().unwrap().port().to_string();
    for mode in ["shared", "reuseport"] {
        in_each(&EVERYWHERE, |host| {
            let port = ReservedPort::any();
            let listen = format!("listen = {{ web = \"tcp://{port}\" }}\nlisten_mode = \"{mode}\"\n");
            let setup = Setup::start(host, &format!("{}{listen}", attack(&["connected_listener", &number])));
            setup.running.expect("enough");
            setup.begin_attack();
            setup.control.wait_for("evil.0", "completed");
            setup.others_are_served();
            setup.the_event_loop_rests();
            let (code, stderr) = setup.stop();
            assert_eq!(code, 0, "{stderr}");
        });
    }
}

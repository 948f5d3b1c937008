//! `listen`, `listen_mode`, `fd_store`, and `{fd.NAME}`.

use super::plans::{check_service, fixed, numbered};
use super::*;
use crate::model::plan::{Address, Listen, ListenMode};

/// The decoded address of `listen.http = value`.
#[track_caller]
fn address(value: &str) -> Address {
    let plan = plan(&format!("[services.web]\ncommand = \"x\"\nlisten.http = {value}\n"));
    let Listen { name, address, nonblocking } = plan.services[0].process.listen[0].clone();
    assert_eq!((&*name, nonblocking), ("http", value.contains("nonblocking = true")));
    Address::clone(&address)
}

fn unix(path: &str, mode: u32, owner: Option<(u32, u32)>) -> Address {
    Address::Unix { path: path.into(), mode, owner }
}

#[test]
fn addresses_are_tcp_udp_and_unix() {
    assert_eq!(address("\"tcp://0.0.0.0:8080\""), Address::Tcp("0.0.0.0:8080".parse().unwrap()));
    assert_eq!(address("\"tcp://[::]:${PORT}\""), Address::Tcp("[::]:80".parse().unwrap()));
    assert_eq!(address("\"tcp://localhost:80\""), Address::Tcp("127.0.0.1:80".parse().unwrap()));
    assert_eq!(address("\"udp://127.0.0.1:53\""), Address::Udp("127.0.0.1:53".parse().unwrap()));
    assert_eq!(address("{ address = \"tcp://0.0.0.0:80\" }"), Address::Tcp("0.0.0.0:80".parse().unwrap()));
    let nonblocking = "{ address = \"udp://127.0.0.1:53\", nonblocking = true }";
    assert_eq!(address(nonblocking), Address::Udp("127.0.0.1:53".parse().unwrap()));
    assert_eq!(address("{ address = \"unix://@web\", nonblocking = true }"), unix("@web", 0o666, None));
    assert_eq!(address("\"unix:///run/{service}.sock\""), unix("/run/web.sock", 0o666, None));
    assert_eq!(address("\"unix://@web\""), unix("@web", 0o666, None));
    assert_eq!(address("\"unix://@a//./b\""), unix("@a//./b", 0o666, None), "it is a name, no path");
    assert_eq!(address("\"unix:////run//./web/./a.sock\""), unix("/run/web/a.sock", 0o666, None));
    assert_eq!(address("\"unix:///run/../a.sock\""), unix("/run/../a.sock", 0o666, None));
}

#[test]
fn the_file_of_a_unix_socket_has_a_mode_and_an_owner() {
    let socket = |keys: &str| address(&format!("{{ address = \"unix:///run/x.sock\"{keys} }}"));
    assert_eq!(socket(""), unix("/run/x.sock", 0o666, None));
    assert_eq!(socket(", mode = \"0660\", user = \"www\""), unix("/run/x.sock", 0o660, Some((33, 34))));
    assert_eq!(socket(", user = \"www\", group = \"logs\""), unix("/run/x.sock", 0o666, Some((33, 50))));
    assert_eq!(socket(", group = \"logs\""), unix("/run/x.sock", 0o666, Some((0, 50))));
}

#[test]
fn a_relative_socket_is_relative_to_the_configuration() {
    let scratch = Scratch::new();
    scratch.write("keepalive.toml", b"[services.web]\ncommand = \"x\"\nlisten.a = \"unix://x.sock\"\n");
    let plan = scratch.load().unwrap().plan;
    assert_eq!(
        plan.services[0].process.listen[0].address,
        unix(scratch.0.join("x.sock").to_str().unwrap(), 0o666, None).into()
    );
}

// sd_listen_fds(3): SD_LISTEN_FDS_START is 3; "in the same order as configured".
#[test]
fn sockets_have_descriptors_in_the_order_of_the_file() {
    let tcp = |port: u16| Address::Tcp(([127, 0, 0, 1], port).into());
    let socket = |name: &str, port| Listen { name: name.into(), address: tcp(port).into(), nonblocking: false };
    check_service(
        "env = { X = \"{fd.zz};{fd.a b};\" }\ncwd = \"/{fd.zz}/{instance}\"\nlisten_mode = \"reuseport\"\nfd_store = 8\n\
         listen = { zz = \"tcp://127.0.0.1:1\", \"a b\" = \"tcp://127.0.0.1:2\" }",
        |service| {
            Rc::make_mut(&mut service.process).env = [fixed("X=3;4;")].into();
            Rc::make_mut(&mut service.process).cwd = Some(numbered(&["/3/", ""]));
            Rc::make_mut(&mut service.process).listen_mode = ListenMode::Reuseport;
            Rc::make_mut(&mut service.process).fd_store = 8;
            Rc::make_mut(&mut service.process).listen = [socket("zz", 1), socket("a b", 2)].into();
        },
    );
}

#[test]
fn invalid_addresses_are_errors() {
    check_keys(
        "listen.a = \"0.0.0.0:80\"\nlisten.b = 8080\nlisten.c = \"tcp://:80\"\nlisten.d = \"tcp://example.org:80\"\nlisten.e = \"/run/x\"\nlisten.f = \"tcp://0.0.0.0:0\"\nlisten.g = \"unix://\"\nlisten.h = \"tcp://0.0.0.0:80{instance}\"\nlisten.i = \"http://0.0.0.0:80\"\nlisten.j = \"udp://*:{fd.a}\"\nlisten.k = \"unix:/run/k\"\n",
        r#"
keepalive.toml:3:12: invalid address `0.0.0.0:80`
  3 | listen.a = "0.0.0.0:80"
    |            ^^^^^^^^^^^^
  = write `tcp://0.0.0.0:80`

keepalive.toml:4:12: expected an address, found `8080`
  4 | listen.b = 8080
    |            ^^^^
  = such as `"tcp://0.0.0.0:8080"` or `"unix:///run/web.sock"`

keepalive.toml:5:12: invalid address `tcp://:80`
  5 | listen.c = "tcp://:80"
    |            ^^^^^^^^^^^
  = write `tcp://0.0.0.0:80`, or `[::]` for IPv6

keepalive.toml:6:12: invalid address `tcp://example.org:80`
  6 | listen.d = "tcp://example.org:80"
    |            ^^^^^^^^^^^^^^^^^^^^^^
  = an IP address and a port from 1 to 65535; host names are not resolved

keepalive.toml:7:12: invalid address `/run/x`
  7 | listen.e = "/run/x"
    |            ^^^^^^^^
  = write `unix:///run/x`

keepalive.toml:8:12: invalid address `tcp://0.0.0.0:0`
  8 | listen.f = "tcp://0.0.0.0:0"
    |            ^^^^^^^^^^^^^^^^^
  = an IP address and a port from 1 to 65535; host names are not resolved

keepalive.toml:9:12: the path of the socket is missing
  9 | listen.g = "unix://"
    |            ^^^^^^^^^
  = such as `"unix:///run/web.sock"`

keepalive.toml:10:29: `{instance}` cannot be used here: all instances share this value
  10 | listen.h = "tcp://0.0.0.0:80{instance}"
     |                             ^^^^^^^^^^
  = use `{service}`, or no placeholder

keepalive.toml:11:12: invalid address `http://0.0.0.0:80`
  11 | listen.i = "http://0.0.0.0:80"
     |            ^^^^^^^^^^^^^^^^^^^
  = write `tcp://0.0.0.0:80`

keepalive.toml:12:21: `{fd.a}` cannot be used here: sockets are passed to processes only
  12 | listen.j = "udp://*:{fd.a}"
     |                     ^^^^^^
  = use `{service}`, or no placeholder

keepalive.toml:13:12: invalid address `unix:/run/k`
  13 | listen.k = "unix:/run/k"
     |            ^^^^^^^^^^^^^
  = write `unix:///run/k`

11 errors in the configuration
"#,
    );
}

#[test]
fn invalid_sockets_are_errors() {
    let long = "x".repeat(110);
    check_keys(
        &format!(
            "listen_mode = \"reuseport\"\n[services.web.listen]\n\"a:b\" = \"tcp://0.0.0.0:1\"\nc = {{ address = \"tcp://0.0.0.0:2\", mode = \"0600\" }}\nd = {{ mode = \"0600\" }}\ne = {{ address = \"unix://@e\", user = \"www\" }}\nf = {{ address = \"unix:///f\", mode = 660, user = \"nobody\" }}\ng = \"unix:///{long}\"\n[services.b]\ncommand = \"b\"\nlisten_mode = \"shared\"\nfd_store = 251\n"
        ),
        &format!(
            r#"
keepalive.toml:3:15: `e` is a unix socket, which does not support `reuseport`
  3 | listen_mode = "reuseport"
    |               ^^^^^^^^^^^
  = remove it: all instances then share one socket

keepalive.toml:5:1: a socket name may contain only printable ASCII characters, without `:{{}}`
  5 | "a:b" = "tcp://0.0.0.0:1"
    | ^^^^^
  = rename it

keepalive.toml:6:36: `mode` applies only to a unix socket with a path
  6 | c = {{ address = "tcp://0.0.0.0:2", mode = "0600" }}
    |                                    ^^^^
  = remove it

keepalive.toml:7:5: the socket has no `address`
  7 | d = {{ mode = "0600" }}
    |     ^^^^^^^^^^^^^^^^^
  = such as `address = "unix:///run/web.sock"`

keepalive.toml:8:30: `user` applies only to a unix socket with a path
  8 | e = {{ address = "unix://@e", user = "www" }}
    |                              ^^^^
  = remove it

keepalive.toml:9:37: expected an octal number up to 0777, in quotes, found `660`
  9 | f = {{ address = "unix:///f", mode = 660, user = "nobody" }}
    |                                     ^^^
  = such as `"0660"`

keepalive.toml:9:49: unknown user `nobody`
  9 | f = {{ address = "unix:///f", mode = 660, user = "nobody" }}
    |                                                 ^^^^^^^^
  = not found in /etc/passwd; a number needs no entry there

keepalive.toml:10:5: a socket path is limited to 107 bytes
  10 | g = "unix:///{long}"
     |     ^^^^^^^^^{carets}^
  = choose a shorter one, such as `/run/keepalive.sock`

keepalive.toml:13:15: `listen_mode` has no effect without `listen`
  13 | listen_mode = "shared"
     |               ^^^^^^^^
  = add `listen`, or remove it

keepalive.toml:14:12: expected a whole number from 0 to 250, found `251`
  14 | fd_store = 251
     |            ^^^

10 errors in the configuration
"#,
            carets = "^".repeat(110)
        ),
    );
}

#[test]
fn an_address_can_be_used_by_one_socket_only() {
    check(
        "[services.a]\ncommand = \"a\"\nlisten = { x = \"tcp://127.0.0.1:80\", y = \"udp://127.0.0.1:80\" }\nstate = { size = \"1KiB\", persist = \"/s/b-{instance}\" }\n[services.b]\ncommand = \"b\"\nlisten.z = \"tcp://localhost:${PORT}\"\nstate = { size = \"1KiB\", persist = \"/s/b-0\" }\n",
        r#"
keepalive.toml:7:12: `tcp://localhost:${PORT}` is used twice, first at keepalive.toml:3:16
  7 | listen.z = "tcp://localhost:${PORT}"
    |            ^^^^^^^^^^^^^^^^^^^^^^^^^
  = change one of them

keepalive.toml:8:36: `/s/b-0` is used twice, first at keepalive.toml:4:36
  8 | state = { size = "1KiB", persist = "/s/b-0" }
    |                                    ^^^^^^^^
  = change one of them

2 errors in the configuration
"#,
    );
}

#[test]
fn overlapping_addresses_are_errors() {
    check(
        "[keepalive]\nhttp = \"0.0.0.0:90\"\ncontrol = \"/run/c.sock\"\n[services.a]\ncommand = \"a\"\nlisten = { x = \"tcp://0.0.0.0:80\", y = \"udp://[::]:80\" }\n[services.b]\ncommand = \"b\"\nlisten.z = \"tcp://[::]:80\"\nlisten.s = \"tcp://[::1]:80\"\nlisten.h = \"tcp://127.0.0.1:90\"\nlisten.c = \"unix:///run/c.sock\"\nlisten.d = \"unix:///run//./c.sock\"\n",
        r#"
keepalive.toml:9:12: `tcp://[::]:80` overlaps with `tcp://0.0.0.0:80` at keepalive.toml:6:16
  9 | listen.z = "tcp://[::]:80"
    |            ^^^^^^^^^^^^^^^
  = change one of them; `0.0.0.0` means all IPv4 addresses, `[::]` all IPv4 and IPv6 addresses

keepalive.toml:11:12: `tcp://127.0.0.1:90` overlaps with `tcp://0.0.0.0:90` at keepalive.toml:2:8
  11 | listen.h = "tcp://127.0.0.1:90"
     |            ^^^^^^^^^^^^^^^^^^^^
  = change one of them; `0.0.0.0` means all IPv4 addresses, `[::]` all IPv4 and IPv6 addresses

keepalive.toml:12:12: `unix:///run/c.sock` is used twice, first at keepalive.toml:3:11
  12 | listen.c = "unix:///run/c.sock"
     |            ^^^^^^^^^^^^^^^^^^^^
  = change one of them

keepalive.toml:13:12: `unix:///run/c.sock` is used twice, first at keepalive.toml:3:11
  13 | listen.d = "unix:///run//./c.sock"
     |            ^^^^^^^^^^^^^^^^^^^^^^^
  = change one of them

4 errors in the configuration
"#,
    );
}

#[test]
fn an_unknown_socket_is_an_error() {
    check(
        "[services.web]\ncommand = [\"a\", \"{fd.htp}\", \"--fd={fd.x}\"]\nlisten = { http = \"tcp://0.0.0.0:80\", admin = \"tcp://0.0.0.0:81\" }\n[services.b]\ncommand = \"b {fd.http}\"\n",
        r#"
keepalive.toml:2:18: service `web` has no socket `htp`
  2 | command = ["a", "{fd.htp}", "--fd={fd.x}"]
    |                  ^^^^^^^^
  = did you mean `{fd.http}`?

keepalive.toml:2:35: service `web` has no socket `x`
  2 | command = ["a", "{fd.htp}", "--fd={fd.x}"]
    |                                   ^^^^^^
  = known sockets: http, admin

keepalive.toml:5:14: service `b` has no socket `http`
  5 | command = "b {fd.http}"
    |              ^^^^^^^^^
  = such as `listen = { http = "tcp://0.0.0.0:8080" }`

3 errors in the configuration
"#,
    );
}

// sd_listen_fds(3), sd_notify(3): these are for the service manager to set.
#[test]
fn variables_that_keepalive_sets_are_errors() {
    let scratch = Scratch::new();
    scratch.write("a.env", b"NOTIFY_SOCKET=/n\n");
    scratch.write(
        "keepalive.toml",
        b"[services.web]\ncommand = \"x\"\nenv_file = \"a.env\"\nwatchdog = \"1s\"\nlisten.a = \"tcp://0.0.0.0:1\"\nenv = { LISTEN_FDS = 1, NODE_CHANNEL_FD = 3, KEEPALIVE_STATE_FD = 5 }\n",
    );
    let expected = "\
keepalive.toml:3:12: the file sets `NOTIFY_SOCKET`, which is reserved for keepalive
  3 | env_file = \"a.env\"
    |            ^^^^^^^
  = remove it from the file

keepalive.toml:6:9: `LISTEN_FDS` is reserved for keepalive
  6 | env = { LISTEN_FDS = 1, NODE_CHANNEL_FD = 3, KEEPALIVE_STATE_FD = 5 }
    |         ^^^^^^^^^^
  = remove it

keepalive.toml:6:46: `KEEPALIVE_STATE_FD` is reserved for keepalive
  6 | env = { LISTEN_FDS = 1, NODE_CHANNEL_FD = 3, KEEPALIVE_STATE_FD = 5 }
    |                                              ^^^^^^^^^^^^^^^^^^
  = remove it

3 errors in the configuration
";
    assert_eq!(scratch.output(scratch.load()), expected);
    // If keepalive does not set them, they are ordinary variables.
    scratch.write("keepalive.toml", b"[services.web]\ncommand = \"x\"\nenv_file = \"a.env\"\nenv.LISTEN_FDS = 1\n");
    let process = scratch.load().unwrap().plan.services.remove(0).process.clone();
    assert_eq!(*process.env, [fixed("LISTEN_FDS=1"), fixed("NOTIFY_SOCKET=/n")]);
}

#[test]
fn listen_fds_can_be_turned_off() {
    check_service("listen.a = \"tcp://127.0.0.1:1\"\nlisten_fds = false\nenv.LISTEN_FDS = 1", |service| {
        let address = Address::Tcp("127.0.0.1:1".parse().unwrap()).into();
        Rc::make_mut(&mut service.process).listen = [Listen { name: "a".into(), address, nonblocking: false }].into();
        Rc::make_mut(&mut service.process).listen_fds = false;
        Rc::make_mut(&mut service.process).env = [fixed("LISTEN_FDS=1")].into();
    });
    check_keys(
        "listen.a = \"tcp://0.0.0.0:1\"\nlisten_fds = false\nfd_store = 1\n[services.b]\ncommand = \"b\"\nlisten_fds = true\n[services.c]\ncommand = \"c\"\nlisten.a = { address = \"tcp://0.0.0.0:2\", nonblocking = 1 }\nlisten_fds = \"no\"\n",
        r#"
keepalive.toml:4:14: `fd_store` requires `LISTEN_FDS`, which returns the stored descriptors to the process
  4 | listen_fds = false
    |              ^^^^^
  = remove `fd_store` or `listen_fds`

keepalive.toml:8:14: `listen_fds` has no effect without `listen`
  8 | listen_fds = true
    |              ^^^^
  = add `listen`, or remove it

keepalive.toml:11:57: expected `true` or `false`, found `1`
  11 | listen.a = { address = "tcp://0.0.0.0:2", nonblocking = 1 }
     |                                                         ^

keepalive.toml:12:14: expected `true` or `false`, found `"no"`
  12 | listen_fds = "no"
     |              ^^^^
  = write `false`

4 errors in the configuration
"#,
    );
}

/// The warnings for a service with one socket.
#[track_caller]
fn check_hint(keys: &str, expect: &[&str]) {
    let scratch = Scratch::new();
    scratch.write("keepalive.toml", format!("[services.web]\n{keys}\n").as_bytes());
    let hints: Vec<String> = scratch.load().unwrap().warnings.into_iter().map(|warning| warning.hint).collect();
    assert_eq!(hints, expect, "{keys}");
}

// gunicorn/arbiter.py: `-b fd://3` and the sockets of LISTEN_FDS are one list.
#[test]
fn gunicorn_that_binds_a_descriptor_is_a_warning_about_listen_fds() {
    let listen = "\nlisten.http = \"tcp://127.0.0.1:80\"";
    for (keys, is_hinted_at) in [
        ("command = [\"gunicorn\", \"-b\", \"fd://{fd.http}\", \"app:app\"]", true),
        ("command = \"/venv/bin/python3 -m gunicorn --bind=fd://3 app:app\"", true),
        ("command = [\"sh\", \"-c\", \"exec gunicorn -b fd://3 app:app\"]", true),
        ("command = \"gunicorn app:app\"\nenv.GUNICORN_CMD_ARGS = \"--bind fd://3\"", true),
        ("command = \"gunicorn app:app\"\nenv.GUNICORN_CMD_ARGS = \"--workers 2\"", false),
        ("command = \"gunicorn app:app\"", false),
        ("command = \"dockerd -H fd://3\"", false),
        ("command = \"gunicorn -b fd://3 app:app\"\nlisten_fds = false", false),
        ("command = \"gunicorn -b fd://3 app:app\"\nlisten_fds = true", false),
        ("command = \"gunicorn -b fd://3 app:app\"\nfd_store = 1", false),
    ] {
        let expect: &[&str] = if is_hinted_at { &["add `listen_fds = false`"] } else { &[] };
        check_hint(&format!("{keys}{listen}"), expect);
    }
    check_hint("command = \"gunicorn -b fd://3 app:app\"", &[]);
}

// gunicorn: "the default configuration file is ./gunicorn.conf.py".
#[test]
fn check_reads_the_file_of_gunicorn() {
    let scratch = Scratch::new();
    let service = "[services.web]\ncommand = \"./gunicorn app:app\"\nlisten.http = \"tcp://127.0.0.1:80\"\n";
    let path = scratch.write("gunicorn", b"#!/bin/sh\n");
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    scratch.write("keepalive.toml", format!("{service}cwd = \"{}\"\n", scratch.0.display()).as_bytes());
    for (bind, hints) in [("0.0.0.0:80", 0), ("fd://3", 1)] {
        scratch.write("gunicorn.conf.py", format!("bind = [\"{bind}\"]\n").as_bytes());
        for (purpose, hints) in [(Purpose::Check, hints), (Purpose::Run, 0)] {
            let loaded = scratch.load_as(purpose, 0).unwrap();
            let found = loaded.warnings.iter().filter(|warning| warning.hint == "add `listen_fds = false`");
            assert_eq!(found.count(), hints, "{bind}");
        }
    }
}

// nginx, ngx_open_listening_sockets(): makes its own sockets non-blocking, but not inherited ones.
#[test]
fn nginx_with_a_blocking_socket_is_a_warning_about_nonblocking() {
    const HINT: &str = "add `nonblocking = true`, as in `{ address = \"tcp://0.0.0.0:80\", nonblocking = true }`";
    let plain = "listen.http = \"tcp://127.0.0.1:80\"";
    let table = |value: &str| format!("listen.http = {{ address = \"tcp://127.0.0.1:80\", nonblocking = {value} }}");
    check_hint(&format!("command = \"/usr/sbin/nginx -g 'daemon off;'\"\n{plain}"), &[HINT]);
    check_hint(&format!("command = \"openresty\"\nenv.NGINX = \"{{fd.http}};\"\n{plain}"), &[HINT]);
    check_hint(&format!("command = \"openresty\"\nenv.NGINX_HOST = \"a\"\n{plain}"), &[]);
    for value in ["true", "false"] {
        check_hint(&format!("command = \"nginx\"\n{}", table(value)), &[]);
        let second = "listen.https = \"tcp://127.0.0.1:443\"";
        check_hint(&format!("command = \"nginx\"\n{}\n{second}", table(value)), &[HINT]);
    }
    for script in ["cd / && exec nginx -g x", "nginx", "cd /;/usr/sbin/nginx"] {
        check_hint(&format!("command = [\"/bin/sh\", \"-c\", \"{script}\"]\n{plain}"), &[HINT]);
    }
    for word in ["nginx", "behind nginx proxy"] {
        check_hint(&format!("command = [\"own\", \"--title\", \"{word}\"]\n{plain}"), &[]);
    }
    check_hint("command = \"nginx\"", &[]);
}

#[test]
fn a_socket_behind_a_link_that_is_not_followed_is_a_warning_of_check() {
    let scratch = Scratch::new();
    let text = b"[services.web]\ncommand = \"/bin/true\"\nlisten.a = \"unix:///refused/web\"\n";
    scratch.write("keepalive.toml", text);
    assert_eq!(scratch.output(scratch.load()), "", "it may be different where it runs");
    let expect = r#"
warning: keepalive.toml:3:12: /refused is a link: keepalive would not follow it, and not create the socket
  3 | listen.a = "unix:///refused/web"
    |            ^^^^^^^^^^^^^^^^^^^^^
  = name the real path
"#;
    assert_eq!(scratch.output(scratch.load_as(Purpose::Check, 0)).trim(), expect.trim());
}

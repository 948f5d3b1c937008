//! `health`, `on_unhealthy`.

use std::time::Duration;

use super::plans::{check_service, fixed, numbered};
use super::*;
use crate::model::plan::{Health, HttpCheck, OnUnhealthy, Probe};

fn defaults(probe: Probe) -> Health {
    Health {
        probe,
        http: HttpCheck::default(),
        interval: Duration::from_secs(10),
        timeout: Duration::from_secs(2),
        retries: 3,
        start_period: Duration::ZERO,
        on_unhealthy: OnUnhealthy::Restart,
    }
}

#[test]
fn a_health_check_is_decoded() {
    let http = || Probe::Http { authority: fixed("127.0.0.1:8080"), target: fixed("/healthz") };
    check_service("health = { http = \"http://localhost:8080/healthz\" }", |service| {
        service.health = Some(defaults(http()).into());
    });
    let keys = "health = { http = \"http://localhost:8080/healthz\", interval = \"1m\", timeout = \"5s\", retries = 1, start_period = \"40s\" }\non_unhealthy = \"mark\"";
    check_service(keys, |service| {
        let health = Health {
            interval: Duration::from_secs(60),
            timeout: Duration::from_secs(5),
            retries: 1,
            start_period: Duration::from_secs(40),
            on_unhealthy: OnUnhealthy::Mark,
            ..defaults(http())
        };
        service.health = Some(health.into());
    });
    check_service("health = { tcp = \"127.0.0.1:300{instance}\" }\non_unhealthy = \"shutdown\"", |service| {
        let probe = Probe::Tcp(numbered(&["127.0.0.1:300", ""]));
        service.health = Some(Health { on_unhealthy: OnUnhealthy::Shutdown, ..defaults(probe) }.into());
    });
    check_service("health = { exec = \"redis-cli ping\" }", |service| {
        let probe = Probe::Exec([fixed("redis-cli"), fixed("ping")].into());
        service.health = Some(defaults(probe).into());
    });
}

#[test]
fn the_response_to_a_check_is_decoded() {
    let http = |keys: &str| {
        let text = format!("[services.web]\ncommand = \"x\"\nhealth = {{ http = \"http://127.0.0.1\", {keys} }}\n");
        plan(&text).services[0].health.as_ref().unwrap().http.clone()
    };
    let statuses = |value: &str| http(&format!("expect_status = {value}")).statuses;
    assert_eq!(*statuses("204"), [204..=204]);
    assert_eq!(*statuses("\"200-299\""), [200..=299]);
    assert_eq!(*statuses("[200, \"400-401\"]"), [200..=200, 400..=401]);
    let found = http(
        "headers = { Authorization = \"Bearer ${PORT}\", X-Instance = \"{instance}\" }, expect_body = \"{ \\\"ok\\\" }\"",
    );
    let headers = [("Authorization", fixed("Bearer 80")), ("X-Instance", numbered(&["", ""]))];
    assert_eq!(*found.headers, headers.map(|(name, value)| (name.into(), value)));
    assert_eq!(found.body.as_deref().map(|body| &**body), Some("{ \"ok\" }"));
    assert_eq!(found.headers[0].1.to_string(), "Bearer ${PORT}");
}

#[test]
fn an_invalid_response_to_a_check_is_an_error() {
    check(
        "[services]\na = { command = \"x\", health = { tcp = \"127.0.0.1:1\", expect_status = 200 } }\nb = { command = \"x\", health = { http = \"http://[::1]\", expect_status = [99, \"300-200\", \"ok\"], expect_body = \"\" } }\nc = { command = \"x\", health = { http = \"http://[::1]\", headers = { \"a b\" = \"x\", connection = \"x\", A = \"x\\ny\", B = 1 }, expect_status = [] } }\n",
        r#"
keepalive.toml:2:54: `expect_status` has no effect on `tcp`
  2 | a = { command = "x", health = { tcp = "127.0.0.1:1", expect_status = 200 } }
    |                                                      ^^^^^^^^^^^^^
  = remove it

keepalive.toml:3:73: expected HTTP statuses from 100 to 599, found `99`
  3 | b = { command = "x", health = { http = "http://[::1]", expect_status = [99, "300-200", "ok"], expect_body = "" } }
    |                                                                         ^^
  = such as `200`, `"200-299"` or `[200, 401]`

keepalive.toml:3:77: expected HTTP statuses from 100 to 599, found `"300-200"`
  3 | b = { command = "x", health = { http = "http://[::1]", expect_status = [99, "300-200", "ok"], expect_body = "" } }
    |                                                                             ^^^^^^^^^
  = such as `200`, `"200-299"` or `[200, 401]`

keepalive.toml:3:88: expected HTTP statuses from 100 to 599, found `"ok"`
  3 | b = { command = "x", health = { http = "http://[::1]", expect_status = [99, "300-200", "ok"], expect_body = "" } }
    |                                                                                        ^^^^
  = such as `200`, `"200-299"` or `[200, 401]`

keepalive.toml:3:109: expected text that the body contains, found `""`
  3 | b = { command = "x", health = { http = "http://[::1]", expect_status = [99, "300-200", "ok"], expect_body = "" } }
    |                                                                                                             ^^
  = such as `"ok"`

keepalive.toml:4:68: `a b` is not the name of a header
  4 | c = { command = "x", health = { http = "http://[::1]", headers = { "a b" = "x", connection = "x", A = "x\ny", B = 1 }, expect_status = [] } }
    |                                                                    ^^^^^
  = rename it

keepalive.toml:4:81: keepalive itself sets the header `connection`
  4 | c = { command = "x", health = { http = "http://[::1]", headers = { "a b" = "x", connection = "x", A = "x\ny", B = 1 }, expect_status = [] } }
    |                                                                                 ^^^^^^^^^^
  = remove it

keepalive.toml:4:103: a header is one line without control characters
  4 | c = { command = "x", health = { http = "http://[::1]", headers = { "a b" = "x", connection = "x", A = "x\ny", B = 1 }, expect_status = [] } }
    |                                                                                                       ^^^^^^
  = remove them

keepalive.toml:4:115: expected a string, found `1`
  4 | c = { command = "x", health = { http = "http://[::1]", headers = { "a b" = "x", connection = "x", A = "x\ny", B = 1 }, expect_status = [] } }
    |                                                                                                                   ^

keepalive.toml:4:136: expected HTTP statuses from 100 to 599, found an array
  4 | …"x", connection = "x", A = "x\ny", B = 1 }, expect_status = [] } }
    |                                                              ^^

10 errors in the configuration
"#,
    );
}

#[test]
fn invalid_health_checks_are_errors() {
    check(
        "[services]\na = { command = \"x\", health = \"http://127.0.0.1\" }\nb = { command = \"x\", health = { interval = \"1s\" } }\nc = { command = \"x\", health = { tcp = \"127.0.0.1:1\", exec = \"x\" } }\nd = { command = \"x\", health = { tcp = \"db:1\", retries = 0, interval = \"0s\" }, on_unhealthy = \"stop\" }\ne = { command = \"x\", on_unhealthy = \"mark\" }\nf = { command = \"x\", type = \"oneshot\", health = { exec = \"x\" } }\ng = { command = \"x\", health = { file = \"/x\" } }\n",
        r#"
keepalive.toml:2:31: expected a table, found `"http://127.0.0.1"`
  2 | a = { command = "x", health = "http://127.0.0.1" }
    |                               ^^^^^^^^^^^^^^^^^^
  = write `{ http = "http://127.0.0.1" }`

keepalive.toml:3:31: `health` does not say what is checked
  3 | b = { command = "x", health = { interval = "1s" } }
    |                               ^^^^^^^^^^^^^^^^^^^
  = such as `{ http = "http://127.0.0.1:8080/healthz" }` or `{ exec = ["pg_isready"] }`

keepalive.toml:4:54: `health` accepts only one of `http`, `tcp` and `exec`, and `tcp` is set
  4 | c = { command = "x", health = { tcp = "127.0.0.1:1", exec = "x" } }
    |                                                      ^^^^
  = remove one of them; an `exec` command can check several things

keepalive.toml:5:39: invalid address `db:1`, expected IP:PORT
  5 | d = { command = "x", health = { tcp = "db:1", retries = 0, interval = "0s" }, on_unhealthy = "stop" }
    |                                       ^^^^^^
  = such as `127.0.0.1:8080` or `[::1]:8080`; host names are not resolved

keepalive.toml:5:57: expected a whole number from 1 to 4294967295, found `0`
  5 | d = { command = "x", health = { tcp = "db:1", retries = 0, interval = "0s" }, on_unhealthy = "stop" }
    |                                                         ^

keepalive.toml:5:71: expected a duration above zero, found `"0s"`
  5 | d = { command = "x", health = { tcp = "db:1", retries = 0, interval = "0s" }, on_unhealthy = "stop" }
    |                                                                       ^^^^

keepalive.toml:5:94: expected `"restart"`, `"mark"` or `"shutdown"`, found `"stop"`
  5 | d = { command = "x", health = { tcp = "db:1", retries = 0, interval = "0s" }, on_unhealthy = "stop" }
    |                                                                                              ^^^^^^

keepalive.toml:6:37: `on_unhealthy` has no effect without `health`
  6 | e = { command = "x", on_unhealthy = "mark" }
    |                                     ^^^^^^
  = add `health = { … }`, or remove it

keepalive.toml:7:40: `health` has no effect on a oneshot
  7 | f = { command = "x", type = "oneshot", health = { exec = "x" } }
    |                                        ^^^^^^
  = remove it, or `type = "oneshot"`

keepalive.toml:8:33: unknown key `file` in `health`
  8 | g = { command = "x", health = { file = "/x" } }
    |                                 ^^^^
  = known keys: http, tcp, exec, interval, timeout, retries, start_period, headers, expect_status, expect_body

10 errors in the configuration
"#,
    );
}

#[test]
fn the_words_of_docker_and_compose_have_a_hint() {
    check(
        "[services]\na = { command = \"x\", health = { test = [\"CMD\", \"x\"] } }\nb = { command = \"x\", health = { exec = [\"CMD-SHELL\", \"x || exit 1\"] } }\nc = { command = \"x\", health = { exec = [\"CMD\", \"x\"] } }\nd = { command = \"x\", healthcheck = { } }\ne = { command = \"x\", health = { exec = \"x\", start_interval = \"1s\" } }\n",
        r#"
keepalive.toml:2:33: unknown key `test` in `health`
  2 | a = { command = "x", health = { test = ["CMD", "x"] } }
    |                                 ^^^^
  = write `exec = ["pg_isready"]`, without `CMD`, or `exec = ["sh", "-c", "…"]` in place of `CMD-SHELL`

keepalive.toml:3:40: `CMD-SHELL` is a word of Docker, not a program
  3 | b = { command = "x", health = { exec = ["CMD-SHELL", "x || exit 1"] } }
    |                                        ^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  = write `["sh", "-c", "…"]`

keepalive.toml:4:40: `CMD` is a word of Docker, not a program
  4 | c = { command = "x", health = { exec = ["CMD", "x"] } }
    |                                        ^^^^^^^^^^^^
  = remove it: `exec` is the command and its arguments

keepalive.toml:5:22: unknown key `healthcheck` in `[services.d]`
  5 | d = { command = "x", healthcheck = { } }
    |                      ^^^^^^^^^^^
  = did you mean `health`?

keepalive.toml:6:45: unknown key `start_interval` in `health`
  6 | e = { command = "x", health = { exec = "x", start_interval = "1s" } }
    |                                             ^^^^^^^^^^^^^^
  = remove it, since the first check begins after `interval`

5 errors in the configuration
"#,
    );
}

#[test]
fn a_check_on_a_shared_socket_is_a_warning() {
    check_keys(
        "listen = { a = \"tcp://0.0.0.0:80\" }\nhealth = { http = \"http://127.0.0.1/ok\" }\n",
        r#"
warning: keepalive.toml:4:19: `127.0.0.1:80` is an address of `listen`: any instance may answer, so the probe does not prove that this one is healthy
  4 | health = { http = "http://127.0.0.1/ok" }
    |                   ^^^^^^^^^^^^^^^^^^^^^
  = probe an address that only this instance has, or use `exec` or `watchdog`
"#,
    );
}

//! The page that `keepalive.http` serves at `/`, in a real browser with the real program.

use std::net::TcpStream;

use keepalive::model::{Pid, Signal};
use serde_json::{Value, json};

use crate::browser::Browser;
use crate::harness::{Place, Running, wait_until};
use crate::port::ReservedPort;
use crate::services::Set;

const PAGE: &str = include_str!("../../src/control/page.html");
/// The page is part of the binary, which must stay below 1 MiB.
const MAX_SIZE: usize = 24 * 1024;
/// Malicious output of a service.
const MARKUP: &str = "<img src=x onerror='window.hit = 1'><script>window.hit = 2</script>";

/// Instance and state of each row; services with several instances have a row of their own.
const ROWS: &str = "[...document.querySelectorAll('#rows tr')]\
    .map(row => [...row.cells].slice(0, 2).map(cell => cell.textContent).join(' ')).sort()";
const STATE: &str = "document.getElementById('state').textContent";
const EVENTS: &str = "[...document.querySelectorAll('#events li')].map(line => line.textContent)";
const LOGS: &str = "[...document.querySelectorAll('#logs li')].map(line => line.textContent)";

/// A service set and its page in a browser.
struct Setup {
    browser: Browser,
    // Dropped in this order: the directory is removed after keepalive has ended.
    running: Running,
    set: Set,
    port: ReservedPort,
}

impl Setup {
    /// `HTTP` in `text` is replaced by a free address. `None` without a browser.
    fn of(text: &str) -> Option<Self> {
        let browser = Browser::start()?;
        let port = ReservedPort::any();
        let set = Set::new(&text.replace("HTTP", &port.to_string()));
        let running = set.start(Place::Child);
        let mut setup = Self { browser, running, set, port };
        wait_until("keepalive to listen", || TcpStream::connect(setup.port.loopback()).ok());
        setup.browser.open(&format!("http://{}/", setup.port));
        Some(setup)
    }

    #[track_caller]
    fn wait_for_rows(&mut self, rows: &[&str]) {
        let rows = json!(rows);
        self.browser.wait_for(ROWS, |found| *found == rows);
    }

    /// Waits for a line that contains all of `parts`.
    #[track_caller]
    fn wait_for_line(&mut self, lines: &str, parts: &[&str]) {
        let fits = |line: &Value| parts.iter().all(|part| line.as_str().is_some_and(|line| line.contains(part)));
        self.browser.wait_for(lines, |found| found.as_array().is_some_and(|lines| lines.iter().any(fits)));
    }

    /// The cell of an instance in the column with this heading.
    #[track_caller]
    fn wait_for_cell(&mut self, instance: &str, heading: &str, fits: impl Fn(&str) -> bool) -> String {
        let cell = format!(
            "(() => {{ const row = [...document.querySelectorAll('#rows tr')]\
             .find(row => row.cells[0].textContent === '{instance}');\
             const column = [...document.querySelectorAll('thead th')]\
             .findIndex(head => head.textContent.trim() === '{heading}');\
             return row && column >= 0 ? row.cells[column].textContent : null; }})()"
        );
        let found = self.browser.wait_for(&cell, |found| found.as_str().is_some_and(&fits));
        found.as_str().unwrap().to_owned()
    }

    #[track_caller]
    fn click(&mut self, id: &str) {
        self.browser.value(&format!("document.getElementById('{id}').click()"));
    }
}

const WEB_AND_BROKEN: &str = r#"
    [keepalive]
    http = "HTTP"
    control = "DIR/control"

    [services.web]
    command = ["PUPPET", "end-on-term", "0"]
    instances = 2
    min_uptime = "0s"
    env = { WHO_SAYS = "MARKUP" }
    log = { stdout = "prefix", stderr = "prefix" }

    [services.broken]
    command = ["PUPPET", "exit", "3"]
    restart = "never"
    on_failure = "ignore"
    log = { stdout = "prefix", stderr = "prefix" }
"#;

#[test]
fn the_page_shows_services_events_and_logs_as_they_change() {
    let Some(mut setup) = Setup::of(&WEB_AND_BROKEN.replace("MARKUP", MARKUP)) else { return };
    setup.wait_for_rows(&["broken.0 failed", "web.0 running", "web.1 running", "web: 2 instances, running"]);
    setup.browser.wait_for(STATE, |state| state == "1 failed, 2 running");
    setup.wait_for_cell("broken.0", "Reason", |reason| reason.contains("code 3"));
    setup.wait_for_cell("web.0", "Memory", |memory| memory.ends_with('B'));
    setup.wait_for_cell("web.0", "CPU", |share| share.ends_with('%'));
    setup.wait_for_line(EVENTS, &["broken.0", "running → failed", "code 3"]);
    setup.wait_for_line(LOGS, &["web.0", "ready"]);
    setup.wait_for_line(LOGS, &["web.1", "ready"]);

    let pid = setup.wait_for_cell("web.0", "PID", |pid| !pid.is_empty());
    keepalive::sys::signal_process(Pid::new(pid.parse().unwrap()).unwrap(), Signal::KILL).unwrap();
    setup.wait_for_cell("web.0", "PID", |now| !now.is_empty() && now != pid);
    setup.wait_for_cell("web.0", "Restarts", |restarts| restarts == "1");
    setup.wait_for_line(EVENTS, &["web.0", "SIGKILL"]);
    assert_eq!(setup.browser.complaints(), [""; 0]);
}

/// The output of services is not trusted.
#[test]
fn service_output_is_shown_as_text() {
    let Some(mut setup) = Setup::of(&WEB_AND_BROKEN.replace("MARKUP", MARKUP)) else { return };
    setup.wait_for_line(LOGS, &["web.0", MARKUP, "ready"]);
    assert_eq!(setup.browser.value("document.querySelectorAll('img, li script').length"), 0);
    assert_eq!(setup.browser.value("'hit' in window"), false);
    let policy = setup.browser.value("fetch('').then(page => page.headers.get('content-security-policy'))");
    let policy = policy.as_str().unwrap_or_default();
    assert!(policy.starts_with("default-src 'none';") && policy.contains("connect-src 'self'"), "{policy}");
    assert_eq!(setup.browser.complaints(), [""; 0]);
}

#[test]
fn logs_can_be_limited_to_a_service_and_paused() {
    let Some(mut setup) = Setup::of(&WEB_AND_BROKEN.replace("MARKUP", "web")) else { return };
    setup.wait_for_line(LOGS, &["web.0", "ready"]);
    // The names come with the status, maybe after the first lines.
    setup
        .browser
        .wait_for("[...document.getElementById('service').options].some(one => one.value === 'broken')", |there| {
            *there == json!(true)
        });
    let choose = "(() => { const list = document.getElementById('service'); list.value = 'broken';\
                  list.dispatchEvent(new Event('change')); return list.value; })()";
    assert_eq!(setup.browser.value(choose), "broken");
    setup.browser.wait_for(LOGS, |lines| *lines == json!([]));
    assert_eq!(setup.browser.value(&choose.replace("'broken'", "'web'")), "web");
    setup.wait_for_line(LOGS, &["web.0", "ready"]);

    let lines = format!("{LOGS}.length");
    setup.click("pause");
    let before = setup.browser.wait_for(&lines, |_| true);
    let pid = setup.wait_for_cell("web.1", "PID", |pid| !pid.is_empty());
    keepalive::sys::signal_process(Pid::new(pid.parse().unwrap()).unwrap(), Signal::KILL).unwrap();
    setup.wait_for_cell("web.1", "Restarts", |restarts| restarts == "1");
    assert_eq!(setup.browser.value(&lines), before);
    setup.click("pause");
    setup.browser.wait_for(&lines, |now| now.as_u64() > before.as_u64());
}

#[test]
fn the_page_shows_a_lost_connection_and_reconnects() {
    let Some(mut setup) = Setup::of(&WEB_AND_BROKEN.replace("MARKUP", "web")) else { return };
    let rows = ["broken.0 failed", "web.0 running", "web.1 running", "web: 2 instances, running"];
    setup.wait_for_rows(&rows);
    setup.running.send(Signal::TERM);
    assert_eq!(setup.running.end(), 0);
    setup.browser.wait_for(STATE, |state| state.as_str().unwrap().contains("does not answer"));
    let gone = setup.wait_for_cell("web.0", "PID", |_| true);

    setup.running = setup.set.start(Place::Child);
    setup.browser.wait_for(STATE, |state| state == "1 failed, 2 running");
    setup.wait_for_rows(&rows);
    setup.wait_for_cell("web.0", "PID", |pid| !pid.is_empty() && pid != gone);
    setup.wait_for_line(LOGS, &["web.0", "ready"]);
}

#[test]
fn the_page_shows_why_there_are_no_logs() {
    let text = WEB_AND_BROKEN.replace("MARKUP", "web").replace("\"prefix\"", "\"inherit\"");
    let Some(mut setup) = Setup::of(&text) else { return };
    let note = "document.getElementById('logs-note').textContent";
    setup.browser.wait_for(note, |note| note.as_str().unwrap().starts_with("no logs: "));
}

#[test]
fn the_page_fits_a_narrow_window_in_both_colour_schemes() {
    let Some(mut setup) = Setup::of(&WEB_AND_BROKEN.replace("MARKUP", "web")) else { return };
    setup.wait_for_line(LOGS, &["web.0", "ready"]);
    for scheme in ["light", "dark"] {
        for (width, height) in [(400, 800), (900, 1200), (1400, 900)] {
            setup.browser.look(width, height, scheme);
            assert_eq!(setup.browser.value("document.documentElement.scrollWidth <= innerWidth"), true, "{width}");
        }
    }
    let back = "getComputedStyle(document.body).backgroundColor";
    let dark = setup.browser.value(back);
    setup.browser.look(400, 800, "light");
    assert_ne!(setup.browser.value(back), dark);
}

#[test]
fn the_page_is_one_small_file_without_external_resources() {
    assert!(PAGE.len() < MAX_SIZE, "{} bytes", PAGE.len());
    for word in ["http://", "https://", "src=", "@import", "url(", "import(", "innerHTML", "outerHTML", "eval("] {
        assert!(!PAGE.contains(word), "{word}");
    }
    for word in ["insertAdjacentHTML", "document.write", "new Function", "method:", "POST"] {
        assert!(!PAGE.contains(word), "{word}");
    }
}

//! A headless Chromium, controlled by the DevTools protocol over two pipes: JSON messages that end with a NUL.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Directory, Place, Run, Running, skip};
use crate::wait::Deadline;

/// The interval between two checks of a page.
const PAUSE: Duration = Duration::from_millis(50);
/// Chromium reads from descriptor 3 and writes to 4. Its standard streams are ignored.
const ON_PIPES: &str = r#"exec "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1"#;
/// The names of the program in Debian and other distributions.
const PROGRAMS: [&str; 3] = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

/// One tab of its own browser. Dropping it ends the browser and removes its directory.
pub(crate) struct Browser {
    commands: File,
    messages: Receiver<Value>,
    session: String,
    last: u64,
    /// Exceptions of the page and errors that the browser has logged for it.
    complaints: Vec<String>,
    // Dropped in this order: the directory is removed after the browser has ended.
    _running: Running,
    _directory: Directory,
}

impl Browser {
    /// `None` if it is not installed; the test is skipped.
    pub(crate) fn start() -> Option<Self> {
        let Some(program) = PROGRAMS.into_iter().find(|program| Path::new(program).exists()) else {
            skip("chromium is not installed");
            return None;
        };
        let directory = Directory::new();
        let profile = format!("--user-data-dir={}", directory.path().display());
        // No sandbox: most containers and root cannot use it. The page needs no network.
        let options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"];
        let quiet = ["--no-first-run", "--disable-background-networking", "--disable-component-update"];
        let pipes = ["--remote-debugging-pipe", profile.as_str(), "about:blank"];
        let words = [&["sh", "-c", ON_PIPES, "sh", program][..], &options, &quiet, &pipes].concat();
        let mut run = Run::words(Place::Child, &words);
        let (commands_end, commands) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
        let (messages_end, answers) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
        run.command.env("HOME", directory.path());
        run.command.stdin(Stdio::from(commands_end)).stdout(Stdio::from(answers)).stderr(Stdio::null());
        let running = run.start();
        let messages = read_messages(File::from(messages_end));
        let (commands, session) = (File::from(commands), String::new());
        let (last, complaints) = (0, Vec::new());
        let mut browser =
            Self { commands, messages, session, last, complaints, _running: running, _directory: directory };
        browser.open_tab();
        Some(browser)
    }

    fn open_tab(&mut self) {
        let tab = self.ask("Target.createTarget", json!({ "url": "about:blank" }));
        let attached = self.ask("Target.attachToTarget", json!({ "targetId": tab["targetId"], "flatten": true }));
        attached["sessionId"].as_str().unwrap().clone_into(&mut self.session);
        for domain in ["Runtime.enable", "Log.enable", "Page.enable"] {
            self.ask(domain, json!({}));
        }
    }

    /// Sends a command and returns the answer. Other messages are searched for errors.
    #[track_caller]
    fn ask(&mut self, method: &str, parameters: Value) -> Value {
        self.last += 1;
        let mut command = json!({ "id": self.last, "method": method, "params": parameters });
        if !self.session.is_empty() {
            command["sessionId"] = self.session.as_str().into();
        }
        self.commands.write_all(format!("{command}\0").as_bytes()).unwrap();
        loop {
            let mut message = self.messages.recv_timeout(Deadline::by_the_clock()).expect("an answer of the browser");
            if message["id"] == self.last {
                assert!(message["error"].is_null(), "{method}: {}", message["error"]);
                return message["result"].take();
            }
            self.note(&message);
        }
    }

    fn note(&mut self, message: &Value) {
        match message["method"].as_str() {
            Some("Runtime.exceptionThrown") => self.complaints.push(message["params"]["exceptionDetails"].to_string()),
            Some("Log.entryAdded") if message["params"]["entry"]["level"] == "error" => {
                self.complaints.push(message["params"]["entry"]["text"].to_string());
            }
            _ => {}
        }
    }

    /// Opens a page and waits until it is loaded.
    #[track_caller]
    pub(crate) fn open(&mut self, address: &str) {
        let answer = self.ask("Page.navigate", json!({ "url": address }));
        assert!(answer["errorText"].is_null(), "{address}: {answer}");
        self.wait_for("document.readyState", |state| state == "complete");
    }

    /// Sets the size of the window in pixels and the preferred colour scheme, `light` or `dark`.
    pub(crate) fn look(&mut self, width: u32, height: u32, scheme: &str) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.ask("Emulation.setDeviceMetricsOverride", size);
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.ask("Emulation.setEmulatedMedia", json!({ "features": [feature] }));
    }

    /// The value of `expression` in the page, after awaiting a promise.
    #[track_caller]
    pub(crate) fn value(&mut self, expression: &str) -> Value {
        let question = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let mut answer = self.ask("Runtime.evaluate", question);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].take()
    }

    /// Waits until the value of `expression` satisfies `fits`.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, expression: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let mut deadline = Deadline::new();
        loop {
            let found = self.value(expression);
            if fits(&found) {
                return found;
            }
            assert!(!deadline.is_over(), "`{expression}` is still {found:#}; complaints: {:?}", self.complaints);
            std::thread::sleep(PAUSE);
        }
    }

    /// The errors of the page and the browser so far.
    pub(crate) fn complaints(&mut self) -> &[String] {
        // All messages before this answer have been read.
        self.value("1");
        &self.complaints
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // On request, the browser ends all its processes. They cannot be found by their environment.
        self.commands.write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0").ok();
        while self.messages.recv_timeout(Deadline::by_the_clock()).is_ok() {}
    }
}

fn read_messages(pipe: File) -> Receiver<Value> {
    let (sender, messages) = channel();
    std::thread::spawn(move || {
        for message in BufReader::new(pipe).split(0).map_while(Result::ok) {
            let message = serde_json::from_slice(&message).expect("JSON of the browser");
            if sender.send(message).is_err() {
                break;
            }
        }
    });
    messages
}

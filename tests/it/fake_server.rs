//! A fake server in place of a running keepalive, with answers chosen by the test.

use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;

use nix::sys::socket::{Shutdown, shutdown};
use serde_json::{Value, json};

use crate::harness::{Directory, KEEPALIVE, Place, Run};

/// Listens until it is dropped.
pub(crate) struct FakeServer {
    pub(crate) path: PathBuf,
    pub(crate) directory: Directory,
    requests: Receiver<String>,
    listener: UnixListener,
    thread: Option<JoinHandle<()>>,
}

impl FakeServer {
    /// `answer` gets the method and target of each request and the stream. Dropping the stream ends the connection.
    pub(crate) fn start(answer: impl Fn(&str, UnixStream) + Send + 'static) -> Self {
        let directory = Directory::new();
        let path = directory.path().join("keepalive.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let (sender, requests) = channel();
        let clients = listener.try_clone().unwrap();
        let serve = move || {
            while let Ok((mut stream, _)) = clients.accept() {
                let request = read_request(&mut stream);
                sender.send(request.clone()).ok();
                answer(&request, stream);
            }
        };
        Self { path, directory, requests, listener, thread: Some(std::thread::spawn(serve)) }
    }

    /// Answers each request with the status and the body that `answer` returns.
    pub(crate) fn answering(answer: impl Fn(&str) -> (u16, Value) + Send + 'static) -> Self {
        Self::start(move |request, mut stream| {
            let (status, body) = answer(request);
            stream.write_all(response(status, &format!("{body}\n")).as_bytes()).ok();
        })
    }

    /// Answers each request with these bytes.
    pub(crate) fn sending(bytes: &'static [u8]) -> Self {
        Self::start(move |_, mut stream| {
            stream.write_all(bytes).ok();
        })
    }

    /// `keepalive WORDS…`, as its client.
    pub(crate) fn client(&self, words: &[&str]) -> Run {
        let mut run = Run::words(Place::Child, &[&[KEEPALIVE], words].concat());
        run.command.env("KEEPALIVE_SOCKET", &self.path).env("TERM", "xterm").env_remove("NO_COLOR");
        run
    }

    /// Runs a client to its end: exit code, stdout, stderr.
    #[track_caller]
    pub(crate) fn check(&self, words: &[&str], code: i32, stdout: &str, stderr: &str) {
        let socket = self.path.to_str().unwrap();
        let (found, found_stdout, found_stderr) = self.client(words).finish();
        let found_stderr = found_stderr.replace(socket, "SOCKET");
        assert_eq!((found, found_stdout.as_str(), found_stderr.as_str()), (code, stdout, stderr), "{words:?}");
    }

    /// The requests since the last call, such as `GET /v1/status`.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.try_iter().collect()
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        // Ends accept(2).
        shutdown(self.listener.as_raw_fd(), Shutdown::Both).ok();
        self.thread.take().map(JoinHandle::join);
    }
}

/// Reads the head of a request and returns method and target.
fn read_request(stream: &mut UnixStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count > 0) {
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    head.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned()
}

pub(crate) fn response(status: u16, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status} Some\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

/// The head of a stream.
pub(crate) const STREAM: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nConnection: close\r\n\r\n";

/// Two instances of `web`, one of which is in backoff, and one of `db`.
pub(crate) fn status() -> Value {
    json!({"pid": 1, "version": "0.1.0", "uptime_ms": 130_000, "state": "running", "services": [
        {"name": "web", "type": "service", "state": "backoff", "ready": false, "instances": [
            {"id": "web.0", "state": "running", "pid": 12, "ready": true, "restarts": 3, "uptime_ms": 99_000,
             "exit": null, "oom_killed": false, "reason": "ready", "rss_bytes": 13_631_488, "cpu_ms": 1_250,
             "processes": 2},
            {"id": "web.1", "state": "backoff", "pid": null, "ready": false, "restarts": 2, "uptime_ms": null,
             "exit": {"code": 1}, "oom_killed": false, "reason": "exited with code 1, ran 20ms; restart 2 of 16 in 400ms",
             "rss_bytes": 0, "cpu_ms": 0, "processes": 0}]},
        {"name": "db", "type": "service", "state": "running", "ready": true, "instances": [
            {"id": "db.0", "state": "running", "pid": 11, "ready": true, "restarts": 0, "uptime_ms": 130_000,
             "exit": null, "oom_killed": false, "reason": "ready", "rss_bytes": 1_048_576, "cpu_ms": 9_000,
             "processes": 1}]}]})
}

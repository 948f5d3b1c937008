//! A minimal client of the control socket and of read-only HTTP.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use keepalive::model::Pid;
use serde_json::Value;

use crate::harness::wait_until;
use crate::port::ReservedPort;
use crate::wait::Deadline;

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    #[track_caller]
    pub(crate) fn reason(&self) -> String {
        self.json()["reason"].as_str().expect("a reason").to_owned()
    }

    fn read(mut stream: impl Read) -> Self {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("an answer");
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no head: {:?}", String::from_utf8_lossy(&bytes)));
        let (head, body) = (String::from_utf8(bytes[..end].to_vec()).unwrap(), &bytes[end + 4..]);
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a status");
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok());
        assert!(
            body.is_empty() || length.is_none_or(|length: usize| length == body.len()),
            "{head}, but {} bytes",
            body.len()
        );
        // The page is compressed.
        let body = String::from_utf8_lossy(body).into_owned();
        Self { status, head, body }
    }
}

/// The control socket at a path.
pub(crate) struct Control(PathBuf);

impl Control {
    /// Waits until the socket accepts connections.
    pub(crate) fn at(path: &Path) -> Self {
        let control = Self(path.to_owned());
        wait_until("the control socket", || UnixStream::connect(path).ok());
        control
    }

    pub(crate) fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.0).expect("the control socket");
        stream.set_read_timeout(Some(Deadline::by_the_clock())).unwrap();
        stream
    }

    /// Sends the head of a request without reading the answer.
    pub(crate) fn ask(&self, method: &str, target: &str) -> UnixStream {
        let mut stream = self.connect();
        write!(stream, "{method} {target} HTTP/1.1\r\nHost: keepalive\r\n\r\n").unwrap();
        stream
    }

    pub(crate) fn get(&self, target: &str) -> Answer {
        Answer::read(self.ask("GET", target))
    }

    pub(crate) fn post(&self, target: &str) -> Answer {
        Answer::read(self.ask("POST", target))
    }

    /// The answer of the server to these bytes.
    pub(crate) fn say(&self, bytes: &[u8]) -> Answer {
        let mut stream = self.connect();
        // The server may answer and close before it has read everything.
        stream.write_all(bytes).ok();
        Answer::read(stream)
    }

    /// The lines of a streamed answer, as they arrive.
    pub(crate) fn stream(&self, target: &str) -> impl Iterator<Item = Value> + use<> {
        let lines = BufReader::new(self.ask("GET", target)).lines().map(|line| line.expect("a line"));
        lines.skip_while(|line| !line.is_empty()).skip(1).map(|line| serde_json::from_str(&line).expect("JSON"))
    }

    /// The number of descriptors of a process without connections to this socket, because keepalive may close a
    /// connection shortly after its answer.
    pub(crate) fn descriptors_of(&self, pid: Pid) -> usize {
        let connections = self.connections();
        let links = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let links = links.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
        links.filter(|link| !connections.iter().any(|connection| link.as_os_str() == connection.as_str())).count()
    }

    /// The server's ends of all connections, with their names in `/proc/PID/fd`.
    fn connections(&self) -> Vec<String> {
        const CONNECTED: &str = "03";
        // proc(5): Num, RefCount, Protocol, Flags, Type, St, Inode and, at the end that was bound, Path.
        let sockets = std::fs::read_to_string("/proc/net/unix").unwrap();
        let sockets = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let is_connection =
            |fields: &Vec<&str>| fields[5] == CONNECTED && fields.get(7).is_some_and(|path| Path::new(path) == self.0);
        sockets.filter(is_connection).map(|fields| format!("socket:[{}]", fields[6])).collect()
    }

    /// The state of an instance.
    pub(crate) fn state(&self, id: &str) -> String {
        self.instance(id)["state"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    pub(crate) fn instance(&self, id: &str) -> Value {
        let status = self.get("/v1/status").json();
        let services = status["services"].as_array().unwrap().clone();
        let mut instances = services.iter().flat_map(|service| service["instances"].as_array().unwrap().clone());
        instances.find(|instance| instance["id"] == id).unwrap_or_else(|| panic!("no {id} in {status}"))
    }

    pub(crate) fn wait_for(&self, id: &str, state: &str) {
        wait_until(&format!("{id} to be {state}"), || (self.state(id) == state).then_some(()));
    }
}

/// Sends a request to the HTTP port of keepalive.
pub(crate) fn http(port: &ReservedPort, method: &str, target: &str) -> Answer {
    let mut stream = wait_until("the port", || TcpStream::connect(port.loopback()).ok());
    stream.set_read_timeout(Some(Deadline::by_the_clock())).unwrap();
    write!(stream, "{method} {target} HTTP/1.1\r\nHost: keepalive\r\n\r\n").unwrap();
    Answer::read(stream)
}

//! A client of the control socket and of read-only HTTP, so simple that it hides nothing.

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
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text:?}"));
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a status");
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok());
        assert!(
            body.is_empty() || length.is_none_or(|length: usize| length == body.len()),
            "{head}, but {} bytes",
            body.len()
        );
        Self { status, head: head.to_owned(), body: body.to_owned() }
    }
}

/// The control socket at a path.
pub(crate) struct Control(PathBuf);

impl Control {
    /// Waits until somebody listens there.
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

    /// Sends the head of a request and leaves the answer to be read.
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

    /// What the server says to these bytes.
    pub(crate) fn say(&self, bytes: &[u8]) -> Answer {
        let mut stream = self.connect();
        // The server may have answered, and closed, before all has been said.
        stream.write_all(bytes).ok();
        Answer::read(stream)
    }

    /// The lines of a streamed answer, as they come.
    pub(crate) fn stream(&self, target: &str) -> impl Iterator<Item = Value> + use<> {
        let lines = BufReader::new(self.ask("GET", target)).lines().map(|line| line.expect("a line"));
        lines.skip_while(|line| !line.is_empty()).skip(1).map(|line| serde_json::from_str(&line).expect("JSON"))
    }

    /// How many descriptors a process has, without its ends of connections to this socket: keepalive may close one a
    /// moment after its answer.
    pub(crate) fn descriptors_of(&self, pid: Pid) -> usize {
        let connections = self.connections();
        let links = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let links = links.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
        links.filter(|link| !connections.iter().any(|connection| link.as_os_str() == connection.as_str())).count()
    }

    /// The server's ends of all connections, as `/proc/PID/fd` names them.
    fn connections(&self) -> Vec<String> {
        const CONNECTED: &str = "03";
        // proc(5): Num, RefCount, Protocol, Flags, Type, St, Inode and, at the end that was bound, Path.
        let sockets = std::fs::read_to_string("/proc/net/unix").unwrap();
        let sockets = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let is_connection =
            |fields: &Vec<&str>| fields[5] == CONNECTED && fields.get(7).is_some_and(|path| Path::new(path) == self.0);
        sockets.filter(is_connection).map(|fields| format!("socket:[{}]", fields[6])).collect()
    }

    /// The state of an instance, in one word.
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

/// A request to keepalive, which listens at this port.
pub(crate) fn http(port: &ReservedPort, method: &str, target: &str) -> Answer {
    let mut stream = wait_until("the port", || TcpStream::connect(port.loopback()).ok());
    stream.set_read_timeout(Some(Deadline::by_the_clock())).unwrap();
    write!(stream, "{method} {target} HTTP/1.1\r\nHost: keepalive\r\n\r\n").unwrap();
    Answer::read(stream)
}

//! Clients that send requests continuously and count the results.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::wait::Deadline;

/// The answer of every program.
pub(super) const BODY: &str = "served\n";
/// The number of clients of each kind.
const CLIENTS: usize = 4;
/// A client with a persistent connection opens a new one after this many requests.
const KEPT_FOR: u64 = 50;
/// The pause between two requests of a client, to limit the load of the machine.
const PACE: Duration = Duration::from_millis(1);

/// The protocol of the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http,
    /// A connection for each request; `SCRIPT` is `/`, the directory of the set and `index.php`.
    FastCgi,
    Redis,
}

/// The results of the requests.
#[derive(Debug, Default)]
pub(super) struct LoadCounts {
    pub(super) answered: u64,
    /// Failed connection attempts.
    pub(super) refused: Vec<String>,
    /// Requests on new connections without the right answer, and incomplete answers.
    pub(super) failed: Vec<String>,
    /// Persistent connections that the server closed between two requests, as it may at any time (RFC 9112, 9.3.1 and
    /// 9.5). The request was repeated on a new connection.
    pub(super) renewed: u64,
    pub(super) worst: Duration,
}

impl LoadCounts {
    fn add(mut self, other: Self) -> Self {
        self.answered += other.answered;
        self.refused.extend(other.refused);
        self.failed.extend(other.failed);
        self.renewed += other.renewed;
        self.worst = self.worst.max(other.worst);
        self
    }

    /// The results, shown by `--nocapture`.
    pub(super) fn shown(self, what: &str) -> Self {
        eprintln!(
            "{}: {what}: {} answers, {} connections refused, {} requests failed, {} asked again, {:?} at worst",
            std::thread::current().name().unwrap_or_default(),
            self.answered,
            self.refused.len(),
            self.failed.len(),
            self.renewed,
            self.worst,
        );
        self
    }

    #[track_caller]
    pub(super) fn refused_nobody(&self) {
        assert_eq!(self.refused, Vec::<String>::new());
    }

    #[track_caller]
    pub(super) fn lost_nothing(&self) {
        self.refused_nobody();
        assert_eq!(self.failed, Vec::<String>::new());
    }
}

/// Running clients.
pub(super) struct Load {
    end: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    clients: Vec<JoinHandle<LoadCounts>>,
}

impl Load {
    pub(super) fn start(address: SocketAddr, protocol: Protocol, script: &str) -> Self {
        let (end, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let clients = (0..2 * CLIENTS).map(|number| {
            let (end, answered) = (Arc::clone(&end), Arc::clone(&answered));
            let keeps = number % 2 == 0 && protocol != Protocol::FastCgi;
            let mut client = Client { address, protocol, script: script.to_owned(), keeps, kept: None };
            std::thread::spawn(move || {
                let mut counts = LoadCounts::default();
                while !end.load(Ordering::Relaxed) {
                    client.turn(&mut counts);
                    answered.fetch_max(counts.answered, Ordering::Relaxed);
                    std::thread::sleep(PACE);
                }
                counts
            })
        });
        Self { clients: clients.collect(), end, answered }
    }

    /// Waits for this many more answers.
    #[track_caller]
    pub(super) fn wait_for(&self, more: u64) {
        let goal = self.answered.load(Ordering::Relaxed) + more;
        crate::harness::wait_until("answers", || (self.answered.load(Ordering::Relaxed) >= goal).then_some(()));
    }

    pub(super) fn finish(self) -> LoadCounts {
        self.end.store(true, Ordering::Relaxed);
        self.clients.into_iter().map(|client| client.join().unwrap()).fold(LoadCounts::default(), LoadCounts::add)
    }
}

struct Client {
    address: SocketAddr,
    protocol: Protocol,
    script: String,
    keeps: bool,
    kept: Option<(BufReader<TcpStream>, u64)>,
}

/// The reason for a missing answer.
enum Trouble {
    /// The connection ended before the first byte of an answer.
    Silence(io::Error),
    Broken(String),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

impl Client {
    /// Sends one request, and repeats it if the protocol allows that.
    fn turn(&mut self, counts: &mut LoadCounts) {
        let begin = Instant::now();
        if let Some((mut connection, requests)) = self.kept.take() {
            match self.exchange(&mut connection) {
                Ok(stays) => return self.done(counts, begin, connection, if stays { requests + 1 } else { KEPT_FOR }),
                Err(Trouble::Silence(_)) => counts.renewed += 1,
                Err(Trouble::Broken(trouble)) => return counts.failed.push(format!("kept: {trouble}")),
            }
        }
        let connection = match TcpStream::connect(self.address) {
            Ok(connection) => connection,
            Err(error) => return counts.refused.push(error.to_string()),
        };
        connection.set_read_timeout(Some(Deadline::by_the_clock())).unwrap();
        let mut connection = BufReader::new(connection);
        match self.exchange(&mut connection) {
            Ok(stays) => self.done(counts, begin, connection, if stays { 1 } else { KEPT_FOR }),
            Err(Trouble::Silence(error)) => counts.failed.push(format!("no answer: {error}")),
            Err(Trouble::Broken(trouble)) => counts.failed.push(trouble),
        }
    }

    fn done(&mut self, counts: &mut LoadCounts, begin: Instant, connection: BufReader<TcpStream>, requests: u64) {
        counts.answered += 1;
        counts.worst = counts.worst.max(begin.elapsed());
        self.kept = (self.keeps && requests < KEPT_FOR).then_some((connection, requests));
    }

    /// Whether the connection can be reused.
    fn exchange(&self, connection: &mut BufReader<TcpStream>) -> Result<bool, Trouble> {
        let request = match self.protocol {
            Protocol::Http => {
                let connection = if self.keeps { "keep-alive" } else { "close" };
                format!("GET / HTTP/1.1\r\nHost: keepalive\r\nConnection: {connection}\r\n\r\n").into_bytes()
            }
            Protocol::FastCgi => fast_cgi_request(&self.script),
            Protocol::Redis => b"PING\r\n".to_vec(),
        };
        connection.get_mut().write_all(&request).map_err(Trouble::Silence)?;
        if connection.fill_buf().map_err(Trouble::Silence)?.is_empty() {
            return Err(Trouble::Silence(io::ErrorKind::UnexpectedEof.into()));
        }
        match self.protocol {
            Protocol::Http => http_answer(connection),
            Protocol::FastCgi => fast_cgi_answer(connection),
            Protocol::Redis => {
                let mut line = String::new();
                connection.read_line(&mut line)?;
                expect(&line, "+PONG\r\n").map(|()| self.keeps)
            }
        }
    }
}

fn expect(found: &str, expected: &str) -> Result<(), Trouble> {
    if found == expected { Ok(()) } else { Err(Trouble::Broken(format!("{found:?} in place of {expected:?}"))) }
}

fn http_answer(connection: &mut BufReader<TcpStream>) -> Result<bool, Trouble> {
    let (mut length, mut stays, mut line) = (None, true, String::new());
    connection.read_line(&mut line)?;
    if !line.starts_with("HTTP/1.1 200 ") {
        return Err(Trouble::Broken(format!("{line:?}")));
    }
    loop {
        line.clear();
        if connection.read_line(&mut line)? == 0 {
            return Err(Trouble::Broken("the head broke off".to_owned()));
        }
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().ok(),
            "connection" => stays = !value.trim().eq_ignore_ascii_case("close"),
            _ => {}
        }
    }
    let mut body = vec![0; length.ok_or_else(|| Trouble::Broken("no length".to_owned()))?];
    connection.read_exact(&mut body)?;
    expect(&String::from_utf8_lossy(&body), BODY).map(|()| stays)
}

/// A record of the FastCGI specification, section 3.3.
fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&[1, kind, 0, 1, high, low, 0, 0], content].concat()
}

const BEGIN: u8 = 1;
const END: u8 = 3;
const PARAMS: u8 = 4;
const STDIN: u8 = 5;
const STDOUT: u8 = 6;

fn fast_cgi_request(script: &str) -> Vec<u8> {
    let mut params = Vec::new();
    for (name, value) in [("SCRIPT_FILENAME", script), ("REQUEST_METHOD", "GET"), ("SCRIPT_NAME", "/index.php")] {
        params.extend([name, value].map(|word| u8::try_from(word.len()).unwrap()));
        params.extend([name, value].concat().bytes());
    }
    // The role of a responder, without a persistent connection.
    let begin = record(BEGIN, &[0, 1, 0, 0, 0, 0, 0, 0]);
    [begin, record(PARAMS, &params), record(PARAMS, &[]), record(STDIN, &[])].concat()
}

fn fast_cgi_answer(connection: &mut BufReader<TcpStream>) -> Result<bool, Trouble> {
    let mut stdout = Vec::new();
    loop {
        let mut head = [0; 8];
        connection.read_exact(&mut head)?;
        let [_, kind, _, _, high, low, padding, _] = head;
        let mut content = vec![0; usize::from(u16::from_be_bytes([high, low]))];
        connection.read_exact(&mut content)?;
        connection.read_exact(&mut vec![0; usize::from(padding)])?;
        match kind {
            STDOUT => stdout.extend(content),
            END => break,
            _ => return Err(Trouble::Broken(String::from_utf8_lossy(&content).into_owned())),
        }
    }
    let stdout = String::from_utf8_lossy(&stdout);
    let (head, body) = stdout.split_once("\r\n\r\n").unwrap_or_default();
    expect(body, BODY).map_err(|_| Trouble::Broken(format!("{head:?} {body:?}"))).map(|()| false)
}

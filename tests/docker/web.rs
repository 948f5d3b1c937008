//! A client of a web server in a container. It runs in the network of the container and needs no program there.

use std::process::Command;

use super::client::{docker, lossy};

/// A request, on a connection that stays open both ways until the other side closes it.
const REQUEST: &str = r#"exec 3<>"/dev/tcp/127.0.0.1/8080" && printf '%s' "$1" >&3 && cat <&3"#;

/// An answer of HTTP.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: String,
    pub(crate) body: String,
}

/// Sends a request to port 8080 of this container; `None` without a complete answer.
pub(crate) fn ask(container: &str, method: &str, path: &str, body: &str) -> Option<Answer> {
    let process = lossy(&docker(&["inspect", "--format={{.State.Pid}}", container]).stdout);
    let process = process.trim();
    // It is 0 if no process runs.
    if !process.parse().is_ok_and(|process: u32| process > 0) {
        return None;
    }
    let length = body.len();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: any\r\nContent-Length: {length}\r\n\r\n{body}");
    let words = ["20", "nsenter", "--target", process, "--net", "bash", "-c", REQUEST, "visitor", &request];
    let output = Command::new("timeout").args(words).output().unwrap();
    let text = lossy(&output.stdout);
    let (headers, body) = text.split_once("\r\n\r\n")?;
    let status = headers.split(' ').nth(1)?.parse().ok()?;
    let length = headers.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    let is_whole = length.is_none_or(|length| length.parse() == Ok(body.len()));
    is_whole.then(|| Answer { status, headers: headers.to_owned(), body: body.to_owned() })
}

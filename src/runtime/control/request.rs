//! A request while it arrives: RFC 9112.
//!
//! It counts only when all of it has come. No request needs a body, so a body is discarded, and one that is too large or of
//! unknown length is refused.

/// The maximum size of the request line and headers, in bytes: ample for the parameters of any request.
const MAX_HEAD: usize = 8 << 10;
/// The maximum number of headers.
const MAX_HEADERS: usize = 64;
/// The maximum size of a body, in bytes: more than clients send out of habit.
const MAX_BODY: usize = 64 << 10;

/// A complete request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) method: String,
    pub(super) target: String,
}

/// What the bytes that have come amount to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Incomplete,
    /// The head is complete, and the client waits before it sends the body. RFC 9110, `Expect: 100-continue`
    AwaitsContinue,
    /// The request, and whether more than the request has come.
    Complete(Head, Surplus),
    /// The status and reason of the refusal.
    Malformed(u16, &'static str),
}

/// Whether a client has sent more than its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Surplus {
    No,
    Yes,
}

/// A request that is not complete.
#[derive(Debug)]
pub(super) enum PartialRequest {
    /// The head so far.
    Head(Vec<u8>),
    /// The head is complete; so many bytes of the body are missing.
    Body(Head, usize),
}

impl PartialRequest {
    pub(super) const fn new() -> Self {
        Self::Head(Vec::new())
    }

    /// Adds bytes that have come.
    pub(super) fn add(&mut self, bytes: &[u8]) -> Progress {
        match self {
            Self::Head(head) => {
                head.extend(bytes);
                match parse(head) {
                    Parsed::Incomplete => Progress::Incomplete,
                    Parsed::Malformed(status, reason) => Progress::Malformed(status, reason),
                    Parsed::Head { head, body, received, .. } if received >= body => complete(head, body, received),
                    Parsed::Head { head, body, received, awaits_continue } => {
                        *self = Self::Body(head, body - received);
                        let is_awaited = awaits_continue && received == 0;
                        if is_awaited { Progress::AwaitsContinue } else { Progress::Incomplete }
                    }
                }
            }
            Self::Body(_, missing) if bytes.len() < *missing => {
                *missing -= bytes.len();
                Progress::Incomplete
            }
            Self::Body(head, missing) => {
                let head = Head { method: std::mem::take(&mut head.method), target: std::mem::take(&mut head.target) };
                complete(head, *missing, bytes.len())
            }
        }
    }
}

fn complete(head: Head, body: usize, received: usize) -> Progress {
    Progress::Complete(head, if received > body { Surplus::Yes } else { Surplus::No })
}

enum Parsed {
    Incomplete,
    Malformed(u16, &'static str),
    Head {
        head: Head,
        /// The length of the body.
        body: usize,
        /// The number of bytes after the head that have come.
        received: usize,
        awaits_continue: bool,
    },
}

fn parse(bytes: &[u8]) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() > MAX_HEAD => {
            return Parsed::Malformed(431, "the request is longer than 8 KiB");
        }
        Ok(httparse::Status::Partial) => return Parsed::Incomplete,
        Err(httparse::Error::TooManyHeaders) => return Parsed::Malformed(431, "the request has more than 64 headers"),
        Err(_) => return Parsed::Malformed(400, "not an HTTP request"),
    };
    let (Some(method), Some(target)) = (request.method, request.path) else {
        return Parsed::Malformed(400, "not an HTTP request");
    };
    match body_length(request.headers) {
        Ok(body) => Parsed::Head {
            head: Head { method: method.to_owned(), target: target.to_owned() },
            body,
            received: bytes.len() - length,
            awaits_continue: request.headers.iter().any(|header| header.name.eq_ignore_ascii_case("expect")),
        },
        Err((status, reason)) => Parsed::Malformed(status, reason),
    }
}

/// RFC 9112, section 6.3.
fn body_length(headers: &[httparse::Header<'_>]) -> Result<usize, (u16, &'static str)> {
    let mut values = headers.iter().filter(|header| header.name.eq_ignore_ascii_case("content-length"));
    let (length, second) = (values.next().map(|header| header.value), values.next());
    let is_encoded = headers.iter().any(|header| header.name.eq_ignore_ascii_case("transfer-encoding"));
    match length {
        None if is_encoded => Err((411, "a body needs a Content-Length: Transfer-Encoding is not supported")),
        None => Ok(0),
        Some(_) if is_encoded => Err((400, "both Content-Length and Transfer-Encoding")),
        Some(_) if second.is_some() => Err((400, "more than one Content-Length")),
        Some(digits) if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) => {
            Err((400, "Content-Length is not a number"))
        }
        Some(digits) => {
            // A number that does not fit is too large as well.
            let length = str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
            length.filter(|length| *length <= MAX_BODY).ok_or((413, "the body is larger than 64 KiB"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&str]) -> Progress {
        let mut request = PartialRequest::new();
        let (last, first) = pieces.split_last().unwrap();
        for piece in first {
            assert!(
                matches!(request.add(piece.as_bytes()), Progress::Incomplete | Progress::AwaitsContinue),
                "{piece}"
            );
        }
        request.add(last.as_bytes())
    }

    fn stop() -> Head {
        Head { method: "POST".to_owned(), target: "/stop".to_owned() }
    }

    fn with(headers: &str) -> Progress {
        read(&[&format!("POST /stop HTTP/1.1\r\n{headers}\r\n")])
    }

    fn status(headers: &str) -> u16 {
        let Progress::Malformed(status, _) = with(headers) else { panic!("{headers:?} is accepted") };
        status
    }

    #[test]
    fn a_request_is_complete_when_its_body_has_come() {
        let head = "POST /stop HTTP/1.1\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(with(""), Progress::Complete(stop(), Surplus::No));
        assert_eq!(with("Content-Length: 0\r\n"), Progress::Complete(stop(), Surplus::No));
        assert_eq!(read(&[head]), Progress::Incomplete);
        assert_eq!(read(&[head, "1234"]), Progress::Incomplete);
        assert_eq!(read(&[head, "1234", "5"]), Progress::Complete(stop(), Surplus::No));
        assert_eq!(read(&[head, "1234", "56"]), Progress::Complete(stop(), Surplus::Yes));
        assert_eq!(read(&[&format!("{head}12345")]), Progress::Complete(stop(), Surplus::No));
        assert_eq!(read(&[&format!("{head}123456")]), Progress::Complete(stop(), Surplus::Yes));
    }

    #[test]
    fn a_client_that_expects_it_is_told_to_continue() {
        let head = "POST /stop HTTP/1.1\r\nexpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
        assert_eq!(read(&[head]), Progress::AwaitsContinue);
        assert_eq!(read(&[head, "12"]), Progress::Complete(stop(), Surplus::No));
        assert_eq!(read(&[&format!("{head}1")]), Progress::Incomplete, "it does not wait");
    }

    // RFC 9112, section 6.3; RFC 9110, section 8.6.
    #[test]
    fn a_body_of_unclear_or_excessive_length_is_refused() {
        for length in ["-1", "+1", "", "1 2", "5, 5", "0x5", "1e3", "five", "\u{0661}"] {
            assert_eq!(status(&format!("Content-Length: {length}\r\n")), 400, "{length:?}");
        }
        for length in ["65537", "99999999999999", "18446744073709551616", &"9".repeat(1_000)] {
            assert_eq!(status(&format!("content-length: {length}\r\n")), 413, "{length}");
        }
        assert_eq!(with("Content-Length: 65536\r\n"), Progress::Incomplete);
        assert_eq!(status("Content-Length: 5\r\nContent-Length: 5\r\n"), 400);
        assert_eq!(status("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), 400);
        assert_eq!(status("Transfer-Encoding: chunked\r\n"), 411);
    }

    #[test]
    fn a_head_that_is_too_long_is_refused() {
        let long = "x".repeat(MAX_HEAD);
        assert!(matches!(read(&["GET /", &long]), Progress::Malformed(431, _)));
        assert_eq!(status(&"A: b\r\n".repeat(MAX_HEADERS + 1)), 431);
    }
}

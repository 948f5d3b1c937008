//! The messages on ipc channels: one JSON value on each line.

use serde::de::IgnoredAny;

use crate::model::json::{Object, text};

/// A parsed line. Values are passed on unchanged.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message<'l> {
    Ready,
    Get {
        key: Key<'l>,
    },
    /// Without a value the key is removed.
    Set {
        key: Key<'l>,
        value: Option<&'l str>,
    },
    Send {
        to: String,
        data: &'l str,
    },
    /// Node sends a socket, and waits for an acknowledgement.
    Handle,
    /// A message of keepalive's protocol without a required field.
    Incomplete {
        key: Option<&'l str>,
        missing: &'static str,
    },
    /// A message that is not part of keepalive's protocol.
    Other,
}

/// A key as JSON, and decoded.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Key<'l> {
    pub(super) raw: &'l str,
    pub(super) decoded: String,
}

/// Parses a line. `None` if it is not JSON.
pub(super) fn parse(line: &[u8]) -> Option<Message<'_>> {
    let line = str::from_utf8(line).ok()?.trim_matches(WHITESPACE);
    if !line.starts_with('{') {
        let (value, rest) = split_value(line)?;
        let message = if value == "\"ready\"" { Message::Ready } else { Message::Other };
        return rest.is_empty().then_some(message);
    }
    let fields = fields(line)?;
    let field = |name: &str| NAMES.iter().zip(fields).find(|(known, _)| **known == name).and_then(|(_, value)| value);
    let word = |name: &str| field(name).and_then(|raw| serde_json::from_slice::<String>(raw.as_bytes()).ok());
    let key = || {
        let lacking = Message::Incomplete { key: field("key"), missing: "`key`, a string" };
        word("key").zip(field("key")).map(|(decoded, raw)| Key { raw, decoded }).ok_or(lacking)
    };
    let message = match word("type").as_deref() {
        _ if word("cmd").as_deref() == Some("NODE_HANDLE") => Ok(Message::Handle),
        Some("get") => key().map(|key| Message::Get { key }),
        Some("set") => key().and_then(|key| match field("value") {
            Some(value) => Ok(Message::Set { key, value: Some(value).filter(|value| *value != "null") }),
            None => Err(Message::Incomplete { key: field("key"), missing: "`value`" }),
        }),
        Some("send") => match (word("to"), field("data")) {
            (Some(to), Some(data)) => Ok(Message::Send { to, data }),
            (None, _) => Err(Message::Incomplete { key: None, missing: "`to`, a string" }),
            (Some(_), None) => Err(Message::Incomplete { key: None, missing: "`data`" }),
        },
        Some(_) | None => Ok(Message::Other),
    };
    Some(message.unwrap_or_else(|incomplete| incomplete))
}

/// The fields that have a meaning.
const NAMES: [&str; 6] = ["type", "cmd", "key", "value", "to", "data"];

/// RFC 8259
const WHITESPACE: [char; 4] = [' ', '\t', '\n', '\r'];

/// The raw values of the fields of an object, in the order of [`NAMES`]. The last one of each name counts. `None` if it is
/// not JSON.
///
/// serde can do that too (`RawValue`), but then it contains the parser of values a second time, which is 5 KB.
fn fields(object: &str) -> Option<[Option<&str>; NAMES.len()]> {
    let mut fields = [None; NAMES.len()];
    let mut rest = object.strip_prefix('{')?.trim_start_matches(WHITESPACE);
    if rest == "}" {
        return Some(fields);
    }
    loop {
        let (name, after_name) = split_value(rest)?;
        let name: String = serde_json::from_slice(name.as_bytes()).ok()?;
        let (value, after_value) = split_value(after_name.strip_prefix(':')?)?;
        if let Some((_, field)) = NAMES.iter().zip(&mut fields).find(|(known, _)| **known == name) {
            *field = Some(value);
        }
        match after_value.strip_prefix(',') {
            Some(more) => rest = more,
            None => return (after_value == "}").then_some(fields),
        }
    }
}

/// The value that `text` begins with, and what follows it, both without whitespace around them. `None` if it is not JSON.
fn split_value(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start_matches(WHITESPACE);
    let mut values = serde_json::Deserializer::from_slice(text.as_bytes()).into_iter::<IgnoredAny>();
    values.next()?.ok()?;
    let (value, rest) = text.split_at_checked(values.byte_offset())?;
    Some((value, rest.trim_start_matches(WHITESPACE)))
}

/// Sent before the stop signal, as PM2 has it.
pub(super) const SHUTDOWN: &[u8] = b"\"shutdown\"\n";
/// Rejects a socket. Node retries three times, then continues without.
pub(super) const NO_HANDLE: &[u8] = b"{\"cmd\":\"NODE_HANDLE_NACK\"}\n";

/// The answer to `get`. `key` and `value` are JSON.
pub(super) fn value(key: &str, value: Option<&str>) -> Vec<u8> {
    line("value", &[("key", key), ("value", value.unwrap_or("null"))])
}

/// A message from another worker.
pub(super) fn delivery(from: &str, data: &str) -> Vec<u8> {
    line("message", &[("from", &quoted(from)), ("data", data)])
}

/// An error. `about` is the field that it is about, with its value as JSON.
pub(super) fn error(about: Option<(&str, &str)>, reason: &str) -> Vec<u8> {
    let message = quoted(reason);
    let fields: Vec<_> = about.into_iter().chain([("message", message.as_str())]).collect();
    line("error", &fields)
}

/// A string as JSON.
pub(super) fn quoted(word: &str) -> String {
    let mut raw = Vec::new();
    text(&mut raw, word);
    String::from_utf8(raw).unwrap_or_default()
}

fn line(kind: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut line = Vec::new();
    let mut object = Object::new(&mut line);
    object.text("type", kind);
    for (name, raw) in fields {
        object.plain(name, raw);
    }
    object.end();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(word: &'static str) -> Key<'static> {
        Key { raw: word, decoded: serde_json::from_str(word).unwrap() }
    }

    #[test]
    fn known_messages_are_parsed_and_others_ignored() {
        let check = |line: &'static str, expect| assert_eq!(parse(line.as_bytes()), Some(expect), "{line}");
        check("\"ready\"", Message::Ready);
        check(" \"ready\" \r", Message::Ready);
        check("\"steady\"", Message::Other);
        check("5", Message::Other);
        check("[\"ready\"]", Message::Other);
        check("{}", Message::Other);
        check(r#"{"type":7}"#, Message::Other);
        check(r#"{"type":"axm:monitor","data":{"a":1}}"#, Message::Other);
        check(r#"{"cmd":"NODE_CLUSTER","act":"online"}"#, Message::Other);
        check(r#"{"cmd":"NODE_HANDLE","type":"net.Server","msg":{"type":"get","key":"a"}}"#, Message::Handle);
        check(r#"{"type":"get","key":"a\u0062"}"#, Message::Get { key: key(r#""a\u0062""#) });
        check(" { \"type\" : \"get\" ,\t\"key\" : \"a\" } ", Message::Get { key: key("\"a\"") });
        check(r#"{"key":"","type":"get"}"#, Message::Get { key: key("\"\"") });
        let value = Some(r#"{"b": [1e400, 123456789012345678901234567890]}"#);
        check(
            r#"{"type":"set","key":"a","value":{"b": [1e400, 123456789012345678901234567890]}}"#,
            Message::Set { key: key("\"a\""), value },
        );
        check(r#"{"type":"set","key":"a","value":null}"#, Message::Set { key: key("\"a\""), value: None });
        let to = "web.1".to_owned();
        check(r#"{"type":"send","to":"web.1","data":null}"#, Message::Send { to: to.clone(), data: "null" });
        check(r#"{"t\u006fpe":1,"to":7,"data":1,"type":"send","to":"web.1"}"#, Message::Send { to, data: "1" });
    }

    #[test]
    fn an_incomplete_message_names_the_missing_field() {
        let check = |line: &'static str, key, missing| {
            assert_eq!(parse(line.as_bytes()), Some(Message::Incomplete { key, missing }), "{line}");
        };
        check(r#"{"type":"get"}"#, None, "`key`, a string");
        check(r#"{"type":"get","key":5}"#, Some("5"), "`key`, a string");
        check(r#"{"type":"set","key":"a"}"#, Some("\"a\""), "`value`");
        check(r#"{"type":"send","data":1}"#, None, "`to`, a string");
        check(r#"{"type":"send","to":"*"}"#, None, "`data`");
    }

    #[test]
    fn a_line_that_is_not_json_is_rejected() {
        let deep = "[".repeat(60_000);
        let object = format!("{{\"type\":{deep}");
        for line in [
            "ready",
            "\"ready",
            "{",
            "{\"a\":1} {}",
            "{'a':1}",
            "{\"a\":1,}",
            "{\"a\" 1}",
            "{\"a\":}",
            "{1:1}",
            "{\"a\":1",
            "5 5",
            "\u{feff}{}",
            "nul",
            &deep,
            &object,
        ] {
            assert_eq!(parse(line.as_bytes()), None, "{}", line.get(..20).unwrap_or(line));
        }
        assert_eq!(parse(b"\"\xff\""), None);
        let nested = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
        assert_eq!(parse(nested.as_bytes()), Some(Message::Other), "deep and valid");
    }

    #[test]
    fn each_answer_is_one_line_of_json() {
        let text = |line: Vec<u8>| String::from_utf8(line).unwrap();
        assert_eq!(text(value("\"a\"", Some("[1]"))), "{\"type\":\"value\",\"key\":\"a\",\"value\":[1]}\n");
        assert_eq!(text(value("\"a\"", None)), "{\"type\":\"value\",\"key\":\"a\",\"value\":null}\n");
        assert_eq!(text(delivery("web.0", "{}")), "{\"type\":\"message\",\"from\":\"web.0\",\"data\":{}}\n");
        assert_eq!(text(error(None, "no \"room\"")), "{\"type\":\"error\",\"message\":\"no \\\"room\\\"\"}\n");
        let about = Some(("to", "\"db\""));
        assert_eq!(text(error(about, "no")), "{\"type\":\"error\",\"to\":\"db\",\"message\":\"no\"}\n");
    }
}

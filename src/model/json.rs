//! A JSON writer that appends to a buffer, without building a tree in memory.

use std::fmt::{Arguments, Display};
use std::io::Write as _;

/// A JSON object that is being written.
#[derive(Debug)]
pub struct Object<'o> {
    out: &'o mut Vec<u8>,
    is_empty: bool,
}

impl<'o> Object<'o> {
    /// Begins an object.
    pub fn new(out: &'o mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, is_empty: true }
    }

    /// Writes the member name. The caller must write its value next.
    pub fn value(&mut self, name: &str) -> &mut Vec<u8> {
        if !std::mem::take(&mut self.is_empty) {
            self.out.push(b',');
        }
        // Names need no escaping.
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    /// Writes a string.
    pub fn text(&mut self, name: &str, value: &str) {
        text(self.value(name), value);
    }

    /// Writes a string.
    pub fn shown(&mut self, name: &str, value: impl Display) {
        self.shown_or_null(name, Some(&value));
    }

    /// Writes a string, or `null`.
    pub fn optional_shown(&mut self, name: &str, value: Option<impl Display>) {
        self.shown_or_null(name, value.as_ref().map(|value| value as _));
    }

    fn shown_or_null(&mut self, name: &str, value: Option<&dyn Display>) {
        match value {
            Some(value) => shown(self.value(name), format_args!("{value}")),
            None => self.null(name),
        }
    }

    /// Writes a number, `true`, `false` or `null`.
    pub fn plain(&mut self, name: &str, value: impl Display) {
        self.plain_or_null(name, Some(&value));
    }

    /// Writes a number, `true` or `false`, or `null`.
    pub fn optional(&mut self, name: &str, value: Option<impl Display>) {
        self.plain_or_null(name, value.as_ref().map(|value| value as _));
    }

    fn plain_or_null(&mut self, name: &str, value: Option<&dyn Display>) {
        match value {
            Some(value) => push(self.value(name), format_args!("{value}")),
            None => self.null(name),
        }
    }

    /// Writes `null`.
    pub fn null(&mut self, name: &str) {
        self.value(name).extend_from_slice(b"null");
    }

    /// Begins an object in the object.
    pub fn object(&mut self, name: &str) -> Object<'_> {
        Object::new(self.value(name))
    }

    /// Writes an array. `write` writes one of its elements.
    pub fn array<T>(&mut self, name: &str, elements: impl IntoIterator<Item = T>, write: impl Fn(&mut Vec<u8>, T)) {
        let out = self.value(name);
        let mut separator = b'[';
        for element in elements {
            out.push(separator);
            write(out, element);
            separator = b',';
        }
        if separator == b'[' {
            out.push(separator);
        }
        out.push(b']');
    }

    /// Writes an array of strings.
    pub fn texts<T: Display>(&mut self, name: &str, elements: impl IntoIterator<Item = T>) {
        self.array(name, elements, |out, element| shown(out, format_args!("{element}")));
    }

    /// Ends the object.
    pub fn end(self) {
        self.out.push(b'}');
    }
}

/// Writes a string.
pub fn text(out: &mut Vec<u8>, value: &str) {
    let is_plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
    if value.bytes().all(is_plain) {
        // Nearly all of them, twenty for each instance: avoid an allocation.
        out.push(b'"');
        out.extend_from_slice(value.as_bytes());
        return out.push(b'"');
    }
    // Serialization of a string cannot fail.
    out.extend(serde_json::to_string(value).unwrap_or_default().into_bytes());
}

/// Writes formatted text as a string.
pub fn shown(out: &mut Vec<u8>, arguments: Arguments<'_>) {
    text(out, &std::fmt::format(arguments));
}

/// Writing to a `Vec` cannot fail.
pub fn push(out: &mut Vec<u8>, arguments: Arguments<'_>) {
    out.write_fmt(arguments).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_valid_json() {
        let mut out = Vec::new();
        let mut object = Object::new(&mut out);
        object.text("a", "say \"hi\"\n\u{1}");
        object.plain("b", 5);
        object.optional("c", None::<u32>);
        Object::new(object.value("d")).end();
        object.end();
        assert_eq!(String::from_utf8(out).unwrap(), r#"{"a":"say \"hi\"\n\u0001","b":5,"c":null,"d":{}}"#);
    }
}

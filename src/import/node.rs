//! JSON and YAML as one tree, which knows the line of each value of YAML.

use std::fmt;
use std::path::Path;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::import_error::ImportError;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Data {
    Null,
    Boolean(bool),
    /// As it is written.
    Number(String),
    Text(String),
    List(Vec<Node>),
    /// In the order of the source.
    Map(Vec<(String, Node)>),
}

/// A value and its line; 0: unknown.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) data: Data,
    pub(super) line: usize,
}

impl Node {
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        let found = self.entries().iter().rev().find(|(known, _)| known == key).map(|(_, node)| node);
        found.filter(|node| node.data != Data::Null)
    }

    pub(super) fn entries(&self) -> &[(String, Self)] {
        if let Data::Map(entries) = &self.data { entries } else { &[] }
    }

    /// The elements of a list; a single value is a list of one.
    pub(super) fn items(&self) -> &[Self] {
        match &self.data {
            Data::List(items) => items,
            Data::Null => &[],
            Data::Boolean(_) | Data::Number(_) | Data::Text(_) | Data::Map(_) => std::slice::from_ref(self),
        }
    }

    /// A scalar as text.
    pub(super) fn text(&self) -> Option<String> {
        match &self.data {
            Data::Text(text) | Data::Number(text) => Some(text.clone()),
            Data::Boolean(value) => Some(value.to_string()),
            Data::Null | Data::List(_) | Data::Map(_) => None,
        }
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        match &self.data {
            Data::Boolean(value) => Some(*value),
            Data::Text(text) if text == "true" => Some(true),
            Data::Text(text) if text == "false" => Some(false),
            Data::Null | Data::Number(_) | Data::Text(_) | Data::List(_) | Data::Map(_) => None,
        }
    }

    /// For comments: in the notation of JSON, on one line.
    pub(super) fn shown(&self) -> String {
        match &self.data {
            Data::Null => "null".to_owned(),
            Data::Boolean(_) | Data::Number(_) | Data::Text(_) => self.text().unwrap_or_default(),
            Data::List(items) => format!("[{}]", items.iter().map(Self::shown).collect::<Vec<_>>().join(", ")),
            Data::Map(entries) => {
                let entries = entries.iter().map(|(key, node)| format!("{key}: {}", node.shown()));
                format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

/// An error at the line of `node`, if that is known.
pub(super) fn error_at(path: &Path, node: &Node, message: impl Into<String>, remedy: &str) -> ImportError {
    match node.line {
        0 => ImportError::new(path.display().to_string(), message, remedy),
        line => ImportError::at(path, line, message, remedy),
    }
}

/// Parses JSON.
pub(super) fn from_json(path: &Path, text: &str) -> Result<Node, ImportError> {
    serde_json::from_str(text).map_err(|error| {
        let remedy = "JSON has no comments and no commas at the end; PM2 itself reads such a file as .config.js, too";
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or_default().to_owned();
        ImportError::at(path, error.line(), format!("invalid JSON: {message}"), remedy)
    })
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl NodeVisitor {
    fn node<E>(data: Data) -> Result<Node, E> {
        Ok(Node { data, line: 0 })
    }
}

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Self::node(Data::Boolean(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Self::node(Data::Number(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Self::node(Data::Number(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Self::node(Data::Number(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Self::node(Data::Text(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Self::node(Data::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Self::node(Data::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Self::node(Data::Map(entries))
    }
}

/// Parses YAML: the first document.
pub(super) fn from_yaml(path: &Path, text: &str) -> Result<Node, ImportError> {
    let mut builder = TreeBuilder::default();
    // One by one, as `load` is recursive.
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            ImportError::at(path, error.marker().line(), format!("invalid YAML: {}", error.info()), "correct it")
        })?;
        builder.on_event(event, span);
        if builder.is_too_large || builder.root.is_some() {
            break;
        }
    }
    if builder.is_too_large {
        return Err(ImportError::new(
            path.display().to_string(),
            "it has too many values, or they are nested too deep",
            "write them out",
        ));
    }
    Ok(builder.root.unwrap_or(Node { data: Data::Null, line: 1 }))
}

/// How many values a document may have: aliases can multiply them.
const MAX_NODES: usize = 100_000;

/// How deep values may be nested.
const MAX_DEPTH: usize = 100;

#[derive(Default)]
struct TreeBuilder {
    /// Open lists and maps; the key of a map whose value follows.
    open: Vec<(Node, Option<String>, usize)>,
    anchors: Vec<(usize, Node)>,
    root: Option<Node>,
    count: usize,
    is_too_large: bool,
}

impl TreeBuilder {
    fn push(&mut self, node: Node, anchor: usize) {
        self.count += size_of_tree(&node);
        self.is_too_large |= self.count > MAX_NODES || self.open.len() > MAX_DEPTH;
        if self.is_too_large {
            return;
        }
        if anchor > 0 {
            self.count += size_of_tree(&node);
            self.anchors.push((anchor, node.clone()));
        }
        match self.open.last_mut() {
            None => {
                self.root.get_or_insert(node);
            }
            Some((Node { data: Data::List(items), .. }, ..)) => items.push(node),
            Some((Node { data: Data::Map(entries), .. }, key, _)) => match key.take() {
                None => *key = Some(node.text().unwrap_or_default()),
                // A merge key: entries of the map itself win, which come later or are found first.
                Some(name) if name == "<<" => {
                    let merged = node.items().iter().rev().flat_map(|map| map.entries().iter().cloned());
                    let merged: Vec<_> = merged.collect();
                    entries.splice(0..0, merged);
                }
                Some(name) => entries.push((name, node)),
            },
            Some(_) => {}
        }
    }
}

fn size_of_tree(node: &Node) -> usize {
    match &node.data {
        Data::List(items) => 1 + items.iter().map(size_of_tree).sum::<usize>(),
        Data::Map(entries) => 1 + entries.iter().map(|(_, node)| size_of_tree(node)).sum::<usize>(),
        Data::Null | Data::Boolean(_) | Data::Number(_) | Data::Text(_) => 1,
    }
}

impl TreeBuilder {
    fn on_event(&mut self, event: Event<'_>, span: Span) {
        let line = span.start.line();
        self.is_too_large |= self.open.len() > MAX_DEPTH;
        match event {
            Event::Scalar(text, style, anchor, _) => self.push(Node { data: scalar(&text, style), line }, anchor),
            Event::SequenceStart(anchor, _) => {
                self.open.push((Node { data: Data::List(Vec::new()), line }, None, anchor))
            }
            Event::MappingStart(anchor, _) => {
                self.open.push((Node { data: Data::Map(Vec::new()), line }, None, anchor))
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some((node, _, anchor)) = self.open.pop() {
                    self.push(node, anchor);
                }
            }
            Event::Alias(anchor) => {
                let known = self.anchors.iter().rev().find(|(known, _)| *known == anchor).map(|(_, node)| node.clone());
                self.push(known.unwrap_or(Node { data: Data::Null, line }), 0);
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {}
        }
    }
}

/// A scalar by the core schema of YAML 1.2, and the `yes` and `no` that Compose accepts stay text.
fn scalar(text: &str, style: ScalarStyle) -> Data {
    if style != ScalarStyle::Plain {
        return Data::Text(text.to_owned());
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Data::Null,
        "true" | "True" | "TRUE" => Data::Boolean(true),
        "false" | "False" | "FALSE" => Data::Boolean(false),
        _ if text.parse::<i64>().is_ok() || is_float(text) => Data::Number(text.to_owned()),
        _ => Data::Text(text.to_owned()),
    }
}

fn is_float(text: &str) -> bool {
    text.contains('.') && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') && text.parse::<f64>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_and_json_make_the_same_tree() {
        let yaml = "base: &b\n  A: 1\n  B: 'x'\nuser:\n  <<: *b\n  B: [true, ~, \"no\", 1.5, 08:30]\n";
        let tree = from_yaml(Path::new("f"), yaml).unwrap();
        let user = tree.get("user").unwrap();
        assert_eq!(user.shown(), "{ A: 1, B: x, B: [true, null, no, 1.5, 08:30] }");
        assert_eq!(user.get("B").map(|node| (node.line, node.items().len())), Some((6, 5)));
        let json = from_json(Path::new("f"), "{\"b\": 1, \"a\": [true, null, -2, 1.5, \"x\"]}").unwrap();
        assert_eq!(json.shown(), "{ b: 1, a: [true, null, -2, 1.5, x] }");
        assert_eq!(from_yaml(Path::new("f"), "a:\n  - b\n c").unwrap_err().place, "f:3");
        assert_eq!(from_json(Path::new("f"), "{\n\"a\":,\n}").unwrap_err().place, "f:2");
    }

    #[test]
    fn values_cannot_multiply_or_nest_without_limit() {
        let mut yaml = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for number in 1..9 {
            let previous = format!("*a{}", number - 1);
            yaml.push_str(&format!("a{number}: &a{number} [{}]\n", vec![previous; 10].join(", ")));
        }
        assert!(from_yaml(Path::new("f"), &yaml).is_err());
        assert!(from_yaml(Path::new("f"), &"- ".repeat(100_000)).is_err());
        assert!(from_yaml(Path::new("f"), &"[".repeat(100_000)).is_err());
    }
}

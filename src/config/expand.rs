//! Expansion of `{service}`, `{instance}`, `{instances}`, `{fd.NAME}`, `${VAR}`, `${VAR:-default}` and `$$` in commands, environment
//! variables and paths.
//!
//! All other text is unchanged, such as JSON in an argument, or a `$` that is not followed by `{` or `$`.

use std::ffi::{CString, OsString};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt as _;

use super::suggest::nearest;
use crate::model::{Number, Template};

/// How deep defaults can be nested: `${A:-${B:-…}}`.
const MAX_NESTING: u32 = 16;

/// The maximum size of an argument or variable in bytes, with the NUL: the kernel's `MAX_ARG_STRLEN`. execve(2)
const MAX_ARGUMENT_SIZE: usize = 128 << 10;
/// The maximum length of a name in `{fd.NAME}` in bytes, as for `FileDescriptorName` of systemd.socket(5).
pub(super) const MAX_FD_NAME_LENGTH: usize = 255;
/// The descriptor of the first socket: `SD_LISTEN_FDS_START` of sd_listen_fds(3).
pub const LISTEN_FDS_START: usize = 3;

/// The placeholders that are expanded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placeholders {
    /// None: braces are literal text.
    Literal,
    /// `{service}`. The value is the same for all instances, so `{instance}`, `{instances}` and `{fd.NAME}` are errors.
    Service,
    /// `{service}`, `{instance}`, `{instances}` and `{fd.NAME}`.
    All,
}

/// The values for an expansion.
pub(super) struct Scope<'s> {
    pub(super) service: &'s str,
    pub(super) placeholders: Placeholders,
    /// The names of the service's sockets in order.
    pub(super) sockets: &'s [&'s str],
    /// `None`: `$` is literal text.
    pub(super) variables: Option<Variables<'s>>,
}

impl<'s> Scope<'s> {
    /// The scope in which the variables of a process are known.
    pub(super) fn with_env(&self, env: &'s [Template]) -> Self {
        Self { variables: self.variables.map(|variables| Variables { env, ..variables }), ..*self }
    }
}

/// The variables for `${VAR}`.
#[derive(Clone, Copy)]
pub(super) struct Variables<'s> {
    /// Names and values. The last entry for a name applies.
    pub(super) own: &'s [(Vec<u8>, Vec<u8>)],
    /// Variables that are used if they are not in `own`.
    pub(super) inherited: &'s [(OsString, OsString)],
    /// Variables that are used before all others, as `NAME=value`.
    pub(super) env: &'s [Template],
}

impl<'s> Variables<'s> {
    pub(super) fn get(&self, name: &[u8]) -> Option<&'s [u8]> {
        let own = self.own.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_slice());
        let inherited = || self.inherited.iter().find(|(known, _)| known.as_bytes() == name);
        own.or_else(|| inherited().map(|(_, value)| value.as_bytes()))
    }

    /// The entry of `name` in `env`.
    fn entry(&self, name: &[u8]) -> Option<&'s Template> {
        let is_named = |entry: &&Template| value_of(entry.literal_prefix(), name).is_some();
        self.env.iter().find(is_named)
    }
}

/// The rest of `entry` after `name=`.
fn value_of<'e>(entry: &'e [u8], name: &[u8]) -> Option<&'e [u8]> {
    entry.strip_prefix(name)?.strip_prefix(b"=")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExpandErrorKind {
    Syntax,
    UnsetVariable,
    TooLong,
}

/// An error in a text, with its position in that text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ExpandError {
    pub(super) at: Range<usize>,
    pub(super) kind: ExpandErrorKind,
    pub(super) message: String,
    pub(super) hint: String,
}

/// Builds a [`Template`].
#[derive(Debug, Default)]
pub(super) struct Builder {
    pieces: Vec<(Vec<u8>, Number)>,
    current: Vec<u8>,
}

impl Builder {
    pub(super) fn starting_with(text: &[u8]) -> Self {
        Self { pieces: Vec::new(), current: text.to_vec() }
    }

    /// The text before the first number.
    pub(super) fn first_piece(&mut self) -> &mut Vec<u8> {
        self.pieces.first_mut().map_or(&mut self.current, |(text, _)| text)
    }

    /// The whole text without the numbers.
    pub(super) fn text(&self) -> Vec<u8> {
        let mut whole = Vec::new();
        self.pieces.iter().for_each(|(text, _)| whole.extend_from_slice(text));
        whole.extend_from_slice(&self.current);
        whole
    }

    pub(super) fn push(&mut self, text: &[u8]) {
        self.current.extend_from_slice(text);
    }

    /// Splits off the rest that starts with the first of `bytes`.
    pub(super) fn split_off(&mut self, bytes: &[u8]) -> Option<Self> {
        let position = |text: &Vec<u8>| text.iter().position(|byte| bytes.contains(byte));
        let Some(index) = self.pieces.iter().position(|(text, _)| position(text).is_some()) else {
            let current = self.current.split_off(position(&self.current)?);
            return Some(Self { pieces: Vec::new(), current });
        };
        let mut pieces = self.pieces.split_off(index);
        let (first, _) = pieces.first_mut()?;
        let tail = first.split_off(position(first)?);
        let head = std::mem::replace(first, tail);
        let current = std::mem::replace(&mut self.current, head);
        Some(Self { pieces, current })
    }

    /// The template; `None` if it contains a NUL byte.
    pub(super) fn finish(self) -> Option<Template> {
        let last = CString::new(self.current).ok()?;
        if self.pieces.is_empty() {
            return Some(Template::Fixed(last));
        }
        let pieces = self.pieces.into_iter().map(|(text, number)| Some((CString::new(text).ok()?, number)));
        Some(Template::Numbered { pieces: pieces.collect::<Option<_>>()?, last })
    }

    /// Appends the value of an entry `NAME=value`. Returns whether it is not empty.
    fn push_value(&mut self, entry: &Template, name: &[u8]) -> bool {
        let prefix = name.len() + 1;
        match entry {
            Template::Expanded { text, .. } => self.push_value(text, name),
            Template::Fixed(text) => {
                let value = text.as_bytes().get(prefix..).unwrap_or_default();
                self.push(value);
                !value.is_empty()
            }
            Template::Numbered { pieces, last } => {
                let mut skipped = prefix;
                for (text, number) in pieces {
                    self.push(text.as_bytes().get(std::mem::take(&mut skipped)..).unwrap_or_default());
                    self.push_number(*number);
                }
                self.push(last.as_bytes());
                true
            }
        }
    }

    fn push_number(&mut self, number: Number) {
        self.pieces.push((std::mem::take(&mut self.current), number));
    }
}

/// Expands `text` and appends it to `output`. Stops at the first error.
pub(super) fn expand(text: &[u8], scope: &Scope<'_>, output: &mut Builder) -> Result<(), ExpandError> {
    Expansion { text, scope, output }.run(0..text.len(), 0)
}

struct Expansion<'e> {
    text: &'e [u8],
    scope: &'e Scope<'e>,
    output: &'e mut Builder,
}

impl Expansion<'_> {
    fn run(&mut self, range: Range<usize>, depth: u32) -> Result<(), ExpandError> {
        let mut position = range.start;
        while let Some(&byte) = self.text.get(..range.end).and_then(|text| text.get(position)) {
            let rest = self.text.get(position..range.end).unwrap_or_default();
            position += match byte {
                b'$' if self.scope.variables.is_some() => self.dollar(rest, position, depth)?,
                b'{' => self.brace(rest, position)?,
                _ => self.literal(byte),
            };
            if self.output.current.len() >= MAX_ARGUMENT_SIZE {
                let message =
                    format!("longer than {} KiB, the limit for one argument or variable", MAX_ARGUMENT_SIZE >> 10);
                let error = error_at(0, self.text.len(), message, "pass it in a file");
                return Err(ExpandError { kind: ExpandErrorKind::TooLong, ..error });
            }
        }
        Ok(())
    }

    fn literal(&mut self, byte: u8) -> usize {
        self.output.current.push(byte);
        1
    }

    /// Expands a placeholder at the start of `rest`, which starts with `{`. Returns the number of bytes consumed.
    fn brace(&mut self, rest: &[u8], position: usize) -> Result<usize, ExpandError> {
        const SERVICE: &[u8] = b"{service}";
        const NUMBERS: [(&str, Number); 2] = [("{instance}", Number::Instance), ("{instances}", Number::Instances)];
        if self.scope.placeholders == Placeholders::Literal {
            return Ok(self.literal(b'{'));
        }
        if rest.starts_with(SERVICE) {
            self.output.current.extend_from_slice(self.scope.service.as_bytes());
            return Ok(SERVICE.len());
        }
        if let Some((name, number)) = NUMBERS.into_iter().find(|(name, _)| rest.starts_with(name.as_bytes())) {
            if self.scope.placeholders == Placeholders::Service {
                let message = format!("`{name}` cannot be used here: all instances share this value");
                return Err(error_at(position, name.len(), message, "use `{service}`, or no placeholder"));
            }
            self.output.push_number(number);
            return Ok(name.len());
        }
        let socket = rest.strip_prefix(b"{fd.").and_then(|name| {
            let length = name.iter().take(MAX_FD_NAME_LENGTH + 1).position(|byte| *byte == b'}')?;
            name.get(..length)
        });
        match socket {
            Some(name) => self.socket(&lossy(name), position),
            None => Ok(self.literal(b'{')),
        }
    }

    /// Expands `{fd.name}` to the descriptor of the socket.
    fn socket(&mut self, name: &str, position: usize) -> Result<usize, ExpandError> {
        let length = name.len() + b"{fd.}".len();
        let Scope { service, placeholders, sockets, variables } = *self.scope;
        if let Some(number) = sockets.iter().position(|known| *known == name) {
            self.output.current.extend_from_slice((LISTEN_FDS_START + number).to_string().as_bytes());
            return Ok(length);
        }
        if placeholders == Placeholders::Service {
            let message = format!("`{{fd.{name}}}` cannot be used here: sockets are passed to processes only");
            return Err(error_at(position, length, message, "use `{service}`, or no placeholder"));
        }
        let message = format!("service `{service}` has no socket `{name}`");
        let hint = match nearest(name, sockets.iter().copied()) {
            Some(near) => format!("did you mean `{{fd.{near}}}`?"),
            None if sockets.is_empty() && variables.is_none() => {
                format!("such as `--listen {name}=tcp://0.0.0.0:8080`")
            }
            None if sockets.is_empty() => format!("such as `listen = {{ {name} = \"tcp://0.0.0.0:8080\" }}`"),
            None => format!("known sockets: {}", sockets.join(", ")),
        };
        Err(error_at(position, length, message, &hint))
    }

    /// Expands a variable at the start of `rest`, which starts with `$`. Returns the number of bytes consumed.
    fn dollar(&mut self, rest: &[u8], position: usize, depth: u32) -> Result<usize, ExpandError> {
        const LITERAL: &str = "write `$$` for a literal `$`";
        if rest.starts_with(b"$$") {
            self.literal(b'$');
            return Ok(2);
        }
        if !rest.starts_with(b"${") {
            return Ok(self.literal(b'$'));
        }
        let Some(close) = matching_brace(rest) else {
            return Err(error_at(position, 2, "missing `}` after `${`".to_owned(), LITERAL));
        };
        let inner = rest.get(2..close).unwrap_or_default();
        let name = inner.get(..name_length(inner)).unwrap_or_default();
        let operation = inner.get(name.len()..).unwrap_or_default();
        if name.is_empty() || !(operation.is_empty() || operation.starts_with(b":-")) {
            let message = format!("expected `${{VAR}}` or `${{VAR:-default}}`, found `${{{}}}`", lossy(inner));
            let name = lossy(name);
            let hint = format!("write `${{{name}}}` or `${{{name}:-default}}`, or `$$` for a literal `$`");
            let hint = if name.is_empty() { LITERAL } else { &hint };
            return Err(error_at(position, close + 1, message, hint));
        }
        let entry = self.scope.variables.and_then(|variables| variables.entry(name));
        let is_set = entry.is_some_and(|entry| self.output.push_value(entry, name));
        let value = self.scope.variables.and_then(|variables| variables.get(name));
        match value {
            _ if is_set || (entry.is_some() && operation.is_empty()) => {}
            Some(value) if entry.is_none() && (operation.is_empty() || !value.is_empty()) => {
                self.output.current.extend_from_slice(value)
            }
            _ if operation.is_empty() => {
                let name = lossy(name);
                let hint = format!("set it, or add a default: `${{{name}:-default}}`");
                let error = error_at(position, close + 1, format!("variable `{name}` is not set"), &hint);
                return Err(ExpandError { kind: ExpandErrorKind::UnsetVariable, ..error });
            }
            _ if depth == MAX_NESTING => {
                return Err(error_at(
                    position,
                    2,
                    format!("defaults are nested more than {MAX_NESTING} levels deep"),
                    "",
                ));
            }
            _ => self.run(position + 2 + name.len() + 2..position + close, depth + 1)?,
        }
        Ok(close + 1)
    }
}

fn error_at(position: usize, length: usize, message: String, hint: &str) -> ExpandError {
    let kind = ExpandErrorKind::Syntax;
    ExpandError { at: position..position + length, kind, message, hint: hint.to_owned() }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The position of the `}` that closes the first `{`.
fn matching_brace(text: &[u8]) -> Option<usize> {
    let mut depth = 0_u32;
    text.iter().position(|byte| {
        match byte {
            b'{' => depth += 1,
            b'}' => depth = depth.saturating_sub(1),
            _ => return false,
        }
        depth == 0 && *byte == b'}'
    })
}

/// The length of the variable name at the start of `text`.
pub(super) fn name_length(text: &[u8]) -> usize {
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    if text.first().is_some_and(u8::is_ascii_digit) {
        return 0;
    }
    text.iter().position(|byte| !is_name(byte)).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;
    use crate::model::Numbers;

    fn raw() -> (OsString, OsString) {
        ("RAW".into(), OsString::from_vec(vec![0xff]))
    }

    fn expanded(text: &str) -> Result<Template, ExpandError> {
        let own = [(b"PORT".to_vec(), b"79".to_vec()), (b"PORT".to_vec(), b"80".to_vec())];
        let inherited = [("PORT".into(), "1".into()), ("EMPTY".into(), "".into()), ("BYTES".into(), "a".into()), raw()];
        let pieces = [(c"WEB_PORT=300".to_owned(), Number::Instance)].into();
        let numbered = Template::Numbered { pieces, last: c"/x".to_owned() };
        let env = [numbered, Template::Fixed(c"BLANK=".to_owned()), Template::Fixed(c"BYTES=b".to_owned())];
        let variables = Some(Variables { own: &own, inherited: &inherited, env: &env });
        let sockets = ["http", "admin"];
        let scope = Scope { service: "web", placeholders: Placeholders::All, sockets: &sockets, variables };
        let mut builder = Builder::default();
        expand(text.as_bytes(), &scope, &mut builder)?;
        Ok(builder.finish().unwrap())
    }

    #[track_caller]
    fn check(text: &str, expect: &[u8]) {
        let numbers = Numbers { instance: 3, instances: 5 };
        assert_eq!(expanded(text).unwrap().expand(numbers).as_bytes(), expect, "{text}");
    }

    #[track_caller]
    fn check_error(text: &str, at: Range<usize>, message: &str) {
        let error = expanded(text).unwrap_err();
        assert_eq!((error.at, error.message.as_str()), (at, message), "{text}");
    }

    #[test]
    fn placeholders_and_variables_are_expanded() {
        check("{service}-{instance}", b"web-3");
        check("300{instance}", b"3003");
        check("fd://{fd.admin}{fd.http}", b"fd://43");
        check("{instance}{instance}", b"33");
        check("{instance}/{instances}", b"3/5");
        check(":${PORT}/", b":80/");
        check("${BYTES}", b"b");
        check("-p ${WEB_PORT}!", b"-p 3003/x!");
        check("${WEB_PORT:-80}", b"3003/x");
        check("${BLANK:-300{instance}}[${BLANK}]", b"3003[]");
        check("${RAW}", b"\xff");
        check("${NONE:-81}", b"81");
        check("${PORT:-81}", b"80");
        check("${EMPTY:-81}", b"81");
        check("[${EMPTY}]", b"[]");
        check("${NONE:-}", b"");
        check("${NONE:-300{instance}}", b"3003");
        check("${NONE:-${ALSO:-${PORT}}}", b"80");
        check("${NONE:-{\"a\":1}}", b"{\"a\":1}");
    }

    #[test]
    fn other_text_is_unchanged() {
        for text in
            ["{\"a\": {}}", "{}", "{other}", "{{x}}", "{Service}", "$HOME", "$", "a$", "$1", "}", "{service", ""]
        {
            check(text, text.as_bytes());
        }
        check("$${PORT}", b"${PORT}");
        check("$$$$", b"$$");
        check("{{service}}", b"{web}");
    }

    #[test]
    fn invalid_placeholders_and_variables_are_errors() {
        check_error("a ${NONE} b", 2..9, "variable `NONE` is not set");
        check_error("${PORT", 0..2, "missing `}` after `${`");
        check_error("${1}", 0..4, "expected `${VAR}` or `${VAR:-default}`, found `${1}`");
        check_error("${PORT:+x}", 0..10, "expected `${VAR}` or `${VAR:-default}`, found `${PORT:+x}`");
        check_error("${}", 0..3, "expected `${VAR}` or `${VAR:-default}`, found `${}`");
        check_error("x{fd.htp}", 1..9, "service `web` has no socket `htp`");
        check_error("${A:-${B}}", 5..9, "variable `B` is not set");
    }

    // execve(2): "the limit per string is 32 pages (the kernel constant MAX_ARG_STRLEN)".
    #[test]
    fn a_text_that_is_too_long_for_the_kernel_is_an_error() {
        check(&"x".repeat(131_071), "x".repeat(131_071).as_bytes());
        check_error(&"x".repeat(131_072), 0..131_072, "longer than 128 KiB, the limit for one argument or variable");
    }

    #[test]
    fn nesting_is_limited() {
        let deep = format!("{}{}", "${A:-".repeat(40), "}".repeat(40));
        check_error(&deep, 80..82, "defaults are nested more than 16 levels deep");
    }
}

//! Commands in one string: what only a shell would do with them.

use std::ops::Range;

use super::expand::name_length;

/// A part of a command that a shell would not pass on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ShellSyntax {
    pub(super) at: Range<usize>,
    pub(super) message: String,
    pub(super) hint: String,
}

const USE_SHELL: &str = "to use a shell, write `[\"sh\", \"-c\", \"…\"]`";

/// Whether `program` is a shell, which handles all of this in its script.
pub(super) fn is_shell(program: &[u8]) -> bool {
    let name = program.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    matches!(name, b"sh" | b"ash" | b"bash" | b"dash" | b"ksh" | b"zsh")
}

/// Whether only a shell would run the command `text` as it is meant, apart from `$NAME` and `${NAME}`.
#[cfg(feature = "tools")]
pub(crate) fn needs_shell(text: &str) -> bool {
    let joined = join_lines(text.as_bytes());
    let Some(words) = shlex::bytes::split(&joined) else { return true };
    let is_variable =
        |syntax: &ShellSyntax| syntax.hint.starts_with("write `${") && !syntax.hint.starts_with("write `${HOME}/");
    let uses_syntax = shell_syntax(&joined, &words).iter().any(|syntax| !is_variable(syntax));
    // `${NAME:-default}`, brace expansion and patterns of a shell.
    let plain = text
        .split("${")
        .map(|part| part.split_once('}').filter(|(name, _)| name_length(name.as_bytes()) == name.len()));
    let rest: String = plain.zip(text.split("${")).map(|(after, part)| after.map_or(part, |(_, rest)| rest)).collect();
    uses_syntax || rest.contains(['?', '[', '{', '(']) || text.split("${").skip(1).any(|part| !part.contains('}'))
}

/// Removes each backslash before a newline, and the newline, as a shell does.
pub(super) fn join_lines(text: &[u8]) -> Vec<u8> {
    let mut scanner = Scanner { text, position: 0, quote: None };
    let mut joined = Vec::new();
    while let Some((at, is_escape)) = scanner.next_part() {
        let part = text.get(at).unwrap_or_default();
        if !(is_escape && matches!(part, b"\\\n" | b"\\\r\n")) {
            joined.extend_from_slice(part);
        }
    }
    joined
}

/// The first part of each kind that only a shell would not pass on. `words`: the words of `text`.
pub(super) fn shell_syntax(text: &[u8], words: &[Vec<u8>]) -> Vec<ShellSyntax> {
    let program = words.first().map_or(&[][..], Vec::as_slice);
    if is_shell(program) {
        return Vec::new();
    }
    let mut found: Vec<ShellSyntax> = of_program(text, program, words).into_iter().collect();
    let mut scanner = Scanner { text, position: 0, quote: None };
    while let Some((at, is_escape)) = scanner.next_part() {
        let Some((length, hint)) = (!is_escape).then(|| meaning(text, at.start, scanner.quote)).flatten() else {
            continue;
        };
        scanner.position = at.start + length;
        if found.iter().all(|other| other.hint != hint) {
            let shown = String::from_utf8_lossy(text.get(at.start..at.start + length).unwrap_or_default());
            let quoted = if shown.starts_with('`') { " in backquotes" } else { "" };
            let shown = shown.trim_matches('`');
            let message = format!("`{shown}`{quoted} is passed to the program unchanged: no shell is started");
            found.push(ShellSyntax { at: at.start..at.start + length, message, hint });
        }
    }
    found
}

/// `A=1 cmd`, `exec x`, `cd x`, `source x`.
fn of_program(text: &[u8], program: &[u8], words: &[Vec<u8>]) -> Option<ShellSyntax> {
    let name = program.get(..name_length(program)).unwrap_or_default();
    let value = program.get(name.len()..).and_then(|rest| rest.strip_prefix(b"="));
    let hint = match (program, value) {
        (b"exec", _) => "remove it: keepalive executes the program itself".to_owned(),
        (b"cd", _) => {
            let directory = words.get(1).map_or_else(|| "/app".into(), |word| String::from_utf8_lossy(word));
            format!("write `cwd = \"{directory}\"`")
        }
        (b"source" | b".", _) => {
            let file = words.get(1).map_or_else(|| "FILE".into(), |word| String::from_utf8_lossy(word));
            format!("write `env_file = \"{file}\"` for a file of variables; {USE_SHELL}")
        }
        (_, Some(value)) if !name.is_empty() => {
            format!("write `env = {{ {} = \"{}\" }}`", String::from_utf8_lossy(name), String::from_utf8_lossy(value))
        }
        _ => return None,
    };
    let start = text.iter().position(|byte| !byte.is_ascii_whitespace())?;
    let message = format!("`{}` is taken for the program: no shell is started", String::from_utf8_lossy(program));
    Some(ShellSyntax { at: start..start + program.len(), message, hint })
}

/// The length and the hint of what starts at `position`.
fn meaning(text: &[u8], position: usize, quote: Option<u8>) -> Option<(usize, String)> {
    let rest = text.get(position..)?;
    let previous = position.checked_sub(1).and_then(|before| text.get(before));
    let starts_word = previous.is_none_or(u8::is_ascii_whitespace);
    let word = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
    let up_to = |end: u8| rest.iter().skip(1).position(|byte| *byte == end).map_or(rest.len(), |found| found + 2);
    let shell = |length: usize| Some((length, USE_SHELL.to_owned()));
    match rest {
        [b'$', b'(', ..] => shell(up_to(b')')),
        [b'`', ..] => shell(up_to(b'`')),
        [b'$', after @ ..] if name_length(after) > 0 => {
            let name = after.get(..name_length(after))?;
            Some((1 + name.len(), format!("write `${{{}}}`", String::from_utf8_lossy(name))))
        }
        _ if quote.is_some() => None,
        [b'&', b'&', ..] | [b'|', b'|', ..] => shell(2),
        [b'|' | b';', ..] => shell(1),
        [b'&', after @ ..] if starts_word || after.first().is_none_or(u8::is_ascii_whitespace) => shell(1),
        [b'0'..=b'9' | b'&', b'>' | b'<', ..] | [b'>' | b'<', ..] if starts_word => shell(word),
        [b'~', ..] if starts_word && (word == 1 || rest.get(1) == Some(&b'/')) => {
            Some((word, format!("write `${{HOME}}{}`", String::from_utf8_lossy(rest.get(1..word)?))))
        }
        [b'*', after @ ..] => {
            // A file name, not such as `*:80`.
            let is_name =
                starts_word && word == 1 || previous == Some(&b'/') || (starts_word && after.first() == Some(&b'.'));
            is_name.then(|| USE_SHELL.to_owned()).map(|hint| (1, hint))
        }
        _ => None,
    }
}

/// Splits a text into bytes, escape sequences and comments, and knows in which quotes it is.
struct Scanner<'t> {
    text: &'t [u8],
    position: usize,
    /// The quotes around the last part.
    quote: Option<u8>,
}

impl Scanner<'_> {
    /// The next part that is outside of single quotes or ends them, and whether it is an escape sequence or a comment.
    fn next_part(&mut self) -> Option<(Range<usize>, bool)> {
        let start = self.position;
        let rest = self.text.get(start..)?;
        let starts_word = start.checked_sub(1).is_none_or(|at| self.text.get(at).is_some_and(u8::is_ascii_whitespace));
        let (length, is_escape) = match (self.quote, rest) {
            (_, []) => return None,
            (Some(b'\''), [b'\'', ..]) => {
                self.quote = None;
                (1, true)
            }
            // The whole text up to the closing quote.
            (Some(b'\''), _) => (rest.iter().position(|byte| *byte == b'\'').unwrap_or(rest.len()), true),
            (_, [b'\\', b'\r', b'\n', ..]) => (3, true),
            (_, [b'\\', _, ..] | [b'$', b'$', ..]) => (2, true),
            (None, [quote @ (b'\'' | b'"'), ..]) => {
                self.quote = Some(*quote);
                (1, true)
            }
            (Some(b'"'), [b'"', ..]) => {
                self.quote = None;
                (1, true)
            }
            (None, [b'#', ..]) if starts_word => {
                (rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()), true)
            }
            _ => (1, false),
        };
        self.position = start + length;
        Some((start..self.position, is_escape))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: &[(&str, &str)]) {
        let joined = join_lines(text.as_bytes());
        let words = shlex::bytes::split(&joined).unwrap();
        let found = shell_syntax(text.as_bytes(), &words);
        let found: Vec<(&str, &str)> =
            found.iter().map(|syntax| (&text[syntax.at.clone()], syntax.hint.as_str())).collect();
        assert_eq!(found, expect, "{text}");
    }

    #[test]
    fn what_only_a_shell_would_do_is_found_with_what_to_write() {
        check("gunicorn -b 0.0.0.0:$PORT", &[("$PORT", "write `${PORT}`")]);
        check("app \"--port=$PORT\"", &[("$PORT", "write `${PORT}`")]);
        check("app --since $(date) x", &[("$(date)", USE_SHELL)]);
        check("app `date`", &[("`date`", USE_SHELL)]);
        for (text, part) in
            [("a; b", ";"), ("a && b", "&&"), ("a|b", "|"), ("a || b", "||"), ("a &", "&"), ("rm *", "*")]
        {
            check(text, &[(part, USE_SHELL)]);
        }
        for (text, part) in [("a 2>&1", "2>&1"), ("a >> /log", ">>"), ("a >/log", ">/log"), ("a <x", "<x")] {
            check(text, &[(part, USE_SHELL)]);
        }
        check("ls /etc/*", &[("*", USE_SHELL)]);
        check("ls *.js", &[("*", USE_SHELL)]);
        check("serve ~/x", &[("~/x", "write `${HOME}/x`")]);
        check("PORT=3000 puma", &[("PORT=3000", "write `env = { PORT = \"3000\" }`")]);
        check(" exec puma", &[("exec", "remove it: keepalive executes the program itself")]);
        check("cd /srv", &[("cd", "write `cwd = \"/srv\"`")]);
        check(
            ". ./env.sh",
            &[(
                ".",
                "write `env_file = \"./env.sh\"` for a file of variables; to use a shell, write `[\"sh\", \"-c\", \"…\"]`",
            )],
        );
        let found = &shell_syntax(b"a `date`", &[b"a".to_vec(), b"`date`".to_vec()])[0];
        assert_eq!(found.message, "`date` in backquotes is passed to the program unchanged: no shell is started");
        check("a $A $B; c | d", &[("$A", "write `${A}`"), ("$B", "write `${B}`"), (";", USE_SHELL)]);
    }

    #[test]
    fn nothing_is_found_where_a_shell_would_do_nothing_either() {
        for text in [
            "app '$PORT' '$(x)' 'a;b' '*' '~/x'",
            "app \\$PORT a\\;b \\* \"a;b *\"",
            "app ${PORT} $$HOME $1 $",
            "sh -c 'echo $PORT; date'",
            "/bin/bash -c \"echo $PORT; date > x\"",
            "nginx -g 'daemon off;'",
            "curl http://localhost/?a=1&b=2 # a; b",
            "app --match=a*b *:80 a=>b a~ %(x)s 5%",
            "app A=1",
        ] {
            check(text, &[]);
        }
    }

    // Shell Command Language, 2.2.1: "If a <newline> immediately follows the <backslash>, the shell shall interpret this as
    // line continuation."
    #[test]
    fn a_backslash_before_a_newline_joins_the_lines() {
        for (text, expect) in [
            ("printf a \\\n b", "printf a  b"),
            ("a\\\nb", "ab"),
            ("a \\\r\n b", "a  b"),
            ("\"a\\\nb\"", "\"ab\""),
            ("'a\\\nb'", "'a\\\nb'"),
            ("a\\\\\nb", "a\\\\\nb"),
            ("# c\\\nb", "# c\\\nb"),
        ] {
            assert_eq!(String::from_utf8(join_lines(text.as_bytes())).unwrap(), expect, "{text:?}");
        }
    }
}

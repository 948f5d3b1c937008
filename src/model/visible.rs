//! Makes control characters visible, so that text of other programs cannot steer a terminal: console_codes(4).
//!
//! They are written as in C strings: `\r`, `\x1b`, and `\x9b` for a byte that is not UTF-8. Those of Unicode beyond ASCII,
//! which terminals obey too, become `\u{9b}`.

use std::borrow::Cow;
use std::fmt::Write as _;

/// The sequence that ends all colours (SGR).
const RESET: &str = "\x1b[0m";

/// Which control characters stay as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    Nothing,
    /// Tabs and newlines.
    Lines,
    /// Tabs and colours.
    Colours,
}

/// A text for one line or one cell of a table: no control character stays.
#[must_use]
pub fn one_line(text: &str) -> Cow<'_, str> {
    match visible(text.as_bytes(), Keep::Nothing) {
        Cow::Borrowed(_) => Cow::Borrowed(text),
        Cow::Owned(shown) => Cow::Owned(String::from_utf8_lossy(&shown).into_owned()),
    }
}

/// A text of several lines: newlines and tabs stay.
#[must_use]
pub fn lines(text: &[u8]) -> Cow<'_, [u8]> {
    visible(text, Keep::Lines)
}

/// A line that a service has written, without its newline. Tabs and colours (SGR) stay; the colours end with the line, so that
/// they do not change other lines. The carriage return of a line that ends with CR LF is omitted.
#[must_use]
pub fn log_line(text: &[u8]) -> Cow<'_, [u8]> {
    visible(text.strip_suffix(b"\r").unwrap_or(text), Keep::Colours)
}

fn visible(text: &[u8], keep: Keep) -> Cow<'_, [u8]> {
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') || (*byte == b'\t' && keep != Keep::Nothing);
    if text.iter().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    let mut is_coloured = false;
    for chunk in text.utf8_chunks() {
        let mut rest = chunk.valid();
        while let Some((before, from)) =
            rest.find(char::is_control).and_then(|position| rest.split_at_checked(position))
        {
            shown.push_str(before);
            if let Some((colour, after)) = split_colour(from).filter(|_| keep == Keep::Colours) {
                is_coloured = !matches!(colour, "\x1b[m" | "\x1b[0m");
                shown.push_str(colour);
                rest = after;
                continue;
            }
            let mut characters = from.chars();
            if let Some(control) = characters.next() {
                push_control(control, keep, &mut shown);
            }
            rest = characters.as_str();
        }
        shown.push_str(rest);
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            let _ = write!(shown, "\\x{byte:02x}");
        }
    }
    if is_coloured {
        shown.push_str(RESET);
    }
    Cow::Owned(shown.into_bytes())
}

/// The sequence at the beginning of `text` that sets a colour (SGR), and what follows it.
fn split_colour(text: &str) -> Option<(&str, &str)> {
    let parameters = text.strip_prefix("\x1b[")?;
    let length = parameters.find(|character: char| !matches!(character, '0'..='9' | ';' | ':'))?;
    if parameters.as_bytes().get(length) != Some(&b'm') {
        return None;
    }
    text.split_at_checked("\x1b[m".len() + length)
}

fn push_control(control: char, keep: Keep, to: &mut String) {
    match control {
        '\t' if keep != Keep::Nothing => to.push('\t'),
        '\n' if keep == Keep::Lines => to.push('\n'),
        '\t' => to.push_str("\\t"),
        '\n' => to.push_str("\\n"),
        '\r' => to.push_str("\\r"),
        // As above.
        '\0'..='\x7f' => _ = write!(to, "\\x{:02x}", u32::from(control)),
        _ => _ = write!(to, "\\u{{{:x}}}", u32::from(control)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_without_control_characters_is_not_copied() {
        assert!(matches!(one_line("plain"), Cow::Borrowed("plain")));
        assert!(matches!(log_line(b"a\tb\r"), Cow::Borrowed(b"a\tb")));
        assert_eq!(one_line("ä → 🙂"), "ä → 🙂");
    }

    #[test]
    fn no_control_character_stays_in_one_line() {
        assert_eq!(one_line("one\rgood.0 | forged\n\tx"), r"one\rgood.0 | forged\n\tx");
        assert_eq!(one_line("\0\x07\x1b[31mred\x7f\u{85}\u{9b}2J"), r"\x00\x07\x1b[31mred\x7f\u{85}\u{9b}2J");
        let controls: String = (0..=0x9f).filter_map(char::from_u32).filter(|one| one.is_control()).collect();
        assert!(!one_line(&controls).contains(char::is_control));
    }

    #[test]
    fn newlines_and_tabs_stay_in_several_lines() {
        assert_eq!(lines(b"a\n\tb\x1b[2J\xff"), b"a\n\tb\\x1b[2J\\xff".as_slice());
    }

    #[test]
    fn of_a_log_line_only_colours_and_tabs_stay() {
        #[track_caller]
        fn check(text: &[u8], expect: &[u8]) {
            let shown = log_line(text);
            assert_eq!(shown, expect, "{}", String::from_utf8_lossy(&shown));
        }
        check(b"\x1b[1;38:5:9mred\x1b[0m\tplain", b"\x1b[1;38:5:9mred\x1b[0m\tplain");
        check(b"\x1b[8mhidden", b"\x1b[8mhidden\x1b[0m");
        check(b"\x1b[31ma\x1b[m\x1b[", b"\x1b[31ma\x1b[m\\x1b[");
        // xterm: ESC [ > 4 m changes how keys are reported.
        check(b"\x1b[>4m \x1b[2J \x1b]0;title\x07 \x1bc", b"\\x1b[>4m \\x1b[2J \\x1b]0;title\\x07 \\x1bc");
        check(b"a\rb\r", b"a\\rb");
        check(b"\x9b2J \xc2\x9b2J cut\xe2\x82", b"\\x9b2J \\u{9b}2J cut\\xe2\\x82");
    }
}

//! The last lines that a process has written, which are shown with its failure.

use super::state::Logger;
use crate::logs::line::Stream;
use crate::logs::protocol::{LastLinesQuery, MAX_LAST_LINES, MAX_LAST_LINES_BYTES};
use crate::model::visible;

/// Longer lines are cut, so that one does not hide the others.
const MAX_LINE_BYTES: usize = 512;

impl Logger {
    /// The last lines of a run, without control characters but tabs, and the hint if they say that an address is in use. Long
    /// lines are cut.
    pub(super) fn last_lines(&self, query: &LastLinesQuery) -> String {
        let keys = [Stream::Stdout, Stream::Stderr].map(|stream| query.run.of_lines(stream));
        let mut text = String::new();
        for line in self.outputs.ring.last_lines(keys, MAX_LAST_LINES).into_iter().rev() {
            let line = visible::lines(line.strip_suffix(b"\r").unwrap_or(line));
            let mut line = String::from_utf8_lossy(&line).into_owned();
            if line.len() > MAX_LINE_BYTES {
                line.truncate(line.floor_char_boundary(MAX_LINE_BYTES));
                line.push('…');
            }
            if line.len() + 1 + text.len() > MAX_LAST_LINES_BYTES {
                break;
            }
            let newline = if text.is_empty() { "" } else { "\n" };
            text.insert_str(0, newline);
            text.insert_str(0, &line);
        }
        if !query.address_hint.is_empty() && says_address_in_use(&text) {
            text.push_str("\nhint: ");
            text.push_str(&query.address_hint);
        }
        text
    }
}

/// Whether a program has written that bind(2) has failed with EADDRINUSE, in the words of its language.
fn says_address_in_use(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    ["eaddrinuse", "address already in use", "address in use"].iter().any(|words| text.contains(words))
}

//! The last lines that a process has written, which are shown with its failure.

use super::state::Logger;
use crate::logs::line::Stream;
use crate::logs::protocol::{MAX_LAST_LINES, MAX_LAST_LINES_BYTES, RunKey};
use crate::model::visible;

impl Logger {
    /// The last lines of this run, without control characters but tabs.
    pub(super) fn last_lines(&self, run: RunKey) -> String {
        let keys = [Stream::Stdout, Stream::Stderr].map(|stream| run.of_lines(stream));
        let mut text = String::new();
        for line in self.outputs.ring.last_lines(keys, MAX_LAST_LINES).into_iter().rev() {
            let line = visible::lines(line.strip_suffix(b"\r").unwrap_or(line));
            let line = String::from_utf8_lossy(&line);
            let room = MAX_LAST_LINES_BYTES.saturating_sub(text.len() + 1);
            if line.len() > room && !text.is_empty() {
                break;
            }
            let newline = if text.is_empty() { "" } else { "\n" };
            text.insert_str(0, newline);
            text.insert_str(0, line.get(..line.floor_char_boundary(room)).unwrap_or_default());
        }
        text
    }
}

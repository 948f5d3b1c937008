//! A line in a buffer that has begun and goes on: the next piece of it comes later.

/// The number of the pipe whose line at the end of a buffer goes on, if there is one.
#[derive(Debug, Default)]
pub(super) struct OpenLine(Option<u64>);

impl OpenLine {
    /// Begins a line of the pipe `key` in `buffer`, and ends the open line of another one there. Returns whether the line
    /// continues the open line.
    pub(super) fn begin(&mut self, key: u64, buffer: &mut Vec<u8>) -> bool {
        match self.0.take() {
            Some(open) if open == key => true,
            Some(_) => {
                buffer.push(b'\n');
                false
            }
            None => false,
        }
    }

    /// Marks the last line as one of the pipe `key` that goes on.
    pub(super) const fn leave(&mut self, key: u64) {
        self.0 = Some(key);
    }

    /// Forgets the open line: it is lost.
    pub(super) const fn clear(&mut self) {
        self.0 = None;
    }
}

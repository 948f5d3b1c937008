//! Files into memory, within limits.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use nix::errno::Errno;

use super::report::{Fault, Place, Source};

/// No configuration file and no `env_file` is larger: a thousand services take a quarter of a megabyte.
pub(super) const SIZE_LIMIT: u64 = 1 << 20;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The content of `path`, or why it cannot be had.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, String> {
    let file = File::open(path).map_err(|error| describe(&error))?;
    let mut bytes = Vec::new();
    file.take(SIZE_LIMIT + 1).read_to_end(&mut bytes).map_err(|error| describe(&error))?;
    if bytes.len() as u64 > SIZE_LIMIT {
        return Err(format!("larger than {} MiB", SIZE_LIMIT >> 20));
    }
    if bytes.starts_with(BYTE_ORDER_MARK) {
        bytes.drain(..BYTE_ORDER_MARK.len());
    }
    Ok(bytes)
}

/// What the system says, without its number.
#[must_use]
pub fn describe(error: &std::io::Error) -> String {
    let description = error.raw_os_error().map_or("it is unusable", |number| Errno::from_raw(number).desc());
    let mut characters = description.chars();
    characters.next().map_or_else(String::new, |first| first.to_ascii_lowercase().to_string() + characters.as_str())
}

/// The text of a source, or the fault that it is none.
pub(super) fn text(source: &Source, number: usize) -> Result<&str, Fault> {
    std::str::from_utf8(&source.bytes).map_err(|error| {
        let offset = error.valid_up_to();
        let byte = source.bytes.get(offset).copied().unwrap_or_default();
        let hint = match source.bytes.as_slice() {
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "it looks like UTF-16; save it as UTF-8",
            _ => "save the file as UTF-8",
        };
        let message = format!("not UTF-8: byte {offset} is 0x{byte:02x}");
        Fault { place: Place { source: number, span: Some(offset..offset + 1) }, message, hint: hint.to_owned() }
    })
}

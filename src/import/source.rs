//! Reading the files of a source.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use super::import_error::ImportError;
use crate::config::describe;

/// The maximum size of a source in bytes.
const MAX_SOURCE_SIZE: u64 = 1 << 20;

/// The content of a source.
pub(super) fn read(path: &Path) -> Result<String, ImportError> {
    let failed = |message: String| ImportError::new(path.display().to_string(), message, "");
    let cannot = |error: io::Error| failed(format!("cannot be read: {}", describe(&error)));
    let mut bytes = Vec::new();
    File::open(path).map_err(cannot)?.take(MAX_SOURCE_SIZE + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > MAX_SOURCE_SIZE {
        return Err(failed("larger than 1 MiB".to_owned()));
    }
    let text = String::from_utf8(bytes).map_err(|_| failed("it is not UTF-8".to_owned()))?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text).replace("\r\n", "\n"))
}

//! Programs of this machine for images.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::archive::Archive;

/// The binary under test.
pub(crate) fn keepalive() -> PathBuf {
    std::env::var_os("KEEPALIVE_DIST").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_keepalive")), PathBuf::from)
}

/// Busybox, if it is installed and statically linked.
pub(crate) fn static_busybox() -> Option<Vec<u8>> {
    let bytes = std::fs::read(find("busybox")?).ok()?;
    let start = &bytes[..bytes.len().min(4096)];
    let names_interpreter = start.windows(9).any(|window| window == b"/ld-linux" || window == b"/ld-musl-");
    (!names_interpreter).then_some(bytes)
}

/// The path of a program in the usual directories of Debian.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    ["/usr/bin", "/usr/sbin", "/bin", "/sbin"]
        .iter()
        .map(|directory| Path::new(directory).join(program))
        .find(|path| path.is_file())
}

/// Adds a dynamic program, or a library, at the path that it has here, and all libraries that it needs.
pub(crate) fn add_program(archive: &mut Archive, path: &Path) {
    add_file(archive, path);
    let output = Command::new("ldd").arg(path).output().unwrap();
    let listing = String::from_utf8(output.stdout).unwrap();
    // `libz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x…)` and `/lib64/ld-linux-x86-64.so.2 (0x…)`
    for library in listing.split_whitespace().filter(|word| word.starts_with('/')) {
        add_file(archive, Path::new(library));
    }
}

/// Adds a file at the path that it has here, whatever symbolic links lead to it.
pub(crate) fn add_file(archive: &mut Archive, path: &Path) {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    archive.file(path.to_str().unwrap(), 0o755, &bytes);
}

//! A root file system in memory, as the tar archive that `docker import` reads (POSIX ustar, tar(5)).

use std::collections::BTreeSet;

const BLOCK: usize = 512;
/// The longest path that fits into the `name` field.
const NAME_MAX: usize = 100;

/// Values of the `typeflag` field.
#[derive(Clone, Copy)]
enum Kind {
    File = b'0' as isize,
    Symlink = b'2' as isize,
    Directory = b'5' as isize,
}

/// Files, symbolic links and their parent directories, owned by root.
#[derive(Clone, Debug, Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    paths: BTreeSet<String>,
}

impl Archive {
    /// Adds a file. `path` is absolute; a second file with the same path is ignored.
    pub(crate) fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        if self.enter(path) {
            self.header(path, Kind::File, mode, content.len(), "");
            self.bytes.extend_from_slice(content);
            self.pad();
        }
    }

    /// Adds a symbolic link.
    pub(crate) fn symlink(&mut self, path: &str, target: &str) {
        if self.enter(path) {
            self.header(path, Kind::Symlink, 0o777, 0, target);
        }
    }

    /// Adds a directory, with its parents.
    pub(crate) fn directory(&mut self, path: &str, mode: u32) {
        if self.enter(path) {
            self.header(path, Kind::Directory, mode, 0, "");
        }
    }

    /// The whole archive, with its end mark.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 2 * BLOCK, 0);
        self.bytes
    }

    /// Records `path` and adds its parent directories; false if it exists already.
    fn enter(&mut self, path: &str) -> bool {
        assert!(path.starts_with('/') && path.len() <= NAME_MAX, "{path} does not fit into an archive");
        if !self.paths.insert(path.to_owned()) {
            return false;
        }
        if let Some((parent, _)) = path.rsplit_once('/').filter(|(parent, _)| !parent.is_empty()) {
            self.directory(parent, 0o755);
        }
        true
    }

    fn header(&mut self, path: &str, kind: Kind, mode: u32, size: usize, link: &str) {
        let mut block = [0; BLOCK];
        let mut put = |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(0, &path[1..]);
        put(100, &format!("{mode:07o}"));
        put(108, "0000000");
        put(116, "0000000");
        put(124, &format!("{size:011o}"));
        put(136, "00000000000");
        put(148, "        ");
        put(156, &char::from(kind as u8).to_string());
        put(157, link);
        put(257, "ustar");
        put(263, "00");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        self.bytes.extend_from_slice(&block);
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(BLOCK), 0);
    }
}

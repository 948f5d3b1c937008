//! Why the kernel does not execute a file that exists: execve(2), elf(5).
//!
//! Runs in the child between clone(2) and execve(2), under the rules of `spawn_child.rs`.

use std::ffi::{c_char, c_long};

use super::syscall::{reading, syscall};
use crate::model::ProgramName;
use crate::model::architecture::{self, ELF_MAGIC};

/// How many bytes of a script the kernel reads, `BINPRM_BUF_SIZE`. An ELF header is shorter.
const HEAD_SIZE: usize = 256;
/// More program headers than any program has before its `PT_INTERP`.
const MAX_PROGRAM_HEADERS: usize = 32;
const PT_INTERP: u64 = 3;

/// The positions of fields in bytes, which depend on the class of an ELF file.
struct Layout {
    /// The size of an address or offset.
    word: usize,
    headers_offset: usize,
    header_size: usize,
    header_count: usize,
    segment_offset: usize,
}

const ELF32: Layout = Layout { word: 4, headers_offset: 28, header_size: 42, header_count: 44, segment_offset: 4 };
const ELF64: Layout = Layout { word: 8, headers_offset: 32, header_size: 54, header_count: 56, segment_offset: 8 };

/// Why execve(2) does not execute a file that is no script for the shell: the other architecture that it, or its interpreter,
/// is for; empty if that is not known. `None` if it may be such a script, or cannot be read.
pub(super) fn foreign_architecture(path: *const c_char) -> Option<&'static str> {
    let mut head = [0; HEAD_SIZE + 1];
    let length = read_beginning(path, &mut head)?;
    let line = head.get(..length)?.strip_prefix(b"#!").unwrap_or_default();
    let Some((start, end)) = interpreter_in(line) else {
        let head = head.get(..length)?;
        return (!architecture::is_text(head)).then(|| architecture::foreign(head).unwrap_or_default());
    };
    *head.get_mut(2 + end)? = 0;
    let name = head.get(2 + start..)?.as_ptr().cast();
    let mut head = [0; HEAD_SIZE + 1];
    let length = read_beginning(name, &mut head).unwrap_or_default();
    Some(head.get(..length).and_then(architecture::foreign).unwrap_or_default())
}

/// Reads the beginning of a file, and returns its length.
fn read_beginning(path: *const c_char, head: &mut [u8; HEAD_SIZE + 1]) -> Option<usize> {
    let (file, length) = read_head(path, head.get_mut(..HEAD_SIZE)?)?;
    close(file);
    Some(length)
}

/// The interpreter of a script, or the dynamic loader of an ELF file. execve(2) reports a missing one as if the file were
/// missing.
pub(super) fn interpreter(path: *const c_char) -> Option<ProgramName> {
    let mut head = [0; HEAD_SIZE];
    let (file, _) = read_head(path, &mut head)?;
    let name = match head.strip_prefix(b"#!") {
        Some(line) => of_script(line),
        None if head.starts_with(ELF_MAGIC) => of_elf(file, &head),
        None => None,
    };
    close(file);
    name
}

fn of_script(line: &[u8]) -> Option<ProgramName> {
    let (start, end) = interpreter_in(line)?;
    line.get(start..end).map(ProgramName::new)
}

/// Where the name of the interpreter begins and ends.
fn interpreter_in(line: &[u8]) -> Option<(usize, usize)> {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = line.iter().position(|byte| !is_blank(byte))?;
    let name = line.get(start..)?.split(|byte| matches!(byte, b' ' | b'\t' | b'\n' | 0)).next()?;
    (!name.is_empty()).then_some((start, start + name.len()))
}

fn of_elf(file: c_long, head: &[u8]) -> Option<ProgramName> {
    let layout = if head.get(4) == Some(&1) { ELF32 } else { ELF64 };
    let start = number(head, layout.headers_offset, layout.word)?;
    let (size, count) = (number(head, layout.header_size, 2)?, number(head, layout.header_count, 2)?);
    for position in (0..count).take(MAX_PROGRAM_HEADERS) {
        let mut header = [0; 64];
        read_at(file, start.checked_add(position * size)?, &mut header)?;
        if number(&header, 0, 4)? == PT_INTERP {
            let mut name = [0; HEAD_SIZE];
            read_at(file, number(&header, layout.segment_offset, layout.word)?, &mut name)?;
            return name.split(|byte| *byte == 0).next().map(ProgramName::new);
        }
    }
    None
}

/// A number of `size` bytes in the byte order of this machine.
fn number(bytes: &[u8], at: usize, size: usize) -> Option<u64> {
    let bytes = bytes.get(at..at + size)?;
    let add = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
    Some(if cfg!(target_endian = "little") { bytes.iter().rev().fold(0, add) } else { bytes.iter().fold(0, add) })
}

/// Opens the file and reads its beginning. `O_NONBLOCK`: opening a FIFO must not wait.
fn read_head(path: *const c_char, head: &mut [u8]) -> Option<(c_long, usize)> {
    let flags = c_long::from(libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY);
    let file = reading(libc::SYS_openat, [libc::AT_FDCWD.into(), path as c_long, flags]).ok()?;
    let length = read_at(file, 0, head);
    if length.is_none() {
        close(file);
    }
    Some((file, length?))
}

/// Reads up to the whole buffer, and returns how much; what is beyond the end of the file stays as it is.
fn read_at(file: c_long, offset: u64, buffer: &mut [u8]) -> Option<usize> {
    let arguments = [file, buffer.as_mut_ptr() as c_long, buffer.len() as c_long, offset.cast_signed()];
    // SAFETY: the buffer is writable for its length.
    unsafe { syscall(libc::SYS_pread64, arguments) }.ok().and_then(|length| length.try_into().ok())
}

fn close(file: c_long) {
    reading(libc::SYS_close, [file]).ok();
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    #[track_caller]
    fn check(content: &[u8], expect: (bool, Option<&str>)) {
        let path = std::env::temp_dir().join(format!("keepalive-target-{}-{}", std::process::id(), content.len()));
        std::fs::write(&path, content).unwrap();
        let name = CString::new(path.as_os_str().as_bytes()).unwrap();
        let found = (foreign_architecture(name.as_ptr()).is_some(), interpreter(name.as_ptr()));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(found, (expect.0, expect.1.map(|name| ProgramName::new(name.as_bytes()))), "{content:?}");
    }

    /// An ELF file with two program headers, the second of which names the loader.
    fn elf(class: u8, word: usize, layout: &Layout) -> Vec<u8> {
        let mut file = vec![0_u8; 400];
        file[..4].copy_from_slice(ELF_MAGIC);
        file[4] = class;
        let mut put =
            |at: usize, size: usize, value: u64| file[at..at + size].copy_from_slice(&value.to_ne_bytes()[..size]);
        put(layout.headers_offset, word, 100);
        put(layout.header_size, 2, 56);
        put(layout.header_count, 2, 2);
        put(100, 4, 6);
        put(156, 4, PT_INTERP);
        put(156 + layout.segment_offset, word, 300);
        file[300..313].copy_from_slice(b"/lib/ld-x.so\0");
        file
    }

    #[test]
    fn the_interpreter_of_a_script_and_the_loader_of_a_program_are_found() {
        check(b"#!/bin/sh\r\necho\r\n", (true, Some("/bin/sh\r")));
        check(b"#! \t/usr/bin/env node\n", (true, Some("/usr/bin/env")));
        check(b"#!\n", (false, None));
        check(b"echo\n", (false, None));
        check(b"", (false, None));
        check(b"echo\n\0", (false, None));
        check(b"MZ\x90\0\n", (true, None));
        check(b"\x7fELF", (true, None));
        check(&elf(2, 8, &ELF64), (true, Some("/lib/ld-x.so")));
        check(&elf(1, 4, &ELF32), (true, Some("/lib/ld-x.so")));
        assert!(
            foreign_architecture(c"/nonexistent".as_ptr()).is_none() && interpreter(c"/nonexistent".as_ptr()).is_none()
        );
    }
}

//! What of us is in memory: elf(5), madvise(2).

use std::ffi::c_void;

unsafe extern "C" {
    /// Where the header of our own file has been loaded; the linker provides it.
    static __ehdr_start: libc::Elf64_Ehdr;
}

/// Gives back the pages of our code and constants that are in our memory. Those that are needed again come back from
/// the page cache by themselves. Most of them never are, once everything has been started.
///
/// What has been written, relocations among it, is not touched.
pub fn release_code() {
    let address = &raw const __ehdr_start;
    // SAFETY: part of the program's first segment, which nobody can write.
    let header = unsafe { &*address };
    let (Ok(offset), base) = (usize::try_from(header.e_phoff), address.addr()) else { return };
    let table = address.cast::<u8>().wrapping_add(offset).cast::<libc::Elf64_Phdr>();
    // SAFETY: so many headers stand there, in the same segment.
    let segments = unsafe { std::slice::from_raw_parts(table, usize::from(header.e_phnum)) };
    let mut loaded = segments.iter().filter(|segment| segment.p_type == libc::PT_LOAD);
    let address = |segment: &libc::Elf64_Phdr| usize::try_from(segment.p_vaddr).unwrap_or(0);
    // How far from where it was linked to the program has been loaded.
    let Some(moved) = loaded.clone().next().and_then(|first| base.checked_sub(address(first))) else { return };
    for segment in loaded.by_ref().filter(|segment| segment.p_flags & libc::PF_W == 0) {
        release(moved + address(segment), usize::try_from(segment.p_memsz).unwrap_or(0));
    }
}

/// Gives back the pages from `start` on.
fn release(start: usize, length: usize) {
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
    let Some(size) = size.and_then(|size| usize::try_from(size).ok()) else { return };
    let into_page = start % size;
    // SAFETY: a mapping of our own file that nobody can write: what is let go of is read from there again. If that is
    // refused, it stays.
    unsafe { libc::madvise((start - into_page) as *mut c_void, length + into_page, libc::MADV_DONTNEED) };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// That it goes is tested with the program, which has one thread.
    #[test]
    fn code_that_is_needed_again_comes_back() {
        release_code();
        release_code();
        assert_eq!("a".repeat(3), "aaa");
    }
}

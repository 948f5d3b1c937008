//! The program's own pages in memory: elf(5), madvise(2).

use std::ffi::c_void;

unsafe extern "C" {
    /// The ELF header of the program in memory. The linker defines this symbol.
    static __ehdr_start: libc::Elf64_Ehdr;
}

/// More read-only segments than linkers make: one each for headers, code and constants.
const MAX_SEGMENTS: usize = 4;

/// Releases the pages of code and constants. The kernel reads a page that is needed again from the page cache. Most are
/// never needed again after startup.
///
/// Writable segments, relocations included, are not released.
pub fn release_code_pages() {
    let address = &raw const __ehdr_start;
    // SAFETY: the header is part of the program's first segment, which is read-only and always mapped.
    let header = unsafe { &*address };
    let (Ok(offset), base) = (usize::try_from(header.e_phoff), address.addr()) else { return };
    let table = address.cast::<u8>().wrapping_add(offset).cast::<libc::Elf64_Phdr>();
    // SAFETY: the ELF header says that `e_phnum` program headers follow at this offset, in the same segment.
    let segments = unsafe { std::slice::from_raw_parts(table, usize::from(header.e_phnum)) };
    let loaded = segments.iter().filter(|segment| segment.p_type == libc::PT_LOAD);
    let address = |segment: &libc::Elf64_Phdr| usize::try_from(segment.p_vaddr).unwrap_or(0);
    // The difference between the addresses at which the program was loaded and linked.
    let Some(load_bias) = loaded.clone().next().and_then(|first| base.checked_sub(address(first))) else { return };
    let range =
        |segment: &libc::Elf64_Phdr| (load_bias + address(segment), usize::try_from(segment.p_memsz).unwrap_or(0));
    // The headers and the constants that an allocator uses are in one of the segments: nothing reads them after the first
    // release, or they would be mapped again, and the pages around them too.
    let mut ranges = [(0, 0); MAX_SEGMENTS];
    for (slot, segment) in ranges.iter_mut().zip(loaded.filter(|segment| segment.p_flags & libc::PF_W == 0)) {
        *slot = range(segment);
    }
    let size = page_size();
    for (start, length) in ranges {
        release(start, length, size);
    }
}

/// The size of a page in bytes, getauxval(3) `AT_PAGESZ`.
pub(super) fn page_size() -> usize {
    // SAFETY: reads what the kernel has passed to the program, which does not change.
    let size = unsafe { libc::getauxval(libc::AT_PAGESZ) };
    usize::try_from(size).ok().filter(|size| *size > 0).unwrap_or(4096)
}

/// `size`: that of a page.
fn release(start: usize, length: usize, size: usize) {
    let into_page = start % size;
    // SAFETY: a read-only mapping of the program's own file: released pages are read from the file again with the same
    // content. On failure the pages stay.
    unsafe { libc::madvise((start - into_page) as *mut c_void, length + into_page, libc::MADV_DONTNEED) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_size_is_that_of_sysconf() {
        let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).unwrap().unwrap();
        assert_eq!(i64::try_from(page_size()), Ok(size));
    }

    /// Tests of the whole program check that memory is released.
    #[test]
    fn code_still_runs_after_its_pages_are_released() {
        release_code_pages();
        release_code_pages();
        assert_eq!("a".repeat(3), "aaa");
    }
}

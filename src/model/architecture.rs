//! The architectures of programs: `e_machine` of elf(5).

/// The bytes with which an ELF file begins.
pub const ELF_MAGIC: &[u8] = b"\x7fELF";

/// `e_machine` of keepalive itself; 0: not known.
const OWN: u16 = if cfg!(target_arch = "x86_64") {
    62
} else if cfg!(target_arch = "aarch64") {
    183
} else {
    0
};

/// The architecture whose programs most machines with this one can execute, too.
pub const COMPATIBLE: &str = if cfg!(target_arch = "x86_64") { "i386" } else { "arm" };

/// The architecture of the ELF file that begins with `head`, if it is not that of keepalive.
#[must_use]
pub fn foreign(head: &[u8]) -> Option<&'static str> {
    let machine = head.strip_prefix(ELF_MAGIC)?.get(14..16)?;
    // The byte order is a byte of its own, `EI_DATA`.
    let machine = machine.iter().rev().fold(0, |number, byte| number << 8 | u16::from(*byte));
    let machine = if head.get(5) == Some(&2) { machine.swap_bytes() } else { machine };
    let name = match machine {
        0 => return None,
        3 => "i386",
        21 => "ppc64",
        22 => "s390x",
        40 => "arm",
        62 => "x86_64",
        183 => "aarch64",
        243 => "riscv",
        _ => "another architecture",
    };
    (machine != OWN && OWN > 0).then_some(name)
}

/// Whether a file that begins with `head` may be a script without `#!`, which the shell executes: as for bash, its first line
/// has no NUL byte.
#[must_use]
pub fn is_text(head: &[u8]) -> bool {
    let mut first_line = head.iter().take_while(|byte| **byte != b'\n');
    !head.starts_with(ELF_MAGIC) && first_line.all(|byte| *byte != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    // elf(5)
    #[test]
    fn the_architecture_of_a_file_is_named_unless_it_is_our_own() {
        let head = |order: u8, machine: [u8; 2]| {
            let mut head = [0; 64];
            head[..4].copy_from_slice(ELF_MAGIC);
            head[5] = order;
            head[18..20].copy_from_slice(&machine);
            head
        };
        let own = if cfg!(target_arch = "x86_64") { "x86_64" } else { "aarch64" };
        for (order, machine, name) in [
            (1, [62, 0], "x86_64"),
            (1, [183, 0], "aarch64"),
            (2, [0, 22], "s390x"),
            (1, [9, 9], "another architecture"),
        ] {
            assert_eq!(foreign(&head(order, machine)), Some(name).filter(|name| *name != own));
        }
        assert_eq!((foreign(&head(1, [0, 0])), foreign(b"\x7fELF\x02\x01"), foreign(b"#!/bin/sh")), (None, None, None));
    }
}

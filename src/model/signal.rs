//! Signals by number and name, signal(7).

use std::fmt;

/// A signal number, 1…64.
///
/// `SIGRTMIN` is 34 as in glibc, whichever libc the program is linked with, because container engines send these numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signal(u8);

const RTMIN: u8 = 34;
const RTMAX: u8 = 64;

/// The names on x86, arm, riscv, powerpc and s390; the position is the number − 1.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];

/// Other common names of signals.
const ALIASES: [(&str, u8); 4] = [("IOT", 6), ("CLD", 17), ("POLL", 29), ("UNUSED", 31)];

#[allow(missing_docs, reason = "the names are those of signal(7)")]
impl Signal {
    pub const HUP: Self = Self(1);
    pub const INT: Self = Self(2);
    pub const QUIT: Self = Self(3);
    pub const ABRT: Self = Self(6);
    pub const ILL: Self = Self(4);
    pub const TRAP: Self = Self(5);
    pub const KILL: Self = Self(9);
    pub const USR1: Self = Self(10);
    pub const USR2: Self = Self(12);
    pub const PIPE: Self = Self(13);
    pub const TERM: Self = Self(15);
    pub const CHLD: Self = Self(17);
    pub const CONT: Self = Self(18);
    pub const STOP: Self = Self(19);
    pub const TSTP: Self = Self(20);
    pub const TTIN: Self = Self(21);
    pub const TTOU: Self = Self(22);
    pub const XFSZ: Self = Self(25);
    pub const WINCH: Self = Self(28);
    pub const PWR: Self = Self(30);
    pub const RTMIN_3: Self = Self(RTMIN + 3);
}

impl Signal {
    /// `None` outside 1…64.
    #[must_use]
    pub const fn new(number: u8) -> Option<Self> {
        if number >= 1 && number <= RTMAX { Some(Self(number)) } else { None }
    }

    /// The signal number, 1…64.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// The bit of this signal in the kernel's signal set.
    #[must_use]
    pub const fn bit(self) -> u64 {
        1 << (self.0 - 1)
    }

    /// All 64 signals.
    pub fn all() -> impl Iterator<Item = Self> {
        (1..=RTMAX).map(Self)
    }

    /// Whether a process can catch, block or ignore it: true for all except `SIGKILL` and `SIGSTOP`.
    #[must_use]
    pub fn is_catchable(self) -> bool {
        self != Self::KILL && self != Self::STOP
    }

    /// Parses `TERM`, `SIGTERM`, `sigterm`, `15`, `RTMIN+3`, `SIGRTMAX-1`; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Self::new(text.parse().ok()?);
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some(position) = NAMES.iter().position(|known| *known == name) {
            return Self::new(u8::try_from(position + 1).ok()?);
        }
        if let Some((_, number)) = ALIASES.iter().find(|(alias, _)| *alias == name) {
            return Self::new(*number);
        }
        Self::parse_real_time(name)
    }

    fn parse_real_time(name: &str) -> Option<Self> {
        let number = if let Some(offset) = name.strip_prefix("RTMIN") {
            RTMIN.checked_add(parse_offset(offset, '+')?)?
        } else {
            RTMAX.checked_sub(parse_offset(name.strip_prefix("RTMAX")?, '-')?)?
        };
        Self::new(number).filter(|signal| signal.0 >= RTMIN)
    }
}

/// Parses an empty text as 0, and a number after `sign`, such as `+3`, as 3.
fn parse_offset(text: &str, sign: char) -> Option<u8> {
    if text.is_empty() {
        return Some(0);
    }
    let digits = text.strip_prefix(sign)?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

impl fmt::Display for Signal {
    /// `SIGTERM`, `SIGRTMIN`, `SIGRTMIN+3`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.get(usize::from(self.0) - 1) {
            Some(name) => write!(formatter, "SIG{name}"),
            None if self.0 == RTMIN => formatter.write_str("SIGRTMIN"),
            None if self.0 > RTMIN => write!(formatter, "SIGRTMIN+{}", self.0 - RTMIN),
            None => write!(formatter, "signal {}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: Option<u8>) {
        assert_eq!(Signal::parse(text).map(Signal::number), expect, "{text}");
    }

    #[test]
    fn names_are_parsed_with_and_without_sig_and_as_numbers() {
        check("TERM", Some(15));
        check("SIGTERM", Some(15));
        check("sigterm", Some(15));
        check("15", Some(15));
        check("IOT", Some(6));
        check("RTMIN", Some(34));
        check("SIGRTMIN+3", Some(37));
        check("RTMAX-1", Some(63));
    }

    #[test]
    fn text_that_is_not_a_signal_is_rejected() {
        for text in [
            "",
            "0",
            "65",
            "-1",
            "+15",
            "TERMX",
            "SIG",
            "SIGSIGTERM",
            "RTMIN+31",
            "RTMIN-1",
            "RTMAX+1",
            "RTMAX-31",
            "RTMIN+",
            "RTMIN++1",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn parsing_a_displayed_signal_gives_the_same_signal() {
        for signal in Signal::all().filter(|signal| !(32..RTMIN).contains(&signal.number())) {
            assert_eq!(Signal::parse(&signal.to_string()), Some(signal));
        }
    }
}

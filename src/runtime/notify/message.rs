//! Parses the datagrams of sd_notify(3). Unknown fields and invalid values are ignored.

use std::time::Duration;

use crate::model::{Mono, Pid};

/// The maximum length of a datagram, in bytes: as in systemd.
pub(super) const MAX_DATAGRAM: usize = 4096;
/// The `FDNAME` of descriptors that are stored without one.
const UNNAMED: &str = "stored";
/// The maximum length of `FDNAME`, in bytes: as in systemd.
const MAX_NAME: usize = 255;
/// The maximum length of `STATUS`, in bytes. The rest is cut off.
const MAX_STATUS: usize = 512;
/// The value that turns a timeout off: as in systemd.
const NEVER: Duration = Duration::from_micros(u64::MAX);

/// A parsed datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message<'a> {
    /// `BARRIER=1`: its descriptor is closed after all earlier messages have been handled.
    Barrier,
    /// Any other message.
    Fields(NotifyFields<'a>),
}

/// Why a datagram is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MessageError {
    /// It has a zero byte before its end.
    Binary,
    /// `BARRIER=1` with other lines.
    MixedBarrier,
}

impl MessageError {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Binary => "not a text",
            Self::MixedBarrier => "`BARRIER=1` must be the only line",
        }
    }
}

/// The fields of a message.
#[expect(clippy::struct_excessive_bools, reason = "each is a line of the datagram, there or not")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NotifyFields<'a> {
    /// `READY=1`
    pub(super) is_ready: bool,
    /// `RELOADING=1`
    pub(super) reloads: bool,
    /// `STOPPING=1`
    pub(super) stops: bool,
    /// `MONOTONIC_USEC`: the time of the message.
    pub(super) at: Option<Mono>,
    /// `RESTART_RESET=1`
    pub(super) resets_failures: bool,
    /// `NOTIFYACCESS`
    pub(super) access: Option<Access>,
    /// `STATUS`; empty: the status is removed.
    pub(super) status: Option<&'a str>,
    /// `ERRNO`.
    pub(super) errno: Option<i32>,
    /// `EXIT_STATUS`.
    pub(super) exit_status: Option<u8>,
    /// `MAINPID`.
    pub(super) main_pid: Option<Pid>,
    /// `MAINPIDFD=1`: the descriptor is a pidfd of the main process.
    pub(super) has_main_pidfd: bool,
    pub(super) watchdog: Option<Watchdog>,
    /// `WATCHDOG_USEC`; zero turns the watchdog off.
    pub(super) watchdog_every: Option<Duration>,
    /// `EXTEND_TIMEOUT_USEC`.
    pub(super) extend: Option<Duration>,
    pub(super) store: Store<'a>,
}

/// `NOTIFYACCESS`: the processes that may send messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Access {
    /// All processes of the instance.
    #[default]
    All,
    /// The main process.
    Main,
    Nobody,
}

/// `WATCHDOG`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Watchdog {
    /// `1`
    Ping,
    /// `trigger`
    Trigger,
}

/// What to do with the descriptors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Store<'a> {
    /// Close them.
    #[default]
    Nothing,
    /// `FDSTORE=1`: store them.
    Keep {
        /// `FDNAME`, or the default name.
        name: &'a str,
        /// Whether they are dropped when their other end is closed; false with `FDPOLL=0`.
        drop_on_hangup: bool,
    },
    /// `FDSTOREREMOVE=1`: remove the stored descriptors with this name.
    Drop {
        /// `FDNAME`.
        name: &'a str,
    },
}

impl<'a> Message<'a> {
    /// Parses a datagram: one assignment on each line. The first assignment to a name counts.
    pub(super) fn parse(datagram: &'a [u8]) -> Result<Self, MessageError> {
        let text = datagram.strip_suffix(b"\0").unwrap_or(datagram);
        if text.contains(&0) {
            return Err(MessageError::Binary);
        }
        let lines = || text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        if lines().any(|line| line == b"BARRIER=1") {
            return if lines().count() == 1 { Ok(Self::Barrier) } else { Err(MessageError::MixedBarrier) };
        }
        let mut fields = NotifyFields::default();
        let mut seen = 0_u32;
        let (mut name, mut keep, mut drop, mut drop_on_hangup) = (None, false, false, true);
        for line in lines() {
            let Some((field, value)) = split(line) else { continue };
            if seen & field.bit() != 0 {
                continue;
            }
            seen |= field.bit();
            match field {
                Field::Ready => fields.is_ready = value == "1",
                Field::Reloading => fields.reloads = value == "1",
                Field::Stopping => fields.stops = value == "1",
                Field::Monotonic => fields.at = microseconds(value).map(|time| Mono::from_nanos(0) + time),
                Field::RestartReset => fields.resets_failures = value == "1",
                Field::Access => fields.access = access(value),
                Field::Status => fields.status = Some(cut(value)),
                Field::Errno => fields.errno = value.parse().ok().filter(|errno| *errno > 0),
                Field::ExitStatus => fields.exit_status = value.parse().ok(),
                Field::MainPid => fields.main_pid = value.parse().ok().and_then(Pid::new),
                Field::MainPidFd => fields.has_main_pidfd = value == "1",
                Field::Watchdog if value == "1" => fields.watchdog = Some(Watchdog::Ping),
                Field::Watchdog if value == "trigger" => fields.watchdog = Some(Watchdog::Trigger),
                Field::WatchdogEvery => {
                    let never = |every: Duration| if every == NEVER { Duration::ZERO } else { every };
                    fields.watchdog_every = microseconds(value).map(never);
                }
                Field::Extend => fields.extend = microseconds(value),
                Field::Name => name = Some(value).filter(|name| is_name(name)),
                Field::Keep => keep = value == "1",
                Field::Drop => drop = value == "1",
                Field::Poll => drop_on_hangup = value != "0",
                Field::Watchdog => {}
            }
        }
        fields.store = match name {
            Some(name) if drop => Store::Drop { name },
            // A removal needs a name.
            None if drop => Store::Nothing,
            name if keep => Store::Keep { name: name.unwrap_or(UNNAMED), drop_on_hangup },
            _ => Store::Nothing,
        };
        Ok(Self::Fields(fields))
    }
}

/// The known names.
#[derive(Clone, Copy)]
enum Field {
    Ready,
    Reloading,
    Stopping,
    Monotonic,
    RestartReset,
    Access,
    MainPidFd,
    Status,
    Errno,
    ExitStatus,
    MainPid,
    Watchdog,
    WatchdogEvery,
    Extend,
    Name,
    Keep,
    Drop,
    Poll,
}

impl Field {
    fn of(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"READY" => Self::Ready,
            b"RELOADING" => Self::Reloading,
            b"STOPPING" => Self::Stopping,
            b"MONOTONIC_USEC" => Self::Monotonic,
            b"RESTART_RESET" => Self::RestartReset,
            b"NOTIFYACCESS" => Self::Access,
            b"MAINPIDFD" => Self::MainPidFd,
            b"STATUS" => Self::Status,
            b"ERRNO" => Self::Errno,
            b"EXIT_STATUS" => Self::ExitStatus,
            b"MAINPID" => Self::MainPid,
            b"WATCHDOG" => Self::Watchdog,
            b"WATCHDOG_USEC" => Self::WatchdogEvery,
            b"EXTEND_TIMEOUT_USEC" => Self::Extend,
            b"FDNAME" => Self::Name,
            b"FDSTORE" => Self::Keep,
            b"FDSTOREREMOVE" => Self::Drop,
            b"FDPOLL" => Self::Poll,
            _ => return None,
        })
    }

    /// A bit mask for the set of fields.
    const fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// `NAME=value`, if the name is known and the value is UTF-8.
fn split(line: &[u8]) -> Option<(Field, &str)> {
    let position = line.iter().position(|byte| *byte == b'=')?;
    let (name, value) = line.split_at_checked(position)?;
    Some((Field::of(name)?, str::from_utf8(value.get(1..)?).ok()?))
}

/// `exec` means the main and control processes; keepalive has no control processes.
fn access(value: &str) -> Option<Access> {
    match value {
        "all" => Some(Access::All),
        "main" | "exec" => Some(Access::Main),
        "none" => Some(Access::Nobody),
        _ => None,
    }
}

fn cut(status: &str) -> &str {
    status.get(..status.floor_char_boundary(MAX_STATUS)).unwrap_or(status)
}

fn microseconds(value: &str) -> Option<Duration> {
    let is_number = value.bytes().all(|byte| byte.is_ascii_digit());
    value.parse().ok().filter(|_| is_number).map(Duration::from_micros)
}

/// ASCII without control characters and `:`, which stands between the names in `LISTEN_FDNAMES`.
fn is_name(name: &str) -> bool {
    name.len() <= MAX_NAME && name.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(datagram: &[u8], expect: NotifyFields<'_>) {
        assert_eq!(Message::parse(datagram), Ok(Message::Fields(expect)), "{}", datagram.escape_ascii());
    }

    #[test]
    fn every_known_field_is_parsed() {
        let all = b"READY=1\nSTATUS=up\nERRNO=2\nBUSERROR=x.y\nEXIT_STATUS=3\nMAINPID=4711\nWATCHDOG=1\n\
            WATCHDOG_USEC=20000000\nEXTEND_TIMEOUT_USEC=1500\nFDSTORE=1\nFDNAME=a b\nFDPOLL=0\nX_MINE=1\nMONOTONIC_USEC=7\n\
            RESTART_RESET=1\nNOTIFYACCESS=main\nMAINPIDFD=1\n";
        let expect = NotifyFields {
            is_ready: true,
            at: Some(Mono::from_nanos(7_000)),
            resets_failures: true,
            access: Some(Access::Main),
            status: Some("up"),
            errno: Some(2),
            exit_status: Some(3),
            main_pid: Pid::new(4711),
            has_main_pidfd: true,
            watchdog: Some(Watchdog::Ping),
            watchdog_every: Some(Duration::from_secs(20)),
            extend: Some(Duration::from_micros(1500)),
            store: Store::Keep { name: "a b", drop_on_hangup: false },
            ..NotifyFields::default()
        };
        check(all, expect);
    }

    #[test]
    fn the_first_assignment_to_each_name_counts() {
        check(b"READY=1\nSTOPPING=1", NotifyFields { is_ready: true, stops: true, ..NotifyFields::default() });
        let reload = NotifyFields {
            reloads: true,
            is_ready: true,
            at: Some(Mono::from_nanos(5_000)),
            ..NotifyFields::default()
        };
        check(b"READY=1\nRELOADING=1\nMONOTONIC_USEC=5\n", reload.clone());
        check(b"RELOADING=1\nMONOTONIC_USEC=5\nREADY=1\nREADY=0\nMONOTONIC_USEC=9", reload);
        check(b"STATUS=a\nSTATUS=b", NotifyFields { status: Some("a"), ..NotifyFields::default() });
    }

    #[test]
    fn notify_access_has_four_values() {
        let access = |access| NotifyFields { access, ..NotifyFields::default() };
        check(b"NOTIFYACCESS=all", access(Some(Access::All)));
        check(b"NOTIFYACCESS=exec", access(Some(Access::Main)));
        check(b"NOTIFYACCESS=none", access(Some(Access::Nobody)));
        check(b"NOTIFYACCESS=MAIN", access(None));
    }

    #[test]
    fn invalid_values_are_ignored() {
        for nonsense in [
            &b""[..],
            b"\n\n\n",
            b"\0",
            b"READY",
            b"READY=0",
            b"READY=1 ",
            b" READY=1",
            b"ready=1",
            b"=1",
            b"ERRNO=-2\nEXIT_STATUS=256\nMAINPID=0\nMAINPID=5",
            b"MAINPID=-7",
            b"MAINPID=99999999999999999999",
            b"WATCHDOG=2",
            b"WATCHDOG_USEC=-1\nEXTEND_TIMEOUT_USEC=1s",
            b"WATCHDOG_USEC=+1\nEXTEND_TIMEOUT_USEC=",
            b"STATUS=\xff\xfe",
            b"FDSTORE=0\nFDNAME=x",
            b"FDSTOREREMOVE=1",
            b"FDSTOREREMOVE=1\nFDSTORE=1\nFDNAME=a:b",
        ] {
            check(nonsense, NotifyFields::default());
        }
        assert_eq!(Message::parse(b"READY=1\0STATUS=x"), Err(MessageError::Binary));
        check(b"READY=1\0", NotifyFields { is_ready: true, ..NotifyFields::default() });
    }

    #[test]
    fn a_barrier_must_be_the_only_line() {
        assert_eq!(Message::parse(b"BARRIER=1"), Ok(Message::Barrier));
        assert_eq!(Message::parse(b"BARRIER=1\n"), Ok(Message::Barrier));
        assert_eq!(Message::parse(b"READY=1\nBARRIER=1"), Err(MessageError::MixedBarrier));
        check(b"BARRIER=0", NotifyFields::default());
    }

    #[test]
    fn an_invalid_name_is_replaced_by_the_default() {
        let keep = |name| NotifyFields { store: Store::Keep { name, drop_on_hangup: true }, ..NotifyFields::default() };
        check(b"FDSTORE=1", keep("stored"));
        check(b"FDSTORE=1\nFDNAME=", keep(""));
        check(b"FDSTORE=1\nFDNAME=a:b", keep("stored"));
        check(b"FDNAME=\tx\nFDSTORE=1", keep("stored"));
        check("FDSTORE=1\nFDNAME=ä".as_bytes(), keep("stored"));
        let long = "x".repeat(255);
        check(format!("FDSTORE=1\nFDNAME={long}").as_bytes(), keep(&long));
        check(format!("FDSTORE=1\nFDNAME={long}x").as_bytes(), keep("stored"));
        check(
            b"FDNAME=a\nFDSTOREREMOVE=1",
            NotifyFields { store: Store::Drop { name: "a" }, ..NotifyFields::default() },
        );
    }

    #[test]
    fn a_long_status_is_cut_and_the_maximum_turns_the_watchdog_off() {
        let status = format!("STATUS={}", "ä".repeat(3_000));
        check(status.as_bytes(), NotifyFields { status: Some(&"ä".repeat(256)), ..NotifyFields::default() });
        check(b"STATUS=", NotifyFields { status: Some(""), ..NotifyFields::default() });
        let off = NotifyFields { watchdog_every: Some(Duration::ZERO), ..NotifyFields::default() };
        check(b"WATCHDOG_USEC=18446744073709551615", off.clone());
        check(b"WATCHDOG_USEC=0", off);
        check(
            b"EXTEND_TIMEOUT_USEC=18446744073709551615",
            NotifyFields { extend: Some(NEVER), ..NotifyFields::default() },
        );
        let many = "X=1\n".repeat(10_000) + "READY=1";
        check(many.as_bytes(), NotifyFields { is_ready: true, ..NotifyFields::default() });
    }

    #[test]
    fn random_bytes_do_not_make_the_parser_panic() {
        let mut state = 1_u64;
        let words: [&[u8]; 8] = [b"READY=1", b"\n", b"=", b"FDNAME=", b"STATUS=", b"\0", b"MAINPID=", b"BARRIER=1"];
        for _ in 0..20_000 {
            let mut datagram = Vec::new();
            for _ in 0..6 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let [.., byte, choice] = state.to_le_bytes();
                datagram.extend_from_slice(words[usize::from(choice % 8)]);
                datagram.push(byte);
            }
            // The status is part of the datagram.
            if let Ok(Message::Fields(NotifyFields { status: Some(status), .. })) = Message::parse(&datagram) {
                assert!(
                    datagram.windows(status.len().max(1)).any(|part| part == status.as_bytes()) || status.is_empty()
                );
            }
        }
    }
}

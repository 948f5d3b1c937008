//! The packets between keepalive and a descriptor holder.
//!
//! Each command is answered by one [`Answer`]. Both sides are the same program, so the format is not fixed.

use crate::model::Pid;

/// The maximum size of a packet in bytes: the names of as many descriptors as a process can inherit.
pub(super) const MAX_PACKET: usize = 253 * 256 + 64;

/// What a holder is to do. `Take` and `Give` come with a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command<'a> {
    /// Take the next datagram of the notification socket.
    Take { instance: u32, usage: Usage<'a> },
    /// Drop the descriptors with this name.
    DropNamed { instance: u32, name: &'a str },
    /// Drop all descriptors.
    Forget { instance: u32 },
    /// Send all descriptors over the socket.
    Give { instance: u32 },
}

/// What is done with the descriptors of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::runtime) enum Usage<'a> {
    /// They are closed.
    Close,
    /// The only one is a pidfd, `MAINPIDFD=1`: it is read and closed.
    ReadPid,
    /// `FDSTORE=1`
    Keep(Keep<'a>),
}

/// How descriptors are to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::runtime) struct Keep<'a> {
    pub(in crate::runtime) name: &'a str,
    /// Whether they are dropped when their other end is closed.
    pub(in crate::runtime) drop_on_hangup: bool,
    /// `fd_store`: the number of descriptors that an instance can store.
    pub(in crate::runtime) limit: u32,
}

/// The answer of a holder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// It answers no command: the other end of a descriptor has been closed.
    pub(super) is_notice: bool,
    pub(super) instance: u32,
    pub(super) refused: Refused,
    /// `MAINPIDFD=1`: the process that the only descriptor of the datagram refers to.
    pub(super) main_pid: Option<Pid>,
    /// The names of all descriptors that are stored for the instance.
    pub(super) names: Vec<Box<str>>,
}

/// Numbers of descriptors that were not stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::runtime) struct Refused {
    /// Those above the limit of the service.
    pub(in crate::runtime) surplus: u32,
    /// The holder could not open all of them.
    pub(in crate::runtime) has_lost: bool,
}

/// Writes and reads the numbers of a packet, and the text at its end.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn number(&mut self) -> Option<u32> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_ne_bytes(*number))
    }

    fn text(self) -> Option<&'a str> {
        str::from_utf8(self.0).ok()
    }
}

fn packet(numbers: &[u32], text: &str) -> Vec<u8> {
    let mut packet: Vec<u8> = numbers.iter().flat_map(|number| number.to_ne_bytes()).collect();
    packet.extend_from_slice(text.as_bytes());
    packet
}

impl<'a> Command<'a> {
    pub(super) fn encode(self) -> Vec<u8> {
        match self {
            Self::Take { instance, usage: Usage::Close } => packet(&[0, instance], ""),
            Self::Take { instance, usage: Usage::ReadPid } => packet(&[1, instance], ""),
            Self::Take { instance, usage: Usage::Keep(Keep { name, drop_on_hangup, limit }) } => {
                packet(&[2, instance, drop_on_hangup.into(), limit], name)
            }
            Self::DropNamed { instance, name } => packet(&[3, instance], name),
            Self::Forget { instance } => packet(&[4, instance], ""),
            Self::Give { instance } => packet(&[5, instance], ""),
        }
    }

    pub(super) fn decode(packet: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(packet);
        let (kind, instance) = (reader.number()?, reader.number()?);
        Some(match kind {
            0 => Self::Take { instance, usage: Usage::Close },
            1 => Self::Take { instance, usage: Usage::ReadPid },
            2 => {
                let (drop_on_hangup, limit) = (reader.number()? != 0, reader.number()?);
                Self::Take { instance, usage: Usage::Keep(Keep { name: reader.text()?, drop_on_hangup, limit }) }
            }
            3 => Self::DropNamed { instance, name: reader.text()? },
            4 => Self::Forget { instance },
            5 => Self::Give { instance },
            _ => return None,
        })
    }
}

impl Answer {
    pub(super) fn encode(&self) -> Vec<u8> {
        let main_pid = self.main_pid.map_or(0, Pid::get).unsigned_abs();
        let count = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        let Refused { surplus, has_lost } = self.refused;
        // A name has no `:`.
        let numbers = [self.is_notice.into(), self.instance, surplus, has_lost.into(), main_pid, count];
        packet(&numbers, &self.names.join(":"))
    }

    pub(super) fn decode(packet: &[u8]) -> Option<Self> {
        let mut reader = Reader(packet);
        let mut number = || reader.number();
        let (is_notice, instance) = (number()? != 0, number()?);
        let refused = Refused { surplus: number()?, has_lost: number()? != 0 };
        let main_pid = i32::try_from(number()?).ok().and_then(Pid::new);
        let count = number()? as usize;
        let names = reader.text()?.split(':').map(Box::from).take(count).collect();
        Some(Self { is_notice, instance, refused, main_pid, names })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_is_decoded_to_itself() {
        let keep = Keep { name: "a", drop_on_hangup: true, limit: 7 };
        let commands = [
            Command::Take { instance: 1, usage: Usage::Close },
            Command::Take { instance: 1, usage: Usage::ReadPid },
            Command::Take { instance: 2, usage: Usage::Keep(keep) },
            Command::Take {
                instance: 2,
                usage: Usage::Keep(Keep { name: "", drop_on_hangup: false, limit: u32::MAX }),
            },
            Command::DropNamed { instance: 3, name: "one two" },
            Command::Forget { instance: u32::MAX },
            Command::Give { instance: 0 },
        ];
        for command in commands {
            assert_eq!(Command::decode(&command.encode()), Some(command));
        }
        assert_eq!(Command::decode(&[]), None);
        assert_eq!(Command::decode(&packet(&[6, 0], "")), None);
    }

    #[test]
    fn each_answer_is_decoded_to_itself() {
        for names in [&[][..], &[""], &["a"], &["a", "", "c d"]] {
            let names = names.iter().map(|name| Box::from(*name)).collect();
            let refused = Refused { surplus: 3, has_lost: true };
            let answer = Answer { is_notice: true, instance: 9, refused, main_pid: Pid::new(42), names };
            assert_eq!(Answer::decode(&answer.encode()), Some(answer));
        }
        assert_eq!(Answer::decode(&Answer::default().encode()), Some(Answer::default()));
        assert_eq!(Answer::decode(b"short"), None);
    }
}

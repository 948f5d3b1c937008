//! The descriptor holder: a process that owns the descriptors that services have sent.
//!
//! Any system call on such a descriptor may hang, closing it too. Then the holder does not answer, and is killed.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::libc::linger;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};

use super::protocol::{Answer, Command, MAX_PACKET, Refused, Usage};
use crate::model::Pid;
use crate::model::map::Map;
use crate::sys::{datagram, kcmp, packet, process, procfs};

/// The stored descriptors of each instance.
#[derive(Debug, Default)]
struct Holder {
    slots: Map<u32, Vec<Stored>>,
}

#[derive(Debug)]
struct Stored {
    name: Box<str>,
    descriptor: OwnedFd,
    drop_on_hangup: bool,
}

/// Serves until keepalive closes its end of `channel`. Returns the exit code.
pub(super) fn serve(channel: &OwnedFd) -> u8 {
    // The limit for services is keepalive's own; here only the hard one counts.
    process::set_descriptor_limit(u64::MAX).ok();
    let mut holder = Holder::default();
    let mut buffer = vec![0; MAX_PACKET];
    loop {
        let (has_command, hung_up) = holder.wait(channel);
        for instance in hung_up {
            let answer = Answer { is_notice: true, ..holder.answer(instance) };
            packet::send(channel, &answer.encode(), None).ok();
        }
        if !has_command {
            continue;
        }
        let (length, socket) = match packet::receive(channel, &mut buffer) {
            Ok((0, _)) => return 0,
            Ok(received) => received,
            Err(Errno::EAGAIN | Errno::EINTR) => continue,
            Err(_) => return 1,
        };
        let Some(command) = Command::decode(buffer.get(..length).unwrap_or_default()) else { return 1 };
        let answer = holder.perform(command, socket.as_ref().map(OwnedFd::as_fd));
        // Before the answer, which says that nothing hangs.
        drop(socket);
        if packet::send(channel, &answer.encode(), None).is_err() {
            return 1;
        }
    }
}

impl Holder {
    /// Waits for a command, or until the other end of a stored descriptor is closed. Returns whether there is a command,
    /// and the instances of which descriptors have been dropped.
    fn wait(&mut self, channel: &OwnedFd) -> (bool, Vec<u32>) {
        let watched = || self.slots.values().flatten().filter(|stored| stored.drop_on_hangup);
        let mut polled = vec![PollFd::new(channel.as_fd(), PollFlags::POLLIN)];
        polled.extend(watched().map(|stored| PollFd::new(stored.descriptor.as_fd(), PollFlags::empty())));
        if poll(&mut polled, PollTimeout::NONE).is_err() {
            return (false, Vec::new());
        }
        let is_set = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
        let mut ready: Vec<bool> = polled.iter().map(is_set).collect();
        let has_command = ready.remove(0);
        if !ready.contains(&true) {
            return (has_command, Vec::new());
        }
        let mut ready = ready.into_iter();
        let mut changed = Vec::new();
        for (instance, slot) in self.slots.iter_mut() {
            let dropped = slot.extract_if(.., |stored| stored.drop_on_hangup && ready.next() == Some(true));
            if close(dropped.map(|stored| stored.descriptor)) > 0 {
                changed.push(*instance);
            }
        }
        (has_command, changed)
    }

    fn perform(&mut self, command: Command<'_>, socket: Option<BorrowedFd<'_>>) -> Answer {
        match command {
            Command::Take { instance, usage } => {
                let (refused, main_pid) = socket.map(|socket| self.take(instance, usage, socket)).unwrap_or_default();
                Answer { refused, main_pid, ..self.answer(instance) }
            }
            Command::DropNamed { instance, name } => {
                if let Some(slot) = self.slots.get_mut(&instance) {
                    let dropped = slot.extract_if(.., |stored| &*stored.name == name);
                    close(dropped.map(|stored| stored.descriptor));
                }
                self.answer(instance)
            }
            Command::Forget { instance } => {
                let dropped = self.slots.remove(&instance).unwrap_or_default();
                close(dropped.into_iter().map(|stored| stored.descriptor));
                self.answer(instance)
            }
            Command::Give { instance } => {
                let stored = self.slots.get(&instance).map(Vec::as_slice).unwrap_or_default();
                let descriptors: Vec<_> = stored.iter().map(|stored| stored.descriptor.as_fd()).collect();
                // The process may have exited. If not, it gets nothing, and fails.
                socket.map(|socket| datagram::send_descriptors(socket, &descriptors));
                self.answer(instance)
            }
        }
    }

    fn answer(&self, instance: u32) -> Answer {
        let stored = self.slots.get(&instance).map(Vec::as_slice).unwrap_or_default();
        Answer { instance, names: stored.iter().map(|stored| stored.name.clone()).collect(), ..Answer::default() }
    }

    /// Takes the next datagram of a notification socket.
    fn take(&mut self, instance: u32, usage: Usage<'_>, socket: BorrowedFd<'_>) -> (Refused, Option<Pid>) {
        let Ok((datagram, descriptors)) = datagram::receive_descriptors(socket, &mut []) else {
            return (Refused::default(), None);
        };
        let mut refused = Refused { surplus: 0, has_lost: datagram.has_descriptors };
        let Usage::Keep(keep) = usage else {
            let main_pid = match &descriptors[..] {
                [pidfd] if usage == Usage::ReadPid => procfs::pid_of_pidfd(pidfd),
                _ => None,
            };
            close(descriptors.into_iter());
            return (refused, main_pid);
        };
        let slot = self.slots.entry(instance);
        let mut rejected = Vec::new();
        for descriptor in descriptors {
            let is_known = slot.iter().any(|stored| kcmp::is_same_file(&stored.descriptor, &descriptor));
            let is_surplus = slot.len() >= keep.limit as usize;
            if is_known || is_surplus {
                refused.surplus += u32::from(!is_known);
                rejected.push(descriptor);
            } else {
                slot.push(Stored { name: keep.name.into(), descriptor, drop_on_hangup: keep.drop_on_hangup });
            }
        }
        close(rejected.into_iter());
        (refused, None)
    }
}

/// Closes descriptors without waiting for unsent data, and returns how many.
fn close(descriptors: impl Iterator<Item = OwnedFd>) -> usize {
    let no_linger = linger { l_onoff: 0, l_linger: 0 };
    let mut count = 0;
    for descriptor in descriptors {
        setsockopt(&descriptor, sockopt::Linger, &no_linger).ok();
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    use super::*;
    use crate::runtime::fd_store::protocol::Keep;

    /// Sends a datagram with descriptors and lets the holder take it.
    fn take(holder: &mut Holder, usage: Usage<'_>, descriptors: &[&OwnedFd]) -> Answer {
        let (sender, receiver) =
            socketpair(AddressFamily::Unix, SockType::Datagram, None, SockFlag::SOCK_CLOEXEC).unwrap();
        let descriptors: Vec<_> = descriptors.iter().map(|fd| fd.as_fd()).collect();
        datagram::send_descriptors(&sender, &descriptors).unwrap();
        holder.perform(Command::Take { instance: 2, usage }, Some(receiver.as_fd()))
    }

    fn keep(name: &str) -> Usage<'_> {
        Usage::Keep(Keep { name, drop_on_hangup: true, limit: 3 })
    }

    fn names(answer: &Answer) -> Vec<&str> {
        answer.names.iter().map(|name| &**name).collect()
    }

    #[test]
    fn a_descriptor_is_stored_once_and_up_to_the_limit() {
        let mut holder = Holder::default();
        let ends: Vec<_> = (0..3).map(|_| nix::unistd::pipe().unwrap()).collect();
        take(&mut holder, keep("a"), &[&ends[0].0, &ends[0].0, &ends[1].0]);
        let answer = take(&mut holder, keep("b"), &[&ends[1].0, &ends[2].0]);
        assert_eq!(names(&answer), ["a", "a", "b"], "the second one is known by its first name");
        assert_eq!(answer.refused, Refused::default());
        let answer = take(&mut holder, keep("c"), &[&ends[0].1, &ends[2].0]);
        assert_eq!(answer.refused, Refused { surplus: 1, has_lost: false });
        let answer = holder.perform(Command::DropNamed { instance: 2, name: "a" }, None);
        assert_eq!(names(&answer), ["b"]);
        assert_eq!(names(&holder.answer(1)), [""; 0]);
        let (ours, theirs) = crate::sys::stream::pair().unwrap();
        holder.perform(Command::Give { instance: 2 }, Some(ours.as_fd()));
        let (_, given) = datagram::receive_descriptors(&theirs, &mut [0; 8]).unwrap();
        assert!(given.len() == 1 && kcmp::is_same_file(&given[0], &ends[2].0));
        assert_eq!(names(&holder.perform(Command::Forget { instance: 2 }, None)), [""; 0]);
    }

    #[test]
    fn a_descriptor_is_dropped_on_hangup_unless_polling_is_off() {
        let (channel, _keepalive) = packet::pair().unwrap();
        let mut holder = Holder::default();
        let (dropped, first_end) = nix::unistd::pipe().unwrap();
        let (kept, second_end) = nix::unistd::pipe().unwrap();
        let file: OwnedFd = std::fs::File::open("/proc/self/exe").unwrap().into();
        // The service still has it open.
        take(&mut holder, keep("a"), &[&dropped, &file]);
        take(&mut holder, Usage::Keep(Keep { name: "b", drop_on_hangup: false, limit: 3 }), &[&kept]);
        drop((first_end, second_end));
        assert_eq!(holder.wait(&channel), (false, vec![2]));
        assert_eq!(names(&holder.answer(2)), ["a", "b"]);
    }

    #[test]
    fn descriptors_that_are_not_stored_are_closed_and_a_pidfd_is_read() {
        let mut holder = Holder::default();
        let (end, other) = nix::unistd::pipe().unwrap();
        assert_eq!(take(&mut holder, Usage::Close, &[&other]), Answer { instance: 2, ..Answer::default() });
        drop(other);
        assert_eq!(nix::unistd::read(&end, &mut [0]), Ok(0), "pipe {}", end.as_raw_fd());
        let own = process::id();
        let pidfd = crate::sys::kill::pidfd_open(own).unwrap();
        assert_eq!(take(&mut holder, Usage::ReadPid, &[&pidfd]).main_pid, Some(own));
    }
}

use std::ffi::c_int;
use std::io::Read as _;
use std::os::fd::AsRawFd as _;

use nix::sys::socket::UnixAddr;

use super::*;
use crate::model::ExitStatus;
use crate::model::plan::{Address, ListenMode};
use crate::sys::deferred_close::CloseWorker;
use crate::sys::{listen, stream, wait};

/// A stream, and its peer.
fn pair() -> (PeerStream, OwnedFd) {
    let (ours, theirs) = stream::pair().unwrap();
    (PeerStream::unix(ours), theirs)
}

fn send(socket: &OwnedFd, bytes: &[u8]) {
    assert_eq!(socket::send(socket, bytes), Ok(bytes.len()));
}

/// Sends the only reference to the writing end of the returned pipe, which ends when that is closed.
fn send_pipe(socket: &OwnedFd, bytes: &[u8], flags: c_int) -> std::fs::File {
    let (read_end, write_end) = nix::unistd::pipe2(nix::fcntl::OFlag::O_NONBLOCK).unwrap();
    packet::send_with(socket, bytes, Some(write_end.as_fd()), flags).unwrap();
    std::fs::File::from(read_end)
}

fn is_closed(mut pipe: &std::fs::File) -> bool {
    pipe.read(&mut [0]).is_ok()
}

fn receive(stream: &PeerStream) -> (Result<Input, Errno>, String) {
    let mut buffer = [0; 64];
    let input = stream.receive(&mut buffer);
    let length = if let Ok(Input::Bytes(length) | Input::Descriptors(length)) = input { length } else { 0 };
    (input, String::from_utf8(buffer[..length].to_vec()).unwrap())
}

fn bytes(text: &str) -> (Result<Input, Errno>, String) {
    (Ok(Input::Bytes(text.len())), text.to_owned())
}

/// These bytes were peeked.
fn descriptors(text: &str) -> (Result<Input, Errno>, String) {
    (Ok(Input::Descriptors(text.len())), text.to_owned())
}

fn discard(stream: &PeerStream, length: usize) {
    assert_eq!(exit_status(stream.discard(length).unwrap()), ExitStatus::Code(0));
}

fn exit_status(pid: Pid) -> ExitStatus {
    loop {
        match wait::reap(pid) {
            Err(Errno::EAGAIN) => std::thread::yield_now(),
            ended => return ended.unwrap().status,
        }
    }
}

/// Starts workers until `is_done`. Other tests use the queue, too.
fn close_until(is_done: impl Fn() -> bool) {
    while !is_done() {
        if let Some(mut worker) = CloseWorker::start(2, |_| true).unwrap() {
            worker.finish();
        }
    }
}

#[test]
fn data_that_carries_descriptors_is_received_by_a_helper() {
    for before in ["", "a", "a line and another"] {
        let (stream, peer) = pair();
        assert_eq!(receive(&stream).0, Err(Errno::EAGAIN));
        if !before.is_empty() {
            send(&peer, before.as_bytes());
        }
        let pipe = send_pipe(&peer, b"1234", 0);
        let next = send_pipe(&peer, b"56", 0);
        send(&peer, b"7");
        let first = format!("{before}1234");
        assert_eq!((receive(&stream), receive(&stream)), (descriptors(&first), descriptors(&first)), "not received");
        assert!(!is_closed(&pipe));
        discard(&stream, first.len());
        assert!(is_closed(&pipe) && !is_closed(&next));
        assert_eq!(receive(&stream), descriptors("56"));
        discard(&stream, 2);
        assert!(is_closed(&next));
        drop(peer);
        assert_eq!((receive(&stream), receive(&stream).0), (bytes("7"), Ok(Input::End)));
    }
}

#[test]
fn a_part_of_the_data_can_be_discarded() {
    let (stream, peer) = pair();
    let text = "x".repeat(100);
    send(&peer, text.as_bytes());
    let pipe = send_pipe(&peer, text.as_bytes(), 0);
    let next = send_pipe(&peer, b"y", 0);
    assert_eq!(receive(&stream), descriptors(&text[..64]), "as much as the buffer holds");
    discard(&stream, 64);
    assert_eq!(receive(&stream), descriptors(&text[..64]));
    discard(&stream, 64);
    assert!(is_closed(&pipe) && !is_closed(&next));
    discard(&stream, 73);
    assert!(is_closed(&next));
    assert_eq!(receive(&stream).0, Err(Errno::EAGAIN));
    assert_eq!(exit_status(stream.discard(1).unwrap()), ExitStatus::Code(1), "there is nothing");
}

// unix(7), MSG_OOB: without SO_OOBINLINE the byte is not part of the stream, and is dropped when it is passed.
#[test]
fn a_descriptor_sent_out_of_band_is_found() {
    let (stream, peer) = pair();
    let pipe = send_pipe(&peer, b"!", libc::MSG_OOB);
    send(&peer, b"rest");
    assert_eq!(receive(&stream), descriptors("!"));
    assert!(!is_closed(&pipe));
    drop(stream);
    assert!(!is_closed(&pipe), "a worker closes it");
    close_until(|| is_closed(&pipe));
}

#[test]
fn a_stream_with_unread_descriptors_is_closed_by_a_worker() {
    let (stream, peer) = pair();
    send(&peer, b"x");
    let pipe = send_pipe(&peer, b"y", 0);
    assert!(!stream.end_input());
    assert_eq!(socket::send(&peer, b"z"), Err(Errno::EPIPE), "nothing more can be queued");
    drop(stream);
    assert!(!is_closed(&pipe));
    close_until(|| is_closed(&pipe));
}

#[test]
fn a_stream_without_unread_data_is_closed_at_once() {
    let (stream, peer) = pair();
    send(&peer, b"x");
    assert_eq!(receive(&stream), bytes("x"));
    assert!(stream.end_input());
    socket::send(&stream, b"answer").unwrap();
    drop(stream);
    let mut buffer = [0; 8];
    assert_eq!((socket::receive(&peer, &mut buffer), socket::receive(&peer, &mut [0])), (Ok(6), Ok(0)));
}

#[test]
fn connections_that_were_not_accepted_are_closed_by_a_worker() {
    for close in [close_listener, |listener| close_abstract_listener(Owner::Unknown, listener)] {
        let name = format!("keepalive-peer-stream-{:x}", super::super::random::random_u64());
        let address = Address::Unix { path: format!("@{name}").into(), mode: 0o600, owner: None };
        let listener = listen::open(&address, ListenMode::Shared).unwrap();
        let client = nix::sys::socket::socket(
            nix::sys::socket::AddressFamily::Unix,
            nix::sys::socket::SockType::Stream,
            nix::sys::socket::SockFlag::SOCK_CLOEXEC,
            None,
        )
        .unwrap();
        let name = UnixAddr::new_abstract(name.as_bytes()).unwrap();
        nix::sys::socket::connect(client.as_raw_fd(), &name).unwrap();
        let pipe = send_pipe(&client, b"x", 0);
        close(listener);
        assert!(!is_closed(&pipe));
        close_until(|| is_closed(&pipe));
    }
}

#[test]
fn an_abstract_address_can_be_used_again_at_once() {
    let path = format!("@keepalive-peer-stream-{:x}", super::super::random::random_u64());
    let address = Address::Unix { path: path.into(), mode: 0o600, owner: None };
    for _ in 0..3 {
        let listener = listen::open(&address, ListenMode::Shared).unwrap();
        close_abstract_listener(Owner::Unknown, listener);
    }
}

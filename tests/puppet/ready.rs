//! Verbs that make the puppet ready for probes and readiness descriptors.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::FromRawFd;

use keepalive::model::Signal;
use keepalive::sys::signals;

use crate::{act, next_signal, say, say_ready};

/// Runs REST on SIGUSR1; exits with 0 on SIGTERM.
pub(crate) fn on_signal(rest: &[&str]) -> u8 {
    let _ = signals::block_all(signals::DispositionReset::SigchldOnly);
    say_ready();
    loop {
        match next_signal() {
            Signal::USR1 => return act(rest),
            Signal::TERM => return 0,
            _ => {}
        }
    }
}

/// Writes the words before THEN to descriptor FD, with `%` as a newline, closes it, and runs REST.
pub(crate) fn write_to(fd: &str, words: &[&str]) -> u8 {
    let then = words.iter().position(|word| *word == "THEN").expect("THEN");
    let (texts, rest) = words.split_at(then);
    // SAFETY: it was left open for this, and nothing else uses it.
    let mut file = unsafe { File::from_raw_fd(fd.parse().expect("a descriptor")) };
    for text in texts {
        file.write_all(text.replace('%', "\n").as_bytes()).expect("the descriptor");
    }
    drop(file);
    act(rest.split_first().expect("THEN").1)
}

/// Creates a file and runs REST.
pub(crate) fn make(path: &str, rest: &[&str]) -> u8 {
    File::create(path).expect("a file");
    act(rest)
}

/// Listens on ADDRESS, prints the requests, and sends these answers in order, repeating the last one: a status,
/// `nonsense`, or `nothing` for no answer.
pub(crate) fn serve(address: &str, answers: &[&str]) -> u8 {
    let listener = TcpListener::bind(address).expect("the address");
    say("listening");
    let mut unanswered = Vec::new();
    for number in 0.. {
        let answer = answers.get(number).or(answers.last()).expect("an answer");
        let (mut client, _) = listener.accept().expect("a client");
        let request = request(&mut client);
        say(&format!("asked {request}"));
        match *answer {
            "nothing" => {
                unanswered.push(client);
                continue;
            }
            "nonsense" => client.write_all(b"220 mail.example ESMTP\r\n").ok(),
            status => client.write_all(format!("HTTP/1.1 {status} As You Like\r\n\r\n").as_bytes()).ok(),
        };
        client.write_all(&[b'.'; 1 << 12]).ok();
        client.shutdown(Shutdown::Write).ok();
        // Closing with unread data resets the connection.
        let end = client.read(&mut [0]);
        say(&format!("answered {answer} {}", if end.is_ok() { "in peace" } else { "in vain" }));
    }
    0
}

/// The request in one line.
fn request(client: &mut TcpStream) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && client.read(&mut byte).is_ok_and(|length| length > 0) {
        head.extend_from_slice(&byte);
    }
    String::from_utf8_lossy(&head).trim().replace("\r\n", "; ")
}

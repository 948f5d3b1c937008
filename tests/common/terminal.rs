//! A pseudo-terminal with a program on it and a person in front of it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::pty::{Winsize, openpty};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use super::wait::wait_for;

pub(crate) const CTRL_C: &str = "\x03";

/// Until a program that was left running is killed.
const PATIENCE: Duration = Duration::from_secs(12);

/// A program on a pseudo-terminal; ended when dropped, if it still runs then.
pub(crate) struct Terminal {
    pub(crate) program: Child,
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    /// What has been on the screen below what was waited for.
    pub(crate) seen: String,
}

impl Terminal {
    /// Starts `command` with the terminal as its standard streams.
    pub(crate) fn start(command: &mut Command) -> Self {
        let size = Winsize { ws_row: 24, ws_col: 200, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).unwrap();
        let stdio = |fd: &OwnedFd| Stdio::from(fd.try_clone().unwrap());
        let slave = &pty.slave;
        let program = command.stdin(stdio(slave)).stdout(stdio(slave)).stderr(stdio(slave)).spawn().unwrap();
        // The command keeps copies of the slave, as long as it lives.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        drop(pty.slave);
        let keyboard = File::from(pty.master);
        let mut master = keyboard.try_clone().unwrap();
        let (sender, screen) = channel();
        // Ends with EIO when the last of the other side is closed.
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = master.read(&mut buffer) {
                drop(sender.send(buffer[..count].to_vec()));
            }
        });
        Self { program, keyboard, screen, seen: String::new() }
    }

    pub(crate) fn type_in(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until `text` shows up below what earlier calls have waited for.
    #[track_caller]
    pub(crate) fn wait_for_text(&mut self, text: &str) {
        let end = wait_for(
            || format!("`{text}` on the screen"),
            || {
                for bytes in self.screen.try_iter() {
                    self.seen.push_str(&String::from_utf8_lossy(&bytes));
                }
                self.seen.find(text).map(|position| position + text.len())
            },
        );
        self.seen.drain(..end);
    }

    /// Waits until the program has ended; its exit code and the rest of the screen.
    #[track_caller]
    pub(crate) fn wait_for_end(mut self) -> (Option<i32>, String) {
        let status = wait_for(|| "the end of the program".to_owned(), || self.program.try_wait().unwrap());
        for bytes in self.screen.iter() {
            self.seen.push_str(&String::from_utf8_lossy(&bytes));
        }
        (status.code(), std::mem::take(&mut self.seen))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Only if the test has failed is it still there. It may have more to end than itself.
        let id = i32::try_from(self.program.id()).unwrap();
        let end = Instant::now() + PATIENCE;
        while let Ok(None) = self.program.try_wait() {
            if Instant::now() > end {
                drop(self.program.kill());
            }
            signal::kill(Pid::from_raw(id), Signal::SIGTERM).ok();
            thread::sleep(Duration::from_millis(200));
        }
    }
}

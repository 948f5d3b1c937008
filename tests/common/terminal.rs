//! A pseudo-terminal with a program on it and a person in front of it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{OFlag, open};
use nix::pty::{Winsize, grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::{self, Signal};
use nix::sys::stat::Mode;
use nix::unistd::Pid;

use super::wait::wait_for;

pub(crate) const CTRL_C: &str = "\x03";

/// Until a program that was left running is killed.
const EXIT_TIMEOUT: Duration = Duration::from_secs(12);

/// A program on a pseudo-terminal; ended when dropped, if it still runs then.
pub(crate) struct Terminal {
    pub(crate) program: Child,
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    /// The output after the last text that a test waited for.
    pub(crate) seen: String,
}

impl Terminal {
    /// Starts `command` with the terminal as its standard streams.
    pub(crate) fn start(command: &mut Command) -> Self {
        let (keyboard, slave) = open_pty();
        let stdio = |fd: &OwnedFd| Stdio::from(fd.try_clone().unwrap());
        let program = command.stdin(stdio(&slave)).stdout(stdio(&slave)).stderr(stdio(&slave)).spawn().unwrap();
        // `command` has copies of the slave until it is dropped.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        drop(slave);
        let mut master = keyboard.try_clone().unwrap();
        let (sender, screen) = channel();
        // Ends with EIO when the last descriptor of the slave is closed.
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

    /// Waits until `text` appears after the texts of earlier calls.
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

    /// Waits until the program exits and returns its exit code and the rest of the output.
    #[track_caller]
    pub(crate) fn wait_for_end(mut self) -> (Option<i32>, String) {
        let status = wait_for(|| "the end of the program".to_owned(), || self.program.try_wait().unwrap());
        for bytes in self.screen.iter() {
            self.seen.push_str(&String::from_utf8_lossy(&bytes));
        }
        (status.code(), std::mem::take(&mut self.seen))
    }
}

/// Both sides of a new terminal of 24 rows and 200 columns, close-on-exec from the beginning: a child of another test
/// that had the program's side would keep the screen from ending.
pub(crate) fn open_pty() -> (File, OwnedFd) {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = posix_openpt(flags).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname_r(&master).unwrap();
    let slave = open(name.as_str(), flags, Mode::empty()).unwrap();
    let master = File::from(OwnedFd::from(master));
    set_size(&master);
    (master, slave)
}

#[expect(unsafe_code, reason = "nix has no function for it")]
fn set_size(terminal: &File) {
    let size = Winsize { ws_row: 24, ws_col: 200, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel only reads `size`; on anything but a terminal this is an error.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    assert_eq!(result, 0, "the size of a terminal");
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The program still runs only if the test has failed. It may have processes to stop.
        let id = i32::try_from(self.program.id()).unwrap();
        let end = Instant::now() + EXIT_TIMEOUT;
        while let Ok(None) = self.program.try_wait() {
            if Instant::now() > end {
                drop(self.program.kill());
            }
            signal::kill(Pid::from_raw(id), Signal::SIGTERM).ok();
            thread::sleep(Duration::from_millis(200));
        }
    }
}

//! A program that uses a terminal as a screen: its size, and keys that come one by one. termios(3), ioctl_tty(2)

use std::io;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::termios::{LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcdrain, tcgetattr, tcsetattr};
use nix::unistd::{getpgrp, tcgetpgrp};

/// Columns and rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Characters in a row.
    pub columns: usize,
    /// Rows.
    pub rows: usize,
}

/// The size of the terminal on stdout; `None`: it is none, or one that does not know.
#[must_use]
pub fn size() -> Option<Size> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: `size` is a writable winsize; on anything but a terminal this is an error.
    let result = unsafe { libc::ioctl(io::stdout().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    let known = result == 0 && size.ws_col > 0 && size.ws_row > 0;
    known.then(|| Size { columns: usize::from(size.ws_col), rows: usize::from(size.ws_row) })
}

/// Stops us, as any program that changes the terminal, until our job is in the foreground of the terminal on stdout;
/// does nothing where it is not our session's.
///
/// # Errors
/// EIO: we are in the background, and nobody is left to continue us, or SIGTTOU is ignored or blocked.
pub fn wait_for_foreground() -> Result<(), Errno> {
    // Waits for the output of others, but first the kernel does for this call what it does for all of that kind: it
    // sends SIGTTOU to our group and begins again after SIGCONT.
    let result = tcdrain(io::stdout());
    if result == Err(Errno::EIO) || is_in_background() { Err(Errno::EIO) } else { Ok(()) }
}

/// Whether another job is in the foreground of the terminal on stdout, which is our session's.
#[must_use]
pub fn is_in_background() -> bool {
    tcgetpgrp(io::stdout()).is_ok_and(|group| group.as_raw() > 0 && group != getpgrp())
}

/// The terminal on stdin gives each key at once and shows none, until this is dropped. Ctrl-C and Ctrl-Z are signals
/// as before.
#[derive(Debug)]
pub struct SingleKeys {
    before: Termios,
}

impl SingleKeys {
    /// Begins.
    ///
    /// # Errors
    /// ENOTTY: stdin is no terminal.
    pub fn begin() -> Result<Self, Errno> {
        let before = tcgetattr(io::stdin())?;
        let mut settings = before.clone();
        settings.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO);
        if let Some(least) = settings.control_chars.get_mut(SpecialCharacterIndices::VMIN as usize) {
            *least = 1;
        }
        if let Some(time) = settings.control_chars.get_mut(SpecialCharacterIndices::VTIME as usize) {
            *time = 0;
        }
        tcsetattr(io::stdin(), SetArg::TCSADRAIN, &settings)?;
        Ok(Self { before })
    }

    /// The keys pressed since the last call, when there are any; 0: the terminal has gone.
    ///
    /// # Errors
    /// EIO: the terminal has gone.
    pub fn read(&self, keys: &mut [u8]) -> Result<usize, Errno> {
        nix::unistd::read(io::stdin(), keys)
    }
}

impl Drop for SingleKeys {
    fn drop(&mut self) {
        // It can only fail if the terminal has gone meanwhile.
        tcsetattr(io::stdin(), SetArg::TCSADRAIN, &self.before).ok();
    }
}

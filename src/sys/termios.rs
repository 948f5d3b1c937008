//! Using a terminal as a screen: its size and its modes, termios(3), ioctl_tty(2).

use std::io;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::termios::{LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcdrain, tcgetattr, tcsetattr};
use nix::unistd::{getpgrp, tcgetpgrp};

/// The size of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// The number of characters in a row.
    pub columns: usize,
    /// The number of rows.
    pub rows: usize,
}

/// The size of the terminal on stdout; `None`: stdout is not a terminal, or its size is unknown.
#[must_use]
pub fn size() -> Option<Size> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: `size` is a writable winsize; on anything but a terminal this is an error.
    let result = unsafe { libc::ioctl(io::stdout().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    let known = result == 0 && size.ws_col > 0 && size.ws_row > 0;
    known.then(|| Size { columns: usize::from(size.ws_col), rows: usize::from(size.ws_row) })
}

/// Stops the process until its job is in the foreground of the terminal on stdout. Does nothing if that is not the
/// controlling terminal.
///
/// # Errors
/// EIO: the job is in the background, and either its process group is orphaned, so that nobody could continue it, or
/// SIGTTOU is ignored or blocked.
pub fn wait_for_foreground() -> Result<(), Errno> {
    // tcdrain waits for pending output. Like every call that changes the terminal, it is first answered with SIGTTOU if
    // the job is in the background, and restarted after SIGCONT.
    let result = tcdrain(io::stdout());
    if result == Err(Errno::EIO) || is_in_background() { Err(Errno::EIO) } else { Ok(()) }
}

/// Whether another job is in the foreground of the terminal on stdout, and that is the controlling terminal.
#[must_use]
pub fn is_in_background() -> bool {
    tcgetpgrp(io::stdout()).is_ok_and(|group| group.as_raw() > 0 && group != getpgrp())
}

/// Puts the terminal on stdin into cbreak mode, until this is dropped: it delivers each key at once and does not echo it.
/// Ctrl-C and Ctrl-Z still send signals. termios(3) `ICANON`, `ECHO`
#[derive(Debug)]
pub struct CbreakMode {
    before: Termios,
}

impl CbreakMode {
    /// Changes the mode of the terminal.
    ///
    /// # Errors
    /// ENOTTY: stdin is not a terminal.
    pub fn enable() -> Result<Self, Errno> {
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

    /// Waits for keys and reads them. 0: the terminal no longer exists.
    ///
    /// # Errors
    /// EIO: the terminal no longer exists.
    pub fn read(&self, keys: &mut [u8]) -> Result<usize, Errno> {
        nix::unistd::read(io::stdin(), keys)
    }
}

impl Drop for CbreakMode {
    fn drop(&mut self) {
        // Fails only if the terminal no longer exists.
        tcsetattr(io::stdin(), SetArg::TCSADRAIN, &self.before).ok();
    }
}

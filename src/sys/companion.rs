//! Executing another program of keepalive. execv(3)

use std::ffi::{CStr, CString, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use nix::errno::Errno;
use nix::unistd::{execv, execvp};

/// Executes the program `name`, which stands beside keepalive or in `PATH`, in place of keepalive. Returns only if that
/// fails.
#[must_use]
pub fn execute_companion(name: &CStr, arguments: &[OsString]) -> Errno {
    let mut argv = vec![name.to_owned()];
    argv.extend(arguments.iter().filter_map(|word| CString::new(word.as_bytes()).ok()));
    let own = std::env::current_exe().unwrap_or_default();
    let path = own.with_file_name(std::ffi::OsStr::from_bytes(name.to_bytes())).into_os_string().into_vec();
    let Err(beside) = CString::new(path).map_err(|_| Errno::EINVAL).and_then(|path| execv(&path, &argv));
    let Err(in_path) = execvp(name, &argv);
    if in_path == Errno::ENOENT { beside } else { in_path }
}

//! Where the control socket is looked for and created.

use std::ffi::OsString;
use std::path::PathBuf;

/// The variable that names the socket.
const VARIABLE: &str = "KEEPALIVE_SOCKET";

/// A path of the control socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketPath {
    /// The path.
    pub path: PathBuf,
    /// Whether anybody may create a file there: then the socket counts only if it is owned by `user`.
    pub public: bool,
}

/// The paths in the order in which they are tried, by the server and by clients: `$KEEPALIVE_SOCKET` alone if it is set,
/// or else `/run/keepalive.sock`, `$XDG_RUNTIME_DIR/keepalive.sock` and `/tmp/keepalive-UID.sock`. `user` is the effective
/// UID.
#[must_use]
pub fn socket_paths(variable: &dyn Fn(&str) -> Option<OsString>, user: u32) -> Vec<SocketPath> {
    let set = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let private = |path| SocketPath { path, public: false };
    if let Some(path) = set(VARIABLE) {
        return vec![private(path)];
    }
    let mut all = vec![private(PathBuf::from("/run/keepalive.sock"))];
    // The XDG Base Directory Specification wants relative paths to be ignored.
    let runtime = set("XDG_RUNTIME_DIR").filter(|directory| directory.is_absolute());
    all.extend(runtime.map(|directory| private(directory.join("keepalive.sock"))));
    all.push(SocketPath { path: format!("/tmp/keepalive-{user}.sock").into(), public: true });
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(variables: &[(&str, &str)], expect: &[&str]) {
        let variable =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(*value));
        let found: Vec<PathBuf> = socket_paths(&variable, 7).into_iter().map(|place| place.path).collect();
        assert_eq!(found, expect.iter().map(PathBuf::from).collect::<Vec<_>>());
    }

    #[test]
    fn the_variable_overrides_all_paths() {
        check(&[("KEEPALIVE_SOCKET", "x.sock"), ("XDG_RUNTIME_DIR", "/r")], &["x.sock"]);
    }

    #[test]
    fn without_the_variable_there_are_three_paths() {
        let all = ["/run/keepalive.sock", "/run/user/7/keepalive.sock", "/tmp/keepalive-7.sock"];
        check(&[("KEEPALIVE_SOCKET", ""), ("XDG_RUNTIME_DIR", "/run/user/7")], &all);
        check(&[], &["/run/keepalive.sock", "/tmp/keepalive-7.sock"]);
        check(&[("XDG_RUNTIME_DIR", "relative")], &["/run/keepalive.sock", "/tmp/keepalive-7.sock"]);
    }

    #[test]
    fn only_the_path_in_tmp_is_public() {
        let public: Vec<bool> = socket_paths(&|_| None, 0).into_iter().map(|place| place.public).collect();
        assert_eq!(public, [false, true]);
    }
}

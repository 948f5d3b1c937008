//! Where the control socket may be.

use std::ffi::OsString;
use std::path::PathBuf;

/// The variable that names the socket.
const VARIABLE: &str = "KEEPALIVE_SOCKET";

/// A path where the control socket may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The path.
    pub path: PathBuf,
    /// Whether anybody could have put something there: then it counts only if it is our own.
    pub public: bool,
}

/// Where the control socket is looked for, and made: `$KEEPALIVE_SOCKET` alone if it is set, or else the first that can
/// be used of `/run/keepalive.sock`, `$XDG_RUNTIME_DIR/keepalive.sock` and `/tmp/keepalive-UID.sock`, `user` being the
/// effective UID.
#[must_use]
pub fn places(variable: &dyn Fn(&str) -> Option<OsString>, user: u32) -> Vec<Place> {
    let set = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let private = |path| Place { path, public: false };
    if let Some(path) = set(VARIABLE) {
        return vec![private(path)];
    }
    let mut all = vec![private(PathBuf::from("/run/keepalive.sock"))];
    // The specification of the variable wants what is not absolute to be ignored.
    let runtime = set("XDG_RUNTIME_DIR").filter(|directory| directory.is_absolute());
    all.extend(runtime.map(|directory| private(directory.join("keepalive.sock"))));
    all.push(Place { path: format!("/tmp/keepalive-{user}.sock").into(), public: true });
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(variables: &[(&str, &str)], expect: &[&str]) {
        let variable =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(*value));
        let found: Vec<PathBuf> = places(&variable, 7).into_iter().map(|place| place.path).collect();
        assert_eq!(found, expect.iter().map(PathBuf::from).collect::<Vec<_>>());
    }

    #[test]
    fn the_variable_stands_alone() {
        check(&[("KEEPALIVE_SOCKET", "x.sock"), ("XDG_RUNTIME_DIR", "/r")], &["x.sock"]);
    }

    #[test]
    fn without_it_there_are_three_places() {
        let all = ["/run/keepalive.sock", "/run/user/7/keepalive.sock", "/tmp/keepalive-7.sock"];
        check(&[("KEEPALIVE_SOCKET", ""), ("XDG_RUNTIME_DIR", "/run/user/7")], &all);
        check(&[], &["/run/keepalive.sock", "/tmp/keepalive-7.sock"]);
        check(&[("XDG_RUNTIME_DIR", "relative")], &["/run/keepalive.sock", "/tmp/keepalive-7.sock"]);
    }

    #[test]
    fn only_the_one_in_tmp_could_be_a_strangers() {
        let public: Vec<bool> = places(&|_| None, 0).into_iter().map(|place| place.public).collect();
        assert_eq!(public, [false, true]);
    }
}

//! Where the control socket is created, and where clients look for it.
//!
//! A keepalive that is PID 1 has the socket `keepalive.sock`; any other one has a socket of its own, whose name is derived
//! from what it runs. So there can be several on one machine.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::model::Pid;
use crate::model::plan::Control;

/// The variable that names the socket.
const VARIABLE: &str = "KEEPALIVE_SOCKET";
/// It is set where [`VARIABLE`] is that of the keepalive that runs this process as a service.
const SERVICE_VARIABLE: &str = "KEEPALIVE_SERVICE";

/// A path of the control socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketPath {
    /// The path.
    pub path: PathBuf,
    /// The user who must own the socket, if anybody may create a file there.
    pub owner: Option<u32>,
}

impl SocketPath {
    /// A path that was given.
    #[must_use]
    pub const fn given(path: PathBuf) -> Self {
        Self { path, owner: None }
    }
}

/// What a keepalive runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSet {
    /// The canonical path of its configuration file; that of the current directory if there is no file.
    pub path: PathBuf,
    /// Its setting `control`.
    pub control: Control,
}

/// What a client uses of its environment, and the server for its paths.
#[derive(Clone, Copy)]
pub struct Environment<'s> {
    /// Returns a variable of the environment.
    pub variable: &'s dyn Fn(&str) -> Option<OsString>,
    /// The effective user.
    pub user: u32,
    /// The number that a user has in the parent user namespace.
    pub outer_user: &'s dyn Fn(u32) -> u32,
}

impl std::fmt::Debug for Environment<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Environment").field("user", &self.user).finish_non_exhaustive()
    }
}

impl Environment<'_> {
    /// The paths at which the socket of a keepalive without the setting `control` is created, in the order in which they are
    /// tried; then those that it tries instead when it finds the socket of another keepalive. `set` is the path of its
    /// [`ServiceSet`], `pid` its process.
    #[must_use]
    pub fn server_paths(&self, set: &Path, pid: Pid) -> [Vec<SocketPath>; 2] {
        if let Some(path) = self.chosen_path() {
            return [vec![SocketPath::given(path)], Vec::new()];
        }
        let own = self.paths_of(&socket_name(set), self.user);
        // The PID 1 of another PID namespace can have its socket here.
        if pid.get() == 1 { [self.paths_of("keepalive", self.user), own] } else { [own, Vec::new()] }
    }

    /// The paths at which a client looks for the keepalive that runs `set`: those of the set, then those of PID 1.
    #[must_use]
    pub fn paths_of_set(&self, set: &ServiceSet, init_user: Option<u32>) -> Vec<SocketPath> {
        if let Control::At(path) = &set.control {
            return vec![SocketPath::given(path.to_path_buf())];
        }
        if let Some(path) = self.chosen_path() {
            return vec![SocketPath::given(path)];
        }
        let mut paths = self.paths_of(&socket_name(&set.path), self.user);
        paths.extend(self.paths_of("keepalive", self.user));
        // Root may talk to any keepalive.
        let other = init_user.filter(|user| self.user == 0 && *user != 0);
        paths.extend(
            other.into_iter().flat_map(|user| self.paths_of("keepalive", user)).filter(|path| path.owner.is_some()),
        );
        paths
    }

    /// `$KEEPALIVE_SOCKET`, whoever has set it.
    #[must_use]
    pub fn variable_path(&self) -> Option<PathBuf> {
        self.set(VARIABLE)
    }

    /// `$KEEPALIVE_SOCKET`, unless the keepalive that runs this process as a service has set it.
    fn chosen_path(&self) -> Option<PathBuf> {
        self.variable_path().filter(|_| self.set(SERVICE_VARIABLE).is_none())
    }

    fn set(&self, name: &str) -> Option<PathBuf> {
        (self.variable)(name).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    /// `/run/NAME.sock`, `$XDG_RUNTIME_DIR/NAME.sock` and `/tmp/NAME-UID.sock`. UID is the number of `user` in the parent user
    /// namespace, so that a keepalive and its client find each other if one of them is in a namespace of its own, where the
    /// same user is root, and shares /tmp.
    fn paths_of(&self, name: &str, user: u32) -> Vec<SocketPath> {
        let file = format!("{name}.sock");
        // The XDG Base Directory Specification wants relative paths to be ignored.
        let runtime = self.set("XDG_RUNTIME_DIR").filter(|directory| directory.is_absolute());
        let directories = [Some(PathBuf::from("/run")), runtime].into_iter().flatten();
        let mut paths: Vec<_> = directories.map(|directory| SocketPath::given(directory.join(&file))).collect();
        paths.push(SocketPath {
            path: format!("/tmp/{name}-{}.sock", (self.outer_user)(user)).into(),
            owner: Some(user),
        });
        paths
    }
}

/// `keepalive-HASH`, with the 64-bit FNV-1a hash of the path.
fn socket_name(set: &Path) -> String {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let bytes = set.as_os_str().as_bytes().iter();
    let hash = bytes.fold(OFFSET_BASIS, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME));
    format!("keepalive-{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The paths of what `find` returns for user 7 and these variables.
    fn paths(variables: &[(&str, &str)], find: impl FnOnce(&Environment<'_>) -> Vec<SocketPath>) -> Vec<String> {
        let variable =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(*value));
        let found = find(&Environment { variable: &variable, user: 7, outer_user: &|user| user });
        found.into_iter().map(|place| place.path.to_str().unwrap().to_owned()).collect()
    }

    const HASHED: &str = "keepalive-fd794fda09572f1a";

    fn server(variables: &[(&str, &str)], pid: i32) -> Vec<String> {
        let pid = Pid::new(pid).unwrap();
        paths(variables, |environment| environment.server_paths(Path::new("/a/keepalive.toml"), pid).concat())
    }

    fn client(variables: &[(&str, &str)], control: Control) -> Vec<String> {
        let set = ServiceSet { path: PathBuf::from("/a/keepalive.toml"), control };
        paths(variables, |environment| environment.paths_of_set(&set, Some(5)))
    }

    // Test vectors of the authors of FNV: http://www.isthe.com/chongo/tech/comp/fnv/
    #[test]
    fn names_have_the_fnv_hash_of_the_path() {
        assert_eq!(socket_name(Path::new("")), "keepalive-cbf29ce484222325");
        assert_eq!(socket_name(Path::new("a")), "keepalive-af63dc4c8601ec8c");
        assert_eq!(socket_name(Path::new("foobar")), "keepalive-85944171f73967e8");
    }

    #[test]
    fn each_set_has_a_socket_of_its_own_and_pid_1_the_plain_one() {
        let own = [format!("/run/{HASHED}.sock"), format!("/tmp/{HASHED}-7.sock")];
        let plain = ["/run/keepalive.sock".to_owned(), "/tmp/keepalive-7.sock".to_owned()];
        assert_eq!(server(&[], 7), own);
        assert_eq!(server(&[], 1), [plain.clone(), own.clone()].concat());
        assert_eq!(client(&[], Control::Default), [own.clone(), plain.clone()].concat());
        assert_eq!(client(&[], Control::Off), [own, plain].concat());
    }

    #[test]
    fn the_runtime_directory_is_used_if_it_is_absolute() {
        let expect = [format!("/run/{HASHED}.sock"), format!("/r/{HASHED}.sock"), format!("/tmp/{HASHED}-7.sock")];
        assert_eq!(server(&[("XDG_RUNTIME_DIR", "/r")], 7), expect);
        assert_eq!(server(&[("XDG_RUNTIME_DIR", "r")], 7), [&*expect[0], &*expect[2]]);
    }

    #[test]
    fn the_variable_overrides_all_paths_but_that_of_the_configuration() {
        let variables = [("KEEPALIVE_SOCKET", "x.sock"), ("XDG_RUNTIME_DIR", "/r")];
        assert_eq!(server(&variables, 1), ["x.sock"]);
        assert_eq!(client(&variables, Control::Default), ["x.sock"]);
        assert_eq!(client(&variables, Control::At(PathBuf::from("/c.sock").into())), ["/c.sock"]);
        assert_eq!(server(&[("KEEPALIVE_SOCKET", "")], 7).len(), 2);
        let of_parent = [("KEEPALIVE_SOCKET", "x.sock"), ("KEEPALIVE_SERVICE", "web")];
        assert_eq!(server(&of_parent, 7), server(&[], 7));
        assert_eq!(client(&of_parent, Control::Default), client(&[], Control::Default));
    }

    #[test]
    fn root_finds_pid_1_of_another_user() {
        let set = ServiceSet { path: PathBuf::from("/a"), control: Control::Default };
        let environment = |user| Environment { variable: &|_| None, user, outer_user: &|user| user };
        let last = |user, init_user| environment(user).paths_of_set(&set, init_user).pop().unwrap();
        let owned = |user: u32| SocketPath { path: format!("/tmp/keepalive-{user}.sock").into(), owner: Some(user) };
        assert_eq!(last(0, Some(1000)), owned(1000));
        assert_eq!(last(0, Some(0)), owned(0));
        assert_eq!(last(0, None), owned(0));
        assert_eq!(last(7, Some(1000)), owned(7));
    }

    // user_namespaces(7): the root of a namespace is the user outside of it who has created it.
    #[test]
    fn the_socket_has_the_number_of_the_user_outside_of_the_namespace() {
        let environment = Environment { variable: &|_| None, user: 0, outer_user: &|user| user + 1000 };
        let [plain, _] = environment.server_paths(Path::new("/a"), Pid::new(1).unwrap());
        assert_eq!(plain.last(), Some(&SocketPath { path: "/tmp/keepalive-1000.sock".into(), owner: Some(0) }));
    }
}

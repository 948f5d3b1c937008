//! Searching for a program in `PATH`, execvp(3).

use super::strings::StringList;

/// The directories that are searched if the environment has no `PATH`.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// `PATH_MAX`, in bytes with the NUL: the kernel rejects longer paths.
const MAX_PATH_SIZE: usize = 4096;

/// Whether the candidates come from `PATH`. The meaning of a failed execve(2) depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PathSearch {
    /// The name contains a `/` and is the only candidate.
    No,
    /// There is one candidate for each directory in `PATH`.
    Yes,
}

/// Fills `candidates` with the paths to be tried for `program`, in order. Without candidates, the program cannot exist.
///
/// `path` returns the value of `PATH`. It is only called if that is needed.
pub(super) fn candidates<'a>(
    program: &[u8],
    path: impl FnOnce() -> Option<&'a [u8]>,
    candidates: &mut StringList,
) -> PathSearch {
    candidates.clear();
    if program.is_empty() {
        return PathSearch::Yes;
    }
    if program.contains(&b'/') {
        candidates.push(program);
        return PathSearch::No;
    }
    for directory in path().unwrap_or(DEFAULT_PATH).split(|byte| *byte == b':') {
        let directory = if directory.is_empty() { b"." } else { directory };
        if directory.len() + program.len() + 2 > MAX_PATH_SIZE {
            continue;
        }
        candidates.push_with(|buffer| {
            buffer.extend_from_slice(directory);
            buffer.push(b'/');
            buffer.extend_from_slice(program);
        });
    }
    PathSearch::Yes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(program: &str, path: Option<&str>, expect: (PathSearch, &[&str])) {
        let mut list = StringList::new();
        let search = candidates(program.as_bytes(), || path.map(str::as_bytes), &mut list);
        let found: Vec<_> = list.iter().map(|path| str::from_utf8(path).unwrap()).collect();
        assert_eq!((search, found.as_slice()), expect);
    }

    #[test]
    fn a_name_with_a_slash_is_not_searched() {
        check("./a", Some("/bin"), (PathSearch::No, &["./a"]));
    }

    #[test]
    fn every_directory_of_path_is_tried_in_order() {
        check("a", Some("/x:/y/"), (PathSearch::Yes, &["/x/a", "/y//a"]));
    }

    // execvp(3): "The default search path (used when the environment does not contain the variable PATH)".
    #[test]
    fn without_path_the_default_directories_are_searched() {
        let expect = &["/usr/local/sbin/a", "/usr/local/bin/a", "/usr/sbin/a", "/usr/bin/a", "/sbin/a", "/bin/a"];
        check("a", None, (PathSearch::Yes, expect));
    }

    // POSIX: "A zero-length prefix is a legacy feature that indicates the current working directory."
    #[test]
    fn an_empty_element_of_path_is_the_working_directory() {
        check("a", Some(""), (PathSearch::Yes, &["./a"]));
        check("a", Some("/x::/y:"), (PathSearch::Yes, &["/x/a", "./a", "/y/a", "./a"]));
    }

    #[test]
    fn an_empty_name_has_no_candidates() {
        check("", Some("/bin"), (PathSearch::Yes, &[]));
    }

    #[test]
    fn a_directory_that_makes_the_path_too_long_is_skipped() {
        let long = "x".repeat(MAX_PATH_SIZE);
        check("a", Some(&format!("{long}:/y")), (PathSearch::Yes, &["/y/a"]));
    }
}

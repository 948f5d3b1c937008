//! Where a program may be found, execvp(3).

use super::StringList;

/// What is searched when the environment has no `PATH`.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// `PATH_MAX`: a longer path, its NUL included, is refused by the kernel anyway.
const LONGEST_PATH: usize = 4096;

/// Whether the program was looked up in `PATH`: what a failure means depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Search {
    /// The name has a `/` in it.
    No,
    /// Each candidate is one directory's.
    Yes,
}

/// Fills `candidates` with the paths at which `program` is to be tried, in order. No candidates: it cannot exist.
///
/// `path`: the value of `PATH`, for which most need not be asked.
pub(super) fn candidates<'a>(
    program: &[u8],
    path: impl FnOnce() -> Option<&'a [u8]>,
    candidates: &mut StringList,
) -> Search {
    candidates.clear();
    if program.is_empty() {
        return Search::Yes;
    }
    if program.contains(&b'/') {
        candidates.push(program);
        return Search::No;
    }
    for directory in path().unwrap_or(DEFAULT_PATH).split(|byte| *byte == b':') {
        let directory = if directory.is_empty() { b"." } else { directory };
        if directory.len() + program.len() + 2 > LONGEST_PATH {
            continue;
        }
        candidates.push_with(|buffer| {
            buffer.extend_from_slice(directory);
            buffer.push(b'/');
            buffer.extend_from_slice(program);
        });
    }
    Search::Yes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(program: &str, path: Option<&str>, expect: (Search, &[&str])) {
        let mut list = StringList::new();
        let search = candidates(program.as_bytes(), || path.map(str::as_bytes), &mut list);
        let found: Vec<_> = list.iter().map(|path| str::from_utf8(path).unwrap()).collect();
        assert_eq!((search, found.as_slice()), expect);
    }

    #[test]
    fn a_name_with_a_slash_is_not_searched() {
        check("./a", Some("/bin"), (Search::No, &["./a"]));
    }

    #[test]
    fn every_directory_of_path_is_tried_in_order() {
        check("a", Some("/x:/y/"), (Search::Yes, &["/x/a", "/y//a"]));
    }

    // execvp(3): "The default search path (used when the environment does not contain the variable PATH)".
    #[test]
    fn without_a_path_the_default_is_searched() {
        let expect = &["/usr/local/sbin/a", "/usr/local/bin/a", "/usr/sbin/a", "/usr/bin/a", "/sbin/a", "/bin/a"];
        check("a", None, (Search::Yes, expect));
    }

    // POSIX: "A zero-length prefix is a legacy feature that indicates the current working directory."
    #[test]
    fn an_empty_element_is_the_working_directory() {
        check("a", Some(""), (Search::Yes, &["./a"]));
        check("a", Some("/x::/y:"), (Search::Yes, &["/x/a", "./a", "/y/a", "./a"]));
    }

    #[test]
    fn an_empty_name_is_nowhere() {
        check("", Some("/bin"), (Search::Yes, &[]));
    }

    #[test]
    fn a_directory_too_long_for_a_path_is_skipped() {
        let long = "x".repeat(LONGEST_PATH);
        check("a", Some(&format!("{long}:/y")), (Search::Yes, &["/y/a"]));
    }
}

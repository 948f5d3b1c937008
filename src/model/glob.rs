//! Patterns of file names and of services: `*` and `?`, glob(7).

/// Whether `text` is a pattern.
#[must_use]
pub fn is_pattern(text: &[u8]) -> bool {
    text.iter().any(|byte| matches!(byte, b'*' | b'?'))
}

/// Whether `pattern` matches the whole `name`.
#[must_use]
pub fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut position) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while position < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, position));
                at += 1;
            }
            Some(byte) if *byte == b'?' || name.get(position) == Some(byte) => {
                at += 1;
                position += 1;
            }
            _ => match star {
                Some((back, taken)) => {
                    star = Some((back, taken + 1));
                    (at, position) = (back + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern.get(at..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    // glob(7): "A '?' matches any single character. A '*' matches any string, including the empty string."
    #[test]
    fn a_pattern_matches_whole_names() {
        let matches = |pattern: &str, name: &str| matches(pattern.as_bytes(), name.as_bytes());
        for (pattern, name) in
            [("*", ""), ("*", "web"), ("web*", "web"), ("w*b*", "wxbxbx"), ("w?b", "web"), ("*.0", "web.0")]
        {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("", "web"), ("web", "web2"), ("w?b", "wb"), ("*b", "web2"), ("web.?", "web.10")] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
        assert!(is_pattern(b"web*") && is_pattern(b"?") && !is_pattern(b"web.2"));
    }
}

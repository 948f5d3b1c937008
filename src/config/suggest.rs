//! Suggestions for words that are probably misspelt.

use crate::model::Signal;

/// The one of `known` that is most similar to `word`, if it is similar enough to be a suggestion.
pub(crate) fn nearest<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let limit = match word.len() {
        0..=1 => return None,
        2..=3 => 1,
        length => (length / 3).min(3),
    };
    let lower = word.to_ascii_lowercase();
    let measured = known.map(|candidate| (strsim::osa_distance(&lower, &candidate.to_ascii_lowercase()), candidate));
    measured.filter(|(distance, _)| *distance <= limit).min_by_key(|(distance, _)| *distance).map(|(_, known)| known)
}

/// Words of other programs for the values of keys, a line each: the key, the words, the known word or a hint.
const FOREIGN_VALUES: &str = "\
restart: unless-stopped true any: always
restart: no none false: never
restart: on-success: there is no such policy: write `\"always\"` to restart after every exit\n\
restart: unexpected on-abnormal on-abort on-watchdog: on-failure
type: simple exec idle: service
type: notify notify-reload: write `ready = \"notify\"` instead of `type`
type: dbus: remove it, and write `ready = { exec = [\"busctl\", \"status\", \"NAME\"] }`
type: forking: remove it, and let the program run in the foreground, such as `nginx -g 'daemon off;'`
kill_mode: control-group cgroup process-group: group
kill_mode: none: process
on_failure on_success: exit stop: shutdown
on_failure: restart: write `restart = \"on-failure\"`
strategy reload: graceful: rolling\n\
strategy: HUP SIGHUP: write `{ strategy = \"signal\", signal = \"SIGHUP\" }`";

/// A hint for `word`, which is none of the `known` words for `key`; may be empty.
pub(super) fn meant_word(key: &str, word: &str, known: &[&str]) -> String {
    // That of Docker.
    let limit = word.strip_prefix("on-failure:").and_then(|limit| limit.parse::<u32>().ok());
    let near = look_up(FOREIGN_VALUES, key, word).or_else(|| nearest(word, known.iter().copied()));
    match (limit, near) {
        (Some(limit), _) => format!("write `\"on-failure\"`, and `max_restarts = {limit}`"),
        (None, Some(hint)) if hint.contains(' ') => hint.to_owned(),
        (None, Some(near)) => format!("did you mean `\"{near}\"`?"),
        (None, None) => String::new(),
    }
}

/// Finds `word` in a table with lines such as `a b: word another: meaning`, which `context` and `word` select. `*` is any
/// context that is not empty.
pub(crate) fn look_up(table: &'static str, context: &str, word: &str) -> Option<&'static str> {
    table.lines().find_map(|line| {
        let (contexts, rest) = line.split_once(": ")?;
        let (words, meaning) = rest.split_once(": ")?;
        let has = |words: &str, word| words.split(' ').any(|known| known == word);
        let is_meant = has(contexts, context) || (contexts == "*" && !context.is_empty());
        (is_meant && has(words, word)).then_some(meaning)
    })
}

/// A hint for a misspelt signal.
pub(crate) fn nearest_signal(word: &str) -> Option<String> {
    if word.len() < 2 || !word.starts_with(|first: char| first.is_ascii_alphabetic()) {
        return None;
    }
    let upper = word.to_ascii_uppercase();
    let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    let known: Vec<String> = Signal::all().map(|signal| signal.to_string()).collect();
    let measured = known.iter().map(|candidate| (strsim::osa_distance(&name, candidate), candidate));
    // Two letters of `FOO` make it `FPE`.
    let limit = if name.len() > "SIGTERM".len() { 2 } else { 1 };
    let (_, signal) = measured.filter(|(distance, _)| *distance <= limit).min_by_key(|(distance, _)| *distance)?;
    Some(format!("did you mean `{signal}`?"))
}

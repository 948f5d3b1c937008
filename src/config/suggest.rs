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

/// A hint for a misspelt signal.
pub(crate) fn nearest_signal(word: &str) -> Option<String> {
    if word.len() < 2 || !word.starts_with(|first: char| first.is_ascii_alphabetic()) {
        return None;
    }
    let upper = word.to_ascii_uppercase();
    let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    let known: Vec<String> = Signal::all().map(|signal| signal.to_string()).collect();
    let measured = known.iter().map(|candidate| (strsim::osa_distance(&name, candidate), candidate));
    let (_, signal) = measured.filter(|(distance, _)| *distance <= 2).min_by_key(|(distance, _)| *distance)?;
    Some(format!("did you mean `{signal}`?"))
}

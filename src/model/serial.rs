//! Functions for `#[serde(serialize_with)]`: how durations, paths and numbers of the plan are serialized.

use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use serde::ser::Serializer;

/// The result of a serializer.
pub(super) type Written<S> = Result<<S as Serializer>::Ok, <S as Serializer>::Error>;

pub(super) fn milliseconds<S: Serializer>(duration: &Duration, to: S) -> Written<S> {
    to.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

pub(super) fn milliseconds_or_null<S: Serializer>(duration: &Option<Duration>, to: S) -> Written<S> {
    match duration {
        Some(duration) => milliseconds(duration, to),
        None => to.serialize_none(),
    }
}

pub(super) fn text_or_null<T: Display, S: Serializer>(value: &Option<T>, to: S) -> Written<S> {
    match value {
        Some(value) => to.collect_str(value),
        None => to.serialize_none(),
    }
}

pub(super) fn octal_or_null<S: Serializer>(bits: &Option<u32>, to: S) -> Written<S> {
    text_or_null(&bits.map(|bits| format!("{bits:04o}")), to)
}

pub(super) fn negated<S: Serializer>(is: &bool, to: S) -> Written<S> {
    to.serialize_bool(!is)
}

pub(super) fn path<S: Serializer>(path: &Path, to: S) -> Written<S> {
    to.collect_str(&path.display())
}

/// Serializes `None` as `"unlimited"`.
pub(super) fn limited<N: Copy + Into<u64>, S: Serializer>(number: &Option<N>, to: S) -> Written<S> {
    match number {
        Some(number) => to.serialize_u64((*number).into()),
        None => to.serialize_str("unlimited"),
    }
}

//! The words of keys that take one of several: the decoder reads them, and `check --json` writes them.

use crate::model::plan::{
    ExitAction, KillMode, Kind, ListenMode, LogFormat, OnUnhealthy, Output, RestartPolicy, SignalAction,
};

/// `type`.
pub(super) const KINDS: [(&str, Kind); 2] = [("service", Kind::Service), ("oneshot", Kind::Oneshot)];
/// `on_failure`, `on_success`.
pub(super) const EXIT_ACTIONS: [(&str, ExitAction); 2] =
    [("shutdown", ExitAction::Shutdown), ("ignore", ExitAction::Ignore)];
/// `on_unhealthy`.
pub(super) const UNHEALTHY_ACTIONS: [(&str, OnUnhealthy); 3] =
    [("restart", OnUnhealthy::Restart), ("mark", OnUnhealthy::Mark), ("shutdown", OnUnhealthy::Shutdown)];
/// `restart`.
pub(super) const RESTART_POLICIES: [(&str, RestartPolicy); 3] =
    [("always", RestartPolicy::Always), ("on-failure", RestartPolicy::OnFailure), ("never", RestartPolicy::Never)];
/// `kill_mode`.
pub(super) const KILL_MODES: [(&str, KillMode); 3] =
    [("mixed", KillMode::Mixed), ("group", KillMode::Group), ("process", KillMode::Process)];
/// `listen_mode`.
pub(super) const LISTEN_MODES: [(&str, ListenMode); 2] =
    [("shared", ListenMode::Shared), ("reuseport", ListenMode::Reuseport)];
/// `log.stdout`, `log.stderr`.
pub(super) const OUTPUTS: [(&str, Output); 4] =
    [("raw", Output::Raw), ("prefix", Output::Prefix), ("inherit", Output::Inherit), ("null", Output::Null)];
/// `log.format` of `[keepalive]`.
pub(super) const LOG_FORMATS: [(&str, LogFormat); 2] = [("text", LogFormat::Text), ("json", LogFormat::Json)];
/// The values in `signals`.
pub(super) const SIGNAL_ACTIONS: [(&str, SignalAction); 5] = [
    ("reload", SignalAction::Reload),
    ("forward", SignalAction::Forward),
    ("shutdown", SignalAction::Shutdown),
    ("kill", SignalAction::Kill),
    ("ignore", SignalAction::Ignore),
];

/// The word for `value`. Every value has one.
pub(super) fn word_of<T: Copy + PartialEq>(words: &[(&'static str, T)], value: T) -> &'static str {
    words.iter().find(|(_, meaning)| *meaning == value).map_or("", |(word, _)| word)
}

//! Banned words and their replacements.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::source::{code_lines, files, read, rust_files};

/// Names of types, functions, fields and constants, as whole words of code.
const BANNED_NAMES: [(&str, &str); 91] = [
    ("A_WHILE", "a name that says what is limited, `IDLE_AFTER`"),
    ("BACKLOG_FOR_EACH", "MAX_PENDING_ACTIONS_PER_INSTANCE"),
    ("Beginning", "LoggerArgs"),
    ("Claim", "UniqueResource"),
    ("Clearing", "CleaningUp"),
    ("Closers", "CloseQueue"),
    ("Complaints", "RateLimitedLog"),
    ("ConfigurationWanted", "ConfigReloadRequested"),
    ("Consequence", "ExitAction"),
    ("Dialect", "Compat"),
    ("Digest", "Coalescer"),
    ("Draft", "ServiceDraft"),
    ("Entrance", "Listener"),
    ("Fate", "ConnectionFate or ServiceOutcome"),
    ("Flaw", "ExpandError"),
    ("Fleet", "ServiceTable"),
    ("Forgiven", "ResetFailures"),
    ("Gate", "RolloutGate or StartDeadline"),
    ("GaveUp", "FailureReason"),
    ("Gear", "InheritedFds"),
    ("Heir", "NextPipe"),
    ("Heirs", "NextPipe"),
    ("IdProbe", "PidLiveness"),
    ("InTrouble", "WatchdogTriggered"),
    ("Instead", "Output"),
    ("LAST_WORDS", "FLUSH_TIMEOUT"),
    ("Leaving", "Stopping"),
    ("News", "NotifyFields"),
    ("NOBODY", "EXIT_UNREACHABLE"),
    ("Obstacle", "RolloutError"),
    ("Outlet", "NonBlockingWriter"),
    ("Outlook", "RestartDecision"),
    ("Overlooked", "WaitOptions"),
    ("Presence", "Readiness"),
    ("Readings", "ConfigLoader"),
    ("Reconfigured", "ConfigReloaded"),
    ("ReconfigurationRefused", "ConfigReloadDeferred"),
    ("Recorder", "RecordingFs"),
    ("Reread", "LoadConfig"),
    ("Rung", "StopStage"),
    ("Said", "NotifyStatus"),
    ("Scene", "StatusSnapshot, or Setup in tests"),
    ("SignalUse", "SignalAction"),
    ("Standing", "ServiceStatus"),
    ("Successions", "MainPidChanged"),
    ("Surroundings", "Environment or Context"),
    ("Tally", "InstanceCounts"),
    ("Twin", "Surge"),
    ("Walk", "Decoder"),
    ("add_twin", "add_surge"),
    ("climb", "escalate"),
    ("entrance", "listener"),
    ("entrances", "listeners"),
    ("far_end", "peer"),
    ("farewell", "final_signal"),
    ("fleet", "service_table"),
    ("fork_quietly", "fork_without_sigchld"),
    ("fork_to_answer", "fork_helper"),
    ("gear", "inherited_fds"),
    ("has_twin", "has_surge"),
    ("heirs", "superseded"),
    ("hopeful", "waiting_on_dependency"),
    ("hopeless", "failed_dependency"),
    ("hopeless_dependency", "failed_dependency"),
    ("in_vain", "empty_scans"),
    ("is_at_leisure", "has_capacity"),
    ("is_on_trial", "is_unproven"),
    ("look_at_start", "poll_exec_result"),
    ("makes_the_same", "same_process_spec"),
    ("mark_unsettled", "mark_dirty"),
    ("obstacle", "failure or error"),
    ("on_massacre", "on_kill_all"),
    ("refused_client", "client_rejected"),
    ("reread", "load_config"),
    ("rung", "stage"),
    ("scene", "snapshot, or setup in tests"),
    ("soaked", "min_ready_until"),
    ("soaked_at", "min_ready_until"),
    ("stranger", "unauthorized_uid, or another process"),
    ("successions", "main_pid_changes"),
    ("surroundings", "environment or context"),
    ("tally", "counts"),
    ("tell", "send, log, print, publish or notify"),
    ("tell_fact", "a verb that says what is done"),
    ("tells", "sends, logs, prints, publishes or notifies"),
    ("torn", "partial_line"),
    ("turn_away", "reject"),
    ("twin", "surge"),
    ("twins", "surges"),
    ("uncleared", "lingering"),
    ("welcome", "accept"),
];

/// Beginnings and ends of constants. `{}` stands for the rest.
const BANNED_PARTS: [(&str, &str); 6] = [
    ("MOST_{}", "MAX_{}"),
    ("LONGEST_{}", "MAX_{}"),
    ("{}_AT_MOST", "MAX_{}"),
    ("PATIENCE{}", "<WHAT>_TIMEOUT"),
    ("{}PATIENCE", "<WHAT>_TIMEOUT"),
    ("PATIENCE_{}", "<WHAT>_TIMEOUT"),
];

/// Texts for people: messages, documentation, examples, and names of metrics and events.
const BANNED_TEXTS: [(&str, &str); 28] = [
    ("Two defaults are others", "Two defaults differ"),
    ("So many seconds at least", "at least so many seconds"),
    ("Bytes that are no UTF-8", "Non-UTF-8 bytes are passed through unchanged"),
    ("One that cannot be made is a warning", "If it cannot be created, keepalive logs a warning"),
    ("So long it is not ready any more", "Delay between marking it not ready and sending the stop signal"),
    ("cannot be found out", "cannot run"),
    ("configuration_failures_total", "config_reload_failures_total"),
    ("configuration_wanted", "config_reload_requested"),
    ("ends again and again", "is crash-looping"),
    ("how many lines of what has been", "number of past lines"),
    ("instance_memory_bytes", "instance_resident_memory_bytes"),
    ("is it right, and what does it come to", "validate the configuration and show the resolved plan"),
    ("its address is none", "invalid address"),
    ("its end is the end of all", "when it exits, keepalive shuts down"),
    ("keepalive_service_instances", "keepalive_service_desired_instances"),
    ("\"leftovers_killed\"", "leftover_processes_killed"),
    ("loop_turns_total", "event_loop_iterations_total"),
    ("own_lines_dropped_total", "log_messages_dropped_total"),
    ("reconfiguration_refused", "config_reload_deferred"),
    ("\"reconfigured\"", "config_reloaded"),
    ("refused_client\"", "client_rejected"),
    ("takes no word such as", "unexpected argument"),
    ("the answer is no", "refused, or not ready"),
    ("the configuration stays as it is", "reload failed, keeping the current configuration"),
    ("this is no address", "expected HOST:PORT"),
    ("what runs, and why the rest does not", "show service state"),
    ("what services have written", "show service output"),
    ("zombies_reaped_total", "orphans_reaped_total"),
];

/// The documents in which banned texts are searched.
const DOCUMENTS: [&str; 8] =
    ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "docs", "examples", "docker"];

#[test]
fn code_uses_standard_names() {
    let mut offences = Vec::new();
    for file in code_files() {
        for (number, line) in code_lines(&read(&file)) {
            for word in identifiers(&without_strings(line)) {
                if let Some(better) = better_name(word) {
                    offences.push(format!("{}:{number}: `{word}`; write `{better}`", file.display()));
                }
            }
        }
    }
    assert!(offences.is_empty(), "{}", offences.join("\n"));
}

#[test]
fn messages_and_documents_are_in_plain_english() {
    let documents = DOCUMENTS.iter().flat_map(|path| files(Path::new(path)));
    let mut offences = Vec::new();
    for file in code_files().into_iter().chain(documents) {
        // Binary files are skipped.
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        for (number, line) in text.lines().enumerate() {
            for (banned, better) in BANNED_TEXTS.iter().filter(|(banned, _)| line.contains(banned)) {
                offences.push(format!("{}:{}: `{banned}`; write `{better}`", file.display(), number + 1));
            }
        }
    }
    assert!(offences.is_empty(), "{}", offences.join("\n"));
}

#[test]
fn files_and_folders_have_standard_names() {
    for file in code_files() {
        let path = file.with_extension("").display().to_string();
        for word in identifiers(&path) {
            assert_eq!(better_name(word), None, "{}: write this instead", file.display());
        }
    }
}

#[test]
fn no_word_is_banned_twice() {
    let banned: BTreeSet<_> = BANNED_NAMES.iter().chain(&BANNED_TEXTS).map(|(banned, _)| banned).collect();
    assert_eq!(banned.len(), BANNED_NAMES.len() + BANNED_TEXTS.len());
}

#[test]
fn a_banned_name_is_found_as_a_whole_word_and_limits_by_their_form() {
    assert_eq!(better_name("twin"), Some("surge".to_owned()));
    assert_eq!(better_name("twinned"), None);
    assert_eq!(better_name("MOST_LINES"), Some("MAX_LINES".to_owned()));
    assert_eq!(better_name("LINES_AT_MOST"), Some("MAX_LINES".to_owned()));
    assert_eq!(better_name("KILL_PATIENCE"), Some("<WHAT>_TIMEOUT".to_owned()));
    assert_eq!(without_strings("let twin = f(\"a \\\"twin\\\" b\", '\"', 1);"), "let twin = f(, , 1);");
}

/// What to write instead of `word`.
fn better_name(word: &str) -> Option<String> {
    let by_form = |(form, better): &(&str, &str)| {
        let (before, after) = form.split_once("{}")?;
        let rest = word.strip_prefix(before)?.strip_suffix(after)?;
        Some(better.replace("{}", rest))
    };
    let by_name = BANNED_NAMES.iter().find(|(name, _)| *name == word).map(|(_, better)| (*better).to_owned());
    by_name.or_else(|| BANNED_PARTS.iter().find_map(by_form))
}

/// The words of which code is made.
pub(crate) fn identifiers(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !(letter.is_alphanumeric() || letter == '_')).filter(|word| !word.is_empty())
}

/// A line without what stands in quotes on it, and without the comment at its end.
fn without_strings(line: &str) -> String {
    let line = line.replace("'\"'", "").replace("'\\\"'", "");
    let mut code = String::new();
    let mut is_in_string = false;
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' if is_in_string => drop(letters.next()),
            '"' => is_in_string = !is_in_string,
            '/' if !is_in_string && letters.peek() == Some(&'/') => break,
            _ if is_in_string => {}
            _ => code.push(letter),
        }
    }
    code
}

/// The files in Rust, except this one, in which the words stand.
fn code_files() -> Vec<PathBuf> {
    let all = ["src", "tests", "benches"].into_iter().flat_map(rust_files);
    all.filter(|file| file != Path::new("tests/tidy/words.rs")).collect()
}

//! Tests of parsing the command lines of other inits.

use super::super::answer::LICENCE;
use super::*;
use crate::cli::Stream;
use crate::init::{Compat, Options, Placement, Subreaper};
use crate::model::plan::ExitSet;
use crate::model::{ExitStatus, Signal};

fn read_with(words: &[&str], variables: &[(&str, &str)]) -> Option<Invocation> {
    let arguments: Vec<OsString> = words.iter().map(OsString::from).collect();
    let variable = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
    read(&arguments, &Context { variable: &variable, id: 7 })
}

#[track_caller]
fn tini(words: &[&str], variables: &[(&str, &str)]) -> (Options, Vec<OsString>) {
    understood(&[&["/sbin/tini"], words].concat(), variables)
}

#[track_caller]
fn understood(words: &[&str], variables: &[(&str, &str)]) -> (Options, Vec<OsString>) {
    match read_with(words, variables) {
        Some(Invocation::Init { options, command }) => (options, command),
        other => panic!("{words:?}: {other:?}"),
    }
}

#[track_caller]
fn said(words: &[&str]) -> (Stream, String, u8) {
    match read_with(words, &[]) {
        Some(Invocation::Print { stream, text, code }) => (stream, text, code),
        other => panic!("{words:?}: {other:?}"),
    }
}

fn quiet() -> Options {
    Options { compat: Compat::Tini, subreaper: Subreaper::NoWithWarning, verbosity: 1, ..Options::default() }
}

#[test]
fn the_program_name_selects_the_init() {
    for name in ["tini", "/sbin/tini", "tini-static", "/x/docker-init", "podman-init"] {
        let found = read_with(&[name, "--", "true"], &[]);
        let expect = Invocation::Init { options: quiet(), command: vec!["true".into()] };
        assert_eq!(found, Some(expect), "{name}");
    }
    for name in ["keepalive", "/tini/keepalive", "init", "martini", ""] {
        assert_eq!(read_with(&[name, "--", "true"], &[]), None, "{name}");
    }
    assert_eq!(read_with(&[], &[]), None);
}

#[test]
fn options_of_tini_are_parsed_as_by_getopt() {
    let (options, command) =
        tini(&["-vgws", "-pSIGUSR1", "-p", "SIGKILL", "-e143", "-e", " +7", "-e", "", "ls", "-l"], &[]);
    let expect = Options {
        group: true,
        warn_on_reap: true,
        verbosity: 2,
        subreaper: Subreaper::Yes,
        parent_death_signal: Some(Signal::KILL),
        remap_exit: [143, 7, 0].map(ExitStatus::Code).into_iter().collect::<ExitSet>(),
        ..quiet()
    };
    assert_eq!((options, command), (expect, vec!["ls".into(), "-l".into()]));
    assert_eq!(tini(&["--", "--"], &[]).1, ["--"]);
    assert_eq!(tini(&["-"], &[]).1, ["-"]);
}

#[test]
fn the_environment_overrides_the_options_of_tini() {
    let options = |variables: &[_]| tini(&["-vvv", "true"], variables).0;
    assert_eq!(options(&[("TINI_SUBREAPER", "")]), Options { subreaper: Subreaper::Yes, verbosity: 4, ..quiet() });
    assert_eq!(options(&[("TINI_KILL_PROCESS_GROUP", "0")]), Options { group: true, verbosity: 4, ..quiet() });
    for (text, verbosity) in [("0", 0), ("junk", 0), ("", 0), (" 3x", 3), ("-1", 255), ("999", 255)] {
        assert_eq!(options(&[("TINI_VERBOSITY", text)]), Options { verbosity, ..quiet() }, "{text}");
    }
}

#[test]
fn invalid_options_of_tini_have_its_error_messages() {
    let fatal = |text: &str| (Stream::Stderr, format!("[FATAL tini (7)] Not a valid option for {text}\n"), 1);
    for signal in ["TERM", "15", "sigterm", "SIGRTMIN", "SIGIO", "SIGPOLL", "SIGPWR", "SIGSTKFLT", ""] {
        assert_eq!(said(&["tini", "-p", signal, "true"]), fatal(&format!("-p: {signal}")));
    }
    for code in ["256", "-1", "x", "1x", " ", "99999999999999999999"] {
        assert_eq!(said(&["tini", "-e", code, "true"]), fatal(&format!("-e: {code}")));
    }
    let usage = said(&["tini"]);
    assert_eq!((usage.0, usage.2), (Stream::Stderr, 1));
    for (words, line) in [
        (["/a/tini", "-z"].as_slice(), "/a/tini: invalid option -- 'z'\n"),
        (&["tini", "--version", "x"], "tini: invalid option -- '-'\n"),
        (&["tini", "-sp"], "tini: option requires an argument -- 'p'\n"),
    ] {
        assert_eq!(said(words), (Stream::Stderr, format!("{line}{}", usage.1), 1), "{words:?}");
    }
}

#[test]
fn requested_texts_are_printed_on_stdout() {
    assert_eq!(said(&["docker-init", "--version"]), (Stream::Stdout, "tini version 0.19.0\n".to_owned(), 0));
    assert_eq!(said(&["tini", "-h", "-z"]), (Stream::Stdout, said(&["tini"]).1, 0));
    assert_eq!(said(&["tini", "-l"]), (Stream::Stdout, LICENCE.to_owned(), 0));
}

/// The rewrites of dumb-init with these options, without its default ones.
#[track_caller]
fn rewrites(words: &[&str]) -> Vec<(u8, u8)> {
    let (options, command) = understood(&[&["dumb-init", "-c"], words, &["true"]].concat(), &[]);
    assert_eq!(command, ["true"], "{words:?}");
    options.rewrite.iter().map(|(from, to)| (from.number(), to.map_or(0, Signal::number))).collect()
}

#[test]
fn names_of_options_can_be_abbreviated() {
    for words in [["-r", "15:3"].as_slice(), &["-r15:3"], &["--rewrite", "15:3"], &["--rewrite=15:3"], &["--r=15:3"]] {
        assert_eq!(rewrites(words), [(15, 3)], "{words:?}");
    }
    for (words, line) in [
        (["dumb-init", "--ver"].as_slice(), "option '--ver' is ambiguous; possibilities: '--verbose' '--version'"),
        (&["dumb-init", "--foo=1"], "unrecognized option '--foo=1'"),
        (&["dumb-init", "--rewrite"], "option '--rewrite' requires an argument"),
        (&["dumb-init", "--verb=1", "x"], "option '--verbose' doesn't allow an argument"),
        (&["dumb-init", "--rewrite="], "Usage: -r option takes <signum>:<signum>, where <signum> is between 1 and 31."),
    ] {
        let (stream, text, code) = said(words);
        assert_eq!((stream, code), (Stream::Stderr, 1), "{words:?}");
        assert!(text.contains(line), "{words:?}: {text}");
    }
}

#[test]
fn a_rewrite_is_two_numbers_as_parsed_by_sscanf() {
    assert_eq!(rewrites(&["-r", " 15: 3x", "-r", "+1:31", "-r", "2:0"]), [(15, 3), (1, 31), (2, 0)]);
    for wrong in ["", ":", "15", "15:", ":3", "15 :3", "a:1", "1:a", "0:1", "32:1", "1:32", "1:-1", "-1:1", "TERM:QUIT"]
    {
        assert!(said(&["dumb-init", "-r", wrong, "true"]).1.starts_with("Usage: -r"), "{wrong}");
    }
    let far = "99999999999999999999:1";
    assert!(said(&["dumb-init", "-r", far, "true"]).1.starts_with("Usage: -r"));
}

#[test]
fn in_a_new_session_terminal_stop_signals_become_sigstop_unless_rewritten() {
    let (options, _) = understood(&["dumb-init", "-r", "20:12", "true"], &[]);
    let found: Vec<_> = options.rewrite.iter().map(|(from, to)| (from.number(), to.map(Signal::number))).collect();
    assert_eq!(found, [(20, Some(12)), (22, Some(19)), (21, Some(19))]);
    assert_eq!((options.placement, options.group), (Placement::NewSession, true));
    for variables in [[("DUMB_INIT_SETSID", "0")].as_slice(), &[("DUMB_INIT_SETSID", "0"), ("DUMB_INIT_DEBUG", "1")]] {
        let (options, _) = understood(&["dumb-init", "true"], variables);
        assert_eq!((options.placement, options.group, options.rewrite.len()), (Placement::SameSession, false, 0));
        assert_eq!(usize::from(options.verbosity), variables.len() - 1);
    }
    for value in ["false", "", "00"] {
        assert_eq!(
            understood(&["dumb-init", "true"], &[("DUMB_INIT_SETSID", value)]).0.placement,
            Placement::NewSession
        );
    }
}

#[test]
fn options_of_catatonit_can_be_anywhere_before_the_dashes() {
    let command = |words: &[&str], variables: &[_]| understood(&[&["catatonit"], words].concat(), variables).1;
    assert_eq!(command(&["ls", "-g", "--", "-l"], &[]), ["ls", "-l"]);
    assert_eq!(command(&["--", "ls", "-l"], &[]), ["ls", "-l"]);
    assert_eq!(command(&["ls", "-l"], &[("POSIXLY_CORRECT", "")]), ["ls", "-l"]);
    assert!(said(&["catatonit", "ls", "-l"]).1.contains("invalid option -- 'l'"));
    let (options, command) = understood(&["catatonit", "-P"], &[("CATATONIT_DEBUG", "")]);
    assert_eq!((options.placement, options.verbosity, command.len()), (Placement::NoCommand, 1, 0));
    assert_eq!(said(&["catatonit", "--v"]), (Stream::Stdout, "tini version 0.2.1_catatonit\n".to_owned(), 0));
}

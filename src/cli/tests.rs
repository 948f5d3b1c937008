//! Command lines and what they are parsed to.

use std::time::Duration;

use super::*;
use crate::config::{InlineOption, InlineService};
use crate::init::Options;
use crate::model::plan::ExitSet;
use crate::model::{ExitStatus, Signal};

fn words(line: &[&str]) -> Vec<OsString> {
    std::iter::once("keepalive").chain(line.iter().copied()).map(OsString::from).collect()
}

/// Checks what `line`, split at spaces, is parsed to.
#[track_caller]
fn check(line: &str, expect: Invocation) {
    let split: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(read(&words(&split)), Ok(expect), "{line}");
}

#[track_caller]
fn check_error(line: &str, message: &str, hint: &str) {
    let split: Vec<&str> = line.split_whitespace().collect();
    let found = read(&words(&split)).map_err(|error| UsageError { command: "", ..error });
    assert_eq!(found, Err(UsageError::new(message, hint)), "{line}");
}

fn supervise(config: Option<&str>, main: &[&str]) -> Invocation {
    let main = (!main.is_empty()).then(|| main.iter().map(OsString::from).collect());
    Invocation::Supervise { config: config.map(PathBuf::from), main }
}

fn init(options: Options) -> Invocation {
    Invocation::Init { options, command: vec!["sleep".into(), "5".into()] }
}

#[test]
fn keepalive_without_a_command_supervises_a_service_set() {
    check("", supervise(None, &[]));
    check("run", supervise(None, &[]));
    check("-c a.toml", supervise(Some("a.toml"), &[]));
    check("--config=a.toml", supervise(Some("a.toml"), &[]));
    check("run -c a.toml", supervise(Some("a.toml"), &[]));
    check("-ca.toml run", supervise(Some("a.toml"), &[]));
}

#[test]
fn a_command_joins_the_set_of_a_file() {
    check("-c a.toml -- sh -c x", supervise(Some("a.toml"), &["sh", "-c", "x"]));
    check("run -c a.toml -- sh", supervise(Some("a.toml"), &["sh"]));
}

#[test]
fn a_command_without_a_file_runs_in_init_mode() {
    check("-- sleep 5", init(Options::default()));
    let options = Options {
        group: true,
        rewrite: vec![
            (Signal::TERM, Some(Signal::QUIT)),
            (Signal::TERM, Some(Signal::QUIT)),
            (Signal::parse("37").unwrap(), None),
        ],
        remap_exit: [ExitStatus::Code(143), ExitStatus::Code(0)].into_iter().collect::<ExitSet>(),
        parent_death_signal: Some(Signal::KILL),
        grace: Some(Duration::from_secs(90)),
        linger: Some(Duration::from_millis(1500)),
        warn_on_reap: true,
        verbosity: 2,
        ..Options::default()
    };
    let short = "-gwvv -r TERM:QUIT -rSIGTERM:3 -r RTMIN+3:0 -e 143 -e0 -p KILL --grace=1m30s --linger 1.5s -- sleep 5";
    check(short, init(options.clone()));
    let long = "--group --warn-on-reap --verbose -v --rewrite TERM:QUIT --rewrite=SIGTERM:3 --rewrite RTMIN+3:0 \
                --remap-exit 143 --remap-exit=0 --parent-death-signal=9 --grace 90s --linger 1500ms -- sleep 5";
    check(long, init(options));
}

#[test]
fn arguments_after_the_dashes_are_not_parsed() {
    let command = ["--help", "--", "-c", ""].map(OsString::from);
    let mut line = words(&["--"]);
    line.extend(command.clone());
    assert_eq!(read(&line), Ok(Invocation::Init { options: Options::default(), command: command.into() }));
}

#[test]
fn help_and_version_are_accepted_in_every_position() {
    check("--help", Invocation::Help(help::general()));
    check("-gh", Invocation::Help(help::general()));
    check("run --help", Invocation::Help(help::for_command_name("run")));
    check("check -h", Invocation::Help(help::for_command_name("check")));
    check("-V", Invocation::Version);
    check("check --version", Invocation::Version);
}

#[test]
fn check_takes_a_file_and_an_output_format() {
    check("check", Invocation::Check { config: None, form: Form::Text });
    check("-c a.toml check", Invocation::Check { config: Some("a.toml".into()), form: Form::Text });
    check("check --json -c a.toml", Invocation::Check { config: Some("a.toml".into()), form: Form::Json });
    check_error("check a.toml", "unexpected argument `a.toml`", "keepalive check -c a.toml");
    check_error("check --jsn", "unknown option `--jsn`", "did you mean `--json`?");
    check_error("check -- x", "`keepalive check` takes no command after `--`", "keepalive check [-c FILE]");
}

#[test]
fn run_describes_one_service() {
    let text = "keepalive run --name web -i 4 --env A=b --ready delay=2s -- node x";
    let option = |key, value: &str, start: usize| InlineOption {
        key,
        value: value.to_owned(),
        span: start..start + value.len(),
    };
    let expected = InlineService {
        text: text.to_owned(),
        name: ("web".to_owned(), 21..24),
        options: vec![option("instances", "4", 28), option("env", "A=b", 36), option("ready", "delay=2s", 48)],
        command: vec![(b"node".to_vec(), 60..64), (b"x".to_vec(), 65..66)],
    };
    check("run --name=web -i4 --env A=b --ready=delay=2s -- node x", Invocation::SuperviseOne(expected));
}

#[test]
fn a_service_gets_the_name_of_its_program() {
    for (program, name) in [
        ("/usr/bin/node", "node"),
        ("./my server.sh", "my-server-sh"),
        ("[", "service"),
        ("all", "service"),
        ("_x_", "x"),
        ("é", "service"),
        ("/", "service"),
    ] {
        let Ok(Invocation::SuperviseOne(inline)) = read(&words(&["run", "--", program])) else { panic!("{program}") };
        assert_eq!(inline.name.0, name);
    }
}

#[test]
fn a_command_without_the_dashes_gets_a_hint_with_them() {
    check_error("node app.js", "unknown command `node`", "to run it as a command: keepalive -- node app.js");
    check_error("-g sh -c x -- y", "unknown command `sh`", "to run it as a command: keepalive -g -- sh -c x -- y");
    check_error(
        "run node app.js",
        "unexpected argument `node`",
        "write the command after `--`: keepalive run -- node app.js",
    );
    let script = "`server.js` is not a command of keepalive";
    let hint = "write `keepalive run -- node server.js -p 80`, or its `command` in keepalive.toml";
    check_error("server.js -p 80", script, hint);
    let file = "keepalive reads keepalive.toml, which `keepalive import FILE` makes of it";
    check_error("ecosystem.config.js", "`ecosystem.config.js` is not a command of keepalive", file);
    for word in ["Procfile", "app.service", "Dockerfile"] {
        check_error(word, &format!("`{word}` is not a command of keepalive"), file);
    }
    check_error("check compose.yml", "unexpected argument `compose.yml`", file);
    let hint = "write `keepalive run -- java -jar app.jar`, or its `command` in keepalive.toml";
    check_error("app.jar", "`app.jar` is not a command of keepalive", hint);
    let hint = "write the command after `--`: keepalive run -- node server.js";
    check_error("run server.js", "unexpected argument `server.js`", hint);
    check_error("new", "`keepalive new` is not supported yet", "");
    check_error("x/docker-compose.yml", "`x/docker-compose.yml` is not a command of keepalive", file);
    check_error("a.toml", "`a.toml` is not a command of keepalive", "write `keepalive -c a.toml`");
    let line = words(&["sh", "-c", "echo it's $HOME"]);
    let hint = "to run it as a command: keepalive -- sh -c \"echo it's \"'$HOME'";
    assert_eq!(read(&line), Err(UsageError::new("unknown command `sh`", hint)));
}

#[test]
fn reserved_and_misspelt_commands_have_different_errors() {
    check_error("reexec", "`keepalive reexec` is not supported yet", "");
    let hint = "did you mean `keepalive check`?\nto run it as a command: keepalive -- chekc";
    let version = "write `keepalive --version`\nto run it as a command: keepalive -- version";
    check_error("version", "unknown command `version`", version);
    for word in ["config", "configtest", "validate", "test", "lint"] {
        let hint = format!("write `keepalive check`\nto run it as a command: keepalive -- {word}");
        check_error(word, &format!("unknown command `{word}`"), &hint);
    }
    check_error("chekc", "unknown command `chekc`", hint);
    check_error(
        "run --listen tcp://0:80 -- x",
        "`--listen` needs NAME=ADDRESS, found `tcp://0:80`",
        "such as --listen http=tcp://0.0.0.0:8080",
    );
    check_error("run --listen a=b --listen a=c -- x", "`--listen a=` is used twice", "rename one of them");
}

#[test]
fn invalid_options_get_a_hint() {
    check_error("--grase=5s -- x", "unknown option `--grase`", "did you mean `--grace`?");
    check_error("-x", "unknown option `-x`", "");
    check_error("--grace=5 -- x", "`--grace` needs a duration, found `5`", "add a unit: --grace=5s");
    check_error("--linger soon -- x", "`--linger` needs a duration, found `soon`", "such as --linger=5s");
    let too_long = "99999999999999999999s";
    let reason = format!("`--grace` is too long: `{too_long}`");
    check_error(&format!("--grace {too_long} -- x"), &reason, "the maximum is 213503d");
    check_error("-r TERM -- x", "`-r` needs two signals, found `TERM`", "such as -r TERM:QUIT, or -r HUP:0 to drop it");
    check_error("-r TREM:INT -- x", "`-r` needs a signal, found `TREM`", "did you mean `SIGTERM`?");
    check_error("-r KILL:INT -- x", "SIGKILL cannot be rewritten: no process can catch it", "");
    check_error(
        "-r TERM:0x -- x",
        "`-r` needs a signal, found `0x`",
        "such as TERM, SIGTERM, 15 or RTMIN+3; `kill -l` lists them",
    );
    check_error("-e 256 -- x", "`-e` needs an exit code from 0 to 255, found `256`", "such as -e 143");
    check_error("-p", "`-p` needs a value", "");
    check_error("--group=x -- x", "`--group` takes no value, but there is `x`", "");
    check_error("run --nmae x -- x", "unknown option `--nmae`", "did you mean `--name`?");
    let error = read(&words(&["run", "--nmae"])).unwrap_err();
    assert!(error.to_string().ends_with("\nsee keepalive run --help\n"), "{error}");
}

#[test]
fn misplaced_options_get_a_hint() {
    check_error("-g", "`-g` needs a command after `--`", "keepalive -g -- CMD [ARG…]");
    check_error("--", "a command is missing after `--`", "keepalive -- CMD [ARG…]");
    check_error("run --name x", "`--name` needs a command after `--`", "keepalive run --name x -- CMD [ARG…]");
    let form = "keepalive [OPTIONS] -- CMD [ARG…]";
    check_error("-g run", "`-g` is an option of init mode and cannot be used with `run`", form);
    check_error("-v -c a -- x", "`-v` is an option of init mode and cannot be used with `-c FILE`", form);
    check_error(
        "run -c a --name x -- y",
        "`--name` cannot be used with `-c`: the file defines the services",
        "set it in `[services.NAME]`",
    );
    check_error(
        "run --env A -- x",
        "`--env` needs NAME=value, found `A`",
        "such as --env A=value; the environment of keepalive is inherited anyway",
    );
}

#[test]
fn a_usage_error_ends_with_a_reference_to_the_help() {
    let error = UsageError::new("unknown command `x`", "one\ntwo");
    assert_eq!(error.to_string(), "keepalive: unknown command `x`\n  one\n  two\nsee keepalive --help\n");
}

#[test]
fn every_reserved_command_is_refused() {
    for command in RESERVED_COMMANDS {
        let message = format!("`keepalive {command}` is not supported yet");
        assert_eq!(read(&words(&[command, "web"])), Err(UsageError::new(message, "")));
    }
}

#[path = "client_tests.rs"]
mod client;

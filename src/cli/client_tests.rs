//! Commands for a running keepalive.

use super::super::super::man;
use super::*;
use crate::control::{Change, Follow, Names, Request, Task};

fn request(task: Task) -> Request {
    Request { task, socket: None, config: None, form: Form::Text, timeout: None }
}

#[track_caller]
fn check_task(line: &str, task: Task) {
    check(line, Invocation::Client(request(task)));
}

#[track_caller]
fn check_refused(command: &'static str, line: &str, message: &str, hint: &str) {
    let split: Vec<&str> = line.split_whitespace().collect();
    let expected = UsageError { command, ..UsageError::new(message, hint) };
    assert_eq!(read(&words(&split)), Err(expected), "{line}");
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn each_command_is_parsed() {
    check_task("status", Task::Status(vec![]));
    check_task("status web db.1", Task::Status(names(&["web", "db.1"])));
    check_task("describe web.1 d*", Task::Describe(names(&["web.1", "d*"])));
    check_task("describe all", Task::Describe(names(&["*"])));
    check_task("exec web -- sh -c x", Task::Exec("web".to_owned(), words(&["sh", "-c", "x"]).split_off(1)));
    check_task("start web all", Task::Change(Change::Start, names(&["web", "all"])));
    check_task("stop web", Task::Change(Change::Stop, names(&["web"])));
    check_task("restart web.2", Task::Change(Change::Restart, names(&["web.2"])));
    for number in ["4", "+2", "-1"] {
        check_task(&format!("scale web {number}"), Task::Scale("web".to_owned(), number.to_owned()));
    }
    check_task(
        "logs",
        Task::Logs { names: vec![], lines: Some(100), since: None, timestamps: false, follow: Follow::No },
    );
    let follow =
        |lines| Task::Logs { names: names(&["web"]), lines, since: None, timestamps: false, follow: Follow::Yes };
    check_task("logs -fn0 web", follow(Some(0)));
    check_task("logs web --lines=all --follow", follow(None));
    check_task("events", Task::Events { names: vec![], lines: None, follow: Follow::No });
    let follow = |lines| Task::Events { names: names(&["web", "d*"]), lines, follow: Follow::Yes };
    check_task("events -f web d*", follow(None));
    check_task("events -f -n 3 web d*", follow(Some(3)));
    check_task("events --lines=all -f web d*", follow(None));
    check_task("top", Task::Top);
    check_task("health", Task::Alive);
    check_task("health --ready", Task::Ready(None));
    check_task("health web", Task::Ready(Some("web".to_owned())));
    check_task("health web --ready", Task::Ready(Some("web".to_owned())));
    check_task("shutdown", Task::Shutdown);
    check_task("completions names", Task::Names(Names::All));
    check_task("completions services", Task::Names(Names::Services));
    check_task("completions writers", Task::Names(Names::Writers));
}

#[test]
fn signals_have_names_and_numbers() {
    for word in ["SIGUSR1", "USR1", "usr1", "10"] {
        check_task(&format!("signal web {word}"), Task::Signal("web".to_owned(), Signal::USR1));
    }
    check_task("signal all RTMIN+3", Task::Signal("all".to_owned(), Signal::parse("37").unwrap()));
    check_refused(
        "signal",
        "signal web TREM",
        "`keepalive signal` needs a signal, found `TREM`",
        "did you mean `SIGTERM`?",
    );
    check_refused(
        "signal",
        "signal web FOO",
        "`keepalive signal` needs a signal, found `FOO`",
        "such as TERM, SIGTERM, 15 or RTMIN+3; `kill -l` lists them",
    );
    check_refused(
        "signal",
        "signal HUP api",
        "`keepalive signal` needs a signal, found `api`",
        "keepalive signal api HUP",
    );
}

#[test]
fn common_options_are_accepted_anywhere_after_the_command() {
    let expected = Request {
        socket: Some("/s".into()),
        form: Form::Json,
        timeout: Some(Duration::from_secs(90)),
        ..request(Task::Change(Change::Stop, names(&["a", "b"])))
    };
    check("stop --json a --socket /s b --timeout=1m30s", Invocation::Client(expected.clone()));
    check("stop a b --socket=/s --timeout 90s --json", Invocation::Client(expected));
}

#[test]
fn changes_can_be_quiet() {
    let task = || Task::Change(Change::Stop, names(&["a"]));
    check("stop -q a", Invocation::Client(Request { form: Form::Quiet, ..request(task()) }));
    check("stop --quiet a --json", Invocation::Client(Request { form: Form::Json, ..request(task()) }));
    check_refused("status", "status -q", "unknown option `-q`", "");
}

#[test]
fn a_client_is_given_the_file_of_the_keepalive_to_talk_to() {
    let expected = Request { config: Some("a.toml".into()), ..request(Task::Top) };
    for line in ["-c a.toml top", "top -c a.toml", "top --config=a.toml", "-c b.toml top -ca.toml"] {
        check(line, Invocation::Client(expected.clone()));
    }
}

#[test]
fn invalid_operands_and_options_get_a_hint() {
    check_refused("stop", "stop", "`keepalive stop` needs a name: web, web.2, \"web*\" or all", "keepalive stop NAME…");
    check_refused(
        "scale",
        "scale web",
        "`keepalive scale` needs a service and a number",
        "keepalive scale NAME N|+N|-N",
    );
    check_refused(
        "exec",
        "exec web",
        "`keepalive exec` needs a name, and a command after `--`",
        "keepalive exec NAME -- CMD [ARG…]",
    );
    check_refused("exec", "exec web sh", "unexpected argument `sh`", "keepalive exec NAME -- CMD [ARG…]");
    check_refused(
        "describe",
        "describe",
        "`keepalive describe` needs a name: web, web.2, \"web*\" or all",
        "keepalive describe NAME…",
    );
    for name in ["all", "web*"] {
        let message = format!("`exec` takes one service or instance, found `{name}`");
        check_refused("exec", &format!("exec {name} -- sh"), &message, "such as web or web.2");
    }
    for word in ["two", "+", "++1", "1.5"] {
        let message = format!("`scale` needs a number of instances, or how many more or fewer, found `{word}`");
        check_refused("scale", &format!("scale web {word}"), &message, "such as 4, +1 or -1");
    }
    check_refused("scale", "scale web 1 2", "unexpected argument `2`", "keepalive scale NAME N|+N|-N");
    check_refused("scale", "scale all 2", "`scale` needs one service, found `all`", "keepalive scale NAME N|+N|-N");
    check_refused("scale", "scale web.0 2", "`scale` needs one service, found `web.0`", "keepalive scale NAME N|+N|-N");
    check_refused("scale", "scale web* 2", "`scale` needs one service, found `web*`", "keepalive scale NAME N|+N|-N");
    check_refused("health", "health web*", "`web*` is a pattern", "such as web, web.2 or all");
    check_refused("top", "top web", "unexpected argument `web`", "keepalive top");
    check_refused("status", "status a/b", "invalid name `a/b`", "such as web, web.2, \"web*\" or all");
    check_refused(
        "start",
        "start server.js",
        "`server.js` is no service",
        "names are those in keepalive.toml, such as web",
    );
    check_refused("logs", "logs --folow", "unknown option `--folow`", "did you mean `--follow`?");
    let needs = |word| format!("`--since` needs a duration, found `{word}`");
    let forms = "such as --since 10m or --since 2026-11-21T08:00:00Z";
    check_refused("logs", "logs --since yesterday", &needs("yesterday"), forms);
    check_refused("logs", "logs --since 10min", &needs("10min"), "write --since=10m");
    check_refused("logs", "logs --since 10", &needs("10"), "add a unit: --since=10s");
    check_refused("logs", "logs -n x", "`-n` needs a whole number, found `x`", "");
    check_refused("stop", "stop a --timeout=5", "`--timeout` needs a duration, found `5`", "add a unit: --timeout=5s");
    check_refused("stop", "stop a --timeout 0", "`--timeout` must be at least 1ms, found `0`", "such as --timeout=5s");
    check_refused("status", "status --json=x", "`--json` takes no value, but there is `x`", "");
    let message = "`keepalive status` takes no command after `--`";
    check_refused("status", "status -- web", message, "keepalive status [NAME…]");
    check_refused("completions", "completions zhs", "unknown shell `zhs`", "did you mean `zsh`?");
    check_refused("completions", "completions tcsh", "unknown shell `tcsh`", "one of bash, zsh, fish");
    let socket = words(&["status", "--socket", ""]);
    let error = UsageError::new("`--socket` needs a file, found an empty name", "is a variable not set?");
    assert_eq!(read(&socket), Err(UsageError { command: "status", ..error }));
}

#[test]
fn options_of_other_modes_get_a_hint() {
    let form = "keepalive [OPTIONS] -- CMD [ARG…]";
    check_error("-g status", "`-g` is an option of init mode and cannot be used with `status`", form);
}

#[test]
fn every_usage_error_of_a_health_probe_exits_with_one() {
    let code = |line: &[&str]| read(&words(line)).unwrap_err().code();
    assert_eq!(code(&["health", "--raedy"]), 1);
    assert_eq!(code(&["status", "--raedy"]), 2);
    for line in ["health --", "health web --", "-v health", "-c a.toml health --x", "--nonsense health", "health -- x"]
    {
        assert_eq!(code(&line.split(' ').collect::<Vec<_>>()), 1, "{line}");
    }
    assert_eq!((code(&["status", "--"]), code(&["-v", "status"]), code(&["--nonsense", "--", "health"])), (2, 2, 2));
    let error = read(&words(&["health", "a", "b"])).unwrap_err();
    let expected =
        "keepalive: unexpected argument `b`\n  keepalive health [--ready] [NAME]\nsee keepalive health --help\n";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_prefix_of_a_command_suggests_that_command() {
    let hint = |word: &str| read(&words(&[word])).unwrap_err().hint;
    assert!(hint("stat").starts_with("did you mean `keepalive status`?"), "{}", hint("stat"));
    assert!(hint("comp").starts_with("did you mean `keepalive completions`?"), "{}", hint("comp"));
    assert!(hint("statr").starts_with("did you mean `keepalive start`?"), "{}", hint("statr"));
}

#[test]
fn help_is_also_a_command() {
    check("help", Invocation::Help(help::general()));
    check("help --help", Invocation::Help(help::for_command(Definition::find_command("help").unwrap())));
    check("help help", Invocation::Help(help::for_command(Definition::find_command("help").unwrap())));
    check("help status", Invocation::Help(help::for_command(Definition::find_command("status").unwrap())));
    check_error(
        "help statsu",
        "unknown command `statsu`",
        "did you mean `keepalive help status`?\n`keepalive help` lists all commands",
    );
    check_error("help nosuch", "unknown command `nosuch`", "`keepalive help` lists all commands");
    check_error("help ls", "unknown command `ls`", "write `keepalive status`\n`keepalive help` lists all commands");
}

#[test]
fn words_of_other_programs_get_the_word_of_keepalive() {
    let hint = |line: &str| {
        let error = read(&words(&line.split(' ').collect::<Vec<_>>())).unwrap_err();
        assert_eq!(error.code(), 2, "{line}");
        error.hint
    };
    assert_eq!(hint("ls"), "write `keepalive status`\nto run it as a command: keepalive -- ls");
    assert_eq!(hint("update --json"), "write `keepalive reload`\nto run it as a command: keepalive -- update --json");
    assert!(hint("monit").starts_with("write `keepalive top`\n"));
    for (line, expect) in [
        ("logs --tail 5", "write `-n LINES`"),
        ("logs --err", "with `--json` each line has its `stream`"),
        ("logs --folow", "did you mean `--follow`?"),
        ("run --ignore-watch=x -- x", "write it in a file, for `keepalive -c FILE`"),
        ("run --unit=x -- x", "write `--name NAME`"),
        ("run -d -- x", "remove it: keepalive stays in the foreground"),
        ("run --setenv=A=b -- x", "write `--env NAME=VALUE`"),
        ("status --watch", "write `keepalive top`"),
        ("status -H x", "write `--socket PATH`"),
        ("status --file x", "write `-c FILE`"),
        ("start app --name web", "write `keepalive run [OPTIONS] -- CMD`"),
        ("exec web -it -- sh", "remove it: the command has the terminal, and the rest of the service"),
        ("check --file x", "write `-c FILE`"),
        ("-s -- y", ""),
    ] {
        assert_eq!(hint(line), expect, "{line}");
    }
    check_task(
        "logs --lines 5",
        Task::Logs { names: vec![], lines: Some(5), since: None, timestamps: false, follow: Follow::No },
    );
}

#[test]
fn the_help_of_every_command_fits_the_screen() {
    for definition in definitions::commands() {
        let help = help::for_command(definition);
        check(&format!("{} --help", definition.name), Invocation::Help(help.clone()));
        for line in help.lines() {
            assert!(line.chars().count() <= 96, "{}: {line}", definition.name);
        }
        let named = format!("keepalive {}", definition.name);
        assert!(definition.forms.iter().all(|(form, _)| form.starts_with(&named)), "{named}");
        assert!(help::general().contains(definition.summary), "{named}");
    }
}

#[test]
fn the_parser_accepts_every_defined_option() {
    for option in definitions::PROGRAM.options().into_iter().filter(|option| option.long != "--config") {
        let value = match option.value {
            "FROM:TO" => "TERM:INT",
            "CODE" => "1",
            "DURATION" => "1s",
            _ => "TERM",
        };
        for name in option.names() {
            let mut line = vec![name];
            line.extend((!option.value.is_empty()).then_some(value));
            line.extend(["--", "x"]);
            assert!(read(&words(&line)).is_ok(), "{line:?}");
        }
    }
    for option in Definition::find_command("run").into_iter().flat_map(Definition::options) {
        for name in option.names().into_iter().filter(|_| !option.value.is_empty() && option.long != "--config") {
            let line = ["run", name, "a=b", "--", "x"];
            assert!(matches!(read(&words(&line)), Ok(Invocation::SuperviseOne(_))), "{line:?}");
        }
    }
    let run = Definition::find_command("run").unwrap().option_names();
    assert!(run::OPTIONS.iter().all(|(name, _)| run.contains(name) || *name == "--listen"), "{run:?}");
}

#[test]
fn the_manual_page_has_every_command_and_option() {
    let page = man::page();
    for definition in definitions::commands() {
        assert!(page.contains(&format!("\n.SS keepalive {}\n", definition.name)), "{}", definition.name);
        for option in definition.options() {
            assert!(page.contains(&format!("\\fB{}\\fR", option.name().replace('-', "\\-"))), "{}", option.name());
        }
    }
    check("completions man", Invocation::Tools(vec!["completions".into(), "man".into()]));
}

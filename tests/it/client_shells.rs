//! Completions in real shells, and the manual page in man(1).

use std::process::{Command, Output};

use serde_json::json;

use crate::fake_server::{FakeServer, status};
use crate::harness::{Directory, KEEPALIVE, Place, Run, skip};
use crate::terminal::Terminal;

/// A directory with `keepalive`, the scripts and a fake server.
struct Setting {
    server: FakeServer,
    /// `other.sock` in the directory.
    _other: FakeServer,
    path: String,
}

impl Setting {
    fn new() -> Self {
        let server = FakeServer::answering(|_| (200, status()));
        let other = json!({"services": [{"name": "west", "instances": [{"id": "west.0"}, {"id": "west.1"}]}]});
        let other = FakeServer::answering(move |_| (200, other.clone()));
        let directory = &server.directory;
        std::os::unix::fs::symlink(&other.path, directory.path().join("other.sock")).unwrap();
        // In its own directory, because zsh treats every file in PATH as a command.
        let programs = directory.path().join("bin");
        std::fs::create_dir(&programs).unwrap();
        std::os::unix::fs::symlink(KEEPALIVE, programs.join("keepalive")).unwrap();
        for (shell, file) in [("bash", "keepalive.bash"), ("zsh", "_keepalive"), ("fish", "keepalive.fish")] {
            let (code, script, stderr) = Run::words(Place::Child, &[KEEPALIVE, "completions", shell]).finish();
            assert_eq!((code, stderr.as_str()), (0, ""));
            directory.file(file, format!("{script}\n").as_bytes(), 0o644);
        }
        directory.file("some file.toml", b"", 0o644);
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", programs.to_str().unwrap());
        Self { server, _other: other, path }
    }

    fn shell(&self, words: &[&str]) -> Command {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).current_dir(self.directory().path());
        command.env("PATH", &self.path).env("KEEPALIVE_SOCKET", &self.server.path);
        command.env("HOME", self.directory().path()).env("TERM", "xterm").env("LC_ALL", "C.UTF-8");
        command
    }

    fn directory(&self) -> &Directory {
        &self.server.directory
    }
}

fn have(shell: &str) -> bool {
    let is_there = Command::new(shell).args(["-c", "true"]).output().is_ok_and(|output| output.status.success());
    if !is_there {
        skip(&format!("{shell} is not installed"));
    }
    is_there
}

fn lines(output: &Output) -> Vec<String> {
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// Lines with an unfinished last word, and the completions of this word.
const CASES: [(&str, &[&str]); 27] = [
    ("keepalive sta", &["status", "start"]),
    ("keepalive status we", &["web", "web.0", "web.1"]),
    ("keepalive stop db we", &["web", "web.0", "web.1"]),
    ("keepalive stop --json al", &["all"]),
    ("keepalive status --soc", &["--socket"]),
    ("keepalive status --socket other.sock we", &["west", "west.0", "west.1"]),
    ("keepalive status --socket=other.sock we", &["west", "west.0", "west.1"]),
    ("keepalive status --socket /x --socket \"other.sock\" we", &["west", "west.0", "west.1"]),
    ("keepalive status --socket /x we", &[]),
    ("keepalive signal web SIGUS", &["SIGUSR1", "SIGUSR2"]),
    ("keepalive signal --socket /x web SIGUS", &["SIGUSR1", "SIGUSR2"]),
    ("keepalive signal we", &["web", "web.0", "web.1"]),
    ("keepalive scale ", &["web", "db"]),
    ("keepalive scale --socket other.sock ", &["west"]),
    ("keepalive scale web d", &[]),
    ("keepalive logs k", &["keepalive"]),
    ("keepalive logs web all", &[]),
    ("keepalive logs we", &["web", "web.0", "web.1"]),
    ("keepalive he", &["health", "help"]),
    ("keepalive help sca", &["scale"]),
    ("keepalive completions ", &["bash", "zsh", "fish"]),
    ("keepalive run --restart on", &["on-failure"]),
    ("keepalive run --on-failure=shut", &["shutdown"]),
    ("keepalive check -c some", &["some file.toml"]),
    ("keepalive check --config some", &["some file.toml"]),
    ("keepalive -p SIGWIN", &["SIGWINCH"]),
    ("keepalive --warn", &["--warn-on-reap"]),
];

#[test]
fn completion_works_in_bash() {
    if !have("bash") {
        return;
    }
    let setting = Setting::new();
    // As readline does, the line is split, also at `=`, and the function is called.
    let script = r#"
        source ./keepalive.bash
        line=$1; COMP_WORDS=(${line//=/ = }); [[ $line == *' ' ]] && COMP_WORDS+=('')
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        _keepalive
        printf '%s\n' "${COMPREPLY[@]}""#;
    for (line, expect) in CASES {
        if expect == ["some file.toml"] {
            // The script passes them as two words.
            continue;
        }
        let output = setting.shell(&["bash", "--norc", "-c", script, "bash", line]).output().unwrap();
        let mut found = lines(&output);
        found.retain(|word| !word.is_empty());
        assert_eq!(found, expect, "{line}");
    }
    for word in ["~/other.sock", "$HOME/other.sock", "$(touch${IFS}run)/other.sock", "`touch${IFS}run`", "\"other.sock"]
    {
        let line = format!("keepalive scale --socket {word} we");
        let output = setting.shell(&["bash", "--norc", "-c", script, "bash", &line]).output().unwrap();
        let expected = if word.ends_with("E/other.sock") || word.starts_with('~') { "west" } else { "web" };
        assert_eq!(lines(&output), [expected], "{line}");
    }
    assert!(!setting.directory().path().join("run").exists(), "nothing has been run");
    let complete = setting.shell(&["bash", "--norc", "-c", "source ./keepalive.bash; complete -p keepalive"]).output();
    assert_eq!(lines(&complete.unwrap()), ["complete -F _keepalive keepalive"]);
}

#[test]
fn completion_works_in_fish() {
    if !have("fish") {
        return;
    }
    let setting = Setting::new();
    for (line, expect) in CASES {
        let script = format!("source ./keepalive.fish; complete -C '{line}'");
        let output = setting.shell(&["fish", "--no-config", "-c", &script]).output().unwrap();
        let found: Vec<String> =
            lines(&output).iter().map(|line| line.split('\t').next().unwrap().to_owned()).collect();
        // fish returns the option with its value, escaped and sorted.
        let mut found: Vec<String> =
            found.iter().map(|word| word.rsplit('=').next().unwrap().replace('\\', "")).collect();
        let mut expect = expect.to_vec();
        found.sort();
        expect.sort_unstable();
        assert_eq!(found, expect, "{line}");
    }
}

#[test]
fn completion_works_in_zsh() {
    if !have("zsh") {
        return;
    }
    let setting = Setting::new();
    let mut terminal = Terminal::start(&mut setting.shell(&["zsh", "-f", "-i"]));
    terminal.type_in("PS1='> ' fpath=($PWD $fpath); autoload -U compinit; compinit -u -D; unsetopt beep; setopt noautomenu; echo begin''ning\n");
    terminal.wait_for_text("beginning");
    // A unique completion is inserted with a space after it, otherwise the common prefix; `@` marks the end.
    for (typed, completed) in [
        ("keepalive heal", "keepalive health @"),
        ("keepalive stop d", "keepalive stop db @"),
        ("keepalive stop --json d", "keepalive stop --json db @"),
        ("keepalive status we", "keepalive status web@"),
        ("keepalive signal web SIGWIN", "keepalive signal web SIGWINCH @"),
        ("keepalive run --restart on-", "keepalive run --restart on-failure @"),
        ("keepalive run --restart=on-", "keepalive run --restart=on-failure @"),
        ("keepalive check -c some", "keepalive check -c some\\ file.toml @"),
        ("keepalive --warn", "keepalive --warn-on-reap @"),
        ("keepalive scale --socket other.sock we", "keepalive scale --socket other.sock west @"),
        ("keepalive scale --socket=~/other.sock we", "keepalive scale --socket=~/other.sock west @"),
        ("keepalive scale --socket $HOME/other.sock we", "keepalive scale --socket $HOME/other.sock west @"),
        ("keepalive scale w", "keepalive scale web @"),
        ("keepalive logs k", "keepalive logs keepalive @"),
        ("keepalive help sca", "keepalive help scale @"),
        ("keepalive completions z", "keepalive completions zsh @"),
        ("keepalive -- keepaliv", "keepalive -- keepalive @"),
    ] {
        // The whole line is printed again, so that the screen shows the result.
        terminal.type_in(&format!("{typed}\t@\x01echo '\x05'\n"));
        terminal.wait_for_text(&format!("\n{completed}\r"));
    }
    terminal.type_in("exit\n");
    assert_eq!(terminal.wait_for_end().0, Some(0));
}

#[test]
fn the_manual_page_can_be_shown() {
    let (code, page, stderr) = Run::words(Place::Child, &[KEEPALIVE, "completions", "man"]).finish();
    assert_eq!((code, stderr.as_str()), (0, ""));
    if Command::new("groff").arg("--version").output().is_err() {
        skip("groff is not installed");
        return;
    }
    let scratch = Directory::new();
    let file = scratch.file("keepalive.1", format!("{page}\n").as_bytes(), 0o644);
    let output = Command::new("groff").args(["-man", "-Tutf8", "-ww", "-P-c", &file]).output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(shown.contains("keepalive signal NAME SIGNAL"), "{shown}");
}

//! `docker run -it`: the terminal behaves as it does without an init.

use super::client::Client;
use super::drop_in;
use super::engine::{Container, Engine, unique_name};
use super::pty::{CTRL_C, Terminal};

const CTRL_Z: &str = "\x1a";

/// `run --interactive --tty WORDS` on a pseudo-terminal, and the container that it starts.
pub(crate) fn run_on_terminal(client: &Client, words: &[&str]) -> (Terminal, Container) {
    let container = Container::adopt(client, unique_name());
    let fixed = ["run", "--interactive", "--tty", "--network=none", "--name", container.name()];
    let terminal = Terminal::start(&mut client.command(&[&fixed, words].concat()));
    (terminal, container)
}

/// The same with a shell, which must have the terminal, and job control with it.
#[track_caller]
fn check_shell(words: &[&str]) {
    let (mut terminal, _container) = run_on_terminal(&Client::default(), words);
    terminal.wait_for_text("# ");
    assert!(!terminal.seen.contains("job control"), "{words:?}: {}", terminal.seen);
    use_the_shell(terminal);
}

/// A shell with job control, an interrupted program and a suspended one.
#[track_caller]
pub(crate) fn use_the_shell(mut terminal: Terminal) {
    terminal.type_in("echo $((40 + 2))\n");
    terminal.wait_for_text("\n42");
    // The program says that it has the terminal: before, Ctrl-C is for the shell.
    terminal.type_in("sh -c 'echo sleep\"\"ing; exec sleep 1000'; echo code=$?\n");
    terminal.wait_for_text("\nsleeping");
    terminal.type_in(CTRL_C);
    terminal.type_in("echo still he''re\n");
    terminal.wait_for_text("\nstill here");
    terminal.type_in("sh -c 'echo sleep\"\"ing; exec sleep 1001'\n");
    terminal.wait_for_text("\nsleeping");
    terminal.type_in(CTRL_Z);
    terminal.wait_for_text("Stopped");
    terminal.type_in("fg\n");
    terminal.wait_for_text("\nsh -c");
    terminal.type_in(CTRL_C);
    terminal.type_in("exit 5\n");

    let (code, rest) = terminal.wait_for_end();
    assert_eq!(code, Some(5), "{rest}");
}

/// Ctrl-C while /srv/polite has the terminal.
#[track_caller]
pub(crate) fn interrupt(mut terminal: Terminal) {
    terminal.wait_for_text("up");
    terminal.type_in(CTRL_C);
    terminal.wait_for_text("interrupted");
    let (code, rest) = terminal.wait_for_end();
    assert_eq!(code, Some(4), "{rest}");
}

#[test]
fn a_shell_in_init_mode_has_the_terminal() {
    let Some(engine) = Engine::find() else { return };
    let image = engine.image("");
    check_shell(&[image.name(), "--", "sh"]);
    let (terminal, _container) = run_on_terminal(&Client::default(), &[image.name(), "--", "/srv/polite"]);
    interrupt(terminal);
}

/// `docker run --init`, with the engine's own init.
#[test]
fn a_shell_below_another_init_has_the_terminal() {
    let Some(engine) = Engine::find() else { return };
    let image = engine.image("");
    check_shell(&["--init", image.name(), "--", "sh"]);
    let words = ["--init", image.name(), "--", "/srv/polite"];
    let (terminal, _container) = run_on_terminal(&Client::default(), &words);
    interrupt(terminal);
}

#[test]
fn a_shell_below_a_drop_in_has_the_terminal() {
    let Some(engine) = Engine::find() else { return };
    let image = engine.image("");
    for name in drop_in::NAMES {
        let entry_point = format!("--entrypoint={name}");
        check_shell(&[&entry_point, image.name(), "--", "sh"]);
        let words = [&entry_point, image.name(), "--", "/srv/polite"];
        let (terminal, _container) = run_on_terminal(&Client::default(), &words);
        interrupt(terminal);
    }
}

/// README: `keepalive -c FILE -- CMD`: CMD gets the terminal if there is one, its exit ends the container with its
/// code.
#[test]
fn a_shell_added_to_a_service_set_has_the_terminal() {
    let Some(engine) = Engine::find() else { return };
    let image = engine.image("[services.web]\ncommand = \"/srv/steady\"\n");
    check_shell(&[image.name(), "-c", "/etc/keepalive.toml", "--", "sh"]);
}

#[test]
fn ctrl_c_stops_a_service_set_in_order() {
    let Some(engine) = Engine::find() else { return };
    let image = engine.image(
        r#"
        [services.base]
        command = "/srv/steady"
        [services.web]
        command = "/srv/steady"
        depends_on = ["base"]
        "#,
    );
    let (mut terminal, _container) = run_on_terminal(&Client::default(), &[image.name()]);
    terminal.wait_for_text("web.0 up");
    terminal.type_in(CTRL_C);
    terminal.wait_for_text("web.0 stops");
    terminal.wait_for_text("base.0 stops");

    let (code, rest) = terminal.wait_for_end();
    assert_eq!(code, Some(0), "{rest}");
}

/// `docker exec -it`: the table is kept up to date, and `q` gives the terminal back.
#[test]
fn top_has_a_terminal_in_docker_exec() {
    let Some(engine) = Engine::find() else { return };
    let image =
        engine.image("[keepalive]\ncontrol = \"/k\"\n[services.web]\ncommand = \"/srv/steady\"\ninstances = 2\n");
    let container = image.run(&[], &[]);
    container.wait_for_line("web.1 up");
    let words = ["exec", "--interactive", "--tty", container.name(), "/sbin/keepalive", "top", "--socket", "/k"];
    let mut terminal = Terminal::start(&mut Client::default().command(&words));
    terminal.wait_for_text("web.1");
    container.shell("/sbin/keepalive stop web.1 --socket /k");
    terminal.wait_for_text("stopped");
    terminal.type_in("q");
    let (code, rest) = terminal.wait_for_end();
    assert_eq!(code, Some(0), "{rest}");
    assert_eq!(container.stop(), 0, "{}", container.describe());
}

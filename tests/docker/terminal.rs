//! `docker run -it`: the terminal behaves as it does without an init.

use std::process::Command;

use super::engine::{Container, Engine, Image, unique_name};
use super::pty::{CTRL_C, Terminal};

const CTRL_Z: &str = "\x1a";

/// `docker run --interactive --tty` on a pseudo-terminal, and the container that it starts.
fn run_interactively(image: &Image, arguments: &[&str]) -> (Terminal, Container) {
    let container = Container::adopt(unique_name());
    let terminal = Terminal::start(
        Command::new("docker")
            .args(["run", "--interactive", "--tty", "--network=none", "--name", container.name(), image.name()])
            .args(arguments),
    );
    (terminal, container)
}

/// A shell with job control, an interrupted program and a suspended one.
#[track_caller]
fn use_the_shell(mut terminal: Terminal) {
    terminal.type_in("echo $((40 + 2))\n");
    terminal.wait_for_text("\n42");
    terminal.type_in("echo sleep''ing; sleep 1000; echo code=$?\n");
    terminal.wait_for_text("\nsleeping");
    terminal.type_in(CTRL_C);
    terminal.type_in("echo still he''re\n");
    terminal.wait_for_text("\nstill here");
    terminal.type_in("echo sleep''ing; sleep 1001\n");
    terminal.wait_for_text("\nsleeping");
    terminal.type_in(CTRL_Z);
    terminal.wait_for_text("Stopped");
    terminal.type_in("fg\n");
    terminal.wait_for_text("\nsleep 1001");
    terminal.type_in(CTRL_C);
    terminal.type_in("exit 5\n");

    let (code, rest) = terminal.wait_for_end();
    assert_eq!(code, Some(5), "{rest}");
}

#[test]
fn a_shell_in_init_mode_has_the_terminal() {
    let Some(engine) = Engine::find() else { return };
    let image = engine.image("");
    let (mut terminal, _container) = run_interactively(&image, &["--", "sh"]);
    terminal.wait_for_text("# ");
    assert!(!terminal.seen.contains("job control"), "{}", terminal.seen);
    use_the_shell(terminal);
}

/// README: `keepalive -c FILE -- CMD`: CMD gets the terminal if there is one, its exit ends the container with its
/// code.
#[test]
fn a_shell_beside_a_service_set_has_the_terminal() {
    let Some(engine) = Engine::find() else { return };
    let image = engine.image("[services.web]\ncommand = \"/srv/steady\"\n");
    let (mut terminal, _container) = run_interactively(&image, &["-c", "/etc/keepalive.toml", "--", "sh"]);
    terminal.wait_for_text("# ");
    assert!(!terminal.seen.contains("job control"), "{}", terminal.seen);
    use_the_shell(terminal);
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
    let (mut terminal, _container) = run_interactively(&image, &[]);
    terminal.wait_for_text("web.0 up");
    terminal.type_in(CTRL_C);
    terminal.wait_for_text("web.0 stops");
    terminal.wait_for_text("base.0 stops");

    let (code, rest) = terminal.wait_for_end();
    assert_eq!(code, Some(0), "{rest}");
}

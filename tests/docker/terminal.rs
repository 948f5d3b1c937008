//! `docker run -it`: the terminal behaves as it does without an init.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use nix::pty::{Winsize, openpty};

use super::engine::{Container, Engine, Image, unique_name, wait_for};

const CTRL_C: &str = "\x03";
const CTRL_Z: &str = "\x1a";

/// `docker run --interactive --tty` on a pseudo-terminal, with a person at the other end.
struct Session {
    docker: Child,
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    seen: String,
    // Dropped last: it ends what the client left running.
    container: Container,
}

impl Session {
    fn start(image: &Image, arguments: &[&str]) -> Self {
        let size = Winsize { ws_row: 24, ws_col: 200, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).unwrap();
        let stdio = |fd: &OwnedFd| Stdio::from(fd.try_clone().unwrap());
        let container = Container::adopt(unique_name());
        let docker = Command::new("docker")
            .args(["run", "--interactive", "--tty", "--network=none", "--name", container.name(), image.name()])
            .args(arguments)
            .stdin(stdio(&pty.slave))
            .stdout(stdio(&pty.slave))
            .stderr(stdio(&pty.slave))
            .spawn()
            .unwrap();
        drop(pty.slave);
        let keyboard = File::from(pty.master);
        let mut master = keyboard.try_clone().unwrap();
        let (sender, screen) = channel();
        // Ends with EIO when the last of the other side is closed.
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = master.read(&mut buffer) {
                drop(sender.send(buffer[..count].to_vec()));
            }
        });
        Self { docker, keyboard, screen, seen: String::new(), container }
    }

    fn type_in(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until `text` shows up below what earlier calls have waited for.
    #[track_caller]
    fn wait_for_text(&mut self, text: &str) {
        let Self { screen, seen, .. } = self;
        let end = wait_for(
            || format!("`{text}` on the screen"),
            || {
                for bytes in screen.try_iter() {
                    seen.push_str(&String::from_utf8_lossy(&bytes));
                }
                seen.find(text).map(|position| position + text.len())
            },
        );
        self.seen.drain(..end);
    }

    /// Waits until docker ends; its exit code and the rest of the screen.
    #[track_caller]
    fn wait_for_end(mut self) -> (Option<i32>, String) {
        let status = wait_for(|| self.container.describe(), || self.docker.try_wait().unwrap());
        for bytes in self.screen.iter() {
            self.seen.push_str(&String::from_utf8_lossy(&bytes));
        }
        (status.code(), std::mem::take(&mut self.seen))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Only if the test has failed is it still there.
        drop(self.docker.kill());
        drop(self.docker.wait());
    }
}

/// A shell with job control, an interrupted program and a suspended one.
#[track_caller]
fn use_the_shell(mut session: Session) {
    session.type_in("echo $((40 + 2))\n");
    session.wait_for_text("\n42");
    session.type_in("echo sleep''ing; sleep 1000; echo code=$?\n");
    session.wait_for_text("\nsleeping");
    session.type_in(CTRL_C);
    session.type_in("echo still he''re\n");
    session.wait_for_text("\nstill here");
    session.type_in("echo sleep''ing; sleep 1001\n");
    session.wait_for_text("\nsleeping");
    session.type_in(CTRL_Z);
    session.wait_for_text("Stopped");
    session.type_in("fg\n");
    session.wait_for_text("\nsleep 1001");
    session.type_in(CTRL_C);
    session.type_in("exit 5\n");

    let (code, rest) = session.wait_for_end();
    assert_eq!(code, Some(5), "{rest}");
}

#[test]
fn a_shell_in_init_mode_has_the_terminal() {
    let Some(engine) = Engine::find() else { return };
    let image = engine.image("");
    let mut session = Session::start(&image, &["--", "sh"]);
    session.wait_for_text("# ");
    assert!(!session.seen.contains("job control"), "{}", session.seen);
    use_the_shell(session);
}

/// Contract: `keepalive -c FILE -- CMD`: CMD gets the terminal if there is one, its exit ends the container with its
/// code.
#[test]
fn a_shell_beside_a_service_set_has_the_terminal() {
    let Some(engine) = Engine::find() else { return };
    let image = engine.image("[services.web]\ncommand = \"/srv/steady\"\n");
    let mut session = Session::start(&image, &["-c", "/etc/keepalive.toml", "--", "sh"]);
    session.wait_for_text("# ");
    assert!(!session.seen.contains("job control"), "{}", session.seen);
    use_the_shell(session);
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
    let mut session = Session::start(&image, &[]);
    session.wait_for_text("web.0 up");
    session.type_in(CTRL_C);
    session.wait_for_text("web.0 stops");
    session.wait_for_text("base.0 stops");

    let (code, rest) = session.wait_for_end();
    assert_eq!(code, Some(0), "{rest}");
}

//! Gunicorn, Uvicorn and a server that does not change the flags of its socket.

use super::load::Protocol;
use super::{Program, SOCKET, program, shown};

mod gunicorn {
    use super::{Program, Protocol, SOCKET, program, shown};

    const APP: &str = r"
def app(environ, start_response):
    start_response('200 OK', [('Content-Length', '7')])
    return [b'served\n']
";

    const KEYS: &str = "ready = \"notify\"\nlisten_fds = false";

    const CONF: &str = "bind = ['fd://3']\n";

    /// Gets the number of its socket by `bind`. It sends `READY=1` by itself, without `--preload` even before it has
    /// loaded the application.
    fn gunicorn_with(bind: &str) -> Option<Program> {
        program(&["gunicorn"])?;
        let command = |app: &str| format!(r#"["gunicorn", "--chdir", "DIR", "--preload", {bind}, "{app}:app"]"#);
        Some(Program {
            command: command("app"),
            socket: SOCKET,
            broken: command("missing"),
            keys: KEYS,
            broken_keys: KEYS,
            files: vec![("app.py", APP.to_owned()), ("gunicorn.conf.py", CONF.to_owned())],
            protocol: Protocol::Http,
        })
    }

    fn gunicorn() -> Option<Program> {
        gunicorn_with(r#""-c", "DIR/gunicorn.conf.py""#)
    }

    shown!(gunicorn);

    #[test]
    fn a_descriptor_number_on_the_command_line_works_too() {
        if let Some(program) = gunicorn_with(r#""-b", "fd://{fd.http}""#) {
            program.survives_reloads();
        }
    }

    // Without `-b` and `bind` it uses the sockets of LISTEN_FDS.
    #[test]
    fn a_change_of_listen_fds_loses_no_request() {
        if let Some(program) = gunicorn_with(r#""-b", "fd://{fd.http}""#) {
            program.survives_changes(&[
                (r#""-b", "fd://{fd.http}", "app:app""#, r#""app:app""#),
                ("listen_fds = false", "listen_fds = true"),
            ]);
        }
    }

    #[test]
    fn a_change_of_nonblocking_loses_no_request() {
        if let Some(program) = gunicorn() {
            let socket = "{ address = \"tcp://ADDRESS\", nonblocking = false }";
            Program { socket, ..program }.survives_changes(&[("nonblocking = false", "nonblocking = true")]);
        }
    }
}

mod as_it_is {
    use super::{Program, Protocol, program};

    /// Reads O_NONBLOCK of the socket only at its start. On SIGTERM it accepts no more connections and exits after its
    /// last answer: it replaces the socket by a closed one and wakes waiting threads until they have seen that.
    const SERVER: &str = r"
import os, select, signal, socket, threading, time
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
signal.signal(signal.SIGUSR1, lambda *_: None)
main, server, blocks = threading.get_ident(), socket.socket(fileno=3), os.get_blocking(3)
def stop():
    signal.sigwait([signal.SIGTERM])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 3)
    while True:
        signal.pthread_kill(main, signal.SIGUSR1)
        time.sleep(0.01)
threading.Thread(target=stop, daemon=True).start()
def accept():
    while True:
        if not blocks: select.select([3], [], [])
        try: return server.accept()[0]
        except BlockingIOError:
            if blocks: os._exit(11)
        except OSError: os._exit(0)
os.write(9, b'\n')
while True:
    client, request = accept(), b''
    client.setblocking(True)
    while not request.endswith(b'\r\n\r\n'):
        part = client.recv(4096)
        if not part: break
        request += part
    if request:
        client.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\nserved\n')
    client.close()
";

    fn server(socket: &'static str, keys: &'static str) -> Option<Program> {
        program(&["python3"])?;
        Some(Program {
            command: r#"["python3", "DIR/server.py"]"#.to_owned(),
            socket,
            broken: String::new(),
            broken_keys: keys,
            keys,
            files: vec![("server.py", SERVER.to_owned())],
            protocol: Protocol::Http,
        })
    }

    // nginx passes its sockets to a new nginx by this variable. For keepalive it is an ordinary variable.
    #[test]
    fn adding_and_removing_the_variable_nginx_ends_no_worker() {
        if let Some(program) = server(super::SOCKET, "ready = { fd = 9 }\nenv = { OTHER = \"3;\" }") {
            program.survives_changes(&[("OTHER", "NGINX")]);
        }
    }

    // fcntl(2): O_NONBLOCK belongs to the open file description, which the old workers share.
    #[test]
    fn a_change_of_nonblocking_ends_no_worker() {
        let socket = "{ address = \"tcp://ADDRESS\", nonblocking = false }";
        if let Some(program) = server(socket, "ready = { fd = 9 }") {
            program.survives_changes(&[("nonblocking = false", "nonblocking = true")]);
        }
    }
}

mod uvicorn {
    use super::{Program, Protocol, SOCKET, program, shown};

    /// When Uvicorn gets its stop signal, it resets accepted connections without a request, so a request or two are
    /// lost. The first lines of the script wait for these requests.
    const APP: &str = r"
import os, socket
from uvicorn.protocols.http.h11_impl import H11Protocol
shutdown_now = H11Protocol.shutdown
def shutdown(protocol):
    if protocol.transport.is_closing(): return
    if protocol.cycle is None: protocol.loop.call_later(0.01, shutdown, protocol)
    else: shutdown_now(protocol)
H11Protocol.shutdown = shutdown
async def app(scope, receive, send):
    if scope['type'] == 'lifespan':
        while True:
            message = await receive()
            await send({'type': message['type'] + '.complete'})
            if message['type'] == 'lifespan.shutdown': return
            where = os.environ['NOTIFY_SOCKET'].replace('@', '\0', 1)
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'READY=1', where)
    await send({'type': 'http.response.start', 'status': 200, 'headers': [(b'content-length', b'7')]})
    await send({'type': 'http.response.body', 'body': b'served\n'})
";

    fn uvicorn() -> Option<Program> {
        program(&["uvicorn"])?;
        let command = |app: &str| {
            format!(
                r#"["uvicorn", "--app-dir", "DIR", "--no-access-log", "--log-level", "warning", "--http", "h11", "--fd", "{{fd.http}}", "{app}:app"]"#
            )
        };
        Some(Program {
            command: command("app"),
            socket: SOCKET,
            broken: command("missing"),
            keys: "ready = \"notify\"",
            broken_keys: "ready = \"notify\"",
            files: vec![("app.py", APP.to_owned())],
            protocol: Protocol::Http,
        })
    }

    shown!(uvicorn);
}

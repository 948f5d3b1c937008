//! Gunicorn and Uvicorn.

use super::load::Protocol;
use super::{Program, program, shown};

mod gunicorn {
    use super::{Program, Protocol, program, shown};

    const APP: &str = r"
def app(environ, start_response):
    start_response('200 OK', [('Content-Length', '7')])
    return [b'served\n']
";

    /// It sends `READY=1` by itself; without `--preload` before anybody has read the application.
    fn gunicorn() -> Option<Program> {
        program(&["gunicorn"])?;
        let command = |app: &str| {
            format!(r#"["gunicorn", "--chdir", "DIR", "--preload", "-b", "fd://{{fd.http}}", "{app}:app"]"#)
        };
        Some(Program {
            command: command("app"),
            broken: command("missing"),
            keys: "ready = \"notify\"",
            files: vec![("app.py", APP.to_owned())],
            protocol: Protocol::Http,
        })
    }

    shown!(gunicorn);
}

mod uvicorn {
    use super::{Program, Protocol, program, shown};

    /// Uvicorn breaks off the connections that it has taken and heard nothing of yet when it is told to end, so that
    /// a request or two are lost. The first lines give those half a second.
    const APP: &str = r"
import os, socket
from uvicorn.protocols.http.h11_impl import H11Protocol
shutdown_now = H11Protocol.shutdown
def later(protocol):
    if not protocol.transport.is_closing(): shutdown_now(protocol)
def shutdown(protocol):
    if protocol.cycle is None: protocol.loop.call_later(0.5, later, protocol)
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
            broken: command("missing"),
            keys: "ready = \"notify\"",
            files: vec![("app.py", APP.to_owned())],
            protocol: Protocol::Http,
        })
    }

    shown!(uvicorn);
}

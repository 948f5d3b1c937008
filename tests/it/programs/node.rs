//! Node: its http server on an inherited socket, `process.send('ready')`.

use super::load::Protocol;
use super::{Program, SOCKET, program, shown};

const SERVER: &str = r"
let stopping = false;
const server = require('http').createServer((request, response) => {
    if (stopping) response.setHeader('Connection', 'close');
    response.end('served\n');
});
server.listen({ fd: Number(process.argv[2]) }, () => process.send('ready'));
process.on('SIGTERM', () => {
    stopping = true;
    server.close(() => process.exit(0));
});
";

fn node() -> Option<Program> {
    program(&["node"])?;
    Some(Program {
        command: r#"["node", "DIR/server.js", "{fd.http}"]"#.to_owned(),
        socket: SOCKET,
        // It listens, but never reports ready.
        broken: r#"["node", "-e", "require('http').createServer().listen(0)"]"#.to_owned(),
        keys: "ipc = true\nready = \"ipc\"",
        broken_keys: "ipc = true\nready = \"ipc\"\nready_timeout = \"5s\"",
        files: vec![("server.js", SERVER.to_owned())],
        protocol: Protocol::Http,
    })
}

shown!(node);

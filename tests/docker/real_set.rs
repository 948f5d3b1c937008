//! A real service set in one container: nginx in front of a Python application that counts its visits in Redis.

use std::path::PathBuf;

use super::archive::Archive;
use super::client::{docker, lossy};
use super::engine::{Container, Engine, Process, skip};
use super::host;
use super::python::add_python;
use super::wait::wait_for;

const CONFIGURATION: &str = r#"
[services.redis]
command = ["redis-server", "--bind", "127.0.0.1", "--save", "", "--dir", "/tmp"]

[services.application]
command = ["PYTHON", "-I", "/srv/application.py"]
depends_on = ["redis"]

[services.nginx]
command = ["nginx", "-c", "/etc/nginx.conf"]
stop_signal = "SIGQUIT"
depends_on = ["application"]
"#;

const NGINX: &str = r"
daemon off;
user nobody nogroup;
worker_processes 2;
pid /tmp/nginx.pid;
error_log stderr;
events {}
http {
    access_log off;
    client_body_temp_path /tmp/nginx-body;
    proxy_temp_path /tmp/nginx-proxy;
    fastcgi_temp_path /tmp/nginx-fastcgi;
    uwsgi_temp_path /tmp/nginx-uwsgi;
    scgi_temp_path /tmp/nginx-scgi;
    server {
        listen 127.0.0.1:80;
        location / { proxy_pass http://127.0.0.1:8000; }
    }
}
";

const APPLICATION: &str = r#"
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Visits(BaseHTTPRequestHandler):
    def do_GET(self):
        with socket.create_connection(("127.0.0.1", 6379), 5) as redis:
            redis.sendall(b"INCR visits\r\n")
            number = redis.recv(64).decode().strip().lstrip(":")
        body = f"visit {int(number)}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

ThreadingHTTPServer(("127.0.0.1", 8000), Visits).serve_forever()
"#;

/// Prints the body of what nginx answers.
const VISITOR: &str = r#"
import socket

with socket.create_connection(("127.0.0.1", 80), 5) as server:
    server.sendall(b"GET / HTTP/1.0\r\n\r\n")
    print(server.makefile("rb").read().decode().partition("\r\n\r\n")[2], end="")
"#;

/// nginx and redis-server, or the first that is missing.
fn programs() -> Result<[PathBuf; 2], &'static str> {
    let find = |program| host::find(program).ok_or(program);
    Ok([find("nginx")?, find("redis-server")?])
}

/// What a visitor gets, by way of all three services.
fn visit(container: &Container, interpreter: &str) -> Option<String> {
    let answer = docker(&["exec", container.name(), interpreter, "-I", "/srv/visitor.py"]);
    Some(lossy(&answer.stdout)).filter(|body| body.starts_with("visit "))
}

/// The main processes of the three, by program: redis-server and nginx write their titles over their environment.
#[track_caller]
fn main_pids(container: &Container) -> [i32; 3] {
    ["redis-server", "python3", "nginx"].map(|program| {
        wait_for(
            || container.describe(),
            || {
                let is_main = |process: &Process| process.parent == 1 && process.name.starts_with(program);
                container.processes().into_iter().find(is_main)
            },
        )
        .pid
    })
}

#[test]
fn nginx_python_and_redis_in_one_container_restart_independently() {
    let Some(engine) = Engine::find() else { return };
    let [nginx, redis] = match programs() {
        Ok(programs) => programs,
        Err(missing) => return skip(&format!("{missing} is not installed")),
    };
    let mut base = Archive::default();
    let Some(interpreter) = add_python(&mut base, "http.server, socket") else { return };
    host::add_program(&mut base, &nginx);
    host::add_program(&mut base, &redis);
    base.file("/etc/nginx.conf", 0o644, NGINX.as_bytes());
    base.file("/srv/application.py", 0o644, APPLICATION.as_bytes());
    base.file("/srv/visitor.py", 0o644, VISITOR.as_bytes());
    base.directory("/var/log/nginx", 0o755);
    base.directory("/var/lib/nginx", 0o755);
    let image = engine.image_from(base, &CONFIGURATION.replace("PYTHON", &interpreter));
    let container = image.run(&[], &[]);
    wait_for(|| container.describe(), || visit(&container, &interpreter));
    let mut before = main_pids(&container);

    for position in 0..before.len() {
        container.shell(&format!("kill -KILL {}", before[position]));
        wait_for(|| container.describe(), || (main_pids(&container)[position] != before[position]).then_some(()));
        wait_for(|| container.describe(), || visit(&container, &interpreter));

        let after = main_pids(&container);
        let same: Vec<bool> = after.iter().zip(before).map(|(after, before)| *after == before).collect();
        let expected: Vec<bool> = (0..before.len()).map(|other| other != position).collect();
        assert_eq!(same, expected, "{before:?} → {after:?}\n{}", container.describe());
        before = after;
    }

    assert_eq!(container.stop(), 0, "{}", container.describe());
}

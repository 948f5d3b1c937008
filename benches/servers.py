"""The servers with workers for a port, and their configurations. Facts about a server are only here.

In all of them the workers are the children of PID 1.
"""

import json
import os
import shutil
import signal
import subprocess

from run import Failed, wait_until

# The worker program of keepalive and PM2: it exits when all its requests are answered, as both require.
NODE = """
'use strict';
let stopping = false;
const server = require('node:http').createServer((request, response) => {
    if (stopping) response.setHeader('Connection', 'close');
    response.end('served\\n');
});
function stop() {
    if (stopping) return;
    stopping = true;
    server.close(() => process.exit(0));
}
process.on('SIGTERM', stop);
process.on('SIGINT', stop);
const { HTTP_FD, HTTP_PORT } = process.env;
const where = HTTP_FD ? { fd: Number(HTTP_FD) } : { port: Number(HTTP_PORT), host: '127.0.0.1' };
server.listen(where, () => process.send('ready'));
"""
PYTHON = """
def app(environ, start_response):
    start_response('200 OK', [('Content-Length', '7')])
    return [b'served\\n']
"""
# The servers and the programs that they need. The first program is PID 1, except for keepalive.
PROGRAMS = {
    "keepalive": ["node"],
    "keepalive (reuseport)": ["node"],
    "PM2": ["pm2-runtime", "pm2", "node", "nsenter"],
    "nginx": ["nginx"],
    "gunicorn": ["gunicorn"],
    "keepalive (gunicorn)": ["gunicorn"],
}


class Servers:
    """The installed ones."""

    def __init__(self, peers):
        self.keepalive = peers.path["keepalive"]
        self.path = {}
        missing = {}
        for name, programs in PROGRAMS.items():
            found = [shutil.which(program) for program in programs]
            if all(found):
                self.path[name] = found
            missing.update((program, None) for program, path in zip(programs, found) if not path)
        # Without its name, because keepalive itself is installed.
        self.missing = list(missing)

    def those(self, *names):
        """The installed ones of these."""
        return [name for name in names if name in self.path]

    def command(self, name, folder, port, workers):
        """Writes the configuration for so many workers of a port; the command line that starts them."""
        for file, text in (("server.js", NODE), ("app.py", PYTHON)):
            write(folder, file, text)
        return getattr(self, "_" + name.replace(" (", "_").rstrip(")").lower())(folder, port, workers)

    def _set(self, folder, port, workers, words, more):
        return [self.keepalive, "-c", write(folder, "keepalive.toml", f"""
[services.web]
command = {json.dumps(words)}
cwd = "{folder}"
instances = {workers}
listen = {{ http = "tcp://127.0.0.1:{port}" }}
min_uptime = "0s"
max_restarts = "unlimited"
{more}
""")]

    def _keepalive(self, folder, port, workers, mode="shared"):
        return self._set(folder, port, workers, [*self.path["keepalive"], "server.js"], f"""
listen_mode = "{mode}"
ipc = true
ready = "ipc"
env = {{ HTTP_FD = "{{fd.http}}" }}""")

    def _keepalive_reuseport(self, folder, port, workers):
        return self._keepalive(folder, port, workers, "reuseport")

    def _keepalive_gunicorn(self, folder, port, workers):
        # The socket is in LISTEN_FDS, which gunicorn knows, as it knows NOTIFY_SOCKET.
        words = [*self.path["keepalive (gunicorn)"], "--preload", "--workers=1", "app:app"]
        return self._set(folder, port, workers, words, 'ready = "notify"\nenv = { PYTHONDONTWRITEBYTECODE = "1" }')

    def _pm2(self, folder, port, workers):
        app = {"name": "web", "script": os.path.join(folder, "server.js"), "exec_mode": "cluster", "instances": workers,
               "wait_ready": True, "env": {"HTTP_PORT": str(port)}, "vizion": False, "pmx": False,
               "out_file": "/dev/null", "error_file": "/dev/null"}
        return [self.path["PM2"][0], "start", write(folder, "pm2.json", json.dumps({"apps": [app]}))]

    def _nginx(self, folder, port, workers):
        temporary = "".join(f"{kind}_temp_path {folder}/{kind};\n"
                            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        return [*self.path["nginx"], "-p", folder, "-e", "stderr", "-c", write(folder, "nginx.conf", f"""
daemon off;
user root;
worker_processes {workers};
pid {folder}/pid;
error_log stderr;
events {{ }}
http {{
access_log off;
{temporary}
server {{ listen 127.0.0.1:{port}; location / {{ return 200 "served\\n"; }} }}
}}
""")]

    def _gunicorn(self, folder, port, workers):
        return [*self.path["gunicorn"], "--chdir", folder, f"--workers={workers}", f"--bind=127.0.0.1:{port}",
                "--worker-tmp-dir=/dev/shm", "app:app"]

    def reload(self, name, run):
        """Starts a reload, and waits for its command, if it is one."""
        if name in ("nginx", "gunicorn"):
            os.kill(run.pid(), signal.SIGHUP)
            return
        words = [self.keepalive, "reload", "web"]
        if name == "PM2":
            # In its namespace: if it does not find its daemon it starts another one, which ends with the run.
            _, command, _, nsenter = self.path["PM2"]
            words = [nsenter, f"--target={run.pid()}", "--pid", "--mount", command, "reload", "web"]
        environment = {"PATH": os.environ["PATH"], "HOME": run.folder, "PM2_HOME": run.folder,
                       "KEEPALIVE_SOCKET": run.socket}
        output = os.path.join(run.folder, "reloaded")
        with open(output, "wb") as file:
            process = subprocess.Popen(words, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        run.helpers.append(process)
        wait_until(f"{name}: the end of its reload command", lambda: process.poll() is not None)
        if process.returncode:
            with open(output, encoding="utf-8", errors="replace") as file:
                raise Failed(f"{name}: its reload command ended with {process.returncode}: {file.read()[-300:]}")


def write(folder, name, text):
    """Writes a new file and returns its path."""
    path = os.path.join(folder, name)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path

"""A web server that takes the socket it is given, says when it is ready, and finishes what it has begun."""

import os
import signal
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def notify(message):
    """sd_notify(3); an address that begins with @ is an abstract one."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.connect(os.environ["NOTIFY_SOCKET"].replace("@", "\0", 1))
        channel.sendall(message.encode())


class Handler(BaseHTTPRequestHandler):
    timeout = 5

    def do_GET(self):
        time.sleep(0.01)  # stands for work
        body = f"web.{os.environ['KEEPALIVE_INSTANCE']} {os.getpid()}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = False  # server_close() waits for the requests that are being answered


assert os.environ["LISTEN_FDS"] == "1"
server = Server(None, Handler, bind_and_activate=False)
server.socket.close()
server.socket = socket.socket(fileno=3)  # sd_listen_fds(3): they begin at 3
server.socket.setblocking(False)  # another worker may have been faster

signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
time.sleep(0.3)  # stands for what a program loads before it can serve
notify("READY=1")
server.serve_forever(poll_interval=0.05)
server.server_close()

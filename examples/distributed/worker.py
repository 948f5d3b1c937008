"""A notice board: every worker of every host knows all notices that any worker has received.

PUT /KEY (the body is the value)   200 when Redis has it on disk; 503 otherwise, and then it may be there or not
GET /KEY                           from this worker's memory, which Redis keeps up to date by pub/sub
GET /                              all of it, a line each
"""

import os
import signal
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ADDRESS = (os.environ["REDIS"], 6379)
PATIENCE = 10  # seconds that a request may wait for Redis
NAME = f"{socket.gethostname()} {os.environ['KEEPALIVE_SERVICE']}.{os.environ['KEEPALIVE_INSTANCE']} {os.getpid()}"
board = {}
knows_board = threading.Event()


class Redis:
    """A connection: the protocol of Redis, as much of it as is needed."""

    def __init__(self, timeout):
        self.socket = socket.create_connection(ADDRESS, timeout=5)
        # A peer that is gone without a word, with its host, is found out.
        for option, value in (("TCP_KEEPIDLE", 2), ("TCP_KEEPINTVL", 1), ("TCP_KEEPCNT", 3)):
            self.socket.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.socket.settimeout(timeout)
        self.file = self.socket.makefile("rb")

    def send(self, *words):
        parts = [word if isinstance(word, bytes) else word.encode() for word in words]
        self.socket.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(it), it) for it in parts))

    def read(self):
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise OSError("Redis has closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise OSError(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == b"-1" else self.file.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self.read() for _ in range(int(rest))]
        return rest

    def ask(self, *words):
        self.send(*words)
        return self.read()

    def close(self):
        self.file.close()
        self.socket.close()


def listen():
    """Hears of changes, for ever. First it subscribes, then it reads the whole: nothing falls in between."""
    while True:
        try:
            subscription = Redis(timeout=None)
            subscription.ask("SUBSCRIBE", "board")
            read_all()
            knows_board.set()
            print(f"{NAME} is connected to Redis", flush=True)
            while True:
                _, _, message = subscription.read()
                key, _, value = message.partition(b"\0")
                board[key] = value
        except OSError as error:
            print(f"{NAME} has lost Redis: {error}", flush=True)
            time.sleep(0.2)


def read_all():
    redis = Redis(timeout=5)
    pairs = redis.ask("HGETALL", "board")
    board.update(zip(pairs[::2], pairs[1::2]))
    redis.close()


def write(key, value):
    """Writes and tells the others, both or nothing. Tries again: it does no harm to write the same twice."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            redis = Redis(timeout=2)
            for command in (("MULTI",), ("HSET", "board", key, value), ("PUBLISH", "board", key + b"\0" + value)):
                redis.ask(*command)
            redis.ask("EXEC")
            redis.close()
            return True
        except OSError:
            if time.monotonic() > end:
                return False
            time.sleep(0.1)


class Handler(BaseHTTPRequestHandler):
    timeout = 5

    def do_PUT(self):
        value = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if write(self.path[1:].encode(), value):
            self.answer(200, b"written")
        else:
            self.answer(503, b"Redis does not answer")

    def do_GET(self):
        if self.path == "/":
            lines = (b"%b %b\n" % pair for pair in sorted(board.copy().items()))
            return self.answer(200, b"".join(lines))
        value = board.get(self.path[1:].encode())
        return self.answer(404 if value is None else 200, value or b"")

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("X-Worker", NAME)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = False  # server_close() waits for the requests that are being answered


def notify(message):
    """sd_notify(3); an address that begins with @ is an abstract one."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.connect(os.environ["NOTIFY_SOCKET"].replace("@", "\0", 1))
        channel.sendall(message.encode())


server = Server(None, Handler, bind_and_activate=False)
server.socket.close()
server.socket = socket.socket(fileno=3)  # sd_listen_fds(3)
server.socket.setblocking(False)  # another worker may have been faster

threading.Thread(target=listen, daemon=True).start()
knows_board.wait()
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
notify("READY=1")
server.serve_forever(poll_interval=0.05)
server.server_close()

"""The effect of new workers on clients: in a reload, after a crash, and requests per second."""

import os
import signal
import socket
import statistics
import time

from control import free_port
from run import COUNT, ERRORS, FLOW, MARKS, STAMPS, WORDS, Failed, Run, shared_words, wait_until
from samples import Sampler, spread
from servers import Servers

# The minimum time for which a reload is observed.
WINDOW = 1.0
# Some peers take this time to consider a worker stable.
SETTLE = 1.5
# The timeout of an answer before another request is sent.
PATIENCE = 0.05
# In a reload: the number of clients, how many of them have persistent connections, and their interval in microseconds.
CLIENTS, KEPT, INTERVAL = 8, 4, 16_000
# Persistent connections or not -> number of concurrent clients without a pause.
CROWD = {"kept": 32, "new": 16}


def answers(port):
    """Whether a request to the port is answered soon. Some peers accept it and never answer."""
    try:
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return client.recv(12) == b"HTTP/1.1 200"
    except (ConnectionError, TimeoutError):
        return False


class ReloadMeasures(Sampler):
    """Workers of one port."""

    names = ("reload", "crash", "cluster")

    def __init__(self, peers, quick):
        super().__init__(peers, quick)
        self.servers = Servers(peers)
        self.loads = 0

    def _serve(self, name, port, workers):
        """This many workers of the port, all running."""
        run = Run(self.peers.child, lambda folder: self.servers.command(name, folder, port, workers), grouped=True)
        try:
            wait_until(f"{name}: {workers} workers", lambda: run.running() and len(run.children()) == workers)
            wait_until(f"{name}: an answer", lambda: answers(port), 0.01)
            time.sleep(SETTLE)
            return run
        except BaseException:
            run.__exit__()
            raise

    def _load(self, run, port, **settings):
        """Clients that run until their word FLOW is 2: the process, its words."""
        self.loads += 1
        path = os.path.join(run.folder, f"load{self.loads}")
        words = shared_words(path)
        return run.help(self.peers.child, "load", path, grouped=True, target=port, **settings), words

    def _reload(self, name, workers):
        """One reload under load."""
        port = free_port()
        with self._serve(name, port, workers) as run:
            load, words = self._load(run, port, clients=CLIENTS, kept=KEPT, interval=INTERVAL)
            time.sleep(0.5)
            old, first, began = run.children(), words[COUNT], time.monotonic_ns()
            self.servers.reload(name, run)
            wait_until(f"{name}: {workers} new workers", lambda: len(run.children() - old) >= workers)
            wait_until(f"{name}: the end of the old workers", lambda: not run.children() & old)
            took = time.monotonic_ns() - began
            time.sleep(max(0.0, WINDOW - took / 1e9))
            last = words[COUNT]
            words[FLOW] = 2
            load.wait()
            if not first < last < WORDS - STAMPS:
                raise Failed(f"{first} requests answered before, {last} after")
            return {"took": took, "latencies": words[STAMPS + first:STAMPS + last].tolist(), "failed": words[ERRORS],
                    "again": words[MARKS], "requests": words[COUNT] + words[ERRORS]}

    def reload(self):
        """Peer -> requests, how many failed, nanoseconds of those answered meanwhile and of the whole reload.

        `again` are those that a server closed a kept connection on without a byte: HTTP has them asked once more, and so
        they are. Latencies count from the instant at which a request was due.
        """
        names = self.servers.those("keepalive", "PM2", "nginx", "gunicorn", "keepalive (gunicorn)")
        result = {}
        for name, values in self._turns(names, self._pick(1, 5), lambda name: self._reload(name, 4)).items():
            latencies = [latency for value in values for latency in value["latencies"]]
            result[name] = {**spread(latencies), "max": max(latencies),
                            "took": statistics.median(value["took"] for value in values),
                            **{key: sum(value[key] for value in values) for key in ("requests", "failed", "again")}}
        return result

    def _crash(self, run, port):
        """Nanoseconds from SIGKILL of the only worker until a request is answered."""
        old = run.children()
        began = time.monotonic_ns()
        for worker in old:
            os.kill(worker, signal.SIGKILL)
        wait_until("an answer", lambda: answers(port), 0.0002)
        took = time.monotonic_ns() - began
        if run.children() & old:
            raise Failed("the worker that was killed is still there")
        # A death right after the start is not measured.
        time.sleep(SETTLE)
        return took

    def crash(self):
        """Peer -> nanoseconds; all of them run, and are killed in turns."""
        return self._side_by_side(self.servers.those("keepalive", "PM2"), 1, self._pick(5, 30), self._crash, spread)

    def _answered(self, run, port, clients, kept):
        """Answered requests per second."""
        load, words = self._load(run, port, clients=clients, kept=kept, interval=0)
        time.sleep(0.2)
        first, began = words[COUNT], time.monotonic_ns()
        time.sleep(self._pick(0.5, 1.5))
        count, took = words[COUNT] - first, time.monotonic_ns() - began
        words[FLOW] = 2
        load.wait()
        if words[ERRORS] or not count:
            raise Failed(f"{words[COUNT]} requests answered, {words[ERRORS]} not")
        return count / took * 1e9

    def cluster(self):
        """Whether connections are kept -> peer -> requests in a second, and nanoseconds for each.

        nginx shows what those who ask are able to.
        """
        names = self.servers.those("keepalive", "keepalive (reuseport)", "PM2", "nginx")

        def rate(values):
            median = statistics.median(values)
            return {"rate": median, "each": 1e9 / median, "samples": len(values)}

        result, rounds = {}, self._pick(3, 10)
        for kind, clients in CROWD.items():
            kept = clients if kind == "kept" else 0
            result[kind] = self._side_by_side(
                names, 2, rounds, lambda run, port, clients=clients, kept=kept: self._answered(run, port, clients, kept), rate)
        return result

    def _side_by_side(self, names, workers, rounds, sample, sum_up):
        """Peer -> the figures of its samples; all of them run at the same time."""
        runs, ports = {}, {name: free_port() for name in names}

        def turn(name):
            if name not in runs:
                runs[name] = self._serve(name, ports[name], workers)
                # The first one warms it up.
                sample(runs[name], ports[name])
            return sample(runs[name], ports[name])

        try:
            return {name: sum_up(values) for name, values in self._turns(names, rounds, turn).items()}
        finally:
            for run in runs.values():
                run.__exit__()

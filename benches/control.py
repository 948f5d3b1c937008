"""The cost of requests to keepalive, and their effect on restarts."""

import os
import socket
import time

from run import COUNT, DRAINED, ERRORS, GO, STAMPS, Failed, Run, shared_words
from samples import Sampler, interleaved, spread

SERVICES = 1000
# Requests go to this many keepalives in turns, because each measures the usage of its services once a second.
SETS = 4
STALE = 1.05


def free_port():
    """A free port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class ControlMeasures(Sampler):
    """The control socket and HTTP."""

    names = ("status", "metrics")

    def _ask(self, run):
        """`GET /v1/status`: nanoseconds from before the connection until the answer has ended."""
        began = time.monotonic_ns()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(run.socket)
            client.sendall(b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n")
            length = 0
            start = part = client.recv(1 << 18)
            while part:
                length += len(part)
                part = client.recv(1 << 18)
        took = time.monotonic_ns() - began
        if not start.startswith(b"HTTP/1.1 200") or length < SERVICES * 100:
            raise Failed(f"status: {length} bytes: {start[:100]}")
        return took

    def _command(self, run):
        """`keepalive status`: nanoseconds from before its start until it has been reaped."""
        output = os.path.join(run.folder, "status")
        into = (os.POSIX_SPAWN_OPEN, 1, output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        words, environment = ["keepalive", "status"], {"KEEPALIVE_SOCKET": run.socket}
        began = time.monotonic_ns()
        process = os.posix_spawn(self.peers.path["keepalive"], words, environment, file_actions=[into])
        _, status = os.waitpid(process, 0)
        took = time.monotonic_ns() - began
        with open(output, "rb") as file:
            lines = file.read().count(b"\n")
        if status or lines < SERVICES:
            raise Failed(f"keepalive status: {lines} lines, status {status}")
        return took

    def status(self):
        """Client -> nanoseconds, with 1,000 services, with a new or a cached measurement of their usage."""
        runs, samples = [], {"command": [], "request": [], "command again": [], "request again": []}
        kinds = {"command": self._command, "request": self._ask}
        try:
            for _ in range(SETS):
                runs.append(self._supervisor("keepalive", ["service"] * SERVICES))
                runs[-1].wait_for(COUNT, SERVICES)
            for number in range(self._pick(8, 50)):
                time.sleep(STALE)
                for turn, run in enumerate(runs):
                    kind = list(kinds)[(number + turn) % 2]
                    samples[kind].append(kinds[kind](run))
                    samples[f"{kind} again"].append(kinds[kind](run))
        finally:
            for run in runs:
                run.__exit__()
        return {name: spread(values) for name, values in samples.items()}

    def metrics(self):
        """Way -> case -> nanoseconds of restarts with 10 services, with 1,000 requests in a second for /metrics.

        `own`: it is asked itself; `other`: another keepalive with the same services is, so that the load of the machine
        is the same; `none`: nobody is. `asks` has how long the requests took, from the instant at which each was due: one
        that waits for another has waited.
        """
        ports = [free_port(), free_port()]
        with self._asked(ports[0]) as run, self._asked(ports[1]) as other:
            for each in (run, other):
                each.wait_for(COUNT, 1)
            time.sleep(0.3)
            ways = {"socket": {"none": None, "other": other.socket, "own": run.socket},
                    "http": {"none": None, "other": str(ports[1]), "own": str(ports[0])}}
            cases = [(way, case) for way, targets in ways.items() for case in targets]
            restarts, asks = {case: [] for case in cases}, {case: [] for case in cases}
            for way, case in interleaved(cases, self._pick(2, 8)):
                restarts[way, case] += self._restart_while(run, ways[way][case], asks[way, case])
        return {way: {case: spread(restarts[way, case]) for case in targets} for way, targets in ways.items()} | {
            "asks": {way: {case: spread(asks[way, case]) for case in ("other", "own")} for way in ways}}

    def _asked(self, port):
        modes = ["still"] * 9 + ["die"]
        return Run(self.peers.child, lambda folder: self.peers.keepalive(folder, modes, http=f"127.0.0.1:{port}"),
                   life=1000, count=1 << 14)

    def _restart_while(self, run, target, asks):
        """The restarts of one second, during 1,000 requests."""
        count, begin = 1000, run.words[COUNT]
        run.words[GO] = 1
        if target:
            path = os.path.join(run.folder, "asker")
            words = shared_words(path)
            asker = run.help(self.peers.child, "ask", path, count=count, target=target)
            asker.wait()
            if words[ERRORS] or words[COUNT] != count or words[DRAINED] < count * 1000:
                raise Failed(f"/metrics at {target}: {words[COUNT]} answers, {words[ERRORS]} of them bad")
            asks += words[STAMPS:STAMPS + count].tolist()
        else:
            time.sleep(1.0)
        end = run.words[COUNT]
        run.words[GO] = 0
        time.sleep(0.05)
        return run.restart_latencies(begin, end)

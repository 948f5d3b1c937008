"""The cost of carrying lines of services, and the effect of a service with endless output on PID 1."""

import os
import time

from loggers import SETTLE, Loggers
from run import COUNT, DRAINED, FLOW, GO, LAST, MARKS, WRITERS, WRITTEN, Failed, Run, wait_until
from samples import Sampler, medians, spread

# Title -> number of writers and size of a write: a buffer of stdio, or one line.
SHAPES = {
    "1 writer": (1, 4096),
    "4 writers": (4, 4096),
    "1 writer, line by line": (1, 100),
}
# Omitted with QUICK=1.
SLOW_SHAPES = ("4 writers",)
# The mark is at the end of the output.
TAIL = 256


def ends_with_mark(path):
    """Whether the last line is in a file."""
    with open(path, "rb") as file:
        file.seek(max(0, os.path.getsize(path) - TAIL))
        return b"~" in file.read()


class LogMeasures(Sampler):
    """Logs."""

    names = ("throughput", "flood")

    def __init__(self, peers, quick):
        super().__init__(peers, quick)
        self.loggers = Loggers(peers)

    def _carry(self, name, writers, block):
        """One run with this many writers at full speed."""
        files = []

        def command(folder):
            files.extend(self.loggers.files(name, folder, writers))
            return self.loggers.command(name, folder, writers)

        with Run(self.peers.child, command, drained=True, block=block) as run:
            run.wait_for(WRITERS, writers)
            time.sleep(SETTLE.get(name, 0.3))
            words, cpu, began = run.words, run.cpu_of_all(self.peers.child), time.monotonic_ns()
            words[FLOW] = 1
            time.sleep(self._pick(0.4, 1.0))
            words[FLOW] = 2
            if files:
                wait_until("the last line to be in its file", lambda: all(map(ends_with_mark, files)))
                ended = time.monotonic_ns()
            else:
                run.wait_for(MARKS, writers)
                ended = words[LAST]
                if words[DRAINED] < words[WRITTEN]:
                    raise Failed(f"{words[DRAINED]} of {words[WRITTEN]} bytes arrived")
            cpu = run.cpu_of_all(self.peers.child) - cpu
            # Bytes in a nanosecond are GB in a second, and nanoseconds for a byte are seconds for a GB.
            return {"rate": words[WRITTEN] / (ended - began) * 1000, "cpu": cpu / words[WRITTEN]}

    def throughput(self):
        """Shape -> logger -> MB in a second from the first byte written to the last one there, CPU seconds for a GB."""
        result = {}
        for title, (writers, block) in SHAPES.items():
            if self.quick and title in SLOW_SHAPES:
                continue
            samples = self._turns(list(self.loggers.path), self._pick(1, 3),
                                  lambda name, writers=writers, block=block: self._carry(name, writers, block))
            result[title] = {name: medians(values) for name, values in samples.items()}
        return result

    def flood(self):
        """Signal or restart -> case -> nanoseconds, of two keepalives with the same services.

        One of the two carries a flood, so that the load of the machine is the same for both; in turns the one and the
        other. `own`: it is the one that is measured; `other`: it is the other one; `none`: there is no flood.
        """
        return {"signal": self._both("signal", self._signal_some), "restart": self._both("die", self._restart_some)}

    def _both(self, mode, sample):
        samples = {"none": [], "other": [], "own": []}
        settings = {"drained": True, "block": 4096, "life": 1000, "count": 1 << 14}
        with self._flooded(mode, **settings) as first, self._flooded(mode, **settings) as second:
            pair = [first, second]
            for run in pair:
                run.wait_for(COUNT, 1)
                run.wait_for(WRITERS, 1)
            time.sleep(0.3)
            for number in range(self._pick(6, 30)):
                flooding = [None, first, second][number % 3]
                if flooding:
                    flooding.words[FLOW] = 1
                    time.sleep(0.05)
                for run in pair if number % 2 else pair[::-1]:
                    case = "none" if not flooding else "own" if run is flooding else "other"
                    samples[case] += sample(run)
                if flooding:
                    flooding.words[FLOW] = 0
                    time.sleep(0.05)
        return {case: spread(values) for case, values in samples.items()}

    def _flooded(self, mode, **settings):
        return Run(self.peers.child, lambda folder: self.peers.keepalive(folder, ["write", mode], log="prefix"), **settings)

    def _signal_some(self, run):
        return [run.signal_latency() for _ in range(self._pick(300, 1000))]

    def _restart_some(self, run):
        begin, count = run.words[COUNT], self._pick(100, 200)
        run.words[GO] = 1
        run.wait_for(COUNT, begin + count)
        run.words[GO] = 0
        # The last instance dies, but its next start is not measured.
        return run.restart_latencies(begin, begin + count)

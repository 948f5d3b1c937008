"""The cost of inits and supervisors: start, memory, signals, restarts, orphans. Each returns peer -> figures."""

import os
import statistics
import time

from peers import MOST, MOST_QUICK, STOP
from samples import Sampler, medians, spread
from run import COUNT, DONE, END, EXEC, GO, STAMPS, TREE_CPU, Failed, Run, wait_until

BATCH = 20_000
SIZES = (1, 10, 100, 1000)
IDLE_SERVICES = 100
# Longer than the default `min_uptime`: what a supervisor does once a service counts as stable is over by then.
SETTLE = 12.0
# Some wait a second after a run that was shorter than that.
SLOW_LIFE = 1_100_000
FAST_LIFE = 1_000


class Measures(Sampler):
    """Inits and supervisors."""

    names = ("cold_start", "init_memory", "sets", "restarts", "slow_restarts", "signals", "stream", "batch", "reaps",
             "wakeups")

    def _able(self, size):
        """The supervisors that are measured with this many services."""
        most = self._pick(MOST_QUICK, MOST)
        return [name for name in self.peers.supervisors if size <= most.get(name, size)]

    def _init(self, name, mode, **settings):
        return Run(self.peers.child, lambda _: self.peers.init(name, mode), **settings)

    def cold_start(self):
        """Nanoseconds from the exec of PID 1 to the first instruction of its child."""
        def sample(name):
            with self._init(name, "once") as run:
                run.end()
                if not run.words[STAMPS]:
                    raise Failed(f"the child did not start: {run.output()}")
                return run.words[STAMPS] - run.words[EXEC]

        samples = self._turns(self.peers.inits, self._pick(200, 2000), sample)
        return {name: spread(values) for name, values in samples.items()}

    def init_memory(self):
        """KiB of an idle init."""
        def sample(name):
            with self._init(name, "signal") as run:
                run.wait_for(COUNT, 1)
                time.sleep(0.2)
                return run.memory(self.peers.child)

        samples = self._turns(self.peers.inits, self._pick(3, 9), sample)
        return {name: {"pss": statistics.median(pss for pss, _ in values),
                       "dirty": statistics.median(dirty for _, dirty in values)} for name, values in samples.items()}

    def _set(self, name, size):
        """One run of a supervisor with this many idle services."""
        with self._supervisor(name, ["service"] * size) as run:
            run.wait_for(COUNT, size)
            started = max(run.words[STAMPS:STAMPS + size]) - run.words[EXEC]
            time.sleep(0.3 if name in ("keepalive", "C loop") else 1.0)
            figures = {"start": started, "pss": run.memory(self.peers.child)[0]}
            if name in STOP:
                asked = time.monotonic_ns()
                os.kill(run.pid(), STOP[name])
                run.end()
                figures.update(stop=run.words[END] - asked, cpu=run.words[TREE_CPU])
            return figures

    def sets(self):
        """Size -> peer -> nanoseconds to start and stop, CPU of the whole tree, KiB."""
        result = {}
        for size in SIZES:
            able = self._able(size)
            light = [name for name in able if name in ("keepalive", "C loop")]
            samples = self._turns(able, 1, lambda name, size=size: self._set(name, size))
            again = self._turns(light, self._pick(4, 14), lambda name, size=size: self._set(name, size))
            for name, values in again.items():
                samples.setdefault(name, []).extend(values)
            result[size] = {name: medians(values) for name, values in samples.items()}
        return result

    def _restarts(self, name, idle, count, life):
        modes = ["still"] * idle + ["die"]
        with self._supervisor(name, modes, life=life, count=count) as run:
            run.wait_for(DONE, idle)
            run.wait_for(COUNT, 1)
            cpu = run.cpu()
            run.words[GO] = 1
            for births in range(2, count + 2):
                run.wait_for(COUNT, births)
            return run.restart_latencies(1, count + 1), (run.cpu() - cpu) / count

    def restarts(self):
        """Services -> peer -> nanoseconds from a death to the next birth, CPU of PID 1 for each restart."""
        result = {10: {}, 1000: {}}
        names = [(name, size) for size in result for name in ("keepalive", "C loop")]
        samples = self._turns(names, self._pick(4, 20), lambda peer: self._restarts(peer[0], peer[1] - 1, 500, FAST_LIFE))
        for (name, size), values in samples.items():
            result[size][name] = spread([value for latencies, _ in values for value in latencies])
            result[size][name]["cpu"] = statistics.median(cpu for _, cpu in values)
        return result

    def slow_restarts(self):
        """The same with one service and longer runs, for peers that wait a second after a short run."""
        slow = [name for name in self.peers.supervisors if name not in ("keepalive", "C loop", "forever")]
        samples = self._turns(slow, 1, lambda name: self._restarts(name, 1, self._pick(3, 11), SLOW_LIFE))
        return {name: spread(values[0][0]) for name, values in samples.items()}

    def signals(self):
        """Nanoseconds from a kill(2) of PID 1 to the handler of its child; all peers run, in turns."""
        runs = {name: self._init(name, "signal") for name in self.peers.inits}
        try:
            for run in runs.values():
                run.wait_for(COUNT, 1)
            time.sleep(0.3)
            samples = self._turns(self.peers.inits, self._pick(2000, 20000), lambda name: runs[name].signal_latency())
        finally:
            for run in runs.values():
                run.__exit__()
        return {name: spread(values) for name, values in samples.items()}

    def _orphans(self, name, mode, count):
        with self._init(name, mode, count=count) as run:
            run.wait_for(COUNT, 1)
            time.sleep(0.05)
            alone, cpu, peak = run.population(), run.cpu(), 0
            run.words[GO] = 1
            if mode == "batch":
                run.wait_for(DONE, 1)
            while not run.words[DONE]:
                # Two of the processes are alive: the newest one and its parent.
                peak = max(peak, run.population() - alone - 2)
                time.sleep(0.002)
            wait_until("all orphans to be reaped", lambda: run.population() == alone, 0.01)
            return (run.cpu() - cpu) / count, peak

    def _reaping(self, mode, count, rounds):
        samples = self._turns(self.peers.inits, rounds, lambda name: self._orphans(name, mode, count))
        return {name: {"cpu": statistics.median(cpu for cpu, _ in values), "peak": max(peak for _, peak in values)}
                for name, values in samples.items()}

    def stream(self):
        """Orphans one by one: CPU of PID 1 for each in nanoseconds, and the maximum number of zombies."""
        return self._reaping("stream", self._pick(5_000, 20_000), self._pick(1, 5))

    def batch(self):
        """20,000 dead orphans that PID 1 adopts at once."""
        return self._reaping("batch", BATCH, self._pick(3, 7))

    def _reaps(self, name, idle, count):
        with self._supervisor(name, ["still"] * idle + ["stream"], count=count) as run:
            run.wait_for(DONE, idle)
            run.wait_for(COUNT, 1)
            run.words[DONE] = 0
            alone, cpu = run.population(), run.cpu()
            run.words[GO] = 1
            run.wait_for(DONE, 1)
            wait_until("all orphans to be reaped", lambda: run.population() == alone, 0.01)
            return (run.cpu() - cpu) / count

    def reaps(self):
        """Services -> peer -> CPU of PID 1 in nanoseconds for each orphan of a stream."""
        names = [(name, size) for size in (10, 1000) for name in ("keepalive", "C loop")]
        samples = self._turns(names, self._pick(3, 9), lambda peer: self._reaps(peer[0], peer[1] - 1, 1000))
        result = {10: {}, 1000: {}}
        for (name, size), values in samples.items():
            result[size][name] = {"cpu": statistics.median(values)}
        return result

    def wakeups(self):
        """The number of wake-ups of a supervisor of idle services; all peers run at the same time."""
        able = self._able(IDLE_SERVICES)
        runs, seconds = {}, self._pick(10, 60)
        try:
            for name in able:
                runs[name] = self._supervisor(name, ["service"] * IDLE_SERVICES)
                runs[name].wait_for(COUNT, IDLE_SERVICES)
            time.sleep(SETTLE)
            before = {name: run.switches(self.peers.child) for name, run in runs.items()}
            time.sleep(seconds)
            return {name: {"count": run.switches(self.peers.child) - before[name], "seconds": seconds}
                    for name, run in runs.items()}
        except Failed as error:
            self.failed.append(f"wakeups: {error}")
            return {}
        finally:
            for run in runs.values():
                run.__exit__()

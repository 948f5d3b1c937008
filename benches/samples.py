"""Takes samples of all peers in turns (A B C, B C A, ...), and computes medians and p99."""

import math
import statistics
import subprocess
import sys
import time

from run import Failed, Run

# Errors that a program can cause; any other error is a bug of the bench.
FAILURES = (Failed, OSError, subprocess.TimeoutExpired)


def percentile(samples, share):
    """The smallest sample that this share of them does not exceed."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def spread(samples):
    """Median and p99, in the unit of the samples."""
    return {"p50": statistics.median(samples), "p99": percentile(samples, 0.99), "samples": len(samples)}


def medians(values):
    """The median of each of the figures that all values have."""
    return {key: statistics.median(value[key] for value in values) for key in values[0]}


def interleaved(peers, rounds):
    """The peers, `rounds` times, each round starting with another one."""
    for number in range(rounds):
        shift = number % len(peers) if peers else 0
        yield from peers[shift:] + peers[:shift]


class Sampler:
    """Some measurements of one `make bench`."""

    # The methods that `all` calls, in this order.
    names = ()

    def __init__(self, peers, quick):
        self.peers = peers
        self.quick = quick
        self.failed = []

    def all(self, only=()):
        """Measure -> peer -> figures; `only` these, if any are named."""
        figures = {}
        for name in self.names:
            if only and name not in only:
                continue
            began = time.monotonic()
            try:
                figures[name] = getattr(self, name)()
            except FAILURES as error:
                figures[name] = {}
                self.failed.append(f"{name}: {error}")
            print(f"bench: {name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
        return figures

    def _pick(self, quick, full):
        return quick if self.quick else full

    def _supervisor(self, name, modes, **settings):
        return Run(self.peers.child, lambda folder: self.peers.supervisor(name, folder, modes), **settings)

    def _turns(self, peers, rounds, sample):
        """peer -> results of `sample(peer)` in each round; a peer that fails is named and omitted."""
        results = {name: [] for name in peers}
        for name in interleaved(peers, rounds):
            if results[name] is None:
                continue
            try:
                results[name].append(sample(name))
            except FAILURES as error:
                results[name] = None
                self.failed.append(f"{name}, {sys._getframe(1).f_code.co_name}: {error}")
        return {name: samples for name, samples in results.items() if samples}

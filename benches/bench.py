"""`make bench`: keepalive and its peers, interleaved, each as PID 1 of a fresh PID namespace.

Reads QUICK from the environment. Prints Markdown tables; dist/bench.json has every figure.
ONLY="flood status" measures those alone, and prints nothing but their figures.
"""

import json
import os
import platform
import sys
import tempfile
import time

from control import ControlMeasures
from logs import LogMeasures
from measures import Measures
from peers import Peers
from reload import ReloadMeasures
from report import report


def machine():
    """The machine and the time of the measurement."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        models = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    processor = f"{len(models)} × {models[0]}" if models else f"{os.cpu_count()} CPUs"
    return f"{time.strftime('%Y-%m-%d')}, {processor}, Linux {platform.release()}"


def build_tools(sources, folder):
    """Compiles the helpers statically, so that their start costs little."""
    for name in ("child", "limit"):
        command = ["cc", "-O2", "-static", "-o", f"{folder}/{name}", f"{sources}/{name}.c"]
        if os.spawnvp(os.P_WAIT, command[0], command) != 0:
            sys.exit(f"bench: {name}.c does not compile; it wants: apt-get install gcc libc6-dev")
    # Pages of a file that has not reached the disk yet count as dirty in whatever maps them.
    os.sync()


def main():
    """Measures everything, prints the tables, writes the JSON."""
    if os.geteuid() != 0:
        sys.exit("bench: it makes PID namespaces and reads other processes' memory: run it as root")
    keepalive = os.path.abspath(sys.argv[1])
    quick = os.environ.get("QUICK", "") not in ("", "0")
    only = os.environ.get("ONLY", "").split()
    began = time.monotonic()
    figures, failed = {}, []
    with tempfile.TemporaryDirectory(prefix="keepalive-bench-") as tools:
        build_tools(os.path.dirname(os.path.abspath(__file__)), tools)
        peers = Peers(keepalive, tools)
        logs, workers = LogMeasures(peers, quick), ReloadMeasures(peers, quick)
        for measures in (Measures(peers, quick), logs, ControlMeasures(peers, quick), workers):
            figures.update(measures.all(only))
            failed += measures.failed
    if only:
        print(json.dumps({"failed": failed, **figures}, indent=1))
        return
    result = {
        "machine": machine(),
        "quick": quick,
        "seconds": round(time.monotonic() - began),
        "missing": peers.missing + logs.loggers.missing + workers.servers.missing,
        "failed": failed,
        "figures": figures,
    }
    print(report(result, peers, logs.loggers))
    with open(os.path.join(os.path.dirname(keepalive), "bench.json"), "w", encoding="utf-8") as file:
        json.dump(result, file, indent=1)


if __name__ == "__main__":
    main()

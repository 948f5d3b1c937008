"""A share of the processors for each program, as containers have one.

Without it the kernel gives each session a share (autogroup): then whose workers are sessions of their own, and whose run
in that of their daemon, decides about the figures. The workers of a container have one share together.
"""

import os
import tempfile

# The hierarchy of version 1, by both of its usual names, and that of version 2.
BASES = ("/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup")


def base():
    """The directory in which groups can be created, or None."""
    for path in BASES:
        if os.path.exists(f"{path}/cpu.shares"):
            return path
        try:
            with open(f"{path}/cgroup.subtree_control", encoding="ascii") as file:
                if "cpu" in file.read().split():
                    return path
        except FileNotFoundError:
            continue
    return None


def make_group():
    """A new group, or None. A process with its path in BENCH_GROUP joins it by itself."""
    try:
        return tempfile.mkdtemp(prefix="keepalive-bench-", dir=base()) if base() else None
    except OSError:
        return None

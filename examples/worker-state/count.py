"""Counts in memory that survives it, and in keepalive's store; and is killed at some point of that."""

import json
import mmap
import os
import random
import signal
import socket
import time

name = f"{os.environ['KEEPALIVE_SERVICE']}.{os.environ['KEEPALIVE_INSTANCE']}"
state = mmap.mmap(int(os.environ["KEEPALIVE_STATE_FD"]), 0)
channel = socket.socket(fileno=int(os.environ["KEEPALIVE_IPC_FD"]))
lines = channel.makefile("r")


def tell(message):
    channel.sendall((json.dumps(message) + "\n").encode())


def stored(key):
    """The value of `key` in keepalive's store."""
    tell({"type": "get", "key": key})
    for line in lines:  # it says "shutdown" too, before it stops this process
        message = json.loads(line)
        if isinstance(message, dict) and message.get("type") == "value":
            return message["value"] or 0
    raise SystemExit("keepalive has closed the channel")


def add_one():
    in_memory = int.from_bytes(state[:8], "little") + 1
    state[:8] = in_memory.to_bytes(8, "little")
    # The store belongs to all instances: each has a key of its own. What it answers has been kept before.
    tell({"type": "set", "key": name, "value": stored(name) + 1})
    return in_memory, stored(name)


signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
last = random.randint(3, 8)
for _ in range(last):
    time.sleep(0.1)
    in_memory, in_store = add_one()
    print(f"{name} pid {os.getpid()}: {in_memory} in memory, {in_store} in the store", flush=True)
print(f"{name} is killed", flush=True)
os.kill(os.getpid(), signal.SIGKILL)

"""Asks the web server from several threads, each request on a connection of its own, and has it reloaded meanwhile."""

import http.client
import os
import socket
import sys
import threading
import time

THREADS = 8
over = threading.Event()
lock = threading.Lock()
answered, failures, workers, slowest = 0, [], set(), 0.0


def ask():
    connection = http.client.HTTPConnection("127.0.0.1", int(os.environ["PORT"]), timeout=10)
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        body = answer.read().decode()
        if answer.status != 200:
            raise OSError(f"status {answer.status}")
        return body.split()[1]
    finally:
        connection.close()


def load():
    global answered, slowest
    while not over.is_set():
        begin = time.monotonic()
        try:
            worker = ask()
        except (OSError, http.client.HTTPException) as error:
            with lock:
                failures.append(repr(error))
        else:
            with lock:
                answered += 1
                workers.add(worker)
                slowest = max(slowest, time.monotonic() - begin)


def reload():
    """`keepalive reload web`, as it is said on the control socket."""
    connection = http.client.HTTPConnection("keepalive", timeout=90)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(os.environ["CONTROL"])
    connection.request("POST", "/v1/services/web/reload")
    answer = connection.getresponse()
    body = answer.read().decode().strip()
    connection.close()
    if answer.status != 200:
        sys.exit(f"load: the reload was refused: {body}")


threads = [threading.Thread(target=load, daemon=True) for _ in range(THREADS)]
for thread in threads:
    thread.start()
for number in range(int(os.environ["RELOADS"])):
    time.sleep(0.5)
    reload()
    print(f"load: reload {number + 1} is done; {answered} requests so far, {len(failures)} failed", flush=True)
time.sleep(0.5)
over.set()
for thread in threads:
    thread.join()
print(f"load: {answered} requests to {len(workers)} processes, slowest {slowest * 1000:.0f} ms, {len(failures)} failed")
for failure in failures[:5]:
    print("load:", failure)
sys.exit(1 if failures or not answered else 0)

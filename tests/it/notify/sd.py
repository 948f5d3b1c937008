"""sd_notify(3) for Python services, and a service that sends one message for each SIGUSR1."""

import os
import signal
import socket
import sys


def say(text, descriptors=(), address=None):
    address = (address or os.environ["NOTIFY_SOCKET"]).replace("@", "\0", 1)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect(address)
        data = text if isinstance(text, bytes) else text.encode()
        if descriptors:
            socket.send_fds(sender, [data], descriptors)
        else:
            sender.send(data)


def barrier(address=None):
    """Returns when all earlier notifications have been handled."""
    there, here = os.pipe()
    say("BARRIER=1", [here], address)
    os.close(here)
    assert os.read(there, 1) == b""
    os.close(there)


def show(*words):
    print(*words, flush=True)


def stored():
    """Name and number of each descriptor that was passed to us."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    names = os.environ["LISTEN_FDNAMES"].split(":")
    assert len(names) == int(os.environ["LISTEN_FDS"])
    return [(name, 3 + position) for position, name in enumerate(names)]


def wait():
    """For the next SIGUSR1. SIGTERM ends us."""
    if signal.sigwait([signal.SIGUSR1, signal.SIGTERM]) == signal.SIGTERM:
        sys.exit(0)


signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGTERM])

if __name__ == "__main__":
    show("up", os.environ["NOTIFY_SOCKET"])
    for message in sys.argv[1:]:
        wait()
        say(message)
        barrier()
        show("said", message)
    while True:
        wait()

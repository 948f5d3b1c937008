"""Hostile services: `python3 attacks.py FUNCTION ARGUMENT…`, and `honest`, which is none.

Each waits for the file `go` and prints `attacking` when its attack has begun, and `enough` when most of it is done.
"""

import ctypes
import fcntl
import mmap
import os
import select
import signal
import socket
import struct
import sys
import termios
import threading
import time

import fuse
import sd

HERE = os.path.dirname(os.path.abspath(__file__))
MNT, DEVICE, FILE = HERE + "/mnt", HERE + "/fuse", HERE + "/mnt/f"
MAX_FDS = 253
# When keepalive reads no more of our messages.
SEND_TIMEOUT = 0.5
# umount2(2)
MNT_FORCE = 1
# System calls of x86-64.
WRITEV, SENDTO, GETDENTS64, EPOLL_CTL = 20, 44, 217, 233
libc = ctypes.CDLL(None, use_errno=True)


def begin(suffix=""):
    """For the attacks that need no preparation by root."""
    while not os.path.exists(HERE + "/go" + suffix):
        time.sleep(0.01)


def rest():
    sd.show("enough")
    while True:
        signal.pause()


def repeat(send, enough):
    """Calls `send` again and again."""
    sd.show("attacking")
    for _ in range(enough):
        send()
    sd.show("enough")
    while True:
        send()


def connected():
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sender.connect(os.environ["NOTIFY_SOCKET"].replace("@", "\0", 1))
    return sender


def honest():
    sd.say("READY=1")
    number = 0
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    while True:
        number += 1
        sd.barrier()
        sd.say(f"WATCHDOG=1\nSTATUS={number}")
        time.sleep(0.05)


def messages(*texts):
    """Sends these messages in turn, as fast as possible."""
    sender = connected()
    sender.send(b"READY=1")
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        while True:
            signal.pause()
    begin()
    texts = [text.replace("CHILD", str(child)).replace("MAIN", str(os.getpid())).encode() for text in texts]

    def send():
        for text in texts:
            sender.send(text)

    repeat(send, 5_000)


def inotify(watches):
    """MAINPIDFD=1 with an inotify descriptor, whose /proc/PID/fdinfo takes long to read."""
    sd.say("READY=1")
    fd = libc.inotify_init1(0)
    folder = HERE + "/free/watched"
    os.mkdir(folder)
    for number in range(int(watches)):
        path = f"{folder}/{number}"
        os.mknod(path)
        fuse.check(libc.inotify_add_watch(fd, path.encode(), 2))
    begin()
    repeat(lambda: sd.say("MAINPIDFD=1", [fd]), 100)


def floods(text, kind):
    """Datagrams with as many descriptors as possible."""
    sender = connected()
    sender.send(b"READY=1")
    begin()
    if kind == "pipe":
        descriptors = [fd for _ in range(MAX_FDS // 2) for fd in os.pipe()]
    elif kind == "socket":
        descriptors = [one.detach() for _ in range(MAX_FDS // 2) for one in socket.socketpair()]
    elif kind == "memory":
        descriptors = [os.memfd_create("x") for _ in range(MAX_FDS)]
    else:
        descriptors = [os.pidfd_open(os.getpid())] * MAX_FDS
    data = text.replace("%", "\n").encode()

    def send():
        try:
            socket.send_fds(sender, [data], descriptors)
        except OSError:
            # ETOOMANYREFS: too many descriptors are on their way. ECONNREFUSED: keepalive does not listen any more.
            time.sleep(0.001)

    repeat(send, 300)


def lines(*texts):
    """Floods of ipc lines; nobody reads the answers."""
    sd.say("READY=1")
    begin()
    channel = int(os.environ["KEEPALIVE_IPC_FD"])
    os.set_blocking(channel, True)
    many = ("\n".join(texts) + "\n").encode() * 100
    repeat(lambda: os.write(channel, many), 300)


def half_requests():
    """More connections to the http port than there are places, each with a request that is not complete."""
    sd.say("READY=1")
    begin()
    with open(HERE + "/keepalive.toml") as file:
        host, port = file.read().split('http = "')[1].split('"')[0].rsplit(":", 1)
    open_ones = []
    sd.show("attacking")
    for _ in range(3_000):
        stream = socket.create_connection((host, int(port)))
        stream.send(b"GET /livez HTTP/1.1\r\nX: ")
        open_ones.append(stream)
        if len(open_ones) > 48:
            open_ones.pop(0).close()
    for stream in open_ones:
        stream.close()
    rest()


def deep(depth):
    """Messages of a process that is far below the main process, and not in its session."""
    sd.say("READY=1")
    begin()
    main = os.getpid()
    for _ in range(int(depth)):
        if os.fork():
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
            while True:
                signal.pause()
        os.setsid()
    sender = connected()

    def send():
        sender.send(f"STATUS=deep\nMAINPID={main}".encode())
        sender.send(f"MAINPID={os.getpid()}".encode())

    repeat(send, 3_000)


def epoll_mutex(text):
    """Hands over an epoll descriptor that a thread has locked for ever: its epoll_ctl(2) polls a file that hangs."""
    socket.setdefaulttimeout(SEND_TIMEOUT)
    fuse.mount_as_user(fuse.POLL, MNT, DEVICE)
    file = os.open(FILE, os.O_RDWR)
    sd.say("READY=1")
    begin()
    epoll = select.epoll()
    add = lambda: libc.epoll_ctl(epoll.fileno(), 1, file, bytes(16))
    threading.Thread(target=add, daemon=True).start()
    until_thread_hangs(EPOLL_CTL)
    sd.show("attacking")
    for _ in range(4):
        try:
            sd.say(text.replace("%", "\n"), [epoll.fileno()])
        except OSError:
            break
    rest()


def until_thread_hangs(call):
    """Waits until all other threads of this process wait in a system call. Exits if there is none."""
    main = os.getpid()

    def hangs(task):
        with open(f"/proc/self/task/{task}/stat") as stat, open(f"/proc/self/task/{task}/syscall") as syscall:
            return stat.read().rsplit(") ", 1)[1][0] in "SD" and syscall.read().startswith(f"{call} ")

    while not all(map(hangs, set(os.listdir("/proc/self/task")) - {str(main)} or os._exit(1))):
        time.sleep(0.01)


def log_pipe(number="1"):
    """Leaves a process behind that holds the lock of our stdout or stderr for ever. A logger then asks how much it holds."""
    sd.say("READY=1")
    begin()
    sd.show("attacking")
    leave_locked(int(number))


def ready_pipe(number, *writes):
    """Leaves a process behind that holds the lock of the pipe of `ready.fd` for ever, and another one that `writes` to it."""
    begin(os.environ["KEEPALIVE_INSTANCE"])
    leave_locked(int(number), writes)


def probe_output():
    """The command of a probe holds the lock of its stdout for ever."""
    fuse.mount_as_user(fuse.READ, MNT, DEVICE)
    page = mmap.mmap(os.open(FILE, os.O_RDONLY), fuse.PAGE, prot=mmap.PROT_READ)
    begin()
    threading.Thread(target=os.writev, args=(1, [bytes(fuse.PAGE), page]), daemon=True).start()
    until_thread_hangs(WRITEV)
    open(HERE + "/free/locked", "w").close()
    rest()


def connected_listener(port):
    """Makes our listening socket a connection with data that its peer never reads. To close it takes an hour."""
    listener = socket.socket(fileno=3)
    # connect(2): AF_UNSPEC dissolves what the socket was.
    ctypes.CDLL(None).connect(listener.fileno(), bytes(16), 16)
    listener.setblocking(True)
    listener.connect(("127.0.0.1", int(port)))
    listener.setblocking(False)
    try:
        while True:
            listener.send(bytes(65536))
    except BlockingIOError:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3600))
    sd.show("enough")
    begin()
    sd.show("attacking")
    os._exit(0)


def locked_ready_pipe(number):
    """Leaves a process behind that holds the lock of the pipe of `ready.fd` for ever, some time after the lock is held."""
    if os.fork() == 0:
        leave_locked(int(number))
    os.wait()
    sd.show("locked")
    begin(os.environ["KEEPALIVE_INSTANCE"])
    os._exit(0)


def control_pipes(count):
    """Over the control socket, pipes whose locks are held for ever."""
    fuse.mount_as_user(fuse.READ, MNT, DEVICE)
    page = mmap.mmap(os.open(FILE, os.O_RDONLY), fuse.PAGE, prot=mmap.PROT_READ)
    sd.say("READY=1")
    begin()
    sd.show("attacking")
    for _ in range(int(count)):
        there, here = os.pipe()
        threading.Thread(target=os.writev, args=(here, [bytes(fuse.PAGE), page]), daemon=True).start()
        time.sleep(0.02)
        with connection(os.environ["KEEPALIVE_SOCKET"]) as client:
            try:
                socket.send_fds(client, [b"x"], [there])
            except OSError:
                continue
        # Not the last copy: keepalive has another one.
        os.close(there)
    rest()


def newborn():
    """Kills each process of our user that appears, as early as possible, until there is a file."""
    begin()
    sd.show("attacking")
    while not os.path.exists(HERE + "/goend"):
        with open("/proc/loadavg") as average:
            last = int(average.read().split()[-1])
        for _ in range(300):
            for pid in range(last + 1, last + 4):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
    rest()


def leave_locked(pipe, writes=False):
    """A process writes a page to `pipe` that cannot be read. This one exits."""
    fuse.mount_as_user(fuse.READ, MNT, DEVICE)
    page = mmap.mmap(os.open(FILE, os.O_RDONLY), fuse.PAGE, prot=mmap.PROT_READ)
    # The line has been read.
    while fcntl.ioctl(1, termios.FIONREAD, bytes(4)) != bytes(4):
        time.sleep(0.01)
    there, here = os.pipe()
    if os.fork() == 0:
        if writes and os.fork() == 0:
            while True:
                os.write(pipe, b"x")
        # What is before the page shows that there is something to read.
        threading.Thread(target=os.writev, args=(pipe, [bytes(fuse.PAGE), page]), daemon=True).start()
        until_thread_hangs(WRITEV)
        os.write(here, b"!")
        while True:
            signal.pause()
    os.close(here)
    os.read(there, 1)
    os._exit(0)


def flush(text):
    """Descriptors whose close(2) never returns, again and again."""
    socket.setdefaulttimeout(SEND_TIMEOUT)
    fuse.mount_as_user(fuse.FLUSH, MNT, DEVICE)
    sd.say("READY=1")
    begin()
    sd.show("attacking")
    for number in range(300):
        file = os.open(FILE, os.O_RDWR)
        try:
            sd.say(text.replace("%", "\n"), [file])
        except OSError:
            break
        # Our own copy stays open: to close it would take as long.
    rest()


def held_pipe(number):
    """A page of our file is never read, so that a write of it holds the pipe for ever."""
    fuse.mount_as_user(fuse.READ, MNT, DEVICE)
    page = mmap.mmap(os.open(FILE, os.O_RDONLY), fuse.PAGE, prot=mmap.PROT_READ)
    begin()
    sd.show("attacking")
    if os.fork() == 0:
        while True:
            os.write(int(number), b"x")
    if os.fork() == 0:
        while True:
            os.writev(int(number), [bytes(fuse.PAGE), page])
    rest()


def locked_directories(count):
    """Reads directories into a page of our file, which never comes: meanwhile nobody makes or removes a file there."""
    fuse.mount_as_user(fuse.READ, MNT, DEVICE)
    page = mmap.mmap(os.open(FILE, os.O_RDONLY), fuse.PAGE, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    sd.say("READY=1")
    begin()
    memory = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    for number in range(int(count)):
        os.makedirs(f"{HERE}/free/{number}", exist_ok=True)
        folder = os.open(f"{HERE}/free/{number}", os.O_RDONLY)
        read = lambda folder=folder: libc.syscall(GETDENTS64, folder, memory, fuse.PAGE)
        threading.Thread(target=read, daemon=True).start()
    until_thread_hangs(GETDENTS64)
    hold_until("end")


def locked_socket(number):
    """Sends a page of our file, which never comes, as a part of a datagram: meanwhile nobody changes the socket."""
    fuse.mount_as_user(fuse.READ, MNT, DEVICE)
    page = mmap.mmap(os.open(FILE, os.O_RDONLY), fuse.PAGE, prot=mmap.PROT_READ)
    sd.say("READY=1")
    begin()
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, fileno=int(number))
    threading.Thread(target=sender.sendto, args=(page, socket.MSG_MORE, ("127.0.0.1", 9)), daemon=True).start()
    until_thread_hangs(SENDTO)
    hold_until("end")


def hold_until(suffix):
    """Holds a lock until there is another file. umount(2): MNT_FORCE ends the requests."""
    sd.show("attacking")
    begin(suffix)
    libc.umount2(MNT.encode(), MNT_FORCE)
    rest()


def foreign(service):
    """Descriptors whose close(2) never returns, to the socket of another service, by all that is known about it."""
    socket.setdefaulttimeout(SEND_TIMEOUT)
    fuse.mount_as_user(fuse.FLUSH, MNT, DEVICE)
    sd.say("READY=1")
    begin()
    own = os.environ["NOTIFY_SOCKET"]
    folder = os.path.dirname(own) + "/"
    file = os.open(FILE, os.O_RDWR)
    sd.show("attacking")
    for _ in range(50):
        guesses = {f"{folder}{service}{end}" for end in ["", ".0", "-0", *(f"-{run}" for run in range(1, 50))]}
        with open("/proc/net/unix") as sockets:
            guesses.update(line.split()[-1] for line in sockets if folder in line)
        try:
            guesses.update(folder + name for name in os.listdir(folder))
        except PermissionError:
            pass
        for path in guesses - {own}:
            try:
                sd.say("X=1", [file], path)
                sd.show("sent to", path)
            except OSError:
                pass
        time.sleep(0.02)
    rest()


def release(text):
    """A descriptor of a file whose last close(2) is never answered."""
    socket.setdefaulttimeout(SEND_TIMEOUT)
    fuse.mount_as_user(fuse.RELEASE, MNT, DEVICE)
    sd.say("READY=1")
    begin()
    sd.show("attacking")
    for number in range(100):
        file = os.open(FILE, os.O_RDWR)
        try:
            sd.say(text.replace("%", "\n"), [file])
        except OSError:
            pass
        os.close(file)
    rest()


def streams(kind):
    """Descriptors whose close(2) never returns, over the ipc channel, the socket of `listen` and the control socket."""
    socket.setdefaulttimeout(SEND_TIMEOUT)
    fuse.mount_as_user(fuse.RELEASE if kind == "release" else fuse.FLUSH, MNT, DEVICE)
    sd.say("READY=1")
    begin()
    sd.show("attacking")
    channel = socket.socket(fileno=os.dup(int(os.environ["KEEPALIVE_IPC_FD"])))
    for number in range(50):
        file = os.open(FILE, os.O_RDWR)
        for stream in [channel, connection(HERE + "/evil.sock"), connection(os.environ["KEEPALIVE_SOCKET"])]:
            try:
                socket.send_fds(stream, [b"{}\n"], [file])
            except OSError:
                pass
        # Otherwise our own copy stays open: to close it would take as long.
        if kind == "release":
            os.close(file)
    rest()


def connection(path):
    """Nobody accepts it, or keepalive does; the control socket is for its own user."""
    stream = socket.socket(socket.AF_UNIX)
    try:
        stream.connect(path)
    except OSError:
        pass
    return stream


def linger(*texts):
    """Sockets with SO_LINGER and unsent data."""
    sd.say("READY=1")
    begin()
    server = socket.create_server(("127.0.0.1", 0))
    clients, peers = [], []

    def send():
        client = socket.create_connection(server.getsockname())
        peers.append(server.accept()[0])
        client.setblocking(False)
        try:
            while True:
                client.send(bytes(1 << 16))
        except BlockingIOError:
            pass
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 1000))
        for text in texts:
            try:
                sd.say(text.replace("%", "\n"), [client.fileno()] if "FDSTOREREMOVE" not in text else [])
            except OSError:
                pass
        # Our copy must not be the last one: its close would wait.
        clients.append(client)
        if len(clients) > 8:
            # Data that nobody reads any more: close(2) does not wait.
            peers.pop(0).close()
            clients.pop(0).close()

    repeat(send, 30)


def execute(times):
    """Has processes that hang in execve(2)."""
    sd.say("READY=1")
    begin()
    for _ in range(int(times)):
        if os.fork() == 0:
            os.execv(FILE, [FILE, "1000"])
    sd.show("attacking")
    rest()


def traced(how):
    """The main process is traced by a daemon, which never waits."""
    sd.say("READY=1")
    main = os.getpid()
    PR_SET_PTRACER, PTRACE_SEIZE, PTRACE_O_TRACEEXIT = 0x59616D61, 0x4206, 0x40
    libc.prctl(PR_SET_PTRACER, ctypes.c_ulong(-1), 0, 0, 0)
    begin()
    there, here = os.pipe()
    go, waited = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        # A traced process stops at every signal, SIGCHLD too.
        os.read(go, 1)
        options = PTRACE_O_TRACEEXIT if "event" in how else 0
        fuse.check(libc.ptrace(PTRACE_SEIZE, main, 0, ctypes.c_ulong(options)))
        if "chain" in how:
            # The tracer is traced by its own child.
            libc.prctl(PR_SET_PTRACER, ctypes.c_ulong(-1), 0, 0, 0)
            if os.fork() == 0:
                fuse.check(libc.ptrace(PTRACE_SEIZE, os.getppid(), 0, ctypes.c_ulong(options)))
                os.write(here, b"!")
                while True:
                    signal.sigwait([signal.SIGTERM])
        else:
            os.write(here, b"!")
        while True:
            signal.sigwait([signal.SIGTERM])
    os.wait()
    os.write(waited, b"!")
    os.read(there, 1)
    sd.show("attacking")
    if "exits" in how:
        os._exit(3)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    while True:
        signal.pause()


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])

"""A FUSE file system with the file `f`, which does not answer some requests. fuse(4), linux/fuse.h

`python3 fuse.py HANG MOUNT-POINT DEVICE -- COMMAND…` mounts it for COMMAND, which it executes; the server is no child of
COMMAND, unless COMMAND becomes PID 1. HANG is a number of a request, or `late`: reading f beyond its first page.
"""

import ctypes
import os
import struct
import sys

LOOKUP, FORGET, GETATTR, OPEN, READ, RELEASE, FLUSH, INIT, INTERRUPT, POLL, BATCH_FORGET = (
    1, 2, 3, 14, 15, 18, 25, 26, 36, 40, 42)
PAGE = 4096
ENOSYS = 38
CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
MS_REC, MS_PRIVATE, MS_NOSUID, MS_NODEV = 0x4000, 0x40000, 2, 4
libc = ctypes.CDLL(None, use_errno=True)


def check(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def attributes(node, size):
    mode = 0o40755 if node == 1 else 0o100777
    return struct.pack("<6Q10I", node, size, 8, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, PAGE, 0)


def serve(device, hang):
    """Until the file system is unmounted."""
    with open("/bin/sleep", "rb") as file:
        content = file.read()
    size = len(content)
    while True:
        try:
            request = os.read(device, 1 << 20)
        except OSError:
            return
        _, code, unique, node = struct.unpack_from("<IIQQ", request)
        offset, length = struct.unpack_from("<QI", request, 48) if code == READ else (0, 0)
        if code == hang or (hang == "late" and code == READ and offset >= PAGE):
            continue
        if code in (FORGET, BATCH_FORGET, INTERRUPT):
            continue
        error, body = 0, b""
        if code == INIT:
            # No readahead: each page is a request.
            body = struct.pack("<IIIIHHIIHHI28x", 7, 31, 0, 0, 12, 9, 65536, 1, 16, 0, 0)
        elif code == LOOKUP:
            body = struct.pack("<QQQQII", 2, 1, 0, 0, 0, 0) + attributes(2, size)
        elif code == GETATTR:
            body = struct.pack("<QII", 0, 0, 0) + attributes(node, size)
        elif code == OPEN:
            body = struct.pack("<QIi", 1, 0, 0)
        elif code == READ:
            body = content[offset:offset + length]
        elif code not in (RELEASE, FLUSH):
            error = -ENOSYS
        os.write(device, struct.pack("<IiQ", 16 + len(body), error, unique) + body)


def mount(hang, where, device, options=""):
    """Mounts it in this mount namespace; the server is a daemon."""
    fd = os.open(device, os.O_RDWR)
    data = f"fd={fd},rootmode=40000,user_id=0,group_id=0{options}".encode()
    check(libc.mount(b"hostile", where.encode(), b"fuse", MS_NOSUID | MS_NODEV, data))
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            serve(fd, hang)
        os._exit(0)
    os.wait()
    os.close(fd)


def mount_as_user(hang, where, device):
    """Mounts it in a user namespace and a mount namespace of this process, which no other process enters."""
    user, group = os.getuid(), os.getgid()
    check(libc.unshare(CLONE_NEWUSER | CLONE_NEWNS))
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    mount(hang, where, device)


if __name__ == "__main__":
    hang, where, device, _, *command = sys.argv[1:]
    check(libc.unshare(CLONE_NEWNS))
    check(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None))
    mount(int(hang) if hang.isdigit() else hang, where, device, ",allow_other")
    os.execvp(command[0], command)

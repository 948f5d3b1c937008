"""One program as PID 1 of a fresh PID namespace, and its figures as seen from outside."""

import mmap
import os
import shutil
import signal
import subprocess
import tempfile
import time

from groups import make_group

# The words of the shared file, as child.c has them.
(EXEC, COUNT, PID, END, TREE_CPU, GO, DONE, FLOW, WRITERS, WRITTEN, MARKS, LAST, DRAINED, ERRORS,
 STAMPS) = range(15)
WORDS = 1 << 16
DEADLINE = 20.0


class Failed(Exception):
    """A program did not reach an expected state."""


def wait_until(what, condition, pause=0.0005):
    """Polls `condition`: the bench sleeps meanwhile, the measured program is not disturbed."""
    end = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > end:
            raise Failed(f"{what}: not within {DEADLINE:.0f} s")
        time.sleep(pause)


def removed(group):
    """Whether a cgroup could be removed."""
    try:
        os.rmdir(group)
    except OSError:
        return not os.path.exists(group)
    return True


def cpu_of(process):
    """CPU time of all threads of a process, in nanoseconds."""
    total = 0
    for task in os.listdir(f"{process}/task"):
        with open(f"{process}/task/{task}/schedstat", encoding="ascii") as file:
            total += int(file.read().split()[0])
    return total


def shared_words(path):
    """The words of a new shared file."""
    with open(path, "w+b") as file:
        file.truncate(WORDS * 8)
        return memoryview(mmap.mmap(file.fileno(), WORDS * 8)).cast("Q")


def variables(path, settings):
    """The environment of a child: the path of its words, and its settings."""
    return {"BENCH_SHM": path, **{f"BENCH_{name.upper()}": str(value) for name, value in settings.items()}}


class Run:
    """`with Run(peers, command) as run`: whatever happens, nothing of it is left afterwards.

    What it writes to stdout is thrown away, or, as `drained`, read by a process outside of the namespace. If it is
    `grouped` it has a share of the processors of its own, and so have those who `help` and are `grouped` too.
    """

    def __init__(self, child, make_command, drained=False, grouped=False, **settings):
        self.helpers = []
        self.groups = []
        settings.update(self._group() if grouped else {})
        self.drained = drained
        self.folder = tempfile.mkdtemp(prefix="keepalive-bench-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
        try:
            self._start(child, make_command, settings)
        except BaseException:
            self._end_helpers()
            shutil.rmtree(self.folder)
            self._remove_groups()
            raise

    def _start(self, child, make_command, settings):
        # The output is beside the input, because s6-svscan treats each folder as a service.
        path = os.path.join(self.folder, "shared")
        work = os.path.join(self.folder, "work")
        os.mkdir(work)
        self.words = shared_words(path)
        self.socket = os.path.join(self.folder, "keepalive.sock")
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": self.folder,
            "KEEPALIVE_SOCKET": self.socket,
            "PM2_HOME": self.folder,
            "FOREVER_ROOT": self.folder,
            **variables(path, settings),
        }
        null = subprocess.DEVNULL
        reader = self.help(child, "drain", path, stdin=subprocess.PIPE) if self.drained else None
        with open(os.path.join(self.folder, "output"), "wb") as output:
            self.launcher = subprocess.Popen([child, "pid1", *make_command(work)], env=environment, stdin=null,
                                             stdout=reader.stdin if reader else null, stderr=output)
        if reader:
            reader.stdin.close()

    def _group(self):
        """The variable that puts a program into a new group, if there can be one."""
        group = make_group()
        if group:
            self.groups.append(group)
        return {"group": group} if group else {}

    def _remove_groups(self):
        for group in self.groups:
            # A killed process leaves its group shortly after it has been reaped.
            wait_until(f"{group} to be empty", lambda group=group: removed(group))
        self.groups.clear()

    def help(self, child, mode, path, stdin=subprocess.DEVNULL, grouped=False, **settings):
        """A child outside of the namespace whose words are in the file `path`; it ends with the run."""
        settings.update(self._group() if grouped else {})
        helper = subprocess.Popen([child, mode], env=variables(path, settings), stdin=stdin)
        self.helpers.append(helper)
        return helper

    def _end_helpers(self):
        for helper in self.helpers:
            helper.kill()
            helper.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # The death of the launcher is the death of PID 1 (PR_SET_PDEATHSIG), and that of all in its namespace.
        if self.launcher.poll() is None:
            if self.words[PID]:
                os.kill(self.words[PID], signal.SIGKILL)
            else:
                self.launcher.kill()
        self.launcher.wait()
        self._end_helpers()
        shutil.rmtree(self.folder, ignore_errors=True)
        self._remove_groups()

    def output(self):
        """The end of the stderr of the program."""
        with open(os.path.join(self.folder, "output"), "rb") as file:
            return file.read()[-300:].decode(errors="replace")

    def running(self):
        """True; raises an error if it has exited."""
        if self.launcher.poll() is not None:
            raise Failed(f"ended with {self.launcher.returncode}: {self.output()}")
        return True

    def wait_for(self, word, least):
        """Waits until the word has at least this value."""
        wait_until(f"word {word} to be {least}", lambda: self.words[word] >= least or not self.running())

    def pid(self):
        """The pid of PID 1 in the namespace of the bench."""
        wait_until("PID 1", lambda: self.words[PID])
        return self.words[PID]

    def signal_latency(self):
        """Nanoseconds from a kill(2) of PID 1 to the handler of its child."""
        pid, before = self.words[PID], self.words[COUNT]
        sent = time.monotonic_ns()
        os.kill(pid, signal.SIGUSR1)
        time.sleep(0.0003)
        self.wait_for(COUNT, before + 1)
        return self.words[STAMPS] - sent

    def restart_latencies(self, begin, end):
        """Nanoseconds from each death to the birth after it, of the births with the numbers `begin` to `end`."""
        # Births and deaths alternate; the first birth has the number 0.
        return [self.words[STAMPS + 2 * birth] - self.words[STAMPS + 2 * birth - 1] for birth in range(begin, end)]

    def end(self):
        """Waits until it exits."""
        self.launcher.wait(DEADLINE)

    def cpu(self):
        """CPU time of PID 1, in nanoseconds."""
        return cpu_of(f"/proc/{self.pid()}")

    def cpu_of_all(self, child):
        """CPU time of all processes except the measured children, in nanoseconds."""
        return sum(cpu_of(process) for process in self._own(child))

    def population(self):
        """The number of processes in the namespace, including zombies."""
        return sum(name.isdigit() for name in os.listdir(f"/proc/{self.pid()}/root/proc"))

    def children(self):
        """The children of PID 1 in the namespace of the bench."""
        pid = self.pid()
        found = set()
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file:
                found.update(map(int, file.read().split()))
        return {child for child in found if not self._is_helper(child)}

    @staticmethod
    def _is_helper(pid):
        """Whether it is a process of keepalive itself: its logger, or one that closes descriptors."""
        try:
            with open(f"/proc/{pid}/comm", encoding="ascii", errors="replace") as file:
                return file.read().startswith("keepalive-")
        except FileNotFoundError:
            return False

    def _own(self, child):
        """The /proc directories of all processes except the measured children."""
        proc = f"/proc/{self.pid()}/root/proc"
        for name in os.listdir(proc):
            if name.isdigit() and os.readlink(f"{proc}/{name}/exe") != child:
                yield f"{proc}/{name}"

    def memory(self, child):
        """KiB of PSS and of private dirty pages, all processes of the supervisor together."""
        pss = dirty = 0
        for process in self._own(child):
            with open(f"{process}/smaps_rollup", encoding="ascii") as file:
                fields = dict(line.split(":", 1) for line in file.read().splitlines()[1:])
            pss += int(fields["Pss"].split()[0])
            dirty += int(fields["Private_Dirty"].split()[0])
        return pss, dirty

    def switches(self, child):
        """The number of wake-ups of all threads of all processes of the supervisor."""
        total = 0
        for process in self._own(child):
            for task in os.listdir(f"{process}/task"):
                with open(f"{process}/task/{task}/status", encoding="ascii") as file:
                    total += sum(int(line.split()[1]) for line in file if "voluntary_ctxt_switches" in line)
        return total

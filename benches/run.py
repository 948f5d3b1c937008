"""One program as PID 1 of a fresh PID namespace, and what can be read of it from outside."""

import mmap
import os
import shutil
import signal
import subprocess
import tempfile
import time

# The words of the shared file, as child.c has them.
EXEC, COUNT, PID, END, TREE_CPU, GO, DONE, STAMPS = range(8)
WORDS = 1 << 16
DEADLINE = 20.0


class Failed(Exception):
    """A program did not do what was waited for."""


def wait_until(what, condition, pause=0.0005):
    """Polls `condition`: the bench sleeps meanwhile, the measured program is not disturbed."""
    end = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > end:
            raise Failed(f"{what}: not within {DEADLINE:.0f} s")
        time.sleep(pause)


class Run:
    """`with Run(peers, command) as run`: whatever happens, nothing of it is left afterwards."""

    def __init__(self, child, make_command, **settings):
        self.folder = tempfile.mkdtemp(prefix="keepalive-bench-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
        try:
            self._start(child, make_command, settings)
        except BaseException:
            shutil.rmtree(self.folder)
            raise

    def _start(self, child, make_command, settings):
        # What the program writes is beside what it reads: s6-svscan takes each folder for a service.
        path = os.path.join(self.folder, "shared")
        work = os.path.join(self.folder, "work")
        os.mkdir(work)
        with open(path, "w+b") as file:
            file.truncate(WORDS * 8)
            self.words = memoryview(mmap.mmap(file.fileno(), WORDS * 8)).cast("Q")
        environment = {
            "PATH": os.environ["PATH"],
            "BENCH_SHM": path,
            "HOME": self.folder,
            "PM2_HOME": self.folder,
            "FOREVER_ROOT": self.folder,
            **{f"BENCH_{name.upper()}": str(value) for name, value in settings.items()},
        }
        null = subprocess.DEVNULL
        with open(os.path.join(self.folder, "output"), "wb") as output:
            self.launcher = subprocess.Popen([child, "pid1", *make_command(work)], env=environment, stdin=null,
                                             stdout=null, stderr=output)

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
        shutil.rmtree(self.folder, ignore_errors=True)

    def output(self):
        """The last that the program wrote to its standard error."""
        with open(os.path.join(self.folder, "output"), "rb") as file:
            return file.read()[-300:].decode(errors="replace")

    def _running(self):
        if self.launcher.poll() is not None:
            raise Failed(f"ended with {self.launcher.returncode}: {self.output()}")
        return True

    def wait_for(self, word, least):
        """Until the word has at least this value."""
        wait_until(f"word {word} to be {least}", lambda: self.words[word] >= least or not self._running())

    def pid(self):
        """PID 1, as the bench sees it."""
        wait_until("PID 1", lambda: self.words[PID])
        return self.words[PID]

    def end(self):
        """Waits for the end that has been asked for, or comes by itself."""
        self.launcher.wait(DEADLINE)

    def cpu(self):
        """CPU that PID 1 has used, in nanoseconds."""
        total = 0
        tasks = f"/proc/{self.pid()}/task"
        for task in os.listdir(tasks):
            with open(f"{tasks}/{task}/schedstat", encoding="ascii") as file:
                total += int(file.read().split()[0])
        return total

    def population(self):
        """How many processes the namespace has, zombies included."""
        return sum(name.isdigit() for name in os.listdir(f"/proc/{self.pid()}/root/proc"))

    def _own(self, child):
        """The /proc directories of all processes that are not the measured children."""
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
        """How often all processes of the supervisor, with all their threads, have got a CPU."""
        total = 0
        for process in self._own(child):
            for task in os.listdir(f"{process}/task"):
                with open(f"{process}/task/{task}/status", encoding="ascii") as file:
                    total += sum(int(line.split()[1]) for line in file if "voluntary_ctxt_switches" in line)
        return total

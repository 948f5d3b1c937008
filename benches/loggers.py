"""The loggers and their configurations. Facts about a logger are only here.

Those that only know files write one in memory (the folder of the run is below /dev/shm), and nobody has to read it.
"""

import json
import os
import shutil

# Who writes to stdout or to files, and the programs that it takes. Of the programs the first is PID 1.
PROGRAMS = {
    "keepalive": [],
    "keepalive (raw)": [],
    "keepalive (inherit)": [],
    "keepalive (file)": [],
    "cat": ["sh", "cat"],
    "s6-log": ["s6-svscan", "s6-log"],
    "svlogd (file)": ["runsvdir", "svlogd"],
    "supervisord": ["supervisord"],
    "PM2": ["pm2-runtime"],
}
# How long it takes until somebody listens, after the writer is there.
SETTLE = {"supervisord": 1.5, "PM2": 2.0}


class Loggers:
    """The installed ones."""

    def __init__(self, peers):
        self.child = peers.child
        self.keepalive = peers.path["keepalive"]
        self.path = {}
        for name, programs in PROGRAMS.items():
            found = [shutil.which(program) for program in programs]
            if all(found):
                self.path[name] = found
        self.missing = [name for name in PROGRAMS if name not in self.path]

    def files(self, name, folder, writers):
        """The file of the lines, if it is not stdout."""
        names = {"keepalive (file)": "s{}.log", "svlogd (file)": "log{}/current"}
        return [os.path.join(folder, names[name].format(number)) for number in range(writers)] if name in names else []

    def command(self, name, folder, writers):
        """Writes the configuration for so many writers; the command line that starts them, and who carries."""
        return getattr(self, "_" + name.replace(" (", "_").replace(")", "").replace("-", "_").lower())(folder, writers)

    def _set(self, folder, writers, log):
        path = os.path.join(folder, "keepalive.toml")
        with open(path, "w", encoding="utf-8") as file:
            for number in range(writers):
                file.write(f'[services.s{number}]\ncommand = ["{self.child}", "write"]\nlog = {log}\n')
        return [self.keepalive, "-c", path]

    def _keepalive(self, folder, writers):
        return self._set(folder, writers, '{ stdout = "prefix" }')

    def _keepalive_raw(self, folder, writers):
        return self._set(folder, writers, '{ stdout = "raw" }')

    def _keepalive_inherit(self, folder, writers):
        # The output of the services is that of keepalive, which has no part in it: the cost of having any is the difference.
        return self._set(folder, writers, '{ stdout = "inherit" }')

    def _keepalive_file(self, folder, writers):
        # The maximum size, so that no file is rotated.
        file = os.path.join(folder, "{service}.log")
        return self._set(folder, writers, f'{{ stdout = "null", file = "{file}", max_size = "100GiB" }}')

    def _cat(self, folder, writers):
        del folder
        shell, cat = self.path["cat"]
        return [shell, "-c", f"{self.child} write | {cat} & " * writers + "wait"]

    def _pairs(self, folder, writers, log):
        """A service and a logger for each writer, as in s6 and runit."""
        for number in range(writers):
            service = os.path.join(folder, f"s{number}")
            os.makedirs(os.path.join(service, "log"))
            for path, text in (("run", f"#!{self.child} write\n"), ("log/run", f"#!/bin/sh\nexec {log(number)}\n")):
                path = os.path.join(service, path)
                with open(path, "w", encoding="utf-8") as file:
                    file.write(text)
                os.chmod(path, 0o755)

    def _s6_log(self, folder, writers):
        scan, log = self.path["s6-log"]
        # The timestamp is its only prefix.
        self._pairs(folder, writers, lambda _: f"{log} t 1")
        return [scan, folder]

    def _svlogd_file(self, folder, writers):
        scan, log = self.path["svlogd (file)"]
        services = os.path.join(folder, "services")
        for number in range(writers):
            directory = os.path.join(folder, f"log{number}")
            os.mkdir(directory)
            with open(os.path.join(directory, "config"), "w", encoding="utf-8") as file:
                file.write(f"s0\nn0\nps{number}.0 | \n")
        self._pairs(services, writers, lambda number: f"{log} {folder}/log{number}")
        return [scan, services]

    def _supervisord(self, folder, writers):
        path = os.path.join(folder, "supervisord.conf")
        with open(path, "w", encoding="utf-8") as file:
            file.write("[supervisord]\nuser=root\nnodaemon=true\nsilent=true\nlogfile=/dev/null\nlogfile_maxbytes=0\n")
            file.write(f"pidfile={folder}/pid\n")
            for number in range(writers):
                file.write(f"[program:s{number}]\ncommand={self.child} write\nstdout_logfile=/dev/fd/1\n")
                file.write("stdout_logfile_maxbytes=0\nstderr_logfile=NONE\n")
        return [*self.path["supervisord"], "-c", path]

    def _pm2(self, folder, writers):
        path = os.path.join(folder, "pm2.json")
        apps = [{"name": f"s{number}", "script": self.child, "args": "write", "interpreter": "none", "vizion": False,
                 "pmx": False, "out_file": "/dev/null", "error_file": "/dev/null"} for number in range(writers)]
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"apps": apps}, file)
        return [*self.path["PM2"], "start", path]

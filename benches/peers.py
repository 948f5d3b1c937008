"""The peers and their configurations. Facts about a peer are only here."""

import json
import os
import shutil
import signal

INIT_ARGUMENTS = {
    "keepalive": ["--"],
    "C loop": ["0"],
    "tini": ["--"],
    "tini-static": ["--"],
    "dumb-init": ["--"],
    "catatonit": ["--"],
}
PROGRAMS = {
    "s6": "s6-svscan",
    "runit": "runsvdir",
    "supervisord": "supervisord",
    "PM2": "pm2-runtime",
    "forever": "forever",
}
# The maximum number of services of a peer: more take minutes or gigabytes.
MOST = {"PM2": 100, "forever": 10}
MOST_QUICK = {"PM2": 10, "forever": 1, "supervisord": 100}
# The signal for an orderly stop. runsvdir does not wait for its services, forever does not stop them.
STOP = {"s6": signal.SIGTERM, "supervisord": signal.SIGTERM, "keepalive": signal.SIGTERM, "C loop": signal.SIGTERM}


class Peers:
    """The installed programs: our own by path, the others from PATH."""

    def __init__(self, keepalive, tools):
        self.child = os.path.join(tools, "child")
        self.path = {"keepalive": keepalive, "C loop": os.path.join(tools, "limit")}
        for name in [*INIT_ARGUMENTS, *PROGRAMS]:
            found = self.path.get(name) or shutil.which(PROGRAMS.get(name, name))
            if found:
                self.path[name] = found
        self.missing = [name for name in [*INIT_ARGUMENTS, *PROGRAMS] if name not in self.path]
        self.inits = [name for name in INIT_ARGUMENTS if name in self.path]
        self.supervisors = [name for name in ["keepalive", "C loop", *PROGRAMS] if name in self.path]

    def init(self, name, mode):
        """The command line of an init whose command is the child in `mode`."""
        return [self.path[name], *INIT_ARGUMENTS[name], self.child, mode]

    def supervisor(self, name, folder, modes):
        """Writes the configuration for one service for each of `modes`; the command line that starts them."""
        return getattr(self, "_" + name.replace(" ", "_").lower())(folder, modes)

    def _keepalive(self, folder, modes):
        return self.keepalive(folder, modes)

    def keepalive(self, folder, modes, log=None, http=None):
        """The same for keepalive, which can also carry lines of services and listen on an address."""
        path = os.path.join(folder, "keepalive.toml")
        with open(path, "w", encoding="utf-8") as file:
            if http:
                file.write(f'[keepalive]\nhttp = "{http}"\n')
            for number, mode in enumerate(modes):
                file.write(f'[services.s{number}]\ncommand = ["{self.child}", "{mode}"]\n')
                if log:
                    file.write(f'log = {{ stdout = "{log}" }}\n')
                if mode == "die":
                    file.write('min_uptime = "0s"\nmax_restarts = "unlimited"\n')
        return [self.path["keepalive"], "-c", path]

    def _c_loop(self, folder, modes):
        del folder
        same = [mode for mode in modes if mode == modes[0]]
        other = [word for mode in modes[len(same):] for word in ("++", self.child, mode)]
        return [self.path["C loop"], str(len(same)), self.child, modes[0], *other]

    def _run_scripts(self, folder, modes):
        for number, mode in enumerate(modes):
            service = os.path.join(folder, f"s{number}")
            os.mkdir(service)
            script = os.path.join(service, "run")
            with open(script, "w", encoding="utf-8") as file:
                # Without a shell, which would add to the cost of the peer.
                file.write(f"#!{self.child} {mode}\n")
            os.chmod(script, 0o755)

    def _s6(self, folder, modes):
        self._run_scripts(folder, modes)
        return [self.path["s6"], "-c", str(max(len(modes) + 10, 500)), folder]

    def _runit(self, folder, modes):
        self._run_scripts(folder, modes)
        return [self.path["runit"], folder]

    def _supervisord(self, folder, modes):
        path = os.path.join(folder, "supervisord.conf")
        with open(path, "w", encoding="utf-8") as file:
            file.write("[supervisord]\nuser=root\nnodaemon=true\nminfds=8192\nlogfile=/dev/null\nlogfile_maxbytes=0\n")
            file.write(f"pidfile={folder}/pid\n")
            for number, mode in enumerate(modes):
                file.write(f"[program:s{number}]\ncommand={self.child} {mode}\nstartsecs=0\nautorestart=true\n")
                file.write("stdout_logfile=NONE\nstderr_logfile=NONE\n")
        return [self.path["supervisord"], "-c", path]

    def _pm2(self, folder, modes):
        path = os.path.join(folder, "pm2.json")
        common = {"script": self.child, "interpreter": "none", "vizion": False, "pmx": False,
                  "out_file": "/dev/null", "error_file": "/dev/null"}
        apps = [{"name": f"s{number}", "args": mode, **common} for number, mode in enumerate(modes)]
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"apps": apps}, file)
        return [self.path["PM2"], "start", path]

    def _forever(self, folder, modes):
        path = os.path.join(folder, "forever.json")
        for mode in set(modes):
            with open(os.path.join(folder, mode), "w", encoding="utf-8"):
                pass
        apps = [{"uid": f"s{number}", "command": self.child, "script": mode, "sourceDir": folder,
                 "minUptime": 0, "spinSleepTime": 0} for number, mode in enumerate(modes)]
        with open(path, "w", encoding="utf-8") as file:
            json.dump(apps, file)
        return [self.path["forever"], path]

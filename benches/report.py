"""Figures -> Markdown: tables for inits, supervisors, logs, load, questions and workers, and one for the goals."""

MISSING = "–"
# The path of /metrics requests.
WAYS = (("socket", "socket"), ("http", "TCP"))


def micro(value):
    """Nanoseconds as µs."""
    return f"{value / 1000:.1f} µs" if value < 100_000 else f"{value / 1000:,.0f} µs"


def milli(value):
    """Nanoseconds as ms."""
    return f"{value / 1e6:,.1f} ms"


def memory(kib):
    """KiB in a readable unit."""
    return f"{kib:.0f} KiB" if kib < 1024 else f"{kib / 1024:.1f} MiB"


def megabytes(value):
    """MB in a second."""
    return f"{value:,.0f} MB/s"


def seconds(value):
    """CPU seconds for a GB."""
    return f"{value:.2f} s"


def plain(value):
    """A count."""
    return f"{value:,.0f}"


def many(size):
    """A number of services."""
    return f"{size:,} service" if size == 1 else f"{size:,} services"


def dig(figures, *path):
    """The figure at a path, or nothing."""
    for step in path:
        figures = figures.get(step) if figures else None
    return figures


def table(head, rows):
    """Markdown, the figures to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def row(title, figures, names, key, show, base):
    """One measure for all peers, each with its ratio to `base`."""
    reference = dig(figures, base, key)
    cells = []
    for name in names:
        value = dig(figures, name, key)
        cell = MISSING if value is None else show(value)
        if value is not None and reference and name != base:
            cell += f" ({value / reference:.2f})"
        cells.append(cell)
    return [title, *cells]


def init_table(figures, names):
    """The cost of an init; ratios to tini-static."""
    def line(title, measure, key, show):
        return row(title, figures[measure], names, key, show, "tini-static")

    return table(["init (ratio to tini-static)", *names], [
        line("cold start, p50", "cold_start", "p50", micro),
        line("cold start, p99", "cold_start", "p99", micro),
        line("idle: PSS", "init_memory", "pss", memory),
        line("idle: private dirty", "init_memory", "dirty", memory),
        line("signal to handler, p50", "signals", "p50", micro),
        line("signal to handler, p99", "signals", "p99", micro),
        line("orphans in a stream, CPU each", "stream", "cpu", micro),
        line("most zombies waiting at a time", "stream", "peak", plain),
        line("20,000 orphans in a batch, CPU each", "batch", "cpu", micro),
    ])


def supervisor_table(figures, names):
    """The cost of a supervisor; ratios to the C loop."""
    def line(title, found, key, show):
        return row(title, found, names, key, show, "C loop")

    sets, fast = figures["sets"], figures["restarts"]
    seconds = next((found["seconds"] for found in figures["wakeups"].values()), 0)
    return table(["supervisor (ratio to the C loop)", *names], [
        *[line(f"{many(size)}: PSS", sets[size], "pss", memory) for size in sets],
        line("death to next start, p50", {**figures["slow_restarts"], **fast[10]}, "p50", micro),
        line("death to next start, p99", fast[10], "p99", micro),
        line("CPU of PID 1 for each restart", fast[10], "cpu", micro),
        line("the same with 1,000 services, p50", fast[1000], "p50", micro),
        line("CPU of PID 1 for each, 1,000 services", fast[1000], "cpu", micro),
        line("CPU of PID 1 for each orphan, 10 services", figures["reaps"][10], "cpu", micro),
        line("CPU of PID 1 for each, 1,000 services", figures["reaps"][1000], "cpu", micro),
        line("start of 1,000 services", sets[1000], "start", milli),
        line("stop of 1,000 services", sets[1000], "stop", milli),
        line("CPU of both, services included", sets[1000], "cpu", milli),
        line(f"wake-ups in {seconds} s, 100 services", figures["wakeups"], "count", plain),
    ])


def log_table(figures, names):
    """The cost of carrying lines; ratios to cat."""
    rows = []
    for title, found in figures["throughput"].items():
        rows.append(row(title, found, names, "rate", megabytes, "cat"))
        rows.append(row(f"{title}: CPU for a GB", found, names, "cpu", seconds, "cat"))
    return table(["lines of 100 bytes (ratio to cat)", *names], rows)


def load_table(figures):
    """The duration of signals and restarts under load; ratios to no load."""
    def lines(title, cases, base, *path):
        return [row(f"{title}, {key}", dig(figures, *path) or {}, cases, key, micro, base) for key in ("p50", "p99")]

    cases = ("none", "other", "own")
    floods = [*lines("signal to handler", cases, "other", "flood", "signal"),
              *lines("death to next start", cases, "other", "flood", "restart")]
    asked = [line for way, title in WAYS for line in
             (*lines(f"death to next start, {title}", cases, "other", "metrics", way),
              *lines(f"request answered, {title}", cases, "other", "metrics", "asks", way))]
    return "\n\n".join([
        table(["a service floods stdout (ratio to the other keepalive)", "no flood", "flood in the other one",
               "flood in this one"], floods),
        table(["1,000 requests for /metrics in a second (ratio to the other one)", "no requests", "to the other one",
               "to this one"], asked),
    ])


def status_table(figures):
    """The duration of a status request."""
    kinds = ("command", "request", "command again", "request again")
    return table(["status of 1,000 services", "`keepalive status`", "`GET /v1/status`", "`keepalive status` again",
                  "`GET /v1/status` again"],
                 [row(key, figures["status"], kinds, key, milli, None) for key in ("p50", "p99")])


def reload_table(figures):
    """The effect of a reload on clients."""
    found = figures["reload"]
    names = list(found)

    def line(title, key, show):
        return row(title, found, names, key, show, None)

    return table(["4 workers are reloaded, 500 requests in a second", *names], [
        line("requests", "requests", plain),
        line("failed", "failed", plain),
        line("closed without a response on a kept connection, sent again", "again", plain),
        line("response time during reloads, p50", "p50", milli),
        line("response time during reloads, p99", "p99", milli),
        line("response time during reloads, maximum", "max", milli),
        line("time until all workers are new", "took", milli),
    ])


def cluster_table(figures):
    """The throughput of two workers, and the time to replace a dead one; ratios to PM2."""
    names = list({name: None for kind in ("kept", "new") for name in dig(figures, "cluster", kind) or ()})
    return table(["Node (ratio to PM2); nginx shows the limit of the load generator", *names], [
        *[row(f"2 workers, {kind} connections: requests in a second", dig(figures, "cluster", kind), names, "rate", plain,
              "PM2") for kind in ("kept", "new")],
        *[row(f"the only worker killed until the port answers, {key}", figures["crash"], names, key, milli, "PM2")
          for key in ("p50", "p99")],
    ])


def goals(figures):
    """Each goal: name, figure, reference and maximum ratio."""
    def of(measure, name, key):
        return dig(figures, measure, name, key)

    sets, fast, own = figures["sets"], figures["restarts"], "keepalive"
    yield "cold start, p50", of("cold_start", own, "p50"), of("cold_start", "tini-static", "p50"), 1.05, micro
    yield "init mode: PSS", of("init_memory", own, "pss"), of("init_memory", "tini-static", "pss"), 1, memory
    yield "init mode: private dirty", of("init_memory", own, "dirty"), 64, 1, memory
    for size, most in ((1, 1024), (10, 1024), (100, 1229), (1000, 3072)):
        yield f"{many(size)}: PSS", dig(sets[size], own, "pss"), most, 1, memory
    yield "orphans in a stream, CPU each", of("stream", own, "cpu"), of("stream", "tini", "cpu"), 1.05, micro
    yield "orphans in a batch, CPU each", of("batch", own, "cpu"), of("batch", "tini", "cpu"), 1.05, micro
    yield "most orphans waiting", of("stream", own, "peak"), 300, 1, plain
    for key in ("p50", "p99"):
        yield f"signal to handler, {key}", of("signals", own, key), of("signals", "dumb-init", key), 1, micro
    for key in ("p50", "p99", "cpu"):
        title = "CPU for each restart" if key == "cpu" else f"restart, {key}"
        yield title, dig(fast[10], own, key), dig(fast[10], "C loop", key), 1.3, micro
    for key, title in (("start", "start of 1,000"), ("stop", "stop of 1,000"), ("cpu", "CPU of both")):
        yield title, dig(sets[1000], own, key), dig(sets[1000], "C loop", key), 1.3, milli
        yield f"{title}, below s6", dig(sets[1000], own, key), dig(sets[1000], "s6", key), 1, milli
    yield "idle wake-ups", of("wakeups", own, "count"), 0, 1, plain
    for key in ("p50", "cpu"):
        yield f"restart at 1,000 against 10 services, {key}", dig(fast[1000], own, key), dig(fast[10], own, key), 1.2, micro
    yield from goals_under_load(figures)
    yield from goals_of_workers(figures)
    reaps = figures["reaps"]
    yield "reaping at 1,000 against 10 services, CPU", dig(reaps[1000], own, "cpu"), dig(reaps[10], own, "cpu"), 1.2, micro


def goals_under_load(figures):
    """The same for logs and requests."""
    for what, title in (("signal", "signal to handler"), ("restart", "restart")):
        for key in ("p50", "p99"):
            found = dig(figures, "flood", what)
            yield f"{title} beside a flood, {key}", dig(found, "own", key), dig(found, "other", key), 1.2, micro
    for kind, title in (("command", "`keepalive status`"), ("request", "`GET /v1/status`")):
        for key in ("p50", "p99"):
            yield f"{title} of 1,000 services, {key}", dig(figures, "status", kind, key), 20e6, 1, milli
    for way, title in WAYS:
        for key in ("p50", "p99"):
            found = dig(figures, "metrics", way)
            yield (f"restart while /metrics is asked for, {title}, {key}", dig(found, "own", key),
                   dig(found, "other", key), 1.2, micro)


def goals_of_workers(figures):
    """The same for workers of one port."""
    for name in ("keepalive", "keepalive (gunicorn)"):
        yield f"failed requests in a reload, {name}", dig(figures, "reload", name, "failed"), 0, 1, plain
    for kind in ("kept", "new"):
        for name, mode in (("keepalive", "shared"), ("keepalive (reuseport)", "reuseport")):
            found = dig(figures, "cluster", kind)
            yield (f"2 workers, {mode}, {kind} connections: time of a request", dig(found, name, "each"),
                   dig(found, "PM2", "each"), 1, micro)


def goal_table(figures):
    """The goals of keepalive, reached or not."""
    rows = []
    for title, value, reference, factor, show in goals(figures):
        if value is None or reference is None:
            rows.append([title, MISSING, MISSING, MISSING, "not measured"])
            continue
        ratio = f"{value / reference:.2f}" if reference else MISSING
        reached = "yes" if value <= reference * factor else "no"
        rows.append([title, show(value), f"{factor:g} × {show(reference)}", ratio, reached])
    return table(["goal", "keepalive", "at most", "ratio", "reached"], rows)


def report(result, peers, loggers):
    """The whole report."""
    figures = result["figures"]
    command = "make bench QUICK=1" if result["quick"] else "make bench"
    parts = [
        f"`{command}`, {result['machine']}, {result['seconds']} s.",
        init_table(figures, peers.inits),
        supervisor_table(figures, peers.supervisors),
        log_table(figures, list(loggers.path)),
        load_table(figures),
        status_table(figures),
        reload_table(figures),
        cluster_table(figures),
        goal_table(figures),
        "Missing: " + (", ".join(result["missing"]) or "nobody") + ".",
        *[f"Failed: {failure}" for failure in result["failed"]],
    ]
    return "\n\n".join(parts)

"""What the machine does: CPU seconds by whom, memory, versions, and the noise of others."""

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, NamedTuple

import psutil

LIBRARIES = ("aiohttp", "asyncpg", "sqlalchemy", "uvloop", "uvicorn", "litestar")


class Usage(NamedTuple):
    """CPU seconds used so far, or in a span when two are subtracted."""

    at: float
    ours: float
    """The scheduler, without its Postgres."""
    postgres: float
    """All of Postgres but the benchmark's own backend."""
    bench: float
    """The benchmark itself: this process, its backend, the target."""
    busy: float
    """The whole machine, what the hypervisor took away included."""

    def since(self, before: "Usage") -> "Usage":
        """Return what was used since `before`; `at` becomes the length of the span."""
        return Usage(*(now - then for now, then in zip(self, before, strict=True)))

    @property
    def noise_cores(self) -> float:
        """How many cores others kept busy in a span."""
        others = self.busy - self.ours - self.postgres - self.bench
        return round(max(others, 0.0) / self.at, 2)


class Meter:
    """Reads what each party has used; exited children stay counted with who reaped them."""

    def __init__(self, ours: int, postmaster: int, backend: int, helpers: Iterable[int]) -> None:
        self._ours = psutil.Process(ours)
        self._postmaster = psutil.Process(postmaster)
        self._backend = psutil.Process(backend)
        self._bench = [psutil.Process(pid) for pid in (os.getpid(), *helpers)]

    def read(self) -> Usage:
        """Return the usage until now."""
        backend = _own(self._backend)
        postgres = _family(self._postmaster) - backend
        ours = _family(self._ours, without=self._postmaster.pid)
        bench = sum(_own(process) for process in self._bench) + backend
        return Usage(time.time(), ours, postgres, bench, _busy())


def _own(process: psutil.Process) -> float:
    with suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        return times.user + times.system
    return 0.0


def _family(process: psutil.Process, without: int | None = None) -> float:
    """Return the seconds of a process, of all it reaped, and of its living children."""
    times = process.cpu_times()
    total = times.user + times.system + times.children_user + times.children_system
    for child in process.children():
        if child.pid != without:
            with suppress(psutil.NoSuchProcess):
                total += _family(child)
    return total


def _busy() -> float:
    times = psutil.cpu_times()
    free = times.idle + getattr(times, "iowait", 0.0)
    twice = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    return sum(times) - free - twice


def rss_mb(pid: int) -> float:
    """Return the resident memory of a process in MB (2**20)."""
    return round(psutil.Process(pid).memory_info().rss / 2**20, 1)


def pss_mb(pid: int) -> float | None:
    """Return the memory of a process and its children, shared pages counted once; in MB."""
    total = 0
    try:
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                total += process.memory_full_info().pss
    except (psutil.AccessDenied, AttributeError):
        return None
    return round(total / 2**20, 1)


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the nearest-rank percentile of sorted values."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def spread(seconds: Iterable[float]) -> dict[str, float]:
    """Return p50, p95, p99, max and min in milliseconds; empty where nothing is given."""
    ordered = sorted(value * 1000 for value in seconds)
    if not ordered:
        return {}
    figures = {f"p{share}": percentile(ordered, share / 100) for share in (50, 95, 99)}
    figures |= {"max": ordered[-1], "min": ordered[0]}
    return {name: round(value, 2) for name, value in figures.items()}


def median(values: Iterable[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def about() -> dict[str, Any]:
    """Return what a figure has to be read with: the machine, the date, the versions."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": {
            "cpu": _cpu_name(),
            "cores": psutil.cpu_count() or 0,
            "memory_gb": round(psutil.virtual_memory().total / 2**30),
            "system": platform.system(),
            "virtual": _hypervisor(),
        },
        "versions": {
            "scheduler": version("scheduler"),
            "commit": _commit(),
            "python": platform.python_version(),
            **{name: version(name) for name in LIBRARIES},
        },
    }


def _cpu_name() -> str:
    with suppress(OSError), open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _hypervisor() -> bool:
    with suppress(OSError), open("/proc/cpuinfo") as file:
        return " hypervisor" in file.read()
    return False


def _commit() -> str | None:
    """Return the commit measured, with a + where files differ from it."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=10", "--exclude=*"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None

"""A Postgres data directory: made whole or not at all, started, and what its files say.

Postgres is told that its data is `/proc/self/cwd`, and started there, with its socket in ".".
So it never walks down the path: that may be very long, or go through directories that only root
may enter, and nobody's modes are changed.
"""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from scheduler import pgbinaries
from scheduler.errors import StartupError

HERE = "/proc/self/cwd"
DATABASE = "scheduler"
SUPERUSER = "postgres"
PORT = 5432
SOCKET = f".s.PGSQL.{PORT}"

POLL = 0.01
ORPHANS_LEAVE = 1.0
ORPHANS_DIE = 10.0
LOGS_KEPT = 5

SETTINGS = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_directories": ".",
    "unix_socket_permissions": "0700",
    "max_connections": "60",
    "fsync": "on",
    "synchronous_commit": "on",
    # Off: pglz costs more CPU on each page's first change than the disk would save.
    "wal_compression": "off",
    "checkpoint_timeout": "15min",
    "max_wal_size": "2GB",
    "min_wal_size": "256MB",
    "autovacuum_naptime": "20s",
    "random_page_cost": "1.1",
    "jit": "off",
    # Our statements are small, and the /dev/shm of a container, 64 MB, is too small for workers.
    "max_parallel_workers_per_gather": "0",
    "max_parallel_maintenance_workers": "0",
    # A statement whose scheduler was killed must not go on holding its locks.
    "client_connection_check_interval": "2s",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "lc_messages": "C",
    # Rotated by size and age, and their number bounded by `trim_logs`. Names that come again, as
    # with %a, bound nothing: Postgres truncates only when time, not size, makes it rotate.
    "logging_collector": "on",
    "log_directory": "log",
    "log_filename": "postgres-%Y-%m-%dT%H%M%S.log",
    "log_file_mode": "0600",
    "log_rotation_age": "1d",
    "log_rotation_size": "20MB",
    "log_min_duration_statement": "-1",
}

INITDB = (
    f"--username={SUPERUSER}",
    "--auth-local=trust",  # the socket lies in a directory that only the owner and root may enter
    "--auth-host=reject",
    "--encoding=UTF8",
    # Postgres's own collation: the operating system's can change under an index.
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--locale=C",
    "--no-instructions",
    "--no-sync",  # once, at the end
)

Progress = Callable[[str], None]


class Cluster:
    """The directory `home/data`; `prepare` comes before `command` and `launch`."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.data = home / "data"
        self.crashed = False
        """Whether the last launch found a server that had been killed."""
        self._programs = pgbinaries.Programs(Path(), pgbinaries.Account())

    def prepare(self, progress: Progress) -> None:
        """Find the programs and make the cluster, if it is not there.

        Raises StartupError when it cannot be made, or is of another major version.
        """
        who = pgbinaries.account(self.data)
        if who.uid is not None and not Path(HERE).exists():
            raise StartupError("Here the embedded Postgres needs a user who is not root.")
        self._programs = pgbinaries.locate(who)
        marker = self.data / "PG_VERSION"
        if not marker.exists():
            self._make(progress)
        found = marker.read_text().strip()
        if found != pgbinaries.MAJOR:
            raise StartupError(
                f"The database in {self.data} is of Postgres {found}, and this scheduler brings"
                f" Postgres {pgbinaries.MAJOR}: use the version of the scheduler that made it."
            )

    def command(self) -> list[str]:
        """The postmaster's command line."""
        settings = SETTINGS | {
            "shared_buffers": "256MB" if _memory() >= 2 << 30 else "128MB",
            "cluster_name": self.name(),
            "scheduler.binaries": pgbinaries.version(),  # so that an upgrade is not adopted
        }
        pairs = (argument for pair in settings.items() for argument in ("-c", "=".join(pair)))
        return [self._programs.path("postgres"), "-D", _place(self.data), *pairs]

    def launch(self) -> "subprocess.Popen[bytes]":
        """Start a postmaster; the caller knows that none lives."""
        self._clear()
        with (self.home / "start.log").open("wb") as log:
            return subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.data,
                **self._programs.spawned,
            )

    def name(self) -> str:
        """What stands in the title of each of our processes: this cluster, in this place.

        Titles are open to all; where a process works is not, even to root in a container.
        """
        identifier = (self.data / "global" / "pg_control").read_bytes()[:8]
        return f"scheduler-{hashlib.sha256(bytes(self.data) + identifier).hexdigest()[:16]}"

    def postmaster(self) -> psutil.Process | None:
        """The living postmaster, if the one that postmaster.pid names is not a stranger."""
        pid, _ = self._pid_file()
        if not pid:
            return None
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            return process if _bears(process, self.name()) else None
        return None

    def ready(self, pid: int) -> bool:
        """Whether the postmaster `pid` takes connections."""
        return self._pid_file() == (pid, "ready")

    def trim_logs(self) -> None:
        for log in self._logs()[:-LOGS_KEPT]:
            log.unlink(missing_ok=True)

    def last_words(self) -> str:
        """Why the postmaster gave up."""
        words = ""
        for log in (self.home / "start.log", *self._logs()[-1:]):
            words = _tail(log)
            if "FATAL:" in words or "PANIC:" in words:
                break
        return _last_words(words)

    def _make(self, progress: Progress) -> None:
        """Make the cluster beside its place, and move it there when it is whole."""
        if self.data.exists() and any(self.data.iterdir()):
            raise StartupError(
                f"{self.data} has files in it, but no database: move them away,"
                " or give the scheduler another directory with DATA_DIR."
            )
        for unfinished in self.home.glob("new-*"):
            shutil.rmtree(unfinished, ignore_errors=True)
        progress(f"Making a database in {self.home}")
        # A new name each time: the initdb of a scheduler that was killed may still be writing.
        new = Path(tempfile.mkdtemp(prefix="new-", dir=self.home))
        try:
            self._fill(new)
            new.rename(self.data)
            _sync(self.home)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise

    def _fill(self, new: Path) -> None:
        who = self._programs.who
        if who.uid is not None and who.gid is not None:
            os.chown(new, who.uid, who.gid)
        at = f"--pgdata={_place(new)}"
        self._run(new, "initdb", *INITDB, at)
        alone = ("--single", "-D", _place(new), "-c", "exit_on_error=on", "-c", "fsync=off")
        self._run(new, "postgres", *alone, "template1", say=f"CREATE DATABASE {DATABASE};\n")
        self._run(new, "initdb", "--sync-only", at)

    def _run(self, where: Path, program: str, *arguments: str, say: str = "") -> None:
        done = subprocess.run(
            [self._programs.path(program), *arguments],
            check=False,
            input=say.encode(),
            capture_output=True,
            cwd=where,
            **self._programs.spawned,
        )
        if done.returncode != 0:
            words = _last_words(done.stderr.decode(errors="replace"))
            raise StartupError(f"The database in {self.home} could not be made: {words}")

    def _clear(self) -> None:
        """Take away what a server that was killed left behind.

        Postgres would refuse to start when the pid in its files is alive again as something else.
        Should a process of the old server live on after all, the shared memory it holds, which is
        named after the inode of `data`, still keeps the new one from starting.
        """
        left = [self.data / name for name in ("postmaster.pid", SOCKET, f"{SOCKET}.lock")]
        self.crashed = left[0].exists()
        if self.crashed:
            self._end_orphans()
        for path in left:
            path.unlink(missing_ok=True)

    def _end_orphans(self) -> None:
        """Let the children of a killed postmaster leave, as they do by themselves; kill the busy.

        A zombie has no title any more, so one that nobody reaps is not waited for.
        """
        name, began, killed = self.name(), time.monotonic(), False
        orphans = list(psutil.process_iter())
        while orphans := [process for process in orphans if _bears(process, name)]:
            waited = time.monotonic() - began
            if waited > ORPHANS_DIE:
                return
            if waited > ORPHANS_LEAVE and not killed:
                killed = True
                for process in orphans:
                    with suppress(psutil.NoSuchProcess):
                        process.kill()
            time.sleep(POLL)

    def _pid_file(self) -> tuple[int, str]:
        """Pid and state, lines 1 and 8; (0, "") when there is no such file, or half of one."""
        try:
            lines = (self.data / "postmaster.pid").read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return 0, ""
        pid = int(lines[0]) if lines and re.fullmatch(r"[1-9]\d{0,9}", lines[0]) else 0
        return pid, lines[7].strip() if len(lines) > 7 else ""

    def _logs(self) -> list[Path]:
        """Oldest first."""
        return sorted((self.data / "log").glob("postgres-*.log"))


def _place(directory: Path) -> str:
    """What to call `directory` to a program of Postgres that is started in it."""
    return HERE if Path(HERE).exists() else str(directory)


def _bears(process: psutil.Process, name: str) -> bool:
    with suppress(psutil.Error):
        title = process.cmdline()  # empty for a zombie
        return process.name().startswith("postgres") and any(name in part for part in title)
    return False


def _memory() -> int:
    """Bytes we may use: the machine's, or the container's if that is less."""
    total = psutil.virtual_memory().total
    try:
        return min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no cgroup, or "max"
        return total


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 8192))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def _last_words(log: str) -> str:
    """The last fatal message, else the last line."""
    fatal = re.findall(r"\b(?:FATAL|PANIC|ERROR|error): +(.+)", log)
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return (fatal or lines or ["it said nothing"])[-1]


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

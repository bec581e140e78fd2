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
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from scheduler import pgbinaries
from scheduler.errors import StartupError

NAMELESS = "; run this as a user that /etc/passwd names, or set DATABASE_URL to a Postgres of yours"
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


UPGRADED = f"upgraded-{pgbinaries.MAJOR}"
"""A cluster that an upgrade has made, whole, and not yet moved to its place."""
DRAFT = "new-"


class Cluster:
    """The directory `home/data`, or another one beside it.

    `prepare` or `use` comes before `command` and `launch`.
    """

    def __init__(self, home: Path, folder: str = "data") -> None:
        self.home = home
        self.data = home / folder
        self.crashed = False
        """Whether the last launch found a server that had been killed."""
        self._programs = pgbinaries.Programs(Path(), pgbinaries.Account())

    def prepare(self, progress: Progress) -> None:
        """Find the programs and make the cluster, if it is not there.

        Raises StartupError when it cannot be made, or is of another major version.
        """
        self.recover()
        self.use()
        if self.major is None:
            self._make(progress)
        if (found := self.major) != pgbinaries.MAJOR:
            known = found in pgbinaries.INSTALLS
            todo = "run `scheduler upgrade`" if known else "use the version that made it"
            raise StartupError(
                f"The database in {self.data} is of Postgres {found}, and this scheduler brings"
                f" Postgres {pgbinaries.MAJOR}: {todo}."
            )

    @property
    def major(self) -> str | None:
        """The major version of the database that is there; None where there is none."""
        with suppress(FileNotFoundError):
            return (self.data / "PG_VERSION").read_text().strip()
        return None

    def use(self, major: str | None = None) -> pgbinaries.Programs:
        """Find the programs for the owner of the data, of this version where none is named.

        Raises StartupError.
        """
        who = pgbinaries.account(self.data)
        if who.uid is not None and not Path(HERE).exists():
            raise StartupError("Here the embedded Postgres needs a user who is not root.")
        self._programs = pgbinaries.locate(who, major)
        return self._programs

    def recover(self) -> None:
        """End an upgrade that was cut between its last two steps: the old is away, the new ready.

        Raises OSError.
        """
        upgraded = self.home / UPGRADED
        if upgraded.exists() and not self.data.exists():
            upgraded.rename(self.data)
            sync(self.home)

    def command(self, **more: str) -> list[str]:
        """The postmaster's command line; `more` are further settings."""
        settings = SETTINGS | {
            "shared_buffers": "256MB" if _memory() >= 2 << 30 else "128MB",
            "cluster_name": self.name(),
            "scheduler.binaries": pgbinaries.version(),  # so that an upgrade is not adopted
            **more,
        }
        pairs = (argument for pair in settings.items() for argument in ("-c", "=".join(pair)))
        return [self._programs.path("postgres"), "-D", place_of(self.data), *pairs]

    def launch(self, **more: str) -> "subprocess.Popen[bytes]":
        """Start a postmaster; the caller knows that none lives."""
        self._clear()
        with (self.home / "start.log").open("wb") as log:
            return subprocess.Popen(
                self.command(**more),
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
        return last_line(words)

    def _make(self, progress: Progress) -> None:
        """Make the cluster beside its place, and move it there when it is whole."""
        if self.data.exists() and any(self.data.iterdir()):
            raise StartupError(
                f"{self.data} has files in it, but no database: move them away,"
                " or give the scheduler another directory with DATA_DIR."
            )
        progress(f"Making a database in {self.home}")
        with self.drafted() as draft:
            draft.move_to(self.data)

    @contextmanager
    def drafted(self) -> Iterator["Cluster"]:
        """A new cluster beside this one's place, to be moved there when it is whole; else it goes.

        After `use`. Raises StartupError.
        """
        for unfinished in self.home.glob(f"{DRAFT}*"):
            Cluster(self.home, unfinished.name).discard()
        # A new name each time: the initdb of a scheduler that was killed may still be writing.
        new = Path(tempfile.mkdtemp(prefix=DRAFT, dir=self.home))
        draft = Cluster(self.home, new.name)
        draft._programs = self._programs
        try:
            draft._fill()
            yield draft
        finally:
            shutil.rmtree(new, ignore_errors=True)

    def move_to(self, place: Path) -> None:
        """Give the directory its name, for good."""
        self.data.rename(place)
        sync(self.home)

    def discard(self) -> None:
        """Remove what was made by a scheduler that was killed, and end what it left running."""
        if (self.data / "global" / "pg_control").exists():
            self._end_orphans()
        shutil.rmtree(self.data, ignore_errors=True)

    def write_through(self) -> None:
        """Have everything in the directory on the disk; nothing runs in it."""
        self._run("initdb", "--sync-only", f"--pgdata={place_of(self.data)}")

    def _fill(self) -> None:
        who = self._programs.who
        if who.uid is not None and who.gid is not None:
            os.chown(self.data, who.uid, who.gid)
        self._run("initdb", *INITDB, f"--pgdata={place_of(self.data)}")
        alone = ("--single", "-D", place_of(self.data), "-c", "exit_on_error=on", "-c", "fsync=off")
        self._run("postgres", *alone, "template1", say=f"CREATE DATABASE {DATABASE};\n")
        self.write_through()

    def _run(self, program: str, *arguments: str, say: str = "") -> None:
        done = subprocess.run(
            [self._programs.path(program), *arguments],
            check=False,
            input=say.encode(),
            capture_output=True,
            cwd=self.data,
            **self._programs.spawned,
        )
        if done.returncode != 0:
            words = last_line(done.stderr.decode(errors="replace"))
            if "effective user ID" in words:
                words += NAMELESS
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


def place_of(directory: Path) -> str:
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


def last_line(log: str) -> str:
    """The last fatal message, else the last line."""
    fatal = re.findall(r"\b(?:FATAL|PANIC|ERROR|error): +(.+)", log)
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return (fatal or lines or ["it said nothing"])[-1]


def sync(directory: Path) -> None:
    """Have the names in a directory on the disk."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

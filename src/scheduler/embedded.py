"""The embedded Postgres of one scheduler: locked, started, adopted, kept alive and stopped.

Everything is in `<data directory>/postgres`:

    lock        held by the one living scheduler on this data directory
    data/       Postgres's own, with its socket, and its log in data/log
    data-16/    what an upgrade from Postgres 16 left, to be deleted when all is well
    start.log   what Postgres said before it had a log
"""

import errno
import fcntl
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import psutil

from scheduler.errors import StartupError
from scheduler.pgcluster import DATABASE, PORT, SOCKET, SUPERUSER, Cluster

LONGEST_SOCKET_PATH = 103  # bytes: sun_path holds 107 on Linux, 103 on macOS
SPLITS_HOSTS = ",:"  # in a path these would be taken for a list of hosts, or a port
POLL = 0.01
TELL_EVERY = 5.0
FAST_STOP = 60.0
HARD_STOP = 10.0

Progress = Callable[[str], None]


class InUse(StartupError):
    """Another scheduler has the data directory."""


class EmbeddedPostgres:
    """One Postgres and the lock that makes it ours; every method blocks, any thread may call."""

    def __init__(self, base: Path) -> None:
        self._base = base.resolve()
        self.cluster = Cluster(self._base / "postgres")
        self._server: _Server | None = None
        self._lock: int | None = None
        self._door: int | None = None
        self._wanted = False
        self._guard = threading.RLock()  # a signal handler may call stop() in the midst of start()

    @classmethod
    def join(cls, base: Path) -> str | None:
        """The URL of the server that runs on this data directory, or None.

        Takes no lock and starts nothing. Raises StartupError when the directory is another user's.
        """
        postgres = cls(base)
        with one_sentence(postgres._base):
            running = postgres.cluster.postmaster()
            return postgres.url if running and postgres.cluster.ready(running.pid) else None

    @property
    def url(self) -> str:
        """The address for asyncpg, while we live; it has the port, because PGPORT is obeyed."""
        host = quote(self._socket_directory(), safe="/")
        return f"postgresql://{SUPERUSER}@/{DATABASE}?host={host}&port={PORT}"

    def lock(self) -> None:
        """Take the data directory, or raise StartupError; a second time is nothing."""
        if self._lock is not None:
            return
        with one_sentence(self._base):
            self._base.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.cluster.home.mkdir(mode=0o700, exist_ok=True)
            file = os.open(self.cluster.home / "lock", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                self._take(file)
            except BaseException:
                os.close(file)
                raise
            self._lock = file

    def start(self, progress: Progress = lambda _: None) -> None:
        """Return when the database takes connections, however long it recovers.

        Raises StartupError; then nothing of ours runs, and the lock is free.
        """
        self.lock()
        self._wanted = True
        try:
            with one_sentence(self._base):
                self.cluster.prepare(progress)
                with self._guard:
                    if self._wanted and not self.alive():
                        self._server = self._adopt() or self._launch()
                self._await_ready(progress)
            if not self._wanted:
                raise StartupError("Postgres was stopped while it was starting.")
        except BaseException:
            self.stop()
            raise

    def alive(self) -> bool:
        """Whether the postmaster lives; it may still be recovering."""
        server = self._server
        return server is not None and server.alive()

    def ensure(self) -> None:
        """Start Postgres again if it died, and bound its log; call it every second or so.

        Raises StartupError when Postgres does not come back; the next call tries again.
        """
        with one_sentence(self._base):
            with self._guard:
                if not self._wanted:
                    return
                if self.alive():
                    self.cluster.trim_logs()
                else:
                    self._server = self._launch()
            self._await_ready(lambda _: None)

    def stop(self) -> None:
        """Stop Postgres, cutting what is connected, and free the lock; a second time is nothing."""
        with self._guard:
            self._wanted = False
            try:
                if self._server is not None:
                    self._server.stop()
            finally:
                for descriptor in (self._door, self._lock):
                    if descriptor is not None:
                        os.close(descriptor)
                self._server = self._door = self._lock = None

    def end(self) -> None:
        """End the server that a scheduler which was killed left running; after `lock`."""
        if running := self.cluster.postmaster():
            _Server(running).stop()

    def _take(self, file: int) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(file, 20, 0).decode()
            who = f"another scheduler, process {holder}" if holder else "another scheduler"
            raise InUse(
                f"The data directory {self._base} is in use by {who}: stop that one,"
                " or give this one a directory of its own with DATA_DIR."
            ) from None
        os.ftruncate(file, 0)
        os.pwrite(file, str(os.getpid()).encode(), 0)

    def _adopt(self) -> "_Server | None":
        """Take over the server of a scheduler that was killed, if it is as we would start it."""
        running = self.cluster.postmaster()
        if running is None:
            return None
        server = _Server(running)
        with suppress(psutil.Error):
            if running.cmdline() == self.cluster.command():
                return server
        server.stop()
        return None

    def _launch(self) -> "_Server":
        child = self.cluster.launch()
        return _Server(psutil.Process(child.pid), child)

    def _await_ready(self, progress: Progress) -> None:
        """Wait as long as the postmaster lives: how long a recovery takes, nobody knows."""
        began = told = time.monotonic()
        while True:
            with self._guard:
                if not self._wanted or self._settled():
                    return
            now = time.monotonic()
            if now - told >= TELL_EVERY:
                told = now
                what = "recovering after a crash" if self.cluster.crashed else "starting"
                progress(f"Postgres is {what}, {now - began:.0f} s so far")
            time.sleep(POLL)

    def _settled(self) -> bool:
        """Whether the server is ready; one that died on the way is replaced, or the reason told."""
        if not self.alive():
            self._server = self._replacement()
        return self._server is not None and self.cluster.ready(self._server.pid)

    def _replacement(self) -> "_Server":
        """Ours may have died of one that was there before it; an adopted one was stopping."""
        if running := self.cluster.postmaster():
            return _Server(running)
        if self._server is not None and not self._server.ours:
            return self._launch()
        words = self.cluster.last_words()
        raise StartupError(f"Postgres did not start: {words} (see {self.cluster.data / 'log'})")

    def _socket_directory(self) -> str:
        """Where clients find the socket; a path that they could not use is spelled by its fd."""
        path = str(self.cluster.data)
        too_long = len(os.fsencode(self.cluster.data / SOCKET)) > LONGEST_SOCKET_PATH
        if not too_long and not any(letter in path for letter in SPLITS_HOSTS):
            return path
        descriptors = Path(f"/proc/{os.getpid()}/fd")
        if not descriptors.exists():
            raise StartupError(
                f"The path of the data directory {self._base} is too long, or has a comma or colon"
                " in it: give the scheduler another one with DATA_DIR."
            )
        if self._door is None:
            self._door = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        return str(descriptors / str(self._door))


class _Server:
    """A postmaster: our child, or one that was adopted."""

    def __init__(
        self, process: psutil.Process, child: "subprocess.Popen[bytes] | None" = None
    ) -> None:
        self._process = process
        self._child = child
        self.pid = process.pid
        self.ours = child is not None

    def alive(self) -> bool:
        if self._child is not None:
            return self._child.poll() is None
        with suppress(psutil.Error):
            return self._process.is_running() and self._process.status() != psutil.STATUS_ZOMBIE
        return False

    def stop(self) -> None:
        """Stop it fast; at once when that takes too long, which costs a recovery, no data."""
        steps = (signal.SIGINT, FAST_STOP), (signal.SIGQUIT, HARD_STOP), (signal.SIGKILL, HARD_STOP)
        for sign, seconds in steps:
            if not self.alive():
                return
            with suppress(psutil.NoSuchProcess):
                self._process.send_signal(sign)
            deadline = time.monotonic() + seconds
            while self.alive() and time.monotonic() < deadline:
                time.sleep(POLL)


@contextmanager
def one_sentence(base: Path) -> Iterator[None]:
    """Say what the operating system refused, in the block, as a StartupError."""
    try:
        yield
    except OSError as error:
        what = f"{error.strerror or error}: {error.filename or base}"
        todo = "choose another with DATA_DIR"
        if isinstance(error, PermissionError):
            todo = f"run this as the user that owns it, or {todo}"
        elif error.errno in (errno.ENOSPC, errno.EDQUOT):
            todo = f"make room there, or {todo}"
        raise StartupError(f"The data directory {base} cannot be used: {what}; {todo}") from error

"""Who else works on an embedded database: a file that each joined worker locks, shared.

The lock on the data directory proves that no other server lives, and says nothing of workers that
have joined one. A server that starts takes this lock alone, where it can be had: then nobody else
lives, and what others held is free at once. Else the workers' beats tell who is gone.
"""

import fcntl
import os
import time
from pathlib import Path

POLL_S = 0.05


class Joiners:
    """The lock file of one data directory; it goes with its process, however that ends."""

    def __init__(self, base: Path) -> None:
        self._path = base / "postgres" / "joined"
        self._file: int | None = None

    def none(self) -> bool:
        """Say whether no worker has joined; if so, none does until `release`."""
        return self._take(fcntl.LOCK_EX)

    def enter(self) -> None:
        """Join; blocks while a server is starting that takes itself for the only one."""
        while not self._take(fcntl.LOCK_SH):
            time.sleep(POLL_S)

    def release(self) -> None:
        """Let others join, or leave; a second time is nothing."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _take(self, kind: int) -> bool:
        self.release()
        file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        self._file = file
        return True

"""How much room a disk has left, and what to stop while it has too little."""

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import structlog

log = structlog.get_logger()

LOOK_S = 5.0
AGAIN = 1.1
"""How much more than the least must be free before work goes on: it does not go to and fro."""
WHO = "disk"

Free = Callable[[Path], int]


def free(path: Path) -> int:
    """Return how many bytes are free, for those who are not root, where `path` is."""
    return shutil.disk_usage(path).free


def same(one: Path, other: Path) -> bool:
    """Say whether two paths lie on one file system."""
    return one.stat().st_dev == other.stat().st_dev


def words(size: int) -> str:
    """Return a number of bytes as people read it: `1.5 GiB`."""
    amount = float(size)
    for unit in ("bytes", "KiB", "MiB"):
        if abs(amount) < 1024:
            return f"{amount:.4g} {unit}"
        amount /= 1024
    return f"{amount:,.1f} GiB"


class Watch:
    """Halts the work on a database whose disk is nearly full, by `halt(who, sentence or None)`.

    Less than `least` bytes are too few; 0: it never looks.
    """

    def __init__(
        self,
        path: Path,
        least: int,
        halt: Callable[[str, str | None], None],
        measure: Free = free,
    ) -> None:
        self._path = path
        self._least = least
        self._halt = halt
        self._measure = measure
        self._halted = False

    async def look(self) -> None:
        """Look once."""
        if not self._least:
            return
        try:  # a disk may take its time to answer
            left = await asyncio.to_thread(self._measure, self._path)
        except OSError as e:
            log.warning("the disk cannot be looked at", path=str(self._path), error=e.strerror)
            return
        if left < self._least:
            if not self._halted:
                log.error("the disk is nearly full; nothing more is started", **self._facts(left))
            self._halt(WHO, self._sentence(left))
            self._halted = True
        elif self._halted and left >= self._least * AGAIN:
            log.warning("the disk has room again; going on", **self._facts(left))
            self._halt(WHO, None)
            self._halted = False

    async def keep_looking(self) -> None:
        """Look every few seconds, for ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self.look()

    def _facts(self, left: int) -> dict[str, object]:
        return {"path": str(self._path), "free": words(left), "least": words(self._least)}

    def _sentence(self, left: int) -> str:
        again = words(int(self._least * AGAIN))
        return (
            f"the disk of {os.fspath(self._path)} has {words(left)} ({left} bytes) free, less than"
            f" data.min_free_bytes ({words(self._least)}): nothing is started until it has {again};"
            " make room, or set DATA_MIN_FREE_BYTES lower"
        )

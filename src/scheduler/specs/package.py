"""The typed Python client package of a document, as a zip: openapi-python-client writes it, in a
child process of its own that ends with it.
"""

import asyncio
import re
import shutil
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import structlog

from scheduler import asking
from scheduler.errors import TooManyRequests, Unavailable

log = structlog.get_logger()

NAME_MOST = 60
WAITING_MOST = 20
WAITING_OF_SERVICE = 3
AGAIN_S = 5
REFUSED = 3
"""The child's exit code where it says why (packaging.py, which is not imported here)."""
CLOSED = re.compile(r"[^a-z0-9]+")


class Turns:
    """One package at a time, services in turn, and few who wait for theirs."""

    def __init__(self) -> None:
        self._busy = False
        self._waiting: dict[UUID, deque[asyncio.Future[None]]] = {}
        """By service, in the order of their turns."""

    @asynccontextmanager
    async def of(self, service_id: UUID) -> AsyncIterator[None]:
        """Wait for a service's turn. Raises TooManyRequests and Unavailable."""
        if self._busy:
            await self._turn(service_id)
        self._busy = True
        try:
            yield
        finally:
            self._next()

    async def _turn(self, service_id: UUID) -> None:
        """Wait until it is handed over."""
        if sum(map(len, self._waiting.values())) >= WAITING_MOST:
            raise Unavailable(f"{WAITING_MOST} packages wait to be written; ask again later")
        if len(self._waiting.get(service_id, ())) >= WAITING_OF_SERVICE:
            raise TooManyRequests(
                f"{WAITING_OF_SERVICE} packages of this service wait to be written; "
                "ask again later",
                retry_after=AGAIN_S,
            )
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(service_id, deque()).append(mine)
        try:
            await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled():  # it was handed over just now
                self._next()
            raise

    def _next(self) -> None:
        """Hand over to who waits next, if anybody does; it stays busy then."""
        while self._waiting:
            service_id = next(iter(self._waiting))
            line = self._waiting.pop(service_id)
            mine = line.popleft()
            if line:
                self._waiting[service_id] = line  # behind all the others
            if not mine.done():
                mine.set_result(None)
                return
        self._busy = False


TURNS = Turns()


async def written(service_id: UUID, document: bytes, name: str, seconds: float) -> bytes:
    """Return the package of a document (JSON) as a zip, called after a spec's name.

    The same document and name make the same zip. Raises ValueError with a sentence that says why
    there is none, and TooManyRequests and Unavailable where too many wait.
    """
    async with TURNS.of(service_id):
        made = tempfile.mkdtemp(prefix="scheduler-client-")  # at once: who is cancelled leaves none
        try:
            return await _written(document, project_name(name), seconds, made)
        finally:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, made, ignore_errors=True))


def project_name(name: str) -> str:
    """Return what the package of a spec is called; it is a file's name, and a module's."""
    kept = CLOSED.sub("-", name.lower()).strip("-")[:NAME_MOST].strip("-")
    return f"{kept if kept[:1].isalpha() else f'api-{kept}'.strip('-')}-client"


async def _written(document: bytes, name: str, seconds: float, folder: str) -> bytes:
    child = await _start(name, seconds, folder)
    try:
        async with asyncio.timeout(seconds):
            said, _ = await child.communicate(document)
    except TimeoutError:
        log.warning("a Python client was given up", seconds=seconds)
        raise ValueError(
            f"writing the Python client took longer than {seconds:g} s (specs.package_seconds)"
        ) from None
    finally:
        await asking.ended(child)
    if child.returncode == REFUSED:
        raise ValueError(said.decode(errors="replace"))
    if child.returncode != 0:
        log.warning("writing a Python client died", code=child.returncode)
        raise ValueError("writing the Python client took more memory or CPU time than it may")
    return said


async def _start(name: str, seconds: float, folder: str) -> Process:
    """Start a child with nothing in its environment but where our code lies."""
    environment = {
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "PYTHONHASHSEED": "0",  # sets come out in the same order
        "LC_ALL": "C.UTF-8",
        "HOME": folder,
        "TMPDIR": folder,
    }
    return await asking.begun(
        sys.executable, "-s", "-P", "-B", "-m", "scheduler.specs.packaging",
        name, str(int(seconds) + 1),
        stdin=PIPE, stdout=PIPE, stderr=DEVNULL,
        cwd=folder, env=environment,
    )  # fmt: skip

"""Sharing: the answers that processes are given without a call, in memory and in the database."""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence

import structlog

from scheduler import db, metrics
from scheduler.config import Cache
from scheduler.specs import responses
from scheduler.specs.gathering import Gathered
from scheduler.specs.responses import Key, Shared
from scheduler.specs.way import Way

log = structlog.get_logger()

MEMORY_BYTES = 32 << 20
"""Of answers kept in memory, beside those in the database."""
WAITING_BYTES = 16 << 20
"""Of answers on their way to the database; where the database is slow, more are not shared."""
GROUP_BYTES = 4 << 20
"""Of answers in one statement, or one answer."""
ROOM_SHARE = 8
"""A full table is cut by this part of it, so that there is room until the next look."""

Found = tuple[Shared, float]


class Sharing:
    """One replica's answers; times are seconds of the loop's clock."""

    def __init__(self, settings: Cache, way: Way) -> None:
        self._settings = settings
        self._way = way
        self._memory: OrderedDict[Key, Found] = OrderedDict()
        """Each until when; the one used last comes last."""
        self._bytes = 0
        self._gathered = Gathered(self._find)
        self._waiting: dict[Key, Found] = {}
        self._waiting_bytes = 0
        self._writing: asyncio.Task[None] | None = None
        self._room = settings.max_bytes // ROOM_SHARE
        """What may still be written before somebody looks again how much there is."""

    def at_hand(self, key: Key) -> Shared | None:
        """Return an answer that is in memory."""
        found = self._memory.get(key)
        if found is None:
            return None
        if found[1] <= asyncio.get_running_loop().time():
            self._forget(key)
            return None
        self._memory.move_to_end(key)
        return found[0]

    async def find(self, key: Key) -> Shared | None:
        """Return an answer, also of another replica; None where the database is away."""
        here = self.at_hand(key)
        if here is not None:
            return here
        try:
            found = await self._gathered.get(key)
        except Exception as e:
            if not db.is_away(e):
                raise
            return None
        if found is None:
            return None
        self._remember(key, found)
        return found[0]

    async def _find(self, keys: Sequence[Key]) -> Mapping[Key, Found]:
        began = asyncio.get_running_loop().time()
        async with self._way.open() as conn:
            found = await responses.find(conn, keys)
        return {key: (shared, began + left_s) for key, (shared, left_s) in found.items()}

    def put(self, key: Key, shared: Shared, length: int) -> None:
        """Share an answer from now on, whose whole body has `length` bytes."""
        if length > self._settings.entry_max_bytes:
            return
        found = shared, asyncio.get_running_loop().time() + self._settings.ttl_seconds
        self._remember(key, found)
        size = shared.size
        if self._room < size or self._waiting_bytes + size > WAITING_BYTES:
            return
        if key not in self._waiting:
            self._room -= size
            self._waiting_bytes += size
            self._waiting[key] = found
        if self._writing is None:
            self._writing = asyncio.create_task(self._write(), name="share")

    def _remember(self, key: Key, found: Found) -> None:
        self._forget(key)
        if found[0].size > MEMORY_BYTES:
            return
        self._memory[key] = found
        self._bytes += found[0].size
        while self._bytes > MEMORY_BYTES:
            self._forget(next(iter(self._memory)))

    def _forget(self, key: Key) -> None:
        found = self._memory.pop(key, None)
        if found is not None:
            self._bytes -= found[0].size

    async def _write(self) -> None:
        """Write what waits; what the database does not take is not shared, and no more."""
        try:
            while self._waiting:
                await asyncio.sleep(0)
                group = self._group()
                now = asyncio.get_running_loop().time()
                answers = {key: (shared, until - now) for key, (shared, until) in group.items()}
                try:
                    async with self._way.open() as conn:
                        await responses.share(conn, answers)
                except Exception as e:  # noqa: BLE001 (nobody waits for it)
                    metrics.ERRORS.labels("share").inc()
                    log.warning("answers are not shared", number=len(group), why=type(e).__name__)
        finally:
            self._writing = None

    def _group(self) -> dict[Key, Found]:
        group: dict[Key, Found] = {}
        size = 0
        for key, found in self._waiting.items():
            if group and (
                size + found[0].size > GROUP_BYTES or len(group) >= responses.SHARED_PIECE
            ):
                break
            group[key] = found
            size += found[0].size
        for key in group:
            del self._waiting[key]
        self._waiting_bytes -= size
        return group

    async def prune(self) -> None:
        """Delete what is too old, and the oldest of what takes too much room."""
        more = True
        while more:
            async with self._way.open() as conn:
                more = await responses.drop_expired(conn)
        most = self._settings.max_bytes
        async with self._way.open() as conn:
            size = await responses.size(conn)
        if size > most - most // ROOM_SHARE:
            size = await self._cut(size, most - most // ROOM_SHARE)
        self._room = max(most - size, 0)

    async def _cut(self, size: int, most: int) -> int:
        """Delete the oldest answers until all take `most` bytes; return how many they take."""
        while size > most:
            async with self._way.open() as conn:
                gone = await responses.drop_oldest(conn, size - most)
            if not gone:
                break
            size -= gone
        return size

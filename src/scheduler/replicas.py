"""Replicas instead of leases: a row that beats, and whoever watches it stand still.

A process is known by its incarnation, a random id. Every claim names it, and every settle, retry
and release does too: that is the fence. A process whose last acknowledged beat is 8 s old sends
nothing. Whoever has watched a beat stand still for 10 s, reading all the while, deletes the row
and frees its runs; the process it belonged to learns of it at its next beat, which finds no row,
drops what it has not sent, and goes on under a new incarnation. Calls that were under way settle
under the old one, and count where nobody freed them.
"""

import os
import re
import socket
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from uuid import UUID

import msgspec
import structlog
from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    text,
)

from scheduler import __version__, queue
from scheduler.db import Conn, metadata

log = structlog.get_logger()

REPLICA = Table(
    "replica",
    metadata,
    Column("id", Uuid, nullable=False),
    Column("beat", BigInteger, nullable=False),
    Column("beat_at", DateTime(timezone=True), nullable=False),
    Column("role", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("version", Text, nullable=False),
    Column("started_at", DateTime(timezone=True), nullable=False),
    PrimaryKeyConstraint("id", name="replica_pkey"),
)

BEAT_S = 2.0
FRESH_S = 8.0
"""A process whose last acknowledged beat is older sends nothing."""
STILL_S = 10.0
"""A beat watched standing still for so long belongs to nobody."""

JOIN = text("""
INSERT INTO replica (id, beat, beat_at, role, host, pid, version, started_at)
VALUES (:id, 0, now(), :role, :host, :pid, :version, now())
""")
BEAT = text("UPDATE replica SET beat = beat + 1, beat_at = now() WHERE id = :id")
READ = text("SELECT id, beat, beat_at, version FROM replica WHERE id <> :id")
BURY = text("DELETE FROM replica WHERE id = :id AND beat = :beat RETURNING now() AS now, beat_at")
BURY_ALL = text("DELETE FROM replica WHERE id <> :id RETURNING id")
ALL = text("SELECT id FROM replica")
BEATS = text("SELECT beat_at FROM replica WHERE id <> :id")
NOW = text("SELECT now()")
VERSIONS = text("SELECT DISTINCT version FROM replica")
LIVING = text("""
SELECT count(*) FROM replica WHERE beat_at > now() - make_interval(secs => :still)
""")

Version = tuple[int, int]
SEALS_SINCE: Version = (0, 2)
"""The version from which on replicas open what is sealed."""
NUMBERED = re.compile(r"([0-9]+)\.([0-9]+)")


def is_older(version: str, since: Version = SEALS_SINCE) -> bool:
    """Say whether a version is older than another: by default, cannot open what is sealed."""
    found = NUMBERED.match(version)
    return found is not None and (int(found[1]), int(found[2])) < since


async def any_older(conn: Conn) -> bool:
    """Say whether there is a replica that cannot open what is sealed."""
    return any(map(is_older, (await conn.execute(VERSIONS)).scalars()))


async def living(conn: Conn) -> int:
    """Return how many replicas beat."""
    found = await conn.execute(LIVING, {"still": STILL_S + 2 * BEAT_S})
    return int(found.scalar_one())


EVERYONE = text("""
SELECT role, host, pid, version, beat_at, extract(epoch FROM clock_timestamp() - beat_at) AS age
FROM replica ORDER BY role, host, pid
""")


class Seen(msgspec.Struct, frozen=True):
    """A replica as the table has it; `age_s` since its last beat, in seconds."""

    role: str
    host: str
    pid: int
    version: str
    age_s: float

    @property
    def beats(self) -> bool:
        """Say whether it lives, as far as one look tells."""
        return self.age_s < STILL_S + 2 * BEAT_S


async def everyone(conn: Conn) -> list[Seen]:
    """Return every replica in the table, living or not."""
    rows = (await conn.execute(EVERYONE)).all()
    return [Seen(r.role, r.host, r.pid, r.version, float(r.age)) for r in rows]


class Watched(msgspec.Struct):
    """Another replica as this one sees it; `since` on the monotonic clock, in seconds."""

    beat: int
    since: float
    version: str


class Membership:
    """This process among the replicas. `monotonic` returns seconds."""

    def __init__(self, role: str, monotonic: Callable[[], float]) -> None:
        self.role = role
        self.monotonic = monotonic
        self.me: UUID = uuid.uuid4()
        self.others: dict[UUID, Watched] = {}
        self._acknowledged = float("-inf")
        self._read_at = float("-inf")

    @property
    def fresh(self) -> bool:
        """Say whether this process may send: nobody can have freed its runs."""
        return self.monotonic() - self._acknowledged < FRESH_S

    def may_send(self, holder: UUID) -> bool:
        """Say whether a run claimed under this name may be sent: not after a burial."""
        return holder == self.me and self.fresh

    @property
    def alone(self) -> bool:
        """Say whether no other replica was there at the last reading."""
        return not self.others

    @property
    def older(self) -> bool:
        """Say whether at the last reading one was there that cannot open what is sealed."""
        return self.older_than(SEALS_SINCE) is not None

    def older_than(self, since: Version) -> str | None:
        """Return the version of another replica that is older, at the last reading."""
        versions = (watched.version for watched in self.others.values())
        return next((version for version in versions if is_older(version, since)), None)

    async def join(self, conn: Conn) -> None:
        """Enter under a new incarnation."""
        started = self.monotonic()
        self.me = uuid.uuid4()
        values = {"id": self.me, "role": self.role, "host": socket.gethostname()}
        await conn.execute(JOIN, {**values, "pid": os.getpid(), "version": __version__})
        self._acknowledged = started

    async def beat(self, conn: Conn) -> bool:
        """Beat once; False where someone has freed this incarnation's runs."""
        started = self.monotonic()  # it may have been committed any time since
        beaten = (await conn.execute(BEAT, {"id": self.me})).rowcount
        if not beaten:
            self._acknowledged = float("-inf")
            return False
        self._acknowledged = started
        return True

    async def watch(self, conn: Conn) -> list[tuple[UUID, int]]:
        """Read the others' beats; return those that stood still too long, with that beat."""
        now = self.monotonic()
        # A pause in our own reading proves nothing about them.
        rested = now - self._read_at > 2.5 * BEAT_S
        rows = (await conn.execute(READ, {"id": self.me})).all()
        seen: dict[UUID, Watched] = {}
        for row in rows:
            known = self.others.get(row.id)
            moved = known is None or rested or known.beat != row.beat
            since = now if moved or known is None else known.since
            seen[row.id] = Watched(row.beat, since, row.version)
        self.others, self._read_at = seen, now
        return [(key, w.beat) for key, w in seen.items() if now - w.since >= STILL_S]

    async def bury(self, conn: Conn, dead: UUID, beat: int) -> int | None:
        """Take a replica's row away and free its runs; None where it beat meanwhile."""
        row = (await conn.execute(BURY, {"id": dead, "beat": beat})).first()
        if row is None:
            return None
        self.others.pop(dead, None)
        sent_until = row.beat_at + timedelta(seconds=FRESH_S)
        return await queue.free(conn, [dead], sent_until, row.now)

    async def last_beats(self, conn: Conn) -> list[datetime]:
        """Return when the others last beat."""
        return list((await conn.execute(BEATS, {"id": self.me})).scalars())

    async def bury_all(self, conn: Conn) -> int:
        """Free what everyone else holds: for a process that knows it is the only one."""
        await conn.execute(BURY_ALL, {"id": self.me})
        return await self.free_orphans(conn)

    async def free_orphans(self, conn: Conn) -> int:
        """Free runs whose holder has no row: a leave, or a burial by hand, cut short."""
        there = set((await conn.execute(ALL)).scalars()) | {self.me}
        holders = [key for key in await queue.holders(conn) if key not in there]
        if not holders:
            return 0
        now = (await conn.execute(NOW)).scalar_one()
        return await queue.free(conn, holders, now, now)

    async def leave(self, conn: Conn) -> None:
        """Take this process's own row away; it holds nothing any more."""
        await conn.execute(text("DELETE FROM replica WHERE id = :id"), {"id": self.me})

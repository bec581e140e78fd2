"""The log in the database: the same lines, for as long as the settings say.

Written in groups on a connection of its own, so that neither a request nor the machine ever waits
for it; read and pruned through the pools. A line is of no service: it is the operator's.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import structlog
from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Identity,
    Index,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from scheduler import config, db, logs, metrics
from scheduler.db import Conn, Database, metadata, utc
from scheduler.logbuffer import Buffer, Kept

log = structlog.get_logger()

LOG_ENTRY = Table(
    "log_entry",
    metadata,
    Column("id", BigInteger, Identity(), nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("level", Text, nullable=False),
    Column("service", Text, nullable=False),
    Column("service_id", Uuid),
    Column("trace_id", Text),
    Column("message", Text, nullable=False),
    Column("fields", JSONB, nullable=False),
    PrimaryKeyConstraint("id", name="log_entry_pkey"),
    Index("log_entry_at", "at", "id"),
    Index("log_entry_trace", "trace_id", postgresql_where=text("trace_id IS NOT NULL")),
)

GATHER_S = 0.5
GROUP = 500
BACKOFF_MOST_S = 10.0
LAST_S = 3.0
"""What a stop waits for the last lines to be stored."""
DAY_MS = 86_400_000
PIECE = 5000
"""Lines that one statement deletes."""
PIECES_MOST = 200
PAUSE_S = 0.01

INSERT = """
INSERT INTO log_entry (at, level, service, service_id, trace_id, message, fields)
SELECT CAST(at AS timestamptz), level, service, CAST(service_id AS uuid), trace_id, message,
       CAST(fields AS jsonb)
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[])
     AS line (at, level, service, service_id, trace_id, message, fields)
"""


# Writing ------------------------------------------------------------------------------------------


class LogStore:
    """Writes a buffer's lines into the database until it is stopped."""

    def __init__(self, database: Database, buffer: Buffer) -> None:
        self._database = database
        self._buffer = buffer
        self._conn: asyncpg.Connection | None = None
        self._away = False

    async def run(self) -> None:
        """Write until cancelled. A database that is away is waited for."""
        logs.UNSTORED.set(True)  # what goes wrong in here is not stored, or it would never end
        wait = GATHER_S
        while True:
            await asyncio.sleep(wait)
            wait = GATHER_S if await self._flushed() else min(wait * 2, BACKOFF_MOST_S)

    async def stop(self) -> None:
        """Write what is left, for a moment, and close the connection."""
        token = logs.UNSTORED.set(True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_S):
                await self._flushed()
        self._say_left()
        logs.UNSTORED.reset(token)
        if self._conn is not None:
            self._conn.terminate()

    def _say_left(self) -> None:
        left = len(self._buffer)
        if left:
            log.warning("log lines were not stored: the database is away", lines=left)

    async def _flushed(self) -> bool:
        """Write all lines; say whether the database took them, or refused them for good."""
        while lines := self._buffer.take(GROUP):
            try:
                await self._write(lines)
            except Exception as e:  # noqa: BLE001  (a log that cannot be stored breaks nothing)
                if not self._passes(e):
                    self._buffer.give_back(lines)
                    await self._forget()
                    return False
                await self._refused(lines, e)
            except BaseException:
                self._buffer.give_back(lines)
                raise
            self._away = False
            metrics.LOG_LINES.inc(len(lines))
        self._tell_dropped()
        return True

    def _passes(self, error: Exception) -> bool:
        """Say whether the database is there, and refuses the lines."""
        if not db.is_away(error):
            return True
        if not self._away:
            self._away = True
            log.warning("log lines wait for the database", error=type(error).__name__)
        return False

    async def _refused(self, lines: list[Kept], error: Exception) -> None:
        """Give up a line that the database does not take; of a group, find it."""
        if len(lines) > 1:
            middle = len(lines) // 2
            for half in (lines[:middle], lines[middle:]):
                try:
                    await self._write(half)
                except Exception as e:  # noqa: BLE001
                    if db.is_away(e):
                        self._buffer.give_back(half)
                    else:
                        await self._refused(half, e)
            return
        self._buffer.lost(1)
        log.warning("a log line was refused by the database", error=type(error).__name__)

    def _tell_dropped(self) -> None:
        dropped = self._buffer.told()
        if dropped:
            metrics.LOG_DROPPED.inc(dropped)
            logs.UNSTORED.set(False)  # the next group stores it: once for all that went
            log.warning("log lines were not stored: more came than the store took", lines=dropped)
            logs.UNSTORED.set(True)

    async def _write(self, lines: list[Kept]) -> None:
        if self._conn is None or self._conn.is_closed():
            self._conn = await self._database.connect("log")
        columns: list[list[Any]] = [
            [line.at for line in lines],
            [line.level for line in lines],
            [line.service for line in lines],
            [_as_uuid(line.service_id) for line in lines],
            [line.trace_id for line in lines],
            [line.message for line in lines],
            [line.fields for line in lines],
        ]
        await self._conn.execute(INSERT, *columns)

    async def _forget(self) -> None:
        if self._conn is not None:
            self._conn.terminate()
            self._conn = None


def _as_uuid(value: str | None) -> str | None:
    """Return what is a UUID; a line may call something else by that name."""
    try:
        return None if value is None else str(UUID(value))
    except ValueError:
        return None


@contextlib.asynccontextmanager
async def storing(database: Database, settings: config.Log) -> AsyncIterator[None]:
    """Store this process's lines meanwhile, where the settings say so."""
    if not settings.store:
        yield
        return
    store = LogStore(database, logs.BUFFER)
    running = asyncio.create_task(store.run(), name="log store")
    try:
        yield
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await store.stop()


# Pruning ------------------------------------------------------------------------------------------

OLD = text("""
DELETE FROM log_entry WHERE id = ANY(ARRAY(
    SELECT id FROM log_entry WHERE at < :before ORDER BY at, id LIMIT :most))
""")
SPAN = text("SELECT min(id), max(id) FROM log_entry")
BEYOND = text("""
DELETE FROM log_entry WHERE id = ANY(ARRAY(
    SELECT id FROM log_entry WHERE id <= :last ORDER BY id LIMIT :most))
""")


async def prune(database: Database, now: int, settings: config.Log) -> int:
    """Delete lines that are older than their retention at `now` (ms), and the oldest of too many.

    Returns how many went. Also where nothing is stored any more.
    """
    before = utc(now - settings.store_retention_days * DAY_MS)
    gone = await _delete(database, OLD, {"before": before})
    async with database.auto.connect() as conn:
        first, last = (await conn.execute(SPAN)).one()
    if first is not None and last - first >= settings.store_max_lines:
        beyond = await _delete(database, BEYOND, {"last": last - settings.store_max_lines})
        log.warning(
            "stored log lines went before their time: there were more than log.store_max_lines",
            lines=beyond,
        )
        gone += beyond
    return gone


async def _delete(database: Database, statement: Any, values: dict[str, Any]) -> int:
    gone = 0
    for _ in range(PIECES_MOST):
        async with database.auto.connect() as conn:
            deleted = (await conn.execute(statement, {**values, "most": PIECE})).rowcount
        gone += deleted
        if deleted < PIECE:
            break
        await asyncio.sleep(PAUSE_S)
    return gone


# Reading ------------------------------------------------------------------------------------------


class Wanted(msgspec.Struct, frozen=True):
    """Which lines are asked for; times in ms since 1970."""

    since: int | None = None
    levels: tuple[str, ...] = ()
    """Any, where there is none."""
    trace: str | None = None
    service: str | None = None
    """Whose program's: `scheduler.api` or `scheduler.worker`."""
    service_id: UUID | None = None
    words: str | None = None
    """Somewhere in the message or the fields, in any case."""


class Stored(msgspec.Struct, frozen=True):
    """A line as it was logged, and its number in the store."""

    id: int
    line: dict[str, Any]


SEARCH_S = 60
"""What a search may take: a text is looked for in every line."""


async def read(
    conn: Conn,
    wanted: Wanted,
    most: int,
    *,
    known: int = 0,
    within: int | None = None,
    seconds: int = SEARCH_S,
) -> list[Stored]:
    """Return the newest lines, the oldest of them first; none that has a number up to `known`.

    With `within` only so many of the newest are looked at, wanted or not: it takes no longer.
    """
    conditions = {"id > :known": True}
    conditions |= {"id > (SELECT max(id) - :within FROM log_entry)": within is not None}
    conditions |= {
        "at >= :since": wanted.since is not None,
        "level = ANY(:levels)": bool(wanted.levels),
        "trace_id = :trace": wanted.trace is not None,
        "service = :service": wanted.service is not None,
        "service_id = :service_id": wanted.service_id is not None,
        "(message ILIKE :words OR CAST(fields AS text) ILIKE :words)": wanted.words is not None,
    }
    where = " AND ".join(condition for condition, holds in conditions.items() if holds)
    order = "id DESC" if known or within else "at DESC, id DESC"
    statement = f"SELECT * FROM log_entry WHERE {where} ORDER BY {order} LIMIT :most"
    values = {
        "known": known,
        "since": None if wanted.since is None else utc(wanted.since),
        "levels": list(wanted.levels),
        "trace": wanted.trace,
        "service": wanted.service,
        "service_id": wanted.service_id,
        "words": None if wanted.words is None else f"%{_plain(wanted.words)}%",
        "most": most,
        "within": within,
    }
    await conn.execute(text(f"SET LOCAL statement_timeout = {seconds * 1000}"))
    named = {name: value for name, value in values.items() if f":{name}" in statement}
    rows = (await conn.execute(text(statement), named)).mappings()
    return [_stored(row) for row in reversed(list(rows))]


def _plain(words: str) -> str:
    """Escape what means something to LIKE."""
    return words.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _stored(row: Any) -> Stored:
    at: datetime = row["at"]
    shown = logs.timestamp(db.ms(at) / 1000)
    line = {"level": row["level"], "@timestamp": shown, "data": shown[:19].replace("T", " ")}
    if row["trace_id"] is not None:
        line["X-TRACE-ID"] = row["trace_id"]
    line |= {"service": row["service"]}
    fields = row["fields"]
    line |= msgspec.json.decode(fields) if isinstance(fields, str) else fields
    return Stored(row["id"], {**line, "message": row["message"]})


async def newest(conn: Conn) -> int | None:
    """Return the number of the newest line; None where there is none."""
    found: int | None = (await conn.execute(SPAN)).one()[1]
    return found

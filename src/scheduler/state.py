"""How each task stands when nothing of it is running, for lists and filters.

A row follows what happens at most a second late, and says the same however often it is told; one
task's page is computed, and exact.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import (
    CheckConstraint,
    Column,
    DateTime,
    Index,
    Integer,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    Uuid,
    text,
)

from scheduler.db import Conn, metadata, times_check, utc, walk_in_order
from scheduler.run import Line

TASK_STATE = Table(
    "task_state",
    metadata,
    Column("key", Uuid, nullable=False),
    Column("bucket", SmallInteger, nullable=False),
    Column("service_id", Uuid, nullable=False),
    Column("state", Text, nullable=False),
    Column("last", Text),
    Column("last_at", DateTime(timezone=True)),
    Column("failures", Integer, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    PrimaryKeyConstraint("key", "bucket", name="task_state_pkey"),
    CheckConstraint(
        "state IN ('created', 'pending', 'completed', 'failed')", name="task_state_state_check"
    ),
    CheckConstraint("last IN ('succeeded', 'failed', 'expired')", name="task_state_last_check"),
    times_check("task_state", "last_at", "created_at"),
    Index("task_state_list", "service_id", "state", "created_at", "key"),
)


OF_SERVICE = (
    """FROM task_state WHERE service_id = :service_id ORDER BY state, created_at LIMIT :most"""
)
REMOVE_SERVICE = text(
    "DELETE FROM task_state WHERE service_id = :service_id AND key = ANY(ARRAY("
    f"SELECT key {OF_SERVICE} FOR UPDATE SKIP LOCKED))"
)
LEFT_OF_SERVICE = text(f"SELECT EXISTS (SELECT FROM (SELECT key {OF_SERVICE}) AS left_over)")


async def remove_service(conn: Conn, service_id: UUID, most: int) -> bool:
    """Delete at most so many of a service's states of tasks; say whether any are left."""
    await conn.execute(REMOVE_SERVICE, {"service_id": service_id, "most": most})
    left = await conn.execute(LEFT_OF_SERVICE, {"service_id": service_id, "most": 1})
    return bool(left.scalar_one())


class Row(msgspec.Struct, frozen=True):
    """A new task's: `pending` says that an instant or a run of it is to come."""

    line: Line
    created_at: datetime
    pending: bool


class Tally(msgspec.Struct, gc=False):
    """What ended of a task since it was last written; `at` is (scheduled_for in ms, id)."""

    line: Line
    at: tuple[int, UUID]
    last: str | None
    failures: int
    fresh: bool
    """Something succeeded: `failures` is counted from there, else on top of what is written."""
    pending: bool = False


# What a task is when nothing is to come.
REST = """CASE WHEN {last} IS NULL THEN 'created' WHEN {last} = 'succeeded' THEN 'completed'
         ELSE 'failed' END"""

CREATE = text("""
INSERT INTO task_state (key, bucket, service_id, state, failures, created_at)
SELECT u.key, u.bucket, u.service_id, CASE WHEN u.pending THEN 'pending' ELSE 'created' END, 0,
       u.created_at
FROM unnest(CAST(:keys AS uuid[]), CAST(:buckets AS smallint[]), CAST(:services AS uuid[]),
            CAST(:pending AS boolean[]), CAST(:created AS timestamptz[]))
     AS u (key, bucket, service_id, pending, created_at)
""")
REMOVE = text("""
DELETE FROM task_state WHERE key = :key AND bucket = :bucket AND service_id = :service_id
""")
LOCK = text("""
SELECT key FROM task_state WHERE key = ANY(:keys) ORDER BY key FOR UPDATE
""")
STAND = text(f"""
UPDATE task_state s SET state = CASE WHEN u.pending THEN 'pending' ELSE {REST.format(last="s.last")}
    END
FROM unnest(CAST(:keys AS uuid[]), CAST(:buckets AS smallint[]), CAST(:pending AS boolean[]))
     AS u (key, bucket, pending)
WHERE s.key = u.key AND s.bucket = u.bucket
  AND s.state <> CASE WHEN u.pending THEN 'pending' ELSE {REST.format(last="s.last")} END
""")
STAND_ONE = text(f"""
UPDATE task_state SET state = CASE WHEN :pending THEN 'pending' ELSE {REST.format(last="last")} END
WHERE key = :key AND bucket = :bucket AND service_id = :service_id
""")
# The last run is the one that was due last. Told twice, it says the same: one that fails on top of
# others counts once, as the second time it is not later than what is written.
SETTLE = text(f"""
UPDATE task_state s SET last = n.last, last_at = n.last_at, failures = n.failures,
    state = CASE WHEN n.pending THEN 'pending' ELSE {REST.format(last="n.last")} END
FROM (SELECT t.key, t.bucket, u.pending,
             CASE WHEN u.at >= coalesce(t.last_at, u.at) THEN u.last ELSE t.last END AS last,
             greatest(t.last_at, u.at) AS last_at,
             CASE WHEN u.fresh AND u.at >= coalesce(t.last_at, u.at) THEN u.failures
                  WHEN NOT u.fresh AND (t.last_at IS NULL OR u.at > t.last_at)
                  THEN t.failures + u.failures
                  WHEN NOT u.fresh AND u.at = t.last_at AND t.last = 'succeeded' THEN u.failures
                  ELSE t.failures END AS failures
      FROM unnest(CAST(:keys AS uuid[]), CAST(:buckets AS smallint[]), CAST(:last AS text[]),
                  CAST(:at AS timestamptz[]), CAST(:failures AS int[]),
                  CAST(:fresh AS boolean[]), CAST(:pending AS boolean[]))
           AS u (key, bucket, last, at, failures, fresh, pending)
      JOIN task_state t ON t.key = u.key AND t.bucket = u.bucket) AS n
WHERE s.key = n.key AND s.bucket = n.bucket
  AND (s.last IS DISTINCT FROM n.last OR s.failures <> n.failures
       OR s.state <> CASE WHEN n.pending THEN 'pending' ELSE {REST.format(last="n.last")} END)
""")
RESTORE = text(f"""
INSERT INTO task_state (key, bucket, service_id, state, last, last_at, failures, created_at)
SELECT u.key, u.bucket, u.service_id,
       CASE WHEN u.pending THEN 'pending' ELSE {REST.format(last="u.last")} END,
       u.last, u.at, u.failures, u.created_at
FROM unnest(CAST(:keys AS uuid[]), CAST(:buckets AS smallint[]), CAST(:services AS uuid[]),
            CAST(:pending AS boolean[]), CAST(:last AS text[]), CAST(:at AS timestamptz[]),
            CAST(:failures AS int[]), CAST(:created AS timestamptz[]))
     AS u (key, bucket, service_id, pending, last, at, failures, created_at)
ON CONFLICT (key, bucket) DO UPDATE SET state = excluded.state, last = excluded.last,
    last_at = excluded.last_at, failures = excluded.failures
""")
COUNT = text("""
SELECT count(*) FROM (SELECT FROM task_state
    WHERE service_id = :service_id AND state = :state LIMIT :most) AS t
""")
PAGE = text("""
SELECT key FROM task_state
WHERE service_id = :service_id AND state = :state AND key <> ALL(:without)
ORDER BY created_at DESC, key DESC OFFSET :offset LIMIT :count
""")
AMONG = text("""
SELECT key FROM task_state
WHERE service_id = :service_id AND key = ANY(:keys) AND state = :state
""")


async def create(conn: Conn, rows: Sequence[Row]) -> None:
    """Write the rows of new tasks, in one statement."""
    await conn.execute(
        CREATE,
        {
            "keys": [row.line.key for row in rows],
            "buckets": [row.line.bucket for row in rows],
            "services": [row.line.service_id for row in rows],
            "pending": [row.pending for row in rows],
            "created": [row.created_at for row in rows],
        },
    )


async def remove(conn: Conn, line: Line) -> None:
    """Forget a task."""
    await conn.execute(REMOVE, line.values)


async def lock(conn: Conn, keys: Sequence[UUID]) -> set[UUID]:
    """Hold off edits and other replicas until the commit; return the keys that have a row."""
    return set((await conn.execute(LOCK, {"keys": list(keys)})).scalars())


async def stand(conn: Conn, pending: Sequence[tuple[Line, bool]]) -> None:
    """Write whether anything is to come of tasks; else they stand as their last runs ended."""
    lines = sorted(pending, key=lambda each: each[0].key)
    await conn.execute(
        STAND,
        {
            "keys": [line.key for line, _ in lines],
            "buckets": [line.bucket for line, _ in lines],
            "pending": [is_pending for _, is_pending in lines],
        },
    )


async def stand_one(conn: Conn, line: Line, *, pending: bool) -> None:
    """Write whether anything is to come of one task, which was edited."""
    await conn.execute(STAND_ONE, {**line.values, "pending": pending})


async def settle(conn: Conn, tallies: Sequence[Tally]) -> int:
    """Write what ended; rows that say so already are left alone. Return how many were written."""
    made = await conn.execute(SETTLE, _columns(sorted(tallies, key=lambda t: t.line.key)))
    return made.rowcount


async def restore(conn: Conn, rows: Sequence[tuple[Tally, datetime]]) -> None:
    """Write rows as history says they are; with each the time its task was created."""
    rows = sorted(rows, key=lambda row: row[0].line.key)
    values = _columns([tally for tally, _ in rows])
    del values["fresh"]
    values["services"] = [tally.line.service_id for tally, _ in rows]
    values["created"] = [created for _, created in rows]
    await conn.execute(RESTORE, values)


def _columns(tallies: Sequence[Tally]) -> dict[str, list[Any]]:
    return {
        "keys": [t.line.key for t in tallies],
        "buckets": [t.line.bucket for t in tallies],
        "last": [t.last for t in tallies],
        "at": [None if t.last is None else utc(t.at[0]) for t in tallies],
        "failures": [t.failures for t in tallies],
        "fresh": [t.fresh for t in tallies],
        "pending": [t.pending for t in tallies],
    }


async def count(conn: Conn, service_id: UUID, word: str, most: int) -> int:
    """Return how many of a service's tasks rest in a state, counted to `most`."""
    await walk_in_order(conn)
    values = {"service_id": service_id, "state": word, "most": most}
    return int((await conn.execute(COUNT, values)).scalar_one())


async def page(
    conn: Conn, service_id: UUID, word: str, without: Sequence[UUID], *, offset: int, count: int
) -> list[UUID]:
    """Return the keys of a service's tasks that rest in a state, the newest first."""
    await walk_in_order(conn)
    values = {"service_id": service_id, "state": word, "without": list(without)}
    rows = await conn.execute(PAGE, {**values, "offset": offset, "count": count})
    return list(rows.scalars())


async def among(conn: Conn, service_id: UUID, word: str, keys: Sequence[UUID]) -> set[UUID]:
    """Return those of a service's tasks that rest in a state."""
    values = {"service_id": service_id, "state": word, "keys": list(keys)}
    return set((await conn.execute(AMONG, values)).scalars())

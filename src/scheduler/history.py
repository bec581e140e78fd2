"""History: finished runs, in weekly partitions by the database's time of finish."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from scheduler import codec, tally
from scheduler.clock import Slice
from scheduler.db import Conn, metadata, ms, times_check, utc, walk_in_order
from scheduler.run import OF_TASKS, Attempt, Line, bucket_in, run_id
from scheduler.tally import Minute

HISTORY = Table(
    "history",
    metadata,
    Column("id", Uuid, nullable=False),
    Column("bucket", SmallInteger, nullable=False),
    Column("service_id", Uuid, nullable=False),
    Column("task_key", Uuid),
    Column("task_id", Text),
    Column("kind", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("scheduled_for", DateTime(timezone=True), nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    Column("attempts", JSONB, nullable=False),
    Column("attempts_n", Integer, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("started_at", DateTime(timezone=True)),
    Column("finished_at", DateTime(timezone=True), nullable=False),
    Column("response", LargeBinary),
    Column("truncated", Boolean, nullable=False),
    Column("count", Integer, nullable=False),
    Column("gap_from", DateTime(timezone=True)),
    Column("gap_to", DateTime(timezone=True)),
    PrimaryKeyConstraint("id", "bucket", "finished_at", name="history_pkey"),
    CheckConstraint(
        "state IN ('succeeded', 'failed', 'skipped', 'expired', 'cancelled')",
        name="history_state_check",
    ),
    CheckConstraint("state = 'succeeded' OR reason IS NOT NULL", name="history_reason_check"),
    times_check("history", "scheduled_for", "created_at", "started_at", "gap_from", "gap_to"),
    CheckConstraint(
        "count > 0 AND (gap_from IS NULL) = (gap_to IS NULL)", name="history_gap_check"
    ),
    postgresql_partition_by="RANGE (finished_at)",
)
NEWEST = (HISTORY.c.scheduled_for.desc(), HISTORY.c.id.desc())
Index("history_task", HISTORY.c.task_key, *NEWEST, postgresql_include=["attempts_n"])
Index("history_service", HISTORY.c.service_id, *NEWEST)
Index(
    "history_troubled",
    HISTORY.c.service_id,
    HISTORY.c.state,
    *NEWEST,
    postgresql_where=text("state <> 'succeeded'"),
)
Index(
    "history_kind",
    HISTORY.c.service_id,
    HISTORY.c.kind,
    *NEWEST,
    postgresql_where=text("kind <> 'task'"),
)
Index(
    "history_finished",
    HISTORY.c.finished_at,
    postgresql_using="brin",
    postgresql_with={"pages_per_range": 16},
)


# Gaps ---------------------------------------------------------------------------------------------

GAP = text("""
INSERT INTO history (id, bucket, service_id, task_key, task_id, kind, version, scheduled_for,
                     state, reason, attempts, attempts_n, created_at, finished_at, truncated,
                     count, gap_from, gap_to)
SELECT u.id, u.bucket, u.service_id, u.task_key, u.task_id, 'task', u.version, u.first, 'skipped',
       u.reason, '[]', 0, :now, :now, false, u.count, u.first, u.last
FROM unnest(CAST(:id AS uuid[]), CAST(:bucket AS smallint[]), CAST(:service_id AS uuid[]),
            CAST(:task_key AS uuid[]), CAST(:task_id AS text[]), CAST(:version AS int[]),
            CAST(:reason AS text[]), CAST(:count AS int[]), CAST(:first AS timestamptz[]),
            CAST(:last AS timestamptz[]))
     AS u (id, bucket, service_id, task_key, task_id, version, reason, count, first, last)
""")


class Gap(msgspec.Struct, kw_only=True):
    """Instants of a task that were not run; `first` and `last` in ms since 1970."""

    line: Line
    task_id: str
    version: int
    reason: str
    count: int
    first: int
    last: int


async def record_gaps(conn: Conn, gaps: Sequence[Gap], now: datetime) -> None:
    """Write one row for each gap; its id is that of its first instant."""
    if not gaps:
        return
    of = [gap.line for gap in gaps]
    await conn.execute(
        GAP,
        {
            "id": [
                run_id(g.line.key, g.line.bucket, "task", g.first) for g in gaps
            ],
            "bucket": [line.bucket for line in of],
            "service_id": [line.service_id for line in of],
            "task_key": [line.key for line in of],
            "task_id": [g.task_id for g in gaps],
            "version": [g.version for g in gaps],
            "reason": [g.reason for g in gaps],
            "count": [min(g.count, 2**31 - 1) for g in gaps],
            "first": [utc(g.first) for g in gaps],
            "last": [utc(g.last) for g in gaps],
            "now": now,
        },
    )  # fmt: skip


DAMAGED = text("""
INSERT INTO history (id, bucket, service_id, task_key, task_id, kind, version, scheduled_for,
                     state, reason, attempts, attempts_n, created_at, finished_at, truncated,
                     count)
VALUES (:id, :bucket, :service_id, :key, :task_id, 'task', :version, :now, 'failed', :reason,
        :attempts, 1, :now, :now, false, 1)
ON CONFLICT DO NOTHING
""")


async def record_damaged(
    conn: Conn, line: Line, task_id: str, version: int, reason: str, now: datetime
) -> None:
    """Write a failed run for a task whose definition cannot be read, so that someone sees it."""
    values = {"id": run_id(line.key, line.bucket, "damaged", ms(now)), "task_id": task_id}
    values |= {"version": version, "reason": reason, "now": now}
    values["attempts"] = codec.encode([Attempt(number=1, outcome="failed", error=reason)])
    await conn.execute(DAMAGED, {**line.values, **values})


# Finished runs ------------------------------------------------------------------------------------


class Finished(msgspec.Struct):
    """A run in history; times in ms since 1970."""

    id: UUID
    kind: str
    task_key: UUID | None
    task_id: str | None
    version: int
    state: str
    reason: str | None
    scheduled_for: int
    created_at: int
    started_at: int | None
    finished_at: int
    attempts: list[Attempt]
    response: bytes | None
    truncated: bool
    gap: tuple[int, int, int] | None = None
    """Of instants that were passed over: how many, the first, the last."""

    @property
    def of_task(self) -> bool:
        """Say whether it is of a task."""
        return self.kind in OF_TASKS


ROWS = """
SELECT id, kind, task_key, task_id, version, state, reason, scheduled_for, created_at,
       started_at, finished_at, attempts, response, truncated, count, gap_from, gap_to
FROM history WHERE bucket = :bucket AND service_id = :service_id AND """
BY_ID = text(ROWS + "id = :id")


async def get(conn: Conn, service_id: UUID, run_id: UUID) -> Finished | None:
    """Return a finished run of a service, or None."""
    values = {"bucket": bucket_in(run_id), "service_id": service_id, "id": run_id}
    row = (await conn.execute(BY_ID, values)).first()
    return finished(row) if row else None


def finished(row: Any) -> Finished:
    """Read a row; one that someone damaged by hand is read as far as it goes."""
    try:
        attempts = msgspec.json.decode(row.attempts, type=list[Attempt])
    except (msgspec.DecodeError, RecursionError):  # damaged by hand: what is left is still shown
        attempts = []
    return Finished(
        id=row.id,
        kind=row.kind,
        task_key=row.task_key,
        task_id=row.task_id,
        version=row.version,
        state=row.state,
        reason=row.reason,
        scheduled_for=ms(row.scheduled_for),
        created_at=ms(row.created_at),
        started_at=None if row.started_at is None else ms(row.started_at),
        finished_at=ms(row.finished_at),
        attempts=attempts,
        response=row.response,
        truncated=row.truncated,
        gap=None if row.gap_from is None else (row.count, ms(row.gap_from), ms(row.gap_to)),
    )


# Both ways from a place in the index of a task's runs.
SIDE = """(SELECT id FROM history
        WHERE task_key = :key AND service_id = :service_id
          AND (scheduled_for, id) {than} (:at, :id)
        ORDER BY scheduled_for {way}, id {way} LIMIT 1)"""
BESIDE = text(
    f"SELECT {SIDE.format(than='<', way='DESC')} AS before, "
    f"{SIDE.format(than='>', way='ASC')} AS after"
)


async def beside(conn: Conn, service_id: UUID, run: Finished) -> tuple[UUID | None, UUID | None]:
    """Return the finished runs of the same task before and after one, by their instants."""
    if run.task_key is None:
        return None, None
    await walk_in_order(conn)
    values = {"key": run.task_key, "service_id": service_id, "id": run.id}
    row = (await conn.execute(BESIDE, {**values, "at": utc(run.scheduled_for)})).one()
    return row.before, row.after


LAST_ENDS = text("""
SELECT k.key, l.state, l.scheduled_for FROM unnest(CAST(:keys AS uuid[])) AS k (key), LATERAL (
    SELECT h.state, h.scheduled_for FROM history h
    WHERE h.task_key = k.key AND h.service_id = :service_id
      AND h.state IN ('succeeded', 'failed', 'expired')
    ORDER BY h.scheduled_for DESC, h.id DESC LIMIT 1) AS l
""")


async def last_ends(conn: Conn, service_id: UUID, keys: Sequence[UUID]) -> dict[UUID, str]:
    """Map task keys to the state that their last run (by `scheduled_for`) ended in.

    Skipped and cancelled ones do not count.
    """
    return {key: state for key, (state, _) in (await lasts(conn, service_id, keys)).items()}


async def lasts(conn: Conn, service_id: UUID, keys: Sequence[UUID]) -> dict[UUID, tuple[str, int]]:
    """Map task keys to how their last runs ended, as `last_ends`, and when those were due (ms)."""
    rows = await conn.execute(LAST_ENDS, {"keys": list(keys), "service_id": service_id})
    return {row.key: (row.state, ms(row.scheduled_for)) for row in rows}


# A cancel ends a run before it is due, and a replay may end it once more before that.
ENDED_AHEAD = text("""
SELECT task_key, scheduled_for FROM history
WHERE task_key = ANY(:keys) AND service_id = :service_id AND scheduled_for > :now
  AND kind = 'task' AND (gap_from IS NULL OR count = 1)
""")


async def ended_ahead(
    conn: Conn, service_id: UUID, keys: Sequence[UUID], now: datetime
) -> dict[UUID, list[int]]:
    """Map a service's tasks to their instants after `now` (ms) that have ended already."""
    values = {"keys": list(keys), "service_id": service_id, "now": now}
    found = defaultdict[UUID, list[int]](list)
    for row in await conn.execute(ENDED_AHEAD, values):
        found[row.task_key].append(ms(row.scheduled_for))
    return found


OF_SERVICE = (
    """FROM history WHERE service_id = :service_id ORDER BY scheduled_for DESC LIMIT :most"""
)
REMOVE_SERVICE = text(
    "DELETE FROM history WHERE service_id = :service_id AND id = ANY(ARRAY("
    f"SELECT id {OF_SERVICE} FOR UPDATE SKIP LOCKED))"
)
LEFT_OF_SERVICE = text(f"SELECT EXISTS (SELECT FROM (SELECT id {OF_SERVICE}) AS left_over)")


async def remove_service(conn: Conn, service_id: UUID, most: int) -> bool:
    """Delete at most so many of a service's finished runs; say whether any are left."""
    await conn.execute(REMOVE_SERVICE, {"service_id": service_id, "most": most})
    left = await conn.execute(LEFT_OF_SERVICE, {"service_id": service_id, "most": 1})
    return bool(left.scalar_one())


# Over every service: what a process that died did not write to `task_state`.
ENDED_BETWEEN = text("""
SELECT DISTINCT task_key FROM history
WHERE finished_at >= :since AND finished_at < :until AND task_key IS NOT NULL
    AND kind IN ('task', 'manual')
""")
STREAK = 100
STREAKS = text("""
SELECT k.key, l.states, l.first, l.id FROM unnest(CAST(:keys AS uuid[])) AS k (key), LATERAL (
    SELECT array_agg(state ORDER BY scheduled_for DESC, id DESC) AS states,
           (array_agg(scheduled_for ORDER BY scheduled_for DESC, id DESC))[1] AS first,
           (array_agg(id ORDER BY scheduled_for DESC, id DESC))[1] AS id
    FROM (SELECT state, scheduled_for, id FROM history h
          WHERE h.task_key = k.key AND h.state IN ('succeeded', 'failed', 'expired')
          ORDER BY h.scheduled_for DESC, h.id DESC LIMIT :most) AS newest) AS l
WHERE l.states IS NOT NULL
""")


# What a backfill made up for started late on purpose; nor was it planned ahead of its instant.
LAG = """CASE WHEN kind = 'task' AND started_at IS NOT NULL AND created_at <= scheduled_for
              AND gap_from IS NULL
         THEN width_bucket(CAST(extract(epoch FROM started_at - scheduled_for) * 1000 AS float8),
                           CAST(:bounds AS float8[])) END"""
EACH = (
    *(f"sum(n) FILTER (WHERE state = '{state}')" for state in tally.STATES),
    *(f"sum(n) FILTER (WHERE reason = '{why}')" for why in tally.REASONS),
)
ENDED_BY_MINUTE = text(f"""
SELECT service_id, minute,
       CAST(ARRAY[{", ".join(f"coalesce({each}, 0)" for each in EACH)}] AS bigint[]),
       CAST(ARRAY[{
    ", ".join(f"coalesce(sum(n) FILTER (WHERE bin = {n}), 0)" for n in range(tally.BINS))
}] AS text)
FROM (SELECT service_id, date_bin('1 minute', finished_at, '2000-01-01Z') AS minute, state,
             CASE WHEN state = 'skipped' THEN reason END AS reason, {LAG} AS bin, sum(count) AS n
      FROM history WHERE finished_at >= :since AND finished_at < :until
      GROUP BY 1, 2, 3, 4, 5) AS found
GROUP BY service_id, minute ORDER BY minute, service_id
""")
MINUTES_AT_ONCE = 500


async def ended_by_minute(conn: Conn, since: datetime, until: datetime) -> list[Minute]:
    """Return what ended in [since, until) of every service, by minute; in order of both."""
    values = {"since": since, "until": until, "bounds": list(map(float, tally.BOUNDS))}
    turn, found = Slice(), []
    async with conn.stream(ENDED_BY_MINUTE, values) as rows:
        async for some in rows.partitions(MINUTES_AT_ONCE):
            found += [Minute(*row) for row in some]
            await turn.give_way()
    return found


async def ended_between(conn: Conn, since: datetime, until: datetime) -> list[UUID]:
    """Return the keys of the tasks of which something ended in [since, until), of any service."""
    rows = await conn.execute(ENDED_BETWEEN, {"since": since, "until": until})
    return list(rows.scalars())


async def streaks(conn: Conn, keys: Sequence[UUID]) -> dict[UUID, tuple[int, UUID, str, int]]:
    """Map task keys to their last end: its instant (ms), its run, its state, failures in a row.

    Failures are counted to 100.
    """
    rows = await conn.execute(STREAKS, {"keys": list(keys), "most": STREAK})
    return {row.key: (ms(row.first), row.id, row.states[0], _failures(row.states)) for row in rows}


def _failures(states: Sequence[str]) -> int:
    return next((n for n, word in enumerate(states) if word == "succeeded"), len(states))

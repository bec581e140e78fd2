"""Replays: finished runs go back into the queue, with their ids and attempts. None commits."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import text

from scheduler import codec
from scheduler.db import Conn
from scheduler.lines import Stance
from scheduler.run import Attempts, bucket_in

EXCERPT_BYTES = 1024
"""What is kept of the body of an attempt that another one follows."""

ENDS = text("""
SELECT id, bucket, task_key, attempts, attempts_n, finished_at,
       substring(response FROM 1 FOR :excerpt) AS response,
       truncated OR coalesce(octet_length(response), 0) > :excerpt AS truncated
FROM history WHERE id = ANY(:ids) AND bucket = ANY(:buckets) AND service_id = :service_id
    AND (gap_from IS NULL OR count = 1)
""")

# By the moment a run ended, so that of two replays at once one moves it.
REPLAY = text("""
WITH o AS (
    SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:finished AS timestamptz[]),
                         CAST(:attempts AS text[]), CAST(:attempts_n AS int[]),
                         CAST(:version AS int[]), CAST(:overlap AS text[]),
                         CAST(:lanes AS smallint[]), CAST(:priority AS smallint[]),
                         CAST(:max_retries AS smallint[]))
        AS o (id, finished, attempts, attempts_n, version, overlap, lanes, priority, max_retries)),
d AS (DELETE FROM history WHERE id = ANY(:ids) AND bucket = ANY(:buckets)
          AND service_id = :service_id AND finished_at = ANY(:finished)
          AND (gap_from IS NULL OR count = 1)
      RETURNING id, bucket, service_id, task_key, task_id, kind, scheduled_for, created_at)
INSERT INTO run (id, bucket, service_id, task_key, task_id, kind, version, overlap, priority,
                 scheduled_for, due, max_retries, attempts, attempts_n, created_at, lanes,
                 replayed_at)
SELECT d.id, d.bucket, d.service_id, d.task_key, d.task_id, d.kind, o.version, o.overlap,
       o.priority, d.scheduled_for, :now, o.max_retries, CAST(o.attempts AS jsonb), o.attempts_n,
       d.created_at, o.lanes, :now
FROM d JOIN o ON o.id = d.id
RETURNING id
""")


class Again(msgspec.Struct, frozen=True):
    """A finished run that is wanted again."""

    id: UUID
    key: UUID
    """Of the task, the process or the spec that it is of."""
    stance: Stance
    """What that says of it now."""
    max_retries: int


async def replay(
    conn: Conn, service_id: UUID, wanted: Sequence[Again], now: datetime
) -> list[UUID]:
    """Move finished runs of a service back into the queue, due now; return those that were moved.

    Each keeps its id and its attempts and gets its retries anew. A gap of more instants than one
    stays where it is.
    """
    by_id = {each.id: each for each in wanted}
    buckets = list({bucket_in(run_id) for run_id in by_id})
    values = {"ids": list(by_id), "buckets": buckets, "service_id": service_id}
    rows = await conn.execute(ENDS, {**values, "excerpt": EXCERPT_BYTES})
    found = [row for row in rows if row.task_key == by_id[row.id].key]
    if not found:
        return []
    attempts = [_with_excerpt(row) for row in found]
    stances = [by_id[row.id].stance for row in found]
    values |= {
        "ids": [row.id for row in found],
        "finished": [row.finished_at for row in found],
        "attempts": [codec.encode(tried) for tried in attempts],
        "attempts_n": [len(tried) for tried in attempts],
        "version": [stance.version for stance in stances],
        "overlap": [stance.overlap for stance in stances],
        "lanes": [stance.lanes for stance in stances],
        "priority": [stance.priority for stance in stances],
        "max_retries": [by_id[row.id].max_retries for row in found],
        "now": now,
    }
    return list((await conn.execute(REPLAY, values)).scalars())


def _with_excerpt(row: Any) -> Attempts:
    """Return a run's attempts, the last with the beginning of what it was answered."""
    attempts, _ = codec.decode(row.attempts, row.attempts_n)
    if attempts and row.response is not None:
        attempts[-1].response = row.response.decode("utf-8", "replace")
        attempts[-1].truncated = row.truncated
    return attempts

"""What changed of watched services since the last look: runs, and tasks; for all of them at once.

A look costs two statements, whoever watches: what lives, and what ended. Both read a bounded number
of rows of each service by its index, the newest first, so that a service with very much to do is
seen in part, and says so. What was due long before it ended, and was never seen alive, such as a
gap, is found now and then by when it ended.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import text

from scheduler import codec
from scheduler.db import Conn, ms, utc, walk_in_order
from scheduler.history import Finished, finished
from scheduler.run import Started, bucket_in

KEPT_MS = 20_000
"""How long it is remembered what was told to have ended."""
MOST = 200
"""Runs of a service that a look reads of each kind: due, waiting to be tried again, ended."""
OVERLAP_MS = 4_000
"""How far a look goes back before the last one: an end is written after the time it names."""
LATE_MS = 12_000
"""How long before that a run that ended, and was never seen alive, may have been due."""
LOST_MOST, LOST_MS = 400, 3_600_000
"""Runs of a service that newer ones hide, and how long their ends are looked for."""
VANISHED_MS = 86_400_000
"""How long ago a run that is gone may say that it ended."""

RUN = """service_id, id, kind, task_key, task_id, version, scheduled_for, due, created_at,
         jsonb_path_query_array(attempts, '$[0]') AS attempts, attempts_n,
         claimed_by IS NOT NULL AS claimed"""
LIVE = text(f"""
SELECT r.* FROM unnest(CAST(:services AS uuid[])) AS w (service_id), LATERAL (
    (SELECT {RUN} FROM run WHERE service_id = w.service_id AND due <= :now
     ORDER BY due DESC LIMIT :most)
    UNION ALL
    (SELECT {RUN} FROM run WHERE service_id = w.service_id AND due <> scheduled_for AND due > :now
     ORDER BY scheduled_for DESC, id DESC LIMIT :most)) AS r
""")
END = """service_id, id, kind, task_key, task_id, version, state, reason, scheduled_for, created_at,
         started_at, finished_at, jsonb_path_query_array(attempts, '$[last]') AS attempts,
         attempts_n, NULL AS response, truncated, count, gap_from, gap_to"""
ENDED = text(f"""
SELECT h.* FROM unnest(CAST(:services AS uuid[])) AS w (service_id), LATERAL (
    SELECT {END} FROM history
    WHERE service_id = w.service_id AND scheduled_for >= :due_since AND scheduled_for <= :ahead
      AND finished_at >= :since
    ORDER BY scheduled_for DESC, id DESC LIMIT :most) AS h
UNION ALL
SELECT {END} FROM history
WHERE id = ANY(:ids) AND bucket = ANY(:buckets) AND service_id = ANY(:services)
  AND finished_at >= :vanished_since
""")
# The index by time of end knows no services: nothing may lead around it.
LATE = text(f"""
SELECT {END} FROM (
    SELECT service_id, id, kind, task_key, task_id, version, state, reason, scheduled_for,
           created_at, started_at, finished_at, attempts, attempts_n, truncated, count, gap_from,
           gap_to
    FROM history WHERE finished_at >= :since OFFSET 0) AS h
WHERE service_id = ANY(:services) AND scheduled_for < :due_until LIMIT :most
""")


class Changed(msgspec.Struct, frozen=True):
    """A run that is new, or stands otherwise than at the last look."""

    run: Started | Finished
    attempts: int
    """How many there were; `run` holds the first alone, or the last where it ended."""
    new: bool
    """It was not there at the last look."""


class News(msgspec.Struct):
    """What changed of a service; `cut` where more did than was read."""

    changed: list[Changed] = []
    cut: bool = False


class Memory(msgspec.Struct):
    """What the last looks saw of a service."""

    lost: dict[UUID, int] = {}
    """Of what lived, and newer ones hid from looks before it was seen to end: since when (ms)."""
    live: dict[UUID, tuple[int, int, bool, bool]] = {}
    """Of what lived: its due time, its attempts, whether a replica held it, whether it was due."""
    ended: dict[UUID, int] = {}
    """Of what ended lately: when (ms)."""
    began: int | None = None
    """When the first look was (ms)."""
    told: bool = False
    """There was a look before: of what a first one finds little is new."""


async def look(
    conn: Conn, memories: Mapping[UUID, Memory], now: int, last: int
) -> dict[UUID, News]:
    """Return what changed of services since the `last` look; both in ms. `memories` are kept."""
    await walk_in_order(conn)
    services = list(memories)
    news = {service: News() for service in services}
    values = {"services": services, "now": utc(now), "most": MOST}
    lived: dict[UUID, list[Any]] = {service: [] for service in services}
    for row in await conn.execute(LIVE, values):
        lived[row.service_id].append(row)
    gone: list[UUID] = []
    for service, memory in memories.items():
        gone += _lose(memory, {row.id for row in lived[service]}, now)
    since = last - OVERLAP_MS
    values = {
        "services": services,
        "most": MOST,
        "since": utc(since),
        "due_since": utc(since - LATE_MS),
        "ahead": utc(now + OVERLAP_MS),
        "ids": gone,
        "buckets": list({bucket_in(run) for run in gone}),
        "vanished_since": utc(now - VANISHED_MS),
    }
    ended: dict[UUID, dict[UUID, Any]] = {service: {} for service in services}
    for row in await conn.execute(ENDED, values):
        ended[row.service_id][row.id] = row
    for service, memory in memories.items():
        memory.began = memory.began or now
        rows = [row for row in lived[service] if row.id not in ended[service]]
        _live(news[service], memory, rows, now, since)
        _ended(news[service], memory, ended[service], now)
        memory.told = True
    return news


async def late(
    conn: Conn, memories: Mapping[UUID, Memory], now: int, last: int
) -> dict[UUID, News]:
    """Return what ended of services since the `last` look of this kind, and was due long before.

    It reads what ended of every service since then: by far not as often as `look`.
    """
    await walk_in_order(conn, bitmaps=True)
    since = max(last - OVERLAP_MS, now - KEPT_MS + OVERLAP_MS)
    values = {
        "services": list(memories),
        "since": utc(since),
        "due_until": utc(now - LATE_MS),
        "most": MOST * len(memories),
    }
    ended: dict[UUID, dict[UUID, Any]] = {service: {} for service in memories}
    for row in await conn.execute(LATE, values):
        ended[row.service_id][row.id] = row
    news = {service: News() for service in memories}
    for service, memory in memories.items():
        begun = (memory.began or now) - OVERLAP_MS
        rows = {run: row for run, row in ended[service].items() if ms(row.finished_at) >= begun}
        _ended(news[service], memory, rows, now)
    return news


def _lose(memory: Memory, lived: AbstractSet[UUID], now: int) -> Sequence[UUID]:
    """Keep in mind what is out of sight, for as long as it may be told of; return it."""
    lost = {run: at for run, at in memory.lost.items() if now - at < LOST_MS and run not in lived}
    lost |= dict.fromkeys(memory.live.keys() - lived - lost.keys(), now)
    memory.lost = dict(list(lost.items())[-LOST_MOST:])
    return list(memory.lost)


def _live(news: News, memory: Memory, rows: Sequence[Any], now: int, since: int) -> None:
    before, memory.live = memory.live, {}
    fresh = 0
    for row in rows:
        due = ms(row.due)
        stance = (due, row.attempts_n, row.claimed, due <= now)
        memory.live[row.id] = stance
        new = row.id not in before and (memory.told or due >= since)
        fresh += new
        if before.get(row.id) != stance:
            news.changed.append(Changed(_started(row), row.attempts_n, new))
    news.cut |= fresh >= MOST


def _ended(news: News, memory: Memory, rows: Mapping[UUID, Any], now: int) -> None:
    before = memory.ended
    memory.ended = {run: at for run, at in before.items() if at >= now - KEPT_MS}
    fresh = 0
    for run, row in rows.items():
        at = ms(row.finished_at)
        memory.ended[run] = at
        memory.lost.pop(run, None)
        if before.get(run) == at:
            continue
        fresh += 1
        news.changed.append(Changed(finished(row), row.attempts_n, new=True))
    news.cut |= fresh >= MOST


def _started(row: Any) -> Started:
    return Started(
        id=row.id,
        kind=row.kind,
        task_key=row.task_key,
        task_id=row.task_id,
        version=row.version,
        scheduled_for=ms(row.scheduled_for),
        due=ms(row.due),
        created_at=ms(row.created_at),
        attempts=codec.decode(row.attempts, min(row.attempts_n, 1))[0],
        claimed=row.claimed,
    )

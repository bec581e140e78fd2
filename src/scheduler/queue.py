"""The queue: live runs, one row each, and every move between `run` and `history`.

The verbs are a closed set: enqueue, claim, adopt, release, retry, recall, settle, free. What is
skipped stands in skips.py, what is asked for one task or one service in lines.py. None commits.
Times are parameters, in database time.

Whoever locks several rows of `run` and waits for them does so in the order of their ids; whoever
does not wait (SKIP LOCKED) locks after that, or nothing else. So no two wait for each other in a
ring. An index does not promise that order: a bitmap scan locks in the order of the heap.
"""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import TextClause, text

from scheduler import codec
from scheduler.db import Conn, ms, utc
from scheduler.run import KINDS, End, Later, NewRun, Retry, Run, bucket_in

# Enqueue ------------------------------------------------------------------------------------------

ENQUEUE = text("""
INSERT INTO run (id, bucket, service_id, task_key, task_id, kind, version, overlap, priority,
                 scheduled_for, due, max_retries, attempts, attempts_n, claimed_by, created_at,
                 lanes)
SELECT u.id, u.bucket, u.service_id, u.task_key, u.task_id, u.kind, u.version, u.overlap,
       u.priority, u.at, u.at, u.max_retries, '[]', 0, u.claimed_by, :now, u.lanes
FROM unnest(CAST(:id AS uuid[]), CAST(:bucket AS smallint[]), CAST(:service_id AS uuid[]),
            CAST(:task_key AS uuid[]), CAST(:task_id AS text[]), CAST(:kind AS text[]),
            CAST(:version AS int[]), CAST(:overlap AS text[]), CAST(:at AS timestamptz[]),
            CAST(:max_retries AS smallint[]), CAST(:claimed_by AS uuid[]),
            CAST(:lanes AS smallint[]), CAST(:priority AS smallint[]))
     AS u (id, bucket, service_id, task_key, task_id, kind, version, overlap, at, max_retries,
           claimed_by, lanes, priority)
ON CONFLICT (id, bucket) DO NOTHING
RETURNING id
""")


async def enqueue(conn: Conn, runs: Sequence[NewRun], now: datetime) -> list[UUID]:
    """Insert runs; one that exists already stays as it is. Return the ids that are new."""
    if not runs:
        return []
    rows = await conn.execute(ENQUEUE, {**codec.new(runs), "now": now})
    return list(rows.scalars())


COMING = text("""
SELECT task_key, id FROM run
WHERE task_key = ANY(:keys) AND kind = 'task' AND scheduled_for > :now
""")


async def coming(conn: Conn, keys: Sequence[UUID], now: datetime) -> dict[UUID, set[UUID]]:
    """Return the runs that stand for instants later than `now`, by task key."""
    found: dict[UUID, set[UUID]] = {key: set() for key in keys}
    for row in await conn.execute(COMING, {"keys": list(keys), "now": now}):
        found[row.task_key].add(row.id)
    return found


# Claim --------------------------------------------------------------------------------------------

LATE_S = 2.0
"""A run that is due longer than this is late, and claimed service by service."""
COLUMNS = """run.id, run.bucket, run.service_id, run.task_key, run.task_id, run.kind, run.version,
          run.overlap, run.priority, run.scheduled_for, run.due, run.max_retries, run.attempts,
          run.attempts_n, run.lanes, run.cancelled, run.replayed_at,
          run.replayed_at = run.created_at AS backfilled"""

# `id = ANY(ARRAY(...))` and never `id IN (...)`: the planner may run an IN subselect once for each
# outer row, and then every pass locks LIMIT rows more. Only the head of the line of a task that
# takes one run at a time can be claimed: nothing of that task is claimed, and nothing stands
# before it, where waiting for a retry stands before what was never tried. Of a task with so many
# lanes, the first so many: by place, so that two replicas together claim no more. ORDER BY keeps
# that count on the index, where it soon has enough: without it (and with NOT EXISTS, which drops
# it) ten thousand overdue runs of one task took longer than a statement may.
CLAIM = (
    """
UPDATE run SET claimed_by = :me
WHERE id = ANY(ARRAY(
    SELECT c.id FROM run c
    WHERE {which} AND c.claimed_by IS NULL AND c.kind = ANY(:kinds)
      AND (c.lanes IS NULL
           OR (SELECT count(*) FROM (
               SELECT FROM run h WHERE {before} ORDER BY h.scheduled_for LIMIT c.lanes) AS n)
               < c.lanes)
    ORDER BY c.due LIMIT :room FOR UPDATE OF c SKIP LOCKED))
RETURNING """
    + COLUMNS
)
# What a backfill made (backfills.py) stands behind what is due, before what is to come: so it
# neither holds up its task's instants, nor is held up for ever where they come every second.
RANK = """CASE WHEN {r}.replayed_at = {r}.created_at
                         THEN CASE WHEN {r}.due <= :now THEN 2 ELSE 4 END
                         WHEN {r}.attempts_n > 0 OR {r}.replayed_at IS NOT NULL THEN 0
                         WHEN {r}.due <= :now THEN 1 ELSE 3 END"""
BEFORE = f"""h.task_key = c.task_key AND h.bucket = c.bucket AND h.id <> c.id
               AND (h.claimed_by IS NOT NULL
                    OR ({RANK.format(r="h")}, h.scheduled_for, h.id)
                     < ({RANK.format(r="c")}, c.scheduled_for, c.id))"""
CLAIM_ON_TIME = text(
    CLAIM.format(
        which="c.due > :late AND c.due <= :ahead AND c.service_id <> ALL(:crowded)",
        before=BEFORE,
    )
)
CLAIM_LATE = text(CLAIM.format(which="c.service_id = :service AND c.due <= :late", before=BEFORE))

# One probe of (service_id, due) a service; the claimed ones at its front are few.
LATE_SERVICES = text("""
SELECT s.id FROM unnest(CAST(:services AS uuid[])) AS s (id)
WHERE EXISTS (SELECT FROM run r
              WHERE r.service_id = s.id AND r.due <= :late AND r.claimed_by IS NULL)
""")

# ORDER BY keeps it on the index: for one row of many, a planner that does not know the parameter
# would rather read the whole table.
ANY_LATE = text("""
SELECT EXISTS (SELECT FROM (
    SELECT due FROM run WHERE due <= :late AND claimed_by IS NULL ORDER BY due LIMIT 1) AS late)
""")
ADOPT = text("SELECT " + COLUMNS + " FROM run WHERE run.claimed_by = :me")


async def claim_on_time(
    conn: Conn, me: UUID, now_ms: int, *, ahead_ms: int, room: int, crowded: Sequence[UUID] = ()
) -> list[Run]:
    """Claim what is due from two seconds ago to `ahead_ms` from now, but of no crowded service."""
    when = {"late": utc(now_ms - int(LATE_S * 1000)), "ahead": utc(now_ms + ahead_ms)}
    values = {**when, "me": me, "room": room, "kinds": KINDS, "crowded": list(crowded)}
    values["now"] = utc(now_ms)
    return codec.claimed(await conn.execute(CLAIM_ON_TIME, values), me)


async def claim_late(conn: Conn, me: UUID, now_ms: int, *, service: UUID, room: int) -> list[Run]:
    """Claim what one service has overdue."""
    late = utc(now_ms - int(LATE_S * 1000))
    values = {"late": late, "now": utc(now_ms), "me": me, "room": room, "kinds": KINDS}
    return codec.claimed(await conn.execute(CLAIM_LATE, {**values, "service": service}), me)


async def any_late(conn: Conn, now_ms: int) -> bool:
    """Say whether anything is late and unclaimed."""
    late = utc(now_ms - int(LATE_S * 1000))
    return bool((await conn.execute(ANY_LATE, {"late": late})).scalar_one())


async def late_services(conn: Conn, services: Sequence[UUID], now_ms: int) -> list[UUID]:
    """Return which of these services have something late and unclaimed."""
    late = utc(now_ms - int(LATE_S * 1000))
    rows = await conn.execute(LATE_SERVICES, {"services": list(services), "late": late})
    return list(rows.scalars())


async def adopt(conn: Conn, me: UUID) -> list[Run]:
    """Return every run that names `me` as its holder."""
    return codec.claimed(await conn.execute(ADOPT, {"me": me}), me)


# Give back ----------------------------------------------------------------------------------------

OURS = """id = ANY(ARRAY(
    SELECT id FROM run WHERE id = ANY(:{ids}) AND claimed_by = :me ORDER BY id FOR UPDATE))"""
RELEASE = text(f"""
UPDATE run SET claimed_by = NULL, version = greatest(version, :version)
WHERE {OURS.format(ids="ids")} AND claimed_by = :me
""")

# Sent again after a lost answer, it must not release what this process has claimed again since:
# hence the number of attempts. What someone cancelled meanwhile is claimed at once, and ends.
# It locks all that its transaction is to settle.
RETRY = text(f"""
WITH o AS (
    SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:buckets AS smallint[]),
                         CAST(:due AS timestamptz[]), CAST(:attempts AS text[]),
                         CAST(:attempts_n AS int[]))
        AS o (id, bucket, due, attempts, attempts_n))
UPDATE run SET claimed_by = NULL,
               due = CASE WHEN run.cancelled THEN run.due ELSE o.due END,
               attempts = CAST(o.attempts AS jsonb), attempts_n = o.attempts_n
FROM o WHERE run.id = o.id AND run.bucket = o.bucket AND run.claimed_by = :me
    AND run.attempts_n = o.attempts_n - 1 AND run.{OURS.format(ids="all")}
RETURNING run.id
""")
# Nothing was tried, so that what this process has claimed again since has as many attempts: it has
# another `due`, unless someone cancelled it, and then it only ends.
POSTPONE = text(f"""
WITH o AS (
    SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:was AS timestamptz[]),
                         CAST(:due AS timestamptz[])) AS o (id, was, due))
UPDATE run SET claimed_by = NULL, due = CASE WHEN run.cancelled THEN run.due ELSE o.due END
FROM o WHERE run.id = o.id AND run.claimed_by = :me
    AND date_trunc('milliseconds', run.due) = o.was AND run.{OURS.format(ids="all")}
RETURNING run.id
""")
RECALLED = text("""
SELECT r.id, r.version FROM run r WHERE r.id = ANY(:ids) AND r.claimed_by = :me
""")
DROP = text(f"""
DELETE FROM run
WHERE {OURS.format(ids="ids")} AND claimed_by = :me AND version < coalesce(:version, version + 1)
RETURNING id
""")
CANCELLED = text("SELECT id FROM run WHERE cancelled AND claimed_by = :me")


async def release(conn: Conn, me: UUID, ids: Sequence[UUID], version: int | None = None) -> None:
    """Give claimed runs back; `version` is that of their task, where theirs may be older."""
    await conn.execute(RELEASE, {"ids": list(ids), "me": me, "version": version})


async def retry(
    conn: Conn, me: UUID, retries: Sequence[Retry], ends: Sequence[End] = ()
) -> list[UUID]:
    """Give runs back to be tried again later. Return the ids that were still ours.

    `ends` are those that the same transaction settles next: their rows are locked with these.
    """
    values = codec.retries(retries)
    every = values["ids"] + [end.run.id for end in ends]
    rows = await conn.execute(RETRY, {**values, "all": every, "me": me})
    return list(rows.scalars())


async def postpone(
    conn: Conn, me: UUID, laters: Sequence[Later], others: Sequence[Run] = ()
) -> list[UUID]:
    """Give runs back that wait for something else. Return the ids that were still ours.

    `others` are those that the same transaction moves next: their rows are locked with these.
    """
    ids = [later.run.id for later in laters]
    values = {"ids": ids, "due": [utc(later.due) for later in laters], "me": me}
    values["was"] = [utc(later.run.due) for later in laters]
    every = ids + [run.id for run in others]
    return list((await conn.execute(POSTPONE, {**values, "all": every})).scalars())


async def versions(conn: Conn, me: UUID, ids: Sequence[UUID]) -> dict[UUID, int]:
    """Return the versions that claimed runs have now; those that are not ours are left out."""
    rows = await conn.execute(RECALLED, {"ids": list(ids), "me": me})
    return {row.id: row.version for row in rows}


async def drop(conn: Conn, me: UUID, ids: Sequence[UUID], version: int | None) -> set[UUID]:
    """Delete claimed runs that the edit to `version` took back, or a delete (None).

    Return those that were: what a later edit wants again has a newer version by now.
    """
    rows = await conn.execute(DROP, {"ids": list(ids), "me": me, "version": version})
    return set(rows.scalars())


async def cancelled(conn: Conn, me: UUID) -> list[UUID]:
    """Return the claimed runs that someone cancelled."""
    return list((await conn.execute(CANCELLED, {"me": me})).scalars())


# Settle -------------------------------------------------------------------------------------------

# The DELETE goes by ids alone: joined with the unnest it got a sequential scan for the first
# executions on every connection. To lock in order costs 1.1 to 1.7 us a run.
SETTLE = text(f"""
WITH o AS (
    SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:state AS text[]), CAST(:reason AS text[]),
                         CAST(:attempts AS text[]), CAST(:attempts_n AS int[]),
                         CAST(:started_at AS timestamptz[]), CAST(:finished_at AS timestamptz[]),
                         CAST(:response AS bytea[]), CAST(:truncated AS boolean[]),
                         CAST(:version AS int[]))
        AS o (id, state, reason, attempts, attempts_n, started_at, finished_at, response,
              truncated, version)),
d AS (DELETE FROM run WHERE {OURS.format(ids="ids")} AND claimed_by = :me
      RETURNING id, bucket, service_id, task_key, task_id, kind, scheduled_for, created_at)
INSERT INTO history (id, bucket, service_id, task_key, task_id, kind, version, scheduled_for,
                     state, reason, attempts, attempts_n, created_at, started_at, finished_at,
                     response, truncated, count)
SELECT d.id, d.bucket, d.service_id, d.task_key, d.task_id, d.kind, o.version, d.scheduled_for,
       o.state, o.reason, CAST(o.attempts AS jsonb), o.attempts_n, d.created_at, o.started_at,
       o.finished_at, o.response, o.truncated, 1
FROM d JOIN o ON o.id = d.id
RETURNING id
""")


REPLAYED = text(f"""
SELECT id, replayed_at FROM run WHERE {OURS.format(ids="ids")} AND claimed_by = :me FOR UPDATE
""")


async def replayed(conn: Conn, me: UUID, ids: Sequence[UUID]) -> dict[UUID, int | None]:
    """Return when claimed runs were replayed last (ms), if ever; what is not ours is left out.

    They stay locked until the transaction ends.
    """
    rows = await conn.execute(REPLAYED, {"ids": list(ids), "me": me})
    return {row.id: None if row.replayed_at is None else ms(row.replayed_at) for row in rows}


async def settle(conn: Conn, me: UUID, ends: Sequence[End]) -> list[UUID]:
    """Move runs to history. Return the ids that were still ours; the others ended elsewhere."""
    rows = await conn.execute(SETTLE, {**codec.ends(ends), "me": me})
    return list(rows.scalars())


# Free ---------------------------------------------------------------------------------------------

# Of a replica that is gone. What was due after its last possible call was never sent; of the rest
# nobody knows, so it counts as an attempt and comes again a little later.
FREE = text("""
UPDATE run SET
    claimed_by = NULL,
    attempts = CASE WHEN due > :sent_until THEN attempts ELSE attempts || jsonb_build_object(
        'number', attempts_n + 1, 'outcome', 'unknown',
        'started_at', floor(extract(epoch FROM due) * 1000)::bigint,
        'finished_at', floor(extract(epoch FROM CAST(:now AS timestamptz)) * 1000)::bigint,
        'error', 'the replica that held it stopped; the call may have arrived') END,
    attempts_n = CASE WHEN due > :sent_until THEN attempts_n ELSE attempts_n + 1 END,
    due = CASE WHEN due > :sent_until THEN due
          ELSE :now + least(300, power(2, least(attempts_n, 10))) * interval '1 second' END
WHERE claimed_by = ANY(:dead) AND id = ANY(ARRAY(
    SELECT id FROM run WHERE claimed_by = ANY(:dead) ORDER BY id FOR UPDATE))
""")
HOLDERS = text("SELECT DISTINCT claimed_by FROM run WHERE claimed_by IS NOT NULL")


async def free(conn: Conn, dead: Sequence[UUID], sent_until: datetime, now: datetime) -> int:
    """Free the runs of replicas that are gone; `sent_until` is when they last could send."""
    values = {"dead": list(dead), "sent_until": sent_until, "now": now}
    return (await conn.execute(FREE, values)).rowcount


async def holders(conn: Conn) -> list[UUID]:
    """Return everyone who holds a run."""
    return list((await conn.execute(HOLDERS)).scalars())


# Count --------------------------------------------------------------------------------------------

DEPTH_MOST = 10_000
DEPTH = text("""
SELECT count(*) FROM (SELECT FROM run WHERE due <= :now ORDER BY due LIMIT :most) AS due
""")


CROWDED = text("""
SELECT s.id FROM unnest(CAST(:services AS uuid[])) AS s (id)
WHERE (SELECT count(*) FROM (SELECT FROM run r WHERE r.service_id = s.id AND r.due <= :now
                             ORDER BY r.due LIMIT :most) AS due) >= :most
""")


async def crowded(conn: Conn, services: Sequence[UUID], now: datetime, most: int) -> list[UUID]:
    """Return which of these services have `most` live runs that are due, or more."""
    values = {"services": list(services), "now": now, "most": most}
    return list((await conn.execute(CROWDED, values)).scalars())


async def depth(conn: Conn, now: datetime) -> int:
    """Return how many live runs are due, counted to 10,000."""
    found = await conn.execute(DEPTH, {"now": now, "most": DEPTH_MOST})
    return int(found.scalar_one())


IDS = "id = ANY(:ids) AND bucket = ANY(:buckets)"
LIVE = text(f"SELECT id FROM run WHERE {IDS}")
KNOWN = text(f"SELECT id FROM run WHERE {IDS} UNION ALL SELECT id FROM history WHERE {IDS}")


async def live(conn: Conn, ids: Sequence[UUID]) -> set[UUID]:
    """Return which of these runs, of any service, have not ended."""
    return await _those(conn, LIVE, ids)


async def known(conn: Conn, ids: Sequence[UUID]) -> set[UUID]:
    """Return which of these runs, of any service, are live or kept. One statement for both: a
    run that ends moves from the one table to the other.
    """
    return await _those(conn, KNOWN, ids)


async def _those(conn: Conn, statement: TextClause, ids: Sequence[UUID]) -> set[UUID]:
    values = {"ids": list(ids), "buckets": list({bucket_in(run_id) for run_id in ids})}
    return set((await conn.execute(statement, values)).scalars())


OLDEST_DUE = text("SELECT due FROM run WHERE due <= :now ORDER BY due LIMIT 1")


async def oldest_due(conn: Conn, now: datetime) -> datetime | None:
    """Return when the run fell due that has waited longest; None where none waits."""
    return (await conn.execute(OLDEST_DUE, {"now": now})).scalar()

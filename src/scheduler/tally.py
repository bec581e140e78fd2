"""The tally: what ended, counted by service and minute, later by hour. It is made of history.

So a look at a day costs the same, however many runs there were. None of the verbs commits.
"""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Index,
    Integer,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Uuid,
    text,
)

from scheduler.clock import Slice
from scheduler.db import Conn, metadata, ms, times_check, utc
from scheduler.run import bucket_of

STATES = ("succeeded", "failed", "expired", "cancelled", "skipped")
REASONS = ("overlap", "misfire", "paused", "calendar")
"""Why instants are skipped."""
COUNTS = (*STATES, *REASONS)
BOUNDS = (
    1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1000, 1500, 2000, 3000,
    5000, 7000, 10_000, 15_000, 20_000, 30_000, 60_000, 120_000, 300_000, 600_000, 1_800_000,
    3_600_000, 21_600_000, 86_400_000,
)  # fmt: skip
"""Between these (ms) lags are told apart: two lie a factor of about 1.5 apart."""
BINS = len(BOUNDS) + 1
MINUTE_S, HOUR_S = 60, 3600
PERCENTILES = (50, 95, 99)

TALLY = Table(
    "tally",
    metadata,
    Column("service_id", Uuid, nullable=False),
    Column("bucket", SmallInteger, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("seconds", Integer, nullable=False),
    *(Column(name, BigInteger, nullable=False) for name in COUNTS),
    Column("lags", ARRAY(BigInteger), nullable=False),
    PrimaryKeyConstraint("service_id", "at", "seconds", "bucket", name="tally_pkey"),
    CheckConstraint("seconds IN (60, 3600)", name="tally_seconds_check"),
    CheckConstraint("cardinality(lags) = 36", name="tally_lags_check"),
    times_check("tally", "at"),
    Index("tally_at", "seconds", "at"),
)
MARK = Table(
    "tally_mark",
    metadata,
    Column("one", Boolean, nullable=False),
    Column("until", DateTime(timezone=True)),
    Column("counted_at", DateTime(timezone=True)),
    PrimaryKeyConstraint("one", name="tally_mark_pkey"),
    CheckConstraint("one", name="tally_mark_one_check"),
)


def home(service_id: UUID) -> int:
    """Return the bucket that a service's rows live in."""
    return bucket_of(service_id, "tally")


Place = tuple[datetime, UUID]
"""A minute, and a service in it."""
NOBODY = UUID(int=0)
"""Before all services."""
PIECE = 500
"""Rows that are written at once."""


class Minute(msgspec.Struct, frozen=True, gc=False):
    """What ended of a service in a minute."""

    service_id: UUID
    at: datetime
    counts: Sequence[int]
    """As COUNTS names them."""
    lags: str
    """By BOUNDS, as Postgres writes an array: they pass through here by the thousand."""


class Mark(msgspec.Struct, frozen=True):
    """How far history is counted, and when that was last done, in ms since 1970."""

    until: int | None
    counted_at: int | None


# Writing -----------------------------------------------------------------------------------------

READ = text("SELECT until, counted_at FROM tally_mark")
TAKE = text("SELECT until, counted_at FROM tally_mark FOR UPDATE SKIP LOCKED")
MOVE = text("UPDATE tally_mark SET until = :until, counted_at = :now")
KEY = "service_id, bucket, at, seconds"
NAMES = ", ".join((*COUNTS, "lags"))
REMOVE_OTHERS = text("""
DELETE FROM tally WHERE seconds = ANY('{60, 3600}') AND at >= :after_at AND at <= :last_at
    AND (at, service_id) > (:after_at, :after) AND (at, service_id) <= (:last_at, :last)
    AND (seconds <> 60 OR NOT EXISTS (
        SELECT FROM unnest(CAST(:services AS uuid[]), CAST(:at AS timestamptz[])) AS u (service, at)
        WHERE u.service = tally.service_id AND u.at = tally.at))
""")
# What says so already is left alone: most minutes are counted several times.
PUT = text(f"""
INSERT INTO tally ({KEY}, {NAMES})
SELECT u.service_id, u.bucket, u.at, 60, {", ".join(f"u.{name}" for name in COUNTS)},
       CAST(u.lags AS bigint[])
FROM unnest(CAST(:services AS uuid[]), CAST(:buckets AS smallint[]), CAST(:at AS timestamptz[]),
            {", ".join(f"CAST(:{name} AS bigint[])" for name in COUNTS)}, CAST(:lags AS text[]))
     AS u (service_id, bucket, at, {NAMES})
ON CONFLICT (service_id, at, seconds, bucket) DO UPDATE
SET {", ".join(f"{name} = excluded.{name}" for name in (*COUNTS, "lags"))}
WHERE ({", ".join(f"tally.{name}" for name in (*COUNTS, "lags"))})
      IS DISTINCT FROM ({", ".join(f"excluded.{name}" for name in (*COUNTS, "lags"))})
""")
SUMS = ", ".join(f"sum({name})" for name in COUNTS)
LAGS = f"ARRAY[{', '.join(f'sum(lags[{n + 1}])' for n in range(BINS))}]"
OLDEST = text("SELECT min(at) FROM tally WHERE seconds = :seconds")
ROLL = text(f"""
WITH d AS (DELETE FROM tally
           WHERE seconds = ANY('{{60, 3600}}') AND at >= :since AND at < :until RETURNING *)
INSERT INTO tally ({KEY}, {NAMES})
SELECT service_id, bucket, :since, 3600, {SUMS}, {LAGS} FROM d GROUP BY service_id, bucket
""")
PRUNE = text("""
DELETE FROM tally WHERE seconds = :seconds AND at < :before
    AND at < (SELECT min(at) FROM tally WHERE seconds = :seconds) + interval '6 hours'
""")
FORGET = text("DELETE FROM tally")
OF_SERVICE = "FROM tally WHERE bucket = :bucket AND service_id = :service_id"
REMOVE_SERVICE = text(
    f"DELETE {OF_SERVICE} AND at = ANY(ARRAY(SELECT at {OF_SERVICE} ORDER BY at LIMIT :most))"
)
LEFT_OF_SERVICE = text(f"SELECT EXISTS (SELECT {OF_SERVICE})")


async def read(conn: Conn) -> Mark:
    """Return how far is counted."""
    row = (await conn.execute(READ)).first()
    return Mark(*(None if at is None else ms(at) for at in row or (None, None)))


async def take(conn: Conn) -> Mark | None:
    """Return how far is counted, and keep others from counting until the commit.

    None where somebody else is at it.
    """
    row = (await conn.execute(TAKE)).first()
    if row is None:
        return None
    return Mark(*(None if at is None else ms(at) for at in row))


async def move(conn: Conn, until: int | None, now: int) -> None:
    """Write how far is counted (ms since 1970); None has all of it counted again."""
    at = None if until is None else utc(until)
    await conn.execute(MOVE, {"until": at, "now": utc(now)})


async def write(conn: Conn, since: datetime, until: datetime, found: Sequence[Minute]) -> None:
    """Have the tally of [since, until) say what was found, and nothing else.

    `found` is in order of minute and service, and is written in pieces: there may be very many.
    """
    after, turn = (since, NOBODY), Slice()
    for start in range(0, max(len(found), 1), PIECE):
        some = found[start : start + PIECE]
        whole = start + PIECE >= len(found)
        last = (until, NOBODY) if whole else (some[-1].at, some[-1].service_id)
        await _write(conn, after, last, some)
        after = last
        await turn.give_way()


async def _write(conn: Conn, after: Place, last: Place, found: Sequence[Minute]) -> None:
    """Have what lies behind `after`, up to `last`, say what was found."""
    keys = {"services": [each.service_id for each in found], "at": [each.at for each in found]}
    span = {"after_at": after[0], "after": after[1], "last_at": last[0], "last": last[1]}
    await conn.execute(REMOVE_OTHERS, {**span, **keys})
    if not found:
        return
    values = {
        **keys,
        "buckets": [home(each.service_id) for each in found],
        **{name: [each.counts[n] for each in found] for n, name in enumerate(COUNTS)},
        "lags": [each.lags for each in found],
    }
    await conn.execute(PUT, values)


async def oldest(conn: Conn, seconds: int) -> int | None:
    """Return the oldest time (ms since 1970) that is told by the minute, or by the hour."""
    at = (await conn.execute(OLDEST, {"seconds": seconds})).scalar_one()
    return None if at is None else ms(at)


async def roll(conn: Conn, since: datetime, until: datetime) -> None:
    """Make one row of each service's rows of an hour."""
    await conn.execute(ROLL, {"since": since, "until": until})


async def prune(conn: Conn, seconds: int, before: datetime) -> bool:
    """Delete the oldest rows of minutes, or hours, that began before a time; say whether any."""
    made = await conn.execute(PRUNE, {"seconds": seconds, "before": before})
    return made.rowcount > 0


async def forget(conn: Conn, now: int) -> None:
    """Delete everything: it is counted again, of what history has."""
    await conn.execute(FORGET)
    await move(conn, None, now)


async def remove_service(conn: Conn, service_id: UUID, most: int) -> bool:
    """Delete at most so many of a service's rows, about; say whether any are left."""
    values = {"service_id": service_id, "bucket": home(service_id)}
    await conn.execute(REMOVE_SERVICE, {**values, "most": most})
    return bool((await conn.execute(LEFT_OF_SERVICE, values)).scalar_one())


# Reading -----------------------------------------------------------------------------------------

# The whole day stands beside the span that is drawn: one walk of the key for both.
SERIES = text(f"""
SELECT * FROM (
    SELECT date_bin(make_interval(secs => :step), at, :origin) AS begun, {
    ", ".join(f"sum({name}) AS {name}" for name in COUNTS)
}, {LAGS} AS lags
    {OF_SERVICE} AND at >= :since AND at < :until GROUP BY 1 ORDER BY 1) AS drawn
UNION ALL
SELECT * FROM (
    SELECT CAST(NULL AS timestamptz), {SUMS}, {LAGS}
    {OF_SERVICE} AND at >= :day AND at < :until) AS day
""")


class Span(msgspec.Struct, frozen=True):
    """What ended from `at` (ms since 1970) on."""

    at: int
    counts: dict[str, int]
    """By state."""
    reasons: dict[str, int]
    """Of what was skipped, and not for nothing."""
    lags: Sequence[int]

    def percentile(self, share: int) -> float | None:
        """Return the lag (ms) that so many of a hundred starts did not exceed; None of none."""
        total = sum(self.lags)
        wanted, seen = total * share / 100, 0
        for n, count in enumerate(self.lags):
            if count and seen + count >= wanted:
                low = 0 if n == 0 else BOUNDS[n - 1]
                high = BOUNDS[min(n, BINS - 2)]
                return low + (high - low) * (wanted - seen) / count
            seen += count
        return None


async def series(
    conn: Conn, service_id: UUID, since: int, until: int, step_s: int, day: int
) -> tuple[list[Span], Span]:
    """Return what ended in [since, until) in steps, and all of [day, until); in ms since 1970."""
    values = {"service_id": service_id, "bucket": home(service_id), "step": step_s}
    times = {"since": utc(since), "origin": utc(since), "until": utc(until), "day": utc(day)}
    rows = (await conn.execute(SERIES, {**values, **times})).all()
    spans = [_span(row, day) for row in rows]
    return spans[:-1], spans[-1]


def _span(row: Sequence[object], day: int) -> Span:
    begun, *counted = row
    named = {name: int(n or 0) for name, n in zip(COUNTS, counted, strict=False)}  # type: ignore[call-overload]
    lags = [int(n or 0) for n in counted[-1]]  # type: ignore[attr-defined]
    reasons = {name: named[name] for name in REASONS if named[name]}
    if other := named["skipped"] - sum(reasons.values()):
        reasons["other"] = other
    at = day if begun is None else ms(begun)  # type: ignore[arg-type]
    return Span(at, {name: named[name] for name in STATES}, reasons, lags)

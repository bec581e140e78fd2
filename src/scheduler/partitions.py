"""History's weekly partitions: made ahead, and dropped by age and size, in nobody's way.

A week is dropped in steps: DETACH CONCURRENTLY, which commits a mark and then waits for readers;
FINALIZE, where that was cut short; DROP. Each step reads anew how far the week is, so whoever
comes next (after a crash, or another replica at the same moment) goes on from there.
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import asyncpg
import msgspec
import structlog
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from scheduler import config, db
from scheduler.db import Conn, Database

log = structlog.get_logger()

WEEKS_AHEAD = 4
LOCK_TIMEOUT = "200ms"
"""Below deadlock_timeout (1 s): where a reader and a drop wait for each other, the drop gives way
before Postgres looks for a deadlock and may end the reader."""
PAUSE_S = 0.1
TRIES = 50
DROP_S = 60.0
"""What unlinking a large week may take; more than an engine's statement has."""


def week_of(at: datetime) -> datetime:
    """Return the Monday, 00:00 UTC, that begins the week of `at`."""
    day = at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return day - timedelta(days=day.weekday())


def partition_of(week: datetime) -> str:
    """Return the name of the partition that begins on a Monday."""
    return f"history_{week:%Y%m%d}"


def week_in(name: str) -> datetime:
    """Return the Monday that begins a partition, from its name."""
    return datetime.strptime(name.rpartition("_")[2], "%Y%m%d").replace(tzinfo=UTC)


# Making ------------------------------------------------------------------------------------------

PARTITIONS = text("""
SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = CAST('history' AS regclass) ORDER BY c.relname
""")


async def make(engine: AsyncEngine, now: datetime) -> None:
    """Make this week's partition, last week's and four weeks' to come.

    Each is made as a table of its own and then attached: ATTACH takes a lock that neither reads
    nor writes of history wait for, where CREATE ... PARTITION OF behind one slow reader would
    make every settle wait.
    """
    weeks = [week_of(now) + timedelta(weeks=n) for n in range(-1, WEEKS_AHEAD + 1)]
    async with engine.connect() as conn:
        there = set((await conn.execute(PARTITIONS)).scalars())
    for week in weeks:
        if partition_of(week) not in there:
            await _patiently(engine, _statements(week))


async def missing(conn: Conn, now: datetime) -> list[str]:
    """Return the partitions that `make` would make, this week's first."""
    there = set((await conn.execute(PARTITIONS)).scalars())
    weeks = (week_of(now) + timedelta(weeks=n) for n in range(WEEKS_AHEAD + 1))
    return [name for name in map(partition_of, weeks) if name not in there]


def _statements(week: datetime) -> list[str]:
    # Empty, so that ATTACH has nothing to check: a CHECK to spare it that would cost each settle.
    name, start, end = partition_of(week), week, week + timedelta(weeks=1)
    return [
        f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'",
        "SELECT pg_advisory_xact_lock(hashtext('history partitions'))",
        f"CREATE TABLE IF NOT EXISTS {name} (LIKE history INCLUDING ALL)",
        f"""ALTER TABLE history ATTACH PARTITION {name}
            FOR VALUES FROM ('{start.isoformat()}') TO ('{end.isoformat()}')""",
    ]


async def _patiently(engine: AsyncEngine, statements: Sequence[str]) -> None:
    """Run DDL in one transaction; where a lock is not to be had at once, let others pass first."""
    for left in reversed(range(TRIES)):
        try:
            async with engine.begin() as conn:
                for statement in statements:
                    await conn.execute(text(statement))
        except DBAPIError as e:
            state = db.sqlstate(e)
            if state in ("42P07", "42809"):  # another replica attached it meanwhile
                return
            if state != "55P03" or not left:  # lock_not_available
                raise
            await asyncio.sleep(PAUSE_S)
        else:
            return


# A BRIN index knows nothing of the newest pages until it is told to look: what asks for the last
# minutes would read all that was written since the last vacuum.
SUMMARIZE = text("""
SELECT brin_summarize_new_values(i.indexrelid) FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
WHERE i.indrelid = to_regclass(:partition) AND a.amname = 'brin' AND i.indisvalid
""")


async def summarize(database: Database, now: datetime) -> None:
    """Have the index of this week's times of finish know all of its pages; or another time."""
    try:
        async with database.engine.begin() as conn:
            await conn.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
            await conn.execute(SUMMARIZE, {"partition": partition_of(week_of(now))})
    except DBAPIError as e:
        if db.sqlstate(e) not in ("55P03", "42501"):  # a vacuum is at it; the table is another's
            raise


# Dropping ----------------------------------------------------------------------------------------


class Week(msgspec.Struct, frozen=True):
    """A week's table; sizes in bytes, `total` with its indexes, `rows` without."""

    name: str
    half: bool
    """Its DETACH has begun: nobody sees its rows any more, and no other can be detached."""
    rows: int
    total: int


class Pruned(msgspec.Struct):
    """What a pruning left: the weeks dropped, those still to go, the bytes of history."""

    dropped: list[str]
    left: list[str]
    bytes: int
    kept_from: datetime
    """When the oldest week begins that is left."""


TABLES = """
FROM pg_class c
LEFT JOIN pg_inherits i ON i.inhrelid = c.oid AND i.inhparent = CAST('history' AS regclass)
WHERE c.relkind = 'r' AND c.relname ~ '^history_[0-9]{8}$' AND c.relnamespace =
    (SELECT relnamespace FROM pg_class WHERE oid = CAST('history' AS regclass))
"""
WEEKS = f"""
SELECT c.relname, coalesce(i.inhdetachpending, false), coalesce(pg_relation_size(c.oid), 0),
       coalesce(pg_total_relation_size(c.oid), 0) {TABLES} ORDER BY c.relname
"""
STATE = f"""
SELECT CASE WHEN i.inhrelid IS NULL THEN 'apart' WHEN i.inhdetachpending THEN 'half'
            ELSE 'attached' END {TABLES} AND c.relname = $1
"""
STEPS = {
    "attached": "ALTER TABLE history DETACH PARTITION {} CONCURRENTLY",
    "half": "ALTER TABLE history DETACH PARTITION {} FINALIZE",
    "apart": "DROP TABLE IF EXISTS {}",
}

GIVE_WAY = (
    asyncpg.LockNotAvailableError,
    asyncpg.DeadlockDetectedError,
    asyncpg.QueryCanceledError,
    asyncpg.ObjectNotInPrerequisiteStateError,  # another replica is at it, or at another week
    asyncpg.UndefinedTableError,
)
"""What a later look at the same week may not meet."""


async def prune(database: Database, now: datetime, settings: config.History) -> Pruned:
    """Drop the weeks that ended before the retention, and the oldest of what takes too much room.

    On a connection of its own, past a pooler: its timeouts are its own, and DETACH CONCURRENTLY
    keeps no engine's connection while it waits. What a reader holds open stays in `left`.
    Where there is only the pooler, the role's timeouts hold: a setting would go to others.
    """
    conn = await database.connect("prune", database.direct)
    try:
        if database.direct is not None:
            await conn.execute(f"SET lock_timeout = '{LOCK_TIMEOUT}'")
            await conn.execute(f"SET statement_timeout = {int(DROP_S * 1000)}")
        weeks = await _weeks(conn)
        for week in weeks:
            if week.half:
                await _tried(conn, week.name, drop=False)
        going = outlived(weeks, now, settings)
        dropped = [name for name in going if await _tried(conn, name, drop=True)]
        kept = await _weeks(conn) if dropped else weeks
    finally:
        await conn.close(timeout=5)
    left = [n for n in going if n not in dropped]
    oldest = min((week_in(w.name) for w in kept), default=week_of(now))
    pruned = Pruned(dropped, left, sum(w.total for w in kept), oldest)
    _tell(pruned, settings.max_bytes)
    return pruned


async def _weeks(conn: asyncpg.Connection) -> list[Week]:
    tries = TRIES
    while True:
        try:
            return [Week(*row) for row in await conn.fetch(WEEKS)]
        except asyncpg.LockNotAvailableError:  # of a table that another replica is dropping
            tries -= 1
            if not tries:
                raise
            await asyncio.sleep(PAUSE_S)


def outlived(weeks: Sequence[Week], now: datetime, settings: config.History) -> list[str]:
    """Return the names of the weeks to drop, the oldest first; `weeks` in their order.

    A week goes when it and all that is newer take more than `max_bytes`: that does not change
    while another replica drops what is older. This week stays, and so does last week's table
    while it is empty: it would be made again.
    """
    this, last = (partition_of(week_of(now) - timedelta(weeks=n)) for n in (0, 1))
    oldest = partition_of(week_of(now - timedelta(days=settings.retention_days)))
    going: list[str] = []
    taken = 0
    for week in reversed(weeks):
        taken += week.total
        much = 0 < settings.max_bytes < taken
        needed = week.name >= this or (week.name == last and not week.rows)
        if not needed and (much or week.name < oldest):
            going.append(week.name)
    return going[::-1]


async def _tried(conn: asyncpg.Connection, name: str, *, drop: bool) -> bool:
    """Take a week step by step out of history and, with `drop`, away; say whether it is done."""
    for _ in range(TRIES):
        try:
            while (state := await conn.fetchval(STATE, name)) and (drop or state != "apart"):
                await conn.execute(STEPS[state].format(name), timeout=DROP_S)
        except GIVE_WAY as e:
            log.debug("history partition in use", partition=name, error=str(e))
            await asyncio.sleep(PAUSE_S)
        else:
            return True
    return False


def _tell(pruned: Pruned, max_bytes: int) -> None:
    for name in pruned.dropped:
        log.info("history partition dropped", partition=name)
    if pruned.left:
        log.warning("history partitions in use are dropped later", partitions=pruned.left)
    elif 0 < max_bytes < pruned.bytes:
        log.warning(
            "this week's history alone takes more than history.max_bytes, and is kept",
            bytes=pruned.bytes,
            max_bytes=max_bytes,
        )

"""History's partitions: made ahead, and dropped under readers, crashes and other replicas."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from conftest import RunApp, eventually
from scheduler import config, history, partitions, queue
from scheduler.db import Database, utc
from scheduler.partitions import Week, outlived, partition_of, prune, week_of
from scheduler.planning import new_run
from test_history import finish
from test_queue import ALICE, ME, claim, definition, ended, enqueue, now_ms

WEEK = timedelta(weeks=1)
MONTH = config.History(retention_days=30)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    made = Database(database_url, config.Database())
    yield made
    await made.close()


@pytest.fixture
async def reader(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    made = await asyncpg.connect(database_url)
    yield made
    await made.close()


async def attached(conn: asyncpg.Connection) -> list[str]:
    rows = await conn.fetch(
        "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
        "WHERE i.inhparent = 'history'::regclass AND NOT i.inhdetachpending ORDER BY 1"
    )
    return [row[0] for row in rows]


async def earlier(conn: asyncpg.Connection, now: datetime) -> list[str]:
    """The partitions before this week's."""
    return [name for name in await attached(conn) if name < partition_of(week_of(now))]


async def tables(conn: asyncpg.Connection) -> list[str]:
    rows = await conn.fetch(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname ~ '^history_' ORDER BY 1"
    )
    return [row[0] for row in rows]


async def pending(conn: asyncpg.Connection) -> list[str]:
    rows = await conn.fetch(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhdetachpending"
    )
    return [row[0] for row in rows]


async def old_weeks(database: Database) -> tuple[datetime, str]:
    """Make the weeks of two months ago; return the time, and the oldest week a month keeps."""
    now = utc(now_ms())
    await partitions.make(database.engine, now - 8 * WEEK)
    return now, partition_of(week_of(now - timedelta(days=30)))


async def settles(database: Database) -> None:
    """Claim and settle a run, and read history; nothing of it waits for anybody."""
    now = now_ms()
    await enqueue(database, new_run(definition(), now))
    async with asyncio.timeout(2):
        (run,) = await claim(database, now)
        async with database.engine.begin() as conn:
            assert await queue.settle(conn, ME, [ended(run)]) == [run.id]
        async with database.api.connect() as conn:
            assert (await history.get(conn, ALICE, run.id)).id == run.id


async def detach_until_cut(database: Database, name: str) -> None:
    """Begin to detach a week, as a process does that dies while it waits for a reader."""
    conn = await database.connect("dying")
    await conn.execute("SET lock_timeout = '50ms'")
    with pytest.raises(asyncpg.LockNotAvailableError):
        await conn.execute(f"ALTER TABLE history DETACH PARTITION {name} CONCURRENTLY")
    await conn.close()


# Making ------------------------------------------------------------------------------------------


@given(st.datetimes(datetime(1990, 1, 1), datetime(9000, 1, 1), timezones=st.just(UTC)))
def test_a_week_begins_on_its_monday(at):
    week = week_of(at)
    assert week <= at < week + WEEK
    assert (week.weekday(), week.hour, week.minute, week.microsecond) == (0, 0, 0, 0)
    assert partition_of(week) < partition_of(week + WEEK)


async def test_partitions_are_made_from_last_week_to_four_weeks_ahead(database, conn):
    now = utc(now_ms()) + 10 * WEEK
    before = await attached(conn)
    await partitions.make(database.engine, now)
    made = [name for name in await attached(conn) if name not in before]
    assert made == [partition_of(week_of(now) + n * WEEK) for n in range(-1, 5)]
    await partitions.make(database.engine, now)
    assert len(await attached(conn)) == len(before) + 6


async def test_two_replicas_make_partitions_at_once(database_url, conn):
    replicas = [Database(database_url, config.Database()) for _ in range(3)]
    now = utc(now_ms()) + 20 * WEEK
    await asyncio.gather(*(partitions.make(d.engine, now) for d in replicas))
    for database in replicas:
        await database.close()
    assert len(await attached(conn)) == 6 + 6


async def test_a_partition_that_was_made_and_not_attached_is_attached(database, conn):
    now = utc(now_ms()) + 10 * WEEK
    await conn.execute(f"CREATE TABLE {partition_of(week_of(now))} (LIKE history INCLUDING ALL)")
    await partitions.make(database.engine, now)
    assert partition_of(week_of(now)) in await attached(conn)


async def test_every_partition_has_each_index_of_history_once(conn):
    """ATTACH takes over the index that it finds alike, and builds another where it finds none."""
    ours = await conn.fetchval("SELECT count(*) FROM pg_index WHERE indrelid = 'history'::regclass")
    there = await attached(conn)
    assert ours >= 6
    assert len(there) == 6
    for name in there:
        rows = await conn.fetch(
            "SELECT p.inhparent::regclass::text FROM pg_index i "
            "LEFT JOIN pg_inherits p ON p.inhrelid = i.indexrelid "
            "WHERE i.indrelid = $1::text::regclass", name,
        )  # fmt: skip
        parents = {row[0] for row in rows}
        assert None not in parents, f"{name} has an index that history has not"
        assert len(rows) == len(parents) == ours, name


async def test_a_slow_reader_keeps_no_settle_waiting_while_partitions_are_made(
    database, reader, conn
):
    async with reader.transaction():
        await reader.fetch("SELECT count(*) FROM history")
        making = asyncio.create_task(partitions.make(database.engine, utc(now_ms()) + 10 * WEEK))
        for _ in range(10):
            await settles(database)
        await asyncio.wait_for(making, 10)
    assert len(await attached(conn)) == 12


# By age ------------------------------------------------------------------------------------------


async def test_weeks_that_ended_before_the_retention_are_dropped(database, conn):
    now, oldest = await old_weeks(database)
    there = await attached(conn)
    pruned = await prune(database, now, MONTH)
    assert pruned.dropped == [name for name in there if name < oldest]
    assert pruned.dropped
    assert pruned.left == []
    assert await attached(conn) == await tables(conn) == [n for n in there if n >= oldest]
    assert (await prune(database, now, MONTH)).dropped == []


async def test_last_weeks_table_goes_and_its_empty_successor_stays(database, conn):
    now = utc(now_ms())
    last = week_of(now) - WEEK
    await finish(conn, definition(), int(last.timestamp() * 1000), 1)
    later = week_of(now) + timedelta(days=6)
    day = config.History(retention_days=1)
    before = await earlier(conn, now)
    assert partition_of(last) in before
    assert (await prune(database, later, day)).dropped == before
    await partitions.make(database.engine, later)
    assert (await prune(database, later, day)).dropped == []
    assert partition_of(last) in await attached(conn)


# By size -----------------------------------------------------------------------------------------


async def filled(conn: asyncpg.Connection, at: datetime) -> None:
    """A megabyte of history that ended at a time; random, as equal bytes shrink."""
    await conn.execute(
        "INSERT INTO history (id, bucket, service_id, kind, version, scheduled_for, state, "
        "attempts, attempts_n, created_at, finished_at, response, truncated, count) "
        "SELECT gen_random_uuid(), 1, $1, 'task', 1, $2, 'succeeded', '[]', 1, $2, $2, "
        "(SELECT string_agg(uuid_send(gen_random_uuid()), '') FROM generate_series(1, 640) "
        " WHERE n > 0), false, 1 FROM generate_series(1, 100) AS n", ALICE, at,
    )  # fmt: skip


@pytest.mark.parametrize(("megabytes", "kept"), [(2, 1), (3, 2), (4, 3), (100, 4)])
async def test_the_oldest_weeks_go_while_history_takes_too_much(database, conn, megabytes, kept):
    now = utc(now_ms())
    await partitions.make(database.engine, now - 2 * WEEK)
    weeks = [week_of(now) - n * WEEK for n in range(4)]
    for week in weeks:
        await filled(conn, week)
    wanted = config.History(retention_days=365, max_bytes=megabytes << 20 | 1 << 19)
    pruned = await prune(database, now, wanted)
    gone = [partition_of(week) for week in weeks[kept:]]
    assert [name for name in pruned.dropped if name >= partition_of(weeks[3])] == gone[::-1]
    assert not set(gone) & set(await tables(conn))
    assert {partition_of(week) for week in weeks[:kept]} <= set(await attached(conn))
    assert 1 << 20 < pruned.bytes <= wanted.max_bytes


async def test_this_week_stays_though_it_alone_is_too_large(database, conn):
    now = utc(now_ms())
    await filled(conn, week_of(now))
    await filled(conn, week_of(now) - WEEK)
    small = config.History(max_bytes=1000)
    before = await earlier(conn, now)
    assert partition_of(week_of(now) - WEEK) in before
    assert (await prune(database, now, small)).dropped == before
    await partitions.make(database.engine, now)
    with structlog.testing.capture_logs() as said:
        pruned = await prune(database, now, small)
    assert pruned.dropped == []
    assert pruned.bytes > 1 << 20
    assert "alone takes more than history.max_bytes" in str(said)
    assert await conn.fetchval("SELECT count(*) FROM history") == 100


@given(
    st.lists(st.integers(0, 50), min_size=8, max_size=8),
    st.integers(0, 300),
    st.integers(1, 60),
)
def test_what_goes_is_the_oldest_and_dropping_some_of_it_changes_nothing(sizes, most, days):
    now = datetime(2026, 11, 18, tzinfo=UTC)
    names = [partition_of(week_of(now) + n * WEEK) for n in range(-6, 2)]
    weeks = [Week(name, False, size, size) for name, size in zip(names, sizes, strict=True)]
    settings = config.History(retention_days=days, max_bytes=most)
    going = outlived(weeks, now, settings)
    assert going == [name for name in names if name in going]
    assert all(name < partition_of(week_of(now)) for name in going)
    left = [week for week in weeks if week.name not in going]
    assert outlived(left, now, settings) == []
    if most and sum(week.total for week in left) > most:
        spared = {partition_of(week_of(now)), partition_of(week_of(now) - WEEK)}
        assert all(week.name in spared or week.name > max(spared) for week in left)
    for n in range(len(going)):  # another replica was quicker
        rest = [week for week in weeks if week.name not in going[:n]]
        assert outlived(rest, now, settings) == going[n:]


# In nobody's way ---------------------------------------------------------------------------------


@pytest.mark.parametrize("sql", ["SELECT count(*) FROM history", "SELECT count(*) FROM {week}"])
async def test_a_reader_delays_a_drop_and_the_drop_delays_nobody(database, reader, conn, sql):
    now, oldest = await old_weeks(database)
    first = (await attached(conn))[0]
    async with reader.transaction():
        await reader.fetch(sql.format(week=first))
        pruning = asyncio.create_task(prune(database, now, MONTH))

        async def waits() -> None:
            assert await pending(conn) == [first] or first not in await attached(conn)

        await eventually(waits)
        for _ in range(10):
            await settles(database)
        assert first in await tables(conn)
        await partitions.make(database.engine, now + 10 * WEEK)
        assert not pruning.done()
        await reader.fetch("SELECT count(*) FROM history")
    pruned = await asyncio.wait_for(pruning, 10)
    assert first in pruned.dropped
    assert min(await tables(conn)) >= oldest


async def test_a_drop_never_ends_a_reader_that_saw_the_week_and_wants_it(database, reader, conn):
    """Its snapshot is older than the detach, so it still waits for the week; the drop gives way."""
    now, oldest = await old_weeks(database)
    first = (await attached(conn))[0]
    async with reader.transaction(isolation="repeatable_read"):
        await reader.fetch("SELECT 1 FROM task")
        pruning = asyncio.create_task(prune(database, now, MONTH))

        async def goes() -> None:
            assert first not in await attached(conn)

        await eventually(goes)
        for _ in range(20):
            await reader.fetch("SELECT count(*) FROM history")
    await asyncio.wait_for(pruning, 10)
    assert min(await tables(conn)) >= oldest


async def test_a_drop_that_a_reader_outlasts_is_finished_later(database, reader, conn, monkeypatch):
    monkeypatch.setattr(partitions, "TRIES", 2)
    now, oldest = await old_weeks(database)
    there = await attached(conn)
    async with reader.transaction():
        await reader.fetch("SELECT count(*) FROM history")
        pruned = await prune(database, now, MONTH)
        assert pruned.dropped == []
        assert pruned.left == [name for name in there if name < oldest]
        await settles(database)
    monkeypatch.undo()
    assert (await prune(database, now, MONTH)).dropped == pruned.left
    assert await pending(conn) == []
    assert min(await tables(conn)) >= oldest


async def test_the_engine_prunes_at_its_start_and_again_once_a_reader_is_gone(
    run_app: RunApp, reader, conn, database, monkeypatch
):
    monkeypatch.setattr(partitions, "TRIES", 1)
    monkeypatch.setattr("scheduler.engine.PRUNE_AGAIN_S", 1.0)
    _, oldest = await old_weeks(database)
    transaction = reader.transaction()
    await transaction.start()
    await reader.fetch("SELECT count(*) FROM history")

    async def gave_way() -> None:
        assert await pending(conn)
        pruning = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE '%prune'"
        assert await conn.fetchval(pruning) == 0

    async def is_gone() -> None:
        assert min(await tables(conn)) >= oldest

    async with run_app():
        await eventually(gave_way)
        await transaction.rollback()
        await eventually(is_gone)


# Crashes and replicas ----------------------------------------------------------------------------


async def test_a_crash_while_it_waits_for_readers_is_gone_on_from(database, reader, conn):
    now, oldest = await old_weeks(database)
    second = (await attached(conn))[1]
    async with reader.transaction():
        await reader.fetch("SELECT count(*) FROM history")
        await detach_until_cut(database, second)
    assert await pending(conn) == [second]
    await settles(database)
    await partitions.make(database.engine, now + 10 * WEEK)
    assert second in (await prune(database, now, MONTH)).dropped
    assert await pending(conn) == []
    assert min(await tables(conn)) >= oldest


async def test_a_crash_between_detach_and_drop_is_gone_on_from(database, conn):
    now, oldest = await old_weeks(database)
    first = (await attached(conn))[0]
    await conn.execute(f"ALTER TABLE history DETACH PARTITION {first} CONCURRENTLY")
    assert first in (await prune(database, now, MONTH)).dropped
    assert min(await tables(conn)) >= oldest


async def test_a_detach_that_is_no_longer_wanted_is_finished_and_its_rows_are_kept(
    database, reader, conn
):
    """The retention was made longer: the rows are not dropped, and nothing else is held up."""
    now, _ = await old_weeks(database)
    third = (await attached(conn))[2]
    async with reader.transaction():
        await reader.fetch("SELECT count(*) FROM history")
        await detach_until_cut(database, third)
    assert (await prune(database, now, config.History(retention_days=365))).dropped == []
    assert await pending(conn) == []
    assert third in await tables(conn)


async def test_replicas_may_prune_at_once(database_url, conn):
    replicas = [Database(database_url, config.Database()) for _ in range(3)]
    now, oldest = await old_weeks(replicas[0])
    old = [name for name in await attached(conn) if name < oldest]
    found = await asyncio.gather(*(prune(d, now, MONTH) for d in replicas))
    for database in replicas:
        await database.close()
    assert {name for pruned in found for name in pruned.dropped} == set(old)
    assert [pruned.left for pruned in found] == [[], [], []]
    assert await attached(conn) == await tables(conn)
    assert min(await tables(conn)) >= oldest

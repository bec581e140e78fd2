"""History: its partitions, under readers and other replicas, and the pages of executions."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import eventually
from scheduler import config, executions, history, queue
from scheduler.db import Database, ms, utc
from scheduler.history import Gap, partition_of, week_of
from scheduler.planner import new_run
from scheduler.run import Attempt, run_id
from test_queue import ALICE, BOB, ME, claim, definition, ended, enqueue, now_ms, tried

WEEK = timedelta(weeks=1)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    made = Database(database_url, config.Database())
    yield made
    await made.close()


async def partitions(conn: asyncpg.Connection) -> list[str]:
    rows = await conn.fetch(
        "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
        "WHERE i.inhparent = 'history'::regclass ORDER BY 1"
    )
    return [row[0] for row in rows]


# Partitions --------------------------------------------------------------------------------------


@given(st.datetimes(datetime(1990, 1, 1), datetime(9000, 1, 1), timezones=st.just(UTC)))
def test_a_week_begins_on_its_monday(at):
    week = week_of(at)
    assert week <= at < week + WEEK
    assert (week.weekday(), week.hour, week.minute, week.microsecond) == (0, 0, 0, 0)
    assert partition_of(week) < partition_of(week + WEEK)


async def test_partitions_are_made_from_last_week_to_four_weeks_ahead(database, conn):
    now = utc(now_ms()) + 10 * WEEK
    before = await partitions(conn)
    await history.make_partitions(database.engine, now)
    made = [name for name in await partitions(conn) if name not in before]
    assert made == [partition_of(week_of(now) + n * WEEK) for n in range(-1, 5)]
    await history.make_partitions(database.engine, now)
    assert len(await partitions(conn)) == len(before) + 6


async def test_two_replicas_make_partitions_at_once(database_url, conn):
    replicas = [Database(database_url, config.Database()) for _ in range(3)]
    now = utc(now_ms()) + 20 * WEEK
    await asyncio.gather(*(history.make_partitions(d.engine, now) for d in replicas))
    for database in replicas:
        await database.close()
    assert len(await partitions(conn)) == 6 + 6


async def test_a_partition_that_was_made_and_not_attached_is_attached(database, conn):
    now = utc(now_ms()) + 10 * WEEK
    await conn.execute(f"CREATE TABLE {partition_of(week_of(now))} (LIKE history INCLUDING ALL)")
    await history.make_partitions(database.engine, now)
    assert partition_of(week_of(now)) in await partitions(conn)


async def settles(database: Database) -> None:
    """Claim and settle a run; the settle waits for nobody."""
    now = now_ms()
    await enqueue(database, new_run(definition(), now))
    (run,) = await claim(database, now)
    async with database.engine.begin() as conn, asyncio.timeout(2):
        assert await queue.settle(conn, ME, [ended(run)]) == [run.id]


async def test_a_slow_reader_keeps_no_settle_waiting_while_partitions_are_made(
    database, database_url, conn
):
    reader = await asyncpg.connect(database_url)
    async with reader.transaction():
        await reader.fetch("SELECT count(*) FROM history")
        making = asyncio.create_task(
            history.make_partitions(database.engine, utc(now_ms()) + 10 * WEEK)
        )
        for _ in range(10):
            await settles(database)
        await asyncio.wait_for(making, 10)
    await reader.close()
    assert len(await partitions(conn)) == 12


async def test_partitions_that_ended_before_the_retention_are_dropped(database, conn):
    now = utc(now_ms())
    await history.make_partitions(database.engine, now - 8 * WEEK)
    there = await partitions(conn)
    dropped = await history.drop_partitions(database.engine, now - timedelta(days=30))
    oldest = partition_of(week_of(now - timedelta(days=30)))
    assert dropped == [name for name in there if name < oldest]
    assert dropped
    assert await partitions(conn) == [name for name in there if name >= oldest]
    for name in dropped:
        assert await conn.fetchval("SELECT to_regclass($1)", name) is None
    assert await history.drop_partitions(database.engine, now - timedelta(days=30)) == []


async def test_a_reader_delays_a_drop_and_the_drop_delays_no_settle(database, database_url, conn):
    now = utc(now_ms())
    await history.make_partitions(database.engine, now - 8 * WEEK)
    reader = await asyncpg.connect(database_url)
    async with reader.transaction():
        await reader.fetch("SELECT count(*) FROM history")
        dropping = asyncio.create_task(
            history.drop_partitions(database.engine, now - timedelta(days=30))
        )

        async def waits() -> None:
            assert await conn.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted")

        await eventually(waits)
        for _ in range(5):
            await settles(database)
        assert not dropping.done()
    await reader.close()
    assert await asyncio.wait_for(dropping, 10)


async def test_a_drop_that_a_long_reader_interrupted_is_finished_the_next_time(database_url, conn):
    settings = config.Database(statement_timeout_seconds=0.3)
    database, now = Database(database_url, settings), utc(now_ms())
    await history.make_partitions(database.engine, now - 8 * WEEK)
    there = len(await partitions(conn))
    reader = await asyncpg.connect(database_url)
    async with reader.transaction():
        await reader.fetch("SELECT count(*) FROM history")
        try:
            await history.drop_partitions(database.engine, now - timedelta(days=30))
        except Exception as e:
            assert "timeout" in str(e)
    await reader.close()
    await history.drop_partitions(database.engine, now - timedelta(days=30))
    await database.close()
    left = await partitions(conn)
    assert len(left) < there
    assert min(left) >= partition_of(week_of(now - timedelta(days=30)))
    pending = "SELECT count(*) FROM pg_inherits WHERE inhdetachpending"
    assert await conn.fetchval(pending) == 0


async def test_two_replicas_may_drop_at_once(database_url, conn):
    replicas = [Database(database_url, config.Database()) for _ in range(2)]
    now = utc(now_ms())
    await history.make_partitions(replicas[0].engine, now - 8 * WEEK)
    await asyncio.gather(
        *(history.drop_partitions(d.engine, now - timedelta(days=30)) for d in replicas),
        return_exceptions=True,
    )
    for database in replicas:  # whoever lost comes again in an hour
        await history.drop_partitions(database.engine, now - timedelta(days=30))
        await database.close()
    assert min(await partitions(conn)) >= partition_of(week_of(now - timedelta(days=30)))


# Executions --------------------------------------------------------------------------------------


async def finish(conn: asyncpg.Connection, of, at: int, attempts: int, **changes) -> uuid.UUID:
    """A row of history with so many attempts, that ended at `at`."""
    made = run_id(of.key, of.bucket, "task", at)
    tries = [
        f'{{"number":{n},"outcome":"failed","started_at":{at - 10},"finished_at":{at}}}'
        for n in range(1, attempts + 1)
    ]
    values = {"state": "failed", "service": of.service_id, "response": b"last", **changes}
    await conn.execute(
        "INSERT INTO history (id, bucket, service_id, task_key, task_id, kind, version, "
        "scheduled_for, state, reason, attempts, attempts_n, created_at, finished_at, response, "
        "truncated, count) VALUES ($1, $2, $3, $4, $5, 'task', 1, $6, $7, 'why', $8::text::jsonb, "
        "$9, $6, $6, $10, false, 1)",
        made, of.bucket, values["service"], of.key, of.id, utc(at), values["state"],
        f"[{','.join(tries)}]", attempts, values["response"],
    )  # fmt: skip
    return made


async def page(database: Database, of, number: int, count: int):
    async with database.engine.begin() as conn:
        return await executions.page(conn, of.line, of.id, utc(now_ms()), page=number, count=count)


@pytest.mark.parametrize("count", [1, 3, 4, 10, 1000])
async def test_pages_of_executions_hold_every_attempt_once_the_newest_first(database, conn, count):
    of, now = definition(overlap="allow"), now_ms()
    wanted = []
    # One under way after two attempts, one that waits for its second.
    for at, tries, held in ((now - 100, 2, True), (now - 200, 1, False)):
        await enqueue(database, new_run(of, at))
        (run,) = await claim(database, now)
        for n in range(tries):
            retry = tried(run, now - 50 if held else now + 60_000)
            async with database.engine.begin() as c:
                await queue.retry(c, ME, [retry])
            if held or n < tries - 1:
                (run,) = await claim(database, now)
        numbers = range(tries + held, 0, -1)
        wanted += [(run.id, n) for n in numbers]
    for n, attempts in enumerate((3, 0, 1, 7, 2, 0, 1)):
        made = await finish(conn, of, now - 1000 * (n + 1), attempts)
        wanted += [(made, number) for number in range(attempts, 0, -1)]
    await finish(conn, definition("other"), now, 4)
    found, number = [], 0
    while True:
        total, records = await page(database, of, number, count)
        assert total == len(wanted) == 18
        if not records:
            break
        assert len(records) <= count
        found += records
        number += 1
    assert [(uuid.UUID(r.run_id), r.attempt) for r in found] == wanted
    assert len({r.id for r in found}) == 18
    assert [r.status for r in found[:2]] == ["started", "failed"]
    last_of_a_run = [r for r in found if r.run_id == str(wanted[4][0])]
    assert [r.response for r in last_of_a_run] == ["last", None, None]


async def test_a_page_far_out_is_empty_and_still_counts(database, conn):
    of = definition()
    await finish(conn, of, now_ms(), 5)
    assert await page(database, of, 10**9, 1000) == (5, [])


async def test_a_damaged_row_of_history_is_shown_as_far_as_it_goes(database, conn):
    of, now = definition(), now_ms()
    await finish(conn, of, now - 10, 2)
    bad = await finish(conn, of, now, 2)
    await conn.execute("UPDATE history SET attempts = '{\"a\": 1}' WHERE id = $1", bad)
    total, records = await page(database, of, 0, 10)
    assert total == 4
    assert len(records) == 2
    async with database.engine.begin() as c:
        assert (await history.get(c, ALICE, bad)).attempts == []


async def test_a_finished_run_is_shown_to_its_service_alone(database, conn):
    made = await finish(conn, definition(), now_ms(), 1)
    async with database.engine.begin() as c:
        assert (await history.get(c, ALICE, made)).id == made
        assert await history.get(c, BOB, made) is None
        assert await history.get(c, ALICE, uuid.uuid4()) is None


async def test_how_a_task_last_ended_leaves_out_what_was_skipped_or_cancelled(database, conn):
    of, other, now = definition("a"), definition("b"), now_ms()
    await finish(conn, of, now - 30, 1, state="failed")
    await finish(conn, of, now - 20, 1, state="succeeded")
    await finish(conn, of, now - 10, 0, state="skipped")
    await finish(conn, of, now, 0, state="cancelled")
    await finish(conn, other, now, 0, state="skipped")
    async with database.engine.begin() as c:
        assert await history.last_ends(c, ALICE, [of.key, other.key]) == {of.key: "succeeded"}
        assert await history.last_ends(c, BOB, [of.key]) == {}


# Gaps --------------------------------------------------------------------------------------------


async def test_a_gap_of_any_length_is_one_row(database, conn):
    of, now = definition(), now_ms()
    gap = Gap(line=of.line, task_id=of.id, version=1, reason="misfire", count=2**40,
              first=0, last=now)  # fmt: skip
    async with database.engine.begin() as c:
        await history.record_gaps(c, [gap], utc(now))
        await history.record_gaps(c, [], utc(now))
    row = await conn.fetchrow("SELECT * FROM history")
    assert (row["count"], ms(row["gap_from"]), ms(row["gap_to"])) == (2**31 - 1, 0, now)
    assert row["id"] == run_id(of.key, of.bucket, "task", 0)
    assert row["attempts_n"] == 0


def test_an_attempt_has_an_id_of_its_own_that_is_always_the_same():
    run = history.Finished(
        id=uuid.uuid4(), kind="task", task_key=None, task_id="t", version=1, state="failed",
        reason=None, scheduled_for=0, created_at=0, started_at=0, finished_at=0,
        attempts=[Attempt(1, "failed"), Attempt(2, "failed")], response=None, truncated=False,
    )  # fmt: skip
    one, two = executions.last_of(run, "t"), executions.last_of(run, "t")
    assert one.id == two.id
    assert one.attempt == 2
    assert uuid.UUID(one.id).version == 5

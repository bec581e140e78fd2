"""History: the pages of executions, how a task last ended, and gaps."""

import uuid
from collections.abc import AsyncIterator

import asyncpg
import pytest

from scheduler import config, executions, history, queue
from scheduler.db import Database, ms, rfc3339, utc
from scheduler.history import Gap
from scheduler.planning import new_run
from scheduler.run import Attempt, run_id
from test_queue import ALICE, BOB, ME, claim, definition, enqueue, now_ms, tried


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    made = Database(database_url, config.Database())
    yield made
    await made.close()


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


async def test_an_attempt_is_created_when_it_starts(database, conn):
    of, now = definition(), now_ms()
    await finish(conn, of, now, 2)
    _, records = await page(database, of, 0, 10)
    assert [r.created_at for r in records] == [rfc3339(now - 10)] * 2
    await conn.execute("""UPDATE history SET attempts = '[{"number":1,"outcome":"failed"}]'""")
    _, records = await page(database, of, 0, 10)
    assert [r.created_at for r in records] == [rfc3339(now)]  # that of the run: it never started


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

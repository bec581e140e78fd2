"""`max_runs` and the end of a pause: counted through edits, downtimes, cancels and replicas."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import eventually
from scheduler import config, lines, planner, planning, queue, task
from scheduler.clock import Slice
from scheduler.db import Database, ms, utc
from scheduler.definition import Definition
from scheduler.instant import LAST
from scheduler.planning import DAY_MS, plan
from scheduler.run import NewRun, run_id
from scheduler.triggers import Bounds, Cron, Interval, Once, Without
from test_dispatcher import arrived, stored
from test_planner import HOUR, NOW, WINDOW, edit, every, gaps, instants, store, tick
from test_queue import ME, MINUTE, claim, definition, enqueue, now_ms

YEAR = 365 * DAY_MS


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    made = Database(database_url, config.Database())
    yield made
    await made.close()


def bounded(of: Definition, most: int | None = None, **bounds) -> Definition:
    """The same task with bounds."""
    return msgspec.structs.replace(of, bounds=Bounds(max_runs=most, **bounds))


def until(of: Definition, at: int, **more) -> Definition:
    """The same task, paused until `at`."""
    return msgspec.structs.replace(of, status="paused", paused_until=at, **more)


async def row(conn: asyncpg.Connection, of: Definition) -> asyncpg.Record:
    return await conn.fetchrow("SELECT * FROM task_plan WHERE key = $1", of.key)


async def accounted(conn: asyncpg.Connection, of: Definition) -> int:
    """How many of a task's own instants have a row, or lie in a gap."""
    return await conn.fetchval(
        "SELECT (SELECT count(*) FROM run WHERE task_key = $1 AND kind = 'task')"
        " + (SELECT coalesce(sum(count), 0) FROM history WHERE task_key = $1 AND kind = 'task')",
        of.key,
    )


# One pass, pure ----------------------------------------------------------------------------------


@given(
    st.integers(1, 60),
    st.integers(1, 40),
    st.sampled_from(["latest", "all", "skip"]),
    st.integers(0, 120),
    st.lists(st.integers(0, 300_000), min_size=1, max_size=12),
)
def test_over_all_passes_exactly_so_many_instants_are_made_or_counted(
    seconds, most, rule, grace, rests
):
    trigger = every(seconds, NOW)
    of = bounded(definition(trigger=trigger, misfire=rule, misfire_grace_seconds=grace), most)
    now, until, spent, seen = NOW - 1, NOW - 1, 0, []
    for rest in [*rests, 0, seconds * most * 1000, 0]:
        now += rest
        made = plan(of, until, spent, now, now + WINDOW)
        assert made.planned_until >= until
        until, spent = made.planned_until, spent + made.spent
        seen += made.instants
        assert spent <= most
        assert (made.next_plan_at is None) == (spent == most)
    assert spent == most
    assert seen == sorted(set(seen))
    assert all(at <= NOW + seconds * 1000 * (most - 1) for at in seen)


@given(st.integers(1, 50), st.sets(st.integers(0, 100)), st.integers(0, 60), st.integers(0, 60))
def test_instants_that_are_gone_are_no_instants(step, gone, after, length):
    trigger = Interval(step, "second", 0)
    some = Without(trigger, frozenset(at * 1000 for at in gone))
    after, last = after * 1000, (after + length) * 1000
    left = [at for at in trigger.between(after, last) if at // 1000 not in gone]
    assert list(some.between(after, last)) == left
    assert some.count(after, last) == len(left)
    assert some.last(after, last) == (left[-1] if left else None)
    following = some.next(after)
    assert following not in some.gone
    assert not left or following == left[0]


@given(
    st.sampled_from(["*/7 * * * *", "30 2 * * *", "0 3 1 */3 *", "0 12 29 2 *"]),
    st.sampled_from(["UTC", "Europe/Berlin"]),
    st.integers(0, 10 * YEAR // 1000),
    st.integers(1, 80),
    st.integers(0, 40),
    st.integers(0, 2 * YEAR),
)
def test_what_max_runs_leaves_are_the_first_so_many(cron, zone, after, most, spent, length):
    of = bounded(definition(trigger=Cron(cron, zone)), most)
    after = NOW + after * 1000 + 999
    until = after + length
    left = max(most - spent, 0)
    kept = planning.within(of, of.due, after, spent, until)
    expected = list(itertools.islice(of.trigger.between(after, until), left))
    assert (list(kept.between(after, until)) if kept else []) == expected


class Measured:
    """A cron's instants, and how much time was looked through for them."""

    def __init__(self, of: Cron) -> None:
        self.of, self.looked = of, 0

    def count(self, after: int, until: int) -> int:
        self.looked += max(until - after, 0)
        return self.of.count(after, until)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.of, name)


@pytest.mark.parametrize("until", [NOW + 20 * YEAR, LAST])
async def test_what_max_runs_leaves_costs_what_is_left_and_not_how_far_it_is_looked_for(until):
    cron = Measured(Cron("0 3 * * *", "Europe/Berlin"))
    of = bounded(definition(), 12)
    kept = planning.within(of, cron, NOW, 2, until)
    assert len(list(kept.between(NOW, until))) == 10
    assert cron.looked < 60 * DAY_MS
    cron.looked = 0
    assert await planning.counted(cron, NOW, until, 10, Slice()) == 10
    assert cron.looked < 60 * DAY_MS
    assert await planning.counted(cron, NOW, NOW + 5 * DAY_MS, 10, Slice()) == 5
    assert await planning.counted(cron, NOW, NOW - 1, 10, Slice()) == 0


def test_the_first_plan_counts_the_run_now():
    of = bounded(definition(trigger=every(1, NOW - 500)), 3)
    first = planning.first_plan(of, NOW, window_ms=WINDOW, at_once=True)
    assert [run.at for run in first.runs] == [NOW, NOW + 500, NOW + 1500]
    assert (first.row["runs"], first.row["next_plan_at"]) == (3, None)


def test_what_lies_beyond_the_end_is_neither_made_nor_counted():
    of = bounded(definition(trigger=every(1, NOW)), 10, start_at=NOW + 2000, end_at=NOW + 4000)
    made = plan(of, NOW - 1, 0, NOW, NOW + WINDOW)
    assert made.instants == [NOW + 2000, NOW + 3000, NOW + 4000]
    assert (made.spent, made.next_plan_at) == (3, None)


def test_jitter_moves_every_instant_of_a_task_alike_and_within_its_bound():
    one = bounded(definition(trigger=every(60, NOW)), jitter_ms=30_000)
    offset = one.bounds.offset(one.key)
    assert 0 <= offset <= 30_000
    made = plan(one, NOW - 1, 0, NOW, NOW + 3 * MINUTE + offset)
    assert made.instants == [NOW + offset + n * MINUTE for n in range(4)]
    others = {bounded(definition(), jitter_ms=30_000).bounds.offset(definition().key)
              for _ in range(50)}  # fmt: skip
    assert len(others) > 40


# Through edits -----------------------------------------------------------------------------------


async def test_an_edit_gives_back_what_it_takes_back(database, conn):
    start = now_ms()
    of = await store(database, bounded(definition(trigger=every(5, start + 30_000)), 4), start)
    assert (await row(conn, of))["planned_runs"] == 4
    of = await edit(database, of, trigger=every(20, start + 40_000))
    assert (await row(conn, of))["planned_runs"] == 2
    await tick(database, start + HOUR)
    assert await accounted(conn, of) == 4
    assert (await row(conn, of))["next_plan_at"] is None


async def test_a_task_that_is_spent_goes_on_where_an_edit_allows_more(database, conn):
    start = now_ms()
    of = await store(database, bounded(definition(trigger=every(1, start)), 2), start)
    assert len(await instants(conn, of)) == 2
    of = await edit(database, of, bounds=Bounds(max_runs=5))
    assert len(await instants(conn, of)) == 5
    of = await edit(database, of, bounds=Bounds(max_runs=3))
    assert len(await instants(conn, of)) == 3
    await tick(database, start + HOUR)
    assert await accounted(conn, of) == 3


async def test_a_held_instant_that_two_edits_do_not_want_is_given_back_once(database, conn):
    start = now_ms()
    of = bounded(definition(trigger=every(10, start + 5000), overlap="allow"), 3)
    of = await store(database, of, start)
    (held,) = await claim(database, start + 4500)
    for n in range(4):  # nobody has heard of any of them
        of = await edit(database, of, trigger=every(10, start + 20_000 + n))
    assert (await row(conn, of))["planned_runs"] == 3
    assert len(await instants(conn, of)) == 4
    async with database.engine.begin() as c:
        assert await queue.drop(c, ME, [held.id], of.version) == {held.id}
    assert await accounted(conn, of) == 3


async def test_a_held_instant_that_passes_during_an_edit_stays_counted(
    database, database_url, conn
):
    start = now_ms()
    of = bounded(definition(trigger=every(1, start + 700), overlap="allow"), 4)
    of = await store(database, of, start)
    (held,) = await claim(database, start, room=1)
    other = await asyncpg.connect(database_url)
    lock = other.transaction()
    await lock.start()
    await other.execute("SELECT FROM run WHERE claimed_by IS NULL FOR UPDATE")
    editing = asyncio.create_task(edit(database, of, name="other"))

    async def passed() -> None:
        assert await conn.fetchval("SELECT clock_timestamp() > $1", utc(start + 750))

    await eventually(passed)
    await lock.rollback()
    await other.close()
    of = await editing
    assert (await row(conn, of))["planned_runs"] == 4
    await tick(database, start + HOUR)
    assert await accounted(conn, of) == 4
    assert held.id in {r["id"] for r in await conn.fetch("SELECT id FROM run")}


async def cancel(database: Database, of: Definition, at: int) -> None:
    made = run_id(of.key, of.bucket, "task", at)
    async with database.engine.begin() as c:
        done, marked = await lines.cancel(c, of.service_id, [made], utc(now_ms()))
        assert done or marked


async def test_a_cancelled_instant_stays_cancelled_and_counted_through_any_edits(database, conn):
    start = now_ms()
    of = await store(database, bounded(definition(trigger=every(10, start + 9000)), 4), start)
    await cancel(database, of, start + 29_000)
    for n in range(3):  # on its grid, and off it
        of = await edit(database, of, name=f"n{n}")
        assert (await row(conn, of))["planned_runs"] == 4
        assert len(await instants(conn, of)) == 3
        assert start + 29_000 not in await instants(conn, of)
        of = await edit(database, of, trigger=every(10, start + 9000 + n + 1))
        assert len(await instants(conn, of)) == 3
        of = await edit(database, of, trigger=every(10, start + 9000))
    await tick(database, start + HOUR)
    assert await accounted(conn, of) == 4


async def test_a_cancelled_instant_does_not_come_back_when_a_pause_ends(database, conn):
    start = now_ms()
    of = await store(database, definition(trigger=every(10, start + 9000)), start)
    await cancel(database, of, start + 19_000)
    await cancel(database, of, start + 39_000)
    of = await edit(database, of, status="paused", paused_until=start + 25_000)
    await tick(database, start + 25_001)
    made = await instants(conn, of)
    assert made[:2] == [start + 29_000, start + 49_000]
    assert start + 39_000 not in made
    assert await gaps(conn, of) == [("paused", 1, start + 9000, start + 9000)]
    assert await conn.fetchval("SELECT count(*) FROM history WHERE state = 'cancelled'") == 2


async def test_a_run_that_is_to_be_cancelled_by_its_holder_is_not_made_anew(database, conn):
    start = now_ms()
    of = await store(database, definition(trigger=every(10, start + 5000)), start)
    (held,) = await claim(database, start + 4500)
    await cancel(database, of, start + 5000)
    async with database.engine.begin() as c:  # the holder stops, before it has heard
        await queue.release(c, ME, [held.id])
    for name in ("a", "b"):
        of = await edit(database, of, name=name)
    cancelled = await conn.fetch("SELECT scheduled_for, version FROM run WHERE cancelled")
    assert [(ms(r[0]), r[1]) for r in cancelled] == [(start + 5000, 3)]
    assert len(await instants(conn, of)) == len(set(await instants(conn, of)))


async def test_what_was_asked_for_by_hand_outlives_an_edit_while_it_is_held(database, conn):
    start = now_ms()
    of = await store(database, definition(trigger=every(60, start + HOUR)), start)
    extra = planning.new_run(of, start + 900)
    extra.kind, extra.id = "manual", run_id(of.key, of.bucket, "manual", 0, "x")
    await enqueue(database, extra)
    assert len(await claim(database, start)) == 1
    of = await edit(database, of, name="other")
    assert await conn.fetchval("SELECT version FROM run WHERE id = $1", extra.id) == of.version


async def test_an_instant_of_the_new_trigger_that_passes_during_the_edit_is_due(
    database, database_url, conn
):
    start = now_ms()
    of = await store(database, definition(trigger=every(1, start)), start)
    soon = start + 400
    other = await asyncpg.connect(database_url)
    lock = other.transaction()
    await lock.start()
    await other.execute("SELECT FROM run FOR UPDATE")
    editing = asyncio.create_task(edit(database, of, trigger=Once(soon)))

    async def passed() -> None:
        assert await conn.fetchval("SELECT clock_timestamp() > $1", utc(soon + 50))

    await eventually(passed)
    await lock.rollback()
    await other.close()
    await editing
    assert soon in await instants(conn, of)


EDITS = st.sampled_from(["tick", "rename", "shift", "slow", "pause", "resume", "cancel", "claim",
                         "release", "drop", "skip"])  # fmt: skip


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 8), st.lists(st.tuples(EDITS, st.integers(0, 9)), max_size=10))
async def test_whatever_happens_there_are_never_more_instants_than_allowed_and_in_the_end_as_many(
    database, conn, most, steps
):
    """In real time: an edit reads the database's clock. Then time goes on."""
    await conn.execute("TRUNCATE task, task_plan, run, history")
    start = now_ms()
    of = bounded(definition(trigger=every(7, start), overlap="allow", misfire="all"), most)
    of = await store(database, of, start)
    for step, n in steps:
        of = await _step(database, conn, of, step, n)
        assert (await row(conn, of))["planned_runs"] <= most
    if of.status == "paused":
        of = await edit(database, of, status="active", paused_until=None)
    async with database.engine.begin() as c:  # the holder hears of everything
        held = await queue.adopt(c, ME)
        await queue.drop(c, ME, [run.id for run in held], of.version)
        await queue.release(c, ME, [run.id for run in held])
    for hours in (1, 2):
        await tick(database, start + hours * HOUR)
    assert await accounted(conn, of) == most
    assert (await row(conn, of))["planned_runs"] == most
    assert (await row(conn, of))["next_plan_at"] is None
    twice = "SELECT id FROM history JOIN run USING (id) UNION ALL SELECT id FROM history"
    ids = [r["id"] for r in await conn.fetch(twice)]
    assert len(ids) == len(set(ids))


async def _step(
    database: Database, conn: asyncpg.Connection, of: Definition, step: str, n: int
) -> Definition:
    if step == "tick":
        await tick(database, now_ms())
    elif step == "rename":
        of = await edit(database, of, name=f"n{n}")
    elif step == "shift":
        of = await edit(database, of, trigger=every(7, of.trigger.anchor + n * 300))
    elif step == "slow":
        of = await edit(database, of, trigger=every(7 + 10 * n, of.trigger.anchor))
    elif step == "pause" and of.status == "active":
        of = await edit(database, of, status="paused")
    elif step == "resume" and of.status == "paused":
        of = await edit(database, of, status="active")
    elif step in ("cancel", "claim", "skip"):
        future = await instants(conn, of)
        if n < len(future):
            await _to_one(database, conn, of, step, future[n])
    elif step in ("release", "drop"):
        async with database.engine.begin() as c:
            held = [run.id for run in await queue.adopt(c, ME)]
            dropped = await queue.drop(c, ME, held, of.version)
            if step == "release":
                await queue.release(c, ME, [key for key in held if key not in dropped])
    return of


async def _to_one(
    database: Database, conn: asyncpg.Connection, of: Definition, step: str, at: int
) -> None:
    made = run_id(of.key, of.bucket, "task", at)
    if step == "cancel":
        async with database.engine.begin() as c:
            await lines.cancel(c, of.service_id, [made], utc(now_ms()))
    elif step == "claim":
        await conn.execute("UPDATE run SET claimed_by = $1 WHERE id = $2", ME, made)


# The end of a pause ------------------------------------------------------------------------------


async def test_a_pause_that_ends_by_itself_is_one_gap_and_the_grid_goes_on(database, conn):
    start = now_ms()
    of = until(definition(trigger=every(10, start + 5000)), start + 27_000)
    await store(database, of, start)
    assert await instants(conn, of) == []
    assert await tick(database, start + 26_999) == 0
    assert await gaps(conn, of) == []
    await tick(database, start + 27_000)
    assert await gaps(conn, of) == [("paused", 3, start + 5000, start + 25_000)]
    made = await instants(conn, of)
    assert made[0] == start + 35_000
    assert all(b - a == 10_000 for a, b in itertools.pairwise(made))
    after = await conn.fetchrow("SELECT status, paused_until, version FROM task")
    assert tuple(after) == ("active", None, 2)


async def test_what_came_after_a_pause_that_nobody_ended_in_time_is_judged_as_missed(
    database, conn
):
    start = now_ms()
    of = until(definition(trigger=every(60, start), misfire="skip"), start + 10 * MINUTE)
    await store(database, of, start)
    await tick(database, start + HOUR + 1000)
    assert [gap[:2] for gap in await gaps(conn, of)] == [("paused", 9), ("misfire", 50)]
    assert (await instants(conn, of))[0] == start + HOUR


async def test_the_instants_of_a_pause_count_among_the_most_that_are_due(database, conn):
    start = now_ms()
    of = until(bounded(definition(trigger=every(10, start + 5000)), 4), start + 27_000)
    await store(database, of, start)
    await tick(database, start + 27_000)
    assert await gaps(conn, of) == [("paused", 3, start + 5000, start + 25_000)]
    assert await instants(conn, of) == [start + 35_000]
    assert (await row(conn, of))["next_plan_at"] is None


async def test_several_planners_end_a_pause_once(database_url, conn):
    database, start = Database(database_url, config.Database(engine_pool=6)), now_ms()
    tasks = [until(definition(f"t{n}", every(3, start + n)), start + 20_000) for n in range(40)]
    async with database.engine.begin() as c:
        for of in tasks:
            await task.create(c, of)
            await planner.create(c, of, start, window_ms=WINDOW, at_once=False)
    await asyncio.gather(*(tick(database, start + 20_001, batch=7) for _ in range(6)))
    await database.close()
    assert await conn.fetchval("SELECT array_agg(DISTINCT version) FROM task") == [2]
    counted = await conn.fetchval("SELECT sum(count) FROM history WHERE reason = 'paused'")
    assert counted == sum(of.trigger.count(start, start + 20_000) for of in tasks)
    assert await conn.fetchval("SELECT count(*) - count(DISTINCT id) FROM run") == 0


async def test_an_edit_after_the_end_of_a_pause_that_nobody_has_seen_yet_counts_to_the_end(
    database, conn
):
    start = now_ms() - 10_000
    of = definition(trigger=every(1, start), misfire="all")
    await store(database, until(of, start + 4000), start)
    resumed = until(of, start + 4000)
    of = await edit(database, resumed, status="active", paused_until=None)
    assert await gaps(conn, of) == [("paused", 3, start + 1000, start + 3000)]
    made = await instants(conn, of)
    assert made == list(of.trigger.between(start + 3999, made[-1]))


async def test_what_waited_during_a_pause_is_run_as_the_task_stands_after_it(database, conn):
    """A run by hand of an older version would be dropped as stale by whoever claims it."""
    start = now_ms()
    of = until(definition(trigger=every(10, start + 5000)), start + 27_000)
    await store(database, of, start)
    extra = NewRun(
        id=run_id(of.key, of.bucket, "manual", 0, "x"), bucket=of.bucket, kind="manual",
        service_id=of.service_id, task_key=of.key, task_id=of.id, version=1, overlap="skip",
        at=start + 30_000, lanes=1,
    )  # fmt: skip
    await enqueue(database, extra)
    await tick(database, start + 27_000)
    assert await conn.fetchval("SELECT version FROM run WHERE id = $1", extra.id) == 2


async def test_what_is_due_right_after_a_pause_fires_at_its_instant(replica, receiver, conn):
    engines = [await replica(PREQUEUER_TICKER_INTERVAL_SECONDS="3600") for _ in range(2)]
    end = now_ms() + 600
    of = definition(trigger=Interval(1, "hour", end + 30), url=receiver.url + "/")
    await stored(engines[0].database, until(of, end))
    for engine in engines:
        engine.resume_at(end)
    await eventually(arrived(receiver, 1))
    lag = receiver.requests[0].at * 1000 - (end + 30)
    assert 0 <= lag < 500
    assert await conn.fetchval("SELECT version FROM task") == 2

"""The dispatcher: holds to the instant, in turn, within its bounds; recalls, fences, adopts."""

import asyncio
import time
import uuid
from collections import Counter
from datetime import datetime

import asyncpg
import msgspec
import pytest
from sqlalchemy import text

from conftest import eventually
from receiver import Receiver
from scheduler import config, planner, planning, task
from scheduler.db import Database, ms, utc
from scheduler.definition import Definition
from scheduler.engine import Engine
from scheduler.holdings import Rate, Ready
from scheduler.run import run_id
from scheduler.triggers import Bounds, Interval, Once
from test_planner import edit
from test_queue import ALICE, BOB, definition, enqueue, now_ms
from test_runner import run_of

pytestmark = pytest.mark.alone

SERVICE = text("""
INSERT INTO service (id, name, allow_commands, created_at, updated_at)
VALUES (:id, :name, false, now(), now()) ON CONFLICT DO NOTHING
""")


async def stored(database: Database, *tasks: Definition) -> None:
    """Store tasks with what falls due of them in the next minute."""
    now = now_ms()
    async with database.engine.begin() as conn:
        for service in {of.service_id for of in tasks}:  # else what is late is nobody's
            await conn.execute(SERVICE, {"id": service, "name": str(service)})
        for of in tasks:
            await task.create(conn, of)
            await planner.create(conn, of, now, window_ms=60_000, at_once=False)


def once(receiver: Receiver, n: int, at: int, **more) -> Definition:
    return definition(f"t{n}", Once(at), url=f"{receiver.url}/{n}", **more)


def arrived(receiver: Receiver, n: int):
    def check() -> None:
        assert len(receiver.requests) >= n

    return check


async def no_run_left(conn: asyncpg.Connection) -> None:
    assert await conn.fetchval("SELECT count(*) FROM run") == 0


# Ready runs --------------------------------------------------------------------------------------


def test_services_are_taken_in_turn_whatever_their_backlogs():
    ready, busy = Ready(), Counter()
    for n in range(100):
        ready.push(run_of(definition(f"a{n}"), n))
    for n in range(2):
        ready.push(run_of(definition(f"b{n}", service=BOB), 1000 + n))
    taken = [ready.pop(busy, lambda _: 10).service_id for _ in range(5)]
    assert taken == [ALICE, BOB, ALICE, BOB, ALICE]


def test_within_a_service_priority_goes_first_and_then_the_earliest():
    ready, busy = Ready(), Counter()
    for due, priority in ((3, 0), (1, 0), (9, 5), (2, 0), (1, -5), (8, 5)):
        ready.push(run_of(definition(), due, priority=priority))
    taken = []
    while ready:
        run = ready.pop(busy, lambda _: 10)
        taken.append((run.priority, run.due))
    assert taken == [(5, 8), (5, 9), (0, 1), (0, 2), (0, 3), (-5, 1)]
    assert ready.pop(busy, lambda _: 10) is None


def test_a_service_that_has_its_share_is_passed_over_and_keeps_its_turn():
    ready, busy = Ready(), Counter({ALICE: 3})
    ready.push(run_of(definition(), 1))
    ready.push(run_of(definition(service=BOB), 2))
    assert ready.pop(busy, lambda _: 3).service_id == BOB
    assert ready.pop(busy, lambda _: 3) is None
    assert ready
    busy[ALICE] = 2
    assert ready.pop(busy, lambda _: 3).service_id == ALICE


def test_a_process_that_has_measured_nothing_may_hold_the_most(monkeypatch):
    rate = Rate(10_000, 100)
    assert rate.room == 10_000
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 1.001)
    for _ in range(500):
        rate.done(saturated=True)
    assert 100 <= rate.room <= 10_000


# To the instant ----------------------------------------------------------------------------------


async def test_nothing_leaves_early_and_little_leaves_late(replica, receiver, conn):
    engine = await replica()
    at = now_ms() + 2000
    tasks = [once(receiver, n, at + n) for n in range(300)]
    await stored(engine.database, *tasks)
    engine.dispatcher.wake()

    def all_held() -> None:
        assert engine.dispatcher.held == 300

    await eventually(all_held)
    assert receiver.requests == []
    assert await conn.fetchval("SELECT count(*) FROM run WHERE claimed_by IS NOT NULL") == 300
    await eventually(arrived(receiver, 300))
    lags = sorted(r.at * 1000 - (at + int(r.path[1:])) for r in receiver.requests)
    assert len(lags) == 300
    assert lags[0] >= 0
    assert lags[150] < 100
    assert lags[-1] < 1000
    await eventually(lambda: no_run_left(conn))
    states = await conn.fetch("SELECT DISTINCT state, attempts_n FROM history")
    assert [tuple(row) for row in states] == [("succeeded", 1)]


async def test_a_due_run_is_found_by_the_poll_alone(replica, receiver):
    engine = await replica()
    await stored(engine.database, once(receiver, 1, now_ms() + 50))
    await eventually(arrived(receiver, 1))


async def test_the_overdue_of_every_service_is_claimed(replica, receiver, conn):
    engine = await replica()
    services = [uuid.UUID(row["id"].hex) for row in await _services(conn, 3)]
    now = now_ms()
    for n, service in enumerate(services):
        of = definition(service=service, url=f"{receiver.url}/{n}")
        async with engine.database.engine.begin() as c:
            await task.create(c, of)
        await enqueue(engine.database, planning.new_run(of, now - 30_000))
    engine.dispatcher._claims._services_at = 0.0
    await eventually(arrived(receiver, 3))
    assert {r.path for r in receiver.requests} == {"/0", "/1", "/2"}


async def _services(conn: asyncpg.Connection, n: int) -> list[asyncpg.Record]:
    return await conn.fetch(
        "INSERT INTO service SELECT gen_random_uuid(), 's' || n, false, now(), now() "
        "FROM generate_series(1, $1) AS n RETURNING id", n
    )  # fmt: skip


# Bounds ------------------------------------------------------------------------------------------


async def test_one_service_holds_no_more_than_its_share_of_the_workers(replica, receiver):
    engine = await replica(WORKER_COUNT="8", WORKER_SERVICE_SHARE="0.75")
    never, now = asyncio.Event(), now_ms()
    for _ in range(20):
        receiver.then(after=never)
    await stored(engine.database, *(once(receiver, n, now + 20) for n in range(20)))
    await eventually(arrived(receiver, 6))
    bobs = [once(receiver, 100 + n, now_ms() + 20, service=BOB) for n in range(3)]
    await stored(engine.database, *bobs)
    await eventually(arrived(receiver, 8))  # bob's have the two workers that are left
    paths = [int(r.path[1:]) for r in receiver.requests]
    assert sum(path < 100 for path in paths) == 6
    assert engine.dispatcher.crew.in_flight == 8
    never.set()
    await eventually(arrived(receiver, 23))


async def test_no_more_is_held_than_the_setting_allows(replica, receiver, conn):
    engine = await replica(WORKER_MAX_HELD="20", WORKER_COUNT="5")
    at = now_ms() + 400
    await stored(engine.database, *(once(receiver, n, at) for n in range(150)))
    engine.dispatcher.wake()
    most = 0

    def all_there() -> None:
        nonlocal most
        most = max(most, engine.dispatcher.held)
        assert len(receiver.requests) == 150

    await eventually(all_there)
    assert 10 <= most <= 20
    await eventually(lambda: no_run_left(conn))


async def test_two_services_together_fill_what_may_be_held(replica, receiver):
    engine = await replica(WORKER_MAX_HELD="40")
    at = now_ms() + 900
    tasks = [once(receiver, n, at, service=(ALICE, BOB)[n % 2]) for n in range(80)]
    await stored(engine.database, *tasks)
    engine.dispatcher.wake()

    def full() -> None:
        assert engine.dispatcher.held >= 36

    await eventually(full, 0.7)
    await eventually(arrived(receiver, 80))


async def test_over_so_many_unwritten_outcomes_nothing_more_is_sent(
    replica, receiver, database_url
):
    engine = await replica(WORKER_MAX_UNSETTLED="10", WORKER_COUNT="4")
    locking = await asyncpg.connect(database_url)
    async with locking.transaction():
        await locking.execute("LOCK TABLE history")
        at = now_ms() + 100
        await stored(engine.database, *(once(receiver, n, at) for n in range(60)))

        def full() -> None:
            assert engine.settler.unsettled >= 10
            assert engine.dispatcher.crew.in_flight == 0

        await eventually(full)
        assert not engine.dispatcher.may_send
        assert 10 <= len(receiver.requests) <= 10 + 4
    await locking.close()
    await eventually(arrived(receiver, 60))
    assert len(receiver.requests) == 60


# The fence ---------------------------------------------------------------------------------------


async def holding(engine: Engine, receiver: Receiver, n: int, ahead_ms: int = 600) -> int:
    """Let the engine hold so many runs, due in a moment; return when."""
    at = now_ms() + ahead_ms
    await stored(engine.database, *(once(receiver, i, at) for i in range(n)))
    engine.dispatcher.wake()

    def held() -> None:
        assert engine.dispatcher.held == n

    await eventually(held)
    return at


async def past(engine: Engine, at: int) -> None:
    def check() -> None:
        assert engine.clock.earliest_ms() > at

    await eventually(check)


async def test_a_process_that_is_not_fresh_sends_and_claims_nothing(replica, receiver, conn):
    engine = await replica()
    engine._ticks.pause()  # no beat makes it fresh again
    at = await holding(engine, receiver, 5)
    async with engine.dispatcher._claiming:  # no look at the queue is under way
        engine.membership._acknowledged = float("-inf")
    more = once(receiver, 99, at)
    await stored(engine.database, more)
    await past(engine, at + 100)
    engine.dispatcher.wake()
    engine.dispatcher.crew.pump()
    assert receiver.requests == []
    assert await conn.fetchval("SELECT claimed_by FROM run WHERE task_key = $1", more.key) is None
    await engine._beat()
    engine.dispatcher.wake()
    await eventually(arrived(receiver, 6))


async def test_a_process_taken_for_dead_drops_what_is_unsent_and_each_run_goes_once(
    replica, receiver, conn
):
    engine = await replica()
    before = engine.membership.me
    await holding(engine, receiver, 20, ahead_ms=900)
    await conn.execute("DELETE FROM replica")
    await engine._beat()  # it learns of it here
    assert engine.membership.me != before
    assert engine.dispatcher.held == 0
    async with engine.database.engine.begin() as c:
        assert await engine.membership.free_orphans(c) == 20
    engine.dispatcher.wake()
    await eventually(arrived(receiver, 20))
    await eventually(lambda: no_run_left(conn))
    assert len({r.header("Idempotency-Key") for r in receiver.requests}) == 20
    assert len(receiver.requests) == 20


async def test_runs_that_name_this_process_and_that_it_does_not_know_are_adopted(
    replica, receiver, conn
):
    engine = await replica()
    of = definition(url=receiver.url + "/")
    async with engine.database.engine.begin() as c:
        await task.create(c, of)
    run = planning.new_run(of, now_ms())
    run.claimed_by = engine.membership.me  # committed, but the answer was lost
    await enqueue(engine.database, run)
    engine.dispatcher._claims._adopt_at = 0.0
    await eventually(arrived(receiver, 1))
    await eventually(lambda: no_run_left(conn))


async def test_a_run_about_to_be_handed_over_is_not_adopted(replica, receiver, conn):
    engine = await replica()
    of = definition(url=receiver.url + "/")
    async with engine.database.engine.begin() as c:
        await task.create(c, of)
    run = planning.new_run(of, now_ms())
    run.claimed_by = engine.dispatcher.expect(run.id)
    await enqueue(engine.database, run)
    async with engine.database.auto.connect() as c:
        await engine.dispatcher._claims.adopt(c)
    assert receiver.requests == []
    handed = run_of(of, run.at, claimed_by=run.claimed_by)
    engine.runner.equip(handed, of)
    engine.dispatcher.hand_over(handed)
    async with engine.database.auto.connect() as c:
        await engine.dispatcher._claims.adopt(c)
    await eventually(lambda: no_run_left(conn))
    assert len(receiver.requests) == 1


# Recall ------------------------------------------------------------------------------------------


async def test_a_held_run_that_an_edit_took_back_is_dropped(replica, receiver, conn):
    engine = await replica()
    of = once(receiver, 1, now_ms() + 700)
    await stored(engine.database, of)
    engine.dispatcher.wake()

    def held(n: int) -> None:
        assert engine.dispatcher.held == n

    await eventually(lambda: held(1))
    await edit(engine.database, of, trigger=Once(of.trigger.at + 3_600_000))
    engine.dispatcher.recall(of.key)
    await eventually(lambda: held(0))
    await eventually(lambda: no_run_left(conn))
    await past(engine, of.trigger.at + 50)
    assert receiver.requests == []


async def test_a_held_run_that_an_edit_still_wants_goes_as_the_task_stands_now(
    replica, receiver, conn
):
    engine = await replica()
    of = once(receiver, 1, now_ms() + 700)
    await stored(engine.database, of)
    engine.dispatcher.wake()

    def held() -> None:
        assert engine.dispatcher.held == 1

    await eventually(held)
    action = msgspec.structs.replace(of.action, url=receiver.url + "/new")
    await edit(engine.database, of, action=action)
    engine.dispatcher.recall(of.key)
    await eventually(arrived(receiver, 1))
    (request,) = receiver.requests
    assert request.path == "/new"
    assert request.at * 1000 >= of.trigger.at
    await eventually(lambda: no_run_left(conn))
    assert await conn.fetchval("SELECT version FROM history") == 2


async def test_the_held_runs_of_a_deleted_task_are_not_sent(replica, receiver, conn):
    engine = await replica()
    of = once(receiver, 1, now_ms() + 600)
    await stored(engine.database, of)
    engine.dispatcher.wake()

    def held(n: int) -> None:
        assert engine.dispatcher.held == n

    await eventually(lambda: held(1))
    async with engine.database.engine.begin() as c:
        await planner.remove(c, of.line)
        await task.remove(c, of.line)
    engine.dispatcher.recall(of.key)
    await eventually(lambda: held(0))
    await eventually(lambda: no_run_left(conn))
    await past(engine, of.trigger.at + 50)
    assert receiver.requests == []


async def test_two_runs_of_a_line_that_one_process_holds_go_one_after_the_other(
    replica, receiver, conn
):
    engine = await replica()
    of = definition(url=receiver.url + "/", overlap="queue")
    async with engine.database.engine.begin() as c:
        await task.create(c, of)
    first_may_end, now = asyncio.Event(), now_ms()
    receiver.then(after=first_may_end)
    runs = [planning.new_run(of, now - n) for n in range(3)]
    for run in runs:  # as if they had been claimed before an edit made them a line
        run.claimed_by = engine.membership.me
    await enqueue(engine.database, *runs)
    engine.dispatcher._claims._adopt_at = 0.0
    await eventually(arrived(receiver, 1))

    async def given_back() -> None:
        free = await conn.fetchval("SELECT count(*) FROM run WHERE claimed_by IS NULL")
        assert free == 2

    await eventually(given_back)
    assert len(receiver.requests) == 1
    first_may_end.set()
    await eventually(arrived(receiver, 3))
    await eventually(lambda: no_run_left(conn))


async def test_what_falls_due_during_a_long_run_is_skipped_and_the_grid_goes_on(
    replica, receiver, conn
):
    engine = await replica()
    start, may_end = now_ms(), asyncio.Event()
    of = definition(trigger=Interval(1, "second", start + 100), url=receiver.url + "/")
    receiver.then(after=may_end)
    await stored(engine.database, of)
    await eventually(arrived(receiver, 1))
    await past(engine, start + 2300)
    may_end.set()
    await eventually(arrived(receiver, 2))
    second = ms(
        await conn.fetchval("SELECT scheduled_for FROM run UNION SELECT scheduled_for "
                            "FROM history WHERE state = 'succeeded' ORDER BY 1 LIMIT 1")
    )  # fmt: skip
    assert second == start + 100
    scheduled = receiver.requests[1].header("X-Scheduler-Scheduled-For")
    rows = await conn.fetch("SELECT count, reason FROM history WHERE state = 'skipped'")
    skipped = sum(row["count"] for row in rows)
    assert {row["reason"] for row in rows} == {"overlap"}
    made = (start + 100 + 1000 * (skipped + 1)) / 1000
    assert scheduled.endswith("Z")
    assert abs(msgspec.convert(scheduled, type=datetime).timestamp() - made) < 0.001


# Stop --------------------------------------------------------------------------------------------


async def stopped(engine: Engine) -> None:
    """What the engine does at its stop, but for leaving: that is the fixture's part."""
    await engine.dispatcher.stop()
    await engine.settler.drained()


async def test_a_stop_gives_back_what_is_unsent_and_finishes_what_is_under_way(
    replica, receiver, conn
):
    engine = await replica()
    may_end = asyncio.Event()
    receiver.then(after=may_end)
    await stored(engine.database, once(receiver, 0, now_ms() + 20))
    await eventually(arrived(receiver, 1))
    at = now_ms() + 950
    await stored(engine.database, *(once(receiver, n, at) for n in range(1, 6)))
    engine.dispatcher.wake()

    def held() -> None:
        assert engine.dispatcher.held == 5

    await eventually(held)
    stopping = asyncio.create_task(stopped(engine))

    async def given_back() -> None:
        free = await conn.fetchval("SELECT count(*) FROM run WHERE claimed_by IS NULL")
        assert free == 5

    await eventually(given_back)
    may_end.set()
    await asyncio.wait_for(stopping, 5)
    engine.dispatcher.wake()
    assert len(receiver.requests) == 1
    rows = await conn.fetch("SELECT state, attempts_n FROM history")
    assert [tuple(row) for row in rows] == [("succeeded", 1)]
    assert await conn.fetchval("SELECT max(attempts_n) FROM run") == 0


async def test_a_call_cut_at_the_deadline_is_unknown_and_comes_again(replica, receiver, conn):
    engine = await replica(WORKER_DRAIN_SECONDS="0.1")
    receiver.then(after=asyncio.Event())
    await stored(engine.database, once(receiver, 0, now_ms() + 20))
    await eventually(arrived(receiver, 1))
    await asyncio.wait_for(stopped(engine), 5)
    row = await conn.fetchrow("SELECT * FROM run")
    assert (row["claimed_by"], row["attempts_n"]) == (None, 1)
    assert '"unknown"' in row["attempts"]
    assert row["due"] > utc(now_ms())


async def test_who_waits_for_a_run_gets_its_outcome_once_it_is_written(replica, receiver, conn):
    engine = await replica()
    of = once(receiver, 1, now_ms() + 30)
    made = run_id(of.key, of.bucket, "task", of.trigger.at)
    waiter = engine.dispatcher.wait_for(made)
    await stored(engine.database, of)
    outcome = await asyncio.wait_for(waiter, 5)
    assert outcome.run.id == made
    assert await conn.fetchval("SELECT state FROM history WHERE id = $1", made) == "succeeded"
    unknown = uuid.uuid4()
    engine.dispatcher.give_up(unknown, engine.dispatcher.wait_for(unknown))


@pytest.mark.parametrize(("misfire", "calls"), [("latest", 1), ("skip", 1), ("all", 5)])
async def test_what_was_missed_within_grace_overlaps_the_first_of_it_that_starts(
    database_url: str, conn, receiver, replica, misfire: str, calls: int
):
    """Nothing claimed for five seconds; then the head of the line goes, and is done in no time."""
    database = Database(database_url, config.Database())
    start = (now_ms() // 1000 - 6) * 1000
    of = definition("t", Interval(1, "second", start), url=f"{receiver.url}/", misfire=misfire)
    of = msgspec.structs.replace(of, bounds=Bounds(end_at=start + 5500))
    async with database.engine.begin() as c:
        await c.execute(SERVICE, {"id": of.service_id, "name": "s"})
        await task.create(c, of)
        await planner.create(c, of, start, window_ms=60_000, at_once=False)
    assert await conn.fetchval("SELECT count(*) FROM run") == 5
    await replica()
    await eventually(lambda: no_run_left(conn))
    assert len(receiver.requests) == calls
    rows = await conn.fetch("SELECT state, reason, count FROM history ORDER BY scheduled_for")
    assert [tuple(row) for row in rows][1:2] == (
        [("skipped", "overlap", 4)] if calls == 1 else [("succeeded", None, 1)]
    )
    await database.close()

"""Lanes: of a task with `max_concurrency` at most so many go at once, on however many replicas."""

import asyncio
import random
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from uuid import UUID

import asyncpg
import msgspec
import pytest

from conftest import eventually
from scheduler import config, planner, queue, task
from scheduler.db import Database
from scheduler.definition import Definition
from scheduler.planning import new_run
from scheduler.run import run_id
from test_cancel import create
from test_dispatcher import arrived, no_run_left, once, stored
from test_planner import edit
from test_queue import (
    ALICE,
    BOB,
    MINUTE,
    claim,
    claim_late,
    definition,
    ended,
    enqueue,
    now_ms,
    tried,
)

pytestmark = pytest.mark.alone


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    made = Database(database_url, config.Database(engine_pool=8))
    yield made
    await made.close()


def laned(most: int, **more) -> Definition:
    return definition(overlap=more.pop("overlap", "allow"), max_concurrency=most, **more)


def by_hand(of: Definition, at: int):
    run = new_run(of, at)
    return msgspec.structs.replace(
        run, kind="manual", id=run_id(of.key, of.bucket, "manual", 0, str(uuid.uuid4()))
    )


async def held(conn: asyncpg.Connection) -> int:
    return await conn.fetchval("SELECT count(*) FROM run WHERE claimed_by IS NOT NULL")


def test_lanes_are_what_the_policy_says():
    def lanes(**policy) -> int | None:
        return definition(**policy).lanes

    assert lanes() == lanes(overlap="skip", max_concurrency=5) == 1
    assert lanes(overlap="queue") == 1
    assert lanes(overlap="queue", max_concurrency=3) == 3
    assert lanes(overlap="allow") is None
    assert lanes(overlap="allow", max_concurrency=3) == 3
    assert new_run(definition(overlap="allow", max_concurrency=7, priority=5), 0).lanes == 7
    assert new_run(definition(priority=5), 0).priority == 5


@pytest.mark.parametrize("most", [1, 2, 3, 10])
async def test_the_first_so_many_in_line_are_claimed_and_no_more(database, most):
    of, now = laned(most), now_ms()
    runs = [new_run(of, now - n) for n in range(6)]
    hand = by_hand(of, now - 10)
    await enqueue(database, *runs, hand)
    claimed = await claim(database, now)
    line = [hand, *reversed(runs)]
    assert [r.id for r in claimed] == [r.id for r in line[:most]]
    assert await claim(database, now) == []


async def test_the_end_of_any_lets_the_next_in(database):
    of, now = laned(3), now_ms()
    await enqueue(database, *(new_run(of, now - n) for n in range(9, 0, -1)))
    claimed = await claim(database, now)
    order = [r.scheduled_for for r in claimed]
    while claimed:
        done = claimed.pop(len(claimed) // 2)
        async with database.engine.begin() as c:
            await queue.settle(c, done.claimed_by, [ended(done)])
        following = await claim(database, now)
        assert len(following) == (len(order) < 9)
        claimed += following
        order += [r.scheduled_for for r in following]
    assert order == [now - n for n in range(9, 0, -1)]


async def test_a_run_that_waits_for_a_retry_keeps_its_lane(database):
    of, now = laned(2), now_ms()
    await enqueue(database, *(new_run(of, now - n) for n in range(5, 0, -1)))
    first, _ = await claim(database, now)
    async with database.engine.begin() as c:
        await queue.retry(c, first.claimed_by, [tried(first, now + MINUTE)])
    assert await claim(database, now) == []
    assert [r.id for r in await claim(database, now + MINUTE)] == [first.id]


async def test_lanes_of_one_task_are_not_in_anothers_way(database):
    now = now_ms()
    tasks = [laned(n, name=f"t{n}") for n in (1, 2, 3)] + [definition("free", overlap="allow")]
    for of in tasks:
        await enqueue(database, *(new_run(of, now - n) for n in range(5)))
    counts = Counter(r.task_key for r in await claim(database, now))
    assert [counts[of.key] for of in tasks] == [1, 2, 3, 5]


@pytest.mark.parametrize("most", [1, 2, 5])
async def test_three_claimers_at_once_never_hold_more_and_leave_no_lane_empty(database, conn, most):
    """On time and late, with settles, retries and releases between; in order of the line."""
    of, now = laned(most), now_ms()
    runs = [new_run(of, now - 5000 + n * 100) for n in range(60)]
    runs += [by_hand(of, now - n) for n in range(20)]
    await enqueue(database, *runs)
    seen, over, rng = list[int](), asyncio.Event(), random.Random(most)

    async def watch() -> None:
        while not over.is_set():
            seen.append(await held(conn))
            await asyncio.sleep(0)

    async def work(me: UUID) -> None:
        while not over.is_set():
            async with database.engine.begin() as c:
                mine = await queue.claim_on_time(c, me, now, ahead_ms=1000, room=4)
                mine += await queue.claim_late(c, me, now, service=ALICE, room=4)
            async with database.engine.begin() as c:
                for run in mine:
                    await _leave(c, me, run, rng.random(), now)
            if not mine and not await left(database):
                over.set()

    watching = asyncio.create_task(watch())
    async with asyncio.timeout(20):
        await asyncio.gather(*(work(UUID(int=n)) for n in (1, 2, 3)))
    await watching
    assert max(seen) == most
    assert await conn.fetchval("SELECT count(*) FROM history") == 80


async def left(database: Database) -> int:
    async with database.auto.connect() as c:
        return (await c.exec_driver_sql("SELECT count(*) FROM run")).scalar_one()


async def _leave(c, me: UUID, run, luck: float, now: int) -> None:
    if luck < 0.2:
        await queue.release(c, me, [run.id])
    elif luck < 0.35:
        await queue.retry(c, me, [tried(run, now)])
    else:
        await queue.settle(c, me, [ended(run)])


@pytest.mark.parametrize("most", [1, 2, 100])
async def test_a_long_backlog_of_one_task_is_claimed_quickly(database, conn, most):
    of, now = laned(most), now_ms()
    await enqueue(database, *(new_run(of, now - 4000 - n) for n in range(5000)))
    await conn.execute("ANALYZE run")
    started = time.perf_counter()
    assert len(await claim_late(database, now, room=500)) == most
    assert time.perf_counter() - started < 2


# Whole replicas ----------------------------------------------------------------------------------


async def test_two_replicas_send_so_many_at_once_and_keep_all_lanes_busy(replica, receiver, conn):
    engines = [await replica(WORKER_POLL_SECONDS="30") for _ in range(2)]
    for engine in engines:
        await engine._beat()
    gates = [asyncio.Event() for _ in range(8)]
    for gate in gates:
        receiver.then(after=gate)
    of = definition(overlap="allow", max_concurrency=2, url=receiver.url + "/")
    async with engines[0].database.engine.begin() as c:
        await task.create(c, of)
    await enqueue(engines[0].database, *(by_hand(of, now_ms() - n) for n in range(8)))
    for engine in engines:
        engine.dispatcher.wake()
    for n, gate in enumerate(gates):
        await eventually(arrived(receiver, min(n + 2, 8)))  # without waiting for the poll
        assert len(receiver.requests) == min(n + 2, 8)
        assert await held(conn) <= 2
        gate.set()
    await eventually(lambda: no_run_left(conn))


async def test_runs_by_hand_keep_to_the_lanes_too(app, alice, conn, replica, receiver):
    other = await replica()
    await app.engine._beat()
    await create(alice, receiver)
    policy = '{"overlap": "allow", "max_concurrency": 1}'
    await conn.execute("UPDATE task SET policy = $1::text::jsonb", policy)
    may_end = asyncio.Event()
    receiver.then(after=may_end)
    app.engine.dispatcher._claiming, claiming = asyncio.Lock(), app.engine.dispatcher._claiming
    async with app.engine.dispatcher._claiming:  # the first goes to the other replica
        assert (await alice.post("/tasks/t/execute?async=true")).status_code == 202
        other.dispatcher.wake()
        await eventually(arrived(receiver, 1))
        assert other.dispatcher.crew.in_flight == 1
    app.engine.dispatcher._claiming = claiming
    for _ in range(3):
        assert (await alice.post("/tasks/t/execute?async=true")).status_code == 202
    app.engine.dispatcher.wake()
    assert await held(conn) == 1
    assert len(receiver.requests) == 1
    may_end.set()
    await eventually(arrived(receiver, 4))


@pytest.mark.parametrize(("before", "after", "there"), [(3, 1, 1), (1, 3, 3), (2, None, 6)])
async def test_an_edit_changes_the_lanes_of_what_waits(
    database, conn, before, after, there
):  # fmt: skip
    now = now_ms()
    of = laned(before)
    async with database.engine.begin() as c:
        await task.create(c, of)
        await planner.create(c, of, now, window_ms=1, at_once=False)
    await enqueue(database, *(new_run(of, now - n) for n in range(6)))
    policy = msgspec.structs.replace(of.policy, max_concurrency=after)
    await edit(database, of, policy=policy)
    assert len(await claim(database, now)) == there


async def test_fewer_lanes_by_an_edit_send_back_what_is_held_and_let_what_runs_end(
    replica, receiver, conn
):
    engine = await replica()
    gates = [asyncio.Event() for _ in range(6)]
    for gate in gates:
        receiver.then(after=gate)
    of = definition(overlap="allow", max_concurrency=3, url=receiver.url + "/")
    async with engine.database.engine.begin() as c:
        await task.create(c, of)
        await planner.create(c, of, now_ms(), window_ms=1, at_once=False)
    await enqueue(engine.database, *(new_run(of, now_ms() - n) for n in range(6)))
    engine.dispatcher.wake()
    await eventually(arrived(receiver, 3))
    of = await edit(
        engine.database, of, policy=msgspec.structs.replace(of.policy, max_concurrency=1)
    )
    engine.recall(of.key)
    for n in range(6):
        gates[n].set()

        def next_one(n: int = n) -> None:
            assert len(receiver.requests) == max(3, min(n + 2, 6))

        if n >= 2:
            await eventually(next_one)
            assert await held(conn) <= 1
    await eventually(lambda: no_run_left(conn))


# Priority, and the quota of a service ------------------------------------------------------------


async def test_of_what_is_ready_the_higher_priority_leaves_first(replica, receiver):
    engine = await replica(WORKER_COUNT="1", WORKER_SERVICE_SHARE="1")
    at, gate = now_ms() + 400, asyncio.Event()
    receiver.then(after=gate)
    await stored(engine.database, once(receiver, 99, now_ms()))
    tasks = [once(receiver, n, at, priority=p) for n, p in enumerate((0, -100, 100, 7))]
    await stored(engine.database, once(receiver, 50, now_ms() + 20), *tasks)
    engine.dispatcher.wake()
    await eventually(arrived(receiver, 1))

    def ready() -> None:
        assert engine.dispatcher.held == 4
        assert engine.clock.earliest_ms() > at

    await eventually(ready)
    engine.dispatcher._ripen()
    gate.set()
    await eventually(arrived(receiver, 5))
    assert [int(r.path[1:]) for r in receiver.requests[1:]] == [2, 3, 0, 1]


async def test_a_service_with_a_quota_has_no_more_in_flight_and_others_go_on(
    replica, receiver, conn
):
    engine = await replica()
    at, gate = now_ms() + 300, asyncio.Event()
    await stored(
        engine.database,
        *(once(receiver, n, at) for n in range(6)),
        *(once(receiver, 10 + n, at, service=BOB) for n in range(6)),
    )
    await conn.execute("UPDATE service SET max_in_flight = 2 WHERE id = $1", ALICE)
    engine._orphans_at = 0.0
    await engine._beat()
    assert engine.dispatcher.limits == {ALICE: 2}
    for _ in range(8):
        receiver.then(after=gate)
    await eventually(arrived(receiver, 8))
    mine = [r for r in receiver.requests if int(r.path[1:]) < 10]
    assert len(mine) == 2
    assert engine.dispatcher.crew.busy[ALICE] == 2
    gate.set()
    await eventually(arrived(receiver, 12))


async def test_replicas_part_a_quota_and_each_has_one_at_least(replica, conn):
    engines = [await replica() for _ in range(3)]
    for engine in engines:
        await engine._beat()
        for limit, share in ((7, 2), (3, 1), (1, 1), (100_000, engine.dispatcher._share)):
            engine.dispatcher.limits = {ALICE: limit}
            assert engine.dispatcher._share_of(ALICE) == share
        assert engine.dispatcher._share_of(BOB) == engine.dispatcher._share

"""Nobody waits for somebody else's backlog."""

import asyncio

import pytest

from conftest import eventually
from scheduler import planner, planning, queue, task
from scheduler.db import utc
from scheduler.triggers import Once
from test_dispatcher import _services, arrived, no_run_left
from test_queue import definition, enqueue, now_ms

pytestmark = pytest.mark.alone

MANY = 400


async def test_a_service_whose_target_hangs_delays_nobody_elses_runs(replica, receiver, conn):
    engine = await replica(WORKER_COUNT="40")
    slow, quick = [row["id"] for row in await _services(conn, 2)]
    never, now = asyncio.Event(), now_ms()
    for _ in range(30):  # its share
        receiver.then(after=never)
    hanging = [definition(f"s{n}", service=slow, url=f"{receiver.url}/slow") for n in range(MANY)]
    async with engine.database.engine.begin() as c:
        for of in hanging:
            await task.create(c, of)
    # Half is long overdue, half has just come due.
    await enqueue(
        engine.database,
        *(planning.new_run(of, now - 30_000 * (n % 2) - n) for n, of in enumerate(hanging)),
    )
    engine.dispatcher._claims._services_at = 0.0
    engine.dispatcher.wake()
    await eventually(arrived(receiver, 30))
    now = now_ms()
    start = now + 1500
    on_time = [
        definition(f"q{n}", Once(start + 10 * n), service=quick, url=f"{receiver.url}/{n}")
        for n in range(100)
    ]
    async with engine.database.engine.begin() as c:
        for of in on_time:
            await task.create(c, of)
            await planner.create(c, of, now, window_ms=60_000, at_once=False)
    assert now_ms() < start, "this machine is too slow to tell"
    engine.dispatcher.wake()

    def quick_ones() -> list:
        found = [r for r in receiver.requests if r.path != "/slow"]
        assert len(found) == 100
        return found

    lags = sorted(
        r.at * 1000 - (start + 10 * int(r.path[1:])) for r in await eventually(quick_ones)
    )
    assert lags[0] >= 0
    assert lags[98] < 250
    assert len(receiver.to("/slow")) == 30
    never.set()
    await eventually(lambda: no_run_left(conn), 15)
    assert len(receiver.to("/slow")) == MANY


async def test_backlogs_of_two_services_are_worked_off_side_by_side(replica, receiver, conn):
    one, two = [row["id"] for row in await _services(conn, 2)]
    now = now_ms()
    engine = await replica(WORKER_COUNT="4", WORKER_MAX_HELD="60", WORKER_CLAIM_BATCH="20")
    async with engine.database.engine.begin() as c:
        for n in range(300):
            service, path = (one, "one") if n < 270 else (two, "two")
            of = definition(f"t{n}", service=service, url=f"{receiver.url}/{path}")
            await task.create(c, of)
            # The smaller backlog is the younger one.
            await queue.enqueue(c, [planning.new_run(of, now - 60_000 + n)], utc(now))
    engine.dispatcher._claims._services_at = 0.0
    engine.dispatcher.wake()
    await eventually(arrived(receiver, 300), 15)
    order = [r.path for r in receiver.requests]
    last = max(n for n, path in enumerate(order) if path == "/two")
    assert last < 200
    await eventually(lambda: no_run_left(conn))


@pytest.mark.parametrize("age", [0, 30_000], ids=["on time", "late"])
async def test_a_service_that_hangs_does_not_fill_all_that_may_be_held(
    replica, receiver, conn, age
):
    # As after a second of saturation, when room is twice the workers: 400 with the defaults.
    engine = await replica(WORKER_COUNT="8", WORKER_MAX_HELD="16")
    slow, quick = [row["id"] for row in await _services(conn, 2)]
    never, now = asyncio.Event(), now_ms()
    for _ in range(6):  # its share
        receiver.then(after=never)
    hanging = [definition(f"s{n}", service=slow, url=f"{receiver.url}/slow") for n in range(100)]
    async with engine.database.engine.begin() as c:
        for of in hanging:
            await task.create(c, of)
    engine.dispatcher._claims._services_at = 0.0
    await enqueue(engine.database, *(planning.new_run(of, now - age) for of in hanging))
    engine.dispatcher.wake()
    await eventually(arrived(receiver, 6))
    of = definition("q", Once(now_ms() + 1000), service=quick, url=f"{receiver.url}/quick")
    async with engine.database.engine.begin() as c:
        await task.create(c, of)
        await planner.create(c, of, now_ms(), window_ms=60_000, at_once=False)
    engine.dispatcher.wake()

    def quick_came() -> None:
        assert receiver.to("/quick")

    await eventually(quick_came, 3)
    assert receiver.to("/quick")[0].at * 1000 - of.trigger.at < 250
    never.set()
    await eventually(lambda: no_run_left(conn), 15)


@pytest.mark.parametrize("age", [0, 30_000], ids=["on time", "late"])
async def test_a_lone_service_waits_for_no_poll_while_it_has_more_to_do(
    replica, receiver, conn, age
):
    engine = await replica(WORKER_COUNT="8", WORKER_MAX_HELD="16", WORKER_POLL_SECONDS="30")
    (service,) = [row["id"] for row in await _services(conn, 1)]
    now = now_ms()
    tasks = [definition(f"s{n}", service=service, url=f"{receiver.url}/") for n in range(200)]
    async with engine.database.engine.begin() as c:
        for of in tasks:
            await task.create(c, of)
    await enqueue(engine.database, *(planning.new_run(of, now - age) for of in tasks))
    engine.dispatcher._claims._services_at = engine.dispatcher._claims._late_at = 0.0
    engine.dispatcher.wake()
    await eventually(arrived(receiver, 200), 5)
    await eventually(lambda: no_run_left(conn))


async def test_a_backlog_held_before_a_slow_second_keeps_nobody_else_out(replica, receiver, conn):
    engine = await replica(WORKER_COUNT="8")
    slow, quick = [row["id"] for row in await _services(conn, 2)]
    never, now = asyncio.Event(), now_ms()
    for _ in range(6):
        receiver.then(after=never)
    hanging = [definition(f"s{n}", service=slow, url=f"{receiver.url}/slow") for n in range(100)]
    async with engine.database.engine.begin() as c:
        for of in hanging:
            await task.create(c, of)
    await enqueue(engine.database, *(planning.new_run(of, now) for of in hanging))
    engine.dispatcher.wake()

    def all_held() -> None:
        assert engine.dispatcher.held == 94

    await eventually(all_held)
    engine.dispatcher._rate._rate = 4.0  # measured: room is now 16, and 94 are held
    of = definition("q", Once(now_ms() + 500), service=quick, url=f"{receiver.url}/quick")
    async with engine.database.engine.begin() as c:
        await task.create(c, of)
        await planner.create(c, of, now_ms(), window_ms=60_000, at_once=False)
    engine.dispatcher.wake()

    def quick_came() -> None:
        assert receiver.to("/quick")

    await eventually(quick_came, 3)
    assert receiver.to("/quick")[0].at * 1000 - of.trigger.at < 250
    never.set()
    await eventually(lambda: no_run_left(conn), 15)

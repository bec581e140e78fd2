"""Hints between replicas: heard by the others, gathered, and never needed."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable

import pytest
from sqlalchemy import event

from conftest import eventually
from scheduler import config
from scheduler.db import Database
from scheduler.signals import CHANNEL, Signals


class Hearing:
    """A replica's signals, and what they heard."""

    def __init__(self, url: str) -> None:
        self.database = Database(url, config.Database())
        self.alone = False
        self.wakes: list[int] = []
        self.recalls: list[uuid.UUID] = []
        self.calendars: list[uuid.UUID] = []
        self.cancels: list[uuid.UUID] = []
        self.signals = Signals(
            self.database,
            alone=lambda: self.alone,
            on_wake=self.wakes.append,
            on_recall=self.recalls.append,
            on_calendars=self.calendars.append,
            on_cancel=self.cancels.append,
        )


@pytest.fixture
async def hearing(database_url: str) -> AsyncIterator[Callable[[], object]]:
    async with contextlib.AsyncExitStack() as stack:

        async def start() -> Hearing:
            made = Hearing(database_url)
            task = asyncio.create_task(made.signals.listen())

            async def stop() -> None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                await made.database.close()

            stack.push_async_callback(stop)
            await asyncio.wait_for(made.signals.listening.wait(), 5)
            made.wakes.clear()
            return made

        yield start


def has(*items):
    """An assertion that a list holds just these, in any order."""

    def check(heard: list) -> None:
        assert sorted(heard) == sorted(items)

    return check


async def test_a_wake_and_a_recall_arrive_at_the_others_and_not_at_oneself(hearing):
    one, two, three = await hearing(), await hearing(), await hearing()
    key = uuid.uuid4()
    one.signals.wake(12345)
    one.signals.recall(key)
    for other in (two, three):
        await eventually(lambda o=other: has(12345)(o.wakes))
        await eventually(lambda o=other: has(key)(o.recalls))
    two.signals.wake(6)
    await eventually(lambda: has(6)(one.wakes))  # all it ever heard
    assert one.recalls == []


async def test_whoever_is_alone_says_nothing(hearing, conn):
    one, heard = await hearing(), []
    await conn.add_listener(CHANNEL, lambda *args: heard.append(args[3]))
    one.alone = True
    one.signals.wake(1)
    one.signals.recall(uuid.uuid4())
    one.alone = False
    one.signals.wake(2)
    await eventually(lambda: has(2)([int(h.split()[-1]) for h in heard]))


async def test_hints_are_gathered_into_one_statement(hearing):
    one, two = await hearing(), await hearing()
    statements = []
    event.listen(
        one.database.engine.sync_engine,
        "before_cursor_execute",
        lambda *args: statements.append(args[2]),
    )
    for n in range(500):
        one.signals.wake(n // 5)
    await eventually(lambda: has(*range(100))(two.wakes))
    assert len(statements) == 1


async def test_a_cut_connection_comes_back_and_looks_at_the_queue(hearing, conn):
    one, two = await hearing(), await hearing()
    cut = await conn.fetchval(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
        "WHERE application_name = 'scheduler listener' AND datname = current_database()"
    )
    assert cut == 2
    await eventually(lambda: has(0)(two.wakes))  # whatever was said while nobody listened
    await eventually(lambda: has(0)(one.wakes))
    one.signals.wake(7)
    await eventually(lambda: has(0, 7)(two.wakes))


@pytest.mark.parametrize(
    "payload",
    ["", "x", "x wake", "x wake -1", "x wake nine", "x wake ²", "x recall", "x recall me", "x y z"],
)
async def test_what_is_not_understood_is_passed_over(hearing, conn, payload):
    one = await hearing()
    await conn.execute("SELECT pg_notify($1, $2)", CHANNEL, payload)
    await conn.execute("SELECT pg_notify($1, 'x wake 5')", CHANNEL)
    await eventually(lambda: has(5)(one.wakes))
    assert one.recalls == []


async def test_a_hint_of_any_size_is_taken(hearing, conn):
    one = await hearing()
    await conn.execute("SELECT pg_notify($1, 'x wake ' || repeat('9', 7000))", CHANNEL)
    await conn.execute("SELECT pg_notify($1, 'x wake 5')", CHANNEL)

    def heard() -> None:
        assert 5 in one.wakes

    await eventually(heard)

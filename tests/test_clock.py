"""Database time on the monotonic clock: readings of every latency, and a clock that is stepped."""

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler import config
from scheduler.clock import DRIFT, WINDOW_S, Clock, Slice, database_ms
from scheduler.db import Database

pytestmark = pytest.mark.alone

START = 1_700_000_000.0
"""Database time, in seconds, when the monotonic clock showed 0."""
ROUNDING_MS = 0.002


class World:
    """A database whose clock is known, and a monotonic clock that stands still unless told."""

    def __init__(self, offset: float = START, rate: float = 1.0) -> None:
        self.at = 0.0
        self.offset, self.rate = offset, rate
        self.clock = Clock(lambda: self.at)

    @property
    def database_ms(self) -> float:
        return (self.at * self.rate + self.offset) * 1000

    def sample(self, there: float, back: float) -> None:
        """Read the database's clock: so long on the way there, so long on the way back."""
        before = self.at
        self.at += there
        shown = self.database_ms
        self.at += back
        self.clock.read(before, shown, self.at)


LATENCY = st.floats(0, 0.5)
STEPS = st.lists(st.tuples(st.floats(0, 30), LATENCY, LATENCY), min_size=1, max_size=30)


@given(STEPS)
def test_the_earliest_time_is_never_past_the_databases(steps):
    world = World()
    for rest, there, back in steps:
        world.sample(there, back)
        for part in (0.0, rest / 2, rest):
            world.at += part
            assert world.clock.earliest_ms() <= world.database_ms + ROUNDING_MS
            off = abs(world.clock.now_ms() - world.database_ms)
            assert off <= world.clock.error_ms + 1 + ROUNDING_MS


@given(STEPS, st.floats(-DRIFT, DRIFT))
def test_the_earliest_time_is_never_past_the_clock_of_a_database_that_drifts(steps, drift):
    world = World(rate=1 + drift)
    for rest, there, back in steps:
        world.sample(there, back)
        world.at += min(rest, 2.0)
        assert world.clock.earliest_ms() <= world.database_ms + 0.01


@given(STEPS, st.integers(0, 5000))
def test_what_is_due_has_come_by_the_databases_clock_when_the_wait_is_over(steps, ahead):
    world = World()
    for _, there, back in steps:
        world.sample(there, back)
    due = int(world.database_ms) + ahead
    world.at += max(world.clock.until_s(due), 0)
    assert world.database_ms >= due - ROUNDING_MS


def test_before_the_first_reading_nothing_is_due():
    clock = Clock(lambda: 5.0)
    assert clock.earliest_ms() == float("-inf")
    assert clock.until_s(0) == float("inf")


def test_the_reading_with_the_smaller_round_trip_wins():
    world = World()
    world.sample(0.2, 0.0)
    assert world.clock.error_ms == pytest.approx(100)
    world.sample(0.001, 0.001)
    assert world.clock.error_ms == pytest.approx(1)
    world.sample(0.0, 0.3)
    assert world.clock.error_ms == pytest.approx(1)
    assert world.clock.now_ms() == pytest.approx(world.database_ms, abs=1.01)


@pytest.mark.parametrize("step", [-3600.0, -1.0, -0.02, 0.02, 1.0, 3600.0])
def test_a_clock_that_is_stepped_is_believed_at_once(step):
    world = World()
    world.sample(0.0001, 0.0001)
    world.at += 2
    world.offset += step
    world.sample(0.002, 0.002)  # a worse reading than the one it contradicts
    assert abs(world.clock.now_ms() - world.database_ms) <= 3
    assert world.clock.earliest_ms() <= world.database_ms
    world.at += WINDOW_S / 2
    world.sample(0.2, 0.2)  # it does not come back
    assert abs(world.clock.now_ms() - world.database_ms) <= 3


def test_a_slow_reading_that_does_not_contradict_changes_nothing():
    world = World()
    world.sample(0.0001, 0.0001)
    before = world.clock.now_ms() - world.at * 1000
    world.at += 2
    world.sample(0.0, 0.9)
    assert world.clock.now_ms() - world.at * 1000 == pytest.approx(before, abs=1)


def test_a_reading_older_than_a_minute_is_forgotten():
    world = World()
    world.sample(0.0001, 0.0001)
    world.at += WINDOW_S - 1
    world.sample(0.05, 0.05)
    assert world.clock.error_ms == pytest.approx(0.1)
    world.at += 2
    world.sample(0.1, 0.1)
    assert world.clock.error_ms == pytest.approx(50)


async def test_a_slice_gives_way_once_it_was_long_enough_and_tells_what_it_used(monkeypatch):
    monkeypatch.setattr(Slice, "LENGTH_S", 0.01)
    turn, others = Slice(), []
    asyncio.get_running_loop().call_soon(others.append, 1)
    await turn.give_way()
    assert (others, turn.used_s) == ([], 0.0)
    begun = time.thread_time()
    while time.thread_time() - begun < 0.02:
        pass
    await turn.give_way()
    assert others == [1]
    assert 0.02 <= turn.used_s < 0.1
    await asyncio.sleep(0.02)  # not its own time
    await turn.give_way()
    assert turn.used_s < 0.1


def test_readings_do_not_pile_up():
    world = World()
    for _ in range(1000):
        world.at += 2
        world.sample(0.001, 0.001)
    assert len(world.clock._readings) <= WINDOW_S / 2 + 1


async def test_the_clock_of_a_real_database_is_read_to_half_a_round_trip(database_url):
    database, clock = Database(database_url, config.Database()), Clock()
    async with database.auto.connect() as conn:
        for _ in range(5):
            await clock.sample(conn)
        before = clock.earliest_ms()
        shown = await database_ms(conn)
        after = clock.now_ms()
    await database.close()
    assert clock.error_ms < 50
    assert before - 1 <= shown <= after + clock.error_ms + 1

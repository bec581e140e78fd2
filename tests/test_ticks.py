"""Ticks: they keep their pace when the machine's clock is stepped."""

import itertools
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import eventually
from scheduler.ticks import Every, Ticks

NOW = datetime(2027, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


@given(st.floats(0.001, 1000), st.timedeltas(-DAY, 20_000 * DAY))
def test_what_was_passed_over_comes_once(seconds, ago):
    interval = timedelta(seconds=seconds)
    due = Every(seconds).get_next_fire_time(NOW - ago, NOW)
    assert due > NOW
    assert due - NOW <= interval or due == NOW - ago + interval
    assert (due - (NOW - ago)) % interval == timedelta(0)


@pytest.fixture
async def ticks() -> AsyncIterator[Ticks]:
    made = Ticks()
    yield made
    await made.end()


async def paced(beats: list[float]) -> None:
    seen = len(beats)

    def went_on() -> None:
        assert len(beats) > seen + 2

    await eventually(went_on)


async def test_a_clock_that_is_stepped_ahead_holds_nothing_up(ticks):
    beats: list[float] = []
    ticks.pulse(0.01, lambda: beats.append(time.thread_time()))
    ticks.start()
    await paced(beats)
    (job,) = ticks._jobs.get_jobs()
    job.modify(next_run_time=datetime.now(UTC) - DAY)  # as it stands to a clock a day ahead
    await paced(beats)
    assert max(b - a for a, b in itertools.pairwise(beats)) < 0.5


async def test_a_clock_that_is_stepped_back_stops_nothing(ticks):
    beats: list[float] = []
    ticks.pulse(0.01, lambda: beats.append(time.thread_time()))
    ticks.start()
    await paced(beats)
    ticks.pause()
    (job,) = ticks._jobs.get_jobs()
    job.modify(next_run_time=datetime.now(UTC) + DAY)  # as it stands to a clock a day behind
    ticks._jobs.latest += DAY.total_seconds()
    ticks.resume()
    await paced(beats)

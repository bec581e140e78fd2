"""Waits: how long calls wait for specs that are on their way."""

from uuid import uuid4

from scheduler.actions import Call
from scheduler.specs.waits import REMEMBERED, Waits

NOON = 1_800_000_000_000
HOUR = 3_600_000


def call(at: int, run=None) -> Call:
    """A try of a run that was due at noon."""
    return Call(run or uuid4(), "a", 1, NOON, 0.0, lambda: True, at=at)


def test_a_call_waits_from_its_first_try_on_however_long_it_was_due():
    waits, run = Waits(300), uuid4()
    first = NOON + HOUR
    assert waits.next_s(call(first, run)) == 0.2
    assert waits.next_s(call(first + 8_000, run)) == 2
    assert waits.next_s(call(first + 200_000, run)) == 5
    assert waits.next_s(call(first + 299_000, run)) == 1
    assert waits.next_s(call(first + 300_000, run)) is None
    assert waits.next_s(call(first + 300_000)) == 0.2, "another one has just begun"


def test_who_is_not_to_wait_does_not():
    assert Waits(0).next_s(call(NOON)) is None


def test_a_call_that_waits_no_more_is_forgotten():
    waits, run = Waits(1), uuid4()
    assert waits.next_s(call(NOON, run)) == 0.2
    waits.over(call(NOON, run))
    assert waits.next_s(call(NOON + HOUR, run)) == 0.2
    assert waits.next_s(call(NOON + 2 * HOUR, run)) is None
    for _ in range(REMEMBERED + 10):
        waits.next_s(call(NOON))
    assert len(waits._began) == REMEMBERED

"""What it costs to plan recurrence rules, and whether that grows with the age of DTSTART."""

import statistics
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from scheduler import planning
from scheduler.actions.http import Http
from scheduler.db import utc
from scheduler.definition import Definition, Policy
from scheduler.triggers import Rrule, Trigger
from scheduler.triggers.rrule import read_rrule

NOW_MS = 1_798_761_600_000
WINDOW_MS = 60_000
TICK_MS = 30_000
AGES = {"1_day": 1, "1_year": 365, "10_years": 3652, "50_years": 18_262}
"""How many days ago DTSTART is."""
TURNS = 5
ONE_RULE_TICKS = 2000


async def planned(many: int) -> dict[str, Any]:
    """Return the CPU time of one task and tick for each kind of rule and age, in µs.

    Each is read from the JSON of its row and planned for the next minute, as the planner does
    every 30 s. The ages take turns; of each the median counts.
    """
    kinds: dict[str, Callable[[int], float]] = {
        "secondly": lambda age: _ticks(_rule("FREQ=SECONDLY", age, 0)),
        "minutely": lambda age: _ticks(_rule("FREQ=MINUTELY", age, 0)),
        "daily": lambda age: _tasks(
            [_rule("FREQ=DAILY", age, k * 7 % 86_400) for k in range(many)]
        ),
    }
    figures: dict[str, Any] = {"n": many, "noise_cores": 0.0}
    for kind, measure in kinds.items():
        found: dict[str, list[float]] = {age: [] for age in AGES}
        for _ in range(TURNS):
            for age, days in AGES.items():
                found[age].append(measure(days))
        medians = {age: round(statistics.median(each), 2) for age, each in found.items()}
        figures[kind] = medians | {"flat": round(max(medians.values()) / medians["1_day"], 2)}
    figures["flat"] = max(figures[kind]["flat"] for kind in kinds)
    return figures


def _rule(text: str, days: int, second: int) -> bytes:
    """Return a rule that began so many days ago, as it is stored."""
    begin = NOW_MS // 86_400_000 * 86_400 - days * 86_400 + second
    at = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(begin))
    return msgspec.json.encode(read_rrule(f"DTSTART:{at}\nRRULE:{text}", None, 0))


def _task(rule: Rrule) -> Definition:
    at = utc(NOW_MS)
    return Definition(
        key=uuid.UUID(int=1),
        bucket=0,
        service_id=uuid.UUID(int=2),
        id="bench",
        version=1,
        name="bench",
        description=None,
        tags=[],
        status="active",
        trigger=rule,
        action=Http(url="http://127.0.0.1:9/"),
        policy=Policy(),
        created_at=at,
        updated_at=at,
    )


def _cpu_us(work: Iterator[None]) -> float:
    """Return the CPU time of a step of some work."""
    next(work)
    begin, steps = time.thread_time(), 0
    for _ in work:
        steps += 1
    return (time.thread_time() - begin) / steps * 1e6


def _ticks(stored: bytes) -> float:
    """Plan one rule, tick after tick."""
    return _cpu_us(_plan(stored, NOW_MS + tick * TICK_MS) for tick in range(ONE_RULE_TICKS))


def _tasks(stored: list[bytes]) -> float:
    """Plan many rules for one tick."""
    for each in stored:
        _plan(each, NOW_MS)
    return _cpu_us(_plan(each, NOW_MS + TICK_MS) for each in stored)


def _plan(stored: bytes, now: int) -> None:
    rule = msgspec.json.decode(stored, type=Trigger)
    assert isinstance(rule, Rrule)
    planning.plan(_task(rule), now + TICK_MS, 0, now, now + WINDOW_MS)

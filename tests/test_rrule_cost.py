"""What recurrence rules cost: the hostile ones when they are judged, and the old ones ever after."""

import contextlib
import time
import tracemalloc
from collections.abc import Callable

import pytest

from scheduler.triggers.rrule import Rrule, judge, read_rrule
from scheduler.triggers.rrule_text import KEPT
from test_rrule import DEAR, DTSTART, FINE, NEVER, NOW

pytestmark = pytest.mark.alone

DAY_MS = 86_400_000
JUDGED_S = 0.2
"""Twice what the child process is given: the first look at a zone takes its time."""
ASKED_S = 0.005
BIG = "BYHOUR={};BYMINUTE={};BYSECOND={}".format(
    *(",".join(map(str, range(many))) for many in (24, 60, 60))
)
HOSTILE = [
    *DEAR,
    *NEVER,
    *FINE,
    "FREQ=DAILY;INTERVAL=0",
    "FREQ=SECONDLY;BYSETPOS=2",
    "FREQ=MINUTELY;BYSETPOS=2",
    "FREQ=MINUTELY;INTERVAL=10007;BYHOUR=1;BYDAY=MO;BYMONTH=2;BYMONTHDAY=29",
    "FREQ=SECONDLY;INTERVAL=999983;BYHOUR=1;BYMINUTE=1,2,3;BYDAY=MO;BYMONTH=2",
    "FREQ=HOURLY;INTERVAL=1001;BYHOUR=3;BYDAY=MO;" + BIG.partition(";")[2],
    "FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,TU;COUNT=100000000",
    "FREQ=YEARLY;BYDAY=MO;BYSETPOS=1,2,3;" + BIG,
    "FREQ=DAILY;" + BIG,
    "FREQ=DAILY\n" + "EXDATE:20250101T083000Z\n" * 10_000,
    "FREQ=DAILY\nEXDATE:" + ",".join(["20250101T083000Z"] * 3800),
    "FREQ=DAILY\nEXDATE:" + ",".join(f"{year}0{m}{d}T083000Z" for year in range(2026, 2036)
                                     for m in range(1, 10) for d in range(10, 20)),
    "FREQ=MONTHLY;INTERVAL=7;BYMONTH=2;BYMONTHDAY=29;BYDAY=MO",
    "FREQ=WEEKLY;INTERVAL=52;BYMONTH=3",
    "FREQ=DAILY;INTERVAL=365;BYMONTH=1;BYMONTHDAY=1,2,3",
    "FREQ=MINUTELY;INTERVAL=15\nEXRULE:FREQ=MINUTELY;INTERVAL=15;BYMONTH=12",
    "FREQ=MINUTELY;INTERVAL=15\nEXRULE:FREQ=MINUTELY;BYDAY=SA,SU",
    "FREQ=DAILY" + "\nRRULE:FREQ=DAILY;INTERVAL=7;BYDAY=MO" * 9,
    "FREQ=DAILY\n" + "\n".join(f"RRULE:FREQ=MONTHLY;BYDAY=-2MO;BYMONTHDAY=-7;BYMONTH={month}"
                               for month in range(1, 10)),
]  # fmt: skip


def cpu_s(work: Callable[..., object], *arguments: int) -> float:
    begin = time.thread_time()
    work(*arguments)
    return time.thread_time() - begin


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_rule_is_judged_at_once_and_what_is_accepted_stays_cheap(text, zone):
    judged: list[Rrule] = []

    def look() -> None:
        start = "DTSTART:20150101T083000\n"
        with contextlib.suppress(ValueError):
            judged.append(judge(read_rrule(start + text, zone, NOW), NOW))

    assert cpu_s(look) < JUDGED_S
    for now in range(NOW, NOW + 400 * DAY_MS, 20 * DAY_MS):
        for rule in judged:
            assert cpu_s(rule.next, now) < ASKED_S
            assert cpu_s(rule.last, now - DAY_MS, now) < ASKED_S
            assert cpu_s(listed(rule), now, now + 600_000) < ASKED_S


def listed(rule: Rrule) -> Callable[[int, int], list[int]]:
    return lambda after, until: list(rule.between(after, until))


@pytest.mark.parametrize("text", ["FREQ=SECONDLY", "FREQ=MINUTELY;BYHOUR=9", "FREQ=WEEKLY;INTERVAL=3",
                                  "FREQ=MONTHLY;BYDAY=-1FR", "FREQ=DAILY;COUNT=1000000"])  # fmt: skip
def test_the_age_of_dtstart_costs_nothing(text):
    def asked(year: int) -> float:
        rule = judge(read_rrule(f"DTSTART:{year}0101T000000Z\n{text}", None, NOW), NOW)
        return min(cpu_s(lambda: [rule.next(NOW + k * 1000) for k in range(200)]) for _ in range(5))

    assert asked(1926) < 2 * asked(2026) + 0.0005


def test_a_year_of_seconds_is_counted_without_walking_it():
    rule = read_rrule(DTSTART + "FREQ=SECONDLY;BYHOUR=9", None, NOW)
    assert rule.count(NOW, NOW + 365 * DAY_MS) == 365 * 3600
    assert cpu_s(lambda: rule.count(NOW, NOW + 365 * DAY_MS)) < 0.02


@pytest.mark.parametrize("tier", range(len(KEPT)))
def test_what_is_kept_of_rules_has_a_bound(tier):
    """Whoever sends rules chooses how long they are, and how many."""
    longest, most = KEPT[tier]
    count = min((longest - 60) // 17, 900)

    def read(number: int) -> None:
        dates = ",".join(f"{2000 + n}{number % 12 + 1:02}{number // 12 + 1:02}T000000Z"
                         for n in range(count))  # fmt: skip
        read_rrule(f"DTSTART:20260101T000000Z\nRRULE:FREQ=YEARLY\nRDATE:{dates}", None, NOW)

    read(0)
    tracemalloc.start()
    try:
        for number in range(1, 51):
            read(number)
        each = tracemalloc.get_traced_memory()[0] / 50
    finally:
        tracemalloc.stop()

    assert each * most < 120e6, f"{each:.0f} bytes, {most} times"

"""The forecast beside brute force: what is reckoned is what there is, instant by instant."""

from collections import Counter
from datetime import datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.agenda import Alike
from scheduler.dashboard.timeline import forecast
from scheduler.dashboard.timeline.ahead import Ahead
from scheduler.dashboard.timeline.minutes import HOUR
from scheduler.triggers import Bounds, Cron, Interval, Rrule

DAY, HOURS = 24 * HOUR, 84
ZONES = ("UTC", "Europe/Berlin", "Asia/Kolkata", "Australia/Lord_Howe", "America/St_Johns")
CHANGES = (
    "2026-10-25T01:00Z",
    "2026-03-29T01:00Z",
    "2026-11-01T04:30Z",
    "2026-04-04T15:00Z",
    "2026-10-03T15:30Z",
    "2026-06-15T12:00Z",
)
"""When those zones change their clocks, and when none does."""
NOWS = st.builds(
    lambda at, off: int(datetime.fromisoformat(at).timestamp()) * 1000 + off,
    st.sampled_from(CHANGES),
    st.integers(-2 * DAY, DAY),
)
GAPS, TWICE = (
    st.sampled_from(("skip", "shift", "end")),
    st.sampled_from(("first", "second", "both")),
)


def places(most: int) -> st.SearchStrategy[str]:
    several = st.lists(st.integers(0, most), min_size=1, max_size=3, unique=True)
    return several.map(lambda each: ",".join(map(str, each)))


def fields(most: int) -> st.SearchStrategy[str]:
    return st.one_of(st.just("*"), st.sampled_from(("*/7", "*/15")), places(most))


crons = st.builds(
    lambda seconds, *rest: Cron(" ".join([*seconds, *rest[:2], "*", "*", rest[2]]), *rest[3:]),
    st.sampled_from(((), (), ("0,30",), ("*/10",))),
    fields(59),
    fields(23),
    st.sampled_from(("*", "1-5", "0")),
    st.sampled_from(ZONES),
    GAPS,
    TWICE,
)


@st.composite
def rules(draw: st.DrawFn, now: int) -> Rrule:
    parts = [f"FREQ={draw(st.sampled_from(('MINUTELY', 'HOURLY', 'DAILY', 'WEEKLY', 'MONTHLY')))}"]
    parts += [f"INTERVAL={draw(st.integers(1, 9))}"]
    for name, most in (("BYHOUR", 23), ("BYMINUTE", 59), ("BYSECOND", 59)):
        if draw(st.booleans()):
            parts.append(f"{name}={draw(places(most))}")
    lines = [f"RRULE:{';'.join(parts)}"]
    for name in ("RDATE", "EXDATE"):
        if draw(st.integers(0, 3)) == 0:
            at = datetime.fromtimestamp(now / 1000 + draw(st.integers(0, 3 * 86_400)))
            lines.append(f"{name}:{at:%Y%m%dT%H%M%S}")
    start = (now - draw(st.integers(-DAY, 40 * DAY))) // 1000 * 1000
    return Rrule("\n".join(lines), draw(st.sampled_from(ZONES)), start, draw(GAPS), draw(TWICE))


@st.composite
def kinds(draw: st.DrawFn, now: int) -> Ahead:
    start = now - draw(st.integers(-DAY, 40 * DAY))
    units = st.sampled_from(("minute", "hour", "day"))
    intervals = st.builds(Interval, st.integers(1, 100), units, st.just(start // 60_000 * 60_000))
    odd = st.builds(Interval, st.integers(1, 5000), st.just("second"), st.just(start))
    trigger = draw(st.one_of(crons, crons, rules(now), rules(now), intervals, odd))
    bounds = Bounds()
    if draw(st.integers(0, 3)) == 0:
        begin = now + draw(st.integers(-DAY, DAY))
        bounds = Bounds(start_at=begin, end_at=begin + draw(st.integers(0, 2 * DAY)))
    left = draw(st.one_of(st.none(), st.none(), st.integers(1, 50)))
    tasks = draw(st.integers(1, 3))
    return Ahead(Alike(trigger, bounds, None, tasks, [("a", "A")]), None, left, tasks)


@st.composite
def weeks(draw: st.DrawFn) -> tuple[int, int, list[Ahead]]:
    now = draw(NOWS)
    since = now // DAY * DAY - DAY - draw(st.sampled_from((0, 60, 330, -210))) * 60_000
    return now, since, draw(st.lists(kinds(now), min_size=1, max_size=4))


def walked(each: Ahead, now: int, until: int) -> list[int]:
    bounds = each.of.bounds
    low = max(now, (bounds.start_at or 0) - 1)
    high = min(until, (until if bounds.end_at is None else bounds.end_at + 1)) - 1
    return list(each.of.trigger.between(low, high))[: each.left] if low < high else []


@settings(max_examples=150, deadline=None)
@given(weeks())
async def test_what_is_reckoned_is_what_is_walked(drawn: tuple[int, int, list[Ahead]]):
    now, since, these = drawn
    hour = since + (now - since) // HOUR * HOUR + 5 * HOUR
    found = await forecast.forecast(these, now, since, since + HOURS * HOUR, hour)
    if found.rules:  # its days and times meet too seldom: no such rule is accepted
        return
    counts, listed = Counter[int](), []
    for each in these:
        instants = walked(each, now, since + HOURS * HOUR)
        for at in instants:
            counts[at] += each.tasks
        there = [at for at in instants if hour <= at < hour + HOUR]
        listed += [(there[0], len(there), each.tasks)] if there else []
    by_hour = Counter[int]()
    for at, tasks in counts.items():
        by_hour[(at - since) // HOUR] += tasks
    assert found.hours == [by_hour[n] for n in range(HOURS)]
    assert sorted((one.first, one.instants, one.tasks) for one in found.listed) == sorted(listed)
    if not found.dense:
        fullest = sorted((-tasks, at) for at, tasks in counts.items() if tasks > 1)
        assert [(-one.tasks, one.at) for one in found.peaks] == fullest[: forecast.PEAKS]

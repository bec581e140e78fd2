"""RRULE against full expansion: dateutil's own in UTC, and by hand over the clocks of zones."""

import itertools
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import dateutil.rrule as dateutil_rrule
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from scheduler.triggers.rrule import Costly, Rrule, judge, read_rrule

DAY = 86_400
ZONES = [
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",  # by half an hour
    "America/Santiago",  # at midnight
    "Africa/Casablanca",  # back for Ramadan
    "Pacific/Apia",  # without 30 December 2011
]
NAMES = ["MO", "TU", "WE", "TH", "FR", "SA", "SU"]


def seconds(at: datetime) -> int:
    return int(at.replace(tzinfo=UTC).timestamp())


def face(at: int) -> datetime:
    return datetime.fromtimestamp(at, UTC).replace(tzinfo=None)


# dateutil, with a limit ---------------------------------------------------------------------------


class TakesLong(Exception):
    """Dateutil looked at more periods than a test has time for."""


class Limited(dateutil_rrule._iterinfo):
    """What dateutil asks for the days of each period."""

    left = 0
    until = 0.0
    """CPU time (s): some of dateutil's loops look at no period at all."""

    def _spend(self) -> None:
        Limited.left -= 1
        if Limited.left < 0 or time.thread_time() > Limited.until:
            raise TakesLong

    def ydayset(self, *at):
        self._spend()
        return super().ydayset(*at)

    def mdayset(self, *at):
        self._spend()
        return super().mdayset(*at)

    def wdayset(self, *at):
        self._spend()
        return super().wdayset(*at)

    def ddayset(self, *at):
        self._spend()
        return super().ddayset(*at)


def expanded(text: str, until: int, periods: int = 8000) -> list[int]:
    """Every time of a rule without zones up to one, from DTSTART on."""
    before = dateutil_rrule._iterinfo
    dateutil_rrule._iterinfo, Limited.left = Limited, periods
    Limited.until = time.thread_time() + 0.5
    try:
        rule = dateutil_rrule.rrulestr(text.replace("Z", ""))
        times = (seconds(at) for at in rule)
        return list(itertools.takewhile(lambda at: at <= until, times))
    finally:
        dateutil_rrule._iterinfo = before


def expanded_or_not(text: str, until: int, periods: int = 8000) -> list[int]:
    try:
        return expanded(text, until, periods)
    except TakesLong:
        assume(False)
        raise
    except ValueError as e:
        if "empty" in str(e):
            return []
        raise


# Rules --------------------------------------------------------------------------------------------


def listed(values: st.SearchStrategy, most: int = 3) -> st.SearchStrategy[str]:
    some = st.lists(values, min_size=1, max_size=most, unique=True)
    return some.map(lambda each: ",".join(map(str, each)))


def mirrored(most: int) -> st.SearchStrategy[int]:
    return st.integers(1, most) | st.integers(-most, -1)


HOURS = listed(st.integers(0, 23))
MINUTES = listed(st.integers(0, 59))
PLAIN_DAYS = listed(st.sampled_from(NAMES), 4)
NUMBERED_DAYS = listed(st.builds("{}{}".format, mirrored(5), st.sampled_from(NAMES)))
PARTS = {
    "BYMONTH": listed(st.integers(1, 12), 5),
    "BYHOUR": HOURS,
    "BYMINUTE": MINUTES,
    "BYSECOND": MINUTES,
    "BYDAY": PLAIN_DAYS,
    "BYMONTHDAY": listed(mirrored(31), 5),
    "BYYEARDAY": listed(mirrored(366), 6),
    "BYWEEKNO": listed(mirrored(52), 4),
}
FITTING = {
    "SECONDLY": ["BYMONTH", "BYHOUR", "BYMINUTE", "BYSECOND", "BYDAY", "BYMONTHDAY", "BYYEARDAY"],
    "MINUTELY": ["BYMONTH", "BYHOUR", "BYMINUTE", "BYSECOND", "BYDAY", "BYMONTHDAY", "BYYEARDAY"],
    "HOURLY": ["BYMONTH", "BYHOUR", "BYMINUTE", "BYSECOND", "BYDAY", "BYMONTHDAY", "BYYEARDAY"],
    "DAILY": ["BYMONTH", "BYHOUR", "BYMINUTE", "BYSECOND", "BYDAY", "BYMONTHDAY"],
    "WEEKLY": ["BYMONTH", "BYHOUR", "BYMINUTE", "BYSECOND", "BYDAY"],
    "MONTHLY": ["BYMONTH", "BYHOUR", "BYMINUTE", "BYSECOND", "BYDAY", "BYMONTHDAY"],
    "YEARLY": [
        "BYMONTH", "BYHOUR", "BYMINUTE", "BYSECOND", "BYDAY", "BYMONTHDAY", "BYYEARDAY", "BYWEEKNO",
    ],
}  # fmt: skip
LONG = ("DAILY", "WEEKLY", "MONTHLY", "YEARLY")
SHORT = ("SECONDLY", "MINUTELY", "HOURLY")
INTERVALS = st.sampled_from([1, 1, 1, 2, 3, 4, 5, 7, 12, 13, 30])


@st.composite
def rules(draw: st.DrawFn, freqs: tuple[str, ...], most: int = 3) -> str:
    freq = draw(st.sampled_from(freqs))
    chosen = draw(st.lists(st.sampled_from(FITTING[freq]), max_size=most, unique=True))
    parts = {"FREQ": freq} | {name: draw(PARTS[name]) for name in chosen}
    if freq in ("MONTHLY", "YEARLY") and "BYDAY" in parts and "BYWEEKNO" not in parts:
        parts["BYDAY"] = draw(PLAIN_DAYS | NUMBERED_DAYS)
    interval = draw(INTERVALS if freq in LONG else st.integers(1, 200))
    if interval > 1:
        parts["INTERVAL"] = str(interval)
    if draw(st.booleans()):
        parts["WKST"] = draw(st.sampled_from(NAMES))
    if chosen and draw(st.integers(0, 3)) == 0:
        parts["BYSETPOS"] = draw(listed(mirrored(4), 2))
    return ";".join(f"{name}={value}" for name, value in parts.items())


@st.composite
def starts(draw: st.DrawFn, low: int = 2009, high: int = 2027) -> datetime:
    return draw(
        st.datetimes(datetime(low, 1, 1), datetime(high, 12, 31)).map(
            lambda at: at.replace(microsecond=0)
        )
    )


def ours(rule: Rrule, after: int, until: int, most: int = 300) -> list[int]:
    """Its instants in (after, until], from `next`."""
    found: list[int] = []
    at = rule.next(after * 1000)
    while at is not None and at <= until * 1000 and len(found) < most:
        found.append(at // 1000)
        at = rule.next(at)
    return found


def agree(rule: Rrule, expected: list[int], after: int, until: int) -> None:
    """The four questions give the same answer."""
    inside = [at for at in expected if after < at <= until]
    assert ours(rule, after, until) == inside[:300]
    low, high = after * 1000, until * 1000
    assert [at // 1000 for at in rule.between(low, high)] == inside
    assert rule.count(low, high) == len(inside)
    last = rule.last(low, high)
    assert (None if last is None else last // 1000) == (inside[-1] if inside else None)


# In UTC -------------------------------------------------------------------------------------------

SPAN = {"SECONDLY": 3 * 3600, "MINUTELY": 4 * DAY, "HOURLY": 60 * DAY, "DAILY": 900 * DAY,
        "WEEKLY": 2000 * DAY, "MONTHLY": 6000 * DAY, "YEARLY": 15_000 * DAY}  # fmt: skip


def span_of(rule: str) -> int:
    parts = dict(part.split("=") for part in rule.split(";"))
    return SPAN[parts["FREQ"]] * min(int(parts.get("INTERVAL", "1")), 8)


@given(starts(), rules(LONG + SHORT), st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=160, deadline=None)
@example(datetime(2020, 2, 29), "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29;BYDAY=MO", 0, 1)
@example(datetime(2025, 1, 30), "FREQ=YEARLY;BYMONTHDAY=30", 0, 1)
@example(datetime(2025, 1, 1, 8), "FREQ=WEEKLY;BYDAY=MO,FR;BYSETPOS=1;WKST=SU", 0, 1)
@example(datetime(2025, 1, 1), "FREQ=YEARLY;BYWEEKNO=1,53,-1;WKST=SU", 0, 1)
def test_a_rule_yields_what_dateutil_expands(start, rule, first, second):
    text = f"DTSTART:{start:%Y%m%dT%H%M%S}Z\nRRULE:{rule}"
    end = seconds(start) + span_of(rule)
    expected = expanded_or_not(text, end)
    try:
        made = read_rrule(text, None, 0)
    except ValueError as e:
        assert "BYSETPOS" in str(e) or "picks" in str(e)
        assert not expected
        return
    after, until = sorted(
        seconds(start) - 1 + round(share * span_of(rule)) for share in (first, second)
    )
    try:
        agree(made, expected, after, until)
        agree(made, expected, seconds(start) - 1, end)
    except Costly:
        assert len(expected) < 2


@given(starts(), rules(LONG + SHORT, most=2), st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_count_counts_from_dtstart(start, rule, count):
    text = f"DTSTART:{start:%Y%m%dT%H%M%S}Z\nRRULE:{rule};COUNT={count}"
    end = seconds(start) + span_of(rule)
    expected = expanded_or_not(text, end)
    try:
        made = judge(read_rrule(text, None, 0), seconds(start) * 1000)
    except ValueError:
        assert len(expected) < 2
        return
    assert made.ends
    try:
        agree(made, expected, seconds(start) - 1, end)
    except Costly:
        assert len(expected) < 2


@given(starts(), rules(LONG, most=2), st.integers(0, 2000), st.sampled_from(["Z", "", "date"]))
@settings(max_examples=60, deadline=None)
def test_until_is_included(start, rule, days, form):
    last = start + timedelta(days=days)
    until = f"{last:%Y%m%d}" if form == "date" else f"{last:%Y%m%dT%H%M%S}{form}"
    text = f"DTSTART:{start:%Y%m%dT%H%M%S}Z\nRRULE:{rule}"
    try:
        made = read_rrule(f"{text};UNTIL={until}", None, 0)
    except ValueError as e:
        assert "BYSETPOS" in str(e)
        return
    end = last.replace(hour=23, minute=59, second=59) if form == "date" else last
    expected = expanded_or_not(text, seconds(end))
    agree(made, expected, seconds(start) - 1, seconds(start) + 3000 * DAY)


# In zones -----------------------------------------------------------------------------------------


def wall_of(at: int, zone: str) -> int:
    return seconds(datetime.fromtimestamp(at, ZoneInfo(zone)).replace(tzinfo=None))


def instants_of(wall: int, zone: str, gap: str, overlap: str) -> list[int]:
    """The instants of a wall time, asked of zoneinfo (PEP 495)."""
    info = ZoneInfo(zone)
    there = [face(wall).replace(tzinfo=info, fold=fold) for fold in (0, 1)]
    found = sorted({int(at.timestamp()) for at in there})
    real = [at for at in found if wall_of(at, zone) == wall]
    if real:
        return real if overlap == "both" else real[:1] if overlap == "first" else real[-1:]
    if gap == "skip":
        return []
    if gap == "shift":
        return [int(there[0].timestamp())]
    low, high = found[0] - 1, found[-1] + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if wall_of(middle, zone) < wall else (low, middle)
    return [high]


GAPS, OVERLAPS = ["shift", "skip", "end"], ["first", "second", "both"]
CLOCKED = st.sampled_from(
    [
        "BYHOUR=2;BYMINUTE=30",
        "BYHOUR=0",
        "BYHOUR=23,0,1;BYMINUTE=0,30",
        "BYHOUR=1,2,3;BYMINUTE=0,15,30,45",
        "BYHOUR=10",
        "BYHOUR=0,1,2,3,4;BYMINUTE=0,20,59;BYSECOND=0,59",
    ]
)
NEAR = {
    "Europe/Berlin": ["2025-03-25", "2025-10-22", "2026-03-28"],
    "America/New_York": ["2025-03-05", "2025-10-29"],
    "Australia/Lord_Howe": ["2025-04-02", "2025-10-01"],
    "America/Santiago": ["2025-04-02", "2025-09-03", "2024-09-05"],
    "Africa/Casablanca": ["2025-02-20", "2025-04-03"],
    "Pacific/Apia": ["2011-12-27", "2011-12-30", "2012-03-28"],
}
PLACES = st.sampled_from(ZONES).flatmap(
    lambda zone: st.tuples(st.just(zone), st.sampled_from(NEAR[zone]))
)


@given(PLACES, starts(2008, 2011), rules(LONG, most=2), CLOCKED, st.sampled_from(GAPS),
       st.sampled_from(OVERLAPS), st.booleans())  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_a_wall_clock_rule_keeps_its_time_over_daylight_saving(
    place, start, rule, clocked, gap, overlap, far
):
    zone, near = place
    rule = ";".join(
        part for part in rule.split(";") if not part.startswith(("BYHOUR", "BYMIN", "BYSEC"))
    )
    assume("BYSETPOS" not in rule)
    begin = start if far else datetime.fromisoformat(near).replace(hour=start.hour)
    text = f"DTSTART;TZID={zone}:{begin:%Y%m%dT%H%M%S}\nRRULE:{rule};{clocked}"
    low = seconds(datetime.fromisoformat(near))
    high = low + 12 * DAY
    walls = expanded_or_not(
        f"DTSTART:{begin:%Y%m%dT%H%M%S}\nRRULE:{rule};{clocked}", high + 3 * DAY
    )
    expected = sorted({at for wall in walls for at in instants_of(wall, zone, gap, overlap)})
    made = read_rrule(text, None, 0, gap, overlap)
    agree(made, expected, low, high)
    agree(made, expected, low + 5 * DAY, high)


def stepped(start: datetime, zone: str, parts: dict[str, str], until: int) -> Iterator[int]:
    """A rule of HOURLY, MINUTELY or SECONDLY, every second of every step looked at."""
    unit = {"HOURLY": 3600, "MINUTELY": 60, "SECONDLY": 1}[parts["FREQ"]]
    first = instants_of(seconds(start), zone, "shift", "first")[0]
    wanted = {name: {int(n) for n in value.split(",")} for name, value in parts.items()
              if name.startswith("BY") and name != "BYDAY"}  # fmt: skip
    began = wall_of(first, zone) % unit
    for step in range(first - began, until + 1, unit * int(parts.get("INTERVAL", "1"))):
        for second in range(unit):
            at = step + second
            if unit == 3600 and "BYMINUTE" not in wanted and second // 60 != began // 60:
                continue
            if unit >= 60 and "BYSECOND" not in wanted and second % 60 != began % 60:
                continue
            wall = face(wall_of(at, zone))
            shown = {"BYHOUR": wall.hour, "BYMINUTE": wall.minute, "BYSECOND": wall.second,
                     "BYMONTH": wall.month, "BYMONTHDAY": wall.day}  # fmt: skip
            fits = all(shown[name] in values for name, values in wanted.items())
            days = parts.get("BYDAY", "MO,TU,WE,TH,FR,SA,SU").split(",")
            if fits and NAMES[wall.weekday()] in days and first <= at <= until:
                yield at


@given(
    PLACES,
    st.integers(0, DAY - 1),
    st.sampled_from(
        [
            {"FREQ": "HOURLY"},
            {"FREQ": "HOURLY", "INTERVAL": "5"},
            {"FREQ": "HOURLY", "BYHOUR": "1,2,3", "INTERVAL": "2"},
            {"FREQ": "HOURLY", "BYMINUTE": "0,15"},
            {"FREQ": "HOURLY", "BYMINUTE": "45", "BYHOUR": "0,1,2,23", "BYDAY": "SA,SU,FR"},
            {"FREQ": "MINUTELY", "INTERVAL": "45"},
            {"FREQ": "MINUTELY", "INTERVAL": "7", "BYHOUR": "2"},
            {"FREQ": "MINUTELY", "BYHOUR": "2,23,0", "BYMINUTE": "0,30"},
            {"FREQ": "MINUTELY", "INTERVAL": "100", "BYSECOND": "0,30"},
            {"FREQ": "SECONDLY", "INTERVAL": "1000", "BYDAY": "SU"},
            {"FREQ": "SECONDLY", "INTERVAL": "600", "BYHOUR": "2,3"},
        ]
    ),
)
@settings(max_examples=60, deadline=None)
def test_a_rule_of_hours_or_less_follows_elapsed_time(place, clock, parts):
    zone, near = place
    begin = datetime.fromisoformat(near) + timedelta(seconds=clock)
    text = ";".join(f"{name}={value}" for name, value in parts.items())
    high = seconds(begin) + 9 * DAY
    made = read_rrule(f"DTSTART;TZID={zone}:{begin:%Y%m%dT%H%M%S}\nRRULE:{text}", None, 0)
    expected = list(stepped(begin, zone, parts, high))
    agree(made, expected, seconds(begin) - 2 * DAY, high)
    agree(made, expected, seconds(begin) + 3 * DAY, high - 3600)


# Sets ---------------------------------------------------------------------------------------------


@given(
    starts(),
    st.lists(rules(("DAILY", "WEEKLY", "MONTHLY", "HOURLY"), most=1), min_size=1, max_size=3),
    st.lists(rules(("DAILY", "WEEKLY", "MONTHLY", "HOURLY"), most=1), max_size=2),
    st.lists(st.integers(0, 60), max_size=6),
    st.lists(st.integers(0, 60), max_size=6),
)
@settings(max_examples=80, deadline=None)
def test_a_set_is_its_rules_and_dates_but_for_the_exceptions(start, named, ex, dates, exdates):
    begin = f"{start:%Y%m%dT%H%M%S}"
    end = seconds(start) + 60 * DAY
    wanted: set[int] = set()
    for rule in named:
        wanted |= set(expanded_or_not(f"DTSTART:{begin}\nRRULE:{rule}", end))
    extra = [start + timedelta(days=day) for day in dates]
    gone = [start + timedelta(days=day) for day in exdates]
    wanted |= {seconds(at) for at in extra}
    for rule in ex:
        wanted -= set(expanded_or_not(f"DTSTART:{begin}\nRRULE:{rule}", end))
    wanted -= {seconds(at) for at in gone}
    lines = [
        f"DTSTART:{begin}Z",
        *(f"RRULE:{rule}" for rule in named),
        *(f"EXRULE:{r}" for r in ex),
    ]
    if extra:
        lines.append("RDATE:" + ",".join(f"{at:%Y%m%dT%H%M%S}Z" for at in extra))
    lines += [f"EXDATE:{at:%Y%m%dT%H%M%S}Z" for at in gone]
    try:
        made = read_rrule("\n".join(lines), None, 0)
    except ValueError as e:
        assert "BYSETPOS" in str(e)
        return
    try:
        agree(made, sorted(wanted), seconds(start) - 1, end)
    except Costly as e:
        assert "in a row" in str(e) or "BYSETPOS" in str(e)


@pytest.mark.parametrize("zone", ZONES)
def test_a_rule_in_a_zone_yields_each_instant_once_and_in_order(zone):
    rule = read_rrule(
        f"DTSTART;TZID={zone}:20110101T000000\nRRULE:FREQ=DAILY;BYHOUR=0,1,2,3;BYMINUTE=0,30",
        None, 0, "shift", "both",
    )  # fmt: skip
    after, until = 1_293_840_000_000, 1_356_998_400_000
    found = list(rule.between(after, until))
    assert found == sorted(set(found))
    assert len(found) == rule.count(after, until)

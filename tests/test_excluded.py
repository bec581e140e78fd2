"""What calendars exclude, against brute force; and reading their files."""

import time
from datetime import UTC, datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler import planning
from scheduler.calendars.ical import Refused, read_events
from scheduler.definition import Definition, Policy
from scheduler.triggers import Bounds, Interval, excluded
from scheduler.triggers.calendar import Event, Rules, Weekly, merged
from scheduler.triggers.excluded import TRIES, Calendar, Excluded
from test_queue import definition

HOUR, DAY = 3_600_000, 86_400_000
EACH_SECOND = ";".join(
    f"BY{name}={','.join(map(str, range(most)))}"
    for name, most in (("HOUR", 24), ("MINUTE", 60), ("SECOND", 60))
)
DATES = ",".join(f"2026{month:02}{day:02}" for month in range(1, 13) for day in range(1, 27))
EPOCH_DAY = datetime(1970, 1, 1).toordinal()
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Beirut",
         "America/Santiago", "Pacific/Apia", "Africa/Casablanca")  # fmt: skip
SINCE, UNTIL = 1_293_840_000_000, 1_861_920_000_000
"""2011, when Samoa left out a day, to 2028."""


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def face(zone: str, instant: int) -> datetime:
    return datetime.fromtimestamp(instant // 1000, ZoneInfo(zone)).replace(tzinfo=None)


def by_the_clock(rules: Rules, instant: int) -> bool:
    """Brute force: what does a clock on the wall show?"""
    there = face(rules.timezone, instant)
    day, minute = there.toordinal() - EPOCH_DAY, there.hour * 60 + there.minute
    if any(first <= day <= last for first, last in rules.dates):
        return True
    for each in rules.weekly:
        today, before = there.weekday() in each.days, (there.weekday() - 1) % 7 in each.days
        if each.end > each.start and today and each.start <= minute < each.end:
            return True
        if each.end <= each.start and (
            (today and minute >= each.start) or (before and minute < each.end)
        ):
            return True
    for event in rules.events:
        wall = int(
            (face(event.zone or rules.timezone, instant) - datetime(1970, 1, 1)).total_seconds()
        )
        if event.start <= wall < event.end:
            return True
    return False


DAYS_OF = st.integers(SINCE // DAY, UNTIL // DAY)
MINUTES = st.integers(0, 47).map(lambda n: n * 30)
WEEKLY = st.builds(
    lambda days, start, end: Weekly(tuple(sorted(days)), start, end),
    st.sets(st.integers(0, 6), min_size=1), MINUTES, MINUTES.map(lambda n: n + 30),
).filter(lambda each: each.start != each.end)  # fmt: skip
EVENTS = st.builds(
    lambda start, length, zone: Event(start, start + length, zone),
    st.integers(SINCE // 1000, UNTIL // 1000), st.integers(60, 400_000),
    st.sampled_from((None, *ZONES)),
)  # fmt: skip
RULES = st.builds(
    Rules,
    st.sampled_from(ZONES),
    st.lists(st.tuples(DAYS_OF, st.integers(0, 9)).map(lambda p: (p[0], p[0] + p[1])), max_size=4)
    .map(tuple),
    st.lists(WEEKLY, max_size=3).map(tuple),
    st.lists(EVENTS, max_size=3).map(tuple),
)  # fmt: skip


def near(rules: Rules, number: int) -> int:
    """An instant near something: the rules' edges, a leap of the clock, or anywhere."""
    edges = [first * DAY for first, _ in rules.dates] + [e.start * 1000 for e in rules.events]
    edges += [at("2011-12-30T00:00"), at("2026-03-29T01:00"), at("2026-10-25T01:00")]
    return edges[number % len(edges)] + (number // len(edges) % 385 - 192) * 15 * 60_000


@settings(max_examples=150, deadline=None)
@given(RULES, st.lists(st.integers(0, 10**6), min_size=20, max_size=20))
def test_an_instant_is_excluded_where_a_clock_there_shows_it(rules, numbers):
    calendar = Calendar(UUID(int=1), 1, "c", rules)
    for number in numbers:
        instant = near(rules, number)
        found = calendar.at(instant)
        assert (found is not None) == by_the_clock(rules, instant), instant
        if found:
            assert found.start <= instant < found.end
            assert by_the_clock(rules, found.start)
            assert by_the_clock(rules, found.end - 1000)


@settings(max_examples=40, deadline=None)
@given(RULES, st.integers(0, 10**6), st.integers(1, 3 * DAY), st.integers(0, 10**6))
def test_the_next_and_the_last_that_are_clear(rules, every, anchor, number):
    every = every % (36 * 60) * 60_000 + 60_000
    of = Interval(every // 1000, "second", anchor)
    start = near(rules, number)
    excluded = Excluded(Calendar(UUID(int=1), 1, "c", rules))
    ahead = [i for i in of.between(start, start + 6 * DAY) if not by_the_clock(rules, i)]
    found = excluded.next(of, start)
    if ahead:
        assert found in (ahead[0], None)
        assert found is not None or every <= HOUR
    behind = [i for i in of.between(start - 6 * DAY, start) if not by_the_clock(rules, i)]
    found = excluded.last(of, start - 6 * DAY, start)
    assert found == (behind[-1] if behind else None)


def test_one_that_excludes_everything_has_no_next_and_is_found_so_soon():
    always = Rules(weekly=(Weekly(tuple(range(7))),))
    asked = []

    class Counted(msgspec.Struct):
        def next(self, after: int) -> int:
            asked.append(after)
            return after + 1000

    excluded = Excluded(Calendar(UUID(int=1), 1, "c", always))
    assert excluded.next(Counted(), at("2026-01-01T00:00")) is None
    assert len(asked) == TRIES + 1


def test_spans_that_touch_are_one():
    assert merged([(5, 7), (1, 3), (3, 5), (9, 9), (8, 10)]) == [(1, 7), (8, 10)]


# Misfire -----------------------------------------------------------------------------------------

NOW = at("2026-06-08T09:00")  # a Monday
WEEKEND = Excluded(Calendar(UUID(int=1), 1, "closed", Rules(weekly=(Weekly((5, 6)),))))


def hourly(**more: object) -> Definition:
    made = definition("t", trigger=Interval(1, "hour", at("2026-01-01T00:30")))
    return msgspec.structs.replace(made, bounds=Bounds(calendars=("closed",)), **more)


def test_the_last_instant_that_is_not_excluded_is_made_up_for():
    now = at("2026-06-07T12:00")  # Sunday
    made = planning.plan(hourly(excluded=WEEKEND), at("2026-06-05T20:00"), 0, now, now + 60_000)
    assert made.instants == [at("2026-06-05T23:30")]
    told = [(gap.reason, gap.first, gap.last, gap.count) for gap in made.gaps]
    assert told == [
        ("misfire", at("2026-06-05T20:30"), at("2026-06-05T22:30"), 3),
        ("calendar", at("2026-06-06T00:30"), at("2026-06-07T11:30"), 36),
    ]
    assert made.spent == 40


def test_without_calendars_it_is_the_last_of_all():
    now = at("2026-06-07T12:00")
    made = planning.plan(hourly(), at("2026-06-05T20:00"), 0, now, now + 60_000)
    assert made.instants == [at("2026-06-07T11:30")]
    assert [(gap.reason, gap.count) for gap in made.gaps] == [("misfire", 39)]


@pytest.mark.parametrize(("rule", "kept"), [("latest", 1), ("skip", 0)])
def test_what_was_planned_and_not_excluded_is_made_up_for_too(rule, kept):
    planned, now = at("2026-06-06T00:00"), at("2026-06-07T12:00")
    of = hourly(excluded=WEEKEND, policy=Policy(misfire=rule))
    made = planning.plan(of, planned, 1, now, now + 60_000)
    assert (made.instants, made.spent) == ([], 36)
    made.pass_over([at("2026-06-05T23:30")], now)
    assert len(made.instants) == kept
    assert made.spent == 36
    assert sum(gap.count for gap in made.gaps) == 37 - kept


# Files -------------------------------------------------------------------------------------------


def ics(*events: str) -> str:
    inside = "".join(f"BEGIN:VEVENT\n{event}\nEND:VEVENT\n" for event in events)
    return f"BEGIN:VCALENDAR\nVERSION:2.0\n{inside}END:VCALENDAR\n"


async def spans(text: str, since: str, until: str, zone: str = "Europe/Berlin") -> list[str]:
    rules = Rules(zone, events=await read_events(text, zone))
    return [
        f"{face(zone, s):%m-%d %H:%M}/{face(zone, e):%m-%d %H:%M}"
        for s, e in rules.between(at(since), at(until))
    ]


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ("DTSTART;VALUE=DATE:20260105", ["01-05 00:00/01-06 00:00"]),
        ("DTSTART;VALUE=DATE:20260105\nDTEND;VALUE=DATE:20260108", ["01-05 00:00/01-08 00:00"]),
        ("DTSTART;VALUE=DATE:20260105\nDURATION:P2D", ["01-05 00:00/01-07 00:00"]),
        ("DTSTART:20260105T090000Z\nDTEND:20260105T100000Z", ["01-05 10:00/01-05 11:00"]),
        ("DTSTART:20260105T090000\nDURATION:PT90M", ["01-05 09:00/01-05 10:30"]),
        ("DTSTART;TZID=America/New_York:20260105T090000\nDURATION:PT1H",
         ["01-05 15:00/01-05 16:00"]),
        ("DTSTART;TZID=Eastern Standard Time:20260105T090000\nDURATION:PT1H",
         ["01-05 15:00/01-05 16:00"]),
        ("DTSTART;TZID=America/New_York:20260105T090000\nDTEND:20260105T160000Z",
         ["01-05 15:00/01-05 17:00"]),
        ("DTSTART:20260105T090000\nDURATION:PT1H\nRRULE:FREQ=WEEKLY;COUNT=2",
         ["01-05 09:00/01-05 10:00", "01-12 09:00/01-12 10:00"]),
        ("DTSTART:20260105T090000\nDURATION:PT1H\nRRULE:FREQ=WEEKLY;UNTIL=20260112T080000Z",
         ["01-05 09:00/01-05 10:00", "01-12 09:00/01-12 10:00"]),
        ("DTSTART:20260105T090000\nDURATION:PT1H\nRRULE:FREQ=WEEKLY;UNTIL=20260112T075959Z",
         ["01-05 09:00/01-05 10:00"]),
        ("DTSTART;VALUE=DATE:20260105\nRRULE:FREQ=WEEKLY;UNTIL=20260112",
         ["01-05 00:00/01-06 00:00", "01-12 00:00/01-13 00:00"]),
        (("DTSTART:20260105T090000\nDURATION:PT1H\nRRULE:FREQ=WEEKLY;COUNT=2\n"
         "EXDATE:20260105T080000Z"), ["01-12 09:00/01-12 10:00"]),
        (("DTSTART:20260105T090000\nDURATION:PT1H\nRRULE:FREQ=WEEKLY;COUNT=2\n"
         "EXDATE;VALUE=DATE:20260112"), ["01-05 09:00/01-05 10:00"]),
        (("DTSTART:20260105T090000\nDURATION:PT1H\nRDATE:20260107T120000\n"
         "RDATE;VALUE=PERIOD:20260108T120000Z/PT2H"),
         ["01-05 09:00/01-05 10:00", "01-07 12:00/01-07 13:00", "01-08 13:00/01-08 15:00"]),
        ("DTSTART:20260105T090000\nSTATUS:CANCELLED\nDURATION:PT1H", []),
        ("DTSTART:20260105T090000", []),
        ("DTSTART:2026\n 0105T0900\n 00\nDURATION:PT1H", ["01-05 09:00/01-05 10:00"]),
        (("DTSTART:20260105T090000\nDURATION:PT1H\nBEGIN:VALARM\nTRIGGER:-PT5M\nDURATION:PT9H\n"
         "END:VALARM"), ["01-05 09:00/01-05 10:00"]),
    ],
)  # fmt: skip
async def test_an_event_is_read(event, expected):
    assert await spans(ics(f"UID:a\n{event}"), "2026-01-01", "2026-01-31") == expected


async def test_a_recurrence_that_was_moved_is_where_it_was_moved_to():
    file = ics(
        "UID:a\nDTSTART:20260105T090000\nDURATION:PT1H\nRRULE:FREQ=DAILY;COUNT=3",
        "UID:a\nRECURRENCE-ID:20260106T080000Z\nDTSTART:20260106T150000\nDURATION:PT1H",
        "UID:a\nRECURRENCE-ID:20260107T080000Z\nDTSTART:20260107T090000\nSTATUS:CANCELLED",
    )
    found = await spans(file, "2026-01-01", "2026-01-31")
    assert found == ["01-05 09:00/01-05 10:00", "01-06 15:00/01-06 16:00"]


async def test_an_event_keeps_to_the_wall_clock_over_daylight_saving():
    file = ics(
        "UID:a\nDTSTART;TZID=Europe/Berlin:20260327T220000\nDURATION:PT8H\nRRULE:FREQ=DAILY;COUNT=3"
    )
    found = await spans(file, "2026-03-27", "2026-04-01")
    assert found == [f"03-{n} 22:00/03-{n + 1} 06:00" for n in (27, 28, 29)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty; must begin with BEGIN:VCALENDAR"),
        ("hello", "line 1: must begin with BEGIN:VCALENDAR"),
        ("BEGIN:VCALENDAR\nBEGIN:VEVENT\n", "ends before END:VEVENT"),
        ("BEGIN:VCALENDAR\nEND:VEVENT\n", "line 2: ends VEVENT, which did not begin there"),
        ("BEGIN:VCALENDAR\n" * 9, "line 9: is nested more than 8 deep"),
        (ics("SUMMARY:x"), "needs a DTSTART, in the event of line 3"),
        (ics("DTSTART:20261301"), "in the event of line 3"),
        (ics("DTSTART:20260101", "DTSTART:x"), "in the event of line 6"),
        (ics("DTSTART;TZID=Nowhere:20260101T000000"), "TZID Nowhere is no IANA time zone"),
        (ics("DTSTART;TZID=../../etc/passwd:20260101T000000"), "is no IANA time zone"),
        (ics("DTSTART:20260101T090000Z\nDTEND:20260101T080000Z"), "DTEND lies before DTSTART"),
        (ics("DTSTART:20260101T090000Z\nDURATION:-PT1H"), "DURATION must not be negative"),
        (ics("DTSTART:20260101T090000Z\nDURATION:P99999999W"), "in the event of line 3"),
        (ics("DTSTART:20260101T090000Z\nDTSTART:20260101T090000Z"), "more than one DTSTART"),
        (ics("DTSTART:20260101T090000Z\nRRULE:FREQ=SECONDLY"), "FREQ of DAILY, WEEKLY"),
        (ics("DTSTART:20260101T090000Z\nRRULE:FREQ=DAILY;INTERVAL=0"), "INTERVAL of 1"),
        (ics("DTSTART:20260101T090000Z\nRRULE:FREQ=DAILY;FOO=1"), "in the event of line 3"),
        (ics("DTSTART:20260101T090000Z\nEXRULE:FREQ=DAILY"), "EXRULE is not understood"),
        (ics("DTSTART:20260101T090000Z\nEXDATE:" + "20260101T090000Z," * 600 + "20260101"),
         "take more than 8192 bytes"),
        (ics("DTSTART;VALUE=DATE:20260101\nDURATION:P400D\nRRULE:FREQ=YEARLY"), "366 days"),
        (ics(*["DTSTART;VALUE=DATE:20260101"] * 2001), "at most 2000 events"),
        (ics(*["DTSTART;VALUE=DATE:20260101\nRRULE:FREQ=YEARLY"] * 101), "at most 100 events"),
        (ics(*[f"DTSTART:20260101\nRDATE;VALUE=DATE:{DATES}"] * 10), "at most 2000 events"),
        (ics("DTSTART:20260101\n" + "RRULE:FREQ=DAILY\n" * 101), "at most 100 events"),
        (ics(*[f"UID:a\nDTSTART:20260101\nRRULE:FREQ=DAILY\nEXDATE:{DATES}"] * 40),
         "takes away more than 10000"),
        ("x" * 262_145, "at most 262144 characters"),
    ],
    ids=lambda value: value[:20] if len(value) < 90 else "long",
)  # fmt: skip
async def test_a_file_that_cannot_be_is_refused_with_its_place(text, words):
    with pytest.raises(Refused) as refused:
        await read_events(text, "UTC")
    assert words in str(refused.value)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(
    "rule",
    [
        f"FREQ=DAILY;{EACH_SECOND}",
        f"FREQ=DAILY;{EACH_SECOND};UNTIL=20260110T000000Z",
        f"FREQ=DAILY;{EACH_SECOND};BYMONTH=9",
        f"FREQ=YEARLY;{EACH_SECOND};BYMONTH=9;BYMONTHDAY=1",
        f"FREQ=DAILY;{EACH_SECOND};COUNT=2000000",
    ],
)
async def test_a_rule_of_too_many_times_is_refused_before_it_is_worked_out(rule):
    began = time.thread_time()
    with pytest.raises(Refused) as refused:
        await read_events(ics(f"DTSTART:20260101T000000\nDURATION:PT1S\nRRULE:{rule}"), "UTC")

    assert "recurs too often" in str(refused.value)
    assert time.thread_time() - began < 0.3


async def test_rules_that_are_too_many_times_together_are_refused():
    day = "DTSTART;VALUE=DATE:20260101\nDTEND;VALUE=DATE:20260102\nRRULE:FREQ=DAILY"
    assert len(await read_events(ics(*[day] * 100), "UTC")) == 100
    long = day.replace("20260102", "20261201").replace("DAILY", "DAILY;BYHOUR=0,12")
    with pytest.raises(Refused) as refused:
        await read_events(ics(*[long] * 100), "UTC")
    assert "recurs too often" in str(refused.value)


@pytest.mark.parametrize(
    ("rule", "stored"),
    [
        ("FREQ=DAILY;COUNT=3", "RRULE:FREQ=DAILY;UNTIL=20260103T090000Z"),
        ("FREQ=YEARLY;COUNT=100000", "RRULE:FREQ=YEARLY"),
        ("FREQ=MONTHLY;COUNT=30;BYDAY=MO;BYSETPOS=-1",
         "RRULE:FREQ=MONTHLY;BYDAY=MO;BYSETPOS=-1;UNTIL=20280626T090000Z"),
    ],
)  # fmt: skip
async def test_where_count_ends_is_sought_once(rule, stored):
    found = await read_events(ics(f"DTSTART:20260101T090000\nDURATION:PT1H\nRRULE:{rule}"), "UTC")

    assert [event.rule for event in found] == [stored]


def test_what_costs_much_is_given_up_sooner():
    events = (Event(0, 366 * 86_400, None, "RRULE:FREQ=DAILY"),) * 30
    closed = Calendar(UUID(int=1), 1, "c", Rules(events=events))
    began = time.thread_time()

    assert Excluded(closed).next(Interval(1, "day", 0), at("2026-01-01T00:00")) is None
    assert time.thread_time() - began < 1


def test_what_is_kept_of_calendars_has_a_bound(monkeypatch):
    monkeypatch.setattr(excluded, "KEPT_MOST", 20_000)
    monkeypatch.setattr(excluded, "_kept", excluded._Kept())
    hourly = Rules(weekly=tuple(Weekly(tuple(range(7)), n * 60, n * 60 + 1) for n in range(24)))
    many = [Calendar(UUID(int=1), 1, "c", hourly) for _ in range(5)]
    for month in range(10):
        for each in many:
            each.at(at("2026-01-01T00:00") + month * excluded.BLOCK_MS)

    assert 18_000 < excluded._kept.size <= excluded.KEPT_MOST


async def test_a_rule_that_never_matches_excludes_nothing_or_is_refused():
    file = ics("DTSTART;VALUE=DATE:20260101\nRRULE:FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30")
    try:
        assert await spans(file, "2026-01-02", "2027-01-01") == []
    except Refused as e:
        assert "RRULE" in str(e)


def test_a_year_of_holidays_is_worked_out_block_by_block():
    start = datetime(2026, 1, 1, tzinfo=UTC)
    first = start.toordinal() - EPOCH_DAY
    calendar = Calendar(UUID(int=1), 1, "c", Rules(dates=((first, first + 364),)))
    instant, jumps = int(start.timestamp() * 1000), 0
    while (found := calendar.at(instant)) is not None:
        instant, jumps = found.end, jumps + 1
    assert instant == int((start + timedelta(days=365)).timestamp() * 1000)
    assert jumps <= 15

"""Cron against brute force: every minute of the clocks of seven zones, and cronsim itself."""

import itertools
import json
import re
import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import msgspec
import pytest
from cronsim import CronSim
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from conftest import eventually
from scheduler.instant import FIRST, LAST
from scheduler.triggers import Cron, Trigger

MINUTE, DAY = 60_000, 86_400_000
ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",  # by half an hour
    "Africa/Casablanca",  # back for Ramadan
    "America/Sao_Paulo",  # at midnight, until 2019
    "Asia/Kathmandu",
    "Pacific/Apia",  # without 30 December 2011
]


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * 1000


SPANS = [at(f"{year}-01-01T00:00:00Z") for year in (2008, 2011, 2018, 2026, 2027)]


# Brute force: the fields, read a second time, against the clock of every minute ------------------


def numbers(text: str, least: int, most: int) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        low, _, high = span.partition("-")
        if span == "*":
            values = range(least, most + 1)
        elif high and low != high:  # 5-5/2 is read as 5/2, by cronsim too
            values = range(int(low), int(high) + 1)
        else:
            values = range(int(low), (most if step else int(low)) + 1)
        found.update(values[:: int(step or 1)])
    return found


class Brute:
    """Five fields of numbers, `L` and `#`, judged one minute at a time."""

    def __init__(self, text: str):
        minute, hour, day, month, weekday = text.split()
        self.minutes, self.hours = numbers(minute, 0, 59), numbers(hour, 0, 23)
        self.months = numbers(month, 1, 12)
        self.day, self.weekday = day, weekday
        self.both = day[0] == "*" or weekday[0] == "*"
        self.fixed = minute[0] != "*" and hour[0] != "*"
        self.known: dict[int, bool] = {}

    def on_day(self, face: datetime) -> bool:
        ends = (face + timedelta(days=1)).month != face.month
        by_day = ends if self.day == "L" else face.day in numbers(self.day, 1, 31)
        wanted, _, nth = self.weekday.partition("#")
        if wanted.endswith("L"):
            final = (face + timedelta(days=7)).month != face.month
            by_week = face.isoweekday() % 7 == int(wanted[:-1]) % 7 and final
        else:
            by_week = face.isoweekday() % 7 in {n % 7 for n in numbers(wanted, 0, 7)}
            by_week = by_week and (not nth or (face.day - 1) // 7 + 1 == int(nth))
        return (by_day and by_week) if self.both else (by_day or by_week)

    def names(self, face: datetime) -> bool:
        return (
            face.minute in self.minutes
            and face.hour in self.hours
            and face.month in self.months
            and self.today(face)
        )

    def today(self, face: datetime) -> bool:
        day = face.toordinal()
        if day not in self.known:
            self.known[day] = self.on_day(face)
        return self.known[day]


@lru_cache(64)
def faces(zone: str, start: int, days: int) -> list[datetime]:
    """What the wall clock shows at every minute."""
    info, first = ZoneInfo(zone), datetime.fromtimestamp(start // 1000, UTC)
    return [
        (first + timedelta(minutes=n)).astimezone(info).replace(tzinfo=None)
        for n in range(days * 1440)
    ]


@lru_cache(64)
def twice(zone: str, start: int, days: int) -> tuple[list[bool], list[bool]]:
    """Of every minute: whether the clock has shown the same before, and whether it will again."""
    shown = faces(zone, start, days)
    first = {face: n for n, face in reversed(list(enumerate(shown)))}
    last = {face: n for n, face in enumerate(shown)}
    pairs = list(enumerate(shown))
    return [first[face] < n for n, face in pairs], [last[face] > n for n, face in pairs]


def brute(
    text: str, zone: str, start: int, days: int, gap: str = "end", overlap: str = "first"
) -> list[int]:
    """Every due minute in [start + 2 days, start + days)."""
    rule, shown = Brute(text), faces(zone, start, days)
    before, again = twice(zone, start, days)
    dropped = {"first": before, "second": again, "both": [False] * len(shown)}[overlap]
    minute, found = timedelta(minutes=1), set()
    for n, face in enumerate(shown):
        if rule.names(face) and not (rule.fixed and dropped[n]):
            found.add(n)
        if not n or not rule.fixed or gap == "skip":
            continue
        leapt = shown[n - 1] + minute
        while leapt < face:  # what the clock leaps over
            if rule.names(leapt):
                late = int((leapt - shown[n - 1]) / minute) - 1
                found.add(n if gap == "end" else n + late)
            leapt += minute
    return [start + n * MINUTE for n in sorted(found) if 2 * 1440 <= n < days * 1440]


def part(least: int, most: int):
    whole = st.integers(least, most)
    ranges = st.tuples(whole, whole).map(lambda p: f"{min(p)}-{max(p)}")
    some = st.one_of(whole.map(str), ranges)
    steps = st.tuples(st.one_of(st.just("*"), ranges), st.integers(1, 20)).map(
        lambda p: f"{p[0]}/{p[1]}"
    )
    return st.one_of(
        st.just("*"), some, steps, st.lists(some, min_size=2, max_size=4).map(",".join)
    )


WEEKDAYS = st.one_of(
    st.just("*"),
    st.just("*"),
    part(0, 7),
    st.integers(0, 7).map(lambda n: f"{n}L"),
    st.tuples(st.integers(0, 7), st.integers(1, 5)).map(lambda p: f"{p[0]}#{p[1]}"),
)
DAYS = st.one_of(st.just("*"), st.just("*"), st.just("L"), part(1, 31))
MONTHS = st.one_of(st.just("*"), st.just("*"), part(1, 12))
NIGHT = st.one_of(part(0, 59), st.sampled_from(["0", "30", "59", "15,45", "0-59"]))
HOURS = st.one_of(part(0, 23), st.integers(0, 3).map(str), st.just("0-3"))
FIVE = st.tuples(NIGHT, HOURS, DAYS, MONTHS, WEEKDAYS).map(" ".join)


GAPS, OVERLAPS = ["skip", "shift", "end"], ["first", "second", "both"]
DST = st.tuples(st.sampled_from(GAPS), st.sampled_from(OVERLAPS))


def cron(text: str, zone: str = "UTC", gap: str = "end", overlap: str = "first") -> Cron:
    try:
        return Cron(text, zone, gap, overlap)
    except ValueError as e:
        assert "never due" in str(e)
        assume(False)
        raise


def changes(zone: str) -> list[int]:
    """Starts of three weeks around each change of a zone's clock in the years of SPANS."""
    found = []
    for start in SPANS:
        info = ZoneInfo(zone)
        days = [datetime.fromtimestamp(start // 1000 + n * 86400, info) for n in range(368)]
        found += [
            start + (n - 9) * DAY
            for n, (a, b) in enumerate(itertools.pairwise(days))
            if a.utcoffset() != b.utcoffset()
        ]
    return found or SPANS


WINDOWS = [(zone, start) for zone in ZONES for start in changes(zone)]


@settings(max_examples=200, deadline=None)
@given(FIVE, st.sampled_from(WINDOWS), DST)
@example("0,30 2,3 * * *", ("Europe/Berlin", at("2027-03-21T00:00:00Z")), ("end", "first"))
@example("0,30 2,3 * * *", ("Europe/Berlin", at("2027-03-21T00:00:00Z")), ("shift", "both"))
@example("*/20 2 * * *", ("Europe/Berlin", at("2027-03-21T00:00:00Z")), ("skip", "second"))
@example("0 0 30 12 *", ("Pacific/Apia", at("2011-12-20T00:00:00Z")), ("end", "first"))
@example("10 0,7 30,31 12 *", ("Pacific/Apia", at("2011-12-20T00:00:00Z")), ("shift", "first"))
@example("15 2 * * *", ("Australia/Lord_Howe", at("2026-09-28T00:00:00Z")), ("shift", "first"))
@example("45 1 * * *", ("Australia/Lord_Howe", at("2026-03-28T00:00:00Z")), ("end", "second"))
@example("* 0,1 2 * *", ("America/New_York", at("2008-10-24T00:00:00Z")), ("end", "second"))
def test_around_a_change_of_the_clock_it_is_due_as_a_scan_of_every_minute_finds(text, window, dst):
    zone, start = window
    trigger, walked = cron(text, zone, *dst), brute(text, zone, start, 20, *dst)
    low, high = start + 2 * DAY - 1, start + 20 * DAY - 1
    assert list(trigger.between(low, high)) == walked
    assert trigger.count(low, high) == len(walked)
    assert trigger.last(low, high) == (walked[-1] if walked else None)
    for before, after in itertools.pairwise(walked[:500]):
        assert trigger.last(low, after - 1) == before


@pytest.mark.parametrize("gap", GAPS)
@pytest.mark.parametrize("overlap", OVERLAPS)
@pytest.mark.parametrize("zone", [zone for zone in ZONES if len(changes(zone)) > 1])
def test_each_setting_gives_what_a_scan_of_every_minute_finds(zone, gap, overlap):
    for text in ("0,30 0-3 * * *", "15 2 * * *", "59 23,1 * * *"):
        for start in changes(zone)[:4]:
            walked = brute(text, zone, start, 20, gap, overlap)
            trigger = Cron(text, zone, gap, overlap)
            low, high = start + 2 * DAY - 1, start + 20 * DAY - 1
            assert list(trigger.between(low, high)) == walked
            assert trigger.count(low, high) == len(walked)
            back = [trigger.last(low, one) for one in (high, *(one - 1 for one in walked[:0:-1]))]
            assert back == walked[::-1]


@pytest.mark.parametrize(("zone", "year"), [("Europe/Berlin", 2026), ("Pacific/Apia", 2011)])
def test_over_a_whole_year_it_is_due_as_a_scan_of_every_minute_finds(zone, year):
    start = at(f"{year}-01-01T00:00:00Z")
    for text in ("30 2 * * *", "0 */3 L * *", "10 0-3 * * 5#2", "5 1 13 * 5", "0 0 * 3 *"):
        walked, trigger = brute(text, zone, start, 370), Cron(text, zone)
        low, high = start + 2 * DAY - 1, start + 370 * DAY - 1
        assert list(trigger.between(low, high)) == walked
        assert trigger.count(low, high) == len(walked)


# cronsim -----------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(
    FIVE,
    st.sampled_from(["", "", "*", "0", "10", "*/20", "5,35"]),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York"]),
    st.sampled_from(changes("Europe/Berlin") + changes("America/New_York")),
    st.integers(0, 20 * 1440),
)
def test_it_is_due_as_cronsim_says(five, seconds, zone, start, minutes):
    text = f"{seconds} {five}".strip()
    trigger, after = cron(text, zone), start + minutes * MINUTE
    theirs = CronSim(text, datetime.fromtimestamp(after // 1000, ZoneInfo(zone)))
    if zone == "UTC":
        theirs = CronSim(text, datetime.fromtimestamp(after // 1000, UTC))
    # cronsim names an instant twice where two fixed times meet, and steps back in a repeated hour
    stamps = (int(one.timestamp()) * 1000 for one in itertools.islice(theirs, 60))
    wanted = sorted({stamp for stamp in stamps if stamp > after})[:40]
    assert list(itertools.islice(trigger.between(after, LAST), len(wanted))) == wanted


def test_seconds_come_first_of_six_fields():
    trigger = Cron("15 30 9 * * *")
    assert trigger.next(at("2027-01-01T00:00:00Z")) == at("2027-01-01T09:30:15Z")


# The four questions agree ------------------------------------------------------------------------

ANY = st.one_of(
    FIVE, st.tuples(part(0, 59), FIVE).map(" ".join), st.sampled_from(["@daily", "@HOURLY"])
)
MOMENTS = st.integers(at("1950-01-01T00:00:00Z"), at("2100-01-01T00:00:00Z"))


@settings(max_examples=300, deadline=None)
@given(ANY, st.sampled_from(ZONES), MOMENTS, st.integers(-DAY, 40 * DAY), DST)
def test_the_four_questions_agree(text, zone, after, span, dst):
    trigger, until = cron(text, zone, *dst), after + span
    found = list(itertools.islice(trigger.between(after, until), 2000))
    assert all(a < b for a, b in itertools.pairwise(found))
    assert all(after < one <= until and one % 1000 == 0 for one in found)
    following = trigger.next(after)
    if found or (following is not None and following <= until):
        assert found[0] == following
    if len(found) == 2000:
        until = found[-1]
    assert trigger.count(after, until) == len(found)
    assert trigger.last(after, until) == (found[-1] if found else None)


@settings(max_examples=200, deadline=None)
@given(ANY, st.sampled_from(ZONES), st.lists(MOMENTS, min_size=2, max_size=5, unique=True), DST)
def test_a_range_cut_in_pieces_counts_the_same(text, zone, edges, dst):
    trigger = cron(text, zone, *dst)
    edges.sort()
    pieces = [trigger.count(a, b) for a, b in itertools.pairwise(edges)]
    assert sum(pieces) == trigger.count(edges[0], edges[-1])
    assert trigger.last(edges[0], edges[-1]) is not None or sum(pieces) == 0


@given(ANY, st.sampled_from(ZONES), st.integers(FIRST, LAST), st.integers(FIRST, LAST), DST)
@settings(deadline=None)
def test_no_moment_is_too_early_or_too_late_to_ask(text, zone, after, until, dst):
    trigger = cron(text, zone, *dst)
    following = trigger.next(after)
    assert following is None or after < following <= LAST
    last = trigger.last(after, until)
    assert last is None or after < last <= until
    if abs(until - after) < 10**13:  # 300 years
        assert trigger.count(after, until) >= (last is not None)


def test_leap_days_on_a_sunday_are_found_decades_ahead():
    rare, zone = Cron("0 0 29 2 */7", "Europe/Berlin"), ZoneInfo("Europe/Berlin")
    found = itertools.islice(rare.between(at("2000-01-01T00:00:00Z"), LAST), 5)
    days = [datetime.fromtimestamp(one / 1000, zone).date().isoformat() for one in found]
    assert days == ["2004-02-29", "2032-02-29", "2060-02-29", "2088-02-29", "2128-02-29"]


# What it costs: it runs between a thousand others in one event loop ------------------------------


def fastest(question) -> float:
    times = []
    for _ in range(5):
        start = time.perf_counter()
        question()
        times.append(time.perf_counter() - start)
    return min(times)


@pytest.mark.alone
@pytest.mark.parametrize("text", ["* * * * * *", "* * * * *", "30 2 * * *", "0 0 29 2 *", "0 9 * * 1-5"])  # fmt: skip
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
def test_no_question_holds_the_loop(text, zone):
    trigger, after = Cron(text, zone), at("2026-01-01T00:00:00Z")
    year = after + 365 * DAY
    assert fastest(lambda: trigger.count(after, year)) < 0.002
    assert fastest(lambda: trigger.last(after, year)) < 0.001
    assert fastest(lambda: trigger.next(after)) < 0.001
    assert fastest(lambda: list(trigger.between(after, after + DAY // 60))) < 0.1


# Reading -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "means"),
    [
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
        ("@Monthly", "0 0 1 * *"),
        ("@weekly", "0 0 * * SUN"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        (" @hourly ", "0 * * * *"),
    ],
)
def test_a_name_means_its_expression(name, means):
    after, until = at("2027-01-01T00:00:00Z"), at("2028-03-01T00:00:00Z")
    named, plain = Cron(name, "Europe/Berlin"), Cron(means, "Europe/Berlin")
    assert list(named.between(after, until)) == list(plain.between(after, until))
    assert named.explain() == plain.explain()


@settings(max_examples=40, deadline=None)
@given(ANY, st.sampled_from(ZONES), MOMENTS)
@example("0 0 * * MON", "UTC", 0)
@example("30 0 0 1 * *", "UTC", 0)
def test_a_question_mark_for_a_day_means_a_star(text, zone, after):
    assume(not text.startswith("@"))
    plain, fields = cron(text, zone), text.split()
    for days in ((-3,), (-1,), (-3, -1)):
        asked = ["?" if n - len(fields) in days and f == "*" else f for n, f in enumerate(fields)]
        trigger = cron(" ".join(asked), zone)
        assert trigger.explain() == plain.explain()
        assert trigger.next(after) == plain.next(after)
        assert trigger.count(after, after + 40 * DAY) == plain.count(after, after + 40 * DAY)


def test_a_question_mark_is_kept_as_it_was_written():
    for text, means in (("0 0 ? * MON", "0 0 * * 1"), ("0 30 9 1 * ?", "0 30 9 1 * *")):
        assert Cron(text).expression == text
        assert Cron(text).next(SPANS[0]) == Cron(means).next(SPANS[0])


@pytest.mark.alone
@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "five fields"),
        ("* * * *", "has 4 fields"),
        ("* * * * * * *", "has 7 fields"),
        ("@reboot", "@hourly"),
        ("60 * * * *", "minute field is wrong, 60: it takes 0 to 59"),
        ("60 * * * * *", "second field"),
        ("* 24 * * *", "hour field"),
        ("* * 32 * *", "day-of-month field"),
        ("* * * 13 *", "month field"),
        ("* * * * 8", "day-of-week field"),
        ("* * * * FRI-MON", "upwards"),
        ("*/0 * * * *", "steps"),
        ("? * * * *", "minute field is wrong, ?"),
        ("* ? * * *", "hour field is wrong, ?"),
        ("* * * ? *", "month field is wrong, ?"),
        ("* * ?/2 * *", "day-of-month field is wrong, ?/2"),
        ("* * ? * 8", "day-of-week field is wrong, 8"),
        ("0 0 30 2 ?", "never due"),
        ("@every 1h", "send frequency and unit"),
        (" @EVERY 1h30m ", "send frequency and unit"),
        ("0 0 30 2 *", "never due"),
        ("0 0 31 4,6,9,11 *", "never due"),
        ("0 0 30 FEB */7", "never due"),
        ("*\0 * * * *", "letters"),
        ("٣ * * * *", "letters"),
        ("* * * * \u017fun", "letters"),
        ("1" * 150 + " * * * *", "minute field"),
        ("*/" + "9" * 150 + " * * * x", "day-of-week"),
        ("1," * 5000 + "1 * * * *", "200 characters"),
        ("* " * 1_000_000, "200 characters"),
    ],
)
def test_what_is_no_expression_is_refused_at_once_and_says_what_would_be_right(text, word):
    start = time.perf_counter()
    with pytest.raises(ValueError, match=re.escape(word)):
        Cron(text)
    assert time.perf_counter() - start < 0.05


@settings(max_examples=500, deadline=None)
@given(st.one_of(st.text(max_size=60), st.text("0123456789*/-,#LW SUNJA@?\t", max_size=40), ANY))
def test_any_text_is_an_expression_or_a_value_error(text):
    try:
        trigger = Cron(text)
    except ValueError as e:
        assert str(e) and len(str(e)) < 500
    else:
        following = trigger.next(0)
        assert following is not None and following > 0
        assert trigger.explain()
        trigger.note(following)


@pytest.mark.parametrize(
    "zone",
    ["", "Berlin", "europe/berlin", "Mars/X", "../etc/passwd", "/etc/passwd", "Europe", "localtime",
     "right/UTC", "zone.tab", "a\0b", "A" * 10_000, "Ü", "UTC+1", "tzdata.zi", "Europe/"],
)  # fmt: skip
def test_what_is_no_zone_is_refused(zone):
    with pytest.raises(ValueError, match="no IANA time zone"):
        Cron("* * * * *", zone)


def test_a_zone_that_is_misspelt_is_guessed():
    for wrong in ("europe/berlin", "Berlin", "BERLIN"):
        with pytest.raises(ValueError, match="did you mean Europe/Berlin"):
            Cron("* * * * *", wrong)


def test_it_is_stored_as_it_was_written_and_read_again():
    trigger = Cron("*/5 9-17 * * MON-FRI", "Europe/Berlin")
    stored = json.loads(msgspec.json.encode(trigger))
    dst = {"dst_gap": "end", "dst_overlap": "first"}
    before = {"kind": "cron", "expression": trigger.expression, "timezone": "Europe/Berlin"}
    assert stored == before | dst
    assert msgspec.json.decode(json.dumps(stored), type=Trigger) == trigger
    assert msgspec.json.decode(json.dumps(before), type=Trigger) == trigger, "of version 0.2"
    with pytest.raises(msgspec.ValidationError, match="no IANA time zone"):
        msgspec.json.decode(json.dumps({**stored, "timezone": "Mars/X"}), type=Trigger)


# What daylight saving did, in words --------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "zone", "instant", "note"),
    [
        ("30 2 * * *", "Europe/Berlin", "2027-03-28T01:00:00Z",
         "02:30 does not exist on this day; fires at 03:00"),
        ("0,30 2,3 * * *", "Europe/Berlin", "2027-03-28T01:00:00Z",
         "02:00 and 02:30 do not exist on this day; fire once, at 03:00"),
        ("0-9 2 * * *", "Europe/Berlin", "2027-03-28T01:00:00Z",
         "02:00, 02:01, 02:02 and 7 more do not exist on this day; fire once, at 03:00"),
        ("0 0 * * *", "Pacific/Apia", "2011-12-30T10:00:00Z",
         "00:00 does not exist on 2011-12-30; fires at 00:00"),
        ("30 2 * * *", "Europe/Berlin", "2027-10-31T00:30:00Z",
         "02:30 comes twice on this day; fires the first time"),
        ("*/30 2 * * *", "Europe/Berlin", "2027-10-31T00:30:00Z",
         "02:30 comes twice on this day; fires both times"),
        ("*/30 2 * * *", "Europe/Berlin", "2027-10-31T01:30:00Z",
         "02:30 comes twice on this day; fires both times"),
        ("*/30 2 * * *", "Europe/Berlin", "2027-03-29T00:00:00Z",
         "before it, 02:00 and 02:30 do not exist on 2027-03-28; are dropped"),
        ("*/30 2 * * *", "Europe/Berlin", "2027-03-29T00:30:00Z", None),
        ("30 2 * * *", "Europe/Berlin", "2027-03-29T00:30:00Z", None),
        ("30 3 * * *", "Europe/Berlin", "2027-10-31T02:30:00Z", None),
        ("*/30 * * * *", "Europe/Berlin", "2027-10-31T01:30:00Z", None),
        ("30 2 * * *", "UTC", "2027-03-28T02:30:00Z", None),
    ],
)  # fmt: skip
def test_a_note_says_what_daylight_saving_did(text, zone, instant, note):
    trigger = Cron(text, zone)
    assert trigger.next(at(instant) - 1) == at(instant)
    assert trigger.note(at(instant)) == note


@pytest.mark.parametrize(
    ("text", "dst", "instant", "note"),
    [
        ("30 2 * * *", ("shift", "first"), "2027-03-28T01:30:00Z",
         "02:30 does not exist on this day; fires at 03:30"),
        ("30 2,3 * * *", ("shift", "first"), "2027-03-28T01:30:00Z",
         "02:30 does not exist on this day; fires at 03:30"),
        ("30 3 * * *", ("shift", "first"), "2027-03-28T01:30:00Z", None),
        ("30 2 * * *", ("skip", "first"), "2027-03-29T00:30:00Z",
         "before it, 02:30 does not exist on 2027-03-28; is dropped"),
        ("30 2 * * *", ("skip", "first"), "2027-03-30T00:30:00Z", None),
        ("30 2 * * *", ("end", "second"), "2027-10-31T01:30:00Z",
         "02:30 comes twice on this day; fires the second time"),
        ("30 2 * * *", ("end", "both"), "2027-10-31T00:30:00Z",
         "02:30 comes twice on this day; fires both times"),
        ("30 2 * * *", ("end", "both"), "2027-10-31T01:30:00Z",
         "02:30 comes twice on this day; fires both times"),
        ("*/30 2 * * *", ("shift", "second"), "2027-10-31T00:30:00Z",
         "02:30 comes twice on this day; fires both times"),
    ],
)  # fmt: skip
def test_a_note_says_what_a_setting_makes_of_daylight_saving(text, dst, instant, note):
    trigger = Cron(text, "Europe/Berlin", *dst)
    assert trigger.next(at(instant) - 1) == at(instant)
    assert trigger.note(at(instant)) == note


# The whole way -----------------------------------------------------------------------------------


@pytest.mark.alone
async def test_a_cron_of_seconds_runs_on_each_second(app, conn, receiver):
    async with app.client("alice") as alice:
        task = {"id": "t", "name": "a", "url": receiver.url, "cron": "* * * * * *"}
        made = await alice.post("/tasks", json={**task, "timezone": "Asia/Kathmandu"})
        assert made.status_code == 201, made.text

        async def three_ran() -> None:
            assert await conn.fetchval("SELECT count(*) FROM history") >= 3

        await eventually(three_ran)
        listed = (await alice.get("/tasks?trigger=cron")).json()
        assert [(one["cron"], one["timezone"]) for one in listed] == [
            ("* * * * * *", "Asia/Kathmandu")
        ]
    rows = await conn.fetch("SELECT scheduled_for, state FROM history ORDER BY scheduled_for")
    assert {(row["state"], row["scheduled_for"].microsecond) for row in rows} == {("succeeded", 0)}
    steps = {(b[0] - a[0]).total_seconds() for a, b in itertools.pairwise(rows)}
    assert steps == {1.0}

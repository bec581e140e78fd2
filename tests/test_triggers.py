"""Triggers against brute force, and times as they are read and written."""

import itertools
from datetime import UTC, datetime, timedelta, timezone
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.asked import instant as parse_time
from scheduler.db import EPOCH, ms, rfc3339, utc
from scheduler.triggers import UNIT_MS, Bounded, Bounds, Interval, Once

FIRST = ms(datetime.min.replace(tzinfo=UTC))
LAST = ms(datetime.max.replace(tzinfo=UTC))
NEAR = st.integers(-100_000, 100_000)
UNITS = st.sampled_from(sorted(UNIT_MS))


# Interval ----------------------------------------------------------------------------------------


@st.composite
def grids(draw):
    """An interval, a range, and the instants in it, found by walking."""
    every = Interval(draw(st.integers(1, 40)), "second", draw(NEAR))
    after = draw(NEAR)
    until = after + draw(st.integers(-5000, 100_000))
    walked, at = [], every.anchor
    while at <= until:
        if at > after:
            walked.append(at)
        at += every.frequency * 1000
    return every, after, until, walked


@given(grids())
def test_an_interval_yields_what_walking_its_grid_yields(grid):
    interval, after, until, walked = grid
    assert list(interval.between(after, until)) == walked
    assert interval.count(after, until) == len(walked)
    assert interval.last(after, until) == (walked[-1] if walked else None)
    if walked:
        assert interval.next(after) == walked[0]
    else:
        following = interval.next(after)
        assert following is not None and (following > until or until < after)


@given(st.integers(1, 10**6), UNITS, st.integers(FIRST, LAST), st.integers(FIRST, LAST))
def test_the_next_instant_is_on_the_grid_and_the_first_after(frequency, unit, anchor, after):
    interval = Interval(frequency, unit, anchor)
    at = interval.next(after)
    every = frequency * UNIT_MS[unit]
    assert at is not None and at > after and at >= anchor
    assert (at - anchor) % every == 0
    assert at == anchor or at - every <= after


@given(st.integers(1, 1000), UNITS, NEAR, NEAR, st.lists(st.integers(0, 10**8), max_size=4))
def test_a_range_cut_in_pieces_yields_the_same(frequency, unit, anchor, after, cuts):
    interval = Interval(frequency, unit, anchor)
    edges = sorted({after, *(after + cut for cut in cuts)})
    whole = interval.count(edges[0], edges[-1])
    pieces = [interval.count(a, b) for a, b in itertools.pairwise(edges)]
    assert sum(pieces) == whole


@given(st.integers(FIRST, LAST))
def test_counting_costs_nothing_however_long_the_range_is(after):
    assert (
        Interval(1, "second", FIRST).count(after, LAST)
        == (LAST - FIRST) // 1000 - (after - FIRST) // 1000
    )


def test_a_day_is_24_hours_and_a_week_7_days():
    assert UNIT_MS["day"] == 24 * UNIT_MS["hour"] == 24 * 60 * UNIT_MS["minute"]
    assert UNIT_MS["week"] == 7 * UNIT_MS["day"]
    assert UNIT_MS["minute"] == 60 * UNIT_MS["second"] == 60_000


# Once --------------------------------------------------------------------------------------------


@given(NEAR, NEAR, NEAR)
def test_once_is_due_at_its_instant_alone(at, after, until):
    once, inside = Once(at), after < at <= until
    assert list(once.between(after, until)) == ([at] if inside else [])
    assert once.count(after, until) == int(inside)
    assert once.last(after, until) == (at if inside else None)
    assert once.next(after) == (at if at > after else None)


# Bounds ------------------------------------------------------------------------------------------


@given(grids(), st.integers(0, 50_000), st.none() | NEAR, st.none() | NEAR)
def test_bounds_cut_off_what_lies_outside_of_them_and_jitter_moves_all_alike(
    grid, offset, start, end
):
    interval, after, until, _ = grid
    bounded = Bounded(interval, offset, start, end)
    walked = [at + offset for at in interval.between(interval.anchor - 1, until + 50_000)]
    walked = [
        at
        for at in walked
        if after < at <= until and (start is None or start <= at) and (end is None or at <= end)
    ]
    assert list(bounded.between(after, until)) == walked
    assert bounded.count(after, until) == len(walked)
    assert bounded.last(after, until) == (walked[-1] if walked else None)
    following = bounded.next(after)
    if walked:
        assert following == walked[0]
    else:
        assert following is None or following > until or until < after


def test_an_offset_is_the_same_each_time_and_spread_over_the_keys():
    bounds, keys = Bounds(jitter_ms=10_000), [uuid4() for _ in range(500)]
    offsets = [bounds.offset(key) for key in keys]
    assert offsets == [bounds.offset(key) for key in keys]
    assert all(0 <= offset <= 10_000 for offset in offsets)
    assert 4000 < sum(offsets) / len(offsets) < 6000
    assert {Bounds(jitter_ms=1).offset(key) for key in keys} == {0, 1}
    assert {Bounds().offset(key) for key in keys} == {0}


# Times -------------------------------------------------------------------------------------------

OFFSETS = st.integers(-14 * 60, 14 * 60).map(lambda m: timezone(timedelta(minutes=m)))
TIMES = st.datetimes(
    datetime(2, 1, 1), datetime(9998, 12, 31), timezones=OFFSETS
)  # a day from the edges, so that every offset stays inside


@given(TIMES)
def test_a_time_is_read_as_the_instant_it_is(at):
    assert parse_time(at.isoformat()) == (at - EPOCH) // timedelta(milliseconds=1)


@given(st.integers(FIRST, LAST))
def test_a_time_that_was_written_is_read_again(at):
    text = rfc3339(at)
    assert text is not None and len(text) == 24 and text.endswith("Z")
    assert parse_time(text) == at == ms(utc(at))


@given(TIMES, st.text("0123456789", min_size=1, max_size=9))
def test_a_fraction_is_cut_to_milliseconds(at, digits):
    whole = at.replace(microsecond=0)
    text = whole.isoformat()
    read = parse_time(f"{text[:19]}.{digits}{text[19:]}")
    assert read - parse_time(text) == int(digits.ljust(3, "0")[:3])


@given(st.text())
def test_a_text_is_a_time_or_a_value_error(text):
    try:
        at = parse_time(text)
    except ValueError as e:
        assert str(e)
    else:
        assert FIRST <= at <= LAST


@given(
    st.from_regex(
        r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})\Z"
    )
)
def test_what_looks_like_a_time_is_one_or_a_value_error(text):
    try:
        assert FIRST <= parse_time(text) <= LAST
    except ValueError as e:
        assert str(e)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("2027-01-31T09:00:00", "offset"),
        ("2027-01-31 09:00:00.5", "offset"),
        ("2027-01-31T09:00", "offset"),
        ("tomorrow", "RFC 3339"),
        ("2027-02-30T09:00:00Z", "exist"),
        ("2027-01-31T25:00:00Z", "exist"),
    ],
)
def test_the_message_says_what_would_be_right(text, word):
    with pytest.raises(ValueError, match=word):
        parse_time(text)

"""The picture of a run's attempts: well-formed, inside its box, and true to what is known."""

import itertools
import xml.etree.ElementTree as ET
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.dashboard.runs import waterfall
from scheduler.dashboard.runs.waterfall import Axis, Row, pictures, rows
from scheduler.db import rfc3339
from scheduler.runs.model import ShownAttempt, ShownRun

DUE = 1_790_000_000_000
KINDS = set(waterfall.WORDS)


def attempt(number: int, start: int | None, end: int | None, **more: Any) -> ShownAttempt:
    base = {"outcome": "failed", "status_code": 503, "error": None, "response": None}
    times = {"started_at": rfc3339(start), "finished_at": rfc3339(end), "truncated": False}
    return ShownAttempt(**{"number": number, **base, **times, **more})


def run(attempts: list[ShownAttempt], state: str = "failed", **more: Any) -> ShownRun:
    return ShownRun(
        id="r", service_id="s", kind="task", task_id="t", scheduled_for=rfc3339(DUE), state=state,
        attempt=len(attempts) + (state == "running"), created_at=None, attempts=attempts, **more,
    )  # fmt: skip


def bars(row: Row, drawn: list[Row]) -> list[ET.Element]:
    return list(ET.fromstring(pictures(drawn)[drawn.index(row)]))


span = st.one_of(st.integers(0, 50), st.integers(0, 40 * 86_400_000))
tenths = st.one_of(st.none(), st.floats(-5, 1e9))


@st.composite
def lives(draw: st.DrawFn) -> tuple[ShownRun, int]:
    at, attempts = DUE + draw(st.integers(-1000, 10**9)), []
    for number in range(1, draw(st.integers(1, 8))):
        start = at + draw(span)
        at = start + draw(span)
        known = {"connected_ms": draw(tenths), "answered_ms": draw(tenths)}
        made = draw(st.booleans())
        attempts.append(
            attempt(
                number, start if made else None, at, new_connection=draw(st.booleans()), **known
            )
        )
    state = draw(st.sampled_from(["failed", "running", "retrying", "scheduled"]))
    coming = rfc3339(at + draw(span)) if state in ("retrying", "scheduled") else None
    return run(attempts, state, next_attempt_at=coming), at + draw(span)


@given(lives(), st.booleans())
def test_every_picture_is_well_formed_and_stays_in_its_box(life, shell):
    drawn = rows(*life, shell=shell)
    for picture, row in zip(pictures(drawn), drawn, strict=True):
        for bar in ET.fromstring(picture):
            x, wide = float(bar.attrib["x"]), float(bar.attrib["width"])
            assert x >= 0 and wide >= waterfall.LEAST - 0.01 and x + wide <= waterfall.WIDE + 0.01
            assert float(bar.attrib["y"]) >= 0 and float(bar.attrib["height"]) > 0
            assert set(bar.attrib["class"].split()) <= KINDS | {"cut"}
            assert bar[0].tag == "title" and bar[0].text
        ends = [part.end for part in row.parts]
        assert ends == sorted(ends) and all(part.start <= part.end for part in row.parts)


@given(lives())
def test_later_is_never_further_left(life):
    drawn = rows(*life)
    axis = Axis(drawn)
    times = sorted(time for row in drawn for part in row.parts for time in (part.start, part.end))
    places = [axis.x(time) for time in times]
    assert all(a <= b + 1e-6 for a, b in itertools.pairwise(places))


def test_an_attempt_is_drawn_by_what_was_noted_of_it():
    known = {"connected_ms": 2.5, "answered_ms": 40.0, "new_connection": True}
    (row,) = rows(run([attempt(1, DUE + 4, DUE + 54, **known)]), DUE + 99)
    assert [(part.kind, part.end - part.start) for part in row.parts] == [
        ("waiting", 4), ("connecting", 2.5), ("answering", 37.5), ("reading", 10),
    ]  # fmt: skip
    assert row.parts[1].word == "Connected" and row.whole == "50 ms"
    assert [bar.attrib["class"] for bar in bars(row, [row])] == [
        "waiting", "connecting", "answering", "reading",
    ]  # fmt: skip


def test_what_is_shorter_than_a_millisecond_is_not_rounded_away():
    (row,) = rows(run([attempt(1, DUE, DUE, connected_ms=0.3, answered_ms=0.8)]), DUE)
    assert (row.took("connecting"), row.took("answering"), row.whole) == (
        "0.3 ms", "0.5 ms", "0.8 ms",
    )  # fmt: skip


def test_of_an_attempt_from_before_nothing_is_made_up():
    (row,) = rows(run([attempt(1, DUE, DUE + 54)]), DUE + 99)
    assert [part.kind for part in row.parts] == ["whole"]
    assert (row.took("connecting"), row.whole) == ("", "54 ms")


def test_a_pause_of_days_is_cut_and_says_so():
    drawn = rows(
        run([attempt(1, DUE, DUE + 10), attempt(2, DUE + 86_400_000, DUE + 86_400_010)]), DUE
    )
    backoff, second = bars(drawn[1], drawn)
    assert backoff.attrib["class"] == "backoff cut"
    assert backoff[0].text == "Waited to try again, 24.0 h, drawn shorter"
    assert float(second.attrib["width"]) > waterfall.WIDE / 5


def test_what_is_under_way_and_what_is_to_come_are_rows_too():
    first = attempt(1, DUE, DUE + 10)
    going = rows(run([first], "running"), DUE + 500)
    assert [(row.number, row.state) for row in going] == [(1, "failed"), (2, "running")]
    coming = rows(run([first], "retrying", next_attempt_at=rfc3339(DUE + 5000)), DUE + 500)
    assert [part.kind for part in coming[1].parts] == ["coming"]


@pytest.mark.parametrize(
    ("ms", "said"),
    [(0.44, "0.4 ms"), (12.3, "12 ms"), (999, "999 ms"), (1500, "1.5 s"), (90_000, "1.5 min"),
     (7_200_000, "2.0 h"), (200_000_000, "2.3 d")],
)  # fmt: skip
def test_spans_are_told_in_one_unit(ms, said):
    assert waterfall.span(ms) == said

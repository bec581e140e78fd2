"""Charts: whatever they are given, they are well-formed, within their box, and say it all."""

from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.dashboard import axes, charts
from scheduler.dashboard.charts import Cell, Series, Stack

WHOLE = charts.TOP + charts.HEIGHT + charts.FOOT
HOUR = 3_600_000
words = st.text(st.characters(codec=None), max_size=40) | st.sampled_from(
    ["</script><script>x</script>", '" onload="x', "\x1b[31m", "\u202e", "]]>", "<!--", "&amp;"]
)
states = st.sampled_from([*charts.STATES, "</svg>"]) | words
instants = st.integers(-(2**70), 2**70) | st.integers(0, 2_000_000_000_000)
counts = st.integers(-5, 10**20) | st.integers(0, 5)
values = st.none() | st.floats() | st.floats(0, 1e6)
stacks = st.builds(
    Stack, instants, words, st.dictionaries(states, counts, max_size=5), st.none() | words
)
series = st.builds(Series, words, st.lists(st.tuples(instants, values), max_size=8))
cells = st.builds(Cell, states, words, words)


def parsed(made: str) -> ET.Element:
    """The elements; raises where it is no XML."""
    return ET.fromstring(made)


def number(text: str | None) -> float:
    """A length, whether in percent or in pixels."""
    return float((text or "0").rstrip("%"))


def within(root: ET.Element, high: float = WHOLE) -> None:
    """Every mark lies in the box."""
    for each in root.iter("rect"):
        left, top = number(each.get("x")), number(each.get("y"))
        assert left >= -0.01
        assert left + number(each.get("width")) <= 100.02
        assert number(each.get("height")) >= 0
        assert top >= 0
        assert top + number(each.get("height")) <= high + 0.2
    for each in (*root.iter("circle"), *root.iter("line"), *root.iter("text")):
        for name in ("x", "x1", "x2", "cx"):
            assert 0 <= number(each.get(name)) <= 100.01
        for name in ("y", "y1", "y2", "cy"):
            assert 0 <= number(each.get(name)) <= high + 0.1
    for each in root.iter("polyline"):
        for point in (each.get("points") or "").split():
            across, down = map(float, point.split(","))
            assert 0 <= across <= 100.01
            assert 0 <= down <= high


def inert(root: ET.Element) -> None:
    """Nothing in it can run, and every link is one of ours."""
    for each in root.iter():
        assert each.tag not in ("script", "style", "foreignObject", "image", "use")
        assert not [name for name in each.attrib if name.startswith("on") or name == "style"]
        assert (each.get("href") or "/").startswith("/")


@given(st.lists(stacks, max_size=12), words)
def test_bars_of_anything_are_well_formed_and_within_the_box(points, label):
    root = parsed(charts.stacked(points, label=label))
    within(root)
    inert(root)
    assert len(root.findall(".//tbody/tr")) == len(points)


@given(st.lists(series, max_size=5), words, st.sampled_from(["ms", "", "runs"]))
def test_lines_of_anything_are_well_formed_and_within_the_box(drawn, label, unit):
    root = parsed(charts.lines(drawn, label=label, unit=unit))
    within(root)
    inert(root)
    assert len(root.findall(".//tbody/tr")) == len({at for each in drawn for at, _ in each.points})


@given(st.lists(cells, max_size=120), words)
def test_a_strip_of_anything_is_well_formed_and_within_the_box(drawn, label):
    root = parsed(charts.strip(drawn, label=label))
    within(root, charts.STRIP)
    inert(root)
    assert len(root.findall(".//tbody/tr")) == len(drawn)


@given(st.lists(values, max_size=50), words)
def test_a_spark_of_anything_is_well_formed_and_within_the_box(drawn, label):
    root = parsed(charts.spark(drawn, label=label))
    within(root, charts.SPARK[1])
    inert(root)


@given(st.lists(values, min_size=1), st.sampled_from(["ms", ""]))
def test_a_scale_holds_every_value_and_has_few_round_lines(drawn, unit):
    scale = axes.scale(drawn, unit)
    assert all(axes.known(value) <= scale.top for value in drawn if axes.known(value) is not None)
    assert 1 <= len(scale.marks) <= axes.LINES
    if unit == "ms" and scale.marks[0] < axes.SPANS[-1]:
        assert scale.marks[0] in axes.SPANS
    elif unit == "":
        assert f"{scale.marks[0]:e}"[0] in "125"


@given(st.integers(0, 4_000_000_000_000), st.integers(60_000, 400 * 86_400_000))
def test_times_below_a_chart_are_few_and_in_it(first, span):
    found = axes.ticks(first, first + span)
    assert len(found) <= axes.TICKS + 1
    assert all(first <= at <= first + span for at in found)


def test_one_failure_among_a_million_is_seen():
    [bar] = [Stack(0, "noon", {"succeeded": 1_000_000, "failed": 1})]
    marks = [
        number(each.get("height"))
        for each in parsed(charts.stacked([bar], label="Runs")).iter("rect")
        if "hit" not in (each.get("class") or "") and each.get("y") is not None
    ]
    failed, succeeded = sorted(marks)[-2:]
    assert failed >= charts.LEAST
    assert failed + succeeded <= charts.HEIGHT


def test_a_mark_says_its_values_and_leads_to_the_runs():
    root = parsed(
        charts.stacked([Stack(0, "00:00 to 01:00", {"failed": 3, "succeeded": 1200}, "/x?a=1&b=2")],
                       label="Runs")
    )  # fmt: skip
    [link] = root.iter("a")
    assert link.get("href") == "/x?a=1&b=2"
    assert link.get("aria-label") == "00:00 to 01:00: 3 failed, 1,200 succeeded"
    assert link.findtext("title") == link.get("aria-label")


@pytest.mark.parametrize("href", ["javascript:alert(1)", "//evil.example", "/\\evil.example", ""])
def test_a_link_to_elsewhere_is_none(href):
    assert not list(parsed(charts.strip([Cell("failed", "x", href)], label="Runs")).iter("a"))


def test_states_differ_without_colour():
    root = parsed(charts.stacked([Stack(0, "", dict.fromkeys(charts.STATES, 5))], label="Runs"))
    fills = {each.get("fill") or each.get("class") for each in root.iter("rect")
             if (each.get("class") or "").startswith("mark") and each.get("y") is not None}  # fmt: skip
    assert len(fills) == len(charts.STATES)
    patterns = {each.get("id") for each in root.iter("pattern")}
    assert {fill[5:-1] for fill in fills if fill.startswith("url")} <= patterns


def test_a_gap_in_a_line_stays_one():
    points = [(0, 1.0), (HOUR, 2.0), (2 * HOUR, None), (3 * HOUR, 2.0)]
    root = parsed(charts.lines([Series("p50", points)], label="Lag"))
    assert len([each for each in root.iter("polyline") if each.get("points")]) == 1
    assert len(list(root.iter("circle"))) == 1  # what stands alone


def test_lags_are_told_by_their_units():
    root = parsed(charts.lines([Series("p50", [(0, 12.0), (HOUR, 61_000.0)])], label="Lag"))
    titles = [each.text for each in root.iter("title")]
    assert titles == [
        "1970-01-01 00:00 UTC: p50 12 ms",
        "1970-01-01 01:00 UTC: p50 1 min 1 s",
    ]

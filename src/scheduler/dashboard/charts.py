"""Charts, as SVG that the server makes: values on hover, and a table for who does not see them.

Across, everything is in percent of the width; upwards in pixels. So text keeps its size on a
phone. What a mark says is told by its shape too: a hatch, dots, an outline, its height.
"""

import hashlib
import html
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec
from markupsafe import Markup

from scheduler.dashboard import axes, shown
from scheduler.dashboard.axes import Scale
from scheduler.db import rfc3339

HEIGHT, TOP, FOOT = 132, 10, 18
"""Pixels: of the marks, and the room above and below them."""
LEAST = 3
"""Pixels that a part of a bar has, however small it is: one failure of a million is seen."""
STATES = ("failed", "expired", "unknown", "skipped", "cancelled", "running", "succeeded")
"""From the ground up: what went wrong stands where it can be compared."""
HATCHES = {"failed": 45, "expired": -45, "unknown": 90, "cancelled": 0}
"""The angle of a state's hatch, in degrees."""
DOTTED = ("skipped",)
TALL = {"failed": 1.0, "expired": 0.85, "unknown": 0.85, "succeeded": 0.6, "running": 0.6}
"""How high a mark of the strip is; others are 0.3."""
STRIP, SLOTS = 28, 25
SPARK = (120, 28)
DASHES = 4
"""Kinds of line, from `10-charts.css`."""


class Stack(msgspec.Struct, frozen=True):
    """A bar: what happened from `at` (ms since 1970) on, in the words of `span`, by state."""

    at: int
    span: str
    counts: Mapping[str, int]
    href: str | None = None


class Series(msgspec.Struct, frozen=True):
    """A line: (ms since 1970, value) in the order of time; None leaves a gap."""

    name: str
    points: Sequence[tuple[int, float | None]]


class Cell(msgspec.Struct, frozen=True):
    """A mark of the strip: one run."""

    state: str
    title: str
    href: str


def stacked(points: Sequence[Stack], *, label: str) -> Markup:
    """Return bars over time, each by outcome; the points are in order and evenly apart."""
    words = _words(points)
    totals = [sum(_counted(point, word) for word in words) for point in points]
    scale = axes.scale(totals, "")
    width = 100 / max(len(points), 1)
    mark = hashlib.sha256(label.encode("utf-8", "replace")).hexdigest()[:8]
    bars = [_bar(each, words, scale, n * width, width, mark) for n, each in enumerate(points)]
    times = [(n * width, each.at) for n, each in enumerate(points)]
    drawn = [_patterns(mark), *_grid(scale), *bars, *_below(times)]
    drawn += [] if any(totals) else [_empty()]
    head = ("Time", *words)
    rows = ([_time(p.at), *(str(_counted(p, word)) for word in words)] for p in points)
    legend = [_swatch(word, _fill(word, mark)) for word in words]
    plot = _svg(drawn, label, linked=any(_ours(each.href) for each in points))
    return _figure(_axis(scale, "", timed=bool(points)), plot, legend, _table(label, head, rows))


def lines(series: Sequence[Series], *, label: str, unit: str = "ms") -> Markup:
    """Return lines over time, over each other."""
    values = [dict(each.points) for each in series]
    times = sorted({at for each in values for at in each})
    first, last = (times[0], times[-1]) if times else (0, 0)
    scale = axes.scale([value for each in values for value in each.values()], unit)

    def across(at: int) -> float:
        return 100 * (at - first) / (last - first) if last > first else 50.0

    drawn = [*_grid(scale)]
    for n, each in enumerate(values):
        drawn += _line([(across(at), each[at]) for at in sorted(each)], scale, n)
    names = [shown.plain(each.name) for each in series]
    drawn += _hovers(times, across, names, values, unit)
    drawn += [] if any(v is not None for each in values for v in each.values()) else [_empty()]
    drawn += _below([(across(at), at) for at in axes.ticks(first, last)] if times else [])
    rows = (
        [_time(at), *(html.escape(axes.number(each.get(at), unit)) for each in values)]
        for at in times
    )
    legend = [_stroke(name, n) for n, name in enumerate(names)]
    table = _table(label, ("Time", *names), rows)
    return _figure(_axis(scale, unit, timed=bool(times)), _svg(drawn, label), legend, table)


def strip(cells: Sequence[Cell], *, label: str) -> Markup:
    """Return one mark for each run, the newest at the right, where the last cell is."""
    slots = max(len(cells), SLOTS)
    width = 100 / slots
    drawn = []
    for n, cell in enumerate(cells, slots - len(cells)):
        high = round(STRIP * TALL.get(cell.state, 0.3), 1)
        body = _rect(n * width + width * 0.1, STRIP - high, width * 0.8, high, _class(cell.state))
        whole = _rect(n * width, 0, width, STRIP, "hit")
        drawn.append(_linked(whole + body, cell.title, cell.href))
    rows = ([html.escape(shown.plain(each.title))] for each in cells)
    made = _svg(drawn, label, linked=any(_ours(each.href) for each in cells), high=STRIP)
    table = _table(label, ("Run, the newest last",), rows)
    return _safe(f'<div class="chart strip">{made}{table}</div>')


def spark(values: Sequence[float | None], *, label: str) -> Markup:
    """Return a small line without axes."""
    wide, high = SPARK
    scale = axes.scale(values, "")
    step = 100 / max(len(values) - 1, 1)
    points = [(n * step, value) for n, value in enumerate(values)]
    drawn = _line(points, Scale(scale.top, ()), 0, high - 4, 2)
    last = next((v for v in map(axes.known, reversed(values)) if v is not None), None)
    said = f"{shown.plain(label)}: last {axes.number(last, '')}"
    return _safe(
        f'<svg class="spark" role="img" aria-label="{html.escape(said)}" width="{wide}"'
        f' height="{high}"><title>{html.escape(said)}</title>{"".join(drawn)}</svg>'
    )


# Bars --------------------------------------------------------------------------------------------


def _words(points: Sequence[Stack]) -> list[str]:
    """Return the states that occur, in the order in which they are stacked."""
    found = {word for each in points for word in each.counts if _counted(each, word)}
    return sorted(found, key=lambda word: (STATES.index(word) if word in STATES else 99, word))


def _counted(point: Stack, word: str) -> int:
    return max(point.counts.get(word, 0), 0)


def _bar(
    point: Stack, words: Sequence[str], scale: Scale, left: float, width: float, mark: str
) -> str:
    counts = {word: _counted(point, word) for word in words if _counted(point, word)}
    drawn, ground = [_rect(left, TOP, width, HEIGHT, "hit")], float(TOP + HEIGHT)
    for word, high in _heights(counts, scale).items():
        ground = max(ground - high, TOP)
        drawn.append(_rect(left + width * 0.1, ground, width * 0.8, high, *_fill(word, mark)))
    said = ", ".join(f"{count:,} {word}" for word, count in counts.items()) or "nothing"
    return _linked("".join(drawn), f"{point.span or _clock(point.at)}: {said}", point.href)


def _heights(counts: Mapping[str, int], scale: Scale) -> dict[str, float]:
    """Return how many pixels each part has; what the small ones need, the largest gives."""
    if not counts:
        return {}
    total = max(HEIGHT * scale.share(sum(counts.values())), min(LEAST * len(counts), HEIGHT))
    least = min(LEAST, total / len(counts))
    whole = sum(counts.values())
    high = {word: max(total * (count / whole), least) for word, count in counts.items()}
    largest = max(high, key=lambda word: high[word])
    high[largest] = max(high[largest] - (sum(high.values()) - total), least)
    return high


def _fill(word: str, mark: str) -> tuple[str, str]:
    """Return the class of a state's area, and the pattern it is filled with."""
    kind = "hatch" if word in HATCHES else "dots" if word in DOTTED else ""
    if not kind:
        return _class(word), ""
    return "mark", f' fill="url(#{kind}-{_known(word)}-{mark})"'


def _patterns(mark: str) -> str:
    made = [
        f'<pattern id="hatch-{word}-{mark}" width="5" height="5" patternUnits="userSpaceOnUse"'
        f' patternTransform="rotate({turn})">'
        f'<rect width="5" height="5" class="{_class(word)} soft"></rect>'
        f'<rect width="3" height="5" class="{_class(word)}"></rect></pattern>'
        for word, turn in HATCHES.items()
    ]
    made += [
        f'<pattern id="dots-{word}-{mark}" width="5" height="5" patternUnits="userSpaceOnUse">'
        f'<rect width="5" height="5" class="{_class(word)} soft"></rect>'
        f'<circle cx="2.5" cy="2.5" r="1.5" class="{_class(word)}"></circle></pattern>'
        for word in DOTTED
    ]
    return f"<defs>{''.join(made)}</defs>"


def _class(word: str) -> str:
    return f"mark of-{_known(word)}"


def _known(word: str) -> str:
    return word if word in STATES else "other"


def _swatch(word: str, fill: tuple[str, str]) -> str:
    square = _rect(0, 0, 100, 12, *fill)
    return f'<svg width="12" height="12">{square}</svg>{html.escape(shown.plain(word))}'


# Lines -------------------------------------------------------------------------------------------


def _line(
    points: Sequence[tuple[float, float | None]],
    scale: Scale,
    kind: int,
    high: float = HEIGHT,
    top: float = TOP,
) -> list[str]:
    """Return a line, and dots where a point stands alone."""
    pieces: list[list[tuple[float, float]]] = [[]]
    for across, value in points:
        drawn = axes.known(value)
        if drawn is None:
            pieces.append([])
        else:
            pieces[-1].append((across, top + high * (1 - scale.share(drawn))))
    name = f"line line-{kind % DASHES}"
    strokes = [
        f'<polyline class="{name}" points="{" ".join(f"{a:.2f},{b:.1f}" for a, b in piece)}">'
        f"</polyline>"
        for piece in pieces
        if len(piece) > 1
    ]
    alone = (piece[0] for piece in pieces if len(piece) == 1)
    dots = [f'<circle class="{name}" cx="{a:.2f}%" cy="{b:.1f}" r="2"></circle>' for a, b in alone]
    whole = 2 * top + high
    stretched = f'viewBox="0 0 100 {whole}" preserveAspectRatio="none"'
    return [f'<svg {stretched} width="100%" height="{whole}">{"".join(strokes)}</svg>', *dots]


def _hovers(
    times: Sequence[int],
    across: Callable[[int], float],
    names: Sequence[str],
    values: Sequence[Mapping[int, float | None]],
    unit: str,
) -> list[str]:
    """Return what says the values where one points: a column around each time."""
    places = [across(at) for at in times]
    edges = [0.0, *((a + b) / 2 for a, b in itertools.pairwise(places)), 100.0]
    made = []
    for n, at in enumerate(times):
        said = ", ".join(
            f"{name} {axes.number(each.get(at), unit)}"
            for name, each in zip(names, values, strict=True)
        )
        column = _rect(edges[n], TOP, edges[n + 1] - edges[n], HEIGHT, "hit")
        made.append(_linked(column, f"{_clock(at)}: {said}", None))
    return made


def _stroke(name: str, kind: int) -> str:
    line = f'<line class="line line-{kind % DASHES}" x1="0" y1="6" x2="100%" y2="6"></line>'
    return f'<svg width="24" height="12">{line}</svg>{html.escape(name)}'


# What all are made of ----------------------------------------------------------------------------


def _safe(made: str) -> Markup:
    return Markup(made)  # noqa: S704  (what is anybody's text is escaped where it is put in)


def _ours(href: str | None) -> bool:
    """Say whether an address leads to a page of ours."""
    return href is not None and href.startswith("/") and not href.startswith(("//", "/\\"))


def _rect(left: float, top: float, width: float, high: float, name: str, more: str = "") -> str:
    return (
        f'<rect class="{name}" x="{left:.2f}%" y="{top:.1f}" width="{width:.2f}%"'
        f' height="{high:.1f}"{more}></rect>'
    )


def _linked(drawn: str, title: str, href: str | None) -> str:
    """Return marks with what they say; a link among them is not one of a hundred tab stops."""
    said = html.escape(shown.plain(title))
    if not _ours(href):
        return f"<g><title>{said}</title>{drawn}</g>"
    at = html.escape(shown.plain(href))
    return f'<a href="{at}" tabindex="-1" aria-label="{said}"><title>{said}</title>{drawn}</a>'


def _svg(
    drawn: Iterable[str], label: str, *, linked: bool = False, high: int = TOP + HEIGHT + FOOT
) -> str:
    """Return the picture. An image hides from readers what is in it; a group of links does not."""
    role, said = "group" if linked else "img", html.escape(shown.plain(label))
    return (
        f'<svg class="plot" role="{role}" aria-label="{said}" width="100%" height="{high}">'
        f"{''.join(drawn)}</svg>"
    )


def _figure(axis: str, plot: str, legend: Sequence[str], table: str) -> Markup:
    entries = "".join(f"<li>{each}</li>" for each in legend)
    told = f'<ul class="legend" aria-hidden="true">{entries}</ul>' if entries else ""
    return _safe(f'<div class="chart"><div class="axes">{axis}{plot}</div>{told}{table}</div>')


def _grid(scale: Scale) -> list[str]:
    heights = (TOP + HEIGHT * (1 - scale.share(mark)) for mark in (0.0, *scale.marks))
    return [
        f'<line class="grid" x1="0" y1="{y:.1f}" x2="100%" y2="{y:.1f}"></line>' for y in heights
    ]


def _empty() -> str:
    return f'<text x="50%" y="{TOP + HEIGHT / 2}" text-anchor="middle">nothing in this time</text>'


def _axis(scale: Scale, unit: str, *, timed: bool) -> str:
    words = "".join(
        f'<text x="100%" y="{TOP + HEIGHT * (1 - scale.share(mark)) + 4:.1f}" text-anchor="end">'
        f"{axes.axis(mark, unit)}</text>"
        for mark in scale.marks
    )
    high = TOP + HEIGHT + FOOT
    words += (
        f'<text x="100%" y="{high - 4}" text-anchor="end" data-zone-short="">UTC</text>'
        if timed
        else ""
    )
    return f'<svg class="scale" aria-hidden="true" width="48" height="{high}">{words}</svg>'


def _below(times: Sequence[tuple[float, int]]) -> list[str]:
    """Return the round ones among times, each with how far across (percent) it stands."""
    if not times:
        return []
    step = axes.every(times[0][1], times[-1][1])
    found = [(across, at) for across, at in times if at % step == 0]
    return [
        f'<text x="{across:.2f}%" y="{TOP + HEIGHT + FOOT - 4}"'
        f' text-anchor="{"start" if across < 4 else "end" if across > 96 else "middle"}"'
        f' data-at="{at}" data-step="{step}">{axes.time_word(at, step)}</text>'
        for across, at in found[-12:]
    ]


def _clock(at: int) -> str:
    return f"{shown.clock(axes.instant(at))[:16]} UTC"


def _time(at: int) -> str:
    whole = axes.instant(at)
    return f'<time datetime="{rfc3339(whole)}">{shown.clock(whole)}</time>'


def _table(label: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return what the picture shows, for readers of screens; cells are markup, heads are text."""
    names = "".join(f'<th scope="col">{html.escape(shown.plain(name))}</th>' for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return (
        f'<div class="unseen"><table><caption>{html.escape(shown.plain(label))}</caption>'
        f"<thead><tr>{names}</tr></thead><tbody>{body}</tbody></table></div>"
    )

"""Axes of charts: round numbers, and the words for them."""

import math
from collections.abc import Sequence

import msgspec

from scheduler.dashboard import shown
from scheduler.db import utc
from scheduler.instant import FIRST, LAST

SECOND, MINUTE, HOUR, DAY = 1000, 60_000, 3_600_000, 86_400_000
SPANS = (
    *(n * size for size in (1, 10, 100) for n in (1, 2, 5)),
    *(n * SECOND for n in (1, 2, 5, 10, 15, 30)),
    *(n * MINUTE for n in (1, 2, 5, 10, 15, 30)),
    *(n * HOUR for n in (1, 2, 3, 6, 12)),
    *(n * DAY for n in (1, 2, 7, 14, 30, 91)),
)
"""Spans of time (ms) that read as round."""
YEAR = 365 * DAY
MOST = 1e15
"""Values above are drawn as this: no chart of ours has them."""
LINES = 4
"""Lines across a chart, at most, the one at nothing left out."""
TICKS = 6
"""Times below a chart, at most."""


class Scale(msgspec.Struct, frozen=True):
    """A chart's height: from nothing to `top`, with lines at `marks`."""

    top: float
    marks: tuple[float, ...]

    def share(self, value: float) -> float:
        """Return how high a value stands, from 0 to 1."""
        return min(max(value / self.top, 0.0), 1.0)


def known(value: float | None) -> float | None:
    """Return a value that can be drawn, or None: for NaN and the infinite."""
    if value is None or not math.isfinite(value):
        return None
    return min(max(float(value), 0.0), MOST)


def scale(values: Sequence[float | None], unit: str) -> Scale:
    """Return the scale that holds values, its lines at round numbers of a unit."""
    most = max((found for found in map(known, values) if found is not None), default=0.0)
    wanted = max(most, 1.0) / LINES
    step = _span(wanted) if unit == "ms" else _round(wanted)
    count = max(math.ceil(most / step - 1e-9), 1)
    marks = tuple(step * n for n in range(1, count + 1))
    return Scale(marks[-1], marks)


def _span(wanted: float) -> float:
    fitting = next((span for span in SPANS if span >= wanted), None)
    return float(fitting) if fitting else _round(wanted / DAY) * DAY


def _round(wanted: float) -> float:
    """Return the next of 1, 2, 5, 10, 20, 50 ..."""
    size = 10.0 ** max(math.floor(math.log10(max(wanted, 1.0))), 0)
    return next(n * size for n in (1, 2, 5, 10) if n * size >= wanted * (1 - 1e-9))


def number(value: float | None, unit: str) -> str:
    """Return a value in words: spans of `ms` by their units, others with a unit behind."""
    if value is None or not math.isfinite(value):
        return "none"
    if unit == "ms":
        return shown.duration(round(value)) if abs(value) <= MOST else "for ever"
    return f"{short(value)} {unit}".strip()


def short(value: float) -> str:
    """Return a number with at most four digits: 950, 1.2k, 34M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}" if abs(value) < 1e12 else f"{value:.2g}"
    return f"{value:.3g}"


def axis(value: float, unit: str) -> str:
    """Return a round value as it stands beside its line."""
    if unit != "ms":
        return short(value)
    for size, letter in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min"), (SECOND, "s")):
        if value >= size:
            return f"{short(value / size)} {letter}"
    return f"{value:g} ms"


# Times -------------------------------------------------------------------------------------------


def instant(at: int) -> int:
    """Return a time (ms since 1970) that a calendar can tell."""
    return min(max(at, FIRST), LAST)


def every(first: int, last: int) -> int:
    """Return how far apart (ms) the times below a chart are."""
    wanted = max(last - first, 1) / TICKS
    fitting = next((span for span in SPANS if span >= max(wanted, MINUTE)), None)
    return fitting or math.ceil(wanted / YEAR) * YEAR


def ticks(first: int, last: int) -> list[int]:
    """Return round times from `first` to `last` (ms since 1970), in order."""
    step = every(first, last)
    return list(range(-(-first // step) * step, last + 1, step))


def time_word(at: int, step: int) -> str:
    """Return a time for below a chart: of the day, or the day where it begins one."""
    day = utc(instant(at))
    if step >= YEAR:
        return str(day.year)
    if step >= DAY or at % DAY == 0:
        return f"{day:%b} {day.day}"
    return f"{day:%H:%M}"

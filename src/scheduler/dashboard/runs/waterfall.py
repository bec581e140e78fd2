"""A run's attempts as a waterfall: one row for each, all on one axis of time. Pure.

A pause that is longer than all attempts together would leave nothing of them to be seen: it is
cut, is drawn as cut, and says how long it was. Times are ms; a row is a picture of its own, as
wide as the page allows, beside which the numbers stand in a table.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec
from markupsafe import Markup, escape

from scheduler import asked
from scheduler.runs.model import ShownAttempt, ShownRun

WIDE, HIGH, THICK = 1000, 20, 12
"""Of a row's picture, in its own units."""
LEAST = 4
"""Of a part, so that it is seen."""

Kind = Literal["waiting", "connecting", "answering", "reading", "whole", "backoff", "coming"]
WORDS: dict[Kind, str] = {
    "waiting": "Waited to begin",
    "connecting": "Got a connection",
    "answering": "Waited for the answer",
    "reading": "Read the answer",
    "whole": "Under way",
    "backoff": "Waited to try again",
    "coming": "Waits to try again",
}


class Part(msgspec.Struct, frozen=True):
    """A stretch of time, and what happened in it; ms since 1970, in fractions."""

    kind: Kind
    start: float
    end: float
    word: str


class Row(msgspec.Struct, frozen=True):
    """An attempt; `number` counts from 1."""

    number: int
    state: str
    parts: list[Part]

    def took(self, *kinds: Kind) -> str:
        """Return how long what is of these kinds took, in words; nothing where it is not known."""
        found = [part.end - part.start for part in self.parts if part.kind in kinds]
        return span(sum(found)) if found else ""

    @property
    def whole(self) -> str:
        """How long the attempt took, in words."""
        return self.took("connecting", "answering", "reading", "whole")


def rows(run: ShownRun, now: int, *, shell: bool = False) -> list[Row]:
    """Return the attempts of a run, also the one under way and the one to come; `now` in ms."""
    before = asked.instant(run.scheduled_for) if run.scheduled_for else now
    found: list[Row] = []
    for each in run.attempts:
        if each.started_at is None:  # it was never made, only noted
            found.append(Row(each.number, each.outcome, []))
            continue
        start = asked.instant(each.started_at)
        end = start if each.finished_at is None else max(asked.instant(each.finished_at), start)
        parts = _waited(before, start, first=not found) + _within(each, start, end, shell=shell)
        found.append(Row(each.number, each.outcome, parts))
        before = end
    if run.state == "running":
        begun = before if found or run.started_at is None else asked.instant(run.started_at)
        parts = _waited(before, begun, first=not found)
        parts.append(Part("whole", begun, max(now, begun), WORDS["whole"]))
        found.append(Row(run.attempt, "running", parts))
    elif run.next_attempt_at is not None and found:
        due = asked.instant(run.next_attempt_at)
        if due > before:
            part = Part("coming", before, due, WORDS["coming"])
            found.append(Row(found[-1].number + 1, "retrying", [part]))
    return found


def _waited(before: float, start: float, *, first: bool) -> list[Part]:
    kind: Kind = "waiting" if first else "backoff"
    return [Part(kind, before, start, WORDS[kind])] if start > before else []


def _within(each: ShownAttempt, start: float, end: float, *, shell: bool) -> list[Part]:
    """Return the parts of an attempt; one, where nobody noted more, or it never came further."""
    known = max(each.connected_ms or 0, each.answered_ms or 0)
    if known and abs(start + known - end) <= 1:  # what is kept of its end is whole ms
        end = start + known
    if each.connected_ms is None:
        return [Part("whole", start, end, WORDS["whole"])]
    sent = min(start + max(each.connected_ms, 0), end)
    if shell:
        connecting = Part("connecting", start, sent, "Began")
        return [connecting, Part("whole", sent, end, "The command ran")]
    word = "Connected" if each.new_connection else "Took a connection that was there"
    parts = [Part("connecting", start, sent, word)]
    if each.answered_ms is None:
        return [*parts, Part("answering", sent, end, "Waited for an answer, in vain")]
    head = min(max(start + each.answered_ms, sent), end)
    words = WORDS["reading"]
    if each.waited_ms:
        words += f", for {span(each.waited_ms)} waiting for room in memory"
    reading = [Part("reading", head, end, words)] if end > head else []
    return [*parts, Part("answering", sent, head, WORDS["answering"]), *reading]


def span(ms: float) -> str:
    """Return a span of time in words, to the tenth of a millisecond where it is short."""
    for most, size, unit in (
        (10, 1, "ms"), (1000, 1, "ms"), (60_000, 1000, "s"), (3_600_000, 60_000, "min"),
        (86_400_000, 3_600_000, "h"), (float("inf"), 86_400_000, "d"),
    ):  # fmt: skip
        if ms < most:
            return f"{ms / size:.{0 if unit == 'ms' and ms >= 10 else 1}f} {unit}"
    return ""


# The axis ----------------------------------------------------------------------------------------

PAUSES: tuple[Kind, ...] = ("waiting", "backoff", "coming")


class Axis:
    """Places on the axis, with long pauses cut."""

    def __init__(self, drawn: Sequence[Row]) -> None:
        parts = [part for row in drawn for part in row.parts]
        pauses = [part for part in parts if part.kind in PAUSES]
        busy = sum(part.end - part.start for part in parts if part.kind not in PAUSES)
        most = max(busy, 1.0) / max(len(pauses), 1)
        self.cut = {(part.start, part.end) for part in pauses if part.end - part.start > most}
        """The pauses that are drawn shorter than they were."""
        self._shorter = sorted((start, end, most) for start, end in self.cut)
        self._first = min((part.start for part in parts), default=0.0)
        self._length = max(self._at(max((part.end for part in parts), default=0.0)), 1e-9)

    def _at(self, time: float) -> float:
        """Return how many ms after the start a time is, with what is cut left out."""
        gone = 0.0
        for start, end, most in self._shorter:
            if time > start:
                inside = min(time, end) - start
                gone += inside - inside * most / (end - start)
        return time - self._first - gone

    def x(self, time: float) -> float:
        """Return where a time is, from 0 to WIDE."""
        return min(max(self._at(time) / self._length, 0.0), 1.0) * WIDE


def pictures(drawn: Sequence[Row]) -> list[Markup]:
    """Return a picture for each row; what a part is, and how long it took, is said on hover."""
    axis = Axis(drawn)
    return [_picture(row, axis) for row in drawn]


def _picture(row: Row, axis: Axis) -> Markup:
    inside = Markup("").join(_bar(part, axis) for part in row.parts)
    return Markup(
        '<svg class="waterfall" viewBox="0 0 {} {}" preserveAspectRatio="none" '
        'aria-hidden="true" focusable="false">{}</svg>'
    ).format(WIDE, HIGH, inside)


def _bar(part: Part, axis: Axis) -> Markup:
    left = min(axis.x(part.start), WIDE - LEAST)
    wide = max(min(axis.x(part.end), WIDE) - left, LEAST)
    cut = (part.start, part.end) in axis.cut
    said = f"{part.word}, {span(part.end - part.start)}" + (", drawn shorter" if cut else "")
    thick = THICK if part.kind not in PAUSES else THICK / 3
    return Markup(
        '<rect class="{}" x="{:.2f}" y="{:.1f}" width="{:.2f}" height="{:.1f}">'
        "<title>{}</title></rect>"
    ).format(
        f"{part.kind}{' cut' if cut else ''}", left, (HIGH - thick) / 2, wide, thick, escape(said)
    )

"""What a change of a calendar would do to the tasks that name it; nothing is changed."""

import msgspec

from scheduler import exclusions
from scheduler.clock import Slice
from scheduler.dashboard.calendars.calendar_year import excluded
from scheduler.db import Conn
from scheduler.definition import Definition
from scheduler.exclusions import Stored
from scheduler.triggers.calendar import Rules, Span
from scheduler.triggers.excluded import Calendar, Excluded

AHEAD_MS = 366 * 86_400_000
"""How far a change is looked at."""
SHOWN = 5
"""Instants that are named of a task."""
BUDGET_S = 0.5
"""CPU time that a look may take in all: it shares the loop with runs that are due."""


class Moved(msgspec.Struct, frozen=True):
    """An instant (ms) that a change takes away, or gives back."""

    at: int
    runs: bool
    """After the change."""


class Touched(msgspec.Struct, frozen=True):
    """A task with the first of its instants that change; none where it is left alone."""

    task: Definition
    moved: list[Moved]


class Effect(msgspec.Struct, frozen=True):
    """What a change does within a year; `cut` says that there was no time for more."""

    tasks: list[Touched]
    cut: bool


async def of_change(
    conn: Conn, tasks: list[Definition], before: Stored, after: Rules, now: int
) -> Effect:
    """Return which instants of tasks, after `now` (ms), another form of a calendar moves."""
    turn, until = Slice(), now + AHEAD_MS
    old = await excluded(before.rules, now, until, turn)
    new = await excluded(after, now, until, turn)
    changed = differing(old, new)
    ahead = Calendar(before.key, before.version + 1, before.name, after)
    found, cut = list[Touched](), False
    for of in await exclusions.attach(conn, tasks):
        moved = list[Moved]()
        if not cut:
            others = [] if of.excluded is None else of.excluded.calendars
            rest = Excluded(*(each for each in others if each.name != before.name))
            moved = await _moved(of, rest, ahead, changed, turn)
            cut = turn.used_s > BUDGET_S
        found.append(Touched(of, moved))
    return Effect(found, cut)


async def _moved(
    of: Definition, rest: Excluded, ahead: Calendar, changed: list[Span], turn: Slice
) -> list[Moved]:
    found = list[Moved]()
    if of.instants is None:
        return found
    for start, end in changed:
        at = of.instants.next(start - 1)
        while at is not None and at < end and len(found) < SHOWN:
            if rest.at(at) is None:  # else it runs neither before nor after
                found.append(Moved(at, ahead.at(at) is None))
            at = of.instants.next(at)
            await turn.give_way()
        if at is None or len(found) == SHOWN or turn.used_s > BUDGET_S:
            break
        await turn.give_way()
    return found


def differing(one: list[Span], other: list[Span]) -> list[Span]:
    """Return the spans that are in one of two lists and not in the other; each in order, apart."""
    found, inside, since = list[Span](), 0, 0
    edges = sorted(edge for span in (*one, *other) for edge in span)
    for at in edges:
        if inside and since < at:
            found.append((since, at))
        inside ^= 1
        since = at
    return found

"""The forecast: what comes due, hour by hour, and when the most comes due at once.

Times are ms since 1970.
"""

from collections.abc import Sequence
from itertools import islice

import msgspec

from scheduler.clock import Slice
from scheduler.dashboard.timeline.ahead import Ahead
from scheduler.dashboard.timeline.minutes import HOUR
from scheduler.dashboard.timeline.opening import Opening
from scheduler.dashboard.timeline.reckoning import Reckoning
from scheduler.triggers.rrule_parts import Costly

BUDGET_S = 0.2
"""CPU time that a forecast may take in all."""
PEAKS, NAMED = 5, 5
LISTED = 50


class Peak(msgspec.Struct, frozen=True):
    """An instant at which so many tasks come due, some of them named (id, name)."""

    at: int
    tasks: int
    named: Sequence[tuple[str, str]]


class Listed(msgspec.Struct, frozen=True):
    """Tasks that come due in the hour that was asked for: the first instant, and how many."""

    first: int
    instants: int
    tasks: int
    named: Sequence[tuple[str, str]]


class Forecast(msgspec.Struct):
    """What comes due in [since, until): counts of runs by the hour; the last may be less."""

    since: int
    until: int
    hours: list[int]
    peaks: list[Peak] = []
    listed: list[Listed] = []
    more: int = 0
    """Kinds of tasks that are due in the hour that was asked for, beyond those that are listed."""
    rules: int = 0
    """Tasks left out: their RRULE takes too many steps."""
    late: int = 0
    """Tasks left out: time was up."""
    dense: int = 0
    """Tasks that are due too often to look for what falls together."""


async def forecast(
    these: Sequence[Ahead],
    now: int,
    since: int,
    until: int,
    listed: int | None = None,
    skip: int = 0,
) -> Forecast:
    """Return what comes due after `now` in [since, until), by the hour from `since` on.

    `listed` is the beginning of the hour whose tasks are listed, but for the first `skip`.
    """
    hours = -(-(until - since) // HOUR)
    made, turn = Forecast(since, until, [0] * hours), Slice()
    first = max(now + 1 - since, 0) // HOUR
    found = Reckoning(since + first * HOUR, hours - first)
    opening = Opening(max(now + 1, since), found.base, made.until)
    for each in these:
        if turn.used_s > BUDGET_S:
            made.late += each.tasks
            continue
        try:
            await found.add(each, await opening.of(each, turn), turn)
        except Costly:
            made.rules += each.tasks
        await turn.give_way()
    await found.settle(turn, BUDGET_S)
    made.dense = found.dense
    made.hours[first:] = found.table.hours
    for at, tasks in await found.table.fullest(PEAKS, turn):
        who = found.who(at)
        names = (name for each in who for name in each.of.named)
        made.peaks.append(Peak(found.base + at, tasks, list(islice(names, NAMED))))
        await turn.give_way()
    if listed is not None:
        due = await found.due((listed - found.base) // HOUR, turn)
        made.more = max(len(due) - skip - LISTED, 0)
        made.listed = [
            Listed(found.base + at, many, each.tasks, each.of.named)
            for at, many, each in due[skip : skip + LISTED]
        ]
    return made

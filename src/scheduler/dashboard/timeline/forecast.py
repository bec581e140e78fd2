"""The forecast: what comes due, hour by hour, and when the most comes due at once.

Reckoned of the triggers, with a bound on what that costs. Times are ms since 1970.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from uuid import UUID

import msgspec

from scheduler.agenda import Alike
from scheduler.clock import Slice
from scheduler.planning import Planned
from scheduler.triggers import Bounded, Instants, Interval, Once, Rrule
from scheduler.triggers.excluded import Excluded
from scheduler.triggers.rrule_parts import Costly

MINUTE, HOUR = 60_000, 3_600_000
EACH = 1000
"""Instants of one trigger that are looked at one by one; what has more is counted by the hour."""
MOMENTS_MOST = 50_000
"""Instants that are compared, to find those at which the most comes due."""
MANY = 500
"""So many kinds of tasks, and intervals that begin on no whole minute are only counted."""
BUDGET_S = 0.2
"""CPU time that a forecast may take in all."""
RULE_MOST = 256
"""Characters of an RRULE; a longer one may take milliseconds to read, and is left out."""
PEAKS = 5
LISTED = 50


class Ahead(msgspec.Struct, frozen=True):
    """Tasks that are due alike, and what they keep clear of; `left` instants each, at most."""

    of: Alike
    excluded: Excluded | None = None
    left: int | None = None
    tasks: int = 1


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
    """What comes due in [since, since + hours): counts of runs by the hour."""

    since: int
    until: int
    hours: list[int]
    peaks: list[Peak] = []
    listed: list[Listed] = []
    rules: int = 0
    """Tasks left out: their RRULE is too long, or takes too many steps."""
    late: int = 0
    """Tasks left out: time was up."""
    dense: int = 0
    """Tasks that are due too often to look for what falls together."""


def ahead(
    alike: Sequence[Alike],
    calendars: Mapping[str, Excluded],
    plans: Mapping[UUID, Planned],
) -> list[Ahead]:
    """Return what is to be reckoned: each task for itself where `max_runs` bounds it."""
    found: list[Ahead] = []
    for of in alike:
        named = [each for name in of.bounds.calendars if (each := calendars.get(name))]
        clear = Excluded(*(c for each in named for c in each.calendars)) if named else None
        most = of.bounds.max_runs
        if most is None:
            found.append(Ahead(of, clear, None, of.tasks))
            continue
        lefts = Counter(most - (plans[key].runs if key in plans else 0) for key in of.keys)
        found += [Ahead(of, clear, left, many) for left, many in lefts.items() if left > 0]
    return found


async def forecast(
    these: Sequence[Ahead], now: int, since: int, hours: int, listed: int | None = None
) -> Forecast:
    """Return what comes due after `now`, in so many hours from `since` on.

    `listed` is the beginning of the hour whose tasks are listed.
    """
    made = Forecast(since, since + hours * HOUR, [0] * hours)
    turn, moments = Slice(), _Moments(many=len(these) > MANY)
    for each in these:
        if turn.used_s > BUDGET_S:
            made.late += each.tasks
            continue
        try:
            await _reckon(made, each, max(now, since - 1), moments, turn, listed)
        except Costly:
            made.rules += each.tasks
        await turn.give_way()
    made.peaks = await moments.peaks(turn)
    made.listed.sort(key=lambda one: one.first)
    return made


class _Moments:
    """How many tasks come due at each instant, and which, for some."""

    def __init__(self, *, many: bool) -> None:
        self.many = many
        self.counts = dict[int, int]()
        self._who: dict[int, list[Ahead]] = {}

    def add(self, at: int, each: Ahead) -> None:
        self.counts[at] = self.counts.get(at, 0) + each.tasks
        who = self._who.setdefault(at, [])
        if len(who) < 3:
            who.append(each)

    def compares(self, each: Ahead) -> bool:
        """Say whether instants of a task are looked at beside others."""
        if len(self.counts) >= MOMENTS_MOST:
            return False
        trigger = each.of.trigger
        odd = isinstance(trigger, Interval) and trigger.anchor % MINUTE != 0
        return not (self.many and odd and each.tasks == 1)

    async def peaks(self, turn: Slice) -> list[Peak]:
        """Return the instants with the most tasks, two at least, the fullest and soonest first.

        What was looked at is let go of meanwhile: all of it at once would hold the loop.
        """
        found: list[tuple[int, int, list[Ahead]]] = []
        while self._who:
            at, who = self._who.popitem()
            tasks = self.counts.pop(at)
            if tasks > 1 and (len(found) < PEAKS or (-tasks, at) < found[-1][:2]):
                found = sorted([*found, (-tasks, at, who)], key=lambda one: one[:2])[:PEAKS]
            await turn.give_way()
        return [
            Peak(at, -tasks, [one for each in who for one in each.of.named][:5])
            for tasks, at, who in found
        ]


async def _reckon(
    made: Forecast,
    each: Ahead,
    after: int,
    moments: _Moments,
    turn: Slice,
    listed: int | None,
) -> None:
    """Add what comes due of tasks that are alike. Raises Costly."""
    trigger = each.of.trigger
    if isinstance(trigger, Rrule) and len(trigger.text) > RULE_MOST:
        raise Costly
    after = max(after, (each.of.begin or 0) - 1)
    instants, last = _instants(each.of), made.until - 1
    total = 0 if after >= last else instants.count(after, last)
    if not total:
        return
    compared = moments if moments.compares(each) else None
    if min(total, each.left or total) > EACH or (compared is None and _even(each)):
        made.dense += each.tasks
        await _by_hour(made, each, instants, after, turn)
    else:
        made.dense += 0 if compared else each.tasks
        await _one_by_one(made, each, instants, (after, last), compared, turn)
    if listed is not None:
        _list(made, each, instants, max(after, listed - 1), min(listed + HOUR - 1, last))


def _instants(of: Alike) -> Instants:
    """Return what a trigger yields within its bounds; jitter, each task's own, is left out."""
    bounds = of.bounds
    if isinstance(of.trigger, Once) or (bounds.start_at is None and bounds.end_at is None):
        return of.trigger
    return Bounded(of.trigger, 0, bounds.start_at, bounds.end_at)


def _even(each: Ahead) -> bool:
    """Say whether each whole hour has as many as the one before."""
    trigger, bounds = each.of.trigger, each.of.bounds
    even = isinstance(trigger, Interval) and HOUR % trigger.every == 0
    free = bounds.start_at is None and bounds.end_at is None and each.left is None
    return even and free and each.excluded is None


def _evenly(made: Forecast, each: Ahead, instants: Instants, after: int) -> None:
    """Count the hour that has begun, and give each later one the same."""
    first = (instants.next(max(after, made.since - 1)) or made.until) - 1
    whole = (first - made.since) // HOUR + 1
    end = made.since + whole * HOUR - 1
    made.hours[whole - 1] += instants.count(first, end) * each.tasks
    many = instants.count(end, end + HOUR) * each.tasks
    for n in range(whole, len(made.hours)):
        made.hours[n] += many


async def _by_hour(
    made: Forecast, each: Ahead, instants: Instants, after: int, turn: Slice
) -> None:
    if _even(each):
        _evenly(made, each, instants, after)
        return
    left = each.left
    for n in range(max((after - made.since) // HOUR, 0), len(made.hours)):
        begin = made.since + n * HOUR
        if each.excluded is not None and each.excluded.at(begin + HOUR // 2):
            continue
        found = instants.count(max(after, begin - 1), begin + HOUR - 1)
        if left is not None:
            found = min(found, left)
            left -= found
        made.hours[n] += found * each.tasks
        await turn.give_way()


async def _one_by_one(
    made: Forecast,
    each: Ahead,
    instants: Instants,
    span: tuple[int, int],
    moments: _Moments | None,
    turn: Slice,
) -> None:
    left = each.left
    for at in instants.between(*span):
        if left == 0:
            break
        left = None if left is None else left - 1
        if each.excluded is None or each.excluded.at(at) is None:
            made.hours[(at - made.since) // HOUR] += each.tasks
            if moments is not None:
                moments.add(at, each)
        await turn.give_way()


def _list(made: Forecast, each: Ahead, instants: Instants, after: int, last: int) -> None:
    first = instants.next(after)
    if len(made.listed) >= LISTED or first is None or first > last:
        return
    if each.excluded is None or each.excluded.at(first) is None:
        many = instants.count(after, last)
        made.listed.append(Listed(first, many, each.tasks, each.of.named))

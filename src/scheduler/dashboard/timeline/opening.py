"""When the instants of a task count: from now on, within its bounds, and clear of calendars."""

from bisect import bisect_left
from collections.abc import Iterable

from scheduler.clock import Slice
from scheduler.dashboard.timeline.ahead import Ahead
from scheduler.dashboard.timeline.minutes import Open, Spans
from scheduler.triggers import Trigger
from scheduler.triggers.calendar import merged
from scheduler.triggers.excluded import Excluded


class Opening:
    """Makes each `Open` once, of [since, until); `base` is where their times are counted from."""

    def __init__(self, since: int, base: int, until: int) -> None:
        self.since, self.base, self.until = since, base, until
        self._made: dict[tuple[int, int, int], Open] = {}
        self._shut: dict[int, Spans] = {}

    async def of(self, each: Ahead, turn: Slice) -> Open:
        """Return when instants of a task count; jitter, each task's own, is left out."""
        bounds = each.of.bounds
        low = max(self.since, each.of.begin or 0, bounds.start_at or 0)
        high = self.until if bounds.end_at is None else min(self.until, bounds.end_at + 1)
        if each.left is not None and low < high:
            high = _after(each.of.trigger, low, high, each.left)
        key = (low, high, id(each.excluded))
        found = self._made.get(key)
        if found is None:
            shut: Spans = ()
            if each.excluded is not None:
                shut = await self._excluded(each.excluded, turn)
            spans = ((a - self.base, b - self.base) for a, b in _clear(low, high, shut))
            found = self._made[key] = Open(tuple(spans))
        return found

    async def _excluded(self, of: Excluded, turn: Slice) -> Spans:
        """Return what calendars exclude, in order and apart."""
        found = self._shut.get(id(of))
        if found is None:
            spans = list[tuple[int, int]]()
            for calendar in of.calendars:
                for at in (self.since, self.until):
                    for step in calendar.warm(at):
                        step()
                        await turn.give_way()
                spans += calendar.between(self.since, self.until)
            found = self._shut[id(of)] = tuple(merged(spans))
        return found


def _clear(low: int, high: int, shut: Iterable[tuple[int, int]]) -> Iterable[tuple[int, int]]:
    for start, end in shut:
        if low < min(start, high):
            yield low, min(start, high)
        low = max(low, end)
    if low < high:
        yield low, high


def _after(trigger: Trigger, low: int, high: int, left: int) -> int:
    """Return the time by which so many instants from `low` on are over, `high` at most."""
    if trigger.count(low - 1, high - 1) <= left:
        return high
    ends = range(low, high)
    return ends[bisect_left(ends, left, key=lambda end: trigger.count(low - 1, end))] + 1

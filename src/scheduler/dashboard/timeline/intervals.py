"""Intervals ahead: all that step alike are counted at once, and those compared that can meet.

Two intervals of whole minutes meet only where they begin as many ms after a minute. Times are ms
since the beginning of the table's first hour.
"""

from bisect import bisect_right
from itertools import accumulate
from math import gcd

from scheduler.clock import Slice
from scheduler.dashboard.timeline.ahead import Ahead
from scheduler.dashboard.timeline.minutes import HOUR, LANE, MINUTE, Open, Table, every

FEW = 60
"""Instants that are looked at one by one."""

Entry = tuple[Open, int, int, Ahead]
"""When it counts, its step, the first instant if it had always been, and whose it is."""


class Intervals:
    """Intervals that come due, until they are added to a table."""

    def __init__(self, table: Table[Ahead]) -> None:
        self._table, self._end = table, len(table.hours) * HOUR
        self._entries: dict[int, list[Entry]] = {}
        self._alone: list[Entry] = []

    def add(self, within: Open, step: int, anchor: int, each: Ahead) -> None:
        """Take in what is due each `step`, from `anchor` on."""
        if anchor > 0:
            within = within.cut(anchor, self._end)
        if within.spans:
            after = anchor % MINUTE if step % MINUTE == 0 else -1
            self._entries.setdefault(after, []).append((within, step, anchor % step, each))

    async def settle(self, turn: Slice, budget_s: float) -> int:
        """Add all to the table; return how many tasks are not looked at for what falls together."""
        dense = 0
        for after in [-1, *self._entries]:  # what can meet any other comes first
            entries = self._entries.pop(after, [])
            alone = len(entries) == 1 and entries[0][3].tasks == 1
            for entry in entries:
                _, step, first, each = entry
                few = (self._end - first) // step < FEW
                if (alone and after >= 0 and after not in self._table.afters) or not (
                    few or (after >= 0 and turn.used_s <= budget_s)
                ):
                    dense += 0 if alone and after >= 0 else each.tasks
                    self._alone.append(entry)
                elif few:
                    self._one_by_one(entry)
                else:
                    self._strides(entry)
                await turn.give_way()
        await self._count(turn)
        return dense

    async def due(self, hour: int, turn: Slice) -> list[tuple[int, int, Ahead]]:
        """Return who of those that are counted alone is due in an hour."""
        found = []
        for within, step, first, each in self._alone:
            for low, high in within.cut(hour * HOUR, (hour + 1) * HOUR).spans:
                at = first + -(-(low - first) // step) * step
                if at < high:
                    found.append((at, (high - 1 - at) // step + 1, each))
            await turn.give_way()
        return found

    def _one_by_one(self, entry: Entry) -> None:
        within, step, first, each = entry
        for at in range(first, self._end, step):
            if within.holds(at):
                self._table.add_at(at, (each, each.tasks))

    def _strides(self, entry: Entry) -> None:
        """Add minutes by the hours that have the same: those repeat."""
        within, step, first, each = entry
        many, minutes, lanes = len(self._table.hours), step // MINUTE, dict[int, int]()
        common = gcd(minutes, 60)
        for n in range(60 // common):
            hour, minute = divmod(first // MINUTE + n * minutes, 60)
            lanes[hour] = lanes.get(hour, 0) | 1 << LANE * minute
        for hour, some in lanes.items():
            if hour < many:
                mask = every(minutes // common, many - hour) << hour
                self._table.add(within, mask, some, (first % MINUTE,), (each, each.tasks))

    async def _count(self, turn: Slice) -> None:
        """Count those alone, all that step alike at once."""
        groups = dict[tuple[int, Open], list[tuple[int, int]]]()
        for within, step, first, each in self._alone:
            groups.setdefault((step, within), []).append((first, each.tasks))
            await turn.give_way()
        for (step, within), some in groups.items():
            await turn.give_way()
            if len(some) * self._end // step < FEW:
                for first, tasks in some:
                    for at in range(first, self._end, step):
                        self._table.hours[at // HOUR] += tasks if within.holds(at) else 0
                continue
            some.sort()
            before = [0, *accumulate(tasks for _, tasks in some)]
            firsts = [first for first, _ in some]

            def until(
                end: int, step: int = step, firsts: list[int] = firsts, before: list[int] = before
            ) -> int:
                steps, rest = divmod(end - 1, step)
                return before[-1] * steps + before[bisect_right(firsts, rest)]

            for low, high in within.spans:
                known = until(low)
                for end in (*range(low // HOUR * HOUR + HOUR, high, HOUR), high):
                    found = until(end)
                    self._table.hours[(end - 1) // HOUR] += found - known
                    known = found

"""What calendars exclude, as a task keeps clear of it: stretches of time in which nothing runs.

Times are ms since 1970.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple
from uuid import UUID

from scheduler.triggers.bounds import Instants
from scheduler.triggers.calendar import Rules

BLOCK_MS = 28 * 86_400_000
"""How much of a calendar is worked out in one go."""
BLOCKS_MOST = 128
TRIES = 200
"""How many instants in a row are tried until none is looked for: a calendar may exclude all."""


class Stretch(NamedTuple):
    """A time that a calendar excludes, [start, end); another may begin where it ends."""

    start: int
    end: int
    name: str
    """The calendar's."""


class Calendar:
    """A calendar as it stands; what it excludes is worked out where it is asked for."""

    def __init__(self, key: UUID, version: int, name: str, rules: Rules) -> None:
        self.key = key
        self.version = version
        self.name = name
        self.rules = rules
        self._blocks: dict[int, tuple[list[int], list[int]]] = {}

    def at(self, instant: int) -> Stretch | None:
        """Return the stretch that holds an instant; None where none does."""
        starts, ends = self._block(instant // BLOCK_MS)
        place = bisect_right(starts, instant) - 1
        if place < 0 or instant >= ends[place]:
            return None
        return Stretch(starts[place], ends[place], self.name)

    def warm(self, instant: int) -> Iterator[Callable[[], object]]:
        """Yield the steps, a few ms each at most, after which asking about an instant is quick."""
        number = instant // BLOCK_MS
        for event in self.rules.events:
            if event.rule is not None:
                yield partial(self.rules.dwell, event, number * BLOCK_MS, (number + 1) * BLOCK_MS)
        yield partial(self._block, number)

    def _block(self, number: int) -> tuple[list[int], list[int]]:
        found = self._blocks.get(number)
        if found is None:
            spans = self.rules.between(number * BLOCK_MS, (number + 1) * BLOCK_MS)
            if len(self._blocks) >= BLOCKS_MOST:
                self._blocks.clear()
            found = self._blocks[number] = [s for s, _ in spans], [e for _, e in spans]
        return found


class Excluded:
    """What the calendars of a task exclude together."""

    def __init__(self, *calendars: Calendar) -> None:
        self.calendars = calendars

    def at(self, instant: int) -> Stretch | None:
        """Return the longest of the stretches that hold an instant; None where none does."""
        found = [stretch for each in self.calendars if (stretch := each.at(instant))]
        return max(found, key=lambda stretch: stretch.end) if found else None

    def until(self, at: int) -> int | None:
        """Return the end of the stretch that holds an instant; None where none does."""
        found = self.at(at)
        return found.end if found else None

    def next(self, of: Instants, after: int) -> int | None:
        """Return the first instant later than `after` that is not excluded.

        None where none is among those that are tried.
        """
        at = of.next(after)
        for _ in range(TRIES):
            end = None if at is None else self.until(at)
            if end is None:
                return at
            at = of.next(end - 1)
        return None

    def last(self, of: Instants, after: int, until: int) -> int | None:
        """Return the last instant in (after, until] that is not excluded, as for `next`."""
        at = of.last(after, until)
        for _ in range(TRIES):
            found = None if at is None else self.at(at)
            if found is None:
                return at
            at = of.last(after, found.start - 1) if found.start > after else None
        return None

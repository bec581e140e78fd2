"""What calendars exclude, as a task keeps clear of it: stretches of time in which nothing runs.

Times are ms since 1970.
"""

from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count
from typing import NamedTuple
from uuid import UUID

from scheduler.triggers.bounds import Instants
from scheduler.triggers.calendar import Rules

BLOCK_MS = 28 * 86_400_000
"""How much of a calendar is worked out in one go."""
KEPT_MOST = 1_000_000
"""Stretches that are kept in all, of whatever calendars: those of 16 MB."""
BLOCK_ITSELF = 20
"""What a block takes beside its stretches, in stretches."""
WORK_MOST = 20_000
"""So many times that a calendar names, see `Rules.work`, are worked out for one question."""
TRIES = 200
"""How many instants in a row are tried until none is looked for: a calendar may exclude all."""


class Stretch(NamedTuple):
    """A time that a calendar excludes, [start, end); another may begin where it ends."""

    start: int
    end: int
    name: str
    """The calendar's."""


class _Kept:
    """What calendars exclude in the blocks that were asked for last: memory has a bound."""

    def __init__(self) -> None:
        self._blocks: OrderedDict[tuple[int, int], tuple[Sequence[int], Sequence[int]]] = (
            OrderedDict()
        )
        self.size = 0

    def get(self, key: tuple[int, int], rules: Rules) -> tuple[Sequence[int], Sequence[int]]:
        """Return the starts and the ends of the stretches in a calendar's block."""
        found = self._blocks.get(key)
        if found is not None:
            self._blocks.move_to_end(key)
            return found
        spans = rules.between(key[1] * BLOCK_MS, (key[1] + 1) * BLOCK_MS)
        made = array("q", (s for s, _ in spans)), array("q", (e for _, e in spans))
        self._blocks[key] = made
        self.size += len(spans) + BLOCK_ITSELF
        while self.size > KEPT_MOST:
            _, (starts, _) = self._blocks.popitem(last=False)
            self.size -= len(starts) + BLOCK_ITSELF
        return made


_kept = _Kept()
_serials = count()


class Calendar:
    """A calendar as it stands; what it excludes is worked out where it is asked for."""

    def __init__(self, key: UUID, version: int, name: str, rules: Rules) -> None:
        self.key = key
        self.version = version
        self.name = name
        self.rules = rules
        self._serial = next(_serials)

    def at(self, instant: int) -> Stretch | None:
        """Return the stretch that holds an instant; None where none does."""
        starts, ends = self._block(instant // BLOCK_MS)
        place = bisect_right(starts, instant) - 1
        if place < 0 or instant >= ends[place]:
            return None
        return Stretch(starts[place], ends[place], self.name)

    def between(self, since: int, until: int) -> Iterator[tuple[int, int]]:
        """Yield the stretches that lie at least in part in [since, until), as [start, end)."""
        for number in range(since // BLOCK_MS, -(-until // BLOCK_MS)):
            for start, end in zip(*self._block(number), strict=True):
                if start < until and end > since:
                    yield start, end

    def warm(self, instant: int) -> Iterator[Callable[[], object]]:
        """Yield the steps, a few ms each at most, after which asking about an instant is quick."""
        number = instant // BLOCK_MS
        for event in self.rules.events:
            if event.rule is not None:
                yield partial(self.rules.dwell, event, number * BLOCK_MS, (number + 1) * BLOCK_MS)
        yield partial(self._block, number)

    def _block(self, number: int) -> tuple[Sequence[int], Sequence[int]]:
        return _kept.get((self._serial, number), self.rules)


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
        at, work = of.next(after), _Work(self)
        for _ in range(TRIES):
            if at is not None and not work.affords(at):
                return None
            end = None if at is None else self.until(at)
            if end is None:
                return at
            at = of.next(end - 1)
        return None

    def last(self, of: Instants, after: int, until: int) -> int | None:
        """Return the last instant in (after, until] that is not excluded, as for `next`."""
        at, work = of.last(after, until), _Work(self)
        for _ in range(TRIES):
            if at is not None and not work.affords(at):
                return None
            found = None if at is None else self.at(at)
            if found is None:
                return at
            at = of.last(after, found.start - 1) if found.start > after else None
        return None


class _Work:
    """What a question makes calendars work out: the same whatever is kept already."""

    def __init__(self, of: Excluded) -> None:
        self._each = sum(calendar.rules.work for calendar in of.calendars)
        self._left = max(WORK_MOST, 2 * self._each)  # what lies about a block's end
        self._block: int | None = None

    def affords(self, at: int) -> bool:
        """Say whether the block of an instant may be worked out, too."""
        number = at // BLOCK_MS
        if number != self._block:
            self._block = number
            self._left -= self._each
        return self._left >= 0

"""Minutes to come, counted in long integers: an hour is 60 lanes, a day's hours are bits.

Adding two such numbers adds all minutes of an hour at once. Times are ms since `base`, the
beginning of the first hour; hours are counted from it, too.
"""

import sys
from bisect import bisect_right
from collections.abc import Iterator
from functools import lru_cache
from typing import Generic, TypeVar

import msgspec

from scheduler.clock import Slice

MINUTE, HOUR = 60_000, 3_600_000
LANE = 64
"""Bits of a lane: no count of runs is as great."""
FIGURES = (1 << LANE) - 1
COMPARED_MOST = 4
"""What comes more often within a minute is counted, and not looked at for what falls together."""

T = TypeVar("T")
Spans = tuple[tuple[int, int], ...]
"""[low, high) each, in order and apart."""


class Open:
    """When instants count, as whole hours (bits) and parts of hours."""

    def __init__(self, spans: Spans) -> None:
        self.spans = spans
        self.whole = 0
        self.parts: list[tuple[int, int, int]] = []
        """(hour, low, high), ms of that hour."""
        for low, high in spans:
            first, last = -(-low // HOUR), high // HOUR
            if first > last:
                self.parts.append((last, low % HOUR, high % HOUR))
                continue
            self.whole |= (1 << last) - (1 << first)
            if low % HOUR:
                self.parts.append((first - 1, low % HOUR, HOUR))
            if high % HOUR:
                self.parts.append((last, 0, high % HOUR))
        self._cut: dict[tuple[int, int], Open] = {}

    def cut(self, low: int, high: int) -> "Open":
        """Return what of it lies in [low, high)."""
        if not self.spans or (low <= self.spans[0][0] and high >= self.spans[-1][1]):
            return self
        found = self._cut.get((low, high))
        if found is None:
            both = ((max(low, a), min(high, b)) for a, b in self.spans)
            found = self._cut[low, high] = Open(tuple((a, b) for a, b in both if a < b))
        return found

    def holds(self, at: int) -> bool:
        """Say whether an instant counts."""
        place = bisect_right(self.spans, (at, FIGURES)) - 1
        return place >= 0 and self.spans[place][0] <= at < self.spans[place][1]


class Row(msgspec.Struct, Generic[T]):
    """Minutes that are due in the same hours: how often in all, and who has which."""

    lanes: int = 0
    who: list[tuple[int, T]] = []


@lru_cache(8192)
def lanes_of(minutes: tuple[int, ...]) -> int:
    """Return minutes of an hour as lanes that are one."""
    return sum(1 << LANE * minute for minute in minutes)


def sum_of(lanes: int) -> int:
    """Return what all lanes hold together: by casting out nines, in base 2^64."""
    return lanes % FIGURES


@lru_cache(4096)
def bits_of(mask: int) -> tuple[int, ...]:
    """Return which bits of a number are set."""
    return tuple(n for n, bit in enumerate(reversed(f"{mask:b}")) if bit == "1")


def every(step: int, most: int) -> int:
    """Return bits that are so many apart, the first of them 0, below `most`."""
    many = -(-most // step)
    return ((1 << many * step) - 1) // ((1 << step) - 1)


def part_of(low: int, high: int, after: int) -> int:
    """Return the lanes whose minutes, so many ms `after` they begin, lie in [low, high)."""
    first, last = (max(-(-(end - after) // MINUTE), 0) for end in (low, high))
    return ((1 << LANE * last) - 1) ^ ((1 << LANE * first) - 1)


class Table(Generic[T]):
    """What comes due, by the minute, of all there is; T says who."""

    def __init__(self, hours: int) -> None:
        self.hours = [0] * hours
        self.afters = set[int]()
        """How many ms after a minute begins anything is due."""
        self._rows: dict[tuple[Open, tuple[int, ...]], dict[int, Row[T]]] = {}
        self._lone: dict[int, list[T]] = {}
        self._gone: set[tuple[int, int]] = set()
        self._lanes: dict[int, dict[int, int]] = {}

    def add(
        self, within: Open, hours: int, lanes: int, after: tuple[int, ...], of: tuple[T, int]
    ) -> None:
        """Add minutes (lanes) of hours (bits), at so many ms after each begins."""
        who, tasks = of
        rows = self._rows.get((within, after))
        if rows is None:
            rows = self._rows[within, after] = {}
            self.afters.update(after)
        row = rows.get(hours)
        if row is None:
            row = rows[hours] = Row(0, [])
        row.lanes += lanes * tasks
        row.who.append((lanes, who))

    def add_at(self, at: int, of: tuple[T, int]) -> None:
        """Add one instant; take it away again, where tasks are fewer than none."""
        who, tasks = of
        hour, rest = divmod(at, HOUR)
        self.hours[hour] += tasks
        self.afters.add(at % MINUTE)
        lanes = self._lanes.setdefault(at % MINUTE, {})
        lanes[hour] = lanes.get(hour, 0) + (tasks << LANE * (rest // MINUTE))
        if tasks < 0:
            self._gone.add((at, id(who)))
        else:
            self._lone.setdefault(at, []).append(who)

    async def settle(self, turn: Slice) -> None:
        """Work out what was added to rows."""
        for (within, after), rows in self._rows.items():
            for mask, row in rows.items():
                self._settle(within, after, mask, row.lanes)
                await turn.give_way()

    def _settle(self, within: Open, after: tuple[int, ...], mask: int, lanes: int) -> None:
        compared = len(after) <= COMPARED_MOST
        many = sum_of(lanes) * len(after)
        whole = bits_of(mask & within.whole)
        for hour in whole:
            self.hours[hour] += many
        for each in after if compared else ():
            found = self._lanes.setdefault(each, {})
            for hour in whole:
                found[hour] = found.get(hour, 0) + lanes
        for hour, low, high in within.parts:
            if not mask >> hour & 1:
                continue
            for each in after:
                some = lanes & part_of(low, high, each)
                self.hours[hour] += sum_of(some)
                if compared:
                    found = self._lanes.setdefault(each, {})
                    found[hour] = found.get(hour, 0) + some

    async def fullest(self, most: int, turn: Slice) -> list[tuple[int, int]]:
        """Return the instants with the most tasks, two at least: (at, tasks), the fullest first."""
        found: list[tuple[int, int]] = []
        for after, hours in self._lanes.items():
            for hour, lanes in hours.items():
                counts = memoryview(lanes.to_bytes(60 * LANE // 8, sys.byteorder)).cast("Q")
                least = found[-1][1] if len(found) == most else 2
                if max(counts) >= least:
                    begin = hour * HOUR + after
                    new = ((begin + n * MINUTE, c) for n, c in enumerate(counts) if c >= least)
                    found = sorted([*found, *new], key=lambda each: (-each[1], each[0]))[:most]
                await turn.give_way()
        return found

    def who(self, at: int) -> Iterator[T]:
        """Yield who is due at an instant, as far as minutes are compared."""
        hour, rest = divmod(at, HOUR)
        yield from self._lone.get(at, ())
        for (within, after), rows in self._rows.items():
            if at % MINUTE not in after or not within.holds(at):
                continue
            for mask, row in rows.items():
                if mask >> hour & 1:
                    for lanes, each in row.who:
                        if (
                            lanes >> LANE * (rest // MINUTE) & 1
                            and (at, id(each)) not in self._gone
                        ):
                            yield each

    async def due(self, hour: int, turn: Slice) -> list[tuple[int, int, T]]:
        """Return who is due in an hour: the first instant, how many, and who."""
        found: dict[int, tuple[int, int, T]] = {}

        def add(at: int, many: int, each: T) -> None:
            first, others, _ = found.get(id(each), (at, 0, each))
            found[id(each)] = min(first, at), others + many, each

        for at, some in self._lone.items():
            if at // HOUR == hour:
                for each in some:
                    add(at, 1, each)
        for (within, after), rows in self._rows.items():
            shown = _shown(within, hour, after)
            for mask, row in rows.items() if shown else ():
                for lanes, each in row.who if mask >> hour & 1 else ():
                    for begin, seen in shown:
                        if some_of := lanes & seen:
                            first = (some_of & -some_of).bit_length() // LANE
                            add(hour * HOUR + first * MINUTE + begin, sum_of(some_of), each)
                    await turn.give_way()
        gone = [(at, key) for at, key in self._gone if at // HOUR == hour and key in found]
        for _, key in gone:
            at, many, each = found[key]
            found[key] = at, many - 1, each
        return sorted((each for each in found.values() if each[1]), key=lambda each: each[0])


def _shown(within: Open, hour: int, after: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return which lanes of an hour count, for each time after a minute begins."""
    if within.whole >> hour & 1:
        return [(each, (1 << 60 * LANE) - 1) for each in after]
    parts = [(low, high) for at, low, high in within.parts if at == hour]
    return [(each, part_of(low, high, each)) for low, high in parts for each in after]

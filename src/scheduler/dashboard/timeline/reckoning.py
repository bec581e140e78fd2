"""What triggers add to the table of minutes: reckoned where they are days and times of day.

What is not, a set of several rules, is walked. Times are ms since `base`, a wall clock's are
seconds since 1970.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial

from scheduler.clock import Slice
from scheduler.dashboard.timeline.ahead import Ahead
from scheduler.dashboard.timeline.intervals import Intervals
from scheduler.dashboard.timeline.minutes import (
    COMPARED_MOST,
    HOUR,
    LANE,
    Open,
    Table,
    lanes_of,
)
from scheduler.triggers import Cron, Interval, Once, Rrule
from scheduler.triggers.pattern import Dates, pattern
from scheduler.triggers.rrule import recurrence_of
from scheduler.triggers.rrule_clock import Wall, stretch_in
from scheduler.triggers.rrule_days import Days
from scheduler.triggers.rrule_set import Recurrence, has
from scheduler.triggers.rrule_steps import Steps
from scheduler.triggers.rrule_times import Clock, Few
from scheduler.triggers.zones import DAY, Part

EACH = 1000
"""Instants of one trigger that are looked at one by one; what has more is counted by the hour."""
SPANS_MOST = 500
"""Where so many spans of time are apart, instants are looked at one by one."""

Times = tuple[tuple[int, int, tuple[int, ...]], ...]
"""Hours of the day as bits, minutes as lanes, and how many ms after these begin."""


class Reckoning:
    """What comes due in so many hours from `base` (ms since 1970) on."""

    def __init__(self, base: int, hours: int) -> None:
        self.base, self.many = base, hours
        self.table = Table[Ahead](hours)
        self.dense = 0
        """Tasks that are due too often to look for what falls together."""
        self._intervals = Intervals(self.table)
        self._counted: list[tuple[Open, Ahead]] = []
        self._low, self._high = base // 1000, base // 1000 + hours * HOUR // 1000
        self._still: dict[str, int | None] = {}

    async def add(self, each: Ahead, within: Open, turn: Slice) -> None:
        """Add what comes due of tasks that are alike. Raises Costly."""
        trigger = each.of.trigger
        if not within.spans:
            return
        if isinstance(trigger, Once):
            self._at(trigger.at, within, each)
        elif isinstance(trigger, Interval):
            self._intervals.add(within, trigger.every, trigger.anchor - self.base, each)
        elif len(within.spans) > SPANS_MOST or not self._reckoned(each, within, trigger):
            await self._walk(each, within, turn)

    async def settle(self, turn: Slice, budget_s: float) -> None:
        """Work out what was added."""
        self.dense += await self._intervals.settle(turn, budget_s)
        await self.table.settle(turn)

    def who(self, at: int) -> Iterator[Ahead]:
        """Yield who is due at an instant, as far as that is compared."""
        return self.table.who(at)

    async def due(self, hour: int, turn: Slice) -> list[tuple[int, int, Ahead]]:
        """Return who is due in an hour: the first instant, how many, and who."""
        found = await self.table.due(hour, turn)
        found += await self._intervals.due(hour, turn)
        for within, each in self._counted:
            for low, high in within.cut(hour * HOUR, (hour + 1) * HOUR).spans:
                many = self._count(each, low, high)
                first = each.of.trigger.next(self.base + low - 1) if many else None
                if first is not None:
                    found.append((first - self.base, many, each))
                await turn.give_way()
        return sorted(found, key=lambda one: one[0])

    def _at(self, at: int, within: Open, each: Ahead, tasks: int | None = None) -> None:
        if within.holds(at - self.base):
            self.table.add_at(at - self.base, (each, each.tasks if tasks is None else tasks))

    def _reckoned(self, each: Ahead, within: Open, trigger: Cron | Rrule) -> bool:
        """Add what comes due by arithmetic, and say whether that could be done. Raises Costly."""
        if isinstance(trigger, Rrule):
            return self._by_rule(each, within, recurrence_of(trigger))
        rule = pattern(trigger.expression)
        parts = self._parts(trigger.timezone, lambda: trigger.parts(*self._range))
        times = ((_bits(rule.hours), lanes_of(rule.minutes), _ms(rule.seconds)),)
        return self._clock(each, within, partial(_dated, rule.dates), times, parts)

    @property
    def _range(self) -> tuple[int, int]:
        return self._low * 1000 - 1, self._high * 1000 - 1

    def _parts(self, zone: str, parts: Callable[[], Iterable[Part]]) -> list[Part]:
        """Return the parts in which a zone's clock is as far off: one, where it stands still."""
        if zone not in self._still:
            at = stretch_in(zone, self._low)
            still = at.start + 2 * DAY < self._low and self._high + 2 * DAY < at.end
            self._still[zone] = at.offset if still else None
        offset = self._still[zone]
        if offset is None:
            return list(parts())
        return [Part(self._low + offset, self._high + offset, offset)]

    def _by_rule(self, each: Ahead, within: Open, of: Recurrence) -> bool:
        if len(of.rules) > 1 or of.exrules or of.exdates.days:
            return False
        rule = of.rules[0] if of.rules else None
        gone = [at for at in self._near(of.exdates.at) if rule is not None and has(rule, at)]
        if isinstance(rule, Steps) and rule.plain:
            if gone:
                return False
            low, high = rule.start * 1000 - self.base, rule.until * 1000 + 1000 - self.base
            first = (rule.origin + rule.grid.offsets[0]) * 1000 - self.base
            self._intervals.add(within.cut(low, high), rule.grid.step * 1000, first, each)
        elif rule is not None and not self._ruled(each, within, rule, compared=bool(gone)):
            return False
        for at in self._near(of.dates.at):
            if not of.exdates.hold(at) and (rule is None or not has(rule, at)):
                self._at(at * 1000, within, each)
        for at in gone:
            self._at(at * 1000, within, each, -each.tasks)
        return True

    def _near(self, dates: tuple[int, ...]) -> tuple[int, ...]:
        return dates[bisect_left(dates, self._low) : bisect_left(dates, self._high)]

    def _ruled(self, each: Ahead, within: Open, rule: Wall | Steps, *, compared: bool) -> bool:
        if isinstance(rule, Steps):
            stretch = stretch_in(rule.zone, self._low)
            steps = rule.daily(stretch)
            parts = self._parts(rule.zone, list)
            if not parts or not isinstance(steps, Few):
                return False
            times, days = _pieces(steps.times), rule.days
            within = within.cut(rule.start * 1000 - self.base, rule.until * 1000 + 1000 - self.base)
        else:
            walls, days = rule.walls, rule.walls.days
            clock = walls.clock
            if walls.setpos:
                return False
            if isinstance(clock, Clock):
                times = ((_bits(clock.hours), lanes_of(clock.minutes), _ms(clock.seconds)),)
            else:
                times = _pieces(clock.times)
            found = self._parts(rule.zone, lambda: rule.parts(self._low, self._high))
            parts = [
                part._replace(low=max(part.low, walls.start), high=min(part.high, walls.end + 1))
                for part in found
            ]
            within = within.cut(-HOUR, rule.until * 1000 + 1000 - self.base)
        if compared and any(len(seconds) > COMPARED_MOST for _, _, seconds in times):
            return False
        return self._clock(each, within, partial(_ruled_days, days), times, parts)

    def _clock(
        self,
        each: Ahead,
        within: Open,
        days: Callable[[int, int], int],
        times: Times,
        parts: list[Part],
    ) -> bool:
        """Add times of day on some days, and say whether hours are whole minutes off."""
        if any((self._low + part.offset) % 60 for part in parts):
            return False
        if any(len(seconds) > COMPARED_MOST for _, _, seconds in times):
            self.dense += each.tasks
        for part in parts:
            low, high = ((at - part.offset) * 1000 - self.base for at in (part.low, part.high))
            if low < high:
                self._piece(each, within.cut(low, high), days, times, part.offset)
            for at in part.moved:
                self._at(at * 1000, within, each)
        return True

    def _piece(
        self,
        each: Ahead,
        within: Open,
        days: Callable[[int, int], int],
        times: Times,
        offset: int,
    ) -> None:
        hour, off = divmod(self._low + offset, 3600)
        day, begun = divmod(hour, 24)
        dates, early = days(day, (begun + self.many) // 24 + 1), off // 60 * LANE
        every = (1 << self.many) - 1
        for hours, lanes, after in times:
            mask = dates * hours >> begun
            if late := lanes >> early:
                self.table.add(within, mask & every, late, after, (each, each.tasks))
            if ahead := lanes & ((1 << early) - 1):
                moved = ahead << 60 * LANE - early
                self.table.add(within, mask >> 1 & every, moved, after, (each, each.tasks))

    async def _walk(self, each: Ahead, within: Open, turn: Slice) -> None:
        trigger, (low, high) = each.of.trigger, (within.spans[0][0], within.spans[-1][1])
        if self._count(each, low, high) > EACH:
            self.dense += each.tasks
            self._counted.append((within, each))
            for begin, end in within.spans:
                for hour in range(begin // HOUR, (end - 1) // HOUR + 1):
                    span = max(begin, hour * HOUR), min(end, (hour + 1) * HOUR)
                    self.table.hours[hour] += self._count(each, *span) * each.tasks
                    await turn.give_way()
            return
        for at in trigger.between(self.base + low - 1, self.base + high - 1):
            self._at(at, within, each)
            await turn.give_way()

    def _count(self, each: Ahead, low: int, high: int) -> int:
        return each.of.trigger.count(self.base + low - 1, self.base + high - 1)


@lru_cache(8192)
def _bits(hours: tuple[int, ...]) -> int:
    return sum(1 << hour for hour in hours)


@lru_cache(1024)
def _ms(seconds: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(each * 1000 for each in seconds)


@lru_cache(4096)
def _pieces(times: tuple[int, ...]) -> Times:
    """Return times of day by their minutes and seconds, the hours that have the same made one."""
    lanes = dict[tuple[int, int], int]()
    for time in times:
        key = (time // 3600, time % 60)
        lanes[key] = lanes.get(key, 0) | 1 << LANE * (time // 60 % 60)
    hours = dict[tuple[int, int], int]()
    for (hour, second), some in lanes.items():
        hours[some, second] = hours.get((some, second), 0) | 1 << hour
    return tuple((mask, some, (second * 1000,)) for (some, second), mask in hours.items())


@lru_cache(4096)
def _dated(dates: Dates, day: int, many: int) -> int:
    """Return a bit for the first hour of each of so many days that is named."""
    return sum(1 << 24 * n for n in range(many) if dates.named(day + n))


@lru_cache(16_384)
def _ruled_days(days: Days, day: int, many: int) -> int:
    return sum(1 << 24 * (each - day) for each in days.walk(day, day + many))

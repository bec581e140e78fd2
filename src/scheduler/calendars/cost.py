"""What a calendar's events cost whoever asks what they exclude: bounded before they are stored.

That is asked in the loop that fires, for the tasks of everybody.
"""

import re
import time
from datetime import datetime, timedelta
from itertools import islice

import msgspec

from scheduler.clock import Slice
from scheduler.triggers import Rrule
from scheduler.triggers.calendar import Event
from scheduler.triggers.zones import DAY

EVENTS_MOST = 2000
RECURRING_MOST = 100
"""Of them with an RRULE: each is worked out anew for every stretch of time."""
TOO_MANY = f"must hold at most {EVENTS_MOST} events; make several calendars"
MONTH = 28 * DAY
COST_MOST_S = 0.005
"""CPU time that one event may take to be worked out for a month, after the first."""
COSTS_MOST_S = 0.02
"""The same, of all events together: a calendar is worked out as a whole."""
SPANS_MOST = 3500
"""So many times may those that recur hold in a month, together."""
YEAR_MS = 366 * DAY * 1000
YEARS_MOST = 200
"""A COUNT that is not used up in so many years bounds nothing."""
COUNT = re.compile(r";COUNT=(\d+)")
EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  (a wall clock's face)


class Refused(ValueError):
    """What is wrong with a file, and in which line."""


class Load(msgspec.Struct):
    """What the events of a file will cost whoever asks what they exclude."""

    events: int = 0
    recurring: int = 0
    spans: int = 0
    cost_s: float = 0.0

    def take(self, events: list[Event]) -> None:
        """Take in the events of one; nothing of them is worked out yet. Raises
        Refused.
        """
        self.events += len(events)
        self.recurring += sum(event.rule is not None for event in events)
        try:
            self.spans += sum(event.spans_most for event in events)
        except ValueError as e:
            raise Refused(f"has an RRULE that cannot be: {e}") from None
        self.check()

    def check(self) -> None:
        """Raise Refused where it is too much."""
        if self.events > EVENTS_MOST:
            raise Refused(TOO_MANY)
        if self.recurring > RECURRING_MOST:
            raise Refused(f"must hold at most {RECURRING_MOST} events with an RRULE")
        if self.spans > SPANS_MOST:
            raise Refused(
                f"recurs too often: those with an RRULE may last {SPANS_MOST} times a month in"
                " all, so let them recur less often, or be shorter"
            )
        if self.cost_s > COSTS_MOST_S:
            raise Refused("makes the RRULEs take too long to be worked out; make them simpler")


async def ended(event: Event, turn: Slice) -> Event:
    """Return an event with the end that COUNT makes: where that lies is not to be sought again."""
    counted = None if event.rule is None else COUNT.search(event.rule)
    if event.rule is None or counted is None:
        return event
    endless, left = event.rule.replace(counted[0], ""), int(counted[1])
    try:
        rule, low = Rrule(endless, "UTC", event.start * 1000), event.start * 1000 - 1
        for _ in range(YEARS_MOST):
            found = rule.count(low, low + YEAR_MS)
            if found >= left:
                last = next(islice(rule.between(low, low + YEAR_MS), left - 1, None))
                until = (EPOCH + timedelta(milliseconds=last)).isoformat()
                end = f";UNTIL={re.sub('[:-]', '', until)}Z"
                return msgspec.structs.replace(event, rule=endless + end)
            left, low = left - found, low + YEAR_MS
            await turn.give_way()
    except (ValueError, OverflowError) as e:
        raise Refused(f"has an RRULE that cannot be: {e}") from None
    return msgspec.structs.replace(event, rule=endless)


def judge(event: Event) -> float:
    """Return the CPU time in seconds that a rule takes each month, once it is known.

    Raises Refused where it cannot be, or costs too much.
    """
    if event.rule is None:
        return 0.0
    try:
        for _ in event.between(event.start, event.start + MONTH):
            pass
        begun = time.thread_time()
        for _ in event.between(event.start + MONTH, event.start + 2 * MONTH):
            pass
    except (ValueError, OverflowError) as e:
        raise Refused(f"has an RRULE that cannot be: {e}") from None
    cost_s = time.thread_time() - begun
    if cost_s > COST_MOST_S:
        raise Refused("has an RRULE that takes too long to be worked out; make it simpler")
    return cost_s

"""By an RRULE (RFC 5545, 3.8.5): recurrence rules, dates, and exceptions, on a wall clock."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal
from zoneinfo import ZoneInfo

import msgspec
from dateutil.rrule import rrule, rruleset, rrulestr

from scheduler.db import Instant

DstGap = Literal["skip", "shift", "end"]
DstOverlap = Literal["first", "second", "both"]


class Rrule(msgspec.Struct, tag_field="kind", tag="rrule", frozen=True, gc=False):
    """Due as `text` says; raises ValueError with the reason."""

    text: str
    """As the user wrote it."""
    timezone: str = "UTC"
    """That of the rule's wall clock: its TZID, else the task's."""
    start: Instant = 0
    """DTSTART (ms since 1970) where the text names none."""
    dst_gap: DstGap = "shift"
    dst_overlap: DstOverlap = "first"

    def next(self, after: int) -> int | None:
        """Return the first instant later than `after`."""
        found = self._rule.after(datetime.fromtimestamp(after / 1000, UTC))
        return None if found is None else round(found.timestamp() * 1000)

    def last(self, after: int, until: int) -> int | None:
        """Return the last instant in (after, until]."""
        found = None
        for at in self.between(after, until):
            found = at
        return found

    def count(self, after: int, until: int) -> int:
        """Return how many instants lie in (after, until]."""
        return sum(1 for _ in self.between(after, until))

    def between(self, after: int, until: int) -> Iterator[int]:
        """Yield the instants in (after, until], the earliest first."""
        at = self.next(after)
        while at is not None and at <= until:
            yield at
            at = self.next(at)

    def explain(self) -> str:
        """Return the rule in words."""
        return self.text

    def note(self, at: int) -> str | None:  # noqa: ARG002
        """Return what daylight saving did to an instant (ms); None where it did nothing."""
        return None

    @property
    def _rule(self) -> rrule | rruleset:
        start = datetime.fromtimestamp(self.start / 1000, ZoneInfo(self.timezone))
        return rrulestr(self.text, dtstart=start, tzids=ZoneInfo)


def read_rrule(
    text: str, timezone: str | None, start_ms: int, dst_gap: DstGap, dst_overlap: DstOverlap
) -> Rrule:
    """Return what a text says, expanding nothing. Raises ValueError with the reason."""
    if "INTERVAL=0" in text:
        raise ValueError("INTERVAL must be 1 or more")
    found = Rrule(text, timezone or "UTC", start_ms, dst_gap, dst_overlap)
    _ = found._rule  # noqa: SLF001
    return found


def judge(rule: Rrule, now: int) -> Rrule:
    """Return a rule completed for storage. Raises ValueError where it has no instant at all."""
    if rule.next(0) is None and rule.next(now) is None:
        raise ValueError("has no instant at all")
    return rule

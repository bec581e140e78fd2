"""Every so long, on a grid that never drifts: anchor + k * every."""

from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from scheduler.instant import Instant

Unit = Literal["second", "minute", "hour", "day", "week"]

UNIT_MS: dict[str, int] = {
    "second": 1000,
    "minute": 60_000,
    "hour": 3_600_000,
    "day": 86_400_000,
    "week": 604_800_000,
}
"""A day is 24 hours, on any calendar."""


class Interval(msgspec.Struct, tag_field="kind", tag="interval", frozen=True, gc=False):
    """Due at `anchor` (ms since 1970), and then every `frequency` units."""

    frequency: Annotated[int, Meta(ge=1, le=3_155_760_000)]
    unit: Unit
    anchor: Instant

    @property
    def every(self) -> int:
        """The length of one step in milliseconds."""
        return self.frequency * UNIT_MS[self.unit]

    def next(self, after: int) -> int | None:
        """Return the first instant later than `after`."""
        if after < self.anchor:
            return self.anchor
        return self.anchor + ((after - self.anchor) // self.every + 1) * self.every

    def last(self, after: int, until: int) -> int | None:
        """Return the last instant in (after, until]."""
        if until < self.anchor:
            return None
        at = self.anchor + (until - self.anchor) // self.every * self.every
        return at if at > after else None

    def count(self, after: int, until: int) -> int:
        """Return how many instants lie in (after, until]."""
        first, last = self.next(after), self.last(after, until)
        return 0 if first is None or last is None else (last - first) // self.every + 1

    def between(self, after: int, until: int) -> Iterator[int]:
        """Yield the instants in (after, until], the earliest first."""
        first = self.next(after)
        if first is not None:
            yield from range(first, until + 1, self.every)

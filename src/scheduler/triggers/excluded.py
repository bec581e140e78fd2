"""What calendars exclude, as a task keeps clear of it: stretches of time in which nothing runs."""

from bisect import bisect_right
from collections.abc import Sequence

import msgspec


class Excluded(msgspec.Struct, frozen=True, gc=False):
    """Stretches of time, [start, end) each, in ms since 1970; sorted, apart from each other."""

    starts: Sequence[int] = ()
    ends: Sequence[int] = ()
    names: Sequence[str] = ()
    """Of each stretch: the calendar that it is of."""

    def until(self, at: int) -> int | None:
        """Return the end of the stretch that holds an instant; None where none does."""
        place = bisect_right(self.starts, at) - 1
        return self.ends[place] if place >= 0 and at < self.ends[place] else None

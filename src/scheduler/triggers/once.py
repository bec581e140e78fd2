"""Once, at an instant."""

from collections.abc import Iterator

import msgspec

from scheduler.instant import Instant


class Once(msgspec.Struct, tag_field="kind", tag="once", frozen=True, gc=False):
    """Due at `at` (ms since 1970), and never again."""

    at: Instant

    def next(self, after: int) -> int | None:
        """Return the first instant later than `after`."""
        return self.at if after < self.at else None

    def last(self, after: int, until: int) -> int | None:
        """Return the last instant in (after, until]."""
        return self.at if after < self.at <= until else None

    def count(self, after: int, until: int) -> int:
        """Return how many instants lie in (after, until]."""
        return int(after < self.at <= until)

    def between(self, after: int, until: int) -> Iterator[int]:
        """Yield the instants in (after, until]."""
        if after < self.at <= until:
            yield self.at

"""From when, until when, how often, and how far spread: what bounds any trigger."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Annotated, Protocol
from uuid import UUID

import msgspec
from msgspec import Meta

from scheduler.instant import Instant


class Instants(Protocol):
    """The four questions that every trigger answers; ranges are open at their start."""

    def next(self, after: int) -> int | None:
        """Return the first instant later than `after`."""

    def last(self, after: int, until: int) -> int | None:
        """Return the last instant in (after, until]."""

    def count(self, after: int, until: int) -> int:
        """Return how many instants lie in (after, until]."""

    def between(self, after: int, until: int) -> Iterator[int]:
        """Yield the instants in (after, until], the earliest first."""


class Bounds(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What a task's trigger is bound to; times in ms since 1970, both ends included."""

    start_at: Instant | None = None
    end_at: Instant | None = None
    max_runs: Annotated[int, Meta(ge=1)] | None = None
    """How many instants are ever due; the planner counts them."""
    jitter_ms: Annotated[int, Meta(ge=0)] = 0
    calendars: tuple[str, ...] = ()
    """The names of those that it keeps clear of."""

    def offset(self, key: UUID) -> int:
        """Return how much later than its trigger says a task is due: the same each time."""
        if not self.jitter_ms:
            return 0
        digest = hashlib.blake2b(key.bytes, digest_size=8, person=b"jitter").digest()
        return int.from_bytes(digest, "big") % (self.jitter_ms + 1)


class Bounded(msgspec.Struct, frozen=True, gc=False):
    """A trigger's instants, `offset` ms later, of those only what lies in [start, end]."""

    of: Instants
    offset: int
    start: int | None
    end: int | None

    def next(self, after: int) -> int | None:
        """Return the first instant later than `after`."""
        at = self.of.next(self._floor(after) - self.offset)
        if at is None or (self.end is not None and at + self.offset > self.end):
            return None
        return at + self.offset

    def last(self, after: int, until: int) -> int | None:
        """Return the last instant in (after, until]."""
        after, until = self._floor(after), self._ceiling(until)
        if after >= until:
            return None
        at = self.of.last(after - self.offset, until - self.offset)
        return None if at is None else at + self.offset

    def count(self, after: int, until: int) -> int:
        """Return how many instants lie in (after, until]."""
        after, until = self._floor(after), self._ceiling(until)
        return 0 if after >= until else self.of.count(after - self.offset, until - self.offset)

    def between(self, after: int, until: int) -> Iterator[int]:
        """Yield the instants in (after, until], the earliest first."""
        after, until = self._floor(after), self._ceiling(until)
        if after < until:
            for at in self.of.between(after - self.offset, until - self.offset):
                yield at + self.offset

    def _floor(self, after: int) -> int:
        return after if self.start is None else max(after, self.start - 1)

    def _ceiling(self, until: int) -> int:
        return until if self.end is None else min(until, self.end)


class Without(msgspec.Struct, frozen=True, gc=False):
    """A trigger's instants but for some."""

    of: Instants
    gone: frozenset[int]
    """Times in ms since 1970; what is no instant of the trigger takes nothing away."""

    def next(self, after: int) -> int | None:
        """Return the first instant later than `after`."""
        at = self.of.next(after)
        while at in self.gone:
            at = self.of.next(at)
        return at

    def last(self, after: int, until: int) -> int | None:
        """Return the last instant in (after, until]."""
        at = self.of.last(after, until)
        while at in self.gone:
            at = self.of.last(after, at - 1)
        return at

    def count(self, after: int, until: int) -> int:
        """Return how many instants lie in (after, until]."""
        there = (at for at in self.gone if after < at <= until)
        return self.of.count(after, until) - sum(self.of.count(at - 1, at) for at in there)

    def between(self, after: int, until: int) -> Iterator[int]:
        """Yield the instants in (after, until], the earliest first."""
        return (at for at in self.of.between(after, until) if at not in self.gone)


def without(of: Instants | None, gone: Iterable[int]) -> Instants | None:
    """Return instants but for some."""
    some = frozenset(gone)
    return of if of is None or not some else Without(of, some)

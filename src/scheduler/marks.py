"""Marks: when an attempt got how far, and what is kept of that."""

from collections.abc import Callable
from uuid import UUID

import msgspec


class Timing(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How far an attempt got when, in tenths of a millisecond after it began."""

    sent: int | None
    """The connection was there, and the request was written; a command was started. None where
    it did not come to that.
    """
    answered: int | None = None
    """The head of the answer was there."""
    dialled: bool = False
    """The connection was a new one."""
    waited: int = 0
    """So long, while the answer was read, it waited for room in memory."""


class Marks(msgspec.Struct, gc=False):
    """The marks of one attempt, set by who makes it; seconds of the loop's clock, 0 for not yet."""

    began: float
    owner: UUID | None = None
    """The service whose attempt it is."""
    asked: bool = False
    """A connection was asked for."""
    sent: float = 0.0
    answered: float = 0.0
    dialled: bool = False
    waited: float = 0.0
    """For room for its answer (answers.py)."""
    held: int = 0
    """Bytes of room that it takes."""
    release: Callable[["Marks"], None] | None = None
    """Gives them back."""

    def let_go(self) -> None:
        """Give back what it holds: it has ended."""
        if self.release is not None:
            self.release(self)

    def timing(self) -> Timing | None:
        """Return what is kept; None where nothing was tried that takes a while."""
        if not self.asked:
            return None
        waited = round(self.waited * 10_000)
        return Timing(self._after(self.sent), self._after(self.answered), self.dialled, waited)

    def _after(self, at: float) -> int | None:
        return round((at - self.began) * 10_000) if at else None

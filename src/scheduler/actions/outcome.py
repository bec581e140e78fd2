"""What every performer is given and gives back."""

from collections.abc import Callable
from typing import Any, Protocol
from uuid import UUID

import msgspec

from scheduler.marks import Marks


class Call(msgspec.Struct, gc=False):
    """One attempt to be made."""

    run_id: UUID
    task_id: str
    attempt: int
    scheduled_for: int
    """In ms since 1970."""
    deadline: float
    """On the loop's clock, in seconds."""
    may_send: Callable[[], bool]
    """To be asked right before the target sees anything: the process may have stood still."""
    at: int = 0
    """When it begins, in ms since 1970 of the database's clock."""
    secret: bytes | None = None
    """What the service signs with."""
    service_id: UUID = UUID(int=0)
    kind: str = "task"
    """Of the run."""
    again: bool = False
    """It is a retry, or a replay."""
    marks: Marks | None = None
    """To be set as it gets on."""


class Leave:
    """The leave of one attempt to send; it knows whether it was given, and how far that got."""

    def __init__(self, may_send: Callable[[], bool], marks: Marks) -> None:
        self._may_send = may_send
        self.marks = marks
        self.given = False

    def __call__(self) -> bool:
        """Say whether something may be sent now."""
        may = self._may_send()
        self.given = self.given or may
        return may


class Outcome(msgspec.Struct, gc=False):
    """What came of one attempt."""

    succeeded: bool
    status_code: int | None = None
    error: str | None = None
    body: bytes | None = None
    truncated: bool = False
    retryable: bool = False
    retry_after_s: float | None = None
    unknown: bool = False
    """Cut short: nobody knows what the target made of it."""
    later_s: float | None = None
    """Nothing was tried, for it had to wait: it comes again in so many seconds."""
    content_type: str | None = None
    """Of the body, as the target names it."""
    kept: UUID | None = None
    """Where the whole body is kept (specs/responses.py), where it is longer than a run keeps."""


class Expected(msgspec.Struct, frozen=True, gc=False):
    """The statuses that are a success: ranges, both ends included."""

    ranges: tuple[tuple[int, int], ...] = ((200, 299),)

    def __contains__(self, status: int) -> bool:
        return any(low <= status <= high for low, high in self.ranges)

    def __str__(self) -> str:
        return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in self.ranges)


class Performer(Protocol):
    """How one kind of action is performed."""

    def prepare(self, action: Any, expected: Expected) -> Any:
        """Make an action ready once for all its calls. Raises ValueError where it cannot be."""

    async def perform(self, prepared: Any, call: Call) -> Outcome | None:
        """Make one attempt; None where `may_send` said no, and nothing was sent.

        What the target does wrong is an outcome, not an exception.
        """

    async def check(self, service_id: UUID, action: Any) -> list[tuple[str, str]]:
        """Return what is wrong with an action that is about to be stored: fields, sentences."""

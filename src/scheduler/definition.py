"""A task as its service wrote it: what makes it due, what it does, and how it is performed."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from msgspec import Meta

from scheduler.actions import Action, Command, Expected
from scheduler.actions.step import Step
from scheduler.instant import LAST
from scheduler.run import Line, Overlap
from scheduler.triggers import Bounded, Bounds, Instants, Once, Rrule, Trigger, without
from scheduler.triggers.excluded import Excluded

Status = Literal["active", "paused", "disabled"]
Misfire = Literal["latest", "all", "skip"]


Seconds = Annotated[float, Meta(ge=0, le=31_536_000)]
"""At most a year."""


MOST_CONCURRENT = 1000


class Backoff(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The wait before the next try: initial * factor ** tries, at most `max_seconds`."""

    initial_seconds: Seconds = 1.0
    factor: Annotated[float, Meta(ge=1, le=100)] = 2.0
    max_seconds: Seconds = 300.0

    def ceiling_s(self, tries: int) -> float:
        """Return the longest wait after so many tries; full jitter takes any part of it."""
        # Beyond 2 ** 64 the cap has long been met; a float would overflow.
        grown = self.initial_seconds * self.factor ** min(tries, 64 if self.factor <= 2 else 20)
        return min(grown, self.max_seconds)


class Policy(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """How a task's runs are performed; None is the default that the settings name."""

    max_retries: Annotated[int, Meta(ge=0, le=100)] | None = None
    retry_backoff: Backoff | None = None
    timeout_seconds: Seconds | None = None
    overlap: Overlap | None = None
    misfire: Misfire | None = None
    misfire_grace_seconds: Seconds | None = None
    max_age_seconds: Seconds | None = None
    expected_status: tuple[tuple[int, int], ...] | None = None
    max_concurrency: Annotated[int, Meta(ge=1, le=MOST_CONCURRENT)] | None = None
    priority: Annotated[int, Meta(ge=-100, le=100)] = 0


TIMEOUT_S = 30.0
MISFIRE_GRACE_S = 60.0


class Definition(msgspec.Struct, kw_only=True, frozen=True, gc=False):
    """A task as it stands."""

    key: UUID
    bucket: int
    service_id: UUID
    id: str
    version: int
    name: str
    description: str | None
    tags: list[str]
    status: Status
    trigger: Trigger | None
    action: Action | Step
    """A step is no task's: runs of kind `spec` have one."""
    policy: Policy
    created_at: datetime
    updated_at: datetime
    bounds: Bounds = Bounds()
    paused_until: int | None = None
    """In ms since 1970."""
    excluded: Excluded | None = None
    """What its calendars exclude, where it names any; no part of the row."""
    damaged: str | None = None
    """Why the row cannot be read as it should, where someone broke it."""

    @property
    def line(self) -> Line:
        """The address of its runs."""
        return Line(self.key, self.bucket, self.service_id)

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        return len(self.description or "") + sum(map(len, self.tags)) + self.action.size

    @property
    def overlap(self) -> Overlap:
        """What happens to an instant that comes while a run is under way."""
        return self.policy.overlap or ("allow" if isinstance(self.trigger, Rrule) else "skip")

    @property
    def timeout_s(self) -> float:
        """How long one attempt may take."""
        return self.policy.timeout_seconds or TIMEOUT_S

    def max_retries(self, otherwise: int) -> int:
        """Return how often a run is tried after the first try; `otherwise` is the setting.

        A command that names none is not tried again: nobody knows how far it came.
        """
        most = self.policy.max_retries
        if most is not None:
            return most
        return 0 if isinstance(self.action, Command) else otherwise

    @property
    def expected(self) -> Expected:
        """The statuses, or exit codes, that are a success."""
        ranges = self.policy.expected_status
        return Expected(ranges) if ranges else self.action.success

    @property
    def lanes(self) -> int | None:
        """How many of its runs may be under way at once; None for any number."""
        most = self.policy.max_concurrency
        return 1 if self.overlap == "skip" or (self.overlap == "queue" and not most) else most

    @property
    def instants(self) -> Instants | None:
        """What its trigger yields within its bounds, whatever its status."""
        if self.trigger is None:
            return None
        bounds = self.bounds
        offset = 0 if isinstance(self.trigger, Once) else bounds.offset(self.key)
        if not offset and bounds.start_at is None and bounds.end_at is None:
            return self.trigger
        return Bounded(self.trigger, offset, bounds.start_at, bounds.end_at)

    @property
    def zoned(self) -> bool:
        """Say whether its instants follow the wall clock of some place."""
        return getattr(self.trigger, "timezone", "UTC") != "UTC"

    @property
    def due(self) -> Instants | None:
        """Its instants, where it makes anything due now."""
        return self.instants if self.status == "active" and not self.damaged else None

    def coming(self, now: int, gone: Iterable[int] = (), *, excluded: bool = False) -> int | None:
        """Return the next due instant in ms; that of a paused task is the one it resumes with.

        None of those that are `gone`: they ended before they came; and none that a calendar
        excludes, but where `excluded` asks for those too: they end at once, and yet they are runs.
        Whether `max_runs` leaves it is the plan's to say.
        """
        instants = without(self.instants, gone)
        if instants is None or self.status == "disabled" or self.damaged:
            return None
        resumes = self.paused_until if self.status == "paused" else None
        after = now if resumes is None else max(now, resumes - 1)
        clear = None if excluded else self.excluded
        at = clear.next(instants, after) if clear else instants.next(after)
        return None if at is None or at > LAST else at

    @property
    def runs_out(self) -> bool:
        """Say whether its instants come to an end."""
        ends = self.bounds.end_at is not None or self.bounds.max_runs is not None
        return ends or isinstance(self.trigger, Once)

    @property
    def misfire_grace_ms(self) -> int:
        """How late an instant may be and still count as on time."""
        grace = self.policy.misfire_grace_seconds
        return int((MISFIRE_GRACE_S if grace is None else grace) * 1000)

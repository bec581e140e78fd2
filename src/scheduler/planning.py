"""Planning one task: which of its instants become runs, and which are passed over.

Pure: from a definition, how far it is planned, and the time. Times are ms since 1970.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any
from uuid import UUID

import msgspec

from scheduler.clock import Slice
from scheduler.db import ms, utc
from scheduler.definition import Definition
from scheduler.history import Gap
from scheduler.instant import LAST
from scheduler.run import Line, NewRun, run_id
from scheduler.triggers import Bounded, Instants, Once, without

MOST_AT_ONCE = 1000
"""Instants of one task that one pass makes; the next pass makes more."""
DAY_MS = 86_400_000
REACH_MOST_MS = 400 * DAY_MS
"""As much of a trigger's time is counted in one go: about half a millisecond."""


class Plan(msgspec.Struct):
    """What one pass makes of one task; times in ms since 1970."""

    task: Definition
    instants: list[int]
    planned_until: int
    next_plan_at: int | None
    gaps: list[Gap] = []
    line: Line | None = None
    """The plan's own row, where that is not the task's: someone moved it by hand."""
    back: int = 0
    """How many instants an edit took back."""
    resumed: bool = False
    """It ends a pause."""

    @property
    def spent(self) -> int:
        """How many instants it makes of those that `max_runs` counts; skipped ones are some."""
        return len(self.instants) + sum(gap.count for gap in self.gaps) - self.back

    def pass_over(self, late: Sequence[int], now: int) -> None:
        """Add to the gap what was planned, and counted, before, and stood unclaimed too long.

        Where calendars exclude all that came later, the last of it that they do not is still made.
        """
        self.back += len(late)
        clear = spared(self.task, late, [at for at in self.instants if at <= now])
        if clear is not None:
            late = [at for at in late if at != clear]
            self.instants.insert(0, clear)
        self.gaps = with_late(self.gaps, self.task, late)

    @property
    def runs(self) -> Iterator[NewRun]:
        """The instants as runs."""
        return (new_run(self.task, at) for at in self.instants)

    @property
    def ids(self) -> set[UUID]:
        """The ids of those runs."""
        return {run.id for run in self.runs}


def new_run(of: Definition, at: int) -> NewRun:
    """Return the run that an instant of a task becomes."""
    return NewRun(
        id=run_id(of.key, of.bucket, "task", at),
        bucket=of.bucket,
        service_id=of.service_id,
        task_key=of.key,
        task_id=of.id,
        kind="task",
        version=of.version,
        overlap=of.overlap,
        at=at,
        lanes=of.lanes,
        priority=of.policy.priority,
    )


def plan(
    of: Definition,
    planned_until: int,
    spent: int,
    now: int,
    horizon: int,
    *,
    gone: Iterable[int] = (),
    at_once: int | None = None,
) -> Plan:
    """Decide what to make of the instants in (planned_until, horizon] that are not `gone`. Pure.

    Instants that nobody planned in time (the database or every replica was away) are judged by
    the task's misfire rule; those that are passed over become one gap. `spent` is how many
    instants were made before, those that are gone too, of the `max_runs` that ever will be; of
    the present ones `at_once` are made at most.
    """
    due = within(of, without(of.due, gone), planned_until, spent, max(now, horizon))
    if due is None:
        return Plan(of, [], planned_until, resume_at(of, now, horizon - now))
    at_once = at_once or MOST_AT_ONCE
    start, gaps, kept = _judge(of, due, planned_until, now)
    room = at_once - len(kept)
    instants = kept + list(islice(due.between(start, min(horizon, LAST)), room))
    until = max(start, instants[-1]) if len(instants) == at_once else horizon
    made = Plan(of, instants, max(until, planned_until), None, gaps)
    most = of.bounds.max_runs
    if most is None or spent + made.spent < most:
        made.next_plan_at = _next(due, until)
    else:  # none is due after the last that was made
        last = max([planned_until, *instants[-1:], *(gap.last for gap in made.gaps)])
        made.planned_until = last
    return made


class FirstPlan(msgspec.Struct):
    """How a new task begins: its row in `task_plan`, its first runs, and what a pause took."""

    row: dict[str, Any]
    runs: list[NewRun]
    gaps: list[Gap]

    @property
    def planned(self) -> "Planned":
        """How far it is planned."""
        return Planned(ms(self.row["planned_until"]), self.row["runs"])


def first_plan(of: Definition, now: int, *, window_ms: int, at_once: bool) -> FirstPlan:
    """Return how a new task begins; a paused one passes over what is asked at once. Pure."""
    gaps = [passed_over(of, now)] if at_once and of.status == "paused" else []
    at_once = at_once and of.due is not None
    made = plan(of, now, int(at_once), now, now + window_ms)
    runs = list(made.runs)
    if at_once:
        runs.insert(0, new_run(of, now))
    row = {
        **of.line.values,
        "next_plan_at": None if made.next_plan_at is None else utc(made.next_plan_at),
        "planned_until": utc(made.planned_until),
        "runs": len(runs) + len(gaps),
    }
    return FirstPlan(row, runs, gaps)


def resume_at(of: Definition, now: int, window_ms: int) -> int | None:
    """Return when to look at a paused task again; what is taken is taken half a window ahead.

    That is at the end of its pause, or where it has none, when its last instant has passed.
    """
    if of.status != "paused" or of.instants is None:
        return None
    at = of.paused_until
    if at is None and (isinstance(of.trigger, Once) or of.bounds.end_at is not None):
        at = of.instants.last(now, LAST)
    return None if at is None else min(at + window_ms // 2, LAST)


def _next(due: Instants, after: int) -> int | None:
    at = due.next(after)
    return at if at is not None and at <= LAST else None


def within(
    of: Definition, instants: Instants | None, after: int, spent: int, until: int
) -> Instants | None:
    """Return a task's instants up to the last one that `max_runs` leaves; None where none is.

    What it costs follows how many are left, and not how far away `until` is.
    """
    most = of.bounds.max_runs
    if instants is None or most is None:
        return instants
    left, reach = most - spent, DAY_MS
    if left <= 0:
        return None
    while True:
        end = min(after + reach, until)
        found = instants.count(after, end)
        if found > left or (found == left and end < until):
            return Bounded(instants, 0, None, _nth(instants, after, end, left))
        if end >= until:
            return instants
        after, left, reach = end, left - found, reach * 2


def _nth(instants: Instants, after: int, until: int, n: int) -> int:
    """Return the `n`-th instant later than `after`; there are as many up to `until`."""
    while until - after > 1:
        middle = (after + until) // 2
        found = instants.count(after, middle)
        if found < n:
            after, n = middle, n - found
        else:
            until = middle
    return until


async def counted(instants: Instants, after: int, until: int, most: int, turn: Slice) -> int:
    """Return how many instants lie in (after, until], `most` at most; gives way to others."""
    found, reach = 0, DAY_MS
    while after < until and found < most:
        end = min(after + reach, until)
        found += instants.count(after, end)
        after, reach = end, min(reach * 2, REACH_MOST_MS)
        await turn.give_way()
    return min(found, most)


def _judge(
    of: Definition, due: Instants, planned_until: int, now: int
) -> tuple[int, list[Gap], list[int]]:
    """Return from when on instants are made, the gaps before it, and what is made of those.

    That is with `latest` the last one, if it is too late; of a task that keeps clear of calendars
    the last that they do not exclude, and what came after it is a gap of theirs.
    """
    rule = of.policy.misfire or "latest"
    too_late = now - of.misfire_grace_ms
    if rule == "all" or planned_until >= too_late:
        return planned_until, [], []
    if not due.count(planned_until, too_late):
        return planned_until, [], []
    last = None
    if rule == "latest":
        clear = of.excluded
        last = clear.last(due, planned_until, now) if clear else due.last(planned_until, now)
    if last is None or last > too_late:
        missed = [gap(of, due, planned_until, too_late, "misfire")]
        return too_late, [each for each in missed if each], []
    passed = [
        gap(of, due, planned_until, last - 1, "misfire"),
        gap(of, due, last, too_late, "calendar"),
    ]
    return too_late, [each for each in passed if each], [last]


def gap(
    of: Definition, instants: Instants | None, after: int, until: int, reason: str
) -> Gap | None:
    """Return the gap row for a task's instants in (after, until], if there are any."""
    if instants is None:
        return None
    count = instants.count(after, until)
    first, last = instants.next(after), instants.last(after, until)
    if not count or first is None or last is None:
        return None
    return Gap(
        line=of.line,
        task_id=of.id,
        version=of.version,
        reason=reason,
        count=count,
        first=first,
        last=last,
    )


def spared(of: Definition, late: Sequence[int], made: Sequence[int]) -> int | None:
    """Return the one of the `late` instants that is still made, where calendars exclude all that
    is made of what came after them.
    """
    excluded, rule = of.excluded, of.policy.misfire or "latest"
    if excluded is None or rule != "latest" or not all(excluded.at(at) for at in made):
        return None
    return max((at for at in late if not excluded.at(at)), default=None)


def with_late(gaps: Sequence[Gap], of: Definition, late: Sequence[int]) -> list[Gap]:
    """Return a task's gaps, the one that was missed from the first of the `late` instants on."""
    if not late:
        return list(gaps)
    known = next((gap for gap in gaps if gap.reason == "misfire"), None)
    missed = Gap(
        line=of.line,
        task_id=of.id,
        version=of.version,
        reason="misfire",
        count=len(late) + (known.count if known else 0),
        first=min(late),
        last=max(*late, known.last if known else 0),
    )
    return [gap for gap in gaps if gap is not known] + [missed]


def passed_over(of: Definition, at: int) -> Gap:
    """Return the gap row for one instant that a pause takes."""
    return Gap(
        line=of.line,
        task_id=of.id,
        version=of.version,
        reason="paused",
        count=1,
        first=at,
        last=at,
    )


def paused(
    of: Definition,
    planned_until: int,
    spent: int,
    until: int,
    gone: Iterable[int],
    reason: str = "paused",
) -> list[Gap]:
    """Return the gap of a pause up to `until`; what ended or runs by itself is not in it."""
    instants = within(of, without(of.instants, gone), planned_until, spent, until)
    passed = gap(of, instants, planned_until, until, reason)
    return [passed] if passed else []


class Planned(msgspec.Struct, frozen=True):
    """How far a task is planned: up to when (ms), and how many instants were made so far."""

    until: int
    runs: int


class Coming(msgspec.Struct, frozen=True):
    """A task with instants that are not planned yet, the first of them at `at` (ms).

    A paused task's is when it is looked at again.
    """

    key: UUID
    at: int
    runs: int
    """How many instants were made so far."""

    async def first(self, of: Definition, since: int, until: int, turn: Slice) -> int | None:
        """Return the first of them in [since, until], if nothing changes until then."""
        begin = self.at
        if of.status == "paused":
            if of.paused_until is None or of.damaged:
                return None
            begin = of.paused_until
            of = msgspec.structs.replace(of, status="active")
        due, most = of.due, of.bounds.max_runs
        if due is None:
            return None
        before = max(begin, since) - 1
        at = of.excluded.next(due, before) if of.excluded else due.next(before)
        if at is None or at > until:
            return None
        if most is None:
            return at
        left = most - self.runs
        return at if await counted(due, begin - 1, at - 1, left, turn) < left else None

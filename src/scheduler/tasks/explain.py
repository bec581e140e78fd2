"""`/tasks/{id}/explain`: why a task fires at an instant, or why not."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec
from litestar import Request, get
from litestar.di import NamedDependency
from litestar.openapi.spec import OpenAPIFormat, OpenAPIType, Schema
from litestar.params import FromPath

from scheduler import asked, backfills, ledger, moment, task
from scheduler.clock import Slice
from scheduler.db import rfc3339
from scheduler.definition import Definition
from scheduler.engine import Engine
from scheduler.errors import NotFound, ValidationFailed
from scheduler.history import Finished
from scheduler.instant import LAST
from scheduler.moment import Moment
from scheduler.openapi import asks
from scheduler.planning import Planned
from scheduler.run import Started
from scheduler.runs import model as runs
from scheduler.service import Service
from scheduler.tasks import reasons
from scheduler.tasks.preview import describe
from scheduler.tasks.reasons import Finding
from scheduler.triggers import Cron, Rrule
from scheduler.triggers.zones import local

DAY_MS = 86_400_000
INSTANT = Schema(
    type=OpenAPIType.STRING, format=OpenAPIFormat.DATE_TIME, description="Needed: the instant."
)


class NearInstant(msgspec.Struct):
    """An instant of the trigger beside the one that is asked for."""

    at: str | None
    local: str
    note: str | None


class ExplainedRun(msgspec.Struct, kw_only=True):
    """What the ledger has of the instant: its run, or the row of skipped instants it lies in."""

    id: str
    state: str
    reason: str | None
    started_at: str | None
    finished_at: str | None
    count: int | None = None
    from_: str | None = msgspec.field(default=None, name="from")
    to: str | None = None
    url: str
    """Where it is to be read."""


class Explained(msgspec.Struct, kw_only=True):
    """Why a task fires at an instant, or not."""

    task_id: str
    at: str | None
    local: str
    timezone: str
    fires: bool
    verdict: str
    """Why, in a word."""
    reason: str
    """Why, in a sentence."""
    trigger: str
    """The trigger in words."""
    matches: bool
    """The trigger yields the instant, whatever else stands against it."""
    note: str | None
    """What daylight saving or a calendar did to it."""
    previous: NearInstant | None
    next: NearInstant | None
    facts: list[str]
    """What else is to be known, in sentences."""
    run: ExplainedRun | None


@get(
    "/{task_id:str}/explain",
    summary="Why a task fires at an instant, or why not",
    operation_class=asks(at=INSTANT),
)
async def explain_task(
    task_id: FromPath[str],
    request: Request[Any, Any, Any],
    service: NamedDependency[Service],
    engine: NamedDependency[Engine],
) -> Explained:
    """Return what becomes of a task at `at`, which lies within 100 years from now.

    Of the past it is what the ledger says, else why there is nothing in it; of what is to come,
    what planning will make of it as the task stands.
    """
    now = engine.clock.now_ms()
    at = asked.near(request.query_params, "at", now)
    if at is None:
        raise ValidationFailed.of("at", "is needed, like 2027-01-31T09:00:00Z")
    return await explained(engine, service, task_id, at, now)


async def explained(engine: Engine, service: Service, task_id: str, at: int, now: int) -> Explained:
    """Return what becomes of a task at `at`, as seen at `now`, both in ms. Raises NotFound."""
    async with engine.database.api.connect() as connection:
        # One snapshot: a run that ends between two of them would be in neither.
        conn = await connection.execution_options(isolation_level="REPEATABLE READ")
        of = await task.get(conn, service.id, task_id)
        ids = backfills.ids_of(of.line, at)
        seen = await moment.seen(conn, of.line, ids, at, now, named=reasons.names(of, at))
        planned, run = seen.planned, _row(seen, ids)
        if planned is None:
            raise NotFound(f"there is no task {task_id}")
        kept = await ledger.kept_from(conn) if run is None else None
    finding = await _finding(of, planned, run, now, at, kept)
    facts = _facts(of, seen, finding, now, at)
    zone = reasons.zone_of(of)
    return Explained(
        task_id=of.id, at=rfc3339(at), local=local(zone, at), timezone=zone,
        fires=finding.fires, verdict=finding.verdict, reason=finding.reason,
        trigger=describe(of), matches=reasons.names(of, at),
        note=_note(of, at) if reasons.names(of, at) else None,
        previous=_near(of, _before(of, at)), next=_near(of, _after(of, at)),
        facts=facts, run=None if run is None else _shown(of, run, now),
    )  # fmt: skip


# What the ledger has ------------------------------------------------------------------------------


def _row(seen: Moment, ids: Sequence[UUID]) -> Started | Finished | None:
    """Return the run of an instant, else the row that says it was skipped."""
    found = [seen.own[run_id] for run_id in ids if run_id in seen.own]
    for run in found:
        if isinstance(run, Started) or run.state != "skipped":
            return run
    return found[0] if found else seen.covering


async def _finding(
    of: Definition, planned: Planned, row: Started | Finished | None, now: int, at: int,
    kept: int | None,
) -> Finding:  # fmt: skip
    if isinstance(row, Finished) and row.state == "skipped":
        return reasons.of_gap(of, row)
    if row is not None:
        return reasons.of_run(of, row, now)
    return await reasons.without_row(of, planned, now, at, kept, Slice())


def _shown(of: Definition, run: Started | Finished, now: int) -> ExplainedRun:
    started = finished = count = first = last = reason = None
    if isinstance(run, Finished):
        state, reason = run.state, run.reason
        started, finished = run.started_at, run.finished_at
        count, first, last = run.gap or (None, None, None)
    else:
        state = runs.of_live(run, of.service_id, now).state
        started = next((a.started_at for a in run.attempts if a.started_at is not None), None)
    return ExplainedRun(
        id=str(run.id), state=state, reason=reason, started_at=rfc3339(started),
        finished_at=rfc3339(finished), count=count, from_=rfc3339(first), to=rfc3339(last),
        url=f"/runs/{run.id}",
    )  # fmt: skip


# What is beside it --------------------------------------------------------------------------------


def _before(of: Definition, at: int) -> int | None:
    if of.instants is None or of.damaged:
        return None
    reach = DAY_MS  # what a question costs follows how far it looks
    while (found := of.instants.last(at - reach, at - 1)) is None and reach < asked.CENTURY_MS:
        reach = min(reach * 16, asked.CENTURY_MS)
    return found


def _after(of: Definition, at: int) -> int | None:
    if of.instants is None or of.damaged:
        return None
    found = of.instants.next(at)
    return found if found is not None and found <= LAST else None


def _near(of: Definition, at: int | None) -> NearInstant | None:
    if at is None:
        return None
    return NearInstant(rfc3339(at), local(reasons.zone_of(of), at), _note(of, at))


def _note(of: Definition, at: int) -> str | None:
    notes = list[str | None]()
    if isinstance(of.trigger, Cron | Rrule):
        notes.append(of.trigger.note(at - reasons.offset_of(of)))
    stretch = of.excluded.at(at) if of.excluded else None
    notes.append(f"skipped: calendar {stretch.name}" if stretch else None)
    return "; ".join(note for note in notes if note) or None


def _facts(of: Definition, seen: Moment, finding: Finding, now: int, at: int) -> list[str]:
    change = reasons.clock_change(of, at)
    facts = [change] if change else []
    offset = reasons.offset_of(of)
    if offset:
        facts.append(f"Jitter makes it due {offset / 1000:.15g} s later than its trigger says.")
    if of.version > 1 and at <= int(of.updated_at.timestamp() * 1000):
        edited = rfc3339(int(of.updated_at.timestamp() * 1000))
        facts.append(f"The task was changed last at {edited}; trigger and policy are those since.")
    if finding.verdict == "overlap":
        facts += _in_the_way(seen)
    if finding.verdict == "due" and at > now:
        facts += _to_come(of, seen)
    return facts


def _in_the_way(seen: Moment) -> list[str]:
    """Name the run that was under way when an instant was skipped."""
    if seen.before is not None:
        ended = seen.before
        spans = f"from {rfc3339(ended.started_at)} to {rfc3339(ended.finished_at)}"
        return [f"Run {ended.id} was under way then, {spans}."]
    if seen.ahead is not None:
        return [f"Run {seen.ahead.id} has been under way since {rfc3339(seen.ahead.due)}."]
    return []


def _to_come(of: Definition, seen: Moment) -> list[str]:
    """Say what may still stand against an instant when it comes."""
    facts = []
    if of.overlap == "skip":
        under_way = "" if seen.busy is None else f" Run {seen.busy.id} is under way now."
        facts.append(f"overlap is skip: not if a run is still under way then.{under_way}")
    grace = of.misfire_grace_ms / 1000
    facts.append(f"If nothing can run it for {grace:g} s, {reasons.misfire(of)}.")
    if of.policy.max_age_seconds is not None:
        facts.append(f"Later than {of.policy.max_age_seconds:g} s it does not start, and expires.")
    return facts

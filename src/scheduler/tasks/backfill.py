"""`/tasks/{id}/backfill`: runs for instants that have passed and have none."""

from collections.abc import Sequence
from itertools import islice
from typing import Any
from uuid import UUID

import msgspec
from litestar import Request, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from scheduler import (
    asked,
    audit,
    backfills,
    db,
    ledger,
    outlook,
    planner,
    quotas,
    services,
    state,
    task,
)
from scheduler.clock import Slice
from scheduler.db import Conn, ms, rfc3339, utc
from scheduler.definition import Definition
from scheduler.engine import Engine
from scheduler.errors import Conflict, NotFound, TooManyRequests, ValidationFailed
from scheduler.openapi import asks
from scheduler.planner import stance_of
from scheduler.planning import Planned
from scheduler.service import Service
from scheduler.tasks import changes
from scheduler.tasks.execute import check_enabled
from scheduler.tasks.permission import check_command

PIECE = 500
"""Instants that one transaction looks at."""
QUOTA_PIECE = 100
"""The same, of a service with a quota: what is left of it is used up so far."""
PER_MINUTE_MOST = 60_000
MINUTE_MS = 60_000
SKEW_MS = 60_000
"""By so much a client's now may be later than the database's."""


class Backfill(msgspec.Struct, forbid_unknown_fields=True, rename={"since": "from", "until": "to"}):
    """Which instants to make up for: RFC 3339, both ends included."""

    since: str | None = None
    until: str | None = None
    dry_run: bool = False
    """Count, and make nothing."""
    per_minute: int | None = None
    """How many of the runs fall due in a minute."""


class Backfilled(msgspec.Struct, kw_only=True):
    """What became of the instants of a task's trigger; `from` and `to` say what was looked at."""

    task_id: str
    dry_run: bool
    from_: str | None = msgspec.field(name="from")
    to: str | None
    matched: int = 0
    """Instants in there."""
    existing: int = 0
    """Of those, that have a run already."""
    excluded: int = 0
    """Of those, that a calendar excludes."""
    forgotten: int = 0
    """Of those, that were due longer ago than history is kept: nobody knows what became of them."""
    lacking: int = 0
    """Of those, that have none."""
    first: str | None = None
    """The first of the lacking."""
    last: str | None = None
    made: int = 0
    """How many runs were made for them."""
    last_due: str | None = None
    """When the last of the runs made is due."""
    next: str | None = None
    """Where there is more to look at: the `from` to go on with."""


class _Wanted(msgspec.Struct, frozen=True):
    """A request that was read; times in ms since 1970."""

    since: int
    until: int
    dry_run: bool
    step_ms: float
    """From one run's due time to the next."""


class _Piece(msgspec.Struct):
    """What one transaction found, and made; times in ms since 1970."""

    instants: list[int]
    until: int
    """Up to where it looked."""
    whole: bool
    """There is nothing more to look at."""
    excluded: int = 0
    forgotten: int = 0
    lacking: Sequence[int] = ()
    made: int = 0
    first_due: int | None = None
    last_due: int | None = None


@post(
    "/{task_id:str}/backfill",
    status_code=200,
    summary="Make runs for instants that have passed without one",
    operation_class=asks(Backfill),
)
async def backfill_task(
    task_id: FromPath[str],
    request: Request[Any, Any, Any],
    service: NamedDependency[Service],
    engine: NamedDependency[Engine],
) -> Backfilled:
    """Make runs for what the trigger, as it stands, yields from `from` to `to` and has no run.

    They keep their instants, and fall due one after the other from now on; asking again makes
    none twice. `next` says where to go on, where there are more than one call looks at.
    """
    sent = asked.body(await request.body(), Backfill)
    return await backfilled(engine, service, task_id, sent)


async def backfilled(engine: Engine, service: Service, task_id: str, sent: Backfill) -> Backfilled:
    """Make the runs that a backfill asks for, or count them. Raises."""
    wanted = _wanted(sent, engine.clock.now_ms(), engine)
    most = engine.settings.tasks.backfill_most
    quota = service.limits.max_runs_per_minute
    size = min(quota, QUOTA_PIECE) if quota and not wanted.dry_run else PIECE
    found = Backfilled(
        task_id=task_id, dry_run=wanted.dry_run, from_=rfc3339(wanted.since), to=None
    )
    after = wanted.since - 1
    while True:
        room = min(size, most - found.matched)
        try:
            if wanted.dry_run:
                piece = await _counted(engine, service, task_id, wanted, after, room)
            else:
                begun = found.made > 0
                piece = await _made(engine, service, task_id, wanted, after, room, begun=begun)
        except TooManyRequests:
            if not found.made:
                raise
            break
        after = piece.until
        _add(found, piece)
        if piece.first_due is not None:
            engine.wake(piece.first_due)
        if piece.whole:
            found.to = rfc3339(after)
            return found
        if found.matched >= most:
            break
    found.to, found.next = rfc3339(after), rfc3339(after + 1)
    return found


def _wanted(sent: Backfill, now: int, engine: Engine) -> _Wanted:
    since, until = _time(sent.since, "from", now), _time(sent.until, "to", now)
    if until > now + SKEW_MS:
        raise ValidationFailed.of("to", "must not lie after now: what is to come is planned")
    until = min(until, now)
    if since > until:
        raise ValidationFailed.of("from", "must not lie after to")
    pace = engine.settings.tasks.backfill_per_minute if sent.per_minute is None else sent.per_minute
    if not 1 <= pace <= PER_MINUTE_MOST:
        expected = f"must be a whole number from 1 to {PER_MINUTE_MOST}"
        raise ValidationFailed.of("per_minute", expected)
    return _Wanted(since, until, sent.dry_run, MINUTE_MS / pace)


def _time(sent: str | None, field: str, now: int) -> int:
    at = asked.near({field: sent or ""}, field, now)
    if at is None:
        raise ValidationFailed.of(field, "is needed, like 2027-01-31T09:00:00Z")
    return at


async def _counted(
    engine: Engine, service: Service, task_id: str, wanted: _Wanted, after: int, room: int
) -> _Piece:
    """Look at some instants, and make nothing."""
    async with engine.database.api.connect() as connection:
        conn = await connection.execution_options(isolation_level="REPEATABLE READ")
        of = await task.get(conn, service.id, task_id)
        planned = (await outlook.planned(conn, service.id, [of.key])).get(of.key)
        if planned is None:
            raise NotFound(f"there is no task {task_id}")
        piece, _ = await _looked_at(conn, of, planned, wanted, after, room)
    return piece


@db.again
async def _made(
    engine: Engine,
    service: Service,
    task_id: str,
    wanted: _Wanted,
    after: int,
    room: int,
    *,
    begun: bool,
) -> _Piece:
    """Make the runs of some instants that have none, under the lock of the task's plan.

    What is asked for stands in the audit once: with the first runs, before the call has `begun`.
    """
    async with engine.database.api.begin() as conn:
        of, planned = await planner.locked(conn, service.id, task_id)
        check_command(of, service, engine.settings.commands)
        now = await services.hold(conn, service.id)
        piece, ids = await _looked_at(conn, of, planned, wanted, after, room)
        if not ids:
            return piece
        await quotas.take_runs(conn, service, len(ids))
        last, latest = await backfills.waiting(conn, of.line) or (0, 0)
        begin = max(now, last + wanted.step_ms)
        due = [int(begin + n * wanted.step_ms) for n in range(len(ids))]
        runs = list(zip(ids.values(), ids, due, strict=True))
        made = await backfills.make(conn, of.line, of.id, stance_of(of), runs, utc(now))
        piece.made, piece.first_due, piece.last_due = len(made), due[0], due[-1]
        if not begun:
            entry = changes.backfilled(of, wanted.since, wanted.until)
            await audit.write(conn, service.id, service.by, [entry], utc(now))
        if latest > min(ids):
            await backfills.pace(conn, of.line, now, wanted.step_ms)
            piece.first_due = now
        await state.stand_one(conn, of.line, pending=True)
    return piece


async def _looked_at(
    conn: Conn, of: Definition, planned: Planned, wanted: _Wanted, after: int, room: int
) -> tuple[_Piece, dict[int, UUID]]:
    """Return what there is of `room` instants later than `after`, and the ids of what lacks.

    What lies beyond `planned` is the planner's: it is behind, or the task is paused.
    """
    check_enabled(of)
    if of.damaged or of.instants is None:
        reason = of.damaged or "it has no trigger, so that nothing was ever due"
        raise Conflict(f"task {of.id} cannot be backfilled: {reason}")
    end, turn = min(wanted.until, planned.until), Slice()
    instants = list[int]()
    for at in islice(of.instants.between(after, end), room):
        instants.append(at)
        await turn.give_way()
    whole = len(instants) < room
    piece = _Piece(instants, max(after, end) if whole else instants[-1], whole)
    kept = await ledger.kept_from(conn)
    born, gone = ms(of.created_at), wanted.until + 1 if kept is None else kept
    free = [at for at in instants if of.excluded is None or of.excluded.until(at) is None]
    known = [at for at in free if not born <= at < gone]
    piece.excluded, piece.forgotten = len(instants) - len(free), len(free) - len(known)
    ids = await backfills.lacking(conn, of.line, known)
    piece.lacking = list(ids)
    return piece, ids


def _add(found: Backfilled, piece: _Piece) -> None:
    found.matched += len(piece.instants)
    found.excluded += piece.excluded
    found.forgotten += piece.forgotten
    found.lacking += len(piece.lacking)
    found.existing = found.matched - found.excluded - found.forgotten - found.lacking
    found.made += piece.made
    if piece.lacking:
        found.first = found.first or rfc3339(piece.lacking[0])
        found.last = rfc3339(piece.lacking[-1])
    if piece.last_due is not None:
        found.last_due = rfc3339(piece.last_due)

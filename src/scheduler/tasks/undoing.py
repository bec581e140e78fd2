"""Acts on many tasks, a task at a time: pause, resume, run, delete; and undoing the first and last.

Each task is a transaction of its own, with the row of the act in it: whatever breaks off in
between, what is written down is what was done, and it is done once.
"""

import time
from collections.abc import Awaitable, Callable
from uuid import UUID

import msgspec

from scheduler import (
    audit,
    clock,
    db,
    edits,
    lines,
    planner,
    planning,
    quotas,
    services,
    standing,
    task,
    undo,
)
from scheduler.db import Conn, rfc3339, utc
from scheduler.definition import Definition
from scheduler.engine import Engine
from scheduler.errors import Conflict, UserError
from scheduler.planning import Planned
from scheduler.service import Service
from scheduler.standing import awaits, ended_ahead, limited
from scheduler.tasks import changes, execute, written
from scheduler.tasks.keeping import with_calendars
from scheduler.tasks.model import TaskFields
from scheduler.tasks.permission import check_command
from scheduler.undo import Deed, Deleted, Kept

SPAN_S = 4.0
"""How long one request works at an act; the next goes on."""
PIECE = 100


class Done(Exception):
    """Somebody did it before; nothing is to be written."""


Work = Callable[[Engine, Service, Deed], Awaitable[None]]


async def go_on(engine: Engine, service: Service, act: UUID) -> None:
    """Do what is left of an act, for as long as one request may take."""
    await _each(engine, service, act, "asked", _do)


async def pause(
    engine: Engine, service: Service, act: UUID, task_id: str, fields: TaskFields, why: str | None
) -> None:
    """Pause one task as `fields` say, by an act that can be undone; what an act did, it did once.

    Raises what a change of the task raises.
    """

    async def also(conn: Conn, before: Definition, after: Definition) -> None:
        now = utc(engine.clock.now_ms())
        await undo.ask(conn, act, "pause", [(after.line, after.id, after.name)], now)
        asked = await undo.deeds(conn, service.id, act, "asked", 1)
        kept = Kept(before.status, before.paused_until)
        if not asked or not await undo.keep(conn, asked[0], after, kept, now):
            raise Done

    try:
        await written.changed(engine, service, task_id, fields, also=also, reason=why)
    except Done:
        return


async def take_back(engine: Engine, service: Service, act: UUID) -> None:
    """Undo what an act did, for as long as one request may take."""
    await _each(engine, service, act, "done", _undo)


async def _each(engine: Engine, service: Service, act: UUID, state: str, work: Work) -> None:
    until = time.monotonic() + SPAN_S
    left = True
    while left and time.monotonic() < until:
        async with engine.database.api.connect() as conn:
            deeds = await undo.deeds(conn, service.id, act, state, PIECE)
        left = len(deeds) == PIECE
        for number, deed in enumerate(deeds):
            if number and time.monotonic() > until:
                return
            await work(engine, service, deed)


# Doing it -----------------------------------------------------------------------------------------


async def _do(engine: Engine, service: Service, deed: Deed) -> None:
    """Do an act on a task, and write what became of it."""
    try:
        await DOES[deed.kind](engine, service, deed)
    except Done:
        return
    except UserError as e:
        await _settle(engine, deed, "refused", e.message)


async def _settle(engine: Engine, deed: Deed, state: str, said: str | None = None) -> None:
    async with engine.database.api.begin() as conn:
        await undo.settle(conn, deed, state, said)


async def _pause(engine: Engine, service: Service, deed: Deed) -> None:
    async def also(conn: Conn, before: Definition, after: Definition) -> None:
        kept = Kept(before.status, before.paused_until)
        now = utc(engine.clock.now_ms())
        if not await undo.keep(conn, deed, after, kept, now):
            raise Done

    def check(of: Definition) -> None:
        _check_same(of, deed)
        if of.status == "paused" and of.paused_until is None:
            raise Conflict("It is paused already.")
        if of.status == "disabled":
            raise Conflict("It is disabled: nothing of it is due.")

    fields = TaskFields(status="paused", paused_until=None)
    await written.changed(engine, service, deed.id, fields, check=check, also=also)


async def _resume(engine: Engine, service: Service, deed: Deed) -> None:
    async def also(conn: Conn, _before: Definition, _after: Definition) -> None:
        if not await undo.settle(conn, deed, "done"):
            raise Done

    def check(of: Definition) -> None:
        _check_same(of, deed)
        if of.status == "active":
            raise Conflict("It is active already.")
        if of.status == "disabled":
            raise Conflict("It is disabled; make it active on its own.")

    fields = TaskFields(status="active")
    await written.changed(engine, service, deed.id, fields, check=check, also=also)


async def _run(engine: Engine, service: Service, deed: Deed) -> None:
    def check(of: Definition) -> None:
        _check_same(of, deed)

    nonce = f"act {deed.act}"
    await execute.executed(engine, service, deed.id, nonce, retry=False, check=check)
    await _settle(engine, deed, "done")


async def _delete(engine: Engine, service: Service, deed: Deed) -> None:
    async def keep(conn: Conn, of: Definition, planned: Planned, now: int) -> None:
        coming = await lines.standing(conn, of.line, utc(now))
        runs, until = planned.runs - len(coming), min(planned.until, now)
        if not await undo.keep_task(conn, deed, utc(now), until, runs):
            raise Done

    def check(of: Definition) -> None:
        _check_same(of, deed)

    await written.removed(engine, service, deed.id, check=check, keep=keep)


DOES: dict[str, Work] = {"pause": _pause, "resume": _resume, "run": _run, "delete": _delete}


def _check_same(of: Definition, deed: Deed) -> None:
    if of.key != deed.line.key:
        raise Conflict("It was deleted, and another task has its id now.")


# Undoing it ---------------------------------------------------------------------------------------


async def _undo(engine: Engine, service: Service, deed: Deed) -> None:
    """Undo what was done to a task; where that is refused, write why."""
    try:
        await UNDOES[deed.kind](engine, service, deed)
    except Done:
        return
    except UserError as e:
        await _settle(engine, deed, "done", e.message)


async def _unpause(engine: Engine, service: Service, deed: Deed) -> None:
    async with engine.database.api.connect() as conn:
        kept = await undo.kept(conn, deed)
    if kept is None:
        raise Done

    def check(of: Definition) -> None:
        _check_same(of, deed)
        if of.version != deed.version:
            raise Conflict("It was changed since; it stays as it is.")

    async def also(conn: Conn, _before: Definition, _after: Definition) -> None:
        if not await undo.undone(conn, deed):
            raise Done

    fields = TaskFields(status=kept.status)
    if kept.status == "paused":
        fields.paused_until = rfc3339(kept.paused_until)
    why = "the pause was undone"
    await written.changed(engine, service, deed.id, fields, check=check, also=also, reason=why)


async def _undelete(engine: Engine, service: Service, deed: Deed) -> None:
    of = await _brought_back(engine, service, deed)
    engine.recall(of.key)
    engine.resume_at(of.paused_until)
    engine.standing.recheck([of.key])


@db.again
async def _brought_back(engine: Engine, service: Service, deed: Deed) -> Definition:
    """Write a deleted task again, and plan it from now on; what passed meanwhile was skipped."""
    async with engine.database.api.begin() as conn:
        was = await undo.hold_task(conn, deed)
        if was is None:
            raise Done
        now = await services.hold(conn, service.id)
        if await task.taken(conn, service.id, [deed.id]):
            raise Conflict(undo.TAKEN)
        if was.of.status == "active":
            check_command(was.of, service, engine.settings.commands)
        await quotas.check_tasks(conn, service)
        await undo.restore(conn, deed)
        earliest = await _replan(conn, engine, was, now)
        after = await task.get(conn, service.id, deed.id)
        await _stand(conn, after, engine.clock.now_ms())
        await undo.undone(conn, deed)
        await audit.write(conn, service.id, service.by, [changes.back(after)], utc(now))
    engine.wake(earliest)
    return after


async def _replan(conn: Conn, engine: Engine, was: Deleted, now: int) -> int | None:
    """Plan a task that is back as though it had been paused; return its earliest instant (ms).

    What some replica still held of it when it was deleted, and what ended since, stands; the rest
    of what was planned ahead, and of what passed, was never run.
    """
    of = await with_calendars(conn, was.of, was.of.bounds.calendars)
    ended = of.paused_until is not None and of.paused_until <= now
    if ended or of.status == "active":
        before = msgspec.structs.replace(of, status="paused", paused_until=None)
        of = msgspec.structs.replace(of, status="active", paused_until=None)
    else:
        before = of
    after = msgspec.structs.replace(of, version=of.version + 1, updated_at=utc(now))
    await task.change(conn, after)
    stands = await lines.standing(conn, of.line, utc(was.deleted_at))
    planned = Planned(was.planned_until, was.planned_runs + len(stands))
    ahead = planning.resume_at(before, now, engine.window_ms)
    await planner.restore(conn, of.line, planned, ahead)
    return await edits.replan(
        conn, before, after, planned, window_ms=engine.window_ms, passed_by="deleted"
    )


async def _stand(conn: Conn, of: Definition, now: int) -> None:
    """Write how a task stands that is back, by what history has of it."""
    planned = (await limited(conn, of.service_id, [of])).get(of.key)
    gone = (await ended_ahead(conn, of.service_id, [of], now)).get(of.key, ())
    live = await lines.live(conn, of.service_id, [of.key], utc(now))
    pending = bool(live) or awaits(of, now, planned, gone)
    await standing.rest(conn, {of.key: (of, pending)})


UNDOES: dict[str, Work] = {"pause": _unpause, "delete": _undelete}


# What is over -------------------------------------------------------------------------------------


class Pruning:
    """Forgets acts that can be undone no more."""

    SECONDS = 60.0

    def __init__(self, database: db.Database) -> None:
        self._database = database

    async def step(self) -> None:
        """Forget what is too old, a piece at a time."""
        left = True
        while left:
            async with self._database.engine.begin() as conn:
                before = await clock.database_ms(conn) - undo.LASTS_S * 1000
                left = await undo.prune(conn, utc(before))

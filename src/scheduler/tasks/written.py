"""Writing a task: what a body makes of it, its row, its plan and its first runs in one go.

A rule that nobody has judged is judged first, and an operation is checked against its spec. No
connection to the database is held meanwhile: the transaction is given up with Unjudged or
Unchecked, and begun again with the answer.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import msgspec

from scheduler import (
    audit,
    clock,
    db,
    edits,
    lines,
    planner,
    quotas,
    services,
    state,
    task,
    versions,
)
from scheduler.actions import Command, Operation
from scheduler.db import Conn, utc
from scheduler.definition import Definition
from scheduler.engine import Engine
from scheduler.errors import Conflict, Unavailable
from scheduler.judge import Unjudged, Verdicts
from scheduler.planning import Planned
from scheduler.service import Service
from scheduler.standing import awaits, ended_ahead, limited
from scheduler.tasks import changes, edit, listing, model
from scheduler.tasks.checking import Findings, Unchecked
from scheduler.tasks.edit import Edit
from scheduler.tasks.keeping import with_calendars
from scheduler.tasks.model import Task, TaskFields
from scheduler.tasks.permission import check_command, check_edit
from scheduler.triggers import Cron, Rrule

TRIES = 6
"""How often a rule or an operation may become another one while it is judged."""
KNOWN_SINCE: Mapping[str, tuple[int, int]] = {
    "RRULE": (0, 3),
    "calendars": (0, 3),
    "command": (0, 3),
    "dst_gap and dst_overlap": (0, 3),
    "operation": (0, 4),
}
"""The version from which on replicas know what a task can be."""

T = TypeVar("T")
Also = Callable[[Conn, Definition, Definition], Awaitable[None]]
"""What is written along with a change, in its transaction: a task before it, and after."""
Keep = Callable[[Conn, Definition, Planned, int], Awaitable[None]]
"""What is kept of a task that is deleted, in that transaction: its plan, and when that is (ms)."""


class Written(msgspec.Struct):
    """A task as it was written, and as it is answered."""

    of: Definition
    shown: Task


async def created(engine: Engine, service: Service, fields: TaskFields) -> Written:
    """Create a task, and make its first runs. Raises."""

    async def create(verdicts: Verdicts, findings: Findings) -> Written:
        return await _create(engine, service, fields, verdicts, findings)

    return await _judged(engine, service, create)


def _any(_of: Definition) -> None:
    """Let every task be changed."""


async def _nothing(_conn: Conn, _before: Definition, _after: Definition) -> None:
    """Write nothing along with a change."""


async def changed(
    engine: Engine,
    service: Service,
    task_id: str,
    fields: TaskFields,
    *,
    check: Callable[[Definition], None] = _any,
    also: Also = _nothing,
    reason: str | None = None,
) -> Written:
    """Change the fields sent of a task, and its future runs with it. Raises.

    `check` is asked about the task as it stands, which nobody else changes meanwhile; it raises
    where it is not one to be changed. `also` is written along; `reason` is for the audit.
    """

    async def change(verdicts: Verdicts, findings: Findings) -> Written:
        by = (check, also, reason)
        return await _change(engine, service, task_id, fields, by, verdicts, findings)

    return await _judged(engine, service, change)


async def drafted(engine: Engine, service: Service, fields: TaskFields, now: int) -> Edit:
    """Return what a body makes of a task that is not to be stored, at `now` (ms). Raises."""

    async def draft(verdicts: Verdicts, _findings: Findings) -> Edit:
        most = engine.settings.tasks
        return edit.new_task(fields, service.id, now, most, verdicts=verdicts)

    return await _judged(engine, service, draft, now)


async def redrafted(
    engine: Engine, service: Service, before: Definition, fields: TaskFields, now: int
) -> Edit:
    """Return what a body makes of a task as it stands, at `now` (ms); nothing is stored. Raises."""

    async def draft(verdicts: Verdicts, _findings: Findings) -> Edit:
        return edit.edited(fields, before, now, engine.settings.tasks, verdicts=verdicts)

    return await _judged(engine, service, draft, now)


def check_known(engine: Engine, after: Definition, before: Definition | None = None) -> None:
    """Raise Unavailable where an older replica would take the task for damaged.

    It would set it aside, and fail a run of it. What a task was before already is let pass.
    """
    for word in sorted(_news(after) - (_news(before) if before is not None else set())):
        older = engine.membership.older_than(KNOWN_SINCE[word])
        if older is not None:
            raise Unavailable(
                f"a replica of version {older} still runs, and knows no {word}; send this again "
                "when it is stopped"
            )


def _news(of: Definition) -> set[str]:
    """Return what of a task some version before this one does not know."""
    trigger, found = of.trigger, set[str]()
    if isinstance(trigger, Rrule):
        found.add("RRULE")
    if isinstance(trigger, Cron) and (trigger.dst_gap, trigger.dst_overlap) != ("end", "first"):
        found.add("dst_gap and dst_overlap")
    if isinstance(of.action, Command):
        found.add("command")
    if isinstance(of.action, Operation):
        found.add("operation")
    if of.bounds.calendars:
        found.add("calendars")
    return found


async def _judged(
    engine: Engine,
    service: Service,
    work: Callable[[Verdicts, Findings], Awaitable[T]],
    now: int | None = None,
) -> T:
    """Do something with a body, and have its rule judged, its operation checked, as it needs it.

    A rule that names no start begins at `now` (ms), else in the second in which it is written.
    """
    verdicts, findings = Verdicts(_earliest(engine) if now is None else now), Findings()
    for number in range(TRIES):
        if now is None and number < TRIES // 2:  # judging may have taken a while
            verdicts.begin(_earliest(engine))
        try:
            return await work(verdicts, findings)
        except Unjudged as e:
            wanted = verdicts.hear(engine.judge, service.id, e.ask)
        except Unchecked as e:
            wanted = findings.hear(engine.runner, service.id, e.action)
        await wanted
    raise Conflict("the task was changed again and again meanwhile; send this again")


def _earliest(engine: Engine) -> int:
    """Return a time (ms) that has come: a rule that began later would be due at once."""
    return int(engine.clock.earliest_ms())


@db.again
async def _create(
    engine: Engine,
    service: Service,
    fields: TaskFields,
    verdicts: Verdicts,
    findings: Findings,
) -> Written:
    async with engine.database.api.begin() as conn:
        now = await services.hold(conn, service.id)
        vault = engine.database.vault
        made = edit.new_task(fields, service.id, now, engine.settings.tasks, vault, verdicts)
        check_command(made.task, service, engine.settings.commands)
        check_known(engine, made.task)
        findings.check(vault, made.task)
        made.task = await with_calendars(conn, made.task)
        await quotas.check_tasks(conn, service)
        await task.create(conn, made.task)
        await audit.created(conn, service.id, service.by, [made.task], utc(now))
        earliest = await planner.create(
            conn, made.task, now, window_ms=engine.window_ms, at_once=made.at_once
        )
        planned = (await limited(conn, service.id, [made.task])).get(made.task.key)
        pending = awaits(made.task, now, planned, at_once=made.at_once)
        await state.create(conn, [state.Row(made.task.line, made.task.created_at, pending)])
    engine.wake(earliest)
    engine.resume_at(made.task.paused_until)
    spent = None if planned is None else (planned.runs, planned.until)
    shown = model.shown(made.task, "pending" if pending else "created", now, spent)
    return Written(made.task, shown)


@db.again
async def _change(
    engine: Engine,
    service: Service,
    task_id: str,
    fields: TaskFields,
    by: tuple[Callable[[Definition], None], Also, str | None],
    verdicts: Verdicts,
    findings: Findings,
) -> Written:
    check, also, reason = by
    async with engine.database.api.begin() as conn:
        before, planned = await planner.locked(conn, service.id, task_id)
        check(before)
        asked, spent = await clock.database_ms(conn), (planned.runs, planned.until)
        gone = (await ended_ahead(conn, service.id, [before], asked)).get(before.key, ())
        vault, most = engine.database.vault, engine.settings.tasks
        made = edit.edited(fields, before, asked, most, spent, gone, vault, verdicts)
        check_edit(before, made.task, service, engine.settings.commands)
        check_known(engine, made.task, before)
        findings.check(vault, made.task, before)
        made.task = await with_calendars(conn, made.task, before.bounds.calendars)
        await task.change(conn, made.task)
        if changes.hides(before, made.task):
            await audit.hide(conn, service.id, before.id, "header")
        entries = changes.edited(before, made.task, reason)
        await audit.write(conn, service.id, service.by, entries, utc(asked))
        earliest = await edits.replan(
            conn,
            before,
            made.task,
            planned,
            window_ms=engine.window_ms,
            at_once=made.at_once,
            asked=asked,
        )
        shown = await listing.stand(conn, made.task, engine.clock.now_ms())
        await also(conn, before, made.task)
    engine.recall(made.task.key)
    engine.wake(earliest)
    engine.resume_at(made.task.paused_until)
    engine.standing.recheck([made.task.key])  # its live runs may be taken back
    return Written(made.task, shown)


@db.again
async def removed(
    engine: Engine,
    service: Service,
    task_id: str,
    *,
    check: Callable[[Definition], None] = _any,
    keep: Keep | None = None,
) -> None:
    """Delete a task; what runs ends and is recorded, what is overdue ends cancelled.

    Raises; `check` is asked as for `changed`, and `keep` before anything of it goes.
    """
    async with engine.database.api.begin() as conn:
        of, planned = await planner.locked(conn, service.id, task_id)
        check(of)
        at = await clock.database_ms(conn)
        now = utc(at)
        if keep is not None:
            await keep(conn, of, planned, at)
        await lines.remove(conn, of.line, now)
        await planner.remove(conn, of.line)
        await versions.keep(conn, of, None, now)
        await task.remove(conn, of.line)
        await audit.write(conn, service.id, service.by, [changes.gone(of)], now)
        await state.remove(conn, of.line)
    engine.recall(of.key)

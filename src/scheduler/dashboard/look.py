"""What a look shows: the markup of what changed for one service, for every page that is open."""

from typing import Any
from uuid import UUID

import msgspec

from scheduler import history, lines, task, watch
from scheduler.clock import Slice
from scheduler.dashboard import page
from scheduler.dashboard.tasks.tasks import Last, stands
from scheduler.db import Conn, utc
from scheduler.definition import Definition
from scheduler.run import Started
from scheduler.runs import model as runs
from scheduler.runs.model import ShownRun
from scheduler.specs import model as specs
from scheduler.specs.shown import status_of
from scheduler.standing import ended_ahead, limited
from scheduler.tasks.model import Task
from scheduler.watch import Changed, News

ROWS = 50
"""Rows of runs that a look sends to lists; of the others how many there are."""
TASKS = 100
"""Tasks of a service of which a look says how they stand."""
SPECS = 10


class Row(msgspec.Struct, frozen=True):
    """A run as lists take it in: its row, and what their filters ask of it."""

    id: str
    state: str
    kind: str
    task: str | None
    """Its task's id, or the trace id of a process or a spec."""
    reason: str | None
    at: str | None
    """When it was due."""
    new: bool
    """It was not there before."""
    markup: str


class Rows(msgspec.Struct, frozen=True):
    """The rows of a look, the oldest first; `more` have no row here."""

    rows: list[Row]
    more: int
    cut: bool
    """More changed than was read."""


class Look(msgspec.Struct):
    """What a look shows of a service."""

    slots: dict[str, str]
    rows: Rows


def shown(of: Changed, service_id: UUID, now: int) -> ShownRun:
    """Return a run that changed as a list shows it."""
    if isinstance(of.run, Started):
        made = runs.of_live(of.run, service_id, now)
        made.attempt = of.attempts + (made.state == "running")
    else:
        made = runs.of_finished(of.run, service_id)
        made.attempt = of.attempts
    return made


async def seen(conn: Conn, service_id: UUID, news: News, now: int) -> Look:
    """Return what a look shows of a service, with how the tasks and specs concerned stand."""
    macros = page.TEMPLATES.get_template("live.html").module
    turn, slots, found = Slice(), dict[str, str](), list[Row]()
    listed: list[tuple[ShownRun, bool]] = []
    changed = sorted(news.changed, key=lambda each: each.run.scheduled_for)
    for number, each in enumerate(changed):
        run = shown(each, service_id, now)
        slots[f"run:{run.id}:state"] = str(macros.run_state(run))  # type: ignore[attr-defined]
        if number >= len(changed) - ROWS:
            listed.append((run, each.new))
        await turn.give_way()
    tasks = await _outlines(conn, service_id, changed)
    names = {of.id: of.name for of in tasks.values()}
    for run, new in listed:
        markup = str(macros.run_row(run, now, names))  # type: ignore[attr-defined]
        found.append(_row(run, markup, new=new))
        await turn.give_way()
    for one, last in (await stances(conn, service_id, tasks, now)).values():
        slots |= of_task(one, last, now, macros)
        await turn.give_way()
    slots |= await _specs(conn, service_id, changed, macros)
    return Look(slots, Rows(found, len(changed) - len(found), news.cut))


def _row(run: ShownRun, markup: str, *, new: bool) -> Row:
    of = run.task_id or run.trace_id
    return Row(run.id, run.state, run.kind, of, run.reason, run.scheduled_for, new, markup)


async def _outlines(conn: Conn, service_id: UUID, changed: list[Changed]) -> dict[UUID, Definition]:
    """Return the tasks of what changed, the latest's first, by their keys."""
    wanted = dict.fromkeys(each.run.task_key for each in reversed(changed) if each.run.of_task)
    keys = [key for key in wanted if key is not None][:TASKS]
    return await task.outlines(conn, service_id, keys) if keys else {}


async def stances(
    conn: Conn, service_id: UUID, tasks: dict[UUID, Definition], now: int
) -> dict[UUID, tuple[Task, Last | None]]:
    """Map a service's tasks to how they stand at `now` (ms), and how their last runs ended."""
    if not tasks:
        return {}
    keys = list(tasks)
    live = await lines.live(conn, service_id, keys, utc(now))
    plans = await limited(conn, service_id, tasks.values())
    gone = await ended_ahead(conn, service_id, tasks.values(), now)
    lasts = await history.lasts(conn, service_id, keys)
    found, turn = {}, Slice()
    for key, of in tasks.items():
        one = stands(of, now, live.get(key), plans.get(key), gone.get(key, ()), lasts)
        found[key] = (one, lasts.get(key))
        await turn.give_way()
    return found


def of_task(one: Task, last: Last | None, now: int, macros: Any) -> dict[str, str]:
    """Return the slots that say how a task stands."""
    return {
        f"task:{one.id}:state": str(macros.task_state(one)),
        f"task:{one.id}:next": str(macros.task_next(one, now)),
        f"task:{one.id}:last": str(macros.task_last(last, now)),
    }


async def _specs(
    conn: Conn, service_id: UUID, changed: list[Changed], macros: Any
) -> dict[str, str]:
    traces = {each.run.task_id for each in changed if each.run.kind == "spec" and each.run.task_id}
    slots = {}
    for trace in sorted(traces)[:SPECS]:
        of = await specs.of_trace(conn, service_id, trace)
        if of is not None:
            slots[f"spec:{trace}:status"] = str(macros.spec_status(status_of(of).status))
    return slots


async def look(
    conn: Conn, memories: dict[UUID, watch.Memory], now: int, last: int
) -> dict[UUID, Look]:
    """Look at every watched service; return what each shows that has something new."""
    return await _shown(conn, await watch.look(conn, memories, now, last), now)


async def late(
    conn: Conn, memories: dict[UUID, watch.Memory], now: int, last: int
) -> dict[UUID, Look]:
    """Return what `look` does not see: what ended long after it was due, of every service."""
    return await _shown(conn, await watch.late(conn, memories, now, last), now)


async def _shown(conn: Conn, news: dict[UUID, News], now: int) -> dict[UUID, Look]:
    return {
        service_id: await seen(conn, service_id, of, now)
        for service_id, of in news.items()
        if of.changed
    }

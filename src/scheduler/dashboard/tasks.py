"""The list of tasks, as a page."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import msgspec
from litestar import Request, Response, get
from litestar.di import NamedDependency

from scheduler import asked, history, lines, tasklist
from scheduler.clock import Slice
from scheduler.dashboard import caller, page
from scheduler.dashboard.door import Visitor
from scheduler.db import Conn, utc
from scheduler.definition import Definition
from scheduler.engine import Engine
from scheduler.planning import Planned
from scheduler.standing import awaits, ended_ahead, limited
from scheduler.tasks import listing, model, pages, preview
from scheduler.tasks.model import Task

COUNT = 50

AnyRequest = Request[Any, Any, Any]
Who = NamedDependency[Visitor]
Machine = NamedDependency[Engine]


# The list ----------------------------------------------------------------------------------------


Last = tuple[str, int]


class Line(msgspec.Struct, frozen=True):
    """A task as the list shows it."""

    task: Task
    trigger: str
    """In words."""
    last: Last | None
    """How its last run ended, and when that was due (ms)."""


class Listed(msgspec.Struct, frozen=True):
    """A page of the list; `total` is None where nobody counted."""

    lines: list[Line]
    page: pages.Page
    total: int | None


@get("/dashboard/tasks", include_in_schema=False)
async def show_tasks(request: AnyRequest, visitor: Who, engine: Machine) -> Response[Any]:
    """Return the list of tasks, by `q`, `status` and pages, as `GET /tasks` does."""
    sent = request.query_params
    number = asked.whole(sent.get("page"), "page", 0, 0, listing.DEEPEST // COUNT)
    wanted = {"q": sent.get("q", "")[:500], "status": sent.get("status", "")}
    now = engine.clock.now_ms()
    listed = await _listed(engine, visitor, wanted, number, now)
    return await page.large(
        "tasks.html",
        visitor=visitor,
        now=now,
        lines=listed.lines,
        wanted=wanted,
        sought=bool(wanted["q"].strip() or wanted["status"]),
        first=number == 0,
        words=("active", "paused", "disabled", *model.STATES),
        total=listed.total,
        before=_link(wanted, number - 1) if number else None,
        after=_link(wanted, number + 1) if listed.page.following else None,
        url=caller.asked_at(request, engine.settings),
    )


def _link(wanted: dict[str, str], number: int) -> str:
    sent = {name: value for name, value in wanted.items() if value}
    return f"/dashboard/tasks?{urlencode({**sent, 'page': number})}"


async def _listed(
    engine: Engine, visitor: Visitor, wanted: dict[str, str], number: int, now: int
) -> Listed:
    service_id, offset, count = visitor.service.id, number * COUNT, COUNT + 1
    chosen, word = listing.read_filter(wanted)
    async with engine.database.api.connect() as connection:
        conn = await connection.execution_options(isolation_level="REPEATABLE READ")
        if word is None:
            found = await tasklist.page(
                conn, service_id, chosen, offset=offset, count=count, counted=False
            )
        else:
            found = await listing.in_state(
                conn, service_id, chosen, word, now, offset=offset, count=count
            )
        cut = pages.Page(found.tasks[:COUNT], (0, 0) if len(found.tasks) > COUNT else None)
        return Listed(await _lines(conn, cut.tasks, visitor, now), cut, found.total)


async def _lines(conn: Conn, shown: Any, visitor: Visitor, now: int) -> list[Line]:
    service_id, keys = visitor.service.id, [of.key for of in shown]
    if not keys:
        return []
    live = await lines.live(conn, service_id, keys, utc(now))
    plans = await limited(conn, service_id, shown)
    gone = await ended_ahead(conn, service_id, shown, now)
    lasts = await history.lasts(conn, service_id, keys)
    made, turn = [], Slice()
    for of in shown:
        key = of.key
        task = stands(of, now, live.get(key), plans.get(key), gone.get(key, ()), lasts)
        made.append(Line(task, preview.describe(of), lasts.get(key)))
        await turn.give_way()
    return made


def stands(
    of: Definition,
    now: int,
    live: bool | None,  # noqa: FBT001  (as `lines.live` has it: None where nothing is live)
    planned: Planned | None,
    gone: Any,
    lasts: Mapping[UUID, Last],
) -> Task:
    """Return a task as it stands at `now` (ms), in the words of `GET /tasks`."""
    last = lasts.get(of.key)
    word = "created" if last is None else "failed"
    word = "completed" if last is not None and last[0] == "succeeded" else word
    if live is not None or awaits(of, now, planned, gone):
        word = "running" if live else "pending"
    spent = None if planned is None else (planned.runs, planned.until)
    return model.shown(of, word, now, spent, gone)

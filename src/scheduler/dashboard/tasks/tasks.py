"""The list of tasks, as a page: filters that the address holds, a sort, pages, what can be done."""

import uuid
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import msgspec
from litestar import Request, Response, get
from litestar.di import NamedDependency

from scheduler import asked, taskrows
from scheduler.clock import Slice
from scheduler.dashboard import caller, page
from scheduler.dashboard.door import Visitor
from scheduler.dashboard.tasks import bulk
from scheduler.db import Conn
from scheduler.definition import Definition
from scheduler.engine import Engine
from scheduler.errors import ValidationFailed
from scheduler.planning import Planned
from scheduler.standing import awaits
from scheduler.taskrows import SORTS, Facts
from scheduler.tasks import listing, model, preview
from scheduler.tasks.model import Task
from scheduler.undo import Count

COUNT = 50
FILTERS = ("q", "status", "state", "trigger", "action", "tag")
CHOICES = {
    "status": ("active", "paused", "disabled"),
    "state": model.STATES,
    "trigger": listing.TRIGGERS,
    "action": listing.ACTIONS,
}
SORTED = {
    "newest": "Newest first",
    "name": "By name",
    "next": "Next run first",
    "failing": "Failing first",
}

AnyRequest = Request[Any, Any, Any]
Who = NamedDependency[Visitor]
Machine = NamedDependency[Engine]
Last = tuple[str, int]


class Line(msgspec.Struct, frozen=True):
    """A task as the list shows it."""

    task: Task
    trigger: str
    """In words."""
    last: Last | None
    """How its last run ended, and when that was due (ms)."""
    ends: list[str]
    """How its last runs ended, the oldest first."""


class Chip(msgspec.Struct, frozen=True):
    """A filter that is on, and the address without it."""

    name: str
    value: str
    without: str


class Wanted(msgspec.Struct, frozen=True):
    """What the address asks for."""

    filters: dict[str, str]
    sort: str
    number: int
    act: UUID | None

    @property
    def query(self) -> dict[str, str]:
        """What an address holds of it, but for the page."""
        sent = {name: value for name, value in self.filters.items() if value}
        return sent | ({} if self.sort == "newest" else {"sort": self.sort})

    def at(self, number: int) -> str:
        """Return the address of a page."""
        return bulk.listed(self.query | ({"page": str(number)} if number else {}))

    @property
    def chips(self) -> list[Chip]:
        """The filters that are on."""
        return [
            Chip(name, value, bulk.listed({k: v for k, v in self.query.items() if k != name}))
            for name, value in self.filters.items()
            if value.strip()
        ]


class Listed(msgspec.Struct):
    """A page of the list; `total` is None where nobody counted."""

    lines: list[Line]
    more: bool
    total: int | None
    noted: Count | None


# The list ----------------------------------------------------------------------------------------


@get("/dashboard/tasks", include_in_schema=False)
async def show_tasks(request: AnyRequest, visitor: Who, engine: Machine) -> Response[Any]:
    """Return the list of tasks, by the filters of `GET /tasks`, a sort, and pages."""
    wanted = _wanted(request)
    now = engine.clock.now_ms()
    found = await _listed(engine, visitor, wanted, now)
    return await page.large(
        "tasks.html",
        visitor=visitor,
        now=now,
        lines=found.lines,
        wanted=wanted,
        choices=CHOICES,
        sorts=SORTED,
        unsorted=found.total is None and wanted.sort != "newest",
        bounded=found.total is None and bool(wanted.filters["state"]),
        most=taskrows.MOST,
        first=wanted.number == 0,
        total=found.total,
        before=wanted.at(wanted.number - 1) if wanted.number else None,
        after=wanted.at(wanted.number + 1) if found.more else None,
        here=wanted.at(wanted.number),
        noted=found.noted,
        words=bulk.KINDS.get(found.noted.kind) if found.noted else None,
        nonce=uuid.uuid4(),
        url=caller.asked_at(request, engine.settings),
    )


def _wanted(request: AnyRequest) -> Wanted:
    sent = request.query_params
    filters = {name: sent.get(name, "").strip()[:500] for name in FILTERS}
    if filters["status"] in model.STATES:  # as `GET /tasks` takes it
        filters |= {"status": "", "state": filters["status"]}
    sort = sent.get("sort") or "newest"
    if sort not in SORTS:
        raise ValidationFailed.of("sort", f"must be one of {', '.join(SORTS)}")
    number = asked.whole(sent.get("page"), "page", 0, 0, listing.DEEPEST // COUNT)
    try:
        act = UUID(sent["act"]) if sent.get("act") else None
    except ValueError:
        act = None
    return Wanted(filters, sort, number, act)


async def _listed(engine: Engine, visitor: Visitor, wanted: Wanted, now: int) -> Listed:
    service_id = visitor.service.id
    chosen, word = listing.read_filter(wanted.filters)
    async with engine.database.api.connect() as connection:
        conn = await connection.execution_options(isolation_level="REPEATABLE READ")
        found = await taskrows.page(
            conn,
            service_id,
            chosen,
            word,
            wanted.sort,
            now,
            offset=wanted.number * COUNT,
            count=COUNT + 1,
        )
        tasks = found.tasks[:COUNT]
        lines, noted = await _lines(conn, visitor, tasks, now, wanted.act)
    return Listed(lines, len(found.tasks) > COUNT, found.total, noted)


async def _lines(
    conn: Conn, visitor: Visitor, tasks: list[Definition], now: int, act: UUID | None
) -> tuple[list[Line], Count | None]:
    facts, noted = await taskrows.facts(
        conn, visitor.service.id, [of.key for of in tasks], now, act
    )
    made, turn = [], Slice()
    for of in tasks:
        made.append(_line(of, now, facts[of.key]))
        await turn.give_way()
    return made, noted


def _line(of: Definition, now: int, known: Facts) -> Line:
    planned = known.planned if of.bounds.max_runs is not None else None
    lasts = {} if known.last is None else {of.key: known.last}
    task = stands(of, now, known.live, planned, known.gone, lasts)
    return Line(task, preview.describe(of), known.last, known.ends)


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

"""The registered APIs: the list of specs, the page of one, its files, and the tasks it breaks."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec
from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from scheduler import asked, audit, dependents
from scheduler.clock import Slice
from scheduler.dashboard import caller, page
from scheduler.dashboard.door import Visitor
from scheduler.db import utc
from scheduler.documents.client import Client, Operation
from scheduler.engine import Engine
from scheduler.errors import NotFound
from scheduler.runs.api import read_cursor
from scheduler.specs import files, listing, model, shown
from scheduler.specs.model import Stored
from scheduler.specs.performer import OperationPerformer
from scheduler.tasks import impact
from scheduler.tasks.impact import START, Document, Misfit

COUNT = 50
DEEPEST = 10_000
OPERATIONS = 200
"""Operations on a page; the search finds the others."""
CHANGES = 5
CALLERS = 20
"""Tasks that are looked at for the page of a spec; the page of its tasks looks at all."""
MOVED = timedelta(minutes=10)
MOVING_MOST = 500
SECONDS = 2.0
"""How often marks are made, while somebody watches."""
SAID = {
    "new": "The document is registered. It is read and compiled now.",
    "edit": "The changes are saved.",
    "archive": "The spec is in the archive, and its name is free again.",
}

AnyRequest = Request[Any, Any, Any]
Who = NamedDependency[Visitor]
Machine = NamedDependency[Engine]
Calls = NamedDependency[OperationPerformer]


@get("/dashboard/apis", include_in_schema=False)
async def show_apis(request: AnyRequest, visitor: Who, engine: Machine) -> Response[Any]:
    """Return the list of specs, the newest first."""
    number = asked.whole(request.query_params.get("page"), "page", 0, 0, DEEPEST // COUNT)
    async with engine.database.api.connect() as conn:
        total, found = await listing.page(
            conn, visitor.service.id, offset=number * COUNT, most=COUNT
        )
    return page.answer(
        "apis.html",
        visitor=visitor,
        now=engine.clock.now_ms(),
        specs=found,
        total=total,
        before=f"/dashboard/apis?page={number - 1}" if number else None,
        after=f"/dashboard/apis?page={number + 1}" if total > (number + 1) * COUNT else None,
        url=caller.asked_at(request, engine.settings),
        said=SAID.get(request.query_params.get("done", ""), ""),
    )


async def slots(engine: Engine, service_id: UUID, now: int) -> dict[str, str]:
    """Return the marks of a service's specs that are under way, or were just now; `now` in ms."""
    async with engine.database.api.connect() as conn:
        moving = await listing.moving(conn, service_id, utc(now) - MOVED, MOVING_MOST)
    mark = page.TEMPLATES.get_template("macros.html").module
    return {f"spec:{trace}:status": str(mark.step(word)) for trace, word in moving}  # type: ignore[attr-defined]


# One spec ----------------------------------------------------------------------------------------


class Offer(msgspec.Struct, frozen=True):
    """What a spec serves, as far as a search for its operations goes."""

    client: Client
    found: list[Operation]
    """The first of those that fit."""
    fit: int


@get("/dashboard/apis/{trace_id:str}", include_in_schema=False)
async def show_api(
    trace_id: FromPath[str], request: AnyRequest, visitor: Who, engine: Machine
) -> Response[Any]:
    """Return a spec: how far it has come, its operations, and tasks that it does not fit."""
    service_id, sought = visitor.service.id, request.query_params.get("q", "")[:500].strip()
    async with engine.database.api.connect() as connection:
        conn = await connection.execution_options(isolation_level="REPEATABLE READ")
        of = await found_spec(conn, service_id, trace_id)
        serves = None if of.serving is None else await model.client(conn, of, of.serving)
        calling = await dependents.calling(conn, service_id, of.name, START, CALLERS + 1)
        told = await audit.page(conn, service_id, trace_id, kind="spec", before=None, most=CHANGES)
    misfits = list[Misfit]()
    if serves is not None and of.serving is not None:
        document = Document(of, of.serving, engine.database, serves.operations)
        misfits = [bad for each in calling[:CALLERS] if (bad := document.misfit(each))]
    return await page.large(
        "api.html",
        visitor=visitor,
        now=engine.clock.now_ms(),
        of=of,
        at=f"/dashboard/apis/{of.trace_id}",
        stands=shown.status_of(of),
        steps=list(shown.STEPS.items()),
        offer=None if serves is None else await _offer(serves, sought),
        sought=sought,
        misfits=misfits,
        calling=min(len(calling), CALLERS),
        more=len(calling) > CALLERS,
        changes=told,
        said=SAID.get(request.query_params.get("done", ""), ""),
    )


async def _offer(client: Client, sought: str) -> Offer:
    """Return the operations in whose endpoint, id or summary all words are."""
    words, turn = sought.lower().split(), Slice()
    found = list[Operation]()
    for each in client.operations:
        text = f"{each.endpoint}\n{each.id or ''}\n{each.summary or ''}".lower()
        if all(word in text for word in words):
            found.append(each)
        await turn.give_way()
    return Offer(client, found[:OPERATIONS], len(found))


async def found_spec(conn: Any, service_id: UUID, trace_id: str) -> Stored:
    """Return a service's spec. Raises NotFound."""
    of = await model.of_trace(conn, service_id, trace_id)
    if of is None:
        raise NotFound(f"there is no spec {trace_id}")
    return of


@get("/dashboard/apis/{trace_id:str}/impact", include_in_schema=False)
async def show_impact(
    trace_id: FromPath[str], request: AnyRequest, visitor: Who, engine: Machine, operations: Calls
) -> Response[Any]:
    """Return the tasks that the last document does not fit, a hundred looked at at a time."""
    cursor = request.query_params.get("after")
    found = await impact.page_of(
        engine.database,
        visitor.service.id,
        trace_id,
        operations,
        read_cursor(cursor) if cursor else START,
    )
    return await page.large("impact.html", visitor=visitor, impact=found, first=not cursor)


@get("/dashboard/apis/{trace_id:str}/files/{name:str}", include_in_schema=False)
async def send_spec_file(
    trace_id: FromPath[str], name: FromPath[str], visitor: Who, engine: Machine
) -> Response[Any]:
    """Return the document of a spec, or the Python client made of it: the API's own bytes."""
    return await files.file(engine, visitor.service, trace_id, name)


HANDLERS = [show_apis, show_api, show_impact, send_spec_file]

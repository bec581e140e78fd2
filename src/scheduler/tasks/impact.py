"""`GET /v1/api/spec/{trace_id}/impact`: the tasks that a spec's last document does not fit."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from litestar import Request, Router, get
from litestar.di import NamedDependency
from litestar.openapi.spec import OpenAPIType, Schema
from litestar.params import FromPath

from scheduler import (
    dependents,
)
from scheduler.actions import Operation
from scheduler.db import Database, utc
from scheduler.definition import Definition
from scheduler.documents.client import Operation as Endpoint
from scheduler.documents.operation import WrongCall
from scheduler.engine import Engine
from scheduler.errors import NotFound
from scheduler.openapi import asks
from scheduler.runs.api import cursor_of, read_cursor
from scheduler.service import Service
from scheduler.specs import model
from scheduler.specs.asked import built, cut, field_of, no_endpoint
from scheduler.specs.model import Called, Status, Stored
from scheduler.specs.performer import OperationPerformer

EACH = 100
"""Tasks that a page looks at."""
MOST = 1000
"""Tasks that one call looks at."""
PAGE = 20
"""Tasks that are looked at at once."""
SECONDS = 5.0
"""After which a call answers with what it has found, and a cursor."""
START = (utc(0), UUID(int=0))
COMPILED: Sequence[Status] = ("READY_CLIENT", "SUCCESS")

Place = tuple[datetime, UUID]


class Misfit(msgspec.Struct):
    """A task that calls what the document has not, or not in this way."""

    task_id: str
    name: str
    endpoint: str
    field: str
    reason: str


class Impact(msgspec.Struct):
    """What a spec's document means for the tasks that call it."""

    trace_id: str
    name: str
    status: Status
    draft: int
    """The number of the document that came last."""
    compared: int | None
    """That of the document that the tasks were compared with; None where none is compiled."""
    checked: int
    tasks: list[Misfit]
    next_cursor: str | None


@get(
    "/{trace_id:str}/impact",
    summary="The tasks that a spec does not fit",
    operation_class=asks(cursor=Schema(type=OpenAPIType.STRING)),
)
async def get_spec_impact(
    trace_id: FromPath[str],
    request: Request[Any, Any, Any],
    service: NamedDependency[Service],
    engine: NamedDependency[Engine],
    operations: NamedDependency[OperationPerformer],
) -> Impact:
    """Return the tasks whose operation does not fit the last document that was compiled.

    A document that was just put is compiled within seconds: while `compared` is less than `draft`
    and `status` neither SUCCESS nor ERROR, ask again. A call looks at 1,000 tasks at most.
    """
    sent = request.query_params.get("cursor")
    after = read_cursor(sent) if sent else START
    return await impact_of(engine.database, service.id, trace_id, operations, after)


async def impact_of(
    database: Database,
    service_id: UUID,
    trace_id: str,
    operations: OperationPerformer,
    after: Place = START,
) -> Impact:
    """Return the tasks from a place on that a spec does not fit. Raises NotFound."""
    impact, document = await _compared(database, service_id, trace_id)
    if document is None:
        return impact
    until, more = time.monotonic() + SECONDS, True
    while more and impact.checked < MOST and time.monotonic() < until:
        after, more = await _look(impact, document, after, operations, PAGE)
    impact.next_cursor = cursor_of(after) if more else None
    return impact


async def page_of(
    database: Database,
    service_id: UUID,
    trace_id: str,
    operations: OperationPerformer,
    after: Place = START,
) -> Impact:
    """Return the same of the next tasks, by three statements. Raises NotFound."""
    impact, document = await _compared(database, service_id, trace_id)
    if document is not None:
        after, more = await _look(impact, document, after, operations, EACH)
        impact.next_cursor = cursor_of(after) if more else None
    return impact


async def _compared(
    database: Database, service_id: UUID, trace_id: str
) -> tuple[Impact, "Document | None"]:
    async with database.api.connect() as conn:
        of = await model.of_trace(conn, service_id, trace_id)
        if of is None:
            raise NotFound(f"there is no spec {trace_id}")
        number = of.draft if of.status in COMPILED else of.serving
        found = [] if number is None else await model.operations(conn, service_id, of.key, number)
    impact = Impact(of.trace_id, of.name, of.status, of.draft, number, 0, [], None)
    document = None if number is None else Document(of, number, database, found)
    return impact, document


class Document:
    """The document that tasks are compared with."""

    def __init__(
        self, of: Stored, number: int, database: Database, endpoints: Sequence[Endpoint]
    ) -> None:
        self.of, self.number, self.database = of, number, database
        self._endpoints: Mapping[str, Endpoint] = {each.endpoint: each for each in endpoints}
        self._headers = model.opened(database.vault, of.service_id, of.headers)

    def called(self, endpoint: str) -> Called:
        """Return what a call of an endpoint would need, if this document served."""
        return Called(
            spec=self.of.key,
            version=self.of.version,
            draft=self.of.draft,
            serving=self.number,
            status=self.of.status,
            headers=self._headers,
            url=self.of.url,
            operation=self._endpoints.get(endpoint),
        )

    def lacks(self, action: Operation) -> str:
        """Say that it has no such endpoint, and which it has."""
        return no_endpoint(action, list(self._endpoints))

    async def tasks(self, after: Place, most: int) -> list[Definition]:
        """Return some of the tasks that call it, from a place on."""
        async with self.database.api.connect() as conn:
            return await dependents.calling(conn, self.of.service_id, self.of.name, after, most)

    def misfit(self, of: Definition) -> Misfit | None:
        """Return what is wrong with a task, as far as the compiled document tells."""
        action = of.action
        if not isinstance(action, Operation):  # its row is damaged
            return None
        opened = action.opened(self.database.vault, of.service_id)
        called = self.called(action.name)
        if called.operation is None:
            return Misfit(of.id, of.name, action.name, "endpoint", self.lacks(action))
        try:
            built(opened, called)
        except (WrongCall, ValueError) as e:
            why = cut(str(e))
            return Misfit(of.id, of.name, action.name, field_of(called.operation, why), why)
        return None


async def _look(
    impact: Impact, document: Document, after: Place, operations: OperationPerformer, most: int
) -> tuple[Place, bool]:
    """Look at some tasks; return where to go on, and whether there may be more."""
    page = await document.tasks(after, most)
    found = await asyncio.gather(*(_misfit(each, document, operations) for each in page))
    impact.tasks += [each for each in found if each is not None]
    impact.checked += len(page)
    if len(page) < most:
        return after, False
    return (page[-1].created_at, page[-1].key), True


async def _misfit(
    of: Definition, document: Document, operations: OperationPerformer
) -> Misfit | None:
    action = of.action
    found = document.misfit(of)
    if found is not None or not isinstance(action, Operation):
        return found
    opened = action.opened(document.database.vault, of.service_id)
    called = document.called(action.name)
    wrong = await operations.misfits(of.service_id, opened, called)
    if not wrong:
        return None
    ((field, reason), *_) = wrong
    return Misfit(of.id, of.name, action.name, field, reason)


router = Router("/v1/api/spec", route_handlers=[get_spec_impact])

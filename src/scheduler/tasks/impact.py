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

from scheduler import tasklist
from scheduler.actions import Operation
from scheduler.db import Database, utc
from scheduler.definition import Definition
from scheduler.documents.client import Operation as Endpoint
from scheduler.engine import Engine
from scheduler.errors import NotFound
from scheduler.openapi import asks
from scheduler.runs.api import cursor_of, read_cursor
from scheduler.service import Service
from scheduler.specs import model
from scheduler.specs.asked import no_endpoint
from scheduler.specs.model import Called, Status, Stored
from scheduler.specs.performer import OperationPerformer

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
    async with database.api.connect() as conn:
        of = await model.of_trace(conn, service_id, trace_id)
        if of is None:
            raise NotFound(f"there is no spec {trace_id}")
        number = of.draft if of.status in COMPILED else of.serving
        found = [] if number is None else await model.operations(conn, service_id, of.key, number)
    impact = Impact(of.trace_id, of.name, of.status, of.draft, number, 0, [], None)
    if number is None:
        return impact
    return await _filled(impact, Document(of, number, database, found), after, operations)


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

    async def tasks(self, after: Place) -> list[Definition]:
        """Return some of the tasks that call it, from a place on."""
        async with self.database.api.connect() as conn:
            return await tasklist.calling(conn, self.of.service_id, self.of.name, after, PAGE)


async def _filled(
    impact: Impact, document: Document, after: Place, operations: OperationPerformer
) -> Impact:
    """Look at tasks, as far as one call goes."""
    until, more = time.monotonic() + SECONDS, True
    while more and impact.checked < MOST and time.monotonic() < until:
        page = await document.tasks(after)
        found = await asyncio.gather(*(_misfit(each, document, operations) for each in page))
        impact.tasks += [each for each in found if each is not None]
        impact.checked += len(page)
        more = len(page) == PAGE
        if more:
            after = page[-1].created_at, page[-1].key
    impact.next_cursor = cursor_of(after) if more else None
    return impact


async def _misfit(
    of: Definition, document: Document, operations: OperationPerformer
) -> Misfit | None:
    action = of.action
    if not isinstance(action, Operation):  # its row is damaged
        return None
    opened = action.opened(document.database.vault, of.service_id)
    called = document.called(action.name)
    if called.operation is None:
        return Misfit(of.id, of.name, action.name, "endpoint", document.lacks(action))
    wrong = await operations.misfits(of.service_id, opened, called)
    if not wrong:
        return None
    ((field, reason), *_) = wrong
    return Misfit(of.id, of.name, action.name, field, reason)


router = Router("/v1/api/spec", route_handlers=[get_spec_impact])

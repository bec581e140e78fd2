"""The registered APIs: the list of specs, and the page of one."""

from typing import Any

from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from scheduler import asked
from scheduler.dashboard import caller, page
from scheduler.dashboard.door import Visitor
from scheduler.engine import Engine
from scheduler.errors import NotFound
from scheduler.specs import listing, model, shown
from scheduler.specs.performer import OperationPerformer
from scheduler.tasks.impact import impact_of

COUNT = 50
DEEPEST = 10_000

AnyRequest = Request[Any, Any, Any]
Who = NamedDependency[Visitor]
Machine = NamedDependency[Engine]


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
    )


@get("/dashboard/apis/{trace_id:str}", include_in_schema=False)
async def show_api(
    trace_id: FromPath[str],
    visitor: Who,
    engine: Machine,
    operations: NamedDependency[OperationPerformer],
) -> Response[Any]:
    """Return a spec: how far it has come, its operations, and the tasks that it does not fit."""
    service_id = visitor.service.id
    async with engine.database.api.connect() as connection:
        conn = await connection.execution_options(isolation_level="REPEATABLE READ")
        of = await model.of_trace(conn, service_id, trace_id)
        if of is None:
            raise NotFound(f"there is no spec {trace_id}")
        [found] = await listing.whole(conn, service_id, [of], source=False, client=True)
    impact = await impact_of(engine.database, service_id, trace_id, operations)
    return await page.large(
        "api.html",
        visitor=visitor,
        now=engine.clock.now_ms(),
        of=of,
        stands=shown.status_of(of),
        steps=list(shown.STEPS.values()),
        serving=found.serving,
        impact=impact,
    )

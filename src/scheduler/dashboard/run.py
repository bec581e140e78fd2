"""The page of one run: its attempts, what was sent, and what came back."""

from typing import Any

from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from scheduler.dashboard import page
from scheduler.dashboard.door import Visitor
from scheduler.engine import Engine
from scheduler.errors import NotFound
from scheduler.runs import model


@get("/dashboard/runs/{run_id:str}", include_in_schema=False)
async def show_run(
    run_id: FromPath[str], visitor: NamedDependency[Visitor], engine: NamedDependency[Engine]
) -> Response[Any]:
    """Return a run, live or finished."""
    now = engine.clock.now_ms()
    async with engine.database.api.connect() as conn:
        found = await model.find(
            conn, visitor.service.id, model.key_of(run_id), now, engine.runner.sources
        )
    if found is None:
        raise NotFound(f"there is no run {run_id}")
    return await page.large("run.html", visitor=visitor, now=now, run=found)

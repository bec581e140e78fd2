"""`/runs`: one run and its attempts."""

from litestar import Router, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from scheduler.engine import Engine
from scheduler.errors import NotFound
from scheduler.runs import model
from scheduler.runs.actions import cancel_run, replay_run
from scheduler.runs.model import ShownRun
from scheduler.services import Service


@get("/{run_id:str}", summary="One run, its attempts and its answer")
async def get_run(
    run_id: FromPath[str], service: NamedDependency[Service], engine: NamedDependency[Engine]
) -> ShownRun:
    """Return a run, live or finished."""
    key = model.key_of(run_id)
    async with engine.database.api.connect() as conn:
        found = await model.find(conn, service.id, key, engine.clock.now_ms())
    if found is None:
        raise NotFound(f"there is no run {run_id}")
    return found


router = Router("/runs", route_handlers=[get_run, replay_run, cancel_run])

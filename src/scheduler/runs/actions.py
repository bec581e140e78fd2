"""`/runs/{id}/replay` and `/runs/{id}/cancel`."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

from litestar import Response, post
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath

from scheduler import clock, db, history, lines, planner, quotas, replays, services, task
from scheduler.db import Conn, utc
from scheduler.definition import Definition
from scheduler.engine import Engine
from scheduler.errors import Conflict, NotFound
from scheduler.history import Finished
from scheduler.lines import Marked, Stance
from scheduler.replays import Again
from scheduler.runs import model, told
from scheduler.runs.model import ShownRun
from scheduler.service import Service
from scheduler.sources import definitions

SETTLED_S = 2.0
"""How long an answer waits for the end of a run that had not started."""
LOOK_S = 0.05


@post("/{run_id:str}/replay", status_code=202, summary="Run a finished run again")
async def replay_run(
    run_id: FromPath[str], service: NamedDependency[Service], engine: NamedDependency[Engine]
) -> ShownRun:
    """Move a run back into the queue, due now: the same id to the target, the next attempt."""
    return await replayed(engine, service, run_id)


async def replayed(engine: Engine, service: Service, run_id: str) -> ShownRun:
    """Replay one run, and return it as it stands then. Raises UserError."""
    key = model.key_of(run_id)
    async with engine.database.api.connect() as conn:
        ended = await history.get(conn, service.id, key)
        if ended is None:
            await _refuse_live(conn, service.id, key, run_id)
    if ended is None or ended.task_id is None or ended.task_key is None:
        raise Conflict("this run is of no task that could run again")
    if ended.gap is not None and ended.gap[0] > 1:
        raise Conflict("this row stands for instants that were skipped; execute the task instead")

    async def tell(conn: Conn, _count: int, now: int) -> None:
        await told.one(conn, service, "replayed", ended, now)

    moved, refused = await replay(engine, service, [ended], tell)
    for why in refused:
        raise Conflict(why)
    async with engine.database.api.connect() as conn:
        shown = await model.find(
            conn, service.id, key, engine.clock.now_ms(), engine.runner.sources
        )
    if not moved or shown is None:
        raise Conflict("the run is live again already: someone replayed it")
    return shown


async def _refuse_live(conn: Conn, service_id: UUID, key: UUID, run_id: str) -> None:
    if await lines.get(conn, service_id, key) is None:
        raise NotFound(f"there is no run {run_id}")
    raise Conflict("the run has not ended; only one that has can be replayed")


Tell = Callable[[Conn, int, int], Awaitable[None]]
"""Writes along with what is done who did it: to how many runs, and when (ms)."""
Refused = dict[str, int]
"""Why runs stay as they are, and how many."""


@db.again
async def replay(
    engine: Engine, service: Service, runs: Sequence[Finished], tell: Tell
) -> tuple[list[UUID], Refused]:
    """Replay finished runs, as what they do stands now; return those that were moved.

    All of one task: all or none of them; raises Conflict where it is gone, or disabled. Or of no
    task: what is gone is refused. Raises Conflict where everything is paused, and TooManyRequests.
    """
    engine.check_running()
    of_task = runs[0].of_task
    async with engine.database.api.begin() as conn:
        ready = _of_task if of_task else _of_others
        wanted, refused = await ready(conn, engine, service.id, runs)
        now = await services.hold(conn, service.id)
        moved = await replays.replay(conn, service.id, wanted, utc(now))
        await quotas.take_runs(conn, service, len(moved))
        if moved:
            await tell(conn, len(moved), now)
    if moved:
        engine.wake(now)
        engine.standing.recheck({each.key for each in wanted} if of_task else ())
    return moved, refused


async def _of_task(
    conn: Conn, engine: Engine, service_id: UUID, runs: Sequence[Finished]
) -> tuple[list[Again], Refused]:
    """Return runs of one task as they are replayed."""
    first = runs[0]
    assert first.task_id is not None and first.task_key is not None  # noqa: S101, PT018  (asked)
    of = await _still(conn, service_id, first.task_id, first.task_key)
    retries = of.policy.max_retries
    most = engine.settings.worker.max_retries if retries is None else retries
    stance = planner.stance_of(of)
    return [Again(run.id, of.key, stance, most) for run in runs], {}


async def _of_others(
    conn: Conn, engine: Engine, service_id: UUID, runs: Sequence[Finished]
) -> tuple[list[Again], Refused]:
    """Return runs of processes and specs as they are replayed, and why others are not."""
    found = await definitions(engine.runner.sources, conn, service_id, runs)
    wanted, refused = list[Again](), Counter[str]()
    for run in runs:
        of = found.get(run.id)
        if of is None:
            refused[f"the {run.kind} that this run was of is gone"] += 1
        elif run.kind == "spec" and run.state == "succeeded":
            refused["this step is done; send the document once more to go through it again"] += 1
        else:
            # What nobody said may be repeated is not, but where someone asks for it: once.
            most = of.max_retries(engine.settings.worker.max_retries)
            stance = Stance(of.version, "allow", None, of.policy.priority)
            wanted.append(Again(run.id, of.key, stance, 0 if of.action.once else most))
    return wanted, dict(refused)


async def _still(conn: Conn, service_id: UUID, task_id: str, task_key: UUID) -> Definition:
    """Lock and return the task that runs were made of, if it is still the same."""
    seen = await task.find(conn, service_id, task_id)
    if seen is None or seen.key != task_key:
        raise Conflict(f"task {task_id}, which this run was of, is gone")
    of, _ = await planner.locked(conn, service_id, task_id)
    if of.key != task_key:
        raise Conflict(f"task {task_id}, which this run was of, is gone")
    if of.status == "disabled":
        raise Conflict(f"task {of.id} is disabled; set its status to active or paused first")
    return of


@post(
    "/{run_id:str}/cancel",
    status_code=200,
    summary="Cancel a run",
    responses={202: ResponseSpec(ShownRun, generate_examples=False, description="Being cut short")},
)
async def cancel_run(
    run_id: FromPath[str], service: NamedDependency[Service], engine: NamedDependency[Engine]
) -> Response[ShownRun]:
    """End a run: 200 where it had not started, 202 where its call is cut short.

    What reached its target before may have been acted upon; an outcome that came first stands.
    """
    shown, ended = await cancelled(engine, service, run_id)
    return Response(shown, status_code=200 if ended else 202)


async def cancelled(engine: Engine, service: Service, run_id: str) -> tuple[ShownRun, bool]:
    """Cancel one run; return it as it stands then, and whether it has ended. Raises UserError."""
    key = model.key_of(run_id)

    async def tell(conn: Conn, _count: int, now: int) -> None:
        live = await lines.get(conn, service.id, key)
        run = live or await history.get(conn, service.id, key)
        if run is not None:
            await told.one(conn, service, "cancelled", run, now)

    done, marked = await cancel(engine, service.id, [key], tell)
    unsent = bool(marked) and not marked[0].running
    ended = bool(done) or (unsent and await _has_ended(engine, service.id, key))
    async with engine.database.api.connect() as conn:
        shown = await model.find(
            conn, service.id, key, engine.clock.now_ms(), engine.runner.sources
        )
    if shown is None:
        raise NotFound(f"there is no run {run_id}")
    if not done and not marked:
        raise Conflict(f"the run has ended: {shown.state}")
    return shown, ended


@db.again
async def cancel(
    engine: Engine, service_id: UUID, keys: Sequence[UUID], tell: Tell | None = None
) -> tuple[list[UUID], list[Marked]]:
    """Cancel live runs; return those that ended, and those whose holder was told to end them."""
    async with engine.database.api.begin() as conn:
        # An edit sees a cancel whole, or not yet; else it might make the instant again.
        tasks = await lines.tasks_of(conn, service_id, keys)
        await planner.lock_many(conn, service_id, tasks)
        now = await clock.database_ms(conn)
        done, marked = await lines.cancel(conn, service_id, keys, utc(now))
        if tell is not None and (done or marked):
            await tell(conn, len(done) + len(marked), now)
    engine.standing.recheck(tasks)
    return done, [_passed_on(engine, each) for each in marked]


def _passed_on(engine: Engine, marked: Marked) -> Marked:
    """Tell a run's holder to end it; return whether it was under way, as well as we know."""
    begun = engine.dispatcher.has_begun(marked.id)
    if not engine.dispatcher.cancel(marked.id):
        engine.signals.cancel(marked.id)
    return marked if begun is None else Marked(marked.id, begun)


async def _has_ended(engine: Engine, service_id: UUID, key: UUID) -> bool:
    """Say whether a run that had not started has ended; its holder needs a moment for it."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + SETTLED_S
    while True:
        async with engine.database.api.connect() as conn:
            ended: Finished | None = await history.get(conn, service_id, key)
        if ended is not None or loop.time() >= deadline:
            return ended is not None
        await asyncio.sleep(LOOK_S)

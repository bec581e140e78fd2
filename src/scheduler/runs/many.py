"""`/runs/replay` and `/runs/cancel`: what is done to all runs that a filter means."""

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any
from uuid import UUID

import msgspec
from litestar import Request, post
from litestar.di import NamedDependency

from scheduler import asked
from scheduler.engine import Engine
from scheduler.errors import Conflict, TooManyRequests, ValidationFailed
from scheduler.history import Finished
from scheduler.ledger import END_STATES, LIVE_STATES, Place
from scheduler.openapi import asks
from scheduler.run import Started
from scheduler.runs import actions, told
from scheduler.runs.which import LIMIT_MOST, narrowed, page_of, read_query
from scheduler.service import Service

MOST = 10_000
"""Runs that one call acts on; the answer says where there are more."""
QUOTA_PIECE = 100
"""Runs replayed at once of a service with a quota: what is left of it is used up so far."""

AnyRequest = Request[Any, Any, Any]
Caller = NamedDependency[Service]
Machine = NamedDependency[Engine]


class Which(msgspec.Struct, forbid_unknown_fields=True, rename={"since": "from", "until": "to"}):
    """The filters of `GET /runs`; at least one is needed."""

    task: str | None = None
    trace_id: str | None = None
    state: str | None = None
    reason: str | None = None
    kind: str | None = None
    since: str | None = None
    until: str | None = None
    q: str | None = None
    dry_run: bool = False
    """Count, and do nothing."""

    def sent(self) -> dict[str, str]:
        """Return the filters as an address would say them. Raises ValidationFailed."""
        filters = msgspec.to_builtins(self)
        del filters["dry_run"]
        found = {name: value for name, value in filters.items() if value}
        if not found:
            raise ValidationFailed.of(
                "body", "needs at least one of task, trace_id, state, reason, kind, from, to, q"
            )
        return found


class Done(msgspec.Struct):
    """How many runs a filter meant, and what became of them."""

    dry_run: bool
    matched: int
    """At most 10,000."""
    more: bool
    """There are others: call again."""
    done: int = 0
    """Replayed, or cancelled before they started."""
    aborted: int = 0
    """Under way, and told to end."""
    refused: dict[str, int] = {}
    """Why some stayed as they were, and how many; what a quota refused can be asked for again."""


@post(
    "/replay",
    status_code=200,
    summary="Run again every finished run that a filter means",
    operation_class=asks(Which),
)
async def replay_runs(
    request: AnyRequest,
    service: Caller,
    engine: Machine,
) -> Done:
    """Replay up to 10,000 runs; with `dry_run` count them. Gaps are not among them."""
    which = asked.body(await request.body(), Which)
    found = Done(which.dry_run, 0, more=False)
    refused, over = Counter[str](), ""
    telling = told.Many(service, "replayed", which.sent(), engine.clock.now_ms())
    async for piece in _pieces(engine, service, which, END_STATES, found):
        for runs in _at_once(service, [run for run in piece if isinstance(run, Finished)]):
            if over:
                refused[over] += len(runs)
                continue
            try:
                moved, kept = await actions.replay(engine, service, runs, telling.tell)
                found.done = telling.count = found.done + len(moved)
                refused.update(kept)
            except Conflict as e:
                refused[e.message] += len(runs)
            except TooManyRequests as e:
                over = e.message
                refused[over] += len(runs)
    found.refused = dict(refused)
    found.more = found.more or bool(over)
    return found


def _at_once(service: Service, runs: Sequence[Finished]) -> Iterator[list[Finished]]:
    """Yield what is replayed in one transaction: all of a task, or all that are of none.

    But no more than the quota may take.
    """
    most = service.limits.max_runs_per_minute
    size = min(most, QUOTA_PIECE) if most else LIMIT_MOST
    groups: dict[UUID | None, list[Finished]] = {}
    for run in runs:
        if run.task_id is not None and run.task_key is not None:
            groups.setdefault(run.task_key if run.of_task else None, []).append(run)
    for some in groups.values():
        for start in range(0, len(some), size):
            yield some[start : start + size]


@post(
    "/cancel",
    status_code=200,
    summary="Cancel every live run that a filter means",
    operation_class=asks(Which),
)
async def cancel_runs(
    request: AnyRequest,
    service: Caller,
    engine: Machine,
) -> Done:
    """Cancel up to 10,000 runs; with `dry_run` count them."""
    which = asked.body(await request.body(), Which)
    found = Done(which.dry_run, 0, more=False)
    telling = told.Many(service, "cancelled", which.sent(), engine.clock.now_ms())
    async for piece in _pieces(engine, service, which, LIVE_STATES, found):
        ids = [run.id for run in piece if isinstance(run, Started)]
        ended, marked = await actions.cancel(engine, service.id, ids, telling.tell)
        telling.count += len(ended) + len(marked)
        found.done += len(ended) + sum(not each.running for each in marked)
        found.aborted += sum(each.running for each in marked)
    return found


async def _pieces(
    engine: Engine, service: Service, which: Which, able: Sequence[str], found: Done
) -> AsyncIterator[list[Started | Finished]]:
    """Yield the runs that are meant in pieces, counted into `found`; none for a dry run.

    Only those in one of the `able` states: a filter without a state means all of them.
    """
    sent = which.sent()
    query, words = read_query(sent, service.id)
    states = (query.states or frozenset(able)) & frozenset(able)
    if not states:
        raise ValidationFailed.of("state", f"must be one or more of {', '.join(able)}")
    query = msgspec.structs.replace(query, states=states)
    after: Place | None = None
    while True:
        async with engine.database.api.connect() as connection:
            conn = await connection.execution_options(isolation_level="REPEATABLE READ")
            sources = engine.runner.sources
            narrow = await narrowed(conn, query, sent, sources)
            now = engine.clock.now_ms()
            page = await page_of(conn, narrow, words, now, sources, after=after, count=LIMIT_MOST)
        runs = [run for _, run in page.found if not _is_gap(run)]
        runs = runs[: MOST - found.matched]
        found.matched += len(runs)
        after = page.following
        if runs and not which.dry_run:
            yield runs
        if after is None or found.matched >= MOST:
            found.more = after is not None
            return


def _is_gap(run: Started | Finished) -> bool:
    return isinstance(run, Finished) and run.gap is not None and run.gap[0] > 1

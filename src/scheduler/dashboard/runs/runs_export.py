"""The runs that a page of filters names, as a file: CSV for tables, NDJSON for programs.

A file is read page by page, each in a snapshot of its own, and sent as it is read; while a reader
is waited for, no connection to the database is held. It is cut at `MOST` runs, and says so in its
last line, as it does where the server is stopped meanwhile. Who cannot be told any more sees it by
the missing last chunk (RFC 9112, 8): browsers call such a download failed, curl exits with 18.
"""

import asyncio
import csv
import io
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager, suppress
from typing import Any
from uuid import UUID

import msgspec
import structlog
from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.response import Stream

from scheduler import db
from scheduler.clock import Slice
from scheduler.dashboard import page
from scheduler.dashboard.caller import cutting
from scheduler.dashboard.door import Visitor
from scheduler.dashboard.runs import runs
from scheduler.db import utc
from scheduler.engine import Engine
from scheduler.errors import Detail, TooManyRequests, ValidationFailed
from scheduler.runs.api import read_cursor
from scheduler.runs.model import ShownRun

log = structlog.get_logger()

MOST = 100_000
"""Runs in a file."""
COUNT = 100
"""Runs that are read at once: what is read is decoded in one go."""
AT_ONCE = 2
"""Files that a process makes for one service at the same time."""
IN_ALL = 8
TAKEN_S = 30.0
"""How long a reader may take for one piece of a file; then it is cut off."""
FILE_S = 900.0
"""How long it may take for all of it: others wait for their turn."""
STOP_S = 2.0
"""How long it may take for what is under way once the server is being stopped."""
COLUMNS = (
    "id",
    "kind",
    "task_id",
    "trace_id",
    "state",
    "reason",
    "scheduled_for",
    "started_at",
    "finished_at",
    "attempt",
    "next_attempt_at",
    "lag_ms",
    "duration_ms",
    "count",
)
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a spreadsheet takes for the beginning of a formula; some know the wide forms, too."""
KINDS = {"csv": "text/csv", "ndjson": "application/x-ndjson"}

AnyRequest = Request[Any, Any, Any]


class Exports:
    """How many files are being made, for which services."""

    def __init__(self) -> None:
        self._made: Counter[UUID] = Counter()

    @contextmanager
    def turn(self, service_id: UUID) -> Iterator[None]:
        """Make one more. Raises TooManyRequests."""
        self.check(service_id)
        self._made[service_id] += 1
        try:
            yield
        finally:
            self._made[service_id] -= 1
            if not self._made[service_id]:
                del self._made[service_id]

    def check(self, service_id: UUID) -> None:
        """Raise TooManyRequests where no more are made now."""
        if self._made[service_id] >= AT_ONCE or self._made.total() >= IN_ALL:
            count = min(self._made.total(), IN_ALL)
            said = f"{count} files are being made already; try again when one is done"
            raise TooManyRequests(said, retry_after=5)


class Shape(msgspec.Struct, frozen=True):
    """How a file is written: its first line, a piece of it, and its last word where it is cut."""

    head: str
    rows: Callable[[Sequence[ShownRun]], str]
    last: Callable[[str], str]


@get([f"/dashboard/runs/export.{kind}" for kind in KINDS], include_in_schema=False)
async def export_runs(
    request: AnyRequest,
    visitor: NamedDependency[Visitor],
    engine: NamedDependency[Engine],
    exports: NamedDependency[Exports],
) -> Response[Any]:
    """Send the runs that fit the address as a file."""
    kind = request.url.path.rpartition(".")[2]
    now = engine.clock.now_ms()
    asked, wrong = runs.asked(request.query_params)
    if wrong:
        raise ValidationFailed.all([Detail(*each) for each in wrong.items()])
    wanted = runs.due(asked, now)
    exports.check(visitor.service.id)
    first = await runs.found(engine, visitor.service.id, wanted, None, now, COUNT)
    name = f"runs-{utc(now):%Y%m%dT%H%M%SZ}.{kind}"
    pieces = _file(engine, visitor.service.id, wanted, first, SHAPES[kind], exports)
    return Stream(
        taken(pieces, engine.stopping, cutting(request)),
        headers={**page.HEADERS, "Content-Disposition": f'attachment; filename="{name}"'},
        media_type=KINDS[kind],
    )


async def taken(
    pieces: AsyncGenerator[str], stopping: asyncio.Event, cut: Callable[[], None]
) -> AsyncIterator[str]:
    """Yield pieces; `cut` off who takes too long for one, or for all of them."""
    loop = asyncio.get_running_loop()
    limit = asyncio.create_task(_limit(stopping, cut))
    try:
        async with aclosing(pieces):
            async for piece in pieces:
                patience = loop.call_later(TAKEN_S, cut)
                try:
                    yield piece
                finally:
                    patience.cancel()
    finally:
        limit.cancel()


async def _limit(stopping: asyncio.Event, cut: Callable[[], None]) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(stopping.wait(), FILE_S)
        await asyncio.sleep(STOP_S)
    cut()


async def _file(
    engine: Engine,
    service_id: UUID,
    wanted: Mapping[str, str],
    some: runs.Shown,
    shape: Shape,
    exports: Exports,
) -> AsyncGenerator[str]:
    """Yield a file, piece by piece; where it does not come to its end, its last line says why."""
    count = 0
    with exports.turn(service_id):
        yield shape.head
        while True:
            turn = Slice()
            for n in range(0, len(some.runs), 50):
                yield shape.rows(some.runs[n : min(n + 50, MOST - count)])
                await turn.give_way()
            count += len(some.runs)
            if some.following is None:
                return
            if count >= MOST:
                at = some.runs[-1].scheduled_for if some.runs else None
                yield shape.last(f"cut at {MOST:,} runs: export those to {at} for the rest")
                return
            if engine.stopping.is_set():
                yield shape.last("cut short: the server is being stopped")
                return
            after = read_cursor(some.following)
            try:
                now = engine.clock.now_ms()
                some = await runs.found(engine, service_id, wanted, after, now, COUNT)
            except Exception as e:
                away = db.is_away(e)
                if not away:
                    log.exception("an export broke")
                why = "the database is away" if away else "it broke here, and the log says why"
                yield shape.last(f"cut short: {why}")
                return


# Shapes ------------------------------------------------------------------------------------------


def _table(rows: Sequence[Sequence[object]]) -> str:
    written = io.StringIO()
    csv.writer(written).writerows([[cell(each) for each in row] for row in rows])
    return written.getvalue()


def cell(value: object) -> str:
    """Return a value for a table (RFC 4180); what would be a formula is text (OWASP, CSV
    injection).
    """
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(FORMULA) else text


def _csv(some: Sequence[ShownRun]) -> str:
    return _table([[getattr(run, column) for column in COLUMNS] for run in some])


def _ndjson(some: Sequence[ShownRun]) -> str:
    return "".join(f"{msgspec.json.encode(run).decode()}\n" for run in some)


SHAPES = {
    "csv": Shape(_table([COLUMNS]), _csv, lambda said: _table([[f"# {said}"]])),
    "ndjson": Shape("", _ndjson, lambda said: msgspec.json.encode({"cut": said}).decode() + "\n"),
}

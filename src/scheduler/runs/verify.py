"""Verify: recompute what was due, and compare it with what became of it, in a child process.

The child reads its job from standard input, writes its finding to standard output, and ends with
its parent: it watches standard input for the end. `python -m scheduler.runs.verify` is the child.
"""

import asyncio
import base64
import binascii
import os
import sys
import threading
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import accumulate, islice
from typing import Annotated
from uuid import UUID

import msgspec
import structlog
from msgspec import Meta

from scheduler import (
    config,
    installation,
    ledger,
    outlook,
    task,
)
from scheduler.db import EPOCH, Conn, Database, rfc3339
from scheduler.definition import Definition
from scheduler.errors import TooManyRequests, Unavailable, ValidationFailed
from scheduler.instant import LAST, Instant
from scheduler.ledger import Span
from scheduler.planning import Planned
from scheduler.triggers import zones

log = structlog.get_logger()

DAY_MS = 86_400_000
INSTANTS = 100_000
TASKS = 20_000
"""Tasks that one call reads."""
PIECE = 500
FINDINGS = 1000
"""Findings after which a call stops, and the next goes on."""
EDIT_MS = 5000
"""How long an edit may have taken: what was due meanwhile is not judged."""
TIMEOUT_S = 60.0
WAIT_S = 10.0


class Place(msgspec.Struct, frozen=True):
    """Where a call goes on: at a task, and after an instant of it (ms)."""

    created_at: Annotated[datetime, Meta(tz=True)]
    key: UUID
    after: Instant | None = None


BEGIN = Place(EPOCH, UUID(int=0))


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What to verify: a service's instants in (since, until], in ms since 1970."""

    url: str
    database: config.Database
    service_id: UUID
    since: int
    until: int
    kept: int
    """From when on history is kept."""
    start: Place = BEGIN


class Cursor(msgspec.Struct, frozen=True):
    """What a cursor holds: the interval stays that of the first call."""

    since: Instant
    until: Instant
    start: Place


class Missing(msgspec.Struct):
    """A due instant that has no run and lies in no gap."""

    task_id: str
    at: str | None


class Doubled(msgspec.Struct):
    """A due instant that has more than one run."""

    task_id: str
    at: str | None
    runs: int


class Verified(msgspec.Struct, kw_only=True):
    """What was found; `from` and `to` name the interval that was covered."""

    from_: str | None = msgspec.field(name="from")
    to: str | None
    checked: int
    """How many due instants were compared."""
    missing: list[Missing]
    doubled: list[Doubled]
    next_cursor: str | None


# The parent --------------------------------------------------------------------------------------

_one = asyncio.Semaphore(1)


async def verified(job: Job) -> Verified:
    """Have a child do a job. Raises TooManyRequests while another is busy, and Unavailable."""
    try:
        await asyncio.wait_for(_one.acquire(), WAIT_S)
    except TimeoutError:
        raise TooManyRequests("another verify is under way", retry_after=10) from None
    try:
        return await _child(job)
    finally:
        _one.release()


async def _child(job: Job) -> Verified:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "scheduler.runs.verify",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(TIMEOUT_S):
            said, complaint = await _talk(child, job)
    except TimeoutError:
        raise Unavailable("it took too long; ask for less between from and to") from None
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode:
        log.error("verify failed", error=complaint.decode(errors="replace")[-2000:])
        raise Unavailable("the runs could not be verified; try again in a moment")
    return msgspec.json.decode(said, type=Verified)


async def _talk(child: asyncio.subprocess.Process, job: Job) -> tuple[bytes, bytes]:
    """Send the job and keep standard input open: its end tells the child that nobody waits."""
    if child.stdin is None or child.stdout is None or child.stderr is None:
        raise RuntimeError("the child has no pipes")
    child.stdin.write(msgspec.json.encode(job) + b"\n")
    said, complaint = await asyncio.gather(child.stdout.read(), child.stderr.read())
    await child.wait()
    return said, complaint


def resumed(job: Job, sent: str) -> Job:
    """Return the job that a cursor of ours goes on with. Raises ValidationFailed."""
    try:
        raw = base64.b64decode(sent.encode("ascii"), altchars=b"-_", validate=True)
        cursor = msgspec.json.decode(raw, type=Cursor)
        cursor.start.created_at.astimezone(UTC)  # the year 0 in UTC may be the year 1 elsewhere
    except (binascii.Error, msgspec.MsgspecError, ValueError, OverflowError):
        expected = "must be the next_cursor of an answer before, as it was"
        raise ValidationFailed.of("cursor", expected) from None
    return msgspec.structs.replace(job, since=cursor.since, until=cursor.until, start=cursor.start)


# The child ---------------------------------------------------------------------------------------


class _Due(msgspec.Struct):
    """The instants of a task that are to be judged."""

    of: Definition
    span: Span
    instants: list[int]
    exhausted: bool
    """It has made all of its `max_runs`: what comes after its last run was not due."""


async def _verify(job: Job) -> Verified:
    database = Database(job.url, job.database)
    try:
        async with database.api.connect() as connection:
            conn = await connection.execution_options(isolation_level="REPEATABLE READ")
            return await check(conn, job)
    finally:
        await database.close()


async def check(conn: Conn, job: Job) -> Verified:
    """Do a job; in one snapshot, as runs move between the tables."""
    kept = await ledger.kept_from(conn)
    since = max(job.since, job.kept, job.until if kept is None else kept)
    if job.start == BEGIN:  # the pages that follow keep to the first
        job = msgspec.structs.replace(job, until=await _covered(conn, job))
    found = Verified(
        from_=rfc3339(since), to=rfc3339(max(job.until, since)), checked=0,
        missing=[], doubled=[], next_cursor=None,
    )  # fmt: skip
    start: Place | None = job.start
    zoned_since = await _zoned_since(conn)
    for _ in range(TASKS // PIECE):
        if start is None or found.checked >= INSTANTS:
            break
        if len(found.missing) + len(found.doubled) >= FINDINGS:
            break
        dues, start = await _piece(conn, job, (since, zoned_since), start, INSTANTS - found.checked)
        await _compare(conn, job.service_id, dues, found)
    if start is not None:
        cursor = Cursor(job.since, job.until, start)
        found.next_cursor = base64.urlsafe_b64encode(msgspec.json.encode(cursor)).decode()
    return found


async def _covered(conn: Conn, job: Job) -> int:
    """Return up to when all of a service's tasks are planned, as far as the job asks."""
    unplanned = await outlook.unplanned(conn, job.service_id)
    return job.until if unplanned is None else min(job.until, unplanned - 1)


async def _zoned_since(conn: Conn) -> int:
    """Return from when on (ms) tasks were planned with the time zones that are known here.

    What was due before goes by zones that nobody has any more.
    """
    planned = await installation.zones(conn)
    if planned.version != zones.VERSION or planned.since is None:
        return LAST
    return _up(planned.since)


async def _piece(
    conn: Conn, job: Job, bounds: tuple[int, int], start: Place, room: int
) -> tuple[list[_Due], Place | None]:
    """Return what some tasks owe, `room` instants at most, and where to go on.

    `bounds` are from when on (ms) tasks are judged, and those with a time zone.
    """
    tasks = await task.triggered(conn, job.service_id, (start.created_at, start.key), PIECE + 1)
    plans = await outlook.planned(conn, job.service_id, [of.key for of in tasks])
    dues: list[_Due] = []
    for of in tasks[:PIECE]:
        if not room:
            return dues, Place(of.created_at, of.key)
        after = start.after if of.key == start.key else None
        since = max(bounds) if of.zoned else bounds[0]
        due = _due(of, plans.get(of.key), max(since, after or since), job.until, room)
        if due is None:
            continue
        dues.append(due)
        room -= len(due.instants)
        if not room:
            return dues, Place(of.created_at, of.key, due.instants[-1])
    following = Place(tasks[PIECE].created_at, tasks[PIECE].key) if len(tasks) > PIECE else None
    return dues, following


def _due(of: Definition, plan: Planned | None, since: int, until: int, room: int) -> _Due | None:
    """Return what a task owes: since its last edit, and up to what is planned."""
    if plan is None or of.due is None:
        return None
    planned_until, planned_runs = plan.until, plan.runs
    edited = 0 if of.version == 1 else EDIT_MS
    since = max(since, _up(of.updated_at) + edited, _up(of.created_at))
    until = min(until, planned_until)
    if since >= until:
        return None
    instants = list(islice(of.due.between(since, until), room))
    if not instants:
        return None
    most = of.bounds.max_runs
    exhausted = most is not None and planned_runs >= most
    return _Due(of, Span(of.key, since, instants[-1]), instants, exhausted)


def _up(at: datetime) -> int:
    """Return milliseconds, rounded up."""
    return -((EPOCH - at) // timedelta(milliseconds=1))


async def _compare(conn: Conn, service_id: UUID, dues: Sequence[_Due], found: Verified) -> None:
    if not dues:
        return
    runs, gaps = await ledger.became(conn, service_id, [due.span for due in dues])
    counted = Counter(runs)
    covered: dict[UUID, list[tuple[int, int]]] = defaultdict(list)
    for key, first, last in gaps:
        covered[key].append((first, last))
    late = [due.span for due in dues if _lacking(due, counted, covered[due.of.key])]
    if late:
        for key, first, last in await ledger.reaching(conn, service_id, late):
            covered[key].append((first, last))
    for due in dues:
        found.checked += len(due.instants)
        for at in _lacking(due, counted, covered[due.of.key]):
            found.missing.append(Missing(due.of.id, rfc3339(at)))
        for at in due.instants:
            if counted[due.of.key, at] > 1:
                number = counted[due.of.key, at]
                found.doubled.append(Doubled(due.of.id, rfc3339(at), number))


def _lacking(
    due: _Due, counted: Counter[tuple[UUID, int]], gaps: Sequence[tuple[int, int]]
) -> list[int]:
    key = due.of.key
    reach = _Reach(gaps)
    lacking = [at for at in due.instants if not counted[key, at] and not reach.covers(at)]
    if lacking and due.exhausted:
        there = [at for at in due.instants if counted[key, at]]
        last = max([*there, *(last for _, last in gaps)], default=due.span.since)
        lacking = [at for at in lacking if at < last]
    return lacking


class _Reach:
    """Gaps, and how far those that begin up to a point reach at most."""

    def __init__(self, gaps: Sequence[tuple[int, int]]) -> None:
        ordered = sorted(gaps)
        self._firsts = [first for first, _ in ordered]
        self._lasts = list(accumulate((last for _, last in ordered), max))

    def covers(self, at: int) -> bool:
        place = bisect_right(self._firsts, at)
        return place > 0 and self._lasts[place - 1] >= at


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


def main() -> None:
    """Do the job on standard input."""
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.nice(5)
    sys.stdout.buffer.write(msgspec.json.encode(asyncio.run(_verify(job))))
    sys.stdout.buffer.flush()
    os._exit(0)


if __name__ == "__main__":
    main()

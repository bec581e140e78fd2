"""Callbacks: who asked for a process is told of its end, by a run of its own.

The run that tells is made once its process's run has ended: right away where it ended in this
process, else by a walk. Its id follows from the process, and the row notes in the same transaction
that it is made: whoever does it, however often, it is one run.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from uuid import UUID

import msgspec

from scheduler import clock, db, history, lines, queue
from scheduler.actions import Call, Expected, Http, Outcome
from scheduler.actions.http import HttpPerformer
from scheduler.db import Conn, Database, utc
from scheduler.history import Finished
from scheduler.instant import LAST
from scheduler.processes import model
from scheduler.processes.model import START, Due, Place
from scheduler.processes.status import Word
from scheduler.run import End, NewRun
from scheduler.specs import responses

TAG = "callback"
"""Of a definition: somebody is told of its end."""
BATCH = 500
SECONDS = 1.0
AHEAD_S = 10.0
"""How often some are looked at whose time has not come: one may have been cancelled."""
NOTED_MOST = 20_000
"""Ends that are kept in memory; the walk finds the others."""
LARGE_MOST = 2
"""Answers too long for a run that are in memory at a time, to be told."""
AGAIN_S = 1.0


class Callback(Http, tag="callback", frozen=True, omit_defaults=True, gc=False, kw_only=True):
    """An HTTP call that tells what became of a process. Its body is made when it is sent."""

    of: UUID
    """The process's run."""


class Told(msgspec.Struct, frozen=True):
    """What is told."""

    trace_id: str
    status: Word
    response_status: int | None
    """What the target answered with; None where it did not."""
    response: bytes | None
    """Its answer, exactly (as base64); None where it is not there, or not whole."""


class CallbackPerformer:
    """Tells of ends, like an HTTP task whose payload they are."""

    def __init__(self, database: Database, http: HttpPerformer) -> None:
        self._database = database
        self._http = http
        self._large = asyncio.Semaphore(LARGE_MOST)

    def prepare(self, action: Callback, expected: Expected) -> tuple[Callback, Expected]:
        """Make nothing ready: an answer may be long, and is read when it is sent."""
        return action, expected

    async def check(self, service_id: UUID, action: object) -> list[tuple[str, str]]:  # noqa: ARG002
        """Find nothing wrong: it is no task's."""
        return []

    async def perform(self, prepared: tuple[Callback, Expected], call: Call) -> Outcome | None:
        """Make the call; None where it was not to be sent after all."""
        action, expected = prepared
        try:
            async with self._database.api.connect() as conn:
                ended = await history.get(conn, call.service_id, action.of)
                if ended is None:
                    live = await lines.get(conn, call.service_id, action.of)
                    return _later() if live else _never()
            if not is_long(ended):
                return await self._tell(action, expected, call, _told(ended, call, whole(ended)))
            if self._large.locked():
                return _later()
            async with self._large:
                async with self._database.api.connect() as conn:
                    body = await answer(conn, call.service_id, ended)
                return await self._tell(action, expected, call, _told(ended, call, body))
        except Exception as e:
            if not db.is_away(e):
                raise
            return _later()

    async def _tell(
        self, action: Callback, expected: Expected, call: Call, told: Told
    ) -> Outcome | None:
        payload = msgspec.json.encode(told).decode()
        http = Http(url=action.url, method="POST", payload=payload, json=True)
        return await self._http.perform(self._http.prepare(http, expected), call)


def _told(ended: Finished, call: Call, body: bytes | None) -> Told:
    last = ended.attempts[-1] if ended.attempts else None
    word: Word = "SUCCESS" if ended.state == "succeeded" else "ERROR"
    return Told(call.task_id, word, last.status_code if last else None, body)


def _later() -> Outcome:
    """Return what comes of a call for which it is too early: nothing was tried."""
    return Outcome(succeeded=False, later_s=AGAIN_S)


def _never() -> Outcome:
    why = "the process has outlived what history keeps; nobody can be told of it"
    return Outcome(succeeded=False, error=why)


def is_long(ended: Finished) -> bool:
    """Say whether the answer to a process is longer than what its run keeps."""
    return bool(ended.attempts) and ended.attempts[-1].kept is not None


def whole(ended: Finished) -> bytes | None:
    """Return what a target answered, exactly, where the run keeps all of it; else None."""
    answered = ended.attempts and ended.attempts[-1].status_code is not None
    return (ended.response or b"") if answered and not ended.truncated else None


async def answer(conn: Conn, service_id: UUID, ended: Finished) -> bytes | None:
    """Return what a target answered, exactly; None where that is not kept, or not whole."""
    kept = ended.attempts[-1].kept if ended.attempts else None
    return whole(ended) if kept is None else await responses.body(conn, service_id, kept)


class Callbacks:
    """Makes the runs that tell of ends."""

    def __init__(self, database: Database, wake: Callable[[int], None]) -> None:
        """`wake(ms)` tells the engine that a run is due."""
        self.due = asyncio.Event()
        """Set where a process has ended here that somebody is told of."""
        self._database = database
        self._wake = wake
        self._noted: list[tuple[UUID, int]] = []
        self._after: Place = START
        self._ahead: Place = START
        self._walked_at = self._ahead_at = 0.0

    def note(self, end: End) -> None:
        """Hear of the end of a process in this process; it is written already."""
        run = end.run
        if run.work is None or TAG not in run.work.task.tags or run.task_key is None:
            return
        if len(self._noted) < NOTED_MOST:
            self._noted.append((run.task_key, run.bucket))
        self.due.set()

    async def step(self) -> None:
        """Have those told that wait for it, some at a time."""
        while self._noted:
            some = self._noted[:BATCH]
            await self._make(some)
            del self._noted[: len(some)]
        if time.monotonic() - self._walked_at >= SECONDS * 0.9:
            self._walked_at = time.monotonic()
            await self.walk()

    async def walk(self) -> None:
        """Look on among those whose time has come, from where the last look ended."""
        now, self._after = await self._look(self._after, None)
        if time.monotonic() - self._ahead_at >= AHEAD_S:
            self._ahead_at = time.monotonic()
            _, self._ahead = await self._look(max(self._ahead, (now, START[1])), LAST)

    async def _look(self, after: Place, until: int | None) -> tuple[int, Place]:
        """Have those told, of so many after a place, that have ended; `until` None is now.

        Return the time (ms) and where to go on.
        """
        async with self._database.auto.connect() as conn:
            now = await clock.database_ms(conn)
            found = await model.uncalled(conn, until or now, after, BATCH)
            live = await queue.live(conn, [of.run_id for of in found]) if found else set()
        ended = [(of.key, of.bucket) for of in found if of.run_id not in live]
        if ended:
            await self._make(ended)
        full = len(found) == BATCH
        return now, (found[-1].scheduled_at, found[-1].key) if full else START

    async def _make(self, places: Sequence[tuple[UUID, int]]) -> None:
        async with self._database.engine.begin() as conn:
            now = await clock.database_ms(conn)
            made = [_run(of, now) for of in await model.call(conn, places, now)]
            await queue.enqueue(conn, made, utc(now))
        if made:
            self._wake(now)


def _run(of: Due, now: int) -> NewRun:
    return NewRun(
        id=of.callback_id,
        bucket=of.bucket,
        service_id=of.service_id,
        task_key=of.key,
        task_id=of.trace_id,
        kind="process",
        version=1,
        overlap="allow",
        at=now,
        priority=of.priority,
    )

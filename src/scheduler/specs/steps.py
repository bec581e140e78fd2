"""The pipeline: what a run of kind `spec` does, one step of a spec's way to SUCCESS.

An older program sent these as messages: SPEC, SPEC_UPDATE and SPEC_CLIENT_GENERATED. Each step can
be done again from its beginning: what it writes names the draft, and how far that had come.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError

from scheduler import clock, db, history, lines, queue
from scheduler.actions import Call, Expected, Outcome
from scheduler.actions.step import Step
from scheduler.config import Specs
from scheduler.db import Conn, Database, utc
from scheduler.definition import Definition, Policy
from scheduler.documents.messages import Compile, Compiled, Finding, Limits, Read, Review, Reviewed
from scheduler.errors import TooManyRequests, Unavailable
from scheduler.run import NewRun, Run
from scheduler.specs import changes, model
from scheduler.specs.aide import Aides
from scheduler.specs.model import Stored
from scheduler.specs.pipeline import message_of, step, step_id

RETRIES = 3
QUEUED_S = 120.0
"""How long a step may wait for the child in which documents are read, beside the work."""
AGAIN_S = 1.0
"""When a step comes again that found too many before it, or no database."""


class StepSource:
    """Reads specs as their runs are claimed."""

    def __init__(self, settings: Specs) -> None:
        seconds = 3 * settings.compile_seconds + QUEUED_S
        self._policy = Policy(max_retries=RETRIES, timeout_seconds=seconds)

    async def definitions(self, conn: Conn, runs: Sequence[Run]) -> Mapping[UUID, Definition]:
        """Map runs' ids to what they do; those of deleted specs are left out."""
        keys = {run.task_key for run in runs if run.task_key is not None}
        there = await changes.there(conn, keys, {run.bucket for run in runs})
        return {
            run.id: self._definition(run, run.task_key) for run in runs if run.task_key in there
        }

    def _definition(self, run: Run, key: UUID) -> Definition:
        message = message_of(run.service_id, key, run.version, run.id)
        at = utc(run.scheduled_for)
        return Definition(
            key=key,
            bucket=run.bucket,
            service_id=run.service_id,
            id=run.task_id or "",
            version=run.version,
            name=message,
            description=None,
            tags=[],
            status="active",
            trigger=None,
            action=Step(spec=key, draft=run.version, message=message),
            policy=self._policy,
            created_at=at,
            updated_at=at,
        )

    async def key(self, conn: Conn, service_id: UUID, trace_id: str) -> UUID | None:
        """Return the key of a service's spec, or None."""
        found = await model.of_trace(conn, service_id, trace_id)
        return None if found is None else found.key


class StepPerformer:
    """Takes a spec a step further. `wake(ms)` is called when it has made the run of the next."""

    def __init__(
        self, settings: Specs, database: Database, aides: Aides, wake: Callable[[int], None]
    ) -> None:
        self._settings = settings
        self._limits = Limits(settings.max_bytes, settings.max_depth, settings.max_operations)
        self._database = database
        self._aides = aides
        self._wake = wake

    def prepare(self, action: Step, expected: Expected) -> Step:  # noqa: ARG002
        """Keep what is to be done."""
        return action

    async def check(self, service_id: UUID, action: Step) -> list[tuple[str, str]]:  # noqa: ARG002
        """Find nothing wrong: nobody sends one."""
        return []

    async def perform(self, prepared: Step, call: Call) -> Outcome | None:
        """Do what the step does."""
        if not call.may_send():
            return None
        try:
            async with asyncio.timeout_at(call.deadline) as limit:
                return await self._perform(prepared, call.service_id)
        except TimeoutError:
            if not limit.expired():  # it was the database's
                return Outcome(succeeded=False, later_s=AGAIN_S)
            return _failed("it did not end in time; too many documents are being read", again=True)
        except TooManyRequests as e:
            return Outcome(succeeded=False, later_s=e.retry_after or AGAIN_S)
        except Unavailable as e:
            return _failed(e.message, again=True)
        except (SQLAlchemyError, OSError) as e:
            if db.is_away(e) or db.is_contended(e):
                return Outcome(succeeded=False, later_s=AGAIN_S)
            raise

    async def _perform(self, what: Step, service_id: UUID) -> Outcome:
        async with self._database.auto.connect() as conn:
            of = await changes.by_key(conn, service_id, what.spec)
        if of is None:
            return _failed("the spec was deleted")
        if what.message == "SPEC_UPDATE":
            return await self._update(of)
        if of.draft != what.draft:
            return _done()  # a newer document has come
        if what.message == "SPEC":
            return await self._read(of)
        return await self._review(of)

    # SPEC ----------------------------------------------------------------------------------------

    async def _read(self, of: Stored) -> Outcome:
        if of.reached not in ("WAITING", "IN_PROGRESS", "READY_YAML"):
            return _done()
        async with self._database.auto.connect() as conn:
            source = await changes.source(conn, of, of.draft)
        if source is None:
            return _done()
        if of.reached != "READY_YAML":
            received = await self._reached(of, "IN_PROGRESS")
            if received is None:
                return _done()
            of = received
            found = await self._ask(of, Read(source, self._limits))
            if isinstance(found, Finding):
                return await self._found(of, found)
        ready = await self._reached(of, "READY_YAML")
        if ready is None:
            return _done()
        compiled = await self._ask(ready, Compile(source, self._limits))
        if isinstance(compiled, Finding):
            return await self._found(ready, compiled)
        if not isinstance(compiled, Compiled):
            raise TypeError(f"not what Compile is answered: {type(compiled).__name__}")
        await self._keep(ready, compiled)
        return _done()

    async def _reached(self, of: Stored, status: model.Status) -> Stored | None:
        async with self._database.engine.begin() as conn:
            return await changes.reach(conn, of, status, await clock.database_ms(conn))

    async def _keep(self, of: Stored, compiled: Compiled) -> None:
        """Keep what came of a document, and have it reviewed: both or neither."""
        async with self._database.engine.begin() as conn:
            now = await clock.database_ms(conn)
            ready = await changes.reach(conn, of, "READY_CLIENT", now)
            if ready is None:
                return
            await changes.keep(conn, ready, compiled)
            automatic = self._settings.review == "automatic"
            if automatic:
                await queue.enqueue(conn, [review_of(ready, now)], utc(now))
        if automatic:
            self._wake(now)

    # SPEC_CLIENT_GENERATED -----------------------------------------------------------------------

    async def _review(self, of: Stored) -> Outcome:
        if of.reached != "READY_CLIENT":
            return _done()
        found = await self._reviewed(of, of.draft)
        if found is None:
            return _done()
        if isinstance(found, Finding):
            return await self._found(of, found)
        async with self._database.engine.begin() as conn:
            await changes.serve(conn, of, found.refused, await clock.database_ms(conn))
        return _done()

    async def _reviewed(self, of: Stored, draft: int) -> Reviewed | Finding | None:
        """Have a document reviewed; None where it is gone, for a newer one has come."""
        async with self._database.auto.connect() as conn:
            document = await model.document(conn, of.service_id, of.key, draft)
            operations = await changes.operations(conn, of, draft)
        if document is None:
            return None
        found = await self._ask(of, Review(document, operations, of.url))
        if not isinstance(found, Reviewed | Finding):
            raise TypeError(f"not what Review is answered: {type(found).__name__}")
        return found

    # SPEC_UPDATE ---------------------------------------------------------------------------------

    async def _update(self, of: Stored) -> Outcome:
        """Write anew what is told of a spec: what can be called may hang on its url."""
        found = None if of.serving is None else await self._reviewed(of, of.serving)
        async with self._database.engine.begin() as conn:
            if isinstance(found, Reviewed) and of.serving is not None:
                await changes.review(conn, of, of.serving, found.refused)
            await changes.touch(conn, of, await clock.database_ms(conn))
        return _done()

    # Beside --------------------------------------------------------------------------------------

    async def _ask(self, of: Stored, ask: Read | Compile | Review) -> object:
        return await self._aides.ask(of.service_id, ask, self._settings.compile_seconds)

    async def _found(self, of: Stored, finding: Finding) -> Outcome:
        async with self._database.engine.begin() as conn:
            await changes.fail(conn, of, finding.message, await clock.database_ms(conn))
        return _failed(finding.message)


def review_of(of: Stored, now: int) -> NewRun:
    """Return the run that reviews a draft, due now (ms)."""
    return step(of.service_id, of.key, of.trace_id, of.draft, "SPEC_CLIENT_GENERATED", now)


def _done() -> Outcome:
    return Outcome(succeeded=True)


def _failed(error: str, *, again: bool = False) -> Outcome:
    return Outcome(succeeded=False, error=error.replace("\x00", "\ufffd"), retryable=again)


# Looking after them -------------------------------------------------------------------------------

PIECE = 100
START = UUID(int=0)


class Overseer:
    """Sees that no spec is on its way for ever: of one whose run ended otherwise, that is its end.

    A run ends without its step where someone cancels it, where its tries ran out, and where it
    broke. Each replica walks the specs that are on their way, so many at a time.
    """

    SECONDS = 1.0

    def __init__(self, database: Database) -> None:
        self._database = database
        self._after = START

    async def look(self) -> None:
        """Look at the next ones."""
        async with self._database.auto.connect() as conn:
            found = await changes.unfinished(conn, self._after, PIECE)
            ends = [(of, why) for of in found if (why := await self._end(conn, of)) is not None]
        self._after = found[-1].key if len(found) == PIECE else START
        for of, why in ends:
            async with self._database.engine.begin() as conn:
                await changes.fail(conn, of, why, await clock.database_ms(conn))

    async def _end(self, conn: Conn, of: Stored) -> str | None:
        """Return why the run of a spec's next step ended; None where it did not, or did well."""
        run = step_id(
            of.service_id,
            of.key,
            of.draft,
            "SPEC_CLIENT_GENERATED" if of.reached == "READY_CLIENT" else "SPEC",
        )
        if await lines.get(conn, of.service_id, run) is not None:
            return None
        ended = await history.get(conn, of.service_id, run)
        if ended is None or ended.state == "succeeded":
            return None
        return ended.reason or f"its run ended: {ended.state}"

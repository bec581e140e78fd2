"""Performing an operation: the call is built from the spec, checked, looked up, and sent."""

import asyncio
from datetime import timedelta
from uuid import UUID

from scheduler import db
from scheduler.actions import Call, Expected, Operation, Outcome
from scheduler.actions.http import named, refused
from scheduler.config import Settings
from scheduler.db import Database
from scheduler.documents.messages import Form
from scheduler.documents.operation import WrongCall
from scheduler.errors import TooManyRequests, Unavailable, UserError
from scheduler.outbound import NotNowError, Outbound, Response, SendError
from scheduler.sealing import SealError
from scheduler.specs import model, responses
from scheduler.specs.aide import Aides
from scheduler.specs.asked import (
    PREFIX,
    Asked,
    built,
    cut,
    failed,
    field_of,
    handed,
    hash_of,
    made,
    no_endpoint,
    not_answered,
    since,
    spoiled,
    type_of,
)
from scheduler.specs.checks import Checks, ReplacedError
from scheduler.specs.lookup import Lookup
from scheduler.specs.model import Called
from scheduler.specs.responses import Key, Shared
from scheduler.specs.room import Room
from scheduler.specs.sharing import Sharing
from scheduler.specs.unpacking import PackedError, codings, most_of, unpack
from scheduler.specs.waits import Waits
from scheduler.specs.way import Way
from scheduler.target import prepare
from scheduler.ticks import Chore

AWAY_S = 1.0
"""When a call looks again that could not read its spec: the database is away."""
LOOKS = 3
"""A call whose document was replaced before it was checked is built anew, so often."""
KEEP_MOST_S = 5.0
"""Between two tries to keep an answer."""
KEPT_AT_ONCE = 1
"""Long answers written at the same time."""
SHAREABLE = frozenset({"GET", "HEAD"})
FLIGHTS = 2
"""An equal call waits for so many others to end; then it goes by itself."""
CACHE_S = 30.0
"""How often shared answers that are too old are deleted, or too many."""
ANSWERS_S = 600.0
"""How often long answers that are too old are deleted."""


class OperationPerformer:
    """Calls endpoints of specs."""

    def __init__(
        self, settings: Settings, database: Database, outbound: Outbound, aides: Aides
    ) -> None:
        self._settings = settings
        self._database = database
        self._outbound = outbound
        way = Way(database)
        self._way, self._keeping = way, asyncio.Semaphore(KEPT_AT_ONCE)
        self._specs = Lookup(way)
        self._checks = Checks(way, aides, settings.processes.check_max_bytes)
        self._waits = Waits(settings.processes.spec_wait_seconds)
        self.sharing = Sharing(settings.cache, way)
        self._room = Room(settings.quotas.max_kept_bytes, way)
        self._flights: dict[tuple[Key, bool], asyncio.Future[Shared | None]] = {}
        """Calls that others wait for: those of processes, and of tasks, which keep less."""

    def prepare(self, action: Operation, expected: Expected) -> tuple[Operation, Expected]:
        """Keep what is called: the spec may change before each call."""
        return action, expected

    @property
    def chores(self) -> list[Chore]:
        """Return what has to be done every so often."""
        return [
            Chore("cache", CACHE_S, self.sharing.prune),
            Chore("answers", ANSWERS_S, self._prune),
            Chore("kept", Room.SECONDS, self._room.look),
        ]

    async def _prune(self) -> None:
        """Delete the long answers whose runs are gone."""
        kept = timedelta(days=self._settings.history.retention_days) + responses.OUTLIVED
        more = True
        while more:
            async with self._way.open() as conn:
                more = await responses.prune(conn, kept)

    # Before it is stored -------------------------------------------------------------------------

    async def check(self, service_id: UUID, action: Operation) -> list[tuple[str, str]]:
        """Return what is wrong with an operation that is about to be stored."""
        async with self._database.api.connect() as conn:
            try:
                called = await model.called(
                    conn, self._database.vault, service_id, action.service, action.name
                )
            except SealError as e:
                return [("service", str(e))]
            if called is None:
                return [("service", f"there is no spec {action.service}; add it first")]
            if called.serving is None:
                if called.status != "ERROR":
                    return []  # it is on its way
                return [("service", f"the spec {action.service} ended in ERROR; mend it first")]
        return await self.misfits(service_id, action, called)

    async def misfits(
        self, service_id: UUID, action: Operation, called: Called
    ) -> list[tuple[str, str]]:
        """Return what is wrong with an operation of a document: fields, sentences.

        Raises TooManyRequests and Unavailable where it cannot be checked.
        """
        if called.operation is None:
            async with self._database.api.connect() as conn:
                there = await model.operations(conn, service_id, called.spec, called.serving or 0)
            return [("endpoint", no_endpoint(action, [each.endpoint for each in there]))]
        try:
            request = built(action, called)
            prepare(request.method, request.url, dict(request.headers), request.body)
            finding = await self._checks.finding(service_id, called, request, hash_of(request))
        except ReplacedError:
            why = "the document of the spec has just been replaced; send this again"
            raise Unavailable(why) from None
        except (WrongCall, ValueError) as e:
            finding = cut(str(e))
        return [] if finding is None else [(field_of(called.operation, finding), finding)]

    async def form(self, service_id: UUID, called: Called) -> Form:
        """Return what an operation can be called with.

        Raises TooManyRequests and Unavailable where nobody can say.
        """
        try:
            return await self._checks.form(service_id, called)
        except ReplacedError:
            raise Unavailable("the document has just been replaced; load this again") from None

    # The call ------------------------------------------------------------------------------------

    async def perform(self, prepared: tuple[Operation, Expected], call: Call) -> Outcome | None:
        """Make the call; None where it was not to be sent after all."""
        action, _ = prepared
        for _ in range(LOOKS):
            try:
                return await self._looked_up(prepared, call)
            except ReplacedError:
                self._specs.forget((call.service_id, action.service, action.name))
        return failed("the document of the spec is replaced again and again", retryable=True)

    async def _looked_up(self, prepared: tuple[Operation, Expected], call: Call) -> Outcome | None:
        """Make the call through its spec as it stands. Raises ReplacedError."""
        action, expected = prepared
        try:
            wanted = call.service_id, action.service, action.name
            called = await self._specs.called(wanted, since(call))
        except SealError as e:
            return failed(str(e))
        except Exception as e:
            if not db.is_away(e):
                raise
            return Outcome(succeeded=False, later_s=AWAY_S)
        if called is None or called.serving is None:
            return self._not_there(action, called, call)
        self._waits.over(call)
        try:
            request = built(action, called)
            asked = made(action, expected, call, called, request)
        except (WrongCall, ValueError) as e:
            return failed(str(e))
        if not self._reads(asked):
            return await self._send(asked)
        return await self._shared(asked)

    def _not_there(self, action: Operation, called: Called | None, call: Call) -> Outcome:
        """Return what comes of a call whose spec cannot be called yet, or at all."""
        if called is not None and called.status != "ERROR":
            wait_s = self._waits.next_s(call)
            if wait_s is not None:
                return Outcome(succeeded=False, later_s=wait_s)
        self._waits.over(call)
        return Outcome(
            succeeded=False,
            error="The command could not be executed because the service requested "
            f"({action.service}) is not available.",
        )

    # Sharing -------------------------------------------------------------------------------------

    def _fills(self, asked: Asked) -> bool:
        """Say whether others may be given its answer."""
        cache = asked.action.cache
        wanted = asked.process if cache is None else cache
        return wanted and self._settings.cache.ttl_seconds > 0 and asked.request.method in SHAREABLE

    def _reads(self, asked: Asked) -> bool:
        """Say whether it may be given the answer to another one."""
        return self._fills(asked) and (asked.action.cache is True or not asked.call.again)

    async def _shared(self, asked: Asked) -> Outcome | None:
        """Return an answer that is there, or that an equal call under way gets, or else call."""
        place = asked.key, asked.process
        for _ in range(FLIGHTS):
            here = handed(asked, self.sharing.at_hand(asked.key))
            if here is not None:
                return here
            flight = self._flights.get(place)
            if flight is None:
                return await self._lead(asked, place)
            left_s = asked.call.deadline - asyncio.get_running_loop().time()
            await asyncio.wait([flight], timeout=max(left_s, 0))
            if not flight.done():
                return failed("an equal call did not end before the time was up", retryable=True)
            given = handed(asked, flight.result())
            if given is not None:
                return given
        return await self._send(asked)

    async def _lead(self, asked: Asked, place: tuple[Key, bool]) -> Outcome | None:
        """Make a call that equal ones wait for; where it fails, the next of them makes it."""
        flight = self._flights[place] = asyncio.get_running_loop().create_future()
        shared = None
        try:
            found = await self.sharing.find(asked.key)
            given = handed(asked, found)
            if given is not None:
                shared = found
                return given
            outcome = await self._send(asked)
            shared = self._to_share(outcome)
            return outcome
        finally:
            del self._flights[place]
            flight.set_result(shared)

    def _to_share(self, outcome: Outcome | None) -> Shared | None:
        """Return what others may be given of an outcome."""
        if outcome is None or not outcome.succeeded or outcome.status_code is None:
            return None
        body = outcome.body or b""
        most = self._settings.runs.response_max_bytes
        if outcome.truncated or (len(body) > most and outcome.kept is None):
            return None
        return Shared(outcome.status_code, outcome.content_type, body[:most], outcome.kept)

    # Sending -------------------------------------------------------------------------------------

    async def _send(self, asked: Asked) -> Outcome | None:
        call, target = asked.call, asked.target
        full = self._room.full(call.service_id) if asked.process else None
        if full is not None:
            return failed(full)
        try:
            async with asyncio.timeout_at(call.deadline):
                finding = await self._checks.finding(
                    call.service_id, asked.called, asked.request, asked.digest
                )
        except TimeoutError:
            return failed("no time was left to check the call, and to send it", retryable=True)
        except TooManyRequests as e:  # its service's others are checked first
            return Outcome(succeeded=False, later_s=e.retry_after or AWAY_S)
        except UserError as e:
            return failed(f"the call could not be checked: {e.message}", retryable=True)
        if finding is not None:
            return failed(finding)
        ours = named(call)
        headers = {name: v for name, v in ours.items() if name.lower() not in target.headers}
        most = self._limit(asked)
        try:
            response = await self._outbound.send(
                target, headers, call.deadline, call.may_send, most, call.marks
            )
        except NotNowError:
            return None
        except SendError as e:
            return not_answered(asked, e)
        outcome = await self._outcome(asked, response)
        if outcome.succeeded:
            outcome = await self._kept(asked, outcome)
        if self._fills(asked):
            shared = self._to_share(outcome)
            if shared is not None:
                self.sharing.put(asked.key, shared, len(outcome.body or b""))
        return outcome

    def _limit(self, asked: Asked) -> int:
        settings = self._settings
        if asked.process:
            return settings.processes.response_max_bytes
        return settings.http.max_response_bytes

    async def _outcome(self, asked: Asked, response: Response) -> Outcome:
        """Return what an answer comes to."""
        wrong = None
        try:
            response = await self._unpacked(response, self._limit(asked), asked.call)
        except PackedError as e:
            wrong = e
        except TimeoutError:
            wrong = PackedError("no time was left to unpack the answer", retryable=True)
        content_type = type_of(response)
        if response.status not in asked.expected:
            outcome = refused(response, asked.expected)
            outcome.error = PREFIX + (outcome.error or "")
            outcome.content_type = content_type
            return outcome
        outcome = Outcome(
            succeeded=True,
            status_code=response.status,
            body=response.body,
            truncated=response.truncated,
            content_type=content_type,
        )
        if not asked.process:  # how it ended counts; what is kept of the body is for reading
            return outcome
        if wrong is not None:
            return spoiled(outcome, str(wrong), retryable=wrong.retryable and not asked.action.once)
        if response.truncated:
            most = self._settings.processes.response_max_bytes
            why = f"the answer is longer than processes.response_max_bytes ({most} bytes)"
            return spoiled(outcome, why)
        return outcome

    async def _unpacked(self, response: Response, limit: int, call: Call) -> Response:
        """Return a response as it was before it was compressed.

        Raises PackedError, and TimeoutError where there is no room for it in time.
        """
        header = ",".join(response.headers.getall("Content-Encoding", []))
        if not header or not response.body or not codings(header):
            return response
        if response.truncated:
            raise PackedError("the answer is too long to be unpacked", retryable=False)
        packed, answers = len(response.body), self._outbound.answers
        if call.marks is not None:
            await answers.take(call.marks, packed + most_of(packed, header, limit), call.deadline)
        body = await asyncio.to_thread(unpack, response.body, header, limit)
        if call.marks is not None:
            answers.shrink(call.marks, len(body))
        return Response(response.status, response.headers, body[:limit], len(body) > limit)

    async def _kept(self, asked: Asked, outcome: Outcome) -> Outcome:
        """Keep an answer that is longer than a run keeps: it is not asked for twice.

        The database may be away for as long as the call may take.
        """
        body, call = outcome.body or b"", asked.call
        if not asked.process or len(body) <= self._settings.runs.response_max_bytes:
            return outcome
        full = self._room.take(call.service_id, len(body))
        if full is not None:
            return spoiled(outcome, f"the answer came, and cannot be kept: {full}")
        place, wait_s = responses.response_id(call.run_id, call.attempt), 0.05
        while True:
            try:
                async with self._keeping, self._way.open() as conn:
                    await responses.keep(conn, call.service_id, place, body)
            except Exception as e:
                if not db.is_away(e):
                    raise
            else:
                outcome.kept = place
                return outcome
            if asyncio.get_running_loop().time() + wait_s > call.deadline:
                why = "the answer came, and could not be kept: the database is away"
                return spoiled(outcome, why, retryable=not asked.action.once)
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, KEEP_MOST_S)

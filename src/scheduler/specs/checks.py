"""Checking requests before they are sent: what was found of a request is not asked for again."""

import asyncio
from collections import OrderedDict
from uuid import UUID

import msgspec

from scheduler.documents.messages import (
    Answer,
    Check,
    Describe,
    Finding,
    Form,
    Learn,
    Request,
    Unasked,
    Unknown,
)
from scheduler.errors import Unavailable
from scheduler.masking import MASK, is_secret
from scheduler.specs import model
from scheduler.specs.aide import LARGE, Aides, large
from scheduler.specs.asked import cut
from scheduler.specs.model import Called
from scheduler.specs.way import Way

CHECK_S = 5.0
"""Of CPU time, for one request; for each LARGE bytes of its body, where that is longer."""
LEARN_S = 30.0
"""Of CPU time, for one document."""
REMEMBERED = 10_000
"""Requests; of each a hash, and what was found."""
AT_ONCE = 90
"""Requests of one service that wait for the child, which takes fewer than 100; others wait here."""
SERVICES = 10_000
"""Whose requests are counted."""
TRIES = 3
"""A child that has to start anew, or is asked too much, forgets documents."""
SHORT = 4
"""A shorter secret may be a word of the message itself."""

Verdict = tuple[UUID, int, str, bytes]
"""Spec, draft, endpoint, hash of the request."""


class ReplacedError(Exception):
    """Another document has taken the place of the one that a request was built from."""


class Checks:
    """Asks the child, once for each request."""

    def __init__(self, way: Way, aides: Aides, most_bytes: int) -> None:
        """`most_bytes`: a longer body is not looked at."""
        self._most_bytes = most_bytes
        self._way = way
        self._aides = aides
        self._found: OrderedDict[Verdict, str | None] = OrderedDict()
        self._learning: dict[str, asyncio.Task[None]] = {}
        self._lines: dict[UUID, asyncio.Semaphore] = {}

    async def finding(
        self, service_id: UUID, called: Called, request: Request, digest: bytes
    ) -> str | None:
        """Return what is wrong with a request, None where nothing is.

        Raises ReplacedError where the document is gone, TooManyRequests and Unavailable where the
        child cannot be asked.
        """
        if called.serving is None or called.operation is None:
            raise ValueError("there is nothing to check it against")
        key = called.spec, called.serving, called.operation.endpoint, digest
        if key not in self._found:
            async with self._line(service_id):
                found = await self._ask(service_id, called, called.operation.endpoint, request)
            self._found[key] = found
            if len(self._found) > REMEMBERED:
                self._found.popitem(last=False)
        self._found.move_to_end(key)
        return self._found[key]

    def _line(self, service_id: UUID) -> asyncio.Semaphore:
        if len(self._lines) > SERVICES:
            self._lines.clear()
        return self._lines.setdefault(service_id, asyncio.Semaphore(AT_ONCE))

    async def _ask(
        self, service_id: UUID, called: Called, endpoint: str, request: Request
    ) -> str | None:
        check = Check(
            f"{called.spec}/{called.serving}", endpoint, request, most_bytes=self._most_bytes
        )
        answer = await self._answer(service_id, called, check)
        if isinstance(answer, Finding) and answer.spent:
            raise Unavailable(f"to check it {answer.message.partition(';')[0]}")
        return _masked(answer.message, request) if isinstance(answer, Finding) else None

    async def form(self, service_id: UUID, called: Called) -> Form:
        """Return what an operation can be called with. Raises as `finding` does."""
        if called.serving is None or called.operation is None:
            raise ValueError("there is nothing to describe")
        document = f"{called.spec}/{called.serving}"
        async with self._line(service_id):
            ask = Describe(document, called.operation.endpoint)
            answer = await self._answer(service_id, called, ask)
        if not isinstance(answer, Form):
            raise Unavailable("the document does not say in time what this operation takes")
        return answer

    async def _answer(self, service_id: UUID, called: Called, ask: Check | Describe) -> Answer:
        """Ask the child, and have it learn the document where it does not know it."""
        seconds = CHECK_S
        if isinstance(ask, Check):
            seconds *= max(min(len(ask.request.body), self._most_bytes) / LARGE, 1)
        for number in range(TRIES):
            answer = await self._aides.ask(service_id, ask, seconds)
            if not isinstance(answer, Unknown | Unasked):
                return answer
            if isinstance(answer, Unknown) and not number and not large(ask):
                await self._learn(service_id, called, ask.document)
            elif isinstance(answer, Unknown):  # what was learnt is forgotten: too much else was
                source = await self._document(service_id, called)
                ask = msgspec.structs.replace(ask, source=source)
        raise Unavailable("the child process that checks requests does not answer; see the log")

    async def _learn(self, service_id: UUID, called: Called, document: str) -> None:
        """Have the child learn a document; those who need it at the same time wait for one."""
        learning = self._learning.get(document)
        if learning is None:
            learning = asyncio.create_task(self._taught(service_id, called, document))
            self._learning[document] = learning
            learning.add_done_callback(lambda _: self._learning.pop(document, None))
        await asyncio.shield(learning)

    async def _taught(self, service_id: UUID, called: Called, document: str) -> None:
        found = await self._document(service_id, called)
        answer = await self._aides.ask(service_id, Learn(document, found), LEARN_S)
        if isinstance(answer, Finding):
            raise Unavailable(answer.message)

    async def _document(self, service_id: UUID, called: Called) -> bytes:
        async with self._way.open() as conn:
            found = await model.document(conn, service_id, called.spec, called.serving or 0)
        if found is None:
            raise ReplacedError
        return found


def _masked(message: str, request: Request) -> str:
    """Return a message without the secrets that it may quote."""
    for name, value in request.headers:
        if is_secret(name) and len(value) >= SHORT:
            message = message.replace(value, MASK)
    return cut(message)

"""Aides: the child processes in which documents are read, compiled, and requests checked.

The libraries that know OpenAPI are loaded there alone.
"""

import asyncio
from collections import OrderedDict
from typing import Self
from uuid import UUID

import msgspec
import structlog

from scheduler.asking import Asking, Moved, Waiting
from scheduler.config import Specs
from scheduler.documents.messages import (
    Answer,
    Ask,
    Asked,
    Check,
    Compile,
    Describe,
    Finding,
    Learn,
    Read,
    Review,
    Said,
    Unasked,
)

log = structlog.get_logger()

IDLE_S = 60.0
WALL = 3.0
"""A child may take so many times the CPU time it has, and a bit."""
BIT_S = 5.0
TRIES = 2
"""A child may be killed for what another document, or the machine, did to it."""
CHECKS_AT_ONCE = 64
LARGE = 256 << 10
"""Bytes of a body: a longer one is checked apart, for it takes seconds."""
QUICK_S = 0.5
"""CPU time that a check may take among those of others; most take a thousandth."""
APART_S = 60.0
"""How long a service whose check took more has its requests checked apart."""
APART_MOST = 10_000
"""Services."""


def large(ask: Ask) -> bool:
    """Say whether a request is checked apart from those of others for what it sends."""
    return isinstance(ask, Check) and LARGE < len(ask.request.body) <= ask.most_bytes


class _Aide(Asking[Asked, Answer]):
    """One child."""

    idle_s = IDLE_S

    def __init__(self, module: str, what: str, done: str, at_once: int = 1) -> None:
        super().__init__(module)
        self.what, self.done, self.at_once = what, done, at_once

    async def _heard(self, questions: list[Asked]) -> list[Answer]:
        if len(questions) > 1:
            together = await self._exchange(questions)
            if together is not None:
                return together
        # Alone, whoever ends the child ends nobody else's question.
        return [await self._one(question) for question in questions]

    async def _settle(self, together: list[Waiting[Asked, Answer]]) -> None:
        await super()._settle(together)
        if self.pid is None:  # whoever hears that something took too long may move what waits
            await asyncio.sleep(0)

    async def _one(self, question: Asked) -> Answer:
        for _ in range(TRIES):
            answers = await self._exchange([question])
            if answers is not None:
                return answers[0]
        why = "takes too long, or too much memory; send a smaller document"
        return Finding(why, spent=True)

    async def _exchange(self, questions: list[Asked]) -> list[Answer] | None:
        """Return the answers; None where the child had to be ended, or died."""
        await self._child.start()
        body = msgspec.msgpack.encode(questions)
        seconds = sum(one.seconds for one in questions) * WALL + BIT_S
        try:
            said = msgspec.msgpack.decode(await self._child.exchange(body, seconds), type=Said)
        except (TimeoutError, OSError, asyncio.IncompleteReadError) as e:
            log.warning("a child was lost; it starts anew", what=self.what, why=type(e).__name__)
            return None
        if said.last:
            await self._child.end()
        return said.answers


class Aides:
    """One for each process: a child for each kind of work, started when it is asked first.

    Open it with `async with`.
    """

    def __init__(self, settings: Specs) -> None:
        self._settings = settings
        self._reader = _Aide("scheduler.documents.reader", "documents", "read")
        self._compiler = _Aide("scheduler.documents.compiler", "documents", "compiled")
        self._checker = _Aide("scheduler.documents.checker", "requests", "checked", CHECKS_AT_ONCE)
        self._patient = _Aide("scheduler.documents.checker", "requests", "checked")
        self._apart: OrderedDict[UUID, float] = OrderedDict()
        """Services whose requests the patient child checks, and until when."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        every = (self._reader, self._compiler, self._checker, self._patient)
        await asyncio.gather(*(aide.close() for aide in every))

    async def ask(self, service_id: UUID, ask: Ask, seconds: float) -> Answer:
        """Have something done, services in turn, and return what came of it.

        A Finding says that it took longer than `seconds` of its own, or too much memory. Raises
        TooManyRequests and Unavailable where too many wait.
        """
        match ask:
            case Read():
                aide = self._reader
            case Compile() | Review():
                aide = self._compiler
            case Check() | Describe() | Learn():
                return await self._checked(service_id, Asked(ask, seconds))
        return await aide.answer(service_id, Asked(ask, seconds))

    async def _checked(self, service_id: UUID, asked: Asked) -> Answer:
        """Have a request checked: among those of others, and what takes long apart from them.

        A pattern may make a check as long as it likes, and the child that was in the middle of one
        has to be ended: the others would wait, and have their documents learnt anew, each time.
        """
        quick = asked
        if isinstance(asked.ask, Check | Describe) and asked.seconds > QUICK_S:
            quick = Asked(asked.ask, QUICK_S)
        while True:
            if self._is_apart(service_id) or large(asked.ask):
                return await self._patient.answer(service_id, asked)
            try:
                answer = await self._checker.answer(service_id, quick)
            except Moved:
                continue
            if isinstance(answer, Unasked):
                continue
            if not (isinstance(answer, Finding) and answer.spent):
                return answer
            self._set_apart(service_id)
            if quick is asked:
                return answer

    def _is_apart(self, service_id: UUID) -> bool:
        until = self._apart.get(service_id)
        return until is not None and until > asyncio.get_running_loop().time()

    def _set_apart(self, service_id: UUID) -> None:
        self._apart.pop(service_id, None)
        self._apart[service_id] = asyncio.get_running_loop().time() + APART_S
        if len(self._apart) > APART_MOST:
            self._apart.popitem(last=False)
        self._checker.move(service_id)

"""Aides: the child processes in which documents are read, compiled, and requests checked.

The libraries that know OpenAPI are loaded there alone.
"""

import asyncio
from typing import Self
from uuid import UUID

import msgspec
import structlog

from scheduler.asking import Asking
from scheduler.config import Specs
from scheduler.documents.messages import (
    Answer,
    Asked,
    Check,
    Compile,
    Finding,
    Learn,
    Read,
    Review,
    Said,
)

log = structlog.get_logger()

IDLE_S = 60.0
WALL = 3.0
"""A child may take so many times the CPU time it has, and a bit."""
BIT_S = 5.0
TRIES = 2
"""A child may be killed for what another document, or the machine, did to it."""
CHECKS_AT_ONCE = 64


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

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(self._reader.close(), self._compiler.close(), self._checker.close())

    async def ask(
        self, service_id: UUID, ask: Read | Compile | Review | Check | Learn, seconds: float
    ) -> Answer:
        """Have something done, services in turn, and return what came of it.

        A Finding says that it took longer than `seconds` of its own, or too much memory. Raises
        TooManyRequests and Unavailable where too many wait.
        """
        match ask:
            case Read():
                aide = self._reader
            case Compile() | Review():
                aide = self._compiler
            case Check() | Learn():
                aide = self._checker
        return await aide.answer(service_id, Asked(ask, seconds))

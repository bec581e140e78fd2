"""Aides: the child processes in which documents are read, compiled, and requests checked."""

from typing import Self
from uuid import UUID

from scheduler.config import Specs
from scheduler.specs.messages import Answer, Check, Compile, Learn, Read, Review


class Aides:
    """One for each process: a child for each kind of work, started when it is asked first.

    Open it with `async with`.
    """

    def __init__(self, settings: Specs) -> None:
        self._settings = settings

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def ask(
        self, service_id: UUID, ask: Read | Compile | Review | Check | Learn, seconds: float
    ) -> Answer:
        """Have something done, services in turn, and return what came of it.

        A Finding says that it took longer than `seconds` of its own, or too much memory. Raises
        TooManyRequests and Unavailable where too many wait.
        """
        raise NotImplementedError(service_id, ask, seconds)

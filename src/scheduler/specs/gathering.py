"""Gathering: what many ask for at the same time is asked of the database in one statement."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

MOST = 200


class Gathered(Generic[K, V]):
    """Asks for many at once: while one question is under way, the next gathers.

    `ask(keys)` returns what there is. One question at a time: whatever the load, the others of the
    process keep their connections.
    """

    def __init__(self, ask: Callable[[Sequence[K]], Awaitable[Mapping[K, V]]]) -> None:
        self._ask = ask
        self._wanted: dict[K, asyncio.Future[V | None]] = {}
        self._asking: asyncio.Task[None] | None = None

    async def get(self, key: K) -> V | None:
        """Return what there is of `key`, as it stands after this call. Raises what `ask` raises."""
        wanted = self._wanted.get(key)
        if wanted is None:
            wanted = self._wanted[key] = asyncio.get_running_loop().create_future()
            if self._asking is None:
                self._asking = asyncio.create_task(self._work(), name="gathered")
        return await asyncio.shield(wanted)  # another one may wait for the same

    async def _work(self) -> None:
        try:
            while self._wanted:
                await asyncio.sleep(0)  # all who are about to ask
                keys = list(self._wanted)[:MOST]
                await self._answer({key: self._wanted.pop(key) for key in keys})
        finally:
            self._asking = None

    async def _answer(self, wanted: Mapping[K, asyncio.Future[V | None]]) -> None:
        try:
            found = await self._ask(list(wanted))
        except BaseException as e:
            for future in wanted.values():
                if not isinstance(e, Exception):
                    future.cancel()
                elif not future.done():
                    future.set_exception(e)
            if not isinstance(e, Exception):
                raise
            return
        for key, future in wanted.items():
            future.set_result(found.get(key))

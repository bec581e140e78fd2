"""Asking a child process what is not to be worked out here: it has nothing of ours, and may end.

Services take turns, and so many of their questions may wait; the loop that fires waits for none.
"""

import asyncio
import os
import signal
import sys
from abc import ABC, abstractmethod
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, TypeVar
from uuid import UUID

import msgspec
import structlog

from scheduler.answering import SIZE
from scheduler.errors import TooManyRequests, Unavailable

log = structlog.get_logger()

START_S = 30.0
STOPS = "the scheduler stops; send this again"

Q = TypeVar("Q")
A = TypeVar("A")


class Child:
    """A child that answers messages, one after the other; it runs a module, see `answering`."""

    def __init__(self, module: str) -> None:
        self._module = module
        self._process: Process | None = None

    @property
    def pid(self) -> int | None:
        """Return that of the process, where there is one."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Start it if it is not there, with nothing in its environment but where our code lies."""
        if self._process is not None:
            return
        environment = {"PYTHONPATH": str(Path(__file__).parents[1]), "LC_ALL": "C.UTF-8"}
        self._process = await begun(
            sys.executable, "-s", "-P", "-m", self._module,
            stdin=PIPE, stdout=PIPE, stderr=DEVNULL,
            cwd="/", env=environment,
        )  # fmt: skip
        try:
            async with asyncio.timeout(START_S):
                await _message(self._process)
        except BaseException:
            await self.end()
            raise

    async def exchange(self, body: bytes, seconds: float) -> bytes:
        """Send a message, and return the one that answers it.

        Raises TimeoutError where it is silent for so long; OSError and IncompleteReadError where it
        dies. It is ended then: a late answer would be taken for the next one's.
        """
        if self._process is None:
            raise OSError("no child")
        try:
            async with asyncio.timeout(seconds):
                return await _exchange(self._process, body)
        except BaseException:
            await self.end()
            raise

    async def end(self) -> None:
        """Kill it, if it is there."""
        process, self._process = self._process, None
        if process is None:
            return
        await ended(process)


async def begun(*command: str, **options: Any) -> Process:
    """Start a process, as `asyncio.create_subprocess_exec` does, in a session of its own.

    Whoever is cancelled meanwhile leaves none behind: it is waited for, and ended.
    """
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(*command, **options, start_new_session=True)
    )
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        await ended(await starting)
        raise


async def ended(process: Process) -> None:
    """Kill a process of `begun`, and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


async def _exchange(process: Process, body: bytes) -> bytes:
    if process.stdin is None:
        raise OSError("no pipe")
    process.stdin.write(SIZE.pack(len(body)) + body)
    await process.stdin.drain()
    return await _message(process)


async def _message(process: Process) -> bytes:
    if process.stdout is None:
        raise OSError("no pipe")
    head = await process.stdout.readexactly(SIZE.size)
    return await process.stdout.readexactly(SIZE.unpack(head)[0])


class Moved(Exception):  # no error: whoever catches it asks another child
    """A question was taken out of its line."""


class Waiting(msgspec.Struct, Generic[Q, A]):
    """A question, and where its answer is awaited."""

    question: Q
    answer: asyncio.Future[A]

    def fail(self, error: Exception) -> None:
        """Tell whoever waits, if anybody still does."""
        if not self.answer.done():
            self.answer.set_exception(error)


class Asking(ABC, Generic[Q, A]):
    """The questions to one child, which starts when it is asked first, and ends with `close`.

    `what` is asked, like rules; that is `done` with them, like judged. A child that nobody has
    asked for `idle_s` seconds ends, too.
    """

    what = "questions"
    done = "answered"
    of_one_service = 100
    """Questions that may wait."""
    in_all = 2000
    at_once = 1
    """Questions that are sent together, of those that wait."""
    idle_s: float | None = None

    def __init__(self, module: str) -> None:
        self._child = Child(module)
        self._working: asyncio.Task[None] | None = None
        self._resting: asyncio.TimerHandle | None = None
        self._ending: asyncio.Task[None] | None = None
        self._waiting: dict[UUID, deque[Waiting[Q, A]]] = {}
        """By service, in the order of their turns."""

    @property
    def pid(self) -> int | None:
        """Return that of the child, where there is one."""
        return self._child.pid

    async def answer(self, service_id: UUID, question: Q) -> A:
        """Return what the child says. Raises TooManyRequests and Unavailable if too many wait."""
        if len(self._waiting.get(service_id, ())) >= self.of_one_service:
            raise TooManyRequests(
                f"{self.of_one_service} {self.what} of this service wait to be {self.done};"
                " send this again later",
                retry_after=1,
            )
        if sum(map(len, self._waiting.values())) >= self.in_all:
            raise Unavailable(
                f"{self.in_all} {self.what} wait to be {self.done}; send this again later"
            )
        waiting = Waiting[Q, A](question, asyncio.get_running_loop().create_future())
        self._waiting.setdefault(service_id, deque()).append(waiting)
        if self._working is None:
            self._working = asyncio.create_task(self._work(), name=self._child_name)
        return await waiting.answer

    def move(self, service_id: UUID) -> None:
        """Take a service's questions out of the line; those who wait for them get Moved."""
        for waiting in self._waiting.pop(service_id, ()):
            waiting.fail(Moved())

    @property
    def _child_name(self) -> str:
        return f"{self.what} are {self.done}"

    async def close(self) -> None:
        """End the child; who still waits is told so."""
        working, self._working = self._working, None
        if working is not None:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
        for line in self._waiting.values():
            for waiting in line:
                waiting.fail(Unavailable(STOPS))
        self._waiting.clear()
        if self._resting is not None:
            self._resting.cancel()
        if self._ending is not None:
            await self._ending
        await self._child.end()

    @abstractmethod
    async def _heard(self, questions: list[Q]) -> list[A]:
        """Return the answers to questions that wait together."""

    async def _work(self) -> None:
        """Ask what waits, a question of each service in turn."""
        if self._resting is not None:
            self._resting.cancel()
        try:
            while self._waiting:
                together = self._next()
                if together:
                    await self._settle(together)
        finally:
            self._working = None
            if self.idle_s is not None:
                loop = asyncio.get_running_loop()
                self._resting = loop.call_later(self.idle_s, self._rest)

    def _next(self) -> list[Waiting[Q, A]]:
        found: list[Waiting[Q, A]] = []
        while self._waiting and len(found) < self.at_once:
            service_id, line = next(iter(self._waiting.items()))
            del self._waiting[service_id]
            one = line.popleft()
            if line:
                self._waiting[service_id] = line  # behind all the others
            if not one.answer.done():  # else whoever asked is gone
                found.append(one)
        return found

    async def _settle(self, together: list[Waiting[Q, A]]) -> None:
        try:
            answers = await self._heard([one.question for one in together])
        except Exception as e:  # it is told to whoever waits
            log.exception("a child cannot be asked", what=self.what)
            words = f"{self.what} cannot be {self.done} ({type(e).__name__}); see the log"
            for one in together:
                one.fail(Unavailable(words))
        except asyncio.CancelledError:
            for one in together:
                one.fail(Unavailable(STOPS))
            raise
        else:
            for one, answer in zip(together, answers, strict=True):
                if not one.answer.done():
                    one.answer.set_result(answer)

    def _rest(self) -> None:
        if self._working is None:
            self._ending = asyncio.create_task(self._child.end())

"""The judge of rules: what nobody has expanded yet is expanded in a child process first.

A hostile rule costs its service time, and nobody else: services take turns, each rule has its CPU
time, the loop that fires waits for none of it, and no connection to the database is held meanwhile.
A rule that was stored has been judged, and is trusted.
"""

import asyncio
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import OrderedDict, deque
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import msgspec
import structlog

from scheduler.errors import TooManyRequests, Unavailable
from scheduler.judging import SIZE, Answer, Ask, Question
from scheduler.triggers import Rrule

log = structlog.get_logger()

START_S = 30.0
WALL_S = 5.0
"""A child that is silent for so long, whatever CPU time it had, is killed."""
TRIES = 2
"""A child may be killed for what another rule, or the machine, did to it."""
WAITING_MOST = 100
"""Of one service."""
WAITING_IN_ALL = 2000
MEMO_CHARS = 4 << 20
"""Texts of rules that the answers are remembered of."""
MEMO_EACH = 300
"""What an answer takes beside its text, about."""


class Unjudged(Exception):  # no error: whoever catches it has the rule judged
    """A rule must be judged before it is read."""

    def __init__(self, ask: Ask) -> None:
        super().__init__("a rule is not judged yet")
        self.ask = ask


class Verdicts:
    """The rules of one request, as they were judged.

    `start` (ms since 1970, a whole second) is the DTSTART of new rules that name none.
    """

    def __init__(self, now: int = 0) -> None:
        self.begin(now)
        self.cpu_s = 0.0
        """What judging them took in all, in seconds; nothing for what was known."""
        self._known: dict[Ask, Answer] = {}

    def begin(self, now: int) -> None:
        """Have new rules that name no start begin now (ms since 1970)."""
        self.now, self.start = now, now // 1000 * 1000

    def rule(self, ask: Ask) -> Rrule:
        """Return a rule. Raises ValueError with the reason against it, and Unjudged."""
        answer = self._known.get(ask)
        if answer is None:
            raise Unjudged(ask)
        if answer.rule is None:
            raise ValueError(answer.reason)
        return answer.rule

    async def hear(self, judge: "Judge", service_id: UUID, ask: Ask) -> None:
        """Have a rule judged."""
        answer, cpu_s = await judge.ask(service_id, ask, self.now)
        self._known[ask] = answer
        self.cpu_s += cpu_s


class _Waiting(msgspec.Struct):
    ask: Ask
    now: int
    answer: asyncio.Future[Answer]


class Judge:
    """One for each process; the child starts when it is asked first, and ends with `close`."""

    def __init__(self, wall_s: float = WALL_S) -> None:
        self.pid: int | None = None
        """That of the child, where there is one."""
        self._wall_s = wall_s
        self._child: Process | None = None
        self._working: asyncio.Task[None] | None = None
        self._waiting: dict[UUID, deque[_Waiting]] = {}
        """By service, in the order of their turns."""
        self._memo: OrderedDict[Ask, Answer] = OrderedDict()
        self._memo_chars = 0

    async def ask(self, service_id: UUID, ask: Ask, now: int) -> tuple[Answer, float]:
        """Return what becomes of a rule, and the CPU time in seconds that it took just now.

        Raises TooManyRequests and Unavailable where too many wait.
        """
        known = self._memo.get(ask)
        if known is not None:
            self._memo.move_to_end(ask)
            return known, 0.0
        mine = self._waiting.get(service_id, ())
        if len(mine) >= WAITING_MOST:
            raise TooManyRequests(
                f"{WAITING_MOST} rules of this service wait to be judged; send this again later",
                retry_after=1,
            )
        if sum(map(len, self._waiting.values())) >= WAITING_IN_ALL:
            raise Unavailable(f"{WAITING_IN_ALL} rules wait to be judged; send this again later")
        waiting = _Waiting(ask, now, asyncio.get_running_loop().create_future())
        self._waiting.setdefault(service_id, deque()).append(waiting)
        if self._working is None:
            self._working = asyncio.create_task(self._work(), name="judge")
        answer = await waiting.answer
        return answer, answer.cpu_s

    async def close(self) -> None:
        """End the child; who still waits is told so."""
        working, self._working = self._working, None
        if working is not None:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
        for line in self._waiting.values():
            for waiting in line:
                _fail(waiting, Unavailable("the scheduler stops; send this again"))
        self._waiting.clear()
        await self._end()

    async def _work(self) -> None:
        """Judge what waits, a rule of each service in turn."""
        try:
            while self._waiting:
                service_id, line = next(iter(self._waiting.items()))
                del self._waiting[service_id]
                one = line.popleft()
                if line:
                    self._waiting[service_id] = line  # behind all the others
                if one.answer.done():  # whoever asked is gone
                    continue
                await self._settle(one)
        finally:
            self._working = None

    async def _settle(self, one: _Waiting) -> None:
        try:
            answer = self._memo.get(one.ask) or await self._heard(one)
        except Exception as e:  # it is told to whoever waits
            log.exception("a rule cannot be judged")
            _fail(one, Unavailable(f"rules cannot be judged ({type(e).__name__}); see the log"))
        except asyncio.CancelledError:
            _fail(one, Unavailable("the scheduler stops; send this again"))
            raise
        else:
            if not one.answer.done():
                one.answer.set_result(answer)

    async def _heard(self, one: _Waiting) -> Answer:
        body = msgspec.msgpack.encode(Question(one.ask, one.now))
        for _ in range(TRIES):
            child = self._child or await self._start()
            try:
                async with asyncio.timeout(self._wall_s):
                    said = await _exchange(child, body)
            except TimeoutError:
                await self._end()
                log.warning("a rule was given up; the judge starts anew", seconds=self._wall_s)
                return Answer(None, "costs too much to expand; send a rule that names less")
            except (OSError, asyncio.IncompleteReadError):
                await self._end()
                log.warning("the judge died; it starts anew")
            except asyncio.CancelledError:
                await self._end()  # its answer would be taken for the next one's
                raise
            else:
                answer = msgspec.msgpack.decode(said, type=Answer)
                self._remember(one.ask, answer)
                return answer
        return Answer(None, "cannot be expanded; send a rule that names less")

    async def _start(self) -> Process:
        """Start a child, with nothing in its environment but where our code lies."""
        environment = {"PYTHONPATH": str(Path(__file__).parents[1]), "LC_ALL": "C.UTF-8"}
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-s", "-P", "-m", "scheduler.judging",
            stdin=PIPE, stdout=PIPE, stderr=DEVNULL,
            cwd="/", env=environment, start_new_session=True,
        )  # fmt: skip
        self._child, self.pid = child, child.pid
        try:
            async with asyncio.timeout(START_S):
                await _message(child)
        except BaseException:
            await self._end()
            raise
        return child

    async def _end(self) -> None:
        child, self._child, self.pid = self._child, None, None
        if child is None:
            return
        with suppress(ProcessLookupError):
            child.kill()
        await child.wait()

    def _remember(self, ask: Ask, answer: Answer) -> None:
        if ask in self._memo:
            return
        self._memo[ask] = answer
        self._memo_chars += len(ask.text) + MEMO_EACH
        while self._memo_chars > MEMO_CHARS:
            old, _ = self._memo.popitem(last=False)
            self._memo_chars -= len(old.text) + MEMO_EACH


def _fail(one: _Waiting, error: Exception) -> None:
    if not one.answer.done():
        one.answer.set_exception(error)


async def _exchange(child: Process, body: bytes) -> bytes:
    """Send a message, and return the one that answers it."""
    if child.stdin is None:
        raise OSError("no pipe")
    child.stdin.write(SIZE.pack(len(body)) + body)
    await child.stdin.drain()
    return await _message(child)


async def _message(child: Process) -> bytes:
    if child.stdout is None:
        raise OSError("no pipe")
    head = await child.stdout.readexactly(SIZE.size)
    return await child.stdout.readexactly(SIZE.unpack(head)[0])

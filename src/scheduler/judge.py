"""The judge of rules: what nobody has expanded yet is expanded in a child process first.

A hostile rule costs its service time, and nobody else: services take turns, each rule has its CPU
time, the loop that fires waits for none of it, and no connection to the database is held meanwhile.
A rule that was stored has been judged, and is trusted.
"""

import asyncio
from collections import OrderedDict
from uuid import UUID

import msgspec
import structlog

from scheduler.asking import Asking
from scheduler.judging import Answer, Ask, Question
from scheduler.triggers import Rrule

log = structlog.get_logger()

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


class Judge(Asking[Question, Answer]):
    """One for each process; the child starts when it is asked first, and ends with `close`."""

    what = "rules"
    done = "judged"
    of_one_service = WAITING_MOST
    in_all = WAITING_IN_ALL

    def __init__(self, wall_s: float = WALL_S) -> None:
        super().__init__("scheduler.judging")
        self._wall_s = wall_s
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
        answer = await self.answer(service_id, Question(ask, now))
        return answer, answer.cpu_s

    async def _heard(self, questions: list[Question]) -> list[Answer]:
        return [self._memo.get(one.ask) or await self._one(one) for one in questions]

    async def _one(self, question: Question) -> Answer:
        body = msgspec.msgpack.encode(question)
        for _ in range(TRIES):
            await self._child.start()
            try:
                said = await self._child.exchange(body, self._wall_s)
            except TimeoutError:
                log.warning("a rule was given up; the judge starts anew", seconds=self._wall_s)
                return Answer(None, "costs too much to expand; send a rule that names less")
            except (OSError, asyncio.IncompleteReadError):
                log.warning("the judge died; it starts anew")
            else:
                answer = msgspec.msgpack.decode(said, type=Answer)
                self._remember(question.ask, answer)
                return answer
        return Answer(None, "cannot be expanded; send a rule that names less")

    def _remember(self, ask: Ask, answer: Answer) -> None:
        if ask in self._memo:
            return
        self._memo[ask] = answer
        self._memo_chars += len(ask.text) + MEMO_EACH
        while self._memo_chars > MEMO_CHARS:
            old, _ = self._memo.popitem(last=False)
            self._memo_chars -= len(old.text) + MEMO_EACH

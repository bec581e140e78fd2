"""Answers: how many bytes of answers a process may hold in memory at once."""

import asyncio
from collections import deque

import msgspec

from scheduler.marks import Marks

FREE = 64 << 10
"""Bytes of each answer that are not asked for: nearly all answers are shorter."""


class Waiter(msgspec.Struct, eq=False):
    """An attempt that waits for room, and for how much."""

    marks: Marks
    more: int
    given: asyncio.Future[None]


class Answers:
    """Room for answers: each attempt takes of it as it reads, and gives all back as it ends.

    Where there is none left, the first attempt that needs more goes on all the same, and the others
    wait, in turn, until it or another has ended. So somebody always goes on, an answer of any size
    that is allowed fits, and no more is held than `most`, one such answer, and FREE of each.
    """

    def __init__(self, most: int) -> None:
        """`most` bytes at once."""
        self._left = most
        self._waiting: deque[Waiter] = deque()
        self._beyond: Marks | None = None
        """The attempt that goes on where nothing is left."""

    async def take(self, marks: Marks, size: int, deadline: float) -> None:
        """Have an attempt hold so many bytes in all; what it waits for that stands in its marks.

        `deadline` is in seconds of the loop's clock. Raises TimeoutError.
        """
        more = size - FREE - marks.held
        if more <= 0:
            return
        if marks is self._beyond or (not self._waiting and self._fits(marks, more)):
            self._give(marks, more)
            return
        loop = asyncio.get_running_loop()
        began, waiter = loop.time(), Waiter(marks, more, loop.create_future())
        self._waiting.append(waiter)
        try:
            async with asyncio.timeout_at(deadline):
                await waiter.given
        finally:
            marks.waited += loop.time() - began
            if waiter in self._waiting:
                self._waiting.remove(waiter)
                self._go_on()

    def _fits(self, marks: Marks, more: int) -> bool:
        """Say whether an attempt may take so much more, and note where that is beyond the bound."""
        if more <= self._left:
            return True
        if self._beyond is None:
            self._beyond = marks
            return True
        return False

    def _give(self, marks: Marks, more: int) -> None:
        self._left -= more
        marks.held += more
        marks.release = self.release

    def release(self, marks: Marks) -> None:
        """Take back all that an attempt holds: it has ended."""
        self._left += marks.held
        marks.held, marks.release = 0, None
        if self._beyond is marks:
            self._beyond = None
        self._go_on()

    def shrink(self, marks: Marks, size: int) -> None:
        """Take back what an attempt holds beyond what so many bytes in all need."""
        spare = marks.held - max(size - FREE, 0)
        if spare > 0:
            self._left += spare
            marks.held -= spare
            self._go_on()

    def _go_on(self) -> None:
        """Let those go on who have been waiting for longest, and fit now."""
        while self._waiting and self._fits(self._waiting[0].marks, self._waiting[0].more):
            waiter = self._waiting.popleft()
            self._give(waiter.marks, waiter.more)
            if not waiter.given.done():
                waiter.given.set_result(None)

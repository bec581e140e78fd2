"""Answers: how many bytes of answers a process may hold in memory at once."""

import asyncio
from collections import OrderedDict, deque
from uuid import UUID

import msgspec

from scheduler.marks import Marks

FREE = 64 << 10
"""Bytes of each answer that are not asked for: nearly all answers are shorter."""
SHARE = 0.75
"""Of the room, that one service may take: targets that dawdle hold it for as long as calls may."""


class NoRoomError(TimeoutError):
    """The time was up, and there was still no room."""


class Waiter(msgspec.Struct, eq=False):
    """An attempt that waits for room, and for how much."""

    marks: Marks
    more: int
    given: asyncio.Future[None]


class Answers:
    """Room for answers: each attempt takes of it as it reads, and gives all back as it ends.

    Where there is none left, or its service has its share, the first attempt that needs more goes
    on all the same, and the others wait, services in turn, until it or another has ended. So
    somebody always goes on, an answer of any size that is allowed fits, and no more is held than
    `most`, one such answer, and FREE of each.
    """

    def __init__(self, most: int) -> None:
        """`most` bytes at once."""
        self._left = most
        self._each = int(most * SHARE)
        self._held: dict[UUID, int] = {}
        """By service."""
        self._waiting: OrderedDict[UUID | None, deque[Waiter]] = OrderedDict()
        """By service; the one that went on last comes last."""
        self._beyond: Marks | None = None
        """The attempt that goes on where nothing is left."""

    async def take(self, marks: Marks, size: int, deadline: float) -> None:
        """Have an attempt hold so many bytes in all; what it waits for that stands in its marks.

        `deadline` is in seconds of the loop's clock. Raises NoRoomError.
        """
        more = size - FREE - marks.held
        if more <= 0:
            return
        if marks is self._beyond or (not self._waiting and self._fits(marks, more)):
            self._give(marks, more)
            return
        loop = asyncio.get_running_loop()
        began, waiter = loop.time(), Waiter(marks, more, loop.create_future())
        self._waiting.setdefault(marks.owner, deque()).append(waiter)
        self._go_on()
        try:
            async with asyncio.timeout_at(deadline):
                await waiter.given
        except TimeoutError:
            raise NoRoomError from None
        finally:
            marks.waited += loop.time() - began
            if waiter in self._waiting.get(marks.owner, ()):
                self._leave(waiter)
                self._go_on()

    def _fits(self, marks: Marks, more: int) -> bool:
        """Say whether an attempt may take so much more where nobody waits."""
        return self._beyond is None or (more <= self._left and self._in_share(marks, more))

    def _in_share(self, marks: Marks, more: int) -> bool:
        """Say whether it stays within what its service may take, where it is one's."""
        return marks.owner is None or self._held.get(marks.owner, 0) + more <= self._each

    def _give(self, marks: Marks, more: int) -> None:
        if more > self._left or not self._in_share(marks, more):
            self._beyond = marks
        self._count(marks, more)
        marks.release = self.release

    def _count(self, marks: Marks, more: int) -> None:
        self._left -= more
        marks.held += more
        if marks.owner is None:
            return
        held = self._held.pop(marks.owner, 0) + more
        if held:
            self._held[marks.owner] = held

    def release(self, marks: Marks) -> None:
        """Take back all that an attempt holds: it has ended."""
        self._count(marks, -marks.held)
        marks.release = None
        if self._beyond is marks:
            self._beyond = None
        self._go_on()

    def shrink(self, marks: Marks, size: int) -> None:
        """Take back what an attempt holds beyond what so many bytes in all need."""
        spare = marks.held - max(size - FREE, 0)
        if spare > 0:
            self._count(marks, -spare)
            self._go_on()

    def _go_on(self) -> None:
        """Let those go on whose turn it is, and who fit now."""
        while (waiter := self._next()) is not None:
            self._leave(waiter)
            if waiter.marks.owner in self._waiting:
                self._waiting.move_to_end(waiter.marks.owner)
            self._give(waiter.marks, waiter.more)
            if not waiter.given.done():
                waiter.given.set_result(None)

    def _next(self) -> Waiter | None:
        """Return who goes on: of the first service with some of its share left, or of the first.

        Nobody passes one that waits for room alone, so that those who need much have their turn.
        """
        full: Waiter | None = None
        for line in self._waiting.values():
            waiter = line[0]
            if self._in_share(waiter.marks, waiter.more):
                fits = waiter.more <= self._left or self._beyond is None
                return waiter if fits else None
            full = full or waiter
        return full if self._beyond is None else None

    def _leave(self, waiter: Waiter) -> None:
        line = self._waiting[waiter.marks.owner]
        line.remove(waiter)
        if not line:
            del self._waiting[waiter.marks.owner]

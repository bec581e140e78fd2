"""The sweep: judges runs that nobody claimed in time by their tasks' rules."""

from datetime import datetime
from uuid import UUID

from scheduler import queue, task
from scheduler.db import Conn, utc
from scheduler.definition import Definition
from scheduler.queue import Judgement


class Sweep:
    """Walks the overdue, unclaimed runs a piece at a time and applies the misfire rules.

    Bounded on purpose: a backlog of any size costs one piece a tick.
    """

    PIECE = 2000
    OVERDUE_MS = 5000
    """Younger ones are about to be claimed."""
    START = (datetime.min.replace(tzinfo=utc(0).tzinfo), UUID(int=0))

    def __init__(self, queue_most: int) -> None:
        self._queue_most = queue_most
        self._after = self.START
        self.judged: list[UUID] = []
        """The tasks of the last piece."""

    async def step(self, conn: Conn, now: int) -> tuple[int, bool]:
        """Judge one piece; return how many were skipped, and whether the walk came to its end."""
        rows = await queue.overdue(conn, self._after, utc(now - self.OVERDUE_MS), self.PIECE)
        done = len(rows) < self.PIECE
        self._after = self.START if done else (rows[-1][1], rows[-1][2])
        keys = self.judged = list({key for key, _, _ in rows})
        skipped = 0
        if keys:
            skipped += await queue.cut_queues(conn, keys, self._queue_most, utc(now))
            judged = [
                _judgement(of, now) for of in (await task.outlines_of_all(conn, keys)).values()
            ]
            wanted = [j for j in judged if j is not None]
            if wanted:
                skipped += await queue.sweep_misfired(conn, wanted, utc(now))
        return skipped, done


def _judgement(of: Definition, now: int) -> Judgement | None:
    rule = of.policy.misfire or "latest"
    if rule == "all" or of.damaged:
        return None
    return Judgement(of.key, now - of.misfire_grace_ms, rule == "latest")

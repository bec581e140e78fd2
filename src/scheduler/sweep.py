"""The sweep: judges runs that nobody claimed in time by their tasks' rules."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from scheduler import planner, skips, task
from scheduler.db import Conn, Database, utc
from scheduler.definition import Definition
from scheduler.instant import FIRST
from scheduler.skips import Judgement

LOOKED_MOST = 1000
"""So many due runs of a task are looked at for one that its calendars do not exclude."""


class Swept(msgspec.Struct):
    """What one step did."""

    skipped: int
    done: bool
    """The walk came to its end."""
    tasks: list[UUID]
    """Those it judged."""
    earliest: int | None = None
    """The earliest instant it made, in ms since 1970."""


class Sweep:
    """Walks the overdue, unclaimed runs a piece at a time and applies the misfire rules.

    Where the plan of a task lies behind, too, the planner judges both stretches as one.
    Bounded on purpose: a backlog of any size costs one piece a tick.
    """

    PIECE = 2000
    OVERDUE_MS = 5000
    """Younger ones are about to be claimed."""
    START = (datetime.min.replace(tzinfo=utc(0).tzinfo), UUID(int=0))

    def __init__(self, database: Database, window_ms: int, queue_most: int) -> None:
        self._database = database
        self._window_ms = window_ms
        self._queue_most = queue_most
        self._after = self.START

    async def step(self, now: int, *, first: bool = False, alone: bool = False) -> Swept:
        """Judge one piece; `first` says that this process has claimed nothing for a while.

        Where it is `alone`, nobody has: what waits in a queue whose head is not under way was
        missed, too.
        """
        young = 0 if first else self.OVERDUE_MS
        async with self._database.auto.connect() as conn:
            rows = await skips.overdue(conn, self._after, utc(now - young), self.PIECE)
        done = len(rows) < self.PIECE
        self._after = self.START if done else (rows[-1][1], rows[-1][2])
        keys = list({key for key, _, _ in rows})
        if not keys:
            return Swept(0, done, keys)
        async with self._database.auto.connect() as conn:
            skipped = await skips.cut_queues(conn, keys, self._queue_most, utc(now))
            tasks = await task.outlines_of_all(conn, keys)
        judged = (_judgement(of, now) for of in tasks.values())
        wanted = [j for j in judged if j is not None]
        if not wanted:
            return Swept(skipped, done, keys)
        async with self._database.engine.begin() as conn:
            judged_keys = [j.task_key for j in wanted]
            passed = await planner.catch_up(conn, judged_keys, now, window_ms=self._window_ms)
        async with self._database.auto.connect() as conn:
            await _spare_clear(conn, tasks, wanted, now)
            skipped += await skips.sweep_misfired(conn, wanted, utc(now), idle=first and alone)
        return Swept(skipped + passed.skipped, done, keys, passed.earliest)


def _judgement(of: Definition, now: int) -> Judgement | None:
    rule = of.policy.misfire or "latest"
    if rule == "all" or of.damaged:
        return None
    return Judgement(of.key, now - of.misfire_grace_ms, rule == "latest")


async def _spare_clear(
    conn: Conn, tasks: dict[UUID, Definition], judgements: Sequence[Judgement], now: int
) -> None:
    """Have the last due instant kept that no calendar excludes; all, where none is near."""
    kept = {j.task_key: j for j in judgements if j.latest and tasks[j.task_key].excluded}
    if not kept:
        return
    found = await skips.due(conn, list(kept), utc(now), LOOKED_MOST)
    for key, judgement in kept.items():
        excluded = tasks[key].excluded
        clear = (at for at in found.get(key, ()) if excluded is None or not excluded.at(at))
        judgement.last = next(clear, FIRST)

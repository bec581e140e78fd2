"""Retiming: when the time zones of this program are newer than those that tasks were planned with,
every task with a zone is looked at, and planned anew where its instants are others now.

A piece at a time, by one replica at a time: who has the turn holds the installation's row, and
writes down how far it came. A piece that is done twice, after a crash, finds nothing to do.

Replicas that were there meanwhile may know older zones, and plan by them what comes due: when they
are gone, all is looked at once more.
"""

import asyncio
from collections.abc import Callable, Collection
from uuid import UUID

import msgspec
import structlog

from scheduler import (
    db,
    edits,
    installation,
    outlook,
    planner,
    planning,
    queue,
    task,
)
from scheduler.clock import Clock, Slice
from scheduler.db import Conn, Database, utc
from scheduler.definition import Definition
from scheduler.errors import NotFound
from scheduler.outlook import Standing
from scheduler.run import run_id
from scheduler.triggers import zones

log = structlog.get_logger()

WALK = 1000
"""Tasks looked at in one go; the row is held meanwhile."""
PIECE = 50
"""Of them at most so many with a zone: to plan one anew takes some milliseconds."""
FIRST = UUID(int=0)
BROKEN = (ArithmeticError, ValueError, TypeError)
"""What a row that was damaged by hand may raise."""


class Retiming:
    """One replica's part in it; `changed(key, earliest)` is told of each task planned anew.

    `others` are the replicas that beat beside this one.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        window_ms: int,
        changed: Callable[[UUID, int | None], None],
        others: Callable[[], Collection[UUID]] = tuple,
        piece: int = PIECE,
    ) -> None:
        self.wanted = asyncio.Event()
        """Set it to see now whether there is anything to do."""
        self.done = False
        """All tasks are planned with this program's time zones, or newer ones."""
        self._database = database
        self._clock = clock
        self._window_ms = window_ms
        self._changed = changed
        self._others = others
        self._beside: set[UUID] = set()
        """Replicas that were there when all was done."""
        self._anew = False
        """They are gone, and all is looked at once more."""
        self._most = piece

    async def step(self) -> None:
        """Go on until all is done, or another replica has the turn."""
        if self.done and self._beside and self._beside.isdisjoint(self._others()):
            self.done, self._anew = False, True
        while not self.done and await self.piece():
            pass

    async def piece(self) -> bool:
        """Do a piece; say whether it is worth while to go on at once."""
        async with self._database.engine.begin() as conn:
            turn = await installation.take_turn(conn)
            if turn is None:
                return False
            if self._is_done(turn.version):
                self._arrived(turn.version or zones.VERSION)
                return False
            after = turn.after if turn.next == zones.VERSION else None
            if after is None and turn.version not in (None, zones.VERSION):
                log.info("planning with other time zones", old=turn.version, new=zones.VERSION)
            last = await self._look(after or FIRST)
            if last is None:
                await installation.arrive(conn, zones.VERSION)
                self._arrived(zones.VERSION)
            else:
                await installation.advance(conn, zones.VERSION, last)
        return not self.done

    def _is_done(self, version: str | None) -> bool:
        if version is None or version < zones.VERSION:
            return False
        return version > zones.VERSION or not self._anew

    def _arrived(self, version: str) -> None:
        self.done, self._anew = True, False
        self._beside = set(self._others())
        if version > zones.VERSION:
            log.warning(
                "the time zones here are older than those that tasks were planned with; "
                "install the tzdata that the other replicas have",
                here=zones.VERSION,
                planned=version,
            )

    async def _look(self, after: UUID) -> UUID | None:
        """Plan anew what has to be of the next tasks; return the last of them, None at the end."""
        async with self._database.auto.connect() as conn:
            found = await task.zoned_after(conn, after, WALK)
            keys = [key for key, zoned in found if zoned][: self._most]
            moved = await self._moved(conn, keys) if keys else []
        for of in moved:
            await self._replan(of)
        if len(keys) == self._most:
            return keys[-1]
        return found[-1][0] if len(found) == WALK else None

    async def _moved(self, conn: Conn, keys: list[UUID]) -> list[Definition]:
        """Return those of the tasks whose plans are not what they would be now."""
        now = self._clock.now_ms()
        tasks = await task.outlines_of_all(conn, keys)
        plans = await outlook.plans(conn, keys)
        runs = await queue.coming(conn, keys, utc(now))
        moved, turn = [], Slice()
        for key in keys:
            if key in tasks and key in plans:
                if not self._stands(tasks[key], plans[key], runs[key], now):
                    moved.append(tasks[key])
                await turn.give_way()
        return moved

    def _stands(self, of: Definition, plan: Standing, runs: set[UUID], now: int) -> bool:
        try:
            return stands(of, plan, runs, now, self._window_ms)
        except BROKEN:  # the planner sets it aside, and says so
            return True

    async def _replan(self, seen: Definition) -> None:
        try:
            earliest = await self._replanned(seen)
        except NotFound:  # deleted meanwhile
            return
        except BROKEN:
            log.exception("a task cannot be planned anew", task=seen.id)
            return
        self._changed(seen.key, earliest)

    @db.again
    async def _replanned(self, seen: Definition) -> int | None:
        """Do as an edit would: what stands of the time before now stays.

        Its version is a new one, so that whoever holds a run that is not wanted any more drops it.
        """
        async with self._database.engine.begin() as conn:
            before, planned = await planner.locked(conn, seen.service_id, seen.id)
            # The row is written whole: what was sealed since it was read stays so.
            sealed = before.action.sealed(self._database.vault, before.service_id)
            after = msgspec.structs.replace(before, version=before.version + 1, action=sealed)
            await task.change(conn, after)
            return await edits.replan(
                conn, before, after, planned, window_ms=self._window_ms, anew=True
            )


def stands(of: Definition, plan: Standing, runs: set[UUID], now: int, window_ms: int) -> bool:
    """Say whether a plan, and the runs to come, are what the task's trigger yields today. Pure.

    In doubt they are not: to plan a task anew that was planned well changes nothing of it.
    """
    if of.damaged or of.status == "disabled":
        return True
    if of.status == "paused":
        return plan.next == planning.resume_at(of, now, window_ms)
    if of.due is None or (plan.next is not None and plan.next <= now):
        return True  # the planner is about to look at it
    planned = plan.planned
    made = planning.plan(of, planned.until, planned.runs, now, planned.until)
    wanted = {run_id(of.key, of.bucket, "task", at) for at in of.due.between(now, planned.until)}
    return made.next_plan_at == plan.next and wanted == runs

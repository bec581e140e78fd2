"""The returns: what a process gives back to the queue instead of sending it.

Runs it has no worker for, and runs of tasks that were edited, deleted or executed: those the edit
took back are dropped, the others are claimed afresh.
"""

from collections.abc import Collection, Sequence
from uuid import UUID

from scheduler import queue, task
from scheduler.clock import Clock
from scheduler.crew import STALL_S
from scheduler.db import Conn
from scheduler.holdings import Holdings
from scheduler.replicas import Membership
from scheduler.run import End, Run
from scheduler.settler import Outcome, Settler


class Returns:
    """Takes runs from one process's holdings, and gives them back."""

    def __init__(
        self, clock: Clock, membership: Membership, holdings: Holdings, settler: Settler
    ) -> None:
        self.runs: list[Run] = []
        """Withdrawn, to be given back at the next look at the queue."""
        self.tasks: set[UUID] = set()
        """Recalled: what waits here of them is reconsidered at the next look."""
        self.services: set[UUID] = set()
        """Of which a calendar was edited: so is what waits here of tasks that name any."""
        self._clock = clock
        self._membership = membership
        self._holdings = holdings
        self._settler = settler

    def awaits(self, run: Run) -> bool:
        """Say whether a run is about to be reconsidered."""
        return run.task_key in self.tasks or (run.service_id in self.services and _names_any(run))

    def withdraw_all(self) -> list[Run]:
        """Return every run that was not sent; none of them waits any more."""
        runs, self.runs = self._holdings.withdraw_where(lambda _: True) + self.runs, []
        return runs

    def leave_to_others(self, stalled: Collection[UUID], now: int, *, everything: bool) -> None:
        """Give back what is overdue here for want of workers: another replica may have some."""
        if not stalled and not everything:
            return
        overdue = now - int(STALL_S * 1000)
        self.runs += self._holdings.withdraw_where(
            lambda run: run.due < overdue and (everything or run.service_id in stalled)
        )

    async def reconsider(self, conn: Conn) -> None:
        """Give back what is to go, and of what was recalled what its task still wants."""
        if not (self.runs or self.tasks or self.services):
            return
        recalled = self._holdings.withdraw_where(self.awaits)
        self.tasks, self.services = set(), set()
        returns, self.runs = self.runs, []
        try:
            await self._recalled(conn, recalled)
            await self.release(conn, returns)
        except Exception:
            self.runs += [r for r in [*recalled, *returns] if r.id in self._holdings.held]
            raise

    async def _recalled(self, conn: Conn, runs: Sequence[Run]) -> None:
        """Drop what an edit or a delete took back; give the rest back, to be claimed afresh.

        The tasks are read first: a row read after them is as new as its task, or the edit that
        made the task did not want it. An edit in between only makes the row newer.
        """
        if not runs:
            return
        me, now = self._membership.me, self._clock.now_ms()
        keys = [run.task_key for run in runs if run.task_key and run.of_task]
        tasks = await task.outlines_of_all(conn, keys)
        versions = await queue.versions(conn, me, [run.id for run in runs])
        stale: dict[int | None, list[Run]] = {}
        wanted: list[Run] = []
        for run in runs:
            current = tasks.get(run.task_key) if run.task_key else None
            if run.id not in versions:
                self._holdings.forget(run)  # not ours any more
            elif not run.of_task:
                wanted.append(run)
            elif current is None and (run.attempts or run.due <= now):
                end = End(run, "cancelled", "the task was deleted", None, now)
                self._settler.add(Outcome(end))
            elif current is None or versions[run.id] < current.version:
                stale.setdefault(current.version if current else None, []).append(run)
            else:
                wanted.append(run)
        for version, some in stale.items():
            await self._take_back(conn, some, version)
        await self.release(conn, wanted)

    async def _take_back(self, conn: Conn, runs: Sequence[Run], version: int | None) -> None:
        """Drop what the edit to `version` did not want, but for what was tried: that goes on."""
        untried = [run.id for run in runs if not run.attempts]
        gone = await queue.drop(conn, self._membership.me, untried, version)
        for run in runs:
            if run.id in gone:
                self._holdings.forget(run)
        await self.release(conn, [run for run in runs if run.id not in gone], version)

    async def release(self, conn: Conn, runs: Sequence[Run], version: int | None = None) -> None:
        """Give withdrawn runs back; `version` is that of their task, where theirs may be older."""
        for holder in {run.claimed_by for run in runs}:
            ids = [run.id for run in runs if run.claimed_by == holder]
            await queue.release(conn, holder, ids, version)
        for run in runs:
            self._holdings.forget(run)


def _names_any(run: Run) -> bool:
    """Say whether a run is of a task that names calendars."""
    return run.kind == "task" and run.work is not None and bool(run.work.task.bounds.calendars)

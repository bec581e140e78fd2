"""The dispatcher: claims runs a little ahead, holds them to their instant, and sends them off.

Held runs wait in a heap by due time; one timer stands for the earliest. At its instant a run
becomes ready; ready runs go to idle workers, services in turn, so that no backlog stands before
anybody else's run.
"""

import asyncio
import time
from collections.abc import Sequence
from uuid import UUID

import structlog

from scheduler import config, db, metrics, queue, services, task
from scheduler.clock import Clock
from scheduler.crew import STALL_S, Crew
from scheduler.db import Conn, Database
from scheduler.holdings import Holdings, Rate
from scheduler.replicas import Membership
from scheduler.run import End, Run
from scheduler.runner import Runner, why_cancelled
from scheduler.settler import Outcome, Settler

log = structlog.get_logger()

ADOPT_S = 10.0
SERVICES_S = 5.0
LATE_EVERY_S = 2.0
"""How often late runs are looked for where there were none: they are late anyway."""
BACKOFF_MOST_S = 2.0
LATE_PIECE = 500
"""Late runs of one service held at a time."""
CROWDED = 0.75
"""The part of what may be held that one service takes before others' runs go first."""
SLICE = 256
"""Runs made ready in one go."""


class Dispatcher:
    """One process's hold on the queue."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        membership: Membership,
        runner: Runner,
        settler: Settler,
        settings: config.Worker,
    ) -> None:
        self._database = database
        self._clock = clock
        self._membership = membership
        self._runner = runner
        self._settler = settler
        self._settings = settings
        self._rate = Rate(settings.max_held, min(2 * settings.count, settings.max_held))
        self._holdings = Holdings()
        self.crew: Crew[Outcome | None] = Crew(
            clock,
            settings.count,
            self._share_of,
            find=self._next,
            perform=runner.perform,
            done=self._done,
        )
        self._timer: asyncio.TimerHandle | None = None
        self._returns: list[Run] = []
        """Withdrawn, to be given back at the next look at the queue."""
        self._recalls: set[UUID] = set()
        self._expected: set[UUID] = set()
        self._cancels: set[UUID] = set()
        """Of runs that are not held yet, and may be about to."""
        self._waiters: dict[UUID, asyncio.Future[Outcome]] = {}

        self.limits: dict[UUID, int] = {}
        """How many runs a service may have in flight, where it has a quota."""
        self._share = max(1, int(settings.count * settings.service_share))

        self._wake = asyncio.Event()
        self._claiming = asyncio.Lock()
        self._more = False
        """The last look left something behind, for want of room."""
        self._adopt_at = self._late_at = self._services_at = 0.0
        self._services: list[UUID] = []
        self._stop_at: float | None = None

    # What others ask -----------------------------------------------------------------------------

    @property
    def held(self) -> int:
        """How many runs wait in memory."""
        return len(self._holdings.waiting)

    def wake(self, due_ms: int = 0) -> None:
        """Look at the queue now, where something is due at `due_ms` or soon after it."""
        if due_ms <= self._clock.now_ms() + self._settings.ahead_seconds * 1000:
            self._wake.set()

    def recall(self, task_key: UUID) -> None:
        """Reconsider the held runs of a task, unsent so far: it was edited, deleted or executed."""
        self._runner.forget(task_key)
        if task_key in self._holdings.tasks:
            self._recalls.add(task_key)
            self._wake.set()

    def expect(self, run_id: UUID) -> UUID:
        """Announce a run about to be inserted as claimed by this process; return who that is."""
        self._expected.add(run_id)
        return self._membership.me

    def unexpect(self, run_id: UUID) -> None:
        """Take the announcement back: the insert failed, or the run is here."""
        self._expected.discard(run_id)

    def hand_over(self, run: Run) -> None:
        """Take in a run that was inserted as claimed by this process."""
        self._hold([run])
        self._expected.discard(run.id)

    def holds(self, run_id: UUID) -> Run | None:
        """Return a run that this process has claimed and not settled, or None."""
        return self._holdings.held.get(run_id)

    def wait_for(self, run_id: UUID) -> asyncio.Future[Outcome]:
        """Return a future of a held run's next outcome, once that has been written."""
        return self._waiters.setdefault(run_id, asyncio.get_running_loop().create_future())

    def give_up(self, run_id: UUID) -> None:
        """Wait no longer for an outcome."""
        self._waiters.pop(run_id, None)

    def cancel(self, run_id: UUID) -> bool:
        """End a run that this process holds, or cut its call short; False where it holds it not.

        A run that has not started ends at once; one under way says itself what came of it.
        """
        run = self._holdings.held.get(run_id)
        if run is None:
            if self._claiming.locked():
                self._cancels.add(run_id)
            return False
        run.cancelled = True
        if self._holdings.is_waiting(run):
            self._holdings.withdraw(run)
            began = run.attempts[0].started_at if run.attempts else None
            end = End(run, "cancelled", why_cancelled(run), began, self._clock.now_ms())
            self._settler.add(Outcome(end))
        else:
            self.crew.abort(run)
        return True

    def has_begun(self, run_id: UUID) -> bool | None:
        """Say whether a run that this process holds is under way; None where it holds it not."""
        run = self._holdings.held.get(run_id)
        return None if run is None else not self._holdings.is_waiting(run)

    def _share_of(self, service: UUID) -> int:
        """Return how many calls of a service may be under way here: the replicas part its quota."""
        limit = self.limits.get(service)
        if limit is None:
            return self._share
        return min(self._share, max(1, limit // (len(self._membership.others) + 1)))

    @property
    def may_send(self) -> bool:
        """Say whether calls may leave now."""
        return (
            self._membership.fresh
            and self._stop_at is None
            and self._settler.unsettled < self._settings.max_unsettled
        )

    # Life ----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Claim until stopped."""
        wait = 0.05
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._stop_at is not None:
                return
            try:
                async with self._claiming:
                    self._cancels.clear()
                    await self._round()
                wait = 0.05
            except Exception as e:
                metrics.ERRORS.labels("claim").inc()
                self._adopt_at = 0.0  # it may have been committed
                if db.is_away(e):
                    log.warning("the queue cannot be reached", error=type(e).__name__)
                else:
                    log.exception("claiming failed")
                await asyncio.sleep(wait)
                wait = min(wait * 2, BACKOFF_MOST_S)
                self._wake.set()

    def begin_stop(self) -> None:
        """Claim and send no more; calls under way have until the drain's end, from now on."""
        if self._stop_at is None:
            self._stop_at = time.monotonic() + self._settings.drain_seconds
        self._wake.set()

    async def stop(self) -> None:
        """Give back what is unsent, let calls end, cut those that do not."""
        self.begin_stop()
        async with self._claiming:  # what is being claimed now is given back, too
            await self._give_back()
        try:
            left = (self._stop_at or 0.0) - time.monotonic()
            await asyncio.wait_for(self.crew.quiet.wait(), max(left, 0.01))
        except TimeoutError:
            log.warning("calls cut at the deadline", calls=self.crew.in_flight)
        await self.crew.cut()

    async def _give_back(self) -> None:
        runs = self._holdings.withdraw_where(lambda _: True) + self._returns
        self._returns = []
        try:
            async with self._database.engine.begin() as conn:
                await self._release(conn, runs)
        except Exception as e:
            if not db.is_away(e):
                raise
            log.warning("claimed runs could not be given back; another replica frees them")

    def fenced(self) -> None:
        """Drop what is unsent: another replica has freed this process's runs."""
        for run in self._holdings.withdraw_where(lambda _: True) + self._returns:
            self._holdings.forget(run)
        self._returns.clear()
        self._adopt_at = 0.0
        self._wake.set()

    # Claiming ------------------------------------------------------------------------------------

    async def _round(self) -> None:
        """One look at the queue: returns and recalls first, then what is on time, then late."""
        now = self._clock.now_ms()
        alone = self._membership.alone
        hung, stalled = (False, set()) if alone else (self.crew.hung, self.crew.stalled())
        self._leave_to_others(stalled, now, everything=hung)
        async with self._database.engine.connect() as connection:
            conn = await connection.execution_options(isolation_level="AUTOCOMMIT")
            if self._returns or self._recalls:
                await self._reconsider(conn)
            if time.monotonic() >= self._adopt_at:
                await self._adopt(conn)
            if self._membership.fresh and not hung:
                await self._claim_on_time(conn, now, stalled)
                await self._claim_late(conn, now, stalled)

    def _leave_to_others(self, stalled: set[UUID], now: int, *, everything: bool) -> None:
        """Give back what is overdue here for want of workers: another replica may have some."""
        if not stalled and not everything:
            return
        overdue = now - int(STALL_S * 1000)
        self._returns += self._holdings.withdraw_where(
            lambda run: run.due < overdue and (everything or run.service_id in stalled)
        )

    @property
    def _crowd(self) -> int:
        """How many runs of one service may be held."""
        return max(1, int(self._rate.room * CROWDED))

    def _room(self) -> int:
        """Return how many runs to claim at once.

        Of a service only its crowd counts: what it held before a slow second shuts nobody out.
        """
        holdings, crowd = self._holdings, self._crowd
        counted = sum(min(n, crowd) for n in holdings.waiting_of.values())
        most = self._settings.max_held - len(holdings.waiting)
        return min(self._rate.room - counted, most, self._settings.claim_batch)

    async def _claim_on_time(self, conn: Conn, now: int, stalled: set[UUID]) -> None:
        ahead = int(self._settings.ahead_seconds * 1000)
        waiting_of = self._holdings.waiting_of
        self._more = True
        while (room := self._room()) > 0:
            crowded = [key for key, n in waiting_of.items() if n >= self._crowd]
            most = max((n for n in waiting_of.values() if n < self._crowd), default=0)
            # They may all be of one service; but a burst is not claimed row by row.
            room = min(room, max(self._crowd - most, self._rate.room // 20))
            started = time.perf_counter()
            me = self._membership.me
            runs = await queue.claim_on_time(
                conn, me, now, ahead_ms=ahead, room=room, crowded=[*crowded, *stalled]
            )
            await self._take_in(conn, runs, started)
            if len(runs) < room:
                self._more = bool(crowded)
                return

    async def _claim_late(self, conn: Conn, now: int, stalled: set[UUID]) -> None:
        if self._room() <= 0 or time.monotonic() < self._late_at:
            return
        if not await queue.any_late(conn, now):
            self._late_at = time.monotonic() + LATE_EVERY_S
            return
        if time.monotonic() - self._services_at > SERVICES_S:
            self._services = await services.ids(conn)
            self._services_at = time.monotonic()
        able = [service for service in self._services if service not in stalled]
        for service in await queue.late_services(conn, able, now):
            piece = min(LATE_PIECE, self._crowd)
            room = min(self._room(), piece - self._holdings.waiting_of[service])
            if room <= 0:
                self._more = True
                continue
            started = time.perf_counter()
            me = self._membership.me
            runs = await queue.claim_late(conn, me, now, service=service, room=room)
            await self._take_in(conn, runs, started)
            self._more |= len(runs) == room

    async def _take_in(self, conn: Conn, runs: Sequence[Run], started: float) -> None:
        if not runs:
            return
        metrics.CLAIM.observe(time.perf_counter() - started)
        await self._runner.prepare(conn, runs)  # where this fails, they are adopted later
        self._hold(runs)
        for run in runs:
            if run.cancelled or run.id in self._cancels:
                self.cancel(run.id)
                continue
            if run.work is not None and run.work.task.version > run.version and run.task_key:
                self._recalls.add(run.task_key)  # edited between the claim and here
                self._wake.set()

    async def _adopt(self, conn: Conn) -> None:
        """Take in runs that name this process and that it does not know: a lost answer."""
        held, expected = self._holdings.held, self._expected
        known = held.keys() | expected  # one that is settled meanwhile is still in the answer
        runs = await queue.adopt(conn, self._membership.me)
        lost = [r for r in runs if r.id not in known and r.id not in held and r.id not in expected]
        if lost:
            log.info("claimed runs adopted", runs=len(lost))
            await self._take_in(conn, lost, time.perf_counter())
        self._adopt_at = time.monotonic() + ADOPT_S

    async def _reconsider(self, conn: Conn) -> None:
        keys, self._recalls = self._recalls, set()
        recalled = self._holdings.withdraw_where(lambda run: run.task_key in keys)
        returns, self._returns = self._returns, []
        try:
            await self._recalled(conn, recalled)
            await self._release(conn, returns)
        except Exception:
            self._returns += [r for r in [*recalled, *returns] if r.id in self._holdings.held]
            raise

    async def _recalled(self, conn: Conn, runs: Sequence[Run]) -> None:
        """Drop what an edit or a delete took back; give the rest back, to be claimed afresh.

        The tasks are read first: a row read after them is as new as its task, or the edit that
        made the task did not want it. An edit in between only makes the row newer.
        """
        if not runs:
            return
        me, now = self._membership.me, self._clock.now_ms()
        tasks = await task.definitions(conn, [run.task_key for run in runs if run.task_key])
        versions = await queue.versions(conn, me, [run.id for run in runs])
        stale: dict[int | None, list[Run]] = {}
        wanted: list[Run] = []
        for run in runs:
            current = tasks.get(run.task_key) if run.task_key else None
            if run.id not in versions:
                self._holdings.forget(run)  # not ours any more
            elif current is None and (run.attempts or run.due <= now):
                end = End(run, "cancelled", "the task was deleted", None, now)
                self._settler.add(Outcome(end))
            elif current is None or versions[run.id] < current.version:
                stale.setdefault(current.version if current else None, []).append(run)
            else:
                wanted.append(run)
        for version, some in stale.items():
            await self._take_back(conn, some, version)
        await self._release(conn, wanted)

    async def _take_back(self, conn: Conn, runs: Sequence[Run], version: int | None) -> None:
        """Drop what the edit to `version` did not want, but for what was tried: that goes on."""
        untried = [run.id for run in runs if not run.attempts]
        gone = await queue.drop(conn, self._membership.me, untried, version)
        for run in runs:
            if run.id in gone:
                self._holdings.forget(run)
        await self._release(conn, [run for run in runs if run.id not in gone], version)

    async def _release(self, conn: Conn, runs: Sequence[Run], version: int | None = None) -> None:
        for holder in {run.claimed_by for run in runs}:
            ids = [run.id for run in runs if run.claimed_by == holder]
            await queue.release(conn, holder, ids, version)
        for run in runs:
            self._holdings.forget(run)

    # Sending -------------------------------------------------------------------------------------

    def _hold(self, runs: Sequence[Run]) -> None:
        self._holdings.hold(runs)
        self._ripen()

    def _ripen(self) -> None:
        """Make ready what has come due by the database's clock, at its earliest possible time.

        A slice at a time: of ten thousand due at once, the first leave before the last are ready.
        The timer may wake too early, and is then set again.
        """
        self._holdings.ripen(self._clock.earliest_ms(), SLICE)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._holdings.next_due
        if due is not None:
            wait = min(max(self._clock.until_s(due), 0.0), 1.0)
            self._timer = asyncio.get_running_loop().call_later(wait, self._ripen)
        self.crew.pump()

    def _next(self) -> Run | None:
        """Return the next run to be started, withdrawn; None where none is ready, or may leave."""
        holdings = self._holdings
        if not holdings.ready or not self.may_send:
            return None
        while (run := holdings.ready.pop(self.crew.busy, self.crew.share)) is not None:
            if not holdings.is_waiting(run) or run.task_key in self._recalls:
                continue  # withdrawn, or about to be reconsidered
            holdings.withdraw(run)
            if run.claimed_by != self._membership.me:
                holdings.forget(run)  # freed, while its claim was being answered
            elif run.task_key and 0 < (run.lanes or 0) <= self.crew.lines[run.task_key]:
                # As many of its task as may be are under way here: back to the queue, behind them.
                self._returns.append(run)
            else:
                return run
        return None

    def _done(self, run: Run, outcome: Outcome | None) -> None:
        if outcome is None:
            self._returns.append(run)
        else:
            self._settler.add(outcome)
        # Runs that wait for their service's share alone say nothing of what this process can do.
        self._rate.done(saturated=bool(self._holdings.ready) and not self.crew.has_idle)
        if self._more and self._room() * 2 >= min(self._rate.room, self._settings.claim_batch):
            self._wake.set()

    def settled(self, outcome: Outcome) -> None:
        """Take note that an outcome has been written."""
        run = outcome.run
        self._holdings.forget(run)
        waiter = self._waiters.pop(run.id, None)
        if waiter is not None and not waiter.done():
            waiter.set_result(outcome)
        to = outcome.to
        if isinstance(to, End):
            if run.in_line and (outcome.overlapped or self._next_is_near(run, to.finished_at)):
                self._wake.set()
        else:
            self.wake(to.due)
        if self.crew.has_idle and self._holdings.ready:
            self.crew.pump()

    def _next_is_near(self, run: Run, now: int) -> bool:
        """Say whether the next in line, which could not be claimed until now, will not wait."""
        if run.overlap != "skip" or now - run.due > queue.LATE_S * 1000:
            return True  # it waited for this, or may be overdue
        trigger = run.work.task.due if run.work else None
        at = trigger.next(now) if trigger else None
        return at is not None and at - now <= self._settings.poll_seconds * 1000

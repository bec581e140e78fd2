"""The dispatcher: claims runs a little ahead, holds them to their instant, and sends them off.

Held runs wait in a heap by due time; one timer stands for the earliest. At its instant a run
becomes ready; ready runs go to idle workers, services in turn, so that no backlog stands before
anybody else's run.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

import structlog

from scheduler import config, db, metrics, queue
from scheduler.claims import Claims
from scheduler.clock import Clock
from scheduler.crew import Crew
from scheduler.db import Conn, Database
from scheduler.holdings import Holdings, Rate
from scheduler.replicas import Membership
from scheduler.returns import Returns
from scheduler.run import End, Run
from scheduler.runner import Runner, why_cancelled
from scheduler.settler import Outcome, Settler

log = structlog.get_logger()

BACKOFF_MOST_S = 2.0
SLOT_S = 2.0
"""A command that waits longer for a slot is left to other replicas, where there are any."""
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
        judge: Callable[[], Awaitable[None]],
        slots: int = 1,
    ) -> None:
        """`slots` commands are under way here at most."""
        self._database = database
        self._clock = clock
        self._membership = membership
        self._runner = runner
        self._settler = settler
        self._settings = settings
        self._judge = judge
        self._unjudged = False
        """Nothing was claimed for a while: what was missed is judged before the next claim."""
        self._rate = Rate(settings.max_held, min(2 * settings.count, settings.max_held))
        self._holdings = holdings = Holdings()
        self._claims = Claims(membership, holdings, self._rate, settings, self._take_in)
        self._returns = Returns(clock, membership, holdings, settler)
        self.crew: Crew[Outcome | None] = Crew(
            clock,
            settings.count,
            self._share_of,
            slots=slots,
            slots_each=max(1, int(slots * settings.service_share)),
            find=self._next,
            perform=runner.perform,
            done=self._done,
        )
        self._timer: asyncio.TimerHandle | None = None
        self._cancels: set[UUID] = set()
        """Of runs that are not held yet, and may be about to."""
        self._waiters: dict[UUID, set[asyncio.Future[Outcome]]] = {}

        self.halted: dict[str, str] = {}
        """Why nothing is started: a sentence by who halted it; empty where all goes on."""
        self.limits: dict[UUID, int] = {}
        """How many runs a service may have in flight, where it has a quota."""
        self._left_at = 0.0
        self._share = max(1, int(settings.count * settings.service_share))

        self._wake = asyncio.Event()
        self._claiming = asyncio.Lock()
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

    def halt(self, by: str, reason: str | None) -> None:
        """Start nothing more while `by` has a reason, a sentence; None: it has none any more.

        What is unsent goes back to the queue; calls under way end and are settled. Before the
        first claim after it, what was missed is judged.
        """
        if reason is not None:
            self.halted[by] = reason
            self._unjudged = True
        else:
            self.halted.pop(by, None)
        self._wake.set()

    def doubt(self) -> None:
        """Judge anew before the next claim: the database was lost to somebody here."""
        self._unjudged = True

    def recall(self, task_key: UUID) -> None:
        """Reconsider the held runs of a task, unsent so far: it was edited, deleted or executed.

        Those that are being claimed now, too: their answer may be older than what was done.
        """
        self._runner.forget(task_key)
        if task_key in self._holdings.tasks or self._claiming.locked():
            self._returns.tasks.add(task_key)
            self._wake.set()

    def recall_calendars(self, service_id: UUID) -> None:
        """Reconsider the held runs of a service's tasks that name calendars: one was edited."""
        self._returns.services.add(service_id)
        self._wake.set()

    def expect(self, run_id: UUID) -> UUID:
        """Announce a run about to be inserted as claimed by this process; return who that is."""
        self._claims.expected.add(run_id)
        return self._membership.me

    def unexpect(self, run_id: UUID) -> None:
        """Take the announcement back: the insert failed, or the run is here."""
        self._claims.expected.discard(run_id)

    def hand_over(self, run: Run) -> None:
        """Take in a run that was inserted as claimed by this process."""
        self._hold([run])
        self._claims.expected.discard(run.id)

    def holds(self, run_id: UUID) -> Run | None:
        """Return a run that this process has claimed and not settled, or None."""
        return self._holdings.held.get(run_id)

    def wait_for(self, run_id: UUID) -> asyncio.Future[Outcome]:
        """Return a future of a held run's next outcome, once that has been written."""
        waiter: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(run_id, set()).add(waiter)
        return waiter

    def give_up(self, run_id: UUID, waiter: asyncio.Future[Outcome]) -> None:
        """Wait no longer for an outcome; others may wait for the same."""
        waiters = self._waiters.get(run_id, set())
        waiters.discard(waiter)
        if not waiters:
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
            and not self.halted
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
                await self._judge_missed()
                async with self._claiming:
                    self._cancels.clear()
                    await self._round()
                wait = 0.05
            except Exception as e:
                metrics.ERRORS.labels("claim").inc()
                self._claims.doubt()
                if db.is_away(e):
                    self._unjudged = True
                    log.warning("the queue cannot be reached", error=type(e).__name__)
                else:
                    log.exception("claiming failed")
                await asyncio.sleep(wait)
                wait = min(wait * 2, BACKOFF_MOST_S)
                self._wake.set()

    async def _judge_missed(self) -> None:
        """Judge before the first claim what was missed while nothing was claimed."""
        if not self._unjudged or self.halted:
            return
        self._unjudged = False  # a doubt that comes meanwhile stands
        try:
            await self._judge()
        except BaseException:
            self._unjudged = True
            raise
        self._unjudged = self._unjudged or bool(self.halted)

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
        await self._give_back()  # what was about to be sent

    async def _give_back(self) -> None:
        runs = self._returns.withdraw_all()
        if not runs:
            return
        try:
            async with self._database.auto.connect() as conn:
                await self._returns.release(conn, runs)
        except Exception as e:
            if not db.is_away(e):
                raise
            log.warning("claimed runs could not be given back; another replica frees them")

    def fenced(self) -> None:
        """Drop what is unsent: another replica has freed this process's runs."""
        for run in self._returns.withdraw_all():
            self._holdings.forget(run)
        self._claims.doubt()
        self._wake.set()

    # Claiming ------------------------------------------------------------------------------------

    async def _round(self) -> None:
        """One look at the queue: returns and recalls first, then what is on time, then late."""
        now = self._clock.now_ms()
        alone = self._membership.alone
        hung, stalled = (False, set()) if alone else (self.crew.hung, self.crew.stalled())
        self._returns.leave_to_others(stalled, now, everything=hung)
        if not alone and time.monotonic() - self._left_at > SLOT_S:
            self._left_at = time.monotonic()
            self._returns.runs += self._holdings.withdraw_slotted(now - int(SLOT_S * 1000))
        async with self._database.engine.connect() as connection:
            conn = await connection.execution_options(isolation_level="AUTOCOMMIT")
            await self._returns.reconsider(conn)
            if self._claims.in_doubt:
                await self._claims.adopt(conn)
            if self.halted:
                self._returns.runs = self._returns.withdraw_all()
                await self._returns.reconsider(conn)
            elif self._membership.fresh and not hung:
                await self._claims.on_time(conn, now, stalled)
                await self._claims.late(conn, now, stalled)

    async def _take_in(self, conn: Conn, runs: Sequence[Run]) -> None:
        await self._runner.prepare(conn, runs)  # where this fails, they are adopted later
        self._hold(runs)
        for run in runs:
            if run.cancelled or run.id in self._cancels:
                self.cancel(run.id)
                continue
            if run.work is not None and run.work.task.version > run.version and run.task_key:
                self._returns.tasks.add(run.task_key)  # edited between the claim and here
                self._wake.set()

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
        if not self.may_send:
            return None
        crew = self.crew
        room, slots = (crew.busy, crew.share), (crew.slotted, crew.slot_share)
        while (run := holdings.pop(room, slots)) is not None:
            if not holdings.is_waiting(run) or self._returns.awaits(run):
                continue  # withdrawn, or about to be reconsidered
            holdings.withdraw(run)
            if run.claimed_by != self._membership.me:
                holdings.forget(run)  # freed, while its claim was being answered
            elif run.task_key and 0 < (run.lanes or 0) <= self.crew.lines[run.task_key]:
                # As many of its task as may be are under way here: back to the queue, behind them.
                self._returns.runs.append(run)
            else:
                return run
        return None

    def _done(self, run: Run, outcome: Outcome | None) -> None:
        if outcome is None:
            self._returns.runs.append(run)
        else:
            self._settler.add(outcome)
        # Runs that wait for their service's share alone say nothing of what this process can do.
        self._rate.done(saturated=bool(self._holdings.ready) and not self.crew.has_idle)
        if run.slotted:
            self.crew.pump()  # who did it may go on with something else
        if self._claims.more and self._claims.room() * 2 >= self._claims.at_once:
            self._wake.set()

    def settled(self, outcome: Outcome) -> None:
        """Take note that an outcome has been written."""
        run = outcome.run
        self._holdings.forget(run)
        for waiter in self._waiters.pop(run.id, ()):
            if not waiter.done():
                waiter.set_result(outcome)
        to = outcome.to
        if isinstance(to, End):
            if run.in_line and (outcome.overlapped or self._next_is_near(run, to.finished_at)):
                self._wake.set()
        else:
            self.wake(to.due)
        if self.crew.has_idle and (self._holdings.ready or self._holdings.slotted):
            self.crew.pump()

    def _next_is_near(self, run: Run, now: int) -> bool:
        """Say whether the next in line, which could not be claimed until now, will not wait."""
        if run.overlap != "skip" or run.backfilled or now - run.due > queue.LATE_S * 1000:
            return True  # it waited for this, or may be overdue
        trigger = run.work.task.due if run.work else None
        at = trigger.next(now) if trigger else None
        return at is not None and at - now <= self._settings.poll_seconds * 1000

"""The engine: one replica of the machine, put together; APScheduler wakes its loops."""

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from uuid import UUID

import msgspec
import structlog

from scheduler import (
    audit,
    config,
    counting,
    db,
    gauges,
    logstore,
    metrics,
    partitions,
    queue,
    runlog,
    services,
    settler,
    versions,
)
from scheduler.burying import Burying
from scheduler.caretaker import Caretaker
from scheduler.clock import Clock
from scheduler.counting import Counting
from scheduler.db import Database, utc
from scheduler.dispatcher import Dispatcher
from scheduler.errors import Conflict
from scheduler.gate import Gate
from scheduler.judge import Judge
from scheduler.passes import Passes
from scheduler.replicas import BEAT_S, Membership
from scheduler.retiming import Retiming
from scheduler.run import End
from scheduler.runner import Performers, Runner
from scheduler.settler import Settler
from scheduler.signals import Signals
from scheduler.sources import Sources
from scheduler.standing import Standing
from scheduler.sweep import Sweep
from scheduler.ticks import Chore, Ticks
from scheduler.wipe import Remove, Strays

log = structlog.get_logger()

CLOCK_READINGS = 5
ORPHANS_S = 10.0
PRUNE_S = 3600.0
PRUNE_LOG_S = 300.0
PRUNE_AGAIN_S = 60.0
"""When a week that a reader holds open is tried again."""
STRAYS_S = 300.0
ZONES_S = 5.0
RESUME_AHEAD_S = 86_400.0
LOOK_S = 1.0
SEAL_S = 5.0
BEAT_TIMEOUT_S = 3.0
"""Less than a beat stays fresh: on a connection that hangs there is time for another try."""


OWN_PACE = random.SystemRandom()
"""Two replicas in step, one looking always just before the other, would leave it all to the one."""


class Rooms(msgspec.Struct):
    """What the machine gets of the rooms, of which it imports none."""

    performers: Performers
    sources: Sources
    chores: Sequence[Chore]
    ended: Mapping[str, Callable[[End], None]]
    """Whom to tell of the ends of runs in this process, once they are written, by their kind."""
    removes: Sequence[Remove]
    """What deletes the rows of a service that is gone."""


class Engine:
    """One replica. `sole` says that no other process can be at this database."""

    def __init__(
        self,
        settings: config.Settings,
        database: Database,
        rooms: Rooms,
        gate: Gate,
        *,
        role: str,
        sole: bool = False,
    ) -> None:
        self.settings = settings
        self.database = database
        self.clock = Clock()
        self.membership = Membership(role, self.clock.monotonic)
        self.runner = self._runner(rooms)
        self.standing = Standing(database, self.clock, lambda: self.membership.alone)
        self.settler = Settler(database, self.clock, self._settled)
        self.dispatcher = Dispatcher(
            database,
            self.clock,
            self.membership,
            self.runner,
            self.settler,
            settings.worker,
            judge=self._judge,
            slots=settings.commands.concurrency,
        )
        self.signals = self._signals()
        self.retiming = Retiming(
            database, self.clock, self.window_ms, self._retimed, lambda: self.membership.others
        )
        self.judge = Judge()
        self.counting = Counting(database, self.clock)
        self.strays = Strays(database, self.recall, rooms.removes)
        self.caretaker = Caretaker(database, self.membership, self._pause, self.dispatcher.halt)
        self.stopping = asyncio.Event()
        """Set once a signal has said stop: what waits for something else ends."""
        self._gate = gate
        self._sole = sole
        self._chores, self._ended = rooms.chores, rooms.ended
        self._sweep = Sweep(database, self.window_ms, settings.worker.queue_most)
        self._orphans_at = 0.0
        wake = self.dispatcher.wake
        self._burying = Burying(database, self.clock, self.membership, self.standing, wake)
        batch, recheck = settings.planner.batch, self.standing.recheck
        self._passes = Passes(database, self.clock, self.window_ms, batch, recheck, self.wake)
        self._ticks = Ticks()
        self.planning, self.pruning = asyncio.Event(), asyncio.Event()
        """Set it to plan, or to prune, now."""
        database.on_missing_week, database.on_lost = self.pruning.set, self.dispatcher.doubt

    def _runner(self, rooms: Rooms) -> Runner:
        return Runner(
            rooms.performers,
            self.clock,
            self.settings.worker,
            self.settings.runs,
            self._may_send,
            self.database.vault,
            rooms.sources,
        )

    def _signals(self) -> Signals:
        return Signals(
            self.database,
            alone=lambda: self.membership.alone,
            on_wake=self.dispatcher.wake,
            on_recall=self.dispatcher.recall,
            on_calendars=self.dispatcher.recall_calendars,
            on_cancel=self.dispatcher.cancel,
        )

    @property
    def window_ms(self) -> int:
        """How far ahead runs are made."""
        return int(self.settings.planner.window_seconds * 1000)

    def wake(self, earliest: int | None) -> None:
        """Tell everyone that a run is due at `earliest` (ms), if at all."""
        if earliest is not None:
            self.dispatcher.wake(earliest)
            self.signals.wake(earliest)

    def recall(self, key: UUID) -> None:
        """Tell everyone that a task has changed."""
        self.dispatcher.recall(key)
        self.signals.recall(key)

    def recall_calendars(self, service_id: UUID) -> None:
        """Tell everyone that a calendar of a service has changed."""
        self.dispatcher.recall_calendars(service_id)
        self.signals.calendars(service_id)

    def _retimed(self, key: UUID, earliest: int | None) -> None:
        self.recall(key)
        self.wake(earliest)
        self.standing.recheck([key])

    def resume_at(self, at: int | None) -> None:
        """Plan at `at` (ms), when a pause ends, and not only at the next tick; a day ahead."""
        if at is None or self.clock.until_s(at) > RESUME_AHEAD_S:
            return
        if self.clock.now_ms() >= at:
            self.planning.set()
        else:  # a timer may wake too early, and is then set again
            wait = max(self.clock.until_s(at), 0.001)
            asyncio.get_running_loop().call_later(wait, self.resume_at, at)

    # The pause -----------------------------------------------------------------------------------

    @property
    def paused(self) -> str | None:
        """Why nothing is run, where the installation is paused."""
        pause = self.caretaker.pause
        return None if pause is None else pause.reason

    def check_running(self) -> None:
        """Raise Conflict where the installation is paused."""
        if self.paused is not None:
            raise Conflict(f"the scheduler is paused: {self.paused}; `scheduler resume` ends that")

    def _pause(self, reason: str | None) -> None:
        self.dispatcher.halt("pause", reason)
        if reason is None:
            self.planning.set()
            self.pruning.set()

    def _may_send(self, holder: UUID) -> bool:
        return self.paused is None and self.membership.may_send(holder)

    def _settled(self, outcome: object) -> None:
        to = outcome.to  # type: ignore[attr-defined]
        if isinstance(to, End):
            self.standing.note(to)
            runlog.tell(to)
            if (tell := self._ended.get(to.run.kind)) is not None:
                tell(to)
        self.dispatcher.settled(outcome)  # type: ignore[arg-type]  # the settler is made first

    # Life ----------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Join the replicas, judge what was missed, and only then claim."""
        async with self.database.auto.connect() as conn:
            for _ in range(CLOCK_READINGS):
                await self.clock.sample(conn)
            await self.membership.join(conn)
            await self.membership.watch(conn)  # is one there that cannot open what is sealed?
        await partitions.make(self.database.engine, utc(self.clock.now_ms()))
        await self.caretaker.look()
        if self._sole and self.paused is None:
            await self._burying.bury_all()
        await self._beat()
        if self.paused is None:
            await self._sweep_all()
        self.dispatcher.crew.start()
        self._ticks.keep(self.dispatcher.run, "claim")
        self._ticks.keep(self.settler.run, "settle")
        self._ticks.keep(self.signals.listen, "listen")
        for chore in (*self._own_chores(), *self._chores):
            self._ticks.add(chore)
        pace = self.settings.worker.poll_seconds
        self._ticks.pulse(pace * OWN_PACE.uniform(0.75, 1), self.dispatcher.wake)
        self._ticks.start()
        self.retiming.wanted.set()
        self.planning.set()
        self.pruning.set()  # a process that never lives for an hour prunes too
        self.dispatcher.wake()

    def _own_chores(self) -> list[Chore]:
        """Return what the machine itself wants done every so often."""
        seconds = self.settings.prequeuer.ticker_interval_seconds
        return [
            Chore("plan", seconds, self._plan, self.planning),
            Chore("beat", BEAT_S, self._beat),
            Chore("look", LOOK_S, self.caretaker.look),
            Chore("seal", SEAL_S, self.caretaker.seal, self.caretaker.due),
            Chore("state", 1.0, self._stand),
            Chore("sweep", 5.0, self._sweep_step),
            Chore("prune", PRUNE_S, self._prune, self.pruning),
            Chore("log", PRUNE_LOG_S, self._prune_log),
            Chore("zones", ZONES_S, self.retiming.step, self.retiming.wanted),
            Chore("tally", counting.SECONDS, self.counting.step),
            Chore("measure", 10.0, self._measure),
            Chore("strays", STRAYS_S, self._strays),
        ]

    def begin_stop(self) -> None:
        """Claim and send no more, at once."""
        self.stopping.set()
        self.dispatcher.begin_stop()

    async def stop(self) -> None:
        """Claim no more, finish the calls, write their outcomes, and leave."""
        self.stopping.set()
        self._ticks.pause()
        await self.dispatcher.stop()
        try:
            await asyncio.wait_for(self.settler.drained(), self.settings.worker.drain_seconds)
        except TimeoutError:
            log.warning("stopped with unwritten outcomes", unsettled=self.settler.unsettled)
        await self.judge.close()
        await self._ticks.end()
        await self._leave()

    async def _leave(self) -> None:
        try:
            await self.standing.flush()
            async with self.database.auto.connect() as conn:
                await self._gate.flush(conn)
                if not self.settler.unsettled:
                    await self.membership.leave(conn)
        except Exception as e:
            if not db.is_away(e):
                raise
            log.warning("the database is away; the others will notice that this replica is gone")

    # Ticks ---------------------------------------------------------------------------------------

    async def _plan(self) -> None:
        if self.paused is None:
            await self._passes.step()

    async def _beat(self) -> None:
        """Beat, read the clock, and watch the others."""
        async with asyncio.timeout(BEAT_TIMEOUT_S), self.database.auto.connect() as conn:
            if not await self.membership.beat(conn):
                log.warning("this replica was taken for dead; going on under a new name")
                self.dispatcher.fenced()
                await self.membership.join(conn)
            await self.clock.sample(conn)
            self.dispatcher.crew.pump()
            still = await self.membership.watch(conn)
            for run_id in await queue.cancelled(conn, self.membership.me):
                self.dispatcher.cancel(run_id)  # what a hint should have said
        if self.paused is not None:
            return  # whom a copy shows to hold runs may hold them where it was made
        for dead, beat in still:
            await self._burying.bury(dead, beat)
        if time.monotonic() > self._orphans_at:
            self._orphans_at = time.monotonic() + ORPHANS_S
            async with self.database.engine.begin() as conn:
                await self.membership.free_orphans(conn)
                quotas = self.settings.quotas
                self.dispatcher.limits = await services.in_flight_limits(conn, quotas)

    async def _stand(self) -> None:
        await self.standing.flush()
        await self._burying.repair()

    async def _judge(self) -> None:
        """Judge what was missed while nothing was claimed; the database may be another one now."""
        await self.caretaker.look(anew=True)
        if self.paused is None:
            await self._sweep_all()

    async def _sweep_all(self) -> None:
        """Judge all that was missed while nothing claimed."""
        done = False
        while not done:
            done = await self._sweep_once(first=True)

    async def _sweep_step(self) -> None:
        if self.paused is not None:
            return
        await self._sweep_once()
        spans = self.dispatcher.crew.long_runs()
        if spans:
            async with self.database.engine.begin() as conn:
                await settler.skip(conn, spans, utc(self.clock.now_ms()))

    async def _sweep_once(self, *, first: bool = False) -> bool:
        now, alone = self.clock.now_ms(), self.membership.alone
        swept = await self._sweep.step(now, first=first, alone=alone)
        if swept.skipped:
            self.standing.recheck(swept.tasks)
        if swept.earliest is not None:
            self.dispatcher.wake(swept.earliest)
        metrics.RUNS.labels("skipped").inc(swept.skipped)
        return swept.done

    async def _prune(self) -> None:
        """Make the weeks ahead, and drop what has outlived its time or its room."""
        now = utc(self.clock.now_ms())
        await partitions.make(self.database.engine, now)
        if self.paused is not None:
            return  # what an old copy holds may be what someone is looking for
        pruned = await partitions.prune(self.database, now, self.settings.history)
        metrics.HISTORY_BYTES.set(pruned.bytes)
        async with self.database.auto.connect() as conn:
            while await versions.prune(conn, pruned.kept_from):
                pass
            after: UUID | None = audit.FIRST
            while after is not None:
                after = await audit.prune(conn, pruned.kept_from, after)
        if pruned.left:
            asyncio.get_running_loop().call_later(PRUNE_AGAIN_S, self.pruning.set)

    async def _prune_log(self) -> None:
        await logstore.prune(self.database, self.clock.now_ms(), self.settings.log)

    async def _strays(self) -> None:
        await self.strays.step()

    async def _measure(self) -> None:
        parts = self.membership, self.dispatcher, self.settler
        await gauges.measure(self.database, self.clock, *parts)
        async with self.database.auto.connect() as conn:
            await self._gate.flush(conn)

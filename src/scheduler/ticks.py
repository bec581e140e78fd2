"""Ticks: APScheduler wakes the loops of the engine, and does no more; and what keeps them going."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import msgspec
import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.base import BaseTrigger

from scheduler import db, metrics

log = structlog.get_logger()

RESTART_S = 1.0
JOBS = {"coalesce": True, "max_instances": 1, "misfire_grace_time": None}


class Chore(msgspec.Struct):
    """Something that is done every so often, by every replica."""

    name: str
    seconds: float
    work: Callable[[], Awaitable[None]]
    due: asyncio.Event | None = None
    """Set it to have it done now."""


class Every(BaseTrigger):  # type: ignore[misc]
    """Comes so often, and once for all that a step of the machine's clock passed over.

    APScheduler's own interval yields each of them in turn: after a night's sleep of the machine
    that holds the loop for seconds, and after the first setting of a clock without end.
    """

    def __init__(self, seconds: float) -> None:
        self._interval = timedelta(seconds=seconds)

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime:
        """Return the first time after `now` that is whole intervals away from the one before."""
        if previous is None:
            return now + self._interval
        return previous + max(1, (now - previous) // self._interval + 1) * self._interval


class Pacer(AsyncIOScheduler):  # type: ignore[misc]
    """Goes on at once when the machine's clock is stepped back, not when it is that late again."""

    latest = 0.0
    """The latest time (s since 1970) at which it was awake."""

    def _process_jobs(self) -> float | None:
        now = time.time()
        if now < self.latest:
            for job in self.get_jobs():
                job.modify(next_run_time=datetime.now(UTC))
        self.latest = now
        wait: float | None = super()._process_jobs()
        return wait


class Ticks:
    """The loops of one replica. `start` lets the ticks begin, `end` cancels all."""

    def __init__(self) -> None:
        self._jobs = Pacer(timezone="UTC", job_defaults=JOBS)
        self._running: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Let the ticks begin."""
        self._jobs.start()

    def pause(self) -> None:
        """Wake nothing."""
        self._jobs.pause()

    def resume(self) -> None:
        """Wake again."""
        self._jobs.resume()

    async def end(self) -> None:
        """Cancel every loop, and wait for its end."""
        for running in self._running:
            running.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        self._jobs.shutdown(wait=False)

    def keep(self, work: Callable[[], Awaitable[None]], name: str) -> None:
        """Keep a part of the engine going."""

        async def guarded() -> None:
            ended = False
            while not ended:
                try:
                    await work()
                    ended = True
                except Exception:
                    metrics.ERRORS.labels(name).inc()
                    log.exception("a part of the engine broke, and starts again", part=name)
                    await asyncio.sleep(RESTART_S)

        self._running.append(asyncio.create_task(guarded(), name=name))

    def pulse(self, seconds: float, wake: Callable[[], None]) -> None:
        """Call `wake` every so often."""

        async def pulse() -> None:
            wake()

        self._jobs.add_job(pulse, Every(seconds))

    def add(self, chore: Chore) -> None:
        """Do a chore whenever its tick wakes it; what goes wrong is logged, and tried again."""
        due = chore.due or asyncio.Event()

        async def loop() -> None:
            while True:
                await due.wait()
                due.clear()
                try:
                    await chore.work()
                except Exception as e:
                    metrics.ERRORS.labels(chore.name).inc()
                    if db.is_away(e):
                        log.warning("the database is away", part=chore.name, error=type(e).__name__)
                    elif db.lacks_partition(e):
                        log.warning("history lacks a week, which is being made", part=chore.name)
                    else:
                        log.exception("a tick failed", part=chore.name)

        self.keep(loop, chore.name)
        self.pulse(chore.seconds, due.set)

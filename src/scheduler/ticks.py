"""Ticks: APScheduler wakes the loops of the engine, and does no more; and what keeps them going."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler

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


class Ticks:
    """The loops of one replica. `start` lets the ticks begin, `end` cancels all."""

    def __init__(self) -> None:
        self._jobs = AsyncIOScheduler(timezone="UTC", job_defaults=JOBS)
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

        self._jobs.add_job(pulse, "interval", seconds=seconds)

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

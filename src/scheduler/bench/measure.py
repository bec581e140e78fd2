"""What `scheduler bench` measures: the database, a burst at one instant, and a steady trickle."""

import asyncio
import json
import secrets
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import msgspec
import psutil
from litestar import Litestar
from sqlalchemy import text

from scheduler import app, config, db, home, keys, migrate, opening, server, services
from scheduler.bench.scratch import scratch
from scheduler.config import Settings
from scheduler.db import Database
from scheduler.engine import Engine

ROUND_TRIPS, COMMITS = 200, 50
LEAD_S, LEAD_PER_S = 4.0, 500
"""How far ahead the burst lies, and how many more runs need a second more."""
CLAIMED_S = 1.5
"""Runs are claimed a second before their instant: the CPU is counted from before that."""
STEADY_PER_S, STEADY_S = 100, 5
LATE_S = 60.0
"""When a run that has not arrived is given up."""
SLICE = 1000

Progress = Callable[[str, int, int], None]
"""`(what, done, of)`"""


class Spread(msgspec.Struct, frozen=True):
    """Of many figures; milliseconds."""

    p50: float
    p99: float
    max: float


class Report(msgspec.Struct):
    """What was measured; times in milliseconds, CPU in microseconds for each run."""

    runs: int
    arrived: int
    rate_per_s: float
    burst_lag: Spread
    steady_per_s: int
    steady_lag: Spread
    cpu_us: float
    postgres_cpu_us: float | None
    round_trip: Spread
    commit: Spread


def spread(values_ms: Sequence[float]) -> Spread:
    """Return p50, p99 and max, nearest rank; of nothing, zeros."""
    ordered = sorted(values_ms) or [0.0]

    def at(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))], 2)

    return Spread(at(0.5), at(0.99), round(ordered[-1], 2))


async def measure(
    url: str, settings: Settings, runs: int, progress: Progress, postmaster: int | None
) -> Report:
    """Measure on a database of its own on the server at `url`, and drop it.

    `postmaster` is the pid of a Postgres on this machine, else None. Raises StartupError.
    """
    async with scratch(settings.database.listen_url or url) as own:
        progress("preparing", 0, 1)
        await migrate.up(own)
        mine = alone(settings, own)
        database = Database(own, mine.database)
        try:
            trips = await _database(database)
            async with _target() as target, _program(mine, own, database) as (engine, client):
                burst = Burst(engine, client, target, progress, postmaster)
                return await burst.measured(runs, *trips)
        finally:
            await database.close()


def alone(settings: Settings, url: str) -> Settings:
    """Return settings for the scratch database: the same machine, nothing shared or logged."""
    return msgspec.structs.replace(
        settings,
        database=msgspec.structs.replace(
            settings.database, url=url, listen_url="", statement_cache=200
        ),
        secret=config.Secret(key=keys.new()),
        quotas=config.Quotas(),
        egress=config.Egress(),
        metrics=config.Metrics(),
        log=config.Log(stdout=False),
    )


async def _database(database: Database) -> tuple[Spread, Spread]:
    """Return what a round trip and what a commit takes."""
    async with database.auto.connect() as conn:
        await conn.execute(text("CREATE TABLE bench_commit (n integer)"))
        trips = [await _timed(conn, text("SELECT 1")) for _ in range(ROUND_TRIPS)]
        insert = text("INSERT INTO bench_commit VALUES (1)")
        commits = [await _timed(conn, insert) for _ in range(COMMITS)]
        await conn.execute(text("DROP TABLE bench_commit"))
    return spread(trips), spread(commits)


async def _timed(conn: db.Conn, statement: Any) -> float:
    began = time.perf_counter()
    await conn.execute(statement)
    return (time.perf_counter() - began) * 1000


@asynccontextmanager
async def _target() -> AsyncIterator[str]:
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "scheduler.bench.target",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        if child.stdout is None:
            raise RuntimeError("the target has no output")
        yield f"http://127.0.0.1:{int(await child.stdout.readline())}"
    finally:
        with suppress(ProcessLookupError):
            child.kill()
        await child.wait()


@asynccontextmanager
async def _program(
    settings: Settings, url: str, database: Database
) -> AsyncIterator[tuple[Engine, httpx.AsyncClient]]:
    """Run the whole program in this process, without a socket, and a client of its API."""
    await opening.unlock(database, settings, home.data_dir(settings))
    token = secrets.token_urlsafe(16)
    async with database.api.begin() as conn:
        await services.create(conn, "bench", token=token, vault=database.vault)
    process = server.Process(settings, url, None, server.configured(settings), None)
    application: Litestar = app.create(settings, process.lifespan)
    transport = httpx.ASGITransport(app=application)  # type: ignore[arg-type]  # says it stricter
    async with (
        process.lifespan(application),
        httpx.AsyncClient(
            transport=transport, base_url="http://bench", auth=("bench", token), timeout=60
        ) as client,
    ):
        yield application.state.engine, client


class Burst:
    """Runs due at one instant, and then some at one after the other."""

    def __init__(
        self,
        engine: Engine,
        client: httpx.AsyncClient,
        target: str,
        progress: Progress,
        postmaster: int | None,
    ) -> None:
        self._engine = engine
        self._client = client
        self._target = target
        self._progress = progress
        self._postmaster = postmaster

    async def measured(self, runs: int, trip: Spread, commit: Spread) -> Report:
        """Return the whole report."""
        at = self._engine.clock.now_ms() + int(1000 * (LEAD_S + runs / LEAD_PER_S))
        await self._create([(n, at) for n in range(runs)])
        await asyncio.sleep(max(self._engine.clock.until_s(at) - CLAIMED_S, 0))
        ours, theirs = _cpu(), _postgres_cpu(self._postmaster)
        arrived = await self._arrivals("burst", range(runs))
        await self._settled()
        ours, theirs_end = _cpu() - ours, _postgres_cpu(self._postmaster)
        lags = [when - at for when in arrived.values()]
        steady = await self._steady(runs)
        used = None if theirs is None or theirs_end is None else theirs_end - theirs
        return Report(
            runs=runs,
            arrived=len(arrived),
            rate_per_s=round(len(lags) / max(max(lags, default=0), 1) * 1000, 1),
            burst_lag=spread(lags),
            steady_per_s=STEADY_PER_S,
            steady_lag=spread(steady),
            cpu_us=round(ours / runs * 1e6, 1),
            postgres_cpu_us=None if used is None else round(used / runs * 1e6, 1),
            round_trip=trip,
            commit=commit,
        )

    async def _create(self, wanted: Sequence[tuple[int, int]]) -> None:
        for start in range(0, len(wanted), SLICE):
            body = [
                {
                    "name": f"run {number}",
                    "url": f"{self._target}/r/{number}",
                    "method": "POST",
                    "scheduled_at": db.rfc3339(at),
                }
                for number, at in wanted[start : start + SLICE]
            ]
            answer = await self._client.post("/tasks/bulk", json=body)
            answer.raise_for_status()
            self._progress("creating", min(start + SLICE, len(wanted)), len(wanted))

    async def _arrivals(self, what: str, numbers: Sequence[int]) -> dict[int, float]:
        """Return when each run arrived, in ms of database time; waits for all, or long enough."""
        wanted = {str(number) for number in numbers}
        began = time.monotonic()
        async with httpx.AsyncClient(trust_env=False, timeout=30) as asking:
            while True:
                told = json.loads((await asking.get(f"{self._target}/arrivals")).content)
                found = {number: at for number, at in told.items() if number in wanted}
                self._progress(what, len(found), len(wanted))
                if len(found) == len(wanted) or time.monotonic() - began > LATE_S:
                    break
                await asyncio.sleep(0.2)
        offset = self._engine.clock.now_ms() - time.monotonic() * 1000
        return {int(number): at * 1000 + offset for number, at in found.items()}

    async def _steady(self, first: int) -> list[float]:
        began = self._engine.clock.now_ms() + int(LEAD_S * 1000)
        step = 1000 / STEADY_PER_S
        due = {first + n: began + int(n * step) for n in range(STEADY_PER_S * STEADY_S)}
        await self._create(list(due.items()))
        arrived = await self._arrivals("steady", list(due))
        return [when - due[number] for number, when in arrived.items()]

    async def _settled(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._engine.settler.drained(), LATE_S)


def _cpu() -> float:
    times = psutil.Process().cpu_times()
    return float(times.user + times.system)


def _postgres_cpu(postmaster: int | None) -> float | None:
    """Return the CPU seconds of a Postgres on this machine until now."""
    if postmaster is None:
        return None
    total = 0.0
    with suppress(psutil.Error):
        root = psutil.Process(postmaster)
        times = root.cpu_times()
        total += times.user + times.system + times.children_user + times.children_system
        for child in root.children():
            with suppress(psutil.Error):
                total += sum(child.cpu_times()[:2])
    return total

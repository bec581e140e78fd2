"""What doctor asks the database: itself, the schema, replicas, queue, history, the installation."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path

import asyncpg
import tzdata
from sqlalchemy import text

from scheduler import db, installation, keys, migrate, partitions, queue, replicas
from scheduler.clock import Clock
from scheduler.config import Settings
from scheduler.db import Conn, Database
from scheduler.doctor.finding import Finding, checked, fail, ok, warn, words
from scheduler.errors import StartupError
from scheduler.sealing import fingerprint, short

OLDEST, NEWEST = 14, 18
MANY_DUE = 1000
LATE_S = 60.0
SKEW_S = 5.0
"""How far this machine's clock may be off before logs mislead."""
READINGS = 5
SPARE = 10
"""Connections that are left to people and other programs."""

PARAMETERS = text("""
SELECT name, setting FROM pg_settings
WHERE name IN ('max_connections', 'synchronous_commit', 'fsync', 'full_page_writes', 'autovacuum',
               'statement_timeout', 'TimeZone')
""")
CONNECTED = text("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'")
PID = "SELECT pg_backend_pid()"


async def reach(url: str, settings: Settings) -> list[Finding]:
    """Connect as the engine does, and say what answers; whether a pooler stands in between."""
    name = "database"
    cache = settings.database.statement_cache
    try:
        conn = await asyncpg.connect(
            db.plain(url),
            timeout=settings.database.connect_timeout_seconds,
            statement_cache_size=cache,
            server_settings=db.session(settings.database, "doctor"),
        )
    except Exception as e:  # noqa: BLE001  (each is a finding)
        if "unsupported startup parameter" in str(e):
            return [fail(name, "PgBouncer answers, and refuses us", POOLER)]
        return [fail(name, f"not reached: {words(e)}", "check DATABASE_URL, and that it runs")]
    try:
        version = conn.get_server_version()
        found = [_version(version.major, f"{version.major}.{version.minor}")]
        pooled = conn.get_server_pid() != await conn.fetchval(PID)
    finally:
        await conn.close(timeout=2)
    return [*found, *_pooler(settings, pooled=pooled)]


POOLER = (
    "set DATABASE_STATEMENT_CACHE=0, and DATABASE_LISTEN_URL to the Postgres behind it; "
    "see docs/operating.md"
)


def _version(major: int, shown: str) -> Finding:
    if not OLDEST <= major <= NEWEST:
        told = f"Postgres {shown} is not one of {OLDEST} to {NEWEST}"
        return fail("database", told, "use one of these")
    return ok("database", f"Postgres {shown} answers")


def _pooler(settings: Settings, *, pooled: bool) -> list[Finding]:
    prepared, direct = settings.database.statement_cache > 0, settings.database.listen_url
    if pooled and prepared:
        return [fail("pooler", "a pooler stands before Postgres, and nobody told us", POOLER)]
    if pooled and not direct:
        told = "a pooler, and no way past it: replicas hear of each other by polling alone"
        return [warn("pooler", told, "set DATABASE_LISTEN_URL to the Postgres behind it")]
    if pooled:
        return [ok("pooler", "a pooler, used as one, with a way past it")]
    if not prepared:
        told = "DATABASE_STATEMENT_CACHE is 0 and there is no pooler: every statement is slower"
        return [warn("pooler", told, "take it away")]
    return []


class Asked:
    """The checks that need a database that answers."""

    def __init__(self, database: Database, settings: Settings, folder: Path) -> None:
        self._database = database
        self._settings = settings
        self._folder = folder

    async def all(self) -> list[Finding]:
        """Do them all, one after the other; without a schema only those that need none."""
        found = await self._do("settings of Postgres", self._parameters, "")
        found += await self._do("clock", self._clock, "look at the network to the database")
        schema = await self._do("schema", self._schema, "run `scheduler migrate status`")
        found += schema
        if any(each.state == "fail" for each in schema):
            return found
        for name, check, todo in (
            ("replicas", self._replicas, ""),
            ("queue", self._queue, ""),
            ("history", self._history, "see the log of a replica"),
            ("secrets key", self._key, "run `scheduler secrets status`"),
            ("pause", self._pause, ""),
            ("time zones", self._zones, "start a replica of this version"),
        ):
            found += await self._do(name, check, todo)
        return found

    async def _do(
        self, name: str, check: Callable[[Conn], Awaitable[list[Finding]]], todo: str
    ) -> list[Finding]:
        async def on_connection() -> list[Finding]:
            async with self._database.api.connect() as conn:
                return await check(conn)

        return await checked(name, on_connection, todo or "is the database overloaded?")

    async def _now(self, conn: Conn) -> datetime:
        now: datetime = (await conn.execute(text("SELECT clock_timestamp()"))).scalar_one()
        return now

    async def _parameters(self, conn: Conn) -> list[Finding]:
        name = "settings of Postgres"
        values: dict[str, str] = {row.name: row.setting for row in await conn.execute(PARAMETERS)}
        found = [
            warn(name, f"{which} is off", "a crash of the machine may lose or damage what is there")
            for which in ("fsync", "full_page_writes", "synchronous_commit")
            if values.get(which) == "off"
        ]
        if values.get("autovacuum") == "off":
            found.append(warn(name, "autovacuum is off", "the queue's table grows; turn it on"))
        if self._database.pooled and values.get("statement_timeout") == "0":
            todo = "ALTER ROLE ... SET statement_timeout = '5s'; see docs/operating.md"
            found.append(warn(name, "behind a pooler the role has no statement_timeout", todo))
        found += await self._connections(conn, int(values["max_connections"]))
        return found or [ok(name, "as they should be")]

    async def _connections(self, conn: Conn, most: int) -> list[Finding]:
        pools = self._settings.database
        each = pools.engine_pool + pools.api_pool + 2  # who listens, who prunes
        try:
            living = sum(seen.beats for seen in await replicas.everyone(conn))
        except Exception:  # noqa: BLE001  (no schema yet)
            living = 0
            await conn.rollback()
        wanted = each * max(living, 1)
        used = int((await conn.execute(CONNECTED)).scalar_one())
        who = f"{living} replicas" if living > 1 else "a replica"
        told = f"{used} of {most} connections in use; {who} may take {wanted} ({each} each)"
        if wanted + SPARE > most and not self._database.pooled:
            todo = "raise max_connections, or make DATABASE_ENGINE_POOL and DATABASE_API_POOL less"
            return [warn("connections", told, todo)]
        return [ok("connections", told)]

    async def _clock(self, conn: Conn) -> list[Finding]:
        clock = Clock()
        for _ in range(READINGS):
            await clock.sample(conn)
        here = (await _wall()) - clock.now_ms()
        told = f"this machine is {here:+d} ms off the database, to {clock.error_ms:.1f} ms"
        if abs(here) > SKEW_S * 1000:
            return [
                warn("clock", told, "runs go by the database's; set both with NTP for the logs")
            ]
        return [ok("clock", told)]

    async def _schema(self, conn: Conn) -> list[Finding]:
        status = await conn.run_sync(migrate.status_on)
        if status.is_current:
            return [ok("schema", f"revision {status.current}, current")]
        if status.fits:
            told = f"revision {status.current}, of a newer version; this one still runs with it"
            return [warn("schema", told, "update this one")]
        told = f"revision {status.current or 'none'}, this version needs {status.head}"
        return [fail("schema", told, "run `scheduler migrate up`, or start a server")]

    async def _replicas(self, conn: Conn) -> list[Finding]:
        seen = await replicas.everyone(conn)
        living = [each for each in seen if each.beats]
        found = [
            warn(
                "replicas",
                f"{each.role} {each.pid} on {each.host} has not beaten for {each.age_s:.0f} s",
                "it died, and the next replica takes its runs; look why",
            )
            for each in seen
            if not each.beats
        ]
        if not living:
            told = "none beats: nothing is run"
            return [*found, fail("replicas", told, "start `scheduler serve`")]
        names = ", ".join(f"{each.role} {each.pid} on {each.host}" for each in living)
        versions = {each.version for each in living}
        if len(versions) > 1:
            told = f"of {len(versions)} versions: {', '.join(sorted(versions))}"
            found.append(warn("replicas", told, "bring all to one, once the new one is trusted"))
        return [ok("replicas", f"{len(living)} beat: {names}"), *found]

    async def _queue(self, conn: Conn) -> list[Finding]:
        now = await self._now(conn)
        oldest = await queue.oldest_due(conn, now)
        if oldest is None:
            return [ok("queue", "nothing waits")]
        depth, age = await queue.depth(conn, now), (now - oldest).total_seconds()
        told = f"{depth} runs are due or under way, the oldest since {age:.0f} s"
        if age > LATE_S and depth > MANY_DUE:
            todo = "start another replica, or see which target is slow in /metrics"
            return [warn("queue", told, todo)]
        return [ok("queue", told)]

    async def _history(self, conn: Conn) -> list[Finding]:
        lacking = await partitions.missing(conn, await self._now(conn))
        if not lacking:
            return [ok("history", f"this week and {partitions.WEEKS_AHEAD} more have their tables")]
        todo = "a running replica makes them within the hour; its log says why it could not"
        state = fail if lacking[0] == partitions.partition_of(await self._now(conn)) else warn
        return [state("history", f"no table for {', '.join(lacking)}", todo)]

    async def _key(self, conn: Conn) -> list[Finding]:
        name = "secrets key"
        wanted = (await installation.read(conn)).fingerprint
        at = "SECRET_KEY" if self._settings.secret.key else str(self._folder / keys.FILE)
        try:
            mine = keys.here(self._settings.secret.key, self._folder)
        except StartupError as e:
            return [fail(name, str(e), "give it the key the other replicas have")]
        if wanted is None:
            return [ok(name, "nothing is sealed yet")]
        if mine is None:
            todo = f"set SECRET_KEY, or put the file back at {self._folder / keys.FILE}"
            return [fail(name, f"the database's is {short(wanted)}, and there is none here", todo)]
        if fingerprint(mine) != wanted:
            told = f"the database's is {short(wanted)}, but {at} is {short(fingerprint(mine))}"
            return [fail(name, told, "use the key that the other replicas, or your backup, have")]
        return [ok(name, f"{short(wanted)}, from {at}, fits")]

    async def _pause(self, conn: Conn) -> list[Finding]:
        pause = (await installation.read(conn)).pause
        if pause is None:
            return [ok("pause", "not paused")]
        told = f"nothing is run since {db.rfc3339(pause.at)}: {pause.reason}"
        return [warn("pause", told, "run `scheduler resume` when it may go on")]

    async def _zones(self, conn: Conn) -> list[Finding]:
        here, there = tzdata.IANA_VERSION, (await installation.zones(conn)).version
        if there in (None, here):
            return [ok("time zones", f"tzdata {here}")]
        told = f"tzdata {here} here, {there} when zoned tasks were last worked out"
        todo = "install the same on every replica; the newest one's start works them out anew"
        return [warn("time zones", told, todo)]


async def _wall() -> int:
    """Return this machine's clock, in ms since 1970; for the comparison alone."""
    return int(datetime.now().astimezone().timestamp() * 1000)

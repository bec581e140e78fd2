"""The database: engines, transactions, and what a driver's error means."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import lru_cache, wraps
from typing import Any, ParamSpec, TypeVar

import asyncpg
from sqlalchemy import CheckConstraint, MetaData, event, text
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from scheduler import config
from scheduler.instant import FIRST, LAST
from scheduler.sealing import Vault

metadata = MetaData()
"""Every table; each is declared in the file that owns it."""

Conn = AsyncConnection


def times_check(table: str, *columns: str) -> CheckConstraint:
    """Return the constraint that keeps times to what Python can hold: the years 1 to 9999."""
    span = "BETWEEN '0001-01-02Z' AND '9999-12-31T23:59:59.999Z'"
    return CheckConstraint(
        " AND ".join(f"{column} {span}" for column in columns), name=f"{table}_times_check"
    )


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

ORDERED = text("""
SELECT set_config('enable_seqscan', 'off', true), set_config('enable_sort', 'off', true),
       set_config('enable_bitmapscan', :bitmaps, true)
""")


async def walk_in_order(conn: Conn, *, bitmaps: bool = False) -> None:
    """Until the transaction's end, have Postgres walk indexes in the order that is asked for.

    A plan that is made without the values takes every service and task for an average one, and
    then sorts all of the largest.
    """
    await conn.execute(ORDERED, {"bitmaps": "on" if bitmaps else "off"})


AWAY = (
    OSError,
    TimeoutError,
    InterfaceError,
    OperationalError,
    PoolTimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InvalidCatalogNameError,
)
AWAY_CODES = {"08", "53", "57", "55", "25", "40", "3D"}
"""SQLSTATE classes that a later try may not meet: connection, resources, operator
intervention, object not in the needed state (a standby, a lock timeout), read-only
transaction (a failover), serialisation, and a database that is not there (it is being
restored) (PostgreSQL manual, appendix A)."""


def is_away(error: BaseException) -> bool:
    """Say whether the database, not the statement, is to blame: the same may pass later."""
    if isinstance(error, DBAPIError):
        code = sqlstate(error)
        if code is not None:
            return code[:2] in AWAY_CODES
        return error.connection_invalidated or isinstance(error, AWAY)
    return isinstance(error, AWAY)


def is_contended(error: BaseException) -> bool:
    """Say whether Postgres ended a transaction for the sake of another one."""
    return isinstance(error, DBAPIError) and sqlstate(error) in ("40P01", "40001")


def lacks_partition(error: BaseException) -> bool:
    """Say whether history had no week for a row."""
    refused = isinstance(error, DBAPIError) and sqlstate(error) == "23514"
    return refused and "no partition" in str(getattr(error, "orig", error))


P = ParamSpec("P")
T = TypeVar("T")

JITTER = random.Random()  # noqa: S311

TRIES = 3
AGAIN_S = 0.05
WEEK_S = 0.3
"""What it takes to make the weeks of history that are missing, about."""


def _pause(error: DBAPIError) -> float | None:
    """Return how long after an error the same may pass; None where it will not."""
    if is_contended(error):
        return JITTER.uniform(0, AGAIN_S)
    return WEEK_S if lacks_partition(error) else None


def again(work: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """Have a function run again whose transaction Postgres ended for another's sake.

    Or for want of this week's history, which is made meanwhile. Three times at most. What it does
    outside of its transaction it does after the commit.
    """

    @wraps(work)
    async def tried(*args: P.args, **kwargs: P.kwargs) -> T:
        for number in range(1, TRIES):
            try:
                return await work(*args, **kwargs)
            except DBAPIError as e:
                pause = _pause(e)
                if pause is None:
                    raise
            await asyncio.sleep(pause * number)
        return await work(*args, **kwargs)

    return tried


def sqlstate(error: BaseException) -> str | None:
    """Return the five-character SQLSTATE of a driver's error."""
    code = getattr(getattr(error, "orig", error), "sqlstate", None)
    return code if isinstance(code, str) else None


def violated(error: DBAPIError) -> str | None:
    """Return the name of the constraint that refused the statement."""
    cause = getattr(error.orig, "__cause__", None)
    name = getattr(cause, "constraint_name", None)
    return name if isinstance(name, str) else None


NAMELESS = {"prepared_statement_name_func": lambda: ""}
"""For a pooler: a statement without a name is sent whole each time, to whichever backend."""


def session(settings: config.Database, name: str) -> dict[str, str]:
    """Return what a connection asks for at its start; of a pooler only what it lets through."""
    wanted = {"application_name": f"scheduler {name}"}
    if settings.statement_cache == 0:
        return wanted
    timeout = str(int(settings.statement_timeout_seconds * 1000))
    wanted |= {"plan_cache_mode": "force_generic_plan", "jit": "off"}
    return wanted | {"statement_timeout": timeout, "timezone": "UTC"}


class Database:
    """Two engines on one database: the machine's and the API's, so that neither starves the other.

    `url` is a libpq URL, which may name several hosts.
    """

    def __init__(self, url: str, settings: config.Database) -> None:
        self.url = plain(url)
        self.settings = settings
        self.vault = Vault()
        """What seals secrets in it; `opening.unlock` gives it its key."""
        self.place: str | None = None
        """Where it lived when that was last asked, as `installation.place` says it."""
        self.on_missing_week: Callable[[], None] = lambda: None
        """Called where history had no week for a row, whoever wrote it."""
        self.on_lost: Callable[[], None] = lambda: None
        """Called where a connection was lost, whoever held it: what answers next may be another."""
        self.engine = self._engine("engine", settings.engine_pool, pre_ping=False)
        self.api = self._engine("api", settings.api_pool, pre_ping=True)
        self.auto = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        """The machine's engine for a single statement: no BEGIN, no COMMIT."""

    @property
    def pooled(self) -> bool:
        """Say whether `url` is a pooler's, where a connection holds nothing past a transaction."""
        return self.settings.statement_cache == 0

    @property
    def direct(self) -> str | None:
        """Where a connection is a session of its own; None where there is no such way."""
        return self.settings.listen_url or (None if self.pooled else self.url)

    def _engine(self, name: str, size: int, *, pre_ping: bool) -> AsyncEngine:
        made = create_async_engine(
            "postgresql+asyncpg://",
            connect_args={
                "async_creator_fn": self._creator(name),
                "prepared_statement_cache_size": self.settings.statement_cache,
                **(NAMELESS if self.pooled else {}),
            },
            pool_size=size,
            max_overflow=0,
            pool_timeout=5,
            pool_pre_ping=pre_ping,
            json_deserializer=str,  # each reader decodes into its own struct
            hide_parameters=True,  # an error is logged, and they hold what is secret
        )
        event.listen(made.sync_engine, "handle_error", self._look)
        return made

    def _look(self, failed: ExceptionContext) -> None:
        error = failed.sqlalchemy_exception
        if failed.is_disconnect:
            self.on_lost()
        elif error is not None and lacks_partition(error):
            self.on_missing_week()

    def _creator(self, name: str) -> Callable[..., Any]:
        async def create() -> asyncpg.Connection:
            return await self.connect(name)

        return create

    async def connect(self, name: str, url: str | None = None) -> asyncpg.Connection:
        """Open a connection outside the pools. Raises what `is_away` knows."""
        return await asyncpg.connect(
            plain(url) if url else self.url,
            timeout=self.settings.connect_timeout_seconds,
            command_timeout=self.settings.statement_timeout_seconds + 5,
            statement_cache_size=self.settings.statement_cache,
            server_settings=session(self.settings, name),
        )

    async def close(self) -> None:
        """Close both pools."""
        await self.engine.dispose()
        await self.api.dispose()


def plain(url: str) -> str:
    """Return a URL that asyncpg reads: `postgresql+asyncpg://` and `postgres://` are taken too."""
    scheme, separator, rest = url.partition("://")
    known = scheme in ("postgres", "postgresql", "postgresql+asyncpg")
    return f"postgresql://{rest}" if separator and known else url


def ms(at: datetime) -> int:
    """Return milliseconds since 1970 of an aware datetime, rounded down."""
    delta = at - EPOCH
    return delta.days * 86_400_000 + delta.seconds * 1000 + delta.microseconds // 1000


def utc(at_ms: int) -> datetime:
    """Return the aware UTC datetime of milliseconds since 1970.

    Raises OverflowError outside of the years 1 to 9999.
    """
    if not FIRST <= at_ms <= LAST:
        raise OverflowError(f"{at_ms} ms lies outside of the years 1 to 9999")
    return datetime.fromtimestamp(at_ms // 1000, UTC).replace(microsecond=at_ms % 1000 * 1000)


def rfc3339(at: datetime | int | None) -> str | None:
    """Return `2025-08-14T12:00:00.000Z`, or None for None; an int is milliseconds since 1970."""
    if at is None:
        return None
    return _rfc3339(at if isinstance(at, int) else ms(at))


@lru_cache(4096)
def _rfc3339(at_ms: int) -> str:
    # Ten thousand runs due at one instant send the same text.
    return utc(at_ms).isoformat(timespec="milliseconds").replace("+00:00", "Z")

"""The installation: replicas, the database, the queue, the log.

A service sees whether it is well, its own queue and its own log lines; of hosts, paths, sizes and
what others do it sees nothing. An admin sees all of it, at an address of its own.
"""

import asyncio
import platform
import shutil
from typing import Any
from uuid import UUID

import msgspec
import tzdata
from litestar import Request, Response, get
from litestar.di import NamedDependency
from sqlalchemy.exc import DBAPIError

from scheduler import __version__, catalog, db, home, logstore, migrate, replicas, usage
from scheduler.catalog import Catalog
from scheduler.config import Settings
from scheduler.dashboard import page
from scheduler.dashboard.admin.admin_door import Admin
from scheduler.dashboard.door import Visitor
from scheduler.dashboard.system import health
from scheduler.db import Conn
from scheduler.engine import Engine
from scheduler.errors import ValidationFailed
from scheduler.logstore import Stored, Wanted
from scheduler.replicas import Seen
from scheduler.usage import Queue

LINES = 100
"""Log lines that are shown."""
WITHIN = 50_000
"""Of the newest log lines so many are looked through."""
SEARCH_S = 2
WORDS_MOST = 200
LEVELS = ("debug", "info", "warn", "error")
TABLES = 12
"""Tables that are listed, the largest first."""

AnyRequest = Request[Any, Any, Any]
Machine = NamedDependency[Engine]


class Asked(msgspec.Struct, frozen=True):
    """What of the log is asked for."""

    level: str
    words: str

    @property
    def levels(self) -> tuple[str, ...]:
        """This level, and what is worse."""
        return LEVELS[LEVELS.index(self.level) :] if self.level else ()


class Look(msgspec.Struct, frozen=True):
    """The installation, as the database and this process see it."""

    seen: list[Seen]
    catalog: Catalog
    queue: Queue
    lines: list[Stored] | None
    """Of the log; None where the search took too long."""


@get("/dashboard/system", include_in_schema=False)
async def show_system(
    request: AnyRequest, visitor: NamedDependency[Visitor], engine: Machine
) -> Response[Any]:
    """Return how the installation is, and what of it is the service's."""
    return await _page(request, engine, visitor, "base.html")


@get("/dashboard/admin/system", include_in_schema=False)
async def show_admin_system(
    request: AnyRequest, admin: NamedDependency[Admin], engine: Machine
) -> Response[Any]:
    """Return all of the installation."""
    return await _page(request, engine, admin, "admin_base.html")


async def _page(
    request: AnyRequest, engine: Engine, of: Visitor | Admin, parent: str
) -> Response[Any]:
    visitor = of if isinstance(of, Visitor) else None
    wanted, now = _wanted(request), engine.clock.now_ms()
    look = await _looked(engine, visitor, wanted, now)
    machine = None if visitor is not None else await _machine(engine)
    notes = health.notes(engine, look.seen, look.catalog, look.queue, now)
    return await page.large(
        "system.html",
        parent=parent,
        **({"visitor": visitor} if visitor is not None else {"admin": of}),
        now=now,
        look=look,
        machine=machine,
        notes=[each for each in notes if machine is not None or not each.inside],
        counted=usage.COUNT_MOST,
        versions=_versions(look.catalog),
        head=migrate.head(),
        settings=engine.settings,
        error_ms=engine.clock.error_ms,
        wanted=wanted,
        levels=LEVELS,
        lines_most=LINES,
        within=WITHIN,
        tables=sorted(look.catalog.tables, key=lambda each: -each.bytes)[:TABLES],
    )


def _wanted(request: AnyRequest) -> Asked:
    sent = request.query_params
    level, words = sent.get("level", ""), sent.get("words", "").strip()
    if level and level not in LEVELS:
        raise ValidationFailed.of("level", f"must be one of {', '.join(LEVELS)}")
    return Asked(level, words.replace("\x00", "")[:WORDS_MOST])


async def _looked(engine: Engine, visitor: Visitor | None, wanted: Asked, now: int) -> Look:
    async with engine.database.api.connect() as conn:
        seen = await replicas.everyone(conn)
        about = await catalog.read(conn)
        if visitor is None:
            queue = await usage.of_all(conn, now)
        else:
            queue = (await usage.of_services(conn, [visitor.service], now))[
                visitor.service.id
            ].queue
        lines = await _lines(conn, visitor, wanted) if engine.settings.log.store else []
    return Look(seen, about, queue, lines)


async def _lines(conn: Conn, visitor: Visitor | None, wanted: Asked) -> list[Stored] | None:
    """Return the newest lines, the newest first."""
    of = Wanted(
        levels=wanted.levels,
        service_id=None if visitor is None else visitor.service.id,
        words=wanted.words or None,
    )
    try:
        found = await logstore.read(conn, of, LINES, within=WITHIN, seconds=SEARCH_S)
    except DBAPIError as e:
        if db.sqlstate(e) != "57014":  # query_canceled
            raise
        await conn.rollback()
        return None
    return found[::-1]


def _versions(about: Catalog) -> dict[str, str]:
    return {
        "Scheduler": __version__,
        "Postgres": about.version,
        "Schema": about.revision or "none",
        "Time zones": f"tzdata {tzdata.IANA_VERSION}",
    }


# This process -------------------------------------------------------------------------------------


class Pool(msgspec.Struct, frozen=True):
    """Connections to the database: in use, and at most."""

    name: str
    used: int
    most: int


class Process(msgspec.Struct, frozen=True):
    """What only an admin sees: this process, and the machine it runs on."""

    workers: int
    busy: int
    held: int
    unsettled: int
    pools: list[Pool]
    python: str
    embedded: bool
    folder: str
    free: int | None
    total: int | None


async def _machine(engine: Engine) -> Process:
    crew, database = engine.dispatcher.crew, engine.database
    free, total = await _disk(engine.settings)
    return Process(
        workers=crew.count,
        busy=crew.in_flight,
        held=engine.dispatcher.held,
        unsettled=engine.settler.unsettled,
        pools=[
            Pool(name, *health.pool(each))
            for name, each in (("the machine's", database.engine), ("the API's", database.api))
        ],
        python=platform.python_version(),
        embedded=not engine.settings.database.url,
        folder=str(home.data_dir(engine.settings)),
        free=free,
        total=total,
    )


async def _disk(settings: Settings) -> tuple[int | None, int | None]:
    """Return how much room there is, and was, where the data lies, in bytes."""
    try:  # a disk may take its time to answer
        found = await asyncio.to_thread(shutil.disk_usage, home.data_dir(settings))
    except OSError:
        return None, None
    return found.free, found.total


# Live --------------------------------------------------------------------------------------------

SECONDS = 5.0


async def slots(engine: Engine, _service_id: UUID, _now: int) -> dict[str, str]:
    """Return the table of replicas, as every service may see it."""
    async with engine.database.api.connect() as conn:
        seen = await replicas.everyone(conn)
    parts = page.TEMPLATES.get_template("system_parts.html").module
    return {"system:replicas": str(parts.replicas(seen, False))}  # type: ignore[attr-defined]


HANDLERS = (show_system, show_admin_system)

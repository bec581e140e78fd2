"""What every test may ask for: a real Postgres, the whole program on a socket, and a target.

    postgres       our own embedded one, for the session, without fsync; `.url` for maintenance
    database_url   a fresh, migrated database of this test's own (a copy of a template)
    quick_path     a folder in memory, for a Postgres of the test's own
    empty_url      the URL of a database with nothing in it
    conn           an asyncpg connection to that database
    receiver       a real HTTP target (receiver.py)
    commands_on    settings with which commands run: `run_app(**commands_on)`
    app            the program on a free port and that database, with the services alice and bob
    run_app        the same with other settings: `async with run_app(WORKER_COUNT="1") as app:`
    line           a way to the database that can be cut: `run_app(DATABASE_URL=line.url)`
    alice, bob, anonymous
                   httpx clients of `app`
    visitor        an httpx client in which alice is signed in to the pages
    chrome         a real Chromium, for the session (browsing.py)
    browse         `async with browse(app) as page:`: a page of it, in which alice is signed in
    replica        `engine = await replica(WORKER_COUNT="1")`: another engine on the same database

Nothing is patched, and nothing sleeps: `await eventually(assertion)` tries an assertion again.
"""

import asyncio
import contextlib
import functools
import gc
import inspect
import itertools
import logging
import os
import re
import shutil
import socket
import sys
import tempfile
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, quote, urlsplit

import asyncpg
import httpx
import hypothesis
import pytest
import structlog
import uvicorn
import uvloop
from litestar import Litestar

from receiver import Receiver, receiving
from scheduler import app as application
from scheduler import config, migrate, opening, partitions, pgcluster, reaching, server, services
from scheduler.actions import command_rights
from scheduler.actions.command import CommandPerformer
from scheduler.config import Settings
from scheduler.db import Database
from scheduler.embedded import EmbeddedPostgres
from scheduler.engine import Engine
from scheduler.gate import Gate
from scheduler.outbound import Outbound
from scheduler.protocol import Protocol
from scheduler.rooms import furnished

TOKENS = {"alice": "alice-token-0123456789", "bob": "bob-token-0123456789"}
SECRET_KEY = "c2VjcmV0IGtleSBvZiB0aGUgdGVzdHMsIDMyIGJ5dGU="
QUICK = {
    "AUTH_BOOTSTRAP_SERVICE": "alice",
    "AUTH_BOOTSTRAP_TOKEN": TOKENS["alice"],
    "AUTH_CACHE_SECONDS": "0.001",
    "DATABASE_MIGRATE": "false",
    "SECRET_KEY": SECRET_KEY,
    "PREQUEUER_TICKER_INTERVAL_SECONDS": "0.1",
    "WORKER_POLL_SECONDS": "0.05",
    "WORKER_COUNT": "50",
    "WORKER_DRAIN_SECONDS": "5",
}


def pytest_configure() -> None:
    """Run on the product's loop, and let commands find the key that seals.

    (The plugin's hook for the loop parts sync from async fixtures.)
    """
    os.environ["SECRET_KEY"] = SECRET_KEY
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    # A machine that is busy with the rest of the suite is no finding.
    hypothesis.settings.register_profile("here", deadline=None)
    hypothesis.settings.load_profile("here")


def pytest_collection_finish() -> None:
    """Keep the cycle collector off the modules and the thousands of tests, which stay."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)


@pytest.fixture(autouse=True)
def _quiet_logs() -> Iterator[None]:
    """Keep the engine's lines of everyday out of the output, whatever a test before this set up."""
    handlers, level = logging.root.handlers[:], logging.root.level
    structlog.configure(
        processors=[structlog.processors.format_exc_info, structlog.processors.KeyValueRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        # Not where a command's output is, that a test runs in this process.
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    yield
    structlog.reset_defaults()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


async def eventually(assertion: Callable[[], Any], within: float = 5.0) -> Any:
    """Try an assertion, plain or async, again until it holds; return its value."""
    deadline = time.monotonic() + within
    while True:
        try:
            value = assertion()
            return await value if inspect.isawaitable(value) else value
        except (AssertionError, LookupError):
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.01)


# Postgres ----------------------------------------------------------------------------------------


MEMORY = Path("/dev/shm")
ROOM = 2 << 30


@contextlib.contextmanager
def quick_folder(otherwise: Path) -> Iterator[Path]:
    """A folder in memory where there is room; for Postgres three times as quick as a disk."""
    if not MEMORY.is_dir() or shutil.disk_usage(MEMORY).free < ROOM:
        yield otherwise
        return
    folder = Path(tempfile.mkdtemp("-scheduler", dir=MEMORY))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    with quick_folder(tmp_path_factory.mktemp("embedded")) as home:
        server = EmbeddedPostgres(home)
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(pgcluster.SETTINGS, "fsync", "off")
            patch.setitem(pgcluster.SETTINGS, "max_connections", "200")
            server.start()
        yield server
        server.stop()


@pytest.fixture
def quick_path(tmp_path: Path) -> Iterator[Path]:
    """Like tmp_path, and quick: for a Postgres of the test's own."""
    with quick_folder(tmp_path) as folder:
        yield folder


def url_of(postgres: EmbeddedPostgres, database: str) -> str:
    """The URL of another database of the same server."""
    return re.sub(r"/scheduler\?", f"/{database}?", postgres.url)


@pytest.fixture(scope="session")
async def maintenance(postgres: EmbeddedPostgres) -> AsyncIterator[asyncpg.Connection]:
    """A connection from which databases are made and dropped."""
    connection = await asyncpg.connect(postgres.url)
    yield connection
    await connection.close()


@pytest.fixture(scope="session")
async def template(postgres: EmbeddedPostgres, maintenance: asyncpg.Connection) -> str:
    """A database with the migrations run, and the history partitions of this week made."""
    await maintenance.execute("CREATE DATABASE template_migrated")
    url = url_of(postgres, "template_migrated")
    await migrate.up(url)
    database = Database(url, config.Database())
    async with database.api.connect() as conn:
        now = (await conn.exec_driver_sql("SELECT now()")).scalar_one()
    await partitions.make(database.engine, now)
    await database.close()
    await (await asyncpg.connect(url)).close()  # leaves a cache that the copies then have
    return "template_migrated"


NUMBERS = itertools.count()


@pytest.fixture
async def empty_url(
    postgres: EmbeddedPostgres, maintenance: asyncpg.Connection
) -> AsyncIterator[str]:
    """A database with nothing in it."""
    name = f"empty_{next(NUMBERS)}"
    await maintenance.execute(f"CREATE DATABASE {name} STRATEGY file_copy")
    yield url_of(postgres, name)
    await maintenance.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def database_url(
    postgres: EmbeddedPostgres, maintenance: asyncpg.Connection, template: str
) -> AsyncIterator[str]:
    name = f"test_{next(NUMBERS)}"
    await maintenance.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    yield url_of(postgres, name)
    await maintenance.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def conn(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


class Line:
    """A socket to the database that a test can cut, and mend."""

    def __init__(self, url: str, folder: Path) -> None:
        there = parse_qs(urlsplit(url).query)["host"][0]
        self._target = f"{there}/{pgcluster.SOCKET}"
        self._here = folder / pgcluster.SOCKET
        self.url = url.replace(f"host={quote(there, safe='/')}", f"host={folder}")
        self._ends: set[asyncio.StreamWriter] = set()

    async def mend(self) -> None:
        """Let connections through."""
        self._server = await asyncio.start_unix_server(self._relay, self._here)

    async def cut(self) -> None:
        """Break every connection, and refuse new ones."""
        self._server.close()
        self._here.unlink(missing_ok=True)
        for end in list(self._ends):
            end.transport.abort()
        await eventually(lambda: not_any(self._ends))

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_unix_connection(self._target)
        ends = {writer, far_writer}
        self._ends |= ends
        try:
            pumps = (_pump(reader, far_writer), _pump(far_reader, writer))
            await asyncio.wait([asyncio.create_task(pump) for pump in pumps])
        finally:
            for end in ends:
                end.transport.abort()
            self._ends -= ends


def not_any(things: set[Any]) -> None:
    assert not things


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
    writer.transport.abort()


@pytest.fixture
async def line(database_url: str) -> AsyncIterator[Line]:
    """A way to this test's database that can be cut: `run_app(DATABASE_URL=line.url)`."""
    with tempfile.TemporaryDirectory(prefix="line") as folder:  # short: it becomes a socket's path
        made = Line(database_url, Path(folder))
        await made.mend()
        yield made
        await made.cut()


# The program -------------------------------------------------------------------------------------


class Server(uvicorn.Server):
    """uvicorn without its signal handlers, and without its naps of a tenth of a second."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()
        self.enough = asyncio.Event()

    async def live(self, sock: socket.socket) -> None:
        with contextlib.suppress(SystemExit):  # of a start that failed; it would end the loop
            await self._serve(sockets=[sock])

    async def main_loop(self) -> None:
        self.up.set()
        await self.enough.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listening in self.servers:
            listening.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        while self.server_state.connections or self.server_state.tasks:
            await asyncio.sleep(0.001)
        for listening in self.servers:
            await listening.wait_closed()
        await self.lifespan.shutdown()


@dataclass(frozen=True)
class App:
    """The program under test."""

    url: str
    settings: Settings
    process: server.Process
    server: Server
    engine: Engine
    database: Database
    gate: Gate
    ids: dict[str, str]
    """The services' ids by name."""

    def client(self, service: str | None = None, **headers: str) -> httpx.AsyncClient:
        """A client that acts for a service, or for nobody; `headers` are sent as they are."""
        if service is not None:
            headers |= {"service_id": self.ids[service], "token": TOKENS[service]}
        return httpx.AsyncClient(
            base_url=self.url, headers=headers, timeout=20, trust_env=False, verify=False
        )


class Built:
    """An application, which runs for one test after the other: to build one takes 0.2 s."""

    idle: ClassVar[dict[frozenset[Any], "Built"]] = {}
    """By the settings they were built with, but for the database's; the last used last."""
    MOST: ClassVar[int] = 8

    def __init__(self, settings: Settings) -> None:
        self.asgi = application.create(settings, self._lifespan)

    def _lifespan(self, asgi: Litestar) -> AbstractAsyncContextManager[None]:
        return self.process.lifespan(asgi)

    @classmethod
    @contextlib.contextmanager
    def lent(cls, wanted: dict[str, str | None], process: server.Process) -> Iterator[Litestar]:
        """One that nobody uses now; it comes back only once it has stopped well."""
        key = frozenset((wanted | {"DATABASE_URL": None}).items())
        built = cls.idle.pop(key, None) or cls(process.settings)
        built.process = process
        built.asgi.state.clear()
        built.asgi.state["settings"] = process.settings
        yield built.asgi
        cls.idle[key] = built
        if len(cls.idle) > cls.MOST:
            del cls.idle[next(iter(cls.idle))]


@asynccontextmanager
async def running(url: str, folder: Path, **environ: str | None) -> AsyncIterator[App]:
    """The whole program on a free port, with the services alice and bob.

    None takes a setting of QUICK back.
    """
    wanted = {**QUICK, "DATABASE_URL": url, "SERVER_PORT": "0", **environ}
    settings = config.load(environ={k: v for k, v in wanted.items() if v is not None})
    url = settings.database.url
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(contextlib.closing(server.listening(settings)))
        await reaching.prepared(settings, url)
        address = server.address(sock)
        process = server.Process(settings, url, None, address, folder / "credentials.json")
        process._failed = []
        asgi = stack.enter_context(Built.lent(wanted, process))
        serving = Server(
            uvicorn.Config(
                asgi,
                http=Protocol,
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
            )
        )
        task = asyncio.create_task(serving.live(sock))
        started = asyncio.create_task(serving.up.wait())
        await asyncio.wait([task, started], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            started.cancel()
            await task
            raise process._failed[0] if process._failed else RuntimeError("it did not start")
        try:
            state = asgi.state
            ids = await _services(state.database)
            yield App(
                address, settings, process, serving, state.engine, state.database, state.gate, ids
            )
        finally:
            serving.enough.set()
            await asyncio.wait_for(task, 20)


async def _services(database: Database) -> dict[str, str]:
    async with database.api.begin() as conn:
        there = {service.name: str(service.id) for service in await services.list_all(conn)}
        if "bob" not in there:
            created = await services.create(conn, "bob", token=TOKENS["bob"], vault=database.vault)
            there["bob"] = str(created.service.id)
    return there


RunApp = Callable[..., AbstractAsyncContextManager[App]]


@pytest.fixture
def run_app(database_url: str, tmp_path: Path) -> RunApp:
    """Start the program with settings of the test's own, under their environment names."""
    return lambda **environ: running(database_url, tmp_path, **environ)


@pytest.fixture
def commands_on() -> Iterator[dict[str, str]]:
    """The settings that let services run commands, in a directory that others may enter."""
    with tempfile.TemporaryDirectory(prefix="commands") as folder:
        Path(folder).chmod(0o755)
        yield {
            "COMMANDS_ENABLED": "true",
            "COMMANDS_SAME_USER": str(os.geteuid() != 0).lower(),
            "COMMANDS_DIRECTORY": f"{folder}/runs",
        }


@pytest.fixture
async def app(run_app: RunApp) -> AsyncIterator[App]:
    async with run_app() as started:
        yield started


@pytest.fixture
async def alice(app: App) -> AsyncIterator[httpx.AsyncClient]:
    async with app.client("alice") as client:
        yield client


@pytest.fixture
async def bob(app: App) -> AsyncIterator[httpx.AsyncClient]:
    async with app.client("bob") as client:
        yield client


@pytest.fixture
async def anonymous(app: App) -> AsyncIterator[httpx.AsyncClient]:
    async with app.client() as client:
        yield client


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as target:
        yield target


@pytest.fixture
async def replica(database_url: str) -> AsyncIterator[Callable[..., Awaitable[Engine]]]:
    """Start further engines on this test's database; they stop at its end."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(**environ: str) -> Engine:
            settings = config.load(environ={**QUICK, "DATABASE_URL": database_url, **environ})
            database = Database(database_url, settings.database)
            stack.push_async_callback(database.close)
            await opening.unlock(database, settings, Path(settings.data.dir or "/nowhere"))
            rules = server.rules(settings, database_url, "http://127.0.0.1:1")
            outbound = await stack.enter_async_context(Outbound(settings.http, rules))
            rights = command_rights.judged(settings.commands, None)
            commands = CommandPerformer(settings.commands, rights)
            await stack.enter_async_context(commands)
            engines: list[Engine] = []

            def wake(at: int) -> None:
                engines[0].wake(at)

            rooms = await stack.enter_async_context(
                furnished(settings, database, outbound, commands, wake)
            )
            engine = Engine(
                settings,
                database,
                rooms,
                Gate(settings.auth),
                role="worker",
            )
            engines.append(engine)
            await engine.start()
            stack.push_async_callback(engine.stop)
            return engine

        yield start


@pytest.fixture
async def visitor(app: App) -> AsyncIterator[httpx.AsyncClient]:
    from pages import signed_in

    async with signed_in(app) as client:
        yield client


@pytest.fixture(scope="session")
async def chrome() -> AsyncIterator[Any]:
    from browsing import there
    from screenshots import browser

    there()
    async with browser() as made:
        yield made


@pytest.fixture
def browse(chrome: Any) -> Any:
    from browsing import browsing

    return functools.partial(browsing, chrome)

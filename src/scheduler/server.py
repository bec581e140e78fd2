"""The process: what starts before what, what is told to the operator, and what stops last."""

import asyncio
import contextlib
import gc
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

import structlog
import uvicorn
from litestar import Litestar

from scheduler import app, disk, logs, logstore, metrics, opening, pgbinaries, reaching
from scheduler.actions import command_rights
from scheduler.actions.command import CommandPerformer
from scheduler.admin import acts
from scheduler.config import Settings, secrets
from scheduler.db import Database
from scheduler.egress import Rules
from scheduler.embedded import EmbeddedPostgres
from scheduler.engine import Engine
from scheduler.errors import StartupError
from scheduler.gate import Gate
from scheduler.home import CREDENTIALS, data_dir
from scheduler.joining import Joiners
from scheduler.outbound import Outbound
from scheduler.protocol import Protocol
from scheduler.rooms import furnished
from scheduler.welcome import welcome, write_credentials

log = structlog.get_logger()

WATCH_S = 2.0
"""How often the embedded Postgres is looked at."""


def serve(settings: Settings, credentials: Path | None, *, paused: bool = False) -> None:
    """Run everything until a signal says stop, with `paused` nothing but the API.

    Raises StartupError.
    """
    logs.configure(settings.log, known=secrets(settings))
    opening.judge(settings)
    with stoppable() as stack:
        sock = stack.enter_context(listening(settings))
        url, postgres, joiners = settings.database.url, None, None
        if not url:
            postgres = EmbeddedPostgres(data_dir(settings))
            postgres.lock()
            stack.callback(postgres.stop)  # last of all, when nobody needs it any more
            postgres.start(say)
            url, joiners = postgres.url, Joiners(data_dir(settings))
        asyncio.run(reaching.prepared(settings, url))
        at = credentials or data_dir(settings) / CREDENTIALS
        process = Process(
            settings, url, postgres, address(sock), at, joiners=joiners, paused=paused
        )
        process.run(sock)


class Stopped(BaseException):
    """A signal said stop before the server that handles it ran, or after."""


@contextlib.contextmanager
def stoppable() -> Iterator[contextlib.ExitStack]:
    """End the block quietly where a signal says stop, and then what its stack holds."""
    signal.signal(signal.SIGTERM, _stop)
    with contextlib.suppress(Stopped, KeyboardInterrupt), contextlib.ExitStack() as stack:
        stack.callback(deafen)
        yield stack


def _stop(_signal: int, _frame: object) -> None:
    raise Stopped


def deafen() -> None:
    """Hear no more signals: what is left to do is short, and must be done."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def say(sentence: str) -> None:
    """Tell the operator."""
    print(sentence, flush=True)  # noqa: T201


def listening(settings: Settings, port: int | None = None) -> socket.socket:
    """Return the bound socket, on `server.port` where no other is named.

    Raises StartupError where the address cannot be had.
    """
    host, port = settings.server.host, settings.server.port if port is None else port
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as e:
        raise StartupError(
            f"cannot listen on {host}:{port}: {e.strerror}; "
            "choose another with SERVER_HOST and SERVER_PORT"
        ) from None


def address(sock: socket.socket) -> str:
    """Return the URL under which the socket is reached from here."""
    host, port = sock.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{host}:{port}"


def configured(settings: Settings) -> str:
    """Return the URL of the address that the settings name, whether or not anybody listens."""
    host = settings.server.host
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.server.port or 80}"


class Server(uvicorn.Server):
    """Uvicorn's, which says at the signal that it is about to stop, not only when it has."""

    def __init__(self, config: uvicorn.Config, begin_stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._begin_stop = begin_stop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and calm the collector: of the process, whose only application this is."""
        await super().startup(sockets)
        calm_collector()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Hear a signal, in the main thread."""
        self._begin_stop()
        super().handle_exit(sig, frame)


class Process:
    """One `scheduler serve`; without `credentials` one `scheduler worker`, which has no API.

    `joiners` come with an embedded Postgres of its own.
    """

    def __init__(
        self,
        settings: Settings,
        url: str,
        postgres: EmbeddedPostgres | None,
        address: str,
        credentials: Path | None,
        *,
        joiners: Joiners | None = None,
        paused: bool = False,
    ) -> None:
        self.settings = settings
        self.url = url
        self.postgres = postgres
        self.address = address
        self.credentials = credentials
        self.joiners = joiners
        self.paused = paused
        self._engine: Engine | None = None
        self._listens = False
        self._told_to_stop = False

    def run(self, sock: socket.socket | None) -> None:
        """Serve until a signal says stop; without a socket nobody is listened to."""
        self._listens = sock is not None
        create = app.create if self.credentials else app.create_small
        serving = uvicorn.Config(
            create(self.settings, self.lifespan),
            loop="uvloop",
            http=Protocol,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=max(1, int(self.settings.worker.drain_seconds)),
        )
        server = Server(serving, self._begin_stop)
        failed: list[BaseException] = []
        self._failed = failed
        # Once done, uvicorn raises the signal again, for whoever handled it before.
        with contextlib.suppress(Stopped, KeyboardInterrupt, SystemExit):
            server.run(sockets=[sock] if sock else [])
        deafen()
        if failed:
            raise failed[0]
        if not server.started and not self._told_to_stop:
            raise StartupError("the server could not start; its log says why")

    @asynccontextmanager
    async def lifespan(self, application: Litestar) -> AsyncIterator[None]:
        """Start in order, and stop in the opposite one."""
        try:
            async with self._started(application):
                yield
        except StartupError as e:
            self._failed.append(e)
            raise
        except Exception:
            log.exception("the server broke")
            raise

    @asynccontextmanager
    async def _started(self, application: Litestar) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            if self.postgres is not None:
                stack.enter_context(background(self._keep_postgres(self.postgres)))
            commands = await stack.enter_async_context(self._commands())
            database = Database(self.url, self.settings.database)
            stack.push_async_callback(database.close)
            await settle_in(database, self.settings, paused=self.paused)
            await stack.enter_async_context(logstore.storing(database, self.settings.log))
            outbound = await stack.enter_async_context(
                Outbound(self.settings.http, rules(self.settings, self.url, self.address))
            )
            rooms = await stack.enter_async_context(
                furnished(self.settings, database, outbound, commands, self._wake_at)
            )
            gate = Gate(self.settings.auth, self.settings.quotas)
            if self.credentials is not None:
                await self._introduce(database, self.credentials)
            engine = Engine(
                self.settings,
                database,
                rooms,
                gate,
                role="serve" if self.credentials else "worker",
                sole=self.joiners is not None and self.joiners.none(),
            )
            self._engine = engine
            await self._watch_disk(engine, stack)
            metrics.OUTBOUND.set_function(lambda: outbound.open)
            await engine.start()
            if self.joiners is not None:
                self.joiners.release()
            stack.push_async_callback(engine.stop)
            application.state.update(
                {"engine": engine, "database": database, "gate": gate, "rooms": rooms}
            )
            log.info("ready", **self._listening())
            yield

    def _commands(self) -> CommandPerformer:
        """Return what runs commands. Raises StartupError for settings that do not fit together."""
        settings = self.settings.commands
        rules = command_rights.judged(settings, postgres_user(self.settings))
        if isinstance(rules, str) and settings.enabled:
            log.warning("commands may not run here", reason=rules)
        return CommandPerformer(settings, rules)

    async def _watch_disk(self, engine: Engine, stack: contextlib.AsyncExitStack) -> None:
        """Halt the engine while the embedded Postgres's disk is nearly full, from its start on.

        A worker that has joined one watches it too.
        """
        if self.postgres is None and self.settings.database.url:
            return
        postgres = self.postgres or EmbeddedPostgres(data_dir(self.settings))
        data, least = postgres.cluster.data, self.settings.data.min_free_bytes
        watch = disk.Watch(data, least, engine.dispatcher.halt)
        await watch.look()
        stack.enter_context(background(watch.keep_looking()))

    def _wake_at(self, at: int) -> None:
        """Tell everyone that a run is due at `at` (ms)."""
        if self._engine is not None:
            self._engine.wake(at)

    def _listening(self) -> dict[str, str]:
        return {"url": self.address} if self._listens else {}

    def _begin_stop(self) -> None:
        self._told_to_stop = True
        if self._engine is not None:
            self._engine.begin_stop()

    async def _introduce(self, database: Database, credentials: Path) -> None:
        """Create the first service where there is none, and tell its credentials, once."""
        async with database.api.begin() as conn:
            created = await acts.bootstrap(
                conn,
                self.settings.auth,
                allow_commands=self.settings.commands.enabled,
                vault=database.vault,
            )
            if created is not None:
                write_credentials(credentials, self.address, created)
        if created is not None:
            say(welcome(self.address, created, credentials))
        elif not credentials.exists():
            say(
                f"Scheduler is at {self.address}. {credentials} is missing; make a new token "
                "with `scheduler services rotate NAME`, or a service with "
                "`scheduler services create NAME`."
            )
        else:
            say(f"Scheduler is at {self.address}, credentials in {credentials}.")

    async def _keep_postgres(self, postgres: EmbeddedPostgres) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            try:
                if not postgres.alive():
                    log.error("the embedded Postgres is gone; starting it again")
                    await asyncio.to_thread(postgres.ensure)
            except StartupError as e:
                log.error("the embedded Postgres cannot be started", error=str(e))  # noqa: TRY400
            except Exception:
                log.exception("the embedded Postgres cannot be started")


async def settle_in(database: Database, settings: Settings, *, paused: bool = False) -> None:
    """Take the secrets key, and see whose database this is; tell the operator. Of every replica.

    Raises StartupError for a key that is missing or another one.
    """
    made = await opening.unlock(database, settings, data_dir(settings))
    if made is not None:
        say(made)
    reason = await opening.settle_in(database, paused=paused)
    if reason is not None:
        say(opening.told_paused(reason))


def calm_collector() -> None:
    """Keep the cycle collector off what stays, and rare for the rest.

    Ten thousand held runs made it walk them all again and again: a third of the time of a burst.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


@contextlib.contextmanager
def background(work: Any) -> Any:
    """Run a coroutine beside the block, and cancel it at its end."""
    running = asyncio.create_task(work)
    try:
        yield
    finally:
        running.cancel()


def postgres_user(settings: Settings) -> int | None:
    """Return whom the embedded Postgres runs as, where it is another user than this process's."""
    if settings.database.url or not settings.commands.enabled:
        return None
    return pgbinaries.account(EmbeddedPostgres(data_dir(settings)).cluster.data).uid


def rules(settings: Settings, url: str, own: str) -> Rules:
    """Return the rules of egress, which always refuse this program and its database."""
    built = Rules(settings.egress)
    here = urlsplit(own)
    built.add_own(here.hostname or "127.0.0.1", here.port or 80)
    for port in {here.port or 80, settings.server.port or here.port or 80}:
        built.add_own(settings.server.host, port)  # 0.0.0.0: each address of this host
    for host, port in reaching.database_addresses(url):
        built.add_own(host, port)
    return built

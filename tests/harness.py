"""The program as real processes, a real target, and what must be true of both afterwards.

    Scheduler   `scheduler serve` in a process of its own, which can be killed, stopped, and told
                to die at a place in its own code (`Fault`)
    Shared      a Postgres of the test's own, which several replicas share
    Wire        the way from one replica to Postgres, which can be cut or made silent
    Target      an HTTP target that records what arrives, and when
    Sql         questions to the database, past the program
    Ledger      what became of every instant of every task

Nothing is patched in the product; a `Fault` is laid around a function of the process's own.
"""

import asyncio
import contextlib
import functools
import http.client
import inspect
import itertools
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, quote, urlsplit
from uuid import UUID

import asyncpg
import psutil
import pytest

from scheduler.embedded import EmbeddedPostgres

SECRET_KEY = "c2VjcmV0IGtleSBvZiB0aGUgdGVzdHMsIDMyIGJ5dGU="
TOKEN = "a-token-for-the-harness-0123456789"
RECLAIM_S = 15.0
"""Runs of a process that was killed are taken up again within this."""


def until(condition: Callable[[], Any], within: float, what: str = "") -> Any:
    """Ask again until the answer is true, and return it."""
    deadline = time.monotonic() + within
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within:g} s: {what}")
        time.sleep(0.02)


def holds(condition: Callable[[], Any], for_s: float, what: str = "") -> None:
    """See that something stays true for a while."""
    deadline = time.monotonic() + for_s
    while time.monotonic() < deadline:
        assert condition(), what
        time.sleep(0.05)


class Background:
    """An event loop in a thread of its own; the standard one.

    The collector runs in any thread, and uvloop's handles may only be freed in their loop's.
    """

    def __init__(self) -> None:
        self.loop = asyncio.SelectorEventLoop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def do(self, work: Coroutine[Any, Any, Any], within: float = 30) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(within)

    def close(self) -> None:
        async def end() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        self.do(end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


# The target ---------------------------------------------------------------------------------------


@dataclass
class Arrival:
    """A call, as the target saw it; times in seconds since 1970."""

    path: str
    headers: dict[str, str]
    at: float
    ended: float | None = None

    @property
    def key(self) -> UUID:
        return UUID(self.headers["idempotency-key"])

    @property
    def task(self) -> str:
        return self.headers["x-scheduler-task"]

    @property
    def attempt(self) -> int:
        return int(self.headers["x-scheduler-attempt"])

    @property
    def scheduled_for(self) -> float:
        return seconds(self.headers["x-scheduler-scheduled-for"])


def seconds(rfc3339: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(rfc3339).timestamp()


class Target:
    """A real HTTP server. The query says how it answers:

    `delay=2.5` seconds later; `hold=name`: when `release(name)` is called; `status=500`;
    `times=3`: so for the first three calls of a run only, and then 200 at once;
    `then=500`: what it answers after those, instead of 200.
    """

    def __init__(self) -> None:
        self.arrivals: list[Arrival] = []
        self._seen: Counter[tuple[str, str]] = Counter()
        self._held: dict[str, list[Callable[[], None]]] = defaultdict(list)
        self._released: set[str] = set()
        self._background = Background()
        self._server = self._background.do(self._serve())
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"

    async def _serve(self) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        return await loop.create_server(lambda: _Connection(self), "127.0.0.1", 0, backlog=2048)

    def release(self, name: str) -> None:
        """Answer what is held under a name, and what comes."""

        def now() -> None:
            self._released.add(name)
            for answer in self._held.pop(name, []):
                answer()

        self._background.loop.call_soon_threadsafe(now)

    def of(self, task: str) -> list[Arrival]:
        return [a for a in list(self.arrivals) if a.task == task]

    def keys(self, *tasks: str) -> Counter[UUID]:
        """How often each run arrived."""
        return Counter(a.key for a in list(self.arrivals) if not tasks or a.task in tasks)

    def early(self) -> list[Arrival]:
        """What came before its time; the database has this machine's clock."""
        return [a for a in list(self.arrivals) if a.at < a.scheduled_for]

    def close(self) -> None:
        self._background.loop.call_soon_threadsafe(self._server.close)
        self._background.close()

    def took(self, connection: "_Connection", arrival: Arrival) -> None:
        """Answer a call, now or later; in the loop."""
        loop = self._background.loop
        query = {k: v[0] for k, v in parse_qs(urlsplit(arrival.path).query).items()}
        status = int(query.get("status", "200"))
        if "times" in query:
            self._seen[arrival.headers.get("idempotency-key", ""), arrival.path] += 1
            number = self._seen[arrival.headers.get("idempotency-key", ""), arrival.path]
            if number > int(query["times"]):
                status, query = int(query.get("then", "200")), {}

        def answer() -> None:
            arrival.ended = time.time()
            connection.answer(status)

        if "hold" in query and query["hold"] not in self._released:
            self._held[query["hold"]].append(answer)
        elif "delay" in query:
            loop.call_later(float(query["delay"]), answer)
        else:
            answer()


class _Connection(asyncio.Protocol):
    def __init__(self, target: Target) -> None:
        self._target = target
        self._buffer = b""
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        at = time.time()
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            first, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
            headers = {}
            for line in lines:
                name, _, value = line.partition(":")
                headers[name.strip().lower()] = value.strip()
            length = int(headers.get("content-length", "0"))
            if len(self._buffer) < end + 4 + length:
                return
            self._buffer = self._buffer[end + 4 + length :]
            arrival = Arrival(first.split(" ")[1], headers, at)
            self._target.arrivals.append(arrival)
            self._target.took(self, arrival)

    def answer(self, status: int) -> None:
        if not self._transport.is_closing():
            self._transport.write(f"HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\nok".encode())


# The database -------------------------------------------------------------------------------------


class Sql:
    """Questions to the database; a connection each, so that it survives whatever is done to it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._background = Background()

    def all(self, statement: str, *values: Any) -> list[Any]:
        return self._background.do(self._ask(statement, values))

    def one(self, statement: str, *values: Any) -> Any:
        """The first column of the first row, or None."""
        rows = self.all(statement, *values)
        return rows[0][0] if rows else None

    async def _ask(self, statement: str, values: Sequence[Any]) -> list[Any]:
        conn = await asyncpg.connect(
            self.url, timeout=10, server_settings={"application_name": "harness"}
        )
        try:
            return await conn.fetch(statement, *values)
        finally:
            await conn.close()

    @contextmanager
    def locking(self, statement: str) -> Iterator[None]:
        """Hold the locks of a statement meanwhile."""
        conn = self._background.do(asyncpg.connect(self.url, timeout=10))
        try:
            self._background.do(conn.execute("BEGIN"))
            self._background.do(conn.execute(statement))
            yield
        finally:
            self._background.loop.call_soon_threadsafe(conn.terminate)

    def close(self) -> None:
        self._background.close()


class Shared:
    """A Postgres for several replicas; it is started again by whoever calls `start`."""

    def __init__(self, base: Path) -> None:
        self._postgres = EmbeddedPostgres(base)
        self._postgres.start()
        self.url = self._postgres.url
        self.sql = Sql(self.url)
        self._numbers = itertools.count()

    def fresh(self) -> str:
        """Make an empty database; return its address."""
        name = f"fresh{next(self._numbers)}"
        self.sql.all(f"CREATE DATABASE {name}")
        return self.url.replace("/scheduler?", f"/{name}?")

    def kill(self) -> None:
        """Stop it in immediate mode: no checkpoint, connections are cut, recovery follows."""
        server = self._postgres._server
        assert server is not None
        os.kill(server.pid, signal.SIGQUIT)
        until(lambda: not self._postgres.alive(), 20, "Postgres is gone")

    def start(self) -> None:
        self._postgres.ensure()

    def close(self) -> None:
        self.sql.close()
        self._postgres.stop()


class Wire:
    """A Unix socket that leads to another one: one replica's own way to Postgres."""

    def __init__(self, directory: Path, url: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        parts = urlsplit(url)
        query = {k: v[0] for k, v in parse_qs(parts.query).items()}
        self._there = f"{query['host']}/.s.PGSQL.{query['port']}"
        self._path = str(directory / ".s.PGSQL.5432")
        self.url = f"postgresql://{parts.netloc}{parts.path}?host={quote(str(directory))}&port=5432"
        self._writers: set[asyncio.StreamWriter] = set()
        self._cut = False
        self._flowing = asyncio.Event()
        self._background = Background()
        self._background.loop.call_soon_threadsafe(self._flowing.set)
        self._server = self._background.do(asyncio.start_unix_server(self._accept, self._path))

    def cut(self) -> None:
        """Close every connection, and each new one at once."""
        self._cut = True
        self._background.loop.call_soon_threadsafe(self._close_all)

    def silence(self) -> None:
        """Pass nothing on, and close nothing."""
        self._background.loop.call_soon_threadsafe(self._flowing.clear)

    def mend(self) -> None:
        self._cut = False
        self._background.loop.call_soon_threadsafe(self._flowing.set)

    def close(self) -> None:
        self._background.loop.call_soon_threadsafe(self._server.close)
        self._background.loop.call_soon_threadsafe(self._close_all)
        self._background.close()

    def _close_all(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._cut:
            writer.transport.abort()
            return
        there_reader, there = await asyncio.open_unix_connection(self._there)
        both = {writer, there}
        self._writers |= both
        try:
            await asyncio.gather(self._pump(reader, there), self._pump(there_reader, writer))
        finally:
            self._writers -= both

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


# The program --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """At the `nth` call of a function of the program, before or after it: a signal to oneself.

    Calls that return nothing (an empty claim) are not counted. It works while `armed` exists, so
    that a test can set the scene first.
    """

    where: str
    """As in `scheduler.queue:settle` or `scheduler.outbound:Outbound.send`."""
    when: str = "before"
    nth: int = 1
    sign: int = signal.SIGKILL
    pause: float = 0.0
    """Seconds that the call takes longer then, for signals that one survives."""


DRIVER = """
import asyncio, functools, importlib, json, os, sys
from pathlib import Path

fault = json.loads(os.environ.pop("FAULT"))
armed = Path(fault["armed"])
place, _, name = fault["where"].partition(":")
owner = importlib.import_module(place)
*path, name = name.split(".")
for part in path:
    owner = getattr(owner, part)
original = getattr(owner, name)
count = 0

async def strike():
    global count
    if not armed.exists():
        return
    count += 1
    if count == fault["nth"]:
        print("fault strikes", fault["where"], fault["when"], file=sys.stderr, flush=True)
        os.kill(os.getpid(), fault["sign"])
        if fault["pause"]:
            await asyncio.sleep(fault["pause"])

@functools.wraps(original)
async def faulty(*args, **kwargs):
    if fault["when"] == "before":
        await strike()
    result = await original(*args, **kwargs)
    if fault["when"] == "after" and (result is None or result):
        await strike()
    return result

setattr(owner, name, faulty)
from scheduler import cli
sys.argv = ["scheduler", *sys.argv[1:]]
cli.main()
"""


class Scheduler:
    """One `scheduler serve`; in `home` are its credentials, its output and its log.

    `words` is another command than `serve`, with its flags.
    """

    def __init__(
        self,
        home: Path,
        name: str = "scheduler",
        *,
        data: Path | None = None,
        database: str = "",
        fault: Fault | None = None,
        words: Sequence[str] = (),
        **settings: Any,
    ) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.home, self.name, self.data = home, name, data
        self.armed = home / f"{name}.armed"
        self.armed.unlink(missing_ok=True)
        self._out, self._err = home / f"{name}.out", home / f"{name}.err"
        self._credentials = (data or home) / "credentials.json"
        environment = {
            k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG", "PYTHONPATH")
        }
        environment |= {"SERVER_PORT": "0", "LOG_FORMAT": "json", "AUTH_BOOTSTRAP_TOKEN": TOKEN}
        if database:  # replicas share the key, and have no data directory here
            environment["SECRET_KEY"] = SECRET_KEY
        environment |= {"DATABASE_API_POOL": "3"}  # many share one Postgres here
        environment |= {"DATABASE_URL": database} if database else {"DATA_DIR": str(data)}
        environment |= {k.upper(): str(v) for k, v in settings.items()}
        command = [sys.executable, "-m", "scheduler"]
        if fault is not None:
            asked = {"where": fault.where, "when": fault.when, "nth": fault.nth}
            asked |= {"sign": int(fault.sign), "armed": str(self.armed), "pause": fault.pause}
            environment["FAULT"] = json.dumps(asked)
            command = [sys.executable, "-c", DRIVER]
        self.started_at = time.monotonic()
        with self._out.open("wb") as out, self._err.open("ab") as err:
            self.process = subprocess.Popen(
                [*command, *(words or ("serve", "--credentials-file", str(self._credentials)))],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=home,
                start_new_session=True,
            )
        self._local = threading.local()
        self._clients: list[http.client.HTTPConnection] = []
        self._log_from = self._err.stat().st_size

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    @property
    def url(self) -> str:
        found = re.search(r"Scheduler is at (http://[^\s,]+[0-9])", self._out.read_text())
        assert found, self._out.read_text()
        return found[1]

    def ready(self, within: float = 30) -> Self:
        """Return when work is being done."""

        def answers() -> bool:
            assert self.alive, self._err.read_text()[-3000:]
            if "Scheduler is at" not in self._out.read_text():
                return False
            with contextlib.suppress(OSError, http.client.HTTPException):
                return self.call("GET", "/ready")[0] == 200
            return False

        until(answers, within, f"{self.name} is ready")
        return self

    @property
    def service_id(self) -> str:
        found: str = json.loads(self._credentials.read_text())["service_id"]
        return found

    def call(self, method: str, path: str, body: Any = None, within: float = 30) -> tuple[int, Any]:
        """Ask the API; a connection to each thread."""
        headers = {"token": TOKEN}
        if self._credentials.exists():
            headers["service_id"] = self.service_id
        sent = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            sent = json.dumps(body).encode()
        client = getattr(self._local, "client", None)
        if client is None:
            at = urlsplit(self.url)
            client = http.client.HTTPConnection(str(at.hostname), at.port, timeout=within)
            self._local.client = client
            self._clients.append(client)
        try:
            client.request(method, path, sent, headers)
            answer = client.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException):
            client.close()  # it opens again by itself
            raise
        kind = answer.headers.get("content-type", "")
        return answer.status, json.loads(content) if content and "json" in kind else content

    def do(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the API for what must work."""
        status, answer = self.call(method, path, body)
        assert status < 300, (method, path, status, answer)
        return answer

    def create(self, tasks: Sequence[dict[str, Any]]) -> None:
        """Create many tasks, a few at a time."""
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda task: self.do("POST", "/tasks", task), tasks))

    def metric(self, name: str) -> float:
        """The value of a metric, with its labels as it is written."""
        _, text = self.call("GET", "/metrics")
        lines = [line for line in text.decode().splitlines() if line.startswith(name + " ")]
        return float(lines[0].split()[-1]) if lines else 0.0

    def log(self) -> list[dict[str, Any]]:
        """What this process logged."""
        found = []
        with self._err.open("rb") as file:
            file.seek(self._log_from)
            for line in file.read().decode(errors="replace").splitlines():
                with contextlib.suppress(ValueError):
                    found.append(json.loads(line))
        return [line for line in found if isinstance(line, dict)]

    def logged(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.log() if event in str(line.get("message", ""))]

    def troubles(self) -> list[Any]:
        """What no test wants to see in a log, whatever was done to the process."""
        bad = ("a part of the engine died", "a run broke its runner", "a tick failed",
               "claiming failed", "outcome refused", "request failed")  # fmt: skip
        text = self._err.read_bytes()[self._log_from :].decode(errors="replace")
        found = [line for line in self.log() if str(line.get("message", "")).startswith(bad)]
        never = "exception was never retrieved" in text
        return found + ([text[-2000:]] if never else [])

    def signal(self, sign: int) -> None:
        os.kill(self.pid, sign)

    def kill(self) -> None:
        """kill -9, and wait."""
        self.signal(signal.SIGKILL)
        self.process.wait(10)

    def struck(self, within: float = 30) -> None:
        """Return when the fault has killed the process."""
        self.armed.touch()
        assert self.process.wait(within) == -signal.SIGKILL

    def stopped(self) -> bool:
        """Say whether a SIGSTOP stands."""
        return psutil.Process(self.pid).status() == psutil.STATUS_STOPPED

    def stop(self, within: float = 40) -> int:
        """SIGTERM, and wait; return the exit code."""
        if self.alive:
            self.signal(signal.SIGTERM)
        return self.process.wait(within)

    def close(self) -> None:
        """Leave nothing behind."""
        for client in self._clients:
            client.close()
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGCONT)
                os.kill(self.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(3)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait(10)
        if self.data is not None:
            end_postgres(self.data)


def postmaster(data: Path) -> psutil.Process | None:
    """The embedded Postgres of a data directory."""
    try:
        pid = int((data / "postgres/data/postmaster.pid").read_text().split()[0])
        found = psutil.Process(pid)
        return found if found.name().startswith("postgres") else None
    except (OSError, ValueError, IndexError, psutil.Error):
        return None


def end_postgres(data: Path) -> None:
    """Kill the embedded Postgres that a killed scheduler left running."""
    found = postmaster(data)
    if found is not None:
        with contextlib.suppress(psutil.Error):
            found.send_signal(signal.SIGQUIT)
            found.wait(10)


class Stage:
    """What one test started; all of it ends with the test."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._ends = contextlib.ExitStack()
        self.target = Target()
        self._ends.callback(self.target.close)
        self._count = 0

    def shared(self) -> Shared:
        found = Shared(self.home / "shared")
        self._ends.callback(found.close)
        return found

    def scheduler(self, name: str = "", **wanted: Any) -> Scheduler:
        self._count += 1
        name = f"{name or 'scheduler'}-{self._count}"
        found = Scheduler(self.home, name, **wanted)
        self._ends.callback(found.close)
        return found

    def wire(self, url: str) -> Wire:
        self._count += 1
        found = Wire(self.home / f"wire{self._count}", url)
        self._ends.callback(found.close)
        return found

    def sql(self, url: str) -> Sql:
        found = Sql(url)
        self._ends.callback(found.close)
        return found

    def close(self) -> None:
        self._ends.close()


@contextmanager
def stage(home: Path) -> Iterator[Stage]:
    found = Stage(home)
    try:
        yield found
    finally:
        found.close()


def interval(
    name: str, url: str, frequency: int = 1, unit: str = "second", **more: Any
) -> dict[str, Any]:
    """The body of a task."""
    return {
        "id": name, "name": name, "url": url, "frequency": frequency, "unit": unit,
        "overlap": "allow", **more,
    }  # fmt: skip


class Scenes:
    """The tests of a module that are marked `together`, a few at a time: most of them wait."""

    def __init__(
        self, request: pytest.FixtureRequest, home: Path, at_once: int, **given: Any
    ) -> None:
        self._pool = ThreadPoolExecutor(at_once)
        self._playing: dict[str, Future[None]] = {}
        for number, item in enumerate(request.session.items):
            work = getattr(getattr(item, "function", None), "scene", None)
            if item.module is request.module and work is not None:  # type: ignore[attr-defined]
                values = dict(item.callspec.params) if hasattr(item, "callspec") else {}
                wanted = inspect.signature(work).parameters
                values |= {name: thing for name, thing in given.items() if name in wanted}
                played = functools.partial(self._play, work, home / str(number), values)
                self._playing[item.nodeid] = self._pool.submit(played)

    def _play(self, work: Callable[..., None], home: Path, values: dict[str, Any]) -> None:
        home.mkdir()
        with contextlib.ExitStack() as stack:
            for name, thing in values.items():
                if isinstance(thing, Lane):
                    values[name] = stack.enter_context(thing.taken())
            work(stack.enter_context(stage(home)), **values)

    def result(self, node: str) -> None:
        """Wait for a test to end; raises what it raised."""
        self._playing[node].result()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


class Lane:
    """Data directories that one test after the other goes on with: making one takes a second."""

    def __init__(self, homes: Sequence[Path]) -> None:
        self._free: queue.SimpleQueue[Path] = queue.SimpleQueue()
        self._homes = homes
        for home in homes:
            self._free.put(home)

    @contextmanager
    def taken(self) -> Iterator[Path]:
        home = self._free.get()
        try:
            yield home
        finally:
            self._free.put(home)

    def close(self) -> None:
        for home in self._homes:
            end_postgres(home)


def together(work: Callable[..., None]) -> Callable[..., None]:
    """Play a test beside others of its module; a fixture `scenes` must be there."""

    def test(scenes: Scenes, request: pytest.FixtureRequest, **_: Any) -> None:
        scenes.result(request.node.nodeid)

    names = inspect.signature(work).parameters
    kind = inspect.Parameter.KEYWORD_ONLY
    fixed = {"here", "shared", "cluster"}
    wanted = ["scenes", "request", *(name for name in names if name not in fixed)]
    test.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, kind) for name in wanted]
    )
    test.__name__, test.__doc__, test.__module__ = work.__name__, work.__doc__, work.__module__
    test.scene = work  # type: ignore[attr-defined]
    return test


# What became of it --------------------------------------------------------------------------------


@dataclass
class Ledger:
    """What became of every instant; by hand is not in it."""

    ends: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    """Rows of history by task."""
    tasks: dict[str, Any] = field(default_factory=dict)
    live: list[Any] = field(default_factory=list)

    @classmethod
    def read(cls, sql: Sql) -> "Ledger":
        found = cls()
        for row in sql.all("SELECT * FROM task"):
            found.tasks[row["id"]] = row
        for row in sql.all("SELECT * FROM history WHERE kind = 'task' ORDER BY scheduled_for"):
            found.ends[row["task_id"]].append(row)
        found.live = sql.all("SELECT * FROM run")
        return found

    def rows(self, *states: str) -> list[Any]:
        every = (row for rows in self.ends.values() for row in rows)
        return [row for row in every if not states or row["state"] in states]

    def mistakes(self) -> list[str]:
        """Say which instants have no end, or more than one."""
        found = [f"{row['task_id']} {row['scheduled_for']} is still live" for row in self.live]
        for name, task in self.tasks.items():
            rows = self.ends.get(name, [])
            found += [f"{name}: {problem}" for problem in _holes(task, rows)]
        return found


def _holes(task: Any, rows: Sequence[Any]) -> Iterator[str]:
    trigger = json.loads(task["trigger"] or '{"kind": "by hand"}')
    if trigger["kind"] == "by hand":
        return
    if trigger["kind"] != "interval":
        if len(rows) != 1:
            yield f"{len(rows)} ends"
        return
    if not rows:
        yield "no end at all"
        return
    every = trigger["frequency"] * {"second": 1000, "minute": 60_000}[trigger["unit"]]
    anchor = trigger["anchor"]
    single = Counter(_ms(row["scheduled_for"]) for row in rows if row["gap_from"] is None)
    for at, count in single.items():
        if count > 1:
            yield f"{count} ends of {_clock(at)}"
        if (at - anchor) % every:
            yield f"{_clock(at)} is off the grid"
    counted = sum(row["count"] for row in rows)
    last = max(_ms(row["gap_to"] or row["scheduled_for"]) for row in rows)
    wanted = (last - anchor) // every + 1
    if counted != wanted:
        there = set(single)
        for row in rows:
            if row["gap_from"] is not None:
                there |= set(range(_ms(row["gap_from"]), _ms(row["gap_to"]) + 1, every))
        missing = [_clock(at) for at in range(anchor, last + 1, every) if at not in there]
        yield f"{counted} ends of {wanted} instants, missing {missing[:5]}"


def _ms(at: Any) -> int:
    return round(at.timestamp() * 1000)


def _clock(at_ms: int) -> str:
    return time.strftime("%H:%M:%S", time.gmtime(at_ms / 1000)) + f".{at_ms % 1000:03d}"


def quiet(sql: Sql, within: float) -> None:
    """Return when no run is left."""
    until(lambda: sql.one("SELECT count(*) FROM run") == 0, within, "no run is left")


def pause_all(scheduler: Scheduler, names: Sequence[str]) -> None:
    """No new instants; what was due stays due."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: scheduler.do("POST", f"/tasks/{n}", {"status": "paused"}), names))

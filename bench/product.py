"""The product as a user starts it: `scheduler serve`, its own Postgres, a directory of ours."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import aiohttp
import asyncpg
import msgspec
import psutil

from scheduler import config
from scheduler.embedded import EmbeddedPostgres

READY_S = 120.0
STOP_S = 40.0


class Product:
    """One data directory and the process on it; use it with `async with`, stop and start at will.

    `pid` is the scheduler, `postmaster` its Postgres; `db` is a connection of the benchmark's own.
    """

    db: asyncpg.Connection
    http: aiohttp.ClientSession

    def __init__(self, **settings: str) -> None:
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{free_port()}"

    async def __aenter__(self) -> Self:
        self.base = Path(tempfile.mkdtemp(prefix="scheduler-bench-"))
        try:
            self.started_s = await self.start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self.stop()
        finally:
            shutil.rmtree(self.base, ignore_errors=True)

    async def start(self) -> float:
        """Start and wait for /ready; return the seconds that took."""
        began = time.perf_counter()
        with (self.base / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "scheduler", "serve"],
                cwd=self.base,  # no config.yaml of whoever runs this
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.pid = self._process.pid
        self.http = aiohttp.ClientSession(self.url)
        await self._ready(began)
        took = time.perf_counter() - began
        await self._connect()
        return round(took, 2)

    def _environment(self) -> dict[str, str]:
        """Return this environment without any setting of the scheduler's, but with ours."""
        ours = {config.environment_name(section, name) for section, name, _ in config.paths()}
        clean = {k: v for k, v in os.environ.items() if k not in ours | set(config.ALIASES)}
        port = self.url.rpartition(":")[2]
        return clean | {"DATA_DIR": str(self.base), "SERVER_PORT": port} | self._settings

    async def _ready(self, began: float) -> None:
        while time.perf_counter() - began < READY_S:
            if self._process is None or self._process.poll() is not None:
                break
            with suppress(aiohttp.ClientError, OSError):
                async with self.http.get("/ready") as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.01)
        raise RuntimeError(f"the scheduler did not start; it said:\n{self.log()}")

    async def _connect(self) -> None:
        url = EmbeddedPostgres.join(self.base)
        if url is None:
            raise RuntimeError("the scheduler's Postgres is not to be found")
        self.db = await asyncpg.connect(url)
        pid_file = self.base / "postgres" / "data" / "postmaster.pid"
        self.postmaster = int(pid_file.read_text().split()[0])
        self.backend = int(await self.db.fetchval("SELECT pg_backend_pid()"))
        written = (self.base / "credentials.json").read_bytes()
        found = msgspec.json.decode(written)
        await self.http.close()
        self.http = aiohttp.ClientSession(
            self.url,
            headers={"service_id": found["service_id"], "token": found["token"]},
            connector=aiohttp.TCPConnector(limit=0),
        )

    async def stop(self) -> None:
        """Stop as an operator does; what does not go is killed."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(Exception):
            await self.http.close()
        with suppress(Exception):
            await self.db.close(timeout=5)
        postgres = _postgres_of(self.base)
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(process.wait, STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for left in postgres:
            with suppress(psutil.NoSuchProcess):
                left.kill()

    async def ended(self) -> None:
        """Return when the process has ended by itself. Raises subprocess.TimeoutExpired."""
        if self._process is not None:
            await asyncio.to_thread(self._process.wait, STOP_S)

    def log(self) -> str:
        """Return the end of what the process said."""
        return (self.base / "log").read_text(errors="replace")[-4000:]

    def complaints(self) -> int:
        """Return how many warnings and errors the process logged."""
        lines = (self.base / "log").read_text(errors="replace").splitlines()
        return sum("[warning" in line or "[error" in line or "[critical" in line for line in lines)

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """Do a request of the API and return its answer; raise on any other status than 2xx."""
        async with self.http.request(method, path, json=body) as answer:
            if answer.status >= 300:
                raise RuntimeError(f"{method} {path}: {answer.status} {await answer.text()}")
            return await answer.json()

    async def metric(self, name: str) -> float:
        """Return a metric without labels."""
        async with self.http.get("/metrics") as answer:
            for line in (await answer.text()).splitlines():
                if line.startswith(f"{name} "):
                    return float(line.split()[1])
        raise KeyError(name)


def _postgres_of(base: Path) -> list[psutil.Process]:
    """Return the postmaster on a data directory and its children, as far as they live."""
    with suppress(OSError, ValueError, IndexError, psutil.Error):
        pid = (base / "postgres" / "data" / "postmaster.pid").read_text().split()[0]
        root = psutil.Process(int(pid))
        if "postgres" in root.name():
            return [root, *root.children()]
    return []


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])

"""A pooler in transaction mode: Postgres's protocol, with another backend for each transaction.

What PgBouncer would refuse or lose, this loses for sure: every transaction gets the backend that
rested longest, whoever had it before, and whatever a client left on one stays there for the next.
"""

import asyncio
import contextlib
import struct
from collections import defaultdict, deque
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

LET_THROUGH = {"user", "database", "client_encoding", "application_name"}
"""Startup parameters that PgBouncer takes; it says of another that it is unsupported."""
SSL_REQUEST, CANCEL_REQUEST, PROTOCOL = 80877103, 80877102, 196608
SYNC, QUERY, READY, PARAMETER, TERMINATE, ERROR = b"S", b"Q", b"Z", b"S", b"X", b"E"


def message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


async def read_message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readexactly(5)
    body = await reader.readexactly(struct.unpack("!i", head[1:])[0] - 4)
    return head[:1], body


class Backend:
    """One connection to Postgres, logged in."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.parameters = b""

    @classmethod
    async def open(cls, there: str, user: str, database: str) -> "Backend":
        backend = cls(*await asyncio.open_unix_connection(there))
        words = f"user\0{user}\0database\0{database}\0application_name\0pooler\0\0".encode()
        body = struct.pack("!i", PROTOCOL) + words
        backend.writer.write(struct.pack("!i", len(body) + 4) + body)
        while True:
            kind, body = await read_message(backend.reader)
            assert kind != ERROR, body
            if kind == PARAMETER:
                backend.parameters += message(kind, body)
            if kind == READY:
                return backend


class Pooler:
    """Listens on a Unix socket in `folder`; `size` backends for each database."""

    def __init__(self, url: str, folder: Path, size: int = 3) -> None:
        parts = urlsplit(url)
        query = {k: v[0] for k, v in parse_qs(parts.query).items()}
        self._there = f"{query['host']}/.s.PGSQL.{query['port']}"
        self._user = parts.username or "postgres"
        self._folder, self._size = folder, size
        self._idle: dict[str, deque[Backend]] = {}
        self._free: dict[str, asyncio.Condition] = defaultdict(asyncio.Condition)
        self._clients: set[asyncio.Task[None]] = set()
        self.transactions = 0
        self.refused: list[str] = []

    def url(self, direct: str) -> str:
        """The address of a database, through here."""
        parts = urlsplit(direct)
        return f"postgresql://{parts.netloc}{parts.path}?host={quote(str(self._folder))}&port=5432"

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._accept, self._folder / ".s.PGSQL.5432")

    async def stop(self) -> None:
        self._server.close()
        for client in list(self._clients):
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        for backends in self._idle.values():
            for backend in backends:
                backend.writer.transport.abort()

    async def left_behind(self, database: str) -> list[str]:
        """What clients left on the backends of a database that are at rest now.

        The driver puts jit off while it looks up a type, and back: we want it off anyway.
        """
        asked = (
            "SELECT string_agg(x, ', ') FROM ("
            " SELECT 'prepared ' || name AS x FROM pg_prepared_statements"
            " UNION ALL SELECT 'listens on ' || pg_listening_channels()"
            " UNION ALL SELECT 'lock ' || objid FROM pg_locks"
            "   WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
            " UNION ALL SELECT name || ' = ' || setting FROM pg_settings"
            "   WHERE source = 'session' AND name NOT IN ('application_name', 'jit')) s"
        )
        found = []
        for backend in self._idle.get(database, ()):
            backend.writer.write(message(QUERY, asked.encode() + b"\0"))
            kind = b""
            while kind != READY:
                kind, body = await read_message(backend.reader)
                if kind == b"D" and body[2:6] != b"\xff\xff\xff\xff":
                    found.append(body[6:].decode())
        return found

    # Clients ------------------------------------------------------------------------------------

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, OSError):
                database = await self._welcome(reader, writer)
                if database is not None:
                    await self._serve(database, reader, writer)
        finally:
            self._clients.discard(task)
            writer.transport.abort()

    async def _welcome(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> str | None:
        while True:
            size, code = struct.unpack("!ii", await reader.readexactly(8))
            body = await reader.readexactly(size - 8)
            if code == SSL_REQUEST:
                writer.write(b"N")
                continue
            if code == CANCEL_REQUEST:
                return None
            words = body.split(b"\0")
            asked = {a.decode(): b.decode() for a, b in zip(words[::2], words[1::2], strict=False)}
            break
        unknown = sorted(set(asked) - LET_THROUGH - {""})
        if unknown:
            self.refused += unknown
            text = f"SFATAL\0C08P01\0Munsupported startup parameter: {unknown[0]}\0\0"
            writer.write(message(ERROR, text.encode()))
            await writer.drain()
            return None
        database = asked["database"]
        if database not in self._idle:
            self._idle[database] = deque()
            for _ in range(self._size):
                backend = await Backend.open(self._there, self._user, database)
                self._idle[database].append(backend)
        backend = await self._take(database)
        await self._give(database, backend)
        key = message(b"K", struct.pack("!ii", 4242, 4242))
        ok = message(b"R", struct.pack("!i", 0))
        writer.write(ok + backend.parameters + key + message(READY, b"I"))
        return database

    async def _serve(
        self, database: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        said: asyncio.Queue[tuple[bytes, bytes]] = asyncio.Queue()
        listening = asyncio.create_task(self._listen(reader, said))
        try:
            while (first := await said.get())[0] != TERMINATE:
                backend = await self._take(database)
                self.transactions += 1
                try:
                    await self._transaction(backend, first, said, writer)
                except BaseException:  # in the midst of a transaction: Postgres rolls it back
                    backend.writer.transport.abort()
                    backend = await Backend.open(self._there, self._user, database)
                    raise
                finally:
                    await self._give(database, backend)
        finally:
            listening.cancel()

    @staticmethod
    async def _listen(
        reader: asyncio.StreamReader, said: "asyncio.Queue[tuple[bytes, bytes]]"
    ) -> None:
        try:
            while True:
                said.put_nowait(await read_message(reader))
        except (asyncio.IncompleteReadError, OSError):
            said.put_nowait((TERMINATE, b""))

    @staticmethod
    async def _transaction(
        backend: Backend,
        first: tuple[bytes, bytes],
        said: "asyncio.Queue[tuple[bytes, bytes]]",
        writer: asyncio.StreamWriter,
    ) -> None:
        """Pass messages on until Postgres has answered all, and is in no transaction."""
        waiting, todo = 0, [first]
        asked = asyncio.create_task(said.get())
        told = asyncio.create_task(read_message(backend.reader))
        try:
            while True:
                for kind, body in todo:
                    if kind == TERMINATE:
                        raise asyncio.IncompleteReadError(b"", None)
                    waiting += kind in (SYNC, QUERY)
                    backend.writer.write(message(kind, body))
                todo = []
                await asyncio.wait({asked, told}, return_when=asyncio.FIRST_COMPLETED)
                if asked.done():
                    todo.append(asked.result())
                    asked = asyncio.create_task(said.get())
                if told.done():
                    kind, body = told.result()
                    writer.write(message(kind, body))
                    waiting -= kind == READY
                    if kind == READY and body == b"I" and not waiting and not todo:
                        return
                    told = asyncio.create_task(read_message(backend.reader))
        finally:
            asked.cancel()
            told.cancel()

    async def _take(self, database: str) -> Backend:
        async with self._free[database]:
            await self._free[database].wait_for(lambda: self._idle[database])
            return self._idle[database].popleft()

    async def _give(self, database: str, backend: Backend) -> None:
        async with self._free[database]:
            self._idle[database].append(backend)
            self._free[database].notify()

"""A real HTTP target on a port of its own: it records what arrives, and answers as it is told."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Received:
    """A request as it came over the wire."""

    method: str
    path: str
    """With its query."""
    headers: list[tuple[str, str]]
    """In the order and the case in which they came, repeated ones included."""
    body: bytes
    at: float
    """When the head had arrived, in seconds since 1970."""

    def header(self, name: str) -> str | None:
        """The only header of this name."""
        found = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(found) <= 1, f"{name} came {len(found)} times"
        return found[0] if found else None


@dataclass(frozen=True)
class Answer:
    """What the receiver says."""

    status: int = 200
    body: bytes = b"ok"
    headers: Mapping[str, str] = field(default_factory=dict)
    after: asyncio.Event | None = None
    """Wait for it before answering."""
    drop: bool = False
    """Close the connection without an answer."""


class Receiver:
    """The target; `url` has no path."""

    def __init__(self) -> None:
        self.requests: list[Received] = []
        self.otherwise = Answer()
        """The answer when nothing else was asked for."""
        self._answers: deque[Answer] = deque()
        self._under_way: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    async def stop(self) -> None:
        self._server.close()
        for serving in self._under_way:
            serving.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        await self._server.wait_closed()

    def then(
        self,
        status: int = 200,
        body: bytes | str = b"ok",
        headers: Mapping[str, str] | None = None,
        *,
        after: asyncio.Event | None = None,
        drop: bool = False,
    ) -> "Receiver":
        """Give this answer to the next request that has none yet; `otherwise` comes after all."""
        text = body.encode() if isinstance(body, str) else body
        self._answers.append(Answer(status, text, headers or {}, after, drop))
        return self

    @property
    def last(self) -> Received:
        """The latest request."""
        return self.requests[-1]

    def to(self, path: str) -> list[Received]:
        """The requests to one path."""
        return [request for request in self.requests if request.path == path]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        me = asyncio.current_task()
        assert me is not None
        self._under_way.add(me)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while await self._exchange(reader, writer):
                    pass
        except asyncio.CancelledError:
            pass  # the test is over
        finally:
            self._under_way.discard(me)
            writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        at = time.time()
        first, *lines = head[:-4].split("\r\n")
        method, path, _ = first.split(" ")
        headers = [
            (name, value.strip(" \t")) for name, _, value in (x.partition(":") for x in lines)
        ]
        length = next((int(v) for k, v in headers if k.lower() == "content-length"), 0)
        body = await reader.readexactly(length)
        self.requests.append(Received(method, path, headers, body, at))
        answer = self._answers.popleft() if self._answers else self.otherwise
        if answer.after is not None:
            await answer.after.wait()
        if answer.drop:
            return False
        writer.write(_encoded(answer, method))
        await writer.drain()
        return True


def _encoded(answer: Answer, method: str) -> bytes:
    headers = {"Content-Length": str(len(answer.body)), **answer.headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"HTTP/1.1 {answer.status} Said\r\n{lines}\r\n".encode("latin-1")
    return head if method == "HEAD" else head + answer.body


@contextlib.asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """A receiver for the length of a block."""
    receiver = Receiver()
    await receiver.start()
    try:
        yield receiver
    finally:
        await receiver.stop()

"""The target of `scheduler bench`: a process of its own that notes when each call arrived.

POST /r/<number>   noted; answered 200 with an empty body
GET  /arrivals     {"<number>": seconds on the monotonic clock, which processes share}
"""

import asyncio
import json
import sys
import time

EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
LENGTH = b"content-length:"


class Connection(asyncio.Protocol):
    """One connection, its requests one after the other."""

    def __init__(self, arrivals: dict[str, float]) -> None:
        self._arrivals = arrivals
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take whole requests off the front."""
        at = time.monotonic()
        self._rest += data
        while (end := self._rest.find(b"\r\n\r\n")) >= 0:
            head = self._rest[:end]
            stop = end + 4 + _length(head)
            if len(self._rest) < stop:
                return
            self._rest = self._rest[stop:]
            self._answer(head.split(b" ", 2)[1].decode(), at)

    def _answer(self, path: str, at: float) -> None:
        answer = EMPTY
        if path == "/arrivals":
            body = json.dumps(self._arrivals).encode()
            answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        else:
            self._arrivals.setdefault(path.rpartition("/")[2], at)
        self._transport.write(answer)  # type: ignore[attr-defined]


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(LENGTH):
            return int(line[len(LENGTH) :])
    return 0


async def serve() -> None:
    """Serve on a free port, which is printed, until the one who started this is gone."""
    arrivals: dict[str, float] = {}
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(arrivals), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve())

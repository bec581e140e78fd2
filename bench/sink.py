"""The target: a small HTTP server in a process of its own that notes when each call arrived.

    POST /r/<number>   noted; answered 200 with an empty body, at once or when held calls are let go
    GET  /count        {"all", "distinct"}
    GET  /arrivals     {"numbers": [...], "times": [...]} in order of arrival, seconds since 1970
    GET  /reset        forgets, and lets go
    GET  /hold         answers nothing from now on
    GET  /release      answers what was held, and at once from now on

It reads requests that carry a Content-Length, or no body.
"""

import asyncio
import gc
import json
import subprocess
import sys
import time
from array import array
from collections.abc import Callable
from typing import Any, Self

import aiohttp
import uvloop

EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
LENGTH = b"\r\ncontent-length:"


class Notes:
    """What arrived, and whether answers are held."""

    def __init__(self) -> None:
        self.numbers = array("q")
        self.times = array("d")
        self.holding = False
        self.held: list[Callable[[], None]] = []

    def control(self, path: bytes) -> Any:
        """Answer the benchmark."""
        if path == b"/arrivals":
            return {"numbers": self.numbers.tolist(), "times": self.times.tolist()}
        if path == b"/reset":
            del self.numbers[:], self.times[:]
        if path in (b"/reset", b"/release"):
            self.holding = False
            held, self.held = self.held, []
            for answer in held:
                answer()
        elif path == b"/hold":
            self.holding = True
        return {"all": len(self.numbers), "distinct": len(set(self.numbers))}


class Connection(asyncio.Protocol):
    """One connection, its requests one after the other or pipelined."""

    def __init__(self, notes: Notes) -> None:
        self.notes = notes
        self.rest = b""

    def connection_made(self, transport: Any) -> None:
        """Keep the transport."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Take the whole requests off the front."""
        data = self.rest + data
        at = 0
        while (end := data.find(b"\r\n\r\n", at)) >= 0:
            stop = end + 4 + _length(data[at : end + 2])
            if len(data) < stop:
                break
            self.answer(data[at:end].split(b" ", 2)[1])
            at = stop
        self.rest = data[at:]

    def answer(self, path: bytes) -> None:
        """Note a call, or do what the benchmark asks."""
        notes = self.notes
        if not path.startswith(b"/r/"):
            body = json.dumps(notes.control(path)).encode()
            self.transport.write(JSON % (len(body), body))
            return
        notes.times.append(time.time())
        notes.numbers.append(int(path[3:]))
        if notes.holding:
            notes.held.append(lambda: self.transport.write(EMPTY))
        else:
            self.transport.write(EMPTY)


def _length(head: bytes) -> int:
    low = head.lower()
    at = low.find(LENGTH)
    return 0 if at < 0 else int(low[at + len(LENGTH) : low.find(b"\r\n", at + 2)])


async def serve() -> None:
    """Serve on a free port, printed first, until the process is stopped."""
    notes = Notes()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(notes), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


class Sink:
    """The target's process, seen from the benchmark; use it with `async with`."""

    async def __aenter__(self) -> Self:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.sink"], stdout=subprocess.PIPE, text=True
        )
        if self.process.stdout is None:
            raise RuntimeError("the target has no output")
        line = await asyncio.to_thread(self.process.stdout.readline)
        self.url = f"http://127.0.0.1:{int(line)}"
        self._http = aiohttp.ClientSession()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()
        self.process.kill()
        self.process.wait()

    async def ask(self, what: str) -> Any:
        """Do one of the control calls and return its answer."""
        async with self._http.get(f"{self.url}/{what}") as answer:
            return await answer.json()

    async def arrivals(self) -> list[tuple[int, float]]:
        """Return (number, seconds since 1970) of every call."""
        found = await self.ask("arrivals")
        return list(zip(found["numbers"], found["times"], strict=True))

    async def wait(self, wanted: int, stall_s: float = 20.0) -> None:
        """Return when `wanted` different calls are there, or none came for `stall_s`."""
        last, since = -1, time.monotonic()
        while True:
            seen = (await self.ask("count"))["distinct"]
            if seen >= wanted:
                return
            if seen != last:
                last, since = seen, time.monotonic()
            elif time.monotonic() - since > stall_s:
                return
            await asyncio.sleep(0.05)


if __name__ == "__main__":
    gc.disable()
    uvloop.run(serve())

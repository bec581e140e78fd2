"""Inbound: what targets send back, given to the parser a little at a time.

A kind answer is a few hundred bytes. A hostile one is a quarter of a megabyte in one read, made
of the smallest things that HTTP has a rule for, which takes the parser a quarter of a second;
and then the next read, without end. So what goes beyond the first few kilobytes, and is not plain
body, stands in one line with that of all other connections, and each turn of the loop gives the
parser a millisecond.
"""

import asyncio
import sys
import time
from collections import OrderedDict

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import RawResponseMessage
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import StreamReader

PIECE = 4096
"""Bytes parsed in one go, unless those before were cheap: 0.6 ms of the smallest messages."""
MOST_PIECE = 32768
"""After cheap ones; where a target turns nasty then, it is 6 ms, once."""
CHEAP_S = 0.0001
TURN_S = 0.001
"""Of parsing in each turn of the loop; whoever reads what was parsed needs about as much again."""
FRAMING = 4
"""Bytes on the wire for each byte of the largest body: what comes two bytes a chunk needs 3.5."""
BESIDE = 320 << 10
"""Bytes on the wire beside the body: 64 KiB of heads, and one whole read of 256 KiB, so that an
answer that is merely larger than the limit is cut there and does not fail.
"""


def wire_limit(body: int) -> int:
    """Return how many bytes may come for a body that is read up to `body` bytes."""
    return FRAMING * body + BESIDE


class Turns:
    """Shares out what each turn of the loop has for parsing among the connections."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._line: OrderedDict[Metered, None] = OrderedDict()
        self._spent = 0.0
        """Seconds of parsing in the present turn; a callback is its end."""
        self._begun = False

    def parse(self, connection: "Metered") -> None:
        """Parse what came now, as far as this turn's time goes; the rest waits in the line."""
        self._begin()
        while not self._line and self._spent < TURN_S:
            if not self._parse_piece(connection):
                return
        self.wait(connection)

    def wait(self, connection: "Metered") -> None:
        """Stand a connection in the line, where it does not stand there yet."""
        connection.pause()
        self._line[connection] = None
        self._begin()

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            self._spent = 0.0
            self._loop.call_soon(self._next)

    def _next(self) -> None:
        self._begun = False
        if not self._line:
            return
        self._begin()
        while self._line and self._spent < TURN_S:
            connection, _ = self._line.popitem(last=False)
            if self._parse_piece(connection):
                self._line[connection] = None

    def _parse_piece(self, connection: "Metered") -> bool:
        began = time.perf_counter()
        more = connection.parse_piece()
        took = time.perf_counter() - began
        connection.was_cheap(took < CHEAP_S)
        self._spent += took
        return more


class Metered(ResponseHandler):
    """aiohttp's side of a connection, with a limit on bytes and on the time that they take.

    `expect` before a request is written, `done` when its answer was read.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, turns: Turns) -> None:
        super().__init__(loop)
        self._turns = turns
        self._rest = b""
        """Not yet parsed; then reading is paused, and this stands in the line or, where the
        reader of the body is behind, waits for it.
        """
        self._at = 0
        self._piece = PIECE
        self._direct = 0
        """Bytes that still go to the parser at once: all of nearly every answer."""
        self._head: RawResponseMessage | None = None
        self._left = BESIDE
        self.asked = False
        """A request was written to it: it is no new connection."""

    def expect(self, most: int) -> None:
        """Let the bytes of one answer in, `most` beside the first piece."""
        self._direct = 0 if self._rest else PIECE
        self._left = most
        self._piece = PIECE
        self.asked = True

    def done(self) -> bool:
        """Let nothing more in: the next byte breaks the connection. Return whether none came yet
        that nobody asked for.
        """
        self._direct = self._left = 0
        return not self._rest

    def data_received(self, data: bytes) -> None:
        """Take what came over the wire."""
        if len(data) <= self._direct:  # also nothing at all: the parser resumes its own rest
            self._direct -= len(data)
            super().data_received(data)
            return
        self._direct = 0
        self._left -= len(data)
        if self._left < 0:
            self._break()
        elif self._rest:
            self._rest = self._rest[self._at :] + data
            self._at = 0
        elif len(data) <= self._in_body():
            super().data_received(data)
        else:
            self._rest = data
            self._turns.parse(self)

    def feed_data(self, data: tuple[RawResponseMessage, StreamReader], size: int = 0) -> None:
        """Take a head that was parsed."""
        self._head = data[0]
        super().feed_data(data, size)

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        """Note what broke the connection; who reads a body that turned malformed hears it, too.

        aiohttp tells the one who waits for a head, and nobody else: the reader of a body would
        wait until its time is up.
        """
        body = self._payload
        super().set_exception(exc, *cause)
        if isinstance(exc, HttpProcessingError) and body is not None and not body.is_eof():
            body.set_exception(exc)

    def _in_body(self) -> int:
        """Return how many of the bytes to come are plain body, which cost the parser nothing."""
        body, head = self._payload, self._head
        if body is None or head is None or head.chunked or body.is_eof():
            return 0
        length = head.headers.get("Content-Length")
        return sys.maxsize if length is None else int(length) - body.total_bytes

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002 (aiohttp's)
        """Go on where the reader of the body was behind; aiohttp asks after each piece read."""
        if not self._reading_paused:
            return
        super().resume_reading(resume_parser)
        if self._rest and not self._reading_paused:
            self._turns.wait(self)

    def pause(self) -> None:
        """Read no more until the rest is parsed."""
        self._pause_reading_for_buffer()

    def parse_piece(self) -> bool:
        """Parse the next piece. Return whether there is another to be parsed soon."""
        if self.transport is None or self.transport.is_closing():
            self._rest = b""
            return False
        start = self._at
        self._at += max(self._piece, self._in_body())
        piece = self._rest[start : self._at]
        if self._at >= len(self._rest):
            self._rest, self._at = b"", 0
        super().data_received(piece)
        if self._rest:
            return not self._reading_paused
        if self._buffer_paused:
            self._resume_reading_for_buffer()
        return False

    def was_cheap(self, cheap: bool) -> None:  # noqa: FBT001 (there is nothing else to say)
        """Learn from the piece just parsed how long the next may be."""
        self._piece = min(2 * self._piece, MOST_PIECE) if cheap else PIECE

    def _break(self) -> None:
        why = aiohttp.ClientPayloadError("it is many times as long as what it holds, or has no end")
        if self._payload is not None:
            self._payload.set_exception(why)
            self._payload = None  # the end of the connection would say something else
        self.set_exception(why)
        self._rest = b""
        if self.transport is not None:
            self.transport.abort()

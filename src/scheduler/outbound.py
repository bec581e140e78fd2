"""Outbound: the one door to targets, which sends a request and says what came of it.

aiohttp's pool, TLS and parser, without its session: that costs three times the CPU, rewrites
URLs, and sends again by itself when a kept connection turns out to be dead.
"""

import asyncio
import functools
import os
import re
import ssl
from collections.abc import Callable, Mapping
from typing import Self
from urllib.parse import urljoin

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import StreamReader
from multidict import CIMultiDictProxy
from yarl import URL

from scheduler.answers import FREE, Answers, NoRoomError
from scheduler.config import Http
from scheduler.egress import Connector, Refused, Resolver, Rules
from scheduler.inbound import Metered, Turns, wire_limit
from scheduler.marks import Marks
from scheduler.target import Target, header_lines, is_secret, prepare

UNSAFE_TO_REPEAT = {"POST", "PATCH"}
"""RFC 9110 9.2.2."""
FRESH_SECONDS = 1.0
"""A connection idle for longer is not used for what is unsafe to repeat.

Servers close kept connections after 2 seconds and more; a request that crosses with the closing
is lost, and nobody can tell whether it was read.
"""
MOST_ORIGINS = 4096
MOST_INTERIM = 20
"""Interim answers (1xx) before the one that counts. RFC 9110 15.2 sets no limit; servers send one
or two.
"""
REDIRECTS = {301, 302, 303, 307, 308}


class SendError(Exception):
    """No answer.

    `message` is for the operator and never holds a query string or a header.
    `may_have_arrived`: the target may have acted on the request. `retryable`: trying again may
    help; False only where egress refuses.
    """

    def __init__(self, message: str, *, may_have_arrived: bool, retryable: bool = True) -> None:
        super().__init__(message)
        self.message = message
        self.may_have_arrived = may_have_arrived
        self.retryable = retryable


class NotNowError(Exception):
    """The caller's leave to send was gone by the time there was a connection; nothing was sent."""


class Response(msgspec.Struct, frozen=True):
    """What a target answered; `body` as it came (never inflated), cut at the limit."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes
    truncated: bool


class Outbound:
    """The connections to targets; open it with `async with`."""

    def __init__(
        self,
        http: Http,
        rules: Rules,
        *,
        resolver: AbstractResolver | None = None,
        tls: ssl.SSLContext | bool = True,
    ) -> None:
        self._http = http
        self.answers = Answers(http.max_held_bytes)
        self._rules = rules
        self._resolver = resolver
        self._tls = tls
        # The threshold is where aiohttp begins to round up to whole seconds.
        self._timeout = functools.partial(aiohttp.ClientTimeout, ceil_threshold=1e9)
        self._connect_timeout = self._timeout(connect=http.connect_timeout_seconds)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        metered: Callable[[], ResponseHandler] = functools.partial(
            Metered, self._loop, Turns(self._loop)
        )
        connector = functools.partial(
            Connector,
            self._rules,
            functools.partial(metered),
            resolver=self._resolver or Resolver(),
            ssl=self._tls,
        )
        idle = self._http.idle_connection_seconds
        self._requests: dict[URL, aiohttp.ClientRequest] = {}
        """By origin, what the connector wants to see."""
        self._kept = connector(keepalive_timeout=idle)
        self._fresh = connector(keepalive_timeout=min(idle, FRESH_SECONDS))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections; calls in flight fail."""
        await self._kept.close()
        await self._fresh.close()

    @property
    def open(self) -> int:
        """Connections in use, being made, or idle."""
        return self._kept.open + self._fresh.open

    async def send(
        self,
        target: Target,
        headers: Mapping[str, str],
        deadline: float,
        may_send: Callable[[], bool] = lambda: True,
        limit: int | None = None,
        marks: Marks | None = None,
    ) -> Response:
        """Send once and return the answer, whatever its status.

        `headers` are of this call and come after the target's own, which they must not repeat
        (`target.headers` has their names). `deadline` is in seconds of the loop's clock and
        holds for everything together. `may_send` is asked once more when the connection is there.
        Of the body `limit` bytes are read, `http.max_response_bytes` where there is none. `marks`
        say when the first connection was there, and the last head; whoever gives them lets go of
        what they hold of `answers` when the body is of no more use.
        Raises SendError, NotNowError, and ValueError for a header with a line break. A cancelled
        call closes its connection.
        """
        if marks is None:
            marks = Marks(0.0)
            try:
                return await self.send(target, headers, deadline, may_send, limit, marks)
            finally:
                marks.let_go()
        lines = header_lines(headers).encode()
        limit = self._http.max_response_bytes if limit is None else limit
        response = await self._exchange(target, lines, deadline, limit, marks, may_send)
        if target.follow_redirects and _location(response):
            return await self._follow(target, headers, response, deadline, limit, marks)
        return response

    async def _follow(
        self,
        target: Target,
        headers: Mapping[str, str],
        response: Response,
        deadline: float,
        limit: int,
        marks: Marks,
    ) -> Response:
        for _ in range(self._http.max_redirects):
            target, headers = _redirected(target, headers, response)
            try:
                lines = header_lines(headers).encode()
                response = await self._exchange(target, lines, deadline, limit, marks)
            except SendError as e:
                e.may_have_arrived = True  # where it was sent first, it did
                raise
            if not _location(response):
                return response
        raise SendError(
            f"more than {self._http.max_redirects} redirects, the last from {target.place}",
            may_have_arrived=True,
        )

    async def _exchange(
        self,
        target: Target,
        lines: bytes,
        deadline: float,
        limit: int,
        marks: Marks,
        may_send: Callable[[], bool] = lambda: True,
    ) -> Response:
        marks.asked = True
        connection = await self._connect(target, deadline)
        if not may_send():
            connection.release()
            raise NotNowError
        protocol, transport = connection.protocol, connection.transport
        if not isinstance(protocol, Metered) or transport is None:
            connection.close()
            raise SendError(
                f"{target.place} closed the connection before the request was sent",
                may_have_arrived=False,
            )
        late = self._loop.call_at(deadline, protocol.set_exception, TimeoutError())
        if not marks.sent:
            marks.sent, marks.dialled = self._loop.time(), not protocol.asked
        try:
            protocol.expect(wire_limit(limit))
            protocol.set_response_params(
                skip_payload=target.method == "HEAD", read_until_eof=True, auto_decompress=False
            )
            transport.write(b"".join((target.head, lines, b"\r\n", target.body)))
            response = await self._receive(protocol, deadline, limit, marks)
            alone = protocol.done()
            if response.truncated or not alone or transport.get_write_buffer_size():
                transport.abort()  # the rest of any would meet the next call
        except BaseException as e:
            transport.abort()  # close() would first wait for the peer to read
            connection.close()
            if isinstance(e, (OSError, aiohttp.ClientError, HttpProcessingError)):
                raise _broken(e, target) from e
            raise
        finally:
            late.cancel()
        connection.release()
        return response

    async def _connect(self, target: Target, deadline: float) -> Connection:
        left = deadline - self._loop.time()
        if left <= 0:
            raise SendError("no time was left to send the request", may_have_arrived=False)
        timeout = self._connect_timeout
        if left < self._http.connect_timeout_seconds:
            timeout = self._timeout(connect=left)
        request = self._requests.get(target.origin)
        if request is None:
            if len(self._requests) >= MOST_ORIGINS:
                self._requests.clear()
            request = aiohttp.ClientRequest("GET", target.origin, loop=self._loop)
            self._requests[target.origin] = request
        pool = self._fresh if target.method in UNSAFE_TO_REPEAT else self._kept
        try:
            return await pool.connect(request, [], timeout)
        except TimeoutError as e:
            raise SendError(
                f"no connection to {target.place} within {timeout.connect:.3g} seconds",
                may_have_arrived=False,
            ) from e
        except (aiohttp.ClientError, OSError, RuntimeError) as e:  # RuntimeError: uvloop
            raise _not_connected(e, target) from e

    async def _receive(
        self, protocol: ResponseHandler, deadline: float, limit: int, marks: Marks
    ) -> Response:
        message, payload = await protocol.read()
        interim = 0
        while message.code < 200:
            if message.code == 101:
                raise aiohttp.ClientPayloadError("it switched protocols unasked")
            interim += 1
            if interim > MOST_INTERIM:
                raise aiohttp.ClientPayloadError(f"more than {MOST_INTERIM} interim ones came")
            message, payload = await protocol.read()
        marks.answered = self._loop.time()
        if payload.is_eof():
            body = payload.read_nowait()
            if len(body) > FREE:
                await self.answers.take(marks, len(body), deadline)
        else:
            body = await self._body(payload, deadline, limit, marks)
        return Response(message.code, message.headers, body[:limit], len(body) > limit)

    async def _body(
        self, payload: StreamReader, deadline: float, limit: int, marks: Marks
    ) -> bytes:
        """Read to the end, or to just over the limit."""
        late = self._loop.call_at(deadline, payload.set_exception, TimeoutError())
        body = bytearray()
        try:
            while len(body) <= limit:
                piece = await payload.readany()
                if not piece:
                    break
                body += piece
                if len(body) > FREE:
                    await self.answers.take(marks, len(body), deadline)
        finally:
            late.cancel()
        return bytes(body)


def _not_connected(e: Exception, target: Target) -> SendError:
    """Put into words why nothing was sent."""
    cause = getattr(e, "os_error", e)
    why = getattr(cause, "strerror", None) or str(cause)
    if isinstance(cause, Refused):
        return SendError(f"egress: {cause}", may_have_arrived=False, retryable=False)
    if isinstance(e, aiohttp.ClientConnectorCertificateError):
        why = getattr(e.certificate_error, "verify_message", "") or str(e.certificate_error)
        message = f"the certificate of {target.place} is not accepted: {why}"
    elif isinstance(e, aiohttp.ClientConnectorSSLError):
        message = f"no TLS with {target.place}: {getattr(cause, 'reason', None) or why}"
    elif isinstance(e, aiohttp.ClientConnectorDNSError):
        message = f"the name {target.origin.host} was not found: {why}"
    else:
        number = getattr(cause, "errno", None)
        message = f"no connection to {target.place}: {os.strerror(number) if number else why}"
    return SendError(message, may_have_arrived=False)


def _broken(e: Exception, target: Target) -> SendError:
    """Put into words what went wrong after the request was written, or partly."""
    if isinstance(e, NoRoomError):
        message = (
            f"the answer of {target.place} came, and found no room in memory (http.max_held_bytes) "
            "before the time was up"
        )
    elif isinstance(e, TimeoutError):
        message = f"{target.place} did not answer in full before the time was up"
    elif isinstance(e, HttpProcessingError):
        message = f"{target.place} did not answer in HTTP/1.1: {_unquoted(e.message)}"
    elif isinstance(e, aiohttp.ServerDisconnectedError):
        message = f"{target.place} closed the connection without an answer"
    elif isinstance(e, aiohttp.ClientPayloadError):
        message = f"the answer of {target.place} broke off: {_unquoted(str(e))}"
    else:
        message = f"the connection to {target.place} broke: {getattr(e, 'strerror', None) or e}"
    return SendError(message, may_have_arrived=True)


QUOTED = re.compile(r"\n|\\n|\bb['\"]|\bbytearray\(")
"""Where aiohttp begins to quote what came: a header's value, a piece of the body."""


def _unquoted(text: str) -> str:
    return QUOTED.split(text.strip(), maxsplit=1)[0][:200].rstrip(": ")


def _location(response: Response) -> str:
    return response.headers.get("Location", "") if response.status in REDIRECTS else ""


def _redirected(
    target: Target, headers: Mapping[str, str], response: Response
) -> tuple[Target, Mapping[str, str]]:
    """Return what to send next (RFC 9110 15.4), without secrets where the origin is another."""
    method, body = target.method, target.body
    own = dict(target.headers.values())
    to_get = response.status == 303 and method != "HEAD"
    if to_get or (response.status in {301, 302} and method == "POST"):
        method, body = "GET", b""
        own = {k: v for k, v in own.items() if not k.lower().startswith("content-")}
        # What was signed is not what is sent now.
        headers = {k: v for k, v in headers.items() if k.lower() != "webhook-signature"}
    try:
        url = urljoin(target.url, _location(response))
        moved = prepare(method, url, own, body, follow_redirects=True, secret=target.secret)
    except ValueError as e:
        raise SendError(
            f"{target.place} redirects to what cannot be called: {e}", may_have_arrived=True
        ) from None
    if moved.origin == target.origin:
        return moved, headers
    own = {k: v for k, v in own.items() if not is_secret(target, k) and k.lower() != "host"}
    moved = prepare(method, url, own, body, follow_redirects=True, secret=target.secret)
    return moved, {k: v for k, v in headers.items() if not is_secret(target, k)}

"""One line for each request, with the fields that docs/logs.md names."""

import logging
import re
import time
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

import msgspec
import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from scheduler import logs
from scheduler.masking import MASK, is_hidden, mask_body, mask_words
from scheduler.proxies import Proxies

log = structlog.get_logger()

QUIET = frozenset(
    {"/health", "/ready", "/metrics", "/v1/api/ping", "/v1/worker/ping", "/v1/apidoc/ping"}
)
"""What machines ask all the time; a line of them is for debugging."""
QUIET_UNDER = ("/docs-assets/", "/static/")
READ_MOST = 16 << 10
"""Bytes of a body that are looked at."""
SHOWN_MOST = 4 << 10
"""Characters of a body that are logged."""
STREAM = b"text/event-stream"
SAID = "scheduler_said"
"""Where a request's scope holds what its answer says of an error."""


class Said(msgspec.Struct):
    """What went wrong with a request: the words of its answer, and the error where it is ours."""

    message: str = ""
    error: BaseException | None = None


def say(scope: Scope, message: str, error: BaseException | None = None) -> None:
    """Have a request's line say what went wrong; `error` where a trace is wanted."""
    said: Said | None = scope.get(SAID)  # type: ignore[assignment]
    if said is not None:
        said.message, said.error = message, error


def traced(app: ASGIApp) -> ASGIApp:
    """Give every request a trace id, its answer the header that says so, and the log a line."""
    proxies: Proxies | None = None

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await app(scope, receive, send)
            return
        nonlocal proxies
        if proxies is None:
            proxies = Proxies(scope["litestar_app"].state.settings.server.trusted_proxies)
        seen = Seen(scope, proxies)
        token = logs.TRACE_ID.set(seen.trace)
        try:
            await app(scope, seen.receiving(receive), seen.sending(send))
        finally:
            seen.line()
            logs.TRACE_ID.reset(token)

    return middleware


class Seen:
    """What is seen of a request while it passes."""

    def __init__(self, scope: HTTPScope, proxies: Proxies) -> None:
        self.trace = logs.trace_id()
        self._scope = scope
        self._proxies = proxies
        self._method, self._path = scope["method"], scope["path"]
        self._said = Said()
        scope[SAID] = self._said  # type: ignore[literal-required]
        self._began, self._clock = time.time(), time.perf_counter()
        self._body: list[bytes] = []
        self._length = 0
        self._status = 0
        self._answered: list[tuple[bytes, bytes]] = []
        self._told = False

    def receiving(self, receive: Receive) -> Receive:
        """Look at what comes in: the beginning of the body, and how long it is."""

        async def received() -> Any:
            message = await receive()
            if message["type"] == "http.request":
                piece = message["body"]
                if piece and self._length < READ_MOST:
                    self._body.append(piece)
                self._length += len(piece)
            return message

        return received

    def sending(self, send: Send) -> Send:
        """Look at what goes out, and put the trace id in."""

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._status = message["status"]
                self._answered = [*message["headers"], (b"x-trace-id", self.trace.encode())]
                message["headers"] = self._answered
                if any(
                    name == b"content-type" and STREAM in value for name, value in self._answered
                ):
                    self.line()  # it has been answered; it ends when somebody closes a page
            await send(message)

        return sent

    def line(self) -> None:
        """Log the request, once; headers and bodies where it failed, and for debugging."""
        if self._told:
            return
        self._told = True
        bound = log.bind()
        debugging = bound.is_enabled_for(logging.DEBUG)
        said = self._said
        if self._path in QUIET or self._path.startswith(QUIET_UNDER):
            if debugging:
                bound.debug("request", **self._fields(whole=True))
        elif said.error is not None:
            bound.error("request failed", exc_info=said.error, **self._fields(whole=True))
        elif not self._status:
            bound.error("no answer was sent", **self._fields(whole=True))
        elif self._status >= 400:
            bound.error(said.message or "request refused", **self._fields(whole=True))
        elif bound.is_enabled_for(logging.INFO):
            bound.info("request", **self._fields(whole=debugging))

    def _fields(self, *, whole: bool) -> dict[str, Any]:
        scope = self._scope
        took = time.perf_counter() - self._clock
        headers = _by_name(scope["headers"])
        client = scope.get("client")
        handler = scope.get("route_handler")
        fields: dict[str, Any] = {
            logs.CLEAN: not whole,
            "handler": getattr(handler, "handler_name", ""),
            "time_start": logs.timestamp(self._began),
            "time_end": logs.timestamp(self._began + took),
            "latency": logs.latency(took),
            "url": logs.cleaned(self._path),
            "content_length": self._announced(headers),
            "method": self._method,
            "host": logs.cleaned(headers.get("host", "")),
            "agent": logs.cleaned(headers.get("user-agent", "")),
            "remote_ip": self._proxies.caller(client[0] if client else None, headers),
            "status": self._status,
        }
        other: dict[str, Any] = {}
        caller = getattr(scope.get("auth"), "id", None)
        if caller is not None:
            other["service_id"] = str(caller)
        if whole:
            fields["req_headers"] = logs.Masked(shown_headers(scope["headers"]))
            fields["resp_headers"] = logs.Masked(shown_headers(self._answered))
            self._show_body(headers, fields, other)
        if other:
            fields["other_data"] = other
        return fields

    def _announced(self, headers: Mapping[str, str]) -> int:
        said = headers.get("content-length", "")
        return int(said) if said.isascii() and said.isdecimal() and len(said) < 19 else self._length

    def _show_body(
        self, headers: Mapping[str, str], fields: dict[str, Any], other: dict[str, Any]
    ) -> None:
        raw = b"".join(self._body)
        if not raw:
            return
        whole = self._length <= READ_MOST
        shown = mask_body(raw[:READ_MOST], headers.get("content-type", ""), whole=whole)
        text = shown if isinstance(shown, str) else msgspec.json.encode(shown).decode()
        if len(text) > SHOWN_MOST or not whole:
            shown = text[:SHOWN_MOST]
            other["truncated"] = True
        fields["req_body"] = logs.Masked(shown)


def _by_name(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return headers as text, repeated ones as one with commas."""
    found: dict[str, str] = {}
    for name, value in headers:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        found[key] = f"{found[key]}, {text}" if key in found else text
    return found


SCHEMES = frozenset({"basic", "bearer", "digest", "negotiate"})
CHALLENGE = "Www-Authenticate"
ASKED = re.compile(r"(/[^?#\s]*+[?#]).")
"""An address on this host, as in Location: what it asks is not for the log, as of any other."""
HEADERS_MOST = 100
VALUE_MOST = 1024


def shown_headers(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, list[str]]:
    """Return headers as they may be logged: `{"Accept": ["*/*"], "Token": ["********"]}`."""
    shown: dict[str, list[str]] = {}
    for raw, value in islice(headers, HEADERS_MOST):
        name = "-".join(part.capitalize() for part in raw.decode("latin-1").split("-"))
        shown.setdefault(name, []).append(_shown(name, value.decode("latin-1")))
    return shown


def _shown(name: str, value: str) -> str:
    if name == CHALLENGE or not is_hidden(name):
        asked = ASKED.match(value)
        return mask_words(f"{asked[1]}{MASK}" if asked else value)[:VALUE_MOST]
    scheme, space, _ = value.partition(" ")
    if name in ("Authorization", "Proxy-Authorization") and scheme.lower() in SCHEMES and space:
        return f"{scheme} {MASK}"
    return MASK

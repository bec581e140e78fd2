"""Pages: templates filled in, and the headers that keep a browser from doing more than it should.

Everything in a template is text until it is said otherwise: what others wrote is never markup.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from litestar import Litestar, MediaType, Response
from litestar.types import Message, Scope

from scheduler import __version__
from scheduler.clock import Slice
from scheduler.dashboard import shown, static

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""The referrer stays within: with none at all a browser hides the origin of our own forms."""


def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters |= shown.FILTERS
    made.globals |= {"file": static.address, "version": __version__}
    return made


TEMPLATES = _environment()


@asynccontextmanager
async def reading(_: Litestar) -> AsyncIterator[None]:
    """Read the templates meanwhile, beside the loop: whoever sees a page first holds up no run."""

    async def read() -> None:
        for name in TEMPLATES.list_templates():
            await asyncio.to_thread(TEMPLATES.get_template, name)

    task = asyncio.create_task(read(), name="templates")
    try:
        yield
    finally:
        task.cancel()


def text(name: str, **values: Any) -> str:
    """Return a template filled in."""
    return TEMPLATES.get_template(name).render(**values)


def answer(
    name: str, *, status: int = 200, headers: dict[str, str] | None = None, **values: Any
) -> Response[Any]:
    """Return a small page."""
    return _answer(text(name, **values), status, headers)


async def large(name: str, *, status: int = 200, **values: Any) -> Response[Any]:
    """Return a page that is filled in piece by piece: runs are due meanwhile."""
    turn, pieces = Slice(), []
    for piece in TEMPLATES.get_template(name).generate(**values):
        pieces.append(piece)
        await turn.give_way()
    return _answer("".join(pieces), status)


def _answer(made: str, status: int, headers: dict[str, str] | None = None) -> Response[Any]:
    return Response(
        made,
        status_code=status,
        headers={**HEADERS, **(headers or {})},
        media_type=MediaType.HTML,
    )


def leading(to: str) -> Response[Any]:
    """Return the answer that leads to another page of ours, by GET."""
    return Response(
        b"", status_code=303, headers={**HEADERS, "Location": to}, media_type=MediaType.TEXT
    )


async def guard(message: Message, _: Scope) -> None:
    """Keep browsers from guessing types, anywhere, and from doing anything with unforeseen HTML.

    And caches from keeping anything unasked: `service_id` and `token` are no credentials to them.
    """
    if message["type"] != "http.response.start":
        return
    headers = list(message["headers"])
    names = {name.lower() for name, _ in headers}
    if b"x-content-type-options" not in names:
        headers.append((b"x-content-type-options", b"nosniff"))
    if b"cache-control" not in names:
        headers.append((b"cache-control", b"no-store"))
    if b"content-security-policy" not in names:
        kind = next((value for name, value in headers if name.lower() == b"content-type"), b"")
        if kind.startswith(b"text/html"):
            headers.append((b"content-security-policy", POLICY.encode()))
    message["headers"] = headers

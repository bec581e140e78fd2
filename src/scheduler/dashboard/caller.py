"""Whose browser it is: its address, whether it speaks TLS, and whether a form is one of ours.

What a proxy says is believed of those in `server.trusted_proxies` alone.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast
from urllib.parse import urlsplit

from litestar import Request

from scheduler.config import Settings
from scheduler.proxies import Proxies

AnyRequest = Request[Any, Any, Any]
FORWARDED = ("x-forwarded-for", "forwarded")
"""A proxy may add to the header there is, or send one more of the same name."""


@lru_cache(4)
def _proxies(cidrs: tuple[str, ...]) -> Proxies:
    return Proxies(cidrs)


def _trusted(settings: Settings) -> Proxies:
    return _proxies(tuple(settings.server.trusted_proxies))


def _peer(request: AnyRequest) -> str:
    return request.client.host if request.client else ""


def address(request: AnyRequest, settings: Settings) -> str:
    """Return the caller's address, the same one that the log says: no name that it gives itself."""
    said = {name: ", ".join(request.headers.getall(name, [])) for name in FORWARDED}
    headers = {name: value for name, value in said.items() if value}
    return _trusted(settings).caller(_peer(request), headers) or ""


def over_tls(request: AnyRequest, settings: Settings) -> bool:
    """Say whether the browser speaks TLS, to us or to a proxy of ours."""
    if _trusted(settings).trusts(_peer(request)):
        said = request.headers.get("x-forwarded-proto", "").split(",")[0]
        return said.strip().lower() == "https"
    return request.url.scheme == "https"


def asked_at(request: AnyRequest, settings: Settings) -> str:
    """Return the address under which the browser knows us, for commands that are to be pasted."""
    scheme = "https" if over_tls(request, settings) else "http"
    return f"{scheme}://{request.headers.get('host') or 'localhost'}"


def cutting(request: AnyRequest) -> Callable[[], None]:
    """Return what cuts the browser's connection, where the server can."""
    cut = (request.scope.get("extensions") or {}).get("scheduler.abort", {})
    return cast("Callable[[], None]", cut.get("call", _nothing))


def _nothing() -> None:
    """Cut nothing: a server of another kind cannot."""


def own_form(request: AnyRequest, settings: Settings) -> bool:
    """Say whether a POST comes from one of our own pages, as far as the browser tells.

    Sec-Fetch-Site, which browsers send over TLS and to localhost; else Origin, whose host must be
    the one that was asked for; a client that sends neither is no browser of today.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("origin")
    if origin is None:
        return True
    hosts = {request.headers.get("host", "")}
    if _trusted(settings).trusts(_peer(request)):
        hosts.add(request.headers.get("x-forwarded-host", ""))
    try:
        return urlsplit(origin).netloc in hosts - {""}
    except ValueError:
        return False

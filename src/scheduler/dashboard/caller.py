"""Whose browser it is: its address, whether it speaks TLS, and whether a form is one of ours.

What a proxy says is believed of those in `server.trusted_proxies` alone.
"""

import ipaddress
from typing import Any
from urllib.parse import urlsplit

from litestar import Request

from scheduler.config import Settings

AnyRequest = Request[Any, Any, Any]


def _trusts(settings: Settings, address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
        mapped = getattr(found, "ipv4_mapped", None) or found
        networks = (ipaddress.ip_network(n, strict=False) for n in settings.server.trusted_proxies)
        return any(mapped in network for network in networks)
    except ValueError:
        return False


def _peer(request: AnyRequest) -> str:
    return request.client.host if request.client else ""


def address(request: AnyRequest, settings: Settings) -> str:
    """Return the caller's address: the nearest one that is no proxy of ours."""
    found = _peer(request)
    passed = request.headers.get("x-forwarded-for", "").split(",")
    while passed and _trusts(settings, found):
        found = passed.pop().strip() or found
    return found


def over_tls(request: AnyRequest, settings: Settings) -> bool:
    """Say whether the browser speaks TLS, to us or to a proxy of ours."""
    if _trusts(settings, _peer(request)):
        said = request.headers.get("x-forwarded-proto", "").split(",")[0]
        return said.strip().lower() == "https"
    return request.url.scheme == "https"


def asked_at(request: AnyRequest, settings: Settings) -> str:
    """Return the address under which the browser knows us, for commands that are to be pasted."""
    scheme = "https" if over_tls(request, settings) else "http"
    return f"{scheme}://{request.headers.get('host') or 'localhost'}"


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
    if _trusts(settings, _peer(request)):
        hosts.add(request.headers.get("x-forwarded-host", ""))
    return urlsplit(origin).netloc in hosts - {""}

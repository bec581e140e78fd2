"""Cookies of the pages: which names they have, and what keeps them with our own pages."""

from typing import Any

from litestar import Request
from litestar.datastructures import Cookie, State

from scheduler.dashboard import caller

AnyRequest = Request[Any, Any, Any]


def made(
    request: AnyRequest, state: State, name: str, value: str, lasts: int | None = None
) -> Cookie:
    """Return a cookie that no script reads and no other site sends; `lasts` in seconds."""
    return Cookie(
        key=_name(request, state, name),
        value=value,
        path="/",
        max_age=lasts,
        httponly=True,
        samesite="strict",
        secure=caller.over_tls(request, state.settings),
    )


def _name(request: AnyRequest, state: State, name: str) -> str:
    """Return a cookie's name: over TLS one that a page of a sibling's host cannot set for us."""
    return f"__Host-{name}" if caller.over_tls(request, state.settings) else name


def held(request: AnyRequest, state: State, name: str) -> str:
    """Return what a cookie of ours holds; nothing where there is none."""
    return request.cookies.get(_name(request, state, name), "")

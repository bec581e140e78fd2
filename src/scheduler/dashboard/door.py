"""The door: signing in and out, and whose page it is."""

import hmac
import secrets
import time
from typing import Any
from urllib.parse import parse_qsl, quote

import msgspec
from litestar import Request, Response, get, post
from litestar.datastructures import Cookie, State
from litestar.di import NamedDependency

from scheduler import services
from scheduler.dashboard import caller, page, sessions
from scheduler.dashboard.tries import Tries
from scheduler.errors import Forbidden, InvalidRequest, TooManyRequests
from scheduler.service import Service

SESSION = "scheduler_session"
FORM = "scheduler_form"
SIGN_IN = "/dashboard/sign-in"
HOME = "/dashboard"
FORM_MOST = 16_384
"""Bytes of a form."""
FIELDS_MOST = 20
WRONG = "There is no service with this id or name and this token."
STALE = "This form was open for too long, or came from another page. Try again."

AnyRequest = Request[Any, Any, Any]
Failures = NamedDependency[Tries]


class Stranger(Exception):
    """Nobody is signed in here."""


class Visitor(msgspec.Struct, frozen=True):
    """Who is signed in, and what the forms of this session send along."""

    service: Service
    form: str
    cookie: str


async def visitor(request: AnyRequest, state: State) -> Visitor:
    """Return whose page it is. Raises Stranger."""
    cookie = _held(request, state, SESSION)
    if not cookie:
        raise Stranger
    async with state.database.api.connect() as conn:
        found = await services.of_session(conn, sessions.digest(cookie))
    if found is None:
        raise Stranger
    service = state.gate.visited(*found)
    return Visitor(service, sessions.form_token(cookie), cookie)


async def form(request: AnyRequest) -> dict[str, str]:
    """Return the fields of a form. Raises InvalidRequest."""
    try:
        body = (await request.body()).decode("ascii")
        return dict(parse_qsl(body, max_num_fields=FIELDS_MOST, errors="replace"))
    except ValueError:
        raise InvalidRequest("the form cannot be read") from None


async def own_form(request: AnyRequest, state: State, of: Visitor) -> dict[str, str]:
    """Return the fields of a form of this session. Raises Forbidden for one from elsewhere."""
    fields = await form(request)
    check_own(request, state, of, fields.get("form", ""))
    return fields


def check_own(request: AnyRequest, state: State, of: Visitor, proof: str) -> None:
    """Raise Forbidden where a form, which sent `proof`, is none of this session."""
    ours = hmac.compare_digest(proof.encode(), of.form.encode())
    if not ours or not caller.own_form(request, state.settings):
        raise Forbidden(STALE)


# Signing in --------------------------------------------------------------------------------------


@get(SIGN_IN, include_in_schema=False)
async def show_sign_in(request: AnyRequest, state: State) -> Response[Any]:
    """Return the form to sign in."""
    return ask(request, state, request.query_params.get("next", HOME))


def ask(
    request: AnyRequest,
    state: State,
    following: str = HOME,
    *,
    status: int = 200,
    said: str = "",
    user: str = "",
    headers: dict[str, str] | None = None,
) -> Response[Any]:
    """Return the form to sign in, which leads on to one of our pages."""
    held = _held(request, state, FORM)
    proof = held if len(held) == 43 and held.isascii() else secrets.token_urlsafe(32)
    made = page.answer(
        "sign_in.html",
        status=status,
        headers=headers,
        form=proof,
        next=ours(following),
        said=said,
        user=user[:200],
    )
    made.set_cookie(_cookie(request, state, FORM, proof))
    return made


def ours(path: str) -> str:
    """Return an address of the dashboard's, or its first page for any other."""
    plain = path.isascii() and path.isprintable() and "\\" not in path and len(path) < 2000
    inside = path == HOME or path.startswith((f"{HOME}/", f"{HOME}?"))
    return path if plain and inside and not path.startswith(SIGN_IN) else HOME


def _cookie(
    request: AnyRequest, state: State, name: str, value: str, lasts: int | None = None
) -> Cookie:
    return Cookie(
        key=_named(request, state, name),
        value=value,
        path="/",
        max_age=lasts,
        httponly=True,
        samesite="strict",
        secure=caller.over_tls(request, state.settings),
    )


def _named(request: AnyRequest, state: State, name: str) -> str:
    """Return a cookie's name: over TLS one that a page of a sibling's host cannot set for us."""
    return f"__Host-{name}" if caller.over_tls(request, state.settings) else name


def _held(request: AnyRequest, state: State, name: str) -> str:
    return request.cookies.get(_named(request, state, name), "")


@post(SIGN_IN, status_code=200, include_in_schema=False)
async def sign_in(request: AnyRequest, state: State, failures: Failures) -> Response[Any]:
    """Begin a session for who sends a service and its token."""
    fields = await form(request)
    following, user = fields.get("next", HOME), fields.get("service", "").strip()
    proof, held = fields.get("form", ""), _held(request, state, FORM)
    same = bool(held) and hmac.compare_digest(proof.encode(), held.encode("utf-8", "replace"))
    if not same or not caller.own_form(request, state.settings):
        return ask(request, state, following, status=403, said=STALE, user=user)
    address, former = caller.address(request, state.settings), _held(request, state, SESSION)
    async with failures.turn(address):
        try:
            failures.begin(address, time.monotonic())
        except TooManyRequests as e:
            headers = {"Retry-After": str(e.retry_after)}
            return ask(request, state, following, status=429, said=e.message, headers=headers)
        try:
            cookie = await _begun(state, user, fields.get("token", "").strip(), former)
        except Exception:
            failures.taken_back(address)  # that the database is away tells a guesser nothing
            raise
        if cookie is None:
            return ask(request, state, following, status=401, said=WRONG, user=user)
        failures.taken_back(address)
    made = page.leading(ours(following))
    made.set_cookie(_cookie(request, state, SESSION, cookie, sessions.LASTS_S))
    return made


async def _begun(state: State, user: str, token: str, former: str) -> str | None:
    """Begin a session, by one statement for whatever is wrong; None for a wrong pair.

    The one that this browser had before ends: nobody could end it any more.
    """
    if "\x00" in user:  # no text in Postgres can hold one
        user = ""
    async with state.database.api.begin() as conn:
        found = await services.check(conn, user, services.digest(token))
        if found is None:
            return None
        service, token_id = found
        before = await services.of_session(conn, sessions.digest(former)) if former else None
        if before is not None:
            await sessions.end(conn, before[0].id, former)
        return await sessions.begin(conn, service.id, token_id)


@post("/dashboard/sign-out", status_code=200, include_in_schema=False)
async def sign_out(
    request: AnyRequest, state: State, visitor: NamedDependency[Visitor]
) -> Response[Any]:
    """End the session, here and in the database."""
    await own_form(request, state, visitor)
    async with state.database.api.begin() as conn:
        await sessions.end(conn, visitor.service.id, visitor.cookie)
    made = page.leading(SIGN_IN)
    made.set_cookie(_cookie(request, state, SESSION, "", lasts=0))
    return made


def turn_away(request: AnyRequest, _: Exception) -> Response[Any]:
    """Lead a stranger to the form: at the first page it is there, from others it leads back."""
    path = request.url.path
    if path in ("/", HOME) and not request.url.query:
        return ask(request, request.app.state)
    query = f"?{request.url.query}" if request.url.query else ""
    wanted = ours(f"{path}{query}") if request.method == "GET" else HOME
    return page.leading(f"{SIGN_IN}?next={quote(wanted, safe='/')}")

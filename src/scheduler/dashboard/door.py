"""The door: signing in and out, and whose page it is."""

import hmac
import secrets
import time
from typing import Any, Protocol
from urllib.parse import parse_qsl, quote

import msgspec
from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency

from scheduler import services, tokens
from scheduler.dashboard import caller, cookies, page, sessions
from scheduler.dashboard.tries import Tries
from scheduler.errors import Forbidden, InvalidRequest, TooManyRequests
from scheduler.service import Service

SESSION = "scheduler_session"
FORM = "scheduler_form"
SIGN_IN = "/dashboard/sign-in"
HOME = "/dashboard"
OF_TASKS = ("new", "bulk")
"""Addresses that belong to the tasks, beside their own: a task's id is a free word."""
FORM_MOST = 16_384
"""Bytes of a form."""
FIELDS_MOST = 20
WRONG = "There is no service with this id or name and this token."
STALE = "This form was open for too long, or came from another page. Try again."

AnyRequest = Request[Any, Any, Any]
Failures = NamedDependency[Tries]


class Stranger(Exception):
    """Nobody is signed in here."""


class Signed(Protocol):
    """Who has a session, of whatever kind."""

    @property
    def form(self) -> str:
        """What the forms of this session send along."""


class Visitor(msgspec.Struct, frozen=True):
    """Who is signed in, and what the forms of this session send along."""

    service: Service
    form: str
    cookie: str
    section: str = ""
    """Which part of the dashboard the page belongs to: the first word of its address."""


async def visitor(request: AnyRequest, state: State) -> Visitor:
    """Return whose page it is. Raises Stranger."""
    cookie = cookies.held(request, state, SESSION)
    if not cookie:
        raise Stranger
    async with state.database.api.connect() as conn:
        found = await services.of_session(conn, sessions.digest(cookie))
    if found is None:
        raise Stranger
    service = state.gate.visited(*found)
    section = request.url.path.removeprefix(HOME).strip("/").partition("/")[0]
    section = "tasks" if section in OF_TASKS else section
    made = Visitor(service, sessions.form_token(cookie), cookie, section)
    request.state.visitor = made
    return made


async def form(request: AnyRequest) -> dict[str, str]:
    """Return the fields of a form. Raises InvalidRequest."""
    try:
        body = (await request.body()).decode("ascii")
        return dict(parse_qsl(body, max_num_fields=FIELDS_MOST, errors="replace"))
    except ValueError:
        raise InvalidRequest("the form cannot be read") from None


async def own_form(request: AnyRequest, state: State, of: Signed) -> dict[str, str]:
    """Return the fields of a form of this session. Raises Forbidden for one from elsewhere."""
    fields = await form(request)
    check(request, state, of, fields)
    return fields


def check(request: AnyRequest, state: State, of: Signed, fields: dict[str, str]) -> None:
    """Raise Forbidden where fields do not come from a form of this session."""
    ours = hmac.compare_digest(fields.get("form", "").encode(), of.form.encode())
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
    mark = proof(request, state)
    made = page.answer(
        "sign_in.html",
        status=status,
        headers=headers,
        form=mark,
        next=ours(following),
        said=said,
        user=user[:200],
        admin=bool(state.settings.admin.token),
    )
    made.set_cookie(cookies.made(request, state, FORM, mark))
    return made


def proof(request: AnyRequest, state: State) -> str:
    """Return what a form to sign in sends along, and a cookie of this browser holds."""
    held = cookies.held(request, state, FORM)
    return held if len(held) == 43 and held.isascii() else secrets.token_urlsafe(32)


def proven(request: AnyRequest, state: State, fields: dict[str, str]) -> bool:
    """Say whether a form to sign in was shown by us, to this browser."""
    held = cookies.held(request, state, FORM)
    sent = fields.get("form", "").encode()
    same = bool(held) and hmac.compare_digest(sent, held.encode("utf-8", "replace"))
    return same and caller.own_form(request, state.settings)


def ours(path: str) -> str:
    """Return an address of the dashboard's, or its first page for any other."""
    plain = path.isascii() and path.isprintable() and "\\" not in path and len(path) < 2000
    inside = path == HOME or path.startswith((f"{HOME}/", f"{HOME}?"))
    return path if plain and inside and not path.startswith(SIGN_IN) else HOME


@post(SIGN_IN, status_code=200, include_in_schema=False)
async def sign_in(request: AnyRequest, state: State, failures: Failures) -> Response[Any]:
    """Begin a session for who sends a service and its token."""
    fields = await form(request)
    following, user = fields.get("next", HOME), fields.get("service", "").strip()
    if not proven(request, state, fields):
        return ask(request, state, following, status=403, said=STALE, user=user)
    address, former = caller.address(request, state.settings), cookies.held(request, state, SESSION)
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
    made.set_cookie(cookies.made(request, state, SESSION, cookie, sessions.LASTS_S))
    return made


async def _begun(state: State, user: str, token: str, former: str) -> str | None:
    """Begin a session, by one statement for whatever is wrong; None for a wrong pair.

    The one that this browser had before ends: nobody could end it any more.
    """
    if "\x00" in user:  # no text in Postgres can hold one
        user = ""
    async with state.database.api.begin() as conn:
        found = await services.check(conn, user, tokens.digest(token))
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
    made.set_cookie(cookies.made(request, state, SESSION, "", lasts=0))
    return made


def turn_away(request: AnyRequest, _: Exception) -> Response[Any]:
    """Lead a stranger to the form: at the first page it is there, from others it leads back."""
    path = request.url.path
    if path in ("/", HOME) and not request.url.query:
        return ask(request, request.app.state)
    query = f"?{request.url.query}" if request.url.query else ""
    wanted = ours(f"{path}{query}") if request.method == "GET" else HOME
    return page.leading(f"{SIGN_IN}?next={quote(wanted, safe='/')}")

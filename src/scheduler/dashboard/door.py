"""The door: signing in and out, and whose page it is."""

import asyncio
import hmac
import secrets
import time
from collections.abc import Mapping
from functools import partial
from typing import Any, Protocol
from urllib.parse import parse_qsl, quote, urlsplit

import msgspec
from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency

from scheduler import services, tokens
from scheduler.dashboard import caller, carried, cookies, page, sessions
from scheduler.dashboard.tries import Tries
from scheduler.errors import Forbidden, InvalidRequest, TooManyRequests
from scheduler.service import Service

SESSION = "scheduler_session"
FORM = "scheduler_form"
SIGN_IN = "/dashboard/sign-in"
SIGN_OUT = "/dashboard/sign-out"
HOME = "/dashboard"
SECTIONS = {"new": "tasks", "bulk": "tasks", "changes": "settings"}
"""Addresses that belong to a section beside its own: a task's id is a free word."""
FORM_MOST = 16_384
"""Bytes of a form."""
FIELDS_MOST = 20
WRONG = "There is no service with this id or name and this token."
STALE = "This form was open for too long, or came from another page. Try again."

ENDED = "Your session is over; nothing was done. Sign in, and the form is as you left it."
OTHERS = (
    "What was typed before is not shown: it was typed for another service, or cannot be read any "
    "more. Nothing was done."
)
SHOWN = "You signed in again, and nothing is saved yet: look at the form, and send it once more."

AnyRequest = Request[Any, Any, Any]
Failures = NamedDependency[Tries]


class Stranger(Exception):
    """Nobody is signed in here; what was typed into a form meanwhile is `carried`, sealed."""

    def __init__(self, carried: str = "") -> None:
        super().__init__()
        self.carried = carried


class Stale(Exception):
    """The form is of a session before, of the same service: it is to be shown again."""

    def __init__(self, kept: carried.Form) -> None:
        super().__init__()
        self.kept = kept


class OnlyShown(Exception):
    """A form that is only to be shown has nothing to show: its page is where it stood."""

    def __init__(self, before: str) -> None:
        super().__init__()
        self.before = before


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
    said: str = ""
    """What is said on top of the page."""


async def visitor(request: AnyRequest, state: State) -> Visitor:
    """Return whose page it is. Raises Stranger."""
    cookie, found = cookies.held(request, state, SESSION), None
    if cookie:
        async with state.database.api.connect() as conn:
            found = await services.of_session(conn, sessions.digest(cookie))
    if found is None:
        lost = request.method == "POST" and request.url.path != SIGN_OUT
        raise Stranger(await carried.sealed(request, state) if lost else "")
    service = state.gate.visited(*found)
    section = request.url.path.removeprefix(HOME).strip("/").partition("/")[0]
    form = carried.mark(sessions.form_token(cookie), service.id)
    made = Visitor(service, form, cookie, SECTIONS.get(section, section))
    request.state.visitor = made
    return made


async def form(request: AnyRequest) -> dict[str, str]:
    """Return the fields of a form. Raises InvalidRequest."""
    try:
        body = (await request.body()).decode("ascii")
        return await asyncio.to_thread(_fields, body) if len(body) > FORM_MOST else _fields(body)
    except ValueError:
        raise InvalidRequest("the form cannot be read") from None


def _fields(body: str) -> dict[str, str]:
    return dict(parse_qsl(body, max_num_fields=FIELDS_MOST, errors="replace"))


async def own_form(
    request: AnyRequest, state: State, of: Signed, *, again: bool = False
) -> dict[str, str]:
    """Return the fields of a form of this session. Raises as `check` does."""
    fields = await form(request)
    await check(request, state, of, fields, again=again)
    return fields


async def check(
    request: AnyRequest, state: State, of: Signed, sent: Mapping[str, str], *, again: bool = False
) -> None:
    """Raise Forbidden where fields do not come from a form of this session.

    Stale for one of a session before, of the same service. OnlyShown for one that is not to be
    carried out, unless the caller says by `again` that it looks for `carried.AGAIN` itself.
    """
    mark, from_here = sent.get("form", ""), caller.own_form(request, state.settings)
    if not from_here or not hmac.compare_digest(mark.encode(), of.form.encode()):
        found = await carried.read(request) if from_here and isinstance(of, Visitor) else None
        if found is not None and isinstance(of, Visitor) and found[0] == of.service.id:
            raise Stale(found[1])
        raise Forbidden(STALE)
    if carried.AGAIN in sent and not again:
        raise OnlyShown(ours(sent.get(carried.BEFORE, "")))


def told(of: Visitor) -> Visitor:
    """Return who sees a form again, told so on top of the page."""
    return msgspec.structs.replace(of, said=SHOWN)


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
    kept: str = "",
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
        carried=kept,
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


@post(
    SIGN_IN,
    status_code=200,
    request_max_body_size=carried.SENT_MOST,
    include_in_schema=False,
)
async def sign_in(request: AnyRequest, state: State, failures: Failures) -> Response[Any]:
    """Begin a session for who sends a service and its token."""
    fields = await form(request)
    following, user = fields.get("next", HOME), fields.get("service", "").strip()
    asked = partial(
        ask, request, state, following, kept=carried.passed_on(fields.get(carried.FIELD, ""))
    )
    if not proven(request, state, fields):
        return asked(status=403, said=STALE, user=user)
    address, former = caller.address(request, state.settings), cookies.held(request, state, SESSION)
    async with failures.turn(address):
        try:
            failures.begin(address, time.monotonic())
        except TooManyRequests as e:
            headers = {"Retry-After": str(e.retry_after)}
            return asked(status=429, said=e.message, headers=headers)
        try:
            begun = await _begun(state, user, fields.get("token", "").strip(), former)
        except Exception:
            failures.taken_back(address)  # that the database is away tells a guesser nothing
            raise
        if begun is None:
            return asked(status=401, said=WRONG, user=user)
        failures.taken_back(address)
    service, cookie = begun
    sent = fields.get(carried.FIELD, "")
    made = await _let_in(state, service, cookie, ours(following), sent)
    made.set_cookie(cookies.made(request, state, SESSION, cookie, sessions.LASTS_S))
    if sent:  # the browser keeps this form with its page, and it is not to be let in with it again
        made.set_cookie(cookies.made(request, state, FORM, secrets.token_urlsafe(32)))
    return made


async def _let_in(
    state: State, service: Service, cookie: str, following: str, sent: str
) -> Response[Any]:
    """Lead who signed in on; back to the form that was carried, where it is the same service's."""
    if not sent:
        return page.leading(following)
    kept = await carried.opened(state.database.vault, service.id, sent)
    if kept is None:
        return page.answer("error.html", title="Signed in", said=OTHERS, visitor=None)
    form = carried.mark(sessions.form_token(cookie), service.id)
    return page.answer("again.html", kept=kept, form=form, before=following, go_on=True)


async def _begun(state: State, user: str, token: str, former: str) -> tuple[Service, str] | None:
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
        return service, await sessions.begin(conn, service.id, token_id)


@post(SIGN_OUT, status_code=200, include_in_schema=False)
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


def turn_away(request: AnyRequest, e: Exception) -> Response[Any]:
    """Lead a stranger to the form: at the first page it is there, from others it leads back.

    With what was typed meanwhile, the answer to that is the form to sign in.
    """
    path, kept = request.url.path, e.carried if isinstance(e, Stranger) else ""
    if kept:
        state = request.app.state
        return ask(request, state, _came_from(request), status=401, said=ENDED, kept=kept)
    if path in ("/", HOME) and not request.url.query:
        return ask(request, request.app.state)
    query = f"?{request.url.query}" if request.url.query else ""
    wanted = ours(f"{path}{query}") if request.method == "GET" else _came_from(request)
    return page.leading(f"{SIGN_IN}?next={quote(wanted, safe='/')}")


def _came_from(request: AnyRequest) -> str:
    """Return the page that a form was sent from; the first page where the browser does not say."""
    try:
        parts = urlsplit(request.headers.get("referer", ""))
    except ValueError:
        return HOME
    if parts.netloc != request.headers.get("host"):
        return HOME
    return ours(f"{parts.path}?{parts.query}" if parts.query else parts.path)


def show_again(request: AnyRequest, e: Exception) -> Response[Any]:
    """Answer a form of a session before with what leads to it again; it is not carried out."""
    if not isinstance(e, Stale):
        raise e
    form, before = request.state.visitor.form, _came_from(request)
    return page.answer("again.html", status=403, kept=e.kept, form=form, before=before, go_on=True)


def lead_back(_: AnyRequest, e: Exception) -> Response[Any]:
    """Lead to the page where a form stood that is not to be carried out."""
    return page.leading(e.before if isinstance(e, OnlyShown) else HOME)

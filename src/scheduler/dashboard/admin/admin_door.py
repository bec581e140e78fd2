"""The admin's door: signing in with the admin token, and out."""

import hmac
import time
from typing import Any

import msgspec
from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency

from scheduler.dashboard import caller, cookies, door, page, sessions
from scheduler.dashboard.admin import admin_sessions
from scheduler.dashboard.tries import Tries
from scheduler.errors import NotFound, TooManyRequests

SESSION = "scheduler_admin"
HOME = "/dashboard/admin"
SIGN_IN = "/dashboard/admin/sign-in"
WRONG = "This is not the admin token."
NONE = "There is no such page."

AnyRequest = Request[Any, Any, Any]
Failures = NamedDependency[Tries]


class AdminWanted(Exception):
    """No admin is signed in here."""


class Admin(msgspec.Struct, frozen=True):
    """An admin who is signed in, and what the forms of this session send along."""

    form: str
    cookie: str


def _token(state: State) -> str:
    """Return the admin token. Raises NotFound where there is none: then there are no admins."""
    token: str = state.settings.admin.token
    if not token:
        raise NotFound(NONE)
    return token


async def admin(request: AnyRequest, state: State) -> Admin:
    """Return the admin whose page it is. Raises AdminWanted, NotFound where there can be none."""
    token, cookie = _token(state), cookies.held(request, state, SESSION)
    if not cookie:
        raise AdminWanted
    async with state.database.api.begin() as conn:
        if not await admin_sessions.use(conn, cookie, token):
            raise AdminWanted
    return Admin(sessions.form_token(cookie), cookie)


def turn_away(_request: AnyRequest, _: Exception) -> Response[Any]:
    """Lead who is no admin to the form."""
    return page.leading(SIGN_IN)


@get(SIGN_IN, include_in_schema=False)
async def show_admin_sign_in(request: AnyRequest, state: State) -> Response[Any]:
    """Return the form to sign in as admin."""
    _token(state)
    return _ask(request, state)


def _ask(
    request: AnyRequest,
    state: State,
    *,
    status: int = 200,
    said: str = "",
    headers: dict[str, str] | None = None,
) -> Response[Any]:
    mark = door.proof(request, state)
    made = page.answer("admin_sign_in.html", status=status, headers=headers, form=mark, said=said)
    made.set_cookie(cookies.made(request, state, door.FORM, mark))
    return made


@post(SIGN_IN, status_code=200, include_in_schema=False)
async def sign_in_admin(request: AnyRequest, state: State, failures: Failures) -> Response[Any]:
    """Begin a session for who sends the admin token; guesses count with those of services."""
    token, fields = _token(state), await door.form(request)
    if not door.proven(request, state, fields):
        return _ask(request, state, status=403, said=door.STALE)
    address, former = caller.address(request, state.settings), cookies.held(request, state, SESSION)
    async with failures.turn(address):
        try:
            failures.begin(address, time.monotonic())
        except TooManyRequests as e:
            headers = {"Retry-After": str(e.retry_after)}
            return _ask(request, state, status=429, said=e.message, headers=headers)
        sent = fields.get("token", "").strip()
        if not hmac.compare_digest(sent.encode(), token.encode()):
            return _ask(request, state, status=401, said=WRONG)
        failures.taken_back(address)
    async with state.database.api.begin() as conn:
        if former:
            await admin_sessions.end(conn, former)
        cookie = await admin_sessions.begin(conn, token)
    made = page.leading(HOME)
    made.set_cookie(cookies.made(request, state, SESSION, cookie, admin_sessions.LASTS_S))
    return made


@post("/dashboard/admin/sign-out", status_code=200, include_in_schema=False)
async def sign_out_admin(
    request: AnyRequest, state: State, admin: NamedDependency[Admin]
) -> Response[Any]:
    """End the session, here and in the database."""
    await door.own_form(request, state, admin)
    async with state.database.api.begin() as conn:
        await admin_sessions.end(conn, admin.cookie)
    made = page.leading(SIGN_IN)
    made.set_cookie(cookies.made(request, state, SESSION, "", lasts=0))
    return made

"""The settings of a service: its tokens and sessions, its signing secret, its limits."""

from typing import Any

from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath

from scheduler import services, signing, tokens, usage
from scheduler.admin import acts
from scheduler.dashboard import caller, door, once, page, rotating, sessions
from scheduler.dashboard.door import Visitor
from scheduler.engine import Engine
from scheduler.errors import Conflict, NotFound, UserError, ValidationFailed

HOME = "/dashboard/settings"

AnyRequest = Request[Any, Any, Any]
Who = NamedDependency[Visitor]
Machine = NamedDependency[Engine]

SAID = {
    "revoke": "The token is revoked. What it opened is closed within two seconds.",
    "end": "The session is over.",
    "end-others": "The other sessions are over.",
}


@get(HOME, include_in_schema=False)
async def show_settings(request: AnyRequest, visitor: Who, engine: Machine) -> Response[Any]:
    """Return what a service has, may, and uses."""
    return await _page(request, visitor, engine)


async def _page(
    request: AnyRequest, visitor: Visitor, engine: Engine, refused: UserError | None = None
) -> Response[Any]:
    service, now = visitor.service, engine.clock.now_ms()
    async with engine.database.api.connect() as conn:
        there, raw = await services.credentials(conn, service.id)
        live = [each.id for each in there if each.revoked_at is None]
        open_now = await sessions.of_tokens(conn, service.id, live)
        used = (await usage.of_services(conn, [service], now))[service.id]
    ours = sessions.digest(visitor.cookie)
    return page.answer(
        "settings.html",
        status=200 if refused is None else refused.status,
        visitor=visitor,
        now=now,
        tokens=there,
        live=live,
        sessions=open_now,
        ours=ours,
        here=next((each.token_id for each in open_now if each.hash == ours), None),
        used=used,
        mark=once.mark(),
        seen=once.seen(visitor, signing.present(engine.database.vault, service.id, raw)),
        counted=usage.COUNT_MOST,
        settings=engine.settings,
        refused=refused.message if refused is not None else "",
        said=SAID.get(request.query_params.get("done", ""), ""),
        url=caller.asked_at(request, engine.settings),
    )


@post(f"{HOME}/{{act:str}}", status_code=200, include_in_schema=False)
async def act_on_settings(
    act: FromPath[str], request: AnyRequest, state: State, visitor: Who, engine: Machine
) -> Response[Any]:
    """Rotate or revoke a token, rotate the signing secret, or end sessions; then the page.

    A secret that was made is in this answer, and nowhere else.
    """
    sent = await door.own_form(request, state, visitor)
    try:
        if act in ("rotate", "signing"):
            return await _rotated(engine, state, visitor, act, sent)
        if act == "revoke":
            await _revoke(engine, visitor, sent)
            state.gate.forget(visitor.service.id)
        elif act in ("end", "end-others"):
            await _end(engine, visitor, act, sent)
        else:
            raise NotFound("there is no such form")
    except Conflict as e:
        return await _page(request, visitor, engine, e)
    return page.leading(f"{HOME}?done={act}")


async def _rotated(
    engine: Engine, state: State, visitor: Visitor, act: str, sent: dict[str, str]
) -> Response[Any]:
    service = visitor.service
    made = await rotating.rotated(
        engine, visitor, service.by, str(service.id), sent, signs=act == "signing"
    )
    state.gate.forget(service.id)
    return page.answer(
        "secret.html",
        parent="base.html",
        visitor=visitor,
        title="A new signing secret" if act == "signing" else "A new token",
        token=made.token or None,
        signing_secret=made.signing_secret or None,
        back=HOME,
    )


async def _revoke(engine: Engine, visitor: Visitor, sent: dict[str, str]) -> None:
    token = services.as_id(sent.get("token_id", ""))
    if token is None:
        raise ValidationFailed.of("token_id", "must be a token's id, a UUID")
    service = visitor.service
    await acts.revoke(engine.database, service.by, str(service.id), token, last=False)


async def _end(engine: Engine, visitor: Visitor, act: str, sent: dict[str, str]) -> None:
    service_id = visitor.service.id
    async with engine.database.api.begin() as conn:
        theirs = [each.id for each in await tokens.of_service(conn, service_id)]
        if act == "end":
            await sessions.end_named(conn, service_id, theirs, sent.get("session", ""))
        else:
            await sessions.end_others(conn, service_id, theirs, visitor.cookie)


HANDLERS = (show_settings, act_on_settings)

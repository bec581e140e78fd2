"""What an admin does on pages: services, their tokens and quotas, and the installation's pause."""

from typing import Any
from uuid import UUID

import msgspec
from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath

from scheduler import asked, config, installation, services, signing, tokens, usage
from scheduler.admin import acts
from scheduler.admin.model import QUOTAS, ServiceFields
from scheduler.dashboard import door, once, page, rotating
from scheduler.dashboard.admin import admin_door
from scheduler.dashboard.admin.admin_door import Admin
from scheduler.engine import Engine
from scheduler.errors import Conflict, Detail, UserError, ValidationFailed
from scheduler.service import MOST, MOST_OF_OTHERS, By, Service, Token

COUNT = 25
"""Services of a page."""
PAGES_MOST = 400
COUNTED = 1000
"""As far as the list counts what is of one service."""
REASON_MOST = 500
HOME = admin_door.HOME
BY = By("admin page")

AnyRequest = Request[Any, Any, Any]
Who = NamedDependency[Admin]
Machine = NamedDependency[Engine]
Sent = dict[str, str]


# The list ----------------------------------------------------------------------------------------


@get(HOME, include_in_schema=False)
async def show_services(request: AnyRequest, admin: Who, engine: Machine) -> Response[Any]:
    """Return the services, by name, with what each uses."""
    return await _list(request, admin, engine)


async def _list(
    request: AnyRequest,
    admin: Admin,
    engine: Engine,
    refused: UserError | None = None,
    sent: Sent | None = None,
) -> Response[Any]:
    number = asked.whole(request.query_params.get("page"), "page", 0, 0, PAGES_MOST)
    now = engine.clock.now_ms()
    async with engine.database.api.connect() as conn:
        found = await services.page(conn, offset=number * COUNT, most=COUNT + 1)
        shown = [_limited(each, engine.settings.quotas) for each in found[:COUNT]]
        used = await usage.of_services(conn, shown, now, COUNTED)
        pause = (await installation.read(conn)).pause
    return await page.large(
        "admin.html",
        status=200 if refused is None else refused.status,
        admin=admin,
        now=now,
        services=shown,
        used=used,
        counted=COUNTED,
        pause=pause,
        said=SAID.get(request.query_params.get("done", ""), ""),
        wrong=_wrong(refused),
        sent=sent or {},
        mark=once.mark(),
        before=f"{HOME}?page={number - 1}" if number else None,
        after=f"{HOME}?page={number + 1}" if len(found) > COUNT else None,
    )


def _limited(of: Service, settings: config.Quotas) -> Service:
    return msgspec.structs.replace(of, limits=of.quotas.within(settings))


def _wrong(refused: UserError | None) -> dict[str, str]:
    """Return what is wrong with each field; what is of none is the name's: it is taken."""
    if refused is None:
        return {}
    return {d.field: d.message for d in refused.details} or {"name": refused.message}


SAID = {
    "changed": "The service is changed.",
    "revoked": "The token is revoked. What it opened is closed within two seconds.",
    "deleted": "The service is gone, with everything of it.",
    "paused": "The installation is paused: no replica starts anything.",
    "resumed": "The installation goes on.",
}


@post(f"{HOME}/services", status_code=200, include_in_schema=False)
async def create_service(
    request: AnyRequest, state: State, admin: Who, engine: Machine
) -> Response[Any]:
    """Create a service; its secrets are in this answer, and nowhere else."""
    sent = await door.own_form(request, state, admin)
    try:
        name, service_id, token, secret = await _created(engine, admin, sent)
    except (ValidationFailed, Conflict) as e:
        return await _list(request, admin, engine, e, sent)
    return page.answer(
        "secret.html",
        parent="admin_base.html",
        admin=admin,
        title=f"{name} is there",
        token=token,
        signing_secret=signing.shown_secret(secret),
        back=f"{HOME}/services/{service_id}",
    )


async def _created(engine: Engine, admin: Admin, sent: Sent) -> tuple[str, str, str, bytes]:
    """Create a service, once; return its name and id, its token and its signing secret."""
    fields = _fields(sent)
    token = rotating.token_of(once.made(admin, sent, f"token of {fields.name}, new"))
    secret = once.made(admin, sent, f"signing secret of {fields.name}, new")
    try:
        made = await acts.create(engine.database, BY, fields, token, secret)
    except Conflict:
        async with engine.database.api.connect() as conn:
            found = await services.check(conn, str(fields.name), tokens.digest(token))
        if found is None:
            raise
        return found[0].name, str(found[0].id), token, secret
    return made.name, made.service_id, token, secret


def _fields(sent: Sent) -> ServiceFields:
    """Return what a form says of a service. Raises ValidationFailed, with every field."""
    wrong, amounts = list[Detail](), dict[str, int | None]()
    for name in QUOTAS:
        text, most = sent.get(name, "").strip().replace(",", ""), MOST.get(name, MOST_OF_OTHERS)
        if not text:
            amounts[name] = None
        elif text.isascii() and text.isdecimal() and len(text) < 18 and int(text) <= most:
            amounts[name] = int(text)
        else:
            said = f"a whole number to {most:,}, 0 for no limit, empty for the default"
            wrong.append(Detail(name, said))
    name = sent.get("name", "").strip()
    try:
        services.check_name(name)
    except ValidationFailed as e:
        wrong[:0] = e.details
    if wrong:
        raise ValidationFailed.all(wrong)
    return ServiceFields(name=name, allow_commands="allow_commands" in sent, **amounts)


# One service -------------------------------------------------------------------------------------


class Seen(msgspec.Struct, frozen=True):
    """A service as its page shows it."""

    service: Service
    tokens: list[Token]
    used: usage.Used
    secret: bytes
    """What signs its calls."""


@get(f"{HOME}/services/{{ref:str}}", include_in_schema=False)
async def show_service(
    ref: FromPath[str], request: AnyRequest, admin: Who, engine: Machine
) -> Response[Any]:
    """Return a service: what it may use, what it uses, its tokens."""
    return await _service(ref, request, admin, engine)


async def _service(
    ref: str,
    request: AnyRequest,
    admin: Admin,
    engine: Engine,
    refused: UserError | None = None,
    sent: Sent | None = None,
) -> Response[Any]:
    now = engine.clock.now_ms()
    seen = await _seen(ref, engine, now)
    return await page.large(
        "admin_service.html",
        status=200 if refused is None else refused.status,
        admin=admin,
        now=now,
        at=f"{HOME}/services/{seen.service.id}",
        seen=seen,
        mark=once.mark(),
        present=once.seen(admin, seen.secret),
        counted=usage.COUNT_MOST,
        said=SAID.get(request.query_params.get("done", ""), ""),
        refused=refused.message if refused is not None and sent is None else "",
        wrong=_wrong(refused) if sent is not None else {},
        sent=_values(seen.service) if sent is None else sent,
    )


async def _seen(ref: str, engine: Engine, now: int) -> Seen:
    async with engine.database.api.connect() as conn:
        service = _limited(await services.get(conn, ref), engine.settings.quotas)
        there, raw = await services.credentials(conn, service.id)
        used = await usage.of_services(conn, [service], now)
    secret = signing.present(engine.database.vault, service.id, raw)
    return Seen(service, there, used[service.id], secret)


def _values(of: Service) -> Sent:
    """Return a service as its form shows it."""
    own = msgspec.structs.asdict(of.quotas)
    shown = {name: "" if value is None else str(value) for name, value in own.items()}
    return shown | {"name": of.name} | ({"allow_commands": "on"} if of.allow_commands else {})


@post(f"{HOME}/services/{{ref:str}}", status_code=200, include_in_schema=False)
async def change_service(
    ref: FromPath[str], request: AnyRequest, state: State, admin: Who, engine: Machine
) -> Response[Any]:
    """Change a service's name, quotas, or whether it may run commands."""
    sent = await door.own_form(request, state, admin)
    try:
        face = await acts.update(engine.database, BY, engine.settings.quotas, ref, _fields(sent))
    except (ValidationFailed, Conflict) as e:
        return await _service(ref, request, admin, engine, e, sent)
    state.gate.forget(UUID(face.service_id))
    return page.leading(f"{HOME}/services/{face.service_id}?done=changed")


@post(f"{HOME}/services/{{ref:str}}/rotate", status_code=200, include_in_schema=False)
async def rotate_service(
    ref: FromPath[str], request: AnyRequest, state: State, admin: Who, engine: Machine
) -> Response[Any]:
    """Make a new token, or signing secret; it is in this answer, and nowhere else."""
    sent = await door.own_form(request, state, admin)
    signs = sent.get("what") == "signing"
    try:
        face = await rotating.rotated(engine, admin, BY, ref, sent, signs=signs)
    except Conflict as e:
        return await _service(ref, request, admin, engine, e)
    state.gate.forget(UUID(face.service_id))
    return page.answer(
        "secret.html",
        parent="admin_base.html",
        admin=admin,
        title=f"A new {'signing secret' if signs else 'token'} of {face.name}",
        token=face.token or None,
        signing_secret=face.signing_secret or None,
        back=f"{HOME}/services/{face.service_id}",
    )


@post(f"{HOME}/services/{{ref:str}}/revoke", status_code=200, include_in_schema=False)
async def revoke_service(
    ref: FromPath[str], request: AnyRequest, state: State, admin: Who, engine: Machine
) -> Response[Any]:
    """Revoke a token; the last live one only where that is said."""
    sent = await door.own_form(request, state, admin)
    token = services.as_id(sent.get("token_id", ""))
    if token is None:
        raise ValidationFailed.of("token_id", "must be a token's id, a UUID")
    try:
        face = await acts.revoke(engine.database, BY, ref, token, last="last" in sent)
    except Conflict as e:
        return await _service(ref, request, admin, engine, e)
    state.gate.forget(UUID(face.service_id))
    return page.leading(f"{HOME}/services/{face.service_id}?done=revoked")


@get(f"{HOME}/services/{{ref:str}}/delete", include_in_schema=False)
async def ask_delete(ref: FromPath[str], admin: Who, engine: Machine) -> Response[Any]:
    """Return what goes with a service, and ask for its name."""
    return await _ask_delete(ref, admin, engine)


async def _ask_delete(ref: str, admin: Admin, engine: Engine, typed: str = "") -> Response[Any]:
    seen = await _seen(ref, engine, engine.clock.now_ms())
    return page.answer(
        "admin_delete.html",
        status=400 if typed else 200,
        admin=admin,
        seen=seen,
        counted=usage.COUNT_MOST,
        at=f"{HOME}/services/{seen.service.id}",
        typed=typed,
    )


@post(f"{HOME}/services/{{ref:str}}/delete", status_code=200, include_in_schema=False)
async def delete_service(
    ref: FromPath[str], request: AnyRequest, state: State, admin: Who, engine: Machine
) -> Response[Any]:
    """Delete a service with everything of it, where its name was typed; answers when it is gone."""
    typed = (await door.own_form(request, state, admin)).get("name", "").strip()
    async with engine.database.api.connect() as conn:
        name = (await services.get(conn, ref)).name
    if typed != name:
        return await _ask_delete(ref, admin, engine, typed or " ")
    gone = await acts.delete(engine.database, BY, engine.settings.auth, ref, engine.recall)
    state.gate.forget(gone)
    return page.leading(f"{HOME}?done=deleted")


# The installation --------------------------------------------------------------------------------


@post(f"{HOME}/pause", status_code=200, include_in_schema=False)
async def pause_installation(
    request: AnyRequest, state: State, admin: Who, engine: Machine
) -> Response[Any]:
    """Let no replica start anything."""
    sent = await door.own_form(request, state, admin)
    reason = sent.get("reason", "").strip()
    if len(reason) > REASON_MOST or "\x00" in reason:
        wrong = ValidationFailed.of("reason", f"at most {REASON_MOST} characters, none of them NUL")
        return await _list(request, admin, engine, wrong, sent)
    await acts.pause(engine.database, reason or None)
    return page.leading(f"{HOME}?done=paused")


@post(f"{HOME}/resume", status_code=200, include_in_schema=False)
async def resume_installation(
    request: AnyRequest, state: State, admin: Who, engine: Machine
) -> Response[Any]:
    """End the pause."""
    await door.own_form(request, state, admin)
    await acts.resume(engine.database)
    return page.leading(f"{HOME}?done=resumed")


HANDLERS = (
    admin_door.show_admin_sign_in,
    admin_door.sign_in_admin,
    admin_door.sign_out_admin,
    show_services,
    create_service,
    show_service,
    change_service,
    rotate_service,
    revoke_service,
    ask_delete,
    delete_service,
    pause_installation,
    resume_installation,
)

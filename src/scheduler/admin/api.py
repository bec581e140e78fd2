"""`/services`: create, list, show, change, rotate, revoke, delete; for who has `admin.token`."""

import hmac
from typing import Annotated, Any
from uuid import UUID

from litestar import Request, Response, Router, delete, get, post, route
from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.handlers.base import BaseRouteHandler
from litestar.params import FromPath, FromQuery, QueryParameter

from scheduler import asked, openapi
from scheduler.admin import acts
from scheduler.admin.model import Revoke, Rotate, ServiceFields, ShownService
from scheduler.config import Settings
from scheduler.engine import Engine
from scheduler.errors import BearerWanted, Forbidden, ValidationFailed
from scheduler.openapi import asks
from scheduler.service import By

BY = By("admin")
AnyRequest = Request[Any, Any, Any]


async def admit(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """Let in who has the operator's token. Raises Forbidden where there is none, BearerWanted."""
    settings: Settings = connection.app.state.settings
    token = settings.admin.token
    if not token:
        raise Forbidden("set admin.token (ADMIN_TOKEN) to open /services")
    scheme, _space, sent = connection.headers.get("authorization", "").partition(" ")
    right = hmac.compare_digest(sent.strip().encode(), token.encode())
    if scheme.lower() != "bearer" or not right:
        raise BearerWanted("send Authorization: Bearer with admin.token")


def _engine(state: State) -> Engine:
    found: Engine = state.engine
    return found


def _forget(state: State, service_id: str) -> None:
    """Let a change be felt here at once; elsewhere it is within two seconds."""
    state.gate.forget(UUID(service_id))


@post(
    "/",
    summary="Create a service; its token and signing secret are shown once",
    operation_class=asks(ServiceFields),
)
async def create_service(
    request: AnyRequest,
    state: State,
) -> ShownService:
    """Create a service."""
    fields = asked.body(await request.body(), ServiceFields)
    return await acts.create(_engine(state).database, BY, fields)


@get("/", summary="List the services, by name")
async def list_services(state: State) -> list[ShownService]:
    """Return every service, without secrets."""
    return await acts.list_all(_engine(state).database)


@get("/{service:str}", summary="One service, by id or name: its tokens, limits and use")
async def get_service(service: FromPath[str], state: State) -> ShownService:
    """Return a service."""
    engine = _engine(state)
    return await acts.show(engine.database, engine.settings.quotas, service)


@route(
    "/{service:str}",
    http_method=["PUT", "PATCH"],
    status_code=200,
    summary="Change the fields sent of a service",
    operation_class=asks(ServiceFields),
)
async def change_service(
    service: FromPath[str],
    request: AnyRequest,
    state: State,
) -> ShownService:
    """Change a service's name, quotas, or whether it may run commands."""
    engine = _engine(state)
    fields = asked.body(await request.body(), ServiceFields)
    face = await acts.update(engine.database, BY, engine.settings.quotas, service, fields)
    _forget(state, face.service_id)
    return face


@post(
    "/{service:str}/rotate",
    status_code=200,
    summary="Make a new token, or with signing=true a new signing secret; shown once",
    operation_class=asks(Rotate, needed=False),
)
async def rotate_service(
    service: FromPath[str],
    request: AnyRequest,
    state: State,
    signing: FromQuery[bool] = False,  # noqa: FBT002
) -> ShownService:
    """Rotate: the newest token before stays live beside the new one, an older one is revoked.

    A new signing secret signs alone, from the next two seconds on. The body may say
    `{"signing": true}` as well.
    """
    wanted = asked.body(await request.body() or b"{}", Rotate)
    either = signing or wanted.signing
    face = await acts.rotate(_engine(state).database, BY, service, signing=either)
    _forget(state, face.service_id)
    return face


@post(
    "/{service:str}/revoke",
    status_code=200,
    summary="Revoke one token, or all live ones but the newest",
    operation_class=asks(Revoke, needed=False),
)
async def revoke_service(
    service: FromPath[str],
    request: AnyRequest,
    state: State,
    token_id: Annotated[str | None, QueryParameter()] = None,
) -> ShownService:
    """Revoke the token that `token_id` names, here or in the body; without one the older ones."""
    wanted = asked.body(await request.body() or b"{}", Revoke).token_id
    if token_id:
        try:
            wanted = UUID(token_id)
        except ValueError:
            raise ValidationFailed.of("token_id", "must be a token's id, a UUID") from None
    face = await acts.revoke(_engine(state).database, BY, service, wanted)
    _forget(state, face.service_id)
    return face


@delete("/{service:str}", status_code=204, summary="Delete a service and everything of it")
async def delete_service(service: FromPath[str], state: State) -> Response[None]:
    """Delete a service with its tasks, runs, history and tokens; answers when all is gone."""
    engine = _engine(state)

    def recall(task_key: UUID) -> None:
        engine.dispatcher.recall(task_key)
        engine.signals.recall(task_key)

    gone = await acts.delete(engine.database, BY, engine.settings.auth, service, recall)
    _forget(state, str(gone))
    return Response(None, status_code=204)


router = Router(
    "/services",
    guards=[admit],
    security=openapi.ADMIN,
    route_handlers=[
        create_service,
        list_services,
        get_service,
        change_service,
        rotate_service,
        revoke_service,
        delete_service,
    ],
)

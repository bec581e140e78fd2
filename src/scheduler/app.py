"""The ASGI application: routes, credentials, the one error shape, health and metrics."""

import hmac
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import yaml
from litestar import Litestar, MediaType, Request, Response, Router, get
from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.di import Provide
from litestar.enums import ScopeType
from litestar.exceptions import (
    HTTPException,
    MethodNotAllowedException,
    NotFoundException,
    ValidationException,
)
from litestar.exceptions.http_exceptions import RequestEntityTooLarge
from litestar.handlers import HTTPRouteHandler
from litestar.handlers.base import BaseRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.plugins import JsonRenderPlugin, YamlRenderPlugin
from litestar.routes import HTTPRoute
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from scheduler import __version__, db, metrics, migrate, openapi, requestlog
from scheduler.admin import api as admin_api
from scheduler.calendars import api as calendars_api
from scheduler.config import Settings
from scheduler.dashboard import api as dashboard_api
from scheduler.dashboard import manual, page
from scheduler.described import routes
from scheduler.engine import Engine
from scheduler.errors import (
    BearerWanted,
    Detail,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    PayloadTooLarge,
    Unauthorized,
    Unavailable,
    UserError,
    ValidationFailed,
)
from scheduler.gate import Caller, Scale
from scheduler.processes import api as processes_api
from scheduler.requestlog import traced
from scheduler.runs import api as runs_api
from scheduler.schedules import api as schedules_api
from scheduler.service import Service
from scheduler.specs import api as specs_api
from scheduler.specs.aide import Aides
from scheduler.specs.performer import OperationPerformer
from scheduler.tasks import api as tasks_api
from scheduler.tasks import impact

Lifespan = Callable[[Litestar], AbstractAsyncContextManager[None]]
AnyRequest = Request[Any, Any, Any]


def create(settings: Settings, lifespan: Lifespan) -> Litestar:
    """Return the application; `lifespan` sets `engine`, `database` and `gate` on its state."""
    return _around(_application(settings, lifespan))


def create_small(settings: Settings, lifespan: Lifespan) -> Litestar:
    """Return what a worker answers: whether it is up, whether it works, and its metrics."""
    return _around(
        Litestar(
            route_handlers=[health, ping, ready, show_metrics],
            lifespan=[lifespan],
            state=State({"settings": settings}),
            exception_handlers={Exception: answer_error, HTTPException: answer_error},
            before_send=[say_allowed],
            openapi_config=None,
            logging_config=None,
        )
    )


def _around(application: Litestar) -> Litestar:
    # Around the framework, not in it: its middleware does not see the errors of its router.
    application.asgi_handler = traced(headed(application.asgi_handler))
    return application


def _secured(settings: Settings) -> Router:
    """Return what a service may ask for."""
    return Router(
        "/",
        route_handlers=[
            tasks_api.router,
            runs_api.router,
            schedules_api.router,
            calendars_api.router,
            specs_api.router(settings),
            impact.router,
            processes_api.router,
        ],
        guards=[_admit],
        security=openapi.SERVICE,
        dependencies={
            "service": Provide(_service, sync_to_thread=False),
            "engine": Provide(_engine, sync_to_thread=False),
            "aides": Provide(_aides, sync_to_thread=False),
            "operations": Provide(_operations, sync_to_thread=False),
        },
    )


def _application(settings: Settings, lifespan: Lifespan) -> Litestar:
    return Litestar(
        route_handlers=[
            _secured(settings),
            admin_api.router,
            health,
            ping,
            ready,
            show_metrics,
            dashboard_api.router(explain),
            manual.show_manual,
        ],
        lifespan=[lifespan, page.reading],
        state=State({"settings": settings}),
        exception_handlers={Exception: answer_error, HTTPException: answer_error},
        before_send=[say_allowed, page.guard],
        request_max_body_size=settings.server.max_body_bytes,
        openapi_config=openapi.Config(
            title=routes.TITLE,
            version=__version__,
            path="/docs",
            operation_id_creator=operation_id,
            openapi_router=manual.router(),
            use_handler_docstrings=True,
            render_plugins=[
                manual.Manual(path="/"),
                YamlRenderPlugin(path="/openapi.yml"),
                JsonRenderPlugin(path="/openapi.json"),
            ],
        ),
        logging_config=None,
    )


def operation_id(handler: HTTPRouteHandler, method: Any, path: list[Any]) -> str:
    """Return the handler's name, and what tells its methods and addresses apart."""
    name = handler.handler_name
    if len(handler.http_methods) > 1:
        name = f"{name}_by_{str(method.value).lower()}"
    if len(handler.paths) > 1:
        name = "_".join([name, *(str(part) for part in path)])
    return name


# Who is calling ----------------------------------------------------------------------------------


async def _admit(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    state = connection.app.state
    client = connection.client
    caller = Caller(connection.headers, client.host if client else None)
    service: Service = await state.gate.admit(state.database, caller)
    connection.scope["auth"] = service
    if service.limits.max_body_bytes:
        _weigh(connection, Scale(service.limits.max_body_bytes))


def _weigh(connection: ASGIConnection[Any, Any, Any, Any], scale: Scale) -> None:
    """Weigh the body before it is read, and while it is."""
    scale.announced(connection.headers.get("content-length"))
    receive = connection.receive

    async def weighed() -> Any:
        message = await receive()
        if message["type"] == "http.request":
            scale.add(message["body"])
        return message

    connection.receive = weighed


def _service(request: AnyRequest) -> Service:
    found: Service = request.auth
    return found


def _engine(state: State) -> Engine:
    found: Engine = state.engine
    return found


def _aides(state: State) -> Aides:
    found: Aides = state.rooms.aides
    return found


def _operations(state: State) -> OperationPerformer:
    found: OperationPerformer = state.rooms.operations
    return found


# Errors ------------------------------------------------------------------------------------------


def answer_error(request: AnyRequest, error: Exception) -> Response[Any]:
    """Turn whatever was raised into the one error shape."""
    refused = explain(request, error)
    if refused is None:
        return _error(500, "internal_error", "something went wrong here; the log knows more")
    headers = {}
    if isinstance(refused, Unauthorized):
        headers["WWW-Authenticate"] = refused.challenge
    if refused.retry_after is not None:
        headers["Retry-After"] = str(refused.retry_after)
    if isinstance(error, MethodNotAllowedException):
        headers["Allow"] = ", ".join(_allowed(request.app, request.url.path))
    return _error(refused.status, refused.code, refused.message, refused.details, headers)


def explain(request: AnyRequest, error: Exception) -> UserError | None:
    """Return what an exception means for the caller, None where the fault is ours.

    The request's line in the log says either.
    """
    refused = _refused(error)
    if refused is None:
        requestlog.say(request.scope, "", error)
    else:
        requestlog.say(request.scope, refused.message)
    return refused


def _allowed(application: Litestar, path: str) -> list[str]:
    """Return the methods that an address takes (RFC 9110, 15.5.6 wants them said)."""
    parts = path.strip("/").split("/")
    found: dict[int, set[str]] = defaultdict(set)
    for route in application.routes:
        there = route.path.strip("/").split("/")
        same = [a == b or a.startswith("{") for a, b in zip(there, parts, strict=False)]
        if isinstance(route, HTTPRoute) and len(there) == len(parts) and all(same):
            # As the framework does: a route that names the word comes before one that takes any.
            found[route.path.count("{")] |= {str(method) for method in route.methods}
    methods = found[min(found)] if found else set()
    return sorted(methods | ({"HEAD"} if "GET" in methods else set()))


async def say_allowed(message: Message, scope: Scope) -> None:
    """Mend the answer to OPTIONS: the framework names the first handler's methods alone."""
    if message["type"] != "http.response.start" or scope.get("method") != "OPTIONS":
        return
    others = [header for header in message["headers"] if header[0].lower() != b"allow"]
    if len(others) < len(list(message["headers"])):
        allow = ", ".join(_allowed(scope["litestar_app"], scope["path"]))
        message["headers"] = [*others, (b"allow", allow.encode())]


def _refused(error: Exception) -> UserError | None:
    """Return what an exception means for the caller; None where the fault is ours."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, RecursionError):
        return InvalidRequest("the body is JSON, but nested too deeply")
    if isinstance(error, UnicodeDecodeError):
        return InvalidRequest("the body is not valid JSON: it is not UTF-8")
    if isinstance(error, ValidationException):
        return ValidationFailed.all(_details(error))
    if isinstance(error, NotFoundException):
        return NotFound("there is no such address; /docs lists them")
    if isinstance(error, MethodNotAllowedException):
        return MethodNotAllowed()
    if isinstance(error, RequestEntityTooLarge):
        return PayloadTooLarge("the body is larger than server.max_body_bytes")
    if isinstance(error, HTTPException) and error.status_code < 500:
        return InvalidRequest(f"the body is not valid JSON: {error.detail}")
    if db.is_contended(error):
        return Unavailable("others changed the same at the same moment; try again")
    if db.lacks_partition(error):
        return Unavailable("history lacks a table for this week; it is being made, try again")
    return Unavailable() if db.is_away(error) else None


def _details(error: ValidationException) -> list[Detail]:
    """Read the framework's findings on what it reads of a query: `Expected `int`, got `str``."""
    extras: list[Any] = error.extra if isinstance(error.extra, list) else []
    found = [Detail(str(extra.get("key")), str(extra.get("message"))) for extra in extras]
    return found or [Detail("query", str(error.detail))]


def _error(
    status: int,
    code: str,
    message: str,
    details: list[Detail] | None = None,
    headers: dict[str, str] | None = None,
) -> Response[Any]:
    body: dict[str, Any] = {"code": code, "message": message}
    if details:
        body["details"] = details
    return Response({"error": body}, status_code=status, headers=headers, media_type=MediaType.JSON)


def headed(app: ASGIApp) -> ASGIApp:
    """Answer HEAD wherever GET is answered (RFC 9110, 9.1); the server leaves the body out."""

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP or scope["method"] != "HEAD":
            await app(scope, receive, send)
            return
        asked = cast("Scope", {**scope, "method": "GET"})
        try:
            await app(asked, receive, send)
        finally:
            # The log wants to know what was found out.
            scope.update({**asked, "method": "HEAD"})  # type: ignore[typeddict-item]

    return middleware


# Open to everyone --------------------------------------------------------------------------------


@get("/health", summary="The process is up")
async def health() -> dict[str, str]:
    """Answer while the process lives."""
    return {"status": "ok"}


@get(
    ["/v1/api/ping", "/v1/worker/ping", "/v1/apidoc/ping"],
    summary="The process is up, at the addresses older clients know",
)
async def ping() -> dict[str, str]:
    """Answer while the process lives."""
    return {"status": "ok"}


@get(
    "/ready",
    summary="Database reachable, schema current, engine beating",
    responses={503: ResponseSpec(None, description=Unavailable.__doc__ or "")},
)
async def ready(state: State) -> dict[str, str]:
    """Answer 200 where work is being done, else 503 with the reason."""
    engine: Engine = state.engine
    if not engine.membership.fresh:
        raise Unavailable("the engine does not beat: the database has not answered for 8 s")
    async with engine.database.api.connect() as conn:
        status = await conn.run_sync(migrate.status_on)
    if not status.fits:
        raise Unavailable(f"the schema is at {status.current}, not at {status.head}")
    for who, why in engine.dispatcher.halted.items():
        if who != "pause":  # which somebody asked for
            raise Unavailable(why)
    return {"status": "ready"} | ({"paused": engine.paused} if engine.paused else {})


@get("/metrics", media_type=MediaType.TEXT, summary="Prometheus metrics", security=openapi.METRICS)
async def show_metrics(request: AnyRequest, state: State) -> Response[bytes]:
    """Return the metrics; with `metrics.token` set only to who sends it as a Bearer token."""
    settings: Settings = state.settings
    token = settings.metrics.token
    sent = request.headers.get("authorization", "").encode()
    if token and not hmac.compare_digest(sent, f"Bearer {token}".encode()):
        raise BearerWanted("send Authorization: Bearer with metrics.token")
    # The framework names the charset by itself.
    kind = CONTENT_TYPE_LATEST.removesuffix("; charset=utf-8")
    return Response(generate_latest(metrics.REGISTRY), media_type=kind)


# The document ------------------------------------------------------------------------------------


@asynccontextmanager
async def _nothing(_: Litestar) -> AsyncIterator[None]:
    yield


def document() -> dict[str, Any]:
    """Return the OpenAPI document, as `/docs/openapi.json` answers it."""
    return _application(Settings(), _nothing).openapi_schema.to_schema()


if __name__ == "__main__":  # make openapi
    Path("docs/openapi.json").write_text(json.dumps(document(), indent=2) + "\n")
    Path("docs/openapi.yml").write_text(yaml.safe_dump(document(), sort_keys=False))

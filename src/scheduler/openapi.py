"""The OpenAPI document: what the framework makes of the handlers, and what all routes share.

What everything means, with examples, is in `described/`; here it is put where it belongs.

The answers that are no success follow from what an operation is (has it credentials, a body, an
id in its address?), so that a new route has them without being named here. What a handler reads
of the query or the body by hand it says itself, with `operation_class=asks(...)`, so that a body
is read once, and strictly.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.spec import (
    OpenAPI,
    OpenAPIMediaType,
    OpenAPIType,
    Operation,
    Parameter,
    Reference,
    RequestBody,
    Schema,
)

from scheduler.described import fields, routes
from scheduler.errors import (
    Conflict,
    Forbidden,
    MethodNotAllowed,
    NotFound,
    PayloadTooLarge,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    UserError,
    ValidationFailed,
)

Json = dict[str, Any]

SERVICE: list[dict[str, list[str]]] = [{"service_id": [], "token": []}, {"basic": []}]
"""Of routes that act for a service."""
ADMIN: list[dict[str, list[str]]] = [{"admin": []}]
"""Of routes that want `admin.token`."""
METRICS: list[dict[str, list[str]]] = [{}, {"metrics": []}]

SCHEMES: Json = {
    "service_id": {
        "type": "apiKey",
        "in": "header",
        "name": "service_id",
        "description": "The service's id or name; also taken as service-id and x-service-id.",
    },
    "token": {
        "type": "apiKey",
        "in": "header",
        "name": "token",
        "description": "The service's token; also taken as x-token.",
    },
    "basic": {"type": "http", "scheme": "basic", "description": "The same pair."},
    "admin": {"type": "http", "scheme": "bearer", "description": "The setting admin.token."},
    "metrics": {
        "type": "http",
        "scheme": "bearer",
        "description": "The setting metrics.token, where it is set.",
    },
}
SCHEMA = "#/components/schemas/"
BODIES: dict[str, type[msgspec.Struct]] = {}
"""What handlers read by hand, by name; each says so with `asks`."""
METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
ERROR: Json = {
    "type": "object",
    "description": "The one shape in which a request is refused.",
    "required": ["error"],
    "additionalProperties": False,
    "properties": {
        "error": {
            "type": "object",
            "description": "Why it was refused.",
            "examples": [{"code": "not_found", "message": "there is no task report"}],
            "required": ["code", "message"],
            "additionalProperties": False,
            "properties": {
                "code": {
                    "type": "string",
                    "description": "A word for the kind of refusal.",
                    "examples": ["not_found"],
                },
                "message": {
                    "type": "string",
                    "description": "What is wrong, and what would be right.",
                    "examples": ["there is no task report"],
                },
                "details": {
                    "type": "array",
                    "description": "Of validation_failed alone: every wrong field.",
                    "examples": [[{"field": "frequency", "message": "must be at least 1"}]],
                    "items": {
                        "type": "object",
                        "required": ["field", "message"],
                        "additionalProperties": False,
                        "properties": {
                            "field": {
                                "type": "string",
                                "description": "Its name, with a path where it lies deeper.",
                                "examples": ["frequency"],
                            },
                            "message": {
                                "type": "string",
                                "description": "What is wrong with it, and what would be right.",
                                "examples": ["must be at least 1"],
                            },
                        },
                    },
                },
            },
        }
    },
}
TRACE = {
    "description": "The name of this request in the logs.",
    "required": True,
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9]{16}$"},
}
RETRY_AFTER = {
    "description": "Seconds after which to try again.",
    "required": True,
    "schema": {"type": "string", "pattern": "^[0-9]+$"},
}
ALLOW = {
    "description": "The methods that the address takes.",
    "required": True,
    "schema": {"type": "string"},
}
CHALLENGE = {
    "description": "How to sign in.",
    "required": True,
    "schema": {"type": "string"},
}
HEADERS: dict[int, Json] = {
    401: {"WWW-Authenticate": CHALLENGE},
    405: {"Allow": ALLOW},
    429: {"Retry-After": RETRY_AFTER},
    503: {"Retry-After": RETRY_AFTER},
}
REFUSALS: tuple[type[UserError], ...] = (
    ValidationFailed,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    Conflict,
    PayloadTooLarge,
    TooManyRequests,
    Unavailable,
)


# What a handler says of itself -------------------------------------------------------------------


def asks(
    body: type[msgspec.Struct] | None = None, *, needed: bool = True, **parameters: Schema
) -> type[Operation]:
    """Return the operation class of a handler that reads a body, and these of the query, by hand.

    A keyword that Python has taken is written with an underscore behind: `from_`.
    """
    if body is not None:
        BODIES[body.__name__] = body
    made = [
        Parameter(name=name.rstrip("_"), param_in="query", schema=schema, required=False)
        for name, schema in parameters.items()
    ]

    @dataclass
    class Asking(Operation):
        def __post_init__(self) -> None:
            self.parameters = [*(self.parameters or []), *made] or None
            if body is not None:
                sent = OpenAPIMediaType(schema=Reference(ref=SCHEMA + body.__name__))
                self.request_body = RequestBody({"application/json": sent}, required=needed)

    return Asking


def whole(least: int, most: int) -> Schema:
    """Return the schema of a whole number."""
    return Schema(type=OpenAPIType.INTEGER, minimum=least, maximum=most)


# The document ------------------------------------------------------------------------------------


class Document(OpenAPI):
    """The framework's document, completed when it is first asked for."""

    def to_schema(self) -> Json:
        """Return the document as it is served; the same for the same code, to the byte."""
        made: Json = msgspec.json.decode(msgspec.json.encode(completed(super().to_schema())))
        return made  # no part of it is another's: as YAML that would be aliases, which few read


class Config(OpenAPIConfig):
    """The framework's settings, with our document."""

    def to_openapi_schema(self) -> OpenAPI:
        """Return the document that the framework fills."""
        made = super().to_openapi_schema()
        made.__class__ = Document
        return made


def completed(document: Json) -> Json:
    """Add to a document what all routes share, and put it in order."""
    schemas = document["components"].setdefault("schemas", {})
    schemas |= msgspec.json.schema_components(BODIES.values(), ref_template=SCHEMA + "{name}")[1]
    for name, schema in schemas.items():
        _explain(name, schema)
    schemas["Error"] = ERROR
    document["info"]["description"] = routes.ABOUT
    document["servers"] = routes.SERVERS
    document["tags"] = [{"name": k, "description": v} for k, v in routes.TAGS.items()]
    document["components"] = {
        "schemas": dict(sorted(schemas.items())),
        "responses": dict(sorted(_refusals())),
        "headers": {"X-Trace-Id": TRACE},
        "securitySchemes": SCHEMES,
    }
    for path, method, operation in operations(document):
        _complete(path, method, operation)
        _illustrate(path, operation)
    document["paths"] = {
        path: {method: item[method] for method in METHODS if method in item}
        for path, item in sorted(document["paths"].items())
    }
    return document


def operations(document: Json) -> Iterator[tuple[str, str, Json]]:
    """Yield the address, the method and the operation of each that a document names."""
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                yield path, method, item[method]


def _refusals() -> Iterator[tuple[str, Json]]:
    for error in REFUSALS:
        said = (error.__doc__ or "").split("\n")[0]
        yield str(error.status), _refusal(error.status, error.code, said)
    yield "500", _refusal(500, "internal_error", "Something went wrong here; the log knows more.")


def _refusal(status: int, code: str, said: str) -> Json:
    error: Json = {"code": code, "message": said}
    if status == 400:
        error["details"] = [{"field": "frequency", "message": "must be at least 1"}]
        error["message"] = "frequency: must be at least 1"
    content = {"schema": {"$ref": "#/components/schemas/Error"}, "example": {"error": error}}
    return {
        "description": said,
        "headers": {"X-Trace-Id": TRACE, **HEADERS.get(status, {})},
        "content": {"application/json": content},
    }


def _complete(path: str, method: str, operation: Json) -> None:
    own = operation["responses"]
    refused = {
        str(status): {"$ref": f"#/components/responses/{status}"}
        for status in statuses(path, method, operation)
    }
    answers = {status: answer for status, answer in own.items() if status < "400"}
    answers.get("204", {}).pop("content", None)  # it has none
    for answer in answers.values():
        trace = {"X-Trace-Id": {"$ref": "#/components/headers/X-Trace-Id"}}
        answer["headers"] = {**answer.get("headers", {}), **trace}
    operation["responses"] = dict(sorted({**answers, **refused}.items()))


def statuses(path: str, method: str, operation: Json) -> set[int]:
    """Return the statuses with which an operation may refuse, by what it is."""
    security, changes = operation.get("security", []), method not in ("get", "head")
    made = {400, 500}  # 400 also of what is no HTTP
    if "requestBody" in operation:
        made.add(413)
    if security:
        made.add(401)
    if security == ADMIN:
        made.add(403)
    if security in (SERVICE, ADMIN) or "503" in operation["responses"]:
        made.add(503)
    if "409" in operation["responses"]:
        made.add(409)
    if security == SERVICE and changes:
        made |= {409} if method == "delete" else {409, 429}
        if path.startswith("/tasks") and method != "delete":
            made.add(403)  # a command that its service may not run
    if security == ADMIN and changes:
        made.add(409)
    if "{" in path:  # the id may be a word that is a route, which has methods of its own
        made |= {404, 405}
    return made


# Words and examples ------------------------------------------------------------------------------

BOUNDS = {
    "minimum": ("integer", "number"),
    "maximum": ("integer", "number"),
    "minLength": ("string",),
    "maxLength": ("string",),
    "maxItems": ("array",),
    "enum": ("string",),
    "format": ("string",),
    "additionalProperties": ("object",),
}
"""Of which types a bound can be; where a field may be null, it is one of those besides."""


def _explain(name: str, schema: Json) -> None:
    """Add to a schema and its fields what they mean."""
    if name in fields.SCHEMAS:
        schema["description"] = fields.SCHEMAS[name]
    for field in fields.TIMES.get(name, ()):
        _time(schema["properties"][field])
    for field, own in schema.get("properties", {}).items():
        for key, value in (fields.of(name, field) or {}).items():
            _add(own, key, value)


def _time(schema: Json) -> None:
    """Say of a time that is sent that it is one, or the empty text for none."""
    time = {"type": "string", "format": "date-time"}
    schema["anyOf"] = [time, {"type": "string", "const": ""}, {"type": "null"}]


def _add(schema: Json, key: str, value: Any) -> None:
    if key not in BOUNDS:
        schema[key] = value
        return
    for branch in schema.get("anyOf") or schema.get("oneOf") or [schema]:
        if branch.get("type") in BOUNDS[key]:
            branch[key] = value


def _illustrate(path: str, operation: Json) -> None:
    """Add to an operation its group, what its parameters mean, and examples."""
    name = operation["operationId"]
    operation["tags"] = [routes.tag(path)]
    for parameter in operation.get("parameters", []):
        found = routes.parameter(name, parameter["name"])
        if found is not None:
            parameter.setdefault("description", parameter["schema"].pop("description", found[0]))
            parameter["example"] = found[1]
    sent = routes.of(routes.SENT, name)
    for kind, media in operation.get("requestBody", {}).get("content", {}).items():
        if sent is not None:
            media["example"] = routes.lines(sent) if "ndjson" in kind else sent
    for status, example in (routes.of(routes.ANSWERED, name) or {}).items():
        for media in operation["responses"][status].get("content", {}).values():
            media["example"] = example

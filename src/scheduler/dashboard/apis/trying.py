"""Trying an operation of a registered API: a form made of its document, which makes a process."""

import re
import secrets
from collections import defaultdict
from typing import Any
from urllib.parse import quote

import msgspec
from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath

from scheduler.actions import Operation
from scheduler.dashboard import door, page, sent
from scheduler.dashboard.apis.apis import found_spec
from scheduler.dashboard.door import Visitor
from scheduler.dashboard.sent import Sent
from scheduler.documents.messages import Field, Form
from scheduler.engine import Engine
from scheduler.errors import Detail, NotFound, UserError, ValidationFailed
from scheduler.processes import body, creating
from scheduler.specs import model
from scheduler.specs.model import Called, Stored
from scheduler.specs.performer import OperationPerformer

BESIDE = 64 << 10
GROWTH = 3
"""How many times as long a value may be in the form: `%20`."""
ROWS = 2
TIMEOUT_S = 60
"""Whoever tries something does not wait for an hour."""
PLACES = {"path": "url_params", "query": "query_params", "header": "headers", "body": "req_body"}
"""The fields of a process; what is in a cookie is looked for among those of the query."""

AnyRequest = Request[Any, Any, Any]
Who = NamedDependency[Visitor]
Machine = NamedDependency[Engine]
Calls = NamedDependency[OperationPerformer]


class Operated(msgspec.Struct, frozen=True):
    """An operation of a spec, and the form for it."""

    spec: Stored
    called: Called
    form: Form
    method: str
    path: str


class Typed(msgspec.Struct):
    """What stands in the form."""

    values: dict[str, str]
    """By `place:name`."""
    raw: bool
    """The body is the text, and not made of its fields."""
    body: str
    headers: list[tuple[str, str]]
    url: str


def key(field: Field) -> str:
    """Return what a field is called in the form: its name may be any text."""
    return f"{field.place}:{quote(field.name, safe='')}"


async def _operated(
    request: AnyRequest, trace_id: str, visitor: Visitor, engine: Engine,
    operations: OperationPerformer,
) -> Operated:  # fmt: skip
    """Return the operation that an address names. Raises NotFound and Unavailable."""
    endpoint = request.query_params.get("endpoint", "")
    service_id = visitor.service.id
    async with engine.database.api.connect() as conn:
        spec = await found_spec(conn, service_id, trace_id)
        called = await model.called(conn, engine.database.vault, service_id, spec.name, endpoint)
    if called is None or called.operation is None:
        raise NotFound(f"the spec {spec.name} serves no {endpoint[:200] or 'such endpoint'}")
    form = await operations.form(service_id, called)
    method, _, path = called.operation.endpoint.partition(" ")
    return Operated(spec, called, form, method, path)


@get("/dashboard/apis/{trace_id:str}/try", include_in_schema=False)
async def show_try(
    trace_id: FromPath[str], request: AnyRequest, visitor: Who, engine: Machine, operations: Calls
) -> Response[Any]:
    """Return the form for an operation, filled in with what the document gives as examples."""
    found = await _operated(request, trace_id, visitor, engine, operations)
    values = {key(each): each.sample for each in found.form.fields}
    fields = any(each.place == "body" for each in found.form.fields)
    typed = Typed(values, not fields, found.form.body or "", [], "")
    return await _page(visitor, found, typed)


async def _page(
    visitor: Visitor, found: Operated, typed: Typed, refused: UserError | None = None
) -> Response[Any]:
    wrong = {each.field: each.message for each in refused.details or ()} if refused else {}
    named = {key(each) for each in found.form.fields} | {"req_body", "url"}
    return await page.large(
        "api_try.html",
        status=refused.status if refused else 200,
        visitor=visitor,
        found=found,
        operation=found.called.operation,
        typed=typed,
        rows=[*typed.headers, *([("", "")] * ROWS)],
        places=[
            (title, [each for each in found.form.fields if each.place == place])
            for place, title in (
                ("path", "In the path"), ("query", "In the query"), ("header", "As headers"),
                ("cookie", "As cookies"),
            )
        ],
        parts=[each for each in found.form.fields if each.place == "body"],
        key=key,
        wrong=defaultdict(str, wrong),
        nonce=secrets.token_hex(16),
        others=[f"{name}: {said}" for name, said in wrong.items() if name not in named],
        said="" if refused is None or wrong else refused.message,
        at=f"/dashboard/apis/{found.spec.trace_id}",
    )  # fmt: skip


@post(
    "/dashboard/apis/{trace_id:str}/try",
    status_code=200,
    include_in_schema=False,
    request_max_body_size=None,
)
async def try_operation(
    trace_id: FromPath[str],
    request: AnyRequest,
    state: State,
    visitor: Who,
    engine: Machine,
    operations: Calls,
) -> Response[Any]:
    """Make a process of the form; then its page, where its answer appears."""
    most = engine.settings.processes.body_max_bytes
    form = await sent.own(
        request, state, visitor, most * GROWTH + BESIDE, "processes.body_max_bytes", again=True
    )
    found = await _operated(request, trace_id, visitor, engine, operations)
    typed = _typed(form, found.form)
    if form.again:
        return await _page(door.told(visitor), found, typed)
    try:
        made = body_of(found, typed)
        await _check(engine, visitor, found, operations, made)
        trace = await creating.create(engine, visitor.service, made, form.one("nonce") or None)
    except UserError as e:
        if e.status not in (400, 409, 413, 429):
            raise
        return await _page(visitor, found, typed, e)
    return page.leading(f"/dashboard/processes/{trace}")


async def _check(
    engine: Engine, visitor: Visitor, found: Operated, operations: OperationPerformer, made: bytes
) -> None:
    """See that a call fits the document, before there is a process. Raises ValidationFailed."""
    most = engine.settings.processes.body_max_bytes
    of = body.read(made, visitor.service.id, "", engine.clock.now_ms(), most)
    action = Operation(
        service=of.service,
        endpoint=of.endpoint,
        method=of.method,
        headers=of.headers,
        query_params=of.query_params,
        url_params=of.url_params,
        req_body=of.req_body,
        url=of.url,
    )
    wrong = await operations.misfits(visitor.service.id, action, found.called)
    if wrong:
        raise ValidationFailed.all([Detail(_about(found.form, *each), each[1]) for each in wrong])


def _about(form: Form, field: str, finding: str) -> str:
    """Return the field of the form that a finding is about: it begins with its name."""
    in_body = field == "req_body"
    said = finding.removeprefix("req_body.") if in_body else finding
    named = [
        each
        for each in form.fields
        if (each.place == "body") == in_body and re.match(rf"{re.escape(each.name)}(?!\w)", said)
    ]
    return key(max(named, key=lambda each: len(each.name))) if named else field


def _typed(form: Sent, of: Form) -> Typed:
    pairs = zip(form.all("header_name"), form.all("header_value"), strict=False)
    return Typed(
        values={key(each): form.one(key(each)) for each in of.fields},
        raw=form.one("body_as") != "fields",
        body=form.one("body"),
        headers=[(name.strip(), value) for name, value in pairs if name.strip()],
        url=form.one("url").strip(),
    )


def body_of(found: Operated, typed: Typed) -> bytes:
    """Return what the API would be sent for a form. Raises ValidationFailed."""
    wrong = list[Detail]()
    sent: dict[str, dict[str, Any]] = {place: {} for place in PLACES.values()}
    for each in found.form.fields:
        text = typed.values[key(each)]
        place = PLACES.get(each.place, "query_params")
        if not text.strip():
            if each.required and not (each.place == "body" and typed.raw):
                wrong.append(Detail(key(each), "is required: fill it in"))
            continue
        try:
            sent[place][each.name] = _value(each, text)
        except ValueError as e:
            if not (each.place == "body" and typed.raw):
                wrong.append(Detail(key(each), str(e)))
    given = _body(found.form, typed, sent.pop("req_body"), wrong)
    if wrong:
        raise ValidationFailed.all(wrong)
    process = {
        "service": found.spec.name,
        "method": found.method,
        "endpoint": found.path,
        "timeout_seconds": TIMEOUT_S,
        "cache": False,
        **{name: values for name, values in sent.items() if values},
        "headers": {**sent["headers"], **dict(typed.headers)},
    }
    if typed.url:
        process["url"] = typed.url
    if given is not None:
        process["req_body"] = given
    return msgspec.json.encode(process)


def _body(form: Form, typed: Typed, made: dict[str, Any], wrong: list[Detail]) -> Any:
    if form.body is None:
        return None
    if not typed.raw:
        return made or None if not form.body_required else made
    if not typed.body.strip():
        if form.body_required:
            wrong.append(Detail("req_body", "is required: write it as JSON"))
        return None
    try:
        msgspec.json.decode(typed.body)
    except (msgspec.DecodeError, RecursionError) as e:
        wrong.append(Detail("req_body", f'must be JSON, like {{"name": "value"}} or "text": {e}'))
        return None
    return msgspec.Raw(typed.body.encode())


def _value(field: Field, text: str) -> Any:
    """Return the JSON of what was typed. Raises ValueError that says what would be right."""
    if field.long:
        like = '["a", "b"]' if field.kind == "array" else '{"name": "value"}'
        try:
            msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError):
            raise ValueError(f"must be JSON, like {like}") from None
        return msgspec.Raw(text.encode())
    if field.place != "body" or field.kind in ("string", None):
        return _loose(field, text)
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError:
        value = None
    if field.kind == "boolean" and not isinstance(value, bool):
        raise ValueError("must be true or false")
    if field.kind in ("integer", "number") and type(value) not in (int, float):
        raise ValueError("must be a number, like 12")
    return msgspec.Raw(text.strip().encode())


def _loose(field: Field, text: str) -> Any:
    """Return a text; in a body what may be anything is JSON where it reads as such."""
    if field.place != "body" or field.kind == "string":
        return text
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text
    return msgspec.Raw(text.encode())


HANDLERS = [show_try, try_operation]

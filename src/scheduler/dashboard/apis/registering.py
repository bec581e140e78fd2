"""Registering an API by a form: a document from a file or pasted, what is sent with each call,
changes to it, and its end.
"""

import base64
from collections import defaultdict
from typing import Any
from urllib.parse import quote

import msgspec
from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath
from msgspec import UNSET

from scheduler import dependents
from scheduler.dashboard import door, page, sent
from scheduler.dashboard.apis.apis import CALLERS, found_spec
from scheduler.dashboard.door import Visitor
from scheduler.dashboard.sent import Sent
from scheduler.engine import Engine
from scheduler.errors import Detail, UserError
from scheduler.masking import MASK
from scheduler.specs import api
from scheduler.specs.shown import SpecFields
from scheduler.tasks.impact import START

ROWS = 3
"""Rows for headers that are there to be filled in."""
BESIDE = 64 << 10
"""Bytes of a form beside its document."""
GROWTH = 3
"""How many times as long a document may be as a form that is not multipart has it: `%20`."""
SHOWN_MOST = 512 << 10
"""Characters of a document that are shown again, where something else was wrong."""

AnyRequest = Request[Any, Any, Any]
Who = NamedDependency[Visitor]
Machine = NamedDependency[Engine]
Headers = list[tuple[str, str]]


class Typed(msgspec.Struct):
    """What stands in the form."""

    name: str = ""
    url: str = ""
    headers: Headers = []
    text: str = ""
    """The document, pasted."""

    @property
    def rows(self) -> Headers:
        """The rows for headers, some of them empty."""
        return [*self.headers, *([("", "")] * ROWS)]


@get("/dashboard/apis/new", include_in_schema=False)
async def show_new_api(visitor: Who, engine: Machine) -> Response[Any]:
    """Return the form for a document."""
    return _form(visitor, engine, Typed())


def _form(
    visitor: Visitor,
    engine: Engine,
    typed: Typed,
    *,
    trace_id: str | None = None,
    refused: UserError | None = None,
) -> Response[Any]:
    wrong = defaultdict[str, str](str)
    for each in refused.details or () if refused else ():
        wrong.setdefault(each.field.partition(".")[0], _said(each))
    return page.answer(
        "api_form.html",
        status=refused.status if refused else 200,
        visitor=visitor,
        typed=typed,
        trace_id=trace_id,
        wrong=wrong,
        said="" if refused is None or wrong else refused.message,
        most=engine.settings.specs.max_bytes,
    )


def _said(of: Detail) -> str:
    named = of.field.partition(".")[2]
    return f"{named}: {of.message}" if named else of.message


def _typed(form: Sent) -> Typed:
    names, values = form.all("header_name"), form.all("header_value")
    pairs = zip(names, values, strict=False)
    return Typed(
        name=form.one("name").strip(),
        url=form.one("url").strip(),
        headers=[(name.strip(), value) for name, value in pairs if name.strip() or value],
        text=form.one("spec"),
    )


def _fields(typed: Typed, form: Sent) -> SpecFields:
    """Return what the API is sent for a form; a file wins over what is pasted."""
    source = form.files.get("file") or typed.text.encode()
    if "file" in form.files:
        text = source.decode(errors="replace")
        typed.text = text if len(text) <= SHOWN_MOST else ""
    return SpecFields(
        name=typed.name,
        headers=dict(typed.headers),
        url=typed.url or None,
        spec=base64.b64encode(source).decode() if source.strip() else UNSET,
    )


async def _read(request: AnyRequest, state: State, visitor: Visitor, engine: Engine) -> Sent:
    most = engine.settings.specs.max_bytes * GROWTH + BESIDE
    return await sent.own(request, state, visitor, most, "specs.max_bytes", again=True)


@post("/dashboard/apis/new", status_code=200, include_in_schema=False, request_max_body_size=None)
async def register_api(
    request: AnyRequest, state: State, visitor: Who, engine: Machine
) -> Response[Any]:
    """Register a document; then its page, where it is seen getting on."""
    form = await _read(request, state, visitor, engine)
    typed = _typed(form)
    if form.again:
        return _form(door.told(visitor), engine, typed)
    try:
        fields = _fields(typed, form)
        trace_id = await api.register(engine, state.rooms.aides, visitor.service, fields)
    except UserError as e:
        return _form(visitor, engine, typed, refused=e)
    return page.leading(f"/dashboard/apis/{trace_id}?done=new")


@get("/dashboard/apis/{trace_id:str}/edit", include_in_schema=False)
async def show_api_form(trace_id: FromPath[str], visitor: Who, engine: Machine) -> Response[Any]:
    """Return the form for changes; a header that is left masked stays as it is."""
    async with engine.database.api.connect() as conn:
        of = await found_spec(conn, visitor.service.id, trace_id)
    typed = Typed(of.name, of.url or "", [(name, MASK) for name in of.headers])
    return _form(visitor, engine, typed, trace_id=of.trace_id)


@post(
    "/dashboard/apis/{trace_id:str}/edit",
    status_code=200,
    include_in_schema=False,
    request_max_body_size=None,
)
async def change_api(
    trace_id: FromPath[str], request: AnyRequest, state: State, visitor: Who, engine: Machine
) -> Response[Any]:
    """Change a spec; without another document it goes on with the one it has."""
    form = await _read(request, state, visitor, engine)
    typed = _typed(form)
    if form.again:
        return _form(door.told(visitor), engine, typed, trace_id=trace_id)
    try:
        fields = _fields(typed, form)
        await api.change(engine, state.rooms.aides, visitor.service, trace_id, fields)
    except UserError as e:
        return _form(visitor, engine, typed, trace_id=trace_id, refused=e)
    return page.leading(f"/dashboard/apis/{quote(trace_id, safe='')}?done=edit")


# Its end -----------------------------------------------------------------------------------------


@get("/dashboard/apis/{trace_id:str}/archive", include_in_schema=False)
async def ask_to_archive(trace_id: FromPath[str], visitor: Who, engine: Machine) -> Response[Any]:
    """Ask whether a spec is to go, and say what calls it."""
    async with engine.database.api.connect() as conn:
        of = await found_spec(conn, visitor.service.id, trace_id)
        calling = await dependents.calling(conn, visitor.service.id, of.name, START, CALLERS + 1)
    return page.answer("api_archive.html", visitor=visitor, of=of, calling=calling, most=CALLERS)


@post("/dashboard/apis/{trace_id:str}/archive", status_code=200, include_in_schema=False)
async def archive_api(
    trace_id: FromPath[str], request: AnyRequest, state: State, visitor: Who, engine: Machine
) -> Response[Any]:
    """Move a spec to the archive; then the list."""
    await sent.own(request, state, visitor, BESIDE, "a form")
    await api.archive(engine, visitor.service, trace_id)
    return page.leading("/dashboard/apis?done=archive")


HANDLERS = [show_new_api, register_api, show_api_form, change_api, ask_to_archive, archive_api]

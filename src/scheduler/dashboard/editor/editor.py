"""New and edit: one form for every trigger and every action of a task."""

import asyncio
import re
from typing import Any
from urllib.parse import quote

import msgspec
from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath

from scheduler import task
from scheduler.dashboard import door, once, page, posted, typed
from scheduler.dashboard.door import Visitor
from scheduler.dashboard.editor import curl, fields, filling, previewing, sheet
from scheduler.dashboard.editor.copies import show_copies
from scheduler.dashboard.editor.fields import Draft, Row
from scheduler.dashboard.editor.sheet import Difference, Sheet
from scheduler.dashboard.editor.trial import tried
from scheduler.dashboard.editor.trials import Trials
from scheduler.dashboard.posted import Posted
from scheduler.definition import Definition
from scheduler.engine import Engine
from scheduler.errors import Conflict, UserError, ValidationFailed
from scheduler.masking import MASK
from scheduler.specs import listing
from scheduler.specs.model import fold
from scheduler.tasks import model, written

NEW = "/dashboard/new"
DROP = re.compile(r"drop-(header|variable)-(\d{1,3})")
MASKED = "Masked values are no values: type them anew."

AnyRequest = Request[Any, Any, Any]
Who = NamedDependency[Visitor]
Machine = NamedDependency[Engine]


# Opening it --------------------------------------------------------------------------------------


@get(NEW, include_in_schema=False)
async def show_new(request: AnyRequest, visitor: Who, engine: Machine) -> Response[Any]:
    """Return the form of a new task: empty, like `from` (a task), or of a `curl` command.

    Or with the operation of a `service` that is at `endpoint` with `method`.
    """
    asked = request.query_params
    zone = typed.readers_zone(request)
    made = Sheet(draft=filling.blank(zone))
    if asked.get("service"):
        endpoint = f"{asked.get('method', 'GET')} {asked.get('endpoint', '')}".strip()
        made.draft.values |= {"action": "operation", "service": asked["service"]}
        made.draft.values["endpoint"] = endpoint
    if asked.get("from"):
        await _duplicate(engine, visitor, made, asked["from"], zone)
    if asked.get("curl"):
        await _paste(made, asked["curl"])
    return await sheet.answer(engine, visitor, made)


async def _duplicate(
    engine: Engine, visitor: Visitor, made: Sheet, task_id: str, zone: str
) -> None:
    async with engine.database.api.connect() as conn:
        of = await task.get(conn, visitor.service.id, task_id)
    made.draft = filling.of_task(of, engine.clock.now_ms())
    values = made.draft.values
    values |= {"id": "", "status": "active", "paused_until": ""}
    values["name"] = f"{values['name'][:193]}, copy"
    if values["times_in"] == "UTC" and not any(values[name] for name in fields.TIMES):
        values["times_in"] = zone
    for row in (*made.draft.headers, *made.draft.env):
        if row.value == MASK:
            row.value = ""
            made.notes.append(f"The value of {row.name} is secret and was not copied: type it in.")
    made.coming = await previewing.previewed(engine, visitor.service, made.draft, of, ())
    for name, size in filling.long_ones(of).items():
        made.notes.append(f"{name} has {size:,} characters, too many for this form: left out.")


@get("/dashboard/tasks/{task_id:str}/edit", include_in_schema=False)
async def show_edit(task_id: FromPath[str], visitor: Who, engine: Machine) -> Response[Any]:
    """Return the form of a task as it stands."""
    made = await _opened(engine, visitor, task_id)
    await _preview(engine, visitor, made, quiet=True)
    return await sheet.answer(engine, visitor, made)


async def _opened(engine: Engine, visitor: Visitor, task_id: str) -> Sheet:
    async with engine.database.api.connect() as conn:
        of = await task.get(conn, visitor.service.id, task_id)
    draft = filling.of_task(of, engine.clock.now_ms())
    return Sheet(draft=draft, before=of, was=draft.stamps(), kept=filling.long_ones(of))


# What is sent ------------------------------------------------------------------------------------


@post(NEW, status_code=200, request_max_body_size=posted.MOST, include_in_schema=False)
async def send_new(
    request: AnyRequest, state: State, visitor: Who, engine: Machine
) -> Response[Any]:
    """Create the task that the form describes, or change the form itself; then its page."""
    sent = await posted.posted(request, state, visitor)
    made = _sheet(sent, typed.readers_zone(request))
    if not await _reshaped(made, sent):
        try:
            return await _created(engine, visitor, made, sent.one(once.FIELD))
        except UserError as e:
            return await _refused(engine, visitor, made, e)
    return await sheet.answer(engine, visitor, made)


async def _created(engine: Engine, visitor: Visitor, made: Sheet, mark: str) -> Response[Any]:
    """Create the task of a form; where no id was typed, one however often the form is sent."""
    body = await _body(engine, visitor, made)
    marked = bool(mark) and "id" not in body
    if marked:  # with other fields, on the page that the browser went back to, it is another
        what = f"task {msgspec.json.encode(body).decode()}"
        body["id"] = str(once.identity(visitor, {once.FIELD: mark}, what))
    read = model.read_fields(msgspec.json.encode(body))
    try:
        task_id = (await written.created(engine, visitor.service, read)).of.id
    except Conflict:
        task_id = body.get("id", "")
        async with engine.database.api.connect() as conn:
            if not marked or await task.find(conn, visitor.service.id, task_id) is None:
                raise
    return page.leading(f"/dashboard/tasks/{quote(task_id, safe='')}?done=created")


@post(
    "/dashboard/tasks/{task_id:str}/edit",
    status_code=200,
    request_max_body_size=posted.MOST,
    include_in_schema=False,
)
async def send_edit(
    task_id: FromPath[str], request: AnyRequest, state: State, visitor: Who, engine: Machine
) -> Response[Any]:
    """Change what was changed in the form; where someone else did meanwhile, show both."""
    sent = await posted.posted(request, state, visitor)
    made = await _edited(engine, visitor, sent, task_id)
    if not await _reshaped(made, sent):
        if made.differences:
            return await _refused(engine, visitor, made, Conflict(CHANGED))
        try:
            await _save(engine, visitor, made)
            return page.leading(f"/dashboard/tasks/{quote(task_id, safe='')}?done=edited")
        except UserError as e:
            return await _refused(engine, visitor, made, e)
    return await sheet.answer(engine, visitor, made)


CHANGED = (
    "Someone changed this task while you did. Nothing is saved yet: look at what differs below, "
    "and save again."
)


async def _body(engine: Engine, visitor: Visitor, made: Sheet) -> dict[str, Any]:
    """Return the body to be written. Raises ValidationFailed with all that is wrong at once."""
    before, changed = made.before, None
    if before is not None:
        changed = _changed(made.draft, made.was)
    body, wrong = fields.written(made.draft, changed)
    if not wrong:
        return body
    now, service = engine.clock.now_ms(), visitor.service
    try:
        read = model.read_fields(msgspec.json.encode(body))
        if before is None:
            await written.drafted(engine, service, read, now)
        else:
            await written.redrafted(engine, service, before, read, now)
    except ValidationFailed as e:
        named = {each.field for each in wrong}
        wrong += [each for each in e.details if each.field not in named]
    raise ValidationFailed.all(wrong)


async def _save(engine: Engine, visitor: Visitor, made: Sheet) -> None:
    before = made.before
    if before is None:
        raise TypeError
    body = await _body(engine, visitor, made)
    if not body:
        return

    def check(of: Definition) -> None:
        if of.version != before.version:
            raise Conflict("someone changed this task at this very moment; save again to see what")

    read = model.read_fields(msgspec.json.encode(body))
    await written.changed(engine, visitor.service, before.id, read, check=check)


def _changed(draft: Draft, was: dict[str, str]) -> set[str]:
    return {name for name, stamp in draft.stamps().items() if was.get(name) != stamp}


def _sheet(sent: Posted, zone: str) -> Sheet:
    """Return the form that was sent; one that holds no trigger is that of another page."""
    begun = bool(sent.one("trigger"))
    return Sheet(draft=fields.read(sent) if begun else filling.blank(zone), curl=sent.one("curl"))


async def _edited(engine: Engine, visitor: Visitor, sent: Posted, task_id: str) -> Sheet:
    """Return the form that was sent of a task, with what someone else changed since."""
    made = await _opened(engine, visitor, task_id)
    stored, was = made.draft, _stamps(sent.one("was"))
    made.draft, made.curl = fields.read(sent), sent.one("curl")
    made.draft.values["id"] = stored["id"]
    theirs = {name for name, stamp in made.was.items() if was.get(name, stamp) != stamp}
    yours = _changed(made.draft, {**made.was, **was})
    now = made.draft.stamps()
    for name in sheet.ORDER:
        if name in theirs and made.was[name] != now[name]:
            mine = _told(made.draft, name) if name in yours else None
            made.differences.append(Difference(name, mine, _told(stored, name)))
            if name not in yours:
                _take(made.draft, stored, name)
    return made


def _stamps(text: str) -> dict[str, str]:
    try:
        return msgspec.json.decode(text, type=dict[str, str]) if text else {}
    except msgspec.MsgspecError:
        return {}


def _told(draft: Draft, name: str) -> str:
    if name in ("headers", "env"):
        return sheet.rows_shown(draft.headers if name == "headers" else draft.env)
    if name == "calendars":
        return ", ".join(draft.calendars)
    return draft[name]


def _take(draft: Draft, stored: Draft, name: str) -> None:
    if name in ("headers", "env", "calendars"):
        setattr(draft, name, getattr(stored, name))
    else:
        draft.values[name] = stored.values[name]


async def _reshaped(made: Sheet, sent: Posted) -> bool:
    """Do what a button asks of the form itself; False where it is to be saved."""
    asked, draft = sent.one("do"), made.draft
    if sent.again:
        made.notes.append(door.SHOWN)
        return True
    dropped = DROP.fullmatch(asked)
    if asked == "add-header":
        draft.headers.append(Row())
    elif asked == "add-variable":
        draft.env.append(Row())
    elif dropped:
        rows = draft.headers if dropped[1] == "header" else draft.env
        del rows[int(dropped[2]) : int(dropped[2]) + 1]
    elif asked == "paste":
        await _paste(made, sent.one("curl"))
    else:
        return asked == "show"
    return True


async def _paste(made: Sheet, text: str) -> None:
    """Fill the form in from a curl command; what it says else is said, and the text stays."""
    found = await asyncio.to_thread(curl.parse, text)
    made.curl, made.notes = text, made.notes + found.notes
    if found.url or found.headers or found.payload:
        made.draft = filling.of_curl(made.draft, found)


async def _refused(engine: Engine, visitor: Visitor, made: Sheet, e: UserError) -> Response[Any]:
    """Return the form with what is wrong, and nothing lost of it. Raises where it is no matter of
    the form.
    """
    if e.status == 404:
        raise e
    made.wrong(e.details)
    made.said += previewing.reasons(e)
    await _preview(engine, visitor, made, quiet=True)
    return await sheet.answer(engine, visitor, made, e.status)


# Without saving ----------------------------------------------------------------------------------


async def _preview(engine: Engine, visitor: Visitor, made: Sheet, *, quiet: bool = False) -> None:
    """Put into a form when its task would be due; or, unless `quiet`, why nobody can say."""
    changed = None if made.before is None else _changed(made.draft, made.was)
    try:
        made.coming = await previewing.previewed(
            engine, visitor.service, made.draft, made.before, changed
        )
    except UserError as e:
        if not quiet:
            made.wrong(e.details)
            made.said += previewing.reasons(e)


async def _unsaved(engine: Engine, visitor: Visitor, sent: Posted, zone: str) -> Sheet:
    task_id = sent.one("task")
    return await _edited(engine, visitor, sent, task_id) if task_id else _sheet(sent, zone)


@post(
    "/dashboard/preview",
    status_code=200,
    request_max_body_size=posted.MOST,
    include_in_schema=False,
)
async def preview_form(
    request: AnyRequest, state: State, visitor: Who, engine: Machine
) -> Response[Any]:
    """Return when the task of a form would be due: a part of the page, or all of it."""
    sent = await posted.posted(request, state, visitor)
    made = await _unsaved(engine, visitor, sent, typed.readers_zone(request))
    if await _reshaped(made, sent):
        return await sheet.answer(engine, visitor, made)
    await _preview(engine, visitor, made)
    if sent.one("part"):
        return page.answer("editor_preview.html", sheet=made, now=engine.clock.now_ms())
    return await sheet.answer(engine, visitor, made, 400 if made.number else 200)


@post(
    "/dashboard/trial", status_code=200, request_max_body_size=posted.MOST, include_in_schema=False
)
async def try_form(
    request: AnyRequest,
    state: State,
    visitor: Who,
    engine: Machine,
    trials: NamedDependency[Trials],
) -> Response[Any]:
    """Make the call that a form describes, once, and show what came of it."""
    sent = await posted.posted(request, state, visitor)
    made = await _unsaved(engine, visitor, sent, typed.readers_zone(request))
    if await _reshaped(made, sent):
        return await sheet.answer(engine, visitor, made)
    status = 200
    try:
        made.trial = await tried(
            engine, state.rooms.performers, trials, visitor.service, made.draft, made.before
        )
    except UserError as e:
        status = e.status
        made.wrong(e.details)
        made.said += previewing.reasons(e)
    if sent.one("part"):
        return page.answer("editor_trial.html", sheet=made)
    await _preview(engine, visitor, made, quiet=True)
    return await sheet.answer(engine, visitor, made, status)


@get("/dashboard/new/endpoints", include_in_schema=False)
async def show_endpoints(request: AnyRequest, visitor: Who, engine: Machine) -> Response[Any]:
    """Return the endpoints of a spec to choose from, as a part of the page."""
    name = fold(request.query_params.get("service", ""))
    async with engine.database.api.connect() as conn:
        _, found = await listing.choices(conn, visitor.service.id, name, sheet.CHOICES)
    return page.answer("editor_endpoints.html", endpoints=found)


HANDLERS = (
    show_new,
    send_new,
    show_edit,
    send_edit,
    show_copies,
    preview_form,
    try_form,
    show_endpoints,
)

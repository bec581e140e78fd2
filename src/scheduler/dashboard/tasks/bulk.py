"""Acts on tasks: asked once more with their number, done in pieces, told, and undone.

An act has an id from the moment it is asked about, so that a form that is sent twice acts once.
"""

import uuid
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode
from uuid import UUID

import msgspec
from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath

from scheduler import audit, taskrows, undo
from scheduler.clock import Slice
from scheduler.dashboard import door, page
from scheduler.dashboard.door import Visitor
from scheduler.db import Conn, utc
from scheduler.engine import Engine
from scheduler.errors import Conflict, NotFound, ValidationFailed
from scheduler.service import Service
from scheduler.taskrows import Named
from scheduler.tasks import changes as told
from scheduler.tasks import choosing, listing, undoing, written
from scheduler.tasks.model import TaskFields
from scheduler.undo import Count

SHOWN = 10
"""Tasks that are named before an act."""
TOLD = 100
"""Tasks that are named after it, because something was refused."""
CHOSEN_MOST = 1000
"""Tasks that may be chosen one by one."""
PIECE = 500
FILTER = ("q", "status", "state", "trigger", "action", "tag", "sort", "page")
STATUSES = ("active", "paused", "disabled")

AnyRequest = Request[Any, Any, Any]
Who = NamedDependency[Visitor]
Machine = NamedDependency[Engine]


class Kind(msgspec.Struct, frozen=True):
    """What can be done to tasks, in words."""

    verb: str
    done: str
    undone: str
    means: str


KINDS = {
    "pause": Kind(
        "Pause", "Paused", "Active again:", "What is due meanwhile is not run, and not made up for."
    ),
    "resume": Kind("Resume", "Resumed", "", "What is due from now on is run again."),
    "run": Kind("Run", "Started", "", "Each is run once, now, beside its schedule."),
    "delete": Kind(
        "Delete",
        "Deleted",
        "Brought back",
        "What is deleted runs no more. For an hour it can be had back.",
    ),
}


class Chosen(msgspec.Struct):
    """The tasks that an act is about."""

    tasks: list[Named]
    missing: int
    """How many of those that were chosen are not there."""


# Before ------------------------------------------------------------------------------------------


@get("/dashboard/bulk/{kind:str}", include_in_schema=False)
async def ask_about_tasks(
    kind: FromPath[str], request: AnyRequest, visitor: Who, engine: Machine
) -> Response[Any]:
    """Say which tasks it is about, and ask whether that is meant."""
    return await _asking(kind, request, visitor, engine)


async def _asking(
    kind: str,
    request: AnyRequest,
    visitor: Visitor,
    engine: Engine,
    status: int = 200,
    said: str = "",
) -> Response[Any]:
    words = _kind(kind)
    found = await _chosen(request, visitor, engine)
    return page.answer(
        "bulk.html",
        status=status,
        visitor=visitor,
        kind=kind,
        words=words,
        tasks=found.tasks[:SHOWN],
        count=len(found.tasks),
        missing=found.missing,
        seen=await choosing.digest(found.tasks),
        act=uuid.uuid4(),
        at=f"/dashboard/bulk/{kind}?{urlencode(list(request.query_params.multi_items()))}",
        back=_back(request),
        said=said,
    )


def _kind(kind: str) -> Kind:
    if kind not in KINDS:
        raise NotFound("There is no such page.")
    return KINDS[kind]


async def _chosen(request: AnyRequest, visitor: Visitor, engine: Engine) -> Chosen:
    sent, service_id = request.query_params, visitor.service.id
    if sent.get("all"):
        wanted, word = listing.read_filter(sent)
        if word is not None:
            await engine.standing.flush()
        async with engine.database.api.connect() as conn:
            now = engine.clock.now_ms()
            return Chosen(await choosing.fitting(conn, service_id, wanted, word, now), 0)
    ids = list(dict.fromkeys(sent.getall("id", [])))
    if len(ids) > CHOSEN_MOST:
        raise ValidationFailed.of("id", f"at most {CHOSEN_MOST} at once; choose all that fit")
    if not ids:
        return Chosen([], 0)
    async with engine.database.api.connect() as conn:
        found = await taskrows.of_ids(conn, service_id, ids)
    return Chosen(found, len(ids) - len(found))


def _back(request: AnyRequest, **more: str) -> str:
    """Return the address of the list that the request came from."""
    sent = {name: request.query_params.get(name, "") for name in FILTER}
    return listed({name: value for name, value in sent.items() if value} | more)


def listed(query: dict[str, str]) -> str:
    """Return the address of a list of tasks."""
    return f"/dashboard/tasks?{urlencode(query)}" if query else "/dashboard/tasks"


# Doing it ----------------------------------------------------------------------------------------


@post("/dashboard/bulk/{kind:str}", status_code=200, include_in_schema=False)
async def act_on_tasks(
    kind: FromPath[str], request: AnyRequest, state: State, visitor: Who, engine: Machine
) -> Response[Any]:
    """Do it, where the tasks are still those that were counted; else ask once more."""
    fields = await door.own_form(request, state, visitor)
    _kind(kind)
    act = _uuid(fields.get("act", ""))
    if not await _begun(engine, visitor, act):
        found = await _chosen(request, visitor, engine)
        if await choosing.digest(found.tasks) == fields.get("seen"):
            await _ask(engine, visitor, act, kind, found.tasks)
        elif not await _begun(engine, visitor, act):  # the same form, sent a moment before
            said = _changed(fields.get("seen", ""), len(found.tasks))
            return await _asking(kind, request, visitor, engine, 409, said)
    await undoing.go_on(engine, _of(visitor, act), act)
    return await _leading(engine, visitor, act, _back(request), _back(request, act=str(act)))


async def _begun(engine: Engine, visitor: Visitor, act: UUID) -> bool:
    async with engine.database.api.connect() as conn:
        return await undo.count(conn, visitor.service.id, act) is not None


def _changed(seen: str, now: int) -> str:
    """Say how the tasks are others than those that were asked about, of `choosing.digest`."""
    before = seen.partition("-")[0][:6]
    if before == str(now):
        return "They are other tasks than when you were asked. Look again."
    return f"It was {before} tasks when you were asked, and is {now} now."


async def _ask(engine: Engine, visitor: Visitor, act: UUID, kind: str, tasks: list[Named]) -> None:
    turn = Slice()
    async with engine.database.api.begin() as conn:
        now = utc(engine.clock.now_ms())
        for start in range(0, len(tasks), PIECE):
            some = [(each.line, each.id, each.name) for each in tasks[start : start + PIECE]]
            await undo.ask(conn, act, kind, some, now)
            await turn.give_way()
        if len(tasks) > 1:
            await _tell(conn, visitor, kind, len(tasks), now)


async def _tell(conn: Conn, visitor: Visitor, what: str, count: int, now: datetime) -> None:
    service = visitor.service
    await audit.write(conn, service.id, service.by, [told.asked(what, count)], now)


def _of(visitor: Visitor, act: UUID) -> Service:
    """Return the service, whose changes are told as a part of an act."""
    by = msgspec.structs.replace(visitor.service.by, act=act)
    return msgspec.structs.replace(visitor.service, by=by)


async def _leading(
    engine: Engine, visitor: Visitor, act: UUID, back: str, noted: str
) -> Response[Any]:
    """Lead to the list, which notes what was done; or where not all of it was, to the whole."""
    async with engine.database.api.connect() as conn:
        count = await undo.count(conn, visitor.service.id, act)
    if count is None or not (count.of("asked") or count.of("refused") or count.stuck):
        return page.leading(noted)
    query = urlencode({"back": back})
    return page.leading(f"/dashboard/bulk/acts/{act}?{query}")


def _uuid(sent: str) -> UUID:
    try:
        return UUID(sent)
    except ValueError:
        raise ValidationFailed.of("act", "must be the id of an act, as the form has it") from None


@post("/dashboard/bulk/one", status_code=200, include_in_schema=False)
async def act_on_one(
    request: AnyRequest, state: State, visitor: Who, engine: Machine
) -> Response[Any]:
    """Run a task now, or give it another status, from its line of the list."""
    fields = await door.own_form(request, state, visitor)
    task_id, do = fields.get("id", ""), fields.get("do", "")
    if do not in ("run", *STATUSES):
        raise ValidationFailed.of("do", f"must be one of run, {', '.join(STATUSES)}")
    act = uuid.uuid5(_uuid(fields.get("nonce", "")), f"{do} {task_id}")
    path, _, query = door.ours(fields.get("back", "")).partition("?")
    back = path if path != door.HOME else "/dashboard/tasks"
    whole = f"{back}?{query}" if query else back
    if do in ("run", "paused"):
        async with engine.database.api.connect() as conn:
            found = await taskrows.of_ids(conn, visitor.service.id, [task_id])
        if not found:
            raise NotFound(f"there is no task {task_id[:100]}")
        await _ask(engine, visitor, act, "run" if do == "run" else "pause", found)
        await undoing.go_on(engine, visitor.service, act)
        joined = f"{whole}{'&' if query else '?'}act={act}"
        return await _leading(engine, visitor, act, whole, joined)
    await written.changed(engine, visitor.service, task_id, TaskFields(status=do))
    return page.leading(whole)


# After -------------------------------------------------------------------------------------------


@get("/dashboard/bulk/acts/{act:uuid}", include_in_schema=False)
async def show_act(
    act: FromPath[UUID], request: AnyRequest, visitor: Who, engine: Machine
) -> Response[Any]:
    """Tell what an act did, what was refused and why, and what is left of it."""
    service_id = visitor.service.id
    async with engine.database.api.connect() as conn:
        count = await undo.count(conn, service_id, act)
        if count is None:
            raise NotFound("Nothing is known of it any more: what was done is told for an hour.")
        refused = await undo.deeds(conn, service_id, act, "refused", TOLD, told=True)
        stuck = await undo.deeds(conn, service_id, act, "done", TOLD, told=True)
    return page.answer(
        "act.html",
        visitor=visitor,
        act=act,
        count=count,
        words=KINDS[count.kind],
        refused=refused,
        stuck=stuck,
        most=TOLD,
        back=door.ours(request.query_params.get("back", "/dashboard/tasks")),
        at=f"/dashboard/bulk/acts/{act}",
        undoing=bool(request.query_params.get("undo")) and count.of("done") > count.stuck,
    )


@post("/dashboard/bulk/acts/{act:uuid}/{step:str}", status_code=200, include_in_schema=False)
async def go_on_with_act(
    act: FromPath[UUID],
    step: FromPath[str],
    request: AnyRequest,
    state: State,
    visitor: Who,
    engine: Machine,
) -> Response[Any]:
    """Go on with an act, or with undoing it."""
    fields = await door.own_form(request, state, visitor)
    if step not in ("on", "undo"):
        raise NotFound("There is no such page.")
    service_id, back = visitor.service.id, door.ours(fields.get("back", "/dashboard/tasks"))
    async with engine.database.api.begin() as conn:
        before = await undo.count(conn, service_id, act)
        if before is None:
            raise NotFound("It cannot be undone any more: that is so an hour later.")
        many = before.total > 1
        if step == "undo" and fields.get("again"):
            await undo.forget_refusals(conn, service_id, act)
        if step == "undo" and many and before.kind in undoing.UNDOES:
            what, now = f"undo: {before.kind}", utc(engine.clock.now_ms())
            await _tell(conn, visitor, what, before.of("done"), now)
    service = _of(visitor, act) if many else visitor.service
    if step == "on":
        await undoing.go_on(engine, service, act)
    elif before.kind not in undoing.UNDOES:
        raise Conflict("Only a pause and a delete can be undone.")
    else:
        await undoing.take_back(engine, service, act)
    async with engine.database.api.connect() as conn:
        count = await undo.count(conn, service_id, act)
    return page.leading(_after(act, step, back, count))


def _after(act: UUID, step: str, back: str, count: Count | None) -> str:
    """Return where to go after a step of an act: to the list where all is done."""
    left = count is not None and (count.of("asked") or count.stuck)
    if count is not None:
        left = left or count.of("done" if step == "undo" else "refused")
    if not left and back.startswith("/dashboard/tasks"):
        path, _, query = back.partition("?")
        kept = "&".join(part for part in query.split("&") if part and not part.startswith("act="))
        return f"{path}?{kept}&act={act}" if kept else f"{path}?act={act}"
    more = "&undo=1" if step == "undo" else ""
    return f"/dashboard/bulk/acts/{act}?back={quote(back, safe='')}{more}"


async def noted(conn: Conn, visitor: Visitor, sent: str) -> Count | None:
    """Return what there is to note of an act above a list; None for what is none."""
    try:
        return await undo.count(conn, visitor.service.id, UUID(sent)) if sent else None
    except ValueError:
        return None


HANDLERS = (ask_about_tasks, act_on_tasks, act_on_one, show_act, go_on_with_act)

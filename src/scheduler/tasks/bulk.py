"""`POST /tasks/bulk`: many tasks in one transaction, all or none."""

import hashlib
import json
import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import islice
from typing import Any

import msgspec
from litestar import Request, post
from litestar.di import NamedDependency
from litestar.openapi import spec as openapi
from litestar.openapi.spec import (
    OpenAPIMediaType,
    OpenAPIType,
    Reference,
    RequestBody,
    Schema,
)

from scheduler import asked, audit, db, planner, planning, quotas, services, state, task
from scheduler.actions import Operation
from scheduler.clock import Slice
from scheduler.db import Conn
from scheduler.engine import Engine
from scheduler.errors import (
    DETAILS_MOST,
    Conflict,
    Detail,
    Forbidden,
    InvalidRequest,
    UserError,
    ValidationFailed,
)
from scheduler.judge import Unjudged, Verdicts
from scheduler.planning import FirstPlan, Planned
from scheduler.service import Service
from scheduler.standing import awaits
from scheduler.tasks import changes, checking, edit, model, written
from scheduler.tasks.edit import Edit
from scheduler.tasks.keeping import with_calendars_each
from scheduler.tasks.permission import check_command

MOST = 10_000
JUDGE_S = 10.0
"""CPU time that judging the rules of one body may take."""
CHECK_S = 60.0
"""How long checking the operations of one body may take."""
CHECK_AT_ONCE = 4
"""Each needs a connection for a moment; other requests need some too."""
Part = bytes | msgspec.Raw
SPACE = re.compile(r"[ \t\r\n]*")
INSERT_AT_ONCE = 50
"""Encoding the parameters of one statement holds the loop: 500 rows held it for 9 ms."""


class CreatedTasks(msgspec.Struct):
    """What a bulk create made; the ids in the order of the body."""

    created: int
    ids: list[str]


@dataclass
class Taking(openapi.Operation):
    """The operation, with the body that the handler reads by itself, a task at a time."""

    def __post_init__(self) -> None:
        """Say what the body is."""
        task_fields = Reference(ref="#/components/schemas/TaskFields")
        many = Schema(type=OpenAPIType.ARRAY, items=task_fields, max_items=MOST)
        lines = Schema(type=OpenAPIType.STRING, description="A task a line.")
        self.request_body = RequestBody(
            required=True,
            content={
                "application/json": OpenAPIMediaType(schema=many),
                "application/x-ndjson": OpenAPIMediaType(schema=lines),
            },
        )


@post("/bulk", summary="Create many tasks, all or none", operation_class=Taking)
@db.again
async def create_tasks(
    request: Request[Any, Any, Any],
    service: NamedDependency[Service],
    engine: NamedDependency[Engine],
) -> CreatedTasks:
    """Create up to 10,000 tasks: a JSON array, or a task a line as application/x-ndjson."""
    lined = "ndjson" in request.headers.get("content-type", "")
    body = await request.body()
    parts = partial(_lines, body) if lined else (await _elements(body)).__iter__
    verdicts = Verdicts(int(engine.clock.earliest_ms()))
    if _may_name(body, b"rrule"):
        await _judge(parts(), service, engine, verdicts)
    found = dict[int, list[Detail]]()
    if _may_name(body, b"endpoint"):
        found = await _check(parts(), service, engine, verdicts)
    async with engine.database.api.begin() as conn:
        now = await services.hold(conn, service.id)
        made = await _read(parts(), service, now, engine, verdicts, found)
        await quotas.check_tasks(conn, service, len(made))
        ids = [new.task.id for new in made]
        by = service.by
        if len(ids) > 1:
            await audit.write(conn, service.id, by, [changes.created_many(len(ids))], db.utc(now))
            by = msgspec.structs.replace(by, act=uuid.uuid4())
        service = msgspec.structs.replace(service, by=by)
        earliest = await _write(conn, service, made, now, engine.window_ms)
    engine.wake(earliest)
    return CreatedTasks(len(ids), ids)


def _lines(body: bytes) -> Iterator[bytes]:
    """Yield the lines that hold something, from the first character that is no white space."""
    return (found[0] for found in re.finditer(rb"\S[^\n]*", body))


async def _elements(body: bytes) -> list[msgspec.Raw]:
    """Return the texts of a JSON array's elements: its values are read one at a time, later."""
    try:
        return asked.body(body, list[msgspec.Raw])
    except InvalidRequest as e:
        place = await _broken(body)
        raise e if place is None else _refused(place, e) from None


async def _broken(body: bytes) -> int | None:
    """Return the place at which a JSON array breaks off; None where it is no array, or whole."""
    text, turn = body.decode("utf-8", "replace"), Slice()
    decoder = json.JSONDecoder(parse_constant=_no_number)
    at = _past_space(text, 0)
    if text[at : at + 1] != "[":
        return None
    for place in range(MOST):
        try:
            _, at = decoder.raw_decode(text, _past_space(text, at + 1))
        except (ValueError, RecursionError):
            return place
        at = _past_space(text, at)
        if text[at : at + 1] != ",":
            return None if text[at : at + 1] == "]" else place + 1
        await turn.give_way()
    return None


def _no_number(word: str) -> float:
    raise ValueError(word)  # NaN, Infinity: the decoder of the standard library takes them


def _past_space(text: str, at: int) -> int:
    found = SPACE.match(text, at)
    return found.end() if found else at


def _refused(place: int, e: InvalidRequest) -> InvalidRequest:
    return InvalidRequest(f"[{place}] {e.message.removeprefix('the body ')}")


def _may_name(part: bytes, word: bytes) -> bool:
    """Say whether a word may be in a part of the body: its letters may be escaped."""
    return word in part or b"\\u00" in part


async def _judge(
    parts: Iterator[Part], service: Service, engine: Engine, verdicts: Verdicts
) -> None:
    """Have the rules of the parts judged, equal ones once. Raises where they take too long.

    All else that is wrong with the parts is found, and said, when they are read.
    """
    turn, most = Slice(), engine.settings.tasks
    for place, part in enumerate(islice(parts, MOST)):
        await turn.give_way()
        if not _may_name(bytes(part), b"rrule"):
            continue
        try:
            edit.new_task(model.read_fields(part), service.id, verdicts.now, most, None, verdicts)
        except Unjudged as e:
            ask = e.ask
        except UserError:
            continue
        else:
            continue
        await verdicts.hear(engine.judge, service.id, ask)
        if verdicts.cpu_s > JUDGE_S:
            message = f"the rules up to here take more than {JUDGE_S:.0f} s of CPU time; send fewer"
            raise ValidationFailed.of(f"[{place}].rrule", message)


async def _check(
    parts: Iterator[Part], service: Service, engine: Engine, verdicts: Verdicts
) -> dict[int, list[Detail]]:
    """Map the places of operations to what is wrong with them. Raises where that takes too long.

    All else that is wrong with the parts is found, and said, when they are read.
    """
    turn, most, until = Slice(), engine.settings.tasks, time.monotonic() + CHECK_S
    found, some = dict[int, list[Detail]](), dict[int, Operation]()
    same, alike = dict[bytes, int](), dict[int, int]()
    """The place of the first of equal operations, by its hash, and by the places of the others."""
    for place, part in enumerate(islice(parts, MOST)):
        await turn.give_way()
        if not _may_name(bytes(part), b"endpoint"):
            continue
        try:
            fields = model.read_fields(part)
            made = edit.new_task(fields, service.id, verdicts.now, most, None, verdicts)
        except (UserError, Unjudged):
            continue
        if isinstance(made.task.action, Operation):
            text = msgspec.json.encode(made.task.action)
            first = same.setdefault(hashlib.sha256(text).digest(), place)
            if first == place:
                some[place] = made.task.action
            else:
                alike[place] = first
        if len(some) == CHECK_AT_ONCE:
            await _check_some(some, found, service, engine)
            if time.monotonic() > until:
                message = f"the operations up to here take more than {CHECK_S:.0f} s; send fewer"
                raise ValidationFailed.of(f"[{place}].endpoint", message)
    await _check_some(some, found, service, engine)
    return found | {place: found[first] for place, first in alike.items()}


async def _check_some(
    some: dict[int, Operation], found: dict[int, list[Detail]], service: Service, engine: Engine
) -> None:
    wrong = await checking.found(engine.runner, service.id, list(some.values()))
    found |= zip(some, wrong, strict=True)
    some.clear()


async def _read(
    parts: Iterator[Part],
    service: Service,
    now: int,
    engine: Engine,
    verdicts: Verdicts,
    found: Mapping[int, Sequence[Detail]],
) -> list[Edit]:
    """Return what each part makes. Raises ValidationFailed with everything that is wrong.

    `found` is what is wrong with operations, by the place of each.
    """
    turn, made, wrong = Slice(), list[Edit](), list[Detail]()
    most, vault = engine.settings.tasks, engine.database.vault
    places: dict[str, int] = {}
    for place, part in enumerate(parts):
        if place >= MOST:
            raise ValidationFailed.of("body", f"holds more than {MOST} tasks; send several")
        try:
            fields = model.read_fields(part)
            new = edit.new_task(fields, service.id, now, most, vault, verdicts)
            written.check_known(engine, new.task)
            check_command(new.task, service, engine.settings.commands)
        except ValidationFailed as e:
            wrong += [_placed(place, detail) for detail in e.details]
        except InvalidRequest as e:
            raise _refused(place, e) from None
        except Forbidden as e:
            raise Forbidden(f"[{place}]: {e.message}") from None
        else:
            before = places.setdefault(new.task.id, place)
            if before != place:
                wrong.append(Detail(f"[{place}].id", f"is the id of [{before}] too"))
            # In the order of the body: the last is the newest.
            at = new.task.created_at + timedelta(microseconds=place)
            new.task = msgspec.structs.replace(new.task, created_at=at, updated_at=at)
            made.append(new)
            wrong += [_placed(place, detail) for detail in found.get(place, ())]
        if len(wrong) >= DETAILS_MOST:
            break
        await turn.give_way()
    if wrong:
        raise ValidationFailed.all(wrong)
    return made


def _placed(place: int, detail: Detail) -> Detail:
    field = f"[{place}]" if detail.field == "body" else f"[{place}].{detail.field}"
    return Detail(field, detail.message)


async def _write(
    conn: Conn, service: Service, made: list[Edit], now: int, window_ms: int
) -> int | None:
    """Insert tasks, their plans and their first runs; return the earliest instant (ms).

    `made` is used up piece by piece: to let go of ten thousand at once would hold the loop, too.
    """
    turn, earliest = Slice(), list[int]()
    places = {new.task.id: place for place, new in enumerate(made)}
    await turn.give_way()
    # In one order, whatever that of the body: two at once wait for each other, and not in a ring.
    ordered = sorted(places)
    await turn.give_way()
    left = dict(zip(places, made, strict=True))
    made.clear()
    for start in range(0, len(ordered), INSERT_AT_ONCE):
        await turn.give_way()
        some = [left.pop(task_id) for task_id in ordered[start : start + INSERT_AT_ONCE]]
        await _check_free(conn, service, some, places)
        await _keep_clear(conn, some, places)
        plans, standing = list[FirstPlan](), list[state.Row]()
        for new in some:
            first = planning.first_plan(new.task, now, window_ms=window_ms, at_once=new.at_once)
            plans.append(first)
            standing.append(_standing(new, now, first.planned))
            earliest += [run.at for run in first.runs[:1]]
            await turn.give_way()
        tasks = [new.task for new in some]
        await task.create_many(conn, tasks)
        await audit.created(conn, service.id, service.by, tasks, db.utc(now))
        await state.create(conn, standing)
        await planner.create_many(conn, plans, now)
    return min(earliest, default=None)


def _standing(new: Edit, now: int, planned: Planned) -> state.Row:
    pending = awaits(new.task, now, planned, at_once=new.at_once)
    return state.Row(new.task.line, new.task.created_at, pending)


async def _check_free(
    conn: Conn, service: Service, some: Sequence[Edit], places: dict[str, int]
) -> None:
    taken = await task.taken(conn, service.id, [new.task.id for new in some])
    if taken:
        first = min(taken, key=places.__getitem__)
        raise Conflict(f"[{places[first]}]: there is a task {first} already")


async def _keep_clear(conn: Conn, some: Sequence[Edit], places: dict[str, int]) -> None:
    """Have tasks keep clear of the calendars that they name. Raises ValidationFailed."""
    fields = {new.task.id: f"[{places[new.task.id]}].calendars" for new in some}
    found = await with_calendars_each(conn, [new.task for new in some], fields)
    for new, of in zip(some, found, strict=True):
        new.task = of
